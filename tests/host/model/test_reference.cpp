// The golden model against a direct transcription of the node definitions in 64-bit arithmetic, on
// random graphs; and validate() against graphs that break one rule each.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
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

/// A window of up to 4 x 4 somewhere on in, and the planes that it makes.
template <typename Op>
void random_window(generator& g, const qtensor& in, qtensor& out, Op& n) {
  n.kernel_h = g.pick(1, std::min(in.h, 4));
  n.kernel_w = g.pick(1, std::min(in.w, 4));
  n.stride_y = g.pick(1, 3);
  n.stride_x = g.pick(1, 3);
  n.pad_top = g.pick(0, n.kernel_h - 1);
  n.pad_left = g.pick(0, n.kernel_w - 1);
  n.pad_bottom = g.pick(0, n.kernel_h - 1);
  n.pad_right = g.pick(0, n.kernel_w - 1);
  out.h = window_output(in.h, n.kernel_h, n.stride_y, n.pad_top, n.pad_bottom);
  out.w = window_output(in.w, n.kernel_w, n.stride_x, n.pad_left, n.pad_right);
}

qnode random_depthwise(generator& g, const qtensor& in, qtensor& out) {
  qdepthwise n;
  n.channels = out.c = in.c;
  random_window(g, in, out, n);
  for (int i = 0; i < n.channels * n.kernel_h * n.kernel_w; ++i) {
    n.weights.push_back(static_cast<std::int8_t>(g.pick(-127, 127)));
  }
  for (int c = 0; c < n.channels; ++c) {
    n.bias.push_back(g.pick(-20000, 20000));
    n.weight_scale.push_back(g.scale() / 10.0F);
    n.scale.push_back(make_requant(in.scale, n.weight_scale.back(), out.scale));
  }
  n.clamp_lo = static_cast<std::uint8_t>(g.pick(0, 100));
  n.clamp_hi = static_cast<std::uint8_t>(g.pick(150, 255));
  return {"depthwise", {}, -1, n};
}

qnode random_avgpool(generator& g, const qtensor& in, qtensor& out) {
  qavgpool n;
  out.c = in.c;
  random_window(g, in, out, n);
  if (g.pick(0, 2) == 0) {  // The whole plane.
    n = {};
    n.kernel_h = in.h;
    n.kernel_w = in.w;
    out.h = out.w = 1;
  }
  n.scale = average_requant(in.scale, out.scale, n.kernel_h * n.kernel_w);
  n.clamp_lo = static_cast<std::uint8_t>(g.pick(0, 100));
  n.clamp_hi = static_cast<std::uint8_t>(g.pick(150, 255));
  return {"average", {}, -1, n};
}

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
  if (g.pick(0, 3) == 0 && in.h * in.w <= 100) {
    n.transposed = true;
    n.kernel_h = n.stride_y = g.pick(1, 3);
    n.kernel_w = n.stride_x = g.pick(1, 3);
    n.pad_top = n.pad_left = n.pad_bottom = n.pad_right = 0;
    out.h = in.h * n.stride_y;
    out.w = in.w * n.stride_x;
  }
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

/// Visits the taps of one output pixel that lie inside the input: its bytes and their place.
template <typename Op, typename Visit>
void for_each_tap(const Op& n, const qtensor& in, int oy, int ox, Visit visit) {
  for (int ky = 0; ky < n.kernel_h; ++ky) {
    for (int kx = 0; kx < n.kernel_w; ++kx) {
      const int iy = oy * n.stride_y + ky - n.pad_top;
      const int ix = ox * n.stride_x + kx - n.pad_left;
      if (iy < 0 || ix < 0 || iy >= in.h || ix >= in.w) continue;
      visit(ky * n.kernel_w + kx, iy * in.w + ix);
    }
  }
}

/// One output byte of each kind of node, as qgraph.hpp defines it.
struct transcription {
  const qtensor &in, &second, &out;
  const bytes &x, &b;
  int c, oy, ox;

