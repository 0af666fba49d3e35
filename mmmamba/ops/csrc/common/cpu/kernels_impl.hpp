// The kernels of all families, for the instruction set that the including file
// names.
#include "gemm_impl.hpp"
#include "mixer_conv_impl.hpp"
#include "scan_gate_impl.hpp"
#include "scan_impl.hpp"
#include "stem_conv_impl.hpp"
