// The ops' schemas, their gradients, their shapes without data, and the
// (empty) Python module whose import registers them.
#include "ops.h"
#include "schema.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <Python.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/version.h>

namespace mmmamba {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// -------------------------------------------------------------- dispatching

Tensor selective_scan(const Tensor& u, const Tensor& delta, const Tensor& A,
                      const Tensor& B, const Tensor& C,
                      const OptionalTensor& D,
                      const OptionalTensor& delta_bias, bool delta_softplus) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mmmamba::selective_scan", "")
                             .typed<decltype(selective_scan)>();
  return op.call(u, delta, A, B, C, D, delta_bias, delta_softplus);
}

SelectiveGrads selective_scan_backward(
    const Tensor& grad, const Tensor& u, const Tensor& delta, const Tensor& A,
    const Tensor& B, const Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool delta_softplus) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmmamba::selective_scan_backward", "")
          .typed<decltype(selective_scan_backward)>();
  return op.call(grad, u, delta, A, B, C, D, delta_bias, delta_softplus);
}

Tensor bidirectional_scan(const Tensor& x, const Tensor& projected,
                          const Tensor& dt_weight, const Tensor& dt_bias,
                          const Tensor& A, const OptionalTensor& D) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmmamba::bidirectional_scan", "")
          .typed<decltype(bidirectional_scan)>();
  return op.call(x, projected, dt_weight, dt_bias, A, D);
}

BidirectionalGrads bidirectional_scan_backward(
    const Tensor& grad, const Tensor& x, const Tensor& projected,
    const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
    const OptionalTensor& D) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmmamba::bidirectional_scan_backward", "")
          .typed<decltype(bidirectional_scan_backward)>();
  return op.call(grad, x, projected, dt_weight, dt_bias, A, D);
}

// ---------------------------------------------------------------- gradients

OptionalTensor optional(const Tensor& t) {
  return t.defined() ? OptionalTensor(t) : OptionalTensor();
}

// An absent input has no gradient.
Tensor unless_absent(const Tensor& grad, const Tensor& input) {
  return input.defined() ? grad : Tensor();
}

struct SelectiveScan : torch::autograd::Function<SelectiveScan> {
  static Tensor forward(AutogradContext* ctx, const Tensor& u,
                        const Tensor& delta, const Tensor& A, const Tensor& B,
                        const Tensor& C, const OptionalTensor& D,
                        const OptionalTensor& delta_bias,
                        bool delta_softplus) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({u, delta, A, B, C, D.value_or(Tensor()),
                            delta_bias.value_or(Tensor())});
    ctx->saved_data["delta_softplus"] = delta_softplus;
    return selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& D = saved[5];
    const auto& delta_bias = saved[6];
    const auto [u, delta, A, B, C, skip, bias] = selective_scan_backward(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
        optional(D), optional(delta_bias),
        ctx->saved_data["delta_softplus"].toBool());
    return {u,
            delta,
            A,
            B,
            C,
            unless_absent(skip, D),
            unless_absent(bias, delta_bias),
            Variable()};
  }
};

struct BidirectionalScan : torch::autograd::Function<BidirectionalScan> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x,
                        const Tensor& projected, const Tensor& dt_weight,
                        const Tensor& dt_bias, const Tensor& A,
                        const OptionalTensor& D) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward(
        {x, projected, dt_weight, dt_bias, A, D.value_or(Tensor())});
    return bidirectional_scan(x, projected, dt_weight, dt_bias, A, D);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& D = saved[5];
    const auto [x, projected, dt_weight, dt_bias, A, skip] =
        bidirectional_scan_backward(grads[0], saved[0], saved[1], saved[2],
                                    saved[3], saved[4], optional(D));
    return {x, projected, dt_weight, dt_bias, A, unless_absent(skip, D)};
  }
};

// Asking for a second derivative is an error rather than a silent zero.
variable_list no_second_derivative() {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, "mmmamba: the scans have no second derivative");
}

struct SelectiveScanBackward
    : torch::autograd::Function<SelectiveScanBackward> {
  static variable_list forward(AutogradContext*, const Tensor& grad,
                               const Tensor& u, const Tensor& delta,
                               const Tensor& A, const Tensor& B,
                               const Tensor& C, const OptionalTensor& D,
                               const OptionalTensor& delta_bias,
                               bool delta_softplus) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [u_, delta_, A_, B_, C_, D_, bias_] = selective_scan_backward(
        grad, u, delta, A, B, C, D, delta_bias, delta_softplus);
    return {u_, delta_, A_, B_, C_, D_, bias_};
  }
  static variable_list backward(AutogradContext*, variable_list) {
    return no_second_derivative();
  }
};

