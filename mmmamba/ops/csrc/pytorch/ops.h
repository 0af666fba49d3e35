// The inputs of the ops, by name and in the order of their schemas. What each
// of them means and its shape is in mmmamba/ops/<op>.py.
#pragma once

#include <tuple>

#include "op.h"

namespace mmmamba {

struct SelectiveScan {
  static constexpr auto kName = "mmmamba::selective_scan";
  static constexpr auto kBackward = "mmmamba::selective_scan_backward";
  using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, const OptionalTensor&,
                           const OptionalTensor&, bool);
  // In the order of the inputs; of an absent input an empty tensor.
  using Grads =
      std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

  static constexpr auto kResult = "batch KD L";

  const Tensor &u, &delta, &A, &B, &C;
  const OptionalTensor &D, &delta_bias;
  bool delta_softplus;
};

struct BidirectionalScan {
  static constexpr auto kName = "mmmamba::bidirectional_scan";
  static constexpr auto kBackward = "mmmamba::bidirectional_scan_backward";
  using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, const OptionalTensor&);
  using Grads = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

  static constexpr auto kResult = "batch D L";

  const Tensor &x, &projected, &dt_weight, &dt_bias, &A;
  const OptionalTensor& D;
};

// -------------------------------------------------------------- for inference

struct DepthwiseConv {
  using Signature = Tensor(const Tensor&, const Tensor&, const OptionalTensor&,
                           int64_t, c10::string_view);

  const Tensor &x, &weight;
  const OptionalTensor& bias;
  int64_t stride;
  c10::string_view act;
};

struct MixerConv {
  using Signature = Tensor(const Tensor&, const Tensor&, const OptionalTensor&,
                           const OptionalTensor&, const OptionalTensor&,
                           const OptionalTensor&, const OptionalTensor&);

  const Tensor &x, &ssm;
  const OptionalTensor &wavelet_weight, &local_weight, &local_bias,
      &local_scale, &local_shift;
};

struct ScanGate {
  using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, const Tensor&, double);

  const Tensor &x, &projected, &dt_weight, &dt_bias, &A, &D, &norm_weight,
      &norm_bias, &z;
  double eps;
};

struct StemConv {
  using Signature = Tensor(const Tensor&, at::TensorList, at::TensorList);

  const Tensor& x;
  at::TensorList weights, biases;
};

struct Linear {
  using Signature = Tensor(const Tensor&, const Tensor&, const OptionalTensor&,
                           bool, const OptionalTensor&);

  const Tensor &x, &weight;
  const OptionalTensor& bias;
  bool relu;
  const OptionalTensor& residual;
};

struct FeedForward {
  using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, const OptionalTensor&);

  const Tensor &x, &weight1, &bias1, &weight2, &bias2;
  const OptionalTensor& shortcut;
};

struct Block {
  using Signature = Tensor(const Tensor&, at::TensorList, at::TensorList,
                           at::TensorList, const OptionalTensor&,
                           at::TensorList, at::TensorList, at::TensorList,
                           at::TensorList, double);

  const Tensor& x;
  at::TensorList conv1, ffn1, ssm;
  const OptionalTensor& wavelet;
  at::TensorList local, proj, conv2, ffn2;
  double eps;
};

struct Stage {
  using Signature = Tensor(const Tensor&, at::TensorList, bool, bool, bool,
                           double);

  const Tensor& x;
  at::TensorList parameters;
  bool transition, wavelet, local;
  double eps;
};

}  // namespace mmmamba
