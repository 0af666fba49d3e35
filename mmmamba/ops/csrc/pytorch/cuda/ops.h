// The ops that another op calls on a GPU.
#pragma once

#include "../ops.h"

namespace mmmamba::cuda {

Tensor bidirectional_scan(const BidirectionalScan& in);

}  // namespace mmmamba::cuda
