#include "nodes.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "../rules.hpp"
#include "compute.hpp"

namespace mmmamba {
namespace {

using Shape = std::vector<int64_t>;

class Shapes : public ShapeRules<Shapes, int64_t> {
 public:
  Shapes(const std::string& who, const std::vector<bool>& required,
         const Inputs& in)
      : who_(who) {
    for (size_t i = 0; i < in.size(); ++i)
      require(in[i] || !required[i], "input ", i, " is missing");
  }

  void check(std::string_view name, const Array& array,
             std::string_view pattern) {
    if (!array) return;
    require(array.numbers == 1, name, " must be float32");
    check_shape(name, array, pattern);
  }

  void check_weight(std::string_view name, const Array& array,
                    std::string_view in, std::string_view out) {
    if (array.numbers == 1)
      return ShapeRules::check_weight(name, array, in, out);
    check_packed(name, array, array.numbers, in, out);
  }

  template <typename... Message>
  void require(bool condition, const Message&... message) const {
    if (condition) return;
    std::ostringstream text;
    text << who_ << ": ";
    (text << ... << message);
    throw NodeError(text.str());
  }

 private:
  const std::string& who_;
};

Shape shape_of(const Array& array) { return {array.begin(), array.end()}; }

int64_t divided(int64_t size, int64_t stride) {
  return size < 0 || stride < 1 ? -1 : (size + stride - 1) / stride;
}

int64_t product(const int64_t* begin, const int64_t* end) {
  return std::accumulate(begin, end, int64_t{1}, std::multiplies<>());
}

// ----------------------------------------------- each node, and its arguments

struct BidirectionalScan {
  const Array &x, &projected, &dt_weight, &dt_bias, &A, &D;

  static BidirectionalScan of(const Inputs& in, const Attributes&) {
    return {in[0], in[1], in[2], in[3], in[4], in[5]};
  }

  void check(Shapes& shapes) const { check_bidirectional_scan(shapes, *this); }

  Shape result() const { return shape_of(x); }

  void compute(float* y, const Runtime& runtime) const {
    const int64_t channels = x[1], length = x[2], d_state = A[1];
    const int64_t rank = dt_weight[2], height = projected[2];
    const auto rows = [&](int64_t first) -> scan::Rows<float> {
      return {projected.data + first * length, 2 * height * length,
              height * length, length};
    };
    scan::Args<float> args = {};
    args.sizes = {x[0], 2, channels, d_state, length, rank, 0};
    args.x = {x.data, channels * length, length, 1};
    args.dt = rows(0);
    args.B = rows(rank);
    args.C = rows(rank + d_state);
    args.dt_weight = dt_weight.data;
    args.dt_bias = dt_bias.data;
    args.A = A.data;
    args.skip = D.data;
    args.softplus = true;
    args.y = {y, channels * length, length, 1};
    mmmamba::compute(args, runtime);
  }
};

struct DepthwiseConv {
  const Array &x, &weight, &bias;
  int64_t stride;
  const std::string& act;

  static DepthwiseConv of(const Inputs& in, const Attributes& attributes) {
    return {in[0], in[1], in[2], attributes.stride, attributes.act};
  }

  void check(Shapes& shapes) const { check_depthwise_conv(shapes, *this); }

  Shape result() const {
    return {x[0], divided(x[1], stride), divided(x[2], stride), x[3]};
  }

  void compute(float* y, const Runtime& runtime) const {
    const int64_t channels = x[3];
    const auto map = [&](auto* data, const Shape& shape) {
      return depthwise_conv::Map<std::remove_pointer_t<decltype(data)>>{
          data, shape[1] * shape[2] * channels, shape[2] * channels, channels};
    };
    depthwise_conv::Args<float> args = {};
    args.batch = x[0];
    args.height = x[1];
    args.width = x[2];
    args.channels = channels;
    args.kernel = weight[0];
    args.stride = stride;
    args.x = map(x.data, shape_of(x));
    args.weight = weight.data;
    args.bias = bias.data;
    args.act = act_of(act);
    args.y = map(y, result());
    mmmamba::compute(args, runtime);
  }
};

// x as rows, and a layer of so many inputs that they pass.
gemm::Args layer(const Array& x, int64_t in, const Array& weight,
                 const Array& bias) {
  gemm::Args args = {};
  args.in = in;
  args.out = weight[1];
  args.sample = std::max<int64_t>(product(x.begin() + 1, x.end() - 1), 1);
  args.x = {x.data, args.in};
  args.weight = weight_of(weight);
  args.bias = bias.data;
  return args;
}

struct Linear {
  const Array &x, &weight, &bias, &residual;
  bool relu;

  static Linear of(const Inputs& in, const Attributes& attributes) {
    return {in[0], in[1], in[2], in[3], attributes.relu != 0};
  }

  void check(Shapes& shapes) const { check_linear(shapes, *this); }

  Shape result() const {
    Shape shape = shape_of(x);
    if (!shape.empty()) shape.back() = weight[1];
    return shape;
  }

  void compute(float* y, const Runtime& runtime) const {
    gemm::Args args = layer(x, x[x.axes - 1], weight, bias);
    args.relu = relu;
    args.residual = {residual.data, args.out};
    args.y = {y, args.out};
    mmmamba::compute(args, product(x.begin(), x.end() - 1), runtime);
  }
};

struct FeedForward {
  const Array &x, &weight1, &bias1, &weight2, &bias2, &shortcut;

