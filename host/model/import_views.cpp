// Views and what works on them: tokens, attention, Softmax, LayerNormalization. A view is a tensor
// whose dimensions the file has in another order than planes; see `value`.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

namespace {

/// Channels that the accelerator's units for Softmax and LayerNormalization take.
constexpr int kMaxReduced = 4096;

const char* const kAttention =
    "attention works as queries N x H x T x D by keys N x H x D x S, and its weights N x H x T x S "
    "by values N x H x S x D, or the same without H; the weights of a layer must be constant";

}  // namespace

// ---- What dimensions mean ----

std::string importer::view_text(const value& x) {
  if (x.axes.empty()) return dims_text(x.dims);
  std::string text = "N";
  const bool rows = x.axes.find('y') != std::string::npos;
  for (std::size_t i = 0; i < x.axes.size(); ++i) {
    const char letter = x.axes[i];
    const char* part = letter == 'c'   ? "channels"
                       : letter == 'y' ? "rows"
                       : letter == 'x' ? (rows ? "columns" : "tokens")
                       : letter == 'H' ? "heads"
                       : letter == 'D' ? "channels of a head"
                                       : "";
    text += letter == '1' ? " x 1" : format(" x {} {}", x.dims[i], part);
  }
  return text;
}

std::string importer::letters(const value& x) const {
  if (!x.axes.empty()) return x.axes;
  const ftensor& t = tensor(x);
  std::vector<int> plane = x.dims;
  plane.resize(std::max<std::size_t>(plane.size(), 3), 1);
  if (plane != std::vector<int>{t.c, t.h, t.w}) return {};
  return std::string("cyx").substr(0, x.dims.size());
}

std::string importer::core(const value& x) const {
  const std::string all = letters(x);
  std::string out;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (x.dims[i] != 1) out += all[i];
  }
  const bool heads = out.find('H') != std::string::npos, depth = out.find('D') != std::string::npos;
  if (heads != depth) std::replace(out.begin(), out.end(), heads ? 'H' : 'D', 'c');
  return out;
}

std::string importer::matrix(const value& x) const {
  const std::string all = letters(x);
  std::string out;
  bool heads = false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool outer = all[i] == 'H' || all[i] == 'y';
    if (all[i] == '1' || (outer && x.dims[i] == 1)) continue;
    heads = heads || all[i] == 'H';
    out += all[i];
  }
  if (!heads) std::replace(out.begin(), out.end(), 'D', 'c');
  return out;
}

void importer::relabel(value& x, std::string axes) const {
  x.axes = std::move(axes);
  const ftensor& t = tensor(x);
  std::vector<int> plane = x.dims;
  plane.resize(std::max<std::size_t>(plane.size(), 3), 1);
  const bool split = x.axes.find_first_of("HD") != std::string::npos;
  if (!split && plane == std::vector<int>{t.c, t.h, t.w} && plane_order(x)) x.axes.clear();
}

bool importer::plane_order(const value& x) const {
  if (x.axes.empty()) return true;
  static const std::string order = "cHDyx";
  const std::string parts = core(x);
  return std::is_sorted(parts.begin(), parts.end(),
                        [&](char a, char b) { return order.find(a) < order.find(b); });
}

bool importer::channels_last(const value& x) const {
  const ftensor& t = tensor(x);
  if (x.dims.empty() || x.dims.back() != t.c) return false;
  if (x.axes.empty()) return x.dims.size() == 1 && t.h * t.w == 1;
  return x.axes.back() == 'c' || x.axes.back() == 'D';
}

