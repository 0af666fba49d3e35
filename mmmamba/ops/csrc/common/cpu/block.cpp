// Few samples at a time go through all layers of a block, so that what is
// between the layers stays in the nearer caches. For the same reason layers
// write over what is no longer needed.
#include <algorithm>
#include <utility>

#include "compute.hpp"
#include "scratch.hpp"

namespace mmmamba {
namespace {

using depthwise_conv::Act;
using Map = depthwise_conv::Map<float>;
using ConstMap = depthwise_conv::Map<const float>;

// Pixels that go through the layers together, or more: as many as the matrix
// products need for their full speed. Measured on Zen 4 (1 MB of second cache
// a core).
constexpr int64_t kPixels = 280;

// Some samples on their way through a block.
class Samples {
 public:
  Samples(const block::Args& p, int64_t begin, int64_t batch,
          const Runtime& runtime)
      : p_(p),
        runtime_(runtime),
        batch_(batch),
        pixels_(p.height * p.width),
        rows_(batch * pixels_),
        input_(p.x + begin * pixels_ * p.channels),
        y_(p.y + begin * pixels_ * p.channels),
        projected_(2 * (p.ssm.rank + 2 * p.ssm.d_state)),
        scratch_{rows_ * p.channels,      rows_ * p.channels,
                 rows_ * 2 * p.ssm.inner, rows_ * p.ssm.inner,
                 rows_ * projected_,      rows_ * p.ssm.channels} {}

  void run() {
    const Map x = take(p_.channels), y = map(y_, p_.channels);
    conv(p_.conv1, map(input_, p_.channels), p_.channels, x);
    ffn(p_.ffn1, x, nullptr,
        {p_.ssm.channels, 2 * p_.ssm.inner, p_.ssm.in_weight});
    mixer(x);
    conv(p_.conv2, as_const(x), p_.channels, y);
    ffn(p_.ffn2, y, input_, {});
  }

 private:
  template <typename T>
  depthwise_conv::Map<T> map(T* data, int64_t channels) const {
    return {data, pixels_ * channels, p_.width * channels, channels};
  }

  static ConstMap as_const(const Map& x) {
    return {x.data, x.batch, x.row, x.pixel};
  }

  Map take(int64_t channels) {
    return map(scratch_.take(rows_ * channels), channels);
  }

  depthwise_conv::Args<float> conv_args(const block::Conv& conv,
                                        const ConstMap& x, int64_t channels,
                                        const Map& y) const {
    depthwise_conv::Args<float> args = {};
    args.batch = batch_;
    args.height = p_.height;
    args.width = p_.width;
    args.channels = channels;
    args.kernel = conv.kernel;
    args.stride = 1;
    args.x = x;
    args.weight = conv.weight;
    args.bias = conv.bias;
    args.y = y;
    return args;
  }

  void conv(const block::Conv& conv, const ConstMap& x, int64_t channels,
            const Map& y, Act act = Act::kNone) const {
    auto args = conv_args(conv, x, channels, y);
    args.act = act;
    runtime_.named("mmmamba::depthwise_conv", [&] { compute(args, runtime_); });
  }

  gemm::Args product(const Map& x, int64_t in, const gemm::Weight& weight,
                     const float* bias, int64_t out, float* y) const {
    gemm::Args args = {};
    args.in = in;
    args.out = out;
    args.sample = pixels_;
    args.x = {x.data, x.pixel};
    args.weight = weight;
    args.bias = bias;
    args.y = {y, out};
    return args;
  }

  void linear(const gemm::Args& args) const {
    runtime_.named("mmmamba::linear", [&] { compute(args, rows_, runtime_); });
  }

  // In place.
  void ffn(const block::FFN& p, const Map& x, const float* shortcut,
           const gemm::Next& next) const {
    const int64_t channels = p_.channels;
    auto first = product(x, channels, p.weight1, p.bias1, p.hidden, nullptr);
    auto second = product({}, p.hidden, p.weight2, p.bias2, channels, x.data);
    first.relu = true;
    second.residual = first.x;
    second.shortcut = {shortcut, channels};
    second.next = next;
    runtime_.named("mmmamba::feed_forward",
                   [&] { compute(first, second, rows_, runtime_); });
  }

  Map ssm(const Map& input) {
    const auto& p = p_.ssm;
    const Map xz = take(2 * p.inner), x = take(p.inner);
    auto in = product(input, p.channels, p.in_weight, p.in_bias, 2 * p.inner,
                      xz.data);
    in.next = {p.inner, p.channels, p.out_weight};  // x_proj is small
    linear(in);
    conv(p.conv, as_const(xz), p.inner, x, Act::kSilu);
    const Map projected = take(projected_);
    linear(
        product(x, p.inner, {p.x_proj}, nullptr, projected_, projected.data));
    scan_gate::Args<float> args = {};
    args.batch = batch_;
    args.length = pixels_;
    args.channels = p.inner;
    args.d_state = p.d_state;
    args.rank = p.rank;
    args.x = {x.data, x.batch, x.pixel};
    args.z = {xz.data + p.inner, xz.batch, xz.pixel};
    args.projected = {projected.data, projected.batch, projected.pixel};
    args.dt_weight = p.dt_weight;
    args.dt_bias = p.dt_bias;
    args.A = p.A;
    args.skip = p.D;
    args.norm_weight = p.norm_weight;
    args.norm_bias = p.norm_bias;
    args.eps = p_.eps;
    // The scan writes over what the convolution has read.
    args.scanned = args.y = {xz.data, xz.batch, xz.pixel};
    runtime_.named("mmmamba::scan_gate", [&] { compute(args, runtime_); });
    const Map y = take(p.channels);
    auto out =
        product(xz, p.inner, p.out_weight, p.out_bias, p.channels, y.data);
    out.next = {p_.channels, p_.channels, p_.proj_weight};
    linear(out);
    return y;
  }

