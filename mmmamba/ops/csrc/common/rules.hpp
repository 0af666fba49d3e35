// The rules of the inputs of the ops that other runtimes have, too. An input is
// a tensor of the runtime, or whatever its shapes' check() takes. What the
// inputs mean is in mmmamba/ops/<op>.py.
#pragma once

#include <string>

#include "block.hpp"
#include "shapes.hpp"

namespace mmmamba {

template <typename Shapes, typename In>
void check_bidirectional_scan(Shapes& shapes, const In& in) {
  shapes.check("x", in.x, "batch D L>=1");
  shapes.check("dt_weight", in.dt_weight, "2 D R");
  shapes.check("dt_bias", in.dt_bias, "2 D");
  shapes.check("A", in.A, "2*D N>=1");
  shapes.check("D", in.D, "2*D");
  shapes.check("projected", in.projected, "batch 2 R+2*N L");
}

template <typename Shapes, typename In>
void check_depthwise_conv(Shapes& shapes, const In& in) {
  shapes.check("x", in.x, "B H>=1 W>=1 C>=16");
  shapes.check_kernel("weight", in.weight, "k k C", "k");
  shapes.check("bias", in.bias, "C");
  shapes.require(in.stride == 1 || (in.stride == 2 && shapes["k"] == 3),
                 "stride must be 1, or 2 with 3x3 weights, got ", in.stride);
  shapes.require(in.act == "none" || in.act == "relu" || in.act == "silu",
                 "act must be none, relu or silu, got ", in.act);
}

template <typename Shapes, typename In>
void check_linear(Shapes& shapes, const In& in) {
  shapes.check("x", in.x, "... C>=1");
  shapes.check_weight("weight", in.weight, "C", "C_out>=1");
  shapes.check("bias", in.bias, "C_out");
  shapes.check("residual", in.residual, "... C_out");
}

template <typename Shapes, typename In>
void check_feed_forward(Shapes& shapes, const In& in) {
  shapes.check("x", in.x, "... C>=1");
  shapes.check_weight("weight1", in.weight1, "C", "hidden>=1");
  shapes.check("bias1", in.bias1, "hidden");
  shapes.check_weight("weight2", in.weight2, "hidden", "C");
  shapes.check("bias2", in.bias2, "C");
  shapes.check("shortcut", in.shortcut, "... C");
}

template <typename Shapes, typename In>
void check_stem_conv(Shapes& shapes, const In& in) {
  const auto layers = in.weights.size();
  shapes.require(layers > 0 && in.biases.size() == layers,
                 "as many biases as weights are needed, and one at least, got ",
                 in.biases.size(), " and ", layers);
  shapes.check("x", in.x, "B C0>=1 H>=1 W>=1");
  for (size_t i = 0; i < layers; ++i) {
    const auto index = std::to_string(i), out = "C" + std::to_string(i + 1);
    shapes.check("weights[" + index + "]", in.weights[i],
                 "3 3 C" + index + " " + out + ">=16");
    shapes.check("biases[" + index + "]", in.biases[i], out);
  }
}

template <typename Shapes, typename Tensor>
void check_block(Shapes& shapes, const Tensor& x,
                 const BlockParameters<Tensor>& p) {
  shapes.check("x", x, "B H>=1 W>=1 C>=16");
  shapes.check_kernel("conv1.weight", p.conv1.weight, "k1 k1 C", "k1");
  shapes.check("conv1.bias", p.conv1.bias, "C");
  shapes.check_weight("ffn1.weight1", p.ffn1.weight1, "C", "hidden1>=1");
  shapes.check("ffn1.bias1", p.ffn1.bias1, "hidden1");
  shapes.check_weight("ffn1.weight2", p.ffn1.weight2, "hidden1", "C");
  shapes.check("ffn1.bias2", p.ffn1.bias2, "C");
  const auto& ssm = p.ssm;
  shapes.check_kernel("ssm.conv_weight", ssm.conv_weight, "k k D>=16", "k");
  shapes.check("ssm.conv_bias", ssm.conv_bias, "D");
  shapes.check("ssm.out_bias", ssm.out_bias, "G>=1");
  shapes.check_weight("ssm.in_weight", ssm.in_weight, "G", "2*D");
  shapes.check("ssm.in_bias", ssm.in_bias, "2*D");
  shapes.check("ssm.dt_weight", ssm.dt_weight, "2 R D");
  shapes.check("ssm.dt_bias", ssm.dt_bias, "2 D");
  shapes.check("ssm.A", ssm.A, "2*D N>=1");
  shapes.check("ssm.D", ssm.D, "2*D");
  shapes.check("ssm.x_proj", ssm.x_proj, "D 2*R+4*N");
  shapes.check("ssm.norm_weight", ssm.norm_weight, "D");
  shapes.check("ssm.norm_bias", ssm.norm_bias, "D");
  shapes.check_weight("ssm.out_weight", ssm.out_weight, "D", "G");
  if (p.wavelet)
    shapes.check_kernel("wavelet", *p.wavelet, "4 kw kw G>=16", "kw");
  if (p.local) {
    shapes.check_kernel("local.weight", p.local->weight, "kl kl M>=16", "kl");
    shapes.check("local.bias", p.local->bias, "M");
    shapes.check("local.scale", p.local->scale, "M");
    shapes.check("local.shift", p.local->shift, "M");
  }
  const auto used = shapes["G"] + shapes["M"];
  shapes.require(used <= shapes["C"], "ssm and local have ", used,
                 " channels, more than the ", shapes["C"], " of x");
  shapes.check_weight("proj.weight", p.proj.weight, "C", "C");
  shapes.check("proj.bias", p.proj.bias, "C");
  shapes.check_kernel("conv2.weight", p.conv2.weight, "k2 k2 C", "k2");
  shapes.check("conv2.bias", p.conv2.bias, "C");
  shapes.check_weight("ffn2.weight1", p.ffn2.weight1, "C", "hidden2>=1");
  shapes.check("ffn2.bias1", p.ffn2.bias1, "hidden2");
  shapes.check_weight("ffn2.weight2", p.ffn2.weight2, "hidden2", "C");
  shapes.check("ffn2.bias2", p.ffn2.bias2, "C");
}

}  // namespace mmmamba
