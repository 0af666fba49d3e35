// What the kernels of the first convolutions take, and which instruction sets
// they exist for.
#pragma once

#include <cstdint>

namespace mmmamba {

// A 3x3 convolution of stride 2, to at least kMinChannels.
struct StemLayer {
  int64_t in, out;
  const float *weight, *bias;  // (3, 3, in, out), (out)
  bool relu;
  const float* packed;  // the weight's panels, or null if there are none
};

// Such convolutions in a row; strides in elements.
struct StemConvArgs {
  int64_t batch, height, width;
  const float* x;  // (batch, in, height, width)
  int64_t x_batch, x_channel, x_row, x_column;
  const StemLayer* layers;
  int64_t depth;
  float* y;       // (batch, y_height, y_width, out), contiguous
  int64_t bands;  // that the rows of each sample's result are cut into
};

struct StemKernels {
  // Panels that a layer takes its weight in, 0 for none, and elements of each.
  int64_t (*count_panels)(const StemLayer&);
  int64_t (*panel_size)(const StemLayer&);
  void (*pack)(const StemLayer&, int64_t panel, float* target);
  // Computes the bands [begin, end) of the batch * bands there are.
  void (*stem_conv)(const StemConvArgs&, int64_t begin, int64_t end);
};

namespace portable {
StemKernels stem_kernels();
}
namespace avx2 {
StemKernels stem_kernels();
}
namespace avx512 {
StemKernels stem_kernels();
}

}  // namespace mmmamba
