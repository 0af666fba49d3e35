// Depthwise convolutions, for the instruction set that the including file
// names. The lanes of a vector are channels. A task works on one vector of
// channels at a time, over some rows of a map, so that its weights and the rows
// of the input that are in use stay in the first cache.
#pragma once

#include "activation.hpp"
#include "depthwise_conv.hpp"
#include "memory.hpp"

namespace mmmamba::MMMAMBA_ISA::depthwise_conv {

// A vector of channels of a depthwise convolution; rows are those of a whole
// map, of which the rows [top, bottom) are there.
template <typename T>
struct Window {
  const T* x;  // the row `top`
  int64_t row, pixel, top, bottom, width;
  const float* weight;
  int64_t tap;                        // from one tap of the weight to the next
  const float *bias, *scale, *shift;  // absent ones are null
  Act act;
  T* y;  // the row `first` of the output
  int64_t y_row, y_pixel, first, last, y_width;
};

inline FloatVec load_or_zero(const float* source) {
  return source ? load(source) : FloatVec{};
}

// Adds a row of the kernel to kWidth neighbouring outputs. Each column of the
// input is loaded once for all outputs it is part of; `left` and `right` are
// the columns there are beyond those that are there in any case.
template <int kKernel, int kStride, int kWidth, typename T>
MMMAMBA_INLINE inline void add_row(const T* x, int64_t pixel,
                                   const float* weight, int64_t tap,
                                   int64_t left, int64_t right, FloatVec* sum) {
  constexpr int kPad = kKernel / 2;
  constexpr int kInner = kStride * (kWidth - 1) + 1;
  FloatVec w[kKernel];
  unroll<kKernel>([&](auto k)
                      MMMAMBA_INLINE { w[k] = load(weight + k * tap); });
  const auto add_column = [&](auto column) MMMAMBA_INLINE {
    constexpr int kColumn = decltype(column)::value;
    const FloatVec v = load_float(x + kColumn * pixel);
    unroll<kKernel>([&](auto k) MMMAMBA_INLINE {
      constexpr int kOffset = kColumn - decltype(k)::value + kPad;
      if constexpr (kOffset >= 0 && kOffset % kStride == 0 &&
                    kOffset / kStride < kWidth)
        sum[kOffset / kStride] += v * w[k];
    });
  };
  if (left)
    unroll<kPad>([&](auto i) MMMAMBA_INLINE {
      add_column(std::integral_constant<int, decltype(i)::value - kPad>());
    });
  unroll<kInner>(add_column);
  unroll<kPad>([&](auto i) MMMAMBA_INLINE {
    if (i < right)
      add_column(std::integral_constant<int, decltype(i)::value + kInner>());
  });
}

// Prefetches pixels of the next row, to read or to write them: rows are too far
// apart for the hardware to do it.
template <int kWidth, typename T>
MMMAMBA_INLINE inline void prefetch(T* row, int64_t pixel) {
  unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
    __builtin_prefetch(row + o * pixel, !std::is_const_v<T>);
  });
}

// Outputs are computed kWidth at a time, the last ones of a row overlapping
// those before where the width is no multiple.
template <int kKernel, int kStride, int kWidth, typename T>
void convolve(const Window<T>& g) {
  constexpr int64_t kPad = kKernel / 2;
  const FloatVec bias = load_or_zero(g.bias);
  for (int64_t i = g.first; i < g.last; ++i) {
    const int64_t above = i * kStride - kPad;
    const int64_t begin = std::max<int64_t>(0, g.top - above);
    const int64_t end = std::min<int64_t>(kKernel, g.bottom - above);
    for (int64_t j = 0; j < g.y_width; j += kWidth) {
      const int64_t start = std::min(j, g.y_width - kWidth);
      const T* x =
          g.x + (above + begin - g.top) * g.row + start * kStride * g.pixel;
      T* y = g.y + (i - g.first) * g.y_row + start * g.y_pixel;
      prefetch<kWidth>(y + g.y_row, g.y_pixel);
      if (kStride == 1)
        prefetch<kWidth>(x + (kKernel - begin) * g.row, g.pixel);
      const float* weight = g.weight + begin * kKernel * g.tap;
      const int64_t right = g.width - ((start + kWidth - 1) * kStride + 1);
      FloatVec sum[kWidth];
      unroll<kWidth>([&](auto o) MMMAMBA_INLINE { sum[o] = bias; });
      for (int64_t k = begin; k < end; ++k) {
        add_row<kKernel, kStride, kWidth>(x, g.pixel, weight, g.tap, start,
                                          right, sum);
        x += g.row;
        weight += kKernel * g.tap;
      }
      const auto finish = [&](auto act) MMMAMBA_INLINE {
        unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
          act(sum[o]);
          store_float(y + o * g.y_pixel, sum[o]);
        });
      };
      switch (g.act) {
        case Act::kNone:
          finish([](FloatVec&) MMMAMBA_INLINE {});
          break;
        case Act::kRelu:
          finish([](FloatVec& v) MMMAMBA_INLINE { v = relu(v); });
          break;
        case Act::kSilu:
          finish([](FloatVec& v) MMMAMBA_INLINE { v = silu(v); });
          break;
        case Act::kLocal: {
          const FloatVec scale = load(g.scale), shift = load(g.shift);
          finish([&](FloatVec& v)
                     MMMAMBA_INLINE { v = relu(scale * relu(v) + shift); });
        }
      }
    }
  }
}

