// What becomes of an imported graph before it is quantised: simplify(), split_wide_output() for
// outputs of many classes, and isolate_products() for the heads of attention.
#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "latchkey/error.hpp"
#include "model/fgraph.hpp"
#include "model/format.hpp"

namespace latchkey::model {
namespace {

template <typename... F>
struct overloaded : F... {
  using F::operator()...;
};
template <typename... F>
overloaded(F...) -> overloaded<F...>;

bounds intersect(const bounds& first, const bounds& then) {
  // clip(clip(x, first), then): bounds that do not overlap collapse onto the later ones.
  bounds out;
  out.lo = std::clamp(first.lo, then.lo, then.hi);
  out.hi = std::clamp(first.hi, then.lo, then.hi);
  return out;
}

bool identity(const faffine& a) {
  return std::all_of(a.scale.begin(), a.scale.end(), [](float v) { return v == 1.0F; }) &&
         std::all_of(a.shift.begin(), a.shift.end(), [](float v) { return v == 0.0F; });
}

/// Alike for all channels.
bool uniform(const faffine& a) {
  const auto same = [](const std::vector<float>& v) {
    return std::all_of(v.begin(), v.end(), [&](float f) { return f == v.front(); });
  };
  return !a.scale.empty() && same(a.scale) && same(a.shift);
}

double clip(const bounds& b, double v) { return std::min<double>(std::max<double>(v, b.lo), b.hi); }

/// What a node computes of each element by itself.
scalar_function function_of(const faffine& a) {
  return [s = double{a.scale.front()}, t = double{a.shift.front()}, c = a.clip](double x) {
    return clip(c, s * x + t);
  };
}

class simplifier {
 public:
  explicit simplifier(fgraph& graph) : g_(graph) {}

  void run() {
    for (std::size_t n = 0; n < g_.nodes.size();) {
      if (std::holds_alternative<faffine>(g_.nodes[n].op) && fold(n)) {
        g_.nodes.erase(g_.nodes.begin() + static_cast<std::ptrdiff_t>(n));
      } else {
        ++n;
      }
    }
    flatten();
    compose();
    join_constants();
    prune();
    for (fnode& node : g_.nodes) {
      if (const auto* affine = std::get_if<faffine>(&node.op)) node.op = per_channel(node, *affine);
    }
    sweep();
  }

  /// Scale and shift behind a convolution, in its weights and biases.
  static void scale(fconv& conv, const faffine& affine) {
    const std::size_t k = conv.weights.size() / conv.bias.size();
    for (std::size_t o = 0; o < conv.bias.size(); ++o) {
      for (std::size_t i = 0; i < k; ++i) conv.weights[o * k + i] *= affine.scale[o];
      conv.bias[o] = conv.bias[o] * affine.scale[o] + affine.shift[o];
    }
    if (!conv.integers) return;
    // The integers stay as they are where only their scale changes.
    integer_weights& q = *conv.integers;
    const bool only_scale =
        std::all_of(affine.scale.begin(), affine.scale.end(), [](float v) { return v > 0.0F; });
    if (!only_scale) {
      conv.integers.reset();
      return;
    }
    for (std::size_t o = 0; o < q.scale.size(); ++o) q.scale[o] *= affine.scale[o];
    const bool moved =
        std::any_of(affine.shift.begin(), affine.shift.end(), [](float v) { return v != 0.0F; });
    if (moved) q.bias.reset();
  }

  /// Drops tensors that nothing names any more.
  void sweep() {
    std::vector<int> map(g_.tensors.size(), -1);
    std::vector<ftensor> kept;
    const auto keep = [&](int& t) {
      int& to = map[static_cast<std::size_t>(t)];
      if (to < 0) {
        to = static_cast<int>(kept.size());
        kept.push_back(std::move(tensor(t)));
      }
      t = to;
    };
    for (io_spec& in : g_.inputs) keep(in.tensor);
    for (fnode& node : g_.nodes) {
      for (int& t : node.inputs) keep(t);
      keep(node.output);
    }
    keep(g_.output.tensor);
    std::erase_if(g_.follows, [&](auto& pair) {
      pair = {map[static_cast<std::size_t>(pair.first)],
              map[static_cast<std::size_t>(pair.second)]};
      return pair.first < 0 || pair.second < 0;
    });
    g_.tensors = std::move(kept);
  }

