#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

using mmmamba::scan_gate::Series;

static void scan_gate(const ScanGate& in, const Tensor& y) {
  const Tensor x = channels_last(in.x, in.x.scalar_type()),
               z = channels_last(in.z, in.x.scalar_type()),
               projected = channels_last(in.projected, at::kFloat),
               weight = parameter(in.dt_weight.transpose(1, 2)),
               bias = parameter(in.dt_bias), A = parameter(in.A),
               skip = parameter(in.D), scale = parameter(in.norm_weight),
               shift = parameter(in.norm_bias);
  const Tensor scanned = x.scalar_type() == at::kFloat
                             ? y
                             : at::empty(x.sizes(), projected.options());
  dispatch("scan_gate", x, [&](auto type) {
    using T = decltype(type);
    mmmamba::scan_gate::Args<T> args = {};
    args.batch = x.size(0);
    args.length = x.size(1);
    args.channels = x.size(2);
    args.d_state = in.A.size(1);
    args.rank = in.dt_weight.size(2);
    args.x = view<Series<const T>>(x);
    args.z = view<Series<const T>>(z);
    args.projected = view<Series<const float>>(projected);
    args.dt_weight = pointer(weight);
    args.dt_bias = pointer(bias);
    args.A = pointer(A);
    args.skip = pointer(skip);
    args.norm_weight = pointer(scale);
    args.norm_bias = pointer(shift);
    args.eps = static_cast<float>(in.eps);
    args.scanned = view<Series<float>>(scanned);
    args.y = view<Series<T>>(y);
    compute(args, PyTorch());
  });
}

MMMAMBA_INFERENCE_OP_ON(CPU, scan_gate, ScanGate)

}  // namespace mmmamba::cpu
