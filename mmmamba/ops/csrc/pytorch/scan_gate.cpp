#include "inference.h"
#include "shapes.h"

namespace mmmamba {

Tensor result(const ScanGate& in) {
  Shapes shapes("scan_gate");
  shapes.check("x", in.x, "B L>=1 D>=16");
  shapes.check("dt_weight", in.dt_weight, "2 D R");
  shapes.check("dt_bias", in.dt_bias, "2 D");
  shapes.check("A", in.A, "2*D N>=1");
  shapes.check("D", in.D, "2*D");
  shapes.check("projected", in.projected, "B L 2*R+4*N");
  shapes.check("norm_weight", in.norm_weight, "D");
  shapes.check("norm_bias", in.norm_bias, "D");
  shapes.check("z", in.z, "B L D");
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(scan_gate, ScanGate,
                     "(Tensor x, Tensor projected, Tensor dt_weight, "
                     "Tensor dt_bias, Tensor A, Tensor D, Tensor norm_weight, "
                     "Tensor norm_bias, Tensor z, float eps) -> Tensor")

}  // namespace mmmamba