 private:
  ftensor& tensor(int t) { return g_.tensors[static_cast<std::size_t>(t)]; }

  /// The only reader of t, and t is not the output.
  bool private_to(int t, std::size_t reader) const {
    const auto& in = g_.nodes[reader].inputs;
    return readers_of(g_, t) == std::count(in.begin(), in.end(), t);
  }

  int writer(int t) const {
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      if (g_.nodes[n].output == t) return static_cast<int>(n);
    }
    return -1;
  }

  bool fold(std::size_t n) {
    const fnode& node = g_.nodes[n];
    const auto affine = std::get<faffine>(node.op);  // A copy: the node goes away.
    const int out = node.output;
    const bool plain = identity(affine);
    // Walk back over max-pools, which commute with bounds but not with a negative scale, and over
    // views, which commute with all that works on elements.
    std::size_t reader = n;
    int source = node.inputs[0];
    for (;;) {
      const ftensor& s = tensor(source);
      if (!private_to(source, reader)) return false;
      if (s.pinned && !(tensor(out).pinned && *tensor(out).pinned == *s.pinned && plain)) {
        return false;
      }
      const int w = writer(source);
      if (w < 0) return false;  // The graph's input.
      fnode& before = g_.nodes[static_cast<std::size_t>(w)];
      if (std::holds_alternative<fmaxpool>(before.op)) {
        if (!plain) return false;
        reader = static_cast<std::size_t>(w);
        source = before.inputs[0];
        continue;
      }
      if (std::holds_alternative<fview>(before.op)) {
        reader = static_cast<std::size_t>(w);
        source = before.inputs[0];
        continue;
      }
      if (auto* conv = std::get_if<fconv>(&before.op)) {
        if (!plain) {
          if (conv->clip.active() || affine.scale.size() != conv->bias.size()) return false;
          scale(*conv, affine);
          // What moved values computes now, and what held its values no longer does.
          std::erase_if(g_.follows, [&](const auto& pair) {
            return pair.first == source || pair.second == source;
          });
        }
        conv->clip = intersect(conv->clip, affine.clip);
      } else if (auto* other = std::get_if<faffine>(&before.op)) {
        if (!plain) {
          if (other->clip.active() || affine.scale.size() != other->scale.size()) return false;
          for (std::size_t c = 0; c < affine.scale.size(); ++c) {
            other->scale[c] *= affine.scale[c];
            other->shift[c] = other->shift[c] * affine.scale[c] + affine.shift[c];
          }
        }
        other->clip = intersect(other->clip, affine.clip);
      } else if (auto* norm = std::get_if<flayernorm>(&before.op)) {
        if (affine.clip.active() || affine.scale.size() != norm->gamma.size()) return false;
        for (std::size_t c = 0; c < affine.scale.size(); ++c) {
          norm->gamma[c] *= affine.scale[c];
          norm->beta[c] = norm->beta[c] * affine.scale[c] + affine.shift[c];
        }
      } else if (auto* product = std::get_if<fproduct>(&before.op); product && !plain) {
        // One positive factor: what attention divides its scores by.
        const float factor = affine.scale.empty() ? 0.0F : product->factor * affine.scale.front();
        if (!uniform(affine) || affine.shift.front() != 0.0F || product->clip.active() ||
            !(factor > 0.0F) || !std::isfinite(factor)) {
          return false;
        }
        product->factor = factor;
        product->clip = affine.clip;
      } else if (bounds* held = plain ? clip_of(before) : nullptr) {
        *held = intersect(*held, affine.clip);
      } else {
        return false;
      }
      break;
    }
    // The tensor before takes the place of the one behind, with its name and its quantisation.
    const int last = node.inputs[0];
    ftensor& kept = tensor(last);
    if (tensor(out).pinned) kept.pinned = tensor(out).pinned;
    kept.name = tensor(out).name;
    for (fnode& other : g_.nodes) std::replace(other.inputs.begin(), other.inputs.end(), out, last);
    if (g_.output.tensor == out) g_.output.tensor = last;
    return true;
  }

