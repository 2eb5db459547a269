// The golden model against a direct transcription of the node definitions in 64-bit arithmetic, on
// random graphs; and validate() against graphs that break one rule each.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "latchkey/error.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"

namespace latchkey::model {
namespace {

using bytes = std::vector<std::uint8_t>;

class generator {
 public:
  explicit generator(std::uint64_t seed) : rng(seed) {}
  int pick(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); }
  float scale() { return std::uniform_real_distribution<float>(0.01F, 0.2F)(rng); }
  bytes image(std::size_t n) {
    bytes out(n);
    for (auto& b : out) b = static_cast<std::uint8_t>(pick(0, 255));
    return out;
  }
  std::mt19937_64 rng;
};

qnode random_conv(generator& g, const qtensor& in, qtensor& out) {
  qconv n;
  n.in_channels = in.c;
  n.out_channels = out.c = g.pick(1, 5);
  n.kernel_h = g.pick(1, std::min(in.h, 4));
  n.kernel_w = g.pick(1, std::min(in.w, 4));
  if (g.pick(0, 5) == 0) {
    n.kernel_h = in.h;
    n.kernel_w = in.w;
  } else {
    n.stride_y = g.pick(1, 3);
    n.stride_x = g.pick(1, 3);
    n.pad_top = g.pick(0, 2);
    n.pad_left = g.pick(0, 2);
    n.pad_bottom = g.pick(0, 2);
    n.pad_right = g.pick(0, 2);
  }
  out.h = window_output(in.h, n.kernel_h, n.stride_y, n.pad_top, n.pad_bottom);
  out.w = window_output(in.w, n.kernel_w, n.stride_x, n.pad_left, n.pad_right);
  for (int i = 0; i < n.out_channels * n.in_channels * n.kernel_h * n.kernel_w; ++i) {
    n.weights.push_back(static_cast<std::int8_t>(g.pick(0, 3) == 0 ? 0 : g.pick(-127, 127)));
  }
  for (int o = 0; o < n.out_channels; ++o) {
    n.bias.push_back(g.pick(-20000, 20000));
    n.weight_scale.push_back(g.scale() / 10.0F);
    n.scale.push_back(make_requant(in.scale, n.weight_scale.back(), out.scale));
  }
  n.clamp_lo = static_cast<std::uint8_t>(g.pick(0, 100));
  n.clamp_hi = static_cast<std::uint8_t>(g.pick(150, 255));
  return {"conv", {}, -1, n};
}

bytes direct(const qgraph& g, const qnode& node, const std::vector<bytes>& values) {
  const qtensor& in = g.tensors[static_cast<std::size_t>(node.inputs[0])];
  const qtensor& out = g.tensors[static_cast<std::size_t>(node.output)];
  const bytes& x = values[static_cast<std::size_t>(node.inputs[0])];
  bytes y;
  for (int c = 0; c < out.c; ++c) {
    for (int oy = 0; oy < out.h; ++oy) {
      for (int ox = 0; ox < out.w; ++ox) {
        if (const auto* n = std::get_if<qconv>(&node.op)) {
          const auto o = static_cast<std::size_t>(c);
          std::int64_t acc = n->bias[o];
          for (int i = 0; i < in.c; ++i) {
            for (int ky = 0; ky < n->kernel_h; ++ky) {
              for (int kx = 0; kx < n->kernel_w; ++kx) {
                const int iy = oy * n->stride_y + ky - n->pad_top;
                const int ix = ox * n->stride_x + kx - n->pad_left;
                if (iy < 0 || ix < 0 || iy >= in.h || ix >= in.w) continue;
                const int w = n->weights[static_cast<std::size_t>(
                    ((c * in.c + i) * n->kernel_h + ky) * n->kernel_w + kx)];
                acc +=
                    w * (x[static_cast<std::size_t>((i * in.h + iy) * in.w + ix)] - in.zero_point);
              }
            }
          }
          y.push_back(requantise(n->scale[o], static_cast<std::int32_t>(acc), out.zero_point,
                                 n->clamp_lo, n->clamp_hi));
        } else if (const auto* p = std::get_if<qmaxpool>(&node.op)) {
          int best = -1;
          for (int ky = 0; ky < p->kernel_h; ++ky) {
            for (int kx = 0; kx < p->kernel_w; ++kx) {
              const int iy = oy * p->stride_y + ky - p->pad_top;
              const int ix = ox * p->stride_x + kx - p->pad_left;
              if (iy < 0 || ix < 0 || iy >= in.h || ix >= in.w) continue;
              best = std::max<int>(best, x[static_cast<std::size_t>((c * in.h + iy) * in.w + ix)]);
            }
          }
          y.push_back(static_cast<std::uint8_t>(best));
        } else {
          const auto& a = std::get<qadd>(node.op);
          const std::size_t at = y.size();
          const int b = values[static_cast<std::size_t>(node.inputs[1])][at];
          const std::int64_t t =
              (x[at] - 128) * a.mult_a + (b - 128) * a.mult_b + static_cast<std::int64_t>(a.offset);
          y.push_back(static_cast<std::uint8_t>(
              std::clamp<std::int64_t>(rne_shift(t, a.shift) + 128, a.clamp_lo, a.clamp_hi)));
        }
      }
    }
  }
  return y;
}

TEST(Reference, AgreesWithTheDefinitionsOnRandomGraphs) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    generator g(seed);
    qgraph graph;
    graph.name = "random";
    qtensor first{"in",         g.pick(1, 4), g.pick(1, 9),
                  g.pick(1, 9), g.scale(),    static_cast<std::uint8_t>(g.pick(0, 255))};
    graph.tensors.push_back(first);
    const int layers = g.pick(1, 4);
    for (int l = 0; l < layers; ++l) {
      const int source = static_cast<int>(graph.tensors.size()) - 1;
      const qtensor in = graph.tensors.back();
      qtensor out{
          "t" + std::to_string(l), 1, 1, 1, g.scale(), static_cast<std::uint8_t>(g.pick(0, 255))};
      qnode node;
      const int kind = g.pick(0, 3);
      if (kind <= 1) {
        node = random_conv(g, in, out);
        node.inputs = {source};
      } else if (kind == 2) {
        qmaxpool p;
        p.kernel_h = g.pick(1, in.h);
        p.kernel_w = g.pick(1, in.w);
        p.stride_y = g.pick(1, 3);
        p.stride_x = g.pick(1, 3);
        p.pad_top = g.pick(0, p.kernel_h - 1);
        p.pad_left = g.pick(0, p.kernel_w - 1);
        p.pad_bottom = g.pick(0, p.kernel_h - 1);
        p.pad_right = g.pick(0, p.kernel_w - 1);
        out = in;
        out.h = window_output(in.h, p.kernel_h, p.stride_y, p.pad_top, p.pad_bottom);
        out.w = window_output(in.w, p.kernel_w, p.stride_x, p.pad_left, p.pad_right);
        node = {"pool", {source}, -1, p};
      } else {
        qadd a;
        a.mult_a = static_cast<std::uint16_t>(g.pick(0, 65535));
        a.mult_b = static_cast<std::uint16_t>(g.pick(0, 65535));
        a.offset = g.pick(-20000000, 20000000);
        a.shift = static_cast<std::uint8_t>(g.pick(0, 22));
        out.c = in.c;
        out.h = in.h;
        out.w = in.w;
        node = {"add", {source, source}, -1, a};
      }
      node.output = source + 1;
      graph.tensors.push_back(out);
      graph.nodes.push_back(node);
    }
    const auto dims = [](const qtensor& t) { return std::vector<int>{t.c, t.h, t.w}; };
    graph.input = {"in", 0, io_type::u8, dims(graph.tensors.front())};
    graph.output = {"out", layers, io_type::u8, dims(graph.tensors.back())};
    ASSERT_NO_THROW(validate(graph));
    reference golden(graph);
    for (int image = 0; image < 3; ++image) {
      std::vector<bytes> expected(graph.tensors.size());
      expected[0] = g.image(first.size());
      for (const qnode& node : graph.nodes) {
        expected[static_cast<std::size_t>(node.output)] = direct(graph, node, expected);
      }
      ASSERT_EQ(golden.run(expected[0]), expected);
      const auto out = golden.infer(expected[0]);
      ASSERT_EQ(bytes(out.begin(), out.end()), expected.back());
    }
  }
}

