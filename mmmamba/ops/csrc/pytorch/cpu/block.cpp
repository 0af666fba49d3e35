#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

static void block(const Block& in, const Tensor& y) {
  TORCH_CHECK_TYPE(in.x.scalar_type() == at::kFloat,
                   "block: x must be float32, got ", in.x.scalar_type());
  std::vector<Tensor> kept_alive;
  std::vector<Array> parameters;
  const auto add = [&](const Tensor& t) {
    kept_alive.push_back(weight_parameter(t));
    const Tensor& kept = kept_alive.back();
    parameters.push_back({weight_of(kept).data, kept.sizes().data(),
                          kept.sizes().size(), numbers_in_word(kept)});
  };
  const auto add_all = [&](at::TensorList list) {
    for (const Tensor& t : list) add(t);
  };
  add_all(in.conv1);
  add_all(in.ffn1);
  add_all(in.ssm);
  if (in.wavelet)
    add(*in.wavelet);
  else
    parameters.emplace_back();
  add_all(in.local);
  if (in.local.empty()) parameters.resize(parameters.size() + 4);
  add_all(in.proj);
  add_all(in.conv2);
  add_all(in.ffn2);
  const Tensor x = in.x.contiguous();
  const Array map = {pointer(x), x.sizes().data(), 4};
  compute(block_args(map, block_parameters(parameters.data()),
                     static_cast<float>(in.eps), pointer(y)),
          PyTorch());
}

MMMAMBA_INFERENCE_OP_ON(CPU, block, Block)

}  // namespace mmmamba::cpu
