// The ops as nodes of a graph, for runtimes that know them by name: contiguous
// float32 tensors in, one out. They mean what those of the PyTorch op of the
// same name mean.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "array.hpp"
#include "runtime.hpp"

namespace mmmamba {

// An input or an attribute does not fit.
struct NodeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

using Inputs = std::vector<Array>;

// The attributes of all nodes; each has some of them.
struct Attributes {
  int64_t stride = 1;
  std::string act = "none";
  int64_t relu = 0;
  int64_t bfloat16 = 0;
  float eps = 1e-5f;

  // Calls visitor(name, value) for those that a node has.
  template <typename Node, typename Visitor>
  void visit(const Node& node, const Visitor& visitor) {
    if (node.has("stride")) visitor("stride", stride);
    if (node.has("act")) visitor("act", act);
    if (node.has("relu")) visitor("relu", relu);
    if (node.has("bfloat16")) visitor("bfloat16", bfloat16);
    if (node.has("eps")) visitor("eps", eps);
  }
};

struct Node {
  const char* name;
  std::vector<const char*> attributes;
  std::vector<bool> required;  // for each input
  // Raises NodeError, which begins with `who`.
  void (*check)(const Node&, const std::string& who, const Inputs&,
                const Attributes&);
  // The shape of the result. A size of an input may be -1, which is unknown;
  // what depends on it is, too.
  std::vector<int64_t> (*result)(const Inputs&, const Attributes&);
  // Inputs are checked, and y has the shape of the result.
  void (*compute)(const Inputs&, const Attributes&, float* y, const Runtime&);

  bool has(const std::string& attribute) const;
};

constexpr size_t kNodes = 6;
const std::array<Node, kNodes>& nodes();

}  // namespace mmmamba
