#include "launch.h"
#include "ops.h"

namespace mmmamba::cpu {

void depthwise_conv_weight_grad(const DepthwiseConvWeightGrad& in,
                                const Tensor& y) {
  for (const Tensor& t : {in.x, in.grad})
    TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat,
                     "depthwise_conv_weight_grad: inputs must be float32, got ",
                     t.scalar_type());
  using Map = mmmamba::depthwise_conv::Map<const float>;
  const Tensor x = channels_last(in.x, at::kFloat),
               grad = channels_last(in.grad, at::kFloat);
  depthwise_grad::Args args = {};
  args.batch = x.size(0);
  args.height = x.size(1);
  args.width = x.size(2);
  args.channels = x.size(3);
  args.kernel = in.kernel;
  args.x = view<Map>(x);
  args.grad = view<Map>(grad);
  args.result = pointer(y);
  compute(args, PyTorch());
}

MMMAMBA_INFERENCE_OP_ON(CPU, depthwise_conv_weight_grad,
                        DepthwiseConvWeightGrad)

}  // namespace mmmamba::cpu