  std::uint8_t byte(int channel, int at) const {
    return x[static_cast<std::size_t>(channel * in.h * in.w + at)];
  }
  std::size_t here() const { return static_cast<std::size_t>((c * out.h + oy) * out.w + ox); }
  std::size_t second_at(bool broadcast) const {
    return broadcast ? static_cast<std::size_t>(c) : here();
  }
  template <typename Op>
  std::uint8_t finish(const Op& n, const requant& r, std::int64_t acc) const {
    return requantise(r, static_cast<std::int32_t>(acc), out.zero_point, n.clamp_lo, n.clamp_hi);
  }

  std::uint8_t operator()(const qconv& n) const {
    const auto o = static_cast<std::size_t>(c);
    std::int64_t acc = n.bias[o];
    for (int i = 0; n.transposed && i < in.c; ++i) {
      const int ky = oy % n.stride_y, kx = ox % n.stride_x;
      const int kernel = ((c * in.c + i) * n.kernel_h + ky) * n.kernel_w + kx;
      acc += n.weights[static_cast<std::size_t>(kernel)] *
             (byte(i, oy / n.stride_y * in.w + ox / n.stride_x) - in.zero_point);
    }
    for (int i = 0; !n.transposed && i < in.c; ++i) {
      for_each_tap(n, in, oy, ox, [&](int tap, int at) {
        const int kernel = (c * in.c + i) * n.kernel_h * n.kernel_w;
        acc += n.weights[static_cast<std::size_t>(kernel + tap)] * (byte(i, at) - in.zero_point);
      });
    }
    return finish(n, n.scale[o], acc);
  }
  std::uint8_t operator()(const qmaxpool& n) const {
    int best = -1;
    for_each_tap(n, in, oy, ox, [&](int, int at) { best = std::max<int>(best, byte(c, at)); });
    return static_cast<std::uint8_t>(best);
  }
  std::uint8_t operator()(const qadd& n) const {
    const std::int64_t pa = (x[here()] - 128) * std::int64_t{n.mult_a};
    const std::int64_t pb = (b[second_at(n.broadcast_b)] - 128) * std::int64_t{n.mult_b};
    const std::int64_t t = (n.negate_b ? pa - pb : pa + pb) + n.offset;
    return static_cast<std::uint8_t>(
        std::clamp<std::int64_t>(rne_shift(t, n.shift) + 128, n.clamp_lo, n.clamp_hi));
  }
  std::uint8_t operator()(const qdepthwise& n) const {
    const auto o = static_cast<std::size_t>(c);
    std::int64_t acc = n.bias[o];
    for_each_tap(n, in, oy, ox, [&](int tap, int at) {
      acc += n.weights[static_cast<std::size_t>(c * n.kernel_h * n.kernel_w + tap)] *
             (byte(c, at) - in.zero_point);
    });
    return finish(n, n.scale[o], acc);
  }
  std::uint8_t operator()(const qavgpool& n) const {
    std::int64_t acc = 0;
    for_each_tap(n, in, oy, ox, [&](int, int at) { acc += byte(c, at) - in.zero_point; });
    return finish(n, n.scale, acc);
  }
  std::uint8_t operator()(const qmul& n) const {
    return finish(n, n.scale,
                  (x[here()] - in.zero_point) * (b[second_at(n.broadcast)] - second.zero_point));
  }
  std::uint8_t operator()(const qtable& n) const { return n.entries.at(x[here()]); }
  std::uint8_t operator()(const qproduct& n) const {
    const int d = second.c / n.heads;
    const auto factor = [&](int channel, int token) {
      return std::max(b[static_cast<std::size_t>(channel * second.w + token)] - 128, -127);
    };
    std::int64_t acc = 0;
    if (n.transposed) {  // c: the key, oy: the head
      for (int k = oy * d; k < (oy + 1) * d; ++k) acc += (byte(k, ox) - 128) * factor(k, c);
    } else {
      for (int j = 0; j < in.c; ++j) {
        acc += (byte(j, c / d * in.w + ox) - 128) * factor(c, j);
      }
    }
    return finish(n, n.scale, acc);
  }
  std::uint8_t operator()(const qsoftmax& n) const {
    const int at = oy * in.w + ox;
    int most = 0;
    for (int i = 0; i < in.c; ++i) most = std::max<int>(most, byte(i, at));
    std::uint64_t sum = 0;
    const auto e = [&](int i) {
      return n.entries.at(static_cast<std::size_t>(most - byte(i, at)));
    };
    for (int i = 0; i < in.c; ++i) sum += e(i);
    int bits = 0;
    while (sum >> bits != 0) ++bits;
    const std::uint64_t leading = bits < 18 ? sum << (18 - bits) : sum >> (bits - 18);
    const std::uint64_t q = 0x3ffffffffULL / leading;
    const requant r{static_cast<std::uint32_t>(q * n.scale.multiplier >> 17),
                    static_cast<std::uint8_t>(n.scale.shift + bits - 1)};
    return requantise(r, e(c), out.zero_point, 0, 255);
  }
  std::uint8_t operator()(const qlayernorm& n) const {
    const int at = oy * in.w + ox;
    std::int64_t sum = 0, squares = 0;
    for (int i = 0; i < in.c; ++i) {
      sum += byte(i, at) - 128;
      squares += (byte(i, at) - 128) * (byte(i, at) - 128);
    }
    const std::int64_t v = in.c * squares - sum * sum + static_cast<std::int64_t>(n.epsilon);
    const auto d = static_cast<std::int32_t>(in.c * (byte(c, at) - 128) - sum);
    const auto o = static_cast<std::size_t>(c);
    const std::int32_t z = normalised(d, static_cast<std::uint64_t>(v));
    return requantise(n.scale[o], (n.negative[o] ? -z : z) + n.bias[o], out.zero_point, 0, 255);
  }
  std::uint8_t operator()(const qview&) const { return x.at(here()); }
  /// Of two parts.
  std::uint8_t operator()(const qjoin& n) const {
    const int pixel = oy * out.w + ox;
    const bool first = n.pixels ? pixel < in.h * in.w : c < in.c;
    const qtensor& part = first ? in : second;
    std::size_t at = first ? here() : here() - in.size();
    if (n.pixels) {
      at = static_cast<std::size_t>(c * part.h * part.w + pixel - (first ? 0 : in.h * in.w));
    }
    // What float32 makes of a byte: one product, one rounding.
    const float ratio = part.scale / out.scale;
    const float value = static_cast<float>((first ? x : b).at(at) - part.zero_point) * ratio;
    const double y = std::nearbyint(static_cast<double>(value)) + out.zero_point;
    return static_cast<std::uint8_t>(std::clamp<double>(y, n.clamp_lo, n.clamp_hi));
  }
  std::uint8_t operator()(const qconstant& n) const { return n.values.at(here()); }
};

