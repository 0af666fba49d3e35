// The functions that inference needs on vectors, for the instruction set the
// including file names. All exponentials are powers of 2.
#pragma once

#include "simd.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

constexpr float kLn2 = 0.693147181f, kLog2e = 1.44269504f;

// 2^x = scale * (1 + tail), for x <= 127; below -126.5 the scale is 0.
inline ExpParts power_parts(FloatVec x) {
  const FloatVec lowest = broadcast(-127.0f);
  x = lowest > x ? lowest : x;
  const FloatVec magic = broadcast(12582912.0f);  // rounds to an integer
  const FloatVec shifted = x + magic;
  const FloatVec r = x - (shifted - magic);
  FloatVec q = broadcast(1.54673399e-04f);  // as in exp_parts()
  q = q * r + 1.33867375e-03f;
  q = q * r + 9.61804082e-03f;
  q = q * r + 5.55036985e-02f;
  q = q * r + 2.40226507e-01f;
  q = q * r + kLn2;
  return {(FloatVec)(((IntVec)shifted << 23) + (127 << 23)), q * r};
}

// log2(1 + 2^x)
inline FloatVec softplus2(FloatVec x) {
  const FloatVec zero = {};
  const FloatVec negative = (FloatVec)((IntVec)x | INT32_MIN);  // -|x|
  const ExpParts e = power_parts(negative);
  const FloatVec t = e.scale * e.tail + e.scale;
  FloatVec q = broadcast(-4.93992822e-03f);  // as in log1p()
  q = q * t + 2.98321107e-02f;
  q = q * t - 8.44663768e-02f;
  q = q * t + 1.55367160e-01f;
  q = q * t - 2.22277859e-01f;
  q = q * t + 2.84398918e-01f;
  q = q * t - 3.60124469e-01f;
  q = q * t + 4.80862073e-01f;
  q = q * t - 7.21346704e-01f;
  q = q * t + kLog2e;
  return q * t + (x > zero ? x : zero);
}

// x / (1 + exp(-x))
inline FloatVec silu(FloatVec x) {
  const FloatVec highest = broadcast(126.0f);
  FloatVec y = x * -kLog2e;
  y = highest < y ? highest : y;
  const ExpParts e = power_parts(y);
  return x / (e.scale * e.tail + (e.scale + 1.0f));
}

inline FloatVec relu(FloatVec x) {
  const FloatVec zero = {};
  return x < zero ? zero : x;  // a NaN stays
}

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
