// The bidirectional scan for inference with the layer norm and the gate after
// it, of channels-last sequences and one state a channel. Free of torch.
//
// A block has a sequence, a thread a channel of it. The threads walk through
// the positions kTile at a time, first from left to right, leaving what they
// compute in y, then from right to left, which completes it. What is projected
// is the same for all channels and goes through shared memory.
#pragma once

#include "channels.cuh"

namespace mmmamba::cuda {

constexpr int kTile = 8;              // positions between two barriers
constexpr int kMinScanThreads = 128;  // of a block: enough to fetch a tile
constexpr int kMaxScanThreads = 576;
constexpr int kMaxRank = 20;
constexpr int kMinSequences = 32;  // fewer blocks leave too much of a GPU idle

// The values of a parameter, which may be in float32 whatever T is.
template <typename T>
struct Parameter {
  const void* data;
  bool is_float;

  __device__ float operator[](int64_t i) const {
    return is_float ? static_cast<const float*>(data)[i]
                    : widen(static_cast<const T*>(data)[i]);
  }
};

// Sequences of contiguous channels.
template <typename T>
struct Series {
  T* data;
  int64_t batch_stride;
  int64_t position_stride;
};

template <typename T>
struct ScanGateArgs {
  int batch, length, channels;          // B, L, D
  int rank;                             // R
  Series<const T> x, z;                 // (B, L, D)
  Series<const T> projected;            // (B, L, 2 * (R + 2)): dt, B, C, twice
  Parameter<T> dt_weight;               // (2, R, D)
  Parameter<T> dt_bias;                 // (2, D)
  Parameter<T> A, skip;                 // (2 * D)
  Parameter<T> norm_weight, norm_bias;  // (D)
  float eps;
  Series<T> y;  // (B, L, D)
};

// What is projected of a position, for one direction: dt, then B and C.
template <int kRank>
struct alignas(16) Projected {
  float4 quads[kRank / 4 + 1];
};

// A channel of the block's sequence, in the order of the scan. Positions past
// the end are read as the last one; what becomes of them is not kept.
template <typename T>
struct Channel {
  T* first;
  int step;
  int last;

  template <bool kReverse>
  __device__ static Channel of(const Series<T>& series, int length,
                               int channel) {
    const int step = series.position_stride;
    return {series.data + blockIdx.x * series.batch_stride + channel +
                (kReverse ? int64_t(length - 1) * step : 0),
            kReverse ? -step : step, length - 1};
  }

  __device__ T& at(int i) const { return first[(i < last ? i : last) * step]; }

  // The kTile numbers from `begin` on.
  __device__ Floats<kTile> tile(int begin) const {
    Floats<kTile> to;
#pragma unroll
    for (int i = 0; i < kTile; ++i) to[i] = widen(at(begin + i));
    return to;
  }
};

// This thread's share of the way of `projected` into shared memory.
template <typename T, int kRank>
struct Fetcher {
  static constexpr int kNumbers =
      (kTile * (kRank + 2) + kMinScanThreads - 1) / kMinScanThreads;
  Channel<const T> channel[kNumbers];
  int position[kNumbers];  // of a tile
  int place[kNumbers];     // among the position's numbers; none: < 0
  float number[kNumbers];

  template <bool kReverse>
  __device__ static Fetcher of(const ScanGateArgs<T>& op) {
    Fetcher f;
    const int width = op.rank + 2;
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) {
      const int which = n * blockDim.x + threadIdx.x;
      const int c = which % width;
      f.channel[n] = Channel<const T>::template of<kReverse>(
          op.projected, op.length, kReverse * width + c);
      f.position[n] = which / width;
      // B and C have the same place for every rank.
      f.place[n] = which >= kTile * width ? -1
                   : c < op.rank          ? c
                                          : kRank + c - op.rank;
    }
    return f;
  }

  __device__ void fetch(int begin) {
#pragma unroll
    for (int n = 0; n < kNumbers; ++n)
      number[n] = widen(channel[n].at(begin + position[n]));
  }

