#include "model/reference.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"

namespace latchkey::model {
namespace {

void maxpool(const qmaxpool& op, const qtensor& in, const std::vector<std::uint8_t>& x,
             const qtensor& out, std::vector<std::uint8_t>& y) {
  std::size_t at = 0;
  for (int c = 0; c < out.c; ++c) {
    const std::uint8_t* plane = x.data() + static_cast<std::ptrdiff_t>(c) * in.h * in.w;
    for (int oy = 0; oy < out.h; ++oy) {
      const int top = oy / op.repeat_y * op.stride_y - op.pad_top;
      const int y0 = std::max(top, 0);
      const int y1 = std::min(top + op.kernel_h, in.h);
      for (int ox = 0; ox < out.w; ++ox) {
        const int left = ox / op.repeat_x * op.stride_x - op.pad_left;
        const int x0 = std::max(left, 0);
        const int x1 = std::min(left + op.kernel_w, in.w);
        std::uint8_t best = 0;
        for (int iy = y0; iy < y1; ++iy) {
          for (int ix = x0; ix < x1; ++ix) best = std::max(best, plane[iy * in.w + ix]);
        }
        y[at++] = best;
      }
    }
  }
}

void depthwise(const qdepthwise& op, const qtensor& in, const std::vector<std::uint8_t>& x,
               const qtensor& out, std::vector<std::uint8_t>& y) {
  std::size_t at = 0;
  for (int c = 0; c < out.c; ++c) {
    const auto channel = static_cast<std::size_t>(c);
    const std::uint8_t* plane = x.data() + static_cast<std::ptrdiff_t>(c) * in.h * in.w;
    const std::int8_t* kernel =
        op.weights.data() + static_cast<std::ptrdiff_t>(c) * op.kernel_h * op.kernel_w;
    for (int oy = 0; oy < out.h; ++oy) {
      const int top = oy * op.stride_y - op.pad_top;
      for (int ox = 0; ox < out.w; ++ox) {
        const int left = ox * op.stride_x - op.pad_left;
        std::int32_t acc = op.bias[channel];
        for (int iy = std::max(top, 0); iy < std::min(top + op.kernel_h, in.h); ++iy) {
          for (int ix = std::max(left, 0); ix < std::min(left + op.kernel_w, in.w); ++ix) {
            acc += (plane[iy * in.w + ix] - in.zero_point) *
                   kernel[(iy - top) * op.kernel_w + ix - left];
          }
        }
        y[at++] = requantise(op.scale[channel], acc, out.zero_point, op.clamp_lo, op.clamp_hi);
      }
    }
  }
}

void avgpool(const qavgpool& op, const qtensor& in, const std::vector<std::uint8_t>& x,
             const qtensor& out, std::vector<std::uint8_t>& y) {
  std::size_t at = 0;
  for (int c = 0; c < out.c; ++c) {
    const std::uint8_t* plane = x.data() + static_cast<std::ptrdiff_t>(c) * in.h * in.w;
    for (int oy = 0; oy < out.h; ++oy) {
      const int top = oy * op.stride_y - op.pad_top;
      for (int ox = 0; ox < out.w; ++ox) {
        const int left = ox * op.stride_x - op.pad_left;
        std::int32_t acc = 0;
        for (int iy = std::max(top, 0); iy < std::min(top + op.kernel_h, in.h); ++iy) {
          for (int ix = std::max(left, 0); ix < std::min(left + op.kernel_w, in.w); ++ix) {
            acc += plane[iy * in.w + ix] - in.zero_point;
          }
        }
        y[at++] = requantise(op.scale, acc, out.zero_point, op.clamp_lo, op.clamp_hi);
      }
    }
  }
}

void add(const qadd& op, const qtensor& out, const std::vector<std::uint8_t>& a,
         const std::vector<std::uint8_t>& b, std::vector<std::uint8_t>& y) {
  const std::int64_t lo = op.clamp_lo - 128;
  const std::int64_t hi = op.clamp_hi - 128;
  const std::int64_t mult_b = op.negate_b ? -op.mult_b : op.mult_b;
  const std::size_t plane = op.broadcast_b ? out.size() / static_cast<std::size_t>(out.c) : 1;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::int64_t t = (static_cast<std::int64_t>(a[i]) - 128) * op.mult_a +
                           (static_cast<std::int64_t>(b[i / plane]) - 128) * mult_b + op.offset;
    y[i] = static_cast<std::uint8_t>(std::clamp(rne_shift(t, op.shift), lo, hi) + 128);
  }
}

void mul(const qmul& op, const qtensor& in_a, const std::vector<std::uint8_t>& a,
         const qtensor& in_b, const std::vector<std::uint8_t>& b, const qtensor& out,
         std::vector<std::uint8_t>& y) {
  const std::size_t plane = op.broadcast ? out.size() / static_cast<std::size_t>(out.c) : 1;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::int32_t acc = (a[i] - in_a.zero_point) * (b[i / plane] - in_b.zero_point);
    y[i] = requantise(op.scale, acc, out.zero_point, op.clamp_lo, op.clamp_hi);
  }
}

