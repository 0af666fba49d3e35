// The products of matrices and of the stem for x86 CPUs whose AVX-512 sums
// products of bfloat16 and of int8 (from Zen 4, Sapphire Rapids).
#include "isa.hpp"
#ifdef MMMAMBA_HAS_DOT_KERNELS
#include "target.hpp"

MMMAMBA_BEGIN_TARGET(
    "avx512f,avx512bw,avx512dq,avx512vl,fma,avx512bf16,avx512vnni")
#define MMMAMBA_ISA avx512_dot
#define MMMAMBA_SIMD_BYTES 64
#define MMMAMBA_DOT_BFLOAT16 1
#define MMMAMBA_DOT_INT8 1
#include "gemm_impl.hpp"
#include "stem_conv_impl.hpp"
MMMAMBA_END_TARGET
#endif
