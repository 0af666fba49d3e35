#include "../common/rules.hpp"
#include "inference.h"
#include "shapes.h"

namespace mmmamba {

Tensor result(const DepthwiseConv& in) {
  Shapes shapes("depthwise_conv");
  check_depthwise_conv(shapes, in);
  const auto stride = in.stride;
  return at::empty_symint({shapes["B"], (shapes["H"] + stride - 1) / stride,
                           (shapes["W"] + stride - 1) / stride, shapes["C"]},
                          in.x.options());
}

MMMAMBA_INFERENCE_OP(depthwise_conv, DepthwiseConv,
                     "(Tensor x, Tensor weight, Tensor? bias, int stride, "
                     "str act) -> Tensor")

}  // namespace mmmamba
