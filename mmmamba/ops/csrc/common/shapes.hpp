// Shapes as patterns such as "B H W C": how the ops check their inputs, so that
// no kernel reads beyond them. The twin in Python is mmmamba/ops/shapes.py,
// which describes the patterns; both use the same words for the same error.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mmmamba {
namespace axes {

inline bool is_symbol(std::string_view text) {
  return std::isalpha(static_cast<unsigned char>(text[0])) &&
         text.find_first_of("+*") == std::string_view::npos;
}

inline int64_t number(std::string_view digits) {
  int64_t value = 0;
  for (const char c : digits) value = 10 * value + (c - '0');
  return value;
}

// Cuts the part before a separator off; all of it if there is none.
inline std::string_view cut(std::string_view& text, const char* separators) {
  const auto length = std::min(text.find_first_of(separators), text.size());
  const auto part = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return part;
}

}  // namespace axes

// The sizes that the inputs of an op have in common. Derived has
// require(condition, message...), and check(name, tensor, pattern), which calls
// check_shape().
template <typename Derived, typename Size>
class ShapeRules {
 public:
  // As check(), for a depthwise kernel: its size `k` is one that is compiled.
  template <typename Tensor>
  void check_kernel(std::string_view name, const Tensor& t,
                    std::string_view pattern, std::string_view k) {
    self().check(name, t, pattern);
    const auto size = (*this)[k];
    self().require(size == 1 || size == 3 || size == 5 || size == 7, name,
                   " must have a size ", k, " of 1, 3, 5 or 7, got ", size);
  }

  // The weight of a linear layer.
  template <typename Tensor>
  void check_weight(std::string_view name, const Tensor& t, std::string_view in,
                    std::string_view out) {
    self().check(name, t, std::string(in) + " " + std::string(out));
  }

  // The value of a symbol, or 0 where no input had it.
  Size operator[](std::string_view symbol) const {
    const auto* value = find(symbol);
    return value ? *value : Size(0);
  }

 protected:
  // The weight of a linear layer with fewer bits, `numbers` in four bytes: see
  // mmmamba/ops/packed_weight.py.
  template <typename Shape>
  void check_packed(std::string_view name, const Shape& shape, int64_t numbers,
                    std::string_view in, std::string_view out) {
    const std::string count = std::to_string(numbers);
    const std::string rows = std::string(in) + "/" + count;  // rounded up
    symbols_.emplace_back(rows, ((*this)[in] + (numbers - 1)) / numbers);
    check_shape(
        name, shape,
        rows + (numbers == 4 ? "+2 " : " ") + std::string(out) + " " + count);
  }

  template <typename Shape>
  void check_shape(std::string_view name, const Shape& shape,
                   std::string_view pattern) {
    const size_t known = symbols_.size();
    if (fits(shape, pattern)) return;
    symbols_.resize(known, Symbol());
    self().require(false, name, " must have shape ", describe(pattern),
                   ", got ", text_of(shape));
  }

 private:
  using Symbol = std::pair<std::string, Size>;

  Derived& self() { return static_cast<Derived&>(*this); }

  // As Python writes a tuple.
  template <typename Shape>
  static std::string text_of(const Shape& shape) {
    std::ostringstream text;
    for (const auto& size : shape)
      text << (text.tellp() == 0 ? "(" : ", ") << size;
    if (shape.size() == 0) return "()";
    return text.str() + (shape.size() == 1 ? ",)" : ")");
  }

  // "(B, H, W, C) with B = 2, C = 16": the values that are known.
  std::string describe(std::string_view pattern) const {
    std::ostringstream layout, values;
    std::set<std::string_view> listed;
    for (auto rest = pattern; !rest.empty();)
      layout << (rest == pattern ? "(" : ", ") << axes::cut(rest, " ");
    for (auto rest = pattern; !rest.empty();) {
      const auto symbol = axes::cut(rest, " +*>=");
      const auto* value = find(symbol);
      if (value == nullptr || !listed.insert(symbol).second) continue;
      values << (listed.size() == 1 ? " with " : ", ") << symbol << " = "
             << *value;
    }
    return layout.str() + ")" + values.str();
  }

  const Size* find(std::string_view symbol) const {
    for (const auto& [name, value] : symbols_)
      if (name == symbol) return &value;
    return nullptr;
  }

  // A sum of products of symbols and numbers.
  Size value(std::string_view axis) const {
    Size sum = 0;
    while (!axis.empty()) {
      auto term = axes::cut(axis, "+");
      Size product = 1;
      while (!term.empty()) {
        const auto factor = axes::cut(term, "*");
        const auto* known = find(factor);
        product = product * (known ? *known : Size(axes::number(factor)));
      }
      sum = sum + product;
    }
    return sum;
  }

  bool fits_axis(std::string_view axis, const Size& size) {
    const auto bound = axis.find(">=");
    if (bound != std::string_view::npos) {
      if (size < axes::number(axis.substr(bound + 2))) return false;
      axis = axis.substr(0, bound);
    }
    if (axes::is_symbol(axis)) {
      if (const auto* known = find(axis)) return *known == size;
      symbols_.emplace_back(axis, size);
      return true;
    }
    return size == value(axis);
  }

  template <typename Shape>
  bool fits(const Shape& shape, std::string_view pattern) {
    size_t i = 0;
    if (pattern.substr(0, 3) == "...") {
      axes::cut(pattern, " ");
      const size_t axes = std::count(pattern.begin(), pattern.end(), ' ') + 1;
      if (shape.size() <= axes) return false;
      i = shape.size() - axes;
      // All inputs have the axes in front that the first one has.
      if (leading_.empty())
        leading_.assign(shape.begin(), shape.begin() + i);
      else if (!std::equal(leading_.begin(), leading_.end(), shape.begin(),
                           shape.begin() + i))
        return false;
    }
    for (; !pattern.empty(); ++i)
      if (i >= shape.size() || !fits_axis(axes::cut(pattern, " "), shape[i]))
        return false;
    return i == shape.size();
  }

  std::vector<Symbol> symbols_;
  std::vector<Size> leading_;
};

}  // namespace mmmamba