void product(const qproduct& op, const std::vector<std::uint8_t>& a, const qtensor& in_b,
             const std::vector<std::uint8_t>& b, const qtensor& out, std::vector<std::uint8_t>& y) {
  const auto heads = static_cast<std::size_t>(op.heads);
  const auto tokens = static_cast<std::size_t>(out.w);
  const auto keys = static_cast<std::size_t>(in_b.w);
  const std::size_t depth = static_cast<std::size_t>(in_b.c) / heads;
  const auto value = [](std::uint8_t byte) { return static_cast<std::int32_t>(byte) - 128; };
  const auto weight = [&](std::size_t channel, std::size_t key) {
    return std::max(value(b[channel * keys + key]), -127);
  };
  const auto put = [&](std::size_t at, std::int32_t acc) {
    y[at] = requantise(op.scale, acc, out.zero_point, op.clamp_lo, op.clamp_hi);
  };
  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t t = 0; t < tokens; ++t) {
      if (op.transposed) {
        for (std::size_t s = 0; s < keys; ++s) {
          std::int32_t acc = 0;
          for (std::size_t k = h * depth; k < (h + 1) * depth; ++k)
            acc += value(a[k * tokens + t]) * weight(k, s);
          put((s * heads + h) * tokens + t, acc);
        }
      } else {
        for (std::size_t k = h * depth; k < (h + 1) * depth; ++k) {
          std::int32_t acc = 0;
          for (std::size_t s = 0; s < keys; ++s)
            acc += value(a[(s * heads + h) * tokens + t]) * weight(k, s);
          put(k * tokens + t, acc);
        }
      }
    }
  }
}

void softmax(const qsoftmax& op, const std::vector<std::uint8_t>& x, const qtensor& out,
             std::vector<std::uint8_t>& y) {
  const std::size_t plane = static_cast<std::size_t>(out.h) * static_cast<std::size_t>(out.w);
  for (std::size_t pixel = 0; pixel < plane; ++pixel) {
    std::uint8_t most = 0;
    for (std::size_t i = pixel; i < x.size(); i += plane) most = std::max(most, x[i]);
    std::uint64_t sum = 0;
    for (std::size_t i = pixel; i < x.size(); i += plane)
      sum += op.entries[static_cast<std::size_t>(most - x[i])];
    requant scale;
    scale.multiplier =
        static_cast<std::uint32_t>((std::uint64_t{reciprocal(sum)} * op.scale.multiplier) >> 17);
    scale.shift = static_cast<std::uint8_t>(op.scale.shift + std::bit_width(sum) - 1);
    for (std::size_t i = pixel; i < x.size(); i += plane) {
      y[i] = requantise(scale, op.entries[static_cast<std::size_t>(most - x[i])], out.zero_point, 0,
                        255);
    }
  }
}

