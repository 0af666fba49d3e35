#include "../inference.h"
#include "launch.h"

namespace mmmamba::cpu {

using gemm::Matrix;

static void feed_forward(const FeedForward& in, const Tensor& y) {
  const Tensor x = rows("feed_forward", in.x),
               shortcut = rows("feed_forward", in.shortcut),
               weight1 = weight_parameter(in.weight1),
               bias1 = parameter(in.bias1),
               weight2 = weight_parameter(in.weight2),
               bias2 = parameter(in.bias2);
  gemm::Args first = {}, second = {};
  first.in = second.out = x.size(1);
  first.out = second.in = weight1.size(1);
  first.sample = second.sample = sample_rows(in.x);
  first.x = second.residual = view<Matrix<const float>>(x);
  first.weight = weight_of(weight1);
  first.bias = pointer(bias1);
  first.relu = true;
  second.weight = weight_of(weight2);
  second.bias = pointer(bias2);
  second.shortcut = view<Matrix<const float>>(shortcut);
  second.y = {pointer(y), second.out};
  compute(first, second, x.size(0), PyTorch());
}

MMMAMBA_INFERENCE_OP_ON(CPU, feed_forward, FeedForward)

}  // namespace mmmamba::cpu
