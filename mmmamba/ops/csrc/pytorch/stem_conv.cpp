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
  shapes.check("x", in.x, "B C>=1 H>=1 W>=1");
  c10::SymInt height = shapes["H"], width = shapes["W"];
  for (size_t i = 0; i < layers; ++i) {
    const auto index = c10::str("[", i, "]");
    shapes.check(("weights" + index).c_str(), in.weights[i], "3 3 C C_out>=16");
    shapes.check(("biases" + index).c_str(), in.biases[i], "C_out");
    shapes.rename("C_out", "C");
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  return at::empty_symint({shapes["B"], height, width, shapes["C"]},
                          in.x.options());
}

MMMAMBA_INFERENCE_OP(stem_conv, StemConv,
                     "(Tensor x, Tensor[] weights, Tensor[] biases) -> Tensor")

}  // namespace
}  // namespace mmmamba
