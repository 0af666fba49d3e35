#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const DepthwiseConv& in) {
  Shapes shapes("depthwise_conv");
  shapes.check("x", in.x, "B H>=1 W>=1 C>=16");
  shapes.check_kernel("weight", in.weight, "k k C", "k");
  shapes.check("bias", in.bias, "C");
  const auto stride = in.stride;
  shapes.require(stride == 1 || (stride == 2 && shapes["k"] == 3),
                 "stride must be 1, or 2 with 3x3 weights, got ", stride);
  shapes.require(in.act == "none" || in.act == "relu" || in.act == "silu",
                 "act must be none, relu or silu, got ", in.act);
  return at::empty_symint({shapes["B"], (shapes["H"] + stride - 1) / stride,
                           (shapes["W"] + stride - 1) / stride, shapes["C"]},
                          in.x.options());
}

using Signature = DepthwiseConv::Signature;

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  m.def(
      "depthwise_conv(Tensor x, Tensor weight, Tensor? bias, int stride, "
      "str act) -> Tensor",
      kTags);
}

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("depthwise_conv",
         &Function<Signature, cpu::computed<DepthwiseConv, result,
                                            cpu::depthwise_conv>>::call);
}

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("depthwise_conv", &Function<Signature, result>::call);
}

}  // namespace mmmamba
