// Depthwise convolutions of channels-last maps, with "same" padding. A thread
// computes a few channels of neighbouring outputs of a row, which share the
// columns of the input. Free of torch.
#pragma once

#include "channels.cuh"

namespace mmmamba::cuda {

constexpr int kConvThreads = 128;  // of a block
constexpr int kConvOutputs = 4;    // of a thread, in a row

// What follows the convolution. kLocal is that of the mixer's local part,
// relu(scale * relu(y) + shift).
enum class Act { kNone, kRelu, kSilu, kLocal };

template <typename T>
struct DepthwiseConvArgs {
  int batch, height, width, channels;  // of the input
  Map<const T> x;
  const T* weight;  // (kernel, kernel, channels)
  const T* bias;    // (channels), may be absent
  const T* scale;   // (channels), of kLocal
  const T* shift;   // (channels), of kLocal
  Act act;
  Map<T> y;

  // Whether kSize channels can be moved at a time.
  template <int kSize>
  bool is_packed() const {
    return channels % kSize == 0 && x.template is_packed<kSize>() &&
           y.template is_packed<kSize>() &&
           are_packed<kSize>(weight, bias, scale, shift);
  }
};

// Sums of products: of each of kOutputs neighbours, kStride apart, over the
// rows [first, last) of the kernel and over its columns. `column(row, c)` and
// `weight(row, c)` give the numbers of a column.
template <int kKernel, int kStride, int kOutputs, int kSize, typename Column,
          typename Weight>
__device__ inline Array<Floats<kSize>, kOutputs> convolve(int first, int last,
                                                          Column column,
                                                          Weight weight) {
  constexpr int kColumns = (kOutputs - 1) * kStride + kKernel;
  Array<Floats<kSize>, kOutputs> sums = {};
#pragma unroll 1
  for (int row = first; row < last; ++row) {
    Array<Floats<kSize>, kColumns> columns;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) columns[c] = column(row, c);
#pragma unroll
    for (int k = 0; k < kKernel; ++k) {
      const Floats<kSize> w = weight(row, k);
#pragma unroll
      for (int o = 0; o < kOutputs; ++o)
#pragma unroll
        for (int i = 0; i < kSize; ++i)
          sums[o][i] = fmaf(w[i], columns[o * kStride + k][i], sums[o][i]);
    }
  }
  return sums;
}

// The rows of a kernel that lie inside `height` rows, where `top` is the row
// that the first one lies on.
struct KernelRows {
  int first, last;

  __device__ KernelRows(int top, int kernel, int height)
      : first(top < 0 ? -top : 0),
        last(top + kernel > height ? height - top : kernel) {}
};

// What a thread computes: `outputs` neighbours of a row, `size` channels.
// Neighbouring threads have neighbouring channels.
struct ConvTask {
  int item, row, column, channel;

  __device__ ConvTask(int height, int width, int channels, int outputs,
                      int size) {
    const unsigned parts = channels / size;
    const unsigned strips = (width + outputs - 1) / outputs;
    unsigned task = blockIdx.x * kConvThreads + threadIdx.x;
    channel = task % parts * size;
    task /= parts;
    column = task % strips * outputs;
    task /= strips;
    row = task % height;
    item = task / height;
  }

  static int64_t count(int batch, int height, int width, int channels,
                       int outputs, int size) {
    return int64_t(batch) * height * ((width + outputs - 1) / outputs) *
           (channels / size);
  }
};

template <typename T, int kKernel, int kStride, int kSize>
__global__ void __launch_bounds__(kConvThreads)
    depthwise_conv_kernel(const DepthwiseConvArgs<T> op) {
  const int height = (op.height + kStride - 1) / kStride;
  const int width = (op.width + kStride - 1) / kStride;
  const ConvTask task(height, width, op.channels, kConvOutputs, kSize);
  if (task.item >= op.batch) return;
  const int y0 = task.row * kStride - kKernel / 2;
  const int x0 = task.column * kStride - kKernel / 2;
  const KernelRows rows(y0, kKernel, op.height);
  const T* x = op.x.at(task.item, y0, x0, task.channel);
  const T* weight = op.weight + task.channel;

  auto sums = convolve<kKernel, kStride, kConvOutputs, kSize>(
      rows.first, rows.last,
      [&](int row, int c) {
        const bool inside = x0 + c >= 0 && x0 + c < op.width;
        return load_channels<kSize>(
            x + row * op.x.row_stride + c * op.x.column_stride, inside);
      },
      [&](int row, int k) {
        return load_channels<kSize>(weight + (row * kKernel + k) * op.channels);
      });

  const auto parameter = [&](const T* from) {
    return load_channels<kSize>(from + task.channel, from != nullptr);
  };
  const auto bias = parameter(op.bias);
  const auto scale = parameter(op.scale), shift = parameter(op.shift);
  const bool local = op.act == Act::kLocal;
  T* y = op.y.at(task.item, task.row, task.column, task.channel);
#pragma unroll
  for (int o = 0; o < kConvOutputs; ++o) {
    if (task.column + o >= width) break;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      float& v = sums[o][i];
      v += bias[i];
      if (op.act == Act::kSilu) v = silu(v);
      if (op.act == Act::kRelu || local) v = relu(v);
      if (local) v = relu(fmaf(scale[i], v, shift[i]));
    }
    store_channels<kSize>(sums[o], y + o * op.y.column_stride);
  }
}

// `launch(kernel, tasks, args)` starts as many threads, in blocks of
// kConvThreads. The kernel size is 1, 3, 5 or 7, the stride 1, or 2 with 3.
template <int kSize, typename T, typename Launch>
void depthwise_conv_by(const DepthwiseConvArgs<T>& op, int kernel, int stride,
                       Launch launch) {
  const auto tasks = ConvTask::count(
      op.batch, (op.height + stride - 1) / stride,
      (op.width + stride - 1) / stride, op.channels, kConvOutputs, kSize);
  if (kernel == 1) launch(depthwise_conv_kernel<T, 1, 1, kSize>, tasks, op);
  if (kernel == 3 && stride == 1)
    launch(depthwise_conv_kernel<T, 3, 1, kSize>, tasks, op);
  if (kernel == 3 && stride == 2)
    launch(depthwise_conv_kernel<T, 3, 2, kSize>, tasks, op);
  if (kernel == 5) launch(depthwise_conv_kernel<T, 5, 1, kSize>, tasks, op);
  if (kernel == 7) launch(depthwise_conv_kernel<T, 7, 1, kSize>, tasks, op);
}

// The same, by as many channels at a time as the memory allows.
template <typename T, typename Launch>
void depthwise_conv(const DepthwiseConvArgs<T>& op, int kernel, int stride,
                    Launch launch) {
  if (op.template is_packed<4>())
    depthwise_conv_by<4>(op, kernel, stride, launch);
  else if (op.template is_packed<2>())
    depthwise_conv_by<2>(op, kernel, stride, launch);
  else
    depthwise_conv_by<1>(op, kernel, stride, launch);
}

}  // namespace mmmamba::cuda
