#include "inference.h"
#include "shapes.h"

namespace mmmamba {

Tensor result(const DepthwiseConvWeightGrad& in) {
  Shapes shapes("depthwise_conv_weight_grad");
  shapes.check("x", in.x, "B H>=1 W>=1 C>=16");
  shapes.check("grad", in.grad, "B H W C");
  const auto k = in.kernel;
  shapes.require(k == 3 || k == 5 || k == 7, "kernel must be 3, 5 or 7, got ",
                 k);
  return at::empty_symint({k, k, shapes["C"]}, in.x.options());
}

MMMAMBA_INFERENCE_OP(depthwise_conv_weight_grad, DepthwiseConvWeightGrad,
                     "(Tensor x, Tensor grad, int kernel) -> Tensor")

}  // namespace mmmamba
