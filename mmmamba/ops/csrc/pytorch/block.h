// The parameters of a block by name. The op has them as lists of tensors, in
// the order of these structs; the Python side is mmmamba/ops/block.py.
#pragma once

#include <optional>

#include "ops.h"

namespace mmmamba {

// Of a convolution or of a linear layer.
struct LayerParameters {
  const Tensor &weight, &bias;
};

struct FFNParameters {
  const Tensor &weight1, &bias1, &weight2, &bias2;
};

struct SSMParameters {
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
  LayerParameters conv1;
  FFNParameters ffn1;
  SSMParameters ssm;
  const OptionalTensor& wavelet;
  std::optional<LocalParameters> local;
  LayerParameters proj;
  LayerParameters conv2;
  FFNParameters ffn2;
  double eps;

  explicit BlockParameters(const Block& in)
      : conv1(named<LayerParameters>("conv1", in.conv1)),
        ffn1(named<FFNParameters>("ffn1", in.ffn1)),
        ssm(named<SSMParameters>("ssm", in.ssm)),
        wavelet(in.wavelet),
        proj(named<LayerParameters>("proj", in.proj)),
        conv2(named<LayerParameters>("conv2", in.conv2)),
        ffn2(named<FFNParameters>("ffn2", in.ffn2)),
        eps(in.eps) {
    if (!in.local.empty())
      local.emplace(named<LocalParameters>("local", in.local));
  }
};

}  // namespace mmmamba
