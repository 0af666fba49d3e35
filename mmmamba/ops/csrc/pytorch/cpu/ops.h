// The ops of a deployed network on the CPU: inside a parallel region they run
// in the thread that calls. Inputs are checked already. The result y is
// contiguous and does not overlap the inputs.
#pragma once

#include "../inference.h"

namespace mmmamba::cpu {

void block(const Block& in, const Tensor& y);
void depthwise_conv(const DepthwiseConv& in, const Tensor& y);
void mixer_conv(const MixerConv& in, const Tensor& y);
void stem_conv(const StemConv& in, const Tensor& y);
void scan_gate(const ScanGate& in, const Tensor& y);
void linear(const Linear& in, const Tensor& y);
void feed_forward(const FeedForward& in, const Tensor& y);

}  // namespace mmmamba::cpu
