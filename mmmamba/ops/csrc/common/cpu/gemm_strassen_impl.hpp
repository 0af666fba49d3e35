// Large products with seven multiplications instead of eight, for the
// instruction set that the including file names: one step of Strassen's
// algorithm ("Gaussian Elimination is not Optimal", 1969) in the form of
// Winograd. With
//
//   x = | x11 x12 |   weight = | w11 w12 |   y = | y11 y12 |
//       | x21 x22 |            | w21 w22 |       | y21 y22 |
//
//   s1 = x21 + x22   t1 = w12 - w11   u1 = x11 w11   y11 = u1 + x12 w21
//   s2 = s1 - x11    t2 = w22 - t1    u2 = u1 + s2 t2
//   s3 = x11 - x21   t3 = w22 - w12   u3 = u2 + s3 t3   y21 = u3 + x22 t4
//   s4 = x12 - s2    t4 = w21 - t2    p = s1 t1   y22 = u3 + p
//                                     y12 = u2 + p + s4 w22
//
// The upper and the lower rows are two tiles that follow each other in one
// sample. What a row holds (a NaN, a large value) can reach the other rows of
// its pair of tiles, but never another sample.
#pragma once

#include "gemm_kernel_impl.hpp"

namespace mmmamba::MMMAMBA_ISA::gemm {

constexpr int64_t kPairRows = 2 * kMR;

// Columns of either half, whole vectors; what remains is not in the pairs.
inline int64_t half_columns(int64_t out) {
  return out / 2 / kLanes<float> * kLanes<float>;
}

// Whether the sums are repaid: those of the weight by enough rows, those of x
// by enough columns, and samples that pairs of tiles nearly fill. Measured on
// Zen 4 over the shapes of T2, T4, S6 and B1.
inline bool strassen_pays(const Args& args, int64_t rows) {
  return rows >= 128 && args.in % 2 == 0 && args.in >= 2 * kLanes<float> &&
         args.out >= 256 && args.sample % kPairRows * 8 <= args.sample;
}

// Calls work(first, last) for the rows of each sample in [begin, end).
template <typename Work>
inline void for_samples(const Args& args, int64_t begin, int64_t end,
                        Work work) {
  while (begin < end) {
    const int64_t next = (begin / args.sample + 1) * args.sample;
    work(begin, std::min(next, end));
    begin = next;
  }
}

// ------------------------------------------------------------ sums of halves

// s1, ..., s4 of the pair of tiles from `row` on, one after the other.
inline void sum_pair(const Args& args, int64_t row, float* s) {
  const int64_t half = args.in / 2, size = kMR * half;
  for (int r = 0; r < kMR; ++r, s += half) {
    const float* upper = args.x.at(row + r, 0);
    const float* lower = args.x.at(row + kMR + r, 0);
    for (int64_t c = 0; c < half; c += kLanes<float>) {
      c = std::min<int64_t>(c, half - kLanes<float>);  // the last may overlap
      const FloatVec x11 = load(upper + c), x12 = load(upper + half + c),
                     x21 = load(lower + c), x22 = load(lower + half + c);
      const FloatVec s1 = x21 + x22, s2 = s1 - x11;
      store(s + c, s1);
      store(s + size + c, s2);
      store(s + 2 * size + c, x11 - x21);
      store(s + 3 * size + c, x12 - s2);
    }
  }
}

// Two panels, of the left and of the right half of the columns.
struct PanelPair {
  int64_t left, right, width;
  Columns w11, w21, w22, t1, t2, t3, t4;
  const float *left_bias, *right_bias;
};

// The sums of a pair of panels, and packed copies of the rest.
inline PanelPair sum_panels(const Args& args, int64_t column, float* target) {
  const int64_t half = args.in / 2, out = args.out, size = half * kNR;
  const int64_t left = column, right = column + half_columns(out);
  const float *w11 = args.weight.data + left, *w12 = args.weight.data + right;
  const float *w21 = w11 + half * out, *w22 = w12 + half * out;
  const int64_t width = std::min<int64_t>(kNR, half_columns(out) - column);
  float* const packed = target;
  const auto take = [&](int i) -> Columns { return {packed + i * size, kNR}; };
  const PanelPair pair = {left,    right,   width,   take(4), take(5),
                          take(6), take(0), take(1), take(2), take(3)};
  for (int64_t i = 0; i < half; ++i, target += kNR) {
    for (int64_t c = 0; c < width; c += kLanes<float>) {
      const FloatVec a = load(w11 + i * out + c), b = load(w12 + i * out + c),
                     d = load(w21 + i * out + c), e = load(w22 + i * out + c);
      const FloatVec t1 = b - a, t2 = e - t1;
      store(target + c, t1);
      store(target + size + c, t2);
      store(target + 2 * size + c, e - b);
      store(target + 3 * size + c, d - t2);
      store(target + 4 * size + c, a);
      store(target + 5 * size + c, d);
      store(target + 6 * size + c, e);
    }
  }
  return pair;
}

// ------------------------------------------------------------------ products

// The micro-kernel of a pair of tiles, s being their sums.
template <int kVectors>
inline void strassen_kernel(const Args& args, const PanelPair& pair,
                            int64_t row, const float* s, Prefetch& prefetch) {
  const int64_t half = args.in / 2, size = kMR * half, lower = row + kMR;
  const int64_t stride = args.x.stride;
  const float *s1 = s, *s2 = s + size, *s3 = s + 2 * size, *s4 = s + 3 * size;
  const float *x11 = args.x.at(row, 0), *x12 = x11 + half;
  const float* x22 = args.x.at(lower, half);
  Tile<kMR, kVectors> u2, u3;  // in memory: one tile takes the registers
  const auto add = [&](auto& tile, const float* x, int64_t x_stride,
                       Columns weight) MMMAMBA_INLINE {
    accumulate(tile, x, x_stride, weight, half, prefetch);
  };

  Tile<kMR, kVectors> tile = {};
  add(tile, x11, stride, pair.w11);
  u2 = tile;
  add(tile, x12, stride, pair.w21);
  epilogue(args, row, pair.left, pair.left_bias, tile);
  tile = u2;
  add(tile, s2, half, pair.t2);
  u2 = tile;
  add(tile, s3, half, pair.t3);
  u3 = tile;
  add(tile, x22, stride, pair.t4);
  epilogue(args, lower, pair.left, pair.left_bias, tile);
  tile = {};
  add(tile, s1, half, pair.t1);
  epilogue(args, lower, pair.right, pair.right_bias, tile, &u3);
  tile += u2;
  add(tile, s4, half, pair.w22);
  epilogue(args, row, pair.right, pair.right_bias, tile);
}

// All pairs of tiles, s being the sums of the first.
template <int kVectors = kNRVectors>
inline void strassen_panels(const Args& args, const PanelPair& pair,
                            int64_t begin, int64_t end, const float* s,
                            Prefetch& prefetch) {
  if constexpr (kVectors > 1)
    if (pair.width <= (kVectors - 1) * kLanes<float>)
      return strassen_panels<kVectors - 1>(args, pair, begin, end, s, prefetch);
  for_samples(args, begin, end, [&](int64_t row, int64_t last) {
    for (; row + kPairRows <= last; row += kPairRows) {
      for (const int64_t column : {pair.left, pair.right}) {
        prefetch_tile<kPairRows, kVectors, 1>(args.y, row, column);
        for (const auto* added : {&args.residual, &args.shortcut})
          prefetch_tile<kPairRows, kVectors, 0>(*added, row, column);
      }
      strassen_kernel<kVectors>(args, pair, row, s, prefetch);
      s += kPairRows * args.in;
    }
  });
}

// The rows of each sample that fill no pair of tiles, in the columns
// [column, last_column). Of whole samples, the last row of each are a matrix,
// as are those before them.
inline void multiply_rest(const Args& args, int64_t begin, int64_t end,
                          int64_t column, int64_t last_column, float* buffer) {
  const int64_t rest = args.sample % kPairRows;
  const int64_t first = begin / args.sample, last = end / args.sample;
  if (begin % args.sample || end % args.sample || last - first <= rest)
    return for_samples(args, begin, end, [&](int64_t row, int64_t stop) {
      row = stop - (stop - row) % kPairRows;
      if (row < stop)
        multiply_columns(args, row, stop, column, last_column, buffer);
    });
  for (int64_t row = args.sample - rest; row < args.sample; ++row) {
    Args rows = args;
    rows.x = args.x.every(args.sample, row);
    rows.residual = args.residual.every(args.sample, row);
    rows.shortcut = args.shortcut.every(args.sample, row);
    rows.y = args.y.every(args.sample, row);
    multiply_columns(rows, first, last, column, last_column, buffer);
  }
}

// Elements of memory for the sums of so many rows, and of a pair of panels.
inline int64_t strassen_size(int64_t rows, int64_t in) {
  return rows * in + 7 * in / 2 * kNR;
}

inline void strassen(const Args& args, int64_t begin, int64_t end,
                     float* buffer, const Prefetch& next) {
  const float zeros[kNR] = {};
  const int64_t half = half_columns(args.out), rows = end - begin;
  float *panels = buffer + rows * args.in, *s = buffer;
  for_samples(args, begin, end, [&](int64_t row, int64_t last) {
    for (; row + kPairRows <= last; row += kPairRows, s += kPairRows * args.in)
      sum_pair(args, row, s);
  });
  for (int64_t column = 0; column < half; column += kNR) {
    PanelPair pair = sum_panels(args, column, panels);
    pair.left_bias = args.bias ? args.bias + pair.left : zeros;
    pair.right_bias = args.bias ? args.bias + pair.right : zeros;
    Prefetch prefetch = next;
    if (column + kNR < half)
      prefetch = {{args.weight.data + pair.left + kNR,
                   args.weight.data + pair.right + kNR},
                  args.out,
                  args.in};
    prefetch.spread(ceil_div(rows, kPairRows), 7, args.in / 2);
    strassen_panels(args, pair, begin, end, buffer, prefetch);
    for (const int64_t first : {pair.left, pair.right})
      multiply_rest(args, begin, end, first, first + pair.width, panels);
  }
  // The columns that are no whole vector of each half.
  multiply_columns(args, begin, end, 2 * half, args.out, panels);
}

}  // namespace mmmamba::MMMAMBA_ISA::gemm
