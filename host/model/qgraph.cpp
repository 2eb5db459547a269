#include "model/qgraph.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <ostream>
#include <type_traits>

#include "latchkey/error.hpp"
#include "model/format.hpp"

namespace latchkey::model {
namespace {

constexpr int kMaxDim = 65535;

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw error(errc::unsupported_model, format("quantised graph: {}: {}", where, what));
}

std::string shape_of(const qtensor& t) { return format("{} x {} x {}", t.c, t.h, t.w); }

template <typename Window>
void check_window(const std::string& where, const Window& n, const qtensor& in,
                  const qtensor& out) {
  if (n.kernel_h < 1 || n.kernel_w < 1 || n.stride_y < 1 || n.stride_x < 1 || n.pad_top < 0 ||
      n.pad_left < 0 || n.pad_bottom < 0 || n.pad_right < 0 || n.kernel_h > kMaxDim ||
      n.kernel_w > kMaxDim || n.pad_top > kMaxDim || n.pad_left > kMaxDim ||
      n.pad_bottom > kMaxDim || n.pad_right > kMaxDim) {
    fail(where, "kernel and strides must be 1 or more, pads 0 or more");
  }
  const int h = window_output(in.h, n.kernel_h, n.stride_y, n.pad_top, n.pad_bottom);
  const int w = window_output(in.w, n.kernel_w, n.stride_x, n.pad_left, n.pad_right);
  if (h != out.h || w != out.w) {
    fail(where, format("a {}x{} window over {} gives {} x {}, but the output is {}", n.kernel_h,
                       n.kernel_w, shape_of(in), h, w, shape_of(out)));
  }
}

/// Of a transposed convolution.
void check_steps(const std::string& where, const qconv& n, const qtensor& in, const qtensor& out) {
  if (n.kernel_h < 1 || n.kernel_w < 1 || n.kernel_h != n.stride_y || n.kernel_w != n.stride_x ||
      n.pad_top != 0 || n.pad_left != 0 || n.pad_bottom != 0 || n.pad_right != 0) {
    fail(where, "transposed, its kernel must be its strides, and its pads 0");
  }
  if (std::int64_t{in.h} * n.stride_y != out.h || std::int64_t{in.w} * n.stride_x != out.w) {
    fail(where, format("{}x{} pixels for each of {} are not {}", n.stride_y, n.stride_x,
                       shape_of(in), shape_of(out)));
  }
}

void check_clamp(const std::string& where, int lo, int hi) {
  if (lo > hi) fail(where, "the lower clamp is above the upper one");
}

/// Weights, biases and multipliers of outs channels with k weights each.
template <typename Layer>
void check_channels(const std::string& where, const Layer& n, std::size_t outs, std::size_t k,
                    const qtensor& in, const qtensor& out) {
  if (n.weights.size() != outs * k || n.bias.size() != outs || n.weight_scale.size() != outs ||
      n.scale.size() != outs) {
    fail(where, "weights, weight scales, biases and multipliers must match the channels");
  }
  check_clamp(where, n.clamp_lo, n.clamp_hi);
  const std::int64_t reach = std::max<int>(in.zero_point, 255 - in.zero_point);
  for (std::size_t o = 0; o < outs; ++o) {
    std::int64_t sum = std::abs(static_cast<std::int64_t>(n.bias[o]));
    for (std::size_t i = 0; i < k; ++i) {
      const int w = n.weights[o * k + i];
      if (w < -127) fail(where, format("channel {}: weight -128 is outside [-127, 127]", o));
      sum += reach * std::abs(w);
    }
    if (sum > std::numeric_limits<std::int32_t>::max()) {
      fail(where, format("channel {}: the accumulator can reach {}, beyond 32 bits; split the "
                         "layer along its inputs",
                         o, sum));
    }
    if (!(make_requant(in.scale, n.weight_scale[o], out.scale) == n.scale[o])) {
      fail(where, format("channel {}: the multiplier does not follow from the scales", o));
    }
  }
}

std::size_t taps(int channels, int kernel_h, int kernel_w) {
  return static_cast<std::size_t>(channels) * static_cast<std::size_t>(kernel_h) *
         static_cast<std::size_t>(kernel_w);
}

void check(const std::string& where, const qconv& n, const qtensor& in, const qtensor& out) {
  if (n.transposed) {
    check_steps(where, n, in, out);
  } else {
    check_window(where, n, in, out);
  }
  if (n.in_channels != in.c || n.out_channels != out.c) {
    fail(where, format("weights are {} x {} (out x in channels), tensors {} and {}", n.out_channels,
                       n.in_channels, shape_of(out), shape_of(in)));
  }
  check_channels(where, n, static_cast<std::size_t>(n.out_channels),
                 taps(n.in_channels, n.kernel_h, n.kernel_w), in, out);
}

void check(const std::string& where, const qdepthwise& n, const qtensor& in, const qtensor& out) {
  check_window(where, n, in, out);
  if (n.channels != in.c || n.channels != out.c) {
    fail(where, format("kernels for {} channels, tensors {} and {}", n.channels, shape_of(in),
                       shape_of(out)));
  }
  check_channels(where, n, static_cast<std::size_t>(n.channels), taps(1, n.kernel_h, n.kernel_w),
                 in, out);
}

template <typename Pool>
void check_pool(const std::string& where, const Pool& n, const qtensor& in, const qtensor& out) {
  check_window(where, n, in, out);
  if (in.c != out.c) fail(where, "input and output channels differ");
  if (n.pad_top >= n.kernel_h || n.pad_bottom >= n.kernel_h || n.pad_left >= n.kernel_w ||
      n.pad_right >= n.kernel_w) {
    fail(where, "padding as wide as the window: some windows would hold no pixel");
  }
}

void check(const std::string& where, const qavgpool& n, const qtensor& in, const qtensor& out) {
  check_pool(where, n, in, out);
  check_clamp(where, n.clamp_lo, n.clamp_hi);
  const std::int64_t count = std::int64_t{n.kernel_h} * n.kernel_w;
  if (count > std::numeric_limits<std::int32_t>::max() / 255) {
    fail(where, format("the sum of {} bytes can leave 32 bits", count));
  }
  if (!(average_requant(in.scale, out.scale, static_cast<int>(count)) == n.scale)) {
    fail(where, "the multiplier does not follow from the scales");
  }
}

void check(const std::string& where, const qmaxpool& n, const qtensor& in, const qtensor& out) {
  if (n.repeat_y < 1 || n.repeat_y > 15 || n.repeat_x < 1 || n.repeat_x > 15) {
    fail(where, format("pixels repeat {} x {} times, not 1 to 15", n.repeat_y, n.repeat_x));
  }
  if (n.repeat_y > 1 || n.repeat_x > 1) {
    if (n.kernel_h != 1 || n.kernel_w != 1 || n.stride_y != 1 || n.stride_x != 1 ||
        n.pad_top != 0 || n.pad_left != 0 || n.pad_bottom != 0 || n.pad_right != 0) {
      fail(where, "pixels repeat behind a window of more than one");
    }
    if (out.c != in.c || out.h != in.h * n.repeat_y || out.w != in.w * n.repeat_x) {
      fail(where, format("{} repeated {} x {} times is not {}", shape_of(in), n.repeat_y,
                         n.repeat_x, shape_of(out)));
    }
  } else {
    check_pool(where, n, in, out);
  }
  if (in.scale != out.scale || in.zero_point != out.zero_point) {
    fail(where, "input and output must share scale and zero point");
  }
}

void check_pair(const std::string& where, bool broadcast, const qtensor& a, const qtensor& b,
                const qtensor& out) {
  if (a.c != out.c || a.h != out.h || a.w != out.w) {
    fail(where, format("shapes {} and {} differ", shape_of(a), shape_of(out)));
  }
  const int h = broadcast ? 1 : out.h;
  const int w = broadcast ? 1 : out.w;
  if (b.c != out.c || b.h != h || b.w != w) {
    fail(where, format("the second tensor is {}, not {} x {} x {}", shape_of(b), out.c, h, w));
  }
}

void check(const std::string& where, const qadd& n, const qtensor& a, const qtensor& b,
           const qtensor& out) {
  check_pair(where, n.broadcast_b, a, b, out);
  if (n.shift > 22) fail(where, format("shift {} is above 22", n.shift));
  check_clamp(where, n.clamp_lo, n.clamp_hi);
  const std::int64_t reach = 128LL * n.mult_a + 128LL * n.mult_b + std::abs(std::int64_t{n.offset});
  if (reach > std::numeric_limits<std::int32_t>::max()) {
    fail(where, "the sum can leave 32 bits");
  }
}

void check(const std::string& where, const qmul& n, const qtensor& a, const qtensor& b,
           const qtensor& out) {
  check_pair(where, n.broadcast, a, b, out);
  check_clamp(where, n.clamp_lo, n.clamp_hi);
  if (!(make_requant(a.scale, b.scale, out.scale) == n.scale)) {
    fail(where, "the multiplier does not follow from the scales");
  }
}

void check_alike(const std::string& where, const qtensor& in, const qtensor& out) {
  if (in.c != out.c || in.h != out.h || in.w != out.w) {
    fail(where, format("shapes {} and {} differ", shape_of(in), shape_of(out)));
  }
}

void check(const std::string& where, const qview& /*n*/, const qtensor& in, const qtensor& out) {
  if (in.c != out.c || in.size() != out.size()) {
    fail(where, format("{} seen as {}", shape_of(in), shape_of(out)));
  }
  if (in.scale != out.scale || in.zero_point != out.zero_point) {
    fail(where, "input and output must share scale and zero point");
  }
}

void check(const std::string& where, const qjoin& n, const std::vector<const qtensor*>& parts,
           const qtensor& out) {
  check_clamp(where, n.clamp_lo, n.clamp_hi);
  if (parts.size() < 2) fail(where, "a join of fewer than two parts");
  int channels = 0, rows = 0, columns = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const qtensor& part = *parts[i];
    const bool alike = n.pixels ? part.c == out.c && (part.w == out.w || part.h == out.h)
                                : part.h == out.h && part.w == out.w;
    if (!alike) {
      fail(where, format("part {} is {}, the output {}", i, shape_of(part), shape_of(out)));
    }
    const bool last = i + 1 == parts.size();
    const std::int64_t bytes =
        n.pixels ? std::int64_t{part.h} * part.w * pixel_bytes(part.c) : part.c;
    if (last ? !n.pixels && part.c <= kBlockChannels / 2 : bytes % kBlockChannels != 0) {
      fail(where,
           format("part {} of {} does not fill blocks of {}", i, shape_of(part), kBlockChannels));
    }
    if (!(average_requant(part.scale, out.scale, 1) == n.scale[i])) {
      fail(where, format("part {}: the multiplier does not follow from the scales", i));
    }
    channels += part.c;
    rows += part.h;
    columns += part.w;
  }
  if (!n.pixels ? channels != out.c : rows != out.h && (out.h != 1 || columns != out.w)) {
    fail(where, format("the parts do not join to {}", shape_of(out)));
  }
}

