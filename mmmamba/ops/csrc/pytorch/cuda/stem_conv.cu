// The stem's convolutions: cuDNN has no fast one for images of three channels.
#include "../../common/cuda/stem_conv.cuh"

#include <ATen/native/ConvUtils.h>

#include <algorithm>

#include "../../common/rules.hpp"
#include "../shapes.h"
#include "inference.cuh"

namespace mmmamba::cuda {
namespace {

// Of the maps between the convolutions, channels come in multiples of this:
// cuDNN has no fast convolutions of the 25 and 50 that MobileMamba-B4 has.
constexpr int64_t kWholeChannels = 8;

int64_t missing_channels(int64_t channels) {
  return (kWholeChannels - channels % kWholeChannels) % kWholeChannels;
}

// With zeros behind the last axes, as torch.nn.functional.pad() counts them.
Tensor padded(const Tensor& t, at::IntArrayRef pad) {
  const bool none = std::all_of(pad.begin(), pad.end(),
                                [](int64_t size) { return size == 0; });
  return none ? t : at::constant_pad_nd(t, pad);
}

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

// Whether at::conv2d() would call cuDNN, and once, and with any algorithm: that
// is what at::cudnn_convolution_relu() does.
bool is_one_call(const Tensor& maps, const Tensor& kernel, const Tensor& bias) {
  const auto& context = at::globalContext();
  if (context.deterministicCuDNN() || context.deterministicAlgorithms())
    return false;
  const auto channels = std::max(kernel.size(0), kernel.size(1));
  if (maps.numel() / maps.size(1) * channels > std::numeric_limits<int>::max())
    return false;
  return at::native::select_conv_backend(maps, kernel, bias, {2, 2}, {1, 1},
                                         {1, 1}, false, {0, 0}, 1,
                                         {}) == at::native::ConvBackend::Cudnn;
}

// Undefined if cuDNN has no engine for it on this GPU.
Tensor in_one_call(const Tensor& maps, const Tensor& kernel,
                   const Tensor& bias) {
  try {
    return at::cudnn_convolution_relu(maps, kernel, bias, {2, 2}, {1, 1},
                                      {1, 1}, 1);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    return {};
  }
}

// (B, H, W, C) to (B, H', W', C').
Tensor conv(const Tensor& x, const Tensor& weight, const Tensor& bias,
            bool relu) {
  const Tensor maps = x.permute({0, 3, 1, 2}),
               kernel = weight.permute({3, 2, 0, 1})
                            .contiguous(at::MemoryFormat::ChannelsLast);
  Tensor y;
  if (relu && is_one_call(maps, kernel, bias))
    y = in_one_call(maps, kernel, bias);
  if (!y.defined()) {
    y = at::conv2d(maps, kernel, bias, 2, 1);
    if (relu) y.relu_();
  }
  return y.permute({0, 2, 3, 1}).contiguous();
}

Tensor stem_conv(const StemConv& in) {
  Shapes shapes("stem_conv");
  check_stem_conv(shapes, in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const PlainOps plain;
  const auto dtype = in.x.scalar_type();
  const auto layers = in.weights.size();
  if (in.x.numel() == 0) return result(in);
  Tensor x;
  for (size_t i = 0; i < layers; ++i) {
    const bool first = i == 0, last = i + 1 == layers;
    const auto more_in = first ? 0 : missing_channels(in.weights[i].size(2)),
               more_out = last ? 0 : missing_channels(in.weights[i].size(3));
    const Tensor weight = padded(parameter(in.weights[i], dtype),
                                 {0, more_out, 0, more_in}),
                 bias = padded(parameter(in.biases[i], dtype), {0, more_out});
    if (first) {
      x = at::empty({in.x.size(0), (in.x.size(2) + 1) / 2,
                     (in.x.size(3) + 1) / 2, weight.size(3)},
                    in.x.options());
      if (image_conv(in.x, weight, bias, !last, x)) continue;
      x = in.x.permute({0, 2, 3, 1}).contiguous();
    }
    x = conv(x, weight, bias, !last);
  }
  return x;
}

TORCH_LIBRARY_IMPL(mmmamba, CUDA, m) {
  m.impl("stem_conv", &Function<StemConv::Signature, stem_conv>::call);
}

}  // namespace
}  // namespace mmmamba::cuda