  __device__ void store(Projected<kRank>* to) const {
#pragma unroll
    for (int n = 0; n < kNumbers; ++n)
      if (place[n] >= 0)
        reinterpret_cast<float*>(&to[position[n]])[place[n]] = number[n];
  }
};

// One step of the recurrence. A result of 16 bits does not need the decay and
// the step size to the last bit.
template <bool kExact>
__device__ inline float step_size(float v) {
  if constexpr (kExact) return softplus(v);
  return fmaxf(v, 0.0f) + log1p_of(__expf(-fabsf(v)));
}

template <bool kExact>
__device__ inline float next_state(float exponent, float h, float b) {
  if constexpr (kExact) return advance(decay(exponent), h, b);
  return fmaf(__expf(exponent), h, b);
}

// Sums of kTile numbers over the threads of a block. A caller alternates
// between two arrays `partial`: what one call leaves may still be read while
// the next one writes.
__device__ inline Floats<kTile> block_sums(Floats<kTile> v,
                                           float (*partial)[kTile]) {
  constexpr unsigned kAll = 0xffffffffu;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  // Halve the numbers and the lanes that share one, until lanes 4i to 4i + 3
  // have number i; then these.
#pragma unroll
  for (int half = kTile / 2, offset = 16; half >= 1; half /= 2, offset /= 2) {
    const bool upper = lane & offset;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float give = upper ? v[i] : v[i + half];
      const float keep = upper ? v[i + half] : v[i];
      v[i] = keep + __shfl_xor_sync(kAll, give, offset);
    }
  }
  float sum = v[0];
  sum += __shfl_xor_sync(kAll, sum, 2);
  sum += __shfl_xor_sync(kAll, sum, 1);
  if (lane % 4 == 0) partial[warp][lane / 4] = sum;
  __syncthreads();
  sum = 0;
  for (int w = lane % 4; w < warps; w += 4) sum += partial[w][lane / 4];
  sum += __shfl_xor_sync(kAll, sum, 2);
  sum += __shfl_xor_sync(kAll, sum, 1);
#pragma unroll
  for (int i = 0; i < kTile; ++i) v[i] = __shfl_sync(kAll, sum, 4 * i);
  return v;
}

// What the threads of a block share.
template <int kRank>
struct ScanGateShared {
  Projected<kRank> projected[2][kTile];
  float partial[2][kMaxScanThreads / 32][kTile];
};

// Normalize over the channels, that is, the threads that have one.
template <typename Shared>
__device__ inline Floats<kTile> normalize(Floats<kTile> y, bool has_channel,
                                          int channels, float eps,
                                          Shared& shared) {
  Floats<kTile> v;
#pragma unroll
  for (int i = 0; i < kTile; ++i) v[i] = has_channel ? y[i] : 0.0f;
  const auto sums = block_sums(v, shared.partial[0]);
  const float scale = 1.0f / channels;
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    y[i] -= sums[i] * scale;
    v[i] = has_channel ? y[i] * y[i] : 0.0f;
  }
  const auto squares = block_sums(v, shared.partial[1]);
#pragma unroll
  for (int i = 0; i < kTile; ++i)
    y[i] *= 1.0f / sqrtf(squares[i] * scale + eps);
  return y;
}