  static bounds* clip_of(fnode& node) {
    return std::visit(
        [](auto& op) -> bounds* {
          if constexpr (requires { op.clip; }) return &op.clip;
          return nullptr;
        },
        node.op);
  }

  /// Puts the parts of a join that another join alone reads in its place among that one's.
  void flatten() {
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      if (!std::holds_alternative<fjoin>(g_.nodes[n].op)) continue;
      auto& parts = g_.nodes[n].inputs;
      for (std::size_t i = 0; i < parts.size();) {
        const int t = parts[i];
        const int w = writer(t);
        const auto* inner =
            w < 0 ? nullptr : std::get_if<fjoin>(&g_.nodes[static_cast<std::size_t>(w)].op);
        // What the file rounds in between stays.
        const auto& rounded = tensor(t).pinned;
        if (!inner || inner->pixels != std::get<fjoin>(g_.nodes[n].op).pixels ||
            inner->clip.active() || !private_to(t, n) ||
            std::count(parts.begin(), parts.end(), t) > 1 ||
            (rounded && rounded != tensor(g_.nodes[n].output).pinned)) {
          ++i;
          continue;
        }
        const auto at = parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i));
        parts.insert(at, g_.nodes[static_cast<std::size_t>(w)].inputs.begin(),
                     g_.nodes[static_cast<std::size_t>(w)].inputs.end());
      }
    }
  }

  /// A tensor as a function of the elements of another one.
  struct view {
    int root = -1;
    std::shared_ptr<const scalar_function> f;  ///< Null: the root itself.
    int cost = 0;                              ///< Functions that one value takes.

    [[nodiscard]] double operator()(double x) const { return f ? (*f)(x) : x; }
  };
  /// A longer expression is cut in two tables; squares of squares would take for ever.
  static constexpr int kMaxCost = 1000;

  /// Gives every node that works on elements alone a table over the tensor that it starts from.
  void compose() {
    std::vector<view> views(g_.tensors.size());
    for (std::size_t t = 0; t < views.size(); ++t) views[t].root = static_cast<int>(t);
    for (fnode& node : g_.nodes) {
      if (node.inputs.empty()) continue;
      view a = views[static_cast<std::size_t>(node.inputs.front())];
      view b = views[static_cast<std::size_t>(node.inputs.back())];
      if (node.inputs.size() == 1) b.cost = 0;
      if (a.cost + b.cost > kMaxCost) {
        a = {node.inputs.front(), nullptr, 0};
        b = {node.inputs.back(), nullptr, 0};
      }
      scalar_function f;
      if (const auto* table = std::get_if<ftable>(&node.op)) {
        f = [a, g = table->apply](double x) { return g(a(x)); };
      } else if (const auto* affine = std::get_if<faffine>(&node.op); affine && uniform(*affine)) {
        f = [a, g = function_of(*affine)](double x) { return g(a(x)); };
      } else if (const auto* add = std::get_if<fadd>(&node.op); add && a.root == b.root) {
        // Of one tensor without any function the accelerator adds at least as well.
        if (add->broadcast_b || (!a.f && !b.f)) continue;
        f = [a, b, s = add->negate_b ? -1.0 : 1.0, c = add->clip](double x) {
          return clip(c, a(x) + s * b(x));
        };
      } else if (const auto* mul = std::get_if<fmul>(&node.op); mul && a.root == b.root) {
        if (mul->broadcast_b) continue;
        f = [a, b, c = mul->clip](double x) { return clip(c, a(x) * b(x)); };
      } else {
        continue;
      }
      node.op = ftable{f};
      node.inputs = {a.root};
      if (const auto& q = tensor(node.output).pinned) {
        // The file rounds here, so what reads this tensor sees the rounded values.
        f = [f, q = *q](double x) {
          const int byte = quantise_value(static_cast<float>(f(x)), q.scale, q.zero_point);
          return static_cast<double>(q.scale * static_cast<float>(byte - q.zero_point));
        };
      }
      views[static_cast<std::size_t>(node.output)] = {
          a.root, std::make_shared<const scalar_function>(std::move(f)), a.cost + b.cost + 1};
    }
  }

  /// Two constants that are added one after the other become one.
  void join_constants() {
    const auto constant = [&](const fnode& node) -> fconstant* {
      const auto* add = std::get_if<fadd>(&node.op);
      const int w = add && !add->broadcast_b ? writer(node.inputs[1]) : -1;
      return w < 0 ? nullptr : std::get_if<fconstant>(&g_.nodes[static_cast<std::size_t>(w)].op);
    };
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      fconstant* const second = constant(g_.nodes[n]);
      const int between = g_.nodes[n].inputs.empty() ? -1 : g_.nodes[n].inputs[0];
      const int w = second ? writer(between) : -1;
      if (w < 0 || !private_to(between, n) || tensor(between).pinned) continue;
      const fnode& before = g_.nodes[static_cast<std::size_t>(w)];
      const fconstant* const first = constant(before);
      if (!first || std::get<fadd>(before.op).clip.active() ||
          !private_to(g_.nodes[n].inputs[1], n)) {
        continue;
      }
      auto& add = std::get<fadd>(g_.nodes[n].op);
      const float sign = std::get<fadd>(before.op).negate_b ? -1.0F : 1.0F;
      for (std::size_t i = 0; i < second->values.size(); ++i) {
        second->values[i] = sign * first->values[i] + (add.negate_b ? -1 : 1) * second->values[i];
      }
      add.negate_b = false;
      tensor(g_.nodes[n].inputs[1]).pinned.reset();
      g_.nodes[n].inputs[0] = before.inputs[0];
      std::erase_if(g_.follows, [&](const auto& pair) { return pair.second == between; });
    }
  }

  /// Drops nodes whose result nothing reads.
  void prune() {
    for (std::size_t n = g_.nodes.size(); n-- > 0;) {
      const int t = g_.nodes[n].output;
      const bool read = std::any_of(g_.nodes.begin(), g_.nodes.end(), [&](const fnode& other) {
        return std::find(other.inputs.begin(), other.inputs.end(), t) != other.inputs.end();
      });
      if (!read && t != g_.output.tensor) {
        g_.nodes.erase(g_.nodes.begin() + static_cast<std::ptrdiff_t>(n));
      }
    }
  }

  fconv per_channel(const fnode& node, const faffine& affine) {
    const ftensor& in = tensor(node.inputs[0]);
    if (affine.scale.size() != static_cast<std::size_t>(in.c)) {
      throw error(errc::unsupported_model,
                  format("{}: node '{}' on {} x {} x {} differs inside a channel; place it right "
                         "behind a Conv or Gemm",
                         g_.name, node.name, in.c, in.h, in.w));
    }
    fconv conv;
    conv.depthwise = true;
    conv.out_channels = conv.in_channels = in.c;
    conv.weights = affine.scale;
    conv.bias = affine.shift;
    conv.clip = affine.clip;
    g_.remarks.push_back(
        format("'{}' became a depthwise 1x1 convolution of {} channels: no layer before it can "
               "take it",
               node.name, in.c));
    return conv;
  }

  fgraph& g_;
};

