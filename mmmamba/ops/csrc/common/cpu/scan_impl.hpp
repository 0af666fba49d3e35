// The scans and their gradients, for the instruction set that the including
// file names. The lanes of a vector are channels, so the recurrence along the
// positions is elementwise; a task works on one vector of channels at a time,
// in a few arrays of one vector a position that stay in the cache.
#pragma once

#include "memory.hpp"
#include "scan.hpp"
#include "simd.hpp"

namespace mmmamba::MMMAMBA_ISA::scan {

// ------------------------------------------------------------------ plumbing

// The channels [channel, channel + lanes) of one direction: those of a vector.
struct Channels {
  int64_t channel;
  int lanes;
};

template <typename T>
Channels channels_of(const Sizes& sizes, int64_t index) {
  const int64_t channel = index * kLanes<T>;
  return {channel, static_cast<int>(
                       std::min<int64_t>(kLanes<T>, sizes.channels - channel))};
}

// Calls step(i) for each position in the order of the scan.
template <typename Step>
inline void sweep(int64_t begin, int64_t end, bool reverse, Step step) {
  if (reverse)
    for (int64_t i = end; i-- > begin;) step(i);
  else
    for (int64_t i = begin; i < end; ++i) step(i);
}

// One parameter of each channel of a vector; 0 in the lanes beyond them.
template <typename T>
inline Vec<T> gather(const T* source, int64_t stride, int lanes) {
  Vec<T> v = {};
  if (source != nullptr)
    for (int c = 0; c < lanes; ++c) v[c] = source[c * stride];
  return v;
}

template <typename T>
inline void scatter(Vec<T> v, T* target, int64_t stride, int lanes) {
  for (int c = 0; c < lanes; ++c) target[c * stride] = v[c];
}

// `count` positions of a vector of channels, one vector a position.
template <typename T>
void load_tile(const T* source, int64_t row, int64_t position, int lanes,
               int64_t count, Vec<T>* tile) {
  constexpr int W = kLanes<T>;
  int64_t i = 0;
  if (row == 1 && lanes == W) {  // channels last
    for (; i < count; ++i) tile[i] = load(source + i * position);
  } else if (position == 1) {
    for (; i + W <= count; i += W) {
      for (int c = 0; c < W; ++c)
        tile[i + c] = c < lanes ? load(source + c * row + i) : Vec<T>{};
      transpose<T>(tile + i);
    }
  }
  for (; i < count; ++i) tile[i] = gather(source + i * position, row, lanes);
}

template <typename T>
void store_tile(const Vec<T>* tile, T* target, int64_t row, int64_t position,
                int lanes, int64_t count) {
  constexpr int W = kLanes<T>;
  int64_t i = 0;
  if (row == 1 && lanes == W) {
    for (; i < count; ++i) store(target + i * position, tile[i]);
  } else if (position == 1) {
    for (; i + W <= count; i += W) {
      Vec<T> rows[W];
      std::copy(tile + i, tile + i + W, rows);
      transpose<T>(rows);
      for (int c = 0; c < lanes; ++c) store(target + c * row + i, rows[c]);
    }
  }
  for (; i < count; ++i) scatter(tile[i], target + i * position, row, lanes);
}

// Rows shared by all channels, positions contiguous.
template <typename T>
struct Panel {
  const T* data;
  int64_t row;

  const T* at(int64_t r) const { return data + r * row; }
  Panel operator+(int64_t positions) const { return {data + positions, row}; }
};

// The rows of one direction of a sample; a copy of them only where their
// positions are not contiguous.
template <typename T>
Panel<T> panel(const Rows<const T>& rows, int64_t b, int64_t k, int64_t count,
               int64_t length, T* copy) {
  const T* source = rows.at(b, k);
  if (rows.position == 1) return {source, rows.row};
  for (int64_t i = 0; i < length; ++i)
    for (int64_t r = 0; r < count; ++r)
      copy[r * length + i] = source[r * rows.row + i * rows.position];
  return {copy, length};
}

// dt, B and C of the directions of a sample: of one, or of both.
template <typename T>
class Panels {
 public:
  Panel<T> dt[2] = {}, B[2] = {}, C[2] = {};

