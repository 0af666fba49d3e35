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

MMMAMBA_INFERENCE_OP(depthwise_conv, DepthwiseConv,
                     "(Tensor x, Tensor weight, Tensor? bias, int stride, "
                     "str act) -> Tensor")

}  // namespace
}  // namespace mmmamba
