// The channels-last kernels, for the instruction set the including file names.
// The lanes of a vector are channels. A task works on one vector of channels
// at a time, over some rows of a map, so that its weights and the rows of the
// input that are in use stay in the first cache.
#pragma once

#include <algorithm>

#include "activation.hpp"
#include "arena.hpp"
#include "depthwise_conv.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// -------------------------------------------------------------- convolutions

// A vector of channels of a depthwise convolution; rows are those of a whole
// map, of which the rows [top, bottom) are there.
template <typename T>
struct Window {
  const T* x;  // the row `top`
  int64_t row, pixel, top, bottom, width;
  const float* weight;
  int64_t tap;  // from one tap of the weight to the next
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
                                   int64_t left, int64_t right,
                                   FloatVec* sum) {
  constexpr int kPad = kKernel / 2;
  constexpr int kInner = kStride * (kWidth - 1) + 1;
  FloatVec w[kKernel];
  unroll<kKernel>([&](auto k) MMMAMBA_INLINE {
    w[k] = load(weight + k * tap);
  });
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

// Fetches pixels of the next row, to read or to write them: rows are far apart,
// and no hardware foresees the next.
template <int kWidth, typename T>
MMMAMBA_INLINE inline void fetch(T* row, int64_t pixel) {
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
      const T* x = g.x + (above + begin - g.top) * g.row +
                       start * kStride * g.pixel;
      T* y = g.y + (i - g.first) * g.y_row + start * g.y_pixel;
      fetch<kWidth>(y + g.y_row, g.y_pixel);
      if (kStride == 1) fetch<kWidth>(x + (kKernel - begin) * g.row, g.pixel);
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
          finish([&](FloatVec& v) MMMAMBA_INLINE {
            v = relu(scale * relu(v) + shift);
          });
        }
      }
    }
  }
}

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

// The rows of the output that are a task, and the vectors of channels: so many
// that what is read of a pixel are neighbouring lines of the cache.
constexpr int64_t kTaskRows = 4, kTaskBlocks = 8;

template <typename T>
int64_t count_conv(const ConvArgs<T>& args) {
  return args.batch * ceil_div(ceil_div(args.height, args.stride), kTaskRows) *
         ceil_div(count_blocks(args.channels), kTaskBlocks);
}

template <typename T>
void conv(const ConvArgs<T>& args, int64_t begin, int64_t end) {
  const int64_t blocks = count_blocks(args.channels);
  const int64_t groups = ceil_div(blocks, kTaskBlocks);
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
    for (int64_t block = blocks * group / groups;
         block < blocks * (group + 1) / groups; ++block)
      for_vectors(args.channels, block, work);
  }
}

// --------------------------------------------------------------------- mixer

// Some rows of the four subbands of a vector of channels.
struct Bands {
  FloatVec* data;
  int64_t rows, width;

  FloatVec* at(int64_t band, int64_t row) const {
    return data + (band * rows + row) * width;
  }
};

// The Haar transform of 2x2 pixels in reading order, or of subbands back to
// them, without its factor 1/2.
inline void haar(FloatVec& a, FloatVec& b, FloatVec& c, FloatVec& d) {
  const FloatVec upper = a + b, lower = c + d, left = a - b, right = c - d;
  a = upper + lower;
  b = upper - lower;
  c = left + right;
  d = left - right;
}

// Transforms the pairs of rows from `top` on; beyond the map there are zeros.
template <typename T>
void analyse(const MixerArgs<T>& args, const T* x, int64_t top,
             const Bands& bands) {
  const int64_t height = args.local.height, width = args.local.width;
  for (int64_t i = 0; i < bands.rows; ++i) {
    const T* upper = x + 2 * (top + i) * args.x.row;
    const bool has_lower = 2 * (top + i) + 1 < height;
    const auto pair = [&](int64_t j, bool has_right) MMMAMBA_INLINE {
      const T* p = upper + 2 * j * args.x.pixel;
      const T* q = p + args.x.row;
      FloatVec v[4] = {load_float(p)};
      if (has_right) v[1] = load_float(p + args.x.pixel);
      if (has_lower) v[2] = load_float(q);
      if (has_lower && has_right) v[3] = load_float(q + args.x.pixel);
      haar(v[0], v[1], v[2], v[3]);
      for (int band = 0; band < 4; ++band) bands.at(band, i)[j] = v[band];
    };
    for (int64_t j = 0; j < width / 2; ++j) pair(j, true);
    if (width % 2) pair(width / 2, false);
  }
}

// Transforms back to the pairs of rows from `first` on, adds the SSM.
template <typename T>
void synthesize(const MixerArgs<T>& args, const Bands& bands, const T* ssm,
                T* y, int64_t first) {
  const int64_t height = args.local.height, width = args.local.width;
  for (int64_t i = 0; i < bands.rows; ++i) {
    const int64_t row = 2 * (first + i);
    for (int64_t j = 0; j < bands.width; ++j) {
      FloatVec v[4];
      for (int band = 0; band < 4; ++band) v[band] = bands.at(band, i)[j];
      haar(v[0], v[1], v[2], v[3]);
      const auto put = [&](int64_t dy, int64_t dx) MMMAMBA_INLINE {
        const FloatVec s = load_float(ssm + (row + dy) * args.ssm.row +
                                      (2 * j + dx) * args.ssm.pixel);
        store_float(y + (row + dy) * args.y.row + (2 * j + dx) * args.y.pixel,
                    relu(v[2 * dy + dx] * 0.25f + s));
      };
      const bool has_right = 2 * j + 1 < width, has_lower = row + 1 < height;
      put(0, 0);
      if (has_right) put(0, 1);
      if (has_lower) put(1, 0);
      if (has_right && has_lower) put(1, 1);
    }
  }
}

