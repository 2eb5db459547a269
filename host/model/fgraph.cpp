#include "model/fgraph.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"

namespace latchkey::model {
namespace {

/// Largest diagonal convolution that simplify() makes: a layer of the accelerator has 4,096
/// channels.
constexpr int kMaxDiagonal = 4096;
/// Most weights of all of them together.
constexpr std::size_t kMaxDiagonalWeights = std::size_t{1} << 26;

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
    for (fnode& node : g_.nodes) {
      if (const auto* affine = std::get_if<faffine>(&node.op)) node.op = diagonal(node, *affine);
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
        }
        conv->clip = intersect(conv->clip, affine.clip);
      } else if (auto* add = std::get_if<fadd>(&before.op)) {
        if (!plain) return false;
        add->clip = intersect(add->clip, affine.clip);
      } else if (auto* other = std::get_if<faffine>(&before.op)) {
        if (!plain) {
          if (other->clip.active() || affine.scale.size() != other->scale.size()) return false;
          for (std::size_t c = 0; c < affine.scale.size(); ++c) {
            other->scale[c] *= affine.scale[c];
            other->shift[c] = other->shift[c] * affine.scale[c] + affine.shift[c];
          }
        }
        other->clip = intersect(other->clip, affine.clip);
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

  static void scale(fconv& conv, const faffine& affine) {
    const std::size_t k = conv.weights.size() / conv.bias.size();
    for (std::size_t o = 0; o < conv.bias.size(); ++o) {
      for (std::size_t i = 0; i < k; ++i) conv.weights[o * k + i] *= affine.scale[o];
      conv.bias[o] = conv.bias[o] * affine.scale[o] + affine.shift[o];
    }
    conv.integers.reset();
  }

  fconv diagonal(const fnode& node, const faffine& affine) {
    const ftensor& in = tensor(node.inputs[0]);
    const auto square = static_cast<std::size_t>(in.c) * static_cast<std::size_t>(in.c);
    if (in.c > kMaxDiagonal || (diagonal_weights_ += square) > kMaxDiagonalWeights ||
        affine.scale.size() != static_cast<std::size_t>(in.c)) {
      throw error(errc::unsupported_model,
                  format("{}: node '{}' on {} x {} x {} can be folded into no layer before it and "
                         "is too large for a layer of its own; place it right behind a Conv, Gemm "
                         "or Add",
                         g_.name, node.name, in.c, in.h, in.w));
    }
    fconv conv;
    const auto c = static_cast<std::size_t>(in.c);
    conv.out_channels = conv.in_channels = in.c;
    conv.weights.assign(c * c, 0.0F);
    for (std::size_t i = 0; i < c; ++i) conv.weights[i * c + i] = affine.scale[i];
    conv.bias = affine.shift;
    conv.clip = affine.clip;
    g_.remarks.push_back(
        format("'{}' became a 1x1 convolution of {} channels: no layer before it can take it",
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
    g_.tensors = std::move(kept);
  }

  fgraph& g_;
  std::size_t diagonal_weights_ = 0;
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
  if (op.kernel_h == in.h && op.kernel_w == in.w && out.h == 1 && out.w == 1 && op.pad_top == 0 &&
      op.pad_left == 0) {
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
    for (int c = 0; c < in.c; ++c) {
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
    if (const auto* conv = std::get_if<fconv>(&node.op)) {
      convolve(*conv, it, x, ot, y, padded_, acc_);
    } else if (const auto* max = std::get_if<fmaxpool>(&node.op)) {
      pool(*max, it, x, ot, y);
    } else if (const auto* add = std::get_if<fadd>(&node.op)) {
      const std::vector<float>& b = values_[static_cast<std::size_t>(node.inputs[1])];
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = clip(add->clip, x[i] + b[i]);
    } else {
      const auto& affine = std::get<faffine>(node.op);
      const std::size_t plane = y.size() / affine.scale.size();
      for (std::size_t i = 0; i < y.size(); ++i) {
        const std::size_t c = i / plane;
        y[i] = clip(affine.clip, x[i] * affine.scale[c] + affine.shift[c]);
      }
    }
  }
  return values_;
}

std::span<const float> float_executor::infer(std::span<const float> image) {
  return run({image})[static_cast<std::size_t>(graph_.output.tensor)];
}

}  // namespace latchkey::model
