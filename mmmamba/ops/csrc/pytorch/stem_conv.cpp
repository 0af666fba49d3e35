#include "../common/rules.hpp"
#include "inference.h"
#include "shapes.h"

namespace mmmamba {

Tensor result(const StemConv& in) {
  Shapes shapes("stem_conv");
  check_stem_conv(shapes, in);
  const auto halved = [](c10::SymInt size, size_t times) {
    for (; times > 0; --times) size = (size + 1) / 2;
    return size;
  };
  const auto layers = in.weights.size();
  return at::empty_symint(
      {shapes["B"], halved(shapes["H"], layers), halved(shapes["W"], layers),
       shapes["C" + std::to_string(layers)]},
      in.x.options());
}

MMMAMBA_INFERENCE_OP(stem_conv, StemConv,
                     "(Tensor x, Tensor[] weights, Tensor[] biases) -> Tensor")

}  // namespace mmmamba
