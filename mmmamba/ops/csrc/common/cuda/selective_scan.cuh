// Kernels of the selective scan and of the bidirectional scan, how they are
// launched, and the workspace they need. Free of torch.
//
// One team of threads (team_scan.cuh) works on a chunk of the sequences of
// one batch item, a few channels at a time: it keeps their positions in
// registers, composes the steps of each thread, scans these over the team
// and walks through its own positions from the state that results.
// A sequence that is longer than a team can hold is cut into chunks. A first
// pass, with kSummarize, then reduces every chunk to one composed step, and the
// main pass starts each chunk from the composition of those before it.
//
// Both operators share all of this. They differ in where step sizes come from
// and in the directions that a team scans:
//   selective:      step sizes are an input; one direction, left to right
//   bidirectional:  step sizes are projected on the fly; the same x is
//                   scanned left to right (direction 0) and right to left (1)
//
// The gradient of a state, g, obeys the same recurrence backwards. With p the
// gradient that arrives from the later steps,
//   g_t = C_t dy_t + p_t,   p_{t-1} = exp(delta_t A) g_t
// and in the second one p decays as the state does.
//
// Nothing is accumulated by atomics: every sum has its fixed order.
#pragma once

#include "team_scan.cuh"

namespace mmmamba::cuda {

// Sequences along the last axis of a (batch, rows, length) tensor. Rows are
// counted over all directions.
template <typename T>
struct Sequences {
  T* data;
  int64_t batch_stride;
  int64_t row_stride;
  int64_t position_stride;
  bool aligned;  // kItems consecutive positions are one aligned vector

  __device__ T* at(int batch, int row, int position) const {
    return data + batch * batch_stride + row * row_stride +
           position * position_stride;
  }
};

// The composed steps of all chunks, in the order of the scan and, from the
// gradient, against it: (quantity, chunk, batch, K*D, N). Both have the same
// decays.
enum Quantity { kDecayHigh, kDecayLow, kState, kStateGradient, kQuantities };

template <typename F>
struct Summary {
  F* data;
  int64_t series;  // batch * K*D * N
  int chunks;

  // `which` of the series.
  __device__ F& at(Quantity quantity, int chunk, int64_t which) const {
    return data[(int64_t(quantity) * chunks + chunk) * series + which];
  }
};

// Sizes, inputs and outputs of either operator. Absent inputs are null.
template <typename Type, bool kBoth>
struct Scan {
  using T = Type;
  using F = compute_t<T>;
  static constexpr bool kBidirectional = kBoth;

  int batch;
  int directions;  // K
  int channels;    // D, of one direction
  int states;      // N
  int rank;        // R, if bidirectional
  int64_t length;  // L
  int height;      // of B, C and dt, from one direction to the next
  bool softplus;   // always, if bidirectional

  Sequences<const T> x;      // (batch, K*D, L); bidirectional: (batch, D, L)
  Sequences<const T> delta;  // selective: (batch, K*D, L)
  const F* weight;           // bidirectional: (K*D, R)
  const F* A;                // (K*D, N)
  const F* D;                // (K*D)
  const F* bias;             // (K*D)

  // Of contiguous positions: the first of `height` rows for each direction.
  Sequences<const T> B;   // of N
  Sequences<const T> C;   // of N
  Sequences<const T> dt;  // bidirectional: of R

  Summary<F> summary;  // of more than one chunk; set by run()
  Sequences<T> y;      // of the forward pass, as x

  // Of the backward pass. Sums over channels or positions are left for the
  // caller to finish: they are over the first axis of the last two.
  Sequences<const T> dy;  // as x
  Sequences<T> dx;        // as x
  Sequences<T> d_delta;   // (batch, K*D, L), before bias and softplus
  F* d_rows;              // (tiles, batch, K, 2N, L): of B, then of C
  F* d_parameters;        // (parameter_parts, K*D, N + 2): of A, D, bias

  // A state of a channel, counted over all directions.
  __host__ __device__ int64_t series(int item, int channel, int state) const {
    return (int64_t(item) * directions * channels + channel) * states + state;
  }

  // Directions that are scanned by separate teams.
  __host__ __device__ int groups() const {
    return kBidirectional ? 1 : directions;
  }
};

// How the work is cut.
struct Plan {
  int chunks;  // of a sequence
  int chunk_length;
  int team;    // threads of a team
  int teams;   // of a block
  int rounds;  // of a team, which does kChannels channels in each
  int tiles;   // teams that share the channels of a direction
  int warps;   // of a team
  int64_t blocks;

