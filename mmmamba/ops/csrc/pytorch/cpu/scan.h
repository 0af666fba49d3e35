// Both scans on the CPU: tensors to the arguments of their kernels.
#pragma once

#include "../scan.h"

namespace mmmamba::cpu {

// Returns the result in the dtype and the memory order of x. The sequences are
// in the type that is computed in.
Tensor scan_forward(const ScanInputs& in, const Tensor& x);
ScanGrads scan_backward(const ScanInputs& in, const Tensor& grad);

}  // namespace mmmamba::cpu