struct BidirectionalScanBackward
    : torch::autograd::Function<BidirectionalScanBackward> {
  static variable_list forward(AutogradContext*, const Tensor& grad,
                               const Tensor& x, const Tensor& projected,
                               const Tensor& dt_weight, const Tensor& dt_bias,
                               const Tensor& A, const OptionalTensor& D) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [x_, projected_, weight_, bias_, A_, D_] =
        bidirectional_scan_backward(grad, x, projected, dt_weight, dt_bias, A,
                                    D);
    return {x_, projected_, weight_, bias_, A_, D_};
  }
  static variable_list backward(AutogradContext*, variable_list) {
    return no_second_derivative();
  }
};

Tensor selective_scan_autograd(const Tensor& u, const Tensor& delta,
                               const Tensor& A, const Tensor& B,
                               const Tensor& C, const OptionalTensor& D,
                               const OptionalTensor& delta_bias,
                               bool delta_softplus) {
  return SelectiveScan::apply(u, delta, A, B, C, D, delta_bias,
                              delta_softplus);
}

Tensor bidirectional_scan_autograd(const Tensor& x, const Tensor& projected,
                                   const Tensor& dt_weight,
                                   const Tensor& dt_bias, const Tensor& A,
                                   const OptionalTensor& D) {
  return BidirectionalScan::apply(x, projected, dt_weight, dt_bias, A, D);
}

SelectiveGrads selective_scan_backward_autograd(
    const Tensor& grad, const Tensor& u, const Tensor& delta, const Tensor& A,
    const Tensor& B, const Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool delta_softplus) {
  const auto g = SelectiveScanBackward::apply(grad, u, delta, A, B, C, D,
                                              delta_bias, delta_softplus);
  return {g[0], g[1], g[2], g[3], g[4], g[5], g[6]};
}

BidirectionalGrads bidirectional_scan_backward_autograd(
    const Tensor& grad, const Tensor& x, const Tensor& projected,
    const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
    const OptionalTensor& D) {
  const auto g = BidirectionalScanBackward::apply(grad, x, projected,
                                                  dt_weight, dt_bias, A, D);
  return {g[0], g[1], g[2], g[3], g[4], g[5]};
}

// ------------------------------------------------------------ without data

Tensor selective_scan_meta(const Tensor& u, const Tensor& delta,
                           const Tensor& A, const Tensor& B, const Tensor& C,
                           const OptionalTensor& D,
                           const OptionalTensor& delta_bias, bool) {
  check_selective_scan(u, delta, A, B, C, D, delta_bias);
  return at::empty_like(u);
}

Tensor like(const OptionalTensor& input, const Tensor& any) {
  return input ? at::empty_like(*input) : at::empty({0}, any.options());
}

SelectiveGrads selective_scan_backward_meta(
    const Tensor& grad, const Tensor& u, const Tensor& delta, const Tensor& A,
    const Tensor& B, const Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool) {
  check_selective_scan(u, delta, A, B, C, D, delta_bias);
  check_gradient(grad, u);
  return {at::empty_like(u), at::empty_like(delta), at::empty_like(A),
          at::empty_like(B), at::empty_like(C),     like(D, u),
          like(delta_bias, u)};
}

Tensor bidirectional_scan_meta(const Tensor& x, const Tensor& projected,
                               const Tensor& dt_weight, const Tensor& dt_bias,
                               const Tensor& A, const OptionalTensor& D) {
  check_bidirectional_scan(x, projected, dt_weight, dt_bias, A, D);
  return at::empty_like(x);
}

BidirectionalGrads bidirectional_scan_backward_meta(
    const Tensor& grad, const Tensor& x, const Tensor& projected,
    const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
    const OptionalTensor& D) {
  check_bidirectional_scan(x, projected, dt_weight, dt_bias, A, D);
  check_gradient(grad, x);
  return {at::empty_like(x),       at::empty_like(projected),
          at::empty_like(dt_weight), at::empty_like(dt_bias),
          at::empty_like(A),         like(D, x)};
}

