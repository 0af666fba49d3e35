// The register tile of a matrix product, for the instruction set that the
// including file names.
#pragma once

#include "simd.hpp"

namespace mmmamba::MMMAMBA_ISA {

// A tile is MR rows by NR columns. Its sums, a row of the weight and an element
// of x fit into the registers: 32 with AVX-512, else 16.
constexpr int kMR = MMMAMBA_SIMD_BYTES == 64 ? 8 : 6;
constexpr int kNRVectors = MMMAMBA_SIMD_BYTES == 64 ? 3 : 2;
constexpr int kNR = kNRVectors * kLanes<float>;

// Some columns of a weight.
struct Columns {
  const float* data;
  int64_t stride;  // between rows
};

template <int kRows, int kVectors>
struct Tile {
  FloatVec at[kRows][kVectors];

  Tile& operator+=(const Tile& other) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v] += other.at[r][v];
    return *this;
  }
};

// tile += x * weight, over `in` elements of rows of x.
template <int kRows, int kVectors>
MMMAMBA_INLINE inline void accumulate(Tile<kRows, kVectors>& tile,
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
      for (int v = 0; v < kVectors; ++v) tile.at[r][v] += element * w[v];
    }
  }
}

}  // namespace mmmamba::MMMAMBA_ISA
