// Both scans on the CPU: tensors to the arguments of their kernels.
#pragma once

#include "../../common/cpu/scan.hpp"
#include "../scan.h"

namespace mmmamba::cpu {

// The inputs of a scan in the dtype that it is computed in.
struct ScanInputs {
  Tensor x, delta, dt, B, C, dt_weight, dt_bias, A, skip;
  bool softplus, bidirectional;
  mmmamba::scan::Sizes sizes;
};

// The gradients of these, each summed up.
struct ScanGrads {
  Tensor x, delta, dt_weight, dt_bias, A, skip;
  Tensor rows;  // of dt, B and C: (batch, K, R + 2N, L)
};

// The state is float32, whatever the inputs, or float64.
inline at::ScalarType compute_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Rows with contiguous positions, as the kernels take them.
inline Tensor rows(const Tensor& t, at::ScalarType dtype) {
  const Tensor converted = t.to(dtype);
  return converted.stride(-1) == 1 ? converted : converted.contiguous();
}

// Returns the result in the dtype and the memory order of x.
Tensor scan_forward(const ScanInputs& in, const Tensor& x);
ScanGrads scan_backward(const ScanInputs& in, const Tensor& grad);

// A gradient with the dtype and the strides of its input; empty, like `any`,
// if there is none.
inline Tensor gradient_of(const OptionalTensor& input, const Tensor& grad,
                          const Tensor& any) {
  if (!input) return at::empty({0}, any.options());
  return at::empty_like(*input).copy_(grad);
}

}  // namespace mmmamba::cpu
