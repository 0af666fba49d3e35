// What keeps a kernel from reading beyond its inputs. The public functions of
// Python raise the same errors earlier, and these reach whoever calls the ops
// by other ways, such as an exported program.
#include "ops.h"

namespace mmmamba {
namespace {

void check_shape(const char* op, const char* name, const Tensor& t,
                 at::SymIntArrayRef shape, const Tensor& x) {
  TORCH_CHECK_VALUE(t.sym_sizes().equals(shape), op, ": ", name,
                    " must have shape ", shape, ", got ", t.sym_sizes());
  TORCH_CHECK_TYPE(t.is_floating_point(), op, ": ", name,
                   " must be floating point, got ", t.scalar_type());
  TORCH_CHECK_VALUE(t.device() == x.device(), op, ": ", name, " is on ",
                    t.device(), " and the input on ", x.device());
}

void check_rank(const char* op, const char* name, const Tensor& t,
                int64_t dim) {
  TORCH_CHECK_VALUE(t.dim() == dim, op, ": ", name, " must have ", dim,
                    " dimensions, got shape ", t.sym_sizes());
}

void check_sequences(const char* op, const char* name, const Tensor& x) {
  check_rank(op, name, x, 3);
  TORCH_CHECK_VALUE(x.sym_size(2) > 0, op, ": ", name,
                    " must have a length of at least 1, got shape ",
                    x.sym_sizes());
  TORCH_CHECK_TYPE(x.is_floating_point(), op, ": ", name,
                   " must be floating point, got ", x.scalar_type());
}

void check_map(const char* op, const char* name, const Tensor& x) {
  check_rank(op, name, x, 4);
  TORCH_CHECK_VALUE(x.sym_size(1) > 0 && x.sym_size(2) > 0, op, ": ", name,
                    " must be at least 1 high and wide, got shape ",
                    x.sym_sizes());
  TORCH_CHECK_TYPE(x.is_floating_point(), op, ": ", name,
                   " must be floating point, got ", x.scalar_type());
}

// A kernel (..., k, k, channels) that is compiled.
void check_kernel(const char* op, const char* name, const Tensor& weight,
                  int64_t dim) {
  check_rank(op, name, weight, dim);
  const auto k = weight.sym_size(-2), channels = weight.sym_size(-1);
  TORCH_CHECK_VALUE(
      weight.sym_size(-3) == k && (k == 1 || k == 3 || k == 5 || k == 7), op,
      ": ", name, " must be a square of 1, 3, 5 or 7, got shape ",
      weight.sym_sizes());
  TORCH_CHECK_VALUE(channels >= kMinChannels, op, ": ", name,
                    " must have at least ", kMinChannels,
                    " channels, got shape ", weight.sym_sizes());
}

}  // namespace

void check_selective_scan(const Tensor& u, const Tensor& delta,
                          const Tensor& A, const Tensor& B, const Tensor& C,
                          const OptionalTensor& D,
                          const OptionalTensor& delta_bias) {
  constexpr auto op = "selective_scan";
  check_sequences(op, "u", u);
  check_rank(op, "A", A, 2);
  check_rank(op, "B", B, 4);
  const auto batch = u.sym_size(0), channels = u.sym_size(1),
             length = u.sym_size(2), d_state = A.sym_size(1),
             directions = B.sym_size(1);
  TORCH_CHECK_VALUE(directions > 0 && channels % directions == 0, op,
                    ": B must have a number of directions that divides the ",
                    channels, " channels of u, got shape ", B.sym_sizes());
  check_shape(op, "delta", delta, u.sym_sizes(), u);
  check_shape(op, "A", A, {channels, d_state}, u);
  check_shape(op, "B", B, {batch, directions, d_state, length}, u);
  check_shape(op, "C", C, B.sym_sizes(), u);
  if (D) check_shape(op, "D", *D, {channels}, u);
  if (delta_bias) check_shape(op, "delta_bias", *delta_bias, {channels}, u);
}

void check_bidirectional_scan(const Tensor& x, const Tensor& projected,
                              const Tensor& dt_weight, const Tensor& dt_bias,
                              const Tensor& A, const OptionalTensor& D) {
  constexpr auto op = "bidirectional_scan";
  check_sequences(op, "x", x);
  check_rank(op, "dt_weight", dt_weight, 3);
  check_rank(op, "A", A, 2);
  const auto batch = x.sym_size(0), channels = x.sym_size(1),
             length = x.sym_size(2), d_state = A.sym_size(1),
             rank = dt_weight.sym_size(2);
  check_shape(op, "projected", projected,
              {batch, 2, rank + 2 * d_state, length}, x);
  check_shape(op, "dt_weight", dt_weight, {2, channels, rank}, x);
  check_shape(op, "dt_bias", dt_bias, {2, channels}, x);
  check_shape(op, "A", A, {2 * channels, d_state}, x);
  if (D) check_shape(op, "D", *D, {2 * channels}, x);
}

void check_gradient(const Tensor& grad, const Tensor& x) {
  check_shape("scan", "the output's gradient", grad, x.sym_sizes(), x);
}

Act check_depthwise_conv(const Tensor& x, const Tensor& weight,
                         const OptionalTensor& bias, int64_t stride,
                         c10::string_view act) {
  constexpr auto op = "depthwise_conv";
  check_map(op, "x", x);
  check_kernel(op, "weight", weight, 3);
  const auto k = weight.sym_size(0), channels = x.sym_size(3);
  check_shape(op, "weight", weight, {k, k, channels}, x);
  if (bias) check_shape(op, "bias", *bias, {channels}, x);
  TORCH_CHECK_VALUE(stride == 1 || (stride == 2 && k == 3), op,
                    ": stride must be 1, or 2 with 3x3 weights, got ", stride);
  if (act == "none") return Act::kNone;
  if (act == "relu") return Act::kRelu;
  TORCH_CHECK_VALUE(act == "silu", op,
                    ": act must be none, relu or silu, got ", act);
  return Act::kSilu;
}

void check_mixer_conv(const Tensor& x, const Tensor& ssm,
                      const OptionalTensor& wavelet_weight,
                      const OptionalTensor& local_weight,
                      const OptionalTensor& local_bias,
                      const OptionalTensor& local_scale,
                      const OptionalTensor& local_shift) {
  constexpr auto op = "mixer_conv";
  check_map(op, "x", x);
  check_map(op, "ssm", ssm);
  const auto width = ssm.sym_size(3);
  auto used = width;
  check_shape(op, "ssm", ssm,
              {x.sym_size(0), x.sym_size(1), x.sym_size(2), width}, x);
  if (wavelet_weight) {
    check_kernel(op, "wavelet_weight", *wavelet_weight, 4);
    const auto k = wavelet_weight->sym_size(1);
    check_shape(op, "wavelet_weight", *wavelet_weight, {4, k, k, width}, x);
  }
  for (const auto& t : {local_bias, local_scale, local_shift})
    TORCH_CHECK_VALUE(t.has_value() == local_weight.has_value(), op,
                      ": local_weight, local_bias, local_scale and "
                      "local_shift are either all there or all None");
  if (local_weight) {
    check_kernel(op, "local_weight", *local_weight, 3);
    const auto k = local_weight->sym_size(0), local = local_weight->sym_size(2);
    check_shape(op, "local_weight", *local_weight, {k, k, local}, x);
    check_shape(op, "local_bias", *local_bias, {local}, x);
    check_shape(op, "local_scale", *local_scale, {local}, x);
    check_shape(op, "local_shift", *local_shift, {local}, x);
    used = used + local;
  }
  TORCH_CHECK_VALUE(used <= x.sym_size(3), op, ": ssm and local_weight have ",
                    used, " channels, more than the ", x.sym_size(3),
                    " of x");
}

void check_scan_gate(const Tensor& x, const Tensor& projected,
                     const Tensor& dt_weight, const Tensor& dt_bias,
                     const Tensor& A, const Tensor& D,
                     const Tensor& norm_weight, const Tensor& norm_bias,
                     const Tensor& z) {
  constexpr auto op = "scan_gate";
  check_rank(op, "x", x, 3);
  check_rank(op, "dt_weight", dt_weight, 3);
  check_rank(op, "A", A, 2);
  const auto batch = x.sym_size(0), length = x.sym_size(1),
             channels = x.sym_size(2), rank = dt_weight.sym_size(2),
             d_state = A.sym_size(1);
  TORCH_CHECK_VALUE(length > 0 && channels >= kMinChannels, op,
                    ": x must have a length of at least 1 and ", kMinChannels,
                    " channels, got shape ", x.sym_sizes());
  TORCH_CHECK_TYPE(x.is_floating_point(), op,
                   ": x must be floating point, got ", x.scalar_type());
  check_shape(op, "projected", projected,
              {batch, length, 2 * (rank + 2 * d_state)}, x);
  check_shape(op, "dt_weight", dt_weight, {2, channels, rank}, x);
  check_shape(op, "dt_bias", dt_bias, {2, channels}, x);
  check_shape(op, "A", A, {2 * channels, d_state}, x);
  check_shape(op, "D", D, {2 * channels}, x);
  check_shape(op, "norm_weight", norm_weight, {channels}, x);
  check_shape(op, "norm_bias", norm_bias, {channels}, x);
  check_shape(op, "z", z, {batch, length, channels}, x);
}

void check_stem_conv(const Tensor& x, at::TensorList weights,
                     at::TensorList biases) {
  constexpr auto op = "stem_conv";
  check_rank(op, "x", x, 4);
  auto channels = x.sym_size(1);
  TORCH_CHECK_VALUE(channels > 0 && x.sym_size(2) > 0 && x.sym_size(3) > 0, op,
                    ": x must have a channel and be at least 1 high and wide,"
                    " got shape ",
                    x.sym_sizes());
  TORCH_CHECK_TYPE(x.is_floating_point(), op,
                   ": x must be floating point, got ", x.scalar_type());
  TORCH_CHECK_VALUE(!weights.empty() && weights.size() == biases.size(), op,
                    ": as many biases as weights are needed, and one at "
                    "least, got ",
                    biases.size(), " and ", weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto name = [&](const char* list) {
      return c10::str(list, "[", i, "]");
    };
    const auto& weight = weights[i];
    check_rank(op, name("weights").c_str(), weight, 4);
    const auto out = weight.sym_size(3);
    TORCH_CHECK_VALUE(out >= kMinChannels, op, ": ", name("weights"),
                      " must have at least ", kMinChannels,
                      " outputs, got shape ", weight.sym_sizes());
    check_shape(op, name("weights").c_str(), weight, {3, 3, channels, out}, x);
    check_shape(op, name("biases").c_str(), biases[i], {out}, x);
    channels = out;
  }
}

}  // namespace mmmamba
