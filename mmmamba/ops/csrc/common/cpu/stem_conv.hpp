// The convolutions of the stem: what their kernel takes.
#pragma once

#include "isa.hpp"

namespace mmmamba::stem_conv {

// A 3x3 convolution of stride 2, to at least kMinChannels.
struct Layer {
  int64_t in, out;
  const float *weight, *bias;  // (3, 3, in, out), (out)
  bool relu;
  const float* packed;  // the weight's panels, or null if there are none
};

// Such convolutions in a row; strides in elements.
struct Args {
  int64_t batch, height, width;
  const float* x;  // (batch, in, height, width)
  int64_t x_batch, x_channel, x_row, x_column;
  const Layer* layers;
  int64_t depth;
  float* y;       // (batch, y_height, y_width, out), contiguous
  int64_t bands;  // that the rows of each sample's result are cut into
  bool bfloat16;  // may be the products, where there are instructions for that
};

struct Kernels {
  // Panels that a layer takes its weight in, 0 for none, and elements of each.
  int64_t (*count_panels)(const Layer&);
  int64_t (*panel_size)(const Layer&);
  void (*pack)(const Layer&, int64_t panel, float* target);
  // Computes the bands [begin, end) of the batch * bands there are.
  void (*run)(const Args&, int64_t begin, int64_t end);
};

}  // namespace mmmamba::stem_conv

MMMAMBA_DECLARE_KERNELS(stem_conv, Kernels kernels())
MMMAMBA_DECLARE_KERNELS_IN(avx512_dot, stem_conv, Kernels kernels())
