// Transformers: tokens, attention, layer normalisation, against sums in double precision that are
// written out here.
#include <cmath>
#include <numbers>
#include <set>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/partition.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

constexpr errc kNo = errc::unsupported_model;
using doubles = std::vector<double>;

/// One encoder layer as BERT has it, its weights, its file and its arithmetic.
struct encoder {
  int tokens = 12, heads = 2, depth = 64, inner = 256;
  bool spelt = true;       ///< Layer normalisation as exporters write it before operator set 17
  bool two_means = false;  ///< and with two differences from the mean
  bool flat = false;       ///< One head without a dimension of its own
  bool fused = false;      ///< One layer for queries, keys and values
  /// How its channels split in three lie: "3HD" as timm and PaddleOCR have it, "H3D", "HD3".
  std::string parts;
  std::string take = "Gather";  ///< and the operator that takes a part, moved before the batch
  bool torch = false;           ///< As PyTorch's MultiheadAttention does it with one image

  [[nodiscard]] int hidden() const { return heads * depth; }

  static floats weights(int ins, int outs, std::uint32_t seed) {
    const float reach = std::sqrt(3.0F / static_cast<float>(ins));
    return random_floats(static_cast<std::size_t>(ins) * static_cast<std::size_t>(outs), seed,
                         reach);
  }
  static floats biases(int outs, std::uint32_t seed) {
    return random_floats(static_cast<std::size_t>(outs), seed, 0.3F);
  }

  struct dense {
    const char* name;
    int ins, outs;
    std::uint32_t seed;
  };
  [[nodiscard]] std::vector<dense> layers() const {
    return {{"q", hidden(), hidden(), 1}, {"k", hidden(), hidden(), 2},
            {"v", hidden(), hidden(), 3}, {"o", hidden(), hidden(), 4},
            {"in", hidden(), inner, 5},   {"out", inner, hidden(), 6}};
  }
  static floats gammas(int n, std::uint32_t seed) {
    floats g = random_floats(static_cast<std::size_t>(n), seed);
    g[3] = -g[3];
    return g;
  }

  // ---- The file ----

  static void shape(builder& b, const std::string& name, const longs& sizes) {
    b.weight(name, {static_cast<std::int64_t>(sizes.size())}, floats(sizes.begin(), sizes.end()),
             pb::TensorProto::INT64);
  }
  static void number(builder& b, const std::string& name, std::int64_t v) {
    b.weight(name, {}, {static_cast<float>(v)}, pb::TensorProto::INT64);
  }

  /// The weights and biases of queries, keys and values in one layer, by the order of its channels.
  void fuse(builder& b, const std::string& order) const {
    const auto n = static_cast<std::size_t>(hidden()), d = static_cast<std::size_t>(depth);
    floats w(3 * n * n), bias(3 * n);
    for (std::size_t p = 0; p < 3; ++p) {
      const auto seed = static_cast<std::uint32_t>(p + 1);
      const floats part = weights(hidden(), hidden(), seed), b3 = biases(hidden(), seed + 100);
      for (std::size_t c = 0; c < n; ++c) {
        const std::size_t to = order == "3HD"   ? p * n + c
                               : order == "H3D" ? (c / d * 3 + p) * d + c % d
                                                : c * 3 + p;
        bias[to] = b3[c];
        for (std::size_t k = 0; k < n; ++k) w[k * 3 * n + to] = part[k * n + c];
      }
    }
    b.weight("qkv_w", {hidden(), 3 * hidden()}, w);
    b.weight("qkv_b", {3 * hidden()}, bias);
  }

  /// Queries, keys and values of "qkv", N x T x C, as "qh", "kh" and "vh".
  void take_parts(builder& b) const {
    longs sizes{0, tokens, 0, 0, 0}, perm{0, 0, 0, 1, 0};
    for (std::size_t i = 0; i < 3; ++i) {
      const auto at = static_cast<std::int64_t>(i + 2);
      sizes[i + 2] = parts[i] == '3' ? 3 : parts[i] == 'H' ? heads : depth;
      perm[parts[i] == '3' ? 0 : parts[i] == 'H' ? 2 : 4] = at;
    }
    shape(b, "five", sizes);
    b.node("Reshape", {"qkv", "five"}, {"qkv5"});
    builder::ints(b.node("Transpose", {"qkv5"}, {"moved"}), "perm", perm);
    shape(b, "first", {0});
    const char* const names[] = {"q", "k", "v"};
    if (take == "Split") {
      builder::integer(b.node("Split", {"moved"}, {"q1", "k1", "v1"}), "axis", 0);
    }
    for (std::int64_t i = 0; i < 3; ++i) {
      const std::string n = names[i];
      if (take == "Gather") {
        number(b, n + "_at", i);
        builder::integer(b.node("Gather", {"moved", n + "_at"}, {n}), "axis", 0);
        continue;
      }
      if (take == "Slice") {
        shape(b, n + "_from", {i});
        shape(b, n + "_to", {i + 1});
        b.node("Slice", {"moved", n + "_from", n + "_to", "first"}, {n + "1"});
      }
      b.node("Squeeze", {n + "1", "first"}, {n});
    }
    b.weight("factor", {}, {1 / std::sqrt(static_cast<float>(depth))});
    b.node("Mul", {"q", "factor"}, {"qh"});
    builder::ints(b.node("Transpose", {"k"}, {"kh"}), "perm", {0, 1, 3, 2});
    b.node("Identity", {"v"}, {"vh"});
  }

  /// nn.MultiheadAttention(batch_first=True) of "x", with a batch of 1: tokens first, the batch in
  /// and out of the heads.
  void attend_torch(builder& b) const {
    shape(b, "three", {tokens, 1, 3, hidden()});
    shape(b, "first", {0});
    shape(b, "fourth", {3});
    shape(b, "to_heads", {tokens, heads, depth});
    shape(b, "to_batch", {1, heads, tokens, depth});
    shape(b, "flat", {tokens, hidden()});
    shape(b, "apart", {tokens, 1, hidden()});
    b.weight("root", {}, {1 / std::pow(static_cast<float>(depth), 0.25F)});
    builder::ints(b.node("Transpose", {"x"}, {"xt"}), "perm", {1, 0, 2});
    b.node("MatMul", {"xt", "qkv_w"}, {"qkv_x"});
    b.node("Add", {"qkv_x", "qkv_b"}, {"qkv"});
    b.node("Reshape", {"qkv", "three"}, {"qkv4"});
    b.node("Unsqueeze", {"qkv4", "first"}, {"qkv5"});
    builder::ints(b.node("Transpose", {"qkv5"}, {"moved"}), "perm", {3, 1, 2, 0, 4});
    b.node("Squeeze", {"moved", "fourth"}, {"parts"});
    const char* const names[] = {"q", "k", "v"};
    for (std::int64_t i = 0; i < 3; ++i) {
      const std::string n = names[i];
      number(b, n + "_at", i);
      builder::integer(b.node("Gather", {"parts", n + "_at"}, {n}), "axis", 0);
      b.node("Reshape", {n, "to_heads"}, {n + "3"});
      builder::ints(b.node("Transpose", {n + "3"}, {n + "t"}), "perm", {1, 0, 2});
      b.node("Reshape", {n + "t", "to_batch"}, {n + "4"});
    }
    builder::ints(b.node("Transpose", {"k4"}, {"k4t"}), "perm", {0, 1, 3, 2});
    b.node("Mul", {"q4", "root"}, {"qh"});
    b.node("Mul", {"k4t", "root"}, {"kh"});
    b.node("MatMul", {"qh", "kh"}, {"scores"});
    builder::integer(b.node("Softmax", {"scores"}, {"shares"}), "axis", -1);
    b.node("MatMul", {"shares", "v4"}, {"context"});
    builder::ints(b.node("Transpose", {"context"}, {"back"}), "perm", {2, 0, 1, 3});
    b.node("Reshape", {"back", "flat"}, {"joined"});
    const floats w = weights(hidden(), hidden(), 4);
    b.weight("o_w", {hidden(), hidden()}, w);
    b.weight("o_b", {hidden()}, biases(hidden(), 104));
    b.node("Gemm", {"joined", "o_w", "o_b"}, {"o2"});
    b.node("Reshape", {"o2", "apart"}, {"o3"});
    builder::ints(b.node("Transpose", {"o3"}, {"o"}), "perm", {1, 0, 2});
  }

