#include "cpu/ops.h"
#include "shapes.h"

namespace mmmamba {
namespace {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const StemConv& in) {
  Shapes shapes("stem_conv");
  const auto layers = in.weights.size();
  shapes.require(layers > 0 && in.biases.size() == layers,
                 "as many biases as weights are needed, and one at least, got ",
                 in.biases.size(), " and ", layers);
  shapes.check("x", in.x, "B C0>=1 H>=1 W>=1");
  c10::SymInt height = shapes["H"], width = shapes["W"];
  for (size_t i = 0; i < layers; ++i) {
    const auto in_channels = c10::str("C", i), out = c10::str("C", i + 1);
    shapes.check(c10::str("weights[", i, "]"), in.weights[i],
                 c10::str("3 3 ", in_channels, " ", out, ">=16"));
    shapes.check(c10::str("biases[", i, "]"), in.biases[i], out);
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  return at::empty_symint(
      {shapes["B"], height, width, shapes[c10::str("C", layers)]},
      in.x.options());
}

MMMAMBA_INFERENCE_OP(stem_conv, StemConv,
                     "(Tensor x, Tensor[] weights, Tensor[] biases) -> Tensor")

}  // namespace
}  // namespace mmmamba
