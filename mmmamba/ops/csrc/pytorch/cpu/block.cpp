// Few samples at a time go through all layers of a block, so that what is
// between the layers stays in the nearer caches. For the same reason layers
// write over what is no longer needed.
#include "../block.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>

#include <algorithm>

#include "launch.h"
#include "ops.h"

namespace mmmamba::cpu {
namespace {

// Pixels that go through the layers together, or more: as many as the matrix
// products need for their full speed. Measured on Zen 4 (1 MB of second cache
// a core).
constexpr int64_t kPixels = 280;

// Calls an op, which the profiler names, as it does those that Python calls.
template <typename Op>
void call(void (*op)(const Op&, const Tensor&), const Op& in, const Tensor& y) {
  RECORD_FUNCTION(Op::kName, c10::ArrayRef<const c10::IValue>());
  op(in, y);
}

Tensor empty(const Tensor& like, int64_t channels) {
  auto shape = like.sizes().vec();
  shape.back() = channels;
  return at::empty(shape, like.options());
}

Tensor product(const Tensor& x, const Tensor& weight,
               const OptionalTensor& bias = {}) {
  const Tensor y = empty(x, weight.size(1));
  call<Linear>(linear, {x, weight, bias, false, OptionalTensor()}, y);
  return y;
}

void conv(const LayerParameters& p, const Tensor& x, const Tensor& y,
          c10::string_view act = "none") {
  call<DepthwiseConv>(depthwise_conv, {x, p.weight, p.bias, 1, act}, y);
}

// In place.
void ffn(const FFNParameters& p, const Tensor& x,
         const OptionalTensor& shortcut = {}) {
  call<FeedForward>(feed_forward,
                    {x, p.weight1, p.bias1, p.weight2, p.bias2, shortcut}, x);
}

Tensor ssm(const SSMParameters& p, double eps, const Tensor& input) {
  const Tensor xz = product(input, p.in_weight, p.in_bias);
  const int64_t inner = xz.size(-1) / 2;
  const Tensor before = xz.narrow(-1, 0, inner);
  const Tensor z = xz.narrow(-1, inner, inner).flatten(1, 2);
  const Tensor x = empty(input, inner);
  conv({p.conv_weight, p.conv_bias}, before, x, "silu");
  // The scan writes over what the convolution has read.
  const Tensor sequence = x.flatten(1, 2), y = before.flatten(1, 2);
  call<ScanGate>(
      scan_gate,
      {sequence, product(sequence, p.x_proj), p.dt_weight.transpose(1, 2),
       p.dt_bias, p.A, p.D, p.norm_weight, p.norm_bias, z, eps},
      y);
  return product(before, p.out_weight, p.out_bias);
}

// The mixer with its residual, in place.
void mixer(const BlockParameters& p, const Tensor& x) {
  OptionalTensor weight, bias, scale, shift;
  if (p.local) {
    weight = p.local->weight;
    bias = p.local->bias;
    scale = p.local->scale;
    shift = p.local->shift;
  }
  const int64_t channels = p.ssm.out_bias.size(0);
  const Tensor mixed = empty(x, x.size(-1));
  call<MixerConv>(mixer_conv,
                  {x, ssm(p.ssm, p.eps, x.narrow(-1, 0, channels)), p.wavelet,
                   weight, bias, scale, shift},
                  mixed);
  call<Linear>(linear, {mixed, p.proj.weight, p.proj.bias, false, x}, x);
}

void run(const BlockParameters& p, const Tensor& input, const Tensor& y) {
  const Tensor x = empty(input, input.size(-1));
  conv(p.conv1, input, x);
  ffn(p.ffn1, x);
  mixer(p, x);
  conv(p.conv2, x, y);
  ffn(p.ffn2, y, input);
}

// Calls work(begin, count) for a few samples of a thread at a time. Where
// threads have not enough samples of their own, calls it once for all samples,
// and the threads share the pixels of each layer.
template <typename Work>
void for_samples(int64_t batch, int64_t pixels, Work work) {
  const int64_t threads = at::get_num_threads();
  if (batch % threads != 0 || batch / threads * pixels < kPixels / 2)
    return work(0, batch);
  at::parallel_for(0, batch, batch / threads, [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const int64_t count = end - begin;
    const int64_t parts = std::max<int64_t>(count * pixels / kPixels, 1);
    const int64_t step = (count + parts - 1) / parts;
    for (; begin < end; begin += step) work(begin, std::min(step, end - begin));
  });
}

}  // namespace

void block(const Block& in, const Tensor& y) {
  const BlockParameters p(in);
  TORCH_CHECK_TYPE(in.x.scalar_type() == at::kFloat,
                   "block: x must be float32, got ", in.x.scalar_type());
  const Tensor x = in.x.contiguous();
  for_samples(x.size(0), x.size(1) * x.size(2),
              [&](int64_t begin, int64_t count) {
                run(p, x.narrow(0, begin, count), y.narrow(0, begin, count));
              });
}

}  // namespace mmmamba::cpu
