// The stem's convolutions: cuDNN has no fast one for images of three channels.
#include "../../common/cuda/stem_conv.cuh"

#include "../../common/rules.hpp"
#include "../shapes.h"
#include "inference.cuh"

namespace mmmamba::cuda {
namespace {

// (B, 3, H, W) of any strides to (B, H', W', C), if the kernel can do it.
bool image_conv(const Tensor& x, const Tensor& weight, const Tensor& bias,
                bool relu, const Tensor& y) {
  bool done = false;
  if (x.size(1) != kImageChannels) return done;
  dispatch("stem_conv", x, [&](auto type) {
    using T = decltype(type);
    ImageConvArgs<T> op{};
    op.batch = x.size(0);
    op.height = x.size(2);
    op.width = x.size(3);
    op.channels = weight.size(3);
    op.x = view<Map<const T>>(x.permute({0, 2, 3, 1}));
    op.channel_stride = x.stride(1);
    op.weight = values<T>(weight);
    op.bias = values<T>(bias);
    op.relu = relu;
    op.y = view<Map<T>>(y);
    done = op.is_packed();
    if (done) image_conv(op, launch_tasks<kConvThreads>("stem_conv"));
  });
  return done;
}

// (B, H, W, C) to (B, H', W', C').
Tensor conv(const Tensor& x, const Tensor& weight, const Tensor& bias,
            bool relu) {
  const Tensor maps = x.permute({0, 3, 1, 2}),
               kernel = weight.permute({3, 2, 0, 1})
                            .contiguous(at::MemoryFormat::ChannelsLast);
  const Tensor y = relu ? at::cudnn_convolution_relu(maps, kernel, bias, {2, 2},
                                                     {1, 1}, {1, 1}, 1)
                        : at::conv2d(maps, kernel, bias, 2, 1);
  return y.permute({0, 2, 3, 1}).contiguous();
}

Tensor stem_conv(const StemConv& in) {
  Shapes shapes("stem_conv");
  check_stem_conv(shapes, in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const auto dtype = in.x.scalar_type();
  const auto layers = in.weights.size();
  if (in.x.numel() == 0) return result(in);
  Tensor x;
  for (size_t i = 0; i < layers; ++i) {
    const bool relu = i + 1 < layers;
    const Tensor weight = parameter(in.weights[i], dtype),
                 bias = parameter(in.biases[i], dtype);
    if (i == 0) {
      x = at::empty({in.x.size(0), (in.x.size(2) + 1) / 2,
                     (in.x.size(3) + 1) / 2, weight.size(3)},
                    in.x.options());
      if (image_conv(in.x, weight, bias, relu, x)) continue;
      x = in.x.permute({0, 2, 3, 1}).contiguous();
    }
    x = conv(x, weight, bias, relu);
  }
  return x;
}

TORCH_LIBRARY_IMPL(mmmamba, CUDA, m) {
  m.impl("stem_conv", &Function<StemConv::Signature, stem_conv>::call);
}

}  // namespace
}  // namespace mmmamba::cuda
