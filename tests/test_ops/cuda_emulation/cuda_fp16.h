// Stands in for CUDA's header of this name.
#pragma once

#include "cuda_emulation.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31;
  const int fraction = value.bits & 1023;
  float size;
  if (exponent == 31)
    size = fraction ? NAN : INFINITY;
  else if (exponent == 0)
    size = std::ldexp(float(fraction), -24);
  else
    size = std::ldexp(float(1024 + fraction), exponent - 25);
  return value.bits >> 15 ? -size : size;
}

// Round to nearest, ties to even.
inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) << 15;
  if (std::isnan(value)) return {0x7fff};
  const float size = std::fabs(value);
  if (size >= 65520) return {uint16_t(sign | 0x7c00)};
  if (size < 0x1p-14f)  // no leading 1; may round up to the least with one
    return {uint16_t(sign | int(std::nearbyint(std::ldexp(size, 24))))};
  int exponent;
  const float fraction = std::frexp(size, &exponent);            // [0.5, 1)
  const int rounded = std::nearbyint(std::ldexp(fraction, 11));  // may carry
  return {uint16_t(sign | (((exponent + 13) << 10) + rounded))};
}
