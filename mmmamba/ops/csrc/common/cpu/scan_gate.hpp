// What the kernel of the fused scan, layer norm and gate takes, and which
// instruction sets it exists for.
#pragma once

#include <cstdint>

#include "bfloat16.hpp"

namespace mmmamba {

// A tensor (batch, positions, channels) with contiguous channels; strides in
// elements.
template <typename T>
struct Series {
  T* data;
  int64_t batch, position;

  T* at(int64_t b, int64_t i) const { return data + b * batch + i * position; }
};

// T is of the maps, float or BFloat16; parameters, which are contiguous, and
// the computation are float.
template <typename T>
struct ScanGateArgs {
  int64_t batch, length, channels, d_state, rank;
  Series<const T> x, z;
  Series<const float> projected;  // 2 * (rank + 2 * d_state) channels
  const float *dt_weight, *dt_bias, *A, *skip;
  const float *norm_weight, *norm_bias;
  float eps;
  Series<float> scanned;  // in between; may be y
  Series<T> y;
};

template <typename T>
struct ScanGateKernels {
  int64_t lanes;
  // The blocks of `lanes` channels [begin, end) of all samples.
  void (*scan)(const ScanGateArgs<T>&, int64_t, int64_t);
  // Layer norm and gate of the positions [begin, end) of all samples.
  void (*gate)(const ScanGateArgs<T>&, int64_t, int64_t);
};

namespace portable {
template <typename T>
ScanGateKernels<T> scan_gate_kernels();
}
namespace avx2 {
template <typename T>
ScanGateKernels<T> scan_gate_kernels();
}
namespace avx512 {
template <typename T>
ScanGateKernels<T> scan_gate_kernels();
}

}  // namespace mmmamba
