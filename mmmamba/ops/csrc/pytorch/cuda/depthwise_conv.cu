#include "../../common/cuda/depthwise_conv.cuh"

#include "inference.cuh"

namespace mmmamba::cuda {
namespace {

Act act_of(c10::string_view act) {
  if (act == "relu") return Act::kRelu;
  return act == "silu" ? Act::kSilu : Act::kNone;
}

void depthwise_conv(const DepthwiseConv& in, const Tensor& y) {
  const auto dtype = in.x.scalar_type();
  const Tensor x = channels_last(in.x, dtype),
               weight = parameter(in.weight, dtype),
               bias = parameter(in.bias, dtype);
  dispatch("depthwise_conv", x, [&](auto type) {
    using T = decltype(type);
    DepthwiseConvArgs<T> op{};
    op.batch = x.size(0);
    op.height = x.size(1);
    op.width = x.size(2);
    op.channels = x.size(3);
    op.x = view<Map<const T>>(x);
    op.weight = values<T>(weight);
    op.bias = values<T>(bias);
    op.act = act_of(in.act);
    op.y = view<Map<T>>(y);
    depthwise_conv(op, weight.size(0), in.stride,
                   launch_tasks<kConvThreads>("depthwise_conv"));
  });
}

MMMAMBA_INFERENCE_OP_ON(CUDA, depthwise_conv, DepthwiseConv)

}  // namespace
}  // namespace mmmamba::cuda
