// The gradient of the weight of a depthwise convolution, for the instruction
// set that the including file names. The lanes of a vector are channels; a task
// is one vector of them, over all samples.
#pragma once

#include "depthwise_grad.hpp"
#include "memory.hpp"

namespace mmmamba::MMMAMBA_ISA::depthwise_grad {

// One vector of channels of a map: rows of whole vectors, between columns of
// zeros, so that every column of the gradient meets all columns of the kernel.
inline void copy_plane(const depthwise_conv::Map<const float>& map, int64_t b,
                       int64_t c, int64_t height, int64_t width, int64_t pad,
                       FloatVec* plane) {
  for (int64_t i = 0; i < height; ++i) {
    const float* row = map.at(b, i) + c;
    plane += pad;
    for (int64_t j = 0; j < width; ++j) *plane++ = load(row + j * map.pixel);
    plane += pad;
  }
}

// Adds what one sample gives to the taps of all rows of the kernel.
template <int kKernel>
void add_plane(const FloatVec* x, const FloatVec* grad, int64_t height,
               int64_t width, FloatVec* taps) {
  constexpr int kPad = kKernel / 2;
  const int64_t stride = width + 2 * kPad;
  for (int k = 0; k < kKernel; ++k, taps += kKernel) {
    FloatVec sum[kKernel];
    unroll<kKernel>([&](auto j) MMMAMBA_INLINE { sum[j] = taps[j]; });
    const int64_t begin = std::max(0, kPad - k);
    const int64_t end = std::min(height, height + kPad - k);
    for (int64_t i = begin; i < end; ++i) {
      const FloatVec* row = x + (i + k - kPad) * stride;
      const FloatVec* g = grad + i * width;
      for (int64_t w = 0; w < width; ++w)
        unroll<kKernel>([&](auto j)
                            MMMAMBA_INLINE { sum[j] += g[w] * row[w + j]; });
    }
    unroll<kKernel>([&](auto j) MMMAMBA_INLINE { taps[j] = sum[j]; });
  }
}

template <int kKernel>
void run_vector(const Args& args, int64_t c) {
  const int64_t height = args.height, width = args.width, pad = kKernel / 2;
  const int64_t size = height * (width + 2 * pad);
  Arena<float> arena(size + height * width + kKernel * kKernel);
  FloatVec *x = arena.take(size), *grad = arena.take(height * width),
           *taps = arena.take(kKernel * kKernel);
  std::fill_n(x, size, FloatVec{});
  std::fill_n(taps, kKernel * kKernel, FloatVec{});
  for (int64_t b = 0; b < args.batch; ++b) {
    copy_plane(args.x, b, c, height, width, pad, x);
    copy_plane(args.grad, b, c, height, width, 0, grad);
    add_plane<kKernel>(x, grad, height, width, taps);
  }
  for (int i = 0; i < kKernel * kKernel; ++i)
    store(args.result + i * args.channels + c, taps[i]);
}

inline int64_t count_tasks(const Args& args) {
  return count_vectors(args.channels);
}

inline void run(const Args& args, int64_t begin, int64_t end) {
  const auto work = args.kernel == 3   ? run_vector<3>
                    : args.kernel == 5 ? run_vector<5>
                                       : run_vector<7>;
  for (; begin < end; ++begin)
    for_vector(args.channels, begin, [&](int64_t c) { work(args, c); });
}

Kernels kernels() { return {count_tasks, run}; }

}  // namespace mmmamba::MMMAMBA_ISA::depthwise_grad