  static int64_t vectors(const Args<T>& args) {
    const bool contiguous = args.B.position == 1 && args.C.position == 1 &&
                            (args.sizes.rank == 0 || args.dt.position == 1);
    return contiguous ? 0 : ceil_div(2 * size(args.sizes), kLanes<T>);
  }

  Panels(const Args<T>& args, Arena<T>& arena)
      : args_(args), copy_(reinterpret_cast<T*>(arena.take(vectors(args)))) {}

  // Both directions of the sample b, unless they are there already.
  void load(int64_t b) {
    if (b == sample_) return;
    sample_ = b;
    for (int64_t k = 0; k < 2; ++k) load(b, k, k);
  }

  // The direction k of the sample b.
  void load(int64_t b, int64_t k, int64_t slot = 0) {
    const Sizes& s = args_.sizes;
    T* copy = copy_ + slot * size(s);
    if (s.rank > 0) dt[slot] = panel(args_.dt, b, k, s.rank, s.length, copy);
    copy += s.rank * s.length;
    B[slot] = panel(args_.B, b, k, s.d_state, s.length, copy);
    copy += s.d_state * s.length;
    C[slot] = panel(args_.C, b, k, s.d_state, s.length, copy);
  }

 private:
  static int64_t size(const Sizes& s) {
    return (s.rank + 2 * s.d_state) * s.length;
  }

