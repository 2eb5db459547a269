// The operators behind Conv, Gemm and MaxPool: what the importer makes of each, against arithmetic
// written out here; how a network of all of them quantises; and what is refused.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "latchkey/error.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

constexpr errc kNo = errc::unsupported_model;

floats run(const fgraph& g, const floats& x) {
  float_executor e(g);
  const auto y = e.infer(x);
  return {y.begin(), y.end()};
}

void expect_near(const floats& got, const floats& want, float tolerance = 1e-5F) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
}

/// x -> op -> y on N x dims.
builder one(const std::string& op, const longs& dims, const longs& kernel = {}) {
  builder b(17);
  b.input("x", dims).output("y");
  auto& n = b.node(op, {"x"}, {"y"});
  if (!kernel.empty()) builder::ints(n, "kernel_shape", kernel);
  return b;
}

// ---- Convolutions ----

struct geometry {
  int ins, outs, group, size, kernel, dilation, pad, stride;
};

/// A convolution as ONNX defines it, straight from its weights O x I/group x K x K.
floats convolution(const geometry& g, const floats& w, const floats& x) {
  const int reach = (g.kernel - 1) * g.dilation + 1;
  const int out = (g.size + 2 * g.pad - reach) / g.stride + 1;
  const int per_group = g.ins / g.group;
  floats y;
  for (int o = 0; o < g.outs; ++o) {
    for (int oy = 0; oy < out; ++oy) {
      for (int ox = 0; ox < out; ++ox) {
        double sum = 0;
        for (int i = 0; i < per_group; ++i) {
          const int c = o / (g.outs / g.group) * per_group + i;
          for (int ky = 0; ky < g.kernel; ++ky) {
            for (int kx = 0; kx < g.kernel; ++kx) {
              const int iy = oy * g.stride + ky * g.dilation - g.pad;
              const int ix = ox * g.stride + kx * g.dilation - g.pad;
              if (iy < 0 || ix < 0 || iy >= g.size || ix >= g.size) continue;
              sum += static_cast<double>(w[static_cast<std::size_t>(
                         ((o * per_group + i) * g.kernel + ky) * g.kernel + kx)]) *
                     x[static_cast<std::size_t>((c * g.size + iy) * g.size + ix)];
            }
          }
        }
        y.push_back(static_cast<float>(sum));
      }
    }
  }
  return y;
}

builder conv_of(const geometry& g, const floats& w) {
  builder b;
  b.input("x", {-1, g.ins, g.size, g.size}).output("y");
  b.weight("w", {g.outs, g.ins / g.group, g.kernel, g.kernel}, w);
  auto& n = b.node("Conv", {"x", "w"}, {"y"});
  builder::integer(n, "group", g.group);
  builder::ints(n, "dilations", {g.dilation, g.dilation});
  builder::ints(n, "pads", {g.pad, g.pad, g.pad, g.pad});
  builder::ints(n, "strides", {g.stride, g.stride});
  return b;
}

TEST(Convolutions, OfGroupsAndDilationsEqualTheirDefinition) {
  const struct {
    geometry g;
    bool depthwise;
  } cases[] = {
      {{4, 6, 2, 7, 3, 1, 1, 1}, false},   // groups
      {{4, 4, 4, 7, 3, 1, 1, 2}, true},    // depthwise
      {{3, 6, 3, 7, 3, 1, 0, 1}, false},   // depthwise with multiplier 2
      {{2, 3, 1, 9, 3, 2, 2, 1}, false},   // dilated
      {{4, 4, 4, 9, 3, 2, 2, 1}, true},    // depthwise, dilated to 5 x 5
      {{2, 2, 2, 11, 3, 4, 4, 1}, false},  // depthwise, dilated to 81 taps
      {{4, 6, 2, 9, 2, 3, 1, 2}, false},   // groups, dilated
      {{1, 1, 1, 5, 1, 3, 0, 1}, false},   // a dilated kernel of one tap
  };
  for (const auto& [g, depthwise] : cases) {
    SCOPED_TRACE(::testing::Message() << g.ins << " " << g.outs << " " << g.group << " " << g.kernel
                                      << " " << g.dilation);
    const floats w =
        random_floats(static_cast<std::size_t>(g.outs * g.ins / g.group * g.kernel * g.kernel), 4);
    const floats x = random_floats(static_cast<std::size_t>(g.ins * g.size * g.size), 5);
    const fgraph f = conv_of(g, w).import();
    ASSERT_EQ(f.nodes.size(), 1U);
    EXPECT_EQ(std::get<fconv>(f.nodes[0].op).depthwise, depthwise);
    expect_near(run(f, x), convolution(g, w, x));
    const qgraph q = quantise(f, {x});
    EXPECT_EQ(std::holds_alternative<qdepthwise>(q.nodes[0].op), depthwise);
    reference golden(q);
    expect_near(dequantise_output(q, golden.infer(quantise_input(q, x))), convolution(g, w, x),
                4 * q.output_tensor().scale);
  }
}

TEST(Convolutions, QuantisedDepthwiseKeepsItsIntegers) {
  builder b;
  b.input("x", {-1, 2, 2, 2}, pb::TensorProto::UINT8).output("y");
  b.weight("xs", {}, {0.5F});
  b.weight("xz", {}, {10}, pb::TensorProto::UINT8);
  b.weight("w", {2, 1, 2, 2}, {1, 2, 3, 4, -5, -6, -7, -8}, pb::TensorProto::INT8);
  b.weight("ws", {2}, {0.25F, 0.125F});
  b.weight("wz", {}, {0}, pb::TensorProto::INT8);
  b.weight("ys", {}, {2.0F});
  b.weight("yz", {}, {100}, pb::TensorProto::UINT8);
  builder::integer(b.node("QLinearConv", {"x", "xs", "xz", "w", "ws", "wz", "ys", "yz"}, {"y"}),
                   "group", 2);
  reference golden(quantise(b.import(), {}));
  const auto& n = std::get<qdepthwise>(golden.graph().nodes.at(0).op);
  EXPECT_EQ(n.weights, (std::vector<std::int8_t>{1, 2, 3, 4, -5, -6, -7, -8}));
  const auto y = golden.infer(std::vector<std::uint8_t>{20, 30, 40, 50, 11, 12, 13, 14});
  EXPECT_EQ(y[0], 119);  // (10 + 40 + 90 + 160) * .5 * .25 / 2 = 18.75
  EXPECT_EQ(y[1], 98);   // -(5 + 12 + 21 + 32) * .5 * .125 / 2 = -2.19
}

TEST(Convolutions, RefuseGroupsThatDoNotDivide) {
  for (const int group : {0, -1, 3, 5}) {
    builder b = conv_of({4, 4, 1, 5, 3, 1, 0, 1}, random_floats(144, 1));
    b.graph().mutable_node(0)->mutable_attribute(0)->set_i(group);
    expect_refusal([&] { b.import(); }, errc::bad_file, {"group", "my_Conv"});
  }
  builder b = conv_of({4, 4, 1, 5, 3, 1, 0, 1}, random_floats(144, 1));
  b.graph().mutable_node(0)->mutable_attribute(0)->set_i(2);  // Weights for one group.
  expect_refusal([&] { b.import(); }, errc::bad_file, {"2 groups"});
  floats nan = random_floats(36, 1);
  nan[7] = std::nanf("");
  expect_refusal([&] { conv_of({4, 4, 4, 5, 3, 1, 0, 1}, nan).import(); }, kNo,
                 {"the weights holds nan"});
  expect_refusal([] { conv_of({1, 1, 1, 3, 3, 2, 0, 1}, floats(9)).import(); }, errc::bad_file,
                 {"larger than its padded input"});
}

// ---- Transposed convolutions ----

struct scattering {
  int ins, outs, group, h, w, kernel, dilation, sy, sx;
  longs pads{0, 0, 0, 0}, more{0, 0};
};

int scattered_size(int size, int stride, const scattering& g, std::size_t axis) {
  return stride * (size - 1) + (g.kernel - 1) * g.dilation + 1 +
         static_cast<int>(g.more[axis] - g.pads[axis] - g.pads[axis + 2]);
}

