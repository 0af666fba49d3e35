// Kernels of the selective scan and of the bidirectional scan, how they are
// launched, and the workspace they need. Free of torch.
//
// One team of threads (team_scan.cuh) works on a chunk of the sequences of
// one batch item, a few channels at a time: it keeps their positions in
// registers, composes the steps of each thread, scans these over the team
// and walks through its own positions from the state that results.
// A sequence that is longer than a team can hold is cut into chunks. A first
// kernel then reduces every chunk to one composed step, and the main kernel
// starts each chunk from the composition of those before it.
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

#include <limits>

#include "team_scan.cuh"

namespace mmmamba::cuda {

// Rows (batch, direction, row, length) of contiguous positions: B, C, dt.
template <typename T>
struct Rows {
  T* data;
  int64_t batch_stride;
  int64_t direction_stride;
  bool aligned;

  __device__ T* at(int batch, int direction, int64_t offset) const {
    return data + batch * batch_stride + direction * direction_stride + offset;
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

// Sizes and inputs of either operator. Absent inputs are null.
template <typename T>
struct Scan {
  using F = compute_t<T>;

  int batch;
  int directions;  // K
  int channels;    // D, of one direction
  int states;      // N
  int length;      // L

  Sequences<const T> x;  // (batch, K*D, L); bidirectional: (batch, D, L)
  Rows<const T> B;       // (batch, K, N, L)
  Rows<const T> C;       // (batch, K, N, L)
  const F* A;            // (K*D, N)
  const F* D;            // (K*D)
  const F* bias;         // (K*D)

  bool softplus;             // always, if bidirectional
  Sequences<const T> delta;  // selective: (batch, K*D, L)
  int rank;                  // bidirectional: R
  Rows<const T> dt;          // bidirectional: (batch, K, R, L)
  const F* weight;           // bidirectional: (K*D, R)

  Summary<F> summary;  // of more than one chunk; set by run_*()

  // A state of a channel, counted over all directions.
  __host__ __device__ int64_t series(int item, int channel, int state) const {
    return (int64_t(item) * directions * channels + channel) * states + state;
  }
};

// Where the gradients go. Sums over channels or positions are left for the
// caller to finish: they are over the first axis of what has a `parts` axis.
template <typename T>
struct Gradients {
  using F = compute_t<T>;

  Sequences<const T> y;  // the gradient that comes in
  Sequences<T> x;
  Sequences<T> delta;  // (batch, K*D, L), before bias and softplus
  F* rows;             // (row_parts, batch, K, 2N, L): of B, then of C
  F* parameters;       // (parameter_parts, K*D, N + 2): of A, D, bias
};

// How the work is cut.
struct Plan {
  int chunks;  // of a sequence
  int chunk_length;
  int team;    // threads of a team
  int teams;   // of a block
  int rounds;  // of a team, which does kChannels channels in each
  int tiles;   // teams that share the channels of a direction
  int64_t blocks;

  bool fits() const {  // the kernels count teams in 32 bits
    return blocks * teams <= std::numeric_limits<int>::max();
  }

  int64_t row_parts() const { return tiles; }
  int64_t parameter_parts(int batch) const {
    return int64_t(batch) * chunks * ((team + kWarp - 1) / kWarp);
  }
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Directions that are scanned by separate teams.
template <bool kBidirectional, typename T>
__host__ __device__ int groups(const Scan<T>& scan) {
  return kBidirectional ? 1 : scan.directions;
}

template <bool kBidirectional, typename T>
Plan make_plan(const Scan<T>& scan, bool backward, int processors) {
  Plan plan;
  plan.chunks = divide_up(scan.length, kMaxThreads * kItems);
  const int threads = divide_up(scan.length, int64_t(plan.chunks) * kItems);
  plan.team = 1;
  while (plan.team < threads && plan.team < kWarp) plan.team *= 2;
  if (threads > kWarp) plan.team = divide_up(threads, kWarp) * kWarp;
  plan.chunk_length = threads * kItems;
  plan.chunks = divide_up(scan.length, plan.chunk_length);

  constexpr int kSmallBlock = 128;
  plan.teams = plan.team < kSmallBlock ? kSmallBlock / plan.team : 1;

  // More rounds reuse the rows of B, C and dt from the cache, fewer fill the
  // device. The workspace of a backward pass, 2N rows for each team, is at
  // most two rows for a channel.
  const int64_t all_rounds = divide_up(scan.channels, kChannels);
  const int64_t sequences =
      int64_t(scan.batch) * groups<kBidirectional>(scan) * plan.chunks;
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

  template <typename T>
  __device__ Task(const Scan<T>& scan, const Plan& plan, int groups) {
    unsigned team = blockIdx.x * blockDim.y + threadIdx.y;
    tile = team % plan.tiles;
    team /= plan.tiles;
    direction = team % groups;
    team /= groups;
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

// A number of each of this thread's positions in a few channels.
template <typename F>
using Tile = F[kChannels][kItems];
template <typename F>
using Decays = Decay<F>[kChannels][kItems];

template <typename T, typename F>
__device__ inline void load_tile(const Sequences<const T>& from,
                                 const Task& task, int first, int end,
                                 Tile<F>& to) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    load(from.at(task.batch, first + c, task.position), from.position_stride,
         from.aligned, first + c < end ? task.count : 0, to[c]);
}

template <typename T, typename F>
__device__ inline void store_tile(const Tile<F>& from, const Task& task,
                                  int first, int end, const Sequences<T>& to) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    store(from[c], to.at(task.batch, first + c, task.position),
          to.position_stride, to.aligned, first + c < end ? task.count : 0);
}

template <typename T, typename F>
__device__ inline void load_row(const Rows<const T>& rows, int row,
                                const Scan<T>& scan, const Task& task,
                                int direction, F (&to)[kItems]) {
  const int64_t offset = int64_t(row) * scan.length + task.position;
  load(rows.at(task.batch, direction, offset), 1, rows.aligned, task.count, to);
}

// The channels of one direction that a team works on in one round.
struct Round {
  int direction;
  int first;     // channel, counted over all directions as A, D and bias
  int end;       // of the direction's channels, counted likewise
  int sequence;  // of x, that of the first channel
  int sequence_end;

  template <typename T>
  __device__ Round(const Scan<T>& scan, const Task& task, int direction,
                   int first_channel)
      : direction(direction),
        first(direction * scan.channels + first_channel),
        end((direction + 1) * scan.channels),
        sequence(task.direction * scan.channels + first_channel),
        sequence_end((task.direction + 1) * scan.channels) {}

  __device__ bool has(int c) const { return first + c < end; }
};

// delta = weight @ dt, the step sizes before bias and softplus.
template <typename T, typename F>
__device__ inline void project(const Scan<T>& scan, const Task& task,
                               const Round& round, Tile<F>& delta) {
  const F* weights[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int channel = round.has(c) ? round.first + c : round.end - 1;
    weights[c] = scan.weight + int64_t(channel) * scan.rank;
#pragma unroll
    for (int i = 0; i < kItems; ++i) delta[c][i] = 0;
  }
#pragma unroll 2
  for (int r = 0; r < scan.rank; ++r) {
    F dt[kItems];
    load_row(scan.dt, r, scan, task, round.direction, dt);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const F weight = weights[c][r];
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        delta[c][i] = fma(weight, dt[i], delta[c][i]);
    }
  }
}

// Step sizes; 0 past the end, so that nothing happens there.
template <bool kBidirectional, typename T, typename F>
__device__ inline void step_sizes(const Scan<T>& scan, const Task& task,
                                  const Round& round, Tile<F>& delta) {
  if (kBidirectional)
    project(scan, task, round, delta);
  else
    load_tile(scan.delta, task, round.first, round.end, delta);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const F bias =
        scan.bias && round.has(c) ? scan.bias[round.first + c] : F(0);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      F z = delta[c][i] + bias;
      if (kBidirectional || scan.softplus) z = softplus(z);
      delta[c][i] = round.has(c) && i < task.count ? z : F(0);
    }
  }
}

// A parameter of each channel, 0 past the last one.
template <typename F>
__device__ inline void load_parameter(const F* from, int stride,
                                      const Round& round, F (&to)[kChannels]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    to[c] =
        from && round.has(c) ? from[int64_t(round.first + c) * stride] : F(0);
}

template <typename F>
__device__ inline void compute_decays(const Tile<F>& delta,
                                      const F (&A)[kChannels],
                                      Decays<F>& decays) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
#pragma unroll
    for (int i = 0; i < kItems; ++i) decays[c][i] = decay(delta[c][i] * A[c]);
}