  const Args<T>& args_;
  T* copy_;
  int64_t sample_ = -1;
};

// ----------------------------------------------------------------- the scan

// z_i = bias + sum over r of weight_r * dt_ri
template <typename T>
void project_steps(Panel<T> dt, int64_t rank, const Vec<T>* weight, Vec<T> bias,
                   int64_t length, Vec<T>* z) {
  constexpr int kUnroll = 4;  // positions that share a load of the weight
  int64_t i = 0;
  for (; i + kUnroll <= length; i += kUnroll) {
    Vec<T> sum[kUnroll] = {bias, bias, bias, bias};
    for (int64_t r = 0; r < rank; ++r)
      for (int j = 0; j < kUnroll; ++j) sum[j] += weight[r] * dt.at(r)[i + j];
    for (int j = 0; j < kUnroll; ++j) z[i + j] = sum[j];
  }
  for (; i < length; ++i) {
    z[i] = bias;
    for (int64_t r = 0; r < rank; ++r) z[i] += weight[r] * dt.at(r)[i];
  }
}

template <typename T>
inline Vec<T> advance(Decay<T> a, Vec<T> h, Vec<T> drive) {
  return a.high * h + (a.low * h + drive);
}

// Adds the output of one state of each channel to y.
template <typename T>
Vec<T> scan_state(const Vec<T>* x, const Vec<T>* delta, const T* B, const T* C,
                  Vec<T> A, Vec<T> h, bool reverse, int64_t length, Vec<T>* y) {
  sweep(0, length, reverse, [&](int64_t i) {
    h = advance(decay(delta[i] * A), h, delta[i] * x[i] * B[i]);
    y[i] += C[i] * h;
  });
  return h;
}

// Positions that the step sizes are computed for at a time; as in
// scan_gate_impl.hpp.
constexpr int64_t kChunk = 256;

template <typename T>
void selective_forward(const Args<T>& args, int64_t begin, int64_t end) {
  const Sizes& sizes = args.sizes;
  const int64_t vectors = ceil_div(sizes.channels, kLanes<T>);
  const int64_t N = sizes.d_state;
  Arena<T> arena(3 * kChunk + 2 * N + Panels<T>::vectors(args));
  Vec<T>*x = arena.take(kChunk), *delta = arena.take(kChunk),
  *y = arena.take(kChunk), *A = arena.take(N), *h = arena.take(N);
  Panels<T> panels(args, arena);
  int64_t loaded = -1;

  for (int64_t task = begin; task < end; ++task) {
    const Channels c = channels_of<T>(sizes, task % vectors);
    const int64_t k = task / vectors % sizes.directions;
    const int64_t b = task / vectors / sizes.directions;
    if (task / vectors != loaded) panels.load(b, k);
    loaded = task / vectors;
    const int64_t channel = k * sizes.channels + c.channel;
    const auto parameter = [&](const T* source, int64_t stride = 1) {
      return gather(source ? source + channel * stride : source, stride,
                    c.lanes);
    };
    const Vec<T> skip = parameter(args.skip), bias = parameter(args.dt_bias);
    for (int64_t n = 0; n < N; ++n) {
      A[n] = parameter(args.A + n, N);
      h[n] = Vec<T>{};
    }
    for (int64_t start = 0; start < sizes.length; start += kChunk) {
      const int64_t length = std::min(kChunk, sizes.length - start);
      load_tile(args.x.at(b, channel) + start * args.x.position, args.x.row,
                args.x.position, c.lanes, length, x);
      load_tile(args.delta.at(b, channel) + start * args.delta.position,
                args.delta.row, args.delta.position, c.lanes, length, delta);
      for (int64_t i = 0; i < length; ++i) {
        delta[i] += bias;
        if (args.softplus) delta[i] = softplus<T>(delta[i]).value;
        y[i] = skip * x[i];
      }
      for (int64_t n = 0; n < N; ++n)
        h[n] = scan_state<T>(x, delta, panels.B[0].at(n) + start,
                             panels.C[0].at(n) + start, A[n], h[n], false,
                             length, y);
      store_tile(y, args.y.at(b, channel) + start * args.y.position, args.y.row,
                 args.y.position, c.lanes, length);
    }
  }
}

template <typename T>
void bidirectional_forward(const Args<T>& args, int64_t begin, int64_t end) {
  const Sizes& sizes = args.sizes;
  const int64_t vectors = ceil_div(sizes.channels, kLanes<T>);
  const int64_t N = sizes.d_state, R = sizes.rank, L = sizes.length;
  Arena<T> arena(2 * L + kChunk + R + 2 * N + Panels<T>::vectors(args));
  Vec<T>*x = arena.take(L), *y = arena.take(L), *delta = arena.take(kChunk),
  *weight = arena.take(R), *A = arena.take(N), *h = arena.take(N);
  Panels<T> panels(args, arena);

  for (int64_t task = begin; task < end; ++task) {
    const Channels c = channels_of<T>(sizes, task % vectors);
    const int64_t b = task / vectors;
    panels.load(b);
    load_tile(args.x.at(b, c.channel), args.x.row, args.x.position, c.lanes, L,
              x);
    std::fill(y, y + L, Vec<T>{});
    for (int64_t k = 0; k < 2; ++k) {
      const int64_t channel = k * sizes.channels + c.channel;
      const auto parameter = [&](const T* source, int64_t stride = 1) {
        return gather(source ? source + channel * stride : source, stride,
                      c.lanes);
      };
      const Vec<T> skip = parameter(args.skip), bias = parameter(args.dt_bias);
      for (int64_t r = 0; r < R; ++r)
        weight[r] = parameter(args.dt_weight + r, R);
      for (int64_t n = 0; n < N; ++n) {
        A[n] = parameter(args.A + n, N);
        h[n] = Vec<T>{};
      }
      sweep(0, ceil_div(L, kChunk), k == 1, [&](int64_t chunk) {
        const int64_t start = chunk * kChunk;
        const int64_t stop = std::min(start + kChunk, L);
        const int64_t length = stop - start;
        project_steps<T>(panels.dt[k] + start, R, weight, bias, length, delta);
        for (int64_t i = 0; i < length; ++i) {
          delta[i] = softplus<T>(delta[i]).value;
          y[start + i] += skip * x[start + i];
        }
        for (int64_t n = 0; n < N; ++n)
          h[n] = scan_state<T>(x + start, delta, panels.B[k].at(n) + start,
                               panels.C[k].at(n) + start, A[n], h[n], k == 1,
                               length, y + start);
      });
    }
    store_tile(y, args.y.at(b, c.channel), args.y.row, args.y.position, c.lanes,
               L);
  }
}

// ------------------------------------------------------------- its gradients

// One direction of a vector of channels, over the whole sequence.
template <typename T>
struct Tiles {
  Vec<T>*x, *grad_y, *delta, *slope;  // slope: of the softplus
  Vec<T>*grad_x, *grad_delta;
  Vec<T>*high, *low, *h;  // scratch

