#include "../../common/cpu/dispatch.hpp"
#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

using gemm::Matrix;

static void linear(const Linear& in, const Tensor& y) {
  const Tensor x = rows("linear", in.x), residual = rows("linear", in.residual),
               weight = weight_parameter(in.weight), bias = parameter(in.bias);
  gemm::Args args = {};
  args.in = x.size(1);
  args.out = weight.size(1);
  args.sample = sample_rows(in.x);
  args.x = view<Matrix<const float>>(x);
  args.weight = weight_of(weight);
  args.bias = pointer(bias);
  args.relu = in.relu;
  args.residual = view<Matrix<const float>>(residual);
  args.y = {pointer(y), args.out};
  compute(args, x.size(0), PyTorch());
}

MMMAMBA_INFERENCE_OP_ON(CPU, linear, Linear)

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  m.def("has_dot_products(str dtype) -> bool", [](c10::string_view dtype) {
    const auto least =
        dtype == "int8" ? DotProducts::kInt8 : DotProducts::kBFloat16;
    return dot_products() >= least;
  });
}

}  // namespace mmmamba::cpu
