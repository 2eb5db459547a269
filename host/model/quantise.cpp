#include "model/quantise.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include "latchkey/error.hpp"
#include "model/calibrate.hpp"
#include "model/format.hpp"
#include "model/reference.hpp"

namespace latchkey::model {
namespace {

constexpr int kMaxAddShift = 22;

std::size_t index(int i) { return static_cast<std::size_t>(i); }

/// The byte that stands for 0.0 where lo is the lowest value.
std::uint8_t zero_point_of(float lo, float scale) {
  return static_cast<std::uint8_t>(std::clamp(std::nearbyint(-lo / scale), 0.0F, 255.0F));
}

quantisation quantisation_of(const range& r) {
  quantisation q;
  const float width = r.hi - r.lo;
  // A tensor that is always 0 has no scale of its own; any does.
  if (!(width >= std::numeric_limits<float>::min() * 256.0F)) return q;
  q.scale = width / 255.0F;
  q.zero_point = zero_point_of(r.lo, q.scale);
  return q;
}

/// Around 128, from byte 1 on: what the factors of products have.
quantisation symmetric_of(const range& r) {
  quantisation q{1.0F, 128};
  const float reach = std::max(-r.lo, r.hi);
  if (reach >= std::numeric_limits<float>::min() * 256.0F) q.scale = reach / 127.0F;
  return q;
}

/// The least number of `bits` significant bits that is not below x > 0.
float ceil_to_bits(float x, int bits) {
  int exponent = 0;
  const float mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::ceil(std::ldexp(mantissa, bits)), exponent - bits);
}

int significant_bits(float x) {
  int exponent = 0;
  float rest = std::abs(std::frexp(x, &exponent));
  int bits = 0;
  for (; rest != 0.0F; ++bits) {
    rest = std::ldexp(rest, 1);
    rest -= std::floor(rest);
  }
  return bits;
}

class quantiser {
 public:
  quantiser(const fgraph& graph, const std::vector<std::vector<float>>& images,
            const quantise_options& options)
      : g_(graph), images_(images), options_(options), q_(graph.tensors.size()) {}

  qgraph run() {
    if (g_.inputs.size() != 1) {
      throw error(errc::unsupported_model,
                  format("{}: the graph has {} inputs, exactly one is supported", g_.name,
                         g_.inputs.size()));
    }
    for (std::size_t t = 0; t < q_.size(); ++t) q_[t] = g_.tensors[t].pinned;
    constants_.resize(q_.size());
    for (const fnode& node : g_.nodes) {
      constants_[index(node.output)] = std::get_if<fconstant>(&node.op);
    }
    follows_ = g_.follows;
    for (const fnode& node : g_.nodes) {
      if (std::holds_alternative<fjoin>(node.op)) let_parts_follow(node);
    }
    const io_spec& in = g_.inputs[0];
    auto& first = q_[index(in.tensor)];
    // Integers that nothing in the file scales are taken as they are.
    if (in.type != io_type::f32 && !first) {
      first = quantisation{1.0F, static_cast<std::uint8_t>(in.type == io_type::i8 ? 128 : 0)};
    }
    find_symmetric();
    spread();
    check_symmetric();
    calibrate();
    if (options_.bias_correction) find_means();
    return build();
  }

 private:
  /// A part that nothing else reads gets the quantisation of the join: it is rounded once, and its
  /// bytes need no more than their place. Behind what keeps its input's quantisation that input
  /// follows too.
  void let_parts_follow(const fnode& join) {
    for (int t : join.inputs) {
      std::vector<int> chain;
      const fnode* writer = nullptr;
      do {
        chain.push_back(t);
        writer = q_[index(t)] ? nullptr : writer_for_one(t);
        if (writer && keeps_quantisation(*writer)) t = writer->inputs[0];
      } while (writer && keeps_quantisation(*writer));
      if (!writer) continue;
      for (const int part : chain) {
        std::erase_if(follows_, [&](const auto& pair) { return pair.first == part; });
        for (auto& [tensor, of] : follows_) of = of == part ? join.output : of;
        follows_.emplace_back(part, join.output);
      }
    }
  }

