// CPU implementations of the channels-last ops: tensors to kernel arguments,
// and threads.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../ops.h"
#include "this_cpu.h"

namespace mmmamba {
namespace {

const ConvKernels& kernels() {
  static const ConvKernels chosen = MMMAMBA_FOR_THIS_CPU(conv_kernels());
  return chosen;
}

// A tensor whose channels are contiguous; a copy only where they are not.
Tensor channels_last(const Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat,
                   "mmmamba: maps must be float32, got ", x.scalar_type());
  return x.stride(-1) == 1 ? x : x.contiguous();
}

template <typename T = const float>
Map<T> map(const Tensor& x) {
  return {x.data_ptr<float>(), x.stride(0), x.stride(1), x.stride(2)};
}

const float* pointer(const Tensor& t) {
  return t.defined() ? t.data_ptr<float>() : nullptr;
}

Tensor parameter(const OptionalTensor& t) {
  return t ? t->to(at::kFloat).contiguous() : Tensor();
}

template <typename Args>
void run(void (*kernel)(const Args&, int64_t, int64_t), const Args& args,
         int64_t tasks) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    kernel(args, begin, end);
  });
}

Tensor depthwise_conv(const Tensor& input, const Tensor& weight,
                      const OptionalTensor& bias, int64_t stride,
                      c10::string_view act) {
  const Act activation = check_depthwise_conv(input, weight, bias, stride, act);
  const Tensor x = channels_last(input), w = parameter(weight),
               b = parameter(bias);
  const int64_t height = x.size(1), width = x.size(2), channels = x.size(3);
  const Tensor y = at::empty({x.size(0), (height + stride - 1) / stride,
                              (width + stride - 1) / stride, channels},
                             x.options());
  const ConvArgs args = {x.size(0), height,     width,   channels,
                         w.size(0), stride,     map(x),  pointer(w),
                         pointer(b), nullptr, nullptr, activation,
                         map<float>(y)};
  run(kernels().conv, args, kernels().count_conv(args));
  return y;
}

Tensor mixer_conv(const Tensor& input, const Tensor& ssm_output,
                  const OptionalTensor& wavelet_weight,
                  const OptionalTensor& local_weight,
                  const OptionalTensor& local_bias,
                  const OptionalTensor& local_scale,
                  const OptionalTensor& local_shift) {
  check_mixer_conv(input, ssm_output, wavelet_weight, local_weight, local_bias,
                   local_scale, local_shift);
  const Tensor x = channels_last(input), ssm = channels_last(ssm_output),
               wavelet = parameter(wavelet_weight),
               weight = parameter(local_weight), bias = parameter(local_bias),
               scale = parameter(local_scale), shift = parameter(local_shift);
  const Tensor y = at::empty(x.sizes(), x.options());
  const int64_t global_channels = ssm.size(3);
  const int64_t local_channels = weight.defined() ? weight.size(2) : 0;

  MixerArgs args = {};
  args.global_channels = global_channels;
  args.rest_channels = x.size(3) - global_channels - local_channels;
  args.kernel = wavelet.defined() ? wavelet.size(1) : 1;
  args.weight = pointer(wavelet);
  args.x = map(x);
  args.ssm = map(ssm);
  args.y = map<float>(y);
  args.local = {x.size(0),       x.size(1),       x.size(2),
                local_channels,  weight.defined() ? weight.size(0) : 1,
                1,               args.x,          pointer(weight),
                pointer(bias),   pointer(scale),  pointer(shift),
                Act::kLocal,     args.y};
  args.local.x.data += global_channels;
  args.local.y.data += global_channels;
  run(kernels().mixer, args, kernels().count_mixer(args));
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("depthwise_conv", depthwise_conv);
  m.impl("mixer_conv", mixer_conv);
}

}  // namespace mmmamba
