// All kernels for x86 CPUs with AVX2 and FMA.
#if defined(__x86_64__)
#include "target.hpp"

MMMAMBA_BEGIN_TARGET("avx2,fma")
#define MMMAMBA_ISA avx2
#define MMMAMBA_SIMD_BYTES 32
#include "kernels_impl.hpp"
MMMAMBA_END_TARGET
#endif
