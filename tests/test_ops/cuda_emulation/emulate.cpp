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

template <typename Scan>
Scan make_scan(const Call& call) {
  using T = typename Scan::T;
  using F = typename Scan::F;
  const int64_t K = call.directions, D = call.channels, N = call.states;
  const int64_t L = call.length, R = call.rank;
  const int64_t height = Scan::kBidirectional ? R + 2 * N : N;
  const int64_t delta_strides[] = {K * D * L, L, 1};
  const int64_t row_strides[] = {K * height * L, L, 1};
  Scan scan{};
  scan.batch = call.batch;
  scan.directions = K;
  scan.channels = D;
  scan.states = N;
  scan.rank = R;
  scan.height = height;
  scan.length = L;
  scan.softplus = call.softplus;
  scan.x = sequences<const T>(call.x, call.x_strides);
  scan.A = static_cast<const F*>(call.A);
  scan.D = static_cast<const F*>(call.D);
  scan.bias = static_cast<const F*>(call.bias);
  if (Scan::kBidirectional) {
    const auto* projected = static_cast<const T*>(call.projected);
    scan.weight = static_cast<const F*>(call.weight);
    scan.dt = sequences<const T>(projected, row_strides);
    scan.B = sequences<const T>(projected + R * L, row_strides);
    scan.C = sequences<const T>(projected + (R + N) * L, row_strides);
  } else {
    scan.delta = sequences<const T>(call.delta, delta_strides);
    scan.B = sequences<const T>(call.B, row_strides);
    scan.C = sequences<const T>(call.C, row_strides);
  }
  scan.y = sequences<T>(call.y, call.y_strides);
  scan.dy = sequences<const T>(call.dy, call.y_strides);
  scan.dx = sequences<T>(call.dx, call.y_strides);
  scan.d_delta = sequences<T>(call.d_delta, delta_strides);
  scan.d_rows = static_cast<F*>(call.rows);
  scan.d_parameters = static_cast<F*>(call.parameters);
  return scan;
}

template <typename Scan>
void run_on_cpu(const Call& call) {
  const auto scan = make_scan<Scan>(call);
  const auto plan = make_plan(scan, call.dy != nullptr, call.processors);
  const auto launch = [](auto kernel, const Scan& scan, const Plan& plan) {
    emulation::run_grid({unsigned(plan.blocks), 1, 1},
                        {unsigned(plan.team), unsigned(plan.teams), 1},
                        [=] { kernel(scan, plan); });
  };
  auto* summary = static_cast<typename Scan::F*>(call.summary);
  if (call.dy)
    run<true>(scan, plan, summary, launch);
  else
    run<false>(scan, plan, summary, launch);
}

// `visit(scan)` with a scan of the type that the call is for.
template <typename Visit>
void dispatch(const Call& call, int dtype, Visit visit) {
  const auto with_type = [&](auto type) {
    if (call.projected)
      visit(Scan<decltype(type), true>());
    else
      visit(Scan<decltype(type), false>());
  };
  if (dtype == 0) with_type(float{});
  if (dtype == 1) with_type(double{});
  if (dtype == 2) with_type(__half{});
  if (dtype == 3) with_type(__nv_bfloat16{});
}

}  // namespace

extern "C" {

// How many row parts, parameter parts and summary values the call writes,
// then how it is launched.
void plan_call(const Call* call, int dtype, int64_t (&out)[8]) {
  dispatch(*call, dtype, [&](auto type) {
    const auto scan = make_scan<decltype(type)>(*call);
    const auto plan = make_plan(scan, call->dy != nullptr, call->processors);
    out[0] = plan.tiles;
    out[1] = plan.parameter_parts(call->batch);
    out[2] = summary_size(scan, plan);
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
    dispatch(*call, dtype,
             [&](auto type) { run_on_cpu<decltype(type)>(*call); });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

}  // extern "C"
