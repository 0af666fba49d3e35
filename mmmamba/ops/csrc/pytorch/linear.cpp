#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const Linear& in) {
  Shapes shapes("linear");
  shapes.check("x", in.x, "... C>=1");
  shapes.check("weight", in.weight, "C C_out");
  shapes.check("bias", in.bias, "C_out");
  shapes.check("residual", in.residual, "... C_out");
  auto shape = in.x.sym_sizes().vec();
  shape.back() = shapes["C_out"];
  return at::empty_symint(shape, in.x.options());
}

MMMAMBA_INFERENCE_OP(linear, Linear,
                     "(Tensor x, Tensor weight, Tensor? bias, bool relu, "
                     "Tensor? residual) -> Tensor")

}  // namespace
}  // namespace mmmamba
