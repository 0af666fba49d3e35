// From tensors to the arguments of the kernels for inference.
#pragma once

#include <limits>

#include "../../common/cuda/channels.cuh"
#include "../inference.h"
#include "../view.h"
#include "device.cuh"

namespace mmmamba::cuda {

template <typename T>
const T* values(const Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.data_ptr()) : nullptr;
}

// Calls body with a value of CUDA's type of what x stores, on its device.
// Nothing is done for an x of nothing.
template <typename Body>
void dispatch(const char* op, const Tensor& x, Body body) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16, op,
      ": x must be float32, float16 or bfloat16 on a GPU, got ", dtype);
  if (x.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(x.device());
  if (dtype == at::kFloat)
    body(float());
  else if (dtype == at::kHalf)
    body(storage_t<at::Half>());
  else
    body(storage_t<at::BFloat16>());
}

// Starts a kernel on the current stream, in blocks of some threads.
template <typename... Parameters, typename... Args>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads,
            const Args&... args) {
  kernel<<<blocks, threads, 0, at::cuda::getCurrentCUDAStream()>>>(args...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The same for as many threads as there are tasks. Kernels count them in 32
// bits.
template <int kThreads>
auto launch_tasks(const char* op) {
  return [op](auto kernel, int64_t tasks, const auto&... args) {
    const int64_t blocks = (tasks + kThreads - 1) / kThreads;
    TORCH_CHECK_VALUE(blocks * kThreads <= std::numeric_limits<unsigned>::max(),
                      op, ": the map is too large for a GPU; split the batch");
    launch(kernel, blocks, kThreads, args...);
  };
}

}  // namespace mmmamba::cuda
