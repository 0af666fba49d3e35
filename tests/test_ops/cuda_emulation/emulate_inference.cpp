// The kernels of the ops for inference on a CPU, as C functions for ctypes.
#include "cuda_emulation.h"

#include <cstdio>

#include "mixer_conv.cuh"
#include "scan_gate.cuh"
#include "stem_conv.cuh"

using namespace mmmamba::cuda;

namespace {

// Starts a kernel on `count` threads, in blocks.
const auto launch_tasks = [](auto kernel, int64_t count, auto... args) {
  const unsigned blocks = (count + kConvThreads - 1) / kConvThreads;
  emulation::run_grid({blocks, 1, 1}, {kConvThreads, 1, 1},
                      [=] { kernel(args...); });
};

// `body` with a value of the type; 0, or 1 with the reason on stderr.
template <typename Body>
int with_type(int dtype, Body body) {
  try {
    if (dtype == 0) body(float());
    if (dtype == 1) body(__half());
    if (dtype == 2) body(__nv_bfloat16());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

template <typename T>
Map<T> map_of(const void* data, const int64_t* strides) {
  return {static_cast<T*>(const_cast<void*>(data)), strides[0], strides[1],
          strides[2]};
}

}  // namespace

extern "C" {

// Of the structs below, sizes and strides are in the order of the tensors'
// axes; the channels are contiguous.
struct ConvCall {
  int64_t sizes[4];  // of x
  int64_t kernel, stride, act;
  const void *x, *weight, *bias;
  void* y;
  int64_t x_strides[3], y_strides[3];
};

int run_depthwise_conv(const ConvCall* call, int dtype) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    DepthwiseConvArgs<T> op{};
    op.batch = call->sizes[0];
    op.height = call->sizes[1];
    op.width = call->sizes[2];
    op.channels = call->sizes[3];
    op.x = map_of<const T>(call->x, call->x_strides);
    op.weight = static_cast<const T*>(call->weight);
    op.bias = static_cast<const T*>(call->bias);
    op.act = Act(call->act);
    op.y = map_of<T>(call->y, call->y_strides);
    depthwise_conv(op, call->kernel, call->stride, launch_tasks);
  });
}

struct MixerCall {
  int64_t sizes[4];  // of x
  int64_t global, local, wavelet_kernel, local_kernel;
  const void *x, *ssm, *wavelet, *weight, *bias, *scale, *shift;
  void* y;
  int64_t x_strides[3], ssm_strides[3], y_strides[3];
};

int run_mixer_conv(const MixerCall* call, int dtype) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    MixerConvArgs<T> op{};
    op.local.batch = call->sizes[0];
    op.local.height = call->sizes[1];
    op.local.width = call->sizes[2];
    op.channels = call->sizes[3];
    op.global_channels = call->global;
    op.local.channels = call->local;
    op.x = map_of<const T>(call->x, call->x_strides);
    op.ssm = map_of<const T>(call->ssm, call->ssm_strides);
    op.wavelet = static_cast<const T*>(call->wavelet);
    op.local.weight = static_cast<const T*>(call->weight);
    op.local.bias = static_cast<const T*>(call->bias);
    op.local.scale = static_cast<const T*>(call->scale);
    op.local.shift = static_cast<const T*>(call->shift);
    op.y = map_of<T>(call->y, call->y_strides);
    mixer_conv(op, call->wavelet_kernel, call->local_kernel, launch_tasks);
  });
}

struct ImageCall {
  int64_t sizes[4];  // batch, height and width of x, channels of y
  int64_t relu;
  const void *x, *weight, *bias;
  void* y;
  int64_t x_strides[4], y_strides[3];  // of x: of its channels, too
};

int run_image_conv(const ImageCall* call, int dtype) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    ImageConvArgs<T> op{};
    op.batch = call->sizes[0];
    op.height = call->sizes[1];
    op.width = call->sizes[2];
    op.channels = call->sizes[3];
    op.x = map_of<const T>(call->x, call->x_strides);
    op.channel_stride = call->x_strides[3];
    op.weight = static_cast<const T*>(call->weight);
    op.bias = static_cast<const T*>(call->bias);
    op.relu = call->relu;
    op.y = map_of<T>(call->y, call->y_strides);
    if (!op.is_packed()) throw std::runtime_error("not packed");
    image_conv(op, launch_tasks);
  });
}

struct ScanGateCall {
  int64_t batch, length, channels, rank;
  int64_t is_float;  // of the parameters
  double eps;
  const void *x, *projected, *z;
  const void *dt_weight, *dt_bias, *A, *skip, *norm_weight, *norm_bias;
  void* y;
  int64_t x_strides[2], projected_strides[2], z_strides[2], y_strides[2];
};

int run_scan_gate(const ScanGateCall* call, int dtype) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const bool wide = call->is_float;
    const auto series = [](const void* data, const int64_t* strides) {
      return Series<const T>{static_cast<const T*>(data), strides[0],
                             strides[1]};
    };
    ScanGateArgs<T> op{};
    op.batch = call->batch;
    op.length = call->length;
    op.channels = call->channels;
    op.rank = call->rank;
    op.x = series(call->x, call->x_strides);
    op.z = series(call->z, call->z_strides);
    op.projected = series(call->projected, call->projected_strides);
    op.dt_weight = {call->dt_weight, wide};
    op.dt_bias = {call->dt_bias, wide};
    op.A = {call->A, wide};
    op.skip = {call->skip, wide};
    op.norm_weight = {call->norm_weight, wide};
    op.norm_bias = {call->norm_bias, wide};
    op.eps = call->eps;
    op.y = {static_cast<T*>(call->y), call->y_strides[0], call->y_strides[1]};
    scan_gate(op, [](auto kernel, int blocks, int threads, auto args) {
      emulation::run_grid({unsigned(blocks), 1, 1}, {unsigned(threads), 1, 1},
                          [=] { kernel(args); });
    });
  });
}

}  // extern "C"
