// Matrix products, for the instruction set the including file names. A block
// of a few rows and a panel of columns is summed up in registers; the panel of
// the weight, copied together where that pays, stays in the nearer caches.
#pragma once

#include <algorithm>
#include <limits>

#include "arena.hpp"
#include "linear.hpp"
#include "simd.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

constexpr int kPanel = kSumVectors * kLanes<float>;
// Rows from which on copying a panel costs less than reading it in strides:
// the wider it is, the longer the next of its rows, in another page, can take.
constexpr int64_t kRowsToPack = MMMAMBA_SIMD_BYTES == 64 ? 512 : 64;
// Elements of x that all panels pass before the next ones. With fewer, more is
// lost by reading the weight, which is in no cache, again and again.
constexpr int64_t kTile = 512 * 1024;

// The columns [column, column + width) of a product.
struct Panel {
  int64_t column, width;
  const float* weight;
  int64_t stride;  // between rows of the weight
  const float* bias;
};

// The panel of a weight that comes next, of which some rows are fetched with
// each block: a network's weights are in no near cache when their turn comes.
struct Fetch {
  const float* weight;  // or null
  int64_t stride, rows;
  int64_t step = 0;  // rows that are fetched with a block

  void some() {
    if (weight == nullptr) return;
    for (int64_t i = std::min(step, rows); i > 0; --i, --rows) {
#pragma GCC unroll 8
      for (int64_t c = 0; c < kPanel; c += 64 / sizeof(float))
        __builtin_prefetch(weight + c, 0, 2);
      weight += stride;
    }
  }
};

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

// One block of a product: whole vectors, and no residual behind a ReLU.
template <int kRows, int kVectors>
inline void multiply_block(const LinearArgs& args, const Panel& panel,
                           int64_t row) {
  FloatVec sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const FloatVec bias = load(panel.bias + v * kLanes<float>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[r][v] = bias;
  }
  for (const auto* added : {&args.residual, &args.shortcut}) {
    if (added->data == nullptr) continue;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] +=
            load(added->at(row + r, panel.column + v * kLanes<float>));
  }
  const float* x = args.x.at(row, 0);
  const float* weight = panel.weight;
  const int64_t in = args.in, x_stride = args.x.stride, stride = panel.stride;
  for (int64_t i = 0; i < in; ++i, weight += stride) {
    FloatVec w[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) w[v] = load(weight + v * kLanes<float>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const FloatVec element = broadcast(x[r * x_stride + i]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[r][v] += element * w[v];
    }
  }
  const FloatVec least = broadcast(
      args.relu ? 0.0f : -std::numeric_limits<float>::infinity());
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const FloatVec y = sums[r][v];
      store(args.y.at(row + r, panel.column + v * kLanes<float>),
            y < least ? least : y);  // a NaN stays
    }
  }
}

// What comes between the product of a block, in `block`, and the result, where
// the function above does not do it. Apart from it, which needs all the
// registers there are for its sums.
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

// Rows in blocks of kRows, and what remains in smaller ones.
template <int kRows, int kVectors>
inline void multiply_rows(const LinearArgs& args, const Panel& panel,
                          int64_t row, int64_t end, Fetch& fetch) {
  const bool whole = panel.width % kLanes<float> == 0;
  const bool added =
      args.residual.data != nullptr || args.shortcut.data != nullptr;
  if (whole && !(args.relu && added)) {
    for (; row + kRows <= end; row += kRows) {
      fetch.some();
      fetch_block<kRows, kVectors, 1>(args.y, row, panel.column);
      if (row + 2 * kRows <= end)
        for (const auto* added : {&args.residual, &args.shortcut})
          fetch_block<kRows, kVectors, 0>(*added, row + kRows, panel.column);
      multiply_block<kRows, kVectors>(args, panel, row);
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
      fetch.some();
      product.x.data = args.x.at(row, 0);
      product.y = {block, kWidth};
      multiply_block<kRows, kVectors>(product, local, 0);
      finish_block<kRows, kVectors>(args, panel, row, block);
    }
  }
  if constexpr (kRows > 1)
    if (row < end)
      multiply_rows<(kRows + 1) / 2, kVectors>(args, panel, row, end, fetch);
}