  int64_t parameter_parts(int batch) const {
    return int64_t(batch) * chunks * warps;
  }
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename Scan>
Plan make_plan(const Scan& scan, bool backward, int processors) {
  Plan plan;
  plan.chunks = divide_up(scan.length, kMaxThreads * kItems);
  const int threads = divide_up(scan.length, int64_t(plan.chunks) * kItems);
  plan.team = 1;
  while (plan.team < threads && plan.team < kWarp) plan.team *= 2;
  if (threads > kWarp) plan.team = divide_up(threads, kWarp) * kWarp;
  plan.warps = divide_up(plan.team, kWarp);
  plan.chunk_length = threads * kItems;
  plan.chunks = divide_up(scan.length, plan.chunk_length);

  constexpr int kSmallBlock = 128;
  plan.teams = plan.team < kSmallBlock ? kSmallBlock / plan.team : 1;

  // More rounds reuse the rows of B, C and dt from the cache, fewer fill the
  // device. The workspace of a backward pass, 2N rows for each team, is at
  // most two rows for a channel.
  const int64_t all_rounds = divide_up(scan.channels, kChannels);
  const int64_t sequences = int64_t(scan.batch) * scan.groups() * plan.chunks;
  const int64_t threads_wanted = int64_t(processors) * 2048;
  const int64_t enough = sequences * all_rounds * plan.team / threads_wanted;
  const int64_t frugal = backward ? divide_up(scan.states, kChannels) : 1;
  int64_t rounds = enough > frugal ? enough : frugal;
  rounds = rounds < 1 ? 1 : rounds < all_rounds ? rounds : all_rounds;
  plan.tiles = divide_up(all_rounds, rounds);
  plan.rounds = divide_up(all_rounds, plan.tiles);

  plan.blocks = divide_up(sequences * plan.tiles, plan.teams);
  return plan;
}

// What a team is to do.
struct Task {
  int batch;
  int direction;  // the only one, or the first of both
  int tile;
  int first_channel;  // of the direction; past the last one if nothing to do
  int chunk;
  int position;  // the thread's first one
  int count;     // the thread's positions, 0 to kItems

  template <typename Scan>
  __device__ Task(const Scan& scan, const Plan& plan) {
    unsigned team = blockIdx.x * blockDim.y + threadIdx.y;
    tile = team % plan.tiles;
    team /= plan.tiles;
    direction = team % scan.groups();
    team /= scan.groups();
    chunk = team % plan.chunks;
    team /= plan.chunks;
    const bool idle = team >= unsigned(scan.batch);
    batch = idle ? 0 : team;
    first_channel = idle ? scan.channels : tile * plan.rounds * kChannels;

    const int start = chunk * plan.chunk_length;
    position = start + threadIdx.x * kItems;
    const int end = plan.chunks == 1 ? scan.length : start + plan.chunk_length;
    const int left = (end < scan.length ? end : scan.length) - position;
    count = idle || left < 0 ? 0 : left < kItems ? left : kItems;
  }
};

// A few channels of one direction, which a team works on in one round.
template <typename Scan>
struct Round {
  using F = typename Scan::F;

  const Scan& scan;
  const Plan& plan;
  const Task& task;
  int& phase;  // of exclusive_scan()
  int direction;
  int index;  // of the round
  // Its channels, counted over all directions as A, D and bias are.
  int first =
      direction * scan.channels + task.first_channel + index * kChannels;
  int end = (direction + 1) * scan.channels;

  __device__ bool has(int c) const { return first + c < end; }

  // The positions of this thread; 0 past the last channel.
  template <typename T>
  __device__ Tile<F> load_tile(const Sequences<T>& from) const {
    Tile<F> to;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      to[c] = load(from.at(task.batch, first + c, task.position),
                   from.position_stride, from.aligned, has(c) ? task.count : 0);
    return to;
  }

  template <typename T>
  __device__ void store_tile(const Tile<F>& from,
                             const Sequences<T>& to) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      store(from[c], to.at(task.batch, first + c, task.position),
            to.position_stride, to.aligned, has(c) ? task.count : 0);
  }

  // Of B, C or dt.
  template <typename T>
  __device__ Items<F> load_row(const Sequences<T>& rows, int row) const {
    return load(
        rows.at(task.batch, direction * scan.height + row, task.position), 1,
        rows.aligned, task.count);
  }

