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

void check(const std::string& where, const qconv& n, const qtensor& in, const qtensor& out) {
  check_window(where, n, in, out);
  if (n.in_channels != in.c || n.out_channels != out.c) {
    fail(where, format("weights are {} x {} (out x in channels), tensors {} and {}", n.out_channels,
                       n.in_channels, shape_of(out), shape_of(in)));
  }
  const auto outs = static_cast<std::size_t>(n.out_channels);
  const std::size_t k = static_cast<std::size_t>(n.in_channels) *
                        static_cast<std::size_t>(n.kernel_h) * static_cast<std::size_t>(n.kernel_w);
  if (n.weights.size() != outs * k || n.bias.size() != outs || n.weight_scale.size() != outs ||
      n.scale.size() != outs) {
    fail(where, "weights, weight scales, biases and multipliers must match the channels");
  }
  if (n.clamp_lo > n.clamp_hi) fail(where, "the lower clamp is above the upper one");
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

void check(const std::string& where, const qmaxpool& n, const qtensor& in, const qtensor& out) {
  check_window(where, n, in, out);
  if (in.c != out.c) fail(where, "input and output channels differ");
  if (n.pad_top >= n.kernel_h || n.pad_bottom >= n.kernel_h || n.pad_left >= n.kernel_w ||
      n.pad_right >= n.kernel_w) {
    fail(where, "padding as wide as the window: some windows would hold no pixel");
  }
  if (in.scale != out.scale || in.zero_point != out.zero_point) {
    fail(where, "input and output must share scale and zero point");
  }
}

void check(const std::string& where, const qadd& n, const qtensor& a, const qtensor& b,
           const qtensor& out) {
  for (const qtensor* t : {&a, &b}) {
    if (t->c != out.c || t->h != out.h || t->w != out.w) {
      fail(where, format("shapes {} and {} differ", shape_of(*t), shape_of(out)));
    }
  }
  if (n.shift > 22) fail(where, format("shift {} is above 22", n.shift));
  if (n.clamp_lo > n.clamp_hi) fail(where, "the lower clamp is above the upper one");
  const std::int64_t reach = 128LL * n.mult_a + 128LL * n.mult_b + std::abs(std::int64_t{n.offset});
  if (reach > std::numeric_limits<std::int32_t>::max()) {
    fail(where, "the sum can leave 32 bits");
  }
}

}  // namespace

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
  for (const qnode& node : graph.nodes) {
    const bool two = std::holds_alternative<qadd>(node.op);
    if (node.inputs.size() != (two ? 2U : 1U)) fail(node.name, "wrong number of inputs");
    for (const int i : node.inputs) {
      if (!known(i) || !written[static_cast<std::size_t>(i)]) {
        fail(node.name, "reads a tensor that no earlier node wrote");
      }
    }
    if (!known(node.output) || written[static_cast<std::size_t>(node.output)]) {
      fail(node.name, "writes no tensor, or one that was already written");
    }
    written[static_cast<std::size_t>(node.output)] = true;
    const qtensor& in = graph.tensors[static_cast<std::size_t>(node.inputs[0])];
    const qtensor& out = graph.tensors[static_cast<std::size_t>(node.output)];
    if (const auto* conv = std::get_if<qconv>(&node.op)) check(node.name, *conv, in, out);
    if (const auto* pool = std::get_if<qmaxpool>(&node.op)) check(node.name, *pool, in, out);
    if (const auto* add = std::get_if<qadd>(&node.op)) {
      check(node.name, *add, in, graph.tensors[static_cast<std::size_t>(node.inputs[1])], out);
    }
  }
  if (!written[static_cast<std::size_t>(graph.output.tensor)]) {
    fail(graph.output.name, "no node writes the output");
  }
}

std::uint64_t qgraph::macs() const {
  std::uint64_t total = 0;
  for (const qnode& node : nodes) {
    if (const auto* conv = std::get_if<qconv>(&node.op)) {
      const qtensor& out = tensors.at(static_cast<std::size_t>(node.output));
      total += conv->weights.size() * static_cast<std::uint64_t>(out.h) *
               static_cast<std::uint64_t>(out.w);
    }
  }
  return total;
}

std::uint64_t qgraph::parameters() const {
  std::uint64_t total = 0;
  for (const qnode& node : nodes) {
    if (const auto* conv = std::get_if<qconv>(&node.op)) {
      total += conv->weights.size() + conv->bias.size();
    }
  }
  return total;
}

void write_json(const qgraph& graph, std::ostream& out) {
  using nlohmann::json;
  // Hexadecimal floats keep every bit; Python reads them with float.fromhex().
  const auto hex = [](float v) { return format("{:a}", v); };
  const auto io = [](const io_spec& s) {
    static constexpr const char* kTypes[] = {"f32", "u8", "i8"};
    return json{{"name", s.name},
                {"tensor", s.tensor},
                {"type", kTypes[static_cast<int>(s.type)]},
                {"dims", s.dims}};
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
    if (const auto* conv = std::get_if<qconv>(&node.op)) {
      n["op"] = conv->fully_connected ? "fc" : "conv";
      window(*conv);
      n["channels"] = {conv->out_channels, conv->in_channels};
      n["weights"] = std::vector<int>(conv->weights.begin(), conv->weights.end());
      n["bias"] = conv->bias;
      n["weight_scale"] = json::array();
      n["multiplier"] = json::array();
      n["shift"] = json::array();
      for (const float s : conv->weight_scale) n["weight_scale"].push_back(hex(s));
      for (const requant& r : conv->scale) {
        n["multiplier"].push_back(r.multiplier);
        n["shift"].push_back(r.shift);
      }
      n["clamp"] = {conv->clamp_lo, conv->clamp_hi};
    } else if (const auto* pool = std::get_if<qmaxpool>(&node.op)) {
      n["op"] = "maxpool";
      window(*pool);
    } else if (const auto* add = std::get_if<qadd>(&node.op)) {
      n["op"] = "add";
      n["mult"] = {add->mult_a, add->mult_b};
      n["offset"] = add->offset;
      n["shift"] = add->shift;
      n["clamp"] = {add->clamp_lo, add->clamp_hi};
    }
    doc["nodes"].push_back(std::move(n));
  }
  out << doc.dump() << '\n';
}

}  // namespace latchkey::model
