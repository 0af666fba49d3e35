#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

static void stem_conv(const StemConv& in, const Tensor& y) {
  const Tensor& x = in.x;
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat,
                   "stem_conv: x must be float32, got ", x.scalar_type());
  std::vector<Tensor> kept_alive;
  std::vector<mmmamba::stem_conv::Layer> layers;
  int64_t channels = x.size(1);
  bool bfloat16 = false;
  for (size_t i = 0; i < in.weights.size(); ++i) {
    const Tensor weight = parameter(in.weights[i]),
                 bias = parameter(in.biases[i]);
    bfloat16 |= in.weights[i].scalar_type() == at::kBFloat16;
    kept_alive.insert(kept_alive.end(), {weight, bias});
    layers.push_back({channels, weight.size(3), pointer(weight), pointer(bias),
                      i + 1 < in.weights.size()});
    channels = weight.size(3);
  }
  mmmamba::stem_conv::Args args = {};
  args.batch = x.size(0);
  args.height = x.size(2);
  args.width = x.size(3);
  args.x = pointer(x);
  args.x_batch = x.stride(0);
  args.x_channel = x.stride(1);
  args.x_row = x.stride(2);
  args.x_column = x.stride(3);
  args.layers = layers.data();
  args.depth = static_cast<int64_t>(layers.size());
  args.y = pointer(y);
  args.bfloat16 = bfloat16;
  compute(args, PyTorch());
}

MMMAMBA_INFERENCE_OP_ON(CPU, stem_conv, StemConv)

}  // namespace mmmamba::cpu
