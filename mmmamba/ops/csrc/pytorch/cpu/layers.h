// What ops of several layers are composed of, and how threads share the
// samples. Layers write to memory that is in use where they can: what a few
// samples take is little more than the nearer caches hold.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>

#include "inference.h"

namespace mmmamba {
namespace cpu {

inline void check_map(const char* op, const Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4, op, ": x must be (B, H, W, C), it has ",
                    x.dim(), " dimensions");
}

inline void check_group(const char* op, const char* name, at::TensorList p,
                        size_t count) {
  TORCH_CHECK_VALUE(p.size() == count, op, ": ", name, " must be ", count,
                    " tensors, got ", p.size());
}

// The dimensions of a parameter whose sizes are asked for.
inline void check_dim(const char* op, const char* name, const Tensor& t,
                      int64_t dim) {
  TORCH_CHECK_VALUE(t.dim() == dim, op, ": ", name, " must have ", dim,
                    " dimensions, it has ", t.dim());
}

// Pixels that go through the layers together, or more: as many as the matrix
// products need for their full speed.
constexpr int64_t kPixels = 280;

// Calls an op, which the profiler names, as it does those that Python calls.
template <typename... Parameters, typename... Args>
void call(const char* name, void (*op)(Parameters...), Args&&... args) {
  RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>());
  op(std::forward<Args>(args)...);
}

inline Tensor empty(const Tensor& like, int64_t channels) {
  auto shape = like.sizes().vec();
  shape.back() = channels;
  return at::empty(shape, like.options());
}

inline Tensor product(const Tensor& x, const Tensor& weight,
                      const OptionalTensor& bias, bool relu = false) {
  check_dim("linear", "weight", weight, 2);
  const Tensor y = empty(x, weight.size(1));
  call("mmmamba::linear", linear, y, x, weight, bias, relu, OptionalTensor());
  return y;
}

inline void conv(const Tensor& y, const Tensor& x, at::TensorList p,
                 c10::string_view act, int64_t stride = 1) {
  call("mmmamba::depthwise_conv", depthwise_conv, y, x, p[0], p[1], stride,
       act);
}

inline void ffn(const Tensor& y, const Tensor& x, at::TensorList p,
                const OptionalTensor& shortcut = {}) {
  call("mmmamba::feed_forward", feed_forward, y, x, p[0], p[1], p[2], p[3],
       shortcut);
}

// Calls work(begin, count) for a few samples of a thread at a time, or once for
// all, of which the threads then share the pixels of each layer: where they
// have not enough samples of their own.
template <typename Work>
void for_samples(int64_t batch, int64_t pixels, Work work) {
  const int64_t threads = at::get_num_threads();
  if (batch % threads != 0 || batch / threads * pixels < kPixels / 2)
    return work(0, batch);
  at::parallel_for(0, batch, batch / threads, [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const int64_t count = end - begin;
    const int64_t parts = std::max<int64_t>(count * pixels / kPixels, 1);
    const int64_t step = (count + parts - 1) / parts;
    for (; begin < end; begin += step)
      work(begin, std::min(step, end - begin));
  });
}

}  // namespace cpu
}  // namespace mmmamba
