// The products of a network's layers, for the instruction set the including
// file names.
#pragma once

#include "gemm_strassen_impl.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// Elements of x that all panels pass before the next ones, but at least
// kTileRows rows. With more, x and its sums leave the nearer caches; with fewer
// rows, more is lost by reading the weight, which is in none, again and again.
constexpr int64_t kTile = 256 * 1024;
constexpr int64_t kTileRows = 512;

inline int64_t count_panels(int64_t out) { return ceil_div(out, kPanel); }

// The rows that are computed in one go, where x has so many columns: equal
// shares of pairs of blocks.
inline int64_t tile_rows(int64_t rows, int64_t width) {
  const int64_t most = std::max(kTile / width, kTileRows);
  const int64_t tiles = std::max<int64_t>(ceil_div(rows, most), 1);
  return ceil_div(rows, tiles * 2 * kSumRows) * 2 * kSumRows;
}

template <typename Work>
inline void for_tiles(int64_t begin, int64_t end, int64_t rows, Work work) {
  for (; begin < end; begin += rows) work(begin, std::min(begin + rows, end));
}

// Elements of memory that a product of a tile needs.
inline int64_t scratch_size(int64_t rows, int64_t in) {
  return strassen_room(rows, in) + kPanel;
}

// What to fetch before a product of so many rows.
inline Fetch first_panels(const LinearArgs& args, int64_t rows) {
  const float* right = args.weight + half_columns(args.out);
  return {{args.weight, strassen_pays(args, rows) ? right : nullptr},
          args.out,
          args.in};
}

inline void multiply(const LinearArgs& args, int64_t begin, int64_t end,
                     float* buffer, const Fetch& next = {}) {
  if (strassen_pays(args, end - begin))
    strassen(args, begin, end, buffer, next);
  else
    multiply_columns(args, begin, end, 0, args.out, buffer, next);
}

inline void linear(const LinearArgs& args, int64_t row_begin, int64_t row_end,
                   int64_t panel_begin, int64_t panel_end) {
  const int64_t rows = tile_rows(row_end - row_begin, args.in);
  float* buffer = kept_scratch(scratch_size(rows, args.in));
  const int64_t first = panel_begin * kPanel;
  const int64_t last = std::min(panel_end * kPanel, args.out);
  for_tiles(row_begin, row_end, rows, [&](int64_t begin, int64_t end) {
    if (last - first == args.out)
      multiply(args, begin, end, buffer);
    else
      multiply_columns(args, begin, end, first, last, buffer);
  });
}

inline void feed_forward(LinearArgs first, LinearArgs second, int64_t row_begin,
                         int64_t row_end) {
  const int64_t hidden = first.out;
  const int64_t rows = tile_rows(row_end - row_begin, first.in + hidden);
  const int64_t size = scratch_size(rows, std::max(first.in, hidden));
  float* buffer = kept_scratch(size + rows * hidden);
  float* between = buffer + size;
  for_tiles(row_begin, row_end, rows, [&](int64_t begin, int64_t end) {
    first.y = {between - begin * hidden, hidden};
    second.x = {between - begin * hidden, hidden};
    multiply(first, begin, end, buffer, first_panels(second, end - begin));
    multiply(second, begin, end, buffer);
  });
}

LinearKernels linear_kernels() { return {count_panels, linear, feed_forward}; }

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