  // One number of each channel; 0 past the last one.
  __device__ Channels<F> parameter(const F* from, int stride = 1) const {
    Channels<F> to;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      to[c] = has(c) ? from[int64_t(first + c) * stride] : F(0);
    return to;
  }
};

// Step sizes; 0 past the end, so that nothing happens there.
template <typename Scan, typename F = typename Scan::F>
__device__ inline Tile<F> step_sizes(const Round<Scan>& round) {
  const Scan& scan = round.scan;
  Tile<F> delta = {};
  if constexpr (Scan::kBidirectional) {
#pragma unroll 2
    for (int r = 0; r < scan.rank; ++r) {
      const auto dt = round.load_row(scan.dt, r);
      const auto weight = round.parameter(scan.weight + r, scan.rank);
      for_tile([&](int c, int i) {
        delta[c][i] = fma(weight[c], dt[i], delta[c][i]);
      });
    }
  } else {
    delta = round.load_tile(scan.delta);
  }
  const auto bias = scan.bias ? round.parameter(scan.bias) : Channels<F>{};
  for_tile([&](int c, int i) {
    F z = delta[c][i] + bias[c];
    if (Scan::kBidirectional || scan.softplus) z = softplus(z);
    delta[c][i] = round.has(c) && i < round.task.count ? z : F(0);
  });
  return delta;
}

// The steps h -> decay * h + b(c, i), composed over this thread's positions.
template <bool kReverse, typename F, typename B>
__device__ inline Channels<Step<F>> compose_items(const Tile<Decay<F>>& decays,
                                                  B b) {
  Channels<Step<F>> steps;
  const int first = kReverse ? kItems - 1 : 0;
  for_tile<kReverse>([&](int c, int i) {
    const Step<F> step = {decays[c][i], b(c, i)};
    steps[c] = i == first ? step : compose(steps[c], step);
  });
  return steps;
}

// The value that this thread's first position starts from: what the chunks
// before, then the threads before make of 0.
template <bool kReverse, typename Scan, typename F>
__device__ inline Channels<F> start_values(const Round<Scan>& round,
                                           Quantity quantity, int state,
                                           const Channels<Step<F>>& before) {
  const auto& summary = round.scan.summary;
  const int first = kReverse ? summary.chunks - 1 : 0;
  Channels<F> start;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int64_t which =
        round.scan.series(round.task.batch, round.first + c, state);
    F h = 0;
#pragma unroll 1
    for (int k = first; k != round.task.chunk && round.has(c);
         k += kReverse ? -1 : 1)
      h = advance(
          {summary.at(kDecayHigh, k, which), summary.at(kDecayLow, k, which)},
          h, summary.at(quantity, k, which));
    start[c] = apply(before[c], h);
  }
  return start;
}

// Store the steps of the whole chunk, known to the last thread in the order:
// `before` are the earlier threads' steps, `own` this thread's.
template <bool kReverse, typename Scan, typename F>
__device__ inline void store_summary(const Round<Scan>& round,
                                     Quantity quantity, int state,
                                     const Channels<Step<F>>& before,
                                     const Channels<Step<F>>& own) {
  if (threadIdx.x != (kReverse ? 0 : blockDim.x - 1)) return;
  const auto& summary = round.scan.summary;
  const int k = round.task.chunk;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (!round.has(c)) continue;
    const auto chunk = compose(before[c], own[c]);
    const int64_t which =
        round.scan.series(round.task.batch, round.first + c, state);
    summary.at(kDecayHigh, k, which) = chunk.decay.high;
    summary.at(kDecayLow, k, which) = chunk.decay.low;
    summary.at(quantity, k, which) = chunk.b;
  }
}

// Scan a chunk, given each thread's composed steps: to the summary or, when
// that is there, to the values that the threads start from.
template <bool kReverse, bool kSummarize, typename Scan, typename F>
__device__ inline Channels<F> scan_chunk(const Round<Scan>& round,
                                         Quantity quantity, int state,
                                         const Channels<Step<F>>& own) {
  const auto before = exclusive_scan<kReverse>(own, round.phase);
  if constexpr (kSummarize) {
    store_summary<kReverse>(round, quantity, state, before, own);
    return {};
  } else {
    return start_values<kReverse>(round, quantity, state, before);
  }
}