  void norm(builder& b, const std::string& x, const std::string& y, std::uint32_t seed) const {
    const longs size{hidden()};
    b.weight(y + "_g", size, gammas(hidden(), seed));
    b.weight(y + "_b", size, biases(hidden(), seed + 1));
    if (!spelt) {
      auto& n = b.node("LayerNormalization", {x, y + "_g", y + "_b"}, {y});
      builder::integer(n, "axis", -1);
      builder::real(n, "epsilon", 1e-6F);
      return;
    }
    b.weight(y + "_e", {}, {1e-6F});
    b.weight(y + "_2", {}, {2});
    builder::ints(b.node("ReduceMean", {x}, {y + "_m"}), "axes", {-1});
    b.node("Sub", {x, y + "_m"}, {y + "_c"});
    const std::string other = two_means ? y + "_c2" : y + "_c";
    if (two_means) b.node("Sub", {x, y + "_m"}, {other});
    if (two_means) {
      b.node("Mul", {y + "_c", y + "_c"}, {y + "_s"});
    } else {
      b.node("Pow", {y + "_c", y + "_2"}, {y + "_s"});
    }
    builder::ints(b.node("ReduceMean", {y + "_s"}, {y + "_v"}), "axes", {2});
    b.node("Add", {y + "_v", y + "_e"}, {y + "_a"});
    b.node("Sqrt", {y + "_a"}, {y + "_r"});
    if (two_means) {
      b.node("Reciprocal", {y + "_r"}, {y + "_i"});
      b.node("Mul", {other, y + "_i"}, {y + "_n"});
    } else {
      b.node("Div", {other, y + "_r"}, {y + "_n"});
    }
    b.node("Mul", {y + "_n", y + "_g"}, {y + "_p"});
    b.node("Add", {y + "_p", y + "_b"}, {y});
  }

  [[nodiscard]] builder model() const {
    builder b(17);
    b.input("x", {torch ? 1 : -1, tokens, hidden()}).output("y");
    const auto product = [&](const dense& l, const std::string& x, const std::string& y) {
      b.weight(y + "_w", {l.ins, l.outs}, weights(l.ins, l.outs, l.seed));
      b.weight(y + "_b", {l.outs}, biases(l.outs, l.seed + 100));
      b.node("MatMul", {x, y + "_w"}, {y + "_x"});
      b.node("Add", {y + "_b", y + "_x"}, {y});
    };
    const auto all = layers();
    if (fused || torch || !parts.empty()) fuse(b, parts.empty() ? "3HD" : parts);
    if (torch) {
      attend_torch(b);
    } else {
      attend(b, product);
    }
    b.node("Add", {"o", "x"}, {"sum1"});
    norm(b, "sum1", "n1", 20);
    product(all[4], "n1", "in");
    b.weight("r2", {}, {std::numbers::sqrt2_v<float>});
    b.weight("one", {1}, {1});
    b.weight("half", {}, {0.5F});
    b.node("Div", {"in", "r2"}, {"g1"});
    b.node("Erf", {"g1"}, {"g2"});
    b.node("Add", {"g2", "one"}, {"g3"});
    b.node("Mul", {"in", "g3"}, {"g4"});
    b.node("Mul", {"g4", "half"}, {"gelu"});
    product(all[5], "gelu", "out");
    b.node("Add", {"out", "n1"}, {"sum2"});
    norm(b, "sum2", "y", 30);
    return b;
  }

  /// Attention of "x" with the batch first, up to its last layer, "o".
  template <typename Product>
  void attend(builder& b, const Product& product) const {
    const auto all = layers();
    shape(b, "split", {0, 0, heads, depth});
    shape(b, "join", {0, tokens, -1});
    b.weight("root", {}, {std::sqrt(static_cast<float>(depth))});
    if (fused || !parts.empty()) {
      b.node("MatMul", {"x", "qkv_w"}, {"qkv_x"});
      b.node("Add", {"qkv_x", "qkv_b"}, {"qkv"});
    }
    if (fused) builder::integer(b.node("Split", {"qkv"}, {"q", "k", "v"}), "axis", -1);
    if (!parts.empty()) take_parts(b);
    for (std::size_t i = 0; i < 3 && parts.empty(); ++i) {
      const std::string name = all[i].name;
      if (!fused) product(all[i], "x", name);
      const bool key = i == 1;
      if (flat) {
        if (key) {
          builder::ints(b.node("Transpose", {name}, {name + "h"}), "perm", {0, 2, 1});
        } else {
          b.node("Identity", {name}, {name + "h"});
        }
        continue;
      }
      b.node("Reshape", {name, "split"}, {name + "s"});
      builder::ints(b.node("Transpose", {name + "s"}, {name + "h"}), "perm",
                    key ? longs{0, 2, 3, 1} : longs{0, 2, 1, 3});
    }
    b.node("MatMul", {"qh", "kh"}, {"scores"});
    if (parts.empty()) b.node("Div", {"scores", "root"}, {"scaled"});
    builder::integer(b.node("Softmax", {parts.empty() ? "scaled" : "scores"}, {"shares"}), "axis",
                     -1);
    b.node("MatMul", {"shares", "vh"}, {"context"});
    std::string joined = "context";
    if (!flat) {
      builder::ints(b.node("Transpose", {"context"}, {"back"}), "perm", {0, 2, 1, 3});
      b.node("Reshape", {"back", "join"}, {"joined"});
      joined = "joined";
    }
    product(all[3], joined, "o");
  }

  // ---- The arithmetic ----

  [[nodiscard]] doubles multiply(const doubles& x, const dense& l) const {
    const floats w = weights(l.ins, l.outs, l.seed), b = biases(l.outs, l.seed + 100);
    doubles y(static_cast<std::size_t>(tokens * l.outs));
    for (int t = 0; t < tokens; ++t) {
      for (int o = 0; o < l.outs; ++o) {
        double sum = b[static_cast<std::size_t>(o)];
        for (int i = 0; i < l.ins; ++i) {
          sum += x[static_cast<std::size_t>(t * l.ins + i)] *
                 w[static_cast<std::size_t>(i * l.outs + o)];
        }
        y[static_cast<std::size_t>(t * l.outs + o)] = sum;
      }
    }
    return y;
  }

  [[nodiscard]] doubles normalise(const doubles& x, std::uint32_t seed) const {
    const floats g = gammas(hidden(), seed), b = biases(hidden(), seed + 1);
    doubles y(x.size());
    const auto n = static_cast<std::size_t>(hidden());
    for (std::size_t t = 0; t < x.size(); t += n) {
      double mean = 0, variance = 0;
      for (std::size_t i = 0; i < n; ++i) mean += x[t + i] / static_cast<double>(n);
      for (std::size_t i = 0; i < n; ++i) {
        variance += (x[t + i] - mean) * (x[t + i] - mean) / static_cast<double>(n);
      }
      for (std::size_t i = 0; i < n; ++i) {
        y[t + i] = (x[t + i] - mean) / std::sqrt(variance + 1e-6) * g[i] + b[i];
      }
    }
    return y;
  }

  [[nodiscard]] doubles attend(const doubles& q, const doubles& k, const doubles& v) const {
    doubles out(q.size());
    const auto at = [&](const doubles& m, int t, int h, int d) {
      return m[static_cast<std::size_t>((t * heads + h) * depth + d)];
    };
    for (int h = 0; h < heads; ++h) {
      for (int t = 0; t < tokens; ++t) {
        doubles share;
        double sum = 0;
        for (int s = 0; s < tokens; ++s) {
          double dot = 0;
          for (int d = 0; d < depth; ++d) dot += at(q, t, h, d) * at(k, s, h, d);
          share.push_back(std::exp(dot / std::sqrt(static_cast<double>(depth))));
          sum += share.back();
        }
        for (int d = 0; d < depth; ++d) {
          double y = 0;
          for (int s = 0; s < tokens; ++s) y += share[static_cast<std::size_t>(s)] * at(v, s, h, d);
          out[static_cast<std::size_t>((t * heads + h) * depth + d)] = y / sum;
        }
      }
    }
    return out;
  }

  [[nodiscard]] doubles run(const floats& x) const {
    const doubles input(x.begin(), x.end());
    const auto l = layers();
    doubles y = attend(multiply(input, l[0]), multiply(input, l[1]), multiply(input, l[2]));
    y = multiply(y, l[3]);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += input[i];
    const doubles middle = normalise(y, 20);
    y = multiply(middle, l[4]);
    for (double& v : y) v = 0.5 * v * (1 + std::erf(v / std::numbers::sqrt2));
    y = multiply(y, l[5]);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += middle[i];
    return normalise(y, 30);
  }
};

std::vector<floats> inputs(const fgraph& g, int count) {
  std::vector<floats> out;
  const auto& t = g.tensors.at(static_cast<std::size_t>(g.inputs.at(0).tensor));
  for (int i = 0; i < count; ++i) {
    out.push_back(random_floats(t.size(), static_cast<std::uint32_t>(1000 + i), 1.7F));
  }
  return out;
}

/// The float model's result in the file's order.
floats infer(float_executor& e, const floats& x) {
  const fgraph& g = e.graph();
  const auto channels = [&](const io_spec& io) {
    return g.tensors[static_cast<std::size_t>(io.tensor)].c;
  };
  const auto y = e.infer(to_planes(g.inputs[0], channels(g.inputs[0]), x));
  return from_planes(g.output, channels(g.output), floats(y.begin(), y.end()));
}

floats infer(reference& r, const floats& x) {
  const qgraph& g = r.graph();
  const auto bytes = quantise_input(g, to_planes(g.input, g.input_tensor().c, x));
  return from_planes(g.output, g.output_tensor().c, dequantise_output(g, r.infer(bytes)));
}

