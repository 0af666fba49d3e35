#include "scan_op.h"

namespace mmmamba {

Shapes check(const BidirectionalScan& in) {
  Shapes shapes("bidirectional_scan");
  shapes.check("x", in.x, "batch D L>=1");
  shapes.check("dt_weight", in.dt_weight, "2 D R");
  shapes.check("dt_bias", in.dt_bias, "2 D");
  shapes.check("A", in.A, "2*D N");
  shapes.check("D", in.D, "2*D");
  shapes.check("projected", in.projected, "batch 2 R+2*N L");
  return shapes;
}

MMMAMBA_SCAN_OP(bidirectional_scan, BidirectionalScan,
                "Tensor x, Tensor projected, Tensor dt_weight, "
                "Tensor dt_bias, Tensor A, Tensor? D",
                "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")

}  // namespace mmmamba