  /// The node that writes t, if a single input of all nodes is t, the graph's output counted.
  const fnode* writer_for_one(int t) const {
    if (readers_of(g_, t) != 1) return nullptr;
    const auto writer = std::find_if(g_.nodes.begin(), g_.nodes.end(),
                                     [t](const fnode& node) { return node.output == t; });
    return writer == g_.nodes.end() ? nullptr : &*writer;
  }

  /// The factors of products have the zero point 128, and so has what shares their quantisation.
  void find_symmetric() {
    symmetric_.assign(q_.size(), false);
    for (const fnode& node : g_.nodes) {
      if (!std::holds_alternative<fproduct>(node.op)) continue;
      for (const int t : node.inputs) symmetric_[index(t)] = true;
    }
    for (bool again = true; again;) {
      again = false;
      const auto share = [&](int a, int b) {
        if (symmetric_[index(a)] == symmetric_[index(b)]) return;
        symmetric_[index(a)] = symmetric_[index(b)] = again = true;
      };
      for (const auto& [tensor, of] : follows_) share(tensor, of);
      for (const fnode& node : g_.nodes) {
        if (keeps_quantisation(node)) share(node.inputs[0], node.output);
      }
    }
  }

  void check_symmetric() const {
    for (const fnode& node : g_.nodes) {
      if (!std::holds_alternative<fproduct>(node.op)) continue;
      for (const int t : node.inputs) {
        const auto& q = q_[index(t)];
        if (!q || q->zero_point == 128) continue;
        throw error(errc::unsupported_model,
                    format("{}: node '{}' multiplies '{}', whose zero point is {} as an unsigned "
                           "byte, not 128; quantise the factors of products symmetrically (int8 "
                           "around 0, or uint8 around 128)",
                           g_.name, node.name, g_.tensors[index(t)].name, q->zero_point));
      }
    }
  }

  /// Max-pools and views have one quantisation on both sides, and so have values that are only
  /// moved.
  void spread() {
    for (bool again = true; again;) {
      again = false;
      for (const auto& [tensor, of] : follows_) {
        if (q_[index(tensor)] || !q_[index(of)]) continue;
        q_[index(tensor)] = q_[index(of)];
        again = true;
      }
      for (const fnode& node : g_.nodes) {
        if (!keeps_quantisation(node)) continue;
        auto& in = q_[index(node.inputs[0])];
        auto& out = q_[index(node.output)];
        if (in && out && !(*in == *out)) {
          throw error(
              errc::unsupported_model,
              format("{}: node '{}': its input has scale {} and zero point {}, its output "
                     "{} and {}, but it cannot change them; quantise both alike",
                     g_.name, node.name, in->scale, in->zero_point, out->scale, out->zero_point));
        }
        if (in.has_value() != out.has_value()) {
          (in ? out : in) = in ? in : out;
          again = true;
        }
      }
    }
  }

  template <typename Visit>
  void for_each_image(float_executor& executor, Visit visit) {
    for (const auto& image : images_) {
      const auto& values = executor.run({image});
      for (std::size_t t = 0; t < values.size(); ++t) {
        if (!q_[t] && !constants_[t]) visit(t, values[t]);
      }
    }
  }

  void calibrate() {
    if (std::all_of(q_.begin(), q_.end(), [](const auto& q) { return q.has_value(); })) return;
    std::vector<range> ranges(q_.size());
    bool images = false;
    for (std::size_t t = 0; t < q_.size(); ++t) {
      images = images || (!q_[t] && !constants_[t]);
      if (!constants_[t]) continue;
      for (const float v : constants_[t]->values) {
        ranges[t].lo = std::min(ranges[t].lo, v);
        ranges[t].hi = std::max(ranges[t].hi, v);
      }
    }
    if (images) observe(ranges);
    for (const fnode& node : g_.nodes) {  // In order, so that chains work.
      if (q_[index(node.output)]) continue;
      range& r = ranges[index(node.output)];
      if (keeps_quantisation(node)) r = ranges[index(node.inputs[0])];
      for (const auto& [tensor, of] : follows_) {
        if (tensor == node.output) r = ranges[index(of)];
      }
    }
    std::vector<bool> open(q_.size());
    for (std::size_t t = 0; t < q_.size(); ++t) {
      if (q_[t]) continue;
      q_[t] = symmetric_[t] ? symmetric_of(ranges[t]) : quantisation_of(ranges[t]);
      open[t] = !symmetric_[t];
    }
    align_additions(std::move(open), ranges);
  }

