#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const FeedForward& in) {
  Shapes shapes("feed_forward");
  shapes.check("x", in.x, "... C>=1");
  shapes.check("weight1", in.weight1, "C hidden>=1");
  shapes.check("bias1", in.bias1, "hidden");
  shapes.check("weight2", in.weight2, "hidden C");
  shapes.check("bias2", in.bias2, "C");
  shapes.check("shortcut", in.shortcut, "... C");
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(feed_forward, FeedForward,
                     "(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, "
                     "Tensor bias2, Tensor? shortcut) -> Tensor")

}  // namespace
}  // namespace mmmamba