template <typename Op>
std::size_t count(const fgraph& g) {
  std::size_t n = 0;
  for (const fnode& node : g.nodes) n += std::holds_alternative<Op>(node.op);
  return n;
}

/// Float and quantised results of a layer against its arithmetic.
fgraph expect_right(const encoder& layer) {
  const fgraph g = layer.model().import();
  EXPECT_TRUE(g.inputs[0].channels_last);
  EXPECT_TRUE(g.output.channels_last || layer.tokens == 1);  // where either order is the same
  EXPECT_EQ(g.inputs[0].dims, (std::vector<int>{layer.tokens, layer.hidden()}));
  EXPECT_EQ(g.output.dims, (std::vector<int>{layer.tokens, layer.hidden()}));
  EXPECT_TRUE(g.remarks.empty()) << g.remarks[0];
  float_executor e(g);
  const auto samples = inputs(g, 8);
  std::vector<floats> planes;
  for (const floats& x : samples) planes.push_back(to_planes(g.inputs[0], layer.hidden(), x));
  reference r(quantise(g, planes));
  const float step = r.graph().output_tensor().scale;
  double worst = 0, squares = 0;
  for (const floats& x : samples) {
    const doubles wanted = layer.run(x);
    const floats real = infer(e, x), bytes = infer(r, x);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_NEAR(real[i], wanted[i], 2e-4) << i;
      worst = std::max(worst, std::abs(bytes[i] - wanted[i]) / step);
      squares += std::pow((bytes[i] - wanted[i]) / step, 2) / static_cast<double>(wanted.size());
    }
  }
  const double deviation = std::sqrt(squares / static_cast<double>(samples.size()));
  std::printf("%zu nodes, quantised %.2f steps away, %.2f at worst\n", g.nodes.size(), deviation,
              worst);
  EXPECT_LT(deviation, 1.5);
  EXPECT_LT(worst, 8);
  return g;
}

TEST(Transformers, BertLayer) {
  const fgraph g = expect_right({});
  EXPECT_EQ(count<fproduct>(g), 2U);
  EXPECT_EQ(count<fsoftmax>(g), 1U);
  EXPECT_EQ(count<flayernorm>(g), 2U);
  EXPECT_EQ(count<ftable>(g), 1U);  // GELU
  EXPECT_EQ(g.nodes.size(), 14U);   // and six layers, two additions, one Softmax
  for (const fnode& node : g.nodes) {
    if (const auto* p = std::get_if<fproduct>(&node.op)) {
      EXPECT_EQ(p->heads, 2);
      EXPECT_FLOAT_EQ(p->factor, p->transposed ? 0.125F : 1.0F);
    }
  }
}

TEST(Transformers, BertLayerWithTheLayerNormOperator) {
  encoder layer;
  layer.spelt = false;
  EXPECT_EQ(expect_right(layer).nodes.size(), 14U);
  layer.tokens = 1;
  expect_right(layer);
}

TEST(Transformers, TwoDifferencesAndAReciprocal) {
  encoder layer;
  layer.two_means = true;
  layer.tokens = 9;
  EXPECT_EQ(expect_right(layer).nodes.size(), 14U);
}

/// Every tensor that a product of several heads keeps by itself is as the accelerator needs it.
void expect_isolated(const fgraph& g) {
  const auto dense = [](const fnode& n) {
    const auto* conv = std::get_if<fconv>(&n.op);
    return conv && !conv->depthwise && conv->kernel_h == 1 && conv->kernel_w == 1;
  };
  for (const fnode& node : g.nodes) {
    const auto* p = std::get_if<fproduct>(&node.op);
    if (!p || p->heads == 1) continue;
    std::set<int> tokens{node.inputs[1]};
    if (p->transposed) tokens.insert(node.inputs[0]);
    EXPECT_EQ(tokens.size(), p->transposed ? 2U : 1U);
    for (const fnode& other : g.nodes) {
      EXPECT_TRUE(tokens.count(other.output) == 0 || dense(other)) << other.name;
      for (const int t : other.inputs) {
        EXPECT_TRUE(tokens.count(t) == 0 || &other == &node) << other.name;
        EXPECT_TRUE(p->transposed || t != node.output || dense(other)) << other.name;
      }
    }
    EXPECT_TRUE(p->transposed || g.output.tensor != node.output);
  }
}

TEST(Transformers, HeadsOf32ArePadded) {
  encoder layer;
  layer.heads = 4;
  layer.depth = 32;
  const fgraph g = expect_right(layer);
  EXPECT_EQ(g.nodes.size(), 14U);  // the layers around pad
  expect_isolated(g);
  for (const fnode& node : g.nodes) {
    const auto* p = std::get_if<fproduct>(&node.op);
    if (!p) continue;
    const ftensor& b = g.tensors[static_cast<std::size_t>(node.inputs[1])];
    EXPECT_EQ(b.c, 4 * 64);
  }
}

TEST(Transformers, OneLayerForQueriesKeysAndValues) {
  encoder layer;
  layer.fused = true;
  EXPECT_EQ(expect_right(layer).nodes.size(), 14U);
  layer.heads = 3;
  layer.depth = 24;  // and padded
  const fgraph g = expect_right(layer);
  EXPECT_EQ(g.nodes.size(), 14U);
  expect_isolated(g);
}

TEST(Transformers, PartsMoveBeforeTheBatch) {
  struct {
    const char *parts, *take;
    int tokens, heads, depth;
  } const cases[] = {{"3HD", "Gather", 9, 4, 15}, {"3HD", "Slice", 7, 3, 32},
                     {"3HD", "Split", 12, 2, 48}, {"H3D", "Gather", 5, 2, 64},
                     {"HD3", "Slice", 11, 4, 15}, {"3HD", "Gather", 10, 1, 15}};
  for (const auto& c : cases) {
    SCOPED_TRACE(format("{} {}, {} heads of {}", c.parts, c.take, c.heads, c.depth));
    encoder layer;
    layer.parts = c.parts;
    layer.take = c.take;
    layer.tokens = c.tokens;
    layer.heads = c.heads;
    layer.depth = c.depth;
    const fgraph g = expect_right(layer);
    EXPECT_EQ(g.nodes.size(), 14U);  // parts cost nothing
    expect_isolated(g);
    for (const fnode& node : g.nodes) {
      if (!std::holds_alternative<fproduct>(node.op)) continue;
      // A word of the accelerator holds one head.
      const int c2 = g.tensors[static_cast<std::size_t>(node.inputs[1])].c;
      EXPECT_TRUE(c2 / c.heads > 32) << c2;
    }
  }
}

TEST(Transformers, OneImageWhoseBatchMovesThroughHeads) {
  encoder layer;
  layer.torch = true;
  for (const auto& [heads, depth] : {std::pair{2, 64}, {3, 24}, {1, 40}}) {
    SCOPED_TRACE(heads);
    layer.heads = heads;
    layer.depth = depth;
    const fgraph g = expect_right(layer);
    EXPECT_EQ(g.nodes.size(), 14U);
    expect_isolated(g);
  }
}

TEST(Transformers, DamagedPartsNeverCrash) {
  encoder layer;
  layer.tokens = 3;
  layer.depth = 4;
  layer.inner = 8;
  layer.parts = "H3D";
  layer.take = "Slice";
  EXPECT_GT(refused_when_damaged(layer.model(), 2000), 300);
  layer.torch = true;
  EXPECT_GT(refused_when_damaged(layer.model(), 2000), 300);
}