void layernorm(const qlayernorm& op, const std::vector<std::uint8_t>& x, const qtensor& out,
               std::vector<std::uint8_t>& y) {
  const std::size_t plane = static_cast<std::size_t>(out.h) * static_cast<std::size_t>(out.w);
  for (std::size_t pixel = 0; pixel < plane; ++pixel) {
    std::int64_t sum = 0, squares = 0;
    for (std::size_t i = pixel; i < x.size(); i += plane) {
      const std::int64_t v = std::int64_t{x[i]} - 128;
      sum += v;
      squares += v * v;
    }
    const auto variance = static_cast<std::uint64_t>(out.c * squares - sum * sum) + op.epsilon;
    for (std::size_t c = 0, i = pixel; i < x.size(); ++c, i += plane) {
      const auto d = static_cast<std::int32_t>(out.c * (std::int64_t{x[i]} - 128) - sum);
      const std::int32_t z = normalised(d, variance);
      y[i] =
          requantise(op.scale[c], (op.negative[c] ? -z : z) + op.bias[c], out.zero_point, 0, 255);
    }
  }
}

/// Writes a part of a join, or a plane of it, from y on; returns where the next one begins.
std::uint8_t* join(const qjoin& op, const requant& scale, const qtensor& in,
                   std::span<const std::uint8_t> x, const qtensor& out, std::uint8_t* y) {
  return std::transform(x.begin(), x.end(), y, [&](std::uint8_t byte) {
    return requantise(scale, byte - in.zero_point, out.zero_point, op.clamp_lo, op.clamp_hi);
  });
}

template <typename... F>
struct overloaded : F... {
  using F::operator()...;
};
template <typename... F>
overloaded(F...) -> overloaded<F...>;

}  // namespace

std::vector<std::uint8_t> quantise_input(const qgraph& graph, std::span<const float> image) {
  const qtensor& t = graph.input_tensor();
  if (graph.input.type != io_type::f32 || image.size() != t.size()) {
    throw error(errc::mismatch,
                format("input '{}' of '{}' takes {} {} values per image, not {} float values",
                       graph.input.name, graph.name, t.size(),
                       graph.input.type == io_type::f32 ? "float" : "integer", image.size()));
  }
  std::vector<std::uint8_t> bytes(image.size());
  std::transform(image.begin(), image.end(), bytes.begin(),
                 [&](float v) { return quantise_value(v, t.scale, t.zero_point); });
  return bytes;
}

std::vector<float> dequantise_output(const qgraph& graph, std::span<const std::uint8_t> bytes) {
  const qtensor& t = graph.output_tensor();
  std::vector<float> values(bytes.size());
  std::transform(bytes.begin(), bytes.end(), values.begin(), [&](std::uint8_t b) {
    return static_cast<float>(static_cast<int>(b) - t.zero_point) * t.scale;
  });
  return values;
}