/// A transposed convolution as ONNX defines it, straight from its weights I x O/group x K x K:
/// every pixel of the input is spread over the output.
floats scatter(const scattering& g, const floats& w, const floats& bias, const floats& x) {
  const int oh = scattered_size(g.h, g.sy, g, 0), ow = scattered_size(g.w, g.sx, g, 1);
  const int per_group = g.outs / g.group;
  std::vector<double> sums;
  for (const float b : bias) sums.insert(sums.end(), static_cast<std::size_t>(oh * ow), b);
  for (int i = 0; i < g.ins; ++i) {
    for (int j = 0; j < per_group; ++j) {
      const int o = i / (g.ins / g.group) * per_group + j;
      for (int p = 0; p < g.h * g.w * g.kernel * g.kernel; ++p) {
        const int kx = p % g.kernel, ky = p / g.kernel % g.kernel;
        const int ix = p / g.kernel / g.kernel % g.w, iy = p / g.kernel / g.kernel / g.w;
        const int oy = iy * g.sy + ky * g.dilation - static_cast<int>(g.pads[0]);
        const int ox = ix * g.sx + kx * g.dilation - static_cast<int>(g.pads[1]);
        if (oy < 0 || ox < 0 || oy >= oh || ox >= ow) continue;
        sums[static_cast<std::size_t>((o * oh + oy) * ow + ox)] +=
            static_cast<double>(x[static_cast<std::size_t>((i * g.h + iy) * g.w + ix)]) *
            w[static_cast<std::size_t>(((i * per_group + j) * g.kernel + ky) * g.kernel + kx)];
      }
    }
  }
  return {sums.begin(), sums.end()};
}

builder scatter_of(const scattering& g, const floats& w, const floats& bias) {
  builder b;
  b.input("x", {-1, g.ins, g.h, g.w}).output("y");
  b.weight("w", {g.ins, g.outs / g.group, g.kernel, g.kernel}, w);
  b.weight("b", {g.outs}, bias);
  auto& n = b.node("ConvTranspose", {"x", "w", "b"}, {"y"});
  builder::integer(n, "group", g.group);
  builder::ints(n, "dilations", {g.dilation, g.dilation});
  builder::ints(n, "pads", g.pads);
  builder::ints(n, "strides", {g.sy, g.sx});
  builder::ints(n, "output_padding", g.more);
  return b;
}

TEST(TransposedConvolutions, EqualTheirDefinition) {
  const struct {
    scattering g;
    std::vector<bool> transposed;  // by layer
  } cases[] = {
      {{64, 40, 1, 3, 4, 2, 1, 2, 2}, {true}},
      {{40, 64, 1, 3, 4, 2, 1, 3, 2, {0, 0, 0, 0}, {1, 0}}, {true}},  // smaller than its strides
      {{40, 36, 2, 3, 4, 2, 1, 2, 2}, {true}},                        // groups
      {{16, 16, 1, 3, 4, 2, 1, 2, 2}, {true}},                        // rows of whole words
      {{16, 1, 1, 3, 4, 2, 1, 2, 2}, {true, false}},                  // and results of none
      {{3, 40, 1, 3, 5, 2, 1, 2, 2}, {false, true}},
      {{3, 2, 1, 3, 5, 3, 1, 3, 3}, {false, true, false}},
      {{40, 5, 1, 3, 4, 4, 1, 2, 2, {1, 1, 1, 1}}, {true, false}},
      {{40, 5, 1, 3, 4, 3, 1, 2, 2, {1, 1, 1, 1}, {1, 1}}, {true, false}},
      {{40, 40, 40, 3, 4, 4, 1, 2, 2, {1, 1, 1, 1}}, {true, false}},  // depthwise
      {{3, 3, 3, 3, 4, 4, 1, 2, 2, {1, 1, 1, 1}}, {false, true, false, false}},
      {{40, 5, 1, 4, 3, 3, 2, 2, 1, {2, 0, 1, 3}}, {true, false}},  // dilated
      {{40, 5, 1, 4, 5, 2, 1, 3, 2, {2, 3, 1, 2}}, {true, false}},  // pads beyond the kernel
      {{40, 5, 1, 4, 5, 2, 1, 2, 2, {0, 0, 1, 1}}, {true, false}},
      {{4, 6, 2, 5, 4, 3, 1, 1, 1, {1, 0, 1, 2}}, {false}},  // no strides
      {{4, 6, 1, 5, 4, 2, 2, 1, 1, {3, 4, 0, 0}}, {false}},
  };
  for (const auto& [g, transposed] : cases) {
    SCOPED_TRACE(::testing::Message() << g.ins << " " << g.outs << " " << g.group << " " << g.w
                                      << " " << g.kernel << " " << g.sy);
    const floats w =
        random_floats(static_cast<std::size_t>(g.ins * g.outs / g.group * g.kernel * g.kernel), 6);
    const floats bias = random_floats(static_cast<std::size_t>(g.outs), 7);
    const floats x = random_floats(static_cast<std::size_t>(g.ins * g.h * g.w), 8);
    const floats want = scatter(g, w, bias, x);
    const fgraph f = scatter_of(g, w, bias).import();
    std::vector<bool> layers;
    for (const fnode& n : f.nodes) layers.push_back(std::get<fconv>(n.op).transposed);
    EXPECT_EQ(layers, transposed);
    EXPECT_EQ(f.output.dims, (std::vector<int>{g.outs, scattered_size(g.h, g.sy, g, 0),
                                               scattered_size(g.w, g.sx, g, 1)}));
    expect_near(run(f, x), want);
    const qgraph q = quantise(f, {x});
    reference golden(q);
    expect_near(dequantise_output(q, golden.infer(quantise_input(q, x))), want,
                4 * q.output_tensor().scale);
    // What sets pixels apart, or adds channels and drops them, keeps the bytes as they are.
    for (std::size_t n = 0; n + 1 < q.nodes.size(); ++n) {
      const qtensor& t = q.tensors[static_cast<std::size_t>(q.nodes[n].output)];
      const qtensor& of = t.name == "y wide" ? q.output_tensor() : q.input_tensor();
      EXPECT_EQ(t.scale, of.scale) << t.name;
      EXPECT_EQ(t.zero_point, of.zero_point) << t.name;
    }
  }
}

// Both a batch normalisation and a Relu end up in the layer that makes the pixels.
TEST(TransposedConvolutions, TakeWhatFollows) {
  const scattering g{40, 64, 1, 3, 4, 2, 1, 2, 2};
  const floats w = random_floats(40 * 64 * 4, 9), bias = random_floats(64, 10);
  builder b = scatter_of(g, w, bias);
  b.graph().mutable_output(0)->set_name("r");
  b.weight("gamma", {64}, floats(64, 2.0F));
  b.weight("beta", {64}, floats(64, 0.5F));
  b.weight("mean", {64}, floats(64, 0.25F));
  b.weight("variance", {64}, floats(64, 1.0F));
  builder::real(b.node("BatchNormalization", {"y", "gamma", "beta", "mean", "variance"}, {"n"}),
                "epsilon", 0.0F);
  b.node("Relu", {"n"}, {"r"});
  const fgraph f = b.import();
  ASSERT_EQ(f.nodes.size(), 1U);
  const floats x = random_floats(40 * 12, 11);
  floats want = scatter(g, w, bias, x);
  for (float& v : want) v = std::max(0.0F, 2 * (v - 0.25F) + 0.5F);
  expect_near(run(f, x), want, 1e-4F);
}

TEST(TransposedConvolutions, KeepTheIntegersOfTheFile) {
  for (const int kernel : {2, 3}) {
    const std::size_t taps = static_cast<std::size_t>(kernel * kernel);
    builder b;
    b.input("x", {-1, 40, 2, 2}).output("y");
    for (const char* s : {"xs", "ys"}) b.weight(s, {}, {0.5F});
    b.weight("z", {}, {128}, pb::TensorProto::UINT8);
    floats w(40 * 36 * taps);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i * 7 % 255) - 127;
    b.weight("w", {40, 36, kernel, kernel}, w, pb::TensorProto::INT8);
    b.weight("ws", {36}, floats(36, 0.001F));
    b.weight("wz", {36}, floats(36, 0), pb::TensorProto::INT8);
    b.node("QuantizeLinear", {"x", "xs", "z"}, {"xq"});
    b.node("DequantizeLinear", {"xq", "xs", "z"}, {"xd"});
    builder::integer(b.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}), "axis", 1);
    builder::ints(b.node("ConvTranspose", {"xd", "wd"}, {"c"}), "strides", {2, 2});
    b.node("QuantizeLinear", {"c", "ys", "z"}, {"cq"});
    b.node("DequantizeLinear", {"cq", "ys", "z"}, {"y"});
    const qgraph q = quantise(b.import(), {});
    const auto& n = std::get<qconv>(q.nodes.back().op);
    EXPECT_EQ(n.transposed, kernel == 2);
    EXPECT_EQ(n.weight_scale, floats(36, 0.001F));
    for (std::size_t i = 0; i < 40; ++i) {
      for (std::size_t o = 0; o < 36; ++o) {
        for (std::size_t t = 0; t < taps; ++t) {
          const std::size_t at = kernel == 2 ? t : taps - 1 - t;  // turned round
          ASSERT_EQ(n.weights[(o * 40 + i) * taps + at],
                    static_cast<std::int8_t>(w[(i * 36 + o) * taps + t]));
        }
      }
    }
  }
}

