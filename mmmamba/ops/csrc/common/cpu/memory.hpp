// Scratch memory of the kernels, loops that are unrolled, and the vectors that
// channels are cut into, for the instruction set that the including file names.
#pragma once

#include "simd.hpp"

namespace mmmamba::MMMAMBA_ISA {

constexpr int64_t kCacheLine = 64;  // bytes

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

// Memory that a thread keeps, valid until the next call: fresh pages for each
// large product took up to a third of its time (measured on Zen 4).
inline float* kept_scratch(int64_t size) {
  struct Kept {
    float* data = nullptr;
    int64_t size = 0;
    ~Kept() { std::free(data); }
  };
  thread_local Kept kept;
  if (size > kept.size) {
    std::free(kept.data);
    const int64_t bytes =
        ceil_div(size * sizeof(float), kCacheLine) * kCacheLine;
    kept.data = static_cast<float*>(std::aligned_alloc(kCacheLine, bytes));
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

static_assert(kLanes<float> <= kMinChannels, "a pixel has a whole vector");

// Whole vectors of channels. The last one is followed by what remains.
inline int64_t count_vectors(int64_t channels) {
  return channels / kLanes<float>;
}

// Calls work(c) for the first channel of a vector and, after the last one, of
// the overlapping vector that has what remains.
template <typename Work>
inline void for_vector(int64_t channels, int64_t vector, Work work) {
  work(vector * kLanes<float>);
  if (vector == count_vectors(channels) - 1 && channels % kLanes<float>)
    work(channels - kLanes<float>);
}

}  // namespace mmmamba::MMMAMBA_ISA