TEST(Transformers, HeadsOfPlanes) {
  // As YOLO11 has it: queries and keys of another depth than values, values by the weights.
  constexpr std::size_t kHeads = 2, kKeys = 3, kDepth = 5, kWide = 2 * kKeys + kDepth;
  constexpr std::size_t kTokens = 12, kOut = kHeads * kDepth;
  builder b(13);
  b.input("x", {-1, 4, 3, 4}).output("y");
  const floats w = random_floats(kHeads * kWide * 4, 1), o = random_floats(3 * kOut, 2);
  b.weight("w", {kHeads * kWide, 4, 1, 1}, w);
  b.weight("o", {3, kOut, 1, 1}, o);
  encoder::shape(b, "to_heads", {0, kHeads, kWide, kTokens});
  encoder::shape(b, "sizes", {kKeys, kKeys, kDepth});
  encoder::shape(b, "to_planes", {0, kOut, 3, 4});
  b.node("Conv", {"x", "w"}, {"c"});
  b.node("Reshape", {"c", "to_heads"}, {"h"});
  builder::integer(b.node("Split", {"h", "sizes"}, {"q", "k", "v"}), "axis", 2);
  builder::ints(b.node("Transpose", {"q"}, {"qt"}), "perm", {0, 1, 3, 2});
  b.node("MatMul", {"qt", "k"}, {"scores"});
  builder::integer(b.node("Softmax", {"scores"}, {"shares"}), "axis", -1);
  builder::ints(b.node("Transpose", {"shares"}, {"st"}), "perm", {0, 1, 3, 2});
  b.node("MatMul", {"v", "st"}, {"context"});
  b.node("Reshape", {"context", "to_planes"}, {"p"});
  b.node("Reshape", {"v", "to_planes"}, {"vp"});
  b.node("Add", {"p", "vp"}, {"s"});
  b.node("Conv", {"s", "o"}, {"y"});
  const fgraph g = b.import();
  expect_isolated(g);
  EXPECT_EQ(g.output.dims, (std::vector<int>{3, 3, 4}));
  float_executor e(g);
  const auto samples = inputs(g, 4);
  reference r(quantise(g, samples));
  for (const floats& x : samples) {
    const auto c = [&](std::size_t h, std::size_t i, std::size_t t) {
      double sum = 0;
      for (std::size_t k = 0; k < 4; ++k) sum += w[(h * kWide + i) * 4 + k] * x[k * kTokens + t];
      return sum;
    };
    doubles sums(kOut * kTokens);
    for (std::size_t h = 0; h < kHeads; ++h) {
      for (std::size_t t = 0; t < kTokens; ++t) {
        doubles share;
        double all = 0;
        for (std::size_t s = 0; s < kTokens; ++s) {
          double dot = 0;
          for (std::size_t i = 0; i < kKeys; ++i) dot += c(h, i, t) * c(h, kKeys + i, s);
          share.push_back(std::exp(dot));
          all += share.back();
        }
        for (std::size_t i = 0; i < kDepth; ++i) {
          double& sum = sums[(h * kDepth + i) * kTokens + t];
          sum = c(h, 2 * kKeys + i, t);
          for (std::size_t s = 0; s < kTokens; ++s) {
            sum += share[s] / all * c(h, 2 * kKeys + i, s);
          }
        }
      }
    }
    const floats real = infer(e, x), bytes = infer(r, x);
    for (std::size_t i = 0; i < real.size(); ++i) {
      double want = 0;
      for (std::size_t k = 0; k < kOut; ++k) {
        want += o[i / kTokens * kOut + k] * sums[k * kTokens + i % kTokens];
      }
      EXPECT_NEAR(real[i], want, 1e-4) << i;
      EXPECT_NEAR(bytes[i], want, 8 * r.graph().output_tensor().scale) << i;
    }
  }
}

/// Columns of text: a convolution's one row becomes tokens, and each of those many classes.
builder recogniser(int classes) {
  builder b(13);
  b.input("x", {-1, 3, 2, 5}).output("y");
  b.weight("k", {8, 3, 2, 1}, random_floats(48, 1));
  b.weight("w", {8, classes}, random_floats(static_cast<std::size_t>(classes) * 8, 2));
  b.weight("b", {classes}, random_floats(static_cast<std::size_t>(classes), 3));
  encoder::shape(b, "second", {2});
  b.node("Conv", {"x", "k"}, {"c"});
  b.node("Squeeze", {"c", "second"}, {"s"});
  builder::ints(b.node("Transpose", {"s"}, {"t"}), "perm", {0, 2, 1});
  b.node("MatMul", {"t", "w"}, {"m"});
  b.node("Add", {"m", "b"}, {"l"});
  builder::integer(b.node("Softmax", {"l"}, {"y"}), "axis", 2);
  return b;
}

TEST(Transformers, MoreClassesThanAPixelHasChannels) {
  constexpr std::size_t kClasses = 4101;  // three columns of 1367
  const fgraph g = recogniser(kClasses).import();
  ASSERT_EQ(g.remarks.size(), 1U);
  EXPECT_THAT(g.remarks[0], HasSubstr("argmax of each token is the same"));
  EXPECT_EQ(g.output.dims, (std::vector<int>{5, kClasses}));
  EXPECT_TRUE(g.output.channels_last);
  const ftensor& out = g.tensors[static_cast<std::size_t>(g.output.tensor)];
  EXPECT_EQ((std::array{out.c, out.h, out.w}), (std::array{1367, 5, 3}));
  const floats k = random_floats(48, 1), w = random_floats(kClasses * 8, 2);
  const floats bias = random_floats(kClasses, 3);
  float_executor e(g);
  const auto samples = inputs(g, 3);
  reference r(quantise(g, samples));
  for (const floats& x : samples) {
    const floats real = infer(e, x), bytes = infer(r, x);
    ASSERT_EQ(real.size(), 5 * kClasses);
    for (std::size_t t = 0; t < 5; ++t) {
      doubles c(8);
      for (std::size_t i = 0; i < 48; ++i) c[i / 6] += k[i] * x[i % 6 * 5 + t];
      for (std::size_t o = 0; o < kClasses; ++o) {
        double want = bias[o];
        for (std::size_t i = 0; i < 8; ++i) want += c[i] * w[i * kClasses + o];
        ASSERT_NEAR(real[t * kClasses + o], want, 1e-4) << t << ' ' << o;
        ASSERT_NEAR(bytes[t * kClasses + o], want, 4 * r.graph().output_tensor().scale);
      }
    }
  }
  // As many as a pixel has are computed; a prime number more than that has no columns.
  EXPECT_EQ(count<fsoftmax>(recogniser(kMaxChannels).import()), 1U);
  const fgraph prime = recogniser(4099).import();
  EXPECT_EQ(prime.tensors[static_cast<std::size_t>(prime.output.tensor)].c, 4099);
  import_options exact;
  exact.exact_output = true;
  expect_refusal([&] { import_onnx(recogniser(kClasses).bytes(), "test.onnx", exact); }, kNo,
                 {"my_Softmax", "left to the host"});
}

TEST(Transformers, ClassesOfOneImage) {
  builder b;
  b.input("x", {-1, 6}).output("y");
  const floats w = random_floats(6 * 8194, 1), bias = random_floats(8194, 2);
  b.weight("w", {6, 8194}, w);
  b.weight("b", {8194}, bias);
  b.node("Gemm", {"x", "w", "b"}, {"y"});
  const fgraph g = b.import();
  EXPECT_EQ(g.output.dims, (std::vector<int>{8194}));
  float_executor e(g);
  const floats x = inputs(g, 1)[0], y = infer(e, x);
  ASSERT_EQ(y.size(), 8194U);
  for (std::size_t o = 0; o < 8194; ++o) {
    double want = bias[o];
    for (std::size_t i = 0; i < 6; ++i) want += x[i] * w[i * 8194 + o];
    ASSERT_NEAR(y[o], want, 1e-4) << o;
  }
}

TEST(Transformers, OneHeadOfAnyDepth) {
  encoder layer;
  layer.heads = 1;
  layer.depth = 40;
  EXPECT_EQ(expect_right(layer).nodes.size(), 14U);
  layer.flat = true;
  EXPECT_EQ(expect_right(layer).nodes.size(), 14U);
}

/// The input attends to itself: nothing in between is a layer.
void expect_copies(int heads, int depth) {
  builder b;
  b.input("x", {-1, 5, 128}).output("y");
  b.weight("split", {4}, {0, 5, static_cast<float>(heads), static_cast<float>(depth)},
           pb::TensorProto::INT64);
  b.weight("join", {3}, {0, 5, 128}, pb::TensorProto::INT64);
  b.weight("root", {}, {std::sqrt(static_cast<float>(depth))});
  b.node("Relu", {"x"}, {"r"});
  b.weight("unit", {128, 128}, random_floats(128 * 128, 5, 0.1F));
  b.node("MatMul", {"x", "unit"}, {"m"});
  b.node("Reshape", {"r", "split"}, {"s"});
  builder::ints(b.node("Transpose", {"s"}, {"h"}), "perm", {0, 2, 1, 3});
  builder::ints(b.node("Transpose", {"s"}, {"k"}), "perm", {0, 2, 3, 1});
  b.node("MatMul", {"h", "k"}, {"scores"});
  b.node("Div", {"scores", "root"}, {"scaled"});
  builder::integer(b.node("Softmax", {"scaled"}, {"shares"}), "axis", 3);
  b.node("MatMul", {"shares", "h"}, {"context"});
  builder::ints(b.node("Transpose", {"context"}, {"back"}), "perm", {0, 2, 1, 3});
  b.node("Reshape", {"back", "join"}, {"joined"});
  b.node("Add", {"joined", "m"}, {"y"});
  const fgraph g = b.import();
  expect_isolated(g);
  EXPECT_EQ(g.nodes.size(), 10U);  // Relu, MatMul, products, Softmax, Add and four copies
  float_executor e(g);
  encoder by_hand;
  by_hand.tokens = 5;
  by_hand.heads = heads;
  by_hand.depth = depth;
  std::vector<floats> planes;
  for (const floats& x : inputs(g, 4)) {
    doubles r(x.begin(), x.end());
    for (double& v : r) v = std::max(v, 0.0);
    const doubles y = by_hand.attend(r, r, r);
    const floats got = infer(e, x);
    const floats w = random_floats(128 * 128, 5, 0.1F);
    for (std::size_t i = 0; i < y.size(); ++i) {
      double m = 0;
      for (std::size_t k = 0; k < 128; ++k) m += x[i / 128 * 128 + k] * w[k * 128 + i % 128];
      EXPECT_NEAR(got[i], y[i] + m, 1e-4);
    }
    planes.push_back(to_planes(g.inputs[0], 128, x));
  }
  const qgraph q = quantise(g, planes);
  for (const qnode& node : q.nodes) {
    if (!std::holds_alternative<qproduct>(node.op)) continue;
    for (const int t : node.inputs) {
      EXPECT_EQ(q.tensors[static_cast<std::size_t>(t)].zero_point, 128) << node.name;
    }
  }
  for (const auto& l : sensitivity(g, q, planes)) EXPECT_GT(l.total, 20) << l.name;
  quantise_options careful;
  careful.bias_correction = true;
  careful.method = calibration::mse;
  EXPECT_NO_THROW(quantise(g, planes, careful));
}

