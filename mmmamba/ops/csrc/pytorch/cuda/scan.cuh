// Both scans on CUDA devices: tensors to the arguments of their kernels. As its
// templates are compiled for one scan each, every <op>.cu includes it.
#pragma once

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include "../../common/cuda/selective_scan.cuh"
#include "../scan.h"

namespace mmmamba::cuda {

// CUDA's type of what a tensor stores.
template <typename T>
using storage_t = std::conditional_t<
    std::is_same_v<T, at::Half>, __half,
    std::conditional_t<std::is_same_v<T, at::BFloat16>, __nv_bfloat16, T>>;

// The type that a kernel reads all sequences in: theirs if they agree.
inline at::ScalarType common_type(at::TensorList sequences) {
  auto type = sequences[0].scalar_type();
  for (const auto& tensor : sequences)
    type = at::promoteTypes(type, tensor.scalar_type());
  return type;
}

inline at::ScalarType compute_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
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

inline Tensor parameter(const OptionalTensor& tensor, at::ScalarType type) {
  return tensor ? tensor->to(compute_type(type)).contiguous() : Tensor();
}

// The rows of all directions one below the other: (batch, K*rows, L).
inline Tensor rows_of(const Tensor& tensor, at::ScalarType type) {
  return tensor.to(type).contiguous().flatten(1, 2);
}

// The inputs of either operator as the kernels take them, and kept alive.
struct Inputs {
  at::ScalarType type;
  bool softplus;
  int64_t directions;
  int64_t height;  // of B, C and dt, from one direction to the next
  Tensor x, B, C, A, D, bias;
  Tensor delta;       // selective
  Tensor dt, weight;  // bidirectional

  explicit Inputs(const SelectiveScan& in)
      : type(common_type({in.u, in.delta, in.B, in.C})),
        softplus(in.delta_softplus),
        directions(in.B.size(1)),
        height(in.B.size(2)),
        x(in.u.to(type)),
        B(rows_of(in.B, type)),
        C(rows_of(in.C, type)),
        A(parameter(in.A, type)),
        D(parameter(in.D, type)),
        bias(parameter(in.delta_bias, type)),
        delta(in.delta.to(type)) {}

  explicit Inputs(const BidirectionalScan& in)
      : type(common_type({in.x, in.projected})),
        softplus(true),
        directions(2),
        height(in.projected.size(2)),
        x(in.x.to(type)),
        A(parameter(in.A, type)),
        D(parameter(in.D, type)),
        bias(parameter(in.dt_bias, type)),
        dt(rows_of(in.projected, type)),
        weight(parameter(in.dt_weight, type)) {
    const auto rank = weight.size(2);
    B = dt.slice(1, rank);
    C = dt.slice(1, rank + A.size(1));
  }

  at::TensorOptions compute_options() const {
    return x.options().dtype(compute_type(type));
  }
};

template <typename Scan>
Scan scan_of(const Inputs& in) {
  Scan scan{};
  scan.batch = in.x.size(0);
  scan.directions = in.directions;
  scan.channels = in.A.size(0) / in.directions;
  scan.states = in.A.size(1);
  scan.rank = in.weight.defined() ? in.weight.size(2) : 0;
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
  // The kernels count teams in 32 bits.
  TORCH_CHECK_VALUE(plan.blocks * plan.teams <= std::numeric_limits<int>::max(),
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
void run_scan(const Inputs& in, SetOutputs set_outputs) {
  if (in.x.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(in.x.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, in.type, "selective_scan", [&] {
        using T = storage_t<scalar_t>;
        run_on_stream<kBackward>(scan_of<Scan<T, kBidirectional>>(in),
                                 in.compute_options(), set_outputs);
      });
}

template <bool kBidirectional>
Tensor forward(const Inputs& in, const Tensor& like) {
  // In the type that is computed in: what is rounded is the sum.
  auto y = at::empty_like(like, like.options().dtype(in.type));
  run_scan<false, kBidirectional>(
      in, [&](auto& scan, const Plan&) { point(scan.y, y); });
  return y.to(like.scalar_type());
}

// The gradients that the kernels give, sums over their parts done.
struct Outputs {
  Tensor x, delta;    // in the type of the kernel
  Tensor rows;        // (batch, K, 2N, L): of B, then of C
  Tensor parameters;  // (K*D, N + 2): of A, D, bias
};

template <bool kBidirectional>
Outputs backward(const Inputs& in, const Tensor& grad) {
  const auto batch = in.x.size(0), length = in.x.size(2);
  const auto channels = in.A.size(0), N = in.A.size(1);
  const auto dy = grad.to(in.type), dx = at::empty_like(in.x);
  const auto d_delta =
      kBidirectional ? at::empty({batch, channels, length}, in.x.options())
                     : at::empty_like(in.delta);
  // Without parts, the sums are 0: that is what a scan of nothing leaves.
  auto rows =
      at::empty({0, batch, in.directions, 2 * N, length}, in.compute_options());
  auto parameters = at::empty({0, channels, N + 2}, in.compute_options());
  run_scan<true, kBidirectional>(in, [&](auto& scan, const Plan& plan) {
    rows.resize_({plan.tiles, batch, in.directions, 2 * N, length});
    parameters.resize_({plan.parameter_parts(batch), channels, N + 2});
    point(scan.dy, dy);
    point(scan.dx, dx);
    point(scan.d_delta, d_delta);
    point(scan.d_rows, rows);
    point(scan.d_parameters, parameters);
  });
  return {dx, d_delta, rows.size(0) == 1 ? rows[0] : rows.sum(0),
          parameters.sum(0)};
}

// A gradient as it is handed out: with dtype and strides of its input.
inline Tensor gradient_of(const Tensor& input, const Tensor& grad) {
  return at::empty_like(input).copy_(grad);
}

// The gradient of a parameter with one number per channel.
inline Tensor column(const Outputs& out, int64_t index,
                     const OptionalTensor& like, const Tensor& absent) {
  if (!like) return at::empty({0}, absent.options());
  return gradient_of(*like,
                     out.parameters.select(1, index).reshape(like->sizes()));
}

}  // namespace mmmamba::cuda
