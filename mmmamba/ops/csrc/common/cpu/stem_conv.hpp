// What the kernel of the first convolution takes, and which instruction sets
// it exists for.
#pragma once

#include <cstdint>

#include "bfloat16.hpp"

namespace mmmamba {

// A 3x3 convolution of stride 2 with a ReLU, from a few channels to at least
// kMinChannels. T is of the maps, float or BFloat16; strides in elements.
template <typename T>
struct StemConvArgs {
  int64_t batch, in, height, width, out;
  const T* x;  // (batch, in, height, width)
  int64_t x_batch, x_channel, x_row, x_column;
  const float *weight, *bias;  // (3, 3, in, out), (out)
  T* y;  // (batch, ceil(height / 2), ceil(width / 2), out), contiguous
};

template <typename T>
struct StemConvKernels {
  // Runs the tasks [begin, end) of those that count gives.
  int64_t (*count)(const StemConvArgs<T>&);
  void (*conv)(const StemConvArgs<T>&, int64_t, int64_t);
};

namespace portable {
template <typename T>
StemConvKernels<T> stem_conv_kernels();
}
namespace avx2 {
template <typename T>
StemConvKernels<T> stem_conv_kernels();
}
namespace avx512 {
template <typename T>
StemConvKernels<T> stem_conv_kernels();
}

}  // namespace mmmamba