Tensor depthwise_conv_meta(const Tensor& x, const Tensor& weight,
                           const OptionalTensor& bias, int64_t stride,
                           c10::string_view act) {
  check_depthwise_conv(x, weight, bias, stride, act);
  return at::empty_symint(
      {x.sym_size(0), (x.sym_size(1) + stride - 1) / stride,
       (x.sym_size(2) + stride - 1) / stride, x.sym_size(3)},
      x.options());
}

Tensor mixer_conv_meta(const Tensor& x, const Tensor& ssm,
                       const OptionalTensor& wavelet_weight,
                       const OptionalTensor& local_weight,
                       const OptionalTensor& local_bias,
                       const OptionalTensor& local_scale,
                       const OptionalTensor& local_shift) {
  check_mixer_conv(x, ssm, wavelet_weight, local_weight, local_bias,
                   local_scale, local_shift);
  return at::empty_symint(x.sym_sizes(), x.options());
}

Tensor stem_conv_meta(const Tensor& x, at::TensorList weights,
                      at::TensorList biases) {
  check_stem_conv(x, weights, biases);
  c10::SymInt height = x.sym_size(2), width = x.sym_size(3);
  for (size_t i = 0; i < weights.size(); ++i) {
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  return at::empty_symint(
      {x.sym_size(0), height, width, weights.back().sym_size(3)}, x.options());
}

Tensor scan_gate_meta(const Tensor& x, const Tensor& projected,
                      const Tensor& dt_weight, const Tensor& dt_bias,
                      const Tensor& A, const Tensor& D,
                      const Tensor& norm_weight, const Tensor& norm_bias,
                      const Tensor& z, double) {
  check_scan_gate(x, projected, dt_weight, dt_bias, A, D, norm_weight,
                  norm_bias, z);
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY(mmmamba, m) {
  const auto tags = schema_tags();
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor? D, Tensor? delta_bias, bool delta_softplus) -> Tensor",
      tags);
  m.def(
      "selective_scan_backward(Tensor grad, Tensor u, Tensor delta, Tensor A, "
      "Tensor B, Tensor C, Tensor? D, Tensor? delta_bias, "
      "bool delta_softplus) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
      tags);
  m.def(
      "bidirectional_scan(Tensor x, Tensor projected, Tensor dt_weight, "
      "Tensor dt_bias, Tensor A, Tensor? D) -> Tensor",
      tags);
  m.def(
      "bidirectional_scan_backward(Tensor grad, Tensor x, Tensor projected, "
      "Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor? D) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
      tags);
  // For inference, and so without gradients.
  m.def(
      "depthwise_conv(Tensor x, Tensor weight, Tensor? bias, int stride, "
      "str act) -> Tensor",
      tags);
  m.def(
      "mixer_conv(Tensor x, Tensor ssm, Tensor? wavelet_weight, "
      "Tensor? local_weight, Tensor? local_bias, Tensor? local_scale, "
      "Tensor? local_shift) -> Tensor",
      tags);
  m.def("stem_conv(Tensor x, Tensor[] weights, Tensor[] biases) -> Tensor",
        tags);
  m.def(
      "scan_gate(Tensor x, Tensor projected, Tensor dt_weight, "
      "Tensor dt_bias, Tensor A, Tensor D, Tensor norm_weight, "
      "Tensor norm_bias, Tensor z, float eps) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(mmmamba, Autograd, m) {
  m.impl("selective_scan", selective_scan_autograd);
  m.impl("selective_scan_backward", selective_scan_backward_autograd);
  m.impl("bidirectional_scan", bidirectional_scan_autograd);
  m.impl("bidirectional_scan_backward", bidirectional_scan_backward_autograd);
}

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("selective_scan", selective_scan_meta);
  m.impl("selective_scan_backward", selective_scan_backward_meta);
  m.impl("bidirectional_scan", bidirectional_scan_meta);
  m.impl("bidirectional_scan_backward", bidirectional_scan_backward_meta);
  m.impl("depthwise_conv", depthwise_conv_meta);
  m.impl("mixer_conv", mixer_conv_meta);
  m.impl("scan_gate", scan_gate_meta);
  m.impl("stem_conv", stem_conv_meta);
}

}  // namespace mmmamba

// Read from the file, without loading it, by mmmamba/ops/backend.py.
extern "C" __attribute__((visibility("default"), used))
const char mmmamba_torch_version[] = "mmmamba built for torch " TORCH_VERSION;

PyMODINIT_FUNC PyInit__ext() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_ext"};
  return PyModule_Create(&definition);
}