std::string importer::reshaped_view(const value& x, const std::vector<int>& dims) const {
  const std::string all = letters(x);
  std::string from;
  std::vector<int> sizes;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i] == '1') continue;
    from += all[i];
    sizes.push_back(x.dims[i]);
  }
  // Dimensions keep their meaning; channels may be split into heads, and joined again.
  std::string to;
  std::size_t at = 0, i = 0;
  for (; i < dims.size(); ++i) {
    if (dims[i] == 1) {
      to += at < from.size() && sizes[at] == 1 ? from[at++] : '1';
      continue;
    }
    while (at < from.size() && sizes[at] == 1) ++at;
    if (at == from.size()) return {};
    std::size_t next = i + 1;
    while (next < dims.size() && dims[next] == 1) ++next;
    if (dims[i] == sizes[at]) {
      to += from[at++];
    } else if (from[at] == 'c' && next < dims.size() &&
               std::int64_t{dims[i]} * dims[next] == sizes[at]) {
      to += 'H';
      to.append(next - i - 1, '1');
      to += 'D';
      i = next;
      ++at;
    } else if (from[at] == 'H' && at + 1 < from.size() && from[at + 1] == 'D' &&
               std::int64_t{sizes[at]} * sizes[at + 1] == dims[i]) {
      to += 'c';
      at += 2;
    } else {
      return {};
    }
  }
  while (at < from.size() && sizes[at] == 1) ++at;
  return at == from.size() && !all.empty() ? to : std::string{};
}

std::optional<value> importer::regrouped(const value& x, const std::vector<int>& dims) {
  const std::string all = letters(x);
  const ftensor t = tensor(x);
  const bool joins = all.find("yx") != std::string::npos;
  const std::size_t at = joins ? all.find("yx") : all.find('x');
  if (at == std::string::npos || (!joins && t.h != 1) || x.padded()) return {};
  const auto i = static_cast<std::ptrdiff_t>(at);
  std::vector<int> wanted = x.dims;
  std::string seen = all;
  if (joins) {
    wanted[at] = t.h * t.w;
    wanted.erase(wanted.begin() + i + 1);
    seen.replace(at, 2, "x");
  } else {
    if (dims.size() != x.dims.size() + 1) return {};
    wanted[at] = dims[at];
    wanted.insert(wanted.begin() + i + 1, dims[at + 1]);
    if (dims[at] * dims[at + 1] != t.w) return {};
    seen.replace(at, 1, "yx");
  }
  if (wanted != dims || std::int64_t{t.h} * t.w > kMaxDim) return {};
  const std::vector<int> plane =
      joins ? std::vector<int>{t.c, 1, t.h * t.w} : std::vector<int>{t.c, dims[at], dims[at + 1]};
  value v = emit({x.tensor}, fview{}, plane);
  v.type = x.type;
  tensor(v).pinned = t.pinned;
  v.dims = dims;
  relabel(v, std::move(seen));
  return v;
}

value importer::as_planes(value x) const {
  const ftensor& t = tensor(x);
  x.dims = {t.c, t.h, t.w};
  x.axes.clear();
  return x;
}

value importer::seen_as(value planes, const value& x) const {
  const ftensor& t = tensor(planes);
  const bool whole = core(x).find('H') == std::string::npos;
  planes.dims = x.dims;
  for (std::size_t i = 0; i < x.axes.size(); ++i) {
    const char letter = x.axes[i];
    if (letter == 'c' || (letter == 'D' && whole)) planes.dims[i] = t.c;
    if (letter == 'y') planes.dims[i] = t.h;
    if (letter == 'x') planes.dims[i] = t.w;
  }
  relabel(planes, x.axes);
  return planes;
}