bytes direct(const qgraph& g, const qnode& node, const std::vector<bytes>& values) {
  const auto in = static_cast<std::size_t>(node.inputs.front());
  const auto second = static_cast<std::size_t>(node.inputs.back());
  const qtensor& out = g.tensors[static_cast<std::size_t>(node.output)];
  bytes y;
  for (int c = 0; c < out.c; ++c) {
    for (int oy = 0; oy < out.h; ++oy) {
      for (int ox = 0; ox < out.w; ++ox) {
        y.push_back(std::visit(transcription{g.tensors[in], g.tensors[second], out, values[in],
                                             values[second], c, oy, ox},
                               node.op));
      }
    }
  }
  return y;
}

/// One node on random bytes: its tensors, the second of a pair before the output.
void expect_definition(generator& g, std::vector<qtensor> tensors, qnode node) {
  qgraph graph;
  graph.name = "one";
  const int last = static_cast<int>(tensors.size()) - 1;
  graph.tensors = std::move(tensors);
  node.output = last;
  // A second tensor is a table over the first where the shapes agree, so that there is one input.
  node.inputs = last == 1 ? std::vector<int>{0} : std::vector<int>{0, 1};
  const qtensor& in = graph.tensors[0];
  const qtensor& out = graph.tensors.back();
  graph.input = {"x", 0, io_type::u8, {in.c, in.h, in.w}};
  graph.output = {"y", last, io_type::u8, {out.c, out.h, out.w}};
  if (last == 2) {
    qtable t;
    for (auto& e : t.entries) e = static_cast<std::uint8_t>(g.pick(0, 255));
    graph.nodes.push_back({"table", {0}, 1, t});
  }
  graph.nodes.push_back(node);
  reference golden(graph);
  const auto& values = golden.run(g.image(in.size()));
  EXPECT_EQ(values.back(), direct(graph, node, values));
}

