#include "model/fgraph.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "latchkey/error.hpp"
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
    compose();
    prune();
    for (fnode& node : g_.nodes) {
      if (const auto* affine = std::get_if<faffine>(&node.op)) node.op = per_channel(node, *affine);
    }
    sweep();
  }

 private:
  ftensor& tensor(int t) { return g_.tensors[static_cast<std::size_t>(t)]; }

  /// The only reader of t, and t is not the output.
  bool private_to(int t, std::size_t reader) const {
    if (g_.output.tensor == t) return false;
    for (std::size_t n = 0; n < g_.nodes.size(); ++n) {
      const auto& in = g_.nodes[n].inputs;
      if (n != reader && std::find(in.begin(), in.end(), t) != in.end()) return false;
    }
    return true;
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
    // Walk back over max-pools, which commute with bounds but not with a negative scale.
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
      if (auto* conv = std::get_if<fconv>(&before.op)) {
        if (!plain) {
          if (conv->clip.active() || affine.scale.size() != conv->bias.size()) return false;
          scale(*conv, affine);
          // What moved values computes now.
          std::erase_if(g_.follows, [&](const auto& pair) { return pair.first == source; });
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

  fgraph& g_;
};

float clip(const bounds& b, float v) { return std::min(std::max(v, b.lo), b.hi); }

float dot(const float* a, const float* b, std::size_t n) {
  // Eight running sums: the compiler may not reorder a float sum by itself.
  float part[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) part[j] += a[i + j] * b[i + j];
  }
  float sum =
      ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void convolve(const fconv& op, const ftensor& in, const std::vector<float>& x, const ftensor& out,
              std::vector<float>& y, std::vector<float>& padded, std::vector<float>& acc) {
  const std::size_t taps = x.size();
  if (!op.depthwise && op.kernel_h == in.h && op.kernel_w == in.w && out.h == 1 && out.w == 1 &&
      op.pad_top == 0 && op.pad_left == 0) {
    for (std::size_t o = 0; o < y.size(); ++o) {
      y[o] = clip(op.clip, dot(op.weights.data() + o * taps, x.data(), taps) + op.bias[o]);
    }
    return;
  }
  const std::size_t pw = static_cast<std::size_t>(in.w + op.pad_left + op.pad_right);
  const std::size_t ph = static_cast<std::size_t>(in.h + op.pad_top + op.pad_bottom);
  padded.assign(static_cast<std::size_t>(in.c) * ph * pw, 0.0F);
  for (int c = 0; c < in.c; ++c) {
    for (int iy = 0; iy < in.h; ++iy) {
      const auto src = x.begin() + (static_cast<std::ptrdiff_t>(c) * in.h + iy) * in.w;
      std::copy(src, src + in.w,
                padded.begin() + static_cast<std::ptrdiff_t>(
                                     (static_cast<std::size_t>(c) * ph + iy + op.pad_top) * pw +
                                     static_cast<std::size_t>(op.pad_left)));
    }
  }
  const auto sy = static_cast<std::size_t>(op.stride_y);
  const auto sx = static_cast<std::size_t>(op.stride_x);
  const auto oh = static_cast<std::size_t>(out.h);
  const auto ow = static_cast<std::size_t>(out.w);
  const bool dense = sy == 1 && sx == 1;
  const std::size_t pitch = dense ? pw : ow;
  acc.resize((oh - 1) * pitch + ow);
  const float* w = op.weights.data();
  for (int o = 0; o < out.c; ++o) {
    std::fill(acc.begin(), acc.end(), op.bias[static_cast<std::size_t>(o)]);
    const int first = op.depthwise ? o : 0;
    const int last = op.depthwise ? o + 1 : in.c;
    for (int c = first; c < last; ++c) {
      for (int ky = 0; ky < op.kernel_h; ++ky) {
        for (int kx = 0; kx < op.kernel_w; ++kx) {
          const float tap = *w++;
          const float* src = padded.data() + (static_cast<std::size_t>(c) * ph + ky) * pw + kx;
          // A zero tap must not spread an infinity, as 0 * inf would.
          if (tap == 0.0F) continue;
          if (dense) {
            for (std::size_t i = 0; i < acc.size(); ++i) acc[i] += tap * src[i];
          } else {
            for (std::size_t oy = 0; oy < oh; ++oy) {
              for (std::size_t ox = 0; ox < ow; ++ox) {
                acc[oy * ow + ox] += tap * src[oy * sy * pw + ox * sx];
              }
            }
          }
        }
      }
    }
    float* dst = y.data() + static_cast<std::size_t>(o) * oh * ow;
    for (std::size_t oy = 0; oy < oh; ++oy) {
      for (std::size_t ox = 0; ox < ow; ++ox) *dst++ = clip(op.clip, acc[oy * pitch + ox]);
    }
  }
}

void mean(const favgpool& op, const ftensor& in, const std::vector<float>& x, const ftensor& out,
          std::vector<float>& y) {
  const float count = static_cast<float>(op.kernel_h) * static_cast<float>(op.kernel_w);
  std::size_t at = 0;
  for (int c = 0; c < out.c; ++c) {
    for (int oy = 0; oy < out.h; ++oy) {
      const int top = oy * op.stride_y - op.pad_top;
      for (int ox = 0; ox < out.w; ++ox) {
        const int left = ox * op.stride_x - op.pad_left;
        float sum = 0.0F;
        for (int iy = std::max(top, 0); iy < std::min(top + op.kernel_h, in.h); ++iy) {
          for (int ix = std::max(left, 0); ix < std::min(left + op.kernel_w, in.w); ++ix) {
            sum += x[(static_cast<std::size_t>(c) * in.h + iy) * in.w + ix];
          }
        }
        y[at++] = clip(op.clip, sum / count);
      }
    }
  }
}

void pool(const fmaxpool& op, const ftensor& in, const std::vector<float>& x, const ftensor& out,
          std::vector<float>& y) {
  std::size_t at = 0;
  for (int c = 0; c < out.c; ++c) {
    for (int oy = 0; oy < out.h; ++oy) {
      for (int ox = 0; ox < out.w; ++ox) {
        float best = -std::numeric_limits<float>::infinity();
        for (int ky = 0; ky < op.kernel_h; ++ky) {
          for (int kx = 0; kx < op.kernel_w; ++kx) {
            const int iy = oy * op.stride_y + ky - op.pad_top;
            const int ix = ox * op.stride_x + kx - op.pad_left;
            if (iy < 0 || iy >= in.h || ix < 0 || ix >= in.w) continue;
            best = std::max(best, x[(static_cast<std::size_t>(c) * in.h + iy) * in.w + ix]);
          }
        }
        y[at++] = best;
      }
    }
  }
}

}  // namespace

void simplify(fgraph& graph) { simplifier(graph).run(); }

int argmax(std::span<const float> values) noexcept {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

float_executor::float_executor(fgraph graph) : graph_(std::move(graph)) {
  for (const ftensor& t : graph_.tensors) values_.emplace_back(t.size());
}

const std::vector<std::vector<float>>& float_executor::run(
    const std::vector<std::span<const float>>& inputs) {
  if (inputs.size() != graph_.inputs.size()) {
    throw error(errc::mismatch, format("'{}' has {} inputs, {} were given", graph_.name,
                                       graph_.inputs.size(), inputs.size()));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    auto& value = values_[static_cast<std::size_t>(graph_.inputs[i].tensor)];
    if (inputs[i].size() != value.size()) {
      throw error(errc::mismatch,
                  format("input '{}' of '{}' takes {} values per image, {} were given",
                         graph_.inputs[i].name, graph_.name, value.size(), inputs[i].size()));
    }
    std::copy(inputs[i].begin(), inputs[i].end(), value.begin());
  }
  for (const fnode& node : graph_.nodes) {
    const auto in = static_cast<std::size_t>(node.inputs[0]);
    const auto out = static_cast<std::size_t>(node.output);
    const ftensor& it = graph_.tensors[in];
    const ftensor& ot = graph_.tensors[out];
    const std::vector<float>& x = values_[in];
    std::vector<float>& y = values_[out];
    const std::vector<float>& b = values_[static_cast<std::size_t>(node.inputs.back())];
    // One value of the second tensor holds for this many of the first.
    const std::size_t plane = ot.size() / static_cast<std::size_t>(ot.c);
    std::visit(overloaded{[&](const fconv& op) { convolve(op, it, x, ot, y, padded_, acc_); },
                          [&](const fmaxpool& op) { pool(op, it, x, ot, y); },
                          [&](const favgpool& op) { mean(op, it, x, ot, y); },
                          [&](const fadd& op) {
                            const std::size_t step = op.broadcast_b ? plane : 1;
                            const float sign = op.negate_b ? -1.0F : 1.0F;
                            for (std::size_t i = 0; i < y.size(); ++i) {
                              y[i] = clip(op.clip, x[i] + sign * b[i / step]);
                            }
                          },
                          [&](const fmul& op) {
                            const std::size_t step = op.broadcast_b ? plane : 1;
                            for (std::size_t i = 0; i < y.size(); ++i) {
                              y[i] = clip(op.clip, x[i] * b[i / step]);
                            }
                          },
                          [&](const ftable& op) {
                            std::transform(x.begin(), x.end(), y.begin(), [&](float v) {
                              return static_cast<float>(op.apply(static_cast<double>(v)));
                            });
                          },
                          [&](const faffine& op) {
                            for (std::size_t i = 0; i < y.size(); ++i) {
                              const std::size_t c = i / plane;
                              y[i] = clip(op.clip, x[i] * op.scale[c] + op.shift[c]);
                            }
                          }},
               node.op);
  }
  return values_;
}

std::span<const float> float_executor::infer(std::span<const float> image) {
  return run({image})[static_cast<std::size_t>(graph_.output.tensor)];
}

}  // namespace latchkey::model