// The steps of a state, composed over this thread's positions.
template <bool kReverse, typename F>
__device__ inline void compose_state(const Decays<F>& decays,
                                     const Tile<F>& delta, const Tile<F>& x,
                                     const F (&B)[kItems],
                                     Step<F> (&steps)[kChannels]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int i = item<kReverse>(j);
      const Step<F> step = {decays[c][i], delta[c][i] * x[c][i] * B[i]};
      steps[c] = j == 0 ? step : compose(steps[c], step);
    }
}

// The same of a state's gradient, which runs against the scan.
template <bool kReverse, typename F>
__device__ inline void compose_gradient(const Decays<F>& decays,
                                        const Tile<F>& dy, const F (&C)[kItems],
                                        Step<F> (&steps)[kChannels]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int i = item<!kReverse>(j);
      const F g = C[i] * dy[c][i];
      const Step<F> step = {decays[c][i], advance(decays[c][i], g, F(0))};
      steps[c] = j == 0 ? step : compose(steps[c], step);
    }
}

// The value that this thread's first position starts from: what the chunks
// before, then the threads before make of 0.
template <bool kReverse, typename T, typename F>
__device__ inline void start_values(const Scan<T>& scan, const Task& task,
                                    const Round& round, int state,
                                    Quantity quantity,
                                    const Step<F> (&before)[kChannels],
                                    F (&start)[kChannels]) {
  const auto& summary = scan.summary;
  const int first = kReverse ? summary.chunks - 1 : 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int64_t which = scan.series(task.batch, round.first + c, state);
    F h = 0;
#pragma unroll 1
    for (int k = first; k != task.chunk && round.has(c); k += kReverse ? -1 : 1)
      h = advance(
          {summary.at(kDecayHigh, k, which), summary.at(kDecayLow, k, which)},
          h, summary.at(quantity, k, which));
    start[c] = apply(before[c], h);
  }
}

