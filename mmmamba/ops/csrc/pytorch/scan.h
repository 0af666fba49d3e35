// What the devices share of the scans: their checks, and the way from the
// inputs of an op to those of its kernels and back to its gradients.
#pragma once

#include "ops.h"
#include "shapes.h"

namespace mmmamba {

// Raise ValueError or TypeError for inputs that do not fit each other.
Shapes check(const SelectiveScan& in);
Shapes check(const BidirectionalScan& in);

// The same for a backward, with the gradient of the result.
template <typename Op>
void check_backward(const Tensor& grad, const Op& in) {
  check(in).check("the gradient", grad, Op::kResult);
}

// The state is float32, whatever the inputs, or float64.
inline at::ScalarType compute_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

// The inputs of either scan, sequences in `type`, parameters contiguous and in
// the type that is computed in. B, C and dt have contiguous positions and the
// rows of all directions one below the other, (batch, K*height, L).
struct ScanInputs {
  at::ScalarType type;
  bool softplus;
  int64_t directions, height;
  Tensor x, B, C, A, D, bias;
  Tensor delta;       // selective
  Tensor dt, weight;  // bidirectional

  ScanInputs(const SelectiveScan& in, at::ScalarType type);
  ScanInputs(const BidirectionalScan& in, at::ScalarType type);

  bool bidirectional() const { return dt.defined(); }
  int64_t rank() const { return bidirectional() ? weight.size(2) : 0; }
};

// The gradients of these, each summed up, in any dtype.
struct ScanGrads {
  Tensor x, delta, A, D, bias, weight;
  Tensor rows;  // of dt, B and C: (batch, K, R + 2N, L)
};

// The gradients with dtypes and strides of the inputs.
SelectiveScan::Grads grads_of(const SelectiveScan& in, const ScanGrads& g);
BidirectionalScan::Grads grads_of(const BidirectionalScan& in,
                                  const ScanGrads& g);

// Empty, like `any`, where there is no input.
inline Tensor gradient_of(const OptionalTensor& input, const Tensor& grad,
                          const Tensor& any) {
  if (!input) return at::empty({0}, any.options());
  return at::empty_like(*input).copy_(grad.reshape(input->sizes()));
}

}  // namespace mmmamba

// Registers a scan and its backward for a device, in the namespace that has
// both.
#define MMMAMBA_SCAN_ON(device, name, Op)                        \
  TORCH_LIBRARY_IMPL(mmmamba, device, m) {                       \
    m.impl(#name, &Function<Op::Signature, name>::call);         \
    m.impl(#name "_backward",                                    \
           &Function<Op::Signature, name##_backward>::backward); \
  }
