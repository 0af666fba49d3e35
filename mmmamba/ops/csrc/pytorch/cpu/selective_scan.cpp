#include "scan.h"

namespace mmmamba::cpu {
namespace {

ScanInputs inputs(const SelectiveScan& in) {
  return ScanInputs(in, compute_type(in.u.scalar_type()));
}

Tensor selective_scan(const SelectiveScan& in) {
  check(in);
  return scan_forward(inputs(in), in.u);
}

SelectiveScan::Grads selective_scan_backward(const Tensor& grad,
                                             const SelectiveScan& in) {
  check_backward(grad, in);
  return grads_of(in, scan_backward(inputs(in), grad));
}

MMMAMBA_SCAN_ON(CPU, selective_scan, SelectiveScan)

}  // namespace
}  // namespace mmmamba::cpu