// Store the steps of the whole chunk, known to the last thread in the order:
// `before` are the earlier threads' steps, `own` this thread's.
template <bool kReverse, typename T, typename F>
__device__ inline void store_summary(const Scan<T>& scan, const Task& task,
                                     const Round& round, int state,
                                     Quantity quantity,
                                     const Step<F> (&before)[kChannels],
                                     const Step<F> (&own)[kChannels]) {
  if (threadIdx.x != (kReverse ? 0 : blockDim.x - 1)) return;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (!round.has(c)) continue;
    const Step<F> chunk = compose(before[c], own[c]);
    const int64_t which = scan.series(task.batch, round.first + c, state);
    scan.summary.at(kDecayHigh, task.chunk, which) = chunk.decay.high;
    scan.summary.at(kDecayLow, task.chunk, which) = chunk.decay.low;
    scan.summary.at(quantity, task.chunk, which) = chunk.b;
  }
}

template <bool kReverse, bool kBidirectional, bool kGradient, typename T,
          typename F>
__device__ inline void summarize_direction(const Scan<T>& scan,
                                           const Task& task, const Round& round,
                                           const Tile<F>& x, const Tile<F>& dy,
                                           int& phase) {
  Tile<F> delta;
  Decays<F> decays;
  step_sizes<kBidirectional>(scan, task, round, delta);
#pragma unroll 1
  for (int n = 0; n < scan.states; ++n) {
    F A[kChannels], row[kItems];
    load_parameter(scan.A + n, scan.states, round, A);
    compute_decays(delta, A, decays);

    Step<F> own[kChannels], before[kChannels];
    load_row(scan.B, n, scan, task, round.direction, row);
    compose_state<kReverse>(decays, delta, x, row, own);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) before[c] = own[c];
    exclusive_scan<kReverse>(before, phase);
    store_summary<kReverse>(scan, task, round, n, kState, before, own);

    if (!kGradient) continue;
    load_row(scan.C, n, scan, task, round.direction, row);
    compose_gradient<kReverse>(decays, dy, row, own);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) before[c] = own[c];
    exclusive_scan<!kReverse>(before, phase);
    store_summary<!kReverse>(scan, task, round, n, kStateGradient, before, own);
  }
}

