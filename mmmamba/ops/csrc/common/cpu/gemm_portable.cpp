// The matrix products for any CPU: 16-byte vectors, which every compiler target can do.
#define MMMAMBA_ISA portable
#define MMMAMBA_SIMD_BYTES 16
#include "gemm_impl.hpp"
