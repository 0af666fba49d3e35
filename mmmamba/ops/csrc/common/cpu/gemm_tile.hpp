// The sums of products that registers hold, for the instruction set the
// including file names.
#pragma once

#include "simd.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// A product sums up so many rows of so many vectors at a time: with a row of
// the weight and an element of x they fit into the registers, 32 of AVX-512,
// else 16.
constexpr int kSumRows = MMMAMBA_SIMD_BYTES == 64 ? 8 : 6;
constexpr int kSumVectors = MMMAMBA_SIMD_BYTES == 64 ? 3 : 2;

constexpr int kPanel = kSumVectors * kLanes<float>;

// Some columns of a weight.
struct Columns {
  const float* data;
  int64_t stride;  // between rows
};

// The block of a product that is being summed up.
template <int kRows, int kVectors>
struct Sums {
  FloatVec at[kRows][kVectors];

  Sums& operator+=(const Sums& other) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v] += other.at[r][v];
    return *this;
  }
};

// sums += x * weight, over `in` elements of rows of x.
template <int kRows, int kVectors>
MMMAMBA_INLINE inline void accumulate(Sums<kRows, kVectors>& sums,
                                      const float* x, int64_t x_stride,
                                      Columns weight, int64_t in) {
  for (int64_t i = 0; i < in; ++i, weight.data += weight.stride) {
    FloatVec w[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      w[v] = load(weight.data + v * kLanes<float>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const FloatVec element = broadcast(x[r * x_stride + i]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums.at[r][v] += element * w[v];
    }
  }
}

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
