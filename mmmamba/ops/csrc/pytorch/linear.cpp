#include "../common/rules.hpp"
#include "inference.h"
#include "shapes.h"

namespace mmmamba {

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

}  // namespace mmmamba