TEST(TransposedConvolutions, RefusalsSayWhy) {
  const scattering g{4, 6, 2, 5, 4, 3, 1, 2, 2};
  const floats w = random_floats(4 * 3 * 9, 1), bias(6);
  const auto refuses = [&](errc code, const std::function<void(pb::GraphProto&)>& change,
                           const strings& why) {
    builder b = scatter_of(g, w, bias);
    change(b.graph());
    expect_refusal([&] { b.import(); }, code, why);
  };
  const auto attribute = [](int i, std::vector<std::int64_t> values) {
    return [i, values](pb::GraphProto& graph) {
      auto* a = graph.mutable_node(0)->mutable_attribute(i);
      a->clear_ints();
      for (const auto v : values) a->add_ints(v);
    };
  };
  refuses(errc::bad_file, [](auto& t) { t.mutable_node(0)->mutable_attribute(0)->set_i(3); },
          {"my_ConvTranspose", "3 groups"});
  refuses(kNo, attribute(2, {9, 9, 9, 9}), {"my_ConvTranspose", "rows or columns of 5"});
  refuses(kNo, attribute(3, {256, 2}), {"steps of 256", "strides up to 255"});
  refuses(errc::bad_file, attribute(4, {1}), {"output_padding [1]"});
  refuses(errc::bad_file, attribute(4, {-1, 0}), {"output_padding [-1, 0]"});
  refuses(kNo,
          [](auto& t) {
            t.mutable_initializer(0)->clear_dims();
            t.mutable_initializer(0)->add_dims(108);
          },
          {"two-dimensional kernels", "I x O x H x W"});
  refuses(errc::bad_file,
          [](auto& t) {
            t.mutable_initializer(1)->mutable_float_data()->RemoveLast();
            t.mutable_initializer(1)->set_dims(0, 5);
          },
          {"5 biases for 6 channels"});
  builder b = scatter_of({4, 6, 1, 300, 4, 3, 1, 2, 2, {296, 0, 296, 0}},
                         random_floats(4 * 6 * 9, 1), bias);
  expect_refusal([&] { b.import(); }, kNo, {"a window of 592 pixels"});
}

// ---- Pad ----

builder padded(const std::string& op, float with = 0.0F, const std::string& mode = "constant") {
  builder b;
  b.input("x", {-1, 2, 4, 4}).output("y");
  b.weight("pads", {8}, {0, 0, 1, 2, 0, 0, 2, 1}, pb::TensorProto::INT64);
  b.weight("with", {}, {with});
  b.weight("w", {3, 2, 3, 3}, random_floats(54, 1));
  auto& pad = b.node("Pad", {"x", "pads", "with"}, {"p"});
  auto* a = pad.add_attribute();
  a->set_name("mode");
  a->set_s(mode);
  auto& n = b.node(op, {"p"}, {"y"});
  if (op == "Conv") n.add_input("w");
  if (op.find("Pool") != std::string::npos) builder::ints(n, "kernel_shape", {3, 3});
  return b;
}

TEST(Pad, JoinsTheConvolutionsAndAveragesBehindIt) {
  builder direct;
  direct.input("x", {-1, 2, 4, 4}).output("y");
  direct.weight("w", {3, 2, 3, 3}, random_floats(54, 1));
  builder::ints(direct.node("Conv", {"x", "w"}, {"y"}), "pads", {1, 2, 2, 1});
  const floats x = random_floats(32, 2);
  EXPECT_EQ(run(padded("Conv").import(), x), run(direct.import(), x));

  builder mean = one("AveragePool", {-1, 2, 4, 4}, {3, 3});
  builder::ints(*mean.graph().mutable_node(0), "pads", {1, 2, 2, 1});
  builder::integer(*mean.graph().mutable_node(0), "count_include_pad", 1);
  EXPECT_EQ(run(padded("AveragePool").import(), x), run(mean.import(), x));

  // Two readers, each with the pads; one adds its own.
  builder two = padded("Conv");
  two.graph().mutable_output(0)->set_name("z");
  two.node("Conv", {"p", "w"}, {"y2"});
  two.node("Add", {"y", "y2"}, {"z"});
  floats twice = run(direct.import(), x);
  for (float& v : twice) v *= 2;
  expect_near(run(two.import(), x), twice);
}

TEST(Pad, StandsByItselfBeforeOtherOperators) {
  const floats x = random_floats(32, 2);
  floats plane(2 * 49, 0.0F);
  for (std::size_t c = 0; c < 2; ++c) {
    for (std::size_t i = 0; i < 16; ++i)
      plane[c * 49 + (i / 4 + 1) * 7 + i % 4 + 2] = x[16 * c + i];
  }
  floats relu = plane, largest;
  for (float& v : relu) v = std::max(v, 0.0F);
  for (std::size_t c = 0; c < 2; ++c) {
    for (std::size_t i = 0; i < 25; ++i) {
      float most = -1e9F;
      for (std::size_t k = 0; k < 9; ++k) {
        most = std::max(most, plane[c * 49 + (i / 5 + k / 3) * 7 + i % 5 + k % 3]);
      }
      largest.push_back(most);
    }
  }
  EXPECT_EQ(run(padded("Relu").import(), x), relu);
  EXPECT_EQ(run(padded("MaxPool").import(), x), largest);
  builder last = padded("Conv");
  last.graph().mutable_output(0)->set_name("p");
  EXPECT_EQ(run(last.import(), x), plane);
  const qgraph g = quantise(last.import(), {x});
  EXPECT_EQ(g.output_tensor().scale, g.input_tensor().scale);
  expect_near(dequantise_output(g, reference(g).infer(quantise_input(g, x))), plane,
              g.output_tensor().scale);
}

TEST(Pad, RefusesWhatIsNoZerosAroundAPlane) {
  expect_refusal([] { padded("Conv", 1.0F).import(); }, kNo, {"pads with 1", "0.0"});
  expect_refusal([] { padded("Conv", 0.0F, "reflect").import(); }, kNo, {"reflect", "constant"});
  builder wide = padded("Relu");
  wide.graph().mutable_initializer(0)->set_int64_data(2, 40);
  expect_refusal([&] { wide.import(); }, kNo, {"kernel of 172 taps", "up to 64"});
  const auto pads = [](const longs& values) {
    builder b = padded("Conv");
    b.graph().mutable_initializer(0)->set_dims(0, static_cast<std::int64_t>(values.size()));
    b.graph().mutable_initializer(0)->clear_int64_data();
    for (const auto v : values) b.graph().mutable_initializer(0)->add_int64_data(v);
    return b;
  };
  expect_refusal([&] { pads({0, 1, 0, 0, 0, 0, 0, 0}).import(); }, kNo, {"rows and columns"});
  expect_refusal([&] { pads({0, 0, -1, 0, 0, 0, 0, 0}).import(); }, kNo, {"0 or more"});
  expect_refusal([&] { pads({0, 0, 1 << 30, 0, 0, 0, 0, 0}).import(); }, kNo, {"0 or more"});
  expect_refusal([&] { pads({0, 0, 1}).import(); }, errc::bad_file, {"3 pads"});
}

// ---- Pools ----

TEST(Pools, MeansOfPlanes) {
  const floats x = random_floats(2 * 3 * 4, 6);
  floats want;
  for (std::size_t c = 0; c < 2; ++c) {
    double sum = 0;
    for (std::size_t i = 0; i < 12; ++i) sum += x[c * 12 + i];
    want.push_back(static_cast<float>(sum / 12));
  }
  expect_near(run(one("GlobalAveragePool", {-1, 2, 3, 4}).import(), x), want);
  for (const longs& axes : {longs{2, 3}, longs{-1, -2}}) {
    for (const int keep : {0, 1}) {
      builder b = one("ReduceMean", {-1, 2, 3, 4});
      builder::ints(*b.graph().mutable_node(0), "axes", axes);
      builder::integer(*b.graph().mutable_node(0), "keepdims", keep);
      const fgraph g = b.import();
      EXPECT_EQ(g.output.dims, keep ? (std::vector<int>{2, 1, 1}) : std::vector<int>{2});
      expect_near(run(g, x), want);
    }
  }
  builder channels = one("ReduceMean", {-1, 2, 3, 4});
  builder::ints(*channels.graph().mutable_node(0), "axes", {1});
  expect_refusal([&] { channels.import(); }, kNo, {"axes [1]", "axes 2 and 3"});
}

