// What the devices share of the scans.
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

}  // namespace mmmamba

// Registers a scan and its backward for a device, in the namespace that has
// both.
#define MMMAMBA_SCAN_ON(device, name, Op)                    \
  TORCH_LIBRARY_IMPL(mmmamba, device, m) {                   \
    m.impl(#name, &Function<Op::Signature, name>::call);     \
    m.impl(#name "_backward",                                \
           &Backward<Op::Signature, name##_backward>::call); \
  }
