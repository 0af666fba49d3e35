#include "scan.h"
#include "scan_autograd.h"

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

void check_backward(const Tensor& grad, const BidirectionalScan& in) {
  check(in).check("the gradient", grad, "batch D L");
}

namespace {

Tensor meta(const BidirectionalScan& in) {
  check(in);
  return at::empty_like(in.x);
}

BidirectionalScan::Grads backward_meta(const Tensor& grad,
                                       const BidirectionalScan& in) {
  check_backward(grad, in);
  const auto like = [&](const OptionalTensor& t) {
    return t ? at::empty_like(*t) : at::empty({0}, in.x.options());
  };
  return {like(in.x),       like(in.projected), like(in.dt_weight),
          like(in.dt_bias), like(in.A),         like(in.D)};
}

using Signature = BidirectionalScan::Signature;

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  m.def(
      "bidirectional_scan(Tensor x, Tensor projected, Tensor dt_weight, "
      "Tensor dt_bias, Tensor A, Tensor? D) -> Tensor",
      kTags);
  m.def(
      "bidirectional_scan_backward(Tensor grad, Tensor x, Tensor projected, "
      "Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor? D) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
      kTags);
}

TORCH_LIBRARY_IMPL(mmmamba, Autograd, m) {
  using Autograd = ScanAutograd<BidirectionalScan>;
  m.impl("bidirectional_scan", &Autograd::call);
  m.impl("bidirectional_scan_backward", &Autograd::backward);
}

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("bidirectional_scan", &Function<Signature, meta>::call);
  m.impl("bidirectional_scan_backward",
         &Backward<Signature, backward_meta>::call);
}

}  // namespace mmmamba
