#include "scan.cuh"

namespace mmmamba::cuda {
namespace {

ScanInputs inputs(const SelectiveScan& in) {
  return ScanInputs(in, common_type({in.u, in.delta, in.B, in.C}));
}

Tensor selective_scan(const SelectiveScan& in) {
  check(in);
  return forward<false>(inputs(in), in.u);
}

SelectiveScan::Grads selective_scan_backward(const Tensor& grad,
                                             const SelectiveScan& in) {
  check_backward(grad, in);
  return grads_of(in, backward<false>(inputs(in), grad));
}

MMMAMBA_SCAN_ON(CUDA, selective_scan, SelectiveScan)

}  // namespace
}  // namespace mmmamba::cuda
