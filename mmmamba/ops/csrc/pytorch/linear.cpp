#include "../common/rules.hpp"
#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const Linear& in) {
  Shapes shapes("linear");
  check_linear(shapes, in);
  auto shape = in.x.sym_sizes().vec();
  shape.back() = shapes["C_out"];
  return at::empty_symint(shape, in.x.options());
}

MMMAMBA_INFERENCE_OP(linear, Linear,
                     "(Tensor x, Tensor weight, Tensor? bias, bool relu, "
                     "Tensor? residual) -> Tensor")

}  // namespace
}  // namespace mmmamba
