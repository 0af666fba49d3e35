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

}  // namespace mmmamba
