// Both scans on CUDA devices: tensors to the arguments of their kernels. As its
// templates are compiled for one scan each, every <op>.cu includes it.
#pragma once

#include "../../common/cuda/selective_scan.cuh"
#include "../scan.h"
#include "device.cuh"

namespace mmmamba::cuda {

// The type that a kernel reads all sequences in: theirs if they agree.
inline at::ScalarType common_type(at::TensorList sequences) {
  auto type = sequences[0].scalar_type();
  for (const auto& tensor : sequences)
    type = at::promoteTypes(type, tensor.scalar_type());
  return type;
}

// Point `to` at a (batch, rows, length) tensor, or at none. Any strides will
// do, but only neighbouring positions are read together.
template <typename T>
void point(Sequences<T>& to, const Tensor& tensor) {
  if (!tensor.defined()) return;
  auto* data = static_cast<T*>(tensor.data_ptr());
  const bool aligned =
      tensor.stride(2) == 1 && tensor.stride(1) % kItems == 0 &&
      tensor.stride(0) % kItems == 0 &&
      reinterpret_cast<uintptr_t>(data) % alignof(Vector<T>) == 0;
  to = {data, tensor.stride(0), tensor.stride(1), tensor.stride(2), aligned};
}

template <typename F>
void point(F*& to, const Tensor& tensor) {
  if (tensor.defined()) to = static_cast<F*>(tensor.data_ptr());
}

inline at::TensorOptions compute_options(const ScanInputs& in) {
  return in.x.options().dtype(compute_type(in.type));
}

template <typename Scan>
Scan scan_of(const ScanInputs& in) {
  Scan scan{};
  scan.batch = in.x.size(0);
  scan.directions = in.directions;
  scan.channels = in.A.size(0) / in.directions;
  scan.states = in.A.size(1);
  scan.rank = in.rank();
  scan.height = in.height;
  scan.length = in.x.size(2);
  scan.softplus = in.softplus;
  point(scan.x, in.x);
  point(scan.B, in.B);
  point(scan.C, in.C);
  point(scan.delta, in.delta);
  point(scan.dt, in.dt);
  point(scan.weight, in.weight);
  point(scan.A, in.A);
  point(scan.D, in.D);
  point(scan.bias, in.bias);
  return scan;
}

// Start the kernels; `set_outputs(scan, plan)` says where they write.
template <bool kBackward, typename Scan, typename SetOutputs>
void run_on_stream(Scan scan, const at::TensorOptions& options,
                   SetOutputs set_outputs) {
  const auto plan =
      make_plan(scan, kBackward,
                at::cuda::getCurrentDeviceProperties()->multiProcessorCount);
  // The kernels count positions and teams in 32 bits.
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  TORCH_CHECK_VALUE(int64_t(plan.chunks) * plan.team * kItems <= kMost,
                    "mmmamba: the sequences are too long for a scan on a GPU");
  TORCH_CHECK_VALUE(plan.blocks * plan.teams <= kMost,
                    "mmmamba: too many sequences for one "
                    "scan on a GPU; split the batch");
  set_outputs(scan, plan);
  const auto summary = at::empty({summary_size(scan, plan)}, options);
  const auto stream = at::cuda::getCurrentCUDAStream();
  const auto launch = [&](auto kernel, const Scan& scan, const Plan& plan) {
    const dim3 block(plan.team, plan.teams);
    kernel<<<plan.blocks, block, 0, stream>>>(scan, plan);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  run<kBackward>(scan, plan, static_cast<typename Scan::F*>(summary.data_ptr()),
                 launch);
}

// The same in the type of the inputs; nothing is done for a scan of nothing.
template <bool kBackward, bool kBidirectional, typename SetOutputs>
void run_scan(const ScanInputs& in, SetOutputs set_outputs) {
  if (in.x.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(in.x.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, in.type, "selective_scan", [&] {
        using T = storage_t<scalar_t>;
        run_on_stream<kBackward>(scan_of<Scan<T, kBidirectional>>(in),
                                 compute_options(in), set_outputs);
      });
}

template <bool kBidirectional>
Tensor forward(const ScanInputs& in, const Tensor& like) {
  // In the type that is computed in: what is rounded is the sum.
  auto y = at::empty_like(like, like.options().dtype(in.type));
  run_scan<false, kBidirectional>(
      in, [&](auto& scan, const Plan&) { point(scan.y, y); });
  return y.to(like.scalar_type());
}

// The rows are those of B and C, and delta is there in any case.
template <bool kBidirectional>
ScanGrads backward(const ScanInputs& in, const Tensor& grad) {
  const auto batch = in.x.size(0), length = in.x.size(2);
  const auto channels = in.A.size(0), N = in.A.size(1);
  const auto dy = grad.to(in.type), dx = at::empty_like(in.x);
  const auto d_delta =
      kBidirectional ? at::empty({batch, channels, length}, in.x.options())
                     : at::empty_like(in.delta);
  // Without parts, the sums are 0: that is what a scan of nothing leaves.
  auto rows =
      at::empty({0, batch, in.directions, 2 * N, length}, compute_options(in));
  auto parameters = at::empty({0, channels, N + 2}, compute_options(in));
  run_scan<true, kBidirectional>(in, [&](auto& scan, const Plan& plan) {
    rows.resize_({plan.tiles, batch, in.directions, 2 * N, length});
    parameters.resize_({plan.parameter_parts(batch), channels, N + 2});
    point(scan.dy, dy);
    point(scan.dx, dx);
    point(scan.d_delta, d_delta);
    point(scan.d_rows, rows);
    point(scan.d_parameters, parameters);
  });
  parameters = parameters.sum(0);
  ScanGrads g;
  g.x = dx;
  g.delta = d_delta;
  g.A = parameters.narrow(1, 0, N);
  g.D = parameters.select(1, N);
  g.bias = parameters.select(1, N + 1);
  g.rows = rows.size(0) == 1 ? rows[0] : rows.sum(0);
  return g;
}

}  // namespace mmmamba::cuda
