#include "../../common/cuda/mixer_conv.cuh"

#include "inference.cuh"

namespace mmmamba::cuda {
namespace {

void mixer_conv(const MixerConv& in, const Tensor& y) {
  const auto dtype = in.x.scalar_type();
  const Tensor x = channels_last(in.x, dtype),
               ssm = channels_last(in.ssm, dtype),
               wavelet = parameter(in.wavelet_weight, dtype),
               weight = parameter(in.local_weight, dtype),
               bias = parameter(in.local_bias, dtype),
               scale = parameter(in.local_scale, dtype),
               shift = parameter(in.local_shift, dtype);
  dispatch("mixer_conv", x, [&](auto type) {
    using T = decltype(type);
    MixerConvArgs<T> op{};
    op.channels = x.size(3);
    op.global_channels = ssm.size(3);
    op.x = view<Map<const T>>(x);
    op.ssm = view<Map<const T>>(ssm);
    op.wavelet = values<T>(wavelet);
    op.y = view<Map<T>>(y);
    op.local.batch = x.size(0);
    op.local.height = x.size(1);
    op.local.width = x.size(2);
    op.local.channels = weight.defined() ? weight.size(2) : 0;
    op.local.weight = values<T>(weight);
    op.local.bias = values<T>(bias);
    op.local.scale = values<T>(scale);
    op.local.shift = values<T>(shift);
    mixer_conv(op, wavelet.defined() ? wavelet.size(1) : 0,
               weight.defined() ? weight.size(0) : 0,
               launch_tasks<kConvThreads>("mixer_conv"));
  });
}

MMMAMBA_INFERENCE_OP_ON(CUDA, mixer_conv, MixerConv)

}  // namespace
}  // namespace mmmamba::cuda