// Reduce each chunk to one step: of the states and, with kGradient, of their
// gradients.
template <bool kBidirectional, bool kGradient, typename T>
__global__ void __launch_bounds__(kMaxThreads)
    summary_kernel(const Scan<T> scan, const Plan plan,
                   const Sequences<const T> dy_in) {
  using F = compute_t<T>;
  const Task task(scan, plan, groups<kBidirectional>(scan));
  int phase = 0;
#pragma unroll 1
  for (int k = 0; k < plan.rounds; ++k) {
    const int channel = task.first_channel + k * kChannels;
    const Round round(scan, task, task.direction, channel);
    Tile<F> x, dy = {};
    load_tile(scan.x, task, round.sequence, round.sequence_end, x);
    if (kGradient)
      load_tile(dy_in, task, round.sequence, round.sequence_end, dy);
    summarize_direction<false, kBidirectional, kGradient>(scan, task, round, x,
                                                          dy, phase);
    if (kBidirectional) {
      const Round back(scan, task, 1, channel);
      summarize_direction<true, kBidirectional, kGradient>(scan, task, back, x,
                                                           dy, phase);
    }
  }
}

template <bool kReverse, bool kBidirectional, typename T, typename F>
__device__ inline void scan_direction(const Scan<T>& scan, const Task& task,
                                      const Round& round, const Tile<F>& x,
                                      Tile<F>& y, int& phase) {
  Tile<F> delta;
  Decays<F> decays;
  step_sizes<kBidirectional>(scan, task, round, delta);

  if (scan.D) {
    F D[kChannels];
    load_parameter(scan.D, 1, round, D);
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i) y[c][i] = fma(D[c], x[c][i], y[c][i]);
  }

#pragma unroll 1
  for (int n = 0; n < scan.states; ++n) {
    F A[kChannels], B[kItems], C[kItems], h[kChannels];
    load_parameter(scan.A + n, scan.states, round, A);
    compute_decays(delta, A, decays);

    Step<F> steps[kChannels];
    load_row(scan.B, n, scan, task, round.direction, B);
    compose_state<kReverse>(decays, delta, x, B, steps);
    exclusive_scan<kReverse>(steps, phase);
    start_values<kReverse>(scan, task, round, n, kState, steps, h);
    // B again: otherwise the compiler keeps all of delta * x * B from above,
    // for which there are not enough registers.
    load_row(scan.B, n, scan, task, round.direction, B);
    load_row(scan.C, n, scan, task, round.direction, C);
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int i = item<kReverse>(j);
        h[c] = advance(decays[c][i], h[c], delta[c][i] * x[c][i] * B[i]);
        y[c][i] = fma(C[i], h[c], y[c][i]);
      }
  }
}

template <bool kBidirectional, typename T>
__global__ void __launch_bounds__(kMaxThreads)
    forward_kernel(const Scan<T> scan, const Plan plan,
                   const Sequences<T> out) {
  using F = compute_t<T>;
  const Task task(scan, plan, groups<kBidirectional>(scan));
  int phase = 0;
#pragma unroll 1
  for (int k = 0; k < plan.rounds; ++k) {
    const int channel = task.first_channel + k * kChannels;
    const Round round(scan, task, task.direction, channel);
    Tile<F> x, y = {};
    load_tile(scan.x, task, round.sequence, round.sequence_end, x);
    scan_direction<false, kBidirectional>(scan, task, round, x, y, phase);
    if (kBidirectional) {
      const Round back(scan, task, 1, channel);
      scan_direction<true, kBidirectional>(scan, task, back, x, y, phase);
    }
    store_tile(y, task, round.sequence, round.sequence_end, out);
  }
}

