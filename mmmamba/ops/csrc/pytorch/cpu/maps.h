// Channels-last maps as the convolutions take them.
#pragma once

#include <ATen/ATen.h>

#include "../../common/cpu/depthwise_conv.hpp"

namespace mmmamba::cpu {

template <typename T>
mmmamba::depthwise_conv::Map<T> map(const at::Tensor& x) {
  return {static_cast<T*>(x.data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

}  // namespace mmmamba::cpu