void check(const std::string& where, const qtable& /*n*/, const qtensor& in, const qtensor& out) {
  check_alike(where, in, out);
}

void check(const std::string& where, const qproduct& n, const qtensor& a, const qtensor& b,
           const qtensor& out) {
  const qtensor& wide = n.transposed ? a : out;    // heads * d x 1 x tokens
  const qtensor& narrow = n.transposed ? out : a;  // keys x heads x tokens
  if (n.heads < 1 || wide.c % n.heads != 0 || wide.h != 1 || b.h != 1 || b.c != wide.c ||
      narrow.c != b.w || narrow.h != n.heads || narrow.w != wide.w) {
    fail(where, format("{} heads of {} and {} do not give {}", n.heads, shape_of(a), shape_of(b),
                       shape_of(out)));
  }
  const int depth = product_depth(n, a);
  if (n.heads > 1 && wide.c / n.heads % kBlockChannels != 0) {
    fail(where, format("heads of {} channels; more than one must have multiples of {}",
                       wide.c / n.heads, kBlockChannels));
  }
  if (a.zero_point != 128 || b.zero_point != 128) {
    fail(where,
         format("zero points {} and {} of the factors, not 128", a.zero_point, b.zero_point));
  }
  if (depth > std::numeric_limits<std::int32_t>::max() / (128 * 127)) {
    fail(where, format("the sum of {} products can leave 32 bits", depth));
  }
  check_clamp(where, n.clamp_lo, n.clamp_hi);
}

