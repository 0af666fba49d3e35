// Tensors as kernels take them.
#pragma once

#include <utility>

#include "op.h"

namespace mmmamba {

// A tensor, if there is one: a struct of its data and of the strides of its
// first axes.
template <typename View, size_t... kAxis>
View view(const Tensor& t, std::index_sequence<kAxis...>) {
  if (!t.defined()) return {};
  return {static_cast<decltype(View::data)>(t.data_ptr()), t.stride(kAxis)...};
}

template <typename View>
View view(const Tensor& t) {
  constexpr size_t kAxes = sizeof(View) / sizeof(int64_t) - 1;
  return view<View>(t, std::make_index_sequence<kAxes>());
}

// A tensor whose channels are contiguous; a copy only where it is not.
inline Tensor channels_last(const Tensor& t, at::ScalarType dtype) {
  if (t.scalar_type() != dtype) return t.to(dtype).contiguous();
  return t.stride(-1) == 1 ? t : t.contiguous();
}

}  // namespace mmmamba
