// The upper half of a float32.
#pragma once

#include <cstdint>

namespace mmmamba {

struct BFloat16 {
  uint16_t bits;
};

}  // namespace mmmamba