void check(const std::string& where, const qsoftmax& n, const qtensor& in, const qtensor& out) {
  check_alike(where, in, out);
  if (n.entries[0] != 65535) fail(where, "the exponential of 0 is not 65535");
  if (in.c > 4096) fail(where, format("{} channels; 4096 are possible", in.c));
  if (n.scale.shift > 36 || !(make_requant(1.0F, 1.0F, out.scale) == n.scale)) {
    fail(where, "the multiplier does not follow from the output's scale, or that is above 2^12");
  }
}

void check(const std::string& where, const qlayernorm& n, const qtensor& in, const qtensor& out) {
  check_alike(where, in, out);
  if (in.c > 4096) fail(where, format("{} channels; 4096 are possible", in.c));
  const auto channels = static_cast<std::size_t>(in.c);
  if (n.scale.size() != channels || n.negative.size() != channels || n.bias.size() != channels) {
    fail(where, "scales, signs and biases must match the channels");
  }
  if (n.epsilon == 0 || n.epsilon >> 39 != 0) {
    fail(where, format("epsilon is {} units, not 1 to 2^39 - 1", n.epsilon));
  }
  for (const requant& r : n.scale) {
    if (r.multiplier != 0 && r.multiplier >> 22 != 1) {
      fail(where, "a multiplier is neither 0 nor of 23 bits");
    }
  }
  for (const std::int32_t b : n.bias) {
    // The normalised value is below 2^23.
    if (std::abs(std::int64_t{b}) > std::numeric_limits<std::int32_t>::max() - (1 << 23)) {
      fail(where, "a bias can leave 32 bits");
    }
  }
}

