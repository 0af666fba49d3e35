// A block of a deployed network: what it takes.
#pragma once

#include <cstdint>

#include "gemm.hpp"

namespace mmmamba::block {

// A depthwise convolution, (kernel, kernel, channels) and (channels).
struct Conv {
  int64_t kernel;
  const float *weight, *bias;
};

struct FFN {
  int64_t hidden;
  gemm::Weight weight1, weight2;
  const float *bias1, *bias2;
};

struct SSM {
  int64_t channels, inner, rank, d_state;
  gemm::Weight in_weight, out_weight;
  const float *in_bias, *out_bias;
  Conv conv;
  // dt_weight is (2, rank, inner), A is (2 * inner, d_state).
  const float *x_proj, *dt_weight, *dt_bias, *A, *D, *norm_weight, *norm_bias;
};

struct Local {
  int64_t channels;  // 0 if there is no local part
  Conv conv;
  const float *scale, *shift;
};

// Of contiguous maps (batch, height, width, channels) that do not overlap;
// parameters are as in mmmamba/ops/block.py, contiguous.
struct Args {
  int64_t batch, height, width, channels;
  Conv conv1;
  FFN ffn1;
  SSM ssm;
  Conv wavelet;  // without bias; weight is null if it is absent
  Local local;
  gemm::Weight proj_weight;
  const float* proj_bias;
  Conv conv2;
  FFN ffn2;
  float eps;
  const float* x;
  float* y;
};

}  // namespace mmmamba::block
