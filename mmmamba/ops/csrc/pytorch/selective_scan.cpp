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

ScanInputs::ScanInputs(const SelectiveScan& in, at::ScalarType type)
    : type(type),
      softplus(in.delta_softplus),
      directions(in.B.size(1)),
      height(in.B.size(2)),
      x(in.u.to(type)),
      B(in.B.to(type).contiguous().flatten(1, 2)),
      C(in.C.to(type).contiguous().flatten(1, 2)),
      A(parameter(in.A, compute_type(type))),
      D(parameter(in.D, compute_type(type))),
      bias(parameter(in.delta_bias, compute_type(type))),
      delta(in.delta.to(type)) {}

SelectiveScan::Grads grads_of(const SelectiveScan& in, const ScanGrads& g) {
  const int64_t N = in.A.size(1);
  return {g.x.to(in.u.scalar_type()),
          g.delta.to(in.delta.scalar_type()),
          gradient_of(in.A, g.A, in.u),
          gradient_of(in.B, g.rows.narrow(2, 0, N), in.u),
          gradient_of(in.C, g.rows.narrow(2, N, N), in.u),
          gradient_of(in.D, g.D, in.u),
          gradient_of(in.delta_bias, g.bias, in.u)};
}

MMMAMBA_SCAN_OP(selective_scan, SelectiveScan,
                "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
                "Tensor? D, Tensor? delta_bias, bool delta_softplus",
                "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")

}  // namespace mmmamba
