// The kernels on a CPU, as C functions for ctypes.
#include "cuda_emulation.h"

#include <cstdio>

#include "selective_scan.cuh"

namespace cuda = mmmamba::cuda;

namespace {

using namespace mmmamba::cuda;

// Contiguous positions are aligned as the launchers would find them.
template <typename T>
Sequences<T> sequences(const void* data, const int64_t* strides) {
  const bool aligned =
      strides[2] == 1 && strides[1] % kItems == 0 && strides[0] % kItems == 0 &&
      reinterpret_cast<uintptr_t>(data) % alignof(Vector<T>) == 0;
  return {static_cast<T*>(const_cast<void*>(data)), strides[0], strides[1],
          strides[2], aligned};
}

template <typename T>
Rows<const T> rows(const void* data, int64_t offset, int64_t batch_stride,
                   int64_t direction_stride, int length) {
  const auto* first = static_cast<const T*>(data) + offset;
  const bool aligned =
      length % kItems == 0 &&
      reinterpret_cast<uintptr_t>(first) % alignof(Vector<T>) == 0;
  return {first, batch_stride, direction_stride, aligned};
}

}  // namespace

extern "C" {

// All that the operators take and give; filled in by test_cuda_kernel.py.
struct Call {
  int64_t batch, directions, channels, states, length, rank;
  int64_t softplus, processors;
  const void *x, *delta, *B, *C;  // projected: B, C null
  const void *A, *D, *bias, *weight;
  const void* projected;
  const void* dy;  // null: forward
  void *y, *dx, *d_delta, *rows, *parameters, *summary;
  int64_t x_strides[3], y_strides[3];  // y: of dy and dx as well
};

}  // extern "C"

namespace {

void launch_on_cpu(const Plan& plan, std::function<void()> body) {
  emulation::run_grid({unsigned(plan.blocks), 1, 1},
                      {unsigned(plan.team), unsigned(plan.teams), 1},
                      std::move(body));
}

template <bool kBidirectional, typename T>
Scan<T> make_scan(const Call& call) {
  using F = compute_t<T>;
  const int64_t K = call.directions, D = call.channels, N = call.states;
  const int64_t L = call.length, R = call.rank, height = R + 2 * N;
  const int64_t delta_strides[] = {K * D * L, L, 1};
  Scan<T> scan{};
  scan.batch = call.batch;
  scan.directions = K;
  scan.channels = D;
  scan.states = N;
  scan.length = L;
  scan.x = sequences<const T>(call.x, call.x_strides);
  scan.A = static_cast<const F*>(call.A);
  scan.D = static_cast<const F*>(call.D);
  scan.bias = static_cast<const F*>(call.bias);
  scan.softplus = call.softplus;
  if (kBidirectional) {
    const int64_t per_batch = K * height * L, per_direction = height * L;
    scan.rank = R;
    scan.weight = static_cast<const F*>(call.weight);
    scan.dt = rows<T>(call.projected, 0, per_batch, per_direction, L);
    scan.B = rows<T>(call.projected, R * L, per_batch, per_direction, L);
    scan.C = rows<T>(call.projected, (R + N) * L, per_batch, per_direction, L);
  } else {
    scan.delta = sequences<const T>(call.delta, delta_strides);
    scan.B = rows<T>(call.B, 0, K * N * L, N * L, L);
    scan.C = rows<T>(call.C, 0, K * N * L, N * L, L);
  }
  return scan;
}

template <bool kBidirectional, typename T>
Plan plan_of(const Call& call) {
  const auto scan = make_scan<kBidirectional, T>(call);
  return make_plan<kBidirectional>(scan, call.dy != nullptr, call.processors);
}

template <bool kBidirectional, typename T>
void run(const Call& call) {
  using F = compute_t<T>;
  const auto scan = make_scan<kBidirectional, T>(call);
  const auto plan = plan_of<kBidirectional, T>(call);
  const auto launch = [](auto kernel, const Plan& plan, auto... arguments) {
    launch_on_cpu(plan, [=] { kernel(arguments...); });
  };
  auto* summary = static_cast<F*>(call.summary);
  if (!call.dy) {
    run_forward<kBidirectional>(scan, plan, summary,
                                sequences<T>(call.y, call.y_strides), launch);
    return;
  }
  const int64_t L = call.length;
  const int64_t strides[] = {call.directions * call.channels * L, L, 1};
  Gradients<T> grads{};
  grads.y = sequences<const T>(call.dy, call.y_strides);
  grads.x = sequences<T>(call.dx, call.y_strides);
  grads.delta = sequences<T>(call.d_delta, strides);
  grads.rows = static_cast<F*>(call.rows);
  grads.parameters = static_cast<F*>(call.parameters);
  run_backward<kBidirectional>(scan, plan, summary, grads, launch);
}

// `visit(bidirectional, type)` with the types that the call is for.
template <typename Visit>
void dispatch(const Call& call, int dtype, Visit visit) {
  const auto with_type = [&](auto bidirectional) {
    if (dtype == 0) visit(bidirectional, float{});
    if (dtype == 1) visit(bidirectional, double{});
    if (dtype == 2) visit(bidirectional, __half{});
    if (dtype == 3) visit(bidirectional, __nv_bfloat16{});
  };
  if (call.projected)
    with_type(std::true_type{});
  else
    with_type(std::false_type{});
}

}  // namespace

extern "C" {

// How many row parts, parameter parts and summary values the call writes,
// then how it is launched.
void plan_call(const Call* call, int dtype, int64_t (&out)[8]) {
  dispatch(*call, dtype, [&](auto bidirectional, auto type) {
    constexpr bool kBidirectional = bidirectional.value;
    using T = decltype(type);
    const auto plan = plan_of<kBidirectional, T>(*call);
    out[0] = plan.row_parts();
    out[1] = plan.parameter_parts(call->batch);
    out[2] = summary_size(make_scan<kBidirectional, T>(*call), plan);
    out[3] = plan.chunks;
    out[4] = plan.team;
    out[5] = plan.teams;
    out[6] = plan.rounds;
    out[7] = plan.blocks;
  });
}

// Pairs of high and low part.
void decay(const float* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const auto value = cuda::decay(x[i]);
    out[2 * i] = value.high;
    out[2 * i + 1] = value.low;
  }
}

void softplus(const float* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = cuda::softplus(x[i]);
}

void softplus_slope(const float* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = cuda::softplus_slope(x[i]);
}

// Returns 0, or 1 with the reason on stderr.
int run_call(const Call* call, int dtype) {
  try {
    dispatch(*call, dtype, [&](auto bidirectional, auto type) {
      run<bidirectional.value, decltype(type)>(*call);
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

}  // extern "C"
