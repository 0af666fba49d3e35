// Maps and sequences whose channels are contiguous, of which a thread has a
// few neighbouring channels. Free of torch.
#pragma once

#include <cstdint>
#include <cstring>

#include "array.cuh"
#include "scan_math.cuh"

namespace mmmamba::cuda {

template <int kSize>
using Floats = Array<float, kSize>;

// What a thread moves in one instruction, by its bytes.
template <int kBytes>
struct WordOf;
template <>
struct WordOf<2> {
  using Type = unsigned short;
};
template <>
struct WordOf<4> {
  using Type = unsigned;
};
template <>
struct WordOf<8> {
  using Type = uint2;
};
template <>
struct WordOf<16> {
  using Type = uint4;
};

template <typename T, int kSize>
using Word = typename WordOf<kSize * sizeof(T)>::Type;

// Neighbouring channels; 0 if `inside` is false. Without a branch, so that
// many loads are under way at a time.
template <int kSize, typename T>
__device__ inline Floats<kSize> load_channels(const T* from,
                                              bool inside = true) {
  Word<T, kSize> word = {};
  if (inside) word = *reinterpret_cast<const Word<T, kSize>*>(from);
  T values[kSize];
  memcpy(values, &word, sizeof(word));
  Floats<kSize> to;
#pragma unroll
  for (int i = 0; i < kSize; ++i) to[i] = widen(values[i]);
  return to;
}

template <int kSize, typename T>
__device__ inline void store_channels(const Floats<kSize>& from, T* to) {
  T values[kSize];
#pragma unroll
  for (int i = 0; i < kSize; ++i) narrow(from[i], values[i]);
  Word<T, kSize> word;
  memcpy(&word, values, sizeof(word));
  *reinterpret_cast<Word<T, kSize>*>(to) = word;
}

// Whether pointers allow to move kSize channels at a time.
template <int kSize, typename... T>
bool are_packed(const T*... data) {
  return ((reinterpret_cast<uintptr_t>(data) % sizeof(Word<T, kSize>) == 0) &&
          ...);
}

// Some channels of a (batch, height, width, channels) map.
template <typename T>
struct Map {
  T* data;
  int64_t batch_stride;
  int64_t row_stride;
  int64_t column_stride;

  __device__ T* at(int item, int row, int column, int channel) const {
    return data + item * batch_stride + row * row_stride +
           column * column_stride + channel;
  }

  template <int kSize>
  bool is_packed() const {
    return are_packed<kSize>(data) && batch_stride % kSize == 0 &&
           row_stride % kSize == 0 && column_stride % kSize == 0;
  }
};

__device__ inline float relu(float v) { return v < 0 ? 0 : v; }  // keeps NaN
__device__ inline float silu(float v) { return __fdividef(v, 1 + __expf(-v)); }

}  // namespace mmmamba::cuda