  Tiles(Arena<T>& arena, int64_t length)
      : x(arena.take(length)),
        grad_y(arena.take(length)),
        delta(arena.take(length)),
        slope(arena.take(length)),
        grad_x(arena.take(length)),
        grad_delta(arena.take(length)),
        high(arena.take(length)),
        low(arena.take(length)),
        h(arena.take(length)) {}
  static constexpr int64_t kCount = 9;
};

// sums[i] += sum of the lanes of rows[i]
template <typename T>
void add_lane_sums(const Vec<T>* rows, int64_t length, T* sums) {
  constexpr int W = kLanes<T>;
  for (int64_t i = 0; i < length; i += W) {
    const int count = static_cast<int>(std::min<int64_t>(W, length - i));
    Vec<T> tile[W] = {};
    std::copy(rows + i, rows + i + count, tile);
    transpose<T>(tile);
    for (int c = 1; c < W; ++c) tile[0] += tile[c];
    if (count == W)
      store(sums + i, load(sums + i) + tile[0]);
    else
      for (int j = 0; j < count; ++j) sums[i + j] += tile[0][j];
  }
}

// Adds the gradients that flow through one state of each channel to grad_x,
// grad_delta and to the rows grad_B and grad_C; returns that of A.
template <typename T>
Vec<T> scan_state_backward(const Tiles<T>& t, const T* B, const T* C, Vec<T> A,
                           bool reverse, int64_t length, T* grad_B, T* grad_C) {
  Vec<T> h = {};
  sweep(0, length, reverse, [&](int64_t i) {
    const Decay<T> a = decay(t.delta[i] * A);
    t.high[i] = a.high;
    t.low[i] = a.low;
    t.h[i] = h;  // the state before the step
    h = advance(a, h, t.delta[i] * t.x[i] * B[i]);
  });

  // g is the gradient of the state: it decays against the scan's order.
  Vec<T> g = {}, grad_A = {};
  sweep(0, length, !reverse, [&](int64_t i) {
    const Decay<T> a = {t.high[i], t.low[i]};
    const Vec<T> input = t.delta[i] * t.x[i];
    g += C[i] * t.grad_y[i];
    const Vec<T> g_decay = g * (a.high * t.h[i]);  // of delta * A
    const Vec<T> g_input = g * B[i];
    t.grad_x[i] += g_input * t.delta[i];
    t.grad_delta[i] += g_input * t.x[i] + g_decay * A;
    grad_A += g_decay * t.delta[i];
    t.high[i] = g * input;
    t.low[i] = t.grad_y[i] * advance(a, t.h[i], input * B[i]);
    g = advance(a, g, Vec<T>{});
  });
  add_lane_sums<T>(t.high, length, grad_B);
  add_lane_sums<T>(t.low, length, grad_C);
  return grad_A;
}

// The gradients of kCount columns of the weight, from the rank r on.
template <int kCount, typename T>
void weight_gradients(const Vec<T>* grad_z, Panel<T> dt, int64_t r,
                      int64_t length, Vec<T>* grad_weight) {
  Vec<T> sum[kCount] = {};
  for (int64_t i = 0; i < length; ++i)
    for (int j = 0; j < kCount; ++j) sum[j] += grad_z[i] * dt.at(r + j)[i];
  for (int j = 0; j < kCount; ++j) grad_weight[r + j] = sum[j];
}

// From the gradient of the step sizes before softplus to those of the two
// factors they are the product of.
template <typename T>
void project_steps_backward(const Vec<T>* grad_z, Panel<T> dt, int64_t rank,
                            const T* weight, int lanes, int64_t length,
                            T* grad_dt, Vec<T>* grad_weight) {
  constexpr int W = kLanes<T>;
  int64_t r = 0;
  for (; r + 4 <= rank; r += 4)
    weight_gradients<4>(grad_z, dt, r, length, grad_weight);
  for (; r < rank; ++r) weight_gradients<1>(grad_z, dt, r, length, grad_weight);

  for (int64_t i = 0; i < length; i += W) {
    const int count = static_cast<int>(std::min<int64_t>(W, length - i));
    Vec<T> tile[W] = {};  // lanes are positions, rows channels
    std::copy(grad_z + i, grad_z + i + count, tile);
    transpose<T>(tile);
    for (int64_t r = 0; r < rank; ++r) {
      Vec<T> sum = {};
      for (int c = 0; c < lanes; ++c) sum += tile[c] * weight[c * rank + r];
      T* target = grad_dt + r * length + i;
      if (count == W)
        store(target, load(target) + sum);
      else
        for (int j = 0; j < count; ++j) target[j] += sum[j];
    }
  }
}

// The tasks of the backward are parts of the channels of a sample rather than
// vectors, and their number is fixed: what all channels add to the gradients of
// dt, B and C is summed in the same order by any number of threads.
template <typename T, typename Work>
inline void for_channels(const Sizes& sizes, int64_t split, Work work) {
  const int64_t vectors = ceil_div(sizes.channels, kLanes<T>);
  const int64_t stop = vectors * (split + 1) / sizes.splits;
  for (int64_t i = vectors * split / sizes.splits; i < stop; ++i)
    work(channels_of<T>(sizes, i));
}

template <typename T>
void selective_backward(const Args<T>& args, int64_t begin, int64_t end) {
  const Sizes& sizes = args.sizes;
  const int64_t N = sizes.d_state, L = sizes.length;
  Arena<T> arena(Tiles<T>::kCount * L + Panels<T>::vectors(args));
  const Tiles<T> t(arena, L);
  Panels<T> panels(args, arena);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t split = task % sizes.splits;
    const int64_t k = task / sizes.splits % sizes.directions;
    const int64_t b = task / sizes.splits / sizes.directions;
    T* grad_B = args.grad_rows + task * 2 * N * L;
    T* grad_C = grad_B + N * L;
    panels.load(b, k);
    for_channels<T>(sizes, split, [&](Channels c) {
      const int64_t channels = sizes.directions * sizes.channels;
      const int64_t channel = k * sizes.channels + c.channel;
      const auto parameter = [&](const T* source, int64_t stride = 1) {
        return gather(source ? source + channel * stride : source, stride,
                      c.lanes);
      };
      const auto gradient = [&](Vec<T> v, T* target, int64_t stride = 1) {
        if (target != nullptr)
          scatter(v, target + (b * channels + channel) * stride, stride,
                  c.lanes);
      };
      const auto tile = [&](const Sequences<const T>& source, Vec<T>* target) {
        load_tile(source.at(b, channel), source.row, source.position, c.lanes,
                  L, target);
      };
      tile(args.x, t.x);
      tile(args.grad_y, t.grad_y);
      tile(args.delta, t.delta);
      const Vec<T> skip = parameter(args.skip), bias = parameter(args.dt_bias);
      Vec<T> grad_skip = {}, grad_bias = {};
      for (int64_t i = 0; i < L; ++i) {
        t.delta[i] += bias;
        t.slope[i] = broadcast<T>(1);
        if (args.softplus) {
          const Softplus<T> s = softplus<T>(t.delta[i]);
          t.delta[i] = s.value;
          t.slope[i] = s.slope;
        }
        t.grad_x[i] = skip * t.grad_y[i];
        t.grad_delta[i] = Vec<T>{};
        grad_skip += t.grad_y[i] * t.x[i];
      }
      for (int64_t n = 0; n < N; ++n)
        gradient(scan_state_backward<T>(t, panels.B[0].at(n), panels.C[0].at(n),
                                        parameter(args.A + n, N), false, L,
                                        grad_B + n * L, grad_C + n * L),
                 args.grad_A + n, N);
      for (int64_t i = 0; i < L; ++i) {
        t.grad_delta[i] *= t.slope[i];
        grad_bias += t.grad_delta[i];
      }
      gradient(grad_skip, args.grad_skip);
      gradient(grad_bias, args.grad_dt_bias);
      store_tile(t.grad_x, args.grad_x.at(b, channel), args.grad_x.row,
                 args.grad_x.position, c.lanes, L);
      store_tile(t.grad_delta, args.grad_delta.at(b, channel),
                 args.grad_delta.row, args.grad_delta.position, c.lanes, L);
    });
  }
}