// Outputs of a row at a time: their sums, the taps of a row and a column fit
// into the registers of AVX-512.
constexpr int kMaxWidth = 8;

template <int kKernel, int kStride, typename T, int... kWidth>
void convolve(const Window<T>& g, std::integer_sequence<int, kWidth...>) {
  using Function = void (*)(const Window<T>&);
  constexpr Function kFunctions[] = {
      convolve<kKernel, kStride, kWidth + 1, T>...};
  const int64_t count = ceil_div(g.y_width, kMaxWidth);
  kFunctions[ceil_div(g.y_width, count) - 1](g);
}

template <typename T>
void convolve(int64_t kernel, int64_t stride, const Window<T>& g) {
  const auto widths = std::make_integer_sequence<int, kMaxWidth>();
  if (kernel == 1) return convolve<1, 1>(g, widths);
  if (kernel == 3 && stride == 2) return convolve<3, 2>(g, widths);
  if (kernel == 3) return convolve<3, 1>(g, widths);
  if (kernel == 5) return convolve<5, 1>(g, widths);
  return convolve<7, 1>(g, widths);
}

// A task is some rows of the output and some vectors of channels, so many that
// the cache lines read of a pixel are neighbours. On Zen 4, one thread, shapes
// of S6 and B1: 2 and 8 rows take 0.96 to 1.06 of the time.
constexpr int64_t kTaskRows = 4, kTaskVectors = 8;

template <typename T>
int64_t count_tasks(const Args<T>& args) {
  return args.batch * ceil_div(ceil_div(args.height, args.stride), kTaskRows) *
         ceil_div(count_vectors(args.channels), kTaskVectors);
}

template <typename T>
void run(const Args<T>& args, int64_t begin, int64_t end) {
  const int64_t vectors = count_vectors(args.channels);
  const int64_t groups = ceil_div(vectors, kTaskVectors);
  const int64_t height = ceil_div(args.height, args.stride);
  const int64_t chunks = ceil_div(height, kTaskRows);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t group = task % groups;
    const int64_t first = task / groups % chunks * kTaskRows;
    const int64_t b = task / groups / chunks;
    Window<T> g;
    g.row = args.x.row;
    g.pixel = args.x.pixel;
    g.top = 0;
    g.bottom = args.height;
    g.width = args.width;
    g.tap = args.channels;
    g.act = args.act;
    g.y_row = args.y.row;
    g.y_pixel = args.y.pixel;
    g.first = first;
    g.last = std::min(first + kTaskRows, height);
    g.y_width = ceil_div(args.width, args.stride);
    const auto work = [&](int64_t c) {
      const auto parameter = [&](const float* source) {
        return source ? source + c : source;
      };
      g.x = args.x.at(b, 0) + c;
      g.weight = args.weight + c;
      g.bias = parameter(args.bias);
      g.scale = parameter(args.scale);
      g.shift = parameter(args.shift);
      g.y = args.y.at(b, first) + c;
      convolve(args.kernel, args.stride, g);
    };
    for (int64_t vector = vectors * group / groups;
         vector < vectors * (group + 1) / groups; ++vector)
      for_vector(args.channels, vector, work);
  }
}

template <typename T>
Kernels<T> kernels() {
  return {count_tasks<T>, run<T>};
}

template Kernels<float> kernels<float>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace mmmamba::MMMAMBA_ISA::depthwise_conv
