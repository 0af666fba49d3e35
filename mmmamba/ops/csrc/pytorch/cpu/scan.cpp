#include "scan.h"

#include <algorithm>

#include "launch.h"

namespace mmmamba::cpu {
namespace {

using mmmamba::scan::Args;
using mmmamba::scan::Rows;
using mmmamba::scan::Sequences;
using mmmamba::scan::Sizes;

template <typename T, typename Pointer = const T>
Sequences<Pointer> sequences(const Tensor& t) {
  return {t.data_ptr<T>(), t.stride(0), t.stride(1), t.stride(2)};
}

template <typename T>
Rows<T> rows(const Tensor& t) {
  return {t.data_ptr<T>(), t.stride(0), t.stride(1), t.stride(2)};
}

template <typename T>
Args<T> arguments(const ScanInputs& in) {
  Args<T> args = {};
  args.sizes = in.sizes;
  args.x = sequences<T>(in.x);
  if (in.delta.defined()) args.delta = sequences<T>(in.delta);
  if (in.dt.defined()) args.dt = rows<T>(in.dt);
  args.B = rows<T>(in.B);
  args.C = rows<T>(in.C);
  args.dt_weight = pointer<T>(in.dt_weight);
  args.dt_bias = pointer<T>(in.dt_bias);
  args.A = pointer<T>(in.A);
  args.skip = pointer<T>(in.skip);
  args.softplus = in.softplus;
  return args;
}

// Calls body with a value of the type that is computed in.
template <typename Body>
void dispatch(const ScanInputs& in, Body body) {
  if (in.x.scalar_type() == at::kDouble)
    body(double());
  else
    body(float());
}

}  // namespace

Tensor scan_forward(const ScanInputs& in, const Tensor& x) {
  const Tensor y = at::empty_like(x, x.options().dtype(in.x.scalar_type()));
  const Sizes& sizes = in.sizes;
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    auto args = arguments<T>(in);
    args.y = sequences<T, T>(y);
    const auto& k = MMMAMBA_KERNELS_FOR_THIS_CPU(scan::kernels<T>);
    const int64_t tasks =
        sizes.batch * ((sizes.channels + k.lanes - 1) / k.lanes);
    if (in.bidirectional)
      run(k.bidirectional_forward, args, tasks);
    else
      run(k.selective_forward, args, tasks * sizes.directions);
  });
  return y.to(x.scalar_type());
}

ScanGrads scan_backward(const ScanInputs& in, const Tensor& grad) {
  Sizes sizes = in.sizes;
  const int64_t row_count = sizes.rank + 2 * sizes.d_state;
  // As many parts as threads may want while their sums take no more memory
  // than the channels do. Not a function of the number of threads, so that the
  // gradients are not either.
  sizes.splits = std::clamp<int64_t>(
      sizes.channels / std::max<int64_t>(1, row_count), 2, 16);

  const auto options = in.x.options();
  const Tensor grad_y = grad.to(in.x.scalar_type());
  const auto per_sample = [&](const Tensor& parameter) {
    if (!parameter.defined()) return Tensor();
    std::vector<int64_t> shape = parameter.sizes().vec();
    shape.insert(shape.begin(), sizes.batch);
    return at::empty(shape, options);
  };
  ScanGrads g;
  g.x = at::empty_like(in.x);
  if (in.delta.defined()) g.delta = at::empty_like(in.delta);
  g.dt_weight = per_sample(in.dt_weight);
  g.dt_bias = per_sample(in.dt_bias);
  g.A = per_sample(in.A);
  g.skip = per_sample(in.skip);
  g.rows = at::zeros(
      {sizes.batch, sizes.directions, sizes.splits, row_count, sizes.length},
      options);

  dispatch(in, [&](auto type) {
    using T = decltype(type);
    auto args = arguments<T>(in);
    args.sizes = sizes;
    args.grad_y = sequences<T>(grad_y);
    args.grad_x = sequences<T, T>(g.x);
    if (g.delta.defined()) args.grad_delta = sequences<T, T>(g.delta);
    args.grad_dt_weight = pointer<T>(g.dt_weight);
    args.grad_dt_bias = pointer<T>(g.dt_bias);
    args.grad_A = pointer<T>(g.A);
    args.grad_skip = pointer<T>(g.skip);
    args.grad_rows = pointer<T>(g.rows);
    const auto& k = MMMAMBA_KERNELS_FOR_THIS_CPU(scan::kernels<T>);
    const int64_t tasks = sizes.batch * sizes.splits;
    if (in.bidirectional)
      run(k.bidirectional_backward, args, tasks);
    else
      run(k.selective_backward, args, tasks * sizes.directions);
  });

  for (Tensor* t : {&g.dt_weight, &g.dt_bias, &g.A, &g.skip})
    if (t->defined()) *t = t->sum(0);
  g.rows = g.rows.sum(2);
  return g;
}

}  // namespace mmmamba::cpu