/// Inputs of an operation that always has as many.
template <typename Op>
constexpr std::size_t inputs_of =
    std::is_same_v<Op, qconstant>                                                          ? 0
    : std::is_same_v<Op, qadd> || std::is_same_v<Op, qmul> || std::is_same_v<Op, qproduct> ? 2
                                                                                           : 1;

}  // namespace

int product_depth(const qproduct& n, const qtensor& a) noexcept {
  return n.transposed ? a.c / n.heads : a.c;
}

requant average_requant(float input_scale, float output_scale, int count) {
  return make_requant(input_scale, 1.0F, output_scale * static_cast<float>(count));
}

std::size_t arity(const qnode& node) noexcept {
  const auto* join = std::get_if<qjoin>(&node.op);
  if (join) return join->scale.size();
  return std::visit([]<typename Op>(const Op&) { return inputs_of<Op>; }, node.op);
}

void validate(const qgraph& graph) {
  const auto count = static_cast<int>(graph.tensors.size());
  const auto known = [&](int t) { return t >= 0 && t < count; };
  if (!known(graph.input.tensor) || !known(graph.output.tensor)) {
    fail(graph.name, "input or output names no tensor");
  }
  for (const qtensor& t : graph.tensors) {
    if (t.c < 1 || t.h < 1 || t.w < 1 || t.c > kMaxDim || t.h > kMaxDim || t.w > kMaxDim) {
      fail(t.name, format("shape {} is outside 1..{}", shape_of(t), kMaxDim));
    }
    if (!(t.scale > 0.0F) || !std::isfinite(t.scale)) {
      fail(t.name, format("scale {} is not positive and finite", t.scale));
    }
  }
  for (const auto& [io, what] : {std::pair{&graph.input, "input"}, {&graph.output, "output"}}) {
    std::size_t elements = 1;
    for (const int d : io->dims) elements *= static_cast<std::size_t>(std::max(d, 0));
    if (elements != graph.tensors[static_cast<std::size_t>(io->tensor)].size()) {
      fail(io->name, format("the {}'s shape does not match its tensor", what));
    }
  }
  std::vector<bool> written(graph.tensors.size());
  written[static_cast<std::size_t>(graph.input.tensor)] = true;
  std::vector<bool> constant(graph.tensors.size());
  for (const qnode& node : graph.nodes) {
    if (node.inputs.size() != arity(node)) fail(node.name, "wrong number of inputs");
    const bool takes_constant =
        std::holds_alternative<qadd>(node.op) || std::holds_alternative<qmul>(node.op);
    for (std::size_t n = 0; n < node.inputs.size(); ++n) {
      const int i = node.inputs[n];
      if (!known(i) || !written[static_cast<std::size_t>(i)]) {
        fail(node.name, "reads a tensor that no earlier node wrote");
      }
      if (constant[static_cast<std::size_t>(i)] && (n == 0 || !takes_constant)) {
        fail(node.name, "reads a constant other than as the second tensor of a sum or product");
      }
    }
    if (!known(node.output) || written[static_cast<std::size_t>(node.output)]) {
      fail(node.name, "writes no tensor, or one that was already written");
    }
    written[static_cast<std::size_t>(node.output)] = true;
    const auto in = [&](std::size_t n) -> const qtensor& {
      return graph.tensors[static_cast<std::size_t>(node.inputs[n])];
    };
    const qtensor& out = graph.tensors[static_cast<std::size_t>(node.output)];
    std::visit(
        [&]<typename Op>(const Op& op) {
          if constexpr (std::is_same_v<Op, qjoin>) {
            std::vector<const qtensor*> parts;
            for (std::size_t n = 0; n < node.inputs.size(); ++n) parts.push_back(&in(n));
            check(node.name, op, parts, out);
          } else if constexpr (inputs_of<Op> == 2) {
            check(node.name, op, in(0), in(1), out);
          } else if constexpr (inputs_of<Op> == 1) {
            check(node.name, op, in(0), out);
          } else {
            constant[static_cast<std::size_t>(node.output)] = true;
            if (op.values.size() != out.size()) {
              fail(node.name, format("{} values for {}", op.values.size(), shape_of(out)));
            }
          }
        },
        node.op);
  }
  if (constant[static_cast<std::size_t>(graph.output.tensor)]) {
    fail(graph.output.name, "the output is a constant");
  }
  if (!written[static_cast<std::size_t>(graph.output.tensor)]) {
    fail(graph.output.name, "no node writes the output");
  }
}

