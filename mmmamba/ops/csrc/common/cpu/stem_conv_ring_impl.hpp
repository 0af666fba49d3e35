// The rows of maps that a convolution of the stem passes on to the next, for
// the instruction set that the including file names.
#pragma once

#include "simd.hpp"

namespace mmmamba::MMMAMBA_ISA::stem_conv {

// The rows that are in use of a map (height, width, channels) with a border of
// zeros.
struct RingBuffer {
  int64_t height, width, channels;
  int64_t length;    // of a row with its border, in elements
  int64_t capacity;  // rows there is room for
  int64_t done;      // the map's rows that have been made
  float* data;       // capacity rows, and one of zeros
  int64_t margin;    // elements of a row before its first pixel

  float* at(int64_t row) const { return data + row % capacity * length; }
  float* pixels(int64_t row) const { return at(row) + margin; }

  const float* padded(int64_t row) const {
    return row < 0 || row >= height ? data + capacity * length : at(row);
  }
};

}  // namespace mmmamba::MMMAMBA_ISA::stem_conv
