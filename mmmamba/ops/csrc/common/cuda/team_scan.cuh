// A team of threads that holds a stretch of a sequence in registers, kItems
// consecutive positions per thread, and scans it. Free of torch.
//
// Blocks are (threads of a team, teams). A team is a power of two up to a
// warp, then whole warps, so that no warp is shared unevenly; blocks are
// whole warps. Every thread takes part in every scan.
#pragma once

#include <cstdint>

#include "array.cuh"
#include "scan_math.cuh"

namespace mmmamba::cuda {

constexpr int kItems = 4;     // positions of a thread
constexpr int kChannels = 2;  // that a team does at a time
constexpr int kWarp = 32;
constexpr int kMaxThreads = 512;  // threads of a block
constexpr unsigned kAllLanes = 0xffffffffu;

// A value for each of a thread's positions, of its channels, and of both.
template <typename V>
using Items = Array<V, kItems>;
template <typename V>
using Channels = Array<V, kChannels>;
template <typename V>
using Tile = Channels<Items<V>>;

// Call visit(i) for a thread's items, in the order of the scan.
template <bool kReverse = false, typename Visit>
__device__ inline void for_items(Visit visit) {
#pragma unroll
  for (int i = 0; i < kItems; ++i) visit(kReverse ? kItems - 1 - i : i);
}

// Call visit(c, i) for the items of each channel.
template <bool kReverse = false, typename Visit>
__device__ inline void for_tile(Visit visit) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    for_items<kReverse>([&](int i) { visit(c, i); });
}

// What a thread moves in one instruction (two for double).
template <typename T>
struct alignas(sizeof(T) < 8 ? kItems * sizeof(T) : 16) Vector {
  T items[kItems];
};

// Load a thread's positions; those from `count` on are read as 0.
template <typename T, typename F = compute_t<T>>
__device__ inline Items<F> load(const T* from, int64_t stride, bool aligned,
                                int count) {
  Items<F> to;
  if (aligned && count >= kItems) {
    const auto vector = *reinterpret_cast<const Vector<T>*>(from);
    for_items([&](int i) { to[i] = widen(vector.items[i]); });
  } else {
    for_items(
        [&](int i) { to[i] = i < count ? widen(from[i * stride]) : F(0); });
  }
  return to;
}

// Store the first `count` of a thread's positions.
template <typename T, typename F>
__device__ inline void store(const Items<F>& from, T* to, int64_t stride,
                             bool aligned, int count) {
  if (aligned && count >= kItems) {
    Vector<T> vector;
    for_items([&](int i) { narrow(from[i], vector.items[i]); });
    *reinterpret_cast<Vector<T>*>(to) = vector;
  } else {
    for_items([&](int i) {
      if (i < count) narrow(from[i], to[i * stride]);
    });
  }
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

// From the composed steps of each thread to those of all threads of the team
// that are earlier in the order, for kChannels scans at once.
// `phase` alternates between calls: what one scan left in shared memory may
// still be read while the next one writes, so that one barrier is enough.
template <bool kReverse, typename F>
__device__ inline Channels<Step<F>> exclusive_scan(Channels<Step<F>> steps,
                                                   int& phase) {
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

  __shared__ Channels<Step<F>> totals[2][kMaxThreads / kWarp];
  const int warp = (threadIdx.y * blockDim.x + threadIdx.x) / kWarp;
  const bool several_warps = blockDim.x > kWarp;  // the same for all threads
  if (several_warps) {
    if (order == kWarp - 1) totals[phase][warp] = steps;
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
  return steps;
}

}  // namespace mmmamba::cuda
