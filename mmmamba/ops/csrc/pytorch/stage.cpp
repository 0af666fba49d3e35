// A stage out of the other ops, which the dispatcher finds: what it saves is
// Python's way from one to the next.
#include <ATen/core/dispatch/Dispatcher.h>

#include "../common/block.hpp"
#include "ops.h"

namespace mmmamba {
namespace {

template <typename Op, typename... Inputs>
Tensor call(const char* name, const Inputs&... inputs) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(name, "")
                             .typed<typename Op::Signature>();
  return op.call(inputs...);
}

// Takes tensors off the front of a list.
at::TensorList next(at::TensorList& list, size_t count) {
  TORCH_CHECK_VALUE(list.size() >= count,
                    "stage: the last of its layers has too few tensors");
  const auto taken = list.slice(0, count);
  list = list.slice(count);
  return taken;
}

template <template <typename> class Parameters>
at::TensorList next(at::TensorList& list) {
  return next(list, kTensors<Parameters<Tensor>>);
}

Tensor conv(const Tensor& x, at::TensorList p, int64_t stride,
            const char* act) {
  return call<DepthwiseConv>("mmmamba::depthwise_conv", x, p[0],
                             OptionalTensor(p[1]), stride,
                             c10::string_view(act));
}

Tensor linear(const Tensor& x, at::TensorList p, bool relu) {
  return call<Linear>("mmmamba::linear", x, p[0], OptionalTensor(p[1]), relu,
                      OptionalTensor());
}

Tensor ffn(const Tensor& x, at::TensorList p) {
  return call<FeedForward>("mmmamba::feed_forward", x, p[0], p[1], p[2], p[3],
                           OptionalTensor());
}

Tensor transition(const Tensor& x, at::TensorList& list) {
  const auto layer = [&] { return next<LayerParameters>(list); };
  Tensor y = conv(x, layer(), 1, "none");
  y = ffn(y, next<FFNParameters>(list));
  // An inverted bottleneck of stride 2 with squeeze-and-excite.
  y = linear(y, layer(), true);
  y = conv(y, layer(), 2, "relu");
  const Tensor squeezed = linear(y.mean({1, 2}, true), layer(), true);
  y.mul_(linear(squeezed, layer(), false).sigmoid_());
  y = linear(y, layer(), false);
  y = conv(y, layer(), 1, "none");
  return ffn(y, next<FFNParameters>(list));
}

Tensor block(const Tensor& x, at::TensorList& list, const Stage& in) {
  const auto layer = [&] { return next<LayerParameters>(list); };
  const auto conv1 = layer(), ffn1 = next<FFNParameters>(list),
             ssm = next<SSMParameters>(list), wavelet = next(list, in.wavelet),
             local = in.local ? next<LocalParameters>(list) : at::TensorList(),
             proj = layer(), conv2 = layer(), ffn2 = next<FFNParameters>(list);
  return call<Block>(
      "mmmamba::block", x, conv1, ffn1, ssm,
      wavelet.empty() ? OptionalTensor() : OptionalTensor(wavelet[0]), local,
      proj, conv2, ffn2, in.eps);
}

Tensor stage(const Stage& in) {
  auto list = in.parameters;
  Tensor x = in.transition ? transition(in.x, list) : in.x;
  while (!list.empty()) x = block(x, list, in);
  return x.is_same(in.x) ? x.clone() : x;
}

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  m.def(
      "stage(Tensor x, Tensor[] parameters, bool transition, bool wavelet, "
      "bool local, float eps) -> Tensor",
      kTags);
  m.impl("stage", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd,
                                  &Function<Stage::Signature, stage>::call));
}

}  // namespace
}  // namespace mmmamba
