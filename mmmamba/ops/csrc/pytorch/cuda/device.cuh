// What the launchers of all CUDA kernels share.
#pragma once

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

namespace mmmamba::cuda {

// CUDA's type of what a tensor stores.
template <typename T>
using storage_t = std::conditional_t<
    std::is_same_v<T, at::Half>, __half,
    std::conditional_t<std::is_same_v<T, at::BFloat16>, __nv_bfloat16, T>>;

// While it lives, PyTorch's ops are what they are called for: autocast would
// change their dtypes, and autograd record a part of what an op of ours does.
struct PlainOps : c10::impl::ExcludeDispatchKeyGuard {
  PlainOps()
      : ExcludeDispatchKeyGuard(
            c10::autocast_dispatch_keyset |
            c10::autograd_dispatch_keyset_with_ADInplaceOrView) {}
};

}  // namespace mmmamba::cuda
