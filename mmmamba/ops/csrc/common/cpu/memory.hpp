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
      : memory_(new Vec<T>[vectors]), next_(memory_) {}
  ~Arena() { delete[] memory_; }
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
  struct alignas(kCacheLine) Line {
    float data[kCacheLine / sizeof(float)];
  };
  struct Kept {
    Line* lines = nullptr;
    int64_t count = 0;
    ~Kept() { delete[] lines; }
  };
  thread_local Kept kept;
  const int64_t count = ceil_div(size * sizeof(float), kCacheLine);
  if (count > kept.count) {
    delete[] std::exchange(kept.lines, nullptr);
    kept.count = 0;  // in case that there is no more memory
    kept.lines = new Line[count];
    kept.count = count;
  }
  return kept.lines->data;
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
