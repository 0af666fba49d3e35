// The parameters of a block by name. The op has them as lists of tensors, in
// the order of these structs; the Python side is mmmamba/ops/block.py.
#pragma once

#include <optional>

#include "ops.h"

namespace mmmamba {

struct ConvParameters {
  const Tensor &weight, &bias;
};

struct LinearParameters {
  const Tensor &weight, &bias;
};

struct FfnParameters {
  const Tensor &weight1, &bias1, &weight2, &bias2;
};

struct SsmParameters {
  const Tensor &in_weight, &in_bias, &conv_weight, &conv_bias, &x_proj,
      &dt_weight, &dt_bias, &A, &D, &norm_weight, &norm_bias, &out_weight,
      &out_bias;
};

struct LocalParameters {
  const Tensor &weight, &bias, &scale, &shift;
};

template <typename Parameters, size_t... I>
Parameters named(at::TensorList list, std::index_sequence<I...>) {
  return {list[I]...};
}

// A list as a struct of references, one for each tensor.
template <typename Parameters>
Parameters named(const char* name, at::TensorList list) {
  constexpr size_t kCount = sizeof(Parameters) / sizeof(const Tensor*);
  TORCH_CHECK_VALUE(list.size() == kCount, "block: ", name, " must be ", kCount,
                    " tensors, got ", list.size());
  return named<Parameters>(list, std::make_index_sequence<kCount>());
}

struct BlockParameters {
  ConvParameters conv1;
  FfnParameters ffn1;
  SsmParameters ssm;
  const OptionalTensor& wavelet;
  std::optional<LocalParameters> local;
  LinearParameters proj;
  ConvParameters conv2;
  FfnParameters ffn2;
  double eps;

  explicit BlockParameters(const Block& in)
      : conv1(named<ConvParameters>("conv1", in.conv1)),
        ffn1(named<FfnParameters>("ffn1", in.ffn1)),
        ssm(named<SsmParameters>("ssm", in.ssm)),
        wavelet(in.wavelet),
        proj(named<LinearParameters>("proj", in.proj)),
        conv2(named<ConvParameters>("conv2", in.conv2)),
        ffn2(named<FfnParameters>("ffn2", in.ffn2)),
        eps(in.eps) {
    if (!in.local.empty())
      local.emplace(named<LocalParameters>("local", in.local));
  }
};

}  // namespace mmmamba