  static FeedForward of(const Inputs& in, const Attributes&) {
    return {in[0], in[1], in[2], in[3], in[4], in[5]};
  }

  void check(Shapes& shapes) const { check_feed_forward(shapes, *this); }

  Shape result() const { return shape_of(x); }

  void compute(float* y, const Runtime& runtime) const {
    gemm::Args first = layer(x, x[x.axes - 1], weight1, bias1);
    gemm::Args second = layer(x, first.out, weight2, bias2);
    first.relu = true;
    second.residual = first.x;
    second.shortcut = {shortcut.data, second.out};
    second.y = {y, second.out};
    const int64_t rows = product(x.begin(), x.end() - 1);
    mmmamba::compute(first, second, rows, runtime);
  }
};

struct StemConv {
  const Array& x;
  std::vector<Array> weights, biases;
  bool bfloat16;

  static StemConv of(const Inputs& in, const Attributes& attributes) {
    StemConv op = {in[0], {}, {}, attributes.bfloat16 != 0};
    for (size_t i = 1; i < in.size(); i += 2) {
      op.weights.push_back(in[i]);
      op.biases.push_back(in[i + 1]);
    }
    return op;
  }

  void check(Shapes& shapes) const { check_stem_conv(shapes, *this); }

  Shape result() const {
    Shape shape = {x[0], x[2], x[3], weights.back()[3]};
    for (size_t i = 0; i < weights.size(); ++i)
      for (const int axis : {1, 2}) shape[axis] = divided(shape[axis], 2);
    return shape;
  }

  void compute(float* y, const Runtime& runtime) const {
    std::vector<stem_conv::Layer> layers;
    for (size_t i = 0; i < weights.size(); ++i)
      layers.push_back({weights[i][2], weights[i][3], weights[i].data,
                        biases[i].data, i + 1 < weights.size(), nullptr});
    stem_conv::Args args = {};
    args.batch = x[0];
    args.height = x[2];
    args.width = x[3];
    args.x = x.data;
    args.x_column = 1;
    args.x_row = x[3];
    args.x_channel = x[2] * x[3];
    args.x_batch = x[1] * x[2] * x[3];
    args.layers = layers.data();
    args.depth = static_cast<int64_t>(layers.size());
    args.y = y;
    args.bfloat16 = bfloat16;
    mmmamba::compute(args, runtime);
  }
};

template <template <typename> class... Parts>
constexpr size_t kCount = (kTensors<Parts<Array>> + ...);

// Places among the inputs of a block, which are x and its parameters.
constexpr size_t kWavelet =
    1 + kCount<LayerParameters, FFNParameters, SSMParameters>;
constexpr size_t kLocal = kWavelet + 1;
constexpr size_t kBlockInputs =
    kLocal +
    kCount<LocalParameters, LayerParameters, LayerParameters, FFNParameters>;

struct Block {
  const Array &x, *local;
  BlockParameters<Array> parameters;
  float eps;

  static Block of(const Inputs& in, const Attributes& attributes) {
    return {in[0], &in[kLocal], block_parameters(&in[1]), attributes.eps};
  }

  void check(Shapes& shapes) const {
    for (const Array* t = local; t < local + 4; ++t)
      shapes.require(bool(*t) == bool(*local),
                     "local.weight, local.bias, local.scale and local.shift "
                     "are either all there or all absent");
    check_block(shapes, x, parameters);
  }

  Shape result() const { return shape_of(x); }

  void compute(float* y, const Runtime& runtime) const {
    mmmamba::compute(block_args(x, parameters, eps, y), runtime);
  }
};

// ------------------------------------------------------------------ the table

template <typename Op>
Node node(const char* name, std::vector<bool> required,
          std::vector<const char*> attributes = {}) {
  return {
      name,
      std::move(attributes),
      std::move(required),
      [](const Node& node, const std::string& who, const Inputs& in,
         const Attributes& a) {
        Shapes shapes(who, node.required, in);
        Op::of(in, a).check(shapes);
      },
      [](const Inputs& in, const Attributes& a) {
        return Op::of(in, a).result();
      },
      [](const Inputs& in, const Attributes& a, float* y, const Runtime& r) {
        Op::of(in, a).compute(y, r);
      },
  };
}

std::vector<bool> inputs(size_t count, std::initializer_list<size_t> optional) {
  std::vector<bool> required(count, true);
  for (const size_t i : optional) required[i] = false;
  return required;
}

}  // namespace

bool Node::has(const std::string& attribute) const {
  return std::find(attributes.begin(), attributes.end(), attribute) !=
         attributes.end();
}

const std::array<Node, kNodes>& nodes() {
  static const std::array<Node, kNodes> table = {
      node<BidirectionalScan>("BidirectionalScan", inputs(6, {5})),
      node<StemConv>("StemConv", inputs(9, {}), {"bfloat16"}),
      node<DepthwiseConv>("DepthwiseConv", inputs(3, {2}), {"stride", "act"}),
      node<Linear>("Linear", inputs(4, {2, 3}), {"relu"}),
      node<FeedForward>("FeedForward", inputs(6, {5})),
      node<Block>("Block",
                  inputs(kBlockInputs, {kWavelet, kLocal, kLocal + 1,
                                        kLocal + 2, kLocal + 3}),
                  {"eps"}),
  };
  return table;
}

}  // namespace mmmamba
