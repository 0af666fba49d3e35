// What the devices share of the scans.
#pragma once

#include "ops.h"
#include "shapes.h"

namespace mmmamba {

// Raise ValueError or TypeError for inputs that do not fit each other.
Shapes check(const SelectiveScan& in);
Shapes check(const BidirectionalScan& in);

// The same for a backward, with the gradient of the result.
void check_backward(const Tensor& grad, const SelectiveScan& in);
void check_backward(const Tensor& grad, const BidirectionalScan& in);

}  // namespace mmmamba
