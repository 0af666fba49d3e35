// The ops of a deployed network on a CPU, free of any runtime: each chooses the
// kernels for this CPU, whose tasks the threads of the runtime share.
#pragma once

#include <string_view>

#include "../block.hpp"
#include "array.hpp"
#include "block.hpp"
#include "depthwise_conv.hpp"
#include "gemm.hpp"
#include "mixer_conv.hpp"
#include "runtime.hpp"
#include "scan.hpp"
#include "scan_gate.hpp"
#include "stem_conv.hpp"

namespace mmmamba {

// The activation of a name that is checked.
inline depthwise_conv::Act act_of(std::string_view name) {
  using depthwise_conv::Act;
  return name == "none" ? Act::kNone : name == "relu" ? Act::kRelu : Act::kSilu;
}

template <typename T>
void compute(const depthwise_conv::Args<T>& args, const Runtime& runtime);
template <typename T>
void compute(const mixer_conv::Args<T>& args, const Runtime& runtime);
// Here A is (2 * channels, d_state).
template <typename T>
void compute(scan_gate::Args<T> args, const Runtime& runtime);
// The forward of either scan, the bidirectional one if there is no delta.
template <typename T>
void compute(const scan::Args<T>& args, const Runtime& runtime);
// Packs the layers and chooses the bands.
void compute(stem_conv::Args args, const Runtime& runtime);
// A linear layer for so many rows, or two; y may be the residual, or x of two.
void compute(const gemm::Args& args, int64_t rows, const Runtime& runtime);
void compute(gemm::Args first, gemm::Args second, int64_t rows,
             const Runtime& runtime);
void compute(const block::Args& args, const Runtime& runtime);

inline gemm::Weight weight_of(const Array& weight) {
  return {weight.data, gemm::Precision(weight.numbers)};
}

// The parameters of a block one after the other, absent ones too, by name.
BlockParameters<Array> block_parameters(const Array* list);
block::Args block_args(const Array& x, const BlockParameters<Array>& p,
                       float eps, float* y);

}  // namespace mmmamba
