// Matrix products of some rows and some columns, for the instruction set that
// the including file names. The micro-kernel sums up one register tile; it runs
// over the rows of x with one panel of the weight, which stays in the nearer
// caches and is packed where that pays.
#pragma once

#include "gemm.hpp"
#include "gemm_tile.hpp"
#include "memory.hpp"

namespace mmmamba::MMMAMBA_ISA::gemm {

// Rows from which on packing a panel costs less than reading it in strides,
// where each of its rows may be in another page. Both measured on Zen 4, where
// unpacked AVX2 kernels fell to 49 % of their peak at 128 rows.
constexpr int64_t kPackRows = MMMAMBA_SIMD_BYTES == 64 ? 512 : 64;

// The columns [column, column + width) of a product.
struct Panel {
  int64_t column, width;
  Columns weight;
  const float* bias;
};

// Products between two prefetches. Measured on Zen 4: products of 16 rows took
// up to 1.6 times as long with all prefetches before the tile, and products of
// 9 rows 1.06 times as long with 32 between them.
constexpr int64_t kPrefetchStep = 16;

// Prefetches the panels of the weight that come next, some rows at a time: the
// weights of a network are in no near cache when their turn comes.
struct Prefetch {
  const float* panels[2];  // null for none
  int64_t stride, rows;
  int64_t step = 0;  // rows at a time

  // Spreads the rows over so many tiles, each of so many sums of `in` products.
  void spread(int64_t tiles, int64_t sums, int64_t in) {
    step = ceil_div(rows, tiles * sums * ceil_div(in, kPrefetchStep));
  }

  void next() {
    for (int64_t i = std::min(step, rows); i > 0; --i, --rows) {
      for (const float*& panel : panels) {
        if (panel == nullptr) continue;
#pragma GCC unroll 8
        for (int64_t c = 0; c < kNR; c += kCacheLine / sizeof(float))
          __builtin_prefetch(panel + c, 0, 2);
        // Of a row that does not begin with a cache line it ends one more:
        // without it, products of B1 took up to 1.4 times as long.
        __builtin_prefetch(panel + kNR - 1, 0, 2);
        panel += stride;
      }
    }
  }
};

// As accumulate(), and prefetches within the sums.
template <int kRows, int kVectors, Precision kPrecision>
MMMAMBA_INLINE inline void accumulate(Tile<kRows, kVectors, kPrecision>& tile,
                                      const float* x, int64_t x_stride,
                                      Columns weight, int64_t in,
                                      Prefetch& prefetch) {
  for (; in > kPrefetchStep; in -= kPrefetchStep, x += kPrefetchStep) {
    prefetch.next();
    accumulate(tile, x, x_stride, weight, kPrefetchStep);
    weight.data += kPrefetchStep * weight.stride;
  }
  prefetch.next();
  accumulate(tile, x, x_stride, weight, in);
}

// Prefetches a tile of a matrix, to write or to read it one tile later.
template <int kRows, int kVectors, int kWrite, typename T>
inline void prefetch_tile(const Matrix<T>& matrix, int64_t row,
                          int64_t column) {
  if (matrix.data == nullptr) return;
  for (int r = 0; r < kRows; ++r) {
    const T* line = matrix.at(row + r, column);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors * kLanes<float>;
         c += kCacheLine / sizeof(float))
      __builtin_prefetch(line + c, kWrite, 3);
  }
}

// Stores act(tile + bias + more) and what is added to it. `more` may be null.
template <int kRows, int kVectors, Precision kPrecision>
MMMAMBA_INLINE inline void epilogue(
    const Args& args, int64_t row, int64_t column, const float* bias,
    const Tile<kRows, kVectors, kPrecision>& tile,
    const Tile<kRows, kVectors>* more = nullptr) {
  const FloatVec least =
      broadcast(args.relu ? 0.0f : -std::numeric_limits<float>::infinity());
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const int64_t c = v * kLanes<float>;
      FloatVec y = tile.at[r][v] + load(bias + c);
      if (more != nullptr) y += more->at[r][v];
      y = y < least ? least : y;  // a NaN stays
      for (const auto* added : {&args.residual, &args.shortcut})
        if (added->data != nullptr) y += load(added->at(row + r, column + c));
      store(args.y.at(row + r, column + c), y);
    }
  }
}

// The sums of int8 products as float32, by what is behind their rows and
// columns.
template <int kRows, int kVectors>
MMMAMBA_INLINE inline Tile<kRows, kVectors> dequantize(
    const Args& args, const Panel& panel, int64_t row,
    const Tile<kRows, kVectors, Precision::kInt8>& sums) {
  Tile<kRows, kVectors> tile;
  const float* scale = panel.weight.data + args.in * panel.weight.stride;
  const float* sum = scale + panel.weight.stride;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const FloatVec scales = load(scale + v * kLanes<float>),
                   column_sums = load(sum + v * kLanes<float>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float* end = args.x.at(row + r, args.in);
      tile.at[r][v] =
          __builtin_convertvector(sums.at[r][v], FloatVec) * (end[0] * scales) +
          end[1] * column_sums;
    }
  }
  return tile;
}

