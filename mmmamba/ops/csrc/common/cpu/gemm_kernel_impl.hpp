// Products of some rows and some columns, for the instruction set the including
// file names. A block of a few rows and a panel of columns is summed up in
// registers; the panel of the weight, copied together where that pays, stays
// in the nearer caches.
#pragma once

#include <algorithm>
#include <limits>

#include "arena.hpp"
#include "gemm.hpp"
#include "gemm_tile.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// Rows from which on copying a panel costs less than reading it in strides:
// the wider it is, the longer the next of its rows, in another page, can take.
constexpr int64_t kRowsToPack = MMMAMBA_SIMD_BYTES == 64 ? 512 : 64;

// The columns [column, column + width) of a product.
struct Panel {
  int64_t column, width;
  Columns weight;
  const float* bias;
};

// The panels of a weight that come next, of which some rows are fetched at a
// time: a network's weights are in no near cache when their turn comes.
struct Fetch {
  const float* panels[2];  // null for none
  int64_t stride, rows;
  int64_t step = 0;  // rows at a time

  void some() {
    for (int64_t i = std::min(step, rows); i > 0; --i, --rows) {
      for (const float*& panel : panels) {
        if (panel == nullptr) continue;
#pragma GCC unroll 8
        for (int64_t c = 0; c < kPanel; c += 64 / sizeof(float))
          __builtin_prefetch(panel + c, 0, 2);
        panel += stride;
      }
    }
  }
};

// Rows that can be fetched before a block. More would hold up what the block
// reads, so that they are fetched while it is summed up: which is slower where
// they are few.
constexpr int64_t kRowsToFetch = 40;
constexpr int64_t kChunk = 32;  // of a sum, between which rows are fetched

// Sets the rows that are fetched at a time, where there are so many blocks, each
// of so many sums of `in` products. Returns whether to fetch within the sums.
inline bool spread(Fetch& fetch, int64_t blocks, int64_t sums, int64_t in) {
  fetch.step = ceil_div(fetch.rows, blocks);
  if (fetch.step <= kRowsToFetch) return false;
  fetch.step = ceil_div(fetch.step, sums * ceil_div(in, kChunk));
  return true;
}

// As accumulate(), and fetches rows, if kSpread.
template <bool kSpread, int kRows, int kVectors>
MMMAMBA_INLINE inline void accumulate(Sums<kRows, kVectors>& sums,
                                      const float* x, int64_t x_stride,
                                      Columns weight, int64_t in,
                                      Fetch& fetch) {
  if constexpr (kSpread) {
    for (; in > kChunk; in -= kChunk, x += kChunk) {
      fetch.some();
      accumulate(sums, x, x_stride, weight, kChunk);
      weight.data += kChunk * weight.stride;
    }
    fetch.some();
  }
  accumulate(sums, x, x_stride, weight, in);
}

// Fetches a block of a matrix that is written, or read, a block later.
template <int kRows, int kVectors, int kWrite, typename T>
inline void fetch_block(const Matrix<T>& matrix, int64_t row, int64_t column) {
  if (matrix.data == nullptr) return;
  for (int r = 0; r < kRows; ++r) {
    const T* line = matrix.at(row + r, column);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors * kLanes<float>; c += 64 / sizeof(float))
      __builtin_prefetch(line + c, kWrite, 3);
  }
}

// Stores a block of the result: act(sums + bias + more) and what is added to
// it. `more` may be null.
template <int kRows, int kVectors>
MMMAMBA_INLINE inline void finish(const LinearArgs& args, int64_t row,
                                  int64_t column, const float* bias,
                                  const Sums<kRows, kVectors>& sums,
                                  const Sums<kRows, kVectors>* more = nullptr) {
  const FloatVec least = broadcast(
      args.relu ? 0.0f : -std::numeric_limits<float>::infinity());
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const int64_t c = v * kLanes<float>;
      FloatVec y = sums.at[r][v] + load(bias + c);
      if (more != nullptr) y += more->at[r][v];
      y = y < least ? least : y;  // a NaN stays
      for (const auto* added : {&args.residual, &args.shortcut})
        if (added->data != nullptr) y += load(added->at(row + r, column + c));
      store(args.y.at(row + r, column + c), y);
    }
  }
}

// One block of a product: whole vectors.
template <bool kSpread, int kRows, int kVectors>
inline void multiply_block(const LinearArgs& args, const Panel& panel,
                           int64_t row, Fetch& fetch) {
  Sums<kRows, kVectors> sums = {};
  if (!kSpread) fetch.some();
  accumulate<kSpread>(sums, args.x.at(row, 0), args.x.stride, panel.weight,
                      args.in, fetch);
  finish(args, row, panel.column, panel.bias, sums);
}

// The first `count` elements, for a vector that extends beyond the last column.
inline FloatVec load_some(const float* source, int64_t count) {
  if (count >= kLanes<float>) return load(source);
  FloatVec v = {};
  std::memcpy(&v, source, count * sizeof(float));
  return v;
}