// Add this thread's share of a gradient that is summed over channels.
template <typename T, typename F>
__device__ inline void add_to_row(const F (&grad)[kItems], F* rows, int row,
                                  const Scan<T>& scan, const Task& task,
                                  int direction, bool first_time) {
  const int64_t part =
      (int64_t(task.tile) * scan.batch + task.batch) * scan.directions +
      direction;
  F* to = rows + (part * 2 * scan.states + row) * scan.length + task.position;
  const bool aligned = scan.length % kItems == 0;
  F sum[kItems];
  load(to, 1, aligned, first_time ? 0 : task.count, sum);
#pragma unroll
  for (int i = 0; i < kItems; ++i) sum[i] += grad[i];
  store(sum, to, 1, aligned, task.count);
}

// Store the gradients of the `index`-th parameter of each channel, summed
// over the positions of a warp.
template <typename T, typename F>
__device__ inline void store_parameter(const F (&grad)[kChannels],
                                       F* parameters, int index,
                                       const Scan<T>& scan, const Plan& plan,
                                       const Task& task, const Round& round) {
  const int warps = (blockDim.x + kWarp - 1) / kWarp;
  const int64_t part =
      (int64_t(task.batch) * plan.chunks + task.chunk) * warps +
      threadIdx.x / kWarp;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const F sum = warp_sum(grad[c]);
    if (threadIdx.x % kWarp != 0 || !round.has(c)) continue;
    const int64_t row =
        part * scan.directions * scan.channels + round.first + c;
    parameters[row * (scan.states + 2) + index] = sum;
  }
}

template <bool kReverse, bool kBidirectional, typename T, typename F>
__device__ inline void differentiate_direction(
    const Scan<T>& scan, const Plan& plan, const Task& task, const Round& round,
    const Gradients<T>& grads, const Tile<F>& x, const Tile<F>& dy, Tile<F>& dx,
    bool first_time, int& phase) {
  Tile<F> delta, d_delta = {};
  Decays<F> decays;
  step_sizes<kBidirectional>(scan, task, round, delta);

  if (scan.D) {
    F D[kChannels], dD[kChannels] = {};
    load_parameter(scan.D, 1, round, D);
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        dx[c][i] = fma(D[c], dy[c][i], dx[c][i]);
        dD[c] = fma(dy[c][i], x[c][i], dD[c]);
      }
    store_parameter(dD, grads.parameters, scan.states, scan, plan, task, round);
  }