// Windows at the border that divide by fewer pixels: whole ones keep their single rounding, the
// others have a second one of up to whole / fewer times half a step.
TEST(Pools, MeansThatLeaveThePaddingOut) {
  const struct {
    longs kernel, strides, pads;
    bool count, ceil;
    double fewest;  // share of a window
  } cases[] = {
      {{3, 3}, {1, 1}, {1, 1, 1, 1}, false, false, 4.0 / 9},
      {{2, 2}, {2, 2}, {}, true, true, 1.0 / 4},
      {{2, 3}, {2, 2}, {0, 1, 1, 1}, false, true, 2.0 / 6},
      {{5, 5}, {2, 1}, {2, 2, 2, 2}, true, false, 1},
      {{5, 5}, {1, 1}, {2, 2, 2, 2}, false, false, 9.0 / 25},
      {{3, 1}, {2, 1}, {1, 0, 1, 0}, true, true, 1},
  };
  const int h = 7, w = 5;
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::PrintToString(c.kernel) + ::testing::PrintToString(c.strides));
    builder b = one("AveragePool", {-1, 2, h, w}, c.kernel);
    auto& n = *b.graph().mutable_node(0);
    builder::ints(n, "strides", c.strides);
    if (!c.pads.empty()) builder::ints(n, "pads", c.pads);
    builder::integer(n, "count_include_pad", c.count);
    builder::integer(n, "ceil_mode", c.ceil);
    const longs pads = c.pads.empty() ? longs{0, 0, 0, 0} : c.pads;
    const floats x = random_floats(2 * h * w, 61);
    const fgraph f = b.import();
    const auto& out = f.output.dims;
    floats want;
    std::vector<bool> whole;
    for (int ch = 0; ch < 2; ++ch) {
      for (int oy = 0; oy < out[1]; ++oy) {
        for (int ox = 0; ox < out[2]; ++ox) {
          double sum = 0;
          int taps = 0;
          for (std::int64_t y = oy * c.strides[0] - pads[0];
               y < oy * c.strides[0] - pads[0] + c.kernel[0]; ++y) {
            for (std::int64_t v = ox * c.strides[1] - pads[1];
                 v < ox * c.strides[1] - pads[1] + c.kernel[1]; ++v) {
              const bool inside = y >= 0 && y < h && v >= 0 && v < w;
              if (inside) sum += x[static_cast<std::size_t>((ch * h + y) * w + v)];
              taps += inside || (c.count && y < h + pads[2] && v < w + pads[3]) ? 1 : 0;
            }
          }
          want.push_back(static_cast<float>(sum / taps));
          whole.push_back(taps == c.kernel[0] * c.kernel[1]);
        }
      }
    }
    expect_near(run(f, x), want);
    const bool plain = std::count(whole.begin(), whole.end(), false) == 0;
    EXPECT_EQ(f.nodes.size(), plain ? 1U : 3U);
    const qgraph q = quantise(f, {x});
    reference golden(q);
    const auto bytes = quantise_input(q, x);
    const floats got = dequantise_output(q, golden.infer(bytes));
    const float step = q.output_tensor().scale;
    const float input = q.input_tensor().scale / 2;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double roundings = whole[i] ? 0.5 : 0.5 + 0.5 / c.fewest;
      ASSERT_NEAR(got[i], want[i], roundings * step + input + 1e-5) << i;
    }
  }
  // Quantised files: the inside is bit for bit that of the pool without pads.
  const auto quantised = [&](const longs& pads) {
    builder b;
    b.input("x", {-1, 1, h, w}, pb::TensorProto::UINT8).output("y");
    b.weight("xs", {}, {0.5F});
    b.weight("ys", {}, {0.375F});
    b.weight("z", {}, {100}, pb::TensorProto::UINT8);
    auto& n = b.node("QLinearAveragePool", {"x", "xs", "z", "ys", "z"}, {"y"});
    n.set_domain("com.microsoft");
    builder::ints(n, "kernel_shape", {3, 3});
    builder::ints(n, "pads", pads);
    return b.import();
  };
  const fgraph padded = quantised({1, 1, 1, 1});
  ASSERT_EQ(padded.remarks.size(), 1U);
  EXPECT_THAT(padded.remarks[0], HasSubstr("within 1.6 steps"));
  reference all(quantise(padded, {})), inside(quantise(quantised({0, 0, 0, 0}), {}));
  std::vector<std::uint8_t> image;
  for (int i = 0; i < h * w; ++i) image.push_back(static_cast<std::uint8_t>(40 + i * 37 % 120));
  const auto with = all.infer(image), without = inside.infer(image);
  for (int y = 0; y < h - 2; ++y) {
    for (int v = 0; v < w - 2; ++v) {
      EXPECT_EQ(with[static_cast<std::size_t>((y + 1) * w + v + 1)],
                without[static_cast<std::size_t>(y * (w - 2) + v)]);
    }
  }
  builder narrow = one("AveragePool", {-1, 1, 5, 5}, {3, 3});
  builder::ints(*narrow.graph().mutable_node(0), "pads", {2, 2, 2, 2});
  expect_refusal(
      [&] { narrow.import(); }, kNo,
      {"my_AveragePool", "divides by 1 pixels, others by 9", "5.0 steps", "count_include_pad = 1"});
}

TEST(Pools, RefuseOtherWindows) {
  expect_refusal([] { one("AveragePool", {-1, 1, 5, 5}, {6, 6}).import(); }, errc::bad_file,
                 {"larger than its padded input"});
  expect_refusal([] { one("AveragePool", {-1, 1, 5, 5}).import(); }, errc::bad_file,
                 {"kernel_shape is missing"});
  expect_refusal([] { one("GlobalAveragePool", {-1, 5}).import(); }, kNo, {"needs planes"});
}

// ---- Functions of elements ----

TEST(Functions, SpeltInPiecesBecomeOneTable) {
  struct spelling {
    const char* name;
    std::function<void(builder&)> write;
    double (*value)(double);
  };
  const auto constant = [](builder& b, const std::string& name, float v) {
    b.weight(name, {}, {v});
  };
  const spelling spellings[] = {
      {"GELU",
       [&](builder& b) {
         constant(b, "r", std::sqrt(2.0F));
         constant(b, "one", 1.0F);
         constant(b, "half", 0.5F);
         b.node("Div", {"c", "r"}, {"d"});
         b.node("Erf", {"d"}, {"e"});
         b.node("Add", {"e", "one"}, {"f"});
         b.node("Mul", {"c", "f"}, {"g"});
         b.node("Mul", {"g", "half"}, {"y"});
       },
       [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); }},
      {"SiLU",
       [](builder& b) {
         b.node("Sigmoid", {"c"}, {"s"});
         b.node("Mul", {"c", "s"}, {"y"});
       },
       [](double v) { return v / (1 + std::exp(-v)); }},
      {"hard swish",
       [&](builder& b) {
         constant(b, "three", 3.0F);
         constant(b, "zero", 0.0F);
         constant(b, "six", 6.0F);
         b.node("Add", {"c", "three"}, {"a"});
         b.node("Clip", {"a", "zero", "six"}, {"k"});
         b.node("Mul", {"c", "k"}, {"m"});
         b.node("Div", {"m", "six"}, {"y"});
       },
       [](double v) { return v * std::clamp(v + 3, 0.0, 6.0) / 6; }},
      {"mish",
       [](builder& b) {
         b.node("Softplus", {"c"}, {"s"});
         b.node("Tanh", {"s"}, {"t"});
         b.node("Mul", {"c", "t"}, {"y"});
       },
       [](double v) { return v * std::tanh(std::log1p(std::exp(v))); }},
      {"one minus square",
       [&](builder& b) {
         constant(b, "one", 1.0F);
         b.node("Mul", {"c", "c"}, {"q"});
         b.node("Sub", {"one", "q"}, {"y"});
       },
       [](double v) { return 1 - v * v; }},
  };
  for (const spelling& s : spellings) {
    SCOPED_TRACE(s.name);
    builder b;
    b.input("x", {-1, 2, 3, 3}).output("y");
    b.weight("w", {2, 2, 1, 1}, {3.0F, 0.5F, -2.0F, 1.0F});
    b.node("Conv", {"x", "w"}, {"c"});
    s.write(b);
    const fgraph g = b.import();
    ASSERT_EQ(g.nodes.size(), 2U);
    ASSERT_TRUE(std::holds_alternative<ftable>(g.nodes[1].op));
    EXPECT_EQ(g.tensors[static_cast<std::size_t>(g.output.tensor)].name, "y");
    const floats x = random_floats(18, 8);
    floats want;
    for (std::size_t o = 0; o < 2; ++o) {
      for (std::size_t i = 0; i < 9; ++i) {
        const double c = o == 0 ? 3.0 * x[i] + 0.5 * x[9 + i] : -2.0 * x[i] + 1.0 * x[9 + i];
        want.push_back(static_cast<float>(s.value(c)));
      }
    }
    expect_near(run(g, x), want);
  }
}

