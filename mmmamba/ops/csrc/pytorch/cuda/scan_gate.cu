#include "../../common/cuda/scan_gate.cuh"

#include "inference.cuh"
#include "ops.h"

namespace mmmamba::cuda {
namespace {

// In float32 or in `dtype`: rounded, decay rates would be off by a percent.
Tensor scan_parameter(const Tensor& t, at::ScalarType dtype) {
  return parameter(t, t.scalar_type() == dtype ? dtype : at::kFloat);
}

template <typename T>
Parameter<T> either(const Tensor& t) {
  return {t.data_ptr(), t.scalar_type() == at::kFloat};
}

template <typename T>
void in_one_kernel(const ScanGate& in, const Tensor& y) {
  const auto dtype = in.x.scalar_type();
  const Tensor x = channels_last(in.x, dtype), z = channels_last(in.z, dtype),
               projected = channels_last(in.projected, dtype),
               weight = scan_parameter(in.dt_weight.transpose(1, 2), dtype),
               bias = scan_parameter(in.dt_bias, dtype),
               A = scan_parameter(in.A, dtype),
               skip = scan_parameter(in.D, dtype),
               norm_weight = scan_parameter(in.norm_weight, dtype),
               norm_bias = scan_parameter(in.norm_bias, dtype);
  for (const auto* t : {&x, &z, &projected})
    TORCH_CHECK_VALUE(
        t->size(1) * t->stride(1) <= std::numeric_limits<int>::max(),
        "scan_gate: the sequences are too long for a GPU");
  ScanGateArgs<T> op{};
  op.batch = x.size(0);
  op.length = x.size(1);
  op.channels = x.size(2);
  op.rank = in.dt_weight.size(2);
  op.x = view<Series<const T>>(x);
  op.z = view<Series<const T>>(z);
  op.projected = view<Series<const T>>(projected);
  op.dt_weight = either<T>(weight);
  op.dt_bias = either<T>(bias);
  op.A = either<T>(A);
  op.skip = either<T>(skip);
  op.norm_weight = either<T>(norm_weight);
  op.norm_bias = either<T>(norm_bias);
  op.eps = static_cast<float>(in.eps);
  op.y = view<Series<T>>(y);
  scan_gate(op, [](auto kernel, int blocks, int threads, const auto& args) {
    launch(kernel, blocks, threads, args);
  });
}

// By the scan with gradients, which shares a sequence among many threads.
void in_parts(const ScanGate& in, Tensor y) {
  const PlainOps plain;
  const auto dtype = in.x.scalar_type();
  const Tensor scanned = bidirectional_scan(
      {in.x.transpose(1, 2),
       in.projected.unflatten(-1, {2, -1}).permute({0, 2, 3, 1}), in.dt_weight,
       in.dt_bias, in.A, in.D});
  const Tensor normed =
      at::layer_norm(scanned.transpose(1, 2), in.norm_weight.sizes(),
                     in.norm_weight.to(dtype), in.norm_bias.to(dtype), in.eps);
  at::mul_out(y, normed, at::silu(in.z));
}

void scan_gate(const ScanGate& in, const Tensor& y) {
  // Here and not in Python, where the batch would not be free in an export.
  const bool serves = scan_gate_serves(in.x.size(0), in.x.size(2),
                                       in.dt_weight.size(2), in.A.size(1));
  dispatch("scan_gate", in.x, [&](auto type) {
    if (serves)
      in_one_kernel<decltype(type)>(in, y);
    else
      in_parts(in, y);
  });
}

MMMAMBA_INFERENCE_OP_ON(CUDA, scan_gate, ScanGate)

}  // namespace
}  // namespace mmmamba::cuda
