// The bidirectional scan for inference with the layer norm and the gate after
// it, for the instruction set that the including file names. The lanes of a
// vector are channels. Unlike in scan_impl.hpp, which has gradients too,
// positions are read where they are, and all exponentials are powers of 2: step
// sizes are in units of ln 2.
#pragma once

#include "activation.hpp"
#include "memory.hpp"
#include "scan_gate.hpp"

namespace mmmamba::MMMAMBA_ISA::scan_gate {

constexpr float kLn2 = 0.693147181f;

// sums_i += sum of kCount of the products weight_r * dt_ir; or `bias` plus it.
template <int kCount>
void add_ranks(Series<const float> dt, const FloatVec* weight,
               const FloatVec* bias, int64_t length, FloatVec* sums) {
  FloatVec w[kCount];
  unroll<kCount>([&](auto r) MMMAMBA_INLINE { w[r] = weight[r]; });
  for (int64_t i = 0; i < length; ++i) {
    const float* row = dt.at(0, i);
    FloatVec sum = bias ? *bias : sums[i];
    unroll<kCount>([&](auto r) MMMAMBA_INLINE { sum += w[r] * row[r]; });
    sums[i] = sum;
  }
}

// steps_i = log2(1 + 2^(bias + sum over r of weight_r * dt_ir))
inline void step_sizes(Series<const float> dt, int64_t rank,
                       const FloatVec* weight, FloatVec bias, int64_t length,
                       FloatVec* steps) {
  constexpr decltype(&add_ranks<1>) kAddRanks[] = {
      add_ranks<1>, add_ranks<2>, add_ranks<3>, add_ranks<4>,
      add_ranks<5>, add_ranks<6>, add_ranks<7>, add_ranks<8>};
  if (rank == 0) std::fill(steps, steps + length, bias);
  for (int64_t r = 0; r < rank; r += 8)
    kAddRanks[std::min<int64_t>(8, rank - r) - 1](
        {dt.data + r, 0, dt.position}, weight + r, r ? nullptr : &bias, length,
        steps);
  for (int64_t i = 0; i < length; ++i) steps[i] = softplus2(steps[i]);
}

// Where the output of the states is summed: in y, and in the end in the result.
enum class Sum { kFirst, kMore, kLast };

// Adds the output of one state of each channel, in units of ln 2 in y.
template <Sum kSum, typename T>
FloatVec scan_state(Series<const T> x, const FloatVec* steps,
                    Series<const float> B, Series<const float> C, FloatVec A,
                    FloatVec h, int64_t length, bool reverse, FloatVec* y,
                    FloatVec skip, Series<float> result) {
  const FloatVec lowest = broadcast(-127.0f), highest = broadcast(126.0f);
  const int64_t direction = reverse ? -1 : 1;
  for (int64_t count = 0, i = reverse ? length - 1 : 0; count < length;
       ++count, i += direction) {
    // The decay as an unevaluated sum: see Decay in simd.hpp.
    const PowerParts p =
        power_parts(larger(lowest, smaller(highest, A * steps[i])));
    const FloatVec scale = (FloatVec)(p.exponent + (127 << 23));
    const FloatVec input = load_float(x.at(0, i));
    const FloatVec drive = steps[i] * input * *B.at(0, i);
    h = multiply_add(scale, h, multiply_add(scale * p.tail, h, drive));
    const float c = *C.at(0, i);
    if constexpr (kSum == Sum::kFirst)
      y[i] = h * c;
    else if constexpr (kSum == Sum::kMore)
      y[i] += h * c;
    else
      store(result.at(0, i), (y[i] + h * c) * kLn2 + input * skip);
  }
  return h;
}

// Positions that the step sizes are computed for at a time: 16 kB of AVX-512
// vectors. On Zen 4, one thread, lengths 196 and 1024: no difference between
// 128, 256 and 512 beyond the noise.
constexpr int64_t kPositions = 256;

// One vector of channels of a sample.
template <typename T>
void scan_channels(const Args<T>& args, int64_t b, int64_t c, FloatVec* weight,
                   FloatVec* state, FloatVec* steps, FloatVec* y) {
  const int64_t N = args.d_state, R = args.rank, L = args.length;
  const int64_t D = args.channels, rows = R + 2 * N;
  const Series<const T> x = {args.x.at(b, 0) + c, 0, args.x.position};
  const FloatVec skip = load(args.skip + c) + load(args.skip + D + c);
  for (int64_t k = 0; k < 2; ++k) {
    const FloatVec bias = load(args.dt_bias + k * D + c) * kLog2e;
    for (int64_t r = 0; r < R; ++r)
      weight[r] = load(args.dt_weight + (k * R + r) * D + c) * kLog2e;
    std::fill(state, state + N, FloatVec{});
    const int64_t chunks = ceil_div(L, kPositions);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t begin = (k ? chunks - 1 - chunk : chunk) * kPositions;
      const int64_t length = std::min(kPositions, L - begin);
      const Series<const float> dt = {args.projected.at(b, begin) + k * rows, 0,
                                      args.projected.position};
      step_sizes(dt, R, weight, bias, length, steps);
      for (int64_t n = 0; n < N; ++n) {
        const auto sum = k == 0 && n == 0       ? scan_state<Sum::kFirst, T>
                         : k == 1 && n == N - 1 ? scan_state<Sum::kLast, T>
                                                : scan_state<Sum::kMore, T>;
        state[n] =
            sum({x.at(0, begin), 0, x.position}, steps,
                {dt.data + R + n, 0, dt.position},
                {dt.data + R + N + n, 0, dt.position},
                load(args.A + (k * N + n) * D + c), state[n], length, k == 1,
                y + begin, skip,
                {args.scanned.at(b, begin) + c, 0, args.scanned.position});
      }
    }
  }
}