TEST(Functions, RoundWhereAQuantisedFileRounds) {
  builder b;
  b.input("x", {-1, 4}).output("y");
  b.weight("s", {}, {0.1F});
  b.weight("coarse", {}, {0.25F});
  b.weight("z", {}, {100}, pb::TensorProto::UINT8);
  b.weight("zero", {}, {0}, pb::TensorProto::UINT8);
  const auto requantise = [&](const std::string& from, const std::string& to,
                              const std::string& scale, const std::string& zero) {
    b.node("QuantizeLinear", {from, scale, zero}, {to + "_q"});
    b.node("DequantizeLinear", {to + "_q", scale, zero}, {to});
  };
  requantise("x", "xd", "s", "z");
  b.node("Sigmoid", {"xd"}, {"g"});
  requantise("g", "gd", "coarse", "zero");  // Only 0, .25, .5, .75 and 1 remain.
  b.node("Mul", {"xd", "gd"}, {"m"});
  requantise("m", "y", "s", "z");
  const fgraph f = b.import();
  ASSERT_EQ(f.nodes.size(), 1U);
  reference golden(quantise(f, {}));
  for (int i = 0; i < 256; ++i) {
    const float x = 0.1F * static_cast<float>(i - 100);
    const double gate = std::nearbyint(1 / (1 + std::exp(-x)) / 0.25) * 0.25;
    const double want = std::clamp(std::nearbyint(x * gate / 0.1F) + 100, 0.0, 255.0);
    const auto y = golden.infer(std::vector<std::uint8_t>(4, static_cast<std::uint8_t>(i)));
    ASSERT_NEAR(y[2], want, x * gate * 10 == std::floor(x * gate * 10) ? 0 : 1) << i;
  }
}

TEST(Functions, NestedWithoutEndAreCut) {
  builder squares;  // As one function it would take 2^200 products.
  squares.input("t0", {-1, 3}).output("t200");
  for (int i = 0; i < 200; ++i) {
    const std::string from = "t" + std::to_string(i);
    squares.node("Mul", {from, from}, {"t" + std::to_string(i + 1)});
  }
  const fgraph g = squares.import();
  EXPECT_GT(g.nodes.size(), 10U);
  expect_near(run(g, {0.0F, 1.0F, -1.0F}), {0.0F, 1.0F, 1.0F});
  builder chain;
  chain.input("t0", {-1, 3}).output("t9000");
  for (int i = 0; i < 9000; ++i) {
    chain.node("Neg", {"t" + std::to_string(i)}, {"t" + std::to_string(i + 1)});
  }
  expect_near(run(chain.import(), {0.5F, 1.0F, -1.0F}), {0.5F, 1.0F, -1.0F});
}

TEST(Functions, WithParameters) {
  const auto with = [](const std::string& op, const std::string& attribute, float v) {
    builder b = one(op, {-1, 3});
    builder::real(*b.graph().mutable_node(0), attribute, v);
    return run(b.import(), {-2.0F, 0.25F, 3.0F});
  };
  expect_near(with("LeakyRelu", "alpha", 0.3F), {-0.6F, 0.25F, 3.0F});
  expect_near(with("HardSigmoid", "alpha", 0.4F), {0.0F, 0.6F, 1.0F});
  expect_near(with("Elu", "alpha", 2.0F), {2.0F * std::expm1(-2.0F), 0.25F, 3.0F});
  expect_refusal([&] { with("Elu", "alpha", std::nanf("")); }, kNo, {"alpha holds nan"});
  expect_refusal([&] { with("Celu", "alpha", 0.0F); }, errc::bad_file, {"alpha is 0"});

  builder p = one("PRelu", {-1, 2, 1, 2});
  p.graph().mutable_node(0)->add_input("slope");
  p.weight("slope", {2, 1, 1}, {0.5F, 0.5F});
  expect_near(run(p.import(), {-1, 1, -2, 2}), {-0.5F, 1, -1, 2});
  p.graph().mutable_initializer(0)->set_float_data(1, 0.25F);
  const floats given{-1, 1, -2, 2}, sloped{-0.5F, 1, -0.5F, 2};
  expect_near(run(p.import(), given), sloped);
  const qgraph g = quantise(p.import(), {given});
  expect_near(dequantise_output(g, reference(g).infer(quantise_input(g, given))), sloped,
              2 * g.output_tensor().scale);

  builder gelu = one("Gelu", {-1, 1});
  gelu.graph().mutable_node(0)->set_domain("com.microsoft");
  expect_near(run(gelu.import(), {1.0F}), {0.8413447F});
  gelu.graph().mutable_node(0)->set_op_type("QLinearConcat");
  expect_refusal([&] { gelu.import(); }, errc::bad_file, {"QLinearConcat", "1 inputs"});
  gelu.graph().mutable_node(0)->set_op_type("BiasGelu");
  expect_refusal([&] { gelu.import(); }, kNo, {"com.microsoft", "add the bias"});
}

// ---- Two tensors ----

/// y = op of Conv(x) and of another one, on planes or on their mean.
builder two(const std::string& op, bool mean_first, bool mean_second) {
  builder b;
  b.input("x", {-1, 2, 3, 3}).output("y");
  b.weight("w1", {2, 2, 1, 1}, {1.0F, 0.5F, -2.0F, 1.0F});
  b.weight("w2", {2, 2, 1, 1}, {-1.0F, 0.25F, 2.0F, 3.0F});
  b.node("Conv", {"x", "w1"}, {"a"});
  b.node("Conv", {"x", "w2"}, {"b"});
  b.node("GlobalAveragePool", {"a"}, {"ma"});
  b.node("GlobalAveragePool", {"b"}, {"mb"});
  b.node(op, {mean_first ? "ma" : "a", mean_second ? "mb" : "b"}, {"y"});
  return b;
}

TEST(TwoTensors, AreAddedSubtractedAndMultipliedAlsoByChannel) {
  const floats x = random_floats(18, 9);
  const auto plane = [&](const float(&w)[4]) {
    floats y;
    for (std::size_t o = 0; o < 2; ++o) {
      for (std::size_t i = 0; i < 9; ++i) y.push_back(w[2 * o] * x[i] + w[2 * o + 1] * x[9 + i]);
    }
    return y;
  };
  const floats a = plane({1.0F, 0.5F, -2.0F, 1.0F});
  const floats b = plane({-1.0F, 0.25F, 2.0F, 3.0F});
  const auto mean = [](const floats& v) {
    floats m(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) {
      float sum = 0;
      for (std::size_t k = 0; k < 9; ++k) sum += v[i / 9 * 9 + k];
      m[i] = sum / 9;
    }
    return m;
  };
  for (const std::string op : {"Add", "Sub", "Mul", "Max", "Min"}) {
    for (const int means : {0, 1, 2}) {
      const bool first = means == 2;
      const bool second = means == 1;
      SCOPED_TRACE(op + (first ? " mean first" : second ? " mean second" : ""));
      if (op == "Sub" && first) {
        expect_refusal([&] { two(op, first, second).import(); }, kNo, {"subtracts", "-1"});
        continue;
      }
      const floats p = first ? mean(a) : a;
      const floats q = second ? mean(b) : b;
      floats want;
      for (std::size_t i = 0; i < 18; ++i) {
        want.push_back(op == "Add"   ? p[i] + q[i]
                       : op == "Sub" ? p[i] - q[i]
                       : op == "Mul" ? p[i] * q[i]
                       : op == "Max" ? std::max(p[i], q[i])
                                     : std::min(p[i], q[i]));
      }
      const fgraph f = two(op, first, second).import();
      expect_near(run(f, x), want);
      const qgraph g = quantise(f, {x});
      reference golden(g);
      expect_near(dequantise_output(g, golden.infer(quantise_input(g, x))), want,
                  6 * g.output_tensor().scale);
    }
  }
  expect_refusal([] { two("Div", false, false).import(); }, kNo,
                 {"Div", "only Add, Sub, Mul, Max and Min"});
  builder rows = two("Mul", false, false);
  rows.graph().mutable_node(1)->set_input(0, "x2");
  rows.input("x2", {-1, 2, 3, 1});
  expect_refusal([&] { rows.import(); }, kNo, {"N x 2 x 3 x 3", "N x 2 x 3 x 1", "N x C x 1 x 1"});
}

