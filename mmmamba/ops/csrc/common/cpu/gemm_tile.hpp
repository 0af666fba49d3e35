// The register tile of a matrix product, for the instruction set that the
// including file names.
#pragma once

#include "gemm_words_impl.hpp"

namespace mmmamba::MMMAMBA_ISA {

// A tile is MR rows by NR columns. Its sums, a row of the weight and an element
// of x fit into the registers: 32 with AVX-512, else 16.
constexpr int kMR = MMMAMBA_SIMD_BYTES == 64 ? 8 : 6;
constexpr int kNRVectors = MMMAMBA_SIMD_BYTES == 64 ? 3 : 2;
constexpr int kNR = kNRVectors * kLanes<float>;

// Some columns of a weight, in words.
struct Columns {
  const float* data;
  int64_t stride;  // between rows
};

template <int kRows, int kVectors, Precision kPrecision = Precision::kFloat>
struct Tile {
  SumVec<kPrecision> at[kRows][kVectors];

  Tile& operator+=(const Tile& other) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v] += other.at[r][v];
    return *this;
  }
};

// tile += x * weight, over `in` words of rows of x.
template <int kRows, int kVectors, Precision kPrecision>
MMMAMBA_INLINE inline void accumulate(Tile<kRows, kVectors, kPrecision>& tile,
                                      const float* x, int64_t x_stride,
                                      Columns weight, int64_t in) {
  for (int64_t i = 0; i < in; ++i, weight.data += weight.stride) {
    FloatVec w[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      w[v] = load(weight.data + v * kLanes<float>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const FloatVec word = broadcast_word<kPrecision>(x + r * x_stride + i);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        multiply_add<kPrecision>(tile.at[r][v], word, w[v]);
    }
  }
}

}  // namespace mmmamba::MMMAMBA_ISA
