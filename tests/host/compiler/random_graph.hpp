// Random quantised graphs that are legal, varied and numerically alive (results spread over the
// byte range instead of sitting at a clamp).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model/qgraph.hpp"

namespace latchkey::compiler {

class graph_builder {
 public:
  explicit graph_builder(unsigned seed) : random_(seed) {
    graph_.name = "random" + std::to_string(seed);
  }

  int uniform(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(random_); }
  bool chance(int percent) { return uniform(1, 100) <= percent; }
  template <typename T>
  T pick(const std::vector<T>& from) {
    return from[static_cast<std::size_t>(uniform(0, static_cast<int>(from.size()) - 1))];
  }
  const model::qtensor& at(int t) const { return graph_.tensors[static_cast<std::size_t>(t)]; }

  int tensor(int c, int h, int w, float scale, int zero_point) {
    graph_.tensors.push_back({"t" + std::to_string(graph_.tensors.size()), c, h, w, scale,
                              static_cast<std::uint8_t>(zero_point)});
    return static_cast<int>(graph_.tensors.size()) - 1;
  }

  int input(int c, int h, int w) {
    const int t = tensor(c, h, w, 1.0F / static_cast<float>(uniform(50, 300)), uniform(0, 255));
    graph_.input = {"input", t, model::io_type::f32, {c, h, w}};
    return t;
  }

  /// A convolution whose output spreads; pads are top, left, bottom, right.
  int conv(int in, int out_channels, int kh, int kw, int sy, int sx, std::vector<int> pads,
           bool fully_connected = false) {
    model::qconv n;
    const model::qtensor x = at(in);
    n.fully_connected = fully_connected;
    n.out_channels = out_channels;
    n.in_channels = x.c;
    n.kernel_h = kh;
    n.kernel_w = kw;
    n.stride_y = sy;
    n.stride_x = sx;
    n.pad_top = pads[0];
    n.pad_left = pads[1];
    n.pad_bottom = pads[2];
    n.pad_right = pads[3];
    return layer(fully_connected ? "fc" : "conv", in, std::move(n),
                 model::window_output(x.h, kh, sy, pads[0], pads[2]),
                 model::window_output(x.w, kw, sx, pads[1], pads[3]));
  }

  /// Whether the array can make so many channels of sy x sx pixels for each of `in`.
  bool transposes(int in, int out_channels, int sy, int sx) const {
    const auto bytes = [](int c) {
      return c > 32 ? (c + 63) / 64 * 64 : static_cast<int>(std::bit_ceil(unsigned(c)));
    };
    const model::qtensor& x = at(in);
    const int group = sx * bytes(out_channels);
    const bool whole = sy == 1 || ((x.h == 1 || x.w * bytes(x.c) % 64 == 0) &&
                                   x.w * group % 64 == 0 && x.h <= 255);
    return whole && group <= 4096 && (group % 64 == 0 || std::has_single_bit(unsigned(group)));
  }

  int transposed(int in, int out_channels, int sy, int sx) {
    model::qconv n;
    const model::qtensor x = at(in);
    n.transposed = true;
    n.out_channels = out_channels;
    n.in_channels = x.c;
    n.kernel_h = n.stride_y = sy;
    n.kernel_w = n.stride_x = sx;
    return layer("transposed", in, std::move(n), x.h * sy, x.w * sx);
  }

 private:
  // A layer's output scale is drawn and its weights' follows, so that no scale grows or shrinks
  // with the depth of the graph.
  float output_scale() { return static_cast<float>(uniform(5, 40)) / 1000; }
  /// Scale of weights that leave a sum of the given spread at 50 units of the output.
  static float weight_scale(float in, float out, double spread) {
    return static_cast<float>(50.0 * out / (in * spread));
  }