  /// The ranges of what is computed, over the calibration images.
  void observe(std::vector<range>& ranges) {
    if (images_.empty()) {
      throw error(errc::usage, format("{}: '{}' carries no quantisation in the file; give "
                                      "calibration images (--calibrate)",
                                      g_.name, first_open()));
    }
    if (!(options_.percentile > 50.0) || options_.percentile > 100.0) {
      throw error(errc::usage, format("percentile {} is outside (50, 100]", options_.percentile));
    }
    float_executor executor(g_);
    for_each_image(executor, [&](std::size_t t, const std::vector<float>& values) {
      range& r = ranges[t];
      for (const float v : values) {
        if (!std::isfinite(v)) {
          throw error(errc::unsupported_model,
                      format("{}: tensor '{}' reaches {} on a calibration image; check the model "
                             "and the scaling of the images",
                             g_.name, g_.tensors[t].name, v));
        }
        r.lo = std::min(r.lo, v);
        r.hi = std::max(r.hi, v);
      }
    });
    if (options_.method != calibration::min_max) narrow(executor, ranges);
  }

  /// Widens the open scales around additions, by less than 1 %, to where a sum of products of bytes
  /// and ratios of scales has no rounding but its last: the card's integers and a float executor
  /// (ONNX Runtime's QLinearAdd) then agree in every bit.
  void align_additions(std::vector<bool> open, const std::vector<range>& ranges) {
    constexpr int kBits = 8, kFloatBits = std::numeric_limits<float>::digits;
    open[index(g_.inputs[0].tensor)] = false;
    for (const auto& [tensor, of] : follows_) open[index(tensor)] = open[index(of)] = false;
    for (const fnode& node : g_.nodes) {
      if (!keeps_quantisation(node)) continue;
      open[index(node.inputs[0])] = open[index(node.output)] = false;
    }
    const auto widen = [&](int tensor, float scale) {
      const std::size_t t = index(tensor);
      q_[t]->scale = scale;
      q_[t]->zero_point = zero_point_of(ranges[t].lo, scale);
      open[t] = false;
    };
    for (auto node = g_.nodes.rbegin(); node != g_.nodes.rend(); ++node) {
      if (!std::holds_alternative<fadd>(node->op)) continue;
      const std::size_t out = index(node->output);
      if (open[out]) widen(node->output, ceil_to_bits(q_[out]->scale, kBits));
      const float y = q_[out]->scale;
      if (significant_bits(y) > kFloatBits - kBits) continue;  // the far end of a chain rounds
      for (const int in : node->inputs) {
        if (open[index(in)]) widen(in, y * ceil_to_bits(q_[index(in)]->scale / y, kBits));
      }
    }
  }

  /// Narrows the ranges by the method, from histograms over the full ranges.
  void narrow(float_executor& executor, std::vector<range>& ranges) {
    std::vector<histogram> seen(ranges.begin(), ranges.end());
    for_each_image(executor, [&](std::size_t t, const std::vector<float>& values) {
      for (const float v : values) seen[t].add(v);
    });
    for (std::size_t t = 0; t < q_.size(); ++t) {
      if (q_[t] || constants_[t] || static_cast<int>(t) == g_.inputs[0].tensor) continue;
      switch (options_.method) {
        case calibration::percentile:
          ranges[t] = seen[t].percentile(1.0 - options_.percentile / 100.0);
          break;
        case calibration::mse:
          ranges[t] = seen[t].least_error();
          break;
        case calibration::entropy:
          ranges[t] = seen[t].least_divergence();
          break;
        case calibration::min_max:
          break;
      }
    }
  }

