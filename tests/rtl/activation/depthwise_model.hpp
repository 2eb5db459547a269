// Depthwise convolution as its definition says, and the packing of its pages.
#pragma once

#include "engine_model.hpp"

namespace latchkey::test {

struct depthwise {
  int kh = 1, kw = 1, sy = 1, sx = 1, pt = 0, pl = 0, out_h = 1, out_w = 1, c = 1;
  std::int8_t pad_value = 0, zero = 0, lo = -128, hi = 127;
  std::vector<std::int8_t> weights;  // [c][kh][kw]
  std::vector<std::int32_t> bias;
  std::vector<std::uint32_t> mult;
  std::vector<std::uint8_t> shift;

  std::int8_t weight(int ch, int ky, int kx) const {
    return weights[(static_cast<std::size_t>(ch) * kh + ky) * kw + kx];
  }
};

inline tensor golden(const depthwise& k, const tensor& in) {
  tensor out(in.n, k.out_h, k.out_w, k.c);
  for (int i = 0; i < in.n; ++i) {
    for (int oy = 0; oy < k.out_h; ++oy) {
      for (int ox = 0; ox < k.out_w; ++ox) {
        for (int ch = 0; ch < k.c; ++ch) {
          std::int32_t acc = k.bias[ch];
          for (int ky = 0; ky < k.kh; ++ky) {
            for (int kx = 0; kx < k.kw; ++kx) {
              const int iy = oy * k.sy + ky - k.pt, ix = ox * k.sx + kx - k.pl;
              const bool inside = iy >= 0 && iy < in.h && ix >= 0 && ix < in.w;
              acc += (inside ? in.at(i, iy, ix, ch) : k.pad_value) * k.weight(ch, ky, kx);
            }
          }
          const std::int64_t p = round24(acc) * static_cast<std::int64_t>(k.mult[ch]);
          out.at(i, oy, ox, ch) = clamp8(shift_even(round24(p), k.shift[ch]) + k.zero, k.lo, k.hi);
        }
      }
    }
  }
  return out;
}

inline spec::descriptor describe(const depthwise& k, const layout& in, const layout& out) {
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::depthwise);
  set_input(d, in);
  set_output(d, out);
  d.kernel_h = k.kh, d.kernel_w = k.kw, d.stride_y = k.sy, d.stride_x = k.sx;
  d.pad_top = k.pt, d.pad_left = k.pl, d.pad_value = static_cast<std::uint8_t>(k.pad_value);
  d.taps = k.kh * k.kw * in.cb;
  d.k_tiles = 1;
  d.n_tiles = out.cb;
  d.param_pages = (k.c + 255) / 256;
  d.clamp_lo = static_cast<std::uint8_t>(k.lo), d.clamp_hi = static_cast<std::uint8_t>(k.hi);
  d.out_zero = static_cast<std::uint8_t>(k.zero);
  return d;
}

// Parameter pages, then one page of weights per channel block. What the contract calls padding
// (channels that do not exist, beats behind the last tap) holds anything: it must not matter.
inline std::vector<page> pages_of(const depthwise& k, std::mt19937& rng) {
  std::vector<page> out;
  const auto noise = [&rng] {
    page pg{};
    for (auto& b : pg) b = static_cast<std::uint8_t>(rng());
    return pg;
  };
  for (int p = 0; p < (k.c + 255) / 256; ++p) {
    page pg = noise();
    for (int i = 0; i < 256 && p * 256 + i < k.c; ++i) {
      const int ch = p * 256 + i;
      std::uint8_t* e = &pg[i * 16];
      for (int b = 0; b < 4; ++b) {
        e[b] = static_cast<std::uint8_t>(static_cast<std::uint32_t>(k.bias[ch]) >> (8 * b));
        e[4 + b] = static_cast<std::uint8_t>(k.mult[ch] >> (8 * b));
      }
      e[8] = k.shift[ch];
    }
    out.push_back(pg);
  }
  for (int first = 0; first < k.c; first += 64) {
    page pg = noise();
    for (int ch = first; ch < std::min(first + 64, k.c); ++ch) {
      for (int t = 0; t < k.kh * k.kw; ++t) {
        pg[t * 64 + ch - first] = static_cast<std::uint8_t>(k.weight(ch, t / k.kw, t % k.kw));
      }
    }
    out.push_back(pg);
  }
  return out;
}

inline void randomise(depthwise& k, std::mt19937& rng) {
  const int taps = k.kh * k.kw;
  k.weights.resize(static_cast<std::size_t>(k.c) * taps);
  for (auto& w : k.weights) w = static_cast<std::int8_t>(pick(rng, -127, 127));
  k.bias.resize(k.c), k.mult.resize(k.c), k.shift.resize(k.c);
  const double sigma = 5400.0 * std::sqrt(static_cast<double>(taps));
  for (int ch = 0; ch < k.c; ++ch) {
    k.bias[ch] = pick(rng, -20000, 20000);
    k.mult[ch] = rng() % 32 == 0 ? 0 : (1u << 23) + rng() % (1u << 23);
    const int s = static_cast<int>(std::lround(std::log2(12.0e6 * sigma / 70.0)));
    k.shift[ch] = static_cast<std::uint8_t>(std::clamp(s + pick(rng, -1, 1), 0, 63));
  }
  k.pad_value = static_cast<std::int8_t>(rng());
  k.zero = static_cast<std::int8_t>(pick(rng, -60, 60));
  k.lo = rng() % 2 ? k.zero : std::int8_t{-128};
  k.hi = rng() % 4 ? std::int8_t{127} : std::int8_t{100};
}

// A layer over an input of n x h x w whose padding at bottom and right is at most pb and pr; false
// if there is no output, or a window outside the input.
inline bool fit(depthwise& k, int h, int w, int pb, int pr) {
  const int hh = h + k.pt + pb - k.kh, ww = w + k.pl + pr - k.kw;
  if (hh < 0 || ww < 0) return false;
  k.out_h = hh / k.sy + 1, k.out_w = ww / k.sx + 1;
  return (k.out_h - 1) * k.sy < h + k.pt && (k.out_w - 1) * k.sx < w + k.pl;
}

inline std::pair<depthwise, tensor> random_depthwise(std::mt19937& rng) {
  for (;;) {
    depthwise k;
    k.kh = pick(rng, 1, 7), k.kw = pick(rng, 1, 7), k.sy = pick(rng, 1, 3), k.sx = pick(rng, 1, 3);
    if (rng() % 2) k.kh = k.kw = pick(rng, 1, 3);
    if (rng() % 3 == 0) k.sy = k.sx = 1;
    k.pt = pick(rng, 0, k.kh - 1), k.pl = pick(rng, 0, k.kw - 1);
    k.c = pick(rng, 1, 130);
    const int h = pick(rng, 1, 30), w = pick(rng, 1, 30), n = pick(rng, 1, 3);
    if (!fit(k, h, w, pick(rng, 0, k.kh - 1), pick(rng, 0, k.kw - 1))) continue;
    randomise(k, rng);
    return {k, random_tensor(rng, n, h, w, k.c)};
  }
}

}  // namespace latchkey::test
