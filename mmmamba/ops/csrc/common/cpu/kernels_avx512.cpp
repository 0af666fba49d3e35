// All kernels for x86 CPUs with AVX-512.
#if defined(__x86_64__)
#include "target.hpp"

MMMAMBA_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define MMMAMBA_ISA avx512
#define MMMAMBA_SIMD_BYTES 64
#include "kernels_impl.hpp"
MMMAMBA_END_TARGET
#endif