// A constant of a tensor's shape is a tensor of its own, always the second operand.
TEST(Constants, OfATensorsShapeAreOperands) {
  const std::size_t dims[] = {3, 4, 5};
  const floats x = random_floats(60, 41);
  for (const longs& shape : {longs{1, 3, 4, 5}, longs{3, 4, 5}, longs{4, 5}, longs{1, 1, 4, 5},
                             longs{3, 1, 5}, longs{5}}) {
    std::size_t size = 1;
    for (const auto d : shape) size *= static_cast<std::size_t>(d);
    floats k = random_floats(size, 42);
    for (float& v : k) v += v < 0 ? -0.5F : 0.5F;
    for (const std::string op : {"Add", "Sub", "Mul", "Div"}) {
      for (const bool first : {false, true}) {
        SCOPED_TRACE(op + ::testing::PrintToString(shape) + (first ? " first" : ""));
        builder b;
        b.input("x", {-1, 3, 4, 5}).output("y");
        b.weight("k", shape, k);
        b.node(op, first ? strings{"k", "x"} : strings{"x", "k"}, {"y"});
        if (op == "Div" && first) {
          expect_refusal([&] { b.import(); }, kNo, {"my_Div", "elements of an image"});
          continue;
        }
        floats want;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const std::size_t at[] = {i / 20, i / 5 % 4, i % 5};
          std::size_t from = 0;
          for (std::size_t d = 0; d < shape.size(); ++d) {
            const std::size_t axis = d + 4 - shape.size();  // counted with the batch
            const auto n = static_cast<std::size_t>(shape[d]);
            from = from * n + (axis == 0 || n == 1 ? 0 : at[axis - 1]);
            if (axis > 0 && n != 1) ASSERT_EQ(n, dims[axis - 1]);
          }
          const float a = first ? k[from] : x[i], c = first ? x[i] : k[from];
          want.push_back(op == "Add" ? a + c : op == "Sub" ? a - c : op == "Mul" ? a * c : a / c);
        }
        const fgraph f = b.import();
        expect_near(run(f, x), want);
        const qgraph g = quantise(f, {x});
        const qnode& last = g.nodes.back();
        ASSERT_EQ(last.inputs.size(), 2U);
        EXPECT_TRUE(std::any_of(g.nodes.begin(), g.nodes.end(), [&](const qnode& n) {
          return n.output == last.inputs[1] && std::holds_alternative<qconstant>(n.op);
        }));
        reference golden(g);
        expect_near(dequantise_output(g, golden.infer(quantise_input(g, x))), want,
                    2 * g.output_tensor().scale);
      }
    }
  }
  const auto refused = [](const std::string& op, const longs& shape, const strings& parts) {
    std::size_t size = 1;
    for (const auto d : shape) size *= static_cast<std::size_t>(d);
    builder b;
    b.input("x", {-1, 3, 4, 5}).output("y");
    b.weight("k", shape, random_floats(size, 43));
    b.node(op, {"x", "k"}, {"y"});
    expect_refusal([&] { b.import(); }, kNo, parts);
  };
  refused("Add", {2, 3, 4, 5}, {"my_Add", "[2, 3, 4, 5]", "N x 3 x 4 x 5", "one per channel"});
  refused("Mul", {1, 1, 3, 4, 5}, {"my_Mul", "does not spread"});
  refused("Max", {4, 5}, {"my_Max", "elements of an image", "use one value"});
  refused("PRelu", {4, 5}, {"my_PRelu", "slopes differ"});
}

// Quantised files keep the quantisation of such a constant.
TEST(Constants, OfQuantisedFilesKeepTheirIntegers) {
  builder b;
  b.input("x", {-1, 1, 2, 2}, pb::TensorProto::UINT8).output("y");
  b.weight("xs", {}, {0.5F});
  b.weight("xz", {}, {10}, pb::TensorProto::UINT8);
  b.weight("k", {2, 2}, {0, 255, 30, 7}, pb::TensorProto::UINT8);
  b.weight("ks", {}, {0.25F});
  b.weight("kz", {}, {20}, pb::TensorProto::UINT8);
  b.weight("ys", {}, {0.5F});
  b.weight("yz", {}, {60}, pb::TensorProto::UINT8);
  b.node("QLinearAdd", {"x", "xs", "xz", "k", "ks", "kz", "ys", "yz"}, {"y"})
      .set_domain("com.microsoft");
  reference golden(quantise(b.import(), {}));
  EXPECT_EQ(std::get<qconstant>(golden.graph().nodes.at(0).op).values,
            (std::vector<std::uint8_t>{0, 255, 30, 7}));
  const std::vector<std::uint8_t> image{10, 11, 200, 255};
  const auto got = golden.infer(image);
  // x - 10 + (k - 20) / 2, halves to even, + 60
  EXPECT_EQ(std::vector<std::uint8_t>(got.begin(), got.end()),
            (std::vector<std::uint8_t>{50, 178, 255, 255}));

  builder q;
  q.input("x", {-1, 1, 2, 2}).output("y");
  q.weight("s", {}, {0.25F});
  q.weight("z", {}, {0}, pb::TensorProto::INT8);
  q.weight("k", {2, 2}, {-127, 5, 0, 127}, pb::TensorProto::INT8);
  q.node("QuantizeLinear", {"x", "s", "z"}, {"xq"});
  q.node("DequantizeLinear", {"xq", "s", "z"}, {"xd"});
  q.node("DequantizeLinear", {"k", "s", "z"}, {"kd"});
  q.node("Mul", {"xd", "kd"}, {"m"});
  q.node("QuantizeLinear", {"m", "s", "z"}, {"mq"});
  q.node("DequantizeLinear", {"mq", "s", "z"}, {"y"});
  const qgraph g = quantise(q.import(), {});
  EXPECT_EQ(std::get<qconstant>(g.nodes.at(0).op).values,
            (std::vector<std::uint8_t>{1, 133, 128, 255}));
  EXPECT_EQ(g.tensors[static_cast<std::size_t>(g.nodes[0].output)].scale, 0.25F);
}

// ---- Shapes ----

TEST(Shapes, RelabelWhatKeepsItsOrder) {
  builder b(12);  // Axes are attributes.
  b.input("x", {-1, 3, 4, 4}).output("y");
  b.weight("w", {3, 2}, random_floats(6, 3));
  b.node("GlobalAveragePool", {"x"}, {"p"});
  builder::ints(b.node("Transpose", {"p"}, {"t"}), "perm", {0, 2, 3, 1});
  builder::ints(b.node("Squeeze", {"t"}, {"s"}), "axes", {1, 2});
  builder::ints(b.node("Unsqueeze", {"s"}, {"u"}), "axes", {2, 3});
  b.node("Flatten", {"u"}, {"f"});
  b.node("MatMul", {"f", "w"}, {"m"});
  b.node("Softmax", {"m"}, {"y"});
  const fgraph g = b.import();
  ASSERT_EQ(g.nodes.size(), 2U);
  ASSERT_EQ(g.remarks.size(), 1U);
  EXPECT_THAT(g.remarks[0], HasSubstr("Softmax"));
  EXPECT_THAT(g.remarks[0], HasSubstr("argmax"));

  const auto perm = [](const longs& p) {
    builder t = one("Transpose", {-1, 3, 4, 4});
    builder::ints(*t.graph().mutable_node(0), "perm", p);
    return [t] { t.import(); };
  };
  expect_refusal(perm({0, 2, 3, 1}), kNo, {"changes the order", "NCHW"});
  expect_refusal(perm({1, 0, 2, 3}), kNo, {"changes the order"});
  expect_refusal(perm({0, 1, 2}), errc::bad_file, {"no permutation"});
  expect_refusal(perm({0, 1, 1, 3}), errc::bad_file, {"no permutation"});
  expect_refusal(perm({0, 1, 2, 1000000}), errc::bad_file, {"no permutation"});
  const auto axes = [](const std::string& op, const longs& a) {
    builder s(12);
    s.input("x", {-1, 3, 1, 4}).output("y");
    builder::ints(s.node(op, {"x"}, {"y"}), "axes", a);
    return [s] { s.import(); };
  };
  EXPECT_NO_THROW(axes("Squeeze", {-2})());
  expect_refusal(axes("Squeeze", {1}), errc::bad_file, {"3 elements"});
  expect_refusal(axes("Squeeze", {0}), kNo, {"batch"});
  expect_refusal(axes("Squeeze", {9}), errc::bad_file, {"axis 9"});
  expect_refusal(axes("Squeeze", {2, -2}), errc::bad_file, {"twice"});
  expect_refusal(axes("Unsqueeze", {1}), kNo, {"5 dimensions"});
  builder early = one("Softmax", {-1, 3});
  early.graph().mutable_output(0)->set_name("z");
  early.node("Relu", {"y"}, {"z"});
  const fgraph softmax = early.import();
  EXPECT_TRUE(std::holds_alternative<fsoftmax>(softmax.nodes.at(0).op));
  early.graph().mutable_node(0)->set_op_type("LogSoftmax");
  expect_refusal([&] { early.import(); }, kNo, {"not the last node", "argmax"});
}

