// All kernels for any CPU: 16-byte vectors, which every target can do.
#include "target.hpp"

#define MMMAMBA_ISA portable
#define MMMAMBA_SIMD_BYTES 16
#include "kernels_impl.hpp"