  /// Weights, biases and multipliers of a convolution, and its output, h x w.
  int layer(const std::string& kind, int in, model::qconv n, int h, int w) {
    const model::qtensor x = at(in);
    const int out_channels = n.out_channels;
    const int k = x.c * n.kernel_h * n.kernel_w;
    const int reach = chance(20) ? 127 : uniform(1, 127);
    for (int i = 0; i < k * out_channels; ++i)
      n.weights.push_back(
          static_cast<std::int8_t>(chance(2) ? (chance(50) ? 127 : -127) : uniform(-reach, reach)));
    const int depth = n.transposed ? x.c : k;
    const double spread = std::sqrt(static_cast<double>(depth)) * reach * 40 + 1;
    const int y = tensor(out_channels, h, w, output_scale(), uniform(0, 255));
    const float w_scale = weight_scale(x.scale, at(y).scale, spread);
    for (int o = 0; o < out_channels; ++o) {
      n.weight_scale.push_back(w_scale * static_cast<float>(uniform(50, 200)) / 100);
      // Now and then a channel with the multiplier 0, or a bias that drives it to its clamp.
      if (chance(2)) n.weight_scale.back() = 1e-30F;
      n.bias.push_back(uniform(-static_cast<int>(spread), static_cast<int>(spread)));
      if (chance(2)) n.bias.back() *= 100;
      n.scale.push_back(model::make_requant(x.scale, n.weight_scale.back(), at(y).scale));
    }
    if (chance(50)) n.clamp_lo = at(y).zero_point;  // Relu
    if (chance(20)) n.clamp_hi = static_cast<std::uint8_t>(uniform(n.clamp_lo, 255));
    return node(kind, {in}, y, std::move(n));
  }

 public:
  /// A depthwise convolution whose output spreads; pads are top, left, bottom, right.
  int depthwise(int in, int kh, int kw, int sy, int sx, std::vector<int> pads) {
    model::qdepthwise n;
    const model::qtensor x = at(in);
    n.channels = x.c;
    n.kernel_h = kh;
    n.kernel_w = kw;
    n.stride_y = sy;
    n.stride_x = sx;
    n.pad_top = pads[0];
    n.pad_left = pads[1];
    n.pad_bottom = pads[2];
    n.pad_right = pads[3];
    for (int i = 0; i < x.c * kh * kw; ++i)
      n.weights.push_back(static_cast<std::int8_t>(uniform(-127, 127)));
    const double spread = std::sqrt(static_cast<double>(kh * kw)) * 127 * 40 + 1;
    const int y = tensor(x.c, model::window_output(x.h, kh, sy, pads[0], pads[2]),
                         model::window_output(x.w, kw, sx, pads[1], pads[3]), output_scale(),
                         uniform(0, 255));
    const float w_scale = weight_scale(x.scale, at(y).scale, spread);
    for (int c = 0; c < x.c; ++c) {
      n.weight_scale.push_back(w_scale * static_cast<float>(uniform(50, 200)) / 100);
      n.bias.push_back(uniform(-static_cast<int>(spread), static_cast<int>(spread)));
      n.scale.push_back(model::make_requant(x.scale, n.weight_scale.back(), at(y).scale));
    }
    if (chance(50)) n.clamp_lo = at(y).zero_point;  // Relu
    return node("depthwise", {in}, y, std::move(n));
  }

  int fc(int in, int out_channels) {
    return conv(in, out_channels, at(in).h, at(in).w, 1, 1, {0, 0, 0, 0}, true);
  }

  int max_pool(int in, int kh, int kw, int sy, int sx, std::vector<int> pads) {
    const model::qtensor x = at(in);
    const int y =
        tensor(x.c, model::window_output(x.h, kh, sy, pads[0], pads[2]),
               model::window_output(x.w, kw, sx, pads[1], pads[3]), x.scale, x.zero_point);
    return node("pool", {in}, y,
                model::qmaxpool{kh, kw, sy, sx, pads[0], pads[1], pads[2], pads[3]});
  }

  int upsample(int in, int repeat_y, int repeat_x) {
    const model::qtensor x = at(in);
    model::qmaxpool n;
    n.repeat_y = repeat_y;
    n.repeat_x = repeat_x;
    const int y = tensor(x.c, x.h * repeat_y, x.w * repeat_x, x.scale, x.zero_point);
    return node("upsample", {in}, y, n);
  }

  int add(int a, int b) {
    model::qadd n;
    n.shift = static_cast<std::uint8_t>(uniform(0, 22));
    const int top = std::min(65535, 2 << n.shift);
    n.mult_a = static_cast<std::uint16_t>(uniform(0, top));
    n.mult_b = static_cast<std::uint16_t>(uniform(0, top));
    n.offset = uniform(-100, 100) * (1 << n.shift) + uniform(-1000, 1000);
    if (chance(30)) n.clamp_lo = static_cast<std::uint8_t>(uniform(0, 150));
    if (chance(30)) n.clamp_hi = static_cast<std::uint8_t>(uniform(n.clamp_lo, 255));
    n.negate_b = chance(30);
    n.broadcast_b = at(b).h == 1 && at(b).w == 1;
    const int y = tensor(at(a).c, at(a).h, at(a).w, 0.5F, uniform(0, 255));
    return node("add", {a, b}, y, n);
  }

