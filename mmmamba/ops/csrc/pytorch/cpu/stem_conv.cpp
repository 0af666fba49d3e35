#include "../../common/cpu/stem_conv.hpp"

#include <algorithm>
#include <numeric>

#include "launch.h"
#include "ops.h"

namespace mmmamba::cpu {
namespace {

using mmmamba::stem_conv::Args;
using mmmamba::stem_conv::Layer;

const auto& kernels() {
  return MMMAMBA_KERNELS_FOR_THIS_CPU(stem_conv::kernels);
}

// Packs the weight of a layer that has panels of it.
Tensor pack(Layer& layer) {
  const int64_t panels = kernels().count_panels(layer);
  if (panels == 0) return {};
  const int64_t size = kernels().panel_size(layer);
  const Tensor packed = at::empty({panels, size}, at::kFloat);
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels().pack(layer, i, pointer(packed) + i * size);
  });
  layer.packed = pointer(packed);
  return packed;
}

}  // namespace

void stem_conv(const StemConv& in, const Tensor& y) {
  const Tensor& x = in.x;
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat,
                   "stem_conv: x must be float32, got ", x.scalar_type());
  std::vector<Tensor> kept_alive;
  std::vector<Layer> layers;
  int64_t channels = x.size(1);
  for (size_t i = 0; i < in.weights.size(); ++i) {
    const Tensor weight = parameter(in.weights[i]),
                 bias = parameter(in.biases[i]);
    layers.push_back({channels, weight.size(3), pointer(weight), pointer(bias),
                      i + 1 < in.weights.size()});
    kept_alive.insert(kept_alive.end(), {weight, bias, pack(layers.back())});
    channels = weight.size(3);
  }
  // As few bands as give all threads the same to do: each computes the rows
  // around it once more.
  const int64_t threads = num_threads();
  const int64_t bands =
      std::min(threads / std::gcd(threads, x.size(0)), y.size(1));
  const Args args = {x.size(0),     x.size(2),
                     x.size(3),     pointer(x),
                     x.stride(0),   x.stride(1),
                     x.stride(2),   x.stride(3),
                     layers.data(), static_cast<int64_t>(layers.size()),
                     pointer(y),    bands};
  run(kernels().run, args, args.batch * bands);
}

}  // namespace mmmamba::cpu
