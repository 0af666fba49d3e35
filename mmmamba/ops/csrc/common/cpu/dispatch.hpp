// The kernels of a family for this CPU.
#pragma once

#include "isa.hpp"

// Those for its widest instruction set, chosen once; ATEN_CPU_CAPABILITY
// overrides the choice, as it does for PyTorch's own kernels.
#if defined(__x86_64__)
#define MMMAMBA_CHOOSE(kernels)                                      \
  ::mmmamba::instruction_set() == ::mmmamba::InstructionSet::kAvx512 \
      ? ::mmmamba::avx512::kernels()                                 \
  : ::mmmamba::instruction_set() == ::mmmamba::InstructionSet::kAvx2 \
      ? ::mmmamba::avx2::kernels()                                   \
      : ::mmmamba::portable::kernels()
#else
#define MMMAMBA_CHOOSE(kernels) ::mmmamba::portable::kernels()
#endif

#define MMMAMBA_KERNELS_FOR_THIS_CPU(kernels)           \
  []() -> const auto& {                                 \
    static const auto chosen = MMMAMBA_CHOOSE(kernels); \
    return chosen;                                      \
  }()

namespace mmmamba {

enum class InstructionSet { kPortable, kAvx2, kAvx512 };

InstructionSet instruction_set();

// The products that this CPU sums in one instruction of AVX-512; with bfloat16
// also those of int8. Heeds ONEDNN_MAX_CPU_ISA, as PyTorch's convolutions do;
// looked up once.
enum class DotProducts { kNone, kInt8, kBFloat16 };

DotProducts dot_products();

}  // namespace mmmamba