  /// An average over windows; its scale keeps the spread of the input.
  int avg_pool(int in, int kh, int kw, int sy, int sx, std::vector<int> pads) {
    const model::qtensor x = at(in);
    const float scale = x.scale * static_cast<float>(uniform(30, 100)) / 100;
    const int y =
        tensor(x.c, model::window_output(x.h, kh, sy, pads[0], pads[2]),
               model::window_output(x.w, kw, sx, pads[1], pads[3]), scale, uniform(0, 255));
    model::qavgpool n{kh, kw, sy, sx, pads[0], pads[1], pads[2], pads[3]};
    n.scale = model::average_requant(x.scale, scale, kh * kw);
    if (chance(30)) n.clamp_lo = static_cast<std::uint8_t>(uniform(0, 150));
    return node("average", {in}, y, n);
  }
  int global_pool(int in) { return avg_pool(in, at(in).h, at(in).w, 1, 1, {0, 0, 0, 0}); }

  /// a * b; b may have one pixel.
  int mul(int a, int b) {
    const model::qtensor x = at(a), w = at(b);
    const float scale = x.scale * w.scale * static_cast<float>(uniform(20, 120));
    const int y = tensor(x.c, x.h, x.w, scale, uniform(0, 255));
    model::qmul n;
    n.scale = model::make_requant(x.scale, w.scale, scale);
    n.broadcast = w.h == 1 && w.w == 1;
    if (chance(30)) n.clamp_hi = static_cast<std::uint8_t>(uniform(100, 255));
    return node("mul", {a, b}, y, n);
  }

  /// Gives a convolution or an average the quantisation of another tensor; its values spread as
  /// before.
  int like(int t, int other) {
    const auto writer = std::find_if(graph_.nodes.begin(), graph_.nodes.end(),
                                     [&](const model::qnode& n) { return n.output == t; });
    const float in = at(writer->inputs[0]).scale, to = at(other).scale, from = at(t).scale;
    if (auto* const pool = std::get_if<model::qavgpool>(&writer->op)) {
      pool->scale = model::average_requant(in, to, pool->kernel_h * pool->kernel_w);
    } else {
      const auto scale = [&](auto& layer) {
        for (std::size_t o = 0; o < layer.scale.size(); ++o) {
          layer.weight_scale[o] *= to / from;
          layer.scale[o] = model::make_requant(in, layer.weight_scale[o], to);
        }
      };
      auto* const depthwise = std::get_if<model::qdepthwise>(&writer->op);
      depthwise != nullptr ? scale(*depthwise) : scale(std::get<model::qconv>(writer->op));
    }
    auto& q = graph_.tensors[static_cast<std::size_t>(t)];
    q.scale = to;
    q.zero_point = at(other).zero_point;
    return t;
  }

  /// The channels of all parts, or their rows, with the quantisation of the last one.
  int join(const std::vector<int>& parts, bool pixels = false) {
    model::qjoin n;
    n.pixels = pixels;
    const model::qtensor last = at(parts.back());
    int channels = 0, rows = 0;
    for (const int t : parts) {
      n.scale.push_back(model::average_requant(at(t).scale, last.scale, 1));
      channels += at(t).c;
      rows += at(t).h;
    }
    const int y = tensor(pixels ? last.c : channels, pixels ? rows : last.h, last.w, last.scale,
                         last.zero_point);
    return node("join", parts, y, std::move(n));
  }

  int view(int in, int h, int w) {
    const model::qtensor x = at(in);
    return node("view", {in}, tensor(x.c, h, w, x.scale, x.zero_point), model::qview{});
  }

  int constant(int c, int h, int w) {
    model::qconstant n;
    for (int i = 0; i < c * h * w; ++i) {
      n.values.push_back(static_cast<std::uint8_t>(uniform(0, 255)));
    }
    return node("constant", {}, tensor(c, h, w, 0.01F, uniform(0, 255)), std::move(n));
  }

  /// Any function; a permutation keeps all of the input's variety.
  int table(int in) {
    model::qtable n;
    for (std::size_t i = 0; i < n.entries.size(); ++i) {
      n.entries[i] = static_cast<std::uint8_t>(i);
    }
    std::shuffle(n.entries.begin(), n.entries.end(), random_);
    const int y = tensor(at(in).c, at(in).h, at(in).w, 0.5F, uniform(0, 255));
    return node("table", {in}, y, n);
  }

