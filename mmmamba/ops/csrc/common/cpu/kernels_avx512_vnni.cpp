// The products of matrices for x86 CPUs whose AVX-512 sums products of int8,
// and not of bfloat16 (Cascade Lake to Rocket Lake).
#include "isa.hpp"
#ifdef MMMAMBA_HAS_DOT_KERNELS
#include "target.hpp"

MMMAMBA_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512vnni")
#define MMMAMBA_ISA avx512_vnni
#define MMMAMBA_SIMD_BYTES 64
#define MMMAMBA_DOT_INT8 1
#include "gemm_impl.hpp"
MMMAMBA_END_TARGET
#endif
