// The first convolution, for the instruction set the including file names. It
// has too few input channels for a matrix product or for vectors of them: the
// lanes are output channels, and every input is broadcast.
#pragma once

#include <algorithm>

#include "activation.hpp"
#include "arena.hpp"
#include "stem_conv.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// Outputs of a row that are computed at a time, for two vectors of channels:
// as many as there are registers for.
constexpr int kStemWidth = MMMAMBA_SIMD_BYTES == 64 ? 8 : 6;
constexpr int64_t kStemRows = 4;  // of the output that are a task

inline float to_float(float x) { return x; }

inline float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof(y));
  return y;
}

// The three rows of all channels that a row of the output depends on, with
// zeros around the map: (3, in, length).
template <typename T>
void load_rows(const StemConvArgs<T>& args, int64_t b, int64_t row,
               int64_t length, float* rows) {
  for (int64_t k = 0; k < 3; ++k) {
    const int64_t i = 2 * row - 1 + k;
    for (int64_t c = 0; c < args.in; ++c, rows += length) {
      std::fill(rows, rows + length, 0.0f);
      if (i < 0 || i >= args.height) continue;
      const T* x =
          args.x + b * args.x_batch + c * args.x_channel + i * args.x_row;
      if (args.x_column == 1)
        for (int64_t j = 0; j < args.width; ++j) rows[j + 1] = to_float(x[j]);
      else
        for (int64_t j = 0; j < args.width; ++j)
          rows[j + 1] = to_float(x[j * args.x_column]);
    }
  }
}

// kWidth neighbouring outputs of kVectors vectors of channels.
template <int kWidth, int kVectors, typename T>
void stem_outputs(const StemConvArgs<T>& args, const float* rows,
                  int64_t length, const int64_t* channels, T* y) {
  FloatVec sums[kVectors][kWidth];
  unroll<kVectors>([&](auto v) MMMAMBA_INLINE {
    const FloatVec bias = load(args.bias + channels[v]);
    unroll<kWidth>([&](auto o) MMMAMBA_INLINE { sums[v][o] = bias; });
  });
  for (int64_t k = 0; k < 3; ++k)
    for (int64_t column = 0; column < 3; ++column)
      for (int64_t c = 0; c < args.in; ++c) {
        const float* x = rows + (k * args.in + c) * length + column;
        const float* weight =
            args.weight + ((k * 3 + column) * args.in + c) * args.out;
        FloatVec w[kVectors];
        unroll<kVectors>([&](auto v) MMMAMBA_INLINE {
          w[v] = load(weight + channels[v]);
        });
        unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
          const float input = x[2 * o];
          unroll<kVectors>([&](auto v) MMMAMBA_INLINE {
            sums[v][o] += w[v] * input;
          });
        });
      }
  unroll<kVectors>([&](auto v) MMMAMBA_INLINE {
    unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
      store_float(y + o * args.out + channels[v], relu(sums[v][o]));
    });
  });
}

// A row of the output. The last outputs and the last channels overlap those
// before where their number is no multiple.
template <int kWidth, typename T>
void stem_row(const StemConvArgs<T>& args, const float* rows, int64_t length,
              int64_t width, T* y) {
  constexpr int64_t W = kLanes<float>;
  for (int64_t j = 0; j < width; j += kWidth) {
    const int64_t start = std::min(j, width - kWidth);
    for (int64_t c = 0; c < args.out; c += 2 * W) {
      const int64_t channels[] = {std::min(c, args.out - W),
                                  std::min(c + W, args.out - W)};
      const auto outputs = c + W < args.out ? stem_outputs<kWidth, 2, T>
                                            : stem_outputs<kWidth, 1, T>;
      outputs(args, rows + 2 * start, length, channels, y + start * args.out);
    }
  }
}

template <typename T, int... kWidth>
void stem_row(const StemConvArgs<T>& args, const float* rows, int64_t length,
              int64_t width, T* y, std::integer_sequence<int, kWidth...>) {
  using Function = void (*)(const StemConvArgs<T>&, const float*, int64_t,
                            int64_t, T*);
  constexpr Function kFunctions[] = {stem_row<kWidth + 1, T>...};
  const int64_t count = ceil_div(width, kStemWidth);
  kFunctions[ceil_div(width, count) - 1](args, rows, length, width, y);
}

template <typename T>
int64_t count_stem_conv(const StemConvArgs<T>& args) {
  return args.batch * ceil_div(ceil_div(args.height, 2), kStemRows);
}

template <typename T>
void stem_conv(const StemConvArgs<T>& args, int64_t begin, int64_t end) {
  const int64_t height = ceil_div(args.height, 2);
  const int64_t width = ceil_div(args.width, 2);
  const int64_t chunks = ceil_div(height, kStemRows);
  const int64_t length = 2 * width + 1;
  Arena<float> arena(ceil_div(3 * args.in * length, kLanes<float>));
  float* rows = reinterpret_cast<float*>(arena.take(0));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / chunks, first = task % chunks * kStemRows;
    for (int64_t i = first; i < std::min(first + kStemRows, height); ++i) {
      load_rows(args, b, i, length, rows);
      stem_row(args, rows, length, width,
               args.y + (b * height + i) * width * args.out,
               std::make_integer_sequence<int, kStemWidth>());
    }
  }
}

template <typename T>
StemConvKernels<T> stem_conv_kernels() {
  return {count_stem_conv<T>, stem_conv<T>};
}

template StemConvKernels<float> stem_conv_kernels<float>();
template StemConvKernels<BFloat16> stem_conv_kernels<BFloat16>();

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