qgraph small() {
  qgraph g;
  g.name = "small";
  g.tensors = {{"in", 1, 4, 4, 0.1F, 3},
               {"conv", 2, 4, 4, 0.2F, 128},
               {"pool", 2, 2, 2, 0.2F, 128},
               {"sum", 2, 2, 2, 0.4F, 0}};
  qconv c;
  c.in_channels = 1;
  c.out_channels = 2;
  c.kernel_h = c.kernel_w = 3;
  c.pad_top = c.pad_left = c.pad_bottom = c.pad_right = 1;
  c.weights.assign(18, 5);
  c.bias = {100, -100};
  c.weight_scale = {0.01F, 0.02F};
  c.scale = {make_requant(0.1F, 0.01F, 0.2F), make_requant(0.1F, 0.02F, 0.2F)};
  qmaxpool p;
  p.kernel_h = p.kernel_w = p.stride_y = p.stride_x = 2;
  g.nodes = {
      {"conv", {0}, 1, c}, {"pool", {1}, 2, p}, {"sum", {2, 2}, 3, qadd{1, 1, 0, 1, 0, 255}}};
  g.input = {"in", 0, io_type::f32, {1, 4, 4}};
  g.output = {"sum", 3, io_type::f32, {2, 2, 2}};
  return g;
}

