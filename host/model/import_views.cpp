// Views and what works on them: tokens, attention, Softmax, LayerNormalization. A view is a tensor
// whose dimensions the file has in another order than planes; see `value`.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

namespace {

/// Parts of the channels, each outside the next.
constexpr std::string_view kNested = "GHD";

const char* const kAttention =
    "attention works as queries N x H x T x D by keys N x H x D x S, and its weights N x H x T x S "
    "by values N x H x S x D, their transposes the other way round, or the same without H; the "
    "weights of a layer must be constant";

}  // namespace

// ---- What dimensions mean ----

std::string importer::view_text(const value& x) {
  if (x.axes.empty()) return dims_text(x.dims);
  std::vector<std::string> parts;
  const bool rows = x.axes.find('y') != std::string::npos;
  for (std::size_t i = 0; i < x.axes.size(); ++i) {
    const char letter = x.axes[i];
    const char* part = letter == 'c'   ? "channels"
                       : letter == 'y' ? "rows"
                       : letter == 'x' ? (rows ? "columns" : "tokens")
                       : letter == 'G' ? "parts"
                       : letter == 'H' ? "heads"
                       : letter == 'D' ? "channels of a head"
                                       : "";
    parts.push_back(letter == '1' ? "1" : format("{} {}", x.dims[i], part));
  }
  if (x.batch != value::kNowhere) parts.insert(parts.begin() + x.batch, "N");
  std::string text;
  for (const std::string& part : parts) text += text.empty() ? part : " x " + part;
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
  const bool split = x.axes.find_first_of("GHD") != std::string::npos;
  if (!split && plane == std::vector<int>{t.c, t.h, t.w} && plane_order(x)) x.axes.clear();
}

bool importer::plane_order(const value& x) const {
  if (x.batch != 0) return false;
  if (x.axes.empty()) return true;
  static const std::string order = "cGHDyx";
  const std::string parts = core(x);
  return std::is_sorted(parts.begin(), parts.end(),
                        [&](char a, char b) { return order.find(a) < order.find(b); });
}

bool importer::channels_last(const value& x) const {
  const ftensor& t = tensor(x);
  if (x.dims.empty() || x.dims.back() != t.c) return false;
  if (x.batch == static_cast<int>(x.dims.size())) return false;
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
  // Dimensions keep their meaning, but all channels together may be split, and joined, in any way.
  static const std::array<const char*, 4> split{"", "c", "HD", "GHD"};
  const int channels = tensor(x).c;
  std::string to;
  std::size_t at = 0;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 1) {
      to += at < from.size() && sizes[at] == 1 ? from[at++] : '1';
      continue;
    }
    while (at < from.size() && sizes[at] == 1) ++at;
    if (at == from.size()) return {};
    // Channels in their order from here on, and the dimensions that they become.
    std::size_t end = at, last = i, parts = 0;
    std::int64_t together = 1, made = 1;
    if (from[at] == 'c') together = sizes[end++];
    for (std::size_t depth = 0; end < from.size(); ++end) {
      const std::size_t next = kNested.find(from[end], depth);
      if (next == std::string::npos) break;
      depth = next + 1;
      together *= sizes[end];
    }
    for (; last < dims.size() && made < channels; ++last) {
      made *= dims[last];
      parts += dims[last] != 1 ? 1 : 0;
    }
    if (together == channels && made == channels && parts < split.size()) {
      const char* letter = split[parts];
      for (; i < last; ++i) to += dims[i] == 1 ? '1' : *letter++;
      --i;
      at = end;
    } else if (dims[i] == sizes[at]) {
      to += from[at++];
    } else {
      return {};
    }
  }
  while (at < from.size() && sizes[at] == 1) ++at;
  return at == from.size() && !all.empty() ? to : std::string{};
}