TEST(Reference, AgreesWithTheDefinitionsOfAttention) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    generator g(seed);
    const auto zero = [&] { return static_cast<std::uint8_t>(g.pick(0, 255)); };
    qproduct scores;
    scores.heads = g.pick(1, 3);
    scores.transposed = true;
    const int channels = scores.heads * (scores.heads > 1 ? 64 : g.pick(1, 70));
    const int tokens = g.pick(1, 9);
    const qtensor a{"a", channels, 1, tokens, g.scale(), 128};
    const qtensor y{"y", tokens, scores.heads, tokens, g.scale() * 100, zero()};
    scores.scale = make_requant(a.scale, g.scale(), y.scale);
    scores.clamp_lo = static_cast<std::uint8_t>(g.pick(0, 20));
    expect_definition(g, {a, a, y}, {"scores", {}, -1, scores});
    // Weights and values of one shape: one head, as many tokens as keys.
    qproduct context;
    const int keys = g.pick(1, 9);
    const qtensor square{"a", keys, 1, keys, g.scale(), 128};
    context.scale = make_requant(square.scale, g.scale(), y.scale);
    qtensor sum = square;
    sum.scale = y.scale;
    sum.zero_point = zero();
    expect_definition(g, {square, square, sum}, {"context", {}, -1, context});

    const qtensor in{"x", g.pick(1, 300), g.pick(1, 3), g.pick(1, 5), g.scale(), zero()};
    qtensor out = in;
    out.scale = g.scale() / 20;
    out.zero_point = zero();
    qsoftmax softmax;
    for (std::size_t i = 0; i < 256; ++i) {
      softmax.entries[i] = static_cast<std::uint16_t>(
          std::nearbyint(65535 * std::exp(-static_cast<double>(i) * in.scale)));
    }
    softmax.scale = make_requant(1.0F, 1.0F, out.scale);
    expect_definition(g, {in, out}, {"softmax", {}, -1, softmax});

    qlayernorm norm;
    norm.epsilon = static_cast<std::uint64_t>(g.pick(1, 1000000));
    for (int c = 0; c < in.c; ++c) {
      norm.scale.push_back({static_cast<std::uint32_t>(g.pick(1 << 22, (1 << 23) - 1)),
                            static_cast<std::uint8_t>(g.pick(32, 36))});
      norm.negative.push_back(g.pick(0, 1) == 1);
      norm.bias.push_back(g.pick(-1000000, 1000000));
    }
    expect_definition(g, {in, out}, {"norm", {}, -1, norm});
  }
}

/// How far a quantised node is from real numbers, in steps of its output.
template <typename Op>
double steps_away(generator& g, const Op& op, int channels, float scale, float out_scale,
                  std::uint8_t out_zero) {
  fgraph f;
  f.name = "one";
  f.tensors.push_back({"x", channels, 1, 4, quantisation{scale, 128}});
  f.tensors.push_back({"y", channels, 1, 4, quantisation{out_scale, out_zero}});
  f.inputs.push_back({"x", 0, io_type::f32, {channels, 1, 4}});
  f.output = {"y", 1, io_type::f32, {channels, 1, 4}};
  f.nodes.push_back({"one", {0}, 1, op});
  reference golden(quantise(f, {}));
  float_executor exact(f);
  const bytes x = g.image(f.tensors[0].size());
  std::vector<float> real(x.size());
  std::transform(x.begin(), x.end(), real.begin(),
                 [&](std::uint8_t b) { return scale * static_cast<float>(b - 128); });
  const auto wanted = exact.infer(real);
  const auto got = golden.infer(x);
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double y = std::clamp(wanted[i] / out_scale + out_zero, 0.0F, 255.0F);
    worst = std::max(worst, std::abs(y - got[i]));
  }
  return worst;
}

