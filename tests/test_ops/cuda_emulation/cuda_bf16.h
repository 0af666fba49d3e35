// Stands in for CUDA's header of this name.
#pragma once

#include "cuda_emulation.h"

struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  return __uint_as_float(uint32_t(value.bits) << 16);
}

// Round to nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  if (std::isnan(value)) return {0x7fff};
  const uint32_t bits = __float_as_uint(value);
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
