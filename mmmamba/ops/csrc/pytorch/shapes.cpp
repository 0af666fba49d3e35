#include "shapes.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

namespace mmmamba {
namespace {

bool is_symbol(std::string_view text) {
  return std::isalpha(static_cast<unsigned char>(text[0])) &&
         text.find_first_of("+*") == std::string_view::npos;
}

int64_t number(std::string_view digits) {
  int64_t value = 0;
  for (const char c : digits) value = 10 * value + (c - '0');
  return value;
}

// Cuts the part before a separator off; all of it if there is none.
std::string_view cut(std::string_view& text, const char* separators) {
  const auto length = std::min(text.find_first_of(separators), text.size());
  const auto part = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return part;
}

}  // namespace

// As Python writes a tuple.
std::string Shapes::shape_of(const Tensor& t) {
  std::ostringstream text;
  for (const auto& size : t.sym_sizes())
    text << (text.tellp() == 0 ? "(" : ", ") << size;
  return t.dim() == 0 ? "()" : text.str() + (t.dim() == 1 ? ",)" : ")");
}

// "(B, H, W, C) with B = 2, C = 16": the values that are known.
std::string Shapes::describe(std::string_view pattern) const {
  std::ostringstream layout, values;
  std::set<std::string_view> listed;
  for (auto rest = pattern; !rest.empty();)
    layout << (rest == pattern ? "(" : ", ") << cut(rest, " ");
  for (auto rest = pattern; !rest.empty();) {
    const auto symbol = cut(rest, " +*>=");
    const auto* value = find(symbol);
    if (value == nullptr || !listed.insert(symbol).second) continue;
    values << (listed.size() == 1 ? " with " : ", ") << symbol << " = "
           << *value;
  }
  return layout.str() + ")" + values.str();
}

const c10::SymInt* Shapes::find(std::string_view symbol) const {
  for (const auto& [name, value] : symbols_)
    if (name == symbol) return &value;
  return nullptr;
}

c10::SymInt Shapes::operator[](std::string_view symbol) const {
  const auto* value = find(symbol);
  return value ? *value : c10::SymInt(0);
}

// A sum of products of symbols and numbers.
c10::SymInt Shapes::value(std::string_view axis) const {
  c10::SymInt sum = 0;
  while (!axis.empty()) {
    auto term = cut(axis, "+");
    c10::SymInt product = 1;
    while (!term.empty()) {
      const auto factor = cut(term, "*");
      const auto* known = find(factor);
      product = product * (known ? *known : c10::SymInt(number(factor)));
    }
    sum = sum + product;
  }
  return sum;
}

bool Shapes::fits_axis(std::string_view axis, const c10::SymInt& size) {
  const auto bound = axis.find(">=");
  if (bound != std::string_view::npos) {
    if (size < number(axis.substr(bound + 2))) return false;
    axis = axis.substr(0, bound);
  }
  if (is_symbol(axis)) {
    if (const auto* known = find(axis)) return *known == size;
    symbols_.emplace_back(axis, size);
    return true;
  }
  return size == value(axis);
}

bool Shapes::fits(const Tensor& t, std::string_view pattern) {
  const auto shape = t.sym_sizes();
  size_t i = 0;
  if (pattern.substr(0, 3) == "...") {
    cut(pattern, " ");
    const size_t axes = std::count(pattern.begin(), pattern.end(), ' ') + 1;
    if (shape.size() <= axes) return false;
    i = shape.size() - axes;
    // The first input has all the axes that the others have to have.
    if (first_ != nullptr &&
        !shape.slice(0, i).equals(
            first_->sym_sizes().slice(0, first_->dim() - 1)))
      return false;
  }
  for (; !pattern.empty(); ++i)
    if (i >= shape.size() || !fits_axis(cut(pattern, " "), shape[i]))
      return false;
  return i == shape.size();
}

void Shapes::check(std::string_view name, const Tensor& t,
                   std::string_view pattern) {
  const size_t known = symbols_.size();
  if (!fits(t, pattern)) {
    symbols_.resize(known, Symbol());
    require(false, name, " must have shape ", describe(pattern), ", got ",
            shape_of(t));
  }
  TORCH_CHECK_TYPE(t.is_floating_point(), op_, ": ", name,
                   " must be floating point, got ", t.scalar_type());
  if (first_ == nullptr) first_ = &t;
  require(t.device() == first_->device(), name, " is on ", t.device(),
          ", and the first input on ", first_->device());
}

void Shapes::check_kernel(std::string_view name, const Tensor& t,
                          std::string_view pattern, std::string_view k) {
  check(name, t, pattern);
  const auto size = (*this)[k];
  require(size == 1 || size == 3 || size == 5 || size == 7, name,
          " must have a size ", k, " of 1, 3, 5 or 7, got ", size);
}

}  // namespace mmmamba
