// The channels-last kernels for x86 CPUs with AVX-512.
#if defined(__x86_64__)
// These first: their functions are not to be compiled for the target, since
// the linker may share them with code that runs on any CPU.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include <immintrin.h>

#include "target.hpp"

MMMAMBA_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define MMMAMBA_ISA avx512
#define MMMAMBA_SIMD_BYTES 64
#include "depthwise_conv_impl.hpp"
#include "scan_gate_impl.hpp"
#include "stem_conv_impl.hpp"
MMMAMBA_END_TARGET
#endif
