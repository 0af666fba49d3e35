#include "inference.h"
#include "shapes.h"

namespace mmmamba {

Tensor result(const MixerConv& in) {
  Shapes shapes("mixer_conv");
  for (const auto* t : {&in.local_bias, &in.local_scale, &in.local_shift})
    shapes.require(t->has_value() == in.local_weight.has_value(),
                   "local_weight, local_bias, local_scale and local_shift are "
                   "either all there or all None");
  shapes.check("x", in.x, "B H>=1 W>=1 C>=1");
  shapes.check("ssm", in.ssm, "B H W G>=1");
  if (in.wavelet_weight)
    shapes.check_kernel("wavelet_weight", *in.wavelet_weight, "4 k k G>=16",
                        "k");
  if (in.local_weight)
    shapes.check_kernel("local_weight", *in.local_weight, "j j M>=16", "j");
  shapes.check("local_bias", in.local_bias, "M");
  shapes.check("local_scale", in.local_scale, "M");
  shapes.check("local_shift", in.local_shift, "M");
  const auto used = shapes["G"] + shapes["M"];
  shapes.require(used <= shapes["C"], "ssm and local_weight have ", used,
                 " channels, more than the ", shapes["C"], " of x");
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

MMMAMBA_INFERENCE_OP(
    mixer_conv, MixerConv,
    "(Tensor x, Tensor ssm, Tensor? wavelet_weight, "
    "Tensor? local_weight, Tensor? local_bias, Tensor? local_scale, "
    "Tensor? local_shift) -> Tensor")

}  // namespace mmmamba
