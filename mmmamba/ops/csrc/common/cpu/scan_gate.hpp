// The bidirectional scan with the layer norm and the gate that follow it: what
// its kernels take.
#pragma once

#include "isa.hpp"

namespace mmmamba::scan_gate {

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
struct Args {
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
struct Kernels {
  int64_t lanes;
  // The vectors of `lanes` channels [begin, end) of all samples.
  void (*scan)(const Args<T>&, int64_t, int64_t);
  // Layer norm and gate of the positions [begin, end) of all samples.
  void (*gate)(const Args<T>&, int64_t, int64_t);
};

}  // namespace mmmamba::scan_gate

MMMAMBA_DECLARE_KERNELS(scan_gate, template <typename T> Kernels<T> kernels())
