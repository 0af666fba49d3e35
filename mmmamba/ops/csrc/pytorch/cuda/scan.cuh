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
struct Storage {
  using type = T;
};
template <>
struct Storage<at::Half> {
  using type = __half;
};
template <>
struct Storage<at::BFloat16> {
  using type = __nv_bfloat16;
};

// The type that a kernel reads all sequences in: theirs if they agree.
inline at::ScalarType common_type(at::TensorList sequences) {
  const auto type = sequences[0].scalar_type();
  bool same = true, has_double = false;
  for (const auto& tensor : sequences) {
    same = same && tensor.scalar_type() == type;
    has_double = has_double || tensor.scalar_type() == at::kDouble;
  }
  if (same) return type;
  return has_double ? at::kDouble : at::kFloat;
}

inline at::ScalarType compute_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

template <typename T>
bool is_aligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % alignof(Vector<T>) == 0;
}

// Any strides will do, but only neighbouring positions are read together.
template <typename T>
Sequences<T> sequences_of(const Tensor& tensor) {
  auto* data = static_cast<T*>(tensor.data_ptr());
  const bool aligned = tensor.stride(2) == 1 &&
                       tensor.stride(1) % kItems == 0 &&
                       tensor.stride(0) % kItems == 0 && is_aligned(data);
  return {data, tensor.stride(0), tensor.stride(1), tensor.stride(2), aligned};
}

// `tensor` has contiguous positions.
template <typename T>
Rows<const T> rows_of(const Tensor& tensor) {
  const auto* data = static_cast<const T*>(tensor.data_ptr());
  const bool aligned = tensor.size(3) % kItems == 0 && is_aligned(data);
  return {data, tensor.stride(0), tensor.stride(1), aligned};
}

template <typename F>
const F* data_of(const Tensor& tensor) {
  return tensor.defined() ? static_cast<const F*>(tensor.data_ptr()) : nullptr;
}

inline Tensor parameter(const OptionalTensor& tensor, at::ScalarType type) {
  return tensor ? tensor->to(compute_type(type)).contiguous() : Tensor();
}

// The inputs of either operator as the kernels take them, and kept alive.
struct Inputs {
  at::ScalarType type;
  bool bidirectional;
  bool softplus;
  Tensor x, B, C, A, D, bias;
  Tensor delta;       // selective
  Tensor dt, weight;  // bidirectional

  explicit Inputs(const SelectiveScan& in)
      : type(common_type({in.u, in.delta, in.B, in.C})),
        bidirectional(false),
        softplus(in.delta_softplus),
        x(in.u.to(type)),
        B(in.B.to(type).contiguous()),
        C(in.C.to(type).contiguous()),
        A(parameter(in.A, type)),
        D(parameter(in.D, type)),
        bias(parameter(in.delta_bias, type)),
        delta(in.delta.to(type)) {}

  explicit Inputs(const BidirectionalScan& in)
      : type(common_type({in.x, in.projected})),
        bidirectional(true),
        softplus(true),
        x(in.x.to(type)),
        A(parameter(in.A, type)),
        D(parameter(in.D, type)),
        bias(parameter(in.dt_bias, type)),
        weight(parameter(in.dt_weight, type)) {
    const auto rank = weight.size(2), states = A.size(1);
    const auto rows = in.projected.to(type).contiguous();
    dt = rows.narrow(2, 0, rank);
    B = rows.narrow(2, rank, states);
    C = rows.narrow(2, rank + states, states);
  }

  int64_t directions() const { return B.size(1); }
  int64_t channels() const { return A.size(0) / directions(); }  // of one
  int64_t states() const { return A.size(1); }
  int64_t length() const { return x.size(2); }

  at::TensorOptions compute_options() const {
    return x.options().dtype(compute_type(type));
  }
};

template <typename T>
Scan<T> scan_of(const Inputs& in) {
  using F = compute_t<T>;
  Scan<T> scan{};
  scan.batch = in.x.size(0);
  scan.directions = in.directions();
  scan.channels = in.channels();
  scan.states = in.states();
  scan.length = in.length();
  scan.x = sequences_of<const T>(in.x);
  scan.B = rows_of<T>(in.B);
  scan.C = rows_of<T>(in.C);
  scan.A = data_of<F>(in.A);
  scan.D = data_of<F>(in.D);
  scan.bias = data_of<F>(in.bias);
  scan.softplus = in.softplus;
  if (in.bidirectional) {
    scan.rank = in.weight.size(2);
    scan.dt = rows_of<T>(in.dt);
    scan.weight = data_of<F>(in.weight);
  } else {
    scan.delta = sequences_of<const T>(in.delta);
  }
  return scan;
}

