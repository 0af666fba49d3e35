// The linear layers of a network, for the instruction set that the including
// file names.
#pragma once

#include "gemm_strassen_impl.hpp"

namespace mmmamba::MMMAMBA_ISA::gemm {

// MC: as many rows of x pass all panels before the next ones as have kMCSize
// elements, but at least kMCRows. With more, x and its sums leave the nearer
// caches; with fewer, the weight, which is in no cache, is read again too
// often. Measured on Zen 4 (1 MB of second cache a core).
constexpr int64_t kMCSize = 256 * 1024;
constexpr int64_t kMCRows = 512;

inline int64_t count_panels(int64_t out) { return ceil_div(out, kNR); }

// Equal shares of the rows, each of whole samples, or of pairs of tiles where
// the samples are smaller or larger than that.
inline int64_t mc_rows(int64_t rows, int64_t width, int64_t sample) {
  const int64_t most = std::max(kMCSize / width, kMCRows);
  const int64_t unit =
      kPairRows <= sample && sample <= most ? sample : kPairRows;
  const int64_t units = ceil_div(rows, unit);
  const int64_t parts = std::max<int64_t>(ceil_div(units, most / unit), 1);
  return ceil_div(units, parts) * unit;
}

template <typename Work>
inline void for_parts(int64_t begin, int64_t end, int64_t rows, Work work) {
  for (; begin < end; begin += rows) work(begin, std::min(begin + rows, end));
}

// Words of a row of x.
inline int64_t words(const Args& args) {
  return ceil_div(args.in, static_cast<int64_t>(args.weight.precision));
}

// Elements of memory that a product of so many rows needs, with any precision.
inline int64_t scratch_size(int64_t rows, int64_t in) {
  return strassen_size(rows, in + 4) + 3 * kNR;
}

// What to prefetch for the product that follows, of so many rows.
inline Prefetch first_panels(const Args& args, int64_t rows) {
  const Next& next = args.next;
  if (next.panel * kNR >= next.out) return {};
  Args product = args;
  product.in = next.in;
  product.out = next.out;
  product.weight = next.weight;
  const float* left = next.weight.data + next.panel * kNR;
  if (next.weight.precision != Precision::kFloat)
    return {{left}, next.out, words(product)};
  const float* right = left + half_columns(next.out);
  return {{left, strassen_pays(product, rows) ? right : nullptr},
          next.out,
          next.in};
}

// The columns [first, last) of a product with fewer bits: rounds the rows of x.
template <Precision kPrecision>
inline void multiply_packed(const Args& args, int64_t begin, int64_t end,
                            int64_t first, int64_t last, float* buffer,
                            const Prefetch& next) {
  Args product = args;
  product.in = words(args);
  const int64_t stride = product.in + kRowEnd<kPrecision>;
  product.x = {buffer - begin * stride, stride};
  for (int64_t row = begin; row < end; ++row, buffer += stride)
    pack_row<kPrecision>(args.x.at(row, 0), args.in, buffer);
  multiply_columns<kPrecision>(product, begin, end, first, last, buffer, next);
}

inline void multiply(const Args& args, int64_t begin, int64_t end,
                     int64_t first, int64_t last, float* buffer) {
  const Prefetch next = first_panels(args, end - begin);
  switch (args.weight.precision) {
    case Precision::kBFloat16:
      return multiply_packed<Precision::kBFloat16>(args, begin, end, first,
                                                   last, buffer, next);
    case Precision::kInt8:
      return multiply_packed<Precision::kInt8>(args, begin, end, first, last,
                                               buffer, next);
    case Precision::kFloat:
      if (last - first == args.out && strassen_pays(args, end - begin))
        return strassen(args, begin, end, buffer, next);
      multiply_columns(args, begin, end, first, last, buffer, next);
  }
}

inline void linear(const Args& args, int64_t row_begin, int64_t row_end,
                   int64_t panel_begin, int64_t panel_end) {
  const int64_t rows = mc_rows(row_end - row_begin, args.in, args.sample);
  float* buffer = kept_scratch(scratch_size(rows, args.in));
  const int64_t first = panel_begin * kNR;
  const int64_t last = std::min(panel_end * kNR, args.out);
  for_parts(row_begin, row_end, rows, [&](int64_t begin, int64_t end) {
    multiply(args, begin, end, first, last, buffer);
  });
}

inline void feed_forward(Args first, Args second, int64_t row_begin,
                         int64_t row_end) {
  const int64_t hidden = first.out;
  const int64_t rows =
      mc_rows(row_end - row_begin, first.in + hidden, first.sample);
  const int64_t size = scratch_size(rows, std::max(first.in, hidden));
  float* buffer = kept_scratch(size + rows * hidden);
  float* between = buffer + size;
  for_parts(row_begin, row_end, rows, [&](int64_t begin, int64_t end) {
    first.y = {between - begin * hidden, hidden};
    second.x = {between - begin * hidden, hidden};
    multiply(first, begin, end, 0, hidden, buffer);
    multiply(second, begin, end, 0, second.out, buffer);
  });
}

Kernels kernels() { return {count_panels, linear, feed_forward}; }

}  // namespace mmmamba::MMMAMBA_ISA::gemm
