// The matrix products of a deployed network: schemas, checks, and tensors to
// kernel arguments and threads. For inference, and so without gradients.
#include "../../common/cpu/gemm.hpp"

#include <algorithm>

#include "../schema.h"
#include "inference.h"
#include "this_cpu.h"

namespace mmmamba {
namespace {

// Fewer rows than this for each thread, and the threads share the columns.
constexpr int64_t kRowsOfThread = 64;

const LinearKernels& kernels() {
  static const LinearKernels chosen = MMMAMBA_FOR_THIS_CPU(linear_kernels());
  return chosen;
}

// ------------------------------------------------------------------- checks

void check(bool fits, const char* op, const char* name, const Tensor& t) {
  TORCH_CHECK_VALUE(fits, op, ": ", name, " does not fit, it has shape ",
                    t.sym_sizes());
}

std::vector<c10::SymInt> result_shape(const Tensor& x, const Tensor& weight) {
  auto shape = x.sym_sizes().vec();
  shape.back() = weight.sym_size(1);
  return shape;
}

void check_product(const char* op, const Tensor& x, const Tensor& weight,
                   const OptionalTensor& bias) {
  check(x.dim() >= 2 && x.sym_size(-1) > 0, op, "x", x);
  check(weight.dim() == 2 && weight.sym_size(0) == x.sym_size(-1), op,
        "weight", weight);
  if (bias)
    check(bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(1), op,
          "bias", *bias);
}

void check_linear(const Tensor& x, const Tensor& weight,
                  const OptionalTensor& bias, const OptionalTensor& residual) {
  check_product("linear", x, weight, bias);
  if (residual)
    check(residual->sym_sizes().equals(result_shape(x, weight)), "linear",
          "residual", *residual);
}

void check_feed_forward(const Tensor& x, const Tensor& weight1,
                        const Tensor& bias1, const Tensor& weight2,
                        const Tensor& bias2, const OptionalTensor& shortcut) {
  constexpr auto op = "feed_forward";
  check_product(op, x, weight1, bias1);
  check(weight1.sym_size(1) > 0, op, "weight1", weight1);
  check(weight2.dim() == 2 && weight2.sym_size(0) == weight1.sym_size(1) &&
            weight2.sym_size(1) == x.sym_size(-1),
        op, "weight2", weight2);
  check(bias2.dim() == 1 && bias2.sym_size(0) == x.sym_size(-1), op, "bias2",
        bias2);
  if (shortcut)
    check(shortcut->sym_sizes().equals(x.sym_sizes()), op, "shortcut",
          *shortcut);
}

// ---------------------------------------------------------------- arguments

// (..., C) as rows; a copy only where they are not that far apart already.
Tensor rows(const Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat && x.device().is_cpu(),
                   "mmmamba: float32 on the CPU is expected, got ",
                   x.scalar_type(), " on ", x.device());
  const Tensor flat = x.reshape({-1, x.size(-1)});
  return flat.stride(1) == 1 || flat.size(1) == 1 ? flat : flat.contiguous();
}

Tensor rows(const OptionalTensor& x) { return x ? rows(*x) : Tensor(); }

Tensor parameter(const OptionalTensor& t) {
  return t ? t->to(at::kFloat).contiguous() : Tensor();
}

template <typename T = const float>
Matrix<T> matrix(const Tensor& x) {
  if (!x.defined()) return {};
  return {x.data_ptr<float>(), x.stride(0)};
}

const float* pointer(const Tensor& t) {
  return t.defined() ? t.data_ptr<float>() : nullptr;
}

void run(const LinearArgs& args, int64_t count) {
  const auto& k = kernels();
  const int64_t threads = cpu::num_threads();
  const int64_t panels = k.count_panels(args.out);
  if (count < kRowsOfThread * threads) {
    at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      k.linear(args, 0, count, begin, end);
    });
  } else {
    at::parallel_for(0, count, kRowsOfThread, [&](int64_t begin, int64_t end) {
      k.linear(args, begin, end, 0, panels);
    });
  }
}

}  // namespace

