// CPU implementations of the scan: tensors to kernel arguments, and threads.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "../../common/cpu/scan.hpp"
#include "../ops.h"
#include "this_cpu.h"

namespace mmmamba {
namespace {

template <typename T>
const ScanKernels<T>& kernels() {
  static const ScanKernels<T> chosen = MMMAMBA_FOR_THIS_CPU(scan_kernels<T>());
  return chosen;
}

template <typename T, typename Pointer = const T>
Sequences<Pointer> sequences(const Tensor& t) {
  return {t.data_ptr<T>(), t.stride(0), t.stride(1), t.stride(2)};
}

template <typename T>
Rows<const T> rows(const Tensor& t) {
  return {t.data_ptr<T>(), t.stride(0), t.stride(1), t.stride(2),
          t.stride(3)};
}

template <typename T>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data_ptr<T>() : nullptr;
}

// The state is float32, whatever the inputs, or float64.
at::ScalarType compute_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

Tensor parameter(const OptionalTensor& t, at::ScalarType dtype) {
  return t ? t->to(dtype).contiguous() : Tensor();
}

// The inputs of both ops in the computation's dtype, and their gradients.
struct Inputs {
  Tensor x, delta, dt, B, C, dt_weight, dt_bias, A, skip;
  bool softplus;
  Sizes sizes;

  template <typename T>
  ScanArgs<T> args() const {
    ScanArgs<T> args = {};
    args.sizes = sizes;
    args.x = sequences<T>(x);
    if (delta.defined()) args.delta = sequences<T>(delta);
    if (dt.defined()) args.dt = rows<T>(dt);
    args.B = rows<T>(B);
    args.C = rows<T>(C);
    args.dt_weight = pointer<T>(dt_weight);
    args.dt_bias = pointer<T>(dt_bias);
    args.A = pointer<T>(A);
    args.skip = pointer<T>(skip);
    args.softplus = softplus;
    return args;
  }
};

Inputs selective_inputs(const Tensor& u, const Tensor& delta, const Tensor& A,
                        const Tensor& B, const Tensor& C,
                        const OptionalTensor& D,
                        const OptionalTensor& delta_bias, bool softplus) {
  check_selective_scan(u, delta, A, B, C, D, delta_bias);
  const auto dtype = compute_type(u);
  Inputs in;
  in.x = u.to(dtype);
  in.delta = delta.to(dtype);
  in.B = B.to(dtype);
  in.C = C.to(dtype);
  in.A = parameter(A, dtype);
  in.skip = parameter(D, dtype);
  in.dt_bias = parameter(delta_bias, dtype);
  in.softplus = softplus;
  in.sizes = {u.size(0), B.size(1), u.size(1) / B.size(1),
              A.size(1), u.size(2), 0,
              0};
  return in;
}

Inputs bidirectional_inputs(const Tensor& x, const Tensor& projected,
                            const Tensor& dt_weight, const Tensor& dt_bias,
                            const Tensor& A, const OptionalTensor& D) {
  check_bidirectional_scan(x, projected, dt_weight, dt_bias, A, D);
  const auto dtype = compute_type(x);
  const int64_t N = A.size(1), R = dt_weight.size(2);
  Inputs in;
  in.x = x.to(dtype);
  const Tensor all = projected.to(dtype);
  in.dt = all.narrow(2, 0, R);
  in.B = all.narrow(2, R, N);
  in.C = all.narrow(2, R + N, N);
  in.dt_weight = parameter(dt_weight, dtype);
  in.dt_bias = parameter(dt_bias, dtype);
  in.A = parameter(A, dtype);
  in.skip = parameter(D, dtype);
  in.softplus = true;
  in.sizes = {x.size(0), 2, x.size(1), N, x.size(2), R, 0};
  return in;
}

template <typename T>
void run(void (*kernel)(const ScanArgs<T>&, int64_t, int64_t),
         const ScanArgs<T>& args, int64_t tasks) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    kernel(args, begin, end);
  });
}

// Calls body with a value of the computation's type.
template <typename Body>
void dispatch(const Inputs& in, Body body) {
  if (in.x.scalar_type() == at::kDouble)
    body(double());
  else
    body(float());
}

int64_t blocks(const Sizes& sizes, int64_t lanes) {
  return (sizes.channels + lanes - 1) / lanes;
}

Tensor forward(const Inputs& in, const Tensor& x, bool bidirectional) {
  Tensor y = at::empty_like(x, x.options().dtype(in.x.scalar_type()));
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    auto args = in.args<T>();
    args.y = sequences<T, T>(y);
    const auto& k = kernels<T>();
    const int64_t tasks = in.sizes.batch * blocks(in.sizes, k.lanes);
    if (bidirectional)
      run(k.bidirectional_forward, args, tasks);
    else
      run(k.selective_forward, args, tasks * in.sizes.directions);
  });
  return y.to(x.scalar_type());
}

struct Grads {
  Tensor x, delta, dt_weight, dt_bias, A, skip;
  Tensor rows;  // of dt, B and C: (batch, K, R + 2N, L)
};

