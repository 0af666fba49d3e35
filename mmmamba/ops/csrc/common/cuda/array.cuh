// An array that is kept in registers: all indices must be known when it is
// compiled. Free of torch.
#pragma once

namespace mmmamba::cuda {

template <typename V, int kSize>
struct Array {
  V values[kSize];

  __device__ V& operator[](int i) { return values[i]; }
  __device__ const V& operator[](int i) const { return values[i]; }
};

}  // namespace mmmamba::cuda
