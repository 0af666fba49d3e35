#include "block.h"

#include <string>

#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too. The ops
// that a block is made of do not check them again.
Tensor result(const Block& in) {
  const BlockParameters p(in);
  Shapes shapes("block");
  const auto check = [&](const std::string& part, const char* tensor,
                         const Tensor& t, const char* pattern) {
    shapes.check((part + tensor).c_str(), t, pattern);
  };
  const auto check_conv = [&](const std::string& part,
                              const LayerParameters& conv, const char* pattern,
                              const char* k) {
    shapes.check_kernel((part + ".weight").c_str(), conv.weight, pattern, k);
    check(part, ".bias", conv.bias, "C");
  };
  const auto check_ffn = [&](const std::string& part, const FFNParameters& ffn,
                             const char* first, const char* hidden,
                             const char* second) {
    check(part, ".weight1", ffn.weight1, first);
    check(part, ".bias1", ffn.bias1, hidden);
    check(part, ".weight2", ffn.weight2, second);
    check(part, ".bias2", ffn.bias2, "C");
  };
  shapes.check("x", in.x, "B H>=1 W>=1 C>=16");
  check_conv("conv1", p.conv1, "k1 k1 C", "k1");
  check_ffn("ffn1", p.ffn1, "C hidden1>=1", "hidden1", "hidden1 C");
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
  check_conv("conv2", p.conv2, "k2 k2 C", "k2");
  check_ffn("ffn2", p.ffn2, "C hidden2>=1", "hidden2", "hidden2 C");
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(
    block, Block,
    "(Tensor x, Tensor[] conv1, Tensor[] ffn1, Tensor[] ssm, "
    "Tensor? wavelet, Tensor[] local, Tensor[] proj, Tensor[] conv2, "
    "Tensor[] ffn2, float eps) -> Tensor")

}  // namespace
}  // namespace mmmamba
