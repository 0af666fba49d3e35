// The ops of a deployed network on the CPU: inside a parallel region they run
// in the thread that calls. Inputs are checked already. The result y is
// contiguous and does not overlap the inputs.
#pragma once

#include "../ops.h"

namespace mmmamba::cpu {

void block(const Block& in, const Tensor& y);
void depthwise_conv(const DepthwiseConv& in, const Tensor& y);
void mixer_conv(const MixerConv& in, const Tensor& y);
void stem_conv(const StemConv& in, const Tensor& y);
void scan_gate(const ScanGate& in, const Tensor& y);
void linear(const Linear& in, const Tensor& y);
void feed_forward(const FeedForward& in, const Tensor& y);

// An op as it is registered: checks the inputs, allocates the result, computes.
template <typename Op, Tensor (*kResult)(const Op&),
          void (*kCompute)(const Op&, const Tensor&)>
Tensor computed(const Op& in) {
  const Tensor y = kResult(in);
  kCompute(in, y);
  return y;
}

}  // namespace mmmamba::cpu

// Registers an op for inference, in the namespace that has its result().
#define MMMAMBA_INFERENCE_OP(name, Op, schema)                                 \
  TORCH_LIBRARY_FRAGMENT(mmmamba, m) { m.def(#name schema, kTags); }           \
  TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {                                       \
    m.impl(#name, &Function<Op::Signature, result>::call);                     \
  }                                                                            \
  TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {                                        \
    m.impl(                                                                    \
        #name,                                                                 \
        &Function<Op::Signature, cpu::computed<Op, result, cpu::name>>::call); \
  }
