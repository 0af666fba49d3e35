#include "ops.h"
#include "scan.cuh"

namespace mmmamba::cuda {
namespace {

ScanInputs inputs(const BidirectionalScan& in) {
  return ScanInputs(in, common_type({in.x, in.projected}));
}

}  // namespace

Tensor bidirectional_scan(const BidirectionalScan& in) {
  check(in);
  return forward<true>(inputs(in), in.x);
}

namespace {

// The kernels give the gradient of the step sizes before the bias, which is a
// matrix product of the weight and dt. The gradients of these two factors are
// products too.
BidirectionalScan::Grads bidirectional_scan_backward(
    const Tensor& grad, const BidirectionalScan& in) {
  check_backward(grad, in);
  const PlainOps plain;
  const auto scan = inputs(in);
  auto g = backward<true>(scan, grad);
  const auto batch = in.x.size(0), channels = in.x.size(1);
  const auto d_delta = g.delta.unflatten(1, {2, channels});
  const auto dt =
      scan.dt.unflatten(1, {2, scan.height}).narrow(2, 0, scan.rank());
  const auto weight = scan.weight.to(scan.type);
  g.rows = at::cat(
      {at::matmul(weight.transpose(1, 2), d_delta).to(g.rows), g.rows}, 2);
  g.weight = at::bmm(d_delta.flatten(0, 1), dt.flatten(0, 1).transpose(1, 2))
                 .view({batch, 2, channels, scan.rank()})
                 .sum(0, false, compute_type(scan.type));
  return grads_of(in, g);
}

MMMAMBA_SCAN_ON(CUDA, bidirectional_scan, BidirectionalScan)

}  // namespace
}  // namespace mmmamba::cuda
