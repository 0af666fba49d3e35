// Shapes as patterns such as "B H W C": how the ops check their inputs, so that
// no kernel reads beyond them. The twin in Python is mmmamba/ops/shapes.py,
// which describes the patterns; both use the same words for the same error.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "op.h"

namespace mmmamba {

class Shapes {
 public:
  explicit Shapes(const char* op) : op_(op) {}

  // Raises ValueError or TypeError unless the input fits the pattern, is
  // floating point and on the device of the first input.
  void check(std::string_view name, const Tensor& t, std::string_view pattern);
  void check(std::string_view name, const OptionalTensor& t,
             std::string_view pattern) {
    if (t) check(name, *t, pattern);
  }

  // As check(), for a depthwise kernel: its size `k` is one that is compiled.
  void check_kernel(std::string_view name, const Tensor& t,
                    std::string_view pattern, std::string_view k);

  // The value of a symbol, or 0 where no input had it.
  c10::SymInt operator[](std::string_view symbol) const;

  template <typename... Message>
  void require(bool condition, const Message&... message) const {
    TORCH_CHECK_VALUE(condition, op_, ": ", message...);
  }

 private:
  using Symbol = std::pair<std::string, c10::SymInt>;

  static std::string shape_of(const Tensor& t);
  std::string describe(std::string_view pattern) const;
  bool fits(const Tensor& t, std::string_view pattern);
  bool fits_axis(std::string_view axis, const c10::SymInt& size);
  c10::SymInt value(std::string_view axis) const;
  const c10::SymInt* find(std::string_view symbol) const;

  const char* op_;
  std::vector<Symbol> symbols_;
  const Tensor* first_ = nullptr;  // the input the others are compared with
};

}  // namespace mmmamba