  /// A 1x1 convolution whose output is a factor of a product: zero point 128, no byte 0.
  int factor(int in, int out_channels) {
    const int y = conv(in, out_channels, 1, 1, 1, 1, {0, 0, 0, 0});
    graph_.tensors[static_cast<std::size_t>(y)].zero_point = 128;
    auto& n = std::get<model::qconv>(graph_.nodes.back().op);
    n.clamp_lo = chance(80) ? 1 : 0;
    n.clamp_hi = 255;
    return y;
  }

  /// heads x depth channels of a and b, or scores and b; the result spreads.
  int product(int a, int b, int heads, bool transposed) {
    const model::qtensor x = at(a), w = at(b);
    model::qproduct n;
    n.heads = heads;
    n.transposed = transposed;
    const double spread = std::sqrt(static_cast<double>(product_depth(n, x))) * 40 * 40;
    const float scale = static_cast<float>(x.scale * w.scale * spread / 50);
    const int y = transposed ? tensor(w.w, heads, x.w, scale, uniform(0, 255))
                             : tensor(w.c, 1, x.w, scale, uniform(0, 255));
    n.scale = model::make_requant(x.scale, w.scale, scale);
    if (chance(30)) n.clamp_lo = static_cast<std::uint8_t>(uniform(0, 100));
    return node("product", {a, b}, y, n);
  }

  int softmax(int in, int zero_point) {
    model::qsoftmax n;
    const double sx = uniform(5, 200) / 1000.0;
    for (std::size_t i = 0; i < n.entries.size(); ++i) {
      n.entries[i] = static_cast<std::uint16_t>(
          std::nearbyint(65535 * std::exp(-static_cast<double>(i) * sx)));
    }
    const float scale = 1.0F / static_cast<float>(uniform(60, 400));
    n.scale = model::make_requant(1.0F, 1.0F, scale);
    const int y = tensor(at(in).c, at(in).h, at(in).w, scale, zero_point);
    return node("softmax", {in}, y, n);
  }

  int layernorm(int in) {
    model::qlayernorm n;
    n.epsilon = chance(50) ? 1 : static_cast<std::uint64_t>(uniform(1, 1 << 30));
    for (int c = 0; c < at(in).c; ++c) {
      // One unit of the result per 1/16 of a deviation, and up to twice that.
      n.scale.push_back({static_cast<std::uint32_t>(uniform(1 << 22, (1 << 23) - 1)),
                         static_cast<std::uint8_t>(uniform(33, 35))});
      if (chance(3)) n.scale.back() = {};
      n.negative.push_back(chance(30));
      n.bias.push_back(uniform(-(1 << 17), 1 << 17));
    }
    const int y = tensor(at(in).c, at(in).h, at(in).w, 0.02F, uniform(0, 255));
    return node("layernorm", {in}, y, n);
  }

  /// Self-attention of tokens, its output layer, residual addition, layer normalisation, and a
  /// layer with a table behind it.
  int encoder(int x, int heads) {
    const int c = at(x).c;
    const int q = factor(x, c), k = factor(x, c), v = factor(x, c);
    int t = softmax(product(q, k, heads, true), 128);
    t = product(t, v, heads, false);
    t = conv(t, c, 1, 1, 1, 1, {0, 0, 0, 0});
    t = layernorm(add(t, x));
    t = table(conv(t, 70, 1, 1, 1, 1, {0, 0, 0, 0}));
    return softmax(conv(t, uniform(5, 40), 1, 1, 1, 1, {0, 0, 0, 0}), uniform(0, 255));
  }

  /// A skip connection that waits, and may spill, while a wide layer runs; 64 x 32 x 32.
  int waiting_skip() {
    const std::vector<int> none{0, 0, 0, 0};
    const int skip = conv(input(4, 64, 64), 64, 1, 1, 1, 1, none);
    const int wide = conv(max_pool(skip, 2, 2, 2, 2, none), 256, 1, 1, 1, 1, none);
    const int deep = conv(wide, 64, 1, 1, 1, 1, none);
    return add(deep, max_pool(skip, 2, 2, 2, 2, none));
  }

  model::qgraph finish(int output) {
    graph_.output = {
        "output", output, model::io_type::f32, {at(output).c, at(output).h, at(output).w}};
    model::validate(graph_);
    return graph_;
  }

