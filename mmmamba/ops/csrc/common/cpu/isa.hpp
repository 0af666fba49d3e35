// The instruction sets that the kernels are compiled for, and their types.
//
// The interface of a kernel family, say gemm.hpp, is in mmmamba::gemm. Its
// kernels are compiled once for each instruction set, in
// mmmamba::portable::gemm, mmmamba::avx2::gemm and mmmamba::avx512::gemm.
#pragma once

#include <cstdint>

// Declares what a family offers, in the namespace of an instruction set.
#define MMMAMBA_DECLARE_KERNELS_IN(isa, family, ...) \
  namespace mmmamba::isa::family {                   \
  using namespace ::mmmamba::family;                 \
  __VA_ARGS__;                                       \
  }

// The same in each that all families have.
#define MMMAMBA_DECLARE_KERNELS(family, ...)                \
  MMMAMBA_DECLARE_KERNELS_IN(portable, family, __VA_ARGS__) \
  MMMAMBA_DECLARE_KERNELS_IN(avx2, family, __VA_ARGS__)     \
  MMMAMBA_DECLARE_KERNELS_IN(avx512, family, __VA_ARGS__)

// AVX-512 with sums of products of int8 (avx512_vnni), or of bfloat16 and int8
// (avx512_dot), which some families have, too. GCC knows the instructions from
// version 10 on.
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define MMMAMBA_HAS_DOT_KERNELS 1
#endif

namespace mmmamba {

// The kernels of a family that cuts its work into tasks: run() runs the tasks
// [begin, end) of those that count_tasks() gives.
template <typename Args>
struct TaskKernels {
  int64_t (*count_tasks)(const Args&);
  void (*run)(const Args&, int64_t begin, int64_t end);
};

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};

// The fewest channels that the inference kernels take: one vector of the
// widest instruction set. Where channels are no multiple of a vector, the last
// vector of a pixel overlaps the one before.
constexpr int64_t kMinChannels = 16;

}  // namespace mmmamba