bool importer::read_channels_last(const std::string& name, std::size_t rank, int size) const {
  static const std::array elementwise = {&importer::arithmetic,
                                         &importer::unary,
                                         &importer::parametric,
                                         &importer::relu,
                                         &importer::clip,
                                         &importer::gelu,
                                         &importer::power,
                                         &importer::prelu,
                                         &importer::identity,
                                         &importer::cast,
                                         &importer::quantize,
                                         &importer::dequantize,
                                         &importer::dropout,
                                         &importer::qlinear_arithmetic,
                                         &importer::dynamic_quantize};
  std::vector<std::string> todo{name};
  std::unordered_set<std::string> seen{name};
  while (!todo.empty()) {
    const std::string at = todo.back();
    todo.pop_back();
    for (const int n : readers(at)) {
      const pb::NodeProto& node = model_.graph().node(n);
      const std::string& op = node.op_type();
      if (op == "MatMul" || op == "MatMulInteger" || op == "QLinearMatMul" ||
          op == "LayerNormalization") {
        return true;
      }
      for (const auto& a : node.attribute()) {
        const bool mean = op == "ReduceMean" && a.name() == "axes" && a.ints_size() == 1;
        const bool softmax = (op == "Softmax" || op == "LogSoftmax") && a.name() == "axis";
        const std::int64_t axis = mean ? a.ints(0) : a.i();
        if ((mean || softmax) && (axis == -1 || axis == static_cast<std::int64_t>(rank) - 1))
          return true;
      }
      const bool has_axis = std::any_of(node.attribute().begin(), node.attribute().end(),
                                        [](const auto& a) { return a.name() == "axis"; });
      if (op == "Softmax" && opset_ >= 13 && !has_axis) return true;
      const auto& known = handlers(node.domain() == "com.microsoft");
      const auto found = known.find(op);
      const auto shape =
          op == "Reshape" && node.input_size() == 2 ? values_.find(node.input(1)) : values_.end();
      const bool tokens = size > 0 && shape != values_.end() && shape->second.data &&
                          shape->second.data->values.size() == 3 &&
                          shape->second.data->values[2] == size;
      if (tokens && seen.insert(node.output(0)).second) todo.push_back(node.output(0));
      if (found == known.end() ||
          std::find(elementwise.begin(), elementwise.end(), found->second) == elementwise.end()) {
        continue;
      }
      for (const std::string& out : node.output()) {
        if (seen.insert(out).second) todo.push_back(out);
      }
    }
  }
  return false;
}

std::size_t importer::axis_of(const value& x, std::int64_t axis) const {
  const auto rank = static_cast<std::int64_t>(x.dims.size()) + 1;
  if (axis < -rank || axis >= rank) damaged(format("axis {} is outside {} dimensions", axis, rank));
  if (axis < 0) axis += rank;
  if (axis == 0) fail("works along the batch", "keep images apart");
  return static_cast<std::size_t>(axis);
}

// ---- Softmax ----

/// The largest logit is the largest probability, so a last Softmax of features has nothing to
/// decide. Any other one is computed, over channels.
void importer::softmax() {
  value x = activation(0, true, kViews);
  const ftensor& t = tensor(x);
  const std::size_t axis = axis_of(x, integer("axis", opset_ < 13 ? 1 : -1));
  // Of features, also as N x C x 1 x 1.
  const bool features =
      x.axes.empty() && !x.dims.empty() && t.h * t.w == 1 && x.dims[0] == t.c && axis == 1;
  if (features && node_->output(0) == model_.graph().output(0).name()) {
    if (options_.exact_output) fail("is left to the host", hint_for(node_->op_type()));
    out_.remarks.push_back(
        format("{} is left out: the output holds its input, the logits. Their argmax is the same; "
               "'latchkey run --mode softmax' gives probabilities",
               where()));
    result(std::move(x));
    return;
  }
  if (node_->op_type() == "LogSoftmax") {
    fail("is not the last node, or not of features", hint_for(node_->op_type()));
  }
  const std::string parts = letters(x);
  const bool channels = parts.size() >= axis && parts[axis - 1] == 'c' && x.dims[axis - 1] == t.c;
  // Up to operator set 12 the dimensions behind the axis belong to it.
  const bool joint = opset_ < 13 && std::any_of(
                                        x.dims.begin() + static_cast<std::ptrdiff_t>(axis),
                                        x.dims.end(), [](int d) { return d != 1; });
  if (!channels || joint) {
    fail(format("works along axis {}{} of {}", axis, joint ? " and all behind it" : "",
                view_text(x)),
         "use it along the channels: axis 1 of N x C x H x W, the last axis of tokens and of the "
         "scores of attention");
  }
  if (t.c > kMaxReduced) {
    fail(format("works on {} channels", t.c), format("use up to {}", kMaxReduced));
  }
  value v = emit({x.tensor}, fsoftmax{}, x.dims);
  copy_shape(x, v);
  result(std::move(v));
}

