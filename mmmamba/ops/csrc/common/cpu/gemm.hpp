// What the kernels of matrix products take, and which instruction sets they
// exist for.
#pragma once

#include <cstdint>

namespace mmmamba {

// Rows of equally many contiguous elements, some distance apart.
template <typename T>
struct Matrix {
  T* data;
  int64_t stride;

  T* at(int64_t row, int64_t column) const {
    return data + row * stride + column;
  }
};

// y = act(x * weight + bias) + residual + shortcut
struct LinearArgs {
  int64_t in, out;
  Matrix<const float> x;
  const float *weight, *bias;            // (in, out); (out), or null
  bool relu;
  Matrix<const float> residual, shortcut;  // data may be null
  Matrix<float> y;
};

// A panel is what the columns of a product are cut into.
struct LinearKernels {
  int64_t (*count_panels)(int64_t out);
  void (*linear)(const LinearArgs&, int64_t row_begin, int64_t row_end,
                 int64_t panel_begin, int64_t panel_end);
  // Two products in a row; what is between them is not stored as a whole.
  void (*feed_forward)(LinearArgs first, LinearArgs second, int64_t row_begin,
                       int64_t row_end);
};

namespace portable {
LinearKernels linear_kernels();
}
namespace avx2 {
LinearKernels linear_kernels();
}
namespace avx512 {
LinearKernels linear_kernels();
}

}  // namespace mmmamba