  /// Mean of every element of the tensors that a layer reads as a whole, of every channel of the
  /// others.
  void find_means() {
    if (images_.empty()) {
      throw error(errc::usage, format("{}: a correction of the biases needs calibration images "
                                      "(--calibrate)",
                                      g_.name));
    }
    means_.resize(q_.size());
    for (const fnode& node : g_.nodes) {
      const auto* conv = std::get_if<fconv>(&node.op);
      if (!conv) continue;
      const ftensor& in = g_.tensors[index(node.inputs[0])];
      auto& means = means_[index(node.inputs[0])];
      const bool whole =
          !conv->depthwise && !conv->transposed && conv->kernel_h == in.h && conv->kernel_w == in.w;
      means.assign(whole || means.size() == in.size() ? in.size() : index(in.c), 0.0);
    }
    float_executor executor(g_);
    for (const auto& image : images_) {
      const auto& values = executor.run({image});
      for (std::size_t t = 0; t < means_.size(); ++t) {
        if (means_[t].empty()) continue;
        const std::size_t share = values[t].size() / means_[t].size();
        const double weight = 1.0 / static_cast<double>(share * images_.size());
        for (std::size_t i = 0; i < values[t].size(); ++i) {
          means_[t][i / share] += weight * values[t][i];
        }
      }
    }
  }

  /// The mean that the rounding of a channel's weights adds to its sum. Of a transposed
  /// convolution's sums each has one tap.
  template <typename Layer>
  double rounding_mean(const fnode& node, const fconv& f, const Layer& n, std::size_t o) const {
    const ftensor& in = g_.tensors[index(node.inputs[0])];
    const std::vector<double>& means = means_[index(node.inputs[0])];
    const std::size_t k = f.weights.size() / f.bias.size();
    const std::size_t window = index(f.kernel_h) * index(f.kernel_w);
    const std::size_t plane = index(in.h) * index(in.w);
    double sum = 0;
    for (std::size_t i = 0; i < k; ++i) {
      const std::size_t channel = f.depthwise ? o : i / window;
      // The means are one per channel, or one per element for a window that is the plane.
      double x = 0;
      if (means.size() == index(in.c)) {
        x = means[channel];
      } else if (window == plane && !f.transposed) {
        x = means[channel * plane + i % window];
      } else {
        for (std::size_t e = 0; e < plane; ++e) x += means[channel * plane + e];
        x /= static_cast<double>(plane);
      }
      const double real = static_cast<double>(n.weights[o * k + i]) * n.weight_scale[o];
      sum += (real - f.weights[o * k + i]) * x;
    }
    return f.transposed ? sum / static_cast<double>(window) : sum;
  }

  std::string first_open() const {
    for (std::size_t t = 0; t < q_.size(); ++t) {
      if (!q_[t] && !constants_[t]) return g_.tensors[t].name;
    }
    return {};
  }

  std::pair<std::uint8_t, std::uint8_t> clamp_of(const bounds& clip, const quantisation& q) const {
    return {quantise_value(clip.lo, q.scale, q.zero_point),
            quantise_value(clip.hi, q.scale, q.zero_point)};
  }

  /// The scale of the least squared error of one channel's weights.
  static float least_error(std::span<const float> weights, float widest) {
    float best = widest;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i <= 80; ++i) {
      const float scale = widest * (1.0F - 0.0025F * static_cast<float>(i));
      if (!(scale > 0.0F)) break;
      double sum = 0;
      for (const float w : weights) {
        const double q = std::clamp(std::nearbyint(w / scale), -127.0F, 127.0F);
        sum += (q * scale - w) * (q * scale - w);
      }
      if (sum < least) {
        least = sum;
        best = scale;
      }
    }
    return best;
  }

