// The implementations that ops.cpp's schemas dispatch to, one per device.
// Shapes: batch b, directions K, channels D of one direction, state size N,
// length L, rank R of the step sizes. Inputs were checked by check_* below.
#pragma once

#include <ATen/ATen.h>

#include <tuple>

#include "../common/cpu/depthwise_conv.hpp"

namespace mmmamba {

using at::Tensor;
using OptionalTensor = c10::optional<Tensor>;  // std's since PyTorch 2.4

// Gradients in the order of the inputs; of an absent input an empty tensor.
using SelectiveGrads =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using BidirectionalGrads =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Raise ValueError or TypeError for inputs that do not fit each other.
void check_selective_scan(const Tensor& u, const Tensor& delta,
                          const Tensor& A, const Tensor& B, const Tensor& C,
                          const OptionalTensor& D,
                          const OptionalTensor& delta_bias);
void check_bidirectional_scan(const Tensor& x, const Tensor& projected,
                              const Tensor& dt_weight, const Tensor& dt_bias,
                              const Tensor& A, const OptionalTensor& D);
// The gradient that a backward is given.
void check_gradient(const Tensor& grad, const Tensor& x);
// Returns what `act` names.
Act check_depthwise_conv(const Tensor& x, const Tensor& weight,
                         const OptionalTensor& bias, int64_t stride,
                         c10::string_view act);
void check_mixer_conv(const Tensor& x, const Tensor& ssm,
                      const OptionalTensor& wavelet_weight,
                      const OptionalTensor& local_weight,
                      const OptionalTensor& local_bias,
                      const OptionalTensor& local_scale,
                      const OptionalTensor& local_shift);
void check_stem_conv(const Tensor& x, at::TensorList weights,
                     at::TensorList biases);
void check_scan_gate(const Tensor& x, const Tensor& projected,
                     const Tensor& dt_weight, const Tensor& dt_bias,
                     const Tensor& A, const Tensor& D,
                     const Tensor& norm_weight, const Tensor& norm_bias,
                     const Tensor& z);

}  // namespace mmmamba
