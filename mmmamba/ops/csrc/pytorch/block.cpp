#include "../common/rules.hpp"
#include "inference.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// A list by names; raises ValueError where it has another length.
template <template <typename> class Parameters>
Parameters<Tensor> checked(const char* name, at::TensorList list) {
  constexpr size_t kCount = kTensors<Parameters<Tensor>>;
  TORCH_CHECK_VALUE(list.size() == kCount, "block: ", name, " must be ", kCount,
                    " tensors, got ", list.size());
  return named<Parameters<Tensor>>(list);
}

BlockParameters<Tensor> parameters_of(const Block& in) {
  BlockParameters<Tensor> p = {
      checked<LayerParameters>("conv1", in.conv1),
      checked<FFNParameters>("ffn1", in.ffn1),
      checked<SSMParameters>("ssm", in.ssm),
      in.wavelet ? &*in.wavelet : nullptr,
      std::nullopt,
      checked<LayerParameters>("proj", in.proj),
      checked<LayerParameters>("conv2", in.conv2),
      checked<FFNParameters>("ffn2", in.ffn2),
  };
  if (!in.local.empty())
    p.local.emplace(checked<LocalParameters>("local", in.local));
  return p;
}

}  // namespace

// The ops that a block is made of do not check the inputs again.
Tensor result(const Block& in) {
  Shapes shapes("block");
  check_block(shapes, in.x, parameters_of(in));
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(
    block, Block,
    "(Tensor x, Tensor[] conv1, Tensor[] ffn1, Tensor[] ssm, "
    "Tensor? wavelet, Tensor[] local, Tensor[] proj, Tensor[] conv2, "
    "Tensor[] ffn2, float eps) -> Tensor")

}  // namespace mmmamba
