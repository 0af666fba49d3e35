// The mixer's convolutions: what their kernel takes.
#pragma once

#include "depthwise_conv.hpp"

namespace mmmamba::mixer_conv {

using depthwise_conv::Map;

// The channels are those of the wavelet branch, which may be absent, then those
// of the local part, then the rest. `local` has the sizes of the maps, of no
// channels if there is no local part.
template <typename T>
struct Args {
  depthwise_conv::Args<T> local;
  int64_t global_channels, rest_channels;
  int64_t kernel;       // of the wavelet branch
  const float* weight;  // (4, kernel, kernel, global_channels), or null
  Map<const T> x, ssm;
  Map<T> y;
};

template <typename T>
using Kernels = TaskKernels<Args<T>>;

}  // namespace mmmamba::mixer_conv

MMMAMBA_DECLARE_KERNELS(mixer_conv, template <typename T> Kernels<T> kernels())