  template <typename To, typename From>
  static To window_of(const From& f) {
    To n;
    n.kernel_h = f.kernel_h;
    n.kernel_w = f.kernel_w;
    n.stride_y = f.stride_y;
    n.stride_x = f.stride_x;
    n.pad_top = f.pad_top;
    n.pad_left = f.pad_left;
    n.pad_bottom = f.pad_bottom;
    n.pad_right = f.pad_right;
    return n;
  }

  qconv convert(const fnode& node, const fconv& f) {
    auto n = layer<qconv>(node, f);
    n.fully_connected = f.fully_connected;
    n.transposed = f.transposed;
    n.out_channels = f.out_channels;
    n.in_channels = f.in_channels;
    return n;
  }

  qdepthwise convert_depthwise(const fnode& node, const fconv& f) {
    auto n = layer<qdepthwise>(node, f);
    n.channels = f.out_channels;
    return n;
  }

  /// Window, weights, biases and multipliers of a convolution, dense or depthwise.
  template <typename Layer>
  Layer layer(const fnode& node, const fconv& f) {
    const quantisation& in = *q_[index(node.inputs[0])];
    const quantisation& out = *q_[index(node.output)];
    auto n = window_of<Layer>(f);
    std::tie(n.clamp_lo, n.clamp_hi) = clamp_of(f.clip, out);
    const std::size_t outs = f.bias.size();
    const std::size_t k = f.weights.size() / outs;
    if (f.integers) {
      n.weights = f.integers->values;
      n.weight_scale = f.integers->scale;
    } else {
      n.weights.resize(f.weights.size());
      for (std::size_t o = 0; o < outs; ++o) {
        const float* w = f.weights.data() + o * k;
        float peak = 0.0F;
        for (std::size_t i = 0; i < k; ++i) peak = std::max(peak, std::abs(w[i]));
        float scale = peak / 127.0F;
        if (options_.weights == weight_scale::mse) scale = least_error({w, k}, scale);
        // A channel of tiny weights beside a large bias: the bias has to fit 2^29 steps too.
        const float least = std::abs(f.bias[o]) / in.scale / 536870912.0F;
        scale = std::max(scale, least);
        if (!(scale >= std::numeric_limits<float>::min())) scale = out.scale / in.scale;
        n.weight_scale.push_back(scale);
        for (std::size_t i = 0; i < k; ++i) {
          n.weights[o * k + i] =
              static_cast<std::int8_t>(std::clamp(std::nearbyint(w[i] / scale), -127.0F, 127.0F));
        }
      }
    }
    for (std::size_t o = 0; o < outs; ++o) {
      const double step = static_cast<double>(in.scale) * n.weight_scale[o];
      const bool correct = options_.bias_correction && !f.integers;
      const double real = f.bias[o] - (correct ? rounding_mean(node, f, n, o) : 0.0);
      const double b = std::nearbyint(real / step);
      const bool given = f.integers && f.integers->bias;
      if (!given && !(std::abs(b) <= std::numeric_limits<std::int32_t>::max())) {
        throw error(errc::unsupported_model,
                    format("{}: node '{}', channel {}: bias {} in steps of {} is beyond 32 bits; "
                           "quantise the model with larger scales",
                           g_.name, node.name, o, f.bias[o], step));
      }
      n.bias.push_back(given ? (*f.integers->bias)[o] : static_cast<std::int32_t>(b));
      n.scale.push_back(make_requant(in.scale, n.weight_scale[o], out.scale));
    }
    return n;
  }