inline void store_some(float* target, FloatVec v, int64_t count) {
  if (count >= kLanes<float>)
    store(target, v);
  else
    std::memcpy(target, &v, count * sizeof(float));
}

// Stores a product, in `block`, with a last vector that is not whole. Apart
// from the function above, which needs all the registers there are.
template <int kRows, int kVectors>
__attribute__((noinline)) void finish_block(const LinearArgs& args,
                                            const Panel& panel, int64_t row,
                                            const float* block) {
  const FloatVec zero = {};
  for (int64_t r = row; r < row + kRows; ++r) {
    for (int v = 0; v < kVectors; ++v, block += kLanes<float>) {
      const int64_t begin = v * kLanes<float>, count = panel.width - begin;
      const int64_t column = panel.column + begin;
      FloatVec y = load(block);
      if (args.relu) y = y < zero ? zero : y;
      for (const auto* added : {&args.residual, &args.shortcut})
        if (added->data != nullptr)
          y += load_some(added->at(r, column), count);
      store_some(args.y.at(r, column), y, count);
    }
  }
}

// Rows in blocks of kRows, and what remains in smaller ones.
template <bool kSpread, int kRows, int kVectors>
inline void multiply_rows(const LinearArgs& args, const Panel& panel,
                          int64_t row, int64_t end, Fetch& fetch) {
  if (panel.width % kLanes<float> == 0) {
    for (; row + kRows <= end; row += kRows) {
      fetch_block<kRows, kVectors, 1>(args.y, row, panel.column);
      if (row + 2 * kRows <= end)
        for (const auto* added : {&args.residual, &args.shortcut})
          fetch_block<kRows, kVectors, 0>(*added, row + kRows, panel.column);
      multiply_block<kSpread, kRows, kVectors>(args, panel, row, fetch);
    }
  } else {
    constexpr int64_t kWidth = kVectors * kLanes<float>;
    float block[kRows * kWidth];
    Panel local = panel;
    local.column = 0;
    LinearArgs product = args;
    product.relu = false;
    product.residual = product.shortcut = {};
    for (; row + kRows <= end; row += kRows) {
      product.x.data = args.x.at(row, 0);
      product.y = {block, kWidth};
      multiply_block<kSpread, kRows, kVectors>(product, local, 0, fetch);
      finish_block<kRows, kVectors>(args, panel, row, block);
    }
  }
  if constexpr (kRows > 1)
    if (row < end)
      multiply_rows<kSpread, (kRows + 1) / 2, kVectors>(args, panel, row, end,
                                                        fetch);
}

template <bool kSpread, int kVectors = kSumVectors>
inline void multiply_panel(const LinearArgs& args, const Panel& panel,
                           int64_t begin, int64_t end, Fetch& fetch) {
  if constexpr (kVectors > 1)
    if (panel.width <= (kVectors - 1) * kLanes<float>)
      return multiply_panel<kSpread, kVectors - 1>(args, panel, begin, end,
                                                   fetch);
  multiply_rows<kSpread, kSumRows, kVectors>(args, panel, begin, end, fetch);
}

// Copies the columns of a panel together; zeros fill its last vector.
inline Columns pack(const Panel& panel, int64_t in, float* target) {
  const float* source = panel.weight.data;
  const Columns packed = {target, kPanel};
  for (int64_t i = 0; i < in; ++i) {
    if (panel.width == kPanel) {
#pragma GCC unroll 8
      for (int v = 0; v < kSumVectors; ++v)
        store(target + v * kLanes<float>, load(source + v * kLanes<float>));
    } else {
      for (int64_t c = 0; c < panel.width; c += kLanes<float>)
        store(target + c, load_some(source + c, panel.width - c));
    }
    source += panel.weight.stride;
    target += kPanel;
  }
  return packed;
}

// The columns [begin, end) of a product, with room for a packed panel and its
// bias. `next` is what to fetch after the last of their panels.
inline void multiply_columns(const LinearArgs& args, int64_t row_begin,
                             int64_t row_end, int64_t begin, int64_t end,
                             float* buffer, const Fetch& next = {}) {
  float* bias = buffer + args.in * kPanel;
  const int64_t rows = row_end - row_begin;
  for (int64_t column = begin; column < end; column += kPanel) {
    const int64_t width = std::min<int64_t>(kPanel, end - column);
    Panel panel = {column, width, {args.weight + column, args.out}, bias};
    std::fill(bias, bias + kPanel, 0.0f);
    if (args.bias != nullptr) std::copy_n(args.bias + column, width, bias);
    // Always where its last vector would extend beyond the weight.
    if (rows >= kRowsToPack || width % kLanes<float>)
      panel.weight = pack(panel, args.in, buffer);
    Fetch fetch = next;
    if (column + kPanel < end)
      fetch = {{args.weight + column + kPanel}, args.out, args.in};
    if (spread(fetch, ceil_div(rows, kSumRows), 1, args.in))
      multiply_panel<true>(args, panel, row_begin, row_end, fetch);
    else
      multiply_panel<false>(args, panel, row_begin, row_end, fetch);
  }
}

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