#pragma unroll 1
  for (int n = 0; n < scan.states; ++n) {
    F A[kChannels], B[kItems], C[kItems];
    load_parameter(scan.A + n, scan.states, round, A);
    compute_decays(delta, A, decays);

    Step<F> steps[kChannels];
    F start[kChannels], end[kChannels];
    load_row(scan.B, n, scan, task, round.direction, B);
    compose_state<kReverse>(decays, delta, x, B, steps);
    exclusive_scan<kReverse>(steps, phase);
    start_values<kReverse>(scan, task, round, n, kState, steps, start);
    load_row(scan.C, n, scan, task, round.direction, C);
    compose_gradient<kReverse>(decays, dy, C, steps);
    exclusive_scan<!kReverse>(steps, phase);
    start_values<!kReverse>(scan, task, round, n, kStateGradient, steps, end);
    // Again, as in scan_direction().
    load_row(scan.B, n, scan, task, round.direction, B);
    load_row(scan.C, n, scan, task, round.direction, C);

    F dA[kChannels] = {}, dB[kItems] = {}, dC[kItems] = {};
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      F decayed[kItems];  // the previous state after the decay
      F h = start[c];
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int i = item<kReverse>(j);
        decayed[i] = advance(decays[c][i], h, F(0));
        h = advance(decays[c][i], h, delta[c][i] * x[c][i] * B[i]);
        dC[i] = fma(dy[c][i], h, dC[i]);
      }
      F p = end[c];
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int i = item<!kReverse>(j);
        const F g = fma(C[i], dy[c][i], p);
        const F g_delta = g * delta[c][i];
        dA[c] = fma(g_delta, decayed[i], dA[c]);
        dB[i] = fma(g_delta, x[c][i], dB[i]);
        dx[c][i] = fma(g_delta, B[i], dx[c][i]);
        d_delta[c][i] =
            fma(g, fma(A[c], decayed[i], B[i] * x[c][i]), d_delta[c][i]);
        p = advance(decays[c][i], g, F(0));
      }
    }
    store_parameter(dA, grads.parameters, n, scan, plan, task, round);
    add_to_row(dB, grads.rows, n, scan, task, round.direction, first_time);
    add_to_row(dC, grads.rows, scan.states + n, scan, task, round.direction,
               first_time);
  }

  F d_bias[kChannels] = {};
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (kBidirectional || scan.softplus)
        d_delta[c][i] *= softplus_slope(delta[c][i]);
      if (i < task.count) d_bias[c] += d_delta[c][i];
    }
  store_parameter(d_bias, grads.parameters, scan.states + 1, scan, plan, task,
                  round);
  store_tile(d_delta, task, round.first, round.end, grads.delta);
}

template <bool kBidirectional, typename T>
__global__ void __launch_bounds__(kMaxThreads)
    backward_kernel(const Scan<T> scan, const Plan plan,
                    const Gradients<T> grads) {
  using F = compute_t<T>;
  const Task task(scan, plan, groups<kBidirectional>(scan));
  int phase = 0;
#pragma unroll 1
  for (int k = 0; k < plan.rounds; ++k) {
    const int channel = task.first_channel + k * kChannels;
    const Round round(scan, task, task.direction, channel);
    Tile<F> x, dy, dx = {};
    load_tile(scan.x, task, round.sequence, round.sequence_end, x);
    load_tile(grads.y, task, round.sequence, round.sequence_end, dy);
    differentiate_direction<false, kBidirectional>(
        scan, plan, task, round, grads, x, dy, dx, k == 0, phase);
    if (kBidirectional) {
      const Round back(scan, task, 1, channel);
      differentiate_direction<true, kBidirectional>(
          scan, plan, task, back, grads, x, dy, dx, k == 0, phase);
    }
    store_tile(dx, task, round.sequence, round.sequence_end, grads.x);
  }
}

// Numbers of the workspace `summary` that run_*() need.
template <typename T>
int64_t summary_size(const Scan<T>& scan, const Plan& plan) {
  const int64_t all_series = scan.series(scan.batch, 0, 0);
  return plan.chunks > 1 ? all_series * plan.chunks * kQuantities : 0;
}

// Below, `launch(kernel, plan, arguments...)` starts a kernel of plan.blocks
// blocks of (plan.team, plan.teams) threads.
template <bool kBidirectional, typename T, typename Launch>
void run_forward(Scan<T> scan, const Plan& plan, compute_t<T>* summary,
                 const Sequences<T>& y, Launch launch) {
  scan.summary = {summary, scan.series(scan.batch, 0, 0), plan.chunks};
  if (plan.chunks > 1)
    launch(summary_kernel<kBidirectional, false, T>, plan, scan, plan,
           Sequences<const T>{});
  launch(forward_kernel<kBidirectional, T>, plan, scan, plan, y);
}

template <bool kBidirectional, typename T, typename Launch>
void run_backward(Scan<T> scan, const Plan& plan, compute_t<T>* summary,
                  const Gradients<T>& grads, Launch launch) {
  scan.summary = {summary, scan.series(scan.batch, 0, 0), plan.chunks};
  if (plan.chunks > 1)
    launch(summary_kernel<kBidirectional, true, T>, plan, scan, plan, grads.y);
  launch(backward_kernel<kBidirectional, T>, plan, scan, plan, grads);
}

}  // namespace mmmamba::cuda
