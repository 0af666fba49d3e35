// Linear layers as matrix products (GEMM): what their kernels take.
#pragma once

#include "isa.hpp"

namespace mmmamba::gemm {

// Rows of equally many contiguous elements, some distance apart.
template <typename T>
struct Matrix {
  T* data;  // null if there is none
  int64_t stride;

  T* at(int64_t row, int64_t column) const {
    return data + row * stride + column;
  }

  // The rows first, first + step, first + 2 * step, ...
  Matrix every(int64_t step, int64_t first) const {
    return {data == nullptr ? nullptr : at(first, 0), step * stride};
  }
};

// What a product multiplies, and how many of them are in a word of four bytes.
// Sums and all else are float32.
enum class Precision : int64_t { kFloat = 1, kBFloat16 = 2, kInt8 = 4 };

// The weight of a layer, (in, out). With fewer bits than float32 it is packed
// as mmmamba/ops/packed_weight.py says.
struct Weight {
  const float* data;
  Precision precision = Precision::kFloat;
};

// The product that follows. What a thread will read of its weight first is
// prefetched towards the end of this one: a network's weights are in no near
// cache when their turn comes.
struct Next {
  int64_t in, out;  // 0 if none follows
  Weight weight;
  int64_t panel;  // the thread's first
};

// y = act(x * weight + bias) + residual + shortcut, with x (rows, in).
struct Args {
  int64_t in, out;
  int64_t sample;  // rows of a sample; those of two samples never meet
  Matrix<const float> x;
  Weight weight;
  const float* bias;  // (out), or null
  bool relu;
  Matrix<const float> residual, shortcut;
  Matrix<float> y;
  Next next;
};

// A panel is some neighbouring columns of the weight.
struct Kernels {
  int64_t (*count_panels)(int64_t out);
  void (*linear)(const Args&, int64_t row_begin, int64_t row_end,
                 int64_t panel_begin, int64_t panel_end);
  // Two products in a row; what is between them is not stored as a whole.
  void (*feed_forward)(Args first, Args second, int64_t row_begin,
                       int64_t row_end);
};

}  // namespace mmmamba::gemm

MMMAMBA_DECLARE_KERNELS(gemm, Kernels kernels())
MMMAMBA_DECLARE_KERNELS_IN(avx512_vnni, gemm, Kernels kernels())
MMMAMBA_DECLARE_KERNELS_IN(avx512_dot, gemm, Kernels kernels())