  /// A random network: convolutions, pools, residual blocks with skips that outlive several layers,
  /// and perhaps fully connected layers at the end.
  model::qgraph random_graph() {
    const std::vector<int> channels{1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 96, 130};
    int t = input(pick(channels), uniform(1, 12), uniform(1, 12));
    const int blocks = uniform(1, 5);
    for (int i = 0; i < blocks; ++i) {
      const int h = at(t).h, w = at(t).w;
      switch (uniform(0, 10)) {
        case 0:
        case 1: {
          const int kh = uniform(1, std::min(5, h + 1)), kw = uniform(1, std::min(5, w + 1));
          t = conv(t, pick(channels), kh, kw, uniform(1, 3), uniform(1, 3),
                   {uniform(0, kh), uniform(0, kw), uniform(1, kh), uniform(1, kw)});
          break;
        }
        case 2: {
          const int kh = uniform(1, std::min(3, h)), kw = uniform(1, std::min(3, w));
          t = max_pool(
              t, kh, kw, uniform(1, 3), uniform(1, 3),
              {uniform(0, kh - 1), uniform(0, kw - 1), uniform(0, kh - 1), uniform(0, kw - 1)});
          break;
        }
        case 3: {
          const int kh = uniform(1, std::min(4, h)), kw = uniform(1, std::min(4, w));
          t = avg_pool(
              t, kh, kw, uniform(1, 3), uniform(1, 3),
              {uniform(0, kh - 1), uniform(0, kw - 1), uniform(0, kh - 1), uniform(0, kw - 1)});
          if (chance(50)) t = table(t);
          break;
        }
        case 4: {  // a factor, or a term, per channel: squeeze and excitation
          int factor = global_pool(t);
          if (chance(50)) factor = fc(factor, at(t).c);
          if (chance(50)) factor = table(factor);
          const bool tiny = at(t).scale < 1e-6F;  // of products of products: stay in float32
          t = chance(30) || tiny ? add(t, factor) : mul(t, factor);
          if (chance(30)) t = mul(t, t);
          break;
        }
        case 8: {  // parts of one quantisation or several, some with a second reader
          std::vector<int> parts;
          for (int part = uniform(2, 3); part > 0; --part) {
            const int c = part == 1 ? uniform(33, 100) : 64 * uniform(1, 2);
            const int side = h > 2 && w > 2 && chance(50) ? 3 : 1, pad = side / 2;
            int p = conv(t, c, side, side, 1, 1, {pad, pad, pad, pad});
            if (chance(20)) p = depthwise(p, 1, 1, 1, 1, {0, 0, 0, 0});
            if (!parts.empty() && chance(70)) like(p, parts.front());
            if (chance(20)) p = max_pool(p, 3, 3, 1, 1, {1, 1, 1, 1});
            parts.push_back(p);
          }
          const int again = parts.back();
          t = join(parts);
          if (chance(30)) t = add(conv(t, at(again).c, 1, 1, 1, 1, {0, 0, 0, 0}), again);
          break;
        }
        case 7: {
          const int c = pick(channels), sy = uniform(1, 3), sx = uniform(sy == 1 ? 2 : 1, 4);
          if (h * w <= 50 && transposes(t, c, sy, sx)) t = transposed(t, c, sy, sx);
          break;
        }
        case 6:
          if (h * w <= 50) t = upsample(t, uniform(1, 3), uniform(1, 4));
          break;
        case 5: {
          const int kh = uniform(1, std::min(7, h)), kw = uniform(1, std::min(7, w));
          t = depthwise(
              t, kh, kw, uniform(1, 3), uniform(1, 3),
              {uniform(0, kh - 1), uniform(0, kw - 1), uniform(0, kh - 1), uniform(0, kw - 1)});
          break;
        }
        default: {  // residual block; the skip may cross a nested one
          const int skip = t;
          const int c = at(t).c;
          t = conv(t, pick(channels), 3, 3, 1, 1, {1, 1, 1, 1});
          if (chance(40)) t = add(t, conv(t, at(t).c, 1, 1, 1, 1, {0, 0, 0, 0}));
          t = conv(t, c, 1, 1, 1, 1, {0, 0, 0, 0});
          t = chance(50) ? add(t, skip) : add(skip, t);
          if (chance(20)) t = add(t, t);
        }
      }
    }
    if (chance(60)) {
      t = fc(t, pick(channels));
      if (chance(50)) t = fc(t, uniform(1, 300));
    }
    return finish(t);
  }

  std::mt19937& engine() { return random_; }

 private:
  template <typename Op>
  int node(const std::string& kind, std::vector<int> inputs, int output, Op op) {
    graph_.nodes.push_back(
        {kind + std::to_string(graph_.nodes.size()), std::move(inputs), output, std::move(op)});
    return output;
  }

  std::mt19937 random_;
  model::qgraph graph_;
};

}  // namespace latchkey::compiler
