// Compiles what follows for a named x86 target, whatever the command line
// says: MMMAMBA_BEGIN_TARGET("avx2,fma") ... MMMAMBA_END_TARGET
//
// All standard headers that the kernels use are included here, before the
// target begins: the linker may share their functions with code that runs on
// any CPU, so they must not be compiled for the target.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MMMAMBA_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define MMMAMBA_BEGIN_TARGET(features)                                   \
  MMMAMBA_PRAGMA(clang attribute push(__attribute__((target(features))), \
                                      apply_to = function))
#define MMMAMBA_END_TARGET _Pragma("clang attribute pop")
#else
#define MMMAMBA_BEGIN_TARGET(features) \
  _Pragma("GCC push_options") MMMAMBA_PRAGMA(GCC target(features))
#define MMMAMBA_END_TARGET _Pragma("GCC pop_options")
#endif
