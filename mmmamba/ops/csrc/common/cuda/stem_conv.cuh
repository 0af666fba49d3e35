// The first convolution of an image, 3x3 with a stride of 2, to a channels-last
// map. A thread computes a few channels of neighbouring outputs of a row. Free
// of torch.
#pragma once

#include "depthwise_conv.cuh"

namespace mmmamba::cuda {

constexpr int kImageChannels = 3;
constexpr int kStemOutputs = 8;   // of a thread, in a row
constexpr int kStemChannels = 4;  // of a thread

template <typename T>
struct ImageConvArgs {
  int batch, height, width;  // of the image
  int channels;              // of the map
  Map<const T> x;            // kImageChannels channels, `channel_stride` apart
  int64_t channel_stride;
  const T* weight;  // (3, 3, kImageChannels, channels)
  const T* bias;    // (channels)
  bool relu;
  Map<T> y;

  bool is_packed() const {
    return channels % kStemChannels == 0 &&
           y.template is_packed<kStemChannels>() &&
           are_packed<kStemChannels>(weight, bias);
  }
};

template <typename T>
__global__ void __launch_bounds__(kConvThreads)
    image_conv_kernel(const ImageConvArgs<T> op) {
  constexpr int kColumns = 2 * kStemOutputs + 1;
  const int height = (op.height + 1) / 2, width = (op.width + 1) / 2;
  const ConvTask task(height, width, op.channels, kStemOutputs, kStemChannels);
  if (task.item >= op.batch) return;
  const int y0 = 2 * task.row - 1, x0 = 2 * task.column - 1;
  const KernelRows rows(y0, 3, op.height);
  const T* x = op.x.at(task.item, y0, x0, 0);
  const T* weight = op.weight + task.channel;

  Array<Floats<kStemChannels>, kStemOutputs> sums = {};
#pragma unroll 1
  for (int row = rows.first; row < rows.last; ++row) {
#pragma unroll
    for (int n = 0; n < kImageChannels; ++n) {
      Floats<kColumns> columns;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const bool inside = x0 + c >= 0 && x0 + c < op.width;
        columns[c] =
            load_channels<1>(x + row * op.x.row_stride +
                                 c * op.x.column_stride + n * op.channel_stride,
                             inside)[0];
      }
#pragma unroll
      for (int k = 0; k < 3; ++k) {
        const int at = (row * 3 + k) * kImageChannels + n;
        const auto w = load_channels<kStemChannels>(weight + at * op.channels);
#pragma unroll
        for (int o = 0; o < kStemOutputs; ++o)
#pragma unroll
          for (int i = 0; i < kStemChannels; ++i)
            sums[o][i] = fmaf(w[i], columns[2 * o + k], sums[o][i]);
      }
    }
  }

  const auto bias = load_channels<kStemChannels>(op.bias + task.channel);
  T* y = op.y.at(task.item, task.row, task.column, task.channel);
#pragma unroll
  for (int o = 0; o < kStemOutputs; ++o) {
    if (task.column + o >= width) break;
#pragma unroll
    for (int i = 0; i < kStemChannels; ++i) {
      sums[o][i] += bias[i];
      if (op.relu) sums[o][i] = relu(sums[o][i]);
    }
    store_channels<kStemChannels>(sums[o], y + o * op.y.column_stride);
  }
}

// As depthwise_conv(), for memory that is_packed().
template <typename T, typename Launch>
void image_conv(const ImageConvArgs<T>& op, Launch launch) {
  launch(image_conv_kernel<T>,
         ConvTask::count(op.batch, (op.height + 1) / 2, (op.width + 1) / 2,
                         op.channels, kStemOutputs, kStemChannels),
         op);
}

}  // namespace mmmamba::cuda
