// The mixer's convolutions, for the instruction set that the including file
// names: the wavelet branch plus the SSM, the local part, and the rest of the
// channels, with the ReLU that follows all of them.
#pragma once

#include "depthwise_conv_impl.hpp"
#include "mixer_conv.hpp"

namespace mmmamba::MMMAMBA_ISA::mixer_conv {

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
void analyse(const Args<T>& args, const T* x, int64_t top, const Bands& bands) {
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
void synthesize(const Args<T>& args, const Bands& bands, const T* ssm, T* y,
                int64_t first) {
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

// Pairs of rows that are a task. On Zen 4, one thread, shapes of S6 and B1: no
// difference between 4, 8 and 16 beyond the noise.
constexpr int64_t kTaskPairs = 8;

// The wavelet branch for the pairs of rows [first, last) of a vector of
// channels: only what they depend on of the subbands is there at a time.
template <typename T>
void wavelet(const Args<T>& args, int64_t b, int64_t c, int64_t first,
             int64_t last, FloatVec* memory) {
  const int64_t height = ceil_div(args.local.height, 2);
  const int64_t width = ceil_div(args.local.width, 2);
  const int64_t top = std::max<int64_t>(0, first - args.kernel / 2);
  const int64_t bottom = std::min(height, last + args.kernel / 2);
  const Bands before = {memory, bottom - top, width};
  const Bands after = {before.at(4, 0), last - first, width};
  analyse(args, args.x.at(b, 0) + c, top, before);
  for (int64_t band = 0; band < 4; ++band) {
    depthwise_conv::Window<float> g = {};
    g.x = reinterpret_cast<const float*>(before.at(band, 0));
    g.row = width * kLanes<float>;
    g.pixel = kLanes<float>;
    g.top = top;
    g.bottom = bottom;
    g.width = width;
    g.tap = args.global_channels;
    g.weight = args.weight + band * args.kernel * args.kernel * g.tap + c;
    g.y = reinterpret_cast<float*>(after.at(band, 0));
    g.y_row = g.row;
    g.y_pixel = g.pixel;
    g.first = first;
    g.last = last;
    g.y_width = width;
    depthwise_conv::convolve(args.kernel, 1, g);
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
void copy(const Args<T>& args, const Map<const T>& x, int64_t b,
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
int64_t count_wavelet(const Args<T>& args) {
  if (args.weight == nullptr) return 1;
  return ceil_div(ceil_div(args.local.height, 2), kTaskPairs) *
         count_vectors(args.global_channels);
}

template <typename T>
int64_t count_tasks(const Args<T>& args) {
  return args.local.batch * (count_wavelet(args) + 1) +
         depthwise_conv::count_tasks(args.local);
}

// The tasks of a sample: the wavelet branch, the local part, then the rest.
template <typename T>
void run(const Args<T>& args, int64_t begin, int64_t end) {
  const int64_t global_tasks = count_wavelet(args);
  const int64_t local_tasks =
      depthwise_conv::count_tasks(args.local) / args.local.batch;
  const int64_t tasks = global_tasks + local_tasks + 1;
  const int64_t pairs = ceil_div(args.local.height, 2);
  const int64_t vectors = count_vectors(args.global_channels);
  Arena<float> arena(4 * (2 * kTaskPairs + args.kernel) *
                     ceil_div(args.local.width, 2));
  FloatVec* memory = arena.take(0);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t b = index / tasks, task = index % tasks;
    if (task < global_tasks && args.weight == nullptr) {
      copy(args, args.ssm, b, 0, args.global_channels);
    } else if (task < global_tasks) {
      const int64_t first = task / vectors * kTaskPairs;
      const int64_t last = std::min(first + kTaskPairs, pairs);
      for_vector(args.global_channels, task % vectors,
                 [&](int64_t c) { wavelet(args, b, c, first, last, memory); });
    } else if (task < global_tasks + local_tasks) {
      const int64_t local = b * local_tasks + task - global_tasks;
      depthwise_conv::run(args.local, local, local + 1);
    } else {
      const int64_t done = args.global_channels + args.local.channels;
      const Map<const T> x = {args.x.data + done, args.x.batch, args.x.row,
                              args.x.pixel};
      copy(args, x, b, done, args.rest_channels);
    }
  }
}

template <typename T>
Kernels<T> kernels() {
  return {count_tasks<T>, run<T>};
}

template Kernels<float> kernels<float>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace mmmamba::MMMAMBA_ISA::mixer_conv