  qadd convert(const fnode& node, const fadd& f) {
    const quantisation& a = *q_[index(node.inputs[0])];
    const quantisation& b = *q_[index(node.inputs[1])];
    const quantisation& y = *q_[index(node.output)];
    const double ra = static_cast<double>(a.scale) / y.scale;
    const double rb = static_cast<double>(b.scale) / y.scale;
    int shift = kMaxAddShift;
    while (shift >= 0 && std::nearbyint(std::ldexp(std::max(ra, rb), shift)) > 65535.0) --shift;
    if (shift < 0) {
      throw error(errc::unsupported_model,
                  format("{}: node '{}': input scales {} and {} are more than 65,535 times the "
                         "output's, {}; calibrate the model again",
                         g_.name, node.name, a.scale, b.scale, y.scale));
    }
    qadd n;
    n.shift = static_cast<std::uint8_t>(shift);
    n.mult_a = static_cast<std::uint16_t>(std::nearbyint(std::ldexp(ra, shift)));
    n.mult_b = static_cast<std::uint16_t>(std::nearbyint(std::ldexp(rb, shift)));
    n.negate_b = f.negate_b;
    n.broadcast_b = f.broadcast_b;
    const int product_b = (f.negate_b ? -1 : 1) * n.mult_b * (b.zero_point - 128);
    n.offset = (y.zero_point - 128) * (1 << shift) - n.mult_a * (a.zero_point - 128) - product_b;
    std::tie(n.clamp_lo, n.clamp_hi) = clamp_of(f.clip, y);
    return n;
  }

  qmul convert(const fnode& node, const fmul& f) {
    const quantisation& a = *q_[index(node.inputs[0])];
    const quantisation& b = *q_[index(node.inputs[1])];
    const quantisation& y = *q_[index(node.output)];
    qmul n;
    n.broadcast = f.broadcast_b;
    n.scale = make_requant(a.scale, b.scale, y.scale);
    std::tie(n.clamp_lo, n.clamp_hi) = clamp_of(f.clip, y);
    return n;
  }

  qavgpool convert(const fnode& node, const favgpool& f) {
    const quantisation& x = *q_[index(node.inputs[0])];
    const quantisation& y = *q_[index(node.output)];
    auto n = window_of<qavgpool>(f);
    n.scale = average_requant(x.scale, y.scale, f.kernel_h * f.kernel_w);
    std::tie(n.clamp_lo, n.clamp_hi) = clamp_of(f.clip, y);
    return n;
  }

  qjoin convert(const fnode& node, const fjoin& f) {
    const quantisation& y = *q_[index(node.output)];
    qjoin n;
    n.pixels = f.pixels;
    for (const int t : node.inputs) {
      n.scale.push_back(average_requant(q_[index(t)]->scale, y.scale, 1));
    }
    std::tie(n.clamp_lo, n.clamp_hi) = clamp_of(f.clip, y);
    return n;
  }

  qtable convert(const fnode& node, const ftable& f) {
    const quantisation& x = *q_[index(node.inputs[0])];
    const quantisation& y = *q_[index(node.output)];
    qtable n;
    for (int i = 0; i < 256; ++i) {
      const float real = x.scale * static_cast<float>(i - x.zero_point);
      n.entries[index(i)] =
          quantise_value(static_cast<float>(f.apply(real)), y.scale, y.zero_point);
    }
    return n;
  }

  qproduct convert(const fnode& node, const fproduct& f) {
    const quantisation& a = *q_[index(node.inputs[0])];
    const quantisation& b = *q_[index(node.inputs[1])];
    const quantisation& y = *q_[index(node.output)];
    qproduct n;
    n.heads = f.heads;
    n.transposed = f.transposed;
    n.scale = make_requant(a.scale, b.scale * f.factor, y.scale);
    std::tie(n.clamp_lo, n.clamp_hi) = clamp_of(f.clip, y);
    return n;
  }

  qconstant convert(const fnode& node, const fconstant& f) {
    const quantisation& y = *q_[index(node.output)];
    qconstant n;
    for (const float v : f.values) n.values.push_back(quantise_value(v, y.scale, y.zero_point));
    return n;
  }

  qsoftmax convert(const fnode& node, const fsoftmax& /*f*/) {
    const quantisation& x = *q_[index(node.inputs[0])];
    qsoftmax n;
    for (int i = 0; i < 256; ++i) {
      n.entries[index(i)] = static_cast<std::uint16_t>(
          std::nearbyint(65535.0 * std::exp(-i * static_cast<double>(x.scale))));
    }
    n.scale = make_requant(1.0F, 1.0F, q_[index(node.output)]->scale);
    return n;
  }

