// CPU implementations of the channels-last ops: tensors to kernel arguments,
// and threads.
#include <torch/library.h>

#include <numeric>

#include "../../common/cpu/scan_gate.hpp"
#include "../../common/cpu/stem_conv.hpp"
#include "inference.h"
#include "this_cpu.h"

namespace mmmamba {
namespace {

template <typename T>
const ConvKernels<T>& conv_kernels() {
  static const auto chosen = MMMAMBA_FOR_THIS_CPU(conv_kernels<T>());
  return chosen;
}

template <typename T>
const ScanGateKernels<T>& scan_gate_kernels() {
  static const auto chosen = MMMAMBA_FOR_THIS_CPU(scan_gate_kernels<T>());
  return chosen;
}

// A tensor whose channels are contiguous, in the dtype of the maps; a copy
// only where it is not.
Tensor channels_last(const Tensor& t, at::ScalarType dtype) {
  if (t.scalar_type() != dtype) return t.to(dtype).contiguous();
  return t.stride(-1) == 1 ? t : t.contiguous();
}

template <typename T, typename Pointer = const T>
Series<Pointer> series(const Tensor& x) {
  return {static_cast<T*>(x.data_ptr()), x.stride(0), x.stride(1)};
}

template <typename T, typename Pointer = const T>
Map<Pointer> map(const Tensor& x) {
  return {static_cast<T*>(x.data_ptr()), x.stride(0), x.stride(1),
          x.stride(2)};
}

const float* pointer(const Tensor& t) {
  return t.defined() ? t.data_ptr<float>() : nullptr;
}

// Asks before it calls, which takes microseconds of a small network's time.
Tensor parameter(const OptionalTensor& t) {
  if (!t) return Tensor();
  if (t->scalar_type() == at::kFloat && t->is_contiguous()) return *t;
  return t->to(at::kFloat).contiguous();
}

// Calls body with a value of the type of the maps.
template <typename Body>
void dispatch(const Tensor& x, Body body) {
  TORCH_CHECK_TYPE(
      x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
      "mmmamba: the channels-last ops take float32 and bfloat16, got ",
      x.scalar_type());
  if (x.scalar_type() == at::kFloat)
    body(float());
  else
    body(BFloat16());
}

template <typename Args>
void run(void (*kernel)(const Args&, int64_t, int64_t), const Args& args,
         int64_t tasks) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    kernel(args, begin, end);
  });
}

Tensor transposed_decay(const Tensor& A) {
  return A.reshape({2, -1, A.size(1)}).transpose(1, 2);
}

}  // namespace

namespace cpu {

void depthwise_conv(const Tensor& y, const Tensor& input, const Tensor& weight,
                    const OptionalTensor& bias, int64_t stride,
                    c10::string_view act) {
  const Act activation =
      check_depthwise_conv(input, weight, bias, stride, act);
  const Tensor x = channels_last(input, input.scalar_type()),
               w = parameter(weight), b = parameter(bias);
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    ConvArgs<T> args = {};
    args.batch = x.size(0);
    args.height = x.size(1);
    args.width = x.size(2);
    args.channels = x.size(3);
    args.kernel = w.size(0);
    args.stride = stride;
    args.x = map<T>(x);
    args.weight = pointer(w);
    args.bias = pointer(b);
    args.act = activation;
    args.y = map<T, T>(y);
    const auto& kernels = conv_kernels<T>();
    run(kernels.conv, args, kernels.count_conv(args));
  });
}

void mixer_conv(const Tensor& y, const Tensor& input, const Tensor& ssm_output,
                const OptionalTensor& wavelet_weight,
                const OptionalTensor& local_weight,
                const OptionalTensor& local_bias,
                const OptionalTensor& local_scale,
                const OptionalTensor& local_shift) {
  check_mixer_conv(input, ssm_output, wavelet_weight, local_weight, local_bias,
                   local_scale, local_shift);
  const auto dtype = input.scalar_type();
  const Tensor x = channels_last(input, dtype),
               ssm = channels_last(ssm_output, dtype),
               wavelet = parameter(wavelet_weight),
               weight = parameter(local_weight), bias = parameter(local_bias),
               scale = parameter(local_scale), shift = parameter(local_shift);
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    MixerArgs<T> args = {};
    args.x = map<T>(x);
    args.ssm = map<T>(ssm);
    args.y = map<T, T>(y);
    args.weight = pointer(wavelet);
    args.kernel = wavelet.defined() ? wavelet.size(1) : 1;
    args.global_channels = ssm.size(3);

    ConvArgs<T>& local = args.local;
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
    local.act = Act::kLocal;
    local.y = args.y;
    local.y.data += args.global_channels;
    args.rest_channels = x.size(3) - args.global_channels - local.channels;
    const auto& kernels = conv_kernels<T>();
    run(kernels.mixer, args, kernels.count_mixer(args));
  });
}

