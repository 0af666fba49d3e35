// Scratch memory of the kernels, loops that are unrolled, and the vectors that
// channels are cut into, for the instruction set the including file names.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <new>

#include "simd.hpp"

namespace mmmamba {
namespace MMMAMBA_ISA {

// Uninitialized arrays of vectors, from one allocation.
template <typename T>
class Arena {
 public:
  explicit Arena(int64_t vectors)
      : memory_(static_cast<Vec<T>*>(std::aligned_alloc(
            sizeof(Vec<T>), std::max<int64_t>(vectors, 1) * sizeof(Vec<T>)))),
        next_(memory_) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  ~Arena() { std::free(memory_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  Vec<T>* take(int64_t vectors) {
    Vec<T>* taken = next_;
    next_ += vectors;
    return taken;
  }

 private:
  Vec<T>* memory_;
  Vec<T>* next_;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory that a thread keeps, as fresh pages for each large product would take
// up to a third of its time. Valid until the next call.
inline float* kept_scratch(int64_t size) {
  struct Kept {
    float* data = nullptr;
    int64_t size = 0;
    ~Kept() { std::free(data); }
  };
  thread_local Kept kept;
  if (size > kept.size) {
    std::free(kept.data);
    constexpr int64_t kLine = 64;
    const int64_t bytes = ceil_div(size * sizeof(float), kLine) * kLine;
    kept.data = static_cast<float*>(std::aligned_alloc(kLine, bytes));
    kept.size = kept.data == nullptr ? 0 : size;
    if (kept.data == nullptr) throw std::bad_alloc();
  }
  return kept.data;
}

// Calls step with the constants 0, ..., kCount - 1: an array that is indexed
// by constants alone is kept in registers.
template <typename Step, int... kIndex>
MMMAMBA_INLINE inline void unroll(Step step,
                                  std::integer_sequence<int, kIndex...>) {
  (step(std::integral_constant<int, kIndex>()), ...);
}

template <int kCount, typename Step>
MMMAMBA_INLINE inline void unroll(Step step) {
  unroll(step, std::make_integer_sequence<int, kCount>());
}

// Calls work(c) for the first channel of each vector of a block. There are as
// many blocks as whole vectors; the last one has what remains, too.
inline int64_t count_blocks(int64_t channels) {
  return channels / kLanes<float>;
}

template <typename Work>
inline void for_vectors(int64_t channels, int64_t block, Work work) {
  work(block * kLanes<float>);
  if (block == count_blocks(channels) - 1 && channels % kLanes<float>)
    work(channels - kLanes<float>);
}

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
