// From tensors to the arguments of kernels, and PyTorch as a runtime.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/version.h>

// at::parallel_for is a pragma of OpenMP in a header, for which this file would
// have to be compiled with OpenMP, too. Since 2.10 torch_parallel_for is there,
// compiled.
#define MMMAMBA_TORCH_HAS_PARALLEL_FOR \
  (TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 10)
#if MMMAMBA_TORCH_HAS_PARALLEL_FOR
#include <torch/csrc/stable/c/shim.h>
#endif

#include "../../common/cpu/compute.hpp"
#include "../op.h"
#include "../view.h"

namespace mmmamba::cpu {

// Its threads; the one that calls if it is inside a parallel region.
class PyTorch final : public Runtime {
 public:
  PyTorch() : Runtime(at::in_parallel_region() ? 1 : at::get_num_threads()) {}

 private:
  void run(int64_t count, Call call, const void* function) const override {
    auto some = [&](int64_t begin, int64_t end) {
      for (; begin < end; ++begin) call(function, begin);
    };
#if MMMAMBA_TORCH_HAS_PARALLEL_FOR
    using Some = decltype(some);
    const auto status = torch_parallel_for(
        0, count, 1,
        [](int64_t begin, int64_t end, void* context) {
          (*static_cast<Some*>(context))(begin, end);
        },
        &some);
    TORCH_CHECK(status == AOTI_TORCH_SUCCESS, "PyTorch's threads failed");
#else
    at::parallel_for(0, count, 1, some);
#endif
  }
  void record(const char* name, Call call,
              const void* function) const override {
    RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>());
    call(function, 0);
  }
};

template <typename T = float>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data_ptr<T>() : nullptr;
}

inline gemm::Weight weight_of(const Tensor& t) {
  return {static_cast<const float*>(t.data_ptr()),
          gemm::Precision(numbers_in_word(t))};
}

// (B, ..., C) as rows; a copy only where they are not that far apart already.
inline Tensor rows(const char* op, const OptionalTensor& x) {
  if (!x) return Tensor();
  TORCH_CHECK_TYPE(x->scalar_type() == at::kFloat, op,
                   ": x and what is added must be float32, got ",
                   x->scalar_type());
  const Tensor flat = x->reshape({-1, x->size(-1)});
  return flat.stride(1) == 1 || flat.size(1) == 1 ? flat : flat.contiguous();
}

// Rows of a sample of (B, ..., C).
inline int64_t sample_rows(const Tensor& x) {
  return x.numel() == 0 ? 1 : x.numel() / x.size(0) / x.size(-1);
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

}  // namespace mmmamba::cpu
