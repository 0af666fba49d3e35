// Scratch memory of the kernels, for the instruction set the including file
// names.
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

}  // namespace MMMAMBA_ISA
}  // namespace mmmamba