TEST(Transformers, CopiesStandBetweenProductsAndOthers) {
  expect_copies(2, 64);
  expect_copies(4, 32);  // the copies pad
}

TEST(Transformers, PartsOfTokens) {
  // Queries, keys and values in one layer; then the mean over the tokens, and the last token.
  builder b;
  b.input("x", {-1, 100, 8}).output("y");
  b.weight("w", {8, 12}, random_floats(96, 1));
  b.weight("last", {}, {-1}, pb::TensorProto::INT64);
  b.weight("some", {2}, {3, 0}, pb::TensorProto::INT64);
  b.weight("wy", {10, 3}, random_floats(30, 2));
  b.node("MatMul", {"x", "w"}, {"m"});
  builder::integer(b.node("Split", {"m"}, {"p", "q", "r"}), "axis", 2);
  builder::ints(b.node("ReduceMean", {"p"}, {"mean"}), "axes", {1});
  builder::integer(*b.graph().mutable_node(2), "keepdims", 0);
  builder::integer(b.node("Gather", {"q", "last"}, {"end"}), "axis", 1);
  builder::integer(b.node("Gather", {"r", "some"}, {"few"}), "axis", 2);
  builder::integer(b.node("Gather", {"few", "last"}, {"tail"}), "axis", 1);
  builder::integer(b.node("Concat", {"mean", "end", "tail"}, {"all"}), "axis", 1);
  b.node("MatMul", {"all", "wy"}, {"y"});
  const fgraph g = b.import();
  float_executor e(g);
  const floats x = inputs(g, 1)[0];
  const floats w = random_floats(96, 1), wy = random_floats(30, 2);
  const auto m = [&](std::size_t t, std::size_t o) {
    double sum = 0;
    for (std::size_t i = 0; i < 8; ++i) sum += x[t * 8 + i] * w[i * 12 + o];
    return sum;
  };
  doubles all;
  for (std::size_t o = 0; o < 4; ++o) {
    double sum = 0;
    for (std::size_t t = 0; t < 100; ++t) sum += m(t, o) / 100;
    all.push_back(sum);
  }
  for (std::size_t o = 4; o < 8; ++o) all.push_back(m(99, o));
  all.push_back(m(99, 11));
  all.push_back(m(99, 8));
  const floats got = infer(e, x);
  ASSERT_EQ(got.size(), 3U);
  for (std::size_t o = 0; o < 3; ++o) {
    double sum = 0;
    for (std::size_t i = 0; i < 10; ++i) sum += all[i] * wy[i * 3 + o];
    EXPECT_NEAR(got[o], sum, 1e-4);
  }
}

TEST(Transformers, SlicesOfTokensAndConstantsOfHeads) {
  builder b;
  b.input("x", {-1, 6, 4}).output("y");
  b.weight("s", {2}, {1, 1}, pb::TensorProto::INT64);
  b.weight("e", {2}, {6, 3}, pb::TensorProto::INT64);
  b.weight("a", {2}, {1, 2}, pb::TensorProto::INT64);
  b.weight("eye", {4, 4}, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1});
  b.weight("split", {4}, {0, 6, 2, 2}, pb::TensorProto::INT64);
  b.weight("join", {3}, {0, 6, 4}, pb::TensorProto::INT64);
  b.weight("k", {1, 2, 1, 2}, {1, 2, 3, 4});
  b.node("MatMul", {"x", "eye"}, {"m"});
  b.node("Reshape", {"m", "split"}, {"h"});
  builder::ints(b.node("Transpose", {"h"}, {"t"}), "perm", {0, 2, 1, 3});
  b.node("Add", {"t", "k"}, {"t1"});
  builder::ints(b.node("Transpose", {"t1"}, {"u"}), "perm", {0, 2, 1, 3});
  b.node("Reshape", {"u", "join"}, {"j"});
  b.node("Slice", {"j", "s", "e", "a"}, {"y"});
  const fgraph g = b.import();
  EXPECT_EQ(g.output.dims, (std::vector<int>{5, 2}));
  float_executor e(g);
  floats x(24);
  for (std::size_t i = 0; i < 24; ++i) x[i] = static_cast<float>(10 * i);
  EXPECT_EQ(infer(e, x), (floats{52, 63, 92, 103, 132, 143, 172, 183, 212, 223}));
}

TEST(Transformers, ChannelsLastBlocksBetweenPlanes) {
  // As ConvNeXt has it: planes, then the channels of each pixel by themselves, then planes again.
  builder b(17);
  b.input("x", {-1, 3, 4, 5}).output("y");
  b.weight("k", {6, 3, 1, 1}, random_floats(18, 1));
  b.weight("g", {6}, random_floats(6, 2));
  b.weight("w", {6, 2}, random_floats(12, 3));
  b.node("Conv", {"x", "k"}, {"c"});
  builder::ints(b.node("Transpose", {"c"}, {"t"}), "perm", {0, 2, 3, 1});
  b.node("LayerNormalization", {"t", "g"}, {"n"});
  b.node("MatMul", {"n", "w"}, {"m"});
  builder::ints(b.node("Transpose", {"m"}, {"p"}), "perm", {0, 3, 1, 2});
  b.node("GlobalAveragePool", {"p"}, {"y"});
  const fgraph g = b.import();
  EXPECT_FALSE(g.inputs[0].channels_last);
  float_executor e(g);
  const floats x = inputs(g, 1)[0];
  const floats k = random_floats(18, 1), gamma = random_floats(6, 2), w = random_floats(12, 3);
  double want[2] = {0, 0};
  for (std::size_t p = 0; p < 20; ++p) {
    doubles c(6);
    double mean = 0, variance = 0;
    for (std::size_t o = 0; o < 6; ++o) {
      for (std::size_t i = 0; i < 3; ++i) c[o] += k[o * 3 + i] * x[i * 20 + p];
      mean += c[o] / 6;
    }
    for (const double v : c) variance += (v - mean) * (v - mean) / 6;
    for (std::size_t o = 0; o < 6; ++o) {
      const double n = (c[o] - mean) / std::sqrt(variance + 1e-5) * gamma[o];
      for (std::size_t j = 0; j < 2; ++j) want[j] += n * w[o * 2 + j] / 20;
    }
  }
  const floats got = infer(e, x);
  ASSERT_EQ(got.size(), 2U);
  for (std::size_t j = 0; j < 2; ++j) EXPECT_NEAR(got[j], want[j], 1e-4);
}

TEST(Transformers, TinyAndNegativeGammas) {
  builder b(17);
  b.input("x", {-1, 4, 8}).output("y");
  b.weight("g", {8}, {0, 1e-9F, -1e-9F, -2, 0, 1, 1e-3F, -0.5F});
  b.weight("b", {8}, {0, 1, 1, 0.5F, -0.7F, 0, 1, 0});
  b.node("LayerNormalization", {"x", "g", "b"}, {"y"});
  const fgraph g = b.import();
  const auto samples = inputs(g, 4);
  float_executor e(g);
  std::vector<floats> planes;
  for (const floats& x : samples) planes.push_back(to_planes(g.inputs[0], 8, x));
  reference r(quantise(g, planes));
  for (const floats& x : samples) {
    const floats real = infer(e, x), bytes = infer(r, x);
    for (std::size_t i = 0; i < real.size(); ++i) {
      EXPECT_NEAR(bytes[i], real[i], 4 * r.graph().output_tensor().scale) << i;
    }
  }
}

TEST(Transformers, IntegerLayersOnTokens) {
  builder b;
  b.input("x", {-1, 3, 2}, pb::TensorProto::UINT8).output("y");
  b.weight("sx", {}, {0.5F}).set_name("sx");
  b.weight("zx", {}, {2}, pb::TensorProto::UINT8);
  b.weight("w", {2, 2}, {1, -2, 3, 4}, pb::TensorProto::INT8);
  b.weight("sw", {}, {0.25F});
  b.weight("zw", {}, {0}, pb::TensorProto::INT8);
  b.weight("sy", {}, {0.5F});
  b.weight("zy", {}, {10}, pb::TensorProto::UINT8);
  b.node("QLinearMatMul", {"x", "sx", "zx", "w", "sw", "zw", "sy", "zy"}, {"y"});
  const fgraph g = b.import();
  reference r(quantise(g, {}));
  const std::vector<std::uint8_t> x{2, 3, 6, 2, 10, 20};
  const auto out = r.infer(to_planes(g.inputs[0], 2, x));
  const auto y = from_planes(g.output, 2, std::vector<std::uint8_t>(out.begin(), out.end()));
  // (x - 2) * w / 4 + 10, half to even.
  EXPECT_EQ(y, (std::vector<std::uint8_t>{11, 11, 11, 8, 26, 24}));
}