// Scan in one direction. The first one leaves its result in y; the second one
// adds it to its own, normalizes and gates.
template <bool kReverse, typename T, int kRank>
__device__ inline void scan_gate_direction(const ScanGateArgs<T>& op,
                                           ScanGateShared<kRank>& shared) {
  constexpr bool kExact = sizeof(T) > 2;
  const bool has_channel = int(threadIdx.x) < op.channels;
  const int channel = has_channel ? threadIdx.x : op.channels - 1;
  const int row = kReverse * op.channels + channel;
  float weight[kRank];
#pragma unroll
  for (int r = 0; r < kRank; ++r)
    weight[r] =
        r < op.rank
            ? op.dt_weight[(kReverse * op.rank + r) * op.channels + channel]
            : 0.0f;
  const float bias = op.dt_bias[row], A = op.A[row], skip = op.skip[row];

  const auto xs =
      Channel<const T>::template of<kReverse>(op.x, op.length, channel);
  const auto zs =
      Channel<const T>::template of<kReverse>(op.z, op.length, channel);
  const auto ys = Channel<T>::template of<kReverse>(op.y, op.length, channel);
  auto fetcher = Fetcher<T, kRank>::template of<kReverse>(op);
  fetcher.fetch(0);
  float h = 0;
  Projected<kRank>* projected = shared.projected[0];
#pragma unroll 1
  for (int begin = 0; begin < op.length; begin += kTile) {
    const auto x = xs.tile(begin);
    Floats<kTile> y = {};
    if constexpr (kReverse) y = ys.tile(begin);
    fetcher.store(projected);
    __syncthreads();
    fetcher.fetch(begin + kTile);

#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const auto& quads = projected[i].quads;
      float delta = bias;
#pragma unroll
      for (int q = 0; q < kRank / 4; ++q) {
        const float4 dt = quads[q];
        delta = fmaf(weight[4 * q], dt.x, delta);
        delta = fmaf(weight[4 * q + 1], dt.y, delta);
        delta = fmaf(weight[4 * q + 2], dt.z, delta);
        delta = fmaf(weight[4 * q + 3], dt.w, delta);
      }
      const float B = quads[kRank / 4].x, C = quads[kRank / 4].y;
      delta = step_size<kExact>(delta);
      h = next_state<kExact>(delta * A, h, delta * x[i] * B);
      y[i] = fmaf(C, h, fmaf(skip, x[i], y[i]));
    }
    if constexpr (kReverse) {
      const auto z = zs.tile(begin);
      y = normalize(y, has_channel, op.channels, op.eps, shared);
      // Read for each tile, for want of registers.
      const float norm_weight = op.norm_weight[channel];
      const float norm_bias = op.norm_bias[channel];
#pragma unroll
      for (int i = 0; i < kTile; ++i)
        y[i] = fmaf(y[i], norm_weight, norm_bias) * silu(z[i]);
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i)
      if (has_channel && begin + i < op.length) narrow(y[i], ys.at(begin + i));
    projected = shared.projected[projected == shared.projected[0]];
  }
  __syncthreads();  // before the next direction writes what is shared
}

template <typename T, int kRank>
__global__ void __launch_bounds__(kMaxScanThreads)
    scan_gate_kernel(const ScanGateArgs<T> op) {
  __shared__ ScanGateShared<kRank> shared;
  // The ranks that there are not: they meet a weight of 0.
  if (threadIdx.x < 2 * kTile)
    shared.projected[threadIdx.x / kTile][threadIdx.x % kTile] = {};
  __syncthreads();
  scan_gate_direction<false, T, kRank>(op, shared);
  scan_gate_direction<true, T, kRank>(op, shared);
}

inline bool scan_gate_serves(int64_t batch, int64_t channels, int64_t rank,
                             int64_t states) {
  return batch >= kMinSequences && channels <= kMaxScanThreads &&
         rank <= kMaxRank && states == 1;
}

// `launch(kernel, blocks, threads, args)` starts a kernel.
template <typename T, typename Launch>
void scan_gate(const ScanGateArgs<T>& op, Launch launch) {
  const int whole = (op.channels + 31) / 32 * 32;
  const int threads = whole < kMinScanThreads ? kMinScanThreads : whole;
  const auto start = [&](auto kernel) {
    launch(kernel, op.batch, threads, op);
  };
  if (op.rank <= 8)
    start(scan_gate_kernel<T, 8>);
  else if (op.rank <= 12)
    start(scan_gate_kernel<T, 12>);
  else if (op.rank <= 16)
    start(scan_gate_kernel<T, 16>);
  else
    start(scan_gate_kernel<T, kMaxRank>);
}

}  // namespace mmmamba::cuda
