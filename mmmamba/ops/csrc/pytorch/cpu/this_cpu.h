// The kernels of the widest instruction set of the CPU this runs on.
#pragma once

#include <ATen/Version.h>

#include <string>

// The value of an expression in the namespace of the instruction set. As
// PyTorch's own kernels choose; ATEN_CPU_CAPABILITY overrides both.
#if defined(__x86_64__)
#define MMMAMBA_FOR_THIS_CPU(expression)                     \
  [] {                                                       \
    const std::string capability = at::get_cpu_capability(); \
    if (capability == "AVX512") return avx512::expression;   \
    if (capability == "AVX2") return avx2::expression;       \
    return portable::expression;                             \
  }()
#else
#define MMMAMBA_FOR_THIS_CPU(expression) portable::expression
#endif
