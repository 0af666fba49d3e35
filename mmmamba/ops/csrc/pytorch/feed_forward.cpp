#include "../common/rules.hpp"
#include "inference.h"
#include "shapes.h"

namespace mmmamba {

Tensor result(const FeedForward& in) {
  Shapes shapes("feed_forward");
  check_feed_forward(shapes, in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(feed_forward, FeedForward,
                     "(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, "
                     "Tensor bias2, Tensor? shortcut) -> Tensor")

}  // namespace mmmamba