// Add to y what one direction gives or, with kSummarize, only summarize it.
template <bool kReverse, bool kSummarize, typename Scan, typename F>
__device__ inline void scan_direction(const Round<Scan>& round,
                                      const Tile<F>& x, Tile<F>& y) {
  const Scan& scan = round.scan;
  const auto delta = step_sizes(round);

  if (!kSummarize && scan.D) {
    const auto D = round.parameter(scan.D);
    for_tile([&](int c, int i) { y[c][i] = fma(D[c], x[c][i], y[c][i]); });
  }

#pragma unroll 1
  for (int n = 0; n < scan.states; ++n) {
    const auto A = round.parameter(scan.A + n, scan.states);
    Tile<Decay<F>> decays;
    for_tile([&](int c, int i) { decays[c][i] = decay(delta[c][i] * A[c]); });
    auto B = round.load_row(scan.B, n);
    const auto input = [&](int c, int i) {
      return delta[c][i] * x[c][i] * B[i];
    };
    auto h = scan_chunk<kReverse, kSummarize>(
        round, kState, n, compose_items<kReverse>(decays, input));
    if (kSummarize) continue;

    // B again: otherwise the compiler keeps all of delta * x * B from above,
    // for which there are not enough registers.
    B = round.load_row(scan.B, n);
    const auto C = round.load_row(scan.C, n);
    for_tile<kReverse>([&](int c, int i) {
      h[c] = advance(decays[c][i], h[c], input(c, i));
      y[c][i] = fma(C[i], h[c], y[c][i]);
    });
  }
}

// Add this thread's share of a gradient that is summed over channels.
template <typename Scan, typename F>
__device__ inline void add_to_row(const Round<Scan>& round, int row,
                                  const Items<F>& grad) {
  const Scan& scan = round.scan;
  const Task& task = round.task;
  const int64_t item = int64_t(task.tile) * scan.batch + task.batch;
  const int64_t part = item * scan.directions + round.direction;
  F* to = scan.d_rows + (part * 2 * scan.states + row) * scan.length +
          task.position;
  const bool aligned = scan.length % kItems == 0;
  const bool first_time = round.index == 0;
  auto sum = load(to, 1, aligned, first_time ? 0 : task.count);
  for_items([&](int i) { sum[i] += grad[i]; });
  store(sum, to, 1, aligned, task.count);
}

// Store the gradients of the `index`-th parameter of each channel, summed
// over the positions of a warp.
template <typename Scan, typename F>
__device__ inline void store_parameter(const Round<Scan>& round, int index,
                                       const Channels<F>& grad) {
  const Scan& scan = round.scan;
  const int64_t chunk =
      int64_t(round.task.batch) * round.plan.chunks + round.task.chunk;
  const int64_t part = chunk * round.plan.warps + threadIdx.x / kWarp;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const F sum = warp_sum(grad[c]);
    if (threadIdx.x % kWarp != 0 || !round.has(c)) continue;
    const int64_t row =
        part * scan.directions * scan.channels + round.first + c;
    scan.d_parameters[row * (scan.states + 2) + index] = sum;
  }
}