/// A dense 1x1 convolution.
bool pointwise(const fnode& node) {
  const auto* conv = std::get_if<fconv>(&node.op);
  return conv && !conv->depthwise && !conv->transposed && conv->kernel_h == 1 &&
         conv->kernel_w == 1 && conv->stride_y == 1 && conv->stride_x == 1 && conv->pad_top == 0 &&
         conv->pad_left == 0 && conv->pad_bottom == 0 && conv->pad_right == 0;
}

/// Puts convolutions that copy between products of several heads and what does not suit them.
class isolator {
 public:
  explicit isolator(fgraph& graph) : g_(graph) {}

  void run() {
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      const auto* product = std::get_if<fproduct>(&g_.nodes[n].op);
      if (!product) continue;
      for (std::size_t i = product->transposed ? 0 : 1; i < 2; ++i) {
        while (select_before(n, i)) {
        }
      }
      if (!product->transposed) select_behind(n);
    }
    std::erase_if(g_.nodes, [](const fnode& node) { return node.output < 0; });
    simplifier(g_).sweep();
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      const auto* product = std::get_if<fproduct>(&g_.nodes[n].op);
      if (!product || product->heads < 2) continue;
      const bool transposed = product->transposed;
      for (std::size_t i = transposed ? 0 : 1; i < 2; ++i) {
        const int t = g_.nodes[n].inputs[i];
        const bool twice = i == 1 && g_.nodes[n].inputs[0] == t;
        if (!twice && made_for(t, n)) continue;
        const int copy = add_tensor(t);
        insert(n++, t, copy, copy, t);
        g_.nodes[n].inputs[i] = copy;
      }
      const int t = g_.nodes[n].output;
      if (transposed || read_by_layers(t)) continue;
      const int raw = add_tensor(t);
      g_.nodes[n].output = raw;
      insert(n + 1, raw, t, raw, t);
    }
  }

 private:
  /// What a convolution makes of one channel each: channel from[o] times scale[o] plus shift[o].
  struct selection {
    std::vector<int> from;  ///< -1: of none
    std::vector<float> scale, shift;

    [[nodiscard]] bool copies() const {
      return std::all_of(scale.begin(), scale.end(), [](float v) { return v == 1.0F; }) &&
             std::all_of(shift.begin(), shift.end(), [](float v) { return v == 0.0F; });
    }
  };

  static std::optional<selection> selection_of(const fnode& node) {
    if (!pointwise(node)) return {};
    const auto& conv = std::get<fconv>(node.op);
    if (conv.clip.active() || conv.integers) return {};
    const auto ins = static_cast<std::size_t>(conv.in_channels);
    const std::size_t outs = conv.bias.size();
    selection s{std::vector<int>(outs, -1), std::vector<float>(outs, 1.0F), conv.bias};
    for (std::size_t o = 0; o < outs; ++o) {
      for (std::size_t i = 0; i < ins; ++i) {
        const float w = conv.weights[o * ins + i];
        if (w == 0.0F) continue;
        if (s.from[o] >= 0) return {};
        s.from[o] = static_cast<int>(i);
        s.scale[o] = w;
      }
    }
    return s;
  }

  fnode* writer(int t) {
    for (fnode& node : g_.nodes) {
      if (node.output == t) return &node;
    }
    return nullptr;
  }

  /// Channels that are selected before a product, to pad its heads or to take queries, keys and
  /// values of one layer apart: a part of that layer makes them by itself, if nothing else reads
  /// it.
  bool select_before(std::size_t product, std::size_t operand) {
    const int t = g_.nodes[product].inputs[operand];
    fnode* const node = writer(t);
    const auto part = node && made_for(t, product) ? selection_of(*node) : std::nullopt;
    if (!part) return false;
    const int before = node->inputs[0];
    fnode* const layer = writer(before);
    if (!layer || !pointwise(*layer) || g_.output.tensor == before) return false;
    std::size_t readers = 0;
    for (const fnode& other : g_.nodes) {
      if (std::count(other.inputs.begin(), other.inputs.end(), before) == 0) continue;
      if (!selection_of(other)) return false;
      ++readers;
    }
    // What the file rounds in between stays.
    if (g_.tensors[static_cast<std::size_t>(before)].pinned !=
        g_.tensors[static_cast<std::size_t>(t)].pinned) {
      return false;
    }
    fconv conv = std::get<fconv>(layer->op);
    const bool clipped = conv.clip.active();
    if (clipped && (!part->copies() || conv.clip.lo > 0.0F || conv.clip.hi < 0.0F)) return false;
    const auto ins = static_cast<std::size_t>(conv.in_channels);
    const auto rows = [&]<typename T>(const std::vector<T>& w, std::size_t k, T none) {
      std::vector<T> out;
      out.reserve(part->from.size() * k);
      for (const int o : part->from) {
        if (o < 0) {
          out.insert(out.end(), k, none);
        } else {
          const T* first = w.data() + static_cast<std::size_t>(o) * k;
          out.insert(out.end(), first, first + k);
        }
      }
      return out;
    };
    conv.weights = rows(conv.weights, ins, 0.0F);
    conv.bias = rows(conv.bias, 1, 0.0F);
    if (conv.integers) {
      integer_weights& q = *conv.integers;
      q.values = rows(q.values, ins, std::int8_t{0});
      q.scale = rows(q.scale, 1, q.scale.front());
      if (q.bias) q.bias = rows(*q.bias, 1, 0);
    }
    conv.out_channels = static_cast<int>(part->from.size());
    if (!part->copies()) simplifier::scale(conv, faffine{part->scale, part->shift, {}});
    node->op = std::move(conv);
    node->inputs = layer->inputs;
    if (readers > 1) {
      node->name = format("{} for '{}'", layer->name, g_.tensors[static_cast<std::size_t>(t)].name);
      std::erase_if(g_.follows, [&](const auto& pair) { return pair.first == t; });
    } else {
      node->name = layer->name;
      drop(*layer, before);
    }
    return true;
  }

  /// Channels that are selected behind a product: the layers behind leave the others out.
  void select_behind(std::size_t product) {
    const int raw = g_.nodes[product].output;
    fnode* copy = nullptr;
    for (fnode& node : g_.nodes) {
      if (std::count(node.inputs.begin(), node.inputs.end(), raw) == 0) continue;
      if (copy) return;
      copy = &node;
    }
    const auto part = copy && g_.output.tensor != raw ? selection_of(*copy) : std::nullopt;
    const int t = copy ? copy->output : -1;
    if (!part || !part->copies() || !read_by_layers(t)) return;
    const std::vector<int>& from = part->from;
    const std::set<int> once(from.begin(), from.end());
    if (once.size() != from.size() || once.count(-1) > 0) return;
    const auto wide = static_cast<std::size_t>(g_.tensors[static_cast<std::size_t>(raw)].c);
    for (fnode& node : g_.nodes) {
      if (std::count(node.inputs.begin(), node.inputs.end(), t) == 0) continue;
      auto& conv = std::get<fconv>(node.op);
      const auto columns = [&]<typename T>(const std::vector<T>& w) {
        std::vector<T> out(conv.bias.size() * wide);
        for (std::size_t o = 0; o < conv.bias.size(); ++o) {
          for (std::size_t i = 0; i < from.size(); ++i) {
            out[o * wide + static_cast<std::size_t>(from[i])] = w[o * from.size() + i];
          }
        }
        return out;
      };
      conv.weights = columns(conv.weights);
      if (conv.integers) conv.integers->values = columns(conv.integers->values);
      conv.in_channels = static_cast<int>(wide);
      node.inputs = {raw};
    }
    ftensor& kept = g_.tensors[static_cast<std::size_t>(raw)];
    kept.name = g_.tensors[static_cast<std::size_t>(t)].name;
    kept.pinned = g_.tensors[static_cast<std::size_t>(t)].pinned;
    drop(*copy, t);
  }

  /// Takes a node out of the graph, and a tensor that nothing names any more.
  void drop(fnode& node, int tensor) {
    node.output = -1;
    node.inputs.clear();
    std::erase_if(g_.follows,
                  [&](const auto& pair) { return pair.first == tensor || pair.second == tensor; });
  }

  bool made_for(int t, std::size_t reader) const {
    if (g_.output.tensor == t) return false;
    bool written = false;
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      const fnode& node = g_.nodes[n];
      if (node.output == t) written = pointwise(node);
      if (n != reader && std::count(node.inputs.begin(), node.inputs.end(), t) > 0) return false;
    }
    return written;
  }

  bool read_by_layers(int t) const {
    return g_.output.tensor != t &&
           std::all_of(g_.nodes.begin(), g_.nodes.end(), [&](const fnode& node) {
             return std::count(node.inputs.begin(), node.inputs.end(), t) == 0 || pointwise(node);
           });
  }

  int add_tensor(int like) {
    ftensor t = g_.tensors[static_cast<std::size_t>(like)];
    t.name += " for attention";
    g_.tensors.push_back(std::move(t));
    return static_cast<int>(g_.tensors.size()) - 1;
  }

  /// A copy from one tensor to another before node n; `moved` gets the quantisation of `of`.
  void insert(std::size_t n, int from, int to, int moved, int of) {
    const auto c = static_cast<std::size_t>(g_.tensors[static_cast<std::size_t>(from)].c);
    fconv conv;
    conv.out_channels = conv.in_channels = static_cast<int>(c);
    conv.weights.assign(c * c, 0.0F);
    for (std::size_t i = 0; i < c; ++i) conv.weights[i * c + i] = 1.0F;
    conv.bias.assign(c, 0.0F);
    fnode node;
    node.name = format("copy of '{}'", g_.tensors[static_cast<std::size_t>(of)].name);
    node.inputs = {from};
    node.output = to;
    node.op = std::move(conv);
    g_.nodes.insert(g_.nodes.begin() + static_cast<std::ptrdiff_t>(n), std::move(node));
    g_.follows.emplace_back(moved, of);
  }

  fgraph& g_;
};

}  // namespace

