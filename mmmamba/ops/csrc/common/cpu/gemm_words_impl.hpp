// Products of words, each of one float32, two bfloat16 or four int8 numbers,
// and rows of x as such words, for the instruction set that the including file
// names.
#pragma once

#include "gemm.hpp"
#include "simd.hpp"

namespace mmmamba::MMMAMBA_ISA {

using gemm::Precision;

template <Precision kPrecision>
constexpr int64_t kNumbers = static_cast<int64_t>(kPrecision);

// The bits of a word in all lanes.
template <Precision kPrecision>
MMMAMBA_INLINE inline FloatVec broadcast_word(const float* word) {
  if constexpr (kPrecision == Precision::kFloat) return broadcast(*word);
  int32_t bits;
  std::memcpy(&bits, word, sizeof(bits));
  return (FloatVec)(bits - IntVec{});
}

// The sums of products are float32, those of int8 int32.
template <Precision kPrecision>
using SumVec =
    std::conditional_t<kPrecision == Precision::kInt8, IntVec, FloatVec>;

// Adds the products of the numbers of x and w, lane by lane. With int8, those
// of x are unsigned.
template <Precision kPrecision>
MMMAMBA_INLINE inline void multiply_add(SumVec<kPrecision>& sum, FloatVec x,
                                        FloatVec w) {
  if constexpr (kPrecision == Precision::kFloat) {
    sum += x * w;
  } else if constexpr (kPrecision == Precision::kBFloat16) {
#if MMMAMBA_DOT_BFLOAT16
    sum = (FloatVec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#else
    const UnsignedVec a = (UnsignedVec)x, b = (UnsignedVec)w;
    sum += (FloatVec)(a << 16) * (FloatVec)(b << 16);
    sum += (FloatVec)(a & 0xFFFF0000u) * (FloatVec)(b & 0xFFFF0000u);
#endif
  } else {
#if MMMAMBA_DOT_INT8
    sum = (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#else
#pragma GCC unroll 4
    for (int shift = 0; shift < 32; shift += 8)
      sum += ((IntVec)x >> shift & 255) * ((IntVec)w << (24 - shift) >> 24);
#endif
  }
}

// ---------------------------------------------------------------- rows of x

// Behind the words of a row of int8 are the scale and the least of its numbers,
// behind those of the columns of a weight their scales and sums.
template <Precision kPrecision>
constexpr int64_t kRowEnd = kPrecision == Precision::kInt8 ? 2 : 0;

// Words of two numbers, rounded to bfloat16.
inline FloatVec bfloat16_words(FloatVec first, FloatVec second) {
  BFloat16 a[kLanes<float>], b[kLanes<float>];
  store_float(a, first);
  store_float(b, second);
  ShortVec lower, upper;
  std::memcpy(&lower, a, sizeof(a));
  std::memcpy(&upper, b, sizeof(b));
  return (FloatVec)(__builtin_convertvector(lower, UnsignedVec) |
                    __builtin_convertvector(upper, UnsignedVec) << 16);
}

// Calls work(vector, first) for the vectors of a row, the last one filled.
template <typename Work>
inline void for_row(const float* x, int64_t count, float fill, Work work) {
  int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) work(load(x + i), i);
  if (i == count) return;
  float rest[kLanes<float>];
  std::fill(std::copy_n(x + i, count - i, rest), rest + kLanes<float>, fill);
  work(load(rest), i);
}

// All lanes in one number, by an operation of two vectors or numbers.
template <typename Join>
inline float reduce(FloatVec v, Join join) {
  typedef float Quad __attribute__((vector_size(16)));
  constexpr int kQuads = kLanes<float> / 4;
  Quad quads[kQuads];
  std::memcpy(quads, &v, sizeof(v));
#pragma GCC unroll 4
  for (int i = 1; i < kQuads; ++i) quads[0] = join(quads[0], quads[i]);
  const Quad q = quads[0];
  return join(join(q[0], q[1]), join(q[2], q[3]));
}

// Rounds a row to bfloat16. Like pack_int8(), it may write a vector beyond it.
inline void pack_bfloat16(const float* x, int64_t count, float* words) {
  auto* target = reinterpret_cast<BFloat16*>(words);
  for_row(x, count, 0, [&](FloatVec v, int64_t i) MMMAMBA_INLINE {
    store_float(target + i, v);
  });
}

typedef uint8_t ByteVec __attribute__((vector_size(MMMAMBA_SIMD_BYTES / 4)));

// Rounds a row to 256 steps from its least to its largest number. Where one of
// them, or their distance, is not finite, nor is the scale.
inline void pack_int8(const float* x, int64_t count, float* words) {
  const auto less = [](auto a, auto b) MMMAMBA_INLINE { return a < b ? a : b; };
  const auto more = [](auto a, auto b) MMMAMBA_INLINE { return a > b ? a : b; };
  const auto sum = [](auto a, auto b) MMMAMBA_INLINE { return a + b; };
  FloatVec least = broadcast(x[0]), most = least, nothing = {};
  for_row(x, count, *x, [&](FloatVec v, int64_t) MMMAMBA_INLINE {
    least = less(v, least);
    most = more(v, most);
    nothing += v * 0.0f;  // or NaN
  });
  const float low = reduce(least, less), high = reduce(most, more);
  const float none = reduce(nothing, sum);
  const float range = high - low, step = range / 255;
  const float inverse = range > 1e-30f ? 255 / range : 0;
  auto* target = reinterpret_cast<uint8_t*>(words);
  for_row(x, count, *x, [&](FloatVec v, int64_t i) MMMAMBA_INLINE {
    const IntVec steps =
        __builtin_convertvector((v - low) * inverse + 0.5f, IntVec);
    const ByteVec bytes = __builtin_convertvector(steps, ByteVec);
    std::memcpy(target + i, &bytes, sizeof(bytes));
  });
  float* end = words + (count + 3) / 4;
  end[0] = step + none;
  end[1] = low + none;
}

template <Precision kPrecision>
inline void pack_row(const float* x, int64_t count, float* words) {
  if constexpr (kPrecision == Precision::kInt8)
    pack_int8(x, count, words);
  else
    pack_bfloat16(x, count, words);
}

}  // namespace mmmamba::MMMAMBA_ISA