template <int kVectors = kSumVectors>
inline void multiply_panel(const LinearArgs& args, const Panel& panel,
                           int64_t begin, int64_t end, Fetch& fetch) {
  if constexpr (kVectors > 1)
    if (panel.width <= (kVectors - 1) * kLanes<float>)
      return multiply_panel<kVectors - 1>(args, panel, begin, end, fetch);
  multiply_rows<kSumRows, kVectors>(args, panel, begin, end, fetch);
}

// Room for a packed panel and its bias.
inline Arena<float> scratch(int64_t in) {
  return Arena<float>((in + 1) * kSumVectors);
}

// Copies the columns of a panel together; zeros fill its last vector.
inline void pack(const Panel& panel, int64_t in, float* target) {
  const float* source = panel.weight;
  for (int64_t i = 0; i < in; ++i, source += panel.stride, target += kPanel) {
    if (panel.width == kPanel) {
#pragma GCC unroll 8
      for (int v = 0; v < kSumVectors; ++v)
        store(target + v * kLanes<float>, load(source + v * kLanes<float>));
    } else {
      for (int64_t c = 0; c < panel.width; c += kLanes<float>)
        store(target + c, load_some(source + c, panel.width - c));
    }
  }
}

inline void multiply(const LinearArgs& args, int64_t row_begin, int64_t row_end,
                     int64_t panel_begin, int64_t panel_end, float* buffer,
                     Fetch next = {}) {
  float* bias = buffer + args.in * kPanel;
  const int64_t rows = row_end - row_begin;
  for (int64_t p = panel_begin; p < panel_end; ++p) {
    const int64_t column = p * kPanel;
    const int64_t width = std::min<int64_t>(kPanel, args.out - column);
    Panel panel = {column, width, args.weight + column, args.out, bias};
    std::fill(bias, bias + kPanel, 0.0f);
    if (args.bias != nullptr)
      std::copy_n(args.bias + column, width, bias);
    // Always where its last vector would extend beyond the weight.
    if (rows >= kRowsToPack || width % kLanes<float>) {
      pack(panel, args.in, buffer);
      panel.weight = buffer;
      panel.stride = kPanel;
    }
    Fetch fetch = next;
    if (p + 1 < panel_end)
      fetch = {args.weight + column + kPanel, args.out, args.in};
    fetch.step = ceil_div(fetch.rows * kSumRows, rows);
    multiply_panel(args, panel, row_begin, row_end, fetch);
  }
}

inline int64_t count_panels(int64_t out) { return ceil_div(out, kPanel); }

// Equal shares of the rows, of about kTile elements in all `width` columns.
template <typename Work>
inline void for_tiles(int64_t begin, int64_t end, int64_t width, Work work) {
  if (begin == end) return;
  const int64_t most = std::max<int64_t>(kTile / width, kRowsToPack);
  const int64_t tiles = ceil_div(end - begin, most);
  const int64_t rows =
      ceil_div(ceil_div(end - begin, tiles), kSumRows) * kSumRows;
  for (; begin < end; begin += rows) work(begin, std::min(begin + rows, end));
}

inline void linear(const LinearArgs& args, int64_t row_begin, int64_t row_end,
                   int64_t panel_begin, int64_t panel_end) {
  Arena<float> arena = scratch(args.in);
  float* buffer = reinterpret_cast<float*>(arena.take(0));
  for_tiles(row_begin, row_end, args.in, [&](int64_t begin, int64_t end) {
    multiply(args, begin, end, panel_begin, panel_end, buffer);
  });
}

inline void feed_forward(LinearArgs first, LinearArgs second, int64_t row_begin,
                         int64_t row_end) {
  Arena<float> arena = scratch(std::max(first.in, second.in));
  float* buffer = reinterpret_cast<float*>(arena.take(0));
  const int64_t hidden = first.out, width = first.in + hidden;
  const int64_t most =
      std::min(row_end - row_begin,
               std::max<int64_t>(kTile / width, kRowsToPack) + kSumRows);
  Arena<float> between(ceil_div(most * hidden, kLanes<float>));
  float* data = reinterpret_cast<float*>(between.take(0));
  for_tiles(row_begin, row_end, width, [&](int64_t begin, int64_t end) {
    first.y = {data - begin * hidden, hidden};
    second.x = {data - begin * hidden, hidden};
    multiply(first, begin, end, 0, count_panels(first.out), buffer,
             {second.weight, second.out, second.in});
    multiply(second, begin, end, 0, count_panels(second.out), buffer);
  });
}

LinearKernels linear_kernels() { return {count_panels, linear, feed_forward}; }

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
