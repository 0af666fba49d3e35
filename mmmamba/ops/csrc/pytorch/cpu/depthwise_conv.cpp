#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

using mmmamba::depthwise_conv::Map;

static void depthwise_conv(const DepthwiseConv& in, const Tensor& y) {
  const Tensor x = channels_last(in.x, in.x.scalar_type()),
               weight = parameter(in.weight), bias = parameter(in.bias);
  dispatch("depthwise_conv", x, [&](auto type) {
    using T = decltype(type);
    mmmamba::depthwise_conv::Args<T> args = {};
    args.batch = x.size(0);
    args.height = x.size(1);
    args.width = x.size(2);
    args.channels = x.size(3);
    args.kernel = weight.size(0);
    args.stride = in.stride;
    args.x = view<Map<const T>>(x);
    args.weight = pointer(weight);
    args.bias = pointer(bias);
    args.act = act_of({in.act.data(), in.act.size()});
    args.y = view<Map<T>>(y);
    compute(args, PyTorch());
  });
}

MMMAMBA_INFERENCE_OP_ON(CPU, depthwise_conv, DepthwiseConv)

}  // namespace mmmamba::cpu
