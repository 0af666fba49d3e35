// What the kernel of the first convolutions takes, and which instruction sets
// it exists for.
#pragma once

#include <cstdint>

namespace mmmamba {

// A 3x3 convolution of stride 2, to at least kMinChannels.
struct StemLayer {
  int64_t in, out;
  const float *weight, *bias;  // (3, 3, in, out), (out)
  bool relu;
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

// Computes the bands [begin, end) of the batch * bands there are.
using StemConv = void (*)(const StemConvArgs&, int64_t begin, int64_t end);

namespace portable {
void stem_conv(const StemConvArgs&, int64_t, int64_t);
}
namespace avx2 {
void stem_conv(const StemConvArgs&, int64_t, int64_t);
}
namespace avx512 {
void stem_conv(const StemConvArgs&, int64_t, int64_t);
}

}  // namespace mmmamba
