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

// y = act(x * weight + bias) + residual + shortcut, with x (rows, in).
struct Args {
  int64_t in, out;
  int64_t sample;  // rows of a sample; those of two samples never meet
  Matrix<const float> x;
  const float *weight, *bias;  // (in, out); (out), or null
  bool relu;
  Matrix<const float> residual, shortcut;
  Matrix<float> y;
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
