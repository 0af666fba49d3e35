#include "scan.cuh"

namespace mmmamba::cuda {
namespace {

Tensor selective_scan(const SelectiveScan& in) {
  check(in);
  return forward<false>(Inputs(in), in.u);
}

SelectiveScan::Grads selective_scan_backward(const Tensor& grad,
                                             const SelectiveScan& in) {
  check_backward(grad, in);
  const auto out = backward<false>(Inputs(in), grad);
  const auto N = in.A.size(1);
  return {out.x.to(in.u.scalar_type()),
          out.delta.to(in.delta.scalar_type()),
          gradient_of(in.A, out.parameters.narrow(1, 0, N)),
          gradient_of(in.B, out.rows.narrow(2, 0, N)),
          gradient_of(in.C, out.rows.narrow(2, N, N)),
          column(out, N, in.D, in.u),
          column(out, N + 1, in.delta_bias, in.u)};
}

using Signature = SelectiveScan::Signature;

}  // namespace

TORCH_LIBRARY_IMPL(mmmamba, CUDA, m) {
  m.impl("selective_scan", &Function<Signature, selective_scan>::call);
  m.impl("selective_scan_backward",
         &Backward<Signature, selective_scan_backward>::call);
}

}  // namespace mmmamba::cuda
