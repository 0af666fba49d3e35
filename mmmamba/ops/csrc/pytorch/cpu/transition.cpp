// What begins a stage in one op: as in a block, few samples at a time go through
// its layers, but for the squeeze-and-excite, which reads its weights once.
#include "../schema.h"
#include "layers.h"

namespace mmmamba {
namespace {

using namespace cpu;

// As mmmamba/ops/transition.py describes.
struct Transition {
  at::TensorList conv1, ffn1, expand, conv, fc1, fc2, project, conv2, ffn2;
};

// Up to the map of half the size, and the means of its channels.
void before_gate(const Transition& p, const Tensor& input, const Tensor& y,
                 Tensor means) {
  const Tensor x = empty(input, input.size(-1));
  conv(x, input, p.conv1, "none");
  ffn(x, x, p.ffn1);
  conv(y, product(x, p.expand[0], p.expand[1], true), p.conv, "relu", 2);
  at::mean_out(means, y, {1, 2});
}

Tensor gate(const Transition& p, const Tensor& means) {
  const Tensor squeezed = product(means, p.fc1[0], p.fc1[1], true);
  return product(squeezed, p.fc2[0], p.fc2[1]).sigmoid_();
}

// From that map on, of which the memory is not needed any more.
void behind_gate(const Transition& p, const Tensor& x, const Tensor& gate,
                 const Tensor& y) {
  x.mul_(gate.unsqueeze(1).unsqueeze(1));
  conv(y, product(x, p.project[0], p.project[1]), p.conv2, "none");
  ffn(y, y, p.ffn2);
}

void check(const Tensor& x, const Transition& p) {
  constexpr auto op = "transition";
  check_map(op, x);
  check_group(op, "conv1", p.conv1, 2);
  check_group(op, "ffn1", p.ffn1, 4);
  check_group(op, "expand", p.expand, 2);
  check_group(op, "conv", p.conv, 2);
  check_group(op, "fc1", p.fc1, 2);
  check_group(op, "fc2", p.fc2, 2);
  check_group(op, "project", p.project, 2);
  check_group(op, "conv2", p.conv2, 2);
  check_group(op, "ffn2", p.ffn2, 4);
  check_dim(op, "expand's weight", p.expand[0], 2);
  check_dim(op, "fc2's weight", p.fc2[0], 2);
  check_dim(op, "project's weight", p.project[0], 2);
  TORCH_CHECK_VALUE(p.fc2[0].sym_size(1) == p.expand[0].sym_size(1), op,
                    ": fc2 must have as many channels as expand, it has ",
                    p.fc2[0].sym_size(1), " and ", p.expand[0].sym_size(1));
}

Tensor transition(const Tensor& input, at::TensorList conv1,
                  at::TensorList ffn1, at::TensorList expand,
                  at::TensorList conv, at::TensorList fc1, at::TensorList fc2,
                  at::TensorList project, at::TensorList conv2,
                  at::TensorList ffn2) {
  const Transition p = {conv1, ffn1, expand, conv, fc1,
                        fc2, project, conv2, ffn2};
  check(input, p);
  const Tensor x = input.contiguous();
  const int64_t batch = x.size(0);
  const int64_t height = (x.size(1) + 1) / 2, width = (x.size(2) + 1) / 2;
  const int64_t hidden = p.expand[0].size(1), out = p.project[0].size(1);
  const Tensor merged = at::empty({batch, height, width, hidden}, x.options());
  const Tensor means = at::empty({batch, hidden}, x.options());
  const Tensor y = at::empty({batch, height, width, out}, x.options());
  for_samples(batch, x.size(1) * x.size(2), [&](int64_t begin, int64_t count) {
    before_gate(p, x.narrow(0, begin, count), merged.narrow(0, begin, count),
                means.narrow(0, begin, count));
  });
  const Tensor gates = gate(p, means);
  for_samples(batch, height * width, [&](int64_t begin, int64_t count) {
    behind_gate(p, merged.narrow(0, begin, count),
                gates.narrow(0, begin, count), y.narrow(0, begin, count));
  });
  return y;
}

Tensor transition_meta(const Tensor& x, at::TensorList conv1,
                       at::TensorList ffn1, at::TensorList expand,
                       at::TensorList conv, at::TensorList fc1,
                       at::TensorList fc2, at::TensorList project,
                       at::TensorList conv2, at::TensorList ffn2) {
  check(x, {conv1, ffn1, expand, conv, fc1, fc2, project, conv2, ffn2});
  return at::empty_symint({x.sym_size(0), (x.sym_size(1) + 1) / 2,
                           (x.sym_size(2) + 1) / 2, project[0].sym_size(1)},
                          x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmmamba, m) {
  const auto tags = schema_tags();
  m.def(
      "transition(Tensor x, Tensor[] conv1, Tensor[] ffn1, Tensor[] expand, "
      "Tensor[] conv, Tensor[] fc1, Tensor[] fc2, Tensor[] project, "
      "Tensor[] conv2, Tensor[] ffn2) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(mmmamba, CPU, m) { m.impl("transition", transition); }

TORCH_LIBRARY_IMPL(mmmamba, Meta, m) {
  m.impl("transition", transition_meta);
}

}  // namespace mmmamba