template <typename T>
void bidirectional_backward(const Args<T>& args, int64_t begin, int64_t end) {
  const Sizes& sizes = args.sizes;
  const int64_t N = sizes.d_state, R = sizes.rank, L = sizes.length;
  const int64_t rows = R + 2 * N;
  Arena<T> arena(Tiles<T>::kCount * L + R + Panels<T>::vectors(args));
  const Tiles<T> t(arena, L);
  Vec<T>* weight = arena.take(R);
  Panels<T> panels(args, arena);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t split = task % sizes.splits;
    const int64_t b = task / sizes.splits;
    panels.load(b);
    for_channels<T>(sizes, split, [&](Channels c) {
      load_tile(args.x.at(b, c.channel), args.x.row, args.x.position, c.lanes,
                L, t.x);
      load_tile(args.grad_y.at(b, c.channel), args.grad_y.row,
                args.grad_y.position, c.lanes, L, t.grad_y);
      std::fill(t.grad_x, t.grad_x + L, Vec<T>{});
      Vec<T> grad_skip = {};
      for (int64_t i = 0; i < L; ++i) grad_skip += t.grad_y[i] * t.x[i];
      for (int64_t k = 0; k < 2; ++k) {
        const int64_t channel = k * sizes.channels + c.channel;
        const auto parameter = [&](const T* source, int64_t stride = 1) {
          return gather(source ? source + channel * stride : source, stride,
                        c.lanes);
        };
        const auto gradient = [&](Vec<T> v, T* target, int64_t stride = 1) {
          if (target != nullptr)
            scatter(v, target + (b * 2 * sizes.channels + channel) * stride,
                    stride, c.lanes);
        };
        T* grad_dt =
            args.grad_rows + ((b * 2 + k) * sizes.splits + split) * rows * L;
        T* grad_B = grad_dt + R * L;
        T* grad_C = grad_B + N * L;
        const Vec<T> skip = parameter(args.skip);
        for (int64_t r = 0; r < R; ++r)
          weight[r] = parameter(args.dt_weight + r, R);
        project_steps<T>(panels.dt[k], R, weight, parameter(args.dt_bias), L,
                         t.delta);
        for (int64_t i = 0; i < L; ++i) {
          const Softplus<T> s = softplus<T>(t.delta[i]);
          t.delta[i] = s.value;
          t.slope[i] = s.slope;
          t.grad_x[i] += skip * t.grad_y[i];
          t.grad_delta[i] = Vec<T>{};
        }
        for (int64_t n = 0; n < N; ++n)
          gradient(
              scan_state_backward<T>(t, panels.B[k].at(n), panels.C[k].at(n),
                                     parameter(args.A + n, N), k == 1, L,
                                     grad_B + n * L, grad_C + n * L),
              args.grad_A + n, N);
        Vec<T> grad_bias = {};
        for (int64_t i = 0; i < L; ++i) {
          t.grad_delta[i] *= t.slope[i];
          grad_bias += t.grad_delta[i];
        }
        project_steps_backward<T>(t.grad_delta, panels.dt[k], R,
                                  args.dt_weight + channel * R, c.lanes, L,
                                  grad_dt, weight);
        for (int64_t r = 0; r < R; ++r)
          gradient(weight[r], args.grad_dt_weight + r, R);
        gradient(grad_bias, args.grad_dt_bias);
        gradient(grad_skip, args.grad_skip);
      }
      store_tile(t.grad_x, args.grad_x.at(b, c.channel), args.grad_x.row,
                 args.grad_x.position, c.lanes, L);
    });
  }
}

template <typename T>
Kernels<T> kernels() {
  return {kLanes<T>, selective_forward<T>, selective_backward<T>,
          bidirectional_forward<T>, bidirectional_backward<T>};
}

template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();

}  // namespace mmmamba::MMMAMBA_ISA::scan
