#include "model/fgraph.hpp"

#include <algorithm>
#include <cmath>
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

void convolve_transposed(const fconv& op, const ftensor& in, const std::vector<float>& x,
                         const ftensor& out, std::vector<float>& y, std::vector<float>& acc) {
  const std::size_t plane = x.size() / static_cast<std::size_t>(in.c);
  const int taps = op.kernel_h * op.kernel_w;
  for (int o = 0; o < out.c; ++o) {
    for (int tap = 0; tap < taps; ++tap) {
      acc.assign(plane, op.bias[static_cast<std::size_t>(o)]);
      for (int c = 0; c < in.c; ++c) {
        const float w = op.weights[static_cast<std::size_t>((o * in.c + c) * taps + tap)];
        const float* src = x.data() + static_cast<std::size_t>(c) * plane;
        // A zero tap must not spread an infinity, as 0 * inf would.
        for (std::size_t p = 0; w != 0.0F && p < plane; ++p) acc[p] += w * src[p];
      }
      for (int p = 0; p < in.h * in.w; ++p) {
        const int oy = p / in.w * op.stride_y + tap / op.kernel_w;
        const int ox = p % in.w * op.stride_x + tap % op.kernel_w;
        y[(static_cast<std::size_t>(o) * out.h + oy) * out.w + ox] =
            clip(op.clip, acc[static_cast<std::size_t>(p)]);
      }
    }
  }
}

void convolve(const fconv& op, const ftensor& in, const std::vector<float>& x, const ftensor& out,
              std::vector<float>& y, std::vector<float>& padded, std::vector<float>& acc) {
  if (op.transposed) {
    convolve_transposed(op, in, x, out, y, acc);
    return;
  }
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

void product(const fproduct& op, const ftensor& wide, const std::vector<float>& a,
             const ftensor& in_b, const std::vector<float>& b, std::vector<float>& y) {
  const auto heads = static_cast<std::size_t>(op.heads);
  const auto tokens = static_cast<std::size_t>(wide.w);
  const auto keys = static_cast<std::size_t>(in_b.w);
  const std::size_t depth = static_cast<std::size_t>(in_b.c) / heads;
  // Row by row over the tokens, which lie side by side; the sums are in y itself.
  std::fill(y.begin(), y.end(), 0.0F);
  const auto add = [&](std::size_t from, std::size_t to, float by) {
    for (std::size_t t = 0; t < tokens; ++t) y[to * tokens + t] += a[from * tokens + t] * by;
  };
  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t k = h * depth; k < (h + 1) * depth; ++k) {
      for (std::size_t s = 0; s < keys; ++s) {
        const std::size_t score = s * heads + h;
        if (op.transposed) {
          add(k, score, b[k * keys + s]);
        } else {
          add(score, k, b[k * keys + s]);
        }
      }
    }
  }
  for (float& v : y) v = clip(op.clip, v * op.factor);
}

void softmax(const std::vector<float>& x, std::size_t plane, std::vector<float>& y) {
  for (std::size_t pixel = 0; pixel < plane; ++pixel) {
    float most = x[pixel];
    for (std::size_t i = pixel; i < x.size(); i += plane) most = std::max(most, x[i]);
    double sum = 0;
    for (std::size_t i = pixel; i < x.size(); i += plane) {
      y[i] = std::exp(x[i] - most);
      sum += y[i];
    }
    for (std::size_t i = pixel; i < x.size(); i += plane) y[i] = static_cast<float>(y[i] / sum);
  }
}

void normalise(const flayernorm& op, const std::vector<float>& x, std::size_t plane,
               std::vector<float>& y) {
  const double n = static_cast<double>(op.gamma.size());
  for (std::size_t pixel = 0; pixel < plane; ++pixel) {
    double sum = 0, squares = 0;
    for (std::size_t i = pixel; i < x.size(); i += plane) sum += x[i];
    const double mean = sum / n;
    for (std::size_t i = pixel; i < x.size(); i += plane) squares += (x[i] - mean) * (x[i] - mean);
    const double by = 1.0 / std::sqrt(squares / n + op.epsilon);
    for (std::size_t c = 0, i = pixel; i < x.size(); ++c, i += plane) {
      y[i] = static_cast<float>((x[i] - mean) * by * op.gamma[c] + op.beta[c]);
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
            const int iy = oy / op.repeat_y * op.stride_y + ky - op.pad_top;
            const int ix = ox / op.repeat_x * op.stride_x + kx - op.pad_left;
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

int argmax(std::span<const float> values) noexcept {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

std::ptrdiff_t readers_of(const fgraph& graph, int t) {
  std::ptrdiff_t readers = graph.output.tensor == t ? 1 : 0;
  for (const fnode& node : graph.nodes) {
    readers += std::count(node.inputs.begin(), node.inputs.end(), t);
  }
  return readers;
}

float_executor::float_executor(fgraph graph) : graph_(std::move(graph)) {
  for (const ftensor& t : graph_.tensors) values_.emplace_back(t.size());
  for (const fnode& node : graph_.nodes) {
    if (const auto* constant = std::get_if<fconstant>(&node.op)) {
      values_[static_cast<std::size_t>(node.output)] = constant->values;
    }
  }
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
    if (std::holds_alternative<fconstant>(node.op)) continue;  // stands since the start
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
                          [&](const fproduct& op) {
                            const auto second = static_cast<std::size_t>(node.inputs.back());
                            product(op, ot, x, graph_.tensors[second], b, y);
                          },
                          [](const fconstant&) {}, [&](const fview&) { y = x; },
                          [&](const fjoin& op) {
                            auto to = y.begin();
                            const std::size_t planes =
                                op.pixels ? static_cast<std::size_t>(ot.c) : 1;
                            for (std::size_t c = 0; c < planes; ++c) {
                              for (const int t : node.inputs) {
                                const auto& part = values_[static_cast<std::size_t>(t)];
                                const std::size_t n = part.size() / planes;
                                to = std::transform(&part[c * n], &part[c * n] + n, to,
                                                    [&](float v) { return clip(op.clip, v); });
                              }
                            }
                          },
                          [&](const fsoftmax&) { softmax(x, plane, y); },
                          [&](const flayernorm& op) { normalise(op, x, plane, y); },
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
