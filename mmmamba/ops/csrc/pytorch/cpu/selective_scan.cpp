#include "launch.h"
#include "scan.h"

namespace mmmamba::cpu {
namespace {

ScanInputs inputs(const SelectiveScan& in) {
  const auto dtype = compute_type(in.u);
  ScanInputs scan;
  scan.x = in.u.to(dtype);
  scan.delta = in.delta.to(dtype);
  scan.B = rows(in.B, dtype);
  scan.C = rows(in.C, dtype);
  scan.A = parameter(in.A, dtype);
  scan.skip = parameter(in.D, dtype);
  scan.dt_bias = parameter(in.delta_bias, dtype);
  scan.softplus = in.delta_softplus;
  scan.bidirectional = false;
  const int64_t directions = in.B.size(1);
  scan.sizes = {in.u.size(0),
                directions,
                in.u.size(1) / directions,
                in.A.size(1),
                in.u.size(2),
                0,
                0};
  return scan;
}

Tensor selective_scan(const SelectiveScan& in) {
  check(in);
  return scan_forward(inputs(in), in.u);
}

SelectiveScan::Grads selective_scan_backward(const Tensor& grad,
                                             const SelectiveScan& in) {
  check_backward(grad, in);
  const ScanGrads g = scan_backward(inputs(in), grad);
  const int64_t N = in.A.size(1);
  return {g.x.to(in.u.scalar_type()),
          g.delta.to(in.delta.scalar_type()),
          gradient_of(in.A, g.A, in.u),
          gradient_of(in.B, g.rows.narrow(2, 0, N), in.u),
          gradient_of(in.C, g.rows.narrow(2, N, N), in.u),
          gradient_of(in.D, g.skip, in.u),
          gradient_of(in.delta_bias, g.dt_bias, in.u)};
}

MMMAMBA_SCAN_ON(CPU, selective_scan, SelectiveScan)

}  // namespace
}  // namespace mmmamba::cpu