template <Precision kPrecision, int kRows, int kVectors>
inline void micro_kernel(const Args& args, const Panel& panel, int64_t row,
                         Prefetch& prefetch) {
  Tile<kRows, kVectors, kPrecision> tile = {};
  accumulate(tile, args.x.at(row, 0), args.x.stride, panel.weight, args.in,
             prefetch);
  if constexpr (kPrecision == Precision::kInt8)
    epilogue(args, row, panel.column, panel.bias,
             dequantize(args, panel, row, tile));
  else
    epilogue(args, row, panel.column, panel.bias, tile);
}

// The epilogue of a tile whose last vector is not whole, from memory. A
// function of its own, as the micro-kernel needs all the registers.
template <int kRows, int kVectors>
__attribute__((noinline)) void edge_epilogue(const Args& args,
                                             const Panel& panel, int64_t row,
                                             const float* tile) {
  for (int64_t r = row; r < row + kRows; ++r, tile += kVectors * kLanes<float>)
    for (int64_t c = 0; c < panel.width; ++c) {
      float y = args.relu && tile[c] < 0 ? 0 : tile[c];
      for (const auto* added : {&args.residual, &args.shortcut})
        if (added->data != nullptr) y += *added->at(r, panel.column + c);
      *args.y.at(r, panel.column + c) = y;
    }
}

// Tiles of kRows rows, and of fewer for what remains.
template <Precision kPrecision, int kRows, int kVectors>
inline void multiply_rows(const Args& args, const Panel& panel, int64_t row,
                          int64_t end, Prefetch& prefetch) {
  if (panel.width % kLanes<float> == 0) {
    for (; row + kRows <= end; row += kRows) {
      prefetch_tile<kRows, kVectors, 1>(args.y, row, panel.column);
      if (row + 2 * kRows <= end)
        for (const auto* added : {&args.residual, &args.shortcut})
          prefetch_tile<kRows, kVectors, 0>(*added, row + kRows, panel.column);
      micro_kernel<kPrecision, kRows, kVectors>(args, panel, row, prefetch);
    }
  } else {
    constexpr int64_t kWidth = kVectors * kLanes<float>;
    float tile[kRows * kWidth];
    Panel local = panel;
    local.column = 0;
    Args product = args;
    product.relu = false;
    product.residual = product.shortcut = {};
    for (; row + kRows <= end; row += kRows) {
      product.x.data = args.x.at(row, 0);
      product.y = {tile, kWidth};
      micro_kernel<kPrecision, kRows, kVectors>(product, local, 0, prefetch);
      edge_epilogue<kRows, kVectors>(args, panel, row, tile);
    }
  }
  if constexpr (kRows > 1)
    if (row < end)
      multiply_rows<kPrecision, (kRows + 1) / 2, kVectors>(args, panel, row,
                                                           end, prefetch);
}

template <Precision kPrecision, int kVectors = kNRVectors>
inline void multiply_panel(const Args& args, const Panel& panel, int64_t begin,
                           int64_t end, Prefetch& prefetch) {
  if constexpr (kVectors > 1)
    if (panel.width <= (kVectors - 1) * kLanes<float>)
      return multiply_panel<kPrecision, kVectors - 1>(args, panel, begin, end,
                                                      prefetch);
  multiply_rows<kPrecision, kMR, kVectors>(args, panel, begin, end, prefetch);
}

// Packs so many rows of a panel; zeros fill its last vector.
inline Columns pack(const Panel& panel, int64_t rows, float* target) {
  const float* source = panel.weight.data;
  const Columns packed = {target, kNR};
  for (int64_t i = 0; i < rows; ++i) {
    if (panel.width == kNR) {
#pragma GCC unroll 8
      for (int v = 0; v < kNRVectors; ++v)
        store(target + v * kLanes<float>, load(source + v * kLanes<float>));
    } else {
      std::fill_n(std::copy_n(source, panel.width, target), kNR - panel.width,
                  0.0f);
    }
    source += panel.weight.stride;
    target += kNR;
  }
  return packed;
}

// The columns [begin, end) of a product, with room for a packed panel and its
// bias. `next` is what to prefetch after the last of their panels.
template <Precision kPrecision = Precision::kFloat>
inline void multiply_columns(const Args& args, int64_t row_begin,
                             int64_t row_end, int64_t begin, int64_t end,
                             float* buffer, const Prefetch& next = {}) {
  const int64_t weight_rows = args.in + kRowEnd<kPrecision>;
  float* bias = buffer + weight_rows * kNR;
  const int64_t rows = row_end - row_begin;
  for (int64_t column = begin; column < end; column += kNR) {
    const int64_t width = std::min<int64_t>(kNR, end - column);
    Panel panel = {column, width, {args.weight.data + column, args.out}, bias};
    std::fill(bias, bias + kNR, 0.0f);
    if (args.bias != nullptr) std::copy_n(args.bias + column, width, bias);
    // Always where its last vector would extend beyond the weight.
    if (rows >= kPackRows || width % kLanes<float>)
      panel.weight = pack(panel, weight_rows, buffer);
    Prefetch prefetch = next;
    if (column + kNR < end)
      prefetch = {{args.weight.data + column + kNR}, args.out, args.in};
    // Whole tiles alone: what remains takes little time.
    prefetch.spread(std::max<int64_t>(rows / kMR, 1), 1, args.in);
    multiply_panel<kPrecision>(args, panel, row_begin, row_end, prefetch);
  }
}

}  // namespace mmmamba::MMMAMBA_ISA::gemm
