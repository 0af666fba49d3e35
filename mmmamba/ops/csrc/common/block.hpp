// The parameters of a block by name, in the order of the op's inputs; the
// Python side is mmmamba/ops/block.py. A tensor is one of any runtime.
#pragma once

#include <optional>
#include <utility>

namespace mmmamba {

// Of a convolution or of a linear layer.
template <typename Tensor>
struct LayerParameters {
  const Tensor &weight, &bias;
};

template <typename Tensor>
struct FFNParameters {
  const Tensor &weight1, &bias1, &weight2, &bias2;
};

template <typename Tensor>
struct SSMParameters {
  const Tensor &in_weight, &in_bias, &conv_weight, &conv_bias, &x_proj,
      &dt_weight, &dt_bias, &A, &D, &norm_weight, &norm_bias, &out_weight,
      &out_bias;
};

template <typename Tensor>
struct LocalParameters {
  const Tensor &weight, &bias, &scale, &shift;
};

template <typename Tensor>
struct BlockParameters {
  LayerParameters<Tensor> conv1;
  FFNParameters<Tensor> ffn1;
  SSMParameters<Tensor> ssm;
  const Tensor* wavelet;  // null if there is none
  std::optional<LocalParameters<Tensor>> local;
  LayerParameters<Tensor> proj;
  LayerParameters<Tensor> conv2;
  FFNParameters<Tensor> ffn2;
};

// The tensors of one of these structs.
template <typename Parameters>
constexpr size_t kTensors = sizeof(Parameters) / sizeof(void*);

// So many tensors in a row as such a struct.
template <typename Parameters, typename List, size_t... I>
Parameters named(const List& list, std::index_sequence<I...>) {
  return {list[I]...};
}

template <typename Parameters, typename List>
Parameters named(const List& list) {
  return named<Parameters>(list,
                           std::make_index_sequence<kTensors<Parameters>>());
}

}  // namespace mmmamba
