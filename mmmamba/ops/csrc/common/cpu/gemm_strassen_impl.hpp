// Large products with seven multiplications instead of eight, for the
// instruction set the including file names: one step of Strassen's algorithm
// ("Gaussian Elimination is not Optimal", 1969) in the form of Winograd. With
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
// Upper and lower rows are those of two blocks in a row, so that what is in a
// row reaches its near neighbours alone: as a rounding error, or as a NaN.
#pragma once

#include "gemm_kernel_impl.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// Two panels, of the left and of the right half of the columns.
struct PanelPair {
  int64_t left, right, width;
  Columns w11, w21, w22, t1, t2, t3, t4;
  const float *left_bias, *right_bias;
};

// Columns of either half, whole vectors; what remains is not in the pairs.
inline int64_t half_columns(int64_t out) {
  return out / 2 / kLanes<float> * kLanes<float>;
}

// Whether x and the weight have two halves, and the sums are repaid: those of
// the weight by enough rows, those of x by enough columns (measured on Zen 4).
inline bool strassen_pays(const LinearArgs& args, int64_t rows) {
  return rows >= 128 && args.in % 2 == 0 && args.in >= 2 * kLanes<float> &&
         args.out >= 256;
}

// ------------------------------------------------------------ sums of blocks

// s1, ..., s4 of a block, one after the other.
template <int kRows>
inline void sum_block(const LinearArgs& args, int64_t row, float* s) {
  const int64_t half = args.in / 2, size = kRows * half;
  for (int r = 0; r < kRows; ++r, s += half) {
    const float* upper = args.x.at(row + r, 0);
    const float* lower = args.x.at(row + kRows + r, 0);
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

// All sums of some rows, which take as much room as the rows.
template <int kRows = kSumRows>
inline void sum_rows(const LinearArgs& args, int64_t row, int64_t end,
                     float* s) {
  for (; row + 2 * kRows <= end; row += 2 * kRows, s += 2 * kRows * args.in)
    sum_block<kRows>(args, row, s);
  if constexpr (kRows > 1) sum_rows<kRows / 2>(args, row, end, s);
}

// The sums of a pair of panels, and copies of the rest where copying pays.
inline PanelPair sum_panels(const LinearArgs& args, int64_t column,
                            int64_t rows, float* target) {
  const int64_t half = args.in / 2, out = args.out, size = half * kPanel;
  const int64_t left = column, right = column + half_columns(out);
  const float *w11 = args.weight + left, *w12 = args.weight + right;
  const float *w21 = w11 + half * out, *w22 = w12 + half * out;
  const int64_t width = std::min<int64_t>(kPanel, half_columns(out) - column);
  const bool copy = rows >= kRowsToPack;
  float* const packed = target;
  const auto take = [&](int i) -> Columns {
    return {packed + i * size, kPanel};
  };
  PanelPair pair = {left, right, width, {w11, out}, {w21, out}, {w22, out},
                    take(0), take(1), take(2), take(3)};
  if (copy) pair.w11 = take(4), pair.w21 = take(5), pair.w22 = take(6);
  for (int64_t i = 0; i < half; ++i, target += kPanel) {
    for (int64_t c = 0; c < width; c += kLanes<float>) {
      const FloatVec a = load(w11 + i * out + c), b = load(w12 + i * out + c),
                     d = load(w21 + i * out + c), e = load(w22 + i * out + c);
      const FloatVec t1 = b - a, t2 = e - t1;
      store(target + c, t1);
      store(target + size + c, t2);
      store(target + 2 * size + c, e - b);
      store(target + 3 * size + c, d - t2);
      if (copy) {
        store(target + 4 * size + c, a);
        store(target + 5 * size + c, d);
        store(target + 6 * size + c, e);
      }
    }
  }
  return pair;
}

// ------------------------------------------------------------------ products

template <bool kSpread, int kRows, int kVectors>
inline void strassen_block(const LinearArgs& args, const PanelPair& pair,
                           int64_t row, const float* s, Fetch& fetch) {
  using Block = Sums<kRows, kVectors>;
  const int64_t half = args.in / 2, size = kRows * half, lower = row + kRows;
  const int64_t stride = args.x.stride;
  const float *s1 = s, *s2 = s + size, *s3 = s + 2 * size, *s4 = s + 3 * size;
  const float *x11 = args.x.at(row, 0), *x12 = x11 + half;
  const float* x22 = args.x.at(lower, half);
  Block u2, u3;  // in memory: the sums take the registers
  const auto add = [&](Block& sums, const float* x, int64_t x_stride,
                       Columns weight) MMMAMBA_INLINE {
    accumulate<kSpread>(sums, x, x_stride, weight, half, fetch);
  };

  Block sums = {};
  add(sums, x11, stride, pair.w11);
  u2 = sums;
  add(sums, x12, stride, pair.w21);
  finish(args, row, pair.left, pair.left_bias, sums);
  sums = u2;
  add(sums, s2, half, pair.t2);
  u2 = sums;
  add(sums, s3, half, pair.t3);
  u3 = sums;
  add(sums, x22, stride, pair.t4);
  finish(args, lower, pair.left, pair.left_bias, sums);
  sums = {};
  add(sums, s1, half, pair.t1);
  finish(args, lower, pair.right, pair.right_bias, sums, &u3);
  sums += u2;
  add(sums, s4, half, pair.w22);
  finish(args, row, pair.right, pair.right_bias, sums);
}

template <bool kSpread, int kRows, int kVectors>
inline void strassen_rows(const LinearArgs& args, const PanelPair& pair,
                          int64_t row, int64_t end, const float* s,
                          Fetch& fetch) {
  for (; row + 2 * kRows <= end; row += 2 * kRows, s += 2 * kRows * args.in) {
    if (!kSpread) fetch.some();
    for (const int64_t column : {pair.left, pair.right}) {
      fetch_block<2 * kRows, kVectors, 1>(args.y, row, column);
      for (const auto* added : {&args.residual, &args.shortcut})
        fetch_block<2 * kRows, kVectors, 0>(*added, row, column);
    }
    strassen_block<kSpread, kRows, kVectors>(args, pair, row, s, fetch);
  }
  if constexpr (kRows > 1)
    strassen_rows<kSpread, kRows / 2, kVectors>(args, pair, row, end, s,
                                                fetch);
}

template <bool kSpread, int kVectors = kSumVectors>
inline void strassen_pair(const LinearArgs& args, const PanelPair& pair,
                          int64_t begin, int64_t end, const float* s,
                          Fetch& fetch) {
  if constexpr (kVectors > 1)
    if (pair.width <= (kVectors - 1) * kLanes<float>)
      return strassen_pair<kSpread, kVectors - 1>(args, pair, begin, end, s,
                                                  fetch);
  strassen_rows<kSpread, kSumRows, kVectors>(args, pair, begin, end, s, fetch);
}

// Room for the sums of so many rows, and of a pair of panels.
inline int64_t strassen_room(int64_t rows, int64_t in) {
  return rows * in + 7 * in / 2 * kPanel;
}

inline void strassen(const LinearArgs& args, int64_t begin, int64_t end,
                     float* buffer, const Fetch& next) {
  const float zeros[kPanel] = {};
  const int64_t half = half_columns(args.out), rows = end - begin;
  float* panels = buffer + rows * args.in;
  sum_rows(args, begin, end, buffer);
  for (int64_t column = 0; column < half; column += kPanel) {
    PanelPair pair = sum_panels(args, column, rows, panels);
    pair.left_bias = args.bias ? args.bias + pair.left : zeros;
    pair.right_bias = args.bias ? args.bias + pair.right : zeros;
    Fetch fetch = next;
    if (column + kPanel < half)
      fetch = {{args.weight + pair.left + kPanel,
                args.weight + pair.right + kPanel},
               args.out, args.in};
    if (spread(fetch, ceil_div(rows, 2 * kSumRows), 7, args.in / 2))
      strassen_pair<true>(args, pair, begin, end, buffer, fetch);
    else
      strassen_pair<false>(args, pair, begin, end, buffer, fetch);
  }
  // An odd row, and the columns that are no whole vector of each half.
  if (rows % 2)
    multiply_columns(args, end - 1, end, 0, 2 * half, panels);
  multiply_columns(args, begin, end, 2 * half, args.out, panels);
}

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
