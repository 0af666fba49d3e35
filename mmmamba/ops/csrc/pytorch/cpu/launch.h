// From tensors to the arguments of kernels, and from tasks to threads.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <string>

#include "../../common/cpu/isa.hpp"
#include "../op.h"

// The kernels of a family for the widest instruction set of this CPU, chosen
// once, as PyTorch's own kernels are; ATEN_CPU_CAPABILITY overrides both.
#if defined(__x86_64__)
#define MMMAMBA_KERNELS_FOR_THIS_CPU(kernels)                  \
  []() -> const auto& {                                        \
    static const auto chosen = [] {                            \
      const std::string capability = at::get_cpu_capability(); \
      if (capability == "AVX512") return avx512::kernels();    \
      if (capability == "AVX2") return avx2::kernels();        \
      return portable::kernels();                              \
    }();                                                       \
    return chosen;                                             \
  }()
#else
#define MMMAMBA_KERNELS_FOR_THIS_CPU(kernels) portable::kernels()
#endif

namespace mmmamba::cpu {

inline int64_t num_threads() {
  return at::in_parallel_region() ? 1 : at::get_num_threads();
}

template <typename T = float>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data_ptr<T>() : nullptr;
}

// A tensor as kernels take it, if there is one: a struct of its data and of the
// strides of its first axes.
template <typename View, size_t... kAxis>
View view(const Tensor& t, std::index_sequence<kAxis...>) {
  if (!t.defined()) return {};
  return {static_cast<decltype(View::data)>(t.data_ptr()), t.stride(kAxis)...};
}

template <typename View>
View view(const Tensor& t) {
  constexpr size_t kAxes = sizeof(View) / sizeof(int64_t) - 1;
  return view<View>(t, std::make_index_sequence<kAxes>());
}

// A tensor whose channels are contiguous; a copy only where it is not.
inline Tensor channels_last(const Tensor& t, at::ScalarType dtype) {
  if (t.scalar_type() != dtype) return t.to(dtype).contiguous();
  return t.stride(-1) == 1 ? t : t.contiguous();
}

// Calls body with a value of the type of a map.
template <typename Body>
void dispatch(const char* op, const Tensor& x, Body body) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16, op,
                   ": x must be float32 or bfloat16, got ", dtype);
  if (dtype == at::kFloat)
    body(float());
  else
    body(BFloat16());
}

// Threads share the tasks of a kernel.
template <typename Args>
void run(void (*kernel)(const Args&, int64_t, int64_t), const Args& args,
         int64_t tasks) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    kernel(args, begin, end);
  });
}

template <typename Args>
void run(const TaskKernels<Args>& kernels, const Args& args) {
  run(kernels.run, args, kernels.count_tasks(args));
}

}  // namespace mmmamba::cpu
