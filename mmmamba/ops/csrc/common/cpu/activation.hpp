// The functions that inference needs on vectors, for the instruction set that
// the including file names. All exponentials are powers of 2, and the
// polynomials are as short as an error of 2e-7 allows.
#pragma once

#include "simd.hpp"

namespace mmmamba::MMMAMBA_ISA {

constexpr float kLog2e = 1.44269504f;

// The larger and the smaller of two, y if one is NaN, and x * y + z: compilers
// do not find the instructions for the first two, and not always where the
// third one is due.
#if defined(__x86_64__) && MMMAMBA_SIMD_BYTES == 64
// With a mask, of all lanes: GCC 12 warns of the form without.
inline FloatVec larger(FloatVec x, FloatVec y) {
  return _mm512_maskz_max_ps(0xFFFF, x, y);
}
inline FloatVec smaller(FloatVec x, FloatVec y) {
  return _mm512_maskz_min_ps(0xFFFF, x, y);
}
inline FloatVec multiply_add(FloatVec x, FloatVec y, FloatVec z) {
  return _mm512_fmadd_ps(x, y, z);
}
#elif defined(__x86_64__) && MMMAMBA_SIMD_BYTES == 32
inline FloatVec larger(FloatVec x, FloatVec y) { return _mm256_max_ps(x, y); }
inline FloatVec smaller(FloatVec x, FloatVec y) { return _mm256_min_ps(x, y); }
inline FloatVec multiply_add(FloatVec x, FloatVec y, FloatVec z) {
  return _mm256_fmadd_ps(x, y, z);
}
#else
inline FloatVec larger(FloatVec x, FloatVec y) { return x > y ? x : y; }
inline FloatVec smaller(FloatVec x, FloatVec y) { return x < y ? x : y; }
inline FloatVec multiply_add(FloatVec x, FloatVec y, FloatVec z) {
  return x * y + z;
}
#endif

// 2^x = 2^n * (1 + tail), n being what exponent has above the 23 lowest bits.
struct PowerParts {
  IntVec exponent;
  FloatVec tail;
};

// For |x| <= 127.
inline PowerParts power_parts(FloatVec x) {
  const FloatVec magic = broadcast(12582912.0f);  // rounds to an integer
  const FloatVec shifted = x + magic;
  const FloatVec r = x - (shifted - magic);
  FloatVec q = broadcast(1.32647273e-03f);  // minimax, 9.2e-8 of 2^x
  q = q * r + 9.67151279e-03f;
  q = q * r + 5.55073374e-02f;
  q = q * r + 2.40222421e-01f;
  q = q * r + 6.93146978e-01f;
  return {(IntVec)shifted << 23, q * r};
}

// 2^x for x <= 126; below -126 it stays at 2^-126.
inline FloatVec power(FloatVec x) {
  const PowerParts p = power_parts(larger(broadcast(-126.0f), x));
  return (FloatVec)((IntVec)(p.tail + 1.0f) + p.exponent);
}

// log2(1 + 2^x)
inline FloatVec softplus2(FloatVec x) {
  const FloatVec t = power((FloatVec)((IntVec)x | INT32_MIN));  // of -|x|
  FloatVec q = broadcast(-1.23194748e-02f);  // minimax, 1.9e-7 of the log
  q = q * t + 6.36079036e-02f;
  q = q * t - 1.55351900e-01f;
  q = q * t + 2.56009747e-01f;
  q = q * t - 3.53394843e-01f;
  q = q * t + 4.80063700e-01f;
  q = q * t - 7.21310089e-01f;
  q = q * t + 1.44269476f;
  return q * t + larger(FloatVec{}, x);
}

// x / (1 + exp(-x))
inline FloatVec silu(FloatVec x) {
  return x / (power(smaller(broadcast(126.0f), x * -kLog2e)) + 1.0f);
}

inline FloatVec relu(FloatVec x) { return larger(FloatVec{}, x); }

}  // namespace mmmamba::MMMAMBA_ISA