void scan_gate(const Tensor& y, const Tensor& input, const Tensor& projections,
               const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
               const Tensor& D, const Tensor& norm_weight,
               const Tensor& norm_bias, const Tensor& gate, double eps) {
  check_scan_gate(input, projections, dt_weight, dt_bias, A, D, norm_weight,
                  norm_bias, gate);
  const Tensor x = channels_last(input, input.scalar_type()),
               z = channels_last(gate, input.scalar_type()),
               projected = channels_last(projections, at::kFloat),
               weight = parameter(dt_weight.transpose(1, 2)),
               bias = parameter(dt_bias), skip = parameter(D),
               // (2, N, D), as the weight is (2, R, D)
               decay = parameter(A.size(1) == 1 ? A : transposed_decay(A)),
               scale = parameter(norm_weight), shift = parameter(norm_bias);
  const Tensor scanned = x.scalar_type() == at::kFloat
                             ? y
                             : at::empty(x.sizes(), projected.options());
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    ScanGateArgs<T> args = {};
    args.batch = x.size(0);
    args.length = x.size(1);
    args.channels = x.size(2);
    args.d_state = A.size(1);
    args.rank = dt_weight.size(2);
    args.x = series<T>(x);
    args.z = series<T>(z);
    args.projected = series<float>(projected);
    args.dt_weight = pointer(weight);
    args.dt_bias = pointer(bias);
    args.A = pointer(decay);
    args.skip = pointer(skip);
    args.norm_weight = pointer(scale);
    args.norm_bias = pointer(shift);
    args.eps = static_cast<float>(eps);
    args.scanned = series<float, float>(scanned);
    args.y = series<T, T>(y);
    const auto& kernels = scan_gate_kernels<T>();
    const int64_t blocks = args.channels / kernels.lanes;
    if (args.batch % num_threads() != 0) {
      run(kernels.scan, args, args.batch * blocks);
      run(kernels.gate, args, args.batch * args.length);
      return;
    }
    // A thread has whole samples, and finishes them while they are cached.
    at::parallel_for(0, args.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        kernels.scan(args, b * blocks, (b + 1) * blocks);
        kernels.gate(args, b * args.length, (b + 1) * args.length);
      }
    });
  });
}

}  // namespace cpu

namespace {

Tensor depthwise_conv(const Tensor& x, const Tensor& weight,
                      const OptionalTensor& bias, int64_t stride,
                      c10::string_view act) {
  check_depthwise_conv(x, weight, bias, stride, act);
  const Tensor y = at::empty({x.size(0), (x.size(1) + stride - 1) / stride,
                              (x.size(2) + stride - 1) / stride, x.size(3)},
                             x.options());
  cpu::depthwise_conv(y, x, weight, bias, stride, act);
  return y;
}

Tensor mixer_conv(const Tensor& x, const Tensor& ssm,
                  const OptionalTensor& wavelet_weight,
                  const OptionalTensor& local_weight,
                  const OptionalTensor& local_bias,
                  const OptionalTensor& local_scale,
                  const OptionalTensor& local_shift) {
  const Tensor y = at::empty(x.sizes(), x.options());
  cpu::mixer_conv(y, x, ssm, wavelet_weight, local_weight, local_bias,
                  local_scale, local_shift);
  return y;
}

Tensor scan_gate(const Tensor& x, const Tensor& projected,
                 const Tensor& dt_weight, const Tensor& dt_bias,
                 const Tensor& A, const Tensor& D, const Tensor& norm_weight,
                 const Tensor& norm_bias, const Tensor& z, double eps) {
  const Tensor y = at::empty(x.sizes(), x.options());
  cpu::scan_gate(y, x, projected, dt_weight, dt_bias, A, D, norm_weight,
                 norm_bias, z, eps);
  return y;
}

// The weight in the order of the kernels that take it in one of their own.
Tensor pack(const StemKernels& kernels, StemLayer& layer) {
  const int64_t panels = kernels.count_panels(layer);
  if (panels == 0) return {};
  const int64_t size = kernels.panel_size(layer);
  const Tensor packed = at::empty({panels, size}, at::kFloat);
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels.pack(layer, i, packed.data_ptr<float>() + i * size);
  });
  layer.packed = packed.data_ptr<float>();
  return packed;
}

Tensor stem_conv(const Tensor& x, at::TensorList weights,
                 at::TensorList biases) {
  static const StemKernels kernels = MMMAMBA_FOR_THIS_CPU(stem_kernels());
  check_stem_conv(x, weights, biases);
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat,
                   "mmmamba: stem_conv takes float32, got ", x.scalar_type());
  std::vector<Tensor> parameters;
  std::vector<StemLayer> layers;
  int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor w = parameter(weights[i]), b = parameter(biases[i]);
    layers.push_back({channels, w.size(3), pointer(w), pointer(b),
                      i + 1 < weights.size()});
    parameters.insert(parameters.end(), {w, b, pack(kernels, layers.back())});
    channels = w.size(3);
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  const Tensor y =
      at::empty({x.size(0), height, width, channels}, x.options());
  // As few bands as give all threads the same to do: each computes the rows
  // around it once more.
  const int64_t threads = at::get_num_threads();
  const int64_t bands =
      std::min(threads / std::gcd(threads, x.size(0)), height);
  const StemConvArgs args = {x.size(0), x.size(2), x.size(3),
                             x.data_ptr<float>(), x.stride(0), x.stride(1),
                             x.stride(2), x.stride(3), layers.data(),
                             static_cast<int64_t>(layers.size()),
                             y.data_ptr<float>(), bands};
  run(kernels.stem_conv, args, args.batch * bands);
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("depthwise_conv", depthwise_conv);
  m.impl("mixer_conv", mixer_conv);
  m.impl("scan_gate", scan_gate);
  m.impl("stem_conv", stem_conv);
}

}  // namespace mmmamba
