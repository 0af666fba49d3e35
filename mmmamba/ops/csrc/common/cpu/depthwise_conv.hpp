// Depthwise convolutions of channels-last maps: what their kernels take.
#pragma once

#include "isa.hpp"

namespace mmmamba::depthwise_conv {

// A tensor (batch, height, width, channels) with contiguous channels, at least
// kMinChannels of them; strides in elements.
template <typename T>
struct Map {
  T* data;
  int64_t batch, row, pixel;

  T* at(int64_t b, int64_t y) const { return data + b * batch + y * row; }
};

enum class Act {
  kNone,
  kRelu,
  kSilu,
  kLocal,  // relu(scale * relu(x) + shift), of the mixer
};

// A convolution with "same" padding. T is the type of the maps, float or
// BFloat16; parameters and sums are float.
template <typename T>
struct Args {
  int64_t batch, height, width, channels;  // of the input
  int64_t kernel, stride;                  // 1, 3, 5 or 7; 1, or 2 for 3
  Map<const T> x;
  const float *weight, *bias;  // (kernel, kernel, channels), (channels)
  const float *scale, *shift;  // (channels), of kLocal
  Act act;
  Map<T> y;
};

template <typename T>
using Kernels = TaskKernels<Args<T>>;

}  // namespace mmmamba::depthwise_conv

MMMAMBA_DECLARE_KERNELS(depthwise_conv,
                        template <typename T> Kernels<T> kernels())
