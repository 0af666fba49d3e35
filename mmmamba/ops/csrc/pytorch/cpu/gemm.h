// Linear layers: tensors as matrices, and rows and columns to threads.
#pragma once

#include "../../common/cpu/gemm.hpp"

#include <algorithm>

#include "launch.h"

namespace mmmamba::cpu {

// Fewer rows than this for each thread, and the threads share the columns.
// Measured on Zen 4 with two threads.
constexpr int64_t kRowsOfThread = 64;

inline const gemm::Kernels& gemm_kernels() {
  return MMMAMBA_KERNELS_FOR_THIS_CPU(gemm::kernels);
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

// Threads share the rows: whole samples where all get the same number of them.
template <typename Work>
void share_rows(int64_t rows, int64_t sample, Work work) {
  const int64_t unit = rows / sample % num_threads() == 0 ? sample : 1;
  const int64_t grain = (kRowsOfThread + unit - 1) / unit;
  at::parallel_for(0, rows / unit, grain, [&](int64_t begin, int64_t end) {
    work(begin * unit, end * unit);
  });
}

inline void run(const gemm::Args& args, int64_t rows) {
  const auto& k = gemm_kernels();
  const int64_t panels = k.count_panels(args.out);
  if (rows < kRowsOfThread * num_threads()) {
    at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      k.linear(args, 0, rows, begin, end);
    });
  } else {
    share_rows(rows, args.sample, [&](int64_t begin, int64_t end) {
      k.linear(args, begin, end, 0, panels);
    });
  }
}

}  // namespace mmmamba::cpu