Grads backward(Inputs in, const Tensor& grad, bool bidirectional) {
  check_gradient(grad, in.x);
  Sizes& sizes = in.sizes;
  const int64_t row_count = sizes.rank + 2 * sizes.d_state;
  // As many parts as threads may want while their sums take no more memory
  // than the channels do; not a function of the number of threads.
  sizes.splits = std::max<int64_t>(
      2, std::min<int64_t>(
             16, sizes.channels / std::max<int64_t>(1, row_count)));

  const auto options = in.x.options();
  const Tensor grad_y = grad.to(in.x.scalar_type());
  const auto per_sample = [&](const Tensor& parameter) {
    if (!parameter.defined()) return Tensor();
    std::vector<int64_t> shape = parameter.sizes().vec();
    shape.insert(shape.begin(), sizes.batch);
    return at::empty(shape, options);
  };
  Grads g;
  g.x = at::empty_like(in.x);
  if (in.delta.defined()) g.delta = at::empty_like(in.delta);
  g.dt_weight = per_sample(in.dt_weight);
  g.dt_bias = per_sample(in.dt_bias);
  g.A = per_sample(in.A);
  g.skip = per_sample(in.skip);
  g.rows = at::zeros({sizes.batch, sizes.directions, sizes.splits, row_count,
                      sizes.length},
                     options);

  dispatch(in, [&](auto type) {
    using T = decltype(type);
    auto args = in.args<T>();
    args.grad_y = sequences<T>(grad_y);
    args.grad_x = sequences<T, T>(g.x);
    if (g.delta.defined()) args.grad_delta = sequences<T, T>(g.delta);
    args.grad_dt_weight = pointer<T>(g.dt_weight);
    args.grad_dt_bias = pointer<T>(g.dt_bias);
    args.grad_A = pointer<T>(g.A);
    args.grad_skip = pointer<T>(g.skip);
    args.grad_rows = pointer<T>(g.rows);
    const auto& k = kernels<T>();
    const int64_t tasks = sizes.batch * sizes.splits;
    if (bidirectional)
      run(k.bidirectional_backward, args, tasks);
    else
      run(k.selective_backward, args, tasks * sizes.directions);
  });

  for (Tensor* t : {&g.dt_weight, &g.dt_bias, &g.A, &g.skip})
    if (t->defined()) *t = t->sum(0);
  g.rows = g.rows.sum(2);
  return g;
}

// A gradient with the dtype and the strides of its input.
Tensor like(const Tensor& grad, const Tensor& input) {
  return at::empty_like(input).copy_(grad);
}

Tensor like(const Tensor& grad, const OptionalTensor& input,
            const Tensor& any) {
  return input ? like(grad, *input) : at::empty({0}, any.options());
}

Tensor selective_scan(const Tensor& u, const Tensor& delta, const Tensor& A,
                      const Tensor& B, const Tensor& C,
                      const OptionalTensor& D,
                      const OptionalTensor& delta_bias, bool delta_softplus) {
  return forward(selective_inputs(u, delta, A, B, C, D, delta_bias,
                                  delta_softplus),
                 u, false);
}

SelectiveGrads selective_scan_backward(
    const Tensor& grad, const Tensor& u, const Tensor& delta, const Tensor& A,
    const Tensor& B, const Tensor& C, const OptionalTensor& D,
    const OptionalTensor& delta_bias, bool delta_softplus) {
  const Grads g = backward(
      selective_inputs(u, delta, A, B, C, D, delta_bias, delta_softplus),
      grad, false);
  const int64_t N = A.size(1);
  return {g.x.to(u.scalar_type()),
          g.delta.to(delta.scalar_type()),
          like(g.A, A),
          like(g.rows.narrow(2, 0, N), B),
          like(g.rows.narrow(2, N, N), C),
          like(g.skip, D, u),
          like(g.dt_bias, delta_bias, u)};
}

Tensor bidirectional_scan(const Tensor& x, const Tensor& projected,
                          const Tensor& dt_weight, const Tensor& dt_bias,
                          const Tensor& A, const OptionalTensor& D) {
  return forward(
      bidirectional_inputs(x, projected, dt_weight, dt_bias, A, D), x, true);
}

BidirectionalGrads bidirectional_scan_backward(
    const Tensor& grad, const Tensor& x, const Tensor& projected,
    const Tensor& dt_weight, const Tensor& dt_bias, const Tensor& A,
    const OptionalTensor& D) {
  const Grads g = backward(
      bidirectional_inputs(x, projected, dt_weight, dt_bias, A, D), grad,
      true);
  return {g.x.to(x.scalar_type()),    like(g.rows, projected),
          like(g.dt_weight, dt_weight), like(g.dt_bias, dt_bias),
          like(g.A, A),                 like(g.skip, D, x)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("selective_scan", selective_scan);
  m.impl("selective_scan_backward", selective_scan_backward);
  m.impl("bidirectional_scan", bidirectional_scan);
  m.impl("bidirectional_scan_backward", bidirectional_scan_backward);
}

}  // namespace mmmamba
