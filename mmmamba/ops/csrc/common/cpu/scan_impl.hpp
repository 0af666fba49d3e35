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

// A vector of channels of one direction of a sample, by the index of the first
// of them among those of all directions.
template <typename T>
struct Channels {
  const Sizes& sizes;
  int64_t b, channel;
  int lanes;

  Channels(const Sizes& sizes, int64_t b, int64_t k, int64_t vector)
      : sizes(sizes),
        b(b),
        channel(k * sizes.channels + vector * kLanes<T>),
        lanes(static_cast<int>(std::min<int64_t>(
            kLanes<T>, sizes.channels - vector * kLanes<T>))) {}

  Vec<T> parameter(const T* source, int64_t stride = 1) const {
    return gather(source ? source + channel * stride : source, stride, lanes);
  }
  void store_gradient(Vec<T> v, T* target, int64_t stride = 1) const {
    const int64_t first = b * sizes.directions * sizes.channels + channel;
    if (target != nullptr) scatter(v, target + first * stride, stride, lanes);
  }
  void load_chunk(const Sequences<const T>& source, int64_t start,
                  int64_t length, Vec<T>* tile) const {
    load_tile(source.at(b, channel) + start * source.position, source.row,
              source.position, lanes, length, tile);
  }
  void store_chunk(const Vec<T>* tile, const Sequences<T>& target,
                   int64_t start, int64_t length) const {
    store_tile(tile, target.at(b, channel) + start * target.position,
               target.row, target.position, lanes, length);
  }
};

// Directions that a task of the selective and of the bidirectional scan sums.
template <bool kBidirectional>
constexpr int64_t kDirections = kBidirectional ? 2 : 1;

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