// ---- Integers ----

/// u8 x -> MatMulInteger -> Cast -> Mul -> Add -> y.
builder matmul_integer() {
  builder b;
  b.input("x", {-1, 2}, pb::TensorProto::UINT8).output("y");
  b.weight("w", {2, 2}, {1, -127, 100, 127}, pb::TensorProto::INT8);
  b.weight("xz", {}, {3}, pb::TensorProto::UINT8);
  b.weight("s", {}, {0.01F});
  b.weight("t", {2}, {5.0F, -7.0F});
  b.node("MatMulInteger", {"x", "w", "xz"}, {"i"});
  builder::integer(b.node("Cast", {"i"}, {"f"}), "to", pb::TensorProto::FLOAT);
  b.node("Mul", {"f", "s"}, {"m"});
  b.node("Add", {"m", "t"}, {"y"});
  return b;
}

TEST(Integers, SumsMapWhenTheirScaleFollows) {
  const fgraph f = matmul_integer().import();
  ASSERT_EQ(f.nodes.size(), 1U);
  const qgraph q = quantise(f, {{200.0F - 3, 90.0F - 3}, {3.0F, 250.0F - 3}});
  EXPECT_EQ(std::get<qconv>(q.nodes[0].op).weights, (std::vector<std::int8_t>{1, 100, -127, 127}));
  EXPECT_EQ(q.input_tensor().zero_point, 3);
  reference golden(q);
  const auto y = dequantise_output(q, golden.infer(std::vector<std::uint8_t>{200, 90}));
  EXPECT_NEAR(y[0], 0.01 * (197 * 1 + 87 * 100) + 5, q.output_tensor().scale);
  EXPECT_NEAR(y[1], 0.01 * (197 * -127 + 87 * 127) - 7, q.output_tensor().scale);

  builder sum = matmul_integer();
  sum.graph().mutable_output(0)->set_name("f");
  expect_refusal([&] { sum.import(); }, kNo, {"int32 sum", "Mul"});
  builder relu = matmul_integer();
  relu.graph().mutable_node(2)->set_op_type("Relu");
  expect_refusal([&] { relu.import(); }, kNo, {"int32 sum"});
  builder to = matmul_integer();
  to.graph().mutable_node(1)->mutable_attribute(0)->set_i(pb::TensorProto::INT8);
  expect_refusal([&] { to.import(); }, kNo, {"casts to INT8"});
  builder real = matmul_integer();
  real.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->set_elem_type(
      pb::TensorProto::FLOAT);
  expect_refusal([&] { real.import(); }, errc::bad_file, {"not quantised"});
  builder minimum = matmul_integer();
  minimum.graph().mutable_initializer(0)->set_int32_data(0, -128);
  expect_refusal([&] { minimum.import(); }, kNo, {"1 of 4 weights"});
}

/// As ONNX Runtime's quantize_dynamic writes a layer; `apart`: what the scale is multiplied by.
builder dynamic(bool conv, float zero, int type, const longs& scales) {
  builder b;
  const floats w = random_floats(24, 71, 127);
  floats q(24);
  std::transform(w.begin(), w.end(), q.begin(), [&](float v) {
    return std::nearbyint(type == pb::TensorProto::UINT8 ? v + 128 : v);
  });
  b.input("x", conv ? longs{-1, 2, 3, 3} : longs{-1, 8}).output("y");
  b.weight("w", conv ? longs{3, 2, 2, 2} : longs{8, 3}, q, type);
  b.weight("wz", {}, {zero}, type);
  floats ws{0.01F, 0.02F, 0.005F};
  if (scales.empty()) ws = {0.01F};
  b.weight("ws", scales, ws);
  b.weight("bias", conv ? longs{1, 3, 1, 1} : longs{3}, {0.5F, -1, 2});
  b.node("DynamicQuantizeLinear", {"x"}, {"xq", "xs", "xz"});
  b.node(conv ? "ConvInteger" : "MatMulInteger", {"xq", "w", "xz", "wz"}, {"sum"});
  builder::integer(b.node("Cast", {"sum"}, {"real"}), "to", pb::TensorProto::FLOAT);
  b.node("Mul", {"xs", "ws"}, {"both"});
  b.node("Mul", {"real", "both"}, {"scaled"});
  b.node("Add", {"scaled", "bias"}, {"y"});
  return b;
}

// Layers whose input is quantised anew for every image become the float layers that they stand for.
TEST(Integers, DynamicQuantisationBecomesStatic) {
  struct {
    bool conv;
    float zero;
    int type;
    longs scales;
    bool integers;
  } const cases[] = {{false, 0, pb::TensorProto::INT8, {}, true},
                     {false, 0, pb::TensorProto::INT8, {3}, true},
                     {true, 0, pb::TensorProto::INT8, {}, true},
                     {true, 128, pb::TensorProto::UINT8, {}, true},
                     {false, 100, pb::TensorProto::UINT8, {}, false}};
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.conv << c.zero << c.scales.size());
    const builder b = dynamic(c.conv, c.zero, c.type, c.scales);
    const fgraph f = b.import();
    ASSERT_EQ(f.nodes.size(), 1U);
    EXPECT_EQ(std::get<fconv>(f.nodes[0].op).integers.has_value(), c.integers);
    EXPECT_EQ(f.remarks.size(), c.integers ? 1U : 2U);
    EXPECT_THAT(f.remarks[0], HasSubstr("calibration"));
    const floats x = random_floats(c.conv ? 18 : 8, 72), bias{0.5F, -1, 2};
    const floats w = random_floats(24, 71, 127);
    floats want;
    for (std::size_t o = 0; o < 3; ++o) {
      const float scale = c.scales.empty() ? 0.01F : floats{0.01F, 0.02F, 0.005F}[o];
      const auto weight = [&](std::size_t i) {
        const float v = c.type == pb::TensorProto::UINT8 ? w[i] + 128 : w[i];
        return (std::nearbyint(v) - c.zero) * scale;
      };
      for (std::size_t p = 0; p < (c.conv ? 4U : 1U); ++p) {
        double sum = bias[o];
        for (std::size_t i = 0; i < 8; ++i) {
          const std::size_t at = i / 4 * 9 + (p / 2 + i / 2 % 2) * 3 + p % 2 + i % 2;
          sum += c.conv ? weight(o * 8 + i) * x[at] : weight(i * 3 + o) * x[i];
        }
        want.push_back(static_cast<float>(sum));
      }
    }
    expect_near(run(f, x), want, 1e-4F);
    const qgraph g = quantise(f, {x});
    reference golden(g);
    expect_near(dequantise_output(g, golden.infer(quantise_input(g, x))), want,
                4 * g.output_tensor().scale);
  }
  // What the scale and the bytes stand for must not leak into anything else.
  const auto changed = [](const std::function<void(pb::GraphProto&)>& change) {
    builder b = dynamic(false, 0, pb::TensorProto::INT8, {});
    b.weight("one", {}, {1});
    change(b.graph());
    return [b] { b.import(); };
  };
  expect_refusal(changed([](auto& g) { g.mutable_node(4)->set_input(1, "ws"); }), kNo,
                 {"my_Add", "multiply the sums by that scale"});
  expect_refusal(changed([](auto& g) { g.mutable_node(5)->set_input(1, "xs"); }), kNo,
                 {"my_Add", "DynamicQuantizeLinear"});
  expect_refusal(changed([](auto& g) { g.mutable_node(1)->set_input(2, "wz"); }), kNo,
                 {"my_MatMulInteger", "zero point of the DynamicQuantizeLinear"});
  expect_refusal(changed([](auto& g) { g.mutable_node(3)->set_op_type("Add"); }), kNo,
                 {"my_Mul", "'xs' of a DynamicQuantizeLinear"});
  expect_refusal(changed([](auto& g) { g.mutable_output(0)->set_name("xq"); }), kNo,
                 {"output 'xq'", "each image's own"});
  expect_refusal(changed([](auto& g) {
                   g.mutable_node(1)->set_op_type("Relu");
                   while (g.node(1).input_size() > 1)
                     g.mutable_node(1)->mutable_input()->RemoveLast();
                 }),
                 kNo, {"my_MatMulInteger", "DynamicQuantizeLinear", "MatMulInteger"});
}