namespace cpu {

void linear(const Tensor& y, const Tensor& input, const Tensor& weight,
            const OptionalTensor& bias, bool relu,
            const OptionalTensor& residual) {
  check_linear(input, weight, bias, residual);
  const Tensor x = rows(input), w = parameter(weight), b = parameter(bias),
               added = rows(residual);
  const LinearArgs args = {w.size(0), w.size(1), matrix(x), pointer(w),
                           pointer(b), relu, matrix(added), {},
                           {y.data_ptr<float>(), w.size(1)}};
  run(args, x.size(0));
}

void feed_forward(const Tensor& y, const Tensor& input, const Tensor& weight1,
                  const Tensor& bias1, const Tensor& weight2,
                  const Tensor& bias2, const OptionalTensor& shortcut) {
  check_feed_forward(input, weight1, bias1, weight2, bias2, shortcut);
  const Tensor x = rows(input), w1 = parameter(weight1),
               b1 = parameter(bias1), w2 = parameter(weight2),
               b2 = parameter(bias2), added = rows(shortcut);
  const int64_t channels = w1.size(0), hidden = w1.size(1), count = x.size(0);
  LinearArgs first = {channels, hidden, matrix(x), pointer(w1),
                      pointer(b1), true, {}, {}, {}};
  LinearArgs second = {hidden, channels, {}, pointer(w2),
                       pointer(b2), false, matrix(x), matrix(added),
                       {y.data_ptr<float>(), channels}};
  if (count < kRowsOfThread * num_threads()) {
    const Tensor between = at::empty({count, hidden}, input.options());
    first.y = matrix<float>(between);
    second.x = matrix(between);
    run(first, count);
    run(second, count);
  } else {
    at::parallel_for(0, count, kRowsOfThread, [&](int64_t begin, int64_t end) {
      kernels().feed_forward(first, second, begin, end);
    });
  }
}

}  // namespace cpu

namespace {

Tensor linear(const Tensor& x, const Tensor& weight,
              const OptionalTensor& bias, bool relu,
              const OptionalTensor& residual) {
  check_linear(x, weight, bias, residual);
  const Tensor y = at::empty_symint(result_shape(x, weight), x.options());
  cpu::linear(y, x, weight, bias, relu, residual);
  return y;
}

Tensor feed_forward(const Tensor& x, const Tensor& weight1,
                    const Tensor& bias1, const Tensor& weight2,
                    const Tensor& bias2, const OptionalTensor& shortcut) {
  const Tensor y = at::empty(x.sizes(), x.options());
  cpu::feed_forward(y, x, weight1, bias1, weight2, bias2, shortcut);
  return y;
}

// ------------------------------------------------------------- without data

Tensor linear_meta(const Tensor& x, const Tensor& weight,
                   const OptionalTensor& bias, bool,
                   const OptionalTensor& residual) {
  check_linear(x, weight, bias, residual);
  return at::empty_symint(result_shape(x, weight), x.options());
}

Tensor feed_forward_meta(const Tensor& x, const Tensor& weight1,
                         const Tensor& bias1, const Tensor& weight2,
                         const Tensor& bias2, const OptionalTensor& shortcut) {
  check_feed_forward(x, weight1, bias1, weight2, bias2, shortcut);
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  const auto tags = schema_tags();
  m.def(
      "linear(Tensor x, Tensor weight, Tensor? bias, bool relu, "
      "Tensor? residual) -> Tensor",
      tags);
  m.def(
      "feed_forward(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, "
      "Tensor bias2, Tensor? shortcut) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) {
  m.impl("linear", linear);
  m.impl("feed_forward", feed_forward);
}

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("linear", linear_meta);
  m.impl("feed_forward", feed_forward_meta);
}

}  // namespace mmmamba