template <bool kBidirectional, typename T>
void forward(const Args<T>& args, int64_t begin, int64_t end) {
  const Sizes& sizes = args.sizes;
  const int64_t vectors = ceil_div(sizes.channels, kLanes<T>);
  const int64_t groups = sizes.directions / kDirections<kBidirectional>;
  const int64_t N = sizes.d_state, R = sizes.rank, L = sizes.length;
  // Both directions are summed in memory; one passes by in chunks.
  const int64_t kept = kBidirectional ? L : kChunk;
  Arena<T> arena(2 * kept + kChunk + R + 2 * N);
  Vec<T>*x = arena.take(kept), *y = arena.take(kept),
  *delta = arena.take(kChunk), *weight = arena.take(R), *A = arena.take(N),
  *h = arena.take(N);

  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / vectors / groups, first = task / vectors % groups;
    const Channels<T> sequence(sizes, b, first, task % vectors);
    if (kBidirectional) {
      sequence.load_chunk(args.x, 0, L, x);
      std::fill(y, y + L, Vec<T>{});
    }
    for (int64_t slot = 0; slot < kDirections<kBidirectional>; ++slot) {
      const Channels<T> c(sizes, b, first + slot, task % vectors);
      const Panel<T> dt = args.dt.at(b, first + slot),
                     B = args.B.at(b, first + slot),
                     C = args.C.at(b, first + slot);
      const Vec<T> skip = c.parameter(args.skip);
      const Vec<T> bias = c.parameter(args.dt_bias);
      for (int64_t r = 0; r < R; ++r)
        weight[r] = c.parameter(args.dt_weight + r, R);
      for (int64_t n = 0; n < N; ++n) {
        A[n] = c.parameter(args.A + n, N);
        h[n] = Vec<T>{};
      }
      sweep(0, ceil_div(L, kChunk), slot == 1, [&](int64_t chunk) {
        const int64_t start = chunk * kChunk;
        const int64_t length = std::min(kChunk, L - start);
        Vec<T>*x_chunk = x, *y_chunk = y;
        if (kBidirectional) {
          x_chunk += start;
          y_chunk += start;
          project_steps<T>(dt + start, R, weight, bias, length, delta);
        } else {
          c.load_chunk(args.x, start, length, x);
          std::fill(y, y + length, Vec<T>{});
          c.load_chunk(args.delta, start, length, delta);
          for (int64_t i = 0; i < length; ++i) delta[i] += bias;
        }
        if (args.softplus)
          for (int64_t i = 0; i < length; ++i)
            delta[i] = softplus<T>(delta[i]).value;
        for (int64_t i = 0; i < length; ++i) y_chunk[i] += skip * x_chunk[i];
        for (int64_t n = 0; n < N; ++n)
          h[n] = scan_state<T>(x_chunk, delta, B.at(n) + start, C.at(n) + start,
                               A[n], h[n], slot == 1, length, y_chunk);
        if (!kBidirectional) c.store_chunk(y, args.y, start, length);
      });
    }
    if (kBidirectional) sequence.store_chunk(y, args.y, 0, L);
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

// From the gradient of the step sizes before softplus to those of the two
// factors they are the product of.
template <typename T>
void project_steps_backward(const Vec<T>* grad_z, Panel<T> dt, int64_t rank,
                            const T* weight, int lanes, int64_t length,
                            T* grad_dt, Vec<T>* grad_weight) {
  constexpr int W = kLanes<T>;
  constexpr int kUnroll = 4;  // ranks that share a load of grad_z
  for (int64_t r = 0; r < rank; r += kUnroll) {
    const T* rows[kUnroll];
    for (int j = 0; j < kUnroll; ++j)
      rows[j] = dt.at(std::min(r + j, rank - 1));
    Vec<T> sum[kUnroll] = {};
    for (int64_t i = 0; i < length; ++i)
      for (int j = 0; j < kUnroll; ++j) sum[j] += grad_z[i] * rows[j][i];
    std::copy_n(sum, std::min<int64_t>(kUnroll, rank - r), grad_weight + r);
  }

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
template <bool kBidirectional, typename T>
void backward(const Args<T>& args, int64_t begin, int64_t end) {
  const Sizes& sizes = args.sizes;
  const int64_t vectors = ceil_div(sizes.channels, kLanes<T>);
  const int64_t groups = sizes.directions / kDirections<kBidirectional>;
  const int64_t N = sizes.d_state, R = sizes.rank, L = sizes.length;
  Arena<T> arena(Tiles<T>::kCount * L + R);
  const Tiles<T> t(arena, L);
  Vec<T>* weight = arena.take(R);

  // The direction k of a vector of channels; its rows add to grad_rows.
  const auto direction = [&](const Channels<T>& c, int64_t k, bool reverse,
                             T* grad_rows) {
    const Panel<T> dt = args.dt.at(c.b, k), B = args.B.at(c.b, k),
                   C = args.C.at(c.b, k);
    T *grad_B = grad_rows + R * L, *grad_C = grad_B + N * L;
    const Vec<T> skip = c.parameter(args.skip);
    const Vec<T> bias = c.parameter(args.dt_bias);
    Vec<T> grad_bias = {};
    if (kBidirectional) {
      for (int64_t r = 0; r < R; ++r)
        weight[r] = c.parameter(args.dt_weight + r, R);
      project_steps<T>(dt, R, weight, bias, L, t.delta);
    } else {
      c.load_chunk(args.delta, 0, L, t.delta);
      for (int64_t i = 0; i < L; ++i) t.delta[i] += bias;
    }
    for (int64_t i = 0; i < L; ++i) {
      t.slope[i] = broadcast<T>(1);
      if (args.softplus) {
        const Softplus<T> s = softplus<T>(t.delta[i]);
        t.delta[i] = s.value;
        t.slope[i] = s.slope;
      }
      t.grad_x[i] += skip * t.grad_y[i];
      t.grad_delta[i] = Vec<T>{};
    }
    for (int64_t n = 0; n < N; ++n)
      c.store_gradient(scan_state_backward<T>(
                           t, B.at(n), C.at(n), c.parameter(args.A + n, N),
                           reverse, L, grad_B + n * L, grad_C + n * L),
                       args.grad_A + n, N);
    for (int64_t i = 0; i < L; ++i) {
      t.grad_delta[i] *= t.slope[i];
      grad_bias += t.grad_delta[i];
    }
    if (kBidirectional) {
      project_steps_backward<T>(t.grad_delta, dt, R,
                                args.dt_weight + c.channel * R, c.lanes, L,
                                grad_rows, weight);
      for (int64_t r = 0; r < R; ++r)
        c.store_gradient(weight[r], args.grad_dt_weight + r, R);
    } else {
      c.store_chunk(t.grad_delta, args.grad_delta, 0, L);
    }
    c.store_gradient(grad_bias, args.grad_dt_bias);
  };

  for (int64_t task = begin; task < end; ++task) {
    const int64_t split = task % sizes.splits;
    const int64_t first = task / sizes.splits % groups;
    const int64_t b = task / sizes.splits / groups;
    const int64_t stop = vectors * (split + 1) / sizes.splits;
    for (int64_t v = vectors * split / sizes.splits; v < stop; ++v) {
      const Channels<T> sequence(sizes, b, first, v);
      sequence.load_chunk(args.x, 0, L, t.x);
      sequence.load_chunk(args.grad_y, 0, L, t.grad_y);
      std::fill(t.grad_x, t.grad_x + L, Vec<T>{});
      Vec<T> grad_skip = {};
      for (int64_t i = 0; i < L; ++i) grad_skip += t.grad_y[i] * t.x[i];
      for (int64_t slot = 0; slot < kDirections<kBidirectional>; ++slot) {
        const int64_t k = first + slot;
        const int64_t part = (b * sizes.directions + k) * sizes.splits + split;
        const Channels<T> c(sizes, b, k, v);
        direction(c, k, slot == 1, args.grad_rows + part * (R + 2 * N) * L);
        c.store_gradient(grad_skip, args.grad_skip);
      }
      sequence.store_chunk(t.grad_x, args.grad_x, 0, L);
    }
  }
}

template <typename T>
Kernels<T> kernels() {
  return {kLanes<T>, forward<false, T>, backward<false, T>, forward<true, T>,
          backward<true, T>};
}

template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();

}  // namespace mmmamba::MMMAMBA_ISA::scan
