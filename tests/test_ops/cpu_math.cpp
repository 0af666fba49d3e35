// The functions of simd.hpp over arrays, for test_cpu_kernel.py.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(TARGET)
#include "target.hpp"
MMMAMBA_BEGIN_TARGET(TARGET)
#endif
#include "simd.hpp"

using namespace mmmamba::MMMAMBA_ISA;

// `count` is a multiple of the lanes.
extern "C" void softplus_of(const float* x, float* value, float* slope,
                            int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<float>) {
    const Softplus<float> s = softplus<float>(load(x + i));
    store(value + i, s.value);
    store(slope + i, s.slope);
  }
}

extern "C" void decay_of(const float* x, float* high, float* low,
                         int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<float>) {
    const Decay<float> d = decay(load(x + i));
    store(high + i, d.high);
    store(low + i, d.low);
  }
}

#if defined(TARGET)
MMMAMBA_END_TARGET
#endif