TEST(Transformers, ScalesThatTheFileComputesFromShapes) {
  // Queries and keys times the root of the root of the depth, as PyTorch writes it.
  builder b(13);
  b.input("x", {-1, 5, 16}).output("y");
  b.weight("w", {16, 16}, random_floats(256, 1));
  b.weight("v", {16, 16}, random_floats(256, 2));
  b.weight("from", {1}, {-1}, pb::TensorProto::INT64);
  b.weight("to", {1}, {9}, pb::TensorProto::INT64);
  b.weight("one", {1}, {1});
  b.node("MatMul", {"x", "w"}, {"q"});
  b.node("MatMul", {"x", "v"}, {"k"});
  b.node("Shape", {"q"}, {"s"});
  b.node("Slice", {"s", "from", "to"}, {"d"});
  builder::integer(b.node("Cast", {"d"}, {"f"}), "to", pb::TensorProto::FLOAT);
  b.node("Sqrt", {"f"}, {"r"});
  b.node("Div", {"one", "r"}, {"i"});
  b.node("Sqrt", {"i"}, {"h"});
  builder::ints(b.node("Transpose", {"k"}, {"t"}), "perm", {0, 2, 1});
  b.node("Mul", {"q", "h"}, {"qs"});
  b.node("Mul", {"t", "h"}, {"ks"});
  b.node("MatMul", {"qs", "ks"}, {"y"});
  const fgraph g = b.import();
  EXPECT_EQ(g.nodes.size(), 3U);
  float_executor e(g);
  const floats x = inputs(g, 1)[0], w = random_floats(256, 1), v = random_floats(256, 2);
  const auto row = [&](const floats& m, std::size_t t, std::size_t o) {
    double sum = 0;
    for (std::size_t i = 0; i < 16; ++i) sum += x[t * 16 + i] * m[i * 16 + o];
    return sum;
  };
  const floats got = infer(e, x);
  for (std::size_t t = 0; t < 5; ++t) {
    for (std::size_t s = 0; s < 5; ++s) {
      double sum = 0;
      for (std::size_t o = 0; o < 16; ++o) sum += row(w, t, o) * row(v, s, o) / 4;
      EXPECT_NEAR(got[t * 5 + s], sum, 1e-4);
    }
  }
}

TEST(Transformers, RunOnTheCardBesidePartsOnTheHost) {
  builder b = encoder{}.model();
  network n = import_network(b.bytes(), "test.onnx", true);
  EXPECT_FALSE(n.head || n.tail);
  b.graph().mutable_output(0)->set_name("z");
  builder::integer(b.node("LogSoftmax", {"y"}, {"z"}), "axis", -1);
  n = import_network(b.bytes(), "test.onnx", true);
  EXPECT_FALSE(n.head);
  ASSERT_TRUE(n.tail);
  EXPECT_TRUE(n.card.output.channels_last);
  EXPECT_EQ(n.tail->input_dims, (fallback::shape{1, 12, 128}));
  float_executor e(n.card);
  const doubles y = encoder{}.run(inputs(n.card, 1)[0]);
  const auto z = run_tail(*n.tail, infer(e, inputs(n.card, 1)[0])).at(0).values;
  double sum = 0;
  for (std::size_t i = 0; i < 128; ++i) sum += std::exp(y[i]);
  for (std::size_t i = 0; i < 128; ++i) EXPECT_NEAR(z[i], y[i] - std::log(sum), 1e-3);
}

// ---- Refusals ----

/// Two projections of tokens, reshaped, and MatMul of them.
builder product(const longs& perm_a, const longs& perm_b) {
  builder b;
  b.input("x", {-1, 6, 128}).output("y");
  b.weight("w", {128, 128}, random_floats(128 * 128, 1, 0.1F));
  b.weight("v", {128, 128}, random_floats(128 * 128, 2, 0.1F));
  b.weight("split", {4}, {0, 6, 2, 64}, pb::TensorProto::INT64);
  b.node("MatMul", {"x", "w"}, {"a"});
  b.node("MatMul", {"x", "v"}, {"b"});
  b.node("Reshape", {"a", "split"}, {"as"});
  b.node("Reshape", {"b", "split"}, {"bs"});
  builder::ints(b.node("Transpose", {"as"}, {"at"}), "perm", perm_a);
  builder::ints(b.node("Transpose", {"bs"}, {"bt"}), "perm", perm_b);
  b.node("MatMul", {"at", "bt"}, {"y"});
  return b;
}

TEST(Transformers, RefusesOtherProducts) {
  EXPECT_NO_THROW(product({0, 2, 1, 3}, {0, 2, 3, 1}).import());
  // Channels by channels, tokens first, keys as they are.
  expect_refusal([] { product({0, 2, 3, 1}, {0, 2, 1, 3}).import(); }, kNo,
                 {"my_MatMul", "2 heads x 64 channels of a head x 6 tokens", "queries", "keys"});
  expect_refusal([] { product({0, 1, 2, 3}, {0, 1, 3, 2}).import(); }, kNo, {"queries"});
  expect_refusal([] { product({0, 2, 1, 3}, {0, 2, 1, 3}).import(); }, kNo, {"queries"});
}

/// A vision transformer up to its first layer: patches, tokens, a class token, positions. The
/// channels go to the end before the Reshape or behind it.
builder patches(const longs& grouped, bool class_token, bool expand) {
  const bool last = grouped.back() == 16;
  builder b(13);
  b.input("x", {-1, 3, 8, 12}).output("y");
  b.weight("k", {16, 3, 4, 4}, random_floats(16 * 48, 1));
  b.weight("kb", {16}, random_floats(16, 2));
  b.weight("s", {static_cast<std::int64_t>(grouped.size())}, floats(grouped.begin(), grouped.end()),
           pb::TensorProto::INT64);
  b.weight("cls", {1, 1, 16}, random_floats(16, 3));
  const longs positions{1, class_token ? 7 : 6, 16};
  b.weight("pos", positions, random_floats(static_cast<std::size_t>(positions[1]) * 16, 4));
  builder::ints(b.node("Conv", {"x", "k", "kb"}, {"c"}), "strides", {4, 4});
  if (last) {
    builder::ints(b.node("Transpose", {"c"}, {"r"}), "perm", {0, 2, 3, 1});
    b.node("Reshape", {"r", "s"}, {"t"});
  } else {
    b.node("Reshape", {"c", "s"}, {"r"});
    builder::ints(b.node("Transpose", {"r"}, {"t"}), "perm", {0, 2, 1});
  }
  if (expand) {  // to the batch, as exporters write it
    b.weight("zero", {}, {0}, pb::TensorProto::INT64);
    b.weight("first", {1}, {0}, pb::TensorProto::INT64);
    b.weight("rest", {2}, {-1, -1}, pb::TensorProto::INT64);
    b.weight("three", {1}, {3}, pb::TensorProto::INT64);
    b.weight("minus", {}, {-1}, pb::TensorProto::INT64);
    b.node("Shape", {"x"}, {"shape"});
    b.node("Gather", {"shape", "zero"}, {"n"});
    b.node("Unsqueeze", {"n", "first"}, {"n1"});
    builder::integer(b.node("Concat", {"n1", "rest"}, {"wanted"}), "axis", 0);
    auto* ones = b.node("ConstantOfShape", {"three"}, {"ones"}).add_attribute();
    ones->set_name("value");
    ones->set_type(pb::AttributeProto::TENSOR);
    builder::fill(*ones->mutable_t(), {1}, {1}, pb::TensorProto::INT64);
    b.node("Mul", {"ones", "minus"}, {"open"});
    b.node("Equal", {"wanted", "open"}, {"kept"});
    b.node("Where", {"kept", "ones", "wanted"}, {"full"});
    b.node("Expand", {"cls", "full"}, {"cls_n"});
  }
  if (class_token) {
    builder::integer(b.node("Concat", {expand ? "cls_n" : "cls", "t"}, {"j"}), "axis", 1);
  }
  b.node("Add", {class_token ? "j" : "t", "pos"}, {last ? "a" : "y"});
  if (last) {
    b.weight("eye", {16, 16}, [] {
      floats eye(256);
      for (std::size_t i = 0; i < 256; i += 17) eye[i] = 1;
      return eye;
    }());
    b.node("MatMul", {"a", "eye"}, {"y"});
  }
  return b;
}

