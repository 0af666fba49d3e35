#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

static void mixer_conv(const MixerConv& in, const Tensor& y) {
  const auto dtype = in.x.scalar_type();
  const Tensor x = channels_last(in.x, dtype),
               ssm = channels_last(in.ssm, dtype),
               wavelet = parameter(in.wavelet_weight),
               weight = parameter(in.local_weight),
               bias = parameter(in.local_bias),
               scale = parameter(in.local_scale),
               shift = parameter(in.local_shift);
  dispatch("mixer_conv", x, [&](auto type) {
    using T = decltype(type);
    using mmmamba::mixer_conv::Map;
    mmmamba::mixer_conv::Args<T> args = {};
    args.x = view<Map<const T>>(x);
    args.ssm = view<Map<const T>>(ssm);
    args.y = view<Map<T>>(y);
    args.weight = pointer(wavelet);
    args.kernel = wavelet.defined() ? wavelet.size(1) : 1;
    args.global_channels = ssm.size(3);

    auto& local = args.local;
    local.batch = x.size(0);
    local.height = x.size(1);
    local.width = x.size(2);
    local.channels = weight.defined() ? weight.size(2) : 0;
    local.kernel = weight.defined() ? weight.size(0) : 1;
    local.stride = 1;
    local.x = args.x;
    local.x.data += args.global_channels;
    local.weight = pointer(weight);
    local.bias = pointer(bias);
    local.scale = pointer(scale);
    local.shift = pointer(shift);
    local.act = mmmamba::depthwise_conv::Act::kLocal;
    local.y = args.y;
    local.y.data += args.global_channels;
    args.rest_channels = x.size(3) - args.global_channels - local.channels;
    compute(args, PyTorch());
  });
}

MMMAMBA_INFERENCE_OP_ON(CPU, mixer_conv, MixerConv)

}  // namespace mmmamba::cpu
