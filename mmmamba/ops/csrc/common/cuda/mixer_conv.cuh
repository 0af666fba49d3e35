// The mixer's convolutions: the wavelet branch with what the SSM adds, the
// local part, and the channels that pass. Free of torch.
#pragma once

#include "depthwise_conv.cuh"

namespace mmmamba::cuda {

constexpr int kSubbands = 4;

// `local` has the sizes of the maps, of no channels if there is no local part.
template <typename T>
struct MixerConvArgs {
  DepthwiseConvArgs<T> local;
  Map<const T> x, ssm;  // from the first channel on
  int global_channels, channels;
  const T* wavelet;  // (4, kernel, kernel, global_channels), or absent
  Map<T> y;

  // Whether the wavelet branch can move kSize channels at a time.
  template <int kSize>
  bool is_packed() const {
    return global_channels % kSize == 0 && x.template is_packed<kSize>() &&
           ssm.template is_packed<kSize>() && y.template is_packed<kSize>() &&
           are_packed<kSize>(wavelet);
  }
};

// kSize channels of 2x2 pixels, in reading order, or of their subbands.
template <int kSize>
struct Square : Floats<kSubbands * kSize> {
  // Twice the Haar transform, or twice its inverse: they are the same.
  __device__ void transform() {
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      float &a = this->values[i], &b = this->values[kSize + i],
            &c = this->values[2 * kSize + i], &d = this->values[3 * kSize + i];
      const float upper = a + b, lower = c + d, left = a - b, right = c - d;
      a = upper + lower;
      b = upper - lower;
      c = left + right;
      d = left - right;
    }
  }
};

// Call visit(p) for the pixels, or the subbands.
template <typename Visit>
__device__ inline void for_square(Visit visit) {
#pragma unroll
  for (int p = 0; p < kSubbands; ++p) visit(p);
}

// relu(ssm + wavelet(x)), of the global channels. A thread has some channels of
// kSquares neighbouring squares; a column of the convolution has their
// subbands.
template <typename T, int kKernel, int kSquares, int kSize>
__global__ void __launch_bounds__(kConvThreads)
    wavelet_kernel(const MixerConvArgs<T> op) {
  const int height = op.local.height, width = op.local.width;
  const int rows = (height + 1) / 2, columns = (width + 1) / 2;  // of squares
  const ConvTask task(rows, columns, op.global_channels, kSquares, kSize);
  if (task.item >= op.local.batch) return;
  const int y0 = task.row - kKernel / 2, x0 = task.column - kKernel / 2;
  const KernelRows inside(y0, kKernel, rows);
  const T* x = op.x.at(task.item, 2 * y0, 2 * x0, task.channel);
  const T* wavelet = op.wavelet + task.channel;

  auto sums = convolve<kKernel, 1, kSquares, kSubbands * kSize>(
      inside.first, inside.last,
      [&](int row, int c) {
        Square<kSize> square;
        for_square([&](int p) {
          const int i = 2 * row + p / 2, j = 2 * c + p % 2;
          const bool exists =
              2 * x0 + j >= 0 && 2 * x0 + j < width && 2 * y0 + i < height;
          const auto pixel = load_channels<kSize>(
              x + i * op.x.row_stride + j * op.x.column_stride, exists);
#pragma unroll
          for (int n = 0; n < kSize; ++n)
            square.values[p * kSize + n] = pixel[n];
        });
        square.transform();
        return square;
      },
      [&](int row, int k) {
        Floats<kSubbands * kSize> weights;
        for_square([&](int p) {
          const int at = (p * kKernel + row) * kKernel + k;
          const auto weight =
              load_channels<kSize>(wavelet + at * op.global_channels);
#pragma unroll
          for (int n = 0; n < kSize; ++n) weights[p * kSize + n] = weight[n];
        });
        return weights;
      });

  const T* ssm =
      op.ssm.at(task.item, 2 * task.row, 2 * task.column, task.channel);
  T* y = op.y.at(task.item, 2 * task.row, 2 * task.column, task.channel);
#pragma unroll
  for (int o = 0; o < kSquares; ++o) {
    Square<kSize> square{sums[o]};
    square.transform();
    for_square([&](int p) {
      const int i = p / 2, j = 2 * o + p % 2;
      if (2 * task.row + i >= height || 2 * task.column + j >= width) return;
      auto values = load_channels<kSize>(ssm + i * op.ssm.row_stride +
                                         j * op.ssm.column_stride);
#pragma unroll
      for (int n = 0; n < kSize; ++n)
        values[n] = relu(fmaf(0.25f, square.values[p * kSize + n], values[n]));
      store_channels<kSize>(values,
                            y + i * op.y.row_stride + j * op.y.column_stride);
    });
  }
}

// relu of `channels` that no convolution is for.
template <typename T>
__global__ void __launch_bounds__(kConvThreads)
    relu_kernel(const MixerConvArgs<T> op, const Map<const T> from,
                const Map<T> y, int channels) {
  const ConvTask task(op.local.height, op.local.width, channels, 1, 1);
  if (task.item >= op.local.batch) return;
  const T value = *from.at(task.item, task.row, task.column, task.channel);
  narrow(relu(widen(value)),
         *y.at(task.item, task.row, task.column, task.channel));
}

template <typename T>
Map<T> from_channel(Map<T> map, int channel) {
  map.data += channel;
  return map;
}

template <int kSize, typename T, typename Launch>
void wavelet_by(const MixerConvArgs<T>& op, int kernel, Launch launch) {
  const auto& size = op.local;
  const auto tasks = [&](int squares) {
    return ConvTask::count(size.batch, (size.height + 1) / 2,
                           (size.width + 1) / 2, op.global_channels, squares,
                           kSize);
  };
  // Small kernels are those of small maps.
  if (kernel == 1) launch(wavelet_kernel<T, 1, 2, kSize>, tasks(2), op);
  if (kernel == 3) launch(wavelet_kernel<T, 3, 2, kSize>, tasks(2), op);
  if (kernel == 5) launch(wavelet_kernel<T, 5, 4, kSize>, tasks(4), op);
  if (kernel == 7) launch(wavelet_kernel<T, 7, 4, kSize>, tasks(4), op);
}

// As depthwise_conv(), with more arguments for some kernels. The sizes of both
// kernels are 1, 3, 5 or 7.
template <typename T, typename Launch>
void mixer_conv(MixerConvArgs<T> op, int wavelet_kernel_size, int local_kernel,
                Launch launch) {
  const auto& size = op.local;
  const int global = op.global_channels, local = size.channels;
  const auto pass = [&](Map<const T> from, int first, int channels) {
    if (channels > 0)
      launch(
          relu_kernel<T>,
          ConvTask::count(size.batch, size.height, size.width, channels, 1, 1),
          op, from, from_channel(op.y, first), channels);
  };

  if (op.wavelet == nullptr)
    pass(op.ssm, 0, global);
  else if (op.template is_packed<2>())
    wavelet_by<2>(op, wavelet_kernel_size, launch);
  else
    wavelet_by<1>(op, wavelet_kernel_size, launch);
  if (local > 0) {
    op.local.act = Act::kLocal;
    op.local.x = from_channel(op.x, global);
    op.local.y = from_channel(op.y, global);
    depthwise_conv(op.local, local_kernel, 1, launch);
  }
  pass(from_channel(op.x, global + local), global + local,
       op.channels - global - local);
}

}  // namespace mmmamba::cuda
