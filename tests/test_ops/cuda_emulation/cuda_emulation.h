// What the kernels use of CUDA, on a CPU: each CUDA thread is a fiber, each
// block runs on its own. Include this before a .cuh file, compile as C++17.
//
// A warp runs until its lanes meet in a shuffle, a block until its warps meet
// at a barrier. Lanes or warps that meet elsewhere, or do not come, abort the
// block: on a device that would be undefined. Warps run one after the other
// from barrier to barrier, in another order each time, so that a missing
// barrier gives wrong results. Shared memory is full of NaNs at first.
#pragma once

#include <link.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
// All fibers are of one thread. What is shared is all that is thread_local
// here, and so lies together.
#define __shared__ static thread_local

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

// Less exact on a device.
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStack = 128 << 10;

enum class Waiting { kNothing, kShuffle, kBarrier, kDone };

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  dim3 index;
  int lane;
  Waiting waiting;
  int shuffles;           // how many it came to, all lanes of a warp alike
  uint64_t exchanged[2];  // by the last two shuffles
};

inline dim3 block_index, block_size, grid_size;
inline ucontext_t scheduler;
inline std::vector<Thread> threads;
inline Thread* current;
inline std::function<void()> kernel;

inline void wait(Waiting what) {
  Thread* self = current;
  self->waiting = what;
  swapcontext(&self->context, &scheduler);
}

inline void thread_main() {
  kernel();
  wait(Waiting::kDone);
}

// Run the lanes of a warp to where they wait next.
inline Waiting run_warp(Thread* lanes) {
  for (int lane = 0; lane < kWarp; ++lane) {
    current = lanes + lane;
    if (swapcontext(&scheduler, &current->context) != 0)
      throw std::runtime_error("swapcontext failed");
    if (current->waiting != lanes[0].waiting ||
        current->shuffles != lanes[0].shuffles)
      throw std::runtime_error("the lanes of a warp diverge");
  }
  return lanes[0].waiting;
}

// Fill shared memory with NaNs of any type.
static void forget_shared() {
  static thread_local char any;  // lies among what is shared
  const auto fill = [](dl_phdr_info* library, size_t, void* inside) {
    auto* memory = static_cast<char*>(library->dlpi_tls_data);
    for (int i = 0; memory && i < library->dlpi_phnum; ++i) {
      const auto& segment = library->dlpi_phdr[i];
      const auto* end = memory + segment.p_memsz;
      if (segment.p_type == PT_TLS && inside >= memory && inside < end) {
        std::memset(memory, 0xff, segment.p_memsz);
        return 1;
      }
    }
    return 0;
  };
  if (!dl_iterate_phdr(fill, &any))
    throw std::runtime_error("shared memory is not found");
}

inline void run_block() {
  const int count = block_size.x * block_size.y * block_size.z;
  if (count % kWarp || count > 1024 || count == 0)
    throw std::runtime_error("a block must be 1 to 32 whole warps");
  if (int(threads.size()) < count) threads.resize(count);
  for (int t = 0; t < count; ++t) {
    Thread& thread = threads[t];
    thread.index = {t % block_size.x, t / block_size.x % block_size.y,
                    t / (block_size.x * block_size.y)};
    thread.lane = t % kWarp;
    thread.waiting = Waiting::kNothing;
    thread.shuffles = 0;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, thread_main, 0);
  }
  forget_shared();
  std::vector<int> order;  // the first threads of the warps
  for (int first = 0; first < count; first += kWarp) order.push_back(first);
  std::minstd_rand random;
  for (bool done = false; !done;) {
    std::shuffle(order.begin(), order.end(), random);
    Waiting all = Waiting::kNothing;
    for (const int first : order) {
      Waiting warp;
      do {
        warp = run_warp(&threads[first]);
      } while (warp == Waiting::kShuffle);
      if (first != order[0] && warp != all)
        throw std::runtime_error("the warps of a block diverge");
      all = warp;
    }
    done = all == Waiting::kDone;
  }
}

inline void run_grid(dim3 grid, dim3 block, std::function<void()> body) {
  kernel = std::move(body);
  grid_size = grid;
  block_size = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        run_block();
      }
}

// Give a value to the warp and take that of another lane.
template <typename T>
T shuffle(unsigned mask, T value, int from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "as on a device");
  if (mask != 0xffffffffu) throw std::runtime_error("not all lanes shuffle");
  Thread* self = current;
  const int slot = self->shuffles++ % 2;
  std::memcpy(&self->exchanged[slot], &value, sizeof(T));
  wait(Waiting::kShuffle);
  std::memcpy(&value, &(self - self->lane + from)->exchanged[slot], sizeof(T));
  return value;
}

}  // namespace emulation

#define threadIdx (emulation::current->index)
#define blockIdx (emulation::block_index)
#define blockDim (emulation::block_size)
#define gridDim (emulation::grid_size)

inline void __syncthreads() { emulation::wait(emulation::Waiting::kBarrier); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = emulation::current->lane;
  return emulation::shuffle(mask, value, lane / width * width + from % width);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned offset, int width = 32) {
  const int lane = emulation::current->lane;
  const bool inside = lane % width >= int(offset);
  return emulation::shuffle(mask, value, inside ? lane - offset : lane);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset, int width = 32) {
  const int lane = emulation::current->lane;
  const bool inside = lane % width + int(offset) < width;
  return emulation::shuffle(mask, value, inside ? lane + offset : lane);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = emulation::current->lane;
  const int from = lane ^ bits;
  const bool inside = from / width <= lane / width;
  return emulation::shuffle(mask, value, inside ? from : lane);
}

inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
