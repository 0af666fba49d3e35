// What the kernel of the fused scan, layer norm and gate takes, and which
// instruction sets it exists for.
#pragma once

#include <cstdint>

namespace mmmamba {

// A tensor (batch, positions, channels) with contiguous channels; strides in
// elements.
template <typename T>
struct Series {
  T* data;
  int64_t batch, position;

  T* at(int64_t b, int64_t i) const { return data + b * batch + i * position; }
};

// Parameters are contiguous.
struct ScanGateArgs {
  int64_t batch, length, channels, d_state, rank;
  Series<const float> x, projected, z;  // projected: 2 * (rank + 2 * d_state)
  const float *dt_weight, *dt_bias, *A, *skip;
  const float *norm_weight, *norm_bias;
  float eps;
  Series<float> y;
};

struct ScanGateKernels {
  int64_t lanes;
  // The blocks of `lanes` channels [begin, end) of all samples.
  void (*scan)(const ScanGateArgs&, int64_t, int64_t);
  // Layer norm and gate, in place, of the positions [begin, end) of all
  // samples.
  void (*gate)(const ScanGateArgs&, int64_t, int64_t);
};

namespace portable {
ScanGateKernels scan_gate_kernels();
}
namespace avx2 {
ScanGateKernels scan_gate_kernels();
}
namespace avx512 {
ScanGateKernels scan_gate_kernels();
}

}  // namespace mmmamba