std::uint64_t qgraph::macs() const {
  std::uint64_t total = 0;
  for (const qnode& node : nodes) {
    const qtensor& out = tensors.at(static_cast<std::size_t>(node.output));
    std::visit(
        [&]<typename Op>(const Op& op) {
          if constexpr (requires { op.weights; }) {
            const qtensor* walked = &out;
            if constexpr (std::is_same_v<Op, qconv>) {
              if (op.transposed) walked = &tensors.at(static_cast<std::size_t>(node.inputs[0]));
            }
            total += op.weights.size() * static_cast<std::uint64_t>(walked->h) *
                     static_cast<std::uint64_t>(walked->w);
          } else if constexpr (std::is_same_v<Op, qproduct>) {
            const qtensor& a = tensors.at(static_cast<std::size_t>(node.inputs[0]));
            total += out.size() * static_cast<std::uint64_t>(product_depth(op, a));
          }
        },
        node.op);
  }
  return total;
}

std::uint64_t qgraph::parameters() const {
  std::uint64_t total = 0;
  for (const qnode& node : nodes) {
    std::visit(
        [&](const auto& op) {
          if constexpr (requires { op.weights; }) total += op.weights.size() + op.bias.size();
          if constexpr (requires { op.values; }) total += op.values.size();
        },
        node.op);
  }
  return total;
}

