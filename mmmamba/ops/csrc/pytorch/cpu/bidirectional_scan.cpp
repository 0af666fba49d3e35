#include "launch.h"
#include "scan.h"

namespace mmmamba::cpu {
namespace {

ScanInputs inputs(const BidirectionalScan& in) {
  const auto dtype = compute_type(in.x);
  const int64_t N = in.A.size(1), R = in.dt_weight.size(2);
  const Tensor projected = rows(in.projected, dtype);
  ScanInputs scan;
  scan.x = in.x.to(dtype);
  scan.dt = projected.narrow(2, 0, R);
  scan.B = projected.narrow(2, R, N);
  scan.C = projected.narrow(2, R + N, N);
  scan.dt_weight = parameter(in.dt_weight, dtype);
  scan.dt_bias = parameter(in.dt_bias, dtype);
  scan.A = parameter(in.A, dtype);
  scan.skip = parameter(in.D, dtype);
  scan.softplus = scan.bidirectional = true;
  scan.sizes = {in.x.size(0), 2, in.x.size(1), N, in.x.size(2), R, 0};
  return scan;
}

Tensor bidirectional_scan(const BidirectionalScan& in) {
  check(in);
  return scan_forward(inputs(in), in.x);
}

BidirectionalScan::Grads bidirectional_scan_backward(
    const Tensor& grad, const BidirectionalScan& in) {
  check_backward(grad, in);
  const ScanGrads g = scan_backward(inputs(in), grad);
  return {g.x.to(in.x.scalar_type()),
          gradient_of(in.projected, g.rows, in.x),
          gradient_of(in.dt_weight, g.dt_weight, in.x),
          gradient_of(in.dt_bias, g.dt_bias, in.x),
          gradient_of(in.A, g.A, in.x),
          gradient_of(in.D, g.skip, in.x)};
}

MMMAMBA_SCAN_ON(CPU, bidirectional_scan, BidirectionalScan)

}  // namespace
}  // namespace mmmamba::cpu