  qlayernorm convert(const fnode& node, const flayernorm& f) {
    const quantisation& x = *q_[index(node.inputs[0])];
    const double sy = q_[index(node.output)]->scale;
    const std::size_t channels = f.gamma.size();
    qlayernorm n;
    // n^2 * epsilon in steps of the input.
    const double steps = static_cast<double>(channels) / x.scale;
    n.epsilon = static_cast<std::uint64_t>(
        std::clamp(std::nearbyint(steps * steps * f.epsilon), 1.0, std::ldexp(1.0, 39) - 1.0));
    for (std::size_t c = 0; c < channels; ++c) {
      const double gamma = f.gamma[c], beta = f.beta[c];
      // The bias is in units of gamma and has 30 bits. Where gamma is tinier than that, a larger
      // one stands for it: what it adds stays far below half a step, for the output's range holds
      // beta.
      const double size = std::max(std::abs(gamma), std::ldexp(std::abs(beta), -14));
      int exponent = 0;
      double mantissa = std::nearbyint(std::ldexp(std::frexp(size / sy, &exponent), 23));
      if (mantissa == 8388608.0) {
        mantissa = 4194304.0;
        ++exponent;
      }
      const int shift = 23 - exponent + 16;
      if (shift < 0) {
        throw error(errc::unsupported_model,
                    format("{}: node '{}', channel {}: scale {} in steps of {} is too large; "
                           "calibrate the model again",
                           g_.name, node.name, c, gamma, sy));
      }
      n.negative.push_back(gamma < 0);
      // A multiplier below 2^-40 moves nothing.
      const bool nothing = !(size > 0.0) || shift > 63;
      requant r;
      if (!nothing) {
        r.multiplier = static_cast<std::uint32_t>(mantissa);
        r.shift = static_cast<std::uint8_t>(shift);
      }
      n.scale.push_back(r);
      n.bias.push_back(
          nothing ? 0 : static_cast<std::int32_t>(std::nearbyint(std::ldexp(beta / size, 16))));
    }
    return n;
  }

  /// A product takes byte 0 of its second factor for 1.
  static void avoid_zero(qnode& node) {
    std::visit(
        [](auto& op) {
          if constexpr (requires { op.clamp_lo; }) {
            op.clamp_lo = std::max<std::uint8_t>(op.clamp_lo, 1);
            op.clamp_hi = std::max(op.clamp_lo, op.clamp_hi);
          }
        },
        node.op);
  }

  qgraph build() {
    qgraph out;
    out.name = g_.name;
    out.input = g_.inputs[0];
    out.output = g_.output;
    for (std::size_t t = 0; t < q_.size(); ++t) {
      const ftensor& f = g_.tensors[t];
      out.tensors.push_back({f.name, f.c, f.h, f.w, q_[t]->scale, q_[t]->zero_point});
    }
    for (const fnode& node : g_.nodes) {
      qnode n;
      n.name = node.name;
      n.inputs = node.inputs;
      n.output = node.output;
      std::visit(
          [&]<typename Op>(const Op& op) {
            if constexpr (std::is_same_v<Op, faffine>) {
              throw error(errc::usage,
                          format("{}: simplify() the graph before quantising it", g_.name));
            } else if constexpr (std::is_same_v<Op, fview>) {
              n.op = qview{};
            } else if constexpr (std::is_same_v<Op, fmaxpool>) {
              auto pool = window_of<qmaxpool>(op);
              pool.repeat_y = op.repeat_y;
              pool.repeat_x = op.repeat_x;
              n.op = pool;
            } else if constexpr (std::is_same_v<Op, fconv>) {
              if (op.depthwise) {
                n.op = convert_depthwise(node, op);
              } else {
                n.op = convert(node, op);
              }
            } else {
              n.op = convert(node, op);
            }
          },
          node.op);
      if (symmetric_[index(node.output)]) avoid_zero(n);
      out.nodes.push_back(std::move(n));
    }
    validate(out);
    return out;
  }

