#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "scan.cuh"

namespace mmmamba::cuda {
namespace {

Tensor bidirectional_scan(const BidirectionalScan& in) {
  check(in);
  return forward<true>(Inputs(in), in.x);
}

// The kernels give the gradient of the step sizes before the bias, which is a
// matrix product of the weight and dt. The gradients of these two factors are
// products too.
BidirectionalScan::Grads bidirectional_scan_backward(
    const Tensor& grad, const BidirectionalScan& in) {
  check_backward(grad, in);
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      c10::autocast_dispatch_keyset);
  const Inputs scan(in);
  const auto out = backward<true>(scan, grad);

  const auto batch = in.x.size(0), channels = in.x.size(1);
  const auto rank = in.dt_weight.size(2), N = in.A.size(1);
  const auto d_delta = out.delta.unflatten(1, {2, channels});
  const auto dt = scan.dt.unflatten(1, {2, scan.height}).narrow(2, 0, rank);
  const auto weight = scan.weight.to(scan.type);
  auto d_projected = at::empty_like(in.projected);
  d_projected.narrow(2, 0, rank)
      .copy_(at::matmul(weight.transpose(1, 2), d_delta));
  d_projected.narrow(2, rank, 2 * N).copy_(out.rows);
  const auto d_weight =
      at::bmm(d_delta.flatten(0, 1), dt.flatten(0, 1).transpose(1, 2))
          .view({batch, 2, channels, rank})
          .sum(0, false, compute_type(scan.type));
  return {out.x.to(in.x.scalar_type()),
          d_projected,
          gradient_of(in.dt_weight, d_weight),
          column(out, N + 1, in.dt_bias, in.x),
          gradient_of(in.A, out.parameters.narrow(1, 0, N)),
          column(out, N, in.D, in.x)};
}

using Signature = BidirectionalScan::Signature;

}  // namespace

TORCH_LIBRARY_IMPL(mmmamba, CUDA, m) {
  m.impl("bidirectional_scan", &Function<Signature, bidirectional_scan>::call);
  m.impl("bidirectional_scan_backward",
         &Backward<Signature, bidirectional_scan_backward>::call);
}

}  // namespace mmmamba::cuda