// Starts a kernel as selective_scan.cuh asks for it.
struct LaunchOnStream {
  cudaStream_t stream = at::cuda::getCurrentCUDAStream();

  template <typename... Parameters, typename... Arguments>
  void operator()(void (*kernel)(Parameters...), const Plan& plan,
                  const Arguments&... arguments) const {
    TORCH_CHECK_VALUE(plan.fits(),
                      "mmmamba: too many sequences for one "
                      "scan on a GPU; split the batch");
    const dim3 block(plan.team, plan.teams);
    kernel<<<dim3(plan.blocks), block, 0, stream>>>(arguments...);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

inline int processors() {
  return at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
}

template <bool kBidirectional, typename Scalar>
void forward_as(const Inputs& in, const Tensor& y) {
  using T = typename Storage<Scalar>::type;
  const auto scan = scan_of<T>(in);
  const auto plan = make_plan<kBidirectional>(scan, false, processors());
  const auto summary =
      at::empty({summary_size(scan, plan)}, in.compute_options());
  run_forward<kBidirectional>(scan, plan,
                              static_cast<compute_t<T>*>(summary.data_ptr()),
                              sequences_of<T>(y), LaunchOnStream());
}

template <bool kBidirectional>
Tensor forward(const Inputs& in, const Tensor& like) {
  // In the type that is computed in: what is rounded is the sum.
  auto y = at::empty_like(like, like.options().dtype(in.type));
  if (y.numel() > 0)
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, in.type, "selective_scan",
        [&] { forward_as<kBidirectional, scalar_t>(in, y); });
  return y.to(like.scalar_type());
}

// The gradients that the kernels give, sums over their parts done.
struct Outputs {
  Tensor x, delta;    // in the type of the kernel
  Tensor rows;        // (batch, K, 2N, L): of B, then of C
  Tensor parameters;  // (K*D, N + 2): of A, D, bias
};

template <bool kBidirectional, typename Scalar>
Outputs backward_as(const Inputs& in, const Tensor& dy) {
  using T = typename Storage<Scalar>::type;
  using F = compute_t<T>;
  const auto batch = in.x.size(0), K = in.directions(), N = in.states();
  const auto channels = K * in.channels(), L = in.length();
  const auto scan = scan_of<T>(in);
  const auto plan = make_plan<kBidirectional>(scan, true, processors());

  const auto options = in.compute_options();
  const auto summary = at::empty({summary_size(scan, plan)}, options);
  Outputs out;
  out.x = at::empty_like(in.x);
  out.delta = kBidirectional ? at::empty({batch, channels, L}, in.x.options())
                             : at::empty_like(in.delta);
  auto rows = at::empty({plan.row_parts(), batch, K, 2 * N, L}, options);
  auto parameters =
      at::empty({plan.parameter_parts(batch), channels, N + 2}, options);
  Gradients<T> grads{};
  grads.y = sequences_of<const T>(dy);
  grads.x = sequences_of<T>(out.x);
  grads.delta = sequences_of<T>(out.delta);
  grads.rows = static_cast<F*>(rows.data_ptr());
  grads.parameters = static_cast<F*>(parameters.data_ptr());
  run_backward<kBidirectional>(scan, plan, static_cast<F*>(summary.data_ptr()),
                               grads, LaunchOnStream());

  out.rows = rows.size(0) == 1 ? rows[0] : rows.sum(0);
  out.parameters = parameters.sum(0);
  return out;
}

template <bool kBidirectional>
Outputs backward(const Inputs& in, const Tensor& grad) {
  Outputs out;
  if (in.x.numel() == 0) {
    const auto options = in.compute_options();
    out.x = at::empty_like(in.x);
    out.delta =
        at::empty({in.x.size(0), in.A.size(0), in.length()}, in.x.options());
    out.rows = at::zeros(
        {in.x.size(0), in.directions(), 2 * in.states(), in.length()}, options);
    out.parameters = at::zeros({in.A.size(0), in.states() + 2}, options);
    return out;
  }
  const auto dy = grad.to(in.type);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, in.type, "selective_scan_backward",
      [&] { out = backward_as<kBidirectional, scalar_t>(in, dy); });
  return out;
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
