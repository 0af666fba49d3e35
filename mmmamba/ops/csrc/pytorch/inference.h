// What the ops for inference share, and how they are registered.
#pragma once

#include "ops.h"

namespace mmmamba {

// Checks the inputs and allocates the result, on the meta device too.
Tensor result(const Block& in);
Tensor result(const DepthwiseConv& in);
Tensor result(const FeedForward& in);
Tensor result(const Linear& in);
Tensor result(const MixerConv& in);
Tensor result(const ScanGate& in);
Tensor result(const StemConv& in);

// An op on a device: kCompute gets inputs that are checked, and a result that
// is contiguous and does not overlap them.
template <typename Op, void (*kCompute)(const Op&, const Tensor&)>
Tensor computed(const Op& in) {
  const Tensor y = result(in);
  kCompute(in, y);
  return y;
}

}  // namespace mmmamba

// Registers an op, and its result without data.
#define MMMAMBA_INFERENCE_OP(name, Op, schema)                       \
  TORCH_LIBRARY_FRAGMENT(mmmamba, m) { m.def(#name schema, kTags); } \
  TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {                             \
    constexpr Tensor (*kResult)(const Op&) = result;                 \
    m.impl(#name, &Function<Op::Signature, kResult>::call);          \
  }

// Registers what computes it on a device, in the namespace that has it.
#define MMMAMBA_INFERENCE_OP_ON(device, name, Op)                      \
  TORCH_LIBRARY_IMPL(mmmamba, device, m) {                             \
    m.impl(#name, &Function<Op::Signature, computed<Op, name>>::call); \
  }
