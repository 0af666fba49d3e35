// CPU implementations of the channels-last ops: tensors to kernel arguments,
// and threads.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../../common/cpu/scan_gate.hpp"
#include "../ops.h"
#include "this_cpu.h"

namespace mmmamba {
namespace {

const ConvKernels& conv_kernels() {
  static const auto chosen = MMMAMBA_FOR_THIS_CPU(conv_kernels());
  return chosen;
}

const ScanGateKernels& scan_gate_kernels() {
  static const auto chosen = MMMAMBA_FOR_THIS_CPU(scan_gate_kernels());
  return chosen;
}

// A tensor whose channels are contiguous; a copy only where they are not.
Tensor channels_last(const Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat,
                   "mmmamba: maps must be float32, got ", x.scalar_type());
  return x.stride(-1) == 1 ? x : x.contiguous();
}

template <typename T = const float>
Series<T> series(const Tensor& x) {
  return {x.data_ptr<float>(), x.stride(0), x.stride(1)};
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
  run(conv_kernels().conv, args, conv_kernels().count_conv(args));
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
  run(conv_kernels().mixer, args, conv_kernels().count_mixer(args));
  return y;
}

// (2, channels, n) as (2, n, channels).
Tensor channels_last_parameter(const Tensor& t) {
  return parameter(t.transpose(1, 2));
}

Tensor scan_gate(const Tensor& input, const Tensor& projections,
                 const Tensor& dt_weight, const Tensor& dt_bias,
                 const Tensor& A, const Tensor& D, const Tensor& norm_weight,
                 const Tensor& norm_bias, const Tensor& gate, double eps) {
  check_scan_gate(input, projections, dt_weight, dt_bias, A, D, norm_weight,
                  norm_bias, gate);
  const Tensor x = channels_last(input), z = channels_last(gate),
               projected = channels_last(projections),
               weight = channels_last_parameter(dt_weight),
               bias = parameter(dt_bias), skip = parameter(D),
               decay = channels_last_parameter(A.view({2, -1, A.size(1)})),
               scale = parameter(norm_weight), shift = parameter(norm_bias);
  const Tensor y = at::empty(x.sizes(), x.options());
  const ScanGateArgs args = {x.size(0),
                             x.size(1),
                             x.size(2),
                             A.size(1),
                             dt_weight.size(2),
                             series(x),
                             series(projected),
                             series(z),
                             pointer(weight),
                             pointer(bias),
                             pointer(decay),
                             pointer(skip),
                             pointer(scale),
                             pointer(shift),
                             static_cast<float>(eps),
                             series<float>(y)};
  const auto& kernels = scan_gate_kernels();
  const int64_t blocks = args.channels / kernels.lanes;
  if (args.batch % at::get_num_threads() == 0) {
    // A thread has whole samples, and finishes them while they are cached.
    at::parallel_for(0, args.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        kernels.scan(args, b * blocks, (b + 1) * blocks);
        kernels.gate(args, b * args.length, (b + 1) * args.length);
      }
    });
  } else {
    run(kernels.scan, args, args.batch * blocks);
    run(kernels.gate, args, args.batch * args.length);
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("depthwise_conv", depthwise_conv);
  m.impl("mixer_conv", mixer_conv);
  m.impl("scan_gate", scan_gate);
}

}  // namespace mmmamba