void write_json(const qgraph& graph, std::ostream& out) {
  using nlohmann::json;
  // Hexadecimal floats keep every bit; Python reads them with float.fromhex().
  const auto hex = [](float v) { return format("{:a}", v); };
  const auto io = [](const io_spec& s) {
    static constexpr const char* kTypes[] = {"f32", "u8", "i8"};
    json j{{"name", s.name},
           {"tensor", s.tensor},
           {"type", kTypes[static_cast<int>(s.type)]},
           {"dims", s.dims}};
    if (s.channels_last) j["channels_last"] = true;
    return j;
  };
  json doc{{"name", graph.name}, {"input", io(graph.input)}, {"output", io(graph.output)}};
  doc["tensors"] = json::array();
  for (const qtensor& t : graph.tensors) {
    doc["tensors"].push_back({{"name", t.name},
                              {"shape", {t.c, t.h, t.w}},
                              {"scale", hex(t.scale)},
                              {"zero_point", t.zero_point}});
  }
  doc["nodes"] = json::array();
  for (const qnode& node : graph.nodes) {
    json n{{"name", node.name}, {"inputs", node.inputs}, {"output", node.output}};
    const auto window = [&n](const auto& op) {
      n["kernel"] = {op.kernel_h, op.kernel_w};
      n["strides"] = {op.stride_y, op.stride_x};
      n["pads"] = {op.pad_top, op.pad_left, op.pad_bottom, op.pad_right};
    };
    const auto factors = [&n](const std::vector<requant>& scale) {
      n["multiplier"] = json::array();
      n["shift"] = json::array();
      for (const requant& r : scale) {
        n["multiplier"].push_back(r.multiplier);
        n["shift"].push_back(r.shift);
      }
    };
    const auto layer = [&](const auto& op) {
      n["weights"] = std::vector<int>(op.weights.begin(), op.weights.end());
      n["bias"] = op.bias;
      n["weight_scale"] = json::array();
      for (const float s : op.weight_scale) n["weight_scale"].push_back(hex(s));
      factors(op.scale);
    };
    const auto factor = [&n](const requant& r) {
      n["multiplier"] = r.multiplier;
      n["shift"] = r.shift;
    };
    std::visit(
        [&]<typename Op>(const Op& op) {
          if constexpr (requires { op.kernel_h; }) window(op);
          if constexpr (requires { op.weights; }) layer(op);
          if constexpr (requires { op.clamp_lo; }) n["clamp"] = {op.clamp_lo, op.clamp_hi};
          if constexpr (std::is_same_v<Op, qconv>) {
            n["op"] = op.fully_connected ? "fc" : "conv";
            n["channels"] = {op.out_channels, op.in_channels};
            n["transposed"] = op.transposed;
          } else if constexpr (std::is_same_v<Op, qmaxpool>) {
            n["op"] = "maxpool";
            n["repeats"] = {op.repeat_y, op.repeat_x};
          } else if constexpr (std::is_same_v<Op, qadd>) {
            n["op"] = "add";
            n["mult"] = {op.mult_a, op.mult_b};
            n["offset"] = op.offset;
            n["shift"] = op.shift;
            n["negate"] = op.negate_b;
            n["broadcast"] = op.broadcast_b;
          } else if constexpr (std::is_same_v<Op, qdepthwise>) {
            n["op"] = "depthwise";
          } else if constexpr (std::is_same_v<Op, qavgpool>) {
            n["op"] = "avgpool";
            factor(op.scale);
          } else if constexpr (std::is_same_v<Op, qmul>) {
            n["op"] = "mul";
            n["broadcast"] = op.broadcast;
            factor(op.scale);
          } else if constexpr (std::is_same_v<Op, qproduct>) {
            n["op"] = "product";
            n["heads"] = op.heads;
            n["transposed"] = op.transposed;
            factor(op.scale);
          } else if constexpr (std::is_same_v<Op, qsoftmax>) {
            n["op"] = "softmax";
            n["entries"] = op.entries;
            factor(op.scale);
          } else if constexpr (std::is_same_v<Op, qlayernorm>) {
            n["op"] = "layernorm";
            n["epsilon"] = op.epsilon;
            n["negative"] = op.negative;
            n["bias"] = op.bias;
            factors(op.scale);
          } else if constexpr (std::is_same_v<Op, qjoin>) {
            n["op"] = "join";
            n["pixels"] = op.pixels;
            factors(op.scale);
          } else if constexpr (std::is_same_v<Op, qview>) {
            n["op"] = "view";
          } else if constexpr (std::is_same_v<Op, qconstant>) {
            n["op"] = "constant";
            n["values"] = op.values;
          } else {
            static_assert(std::is_same_v<Op, qtable>);
            n["op"] = "table";
            n["entries"] = op.entries;
          }
        },
        node.op);
    doc["nodes"].push_back(std::move(n));
  }
  out << doc.dump() << '\n';
}

}  // namespace latchkey::model
