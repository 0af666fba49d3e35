// A contiguous float32 tensor of any runtime, a packed weight, or none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmmamba {

struct Array {
  const float* data = nullptr;
  const int64_t* shape = nullptr;  // null if the tensor is absent
  size_t axes = 0;
  int64_t numbers = 1;  // in four bytes; of a packed weight 2 or 4

  explicit operator bool() const { return shape != nullptr; }

  // The container of its sizes.
  size_t size() const { return axes; }
  const int64_t* begin() const { return shape; }
  const int64_t* end() const { return shape + axes; }
  // -1, as if unknown, where there is no such axis.
  int64_t operator[](size_t axis) const {
    return axis < axes ? shape[axis] : -1;
  }
};

}  // namespace mmmamba
