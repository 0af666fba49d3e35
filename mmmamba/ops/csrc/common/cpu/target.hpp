// Compiles what follows for a named x86 target, whatever the command line
// says: MMMAMBA_BEGIN_TARGET("avx2,fma") ... MMMAMBA_END_TARGET
#pragma once

#define MMMAMBA_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define MMMAMBA_BEGIN_TARGET(features)                                 \
  MMMAMBA_PRAGMA(clang attribute push(                                 \
      __attribute__((target(features))), apply_to = function))
#define MMMAMBA_END_TARGET _Pragma("clang attribute pop")
#else
#define MMMAMBA_BEGIN_TARGET(features) \
  _Pragma("GCC push_options") MMMAMBA_PRAGMA(GCC target(features))
#define MMMAMBA_END_TARGET _Pragma("GCC pop_options")
#endif
