// The gradient of the weight of a depthwise convolution: what its kernels take.
#pragma once

#include "depthwise_conv.hpp"

namespace mmmamba::depthwise_grad {

struct Args {
  int64_t batch, height, width, channels;
  int64_t kernel;  // 3, 5 or 7, with "same" padding and a stride of 1
  depthwise_conv::Map<const float> x, grad;
  float* result;  // (kernel, kernel, channels)
};

using Kernels = TaskKernels<Args>;

}  // namespace mmmamba::depthwise_grad

MMMAMBA_DECLARE_KERNELS(depthwise_grad, Kernels kernels())
