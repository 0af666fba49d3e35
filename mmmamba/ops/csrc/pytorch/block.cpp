#include "block.h"

#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too. The ops
// that a block is made of do not check them again.
Tensor result(const Block& in) {
  const BlockParameters p(in);
  Shapes shapes("block");
  shapes.check("x", in.x, "B H>=1 W>=1 C>=16");
  shapes.check_kernel("conv1.weight", p.conv1.weight, "k1 k1 C", "k1");
  shapes.check("conv1.bias", p.conv1.bias, "C");
  shapes.check("ffn1.weight1", p.ffn1.weight1, "C hidden1>=1");
  shapes.check("ffn1.bias1", p.ffn1.bias1, "hidden1");
  shapes.check("ffn1.weight2", p.ffn1.weight2, "hidden1 C");
  shapes.check("ffn1.bias2", p.ffn1.bias2, "C");
  const auto& ssm = p.ssm;
  shapes.check_kernel("ssm.conv_weight", ssm.conv_weight, "k k D>=16", "k");
  shapes.check("ssm.conv_bias", ssm.conv_bias, "D");
  shapes.check("ssm.in_weight", ssm.in_weight, "G>=1 2*D");
  shapes.check("ssm.in_bias", ssm.in_bias, "2*D");
  shapes.check("ssm.dt_weight", ssm.dt_weight, "2 R D");
  shapes.check("ssm.dt_bias", ssm.dt_bias, "2 D");
  shapes.check("ssm.A", ssm.A, "2*D N");
  shapes.check("ssm.D", ssm.D, "2*D");
  shapes.check("ssm.x_proj", ssm.x_proj, "D 2*R+4*N");
  shapes.check("ssm.norm_weight", ssm.norm_weight, "D");
  shapes.check("ssm.norm_bias", ssm.norm_bias, "D");
  shapes.check("ssm.out_weight", ssm.out_weight, "D G");
  shapes.check("ssm.out_bias", ssm.out_bias, "G");
  if (p.wavelet)
    shapes.check_kernel("wavelet", *p.wavelet, "4 kw kw G>=16", "kw");
  if (p.local) {
    shapes.check_kernel("local.weight", p.local->weight, "kl kl M>=16", "kl");
    shapes.check("local.bias", p.local->bias, "M");
    shapes.check("local.scale", p.local->scale, "M");
    shapes.check("local.shift", p.local->shift, "M");
  }
  const auto used = shapes["G"] + shapes["M"];
  shapes.require(used <= shapes["C"], "ssm and local have ", used,
                 " channels, more than the ", shapes["C"], " of x");
  shapes.check("proj.weight", p.proj.weight, "C C");
  shapes.check("proj.bias", p.proj.bias, "C");
  shapes.check_kernel("conv2.weight", p.conv2.weight, "k2 k2 C", "k2");
  shapes.check("conv2.bias", p.conv2.bias, "C");
  shapes.check("ffn2.weight1", p.ffn2.weight1, "C hidden2>=1");
  shapes.check("ffn2.bias1", p.ffn2.bias1, "hidden2");
  shapes.check("ffn2.weight2", p.ffn2.weight2, "hidden2 C");
  shapes.check("ffn2.bias2", p.ffn2.bias2, "C");
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(
    block, Block,
    "(Tensor x, Tensor[] conv1, Tensor[] ffn1, Tensor[] ssm, "
    "Tensor? wavelet, Tensor[] local, Tensor[] proj, Tensor[] conv2, "
    "Tensor[] ffn2, float eps) -> Tensor")

}  // namespace
}  // namespace mmmamba
