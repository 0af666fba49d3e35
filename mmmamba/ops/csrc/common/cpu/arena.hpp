// Scratch memory of the kernels, loops that are unrolled, the vectors that
// channels are cut into, and the sums that registers hold, for the instruction
// set the including file names.
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

// A product sums up so many rows of so many vectors at a time: with a row of
// the weight and an element of x they fit into the registers, 32 of AVX-512,
// else 16.
constexpr int kSumRows = MMMAMBA_SIMD_BYTES == 64 ? 8 : 6;
constexpr int kSumVectors = MMMAMBA_SIMD_BYTES == 64 ? 3 : 2;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