  const fgraph& g_;
  const std::vector<std::vector<float>>& images_;
  const quantise_options& options_;
  std::vector<std::optional<quantisation>> q_;
  std::vector<const fconstant*> constants_;   // Per tensor; null: computed.
  std::vector<std::pair<int, int>> follows_;  // The graph's, and parts of joins.
  std::vector<bool> symmetric_;               // Per tensor, see find_symmetric().
  std::vector<std::vector<double>> means_;    // Per tensor, see find_means().
};

/// Powers of a signal and of what was added to it.
struct ratio {
  double signal = 0, noise = 0;

  void add(float wanted, float got) {
    signal += static_cast<double>(wanted) * wanted;
    noise += (static_cast<double>(got) - wanted) * (static_cast<double>(got) - wanted);
  }
  [[nodiscard]] double decibels() const {
    if (!(noise > 0.0)) return std::numeric_limits<double>::infinity();
    return 10.0 * std::log10(signal / noise);
  }
};

/// One node as a graph of its own.
fgraph alone(const fgraph& g, const fnode& node) {
  fgraph out;
  out.name = node.name;
  fnode n = node;
  for (int& t : n.inputs) {
    const ftensor& from = g.tensors[index(t)];
    t = static_cast<int>(out.tensors.size());
    out.inputs.push_back({from.name, t, io_type::f32, {from.c, from.h, from.w}});
    out.tensors.push_back(from);
  }
  n.output = static_cast<int>(out.tensors.size());
  out.tensors.push_back(g.tensors[index(node.output)]);
  out.output = {out.tensors.back().name, n.output, io_type::f32, {}};
  out.nodes.push_back(std::move(n));
  return out;
}

}  // namespace

qgraph quantise(const fgraph& graph, const std::vector<std::vector<float>>& images,
                const quantise_options& options) {
  return quantiser(graph, images, options).run();
}

std::vector<layer_sensitivity> sensitivity(const fgraph& graph, const qgraph& quantised,
                                           const std::vector<std::vector<float>>& images) {
  if (images.empty()) {
    throw error(errc::usage,
                format("{}: the sensitivity of its layers needs images (--calibrate)", graph.name));
  }
  float_executor exact(graph);
  reference golden(quantised);
  std::vector<float_executor> layers;
  for (const fnode& node : graph.nodes) layers.emplace_back(alone(graph, node));
  std::vector<ratio> own(layers.size());
  std::vector<ratio> total(layers.size());
  std::vector<std::vector<float>> real(graph.tensors.size());
  for (const auto& image : images) {
    const auto& wanted = exact.run({image});
    const qtensor& first = quantised.input_tensor();
    std::vector<std::uint8_t> input(image.size());
    std::transform(image.begin(), image.end(), input.begin(),
                   [&](float v) { return quantise_value(v, first.scale, first.zero_point); });
    const auto& bytes = golden.run(input);
    for (std::size_t t = 0; t < real.size(); ++t) {
      const qtensor& q = quantised.tensors[t];
      real[t].resize(bytes[t].size());
      std::transform(bytes[t].begin(), bytes[t].end(), real[t].begin(), [&](std::uint8_t b) {
        return static_cast<float>(static_cast<int>(b) - q.zero_point) * q.scale;
      });
    }
    for (std::size_t n = 0; n < layers.size(); ++n) {
      const fnode& node = graph.nodes[n];
      std::vector<std::span<const float>> inputs;
      for (const int t : node.inputs) inputs.emplace_back(real[index(t)]);
      const auto& by_float = layers[n].run(inputs).back();
      const std::size_t out = index(node.output);
      for (std::size_t i = 0; i < real[out].size(); ++i) {
        own[n].add(by_float[i], real[out][i]);
        total[n].add(wanted[out][i], real[out][i]);
      }
    }
  }
  std::vector<layer_sensitivity> report;
  for (std::size_t n = 0; n < layers.size(); ++n) {
    report.push_back({graph.nodes[n].name, own[n].decibels(), total[n].decibels()});
  }
  return report;
}

}  // namespace latchkey::model
