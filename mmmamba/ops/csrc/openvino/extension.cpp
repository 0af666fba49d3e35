// The nodes of common/cpu/nodes.hpp as operations of OpenVINO: what
// Core.add_extension() loads. ONNX has them in the domain "mmmamba", OpenVINO's
// own format in the operation set of this name.
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/core/version.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>

#include "../common/cpu/nodes.hpp"

#define MMMAMBA_TEXT(x) #x
#define MMMAMBA_VERSION(major, minor, patch) \
  MMMAMBA_TEXT(major) "." MMMAMBA_TEXT(minor) "." MMMAMBA_TEXT(patch)

// Read from the file, without loading it, by mmmamba/deploy/libraries.py.
extern "C" __attribute__((visibility("default"), used))
const char mmmamba_openvino_version[] =
    "mmmamba built for openvino " MMMAMBA_VERSION(
        OPENVINO_VERSION_MAJOR, OPENVINO_VERSION_MINOR, OPENVINO_VERSION_PATCH);

namespace mmmamba {
namespace {

// The threads of a stream of inference.
class Stream final : public Runtime {
 public:
  Stream() : Runtime(tbb::this_task_arena::max_concurrency()) {}

 private:
  void run(int64_t count, Call call, const void* function) const override {
    tbb::parallel_for(
        int64_t{0}, count, [&](int64_t i) { call(function, i); },
        tbb::static_partitioner());
  }
};

// What an operation is besides its inputs.
struct State {
  std::string name;  // of the ONNX node
  int64_t present =
      0;  // OpenVINO knows no absent inputs: bits of those present
  Attributes attributes;
};

class Operation : public ov::op::Op {
 public:
  explicit Operation(const mmmamba::Node& node) : node_(node) {}
  Operation(const mmmamba::Node& node, const ov::OutputVector& inputs,
            const State& state)
      : Op(inputs), node_(node), state_(state) {}

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("node", state_.name);
    visitor.on_attribute("present", state_.present);
    state_.attributes.visit(node_, [&](const char* name, auto& value) {
      visitor.on_attribute(name, value);
    });
    return true;
  }

  void validate_and_infer_types() override {
    std::vector<std::vector<int64_t>> sizes;
    auto result = ov::PartialShape::dynamic();
    bool known = true;
    for (const auto& input : inputs()) {
      const auto type = input.get_element_type();
      NODE_VALIDATION_CHECK(
          this, type.compatible(ov::element::f32) || type == ov::element::i8,
          "inputs must be f32, or packed weights of i8, got ", type);
      const auto& shape = input.get_partial_shape();
      if (shape.rank().is_dynamic())
        return set_output_type(0, ov::element::f32, result);
      known &= shape.is_static();
      sizes.emplace_back();
      for (const auto& size : shape)
        sizes.back().push_back(size.is_static() ? size.get_length() : -1);
    }
    const Inputs arrays = named(
        sizes, [](size_t) { return nullptr; },
        [&](size_t i) { return get_input_element_type(i); });
    if (known) check(arrays);
    const auto shape = node_.result(arrays, state_.attributes);
    result = std::vector<ov::Dimension>(shape.begin(), shape.end());
    set_output_type(0, ov::element::f32, result);
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs,
                const ov::TensorVector& inputs) const override {
    std::vector<std::vector<int64_t>> sizes;
    for (const auto& tensor : inputs)
      sizes.emplace_back(tensor.get_shape().begin(), tensor.get_shape().end());
    const Inputs arrays = named(
        sizes,
        [&](size_t i) { return static_cast<const float*>(inputs[i].data()); },
        [&](size_t i) { return inputs[i].get_element_type(); });
    check(arrays);
    const auto shape = node_.result(arrays, state_.attributes);
    outputs[0].set_shape(ov::Shape(shape.begin(), shape.end()));
    node_.compute(arrays, state_.attributes, outputs[0].data<float>(),
                  Stream());
    return true;
  }

 protected:
  template <typename Derived>
  std::shared_ptr<ov::Node> clone(const ov::OutputVector& inputs) const {
    return std::make_shared<Derived>(inputs, state_);
  }

 private:
  // The inputs that there are, in their places among all that there may be.
  template <typename Data, typename Type>
  Inputs named(const std::vector<std::vector<int64_t>>& sizes, const Data& data,
               const Type& type) const {
    Inputs arrays(node_.required.size());
    size_t next = 0;
    for (size_t i = 0; i < arrays.size() && next < sizes.size(); ++i) {
      if ((state_.present >> i & 1) == 0) continue;
      static const int64_t scalar = 0;
      const auto& shape = sizes[next];
      arrays[i] = {data(next), shape.empty() ? &scalar : shape.data(),
                   shape.size(), type(next) == ov::element::i8 ? 4 : 1};
      ++next;
    }
    return arrays;
  }

  void check(const Inputs& inputs) const {
    const auto who =
        "mmmamba." + std::string(node_.name) + " '" + state_.name + "'";
    node_.check(node_, who, inputs, state_.attributes);
  }

  const mmmamba::Node& node_;
  State state_;
};

// OpenVINO tells operations apart by their C++ type.
template <size_t kIndex>
class OperationOf final : public Operation {
 public:
  static const ov::DiscreteTypeInfo& get_type_info_static() {
    static const ov::DiscreteTypeInfo info = [] {
      ov::DiscreteTypeInfo info{nodes()[kIndex].name, "mmmamba",
                                &Op::get_type_info_static()};
      info.hash();
      return info;
    }();
    return info;
  }
  const ov::DiscreteTypeInfo& get_type_info() const override {
    return get_type_info_static();
  }

  OperationOf() : Operation(nodes()[kIndex]) {}
  OperationOf(const ov::OutputVector& inputs, const State& state)
      : Operation(nodes()[kIndex], inputs, state) {
    constructor_validate_and_infer_types();
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(
      const ov::OutputVector& inputs) const override {
    return clone<OperationOf>(inputs);
  }
};

template <size_t kIndex>
ov::OutputVector from_onnx(const ov::frontend::NodeContext& onnx) {
  ov::OutputVector inputs;
  State state;
  state.name = onnx.get_name();
  for (size_t i = 0; i < onnx.get_input_size(); ++i) {
    const auto input = onnx.get_input(static_cast<int>(i));
    // What OpenVINO reads for an input without a name.
    if (input.get_node()->get_type_name() == std::string("NullNode")) continue;
    inputs.push_back(input);
    state.present |= int64_t{1} << i;
  }
  state.attributes.visit(nodes()[kIndex], [&](const char* name, auto& value) {
    value = onnx.get_attribute(name, value);
  });
  return std::make_shared<OperationOf<kIndex>>(inputs, state)->outputs();
}

template <size_t... kIndex>
std::vector<ov::Extension::Ptr> extensions(std::index_sequence<kIndex...>) {
  std::vector<ov::Extension::Ptr> all;
  (all.push_back(std::make_shared<ov::OpExtension<OperationOf<kIndex>>>()),
   ...);
  (all.push_back(std::make_shared<ov::frontend::onnx::ConversionExtension>(
       nodes()[kIndex].name, "mmmamba", from_onnx<kIndex>)),
   ...);
  return all;
}

}  // namespace
}  // namespace mmmamba

OPENVINO_CREATE_EXTENSIONS(
    mmmamba::extensions(std::make_index_sequence<mmmamba::kNodes>()));