template <typename T>
void scan(const Args<T>& args, int64_t begin, int64_t end) {
  const int64_t vectors = count_vectors(args.channels);
  Arena<float> arena(args.rank + args.d_state + kPositions + args.length);
  FloatVec *weight = arena.take(args.rank), *state = arena.take(args.d_state),
           *steps = arena.take(kPositions), *y = arena.take(args.length);
  for (int64_t task = begin; task < end; ++task)
    for_vector(args.channels, task % vectors, [&](int64_t c) {
      scan_channels(args, task / vectors, c, weight, state, steps, y);
    });
}

// The sums of the lanes of each of kLanes rows, which are overwritten.
inline FloatVec totals(FloatVec* rows) {
  transpose<float>(rows);
  for (int i = 1; i < kLanes<float>; ++i) rows[0] += rows[i];
  return rows[0];
}

// As many positions at a time as a vector has lanes.
template <typename T>
void gate(const Args<T>& args, int64_t begin, int64_t end) {
  constexpr int64_t W = kLanes<float>;
  const int64_t D = args.channels, whole = D / W * W;
  // The last vector overlaps the one before it; what both have counts once.
  FloatVec last = {};
  for (int64_t i = whole - (D - W); i < W; ++i) last[i] = 1;
  for (int64_t start = begin; start < end; start += W) {
    const int64_t count = std::min(W, end - start);
    const float* x[W];
    const T* z[W];
    T* y[W];
    FloatVec sums[W] = {};
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = (start + i) / args.length;
      x[i] = args.scanned.at(b, (start + i) % args.length);
      y[i] = args.y.at(b, (start + i) % args.length);
      z[i] = args.z.at(b, (start + i) % args.length);
      for (int64_t c = 0; c < whole; c += W) sums[i] += load(x[i] + c);
      if (whole < D) sums[i] += load(x[i] + D - W) * last;
    }
    const FloatVec mean = totals(sums) / static_cast<float>(D);
    for (int64_t i = 0; i < W; ++i) sums[i] = FloatVec{};
    for (int64_t i = 0; i < count; ++i) {
      const auto squares = [&](int64_t c) MMMAMBA_INLINE {
        const FloatVec centred = load(x[i] + c) - mean[i];
        return centred * centred;
      };
      for (int64_t c = 0; c < whole; c += W) sums[i] += squares(c);
      if (whole < D) sums[i] += squares(D - W) * last;
    }
    const FloatVec variance = totals(sums) / static_cast<float>(D) + args.eps;
    for (int64_t i = 0; i < count; ++i) {
      const float scale = 1 / std::sqrt(variance[i]), shift = mean[i];
      const auto finish = [&](FloatVec v, int64_t c) MMMAMBA_INLINE {
        v = (v - shift) * scale * load(args.norm_weight + c) +
            load(args.norm_bias + c);
        store_float(y[i] + c, v * silu(load_float(z[i] + c)));
      };
      const FloatVec tail = load(x[i] + D - W);
      for (int64_t c = 0; c < whole; c += W) finish(load(x[i] + c), c);
      if (whole < D) finish(tail, D - W);
    }
  }
}

template <typename T>
Kernels<T> kernels() {
  return {kLanes<float>, scan<T>, gate<T>};
}

template Kernels<float> kernels<float>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace mmmamba::MMMAMBA_ISA::scan_gate