TEST(Reference, AgreesWithTheDefinitionOfJoins) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    generator g(seed);
    const auto part = [&] {
      return qtensor{"p", 64, 2, 3, g.scale(), static_cast<std::uint8_t>(g.pick(0, 255))};
    };
    const qtensor a = part(), b = part();
    qtensor y = g.pick(0, 3) == 0 ? b : part();
    qjoin n;
    n.pixels = g.pick(0, 1) == 1;
    (n.pixels ? y.h : y.c) *= 2;
    n.scale = {average_requant(a.scale, y.scale, 1), average_requant(b.scale, y.scale, 1)};
    n.clamp_lo = static_cast<std::uint8_t>(g.pick(0, 1) * g.pick(0, 100));
    expect_definition(g, {a, b, y}, {"join", {}, -1, n});
  }
}

TEST(Reference, SoftmaxAndLayerNormAreWithinOneStepOfRealNumbers) {
  double softmax = 0, norm = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    generator g(seed);
    const int channels = g.pick(1, 1000);
    softmax = std::max(softmax, steps_away(g, fsoftmax{}, channels, g.scale(), 1.0F / 255, 0));
    softmax = std::max(softmax, steps_away(g, fsoftmax{}, channels, g.scale(), 0.1F / 127, 128));
    flayernorm n;
    n.epsilon = 1e-5F;
    for (int c = 0; c < channels; ++c) {
      n.gamma.push_back(static_cast<float>(g.pick(-200, 200)) / 100);
      n.beta.push_back(static_cast<float>(g.pick(-100, 100)) / 100);
    }
    n.gamma[0] = 0;  // beta alone
    norm = std::max(norm, steps_away(g, n, channels, g.scale(), 4.0F / 127, 128));
  }
  std::printf("softmax %.3f steps, layer norm %.3f steps\n", softmax, norm);
  EXPECT_LE(softmax, 0.52);
  EXPECT_LE(norm, 0.6);
}