TEST(Validate, AcceptsASoundGraph) { EXPECT_NO_THROW(validate(small())); }

TEST(Validate, RefusesEveryBrokenRule) {
  const auto conv = [](qgraph& g) -> qconv& { return std::get<qconv>(g.nodes[0].op); };
  const auto pool = [](qgraph& g) -> qmaxpool& { return std::get<qmaxpool>(g.nodes[1].op); };
  const auto add = [](qgraph& g) -> qadd& { return std::get<qadd>(g.nodes[2].op); };
  const std::vector<std::pair<const char*, std::function<void(qgraph&)>>> breaks = {
      {"weight -128", [&](qgraph& g) { conv(g).weights[3] = -128; }},
      {"missing weight", [&](qgraph& g) { conv(g).weights.pop_back(); }},
      {"missing bias", [&](qgraph& g) { conv(g).bias.pop_back(); }},
      {"overflow", [&](qgraph& g) { conv(g).bias[1] = 2147483647; }},
      {"clamp", [&](qgraph& g) { conv(g).clamp_lo = 200, conv(g).clamp_hi = 100; }},
      {"multiplier", [&](qgraph& g) { ++conv(g).scale[0].multiplier; }},
      {"zero stride", [&](qgraph& g) { conv(g).stride_x = 0; }},
      {"negative pad", [&](qgraph& g) { conv(g).pad_left = -1; }},
      {"wrong shape", [&](qgraph& g) { g.tensors[1].h = 3; }},
      {"wrong channels", [&](qgraph& g) { conv(g).out_channels = 3; }},
      {"pool pad", [&](qgraph& g) { pool(g).pad_top = 2, g.tensors[2].h = 3; }},
      {"pool scale", [&](qgraph& g) { g.tensors[2].scale = 0.3F; }},
      {"add shift", [&](qgraph& g) { add(g).shift = 23; }},
      {"add overflow", [&](qgraph& g) { add(g).offset = 2147483600; }},
      {"add shape", [&](qgraph& g) { g.nodes[2].inputs[1] = 1; }},
      {"one input too many", [&](qgraph& g) { g.nodes[0].inputs = {0, 0}; }},
      {"reads ahead", [&](qgraph& g) { g.nodes[0].inputs = {2}; }},
      {"unknown tensor", [&](qgraph& g) { g.nodes[0].inputs = {9}; }},
      {"written twice", [&](qgraph& g) { g.nodes[1].output = 1; }},
      {"output missing", [&](qgraph& g) { g.nodes.pop_back(); }},
      {"no output", [&](qgraph& g) { g.output.tensor = 7; }},
      {"io shape", [&](qgraph& g) { g.input.dims = {1, 4, 5}; }},
      {"scale 0", [&](qgraph& g) { g.tensors[0].scale = 0.0F; }},
      {"empty tensor", [&](qgraph& g) { g.tensors[0].c = 0; }},
  };
  for (const auto& [what, apply] : breaks) {
    qgraph g = small();
    apply(g);
    try {
      validate(g);
      ADD_FAILURE() << what << " was accepted";
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::unsupported_model) << what;
    }
    EXPECT_THROW(reference{g}, error) << what;
  }
}

TEST(Reference, RefusesImagesOfTheWrongSize) {
  reference golden(small());
  EXPECT_THROW(golden.run(bytes(15)), error);
  EXPECT_THROW(golden.run(bytes{}), error);
  EXPECT_THROW(quantise_input(golden.graph(), std::vector<float>(17)), error);
}

TEST(Qgraph, CountsItsWork) {
  EXPECT_EQ(small().macs(), 18U * 16U);
  EXPECT_EQ(small().parameters(), 20U);
}

}  // namespace
}  // namespace latchkey::model