TEST(Transformers, PatchesBecomeTokens) {
  struct {
    longs grouped;
    bool class_token, expand;
  } const cases[] = {{{0, 16, 6}, false, false},
                     {{0, 16, -1}, false, false},
                     {{0, 0, -1}, true, false},
                     {{0, 6, 16}, false, false},
                     {{0, 16, -1}, true, true}};
  const floats k = random_floats(16 * 48, 1), bias = random_floats(16, 2);
  const floats cls = random_floats(16, 3);
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::PrintToString(c.grouped) + (c.class_token ? " class" : ""));
    const fgraph g = patches(c.grouped, c.class_token, c.expand).import();
    const std::size_t before = c.class_token ? 1 : 0;
    const floats pos = random_floats((6 + before) * 16, 4);
    // One constant for the class token and the positions.
    EXPECT_EQ(count<fconstant>(g), 1U);
    EXPECT_EQ(count<fadd>(g), 1U);
    EXPECT_EQ(count<fview>(g), 1U);
    EXPECT_TRUE(g.output.channels_last);
    float_executor e(g);
    const auto samples = inputs(g, 3);
    reference r(quantise(g, samples));
    const float step = r.graph().output_tensor().scale;
    for (const floats& x : samples) {
      floats want(cls.begin(), cls.begin() + static_cast<std::ptrdiff_t>(16 * before));
      for (std::size_t p = 0; p < 6; ++p) {
        for (std::size_t o = 0; o < 16; ++o) {
          double sum = bias[o];
          for (std::size_t i = 0; i < 48; ++i) {
            const std::size_t y = p / 3 * 4 + i / 4 % 4, w = p % 3 * 4 + i % 4;
            sum += k[o * 48 + i] * x[(i / 16 * 8 + y) * 12 + w];
          }
          want.push_back(static_cast<float>(sum));
        }
      }
      const floats real = infer(e, x), bytes = infer(r, x);
      ASSERT_EQ(real.size(), want.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        ASSERT_NEAR(real[i], want[i] + pos[i], 1e-4) << i;
        ASSERT_NEAR(bytes[i], want[i] + pos[i], 3 * step) << i;
      }
    }
  }
}

TEST(Transformers, DamagedPatchesNeverCrash) {
  EXPECT_GT(refused_when_damaged(patches({0, 16, -1}, true, true), 3000), 500);
}

TEST(Transformers, TokensBecomeRowsAndColumnsAgain) {
  builder b(13);
  b.input("x", {-1, 3, 4, 6}).output("y");
  b.weight("k", {5, 3, 1, 1}, random_floats(15, 1));
  b.weight("w", {5, 5}, random_floats(25, 2));
  b.weight("s", {3}, {0, 24, 5}, pb::TensorProto::INT64);
  b.weight("p", {4}, {0, 5, 4, 6}, pb::TensorProto::INT64);
  b.weight("d", {5, 1, 3, 3}, random_floats(45, 3));
  b.node("Conv", {"x", "k"}, {"c"});
  builder::ints(b.node("Transpose", {"c"}, {"t"}), "perm", {0, 2, 3, 1});
  b.node("MatMul", {"t", "w"}, {"m"});
  b.node("Reshape", {"m", "s"}, {"r"});
  builder::ints(b.node("Transpose", {"r"}, {"u"}), "perm", {0, 2, 1});
  b.node("Reshape", {"u", "p"}, {"v"});
  builder::integer(b.node("Conv", {"v", "d"}, {"y"}), "group", 5);
  const fgraph g = b.import();
  float_executor e(g);
  const floats x = inputs(g, 1)[0], k = random_floats(15, 1), w = random_floats(25, 2),
               d = random_floats(45, 3), got = infer(e, x);
  ASSERT_EQ(got.size(), 5U * 2 * 4);
  for (std::size_t i = 0; i < got.size(); ++i) {
    double want = 0;
    for (std::size_t tap = 0; tap < 9; ++tap) {
      const std::size_t at = (i / 4 % 2 + tap / 3) * 6 + i % 4 + tap % 3;
      for (std::size_t j = 0; j < 5; ++j) {
        double c = 0;
        for (std::size_t n = 0; n < 3; ++n) c += k[j * 3 + n] * x[n * 24 + at];
        want += d[i / 8 * 9 + tap] * c * w[j * 5 + i / 8];
      }
    }
    EXPECT_NEAR(got[i], want, 1e-4) << i;
  }
}

// What is added to every token, by its place: learnt position embeddings.
TEST(Transformers, PositionsAreAddedToTokens) {
  for (const longs& shape : {longs{1, 6, 16}, longs{6, 16}, longs{1, 6, 1}}) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    const auto per_token = static_cast<std::size_t>(shape.back());
    const floats k = random_floats(6 * per_token, 2), w = random_floats(256, 1);
    builder b(13);
    b.input("x", {-1, 6, 16}).output("y");
    b.weight("w", {16, 16}, w);
    b.weight("k", shape, k);
    b.node("MatMul", {"x", "w"}, {"m"});
    b.node("Add", {"k", "m"}, {"y"});
    const fgraph g = b.import();
    const floats x = random_floats(96, 3);
    floats want;
    for (std::size_t t = 0; t < 6; ++t) {
      for (std::size_t c = 0; c < 16; ++c) {
        float sum = k[t * per_token + c % per_token];
        for (std::size_t i = 0; i < 16; ++i) sum += x[t * 16 + i] * w[i * 16 + c];
        want.push_back(sum);
      }
    }
    float_executor executor(g);
    reference golden(quantise(g, {to_planes(g.inputs[0], 16, x)}));
    const floats real = infer(executor, x), bytes = infer(golden, x);
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(real[i], want[i], 1e-5F) << i;
      ASSERT_NEAR(bytes[i], want[i], 3 * golden.graph().output_tensor().scale) << i;
    }
  }
}

TEST(Transformers, RefusesWhatMisreadsViews) {
  const auto on_tokens = [](const std::function<void(builder&)>& add) {
    builder b(13);
    b.input("x", {-1, 6, 16}).output("y");
    b.weight("w", {16, 16}, random_floats(256, 1));
    b.node("MatMul", {"x", "w"}, {"m"});
    add(b);
    return [b] { b.import(); };
  };
  const auto axis = [&](const char* op, std::int64_t a) {
    return on_tokens([=](builder& b) { builder::integer(b.node(op, {"m"}, {"y"}), "axis", a); });
  };
  const auto joined = [&](const longs& shape, const strings& in, std::int64_t a) {
    return on_tokens([=](builder& b) {
      std::size_t size = 1;
      for (const auto d : shape) size *= static_cast<std::size_t>(d);
      b.weight("k", shape, random_floats(size, 1));
      builder::integer(b.node("Concat", in, {"y"}), "axis", a);
    });
  };
  EXPECT_NO_THROW(joined({1, 2, 16}, {"m", "k"}, 1)());
  expect_refusal(joined({1, 6, 2}, {"k", "m"}, 2), kNo, {"my_Concat", "axis 2", "constant tokens"});
  expect_refusal(joined({2, 1, 16}, {"k", "m"}, 1), kNo, {"my_Concat", "[2, 1, 16]", "1 x T x C"});
  expect_refusal(joined({1, 1, 16}, {"k", "m", "k"}, 1), kNo, {"my_Concat", "at one end"});
  expect_refusal(joined({1, 64, 16}, {"k", "m"}, 1), kNo, {"64 constant tokens", "up to 63"});
  expect_refusal(on_tokens([](builder& b) {
                   b.weight("k", {1, 1, 16}, random_floats(16, 1));
                   b.weight("s", {3}, {1, 6, 4}, pb::TensorProto::INT64);
                   b.node("Expand", {"k", "s"}, {"e"});
                   b.node("Add", {"m", "e"}, {"y"});
                 }),
                 kNo, {"my_Expand", "1 x 1 x 16 and 1 x 6 x 4 do not broadcast"});
  expect_refusal(axis("Softmax", 1), kNo, {"axis 1", "6 tokens x 16 channels", "channels"});
  expect_refusal(axis("Flatten", 1), kNo, {"flattens", "6 tokens", "Transpose"});
  EXPECT_NO_THROW(axis("Softmax", 2)());
  expect_refusal(on_tokens([](builder& b) {
                   b.weight("k", {1, 5, 1}, random_floats(5, 1));
                   b.node("Add", {"m", "k"}, {"y"});
                 }),
                 kNo, {"my_Add", "[1, 5, 1]", "6 tokens x 16 channels", "one per channel"});
  expect_refusal(on_tokens([](builder& b) {
                   builder::ints(b.node("Transpose", {"m"}, {"t"}), "perm", {0, 2, 1});
                   b.weight("k", {4, 6, 1}, random_floats(24, 1));
                   b.node("Conv", {"t", "k"}, {"y"});
                 }),
                 kNo, {"my_Conv", "takes planes", "16 channels x 6 tokens"});
  expect_refusal(on_tokens([](builder& b) {
                   builder::ints(b.node("Transpose", {"m"}, {"t"}), "perm", {0, 2, 1});
                   b.weight("k", {6, 2}, random_floats(12, 1));
                   b.node("MatMul", {"t", "k"}, {"y"});
                 }),
                 kNo, {"my_MatMul", "multiplies", "Transpose"});
  expect_refusal(on_tokens([](builder& b) {
                   b.weight("s", {3}, {0, 8, 12}, pb::TensorProto::INT64);
                   b.node("Reshape", {"m", "s"}, {"y"});
                 }),
                 kNo, {"my_Reshape", "heads"});
  expect_refusal(
      on_tokens([](builder& b) { builder::ints(b.node("ReduceMean", {"m"}, {"y"}), "axes", {2}); }),
      kNo, {"my_ReduceMean", "layer normalisation"});
  expect_refusal(on_tokens([](builder& b) {
                   b.weight("s", {4}, {0, 6, 2, 8}, pb::TensorProto::INT64);
                   b.node("Reshape", {"m", "s"}, {"r"});
                   builder::ints(b.node("Transpose", {"r"}, {"y"}), "perm", {0, 2, 1, 3});
                 }),
                 kNo, {"output 'y'", "2 heads x 6 tokens", "N x T x C"});
}

