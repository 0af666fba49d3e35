// The ops of a deployed network on the CPU, as an op of several of them calls
// them: inside a parallel region they run in the thread that calls. Each writes
// its result to y, which is contiguous and, but for what is said of it, does
// not overlap the inputs.
#pragma once

#include <ATen/Parallel.h>

#include "../ops.h"

namespace mmmamba {
namespace cpu {

inline int64_t num_threads() {
  return at::in_parallel_region() ? 1 : at::get_num_threads();
}

void depthwise_conv(const Tensor& y, const Tensor& x, const Tensor& weight,
                    const OptionalTensor& bias, int64_t stride,
                    c10::string_view act);
void mixer_conv(const Tensor& y, const Tensor& x, const Tensor& ssm,
                const OptionalTensor& wavelet_weight,
                const OptionalTensor& local_weight,
                const OptionalTensor& local_bias,
                const OptionalTensor& local_scale,
                const OptionalTensor& local_shift);
// Of y, channels are contiguous; positions may be farther apart.
void scan_gate(const Tensor& y, const Tensor& x, const Tensor& projected,
               const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
               const Tensor& D, const Tensor& norm_weight,
               const Tensor& norm_bias, const Tensor& z, double eps);
// y may be the residual.
void linear(const Tensor& y, const Tensor& x, const Tensor& weight,
            const OptionalTensor& bias, bool relu,
            const OptionalTensor& residual);
// y may be x.
void feed_forward(const Tensor& y, const Tensor& x, const Tensor& weight1,
                  const Tensor& bias1, const Tensor& weight2,
                  const Tensor& bias2, const OptionalTensor& shortcut);

}  // namespace cpu
}  // namespace mmmamba