// ---- Layer normalisation ----

void importer::emit_norm(const value& x, flayernorm op) {
  value v = emit({x.tensor}, std::move(op), x.dims);
  copy_shape(x, v);
  result(std::move(v));
}

void importer::layer_norm() {
  const value x = activation(0, true, kViews);
  const std::size_t axis = axis_of(x, integer("axis", -1));
  for (int i = 1; i < node_->output_size(); ++i) {
    if (!node_->output(i).empty() && read(node_->output(i))) {
      fail("its mean or deviation is read", "use its first result only");
    }
  }
  if (axis != x.dims.size() || !channels_last(x)) {
    fail(format("normalises {} from axis {} on", view_text(x), axis),
         "normalise the channels, the last axis of tokens, N x T x C; for planes use "
         "BatchNormalization, which folds into the layer before it");
  }
  const auto c = static_cast<std::size_t>(tensor(x).c);
  if (c > static_cast<std::size_t>(kMaxReduced)) {
    fail(format("works on {} channels", c), format("use up to {}", kMaxReduced));
  }
  flayernorm op;
  op.epsilon = finite(real("epsilon", 1e-5F), "epsilon");
  if (!(op.epsilon >= 0.0F)) damaged("epsilon is negative");
  op.gamma = finite(weights(1)->values, "the scale");
  op.beta = has(2) ? finite(weights(2)->values, "the bias") : std::vector<float>(c, 0.0F);
  for (auto* v : {&op.gamma, &op.beta}) {
    if (v->size() != c && v->size() != 1) {
      damaged(format("{} scales or biases for {} channels", v->size(), c));
    }
    *v = spread(*v, c);
  }
  emit_norm(x, std::move(op));
}

