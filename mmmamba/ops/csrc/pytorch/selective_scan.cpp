#include "scan_op.h"

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

MMMAMBA_SCAN_OP(selective_scan, SelectiveScan,
                "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
                "Tensor? D, Tensor? delta_bias, bool delta_softplus",
                "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")

}  // namespace mmmamba