std::optional<value> importer::regrouped(const value& x, const std::vector<int>& dims) {
  const ftensor t = tensor(x);
  if (x.padded() || std::int64_t{t.h} * t.w > kMaxDim) return {};
  value tokens = x;
  tokens.axes = letters(x);
  std::string seen;
  std::vector<int> plane;
  if (const std::size_t at = tokens.axes.find("yx"); at != std::string::npos) {
    plane = {t.c, 1, t.h * t.w};
    tokens.axes.replace(at, 2, "x");
    tokens.dims[at] = plane[2];
    tokens.dims.erase(tokens.dims.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    seen = reshaped_view(tokens, dims);
  } else if (t.h == 1) {
    for (std::size_t i = 0; i + 1 < dims.size() && plane.empty(); ++i) {
      if (std::int64_t{dims[i]} * dims[i + 1] != t.w) continue;
      std::vector<int> joined = dims;
      joined[i] = t.w;
      joined.erase(joined.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      seen = reshaped_view(tokens, joined);
      if (seen.empty() || seen[i] != 'x') continue;
      seen.replace(i, 1, "yx");
      plane = {t.c, dims[i], dims[i + 1]};
    }
  }
  if (plane.empty() || seen.empty()) return {};
  value v = emit({x.tensor}, fview{}, plane);
  v.type = x.type;
  tensor(v).pinned = t.pinned;
  v.dims = dims;
  v.batch = x.batch;
  relabel(v, std::move(seen));
  return v;
}

value importer::as_planes(value x) const {
  const ftensor& t = tensor(x);
  x.dims = {t.c, t.h, t.w};
  x.axes.clear();
  x.batch = 0;
  return x;
}

value importer::seen_as(value planes, const value& x) const {
  const ftensor& t = tensor(planes);
  const bool whole = core(x).find('H') == std::string::npos;
  planes.dims = x.dims;
  planes.batch = x.batch;
  for (std::size_t i = 0; i < x.axes.size(); ++i) {
    const char letter = x.axes[i];
    if (letter == 'c' || (letter == 'D' && whole)) planes.dims[i] = t.c;
    if (letter == 'y') planes.dims[i] = t.h;
    if (letter == 'x') planes.dims[i] = t.w;
  }
  relabel(planes, x.axes);
  return planes;
}

int importer::channel_step(const value& x, std::size_t at) {
  const std::size_t depth = kNested.find(x.axes[at]);
  int step = 1;
  for (std::size_t i = 0; depth != std::string::npos && i < x.axes.size(); ++i) {
    const std::size_t other = kNested.find(x.axes[i]);
    if (other != std::string::npos && other > depth) step *= x.dims[i];
  }
  return step;
}

value importer::taken(const value& x, std::size_t at, const std::vector<int>& kept,
                      const std::string& name) {
  const int size = x.dims[at];
  const int step = x.axes.empty() ? 1 : channel_step(x, at);
  std::vector<int> channels;
  for (int first = 0; first < tensor(x).c; first += size * step) {
    for (const int k : kept) {
      for (int i = 0; i < step; ++i) channels.push_back(first + k * step + i);
    }
  }
  value v = select(x.axes.empty() ? x : as_planes(x), channels, name);
  follow(v, x);
  if (x.axes.empty()) return v;
  v.dims = x.dims;
  v.dims[at] = static_cast<int>(kept.size());
  v.batch = x.batch;
  std::string seen = x.axes;
  if (kept.size() == 1 && seen[at] != 'c') {
    // What is left is split in one less.
    const bool three = seen.find('G') != std::string::npos;
    const std::size_t gone = kNested.find(seen[at]);
    seen[at] = '1';
    for (char& c : seen) {
      const std::size_t depth = kNested.find(c);
      if (depth == std::string::npos) continue;
      c = !three ? 'c' : depth < gone ? kNested[depth + 1] : c;
    }
  }
  relabel(v, std::move(seen));
  return v;
}

void importer::drop(value& x, std::size_t at) const {
  x.dims.erase(x.dims.begin() + static_cast<std::ptrdiff_t>(at));
  std::string seen = x.axes;
  if (!seen.empty()) seen.erase(at, 1);
  if (static_cast<int>(at) < x.batch) --x.batch;
  if (!seen.empty()) relabel(x, std::move(seen));
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
  std::vector<std::string> waiting{name};
  std::unordered_set<std::string> seen{name};
  while (!waiting.empty()) {
    const std::string at = waiting.back();
    waiting.pop_back();
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
      if (tokens && seen.insert(node.output(0)).second) waiting.push_back(node.output(0));
      if (found == known.end() ||
          std::find(elementwise.begin(), elementwise.end(), found->second) == elementwise.end()) {
        continue;
      }
      for (const std::string& out : node.output()) {
        if (seen.insert(out).second) waiting.push_back(out);
      }
    }
  }
  return false;
}

std::optional<std::size_t> importer::dim_of(const value& x, std::int64_t axis) const {
  const auto rank = static_cast<std::int64_t>(x.rank());
  if (axis < -rank || axis >= rank) damaged(format("axis {} is outside {} dimensions", axis, rank));
  if (axis < 0) axis += rank;
  if (axis == x.batch) return {};
  const bool behind = x.batch != value::kNowhere && axis > x.batch;
  return static_cast<std::size_t>(axis - (behind ? 1 : 0));
}

std::size_t importer::axis_of(const value& x, std::int64_t axis) const {
  const auto at = dim_of(x, axis);
  if (!at) fail("works along the batch", "keep images apart");
  return *at;
}

// ---- Softmax ----

/// The largest logit is the largest probability, so a last Softmax of features has nothing to
/// decide. Any other one is computed, over channels.
void importer::softmax() {
  value x = activation(0, true, kViews);
  const ftensor& t = tensor(x);
  const std::int64_t given = integer("axis", opset_ < 13 ? 1 : -1);
  const std::size_t axis = axis_of(x, given);
  const std::string parts = letters(x);
  const bool channels = parts.size() > axis && parts[axis] == 'c' && x.dims[axis] == t.c;
  // Of features, also as N x C x 1 x 1. Tokens have theirs computed where the card can.
  const bool features = channels && x.axes.empty() && t.h * t.w == 1;
  const bool last = node_->output(0) == model_.graph().output(0).name();
  if (last && (features || (channels && t.c > kMaxChannels))) {
    if (options_.exact_output) fail("is left to the host", hint_for(node_->op_type()));
    out_.remarks.push_back(format(
        "{} is left out: the output holds its input, the logits. {}", where(),
        features ? "Their argmax is the same; 'latchkey run --mode softmax' gives probabilities"
                 : format("The argmax of each token is the same; up to {} channels are computed",
                          kMaxChannels)));
    result(std::move(x));
    return;
  }
  if (node_->op_type() == "LogSoftmax") {
    fail("is not the last node, or not of features", hint_for(node_->op_type()));
  }
  // Up to operator set 12 the dimensions behind the axis belong to it.
  const bool joint = opset_ < 13 && (x.batch > static_cast<int>(axis) ||
                                     std::any_of(
                                         x.dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1,
                                         x.dims.end(), [](int d) { return d != 1; }));
  if (!channels || joint) {
    fail(format("works along axis {}{} of {}", given, joint ? " and all behind it" : "",
                view_text(x)),
         "use it along the channels: axis 1 of N x C x H x W, the last axis of tokens and of the "
         "scores of attention");
  }
  if (t.c > kMaxChannels) {
    fail(format("works on {} channels", t.c), format("use up to {}", kMaxChannels));
  }
  result(emit_like(x, {x.tensor}, fsoftmax{}));
}

// ---- Layer normalisation ----

void importer::emit_norm(const value& x, flayernorm op) {
  result(emit_like(x, {x.tensor}, std::move(op)));
}

void importer::layer_norm() {
  const value x = activation(0, true, kViews);
  const std::size_t axis = axis_of(x, integer("axis", -1));
  for (int i = 1; i < node_->output_size(); ++i) {
    if (!node_->output(i).empty() && read(node_->output(i))) {
      fail("its mean or deviation is read", "use its first result only");
    }
  }
  if (axis + 1 != x.dims.size() || !channels_last(x)) {
    fail(format("normalises {} from axis {} on", view_text(x), integer("axis", -1)),
         "normalise the channels, the last axis of tokens, N x T x C; for planes use "
         "BatchNormalization, which folds into the layer before it");
  }
  const auto c = static_cast<std::size_t>(tensor(x).c);
  if (c > static_cast<std::size_t>(kMaxChannels)) {
    fail(format("works on {} channels", c), format("use up to {}", kMaxChannels));
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
  const auto averages_channels = [&](int n, std::size_t axis) {
    if (at(n).op_type() != "ReduceMean" || at(n).input_size() != 1 || at(n).output_size() != 1) {
      return false;
    }
    bool last = false;
    for (const auto& a : at(n).attribute()) {
      if (a.name() == "keepdims" && a.i() == 0) return false;
      if (a.name() != "axes") continue;
      last =
          a.ints_size() == 1 && (a.ints(0) == -1 || a.ints(0) == static_cast<std::int64_t>(axis));
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
  const std::size_t end_axis = x.rank() - 1;
  if (x.type != io_type::f32 || x.sum || x.padded() || !channels_last(x) ||
      tensor(x).c > kMaxChannels || !averages_channels(mean, end_axis)) {
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
  if (variance < 0 || !averages_channels(variance, end_axis)) return {};
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
  // Values D x S by weights S x T are the transpose of weights T x S by values S x D.
  const std::string first = matrix(a), second = matrix(b);
  const bool turned = (first == "HDx" && second == "ycx") || (first == "cx" && second == "cx");
  const auto turn = [&](value& x) {
    x.axes = letters(x);
    std::swap(x.axes[x.axes.size() - 2], x.axes.back());
    std::swap(x.dims[x.dims.size() - 2], x.dims.back());
  };
  if (turned) {
    std::swap(a, b);
    turn(a);
    turn(b);
  }
  const ftensor ta = tensor(a), tb = tensor(b);
  const std::string la = matrix(a), lb = matrix(b);
  const std::size_t rank = a.dims.size();
  const bool scores = (la == "HxD" && lb == "HDx") || (la == "xc" && lb == "cx");
  const bool context = (la == "yxc" && lb == "HxD") || (la == "xc" && lb == "xc");
  const bool split = lb.size() == 3;
  // The matrices are the last two dimensions, and heads lie at one place.
  const auto all_a = letters(a), all_b = letters(b);
  const std::size_t head_a = all_a.find(scores ? 'H' : 'y'), head_b = all_b.find('H');
  // Images stay apart: the batch is none of the matrices' dimensions.
  const bool apart = a.batch == b.batch && a.batch + 1 < static_cast<int>(rank);
  if ((!scores && !context) || rank != b.dims.size() || rank < 2 || !apart ||
      (split && head_a != head_b) || a.dims[rank - 1] != b.dims[rank - 2]) {
    fail(format("multiplies {} by {}", view_text(a), view_text(b)), kAttention);
  }
  const int heads = split ? b.dims[head_b] : 1;
  const ftensor& wide = scores ? ta : tb;
  const bool fits = wide.h == 1 && tb.h == 1 && (scores ? ta.c == tb.c : ta.c == tb.w) &&
                    (scores || ta.h == heads) && (!split || a.dims[head_a] == heads);
  if (!fits) fail(format("multiplies {} by {}", view_text(a), view_text(b)), kAttention);

  // Several heads lie in blocks of 64 channels each, one fills more than half of a word; the others
  // are zeros.
  const int depth = tb.c / heads;
  const int blocks = (depth + kBlockChannels - 1) / kBlockChannels * kBlockChannels;
  const bool pads = heads > 1 ? blocks != depth : depth <= kBlockChannels / 2;
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
  v.batch = a.batch;
  std::string seen = all_a;
  if (scores) {
    std::replace(seen.begin(), seen.end(), 'H', 'y');
    std::replace(seen.begin(), seen.end(), 'D', 'c');
  } else {
    std::replace(seen.begin(), seen.end(), 'y', split ? 'H' : '1');
    if (split) seen.back() = 'D';
  }
  v.axes = std::move(seen);
  if (turned) turn(v);
  relabel(v, v.axes);
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