void simplify(fgraph& graph) { simplifier(graph).run(); }

void split_wide_output(fgraph& graph) {
  const int t = graph.output.tensor;
  const auto last = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                                 [t](const fnode& n) { return n.output == t; });
  if (last == graph.nodes.end() || !pointwise(*last) || readers_of(graph, t) != 1) return;
  const ftensor out = graph.tensors[static_cast<std::size_t>(t)];
  const auto whole = std::get<fconv>(last->op);
  const bool by_pixel = graph.output.channels_last || out.w == 1;
  if (out.c <= kMaxChannels || out.h != 1 || !by_pixel || whole.integers) return;
  constexpr int kMaxColumns = 255;  // of a window
  int columns = 2;
  while (columns <= kMaxColumns && (out.c % columns != 0 || out.c / columns > kMaxChannels)) {
    ++columns;
  }
  if (columns > kMaxColumns) return;
  const auto many = static_cast<std::size_t>(columns),
             ins = static_cast<std::size_t>(whole.in_channels);
  const std::size_t each = whole.bias.size() / many, tokens = static_cast<std::size_t>(out.w);

  // Tokens are rows of one pixel. A window of column j sees that pixel in its tap columns - 1 - j
  // and nothing else, so the weights there are those of the j-th part of the channels. A bias,
  // which is one for all columns, becomes a constant of its own.
  fconv conv;
  conv.out_channels = out.c / columns;
  conv.in_channels = whole.in_channels;
  conv.kernel_w = columns;
  conv.pad_left = conv.pad_right = columns - 1;
  conv.weights.resize(whole.weights.size());
  conv.bias.assign(each, 0.0F);
  fconstant bias;
  bias.values.resize(each * tokens * many);
  for (std::size_t o = 0; o < each; ++o) {
    for (std::size_t j = 0; j < many; ++j) {
      for (std::size_t i = 0; i < ins; ++i) {
        conv.weights[(o * ins + i) * many + many - 1 - j] = whole.weights[(j * each + o) * ins + i];
      }
      for (std::size_t k = 0; k < tokens; ++k) {
        bias.values[(o * tokens + k) * many + j] = whole.bias[j * each + o];
      }
    }
  }
  const auto add_tensor = [&](const ftensor& like, int c, int w, const char* what) {
    ftensor added;
    added.name = like.name + what;
    added.c = c;
    added.h = out.w;
    added.w = w;
    graph.tensors.push_back(std::move(added));
    return static_cast<int>(graph.tensors.size()) - 1;
  };
  const int from = last->inputs[0];
  const ftensor in = graph.tensors[static_cast<std::size_t>(from)];
  const int rows = add_tensor(in, in.c, 1, " in rows");
  graph.tensors.back().pinned = in.pinned;
  const int sums = add_tensor(out, conv.out_channels, columns, " without bias");
  const int biases = add_tensor(out, conv.out_channels, columns, " bias");
  ftensor& result = graph.tensors[static_cast<std::size_t>(t)];
  result.c = conv.out_channels;
  result.h = out.w;
  result.w = columns;
  graph.output.channels_last = true;
  const std::string name = last->name;
  graph.nodes.erase(last);
  graph.nodes.push_back({name, {from}, rows, fview{}});
  graph.nodes.push_back({name, {rows}, sums, std::move(conv)});
  graph.nodes.push_back({format("bias of '{}'", name), {}, biases, std::move(bias)});
  graph.nodes.push_back({name, {sums, biases}, t, fadd{whole.clip}});
}

void isolate_products(fgraph& graph) { isolator(graph).run(); }

}  // namespace latchkey::model
