// Memory of one call of an op, free of any runtime.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <new>

namespace mmmamba {

// Uninitialized arrays that begin with a cache line, from one allocation.
class Scratch {
 public:
  // The number of floats of each array, in the order they are taken in.
  Scratch(std::initializer_list<int64_t> sizes) {
    int64_t total = 0;
    for (const int64_t size : sizes) total += lines(size);
    memory_.reset(new Line[total]);
    next_ = memory_.get();
  }

  float* take(int64_t size) {
    float* taken = next_->data;
    next_ += lines(size);
    return taken;
  }

 private:
  struct alignas(64) Line {
    float data[16];
  };
  static int64_t lines(int64_t size) { return (size + 15) / 16; }

  std::unique_ptr<Line[]> memory_;
  Line* next_;
};

}  // namespace mmmamba
