// The channels-last kernels for any CPU: 16-byte vectors, which every compiler
// target can do.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MMMAMBA_ISA portable
#define MMMAMBA_SIMD_BYTES 16
#include "depthwise_conv_impl.hpp"
#include "scan_gate_impl.hpp"
#include "stem_conv_impl.hpp"
