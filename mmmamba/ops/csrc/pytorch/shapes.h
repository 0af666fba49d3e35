// How the ops check tensors: raises ValueError or TypeError unless an input
// fits its pattern, is floating point and on the device of the first input.
#pragma once

#include "../common/shapes.hpp"
#include "op.h"

namespace mmmamba {

class Shapes : public ShapeRules<Shapes, c10::SymInt> {
 public:
  explicit Shapes(const char* op) : op_(op) {}

  void check(std::string_view name, const Tensor& t, std::string_view pattern) {
    check_shape(name, t.sym_sizes(), pattern);
    TORCH_CHECK_TYPE(t.is_floating_point(), op_, ": ", name,
                     " must be floating point, got ", t.scalar_type());
    if (first_ == nullptr) first_ = &t;
    check_device(name, t);
  }
  void check(std::string_view name, const OptionalTensor& t,
             std::string_view pattern) {
    if (t) check(name, *t, pattern);
  }

  // One with fewer bits than float32 is packed (mmmamba/ops/packed_weight.py).
  void check_weight(std::string_view name, const Tensor& t, std::string_view in,
                    std::string_view out) {
    if (!is_packed(t)) return ShapeRules::check_weight(name, t, in, out);
    check_packed(name, t.sym_sizes(), numbers_in_word(t), in, out);
    check_device(name, t);
  }

  template <typename... Message>
  void require(bool condition, const Message&... message) const {
    TORCH_CHECK_VALUE(condition, op_, ": ", message...);
  }

 private:
  void check_device(std::string_view name, const Tensor& t) const {
    require(t.device() == first_->device(), name, " is on ", t.device(),
            ", and the first input on ", first_->device());
  }

  const char* op_;
  const Tensor* first_ = nullptr;  // the input the others are compared with
};

}  // namespace mmmamba