// Add to dx what one direction gives and store the other gradients or, with
// kSummarize, only summarize it.
template <bool kReverse, bool kSummarize, typename Scan, typename F>
__device__ inline void differentiate_direction(const Round<Scan>& round,
                                               const Tile<F>& x,
                                               const Tile<F>& dy, Tile<F>& dx) {
  const Scan& scan = round.scan;
  const auto delta = step_sizes(round);
  Tile<F> d_delta = {};

  if (!kSummarize && scan.D) {
    const auto D = round.parameter(scan.D);
    Channels<F> dD = {};
    for_tile([&](int c, int i) {
      dx[c][i] = fma(D[c], dy[c][i], dx[c][i]);
      dD[c] = fma(dy[c][i], x[c][i], dD[c]);
    });
    store_parameter(round, scan.states, dD);
  }

#pragma unroll 1
  for (int n = 0; n < scan.states; ++n) {
    const auto A = round.parameter(scan.A + n, scan.states);
    Tile<Decay<F>> decays;
    for_tile([&](int c, int i) { decays[c][i] = decay(delta[c][i] * A[c]); });
    auto B = round.load_row(scan.B, n);
    const auto input = [&](int c, int i) {
      return delta[c][i] * x[c][i] * B[i];
    };
    const auto start = scan_chunk<kReverse, kSummarize>(
        round, kState, n, compose_items<kReverse>(decays, input));
    auto C = round.load_row(scan.C, n);
    const auto decayed_gradient = [&](int c, int i) {
      return advance(decays[c][i], C[i] * dy[c][i], F(0));
    };
    const auto end = scan_chunk<!kReverse, kSummarize>(
        round, kStateGradient, n,
        compose_items<!kReverse>(decays, decayed_gradient));
    if (kSummarize) continue;

    // Again, as in scan_direction().
    B = round.load_row(scan.B, n);
    C = round.load_row(scan.C, n);
    Channels<F> dA = {};
    Items<F> dB = {}, dC = {};
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      Items<F> decayed;  // the previous state after the decay
      F h = start[c];
      for_items<kReverse>([&](int i) {
        decayed[i] = advance(decays[c][i], h, F(0));
        h = advance(decays[c][i], h, input(c, i));
        dC[i] = fma(dy[c][i], h, dC[i]);
      });
      F p = end[c];
      for_items<!kReverse>([&](int i) {
        const F g = fma(C[i], dy[c][i], p);
        const F g_delta = g * delta[c][i];
        dA[c] = fma(g_delta, decayed[i], dA[c]);
        dB[i] = fma(g_delta, x[c][i], dB[i]);
        dx[c][i] = fma(g_delta, B[i], dx[c][i]);
        d_delta[c][i] =
            fma(g, fma(A[c], decayed[i], B[i] * x[c][i]), d_delta[c][i]);
        p = advance(decays[c][i], g, F(0));
      });
    }
    store_parameter(round, n, dA);
    add_to_row(round, n, dB);
    add_to_row(round, scan.states + n, dC);
  }
  if (kSummarize) return;

  Channels<F> d_bias = {};
  for_tile([&](int c, int i) {
    if (Scan::kBidirectional || scan.softplus)
      d_delta[c][i] *= softplus_slope(delta[c][i]);
    if (i < round.task.count) d_bias[c] += d_delta[c][i];
  });
  store_parameter(round, scan.states + 1, d_bias);
  round.store_tile(d_delta, scan.d_delta);
}

// With kSummarize, reduce each chunk to one step, of the states and, with
// kBackward, of their gradients; otherwise compute the results.
template <bool kBackward, bool kSummarize, typename Scan>
__global__ void __launch_bounds__(kMaxThreads)
    scan_kernel(const Scan scan, const Plan plan) {
  using F = typename Scan::F;
  const Task task(scan, plan);
  int phase = 0;
#pragma unroll 1
  for (int k = 0; k < plan.rounds; ++k) {
    const Round<Scan> round{scan, plan, task, phase, task.direction, k};
    const auto x = round.load_tile(scan.x);
    const auto dy = kBackward ? round.load_tile(scan.dy) : Tile<F>{};
    Tile<F> sum = {};  // dx or y
    const auto run_direction = [&](auto reverse, const Round<Scan>& round) {
      if constexpr (kBackward)
        differentiate_direction<reverse(), kSummarize>(round, x, dy, sum);
      else
        scan_direction<reverse(), kSummarize>(round, x, sum);
    };
    run_direction(std::false_type(), round);
    if constexpr (Scan::kBidirectional)
      run_direction(std::true_type(),
                    Round<Scan>{scan, plan, task, phase, 1, k});
    if (!kSummarize) round.store_tile(sum, kBackward ? scan.dx : scan.y);
  }
}

// Numbers of the workspace `summary` that run() needs.
template <typename Scan>
int64_t summary_size(const Scan& scan, const Plan& plan) {
  const int64_t all_series = scan.series(scan.batch, 0, 0);
  return plan.chunks > 1 ? all_series * plan.chunks * kQuantities : 0;
}

// `launch(kernel, scan, plan)` starts a kernel with these arguments in
// plan.blocks blocks of (plan.team, plan.teams) threads.
template <bool kBackward, typename Scan, typename Launch>
void run(Scan scan, const Plan& plan, typename Scan::F* summary,
         Launch launch) {
  scan.summary = {summary, scan.series(scan.batch, 0, 0), plan.chunks};
  if (plan.chunks > 1) launch(scan_kernel<kBackward, true, Scan>, scan, plan);
  launch(scan_kernel<kBackward, false, Scan>, scan, plan);
}

}  // namespace mmmamba::cuda
