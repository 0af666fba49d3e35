// The scans with their gradients: what their kernels take.
#pragma once

#include "isa.hpp"

namespace mmmamba::scan {

// A tensor (batch, rows, positions); strides in elements.
template <typename T>
struct Sequences {
  T* data;
  int64_t batch, row, position;

  T* at(int64_t b, int64_t r) const { return data + b * batch + r * row; }
};

// Rows of contiguous positions, which all channels share.
template <typename T>
struct Panel {
  const T* data;
  int64_t row;

  const T* at(int64_t r) const { return data + r * row; }
  Panel operator+(int64_t positions) const { return {data + positions, row}; }
};

// A tensor (batch, direction, rows, positions); strides in elements.
template <typename T>
struct Rows {
  const T* data;
  int64_t batch, direction, row;

  Panel<T> at(int64_t b, int64_t k) const {
    return {data + b * batch + k * direction, row};
  }
};

struct Sizes {
  int64_t batch, directions, channels, d_state, length;
  int64_t rank;    // of the step sizes: 0 if they are given as such
  int64_t splits;  // parts the channels are cut into by the backward
};

// Parameters are contiguous, as are their gradients, which have a batch axis
// in front; the caller sums over it. An absent one is null.
template <typename T>
struct Args {
  Sizes sizes;
  Sequences<const T> x;      // (batch, K*D, L); bidirectional: (batch, D, L)
  Sequences<const T> delta;  // (batch, K*D, L); bidirectional: unused
  Rows<T> dt, B, C;          // (batch, K, R or N, L)
  const T *dt_weight, *dt_bias, *A, *skip;
  bool softplus;

  Sequences<T> y;  // of the forward

  Sequences<const T> grad_y;  // of the backward
  Sequences<T> grad_x, grad_delta;
  T *grad_dt_weight, *grad_dt_bias, *grad_A, *grad_skip;
  // (batch, K, splits, R + 2N, L), zero: what each part of the channels adds
  // to the gradients of dt, B and C.
  T* grad_rows;
};

// Each runs the tasks [begin, end). There is one for each sample, for each
// direction of the selective scan, and for each vector of `lanes` channels (of
// the forward) or each of the splits (of the backward).
template <typename T>
struct Kernels {
  int64_t lanes;
  void (*selective_forward)(const Args<T>&, int64_t, int64_t);
  void (*selective_backward)(const Args<T>&, int64_t, int64_t);
  void (*bidirectional_forward)(const Args<T>&, int64_t, int64_t);
  void (*bidirectional_backward)(const Args<T>&, int64_t, int64_t);
};

}  // namespace mmmamba::scan

MMMAMBA_DECLARE_KERNELS(scan, template <typename T> Kernels<T> kernels())
