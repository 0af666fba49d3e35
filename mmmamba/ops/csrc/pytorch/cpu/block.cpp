// A block of a deployed network in one op: few samples at a time go through all
// of it, so that what is between its layers stays in the nearer caches.
#include "../schema.h"
#include "layers.h"

namespace mmmamba {
namespace {

using namespace cpu;

// As mmmamba/ops/block.py describes.
struct Block {
  at::TensorList conv1, ffn1, ssm;
  const OptionalTensor& wavelet;
  at::TensorList local, proj, conv2, ffn2;
  double eps;
};

Tensor ssm(const Block& block, const Tensor& input) {
  const auto& p = block.ssm;
  const Tensor xz = product(input, p[0], p[1]);
  const int64_t inner = xz.size(-1) / 2;
  // What the convolution has read is no longer needed.
  const Tensor before = xz.narrow(-1, 0, inner), y = before.flatten(1, 2);
  const Tensor z = xz.narrow(-1, inner, inner).flatten(1, 2);
  const Tensor x = empty(input, inner);
  conv(x, before, p.slice(2, 2), "silu");
  const Tensor positions = x.flatten(1, 2);
  call("mmmamba::scan_gate", scan_gate, y, positions,
       product(positions, p[4], {}), p[5].transpose(1, 2), p[6], p[7], p[8],
       p[9], p[10], z, block.eps);
  return product(before, p[11], p[12]);
}

// The mixer with its residual, in place.
void mixer(const Block& block, const Tensor& x) {
  const auto local = [&](size_t i) {
    return block.local.empty() ? OptionalTensor() : block.local[i];
  };
  const int64_t channels = block.ssm[12].size(0);
  const Tensor mixed = empty(x, x.size(-1));
  call("mmmamba::mixer_conv", mixer_conv, mixed, x,
       ssm(block, x.narrow(-1, 0, channels)), block.wavelet, local(0),
       local(1), local(2), local(3));
  call("mmmamba::linear", linear, x, mixed, block.proj[0], block.proj[1], false,
       x);
}

void run(const Block& block, const Tensor& input, const Tensor& y) {
  const Tensor x = empty(input, input.size(-1));
  conv(x, input, block.conv1, "none");
  ffn(x, x, block.ffn1);
  mixer(block, x);
  conv(y, x, block.conv2, "none");
  ffn(y, y, block.ffn2, input);
}

void check(const Tensor& x, const Block& block) {
  constexpr auto op = "block";
  check_map(op, x);
  check_group(op, "conv1", block.conv1, 2);
  check_group(op, "ffn1", block.ffn1, 4);
  check_group(op, "ssm", block.ssm, 13);
  check_group(op, "local", block.local, block.local.empty() ? 0 : 4);
  check_group(op, "proj", block.proj, 2);
  check_group(op, "conv2", block.conv2, 2);
  check_group(op, "ffn2", block.ffn2, 4);
  check_dim(op, "ssm's dt_weight", block.ssm[5], 3);
  check_dim(op, "ssm's last bias", block.ssm[12], 1);
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
  const int64_t pixels = x.size(1) * x.size(2);
  for_samples(x.size(0), pixels, [&](int64_t begin, int64_t count) {
    run(block, x.narrow(0, begin, count), y.narrow(0, begin, count));
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
