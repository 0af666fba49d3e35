#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const ScanGate& in) {
  Shapes shapes("scan_gate");
  shapes.check("x", in.x, "B L>=1 D>=16");
  shapes.check("dt_weight", in.dt_weight, "2 D R");
  shapes.check("dt_bias", in.dt_bias, "2 D");
  shapes.check("A", in.A, "2*D N");
  shapes.check("D", in.D, "2*D");
  shapes.check("projected", in.projected, "B L 2*R+4*N");
  shapes.check("norm_weight", in.norm_weight, "D");
  shapes.check("norm_bias", in.norm_bias, "D");
  shapes.check("z", in.z, "B L D");
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

using Signature = ScanGate::Signature;

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  m.def(
      "scan_gate(Tensor x, Tensor projected, Tensor dt_weight, "
      "Tensor dt_bias, Tensor A, Tensor D, Tensor norm_weight, "
      "Tensor norm_bias, Tensor z, float eps) -> Tensor",
      kTags);
}

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("scan_gate",
         &Function<Signature,
                   cpu::computed<ScanGate, result, cpu::scan_gate>>::call);
}

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("scan_gate", &Function<Signature, result>::call);
}

}  // namespace mmmamba
