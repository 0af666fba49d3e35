#include "dispatch.hpp"

#include <cctype>
#include <cstdlib>
#include <string>

namespace mmmamba {

InstructionSet instruction_set() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string name = wanted ? wanted : "";
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (name == "default") return InstructionSet::kPortable;
  if (has_avx512 && name != "avx2") return InstructionSet::kAvx512;
  if (has_avx2) return InstructionSet::kAvx2;
#endif
  return InstructionSet::kPortable;
}

namespace {

DotProducts find_dot_products() {
#ifdef MMMAMBA_HAS_DOT_KERNELS
  const char* most = std::getenv("ONEDNN_MAX_CPU_ISA");
  std::string name = most ? most : "";
  for (char& c : name) c = static_cast<char>(std::toupper(c));
  for (const char* older :
       {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE"})
    if (name == older) return DotProducts::kNone;
  if (instruction_set() == InstructionSet::kAvx512 &&
      __builtin_cpu_supports("avx512vnni"))
    return name != "AVX512_CORE_VNNI" && __builtin_cpu_supports("avx512bf16")
               ? DotProducts::kBFloat16
               : DotProducts::kInt8;
#endif
  return DotProducts::kNone;
}

}  // namespace

DotProducts dot_products() {
  static const DotProducts found = find_dot_products();
  return found;
}

}  // namespace mmmamba