std::vector<int> importer::norm_at(int mean) {
  const pb::GraphProto& g = model_.graph();
  const auto at = [&](int n) -> const pb::NodeProto& { return g.node(n); };
  // The one result of a node, when nothing else than nodes of `op` reads it.
  const auto only = [&](int n, const char* op) {
    const std::string& out = at(n).output(0);
    const auto& by = readers(out);
    return by.size() == 1 && at(by[0]).op_type() == op && g.output(0).name() != out ? by[0] : -1;
  };
  const auto averages_channels = [&](int n, std::size_t rank) {
    if (at(n).op_type() != "ReduceMean" || at(n).input_size() != 1 || at(n).output_size() != 1) {
      return false;
    }
    bool last = false;
    for (const auto& a : at(n).attribute()) {
      if (a.name() == "keepdims" && a.i() == 0) return false;
      if (a.name() != "axes") continue;
      last =
          a.ints_size() == 1 && (a.ints(0) == -1 || a.ints(0) == static_cast<std::int64_t>(rank));
    }
    return last;
  };
  /// A constant of one element, NaN if it is none.
  const auto number = [&](const std::string& name) {
    std::vector<double> values;
    if (const auto v = values_.find(name); v != values_.end() && v->second.data) {
      values = v->second.data->values;
    } else if (const auto w = writers_.find(name);
               w != writers_.end() && at(w->second).op_type() == "Constant") {
      values = constant_of(at(w->second), file_).values;
    }
    return values.size() == 1 ? values[0] : std::nan("");
  };
  const auto reads = [&](int n, const std::string& a, const std::string& b) {
    return at(n).input_size() == 2 && at(n).input(0) == a && at(n).input(1) == b;
  };

  if (at(mean).op_type() != "ReduceMean" || at(mean).input_size() != 1) return {};
  const std::string& input = at(mean).input(0);
  const auto found = values_.find(input);
  if (found == values_.end() || found->second.data) return {};
  const value x = found->second;
  const std::size_t rank = x.dims.size();
  if (x.type != io_type::f32 || x.sum || x.padded() || !channels_last(x) ||
      tensor(x).c > kMaxReduced || !averages_channels(mean, rank)) {
    return {};
  }
  // One difference from the mean, or two alike.
  std::vector<int> nodes{mean};
  std::vector<std::string> centred;
  std::vector<int> users;
  for (const int n : readers(at(mean).output(0))) {
    if (at(n).op_type() != "Sub" || !reads(n, input, at(mean).output(0))) return {};
    nodes.push_back(n);
    centred.push_back(at(n).output(0));
    for (const int user : readers(centred.back())) {
      if (std::find(users.begin(), users.end(), user) == users.end()) users.push_back(user);
    }
  }
  if (centred.empty() || users.size() != 2) return {};
  const auto is_centred = [&](const std::string& name) {
    return std::find(centred.begin(), centred.end(), name) != centred.end();
  };
  const auto squares = [&](int n) {
    const pb::NodeProto& node = at(n);
    if (node.input_size() != 2 || !is_centred(node.input(0))) return false;
    return (node.op_type() == "Mul" && is_centred(node.input(1))) ||
           (node.op_type() == "Pow" && number(node.input(1)) == 2.0);
  };
  const int square = squares(users[0]) ? users[0] : users[1];
  const int last = square == users[0] ? users[1] : users[0];
  if (!squares(square)) return {};
  const int variance = only(square, "ReduceMean");
  if (variance < 0 || !averages_channels(variance, rank)) return {};
  const int sum = only(variance, "Add");
  if (sum < 0 || at(sum).input_size() != 2) return {};
  const bool first = at(sum).input(0) == at(variance).output(0);
  const double epsilon = number(at(sum).input(first ? 1 : 0));
  const int root = only(sum, "Sqrt");
  if (root < 0 || !(epsilon >= 0.0) || !std::isfinite(static_cast<float>(epsilon))) return {};
  nodes.insert(nodes.end(), {square, variance, sum, root});
  int end = only(root, "Div");
  bool divides = end == last && is_centred(at(last).input(0)) &&
                 reads(last, at(last).input(0), at(root).output(0));
  if (const int inverse = only(root, "Reciprocal"); inverse >= 0) {
    end = only(inverse, "Mul");
    const std::string& by = at(inverse).output(0);
    divides = end == last && at(last).input_size() == 2 &&
              ((is_centred(at(last).input(0)) && at(last).input(1) == by) ||
               (is_centred(at(last).input(1)) && at(last).input(0) == by));
    nodes.push_back(inverse);
  }
  if (!divides) return {};
  for (const std::string& name : centred) {
    if (g.output(0).name() == name) return {};
  }
  if (g.output(0).name() == at(mean).output(0)) return {};
  nodes.push_back(last);

  const auto c = static_cast<std::size_t>(tensor(x).c);
  node_ = &at(last);
  node_index_ = last;
  flayernorm op;
  op.epsilon = static_cast<float>(epsilon);
  op.gamma.assign(c, 1.0F);
  op.beta.assign(c, 0.0F);
  emit_norm(x, std::move(op));
  return nodes;
}

// ---- Attention ----

