#include "scan.h"
#include "scan_autograd.h"

namespace mmmamba {

Shapes check(const SelectiveScan& in) {
  Shapes shapes("selective_scan");
  shapes.check("u", in.u, "batch KD L>=1");
  shapes.check("A", in.A, "KD N");
  shapes.check("delta", in.delta, "batch KD L");
  shapes.check("B", in.B, "batch K>=1 N L");
  shapes.require(shapes["KD"] % shapes["K"] == 0, "B has ", shapes["K"],
                 " directions, which do not divide the ", shapes["KD"],
                 " channels of u");
  shapes.check("C", in.C, "batch K N L");
  shapes.check("D", in.D, "KD");
  shapes.check("delta_bias", in.delta_bias, "KD");
  return shapes;
}

void check_backward(const Tensor& grad, const SelectiveScan& in) {
  check(in).check("the gradient", grad, "batch KD L");
}

namespace {

Tensor meta(const SelectiveScan& in) {
  check(in);
  return at::empty_like(in.u);
}

SelectiveScan::Grads backward_meta(const Tensor& grad,
                                   const SelectiveScan& in) {
  check_backward(grad, in);
  const auto like = [&](const OptionalTensor& t) {
    return t ? at::empty_like(*t) : at::empty({0}, in.u.options());
  };
  return {like(in.u), like(in.delta), like(in.A),         like(in.B),
          like(in.C), like(in.D),     like(in.delta_bias)};
}

using Signature = SelectiveScan::Signature;

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor? D, Tensor? delta_bias, bool delta_softplus) -> Tensor",
      kTags);
  m.def(
      "selective_scan_backward(Tensor grad, Tensor u, Tensor delta, Tensor A, "
      "Tensor B, Tensor C, Tensor? D, Tensor? delta_bias, "
      "bool delta_softplus) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
      kTags);
}

TORCH_LIBRARY_IMPL(mmmamba, Autograd, m) {
  using Autograd = ScanAutograd<SelectiveScan>;
  m.impl("selective_scan", &Autograd::call);
  m.impl("selective_scan_backward", &Autograd::backward);
}

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("selective_scan", &Function<Signature, meta>::call);
  m.impl("selective_scan_backward", &Backward<Signature, backward_meta>::call);
}

}  // namespace mmmamba
