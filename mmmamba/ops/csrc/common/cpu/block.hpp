// A block of a deployed network: what it takes.
#pragma once

#include <cstdint>

namespace mmmamba::block {

// A depthwise convolution, (kernel, kernel, channels) and (channels).
struct Conv {
  int64_t kernel;
  const float *weight, *bias;
};

struct FFN {
  int64_t hidden;
  const float *weight1, *bias1, *weight2, *bias2;
};

struct SSM {
  int64_t channels, inner, rank, d_state;
  const float *in_weight, *in_bias;
  Conv conv;
  // dt_weight is (2, rank, inner), A is (2 * inner, d_state).
  const float *x_proj, *dt_weight, *dt_bias, *A, *D, *norm_weight, *norm_bias;
  const float *out_weight, *out_bias;
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
  const float *proj_weight, *proj_bias;
  Conv conv2;
  FFN ffn2;
  float eps;
  const float* x;
  float* y;
};

}  // namespace mmmamba::block
