#include "scan.h"

namespace mmmamba::cpu {
namespace {

ScanInputs inputs(const BidirectionalScan& in) {
  return ScanInputs(in, compute_type(in.x.scalar_type()));
}

Tensor bidirectional_scan(const BidirectionalScan& in) {
  check(in);
  return scan_forward(inputs(in), in.x);
}

BidirectionalScan::Grads bidirectional_scan_backward(
    const Tensor& grad, const BidirectionalScan& in) {
  check_backward(grad, in);
  return grads_of(in, scan_backward(inputs(in), grad));
}

MMMAMBA_SCAN_ON(CPU, bidirectional_scan, BidirectionalScan)

}  // namespace
}  // namespace mmmamba::cpu