TEST(Transformers, RefusesPartsAndBatchesElsewhere) {
  // Queries, keys and values before the batch, and what is made of them.
  const auto on_parts = [](std::int64_t batch, const std::function<void(builder&)>& add) {
    builder b(13);
    b.input("x", {batch, 6, 8}).output("y");
    b.weight("w", {8, 24}, random_floats(192, 1));
    encoder::shape(b, "five", {0, 6, 3, 2, 4});
    encoder::shape(b, "first", {0});
    encoder::shape(b, "second", {1});
    b.node("MatMul", {"x", "w"}, {"m"});
    b.node("Reshape", {"m", "five"}, {"r"});
    builder::ints(b.node("Transpose", {"r"}, {"p"}), "perm", {2, 0, 3, 1, 4});
    add(b);
    return [b] { b.import(); };
  };
  const auto reshaped = [](const longs& shape) {
    return [shape](builder& b) {
      encoder::shape(b, "s", shape);
      b.node("Reshape", {"p", "s"}, {"y"});
    };
  };
  expect_refusal(on_parts(-1, [](builder& b) { b.node("Relu", {"p"}, {"y"}); }), kNo,
                 {"output 'y'", "3 parts x N x 2 heads x 6 tokens x 4 channels of a head"});
  expect_refusal(on_parts(-1, [](builder& b) { b.node("MatMul", {"p", "p"}, {"y"}); }), kNo,
                 {"my_MatMul", "3 parts x N", "queries"});
  expect_refusal(
      on_parts(-1,
               [](builder& b) { builder::ints(b.node("ReduceMean", {"p"}, {"y"}), "axes", {1}); }),
      kNo, {"my_ReduceMean", "along the batch"});
  expect_refusal(on_parts(-1, [](builder& b) { b.node("Squeeze", {"p", "second"}, {"y"}); }), kNo,
                 {"my_Squeeze", "3 parts x N", "takes the batch away"});
  expect_refusal(
      on_parts(
          -1, [](builder& b) { builder::integer(b.node("Concat", {"p", "p"}, {"y"}), "axis", 0); }),
      kNo, {"my_Concat", "axis 0", "join channels"});
  expect_refusal(on_parts(-1, reshaped({3, 0, 2, 24})), kNo, {"my_Reshape", "3 parts x N"});
  // Of an open batch a size has to say where it is, and it stays there.
  expect_refusal(on_parts(-1, reshaped({6, 2, 6, 4})), kNo,
                 {"my_Reshape", "[6, 2, 6, 4]", "batch"});
  expect_refusal(on_parts(2, reshaped({2, 3, 2, 6, 4})), kNo, {"my_Reshape", "moves the batch"});
  EXPECT_NO_THROW(on_parts(-1, [](builder& b) {
    encoder::number(b, "one", 1);
    encoder::shape(b, "join", {0, 6, 8});
    builder::integer(b.node("Gather", {"p", "one"}, {"k"}), "axis", 0);
    builder::ints(b.node("Transpose", {"k"}, {"t"}), "perm", {0, 2, 1, 3});
    b.node("Reshape", {"t", "join"}, {"y"});
  })());
  expect_refusal(on_parts(1, [](builder& b) { b.node("Squeeze", {"p", "second"}, {"y"}); }), kNo,
                 {"output 'y'", "3 parts x 2 heads"});
  expect_refusal(on_parts(-1,
                          [](builder& b) {
                            b.weight("v", {4, 4}, random_floats(16, 2));
                            b.node("Gemm", {"p", "v"}, {"y"});
                          }),
                 kNo, {"my_Gemm", "3 parts x N"});
}

// QDQ files quantise the weights of attention from 0 on; they are quantised again around 128, in
// half as many steps.
TEST(Transformers, WeightsOfAttentionGetTheirZeroPoint) {
  const auto attention = [](float zero, int type, bool twice) {
    builder b(13);
    b.input("x", {-1, 10, 64}).output("y");
    for (const char* n : {"q", "k", "v"}) {
      b.weight(std::string("w") + n, {64, 64},
               random_floats(64 * 64, static_cast<std::uint32_t>(n[0]), 0.4F));
      b.node("MatMul", {"x", std::string("w") + n}, {n});
    }
    b.weight("s", {}, {1.0F / 256});
    b.weight("z", {}, {zero}, type);
    builder::ints(b.node("Transpose", {"k"}, {"kt"}), "perm", {0, 2, 1});
    b.node("MatMul", {"q", "kt"}, {"scores"});
    builder::integer(b.node("Softmax", {"scores"}, {"p"}), "axis", -1);
    b.node("QuantizeLinear", {"p", "s", "z"}, {"pq"});
    b.node("DequantizeLinear", {"pq", "s", "z"}, {"pd"});
    b.node("MatMul", {"pd", "v"}, {twice ? "c" : "y"});
    if (twice) {
      b.weight("w", {10, 64}, random_floats(640, 9));
      b.node("MatMul", {"pd", "w"}, {"d"});
      b.node("Add", {"c", "d"}, {"y"});
    }
    return b;
  };
  for (const auto& [zero, type] :
       {std::pair{0.0F, pb::TensorProto::UINT8}, std::pair{-128.0F, pb::TensorProto::INT8}}) {
    const fgraph g = attention(zero, type, false).import();
    ASSERT_EQ(g.remarks.size(), 1U);
    EXPECT_THAT(g.remarks[0], HasSubstr("weights of attention"));
    float_executor e(g);
    const auto samples = inputs(g, 4);
    std::vector<floats> planes;
    for (const floats& x : samples) planes.push_back(to_planes(g.inputs[0], 64, x));
    reference r(quantise(g, planes));
    for (const fnode& n : g.nodes) {
      if (!std::holds_alternative<fsoftmax>(n.op)) continue;
      const qtensor& t = r.graph().tensors[static_cast<std::size_t>(n.output)];
      EXPECT_EQ(t.zero_point, 128);
      EXPECT_FLOAT_EQ(t.scale, 255.0F / 256 / 127);
    }
    double squares = 0;
    for (const floats& x : samples) {
      const floats real = infer(e, x), bytes = infer(r, x);
      for (std::size_t i = 0; i < real.size(); ++i) {
        squares += std::pow((bytes[i] - real[i]) / r.graph().output_tensor().scale, 2);
      }
    }
    const double deviation = std::sqrt(squares / (4 * 640));
    std::printf("quantised %.2f steps away\n", deviation);
    EXPECT_LT(deviation, 2.5);
  }
  // What reads them too would see the file's bytes no more.
  const fgraph shared = attention(0, pb::TensorProto::UINT8, true).import();
  expect_refusal([&] { quantise(shared, inputs(shared, 1)); }, kNo, {"zero point is 0"});
}

TEST(Transformers, RefusesAnotherZeroPointOfAFactor) {
  builder b = product({0, 2, 1, 3}, {0, 2, 3, 1});
  // The second factor goes through a pair of a quantised file.
  auto& last = *b.graph().mutable_node(b.graph().node_size() - 1);
  last.set_input(1, "bd");
  b.weight("s", {}, {0.05F});
  auto& zero = b.weight("z", {}, {100}, pb::TensorProto::UINT8);
  b.node("QuantizeLinear", {"bt", "s", "z"}, {"bq"});
  b.node("DequantizeLinear", {"bq", "s", "z"}, {"bd"});
  // Nodes come in order.
  b.graph().mutable_node()->SwapElements(b.graph().node_size() - 3, b.graph().node_size() - 2);
  b.graph().mutable_node()->SwapElements(b.graph().node_size() - 2, b.graph().node_size() - 1);
  const fgraph g = b.import();
  const auto images = inputs(g, 2);
  expect_refusal([&] { quantise(g, images); }, kNo,
                 {"my_MatMul", "zero point is 100", "symmetrically"});
  zero.set_int32_data(0, 128);
  EXPECT_NO_THROW(quantise(b.import(), images));
}

}  // namespace
}  // namespace latchkey::model
