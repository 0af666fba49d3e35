// What follows from the inputs of a scan alone: its schemas, its gradient, and
// its results on the meta device.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

#include "scan.h"

namespace mmmamba {

template <typename Op, typename Signature = typename Op::Signature>
struct ScanOp;

template <typename Op, typename... Inputs>
struct ScanOp<Op, Tensor(Inputs...)> {
  using Context = torch::autograd::AutogradContext;
  using List = torch::autograd::variable_list;
  using Grads = typename Op::Grads;

  static Tensor call(Inputs... inputs) { return Forward::apply(inputs...); }

  static Tensor meta(Inputs... inputs) {
    check(Op{inputs...});
    return at::empty_like(first(inputs...));
  }

  static Grads backward_meta(const Tensor& grad, Inputs... inputs) {
    check_backward(grad, Op{inputs...});
    const Tensor& any = first(inputs...);
    return as_tuple({empty_like(inputs, any)...},
                    std::make_index_sequence<std::tuple_size_v<Grads>>());
  }

 private:
  template <typename... Rest>
  static const Tensor& first(const Tensor& x, const Rest&...) {
    return x;
  }

  static Tensor empty_like(const OptionalTensor& t, const Tensor& any) {
    return t ? at::empty_like(*t) : at::empty({0}, any.options());
  }
  static Tensor empty_like(bool, const Tensor&) { return {}; }

  template <typename F>
  static const auto& find(const char* name) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<F>();
    return op;
  }

  template <size_t... I>
  static Grads as_tuple(const List& grads, std::index_sequence<I...>) {
    return {grads[I]...};
  }

  // Tensors are saved, absent ones as undefined; the rest is one flag.
  static Tensor saved(Context*, const Tensor& t) { return t; }
  static Tensor saved(Context*, const OptionalTensor& t) {
    return t.value_or(Tensor());
  }
  static Tensor saved(Context* ctx, bool flag) {
    ctx->saved_data["flag"] = flag;
    return {};
  }

  template <typename T>
  static T restored(Context* ctx, const Tensor& t) {
    if constexpr (std::is_same_v<T, bool>)
      return ctx->saved_data["flag"].toBool();
    else if constexpr (std::is_same_v<T, OptionalTensor>)
      return t.defined() ? OptionalTensor(t) : OptionalTensor();
    else
      return t;
  }

  template <size_t... I>
  static Grads backward_of(Context* ctx, const Tensor& grad, const List& t,
                           std::index_sequence<I...>) {
    return find<Grads(const Tensor&, Inputs...)>(Op::kBackward)
        .call(grad, restored<std::decay_t<Inputs>>(ctx, t[I])...);
  }

  struct Forward : torch::autograd::Function<Forward> {
    static Tensor forward(Context* ctx, Inputs... inputs) {
      at::AutoDispatchBelowADInplaceOrView guard;
      ctx->save_for_backward({saved(ctx, inputs)...});
      return find<Tensor(Inputs...)>(Op::kName).call(inputs...);
    }

    static List backward(Context* ctx, List grads) {
      const List inputs = ctx->get_saved_variables();
      List result =
          std::apply([](const auto&... g) { return List{g...}; },
                     backward_of(ctx, grads[0], inputs,
                                 std::index_sequence_for<Inputs...>()));
      result.resize(inputs.size());  // a flag has no gradient
      for (size_t i = 0; i < inputs.size(); ++i)
        if (!inputs[i].defined()) result[i] = Tensor();
      return result;
    }
  };
};

}  // namespace mmmamba

// A second derivative is an error rather than a silent zero.
#define MMMAMBA_SCAN_OP(name, Op, inputs, grads)                        \
  TORCH_LIBRARY_FRAGMENT(mmmamba, m) {                                  \
    m.def(#name "(" inputs ") -> Tensor", kTags);                       \
    m.def(#name "_backward(Tensor grad, " inputs ") -> " grads, kTags); \
  }                                                                     \
  TORCH_LIBRARY_IMPL(mmmamba, Autograd, m) {                            \
    m.impl(#name, &ScanOp<Op>::call);                                   \
    m.impl(#name "_backward",                                           \
           torch::autograd::autogradNotImplementedFallback());          \
  }                                                                     \
  TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {                                \
    m.impl(#name, &ScanOp<Op>::meta);                                   \
    m.impl(#name "_backward", &ScanOp<Op>::backward_meta);              \
  }