  // The mixer with its residual, in place.
  void mixer(const Map& x) {
    const int64_t global = p_.ssm.channels, local = p_.local.channels;
    const Map mixed = take(p_.channels);
    mixer_conv::Args<float> args = {};
    args.x = as_const(x);
    args.ssm = as_const(ssm(x));
    args.y = mixed;
    args.kernel = p_.wavelet.kernel;
    args.weight = p_.wavelet.weight;
    args.global_channels = global;
    args.rest_channels = p_.channels - global - local;
    args.local = conv_args(p_.local.conv, args.x, local, mixed);
    args.local.x.data += global;
    args.local.y.data += global;
    args.local.scale = p_.local.scale;
    args.local.shift = p_.local.shift;
    args.local.act = Act::kLocal;
    runtime_.named("mmmamba::mixer_conv", [&] { compute(args, runtime_); });
    auto proj = product(mixed, p_.channels, p_.proj_weight, p_.proj_bias,
                        p_.channels, x.data);
    proj.residual = {x.data, x.pixel};
    proj.next = {p_.channels, p_.ffn2.hidden, p_.ffn2.weight1};
    linear(proj);
  }

  const block::Args& p_;
  const Runtime& runtime_;
  const int64_t batch_, pixels_, rows_;
  const float* const input_;
  float* const y_;
  const int64_t projected_;  // channels
  Scratch scratch_;
};

}  // namespace

// A thread takes a few samples at a time. Where threads have not enough samples
// of their own, all samples go together, and the threads share the pixels of
// each layer.
void compute(const block::Args& args, const Runtime& runtime) {
  const int64_t pixels = args.height * args.width;
  const int64_t threads = runtime.threads();
  if (args.batch % threads != 0 || args.batch / threads * pixels < kPixels / 2)
    return Samples(args, 0, args.batch, runtime).run();
  runtime.parallel_for(args.batch, 1, [&](int64_t begin, int64_t end) {
    const OneThread alone(runtime);
    const int64_t count = end - begin;
    const int64_t parts = std::max<int64_t>(count * pixels / kPixels, 1);
    const int64_t step = (count + parts - 1) / parts;
    for (; begin < end; begin += step)
      Samples(args, begin, std::min(step, end - begin), alone).run();
  });
}

namespace {

// The next tensors of a list by name.
template <typename Parameters>
Parameters next(const Array*& list) {
  const Array* first = std::exchange(list, list + kTensors<Parameters>);
  return named<Parameters>(first);
}

block::Conv conv_of(const Array& weight, const Array& bias) {
  return {weight[0], weight.data, bias.data};
}

block::FFN ffn_of(const FFNParameters<Array>& p) {
  return {p.weight1[1], weight_of(p.weight1), weight_of(p.weight2),
          p.bias1.data, p.bias2.data};
}

}  // namespace

BlockParameters<Array> block_parameters(const Array* list) {
  const auto conv1 = next<LayerParameters<Array>>(list);
  const auto ffn1 = next<FFNParameters<Array>>(list);
  const auto ssm = next<SSMParameters<Array>>(list);
  const Array* wavelet = list++;
  const auto local = next<LocalParameters<Array>>(list);
  const auto proj = next<LayerParameters<Array>>(list);
  const auto conv2 = next<LayerParameters<Array>>(list);
  const auto ffn2 = next<FFNParameters<Array>>(list);
  BlockParameters<Array> p = {conv1, ffn1, ssm,   *wavelet ? wavelet : nullptr,
                              {},    proj, conv2, ffn2};
  if (local.weight) p.local.emplace(local);
  return p;
}

block::Args block_args(const Array& x, const BlockParameters<Array>& p,
                       float eps, float* y) {
  block::Args args = {};
  args.batch = x[0];
  args.height = x[1];
  args.width = x[2];
  args.channels = x[3];
  args.conv1 = conv_of(p.conv1.weight, p.conv1.bias);
  args.ffn1 = ffn_of(p.ffn1);
  const auto& s = p.ssm;
  args.ssm = {s.out_bias[0],
              s.conv_bias[0],
              s.dt_weight[1],
              s.A[1],
              weight_of(s.in_weight),
              weight_of(s.out_weight),
              s.in_bias.data,
              s.out_bias.data,
              conv_of(s.conv_weight, s.conv_bias),
              s.x_proj.data,
              s.dt_weight.data,
              s.dt_bias.data,
              s.A.data,
              s.D.data,
              s.norm_weight.data,
              s.norm_bias.data};
  args.wavelet.kernel = 1;
  if (p.wavelet) args.wavelet = {(*p.wavelet)[1], p.wavelet->data, nullptr};
  args.local.conv.kernel = 1;
  if (p.local)
    args.local = {p.local->bias[0], conv_of(p.local->weight, p.local->bias),
                  p.local->scale.data, p.local->shift.data};
  args.proj_weight = weight_of(p.proj.weight);
  args.proj_bias = p.proj.bias.data;
  args.conv2 = conv_of(p.conv2.weight, p.conv2.bias);
  args.ffn2 = ffn_of(p.ffn2);
  args.eps = eps;
  args.x = x.data;
  args.y = y;
  return args;
}

}  // namespace mmmamba