int argmax(std::span<const std::uint8_t> values) noexcept {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

reference::reference(qgraph graph) : graph_(std::move(graph)) {
  validate(graph_);
  for (const qtensor& t : graph_.tensors) values_.emplace_back(t.size());
  for (const qnode& node : graph_.nodes) {
    weights_.emplace_back();
    if (const auto* constant = std::get_if<qconstant>(&node.op)) {
      values_[static_cast<std::size_t>(node.output)] = constant->values;
    }
    if (const auto* conv = std::get_if<qconv>(&node.op)) {
      weights_.back().assign(conv->weights.begin(), conv->weights.end());
    }
  }
}

void reference::conv(const qconv& op, const std::vector<std::int16_t>& weights, const qtensor& in,
                     const std::vector<std::uint8_t>& x, const qtensor& out,
                     std::vector<std::uint8_t>& y) {
  const auto zx = static_cast<std::int16_t>(in.zero_point);
  const auto finish = [&](int o, std::int32_t acc) {
    return requantise(op.scale[static_cast<std::size_t>(o)], acc, out.zero_point, op.clamp_lo,
                      op.clamp_hi);
  };

  if (op.transposed) {  // Tap by tap: one of them makes a pixel of its own.
    const auto plane = static_cast<std::size_t>(in.h) * static_cast<std::size_t>(in.w);
    const int taps = op.kernel_h * op.kernel_w;
    for (int o = 0; o < out.c; ++o) {
      for (int tap = 0; tap < taps; ++tap) {
        acc_.assign(plane, op.bias[static_cast<std::size_t>(o)]);
        for (int c = 0; c < in.c; ++c) {
          const std::int32_t w = weights[static_cast<std::size_t>((o * in.c + c) * taps + tap)];
          const std::uint8_t* src = x.data() + static_cast<std::size_t>(c) * plane;
          for (std::size_t p = 0; p < plane; ++p) acc_[p] += w * (src[p] - zx);
        }
        for (int p = 0; p < in.h * in.w; ++p) {
          const int oy = p / in.w * op.stride_y + tap / op.kernel_w;
          const int ox = p % in.w * op.stride_x + tap % op.kernel_w;
          y[(static_cast<std::size_t>(o) * out.h + oy) * out.w + ox] =
              finish(o, acc_[static_cast<std::size_t>(p)]);
        }
      }
    }
    return;
  }

  const bool whole = op.kernel_h == in.h && op.kernel_w == in.w && op.pad_top == 0 &&
                     op.pad_left == 0 && op.pad_bottom == 0 && op.pad_right == 0;
  if (whole) {  // One dot product per channel.
    const std::size_t k = x.size();
    padded_.resize(k);
    for (std::size_t i = 0; i < k; ++i) padded_[i] = static_cast<std::int16_t>(x[i] - zx);
    for (int o = 0; o < out.c; ++o) {
      const std::int16_t* w = weights.data() + static_cast<std::size_t>(o) * k;
      const std::int16_t* p = padded_.data();
      std::int32_t sum = 0;
      for (std::size_t i = 0; i < k; ++i) sum += static_cast<std::int32_t>(p[i]) * w[i];
      y[static_cast<std::size_t>(o)] = finish(o, sum + op.bias[static_cast<std::size_t>(o)]);
    }
    return;
  }

  // Zero-point-corrected planes with their padding, so that the loops below know no borders. The
  // accumulators use the padded width as row pitch: for stride 1 one tap is then a single long
  // multiply-add over a whole plane. The columns between out.w and the pitch are never read.
  const std::size_t pw = static_cast<std::size_t>(in.w + op.pad_left + op.pad_right);
  const std::size_t ph = static_cast<std::size_t>(in.h + op.pad_top + op.pad_bottom);
  padded_.assign(static_cast<std::size_t>(in.c) * ph * pw, 0);
  for (int c = 0; c < in.c; ++c) {
    for (int iy = 0; iy < in.h; ++iy) {
      const std::uint8_t* src = x.data() + (static_cast<std::size_t>(c) * in.h + iy) * in.w;
      std::int16_t* dst =
          padded_.data() + (static_cast<std::size_t>(c) * ph + iy + op.pad_top) * pw + op.pad_left;
      for (int ix = 0; ix < in.w; ++ix) dst[ix] = static_cast<std::int16_t>(src[ix] - zx);
    }
  }
  const std::size_t sy = static_cast<std::size_t>(op.stride_y);
  const std::size_t sx = static_cast<std::size_t>(op.stride_x);
  const std::size_t oh = static_cast<std::size_t>(out.h);
  const std::size_t ow = static_cast<std::size_t>(out.w);
  const bool dense = sy == 1 && sx == 1;
  const std::size_t pitch = dense ? pw : ow;
  const std::size_t span = (oh - 1) * pitch + ow;  // From the first to the last output pixel.
  acc_.resize(span);
  for (int o = 0; o < out.c; ++o) {
    std::fill(acc_.begin(), acc_.end(), op.bias[static_cast<std::size_t>(o)]);
    const std::int16_t* w =
        weights.data() + static_cast<std::size_t>(o) * in.c * op.kernel_h * op.kernel_w;
    std::int32_t* acc = acc_.data();
    for (int c = 0; c < in.c; ++c) {
      for (int ky = 0; ky < op.kernel_h; ++ky) {
        for (int kx = 0; kx < op.kernel_w; ++kx) {
          const std::int32_t tap = *w++;
          const std::int16_t* src =
              padded_.data() + (static_cast<std::size_t>(c) * ph + ky) * pw + kx;
          if (tap == 0) continue;
          if (dense) {
            for (std::size_t i = 0; i < span; ++i) acc[i] += tap * src[i];
          } else {
            for (std::size_t oy = 0; oy < oh; ++oy) {
              const std::int16_t* row = src + oy * sy * pw;
              for (std::size_t ox = 0; ox < ow; ++ox) acc[oy * ow + ox] += tap * row[ox * sx];
            }
          }
        }
      }
    }
    std::uint8_t* dst = y.data() + static_cast<std::size_t>(o) * oh * ow;
    for (std::size_t oy = 0; oy < oh; ++oy) {
      for (std::size_t ox = 0; ox < ow; ++ox) *dst++ = finish(o, acc[oy * pitch + ox]);
    }
  }
}

const std::vector<std::vector<std::uint8_t>>& reference::run(std::span<const std::uint8_t> image) {
  auto& first = values_[static_cast<std::size_t>(graph_.input.tensor)];
  if (image.size() != first.size()) {
    throw error(errc::mismatch, format("input '{}' of '{}' takes {} bytes per image, not {}",
                                       graph_.input.name, graph_.name, first.size(), image.size()));
  }
  std::copy(image.begin(), image.end(), first.begin());
  for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
    const qnode& node = graph_.nodes[n];
    if (std::holds_alternative<qconstant>(node.op)) continue;  // stands since the start
    const auto first_in = static_cast<std::size_t>(node.inputs[0]);
    const auto second_in = static_cast<std::size_t>(node.inputs.back());
    const auto written = static_cast<std::size_t>(node.output);
    const qtensor& in = graph_.tensors[first_in];
    const qtensor& out = graph_.tensors[written];
    const std::vector<std::uint8_t>& x = values_[first_in];
    const std::vector<std::uint8_t>& b = values_[second_in];
    std::vector<std::uint8_t>& y = values_[written];
    std::visit(
        overloaded{
            [&](const qconv& op) { conv(op, weights_[n], in, x, out, y); },
            [&](const qmaxpool& op) { maxpool(op, in, x, out, y); },
            [&](const qadd& op) { add(op, out, x, b, y); },
            [&](const qdepthwise& op) { depthwise(op, in, x, out, y); },
            [&](const qavgpool& op) { avgpool(op, in, x, out, y); },
            [&](const qmul& op) { mul(op, in, x, graph_.tensors[second_in], b, out, y); },
            [&](const qproduct& op) { product(op, x, graph_.tensors[second_in], b, out, y); },
            [&](const qsoftmax& op) { softmax(op, x, out, y); },
            [&](const qlayernorm& op) { layernorm(op, x, out, y); }, [](const qconstant&) {},
            [&](const qview&) { y = x; },
            [&](const qjoin& op) {
              std::uint8_t* to = y.data();
              const std::size_t planes = op.pixels ? static_cast<std::size_t>(out.c) : 1;
              for (std::size_t c = 0; c < planes; ++c) {
                for (std::size_t i = 0; i < node.inputs.size(); ++i) {
                  const auto part = static_cast<std::size_t>(node.inputs[i]);
                  const std::span<const std::uint8_t> bytes(values_[part]);
                  const std::size_t n = bytes.size() / planes;
                  to =
                      join(op, op.scale[i], graph_.tensors[part], bytes.subspan(c * n, n), out, to);
                }
              }
            },
            [&](const qtable& op) {
              std::transform(x.begin(), x.end(), y.begin(),
                             [&](std::uint8_t v) { return op.entries[v]; });
            }},
        node.op);
  }
  return values_;
}

std::span<const std::uint8_t> reference::infer(std::span<const std::uint8_t> image) {
  return run(image)[static_cast<std::size_t>(graph_.output.tensor)];
}

}  // namespace latchkey::model