TEST(Reference, AgreesWithTheDefinitionsOnRandomGraphs) {
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    generator g(seed);
    qgraph graph;
    graph.name = "random";
    qtensor first{"in",         g.pick(1, 4), g.pick(1, 9),
                  g.pick(1, 9), g.scale(),    static_cast<std::uint8_t>(g.pick(0, 255))};
    graph.tensors.push_back(first);
    const int layers = g.pick(1, 5);
    for (int l = 0; l < layers; ++l) {
      const int source = static_cast<int>(graph.tensors.size()) - 1;
      const qtensor in = graph.tensors.back();
      qtensor out{
          "t" + std::to_string(l), 1, 1, 1, g.scale(), static_cast<std::uint8_t>(g.pick(0, 255))};
      qnode node;
      // The last tensor again, or for a whole plane's mean behind it, one value per channel.
      const auto second = [&](bool& broadcast) {
        int other = source;
        for (int t = 0; t < source; ++t) {
          const qtensor& b = graph.tensors[static_cast<std::size_t>(t)];
          if (b.c == in.c && b.h == 1 && b.w == 1) other = t;
        }
        broadcast = other != source;
        return other;
      };
      const int kind = g.pick(0, 7);
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
      } else if (kind == 3) {
        node = random_depthwise(g, in, out);
        node.inputs = {source};
      } else if (kind == 4) {
        node = random_avgpool(g, in, out);
        node.inputs = {source};
      } else if (kind == 5) {
        qmul m;
        const int other = second(m.broadcast);
        out.c = in.c;
        out.h = in.h;
        out.w = in.w;
        m.scale =
            make_requant(in.scale, graph.tensors[static_cast<std::size_t>(other)].scale, out.scale);
        m.clamp_lo = static_cast<std::uint8_t>(g.pick(0, 100));
        node = {"mul", {source, other}, -1, m};
      } else if (kind == 6) {
        qtable t;
        for (auto& e : t.entries) e = static_cast<std::uint8_t>(g.pick(0, 255));
        out.c = in.c;
        out.h = in.h;
        out.w = in.w;
        node = {"table", {source}, -1, t};
      } else {
        qadd a;
        const int other = second(a.broadcast_b);
        a.negate_b = g.pick(0, 1) != 0;
        a.mult_a = static_cast<std::uint16_t>(g.pick(0, 65535));
        a.mult_b = static_cast<std::uint16_t>(g.pick(0, 65535));
        a.offset = g.pick(-20000000, 20000000);
        a.shift = static_cast<std::uint8_t>(g.pick(0, 22));
        out.c = in.c;
        out.h = in.h;
        out.w = in.w;
        node = {"add", {source, other}, -1, a};
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

/// depthwise, mean of the plane, product with it, difference from it, table.
qgraph elementwise() {
  qgraph g;
  g.name = "elementwise";
  g.tensors = {{"in", 2, 4, 4, 0.1F, 3},    {"dw", 2, 4, 4, 0.2F, 128},
               {"mean", 2, 1, 1, 0.3F, 9},  {"mul", 2, 4, 4, 0.4F, 10},
               {"sub", 2, 4, 4, 0.5F, 128}, {"table", 2, 4, 4, 0.6F, 0}};
  qdepthwise d;
  d.channels = 2;
  d.kernel_h = d.kernel_w = 3;
  d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = 1;
  d.weights.assign(18, 5);
  d.bias = {100, -100};
  d.weight_scale = {0.01F, 0.02F};
  d.scale = {make_requant(0.1F, 0.01F, 0.2F), make_requant(0.1F, 0.02F, 0.2F)};
  qavgpool a;
  a.kernel_h = a.kernel_w = 4;
  a.scale = average_requant(0.2F, 0.3F, 16);
  qmul m;
  m.broadcast = true;
  m.scale = make_requant(0.2F, 0.3F, 0.4F);
  qadd sub{1, 1, 0, 1, 0, 255, true, true};
  g.nodes = {{"dw", {0}, 1, d},
             {"mean", {1}, 2, a},
             {"mul", {1, 2}, 3, m},
             {"sub", {3, 2}, 4, sub},
             {"table", {4}, 5, qtable{}}};
  g.input = {"in", 0, io_type::f32, {2, 4, 4}};
  g.output = {"table", 5, io_type::f32, {2, 4, 4}};
  return g;
}

using breaks = std::vector<std::pair<const char*, std::function<void(qgraph&)>>>;

void expect_all_refused(const qgraph& sound, const breaks& changes) {
  for (const auto& [what, apply] : changes) {
    qgraph g = sound;
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

TEST(Validate, AcceptsSoundGraphs) {
  EXPECT_NO_THROW(validate(small()));
  EXPECT_NO_THROW(validate(elementwise()));
}

TEST(Validate, RefusesEveryBrokenRule) {
  const auto conv = [](qgraph& g) -> qconv& { return std::get<qconv>(g.nodes[0].op); };
  const auto pool = [](qgraph& g) -> qmaxpool& { return std::get<qmaxpool>(g.nodes[1].op); };
  const auto add = [](qgraph& g) -> qadd& { return std::get<qadd>(g.nodes[2].op); };
  const breaks changes = {
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
  expect_all_refused(small(), changes);
}

TEST(Validate, RefusesEveryBrokenRuleOfTransposedConvolutions) {
  qgraph up = small();
  up.nodes.resize(1);
  up.tensors.resize(2);
  up.tensors[1].h = 8, up.tensors[1].w = 12;
  up.output = {"conv", 1, io_type::f32, {2, 8, 12}};
  const auto conv = [](qgraph& g) -> qconv& { return std::get<qconv>(g.nodes[0].op); };
  qconv& c = conv(up);
  c.transposed = true;
  c.kernel_h = c.stride_y = 2, c.kernel_w = c.stride_x = 3;
  c.pad_top = c.pad_left = c.pad_bottom = c.pad_right = 0;
  c.weights.resize(12);
  EXPECT_NO_THROW(validate(up));
  EXPECT_EQ(up.macs(), 16u * 12);
  expect_all_refused(up,
                     {
                         {"another step", [&](qgraph& g) { conv(g).stride_y = 1; }},
                         {"another kernel", [&](qgraph& g) { conv(g).kernel_w = 2; }},
                         {"no kernel", [&](qgraph& g) { conv(g).kernel_h = conv(g).stride_y = 0; }},
                         {"a pad", [&](qgraph& g) { conv(g).pad_bottom = 1; }},
                         {"rows", [&](qgraph& g) { g.tensors[1].h = 7; }},
                         {"columns", [&](qgraph& g) { g.tensors[1].w = 8; }},
                         {"weights", [&](qgraph& g) { conv(g).weights.pop_back(); }},
                     });
}

TEST(Validate, RefusesEveryBrokenRuleOfTheElementwiseNodes) {
  const auto dw = [](qgraph& g) -> qdepthwise& { return std::get<qdepthwise>(g.nodes[0].op); };
  const auto mean = [](qgraph& g) -> qavgpool& { return std::get<qavgpool>(g.nodes[1].op); };
  const auto mul = [](qgraph& g) -> qmul& { return std::get<qmul>(g.nodes[2].op); };
  const auto sub = [](qgraph& g) -> qadd& { return std::get<qadd>(g.nodes[3].op); };
  expect_all_refused(
      elementwise(),
      {
          {"depthwise weight -128", [&](qgraph& g) { dw(g).weights[3] = -128; }},
          {"depthwise weights", [&](qgraph& g) { dw(g).weights.pop_back(); }},
          {"depthwise scales", [&](qgraph& g) { dw(g).weight_scale.pop_back(); }},
          {"depthwise channels", [&](qgraph& g) { dw(g).channels = 1; }},
          {"depthwise overflow", [&](qgraph& g) { dw(g).bias[0] = 2147483647; }},
          {"depthwise clamp", [&](qgraph& g) { dw(g).clamp_lo = 9, dw(g).clamp_hi = 8; }},
          {"depthwise multiplier", [&](qgraph& g) { ++dw(g).scale[1].shift; }},
          {"depthwise shape", [&](qgraph& g) { dw(g).stride_x = 2; }},
          {"average multiplier", [&](qgraph& g) { ++mean(g).scale.multiplier; }},
          {"average of another count",
           [&](qgraph& g) { mean(g).scale = average_requant(0.2F, 0.3F, 15); }},
          {"average clamp", [&](qgraph& g) { mean(g).clamp_lo = 9, mean(g).clamp_hi = 8; }},
          {"average channels", [&](qgraph& g) { g.tensors[2].c = 3; }},
          {"average pads", [&](qgraph& g) { mean(g).pad_top = 4, g.tensors[2].h = 5; }},
          {"product multiplier", [&](qgraph& g) { ++mul(g).scale.multiplier; }},
          {"product clamp", [&](qgraph& g) { mul(g).clamp_lo = 9, mul(g).clamp_hi = 8; }},
          {"product without broadcast", [&](qgraph& g) { mul(g).broadcast = false; }},
          {"product of one tensor", [&](qgraph& g) { g.nodes[2].inputs.pop_back(); }},
          {"product by a plane", [&](qgraph& g) { g.nodes[2].inputs = {1, 1}; }},
          {"difference without broadcast", [&](qgraph& g) { sub(g).broadcast_b = false; }},
          {"difference of the mean", [&](qgraph& g) { g.nodes[3].inputs = {2, 3}; }},
          {"table of another shape", [&](qgraph& g) { g.tensors[5].w = 3; }},
          {"table of two tensors", [&](qgraph& g) { g.nodes[4].inputs = {4, 4}; }},
      });
}

/// The input and a table of it, joined.
qgraph joined(const qtensor& in, const qtensor& table, const qtensor& out, bool pixels) {
  qgraph g;
  g.name = "joined";
  g.tensors = {in, table, out};
  qjoin n;
  n.pixels = pixels;
  n.scale = {average_requant(in.scale, out.scale, 1), average_requant(table.scale, out.scale, 1)};
  g.nodes = {{"table", {0}, 1, qtable{}}, {"join", {0, 1}, 2, n}};
  g.input = {"in", 0, io_type::f32, {in.c, in.h, in.w}};
  g.output = {"y", 2, io_type::f32, {out.c, out.h, out.w}};
  return g;
}

TEST(Validate, RefusesEveryBrokenRuleOfJoins) {
  const qgraph sound = joined({"in", 64, 2, 2, 0.1F, 3}, {"table", 64, 2, 2, 0.2F, 9},
                              {"y", 128, 2, 2, 0.1F, 3}, false);
  EXPECT_NO_THROW(validate(sound));
  EXPECT_EQ(sound.macs(), 0U);
  const auto join = [](qgraph& g) -> qjoin& { return std::get<qjoin>(g.nodes[1].op); };
  const auto both = [](qgraph& g, int channels) {
    g.tensors[0].c = g.tensors[1].c = g.input.dims[0] = channels;
    g.tensors[2].c = g.output.dims[0] = 2 * channels;
  };
  expect_all_refused(
      sound,
      {
          {"one part", [&](qgraph& g) { g.nodes[1].inputs.pop_back(), join(g).scale.pop_back(); }},
          {"a scale too few", [&](qgraph& g) { join(g).scale.pop_back(); }},
          {"multiplier", [&](qgraph& g) { ++join(g).scale[1].multiplier; }},
          {"clamp", [&](qgraph& g) { join(g).clamp_lo = 9, join(g).clamp_hi = 8; }},
          {"pixels", [&](qgraph& g) { g.tensors[2].h = 4, g.tensors[2].w = 1; }},
          {"no pixels", [&](qgraph& g) { join(g).pixels = true; }},
          {"channels lost", [&](qgraph& g) { g.tensors[2].c = 127, g.output.dims[0] = 127; }},
          {"half a block", [&](qgraph& g) { both(g, 96); }},
          {"narrow parts", [&](qgraph& g) { both(g, 32); }},
          {"a constant",
           [&](qgraph& g) {
             g.nodes[0] = {"constant", {}, 1, qconstant{std::vector<std::uint8_t>(256)}};
           }},
      });
}

TEST(Validate, RefusesEveryBrokenRuleOfJoinedPixels) {
  const qgraph sound = joined({"in", 16, 2, 2, 0.1F, 3}, {"table", 16, 2, 2, 0.1F, 3},
                              {"y", 16, 4, 2, 0.1F, 3}, true);
  EXPECT_NO_THROW(validate(sound));
  const auto shaped = [](qgraph& g, int c, int h, int w, int out_h, int out_w) {
    for (int t : {0, 1}) g.tensors[static_cast<std::size_t>(t)] = {"t", c, h, w, 0.1F, 3};
    g.input.dims = {c, h, w};
    g.tensors[2].c = c, g.tensors[2].h = out_h, g.tensors[2].w = out_w;
    g.output.dims = {c, out_h, out_w};
  };
  qgraph columns = sound;
  shaped(columns, 16, 1, 4, 1, 8);
  EXPECT_NO_THROW(validate(columns));
  expect_all_refused(sound,
                     {{"columns of two rows", [&](qgraph& g) { shaped(g, 16, 2, 2, 2, 4); }},
                      {"rows lost", [&](qgraph& g) { shaped(g, 16, 2, 2, 3, 2); }},
                      {"other channels", [](qgraph& g) { g.tensors[2].c = g.output.dims[0] = 17; }},
                      {"part of a word", [&](qgraph& g) { shaped(g, 8, 2, 2, 4, 2); }}});
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
  EXPECT_EQ(elementwise().macs(), 18U * 16U);
  EXPECT_EQ(elementwise().parameters(), 20U);
}

}  // namespace
}  // namespace latchkey::model
