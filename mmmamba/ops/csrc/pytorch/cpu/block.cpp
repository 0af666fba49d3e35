// A block of a deployed network in one op: few samples at a time go through all
// of it, so that what is between its layers stays in the nearer caches.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>

#include "../schema.h"
#include "inference.h"

namespace mmmamba {
namespace {

// Pixels that go through the layers together, or more: as many as the matrix
// products need for their full speed.
constexpr int64_t kPixels = 280;

// As mmmamba/ops/block.py describes.
struct Block {
  at::TensorList conv1, ffn1, ssm;
  const OptionalTensor& wavelet;
  at::TensorList local, proj, conv2, ffn2;
  double eps;
};

// Calls an op, which the profiler names, as it does those that Python calls.
template <typename... Parameters, typename Result, typename... Args>
Result call(const char* name, Result (*op)(Parameters...), Args&&... args) {
  RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>());
  return op(std::forward<Args>(args)...);
}

Tensor product(const Tensor& x, const Tensor& weight,
               const OptionalTensor& bias,
               const OptionalTensor& residual = {}) {
  return call("mmmamba::linear", cpu::linear, x, weight, bias, false, residual);
}

Tensor conv(const Tensor& x, const Tensor& weight, const Tensor& bias,
            c10::string_view act) {
  return call("mmmamba::depthwise_conv", cpu::depthwise_conv, x, weight, bias,
              1, act);
}

void feed_forward(const Tensor& y, const Tensor& x, at::TensorList p,
                  const OptionalTensor& shortcut) {
  call("mmmamba::feed_forward", cpu::feed_forward_into, y, x, p[0], p[1], p[2],
       p[3], shortcut);
}

Tensor ssm(const Block& block, const Tensor& input) {
  const auto& p = block.ssm;
  const Tensor xz = product(input, p[0], p[1]);
  const int64_t inner = xz.size(-1) / 2;
  const Tensor x =
      conv(xz.narrow(-1, 0, inner), p[2], p[3], "silu").flatten(1, 2);
  const Tensor z = xz.narrow(-1, inner, inner).flatten(1, 2);
  const Tensor y =
      call("mmmamba::scan_gate", cpu::scan_gate, x, product(x, p[4], {}),
           p[5].transpose(1, 2), p[6], p[7], p[8], p[9], p[10], z, block.eps);
  return product(y.unflatten(1, input.sizes().slice(1, 2)), p[11], p[12]);
}

Tensor mixer(const Block& block, const Tensor& x) {
  const auto local = [&](size_t i) {
    return block.local.empty() ? OptionalTensor() : block.local[i];
  };
  const int64_t channels = block.ssm[12].size(0);
  const Tensor mixed =
      call("mmmamba::mixer_conv", cpu::mixer_conv, x,
           ssm(block, x.narrow(-1, 0, channels)), block.wavelet, local(0),
           local(1), local(2), local(3));
  return product(mixed, block.proj[0], block.proj[1], x);
}

void run(const Block& block, const Tensor& input, const Tensor& y) {
  const Tensor x = conv(input, block.conv1[0], block.conv1[1], "none");
  const Tensor mixed = at::empty(x.sizes(), x.options());
  feed_forward(mixed, x, block.ffn1, {});
  feed_forward(y,
               conv(mixer(block, mixed), block.conv2[0], block.conv2[1],
                    "none"),
               block.ffn2, input);
}

void check(const Tensor& x, const Block& block) {
  const auto has = [](const at::TensorList& p, size_t count,
                      const char* name) {
    TORCH_CHECK_VALUE(p.size() == count, "block: ", name, " must be ", count,
                      " tensors, got ", p.size());
  };
  TORCH_CHECK_VALUE(x.dim() == 4, "block: x must be (B, H, W, C), it has ",
                    x.dim(), " dimensions");
  has(block.conv1, 2, "conv1");
  has(block.ffn1, 4, "ffn1");
  has(block.ssm, 13, "ssm");
  has(block.local, block.local.empty() ? 0 : 4, "local");
  has(block.proj, 2, "proj");
  has(block.conv2, 2, "conv2");
  has(block.ffn2, 4, "ffn2");
}

Tensor block(const Tensor& input, at::TensorList conv1, at::TensorList ffn1,
             at::TensorList ssm, const OptionalTensor& wavelet,
             at::TensorList local, at::TensorList proj, at::TensorList conv2,
             at::TensorList ffn2, double eps) {
  const Block block = {conv1, ffn1, ssm, wavelet, local, proj, conv2, ffn2,
                       eps};
  check(input, block);
  const Tensor x = input.contiguous();
  const Tensor y = at::empty(x.sizes(), x.options());
  const int64_t batch = x.size(0), pixels = x.size(1) * x.size(2);
  const int64_t threads = at::get_num_threads();
  // Threads without enough pixels of their own share those of each layer.
  if (batch % threads != 0 || batch / threads * pixels < kPixels / 2) {
    run(block, x, y);
    return y;
  }
  at::parallel_for(0, batch, batch / threads, [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const int64_t count = end - begin;
    const int64_t parts = std::max<int64_t>(count * pixels / kPixels, 1);
    const int64_t step = (count + parts - 1) / parts;
    for (; begin < end; begin += step) {
      const int64_t samples = std::min(step, end - begin);
      run(block, x.narrow(0, begin, samples), y.narrow(0, begin, samples));
    }
  });
  return y;
}

Tensor block_meta(const Tensor& x, at::TensorList conv1, at::TensorList ffn1,
                  at::TensorList ssm, const OptionalTensor& wavelet,
                  at::TensorList local, at::TensorList proj,
                  at::TensorList conv2, at::TensorList ffn2, double eps) {
  check(x, {conv1, ffn1, ssm, wavelet, local, proj, conv2, ffn2, eps});
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  const auto tags = schema_tags();
  m.def(
      "block(Tensor x, Tensor[] conv1, Tensor[] ffn1, Tensor[] ssm, "
      "Tensor? wavelet, Tensor[] local, Tensor[] proj, Tensor[] conv2, "
      "Tensor[] ffn2, float eps) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) { m.impl("block", block); }

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) { m.impl("block", block_meta); }

}  // namespace mmmamba