// Pairs of rows that are a task.
constexpr int64_t kTaskPairs = 8;

// The wavelet branch for the pairs of rows [first, last) of a vector of
// channels: only what they depend on of the subbands is there at a time.
template <typename T>
void wavelet(const MixerArgs<T>& args, int64_t b, int64_t c, int64_t first,
             int64_t last, FloatVec* memory) {
  const int64_t height = ceil_div(args.local.height, 2);
  const int64_t width = ceil_div(args.local.width, 2);
  const int64_t top = std::max<int64_t>(0, first - args.kernel / 2);
  const int64_t bottom = std::min(height, last + args.kernel / 2);
  const Bands before = {memory, bottom - top, width};
  const Bands after = {before.at(4, 0), last - first, width};
  analyse(args, args.x.at(b, 0) + c, top, before);
  for (int64_t band = 0; band < 4; ++band) {
    Window<float> g = {};
    g.x = reinterpret_cast<const float*>(before.at(band, 0));
    g.row = width * kLanes<float>;
    g.pixel = kLanes<float>;
    g.top = top;
    g.bottom = bottom;
    g.width = width;
    g.tap = args.global_channels;
    g.weight =
        args.weight + band * args.kernel * args.kernel * g.tap + c;
    g.y = reinterpret_cast<float*>(after.at(band, 0));
    g.y_row = g.row;
    g.y_pixel = g.pixel;
    g.first = first;
    g.last = last;
    g.y_width = width;
    convolve(args.kernel, 1, g);
  }
  synthesize(args, after, args.ssm.at(b, 0) + c, args.y.at(b, 0) + c, first);
}

inline void copy_relu(const float* x, float* y) { *y = *x < 0 ? 0 : *x; }

inline void copy_relu(const BFloat16* x, BFloat16* y) {
  const bool negative = x->bits > 0x8000 && x->bits <= 0xFF80;  // -inf
  *y = negative ? BFloat16{0} : *x;
}

// y = relu(x) for some of the channels of a sample.
template <typename T>
void copy(const MixerArgs<T>& args, const Map<const T>& x, int64_t b,
          int64_t channel, int64_t channels) {
  for (int64_t i = 0; i < args.local.height; ++i) {
    const T* source = x.at(b, i);
    T* target = args.y.at(b, i) + channel;
    for (int64_t j = 0; j < args.local.width; ++j) {
      int64_t c = 0;
      for (; c + kLanes<float> <= channels; c += kLanes<float>)
        store_float(target + c, relu(load_float(source + c)));
      for (; c < channels; ++c) copy_relu(source + c, target + c);
      source += x.pixel;
      target += args.y.pixel;
    }
  }
}

template <typename T>
int64_t count_wavelet(const MixerArgs<T>& args) {
  if (args.weight == nullptr) return 1;
  return ceil_div(ceil_div(args.local.height, 2), kTaskPairs) *
         count_blocks(args.global_channels);
}

template <typename T>
int64_t count_mixer(const MixerArgs<T>& args) {
  return args.local.batch * (count_wavelet(args) + 1) +
         count_conv(args.local);
}

// The tasks of a sample are those of the wavelet branch, those of the local
// part, and the rest.
template <typename T>
void mixer(const MixerArgs<T>& args, int64_t begin, int64_t end) {
  const int64_t global_tasks = count_wavelet(args);
  const int64_t local_tasks = count_conv(args.local) / args.local.batch;
  const int64_t tasks = global_tasks + local_tasks + 1;
  const int64_t pairs = ceil_div(args.local.height, 2);
  const int64_t blocks = count_blocks(args.global_channels);
  Arena<float> arena(4 * (2 * kTaskPairs + args.kernel) *
                     ceil_div(args.local.width, 2));
  FloatVec* memory = arena.take(0);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t b = index / tasks, task = index % tasks;
    if (task < global_tasks && args.weight == nullptr) {
      copy(args, args.ssm, b, 0, args.global_channels);
    } else if (task < global_tasks) {
      const int64_t first = task / blocks * kTaskPairs;
      const int64_t last = std::min(first + kTaskPairs, pairs);
      for_vectors(args.global_channels, task % blocks, [&](int64_t c) {
        wavelet(args, b, c, first, last, memory);
      });
    } else if (task < global_tasks + local_tasks) {
      const int64_t local = b * local_tasks + task - global_tasks;
      conv(args.local, local, local + 1);
    } else {
      const int64_t done = args.global_channels + args.local.channels;
      const Map<const T> x = {args.x.data + done, args.x.batch,
                                  args.x.row, args.x.pixel};
      copy(args, x, b, done, args.rest_channels);
    }
  }
}

template <typename T>
ConvKernels<T> conv_kernels() {
  return {count_conv<T>, conv<T>, count_mixer<T>, mixer<T>};
}

template ConvKernels<float> conv_kernels<float>();
template ConvKernels<BFloat16> conv_kernels<BFloat16>();

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