TEST(Integers, ConstantsBehindQuantizeLinearAreFolded) {
  builder b;
  b.input("x", {-1, 2}).output("y");
  b.weight("w", {2, 2}, {0.5F, -0.25F, 0.126F, 1.0F});
  b.weight("s", {2}, {0.01F, 0.01F});
  b.weight("z", {2}, {0, 0}, pb::TensorProto::INT8);
  builder::integer(b.node("QuantizeLinear", {"w", "s", "z"}, {"wq"}), "axis", 1);
  builder::integer(b.node("DequantizeLinear", {"wq", "s", "z"}, {"wd"}), "axis", 1);
  b.node("MatMul", {"x", "wd"}, {"y"});
  const qgraph q = quantise(b.import(), {floats{1, 1}, floats{-1, 1}});
  EXPECT_EQ(std::get<qconv>(q.nodes.at(0).op).weights,
            (std::vector<std::int8_t>{50, 13, -25, 100}));
}

// ---- ONNX Runtime ----

std::string from_base64(const std::string& text) {
  std::string out;
  unsigned bits = 0;
  int count = 0;
  for (const char c : text) {
    static const std::string alphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t v = alphabet.find(c);
    if (v == std::string::npos) break;  // Padding.
    bits = bits << 6 | static_cast<unsigned>(v);
    if ((count += 6) >= 8) out += static_cast<char>(bits >> (count -= 8) & 0xFF);
  }
  return out;
}

/// Bytes of the unsigned form: signed ones have 128 added.
std::vector<std::uint8_t> from_hex(const std::string& hex, bool is_signed) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int v = std::stoi(hex.substr(i, 2), nullptr, 16);
    out.push_back(static_cast<std::uint8_t>(is_signed ? v ^ 0x80 : v));
  }
  return out;
}

// tests/vectors/make_operators.py wrote these. Operators that ONNX Runtime computes with integer
// sums and one float32 product have to agree in every byte. The others it computes in float32 from
// dequantised values, where we have integers or a table: a tie may round the other way, one step.
TEST(OnnxRuntime, ComputesTheSame) {
  std::ifstream file(LATCHKEY_SOURCE_DIR "/tests/vectors/operators.json");
  ASSERT_TRUE(file);
  const auto doc = nlohmann::json::parse(file);
  const std::set<std::string> exact = {
      "QLinearGlobalAveragePool", "QLinearMul",
      "QLinearMul, by channel",   "QLinearConv, depthwise",
      "QLinearConv, groups",      "QLinearConv, multiplier",
      "QLinearConv, dilated",     "QLinearConv, depthwise dilated"};
  struct tally {
    int bytes = 0, differing = 0, steps = 0;
  };
  std::map<std::string, tally> tallies;
  for (const auto& c : doc.at("cases")) {
    const std::string name = c.at("operator");
    const bool is_signed = c.at("signed");
    SCOPED_TRACE(name);
    reference golden(quantise(import_onnx(from_base64(c.at("model")), name), {}));
    tally& t = tallies[name];
    for (std::size_t i = 0; i < c.at("input").size(); ++i) {
      const auto got = golden.infer(from_hex(c["input"][i], is_signed));
      const auto want = from_hex(c.at("output").at(i), is_signed);
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t k = 0; k < want.size(); ++k) {
        const int off = std::abs(got[k] - want[k]);
        ++t.bytes;
        t.differing += off != 0 ? 1 : 0;
        t.steps = std::max(t.steps, off);
      }
    }
  }
  EXPECT_EQ(tallies.size(), 36U);
  for (const auto& [name, t] : tallies) {
    std::printf("  %-32s %5d of %5d bytes differ, by %d\n", name.c_str(), t.differing, t.bytes,
                t.steps);
    if (exact.count(name) > 0) {
      EXPECT_EQ(t.differing, 0) << name;
    } else {
      EXPECT_LE(t.steps, 1) << name;
      EXPECT_LE(t.differing, t.bytes / 50) << name;
    }
  }
}

// ---- A network of all of them ----

builder mobile_block() {
  builder b;
  b.input("x", {-1, 3, 16, 16}).output("y");
  b.weight("w1", {8, 3, 3, 3}, random_floats(216, 31, 0.4F));
  b.weight("b1", {8}, random_floats(8, 32, 0.2F));
  b.weight("w2", {8, 1, 3, 3}, random_floats(72, 33, 0.5F));
  b.weight("w3", {4, 8, 1, 1}, random_floats(32, 34, 0.5F));
  b.weight("w4", {8, 4, 1, 1}, random_floats(32, 35, 0.9F));
  b.weight("w5", {8, 8, 1, 1}, random_floats(64, 36, 0.5F));
  b.weight("w6", {8, 5}, random_floats(40, 37, 0.7F));
  builder::ints(b.node("Conv", {"x", "w1", "b1"}, {"c1"}), "strides", {2, 2});
  b.node("HardSwish", {"c1"}, {"h1"});
  auto& dw = b.node("Conv", {"h1", "w2"}, {"d"});
  builder::integer(dw, "group", 8);
  builder::ints(dw, "pads", {1, 1, 1, 1});
  b.node("Relu", {"d"}, {"r"});
  b.node("GlobalAveragePool", {"r"}, {"p"});
  b.node("Conv", {"p", "w3"}, {"s1"});
  b.node("Relu", {"s1"}, {"s2"});
  b.node("Conv", {"s2", "w4"}, {"s3"});
  b.node("HardSigmoid", {"s3"}, {"s4"});
  b.node("Mul", {"r", "s4"}, {"m"});
  b.node("Conv", {"m", "w5"}, {"c2"});
  b.node("Add", {"c2", "h1"}, {"a"});
  builder::ints(b.node("AveragePool", {"a"}, {"q"}), "kernel_shape", {7, 7});
  b.node("Flatten", {"q"}, {"f"});
  b.node("MatMul", {"f", "w6"}, {"y"});
  b.model.mutable_opset_import(0)->set_version(14);
  return b;
}

TEST(Networks, OfAllOperatorsQuantiseClosely) {
  const fgraph f = mobile_block().import();
  std::vector<floats> images;
  for (std::uint32_t i = 0; i < 24; ++i) images.push_back(random_floats(768, 200 + i));
  const qgraph q = quantise(f, images);
  reference golden(q);
  float_executor exact(f);
  double signal = 0;
  double noise = 0;
  for (std::uint32_t i = 0; i < 24; ++i) {
    const floats image = random_floats(768, 500 + i);
    const auto got = dequantise_output(q, golden.infer(quantise_input(q, image)));
    const auto want = exact.infer(image);
    for (std::size_t k = 0; k < got.size(); ++k) {
      signal += static_cast<double>(want[k]) * want[k];
      noise += std::pow(static_cast<double>(got[k]) - want[k], 2);
    }
  }
  const double sqnr = 10 * std::log10(signal / noise);
  std::printf("%zu layers, signal to quantisation noise %.1f dB\n", q.nodes.size(), sqnr);
  EXPECT_GT(sqnr, 30.0);
}

TEST(Networks, DamagedFilesOfAllOperatorsNeverCrash) {
  EXPECT_GT(refused_when_damaged(mobile_block(), 3000), 500);
  EXPECT_GT(refused_when_damaged(dynamic(true, 0, pb::TensorProto::INT8, {}), 1000), 150);
  builder pool = one("AveragePool", {-1, 2, 7, 5}, {3, 3});
  builder::ints(*pool.graph().mutable_node(0), "pads", {1, 1, 1, 1});
  EXPECT_GT(refused_when_damaged(pool, 1000), 150);
}

}  // namespace
}  // namespace latchkey::model
