#include "../common/rules.hpp"
#include "scan_op.h"

namespace mmmamba {

Shapes check(const BidirectionalScan& in) {
  Shapes shapes("bidirectional_scan");
  check_bidirectional_scan(shapes, in);
  return shapes;
}

ScanInputs::ScanInputs(const BidirectionalScan& in, at::ScalarType type)
    : type(type),
      softplus(true),
      directions(2),
      height(in.projected.size(2)),
      x(in.x.to(type)),
      A(parameter(in.A, compute_type(type))),
      D(parameter(in.D, compute_type(type))),
      bias(parameter(in.dt_bias, compute_type(type))),
      dt(in.projected.to(type).contiguous().flatten(1, 2)),
      weight(parameter(in.dt_weight, compute_type(type))) {
  B = dt.slice(1, rank());
  C = dt.slice(1, rank() + A.size(1));
}

BidirectionalScan::Grads grads_of(const BidirectionalScan& in,
                                  const ScanGrads& g) {
  return {g.x.to(in.x.scalar_type()),
          gradient_of(in.projected, g.rows, in.x),
          gradient_of(in.dt_weight, g.weight, in.x),
          gradient_of(in.dt_bias, g.bias, in.x),
          gradient_of(in.A, g.A, in.x),
          gradient_of(in.D, g.D, in.x)};
}

MMMAMBA_SCAN_OP(bidirectional_scan, BidirectionalScan,
                "Tensor x, Tensor projected, Tensor dt_weight, "
                "Tensor dt_bias, Tensor A, Tensor? D",
                "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")

}  // namespace mmmamba
