// Vectors of one instruction set, and the functions that the scan needs on
// them.
//
// The including file defines MMMAMBA_ISA, the namespace of all this, and
// MMMAMBA_SIMD_BYTES, the width of a register. Only the vector extension of GCC
// and Clang is used, so that one source serves AVX-512, AVX2, SSE2 and NEON;
// and, with MMMAMBA_DOT_BFLOAT16 and MMMAMBA_DOT_INT8, AVX-512's instructions
// for sums of such products.
#pragma once

#include "isa.hpp"
#include "target.hpp"

#ifndef MMMAMBA_DOT_BFLOAT16
#define MMMAMBA_DOT_BFLOAT16 0
#endif
#ifndef MMMAMBA_DOT_INT8
#define MMMAMBA_DOT_INT8 0
#endif

// For lambdas: in templates they do not inherit the target of the function
// around them, so they must have no code of their own.
#define MMMAMBA_INLINE __attribute__((always_inline))

namespace mmmamba::MMMAMBA_ISA {

template <typename T>
struct VecTypes;

template <>
struct VecTypes<float> {
  typedef float Vec __attribute__((vector_size(MMMAMBA_SIMD_BYTES)));
  typedef int32_t Int __attribute__((vector_size(MMMAMBA_SIMD_BYTES)));
};

template <>
struct VecTypes<double> {
  typedef double Vec __attribute__((vector_size(MMMAMBA_SIMD_BYTES)));
  typedef int64_t Int __attribute__((vector_size(MMMAMBA_SIMD_BYTES)));
};

template <typename T>
using Vec = typename VecTypes<T>::Vec;

template <typename T>
constexpr int kLanes = MMMAMBA_SIMD_BYTES / sizeof(T);

using FloatVec = Vec<float>;
using DoubleVec = Vec<double>;
using IntVec = VecTypes<float>::Int;

template <typename T>
inline Vec<T> load(const T* source) {
  Vec<T> v;
  std::memcpy(&v, source, sizeof(v));
  return v;
}

template <typename T>
inline void store(T* target, Vec<T> v) {
  std::memcpy(target, &v, sizeof(v));
}

template <typename T>
inline Vec<T> broadcast(T value) {
  return value - Vec<T>{};  // 0 + value is another value for -0
}

// ----------------------------------------------------------------- bfloat16

// Loads and stores as float32, of maps that are float32 or bfloat16.
inline FloatVec load_float(const float* source) { return load(source); }

inline void store_float(float* target, FloatVec v) { store(target, v); }

typedef uint16_t ShortVec __attribute__((vector_size(MMMAMBA_SIMD_BYTES / 2)));
typedef uint32_t UnsignedVec __attribute__((vector_size(MMMAMBA_SIMD_BYTES)));

inline FloatVec load_float(const BFloat16* source) {
  ShortVec v;
  std::memcpy(&v, source, sizeof(v));
  return (FloatVec)(__builtin_convertvector(v, UnsignedVec) << 16);
}

// Rounds to the nearest, a tie to even.
inline void store_float(BFloat16* target, FloatVec v) {
#if MMMAMBA_DOT_BFLOAT16
  const auto rounded = _mm512_cvtneps_pbh((__m512)v);
#else
  UnsignedVec bits = (UnsignedVec)v;
  bits += 0x7FFF + (bits >> 16 & 1);
  bits = v == v ? bits >> 16 : UnsignedVec{} + 0x7FC0;  // NaN
  const ShortVec rounded = __builtin_convertvector(bits, ShortVec);
#endif
  std::memcpy(target, &rounded, sizeof(rounded));
}

// ---------------------------------------------------------------- transpose

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define MMMAMBA_SHUFFLE(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef MMMAMBA_SHUFFLE  // GCC before 12
#define MMMAMBA_SHUFFLE(T, a, b, ...) \
  __builtin_shuffle(a, b, typename VecTypes<T>::Int{__VA_ARGS__})
#endif

// Exchanges the halves of two rows that lie across the diagonal: of each group
// of 2 * kDistance lanes, `a` keeps the lower and takes b's, `b` the upper.
template <typename T, int kDistance, int... kLane>
inline void exchange(Vec<T>& a, Vec<T>& b,
                     std::integer_sequence<int, kLane...>) {
  constexpr int kWidth = kLanes<T>;
  const Vec<T> lower = MMMAMBA_SHUFFLE(
      T, a, b, (kLane & kDistance ? kWidth + kLane - kDistance : kLane)...);
  const Vec<T> upper = MMMAMBA_SHUFFLE(
      T, a, b, (kLane & kDistance ? kWidth + kLane : kLane + kDistance)...);
  a = lower;
  b = upper;
}

template <typename T, int kDistance = 1>
inline void transpose(Vec<T>* rows) {
  if constexpr (kDistance < kLanes<T>) {
    for (int i = 0; i < kLanes<T>; ++i)
      if (!(i & kDistance))
        exchange<T, kDistance>(rows[i], rows[i + kDistance],
                               std::make_integer_sequence<int, kLanes<T>>());
    transpose<T, 2 * kDistance>(rows);
  }
}

// -------------------------------------------------------------- exponentials

// e^x = scale * (1 + tail), scale a power of two, tail in [-0.3, 0.42].
struct ExpParts {
  FloatVec scale, tail;
};

// Below -88 the scale is 0; above 88.3 the result stays at 2.3e38; NaN gives
// a tail that is NaN. The tail is accurate to 1 ulp.
inline ExpParts exp_parts(FloatVec x) {
  const FloatVec lowest = broadcast(-88.02f), highest = broadcast(88.3f);
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  // Adding 1.5 * 2^23 rounds to an integer, found in the low bits.
  const FloatVec magic = broadcast(12582912.0f);
  const FloatVec shifted = x * 1.44269504f + magic;
  const FloatVec n = shifted - magic;
  // ln 2 in two parts, the first short enough for an exact product.
  const FloatVec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  FloatVec q = broadcast(1.39464240e-3f);  // minimax, 1.3e-8 of the tail
  q = q * r + 8.36656988e-3f;
  q = q * r + 4.16662842e-2f;
  q = q * r + 1.66665435e-1f;
  q = q * r + 0.5f;
  const IntVec exponent = (IntVec)shifted - (IntVec)magic + 127;
  return {(FloatVec)(exponent << 23), r * r * q + r};
}

// e^x as an unevaluated sum. Near 1 the rounding of e^x alone, the same at
// every step, would be amplified by the length of the sequence (4e-5 over 4096
// steps); with the low part it is not.
template <typename T>
struct Decay {
  Vec<T> high, low;
};

inline Decay<float> decay(FloatVec x) {
  const ExpParts e = exp_parts(x);
  const FloatVec rest = e.scale * e.tail;
  const FloatVec high = e.scale + rest;
  return {high, rest - (high - e.scale)};
}

inline Decay<double> decay(DoubleVec x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return {x, DoubleVec{}};
}

// log(1 + e^x) and its derivative. For float both are within 2.5 ulp (2.4 and
// 2.2 measured, tests/test_ops/test_cpu_kernel.py), and 0 below -87.68, where
// they are subnormal.
template <typename T>
struct Softplus {
  Vec<T> value, slope;
};

inline FloatVec exp_negative(FloatVec x) {
  const ExpParts e = exp_parts(x);
  return e.scale * e.tail + e.scale;
}

inline DoubleVec exp_negative(DoubleVec x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

// log(1 + t) for t in [0, 1].
inline FloatVec log1p(FloatVec t) {
  FloatVec q = broadcast(-3.42409732e-3f);  // minimax, 4.4e-9 of the result
  q = q * t + 2.06780434e-2f;
  q = q * t - 5.85476309e-2f;
  q = q * t + 1.07692309e-1f;
  q = q * t - 1.54071271e-1f;
  q = q * t + 1.97130308e-1f;
  q = q * t - 2.49619260e-1f;
  q = q * t + 3.33308190e-1f;
  q = q * t - 4.99999434e-1f;
  return t * t * q + t;
}

inline DoubleVec log1p(DoubleVec t) {
  for (int i = 0; i < kLanes<double>; ++i) t[i] = std::log1p(t[i]);
  return t;
}

template <typename T>
inline Softplus<T> softplus(Vec<T> x) {
  const Vec<T> zero = {}, one = broadcast<T>(1);
  const auto positive = x > zero;
  const Vec<T> e = exp_negative(positive ? -x : x);
  const Vec<T> value = (positive ? x : zero) + log1p(e);
  return {value, (positive ? one : e) / (one + e)};
}

}  // namespace mmmamba::MMMAMBA_ISA
