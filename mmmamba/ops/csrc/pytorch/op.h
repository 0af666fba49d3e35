// What every op is made of: its inputs as one struct, and how the dispatcher
// calls a function that takes them.
#pragma once

// Not ATen.h, with the thousands of operators of PyTorch: it takes half of the
// time that a file needs to compile.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>
#include <torch/version.h>

#include <vector>

namespace mmmamba {

using at::Tensor;
using OptionalTensor = c10::optional<Tensor>;  // std's since PyTorch 2.4

// The tags of all schemas.
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 2
inline const std::vector<at::Tag> kTags = {};
#else
inline const std::vector<at::Tag> kTags = {at::Tag::pt2_compliant_tag};
#endif

// A parameter as kernels take it; undefined if it is absent. Asks before it
// converts, which would take microseconds of a small network's time.
inline Tensor parameter(const OptionalTensor& t,
                        at::ScalarType dtype = at::kFloat) {
  if (!t) return Tensor();
  if (t->scalar_type() == dtype && t->is_contiguous()) return *t;
  return t->to(dtype).contiguous();
}

// How many numbers of the weight of a linear layer are in four bytes; with
// several it is packed (mmmamba/ops/packed_weight.py).
inline int64_t numbers_in_word(const Tensor& t) {
  return t.scalar_type() == at::kShort  ? 2
         : t.scalar_type() == at::kChar ? 4
                                        : 1;
}

inline bool is_packed(const Tensor& t) { return numbers_in_word(t) > 1; }

// The weight of a linear layer as kernels take it.
inline Tensor weight_parameter(const Tensor& t) {
  return is_packed(t) ? t.contiguous() : parameter(t);
}

// The dispatcher passes the inputs of an op one by one, as its Signature has
// them. Function<Signature, f>::call passes them on to f as one struct.
template <typename Signature, auto kFunction>
struct Function;

template <typename Result, typename... Inputs, auto kFunction>
struct Function<Result(Inputs...), kFunction> {
  static Result call(Inputs... inputs) { return kFunction({inputs...}); }

  // For the backward of an op, which takes the gradient first.
  static auto backward(const Tensor& grad, Inputs... inputs) {
    return kFunction(grad, {inputs...});
  }
};

}  // namespace mmmamba
