#include "scan.h"

#include <algorithm>

#include "../../common/cpu/dispatch.hpp"
#include "launch.h"

namespace mmmamba::cpu {
namespace {

using mmmamba::scan::Args;
using mmmamba::scan::Rows;
using mmmamba::scan::Sequences;
using mmmamba::scan::Sizes;

template <typename T>
Rows<T> rows(const Tensor& t, int64_t height) {
  if (!t.defined()) return {};
  return {t.data_ptr<T>(), t.stride(0), height * t.stride(1), t.stride(1)};
}

Sizes sizes_of(const ScanInputs& in) {
  return {in.x.size(0), in.directions, in.A.size(0) / in.directions,
          in.A.size(1), in.x.size(2),  in.rank()};
}

template <typename T>
Args<T> arguments(const ScanInputs& in) {
  Args<T> args = {};
  args.sizes = sizes_of(in);
  args.x = view<Sequences<const T>>(in.x);
  args.delta = view<Sequences<const T>>(in.delta);
  args.dt = rows<T>(in.dt, in.height);
  args.B = rows<T>(in.B, in.height);
  args.C = rows<T>(in.C, in.height);
  args.dt_weight = pointer<T>(in.weight);
  args.dt_bias = pointer<T>(in.bias);
  args.A = pointer<T>(in.A);
  args.skip = pointer<T>(in.D);
  args.softplus = in.softplus;
  return args;
}

// Calls body with a value of the type that is computed in.
template <typename Body>
void dispatch(const ScanInputs& in, Body body) {
  if (in.type == at::kDouble)
    body(double());
  else
    body(float());
}

}  // namespace

Tensor scan_forward(const ScanInputs& in, const Tensor& x) {
  const Tensor y = at::empty_like(x, x.options().dtype(in.type));
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    auto args = arguments<T>(in);
    args.y = view<Sequences<T>>(y);
    compute(args, PyTorch());
  });
  return y.to(x.scalar_type());
}

ScanGrads scan_backward(const ScanInputs& in, const Tensor& grad) {
  Sizes sizes = sizes_of(in);
  const int64_t row_count = sizes.rank + 2 * sizes.d_state;
  // As many parts as threads may want while their sums take no more memory
  // than the channels do. Not a function of the number of threads, so that the
  // gradients are not either.
  sizes.splits = std::clamp<int64_t>(
      sizes.channels / std::max<int64_t>(1, row_count), 2, 16);

  const Tensor grad_y = grad.to(in.type);
  const auto per_sample = [&](const Tensor& parameter) {
    if (!parameter.defined()) return Tensor();
    std::vector<int64_t> shape = parameter.sizes().vec();
    shape.insert(shape.begin(), sizes.batch);
    return at::empty(shape, parameter.options());
  };
  ScanGrads g;
  g.x = at::empty_like(in.x);
  if (in.delta.defined()) g.delta = at::empty_like(in.delta);
  g.weight = per_sample(in.weight);
  g.bias = per_sample(in.bias);
  g.A = per_sample(in.A);
  g.D = per_sample(in.D);
  g.rows = at::zeros(
      {sizes.batch, sizes.directions, sizes.splits, row_count, sizes.length},
      in.x.options());

  dispatch(in, [&](auto type) {
    using T = decltype(type);
    auto args = arguments<T>(in);
    args.sizes = sizes;
    args.grad_y = view<Sequences<const T>>(grad_y);
    args.grad_x = view<Sequences<T>>(g.x);
    args.grad_delta = view<Sequences<T>>(g.delta);
    args.grad_dt_weight = pointer<T>(g.weight);
    args.grad_dt_bias = pointer<T>(g.bias);
    args.grad_A = pointer<T>(g.A);
    args.grad_skip = pointer<T>(g.D);
    args.grad_rows = pointer<T>(g.rows);
    const auto& k = MMMAMBA_KERNELS_FOR_THIS_CPU(scan::kernels<T>);
    const int64_t tasks = sizes.batch * sizes.splits;
    const auto backward =
        in.bidirectional() ? k.bidirectional_backward : k.selective_backward;
    const int64_t directions = in.bidirectional() ? 1 : sizes.directions;
    PyTorch().parallel_for(
        tasks * directions, 1,
        [&](int64_t begin, int64_t end) { backward(args, begin, end); });
  });

  for (Tensor* t : {&g.weight, &g.bias, &g.A, &g.D})
    if (t->defined()) *t = t->sum(0);
  g.rows = g.rows.sum(2);
  return g;
}

}  // namespace mmmamba::cpu
