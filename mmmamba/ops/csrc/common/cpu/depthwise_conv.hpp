// What the channels-last kernels take, and which instruction sets they exist
// for. Channels are contiguous, and there are at least kMinChannels of each
// part, the widest vector: where they are no multiple of a vector, the last
// vector of a row overlaps the one before.
#pragma once

#include <cstdint>

#include "bfloat16.hpp"

namespace mmmamba {

constexpr int64_t kMinChannels = 16;

// A tensor (batch, height, width, channels); strides in elements.
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
  kLocal,  // relu(scale * relu(x) + shift)
};

// A depthwise convolution with "same" padding. T is of the maps, float or
// BFloat16; parameters and sums are float.
template <typename T>
struct ConvArgs {
  int64_t batch, height, width, channels;  // of the input
  int64_t kernel, stride;                  // 1, 3, 5 or 7; 1, or 2 for 3
  Map<const T> x;
  const float *weight, *bias;  // (kernel, kernel, channels), (channels)
  const float *scale, *shift;  // (channels), of kLocal
  Act act;
  Map<T> y;
};

// The mixer: the three parts of the channels are those of the wavelet branch,
// which may be absent, the local part and the rest.
template <typename T>
struct MixerArgs {
  ConvArgs<T> local;  // no channels if there is none
  int64_t global_channels, rest_channels;
  int64_t kernel;       // of the wavelet branch
  const float* weight;  // (4, kernel, kernel, global_channels), or null
  Map<const T> x, ssm;
  Map<T> y;
};

// Each runs the tasks [begin, end) of those that count_* gives.
template <typename T>
struct ConvKernels {
  int64_t (*count_conv)(const ConvArgs<T>&);
  void (*conv)(const ConvArgs<T>&, int64_t, int64_t);
  int64_t (*count_mixer)(const MixerArgs<T>&);
  void (*mixer)(const MixerArgs<T>&, int64_t, int64_t);
};

namespace portable {
template <typename T>
ConvKernels<T> conv_kernels();
}
namespace avx2 {
template <typename T>
ConvKernels<T> conv_kernels();
}
namespace avx512 {
template <typename T>
ConvKernels<T> conv_kernels();
}

}  // namespace mmmamba