/// A product of two tensors that are computed.
void importer::product() {
  value a = activation(0, true, kViews);
  value b = activation(1, true, kViews);
  const ftensor ta = tensor(a), tb = tensor(b);
  const std::string la = matrix(a), lb = matrix(b);
  const std::size_t rank = a.dims.size();
  const bool scores = (la == "HxD" && lb == "HDx") || (la == "xc" && lb == "cx");
  const bool context = (la == "yxc" && lb == "HxD") || (la == "xc" && lb == "xc");
  const bool split = lb.size() == 3;
  // The matrices are the last two dimensions, and heads lie at one place.
  const auto all_a = letters(a), all_b = letters(b);
  const std::size_t head_a = all_a.find(scores ? 'H' : 'y'), head_b = all_b.find('H');
  if ((!scores && !context) || rank != b.dims.size() || rank < 2 || (split && head_a != head_b) ||
      a.dims[rank - 1] != b.dims[rank - 2]) {
    fail(format("multiplies {} by {}", view_text(a), view_text(b)), kAttention);
  }
  const int heads = split ? b.dims[head_b] : 1;
  const ftensor& wide = scores ? ta : tb;
  const bool fits = wide.h == 1 && tb.h == 1 && (scores ? ta.c == tb.c : ta.c == tb.w) &&
                    (scores || ta.h == heads) && (!split || a.dims[head_a] == heads);
  if (!fits) fail(format("multiplies {} by {}", view_text(a), view_text(b)), kAttention);

  // Several heads lie in blocks of 64 channels each; the others are zeros.
  const int depth = tb.c / heads;
  const int blocks = (depth + kBlockChannels - 1) / kBlockChannels * kBlockChannels;
  const bool pads = heads > 1 && blocks != depth;
  const std::string& name = node_->output(0);
  const auto padded = [&](const value& x, const char* which) {
    std::vector<int> channels(static_cast<std::size_t>(heads * blocks), -1);
    for (int h = 0; h < heads; ++h) {
      const auto to = channels.begin() + std::ptrdiff_t{h} * blocks;
      std::iota(to, to + depth, h * depth);
    }
    const value v = select(as_planes(x), channels, format("{} {} operand padded", name, which));
    follow(v, x);
    return v.tensor;
  };
  std::vector<int> inputs{a.tensor, b.tensor};
  if (pads) {
    if (std::int64_t{heads} * blocks > kMaxDim) fail("has too many heads", "use fewer");
    if (scores) inputs[0] = padded(a, "first");
    inputs[1] = padded(b, "second");
  }
  fproduct op;
  op.heads = heads;
  op.transposed = scores;
  const std::vector<int> plane = scores ? std::vector<int>{tb.w, heads, ta.w}
                                        : std::vector<int>{pads ? heads * blocks : tb.c, 1, ta.w};
  check_size(plane);
  value v = emit_as(pads && context ? name + " padded" : name, std::move(inputs), op, plane);
  if (pads && context) {
    std::vector<int> channels;
    for (int h = 0; h < heads; ++h) {
      for (int d = 0; d < depth; ++d) channels.push_back(h * blocks + d);
    }
    const value raw = v;
    v = select(raw, channels, name);
    // What reads the result decides on its quantisation.
    out_.follows.emplace_back(raw.tensor, v.tensor);
  }
  // The last dimension is that of b.
  v.dims = a.dims;
  v.dims[rank - 1] = b.dims[rank - 1];
  std::string seen = all_a;
  if (scores) {
    std::replace(seen.begin(), seen.end(), 'H', 'y');
    std::replace(seen.begin(), seen.end(), 'D', 'c');
  } else {
    std::replace(seen.begin(), seen.end(), 'y', split ? 'H' : '1');
    if (split) seen.back() = 'D';
  }
  relabel(v, std::move(seen));
  result(std::move(v));
}

void importer::centre_softmaxes() {
  for (const fnode& node : out_.nodes) {
    const auto* product = std::get_if<fproduct>(&node.op);
    if (!product || product->transposed) continue;
    const int t = node.inputs[0];
    ftensor& weights = out_.tensors[static_cast<std::size_t>(t)];
    if (!weights.pinned || weights.pinned->zero_point == 128 || out_.output.tensor == t) continue;
    const bool softmax = std::any_of(out_.nodes.begin(), out_.nodes.end(), [&](const fnode& n) {
      return n.output == t && std::holds_alternative<fsoftmax>(n.op);
    });
    const auto reads = std::count_if(out_.nodes.begin(), out_.nodes.end(), [&](const fnode& n) {
      return std::find(n.inputs.begin(), n.inputs.end(), t) != n.inputs.end();
    });
    if (!softmax || reads != 1) continue;
    const quantisation given = *weights.pinned;
    // The range stays, which holds no negative value, in 127 steps instead of 255.
    const float reach = given.scale * static_cast<float>(255 - given.zero_point);
    weights.pinned = quantisation{reach / 127.0F, 128};
    out_.remarks.push_back(
        format("'{}', the weights of attention, gets scale {} and zero point 128 in place of the "
               "file's {} and {}: a product takes both factors around 128",
               weights.name, weights.pinned->scale, given.scale, given.zero_point));
  }
}

}  // namespace latchkey::model
