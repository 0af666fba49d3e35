// A team of threads that holds a stretch of a sequence in registers, kItems
// consecutive positions per thread, and scans it. Free of torch.
//
// Blocks are (threads of a team, teams). A team is a power of two up to a
// warp, then whole warps, so that no warp is shared unevenly; blocks are
// whole warps. Every thread takes part in every scan.
#pragma once

#include <cstdint>

#include "scan_math.cuh"

namespace mmmamba::cuda {

constexpr int kItems = 4;     // positions of a thread
constexpr int kChannels = 2;  // that a team does at a time
constexpr int kWarp = 32;
constexpr int kMaxThreads = 512;  // threads of a block
constexpr unsigned kAllLanes = 0xffffffffu;

// Sequences along the last axis of a (batch, channels, length) tensor.
template <typename T>
struct Sequences {
  T* data;
  int64_t batch_stride;
  int64_t channel_stride;
  int64_t position_stride;
  bool aligned;  // kItems consecutive positions are one aligned vector

  __device__ T* at(int batch, int channel, int position) const {
    return data + batch * batch_stride + channel * channel_stride +
           position * position_stride;
  }
};

// What a thread moves in one instruction (two for double).
template <typename T>
struct alignas(sizeof(T) < 8 ? kItems * sizeof(T) : 16) Vector {
  T items[kItems];
};

// Load a thread's positions; those from `count` on are read as 0.
template <typename T, typename F>
__device__ inline void load(const T* from, int64_t stride, bool aligned,
                            int count, F (&to)[kItems]) {
  if (aligned && count >= kItems) {
    const auto vector = *reinterpret_cast<const Vector<T>*>(from);
#pragma unroll
    for (int i = 0; i < kItems; ++i) to[i] = widen(vector.items[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      to[i] = i < count ? widen(from[i * stride]) : F(0);
  }
}

// Store the first `count` of a thread's positions.
template <typename T, typename F>
__device__ inline void store(const F (&from)[kItems], T* to, int64_t stride,
                             bool aligned, int count) {
  if (aligned && count >= kItems) {
    Vector<T> vector;
#pragma unroll
    for (int i = 0; i < kItems; ++i) narrow(from[i], vector.items[i]);
    *reinterpret_cast<Vector<T>*>(to) = vector;
  } else {
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      if (i < count) narrow(from[i], to[i * stride]);
  }
}

// The j-th of a thread's items in the order of the scan.
template <bool kReverse>
__device__ constexpr int item(int j) {
  return kReverse ? kItems - 1 - j : j;
}

// Lanes of a warp that belong to one team.
__device__ inline int team_lanes() {
  return blockDim.x < kWarp ? blockDim.x : kWarp;
}

// Sum over the lanes of a team that share a warp.
template <typename F>
__device__ inline F warp_sum(F value) {
  for (int offset = team_lanes() / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

// The value of the lane that is `offset` earlier in the order of the scan.
template <bool kReverse, typename F>
__device__ inline F earlier_lane(F value, int offset) {
  return kReverse ? __shfl_down_sync(kAllLanes, value, offset, team_lanes())
                  : __shfl_up_sync(kAllLanes, value, offset, team_lanes());
}

template <bool kReverse, typename F>
__device__ inline Step<F> earlier_lane(Step<F> step, int offset) {
  return {{earlier_lane<kReverse>(step.decay.high, offset),
           earlier_lane<kReverse>(step.decay.low, offset)},
          earlier_lane<kReverse>(step.b, offset)};
}

// For each of kChannels scans at once: replace the composed steps of this
// thread by those of all threads of the team that are earlier in the order.
// `phase` alternates between calls: what one scan left in shared memory may
// still be read while the next one writes, so that one barrier is enough.
template <bool kReverse, typename F>
__device__ inline void exclusive_scan(Step<F> (&steps)[kChannels], int& phase) {
  const int lane = threadIdx.x % kWarp;
  const int order = kReverse ? team_lanes() - 1 - lane : lane;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const auto earlier = earlier_lane<kReverse>(steps[c], offset);
      if (order >= offset) steps[c] = compose(earlier, steps[c]);
    }
  }

  constexpr int kMaxWarps = kMaxThreads / kWarp;
  __shared__ Step<F> totals[2][kMaxWarps][kChannels];
  const int warp = (threadIdx.y * blockDim.x + threadIdx.x) / kWarp;
  const bool several_warps = blockDim.x > kWarp;  // the same for all threads
  if (several_warps) {
    if (order == kWarp - 1) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) totals[phase][warp][c] = steps[c];
    }
    __syncthreads();
  }

#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const auto in_warp = earlier_lane<kReverse>(steps[c], 1);
    steps[c] = order > 0 ? in_warp : no_step<F>();
  }
  if (several_warps) {
    const int warps = blockDim.x / kWarp;
    const int first = threadIdx.y * warps + (kReverse ? warps - 1 : 0);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      auto before = no_step<F>();
#pragma unroll 1
      for (int w = first; w != warp; w += kReverse ? -1 : 1)
        before = compose(before, totals[phase][w][c]);
      steps[c] = compose(before, steps[c]);
    }
    phase ^= 1;
  }
}

}  // namespace mmmamba::cuda
