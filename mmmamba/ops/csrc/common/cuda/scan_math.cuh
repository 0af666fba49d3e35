// Numbers of a scan: the storage types, the functions that must be accurate
// to their last bits, and the composition of steps. Free of torch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

namespace mmmamba::cuda {

// The type to compute in for values stored as T.
template <typename T>
using compute_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ inline double widen(double v) { return v; }
__device__ inline float widen(float v) { return v; }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ inline void narrow(double v, double& to) { to = v; }
__device__ inline void narrow(float v, float& to) { to = v; }
__device__ inline void narrow(float v, __half& to) { to = __float2half_rn(v); }
__device__ inline void narrow(float v, __nv_bfloat16& to) {
  to = __float2bfloat16_rn(v);
}

using std::fma;

// exp(x) as an unevaluated sum. Near 1 the rounding of exp(x) alone, the same
// at every step, would be amplified by the length of the sequence (4e-5 over
// 4096 steps); with the low part it is not.
template <typename F>
struct Decay {
  F high;
  F low;
};

__device__ inline Decay<float> decay(float x) {
  const float largest = 88;    // beyond, exp(x) is taken as infinite
  const float smallest = -87;  // beyond, exp(x) would be subnormal
  const float y = x < smallest ? smallest : x;  // NaN stays NaN
  // x = n log(2) + f: adding 1.5 * 2^23 rounds n to an integer, which is then
  // in the last bits, from where it moves to those of an exponent.
  const float magic = 12582912;
  const float shifted = fmaf(y, 1.44269504f, magic);
  const float n = shifted - magic;
  const float scale =
      __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000);
  float f = fmaf(n, -0.693145752f, y);
  f = fmaf(n, -1.42860677e-6f, f);
  // exp(f) - 1 by a minimax polynomial for |f| <= log(2) / 2, of relative
  // error 1.4e-8.
  float p = 1.38825181e-3f;
  p = fmaf(p, f, 8.36653815e-3f);
  p = fmaf(p, f, 4.16672004e-2f);
  p = fmaf(p, f, 1.66665435e-1f);
  p = fmaf(p, f, 4.99999982e-1f);
  p = fmaf(p * f, f, f);
  const float high = fmaf(p, scale, scale);
  const float low = fmaf(p, scale, scale - high);
  return {x > largest ? INFINITY : high, low};
}

// Sequences are too short to amplify the rounding of doubles to 1e-12.
__device__ inline Decay<double> decay(double x) { return {exp(x), 0}; }

// log(1 + exp(x)), accurate relatively for negative x too.
__device__ inline double softplus(double x) {
  return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

// log(1 + t) by a minimax polynomial for 0 <= t <= 1, of relative error 4e-8.
__device__ inline float log1p_of(float t) {
  float p = 5.36482278e-3f;
  p = fmaf(p, t, -3.00657861e-2f);
  p = fmaf(p, t, 7.92045255e-2f);
  p = fmaf(p, t, -1.37538015e-1f);
  p = fmaf(p, t, 1.91536545e-1f);
  p = fmaf(p, t, -2.48571636e-1f);
  p = fmaf(p, t, 3.33213226e-1f);
  p = fmaf(p, t, -4.99996480e-1f);
  return fmaf(p * t, t, t);
}

__device__ inline float softplus(float x) {
  return fmaxf(x, 0.0f) + log1p_of(expf(-fabsf(x)));
}

// The derivative of softplus in terms of its value: 1 - exp(-value).
__device__ inline double softplus_slope(double value) { return -expm1(-value); }
__device__ inline float softplus_slope(float value) {
  const auto rest = decay(-value);
  return (1 - rest.high) - rest.low;
}

template <typename F>
__device__ inline F advance(Decay<F> decay, F h, F b) {
  return fma(decay.high, h, fma(decay.low, h, b));
}

// One step of the recurrence, or several composed: h -> decay * h + b.
template <typename F>
struct Step {
  Decay<F> decay;
  F b;
};

template <typename F>
__device__ inline Step<F> no_step() {
  return {{1, 0}, 0};
}

template <typename F>
__device__ inline F apply(Step<F> step, F h) {
  return advance(step.decay, h, step.b);
}

template <typename F>
__device__ inline Step<F> compose(Step<F> first, Step<F> second) {
  const auto a = first.decay, b = second.decay;
  const F high = a.high * b.high;
  const F rounded_off = fma(a.high, b.high, -high);
  const F low = fma(a.high, b.low, fma(a.low, b.high, rounded_off));
  return {{high, low}, advance(b, first.b, second.b)};
}

}  // namespace mmmamba::cuda
