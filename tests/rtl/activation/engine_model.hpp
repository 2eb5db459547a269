// Golden model of the engine's operations over logical tensors, and the packing of tensors, weights
// and parameters into what the engine reads. The model knows nothing of addresses: it loops over
// images, pixels and channels as the definition of each operation does.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "latchkey_spec.hpp"

namespace latchkey::test {

using word = std::array<std::uint8_t, 64>;

// int8 activations, NHWC.
struct tensor {
  int n = 0, h = 0, w = 0, c = 0;
  std::vector<std::int8_t> v;

  tensor() = default;
  tensor(int n_, int h_, int w_, int c_)
      : n(n_), h(h_), w(w_), c(c_), v(static_cast<std::size_t>(n_) * h_ * w_ * c_) {}
  std::int8_t& at(int i, int y, int x, int ch) {
    return v[((static_cast<std::size_t>(i) * h + y) * w + x) * c + ch];
  }
  std::int8_t at(int i, int y, int x, int ch) const {
    return v[((static_cast<std::size_t>(i) * h + y) * w + x) * c + ch];
  }
};

// Where and how a tensor lies in the scratchpad.
struct layout {
  std::uint32_t h = 0, w = 0, c = 0, cp_log2 = 0, cb = 0, c_last = 0, base = 0, stride = 0;

  static layout of(int h, int w, int c, std::uint32_t base, std::uint32_t slack = 0) {
    layout l;
    l.h = h, l.w = w, l.c = c, l.base = base;
    if (c > 32) {
      l.cp_log2 = 6;
      l.cb = (c + 63) / 64;
      l.c_last = c - (l.cb - 1) * 64;
    } else {
      while ((1 << l.cp_log2) < c) ++l.cp_log2;
      l.cb = 1;
      l.c_last = c;
    }
    l.stride = (h * w * l.pitch() + 63) / 64 + slack;
    return l;
  }
  std::uint32_t pitch() const { return cb << cp_log2; }
  std::size_t byte(int y, int x, int ch) const {
    const int block = ch >> cp_log2;
    return ((static_cast<std::size_t>(y) * w + x) * cb + block) * (std::size_t{1} << cp_log2) +
           (ch - (block << cp_log2));
  }
  std::vector<word> pack(const tensor& t, std::mt19937& rng) const {
    std::vector<word> out(static_cast<std::size_t>(t.n) * stride);
    for (auto& wd : out) {
      for (auto& b : wd) b = static_cast<std::uint8_t>(rng());  // padding holds anything
    }
    for (int i = 0; i < t.n; ++i) {
      for (int y = 0; y < t.h; ++y) {
        for (int x = 0; x < t.w; ++x) {
          for (int ch = 0; ch < t.c; ++ch) {
            const std::size_t b = byte(y, x, ch);
            out[static_cast<std::size_t>(i) * stride + b / 64][b % 64] =
                static_cast<std::uint8_t>(t.at(i, y, x, ch));
          }
        }
      }
    }
    return out;
  }
  tensor unpack(const std::vector<word>& words, int n) const {
    tensor t(n, h, w, c);
    for (int i = 0; i < n; ++i) {
      for (int y = 0; y < t.h; ++y) {
        for (int x = 0; x < t.w; ++x) {
          for (int ch = 0; ch < t.c; ++ch) {
            const std::size_t b = byte(y, x, ch);
            t.at(i, y, x, ch) = static_cast<std::int8_t>(
                words.at(static_cast<std::size_t>(i) * stride + b / 64)[b % 64]);
          }
        }
      }
    }
    return t;
  }
};

struct conv {
  int kh = 1, kw = 1, sy = 1, sx = 1, pt = 0, pl = 0, out_h = 1, out_w = 1, c = 1, cout = 1;
  std::int8_t pad_value = 0, zero = 0, lo = -128, hi = 127;
  std::vector<std::int8_t> weights;  // [cout][kh][kw][c]
  std::vector<std::int32_t> bias;
  std::vector<std::uint32_t> mult;
  std::vector<std::uint8_t> shift;

  std::int8_t weight(int co, int ky, int kx, int ch) const {
    return weights[((static_cast<std::size_t>(co) * kh + ky) * kw + kx) * c + ch];
  }
};

// |v| to 24 significant bits, half to even.
inline std::int64_t round24(std::int64_t v) {
  const bool neg = v < 0;
  std::uint64_t a = neg ? static_cast<std::uint64_t>(-v) : static_cast<std::uint64_t>(v);
  int drop = 0;
  while ((a >> drop) >= (1u << 24)) ++drop;
  if (drop > 0) {
    const std::uint64_t rest = a & ((std::uint64_t{1} << drop) - 1);
    const std::uint64_t half = std::uint64_t{1} << (drop - 1);
    std::uint64_t q = a >> drop;
    if (rest > half || (rest == half && (q & 1))) ++q;
    a = q << drop;
  }
  return neg ? -static_cast<std::int64_t>(a) : static_cast<std::int64_t>(a);
}

// v / 2^s, half to even.
inline std::int64_t shift_even(std::int64_t v, int s) {
  if (s == 0) return v;
  const std::int64_t q = v >> s;
  const auto rest = static_cast<std::uint64_t>(v) & ((std::uint64_t{1} << s) - 1);
  const std::uint64_t half = std::uint64_t{1} << (s - 1);
  return q + ((rest > half || (rest == half && (q & 1))) ? 1 : 0);
}

inline std::int8_t clamp8(std::int64_t v, std::int8_t lo, std::int8_t hi) {
  return static_cast<std::int8_t>(std::clamp<std::int64_t>(v, lo, hi));
}

inline tensor golden(const conv& k, const tensor& in) {
  tensor out(in.n, k.out_h, k.out_w, k.cout);
  for (int i = 0; i < in.n; ++i) {
    for (int oy = 0; oy < k.out_h; ++oy) {
      for (int ox = 0; ox < k.out_w; ++ox) {
        for (int co = 0; co < k.cout; ++co) {
          std::int32_t acc = k.bias[co];
          for (int ky = 0; ky < k.kh; ++ky) {
            for (int kx = 0; kx < k.kw; ++kx) {
              const int iy = oy * k.sy + ky - k.pt, ix = ox * k.sx + kx - k.pl;
              const bool inside = iy >= 0 && iy < in.h && ix >= 0 && ix < in.w;
              for (int ch = 0; ch < k.c; ++ch) {
                acc += (inside ? in.at(i, iy, ix, ch) : k.pad_value) * k.weight(co, ky, kx, ch);
              }
            }
          }
          const std::int64_t p = round24(acc) * static_cast<std::int64_t>(k.mult[co]);
          out.at(i, oy, ox, co) = clamp8(shift_even(round24(p), k.shift[co]) + k.zero, k.lo, k.hi);
        }
      }
    }
  }
  return out;
}

struct pool {
  int kh = 1, kw = 1, sy = 1, sx = 1, pt = 0, pl = 0, out_h = 1, out_w = 1;
};

inline tensor golden(const pool& p, const tensor& in) {
  tensor out(in.n, p.out_h, p.out_w, in.c);
  for (int i = 0; i < in.n; ++i) {
    for (int oy = 0; oy < p.out_h; ++oy) {
      for (int ox = 0; ox < p.out_w; ++ox) {
        for (int ch = 0; ch < in.c; ++ch) {
          int m = -128;
          for (int iy = oy * p.sy - p.pt; iy < oy * p.sy - p.pt + p.kh; ++iy) {
            for (int ix = ox * p.sx - p.pl; ix < ox * p.sx - p.pl + p.kw; ++ix) {
              if (iy < 0 || iy >= in.h || ix < 0 || ix >= in.w) continue;
              m = std::max<int>(m, in.at(i, iy, ix, ch));
            }
          }
          out.at(i, oy, ox, ch) = static_cast<std::int8_t>(m);
        }
      }
    }
  }
  return out;
}

// A requantisation in float32, as ONNX Runtime does it: the hardware has no float.
struct post {
  std::uint32_t mult = 1u << 23;
  int shift = 23;
  std::int8_t zero = 0, lo = -128, hi = 127;

  std::int8_t operator()(std::int32_t acc) const {
    const float m = std::ldexp(static_cast<float>(mult), -shift);
    const volatile float product = static_cast<float>(acc) * m;  // volatile: rounded here
    return static_cast<std::int8_t>(std::clamp(std::nearbyintf(product) + static_cast<float>(zero),
                                               static_cast<float>(lo), static_cast<float>(hi)));
  }
};

struct average : pool {
  std::int8_t in_zero = 0;
  post out;
};

inline tensor golden(const average& p, const tensor& in) {
  tensor out(in.n, p.out_h, p.out_w, in.c);
  for (int i = 0; i < in.n; ++i) {
    for (int oy = 0; oy < p.out_h; ++oy) {
      for (int ox = 0; ox < p.out_w; ++ox) {
        for (int ch = 0; ch < in.c; ++ch) {
          std::int32_t sum = 0;
          for (int iy = oy * p.sy - p.pt; iy < oy * p.sy - p.pt + p.kh; ++iy) {
            for (int ix = ox * p.sx - p.pl; ix < ox * p.sx - p.pl + p.kw; ++ix) {
              if (iy < 0 || iy >= in.h || ix < 0 || ix >= in.w) continue;
              sum += in.at(i, iy, ix, ch) - p.in_zero;
            }
          }
          out.at(i, oy, ox, ch) = p.out(sum);
        }
      }
    }
  }
  return out;
}

// op(a, b) for every element; b may have one pixel that stands for all.
template <class Op>
tensor elementwise(const tensor& a, const tensor& b, Op op) {
  tensor out = a;
  const bool one = b.h == 1 && b.w == 1;
  for (int i = 0; i < a.n; ++i) {
    for (int y = 0; y < a.h; ++y) {
      for (int x = 0; x < a.w; ++x) {
        for (int ch = 0; ch < a.c; ++ch) {
          out.at(i, y, x, ch) = op(a.at(i, y, x, ch), one ? b.at(i, 0, 0, ch) : b.at(i, y, x, ch));
        }
      }
    }
  }
  return out;
}

struct addition {
  std::uint16_t mult_a = 1, mult_b = 1;
  std::int32_t offset = 0;
  int shift = 0;
  bool negate = false;
  std::int8_t lo = -128, hi = 127;
};

inline tensor golden(const addition& k, const tensor& a, const tensor& b) {
  return elementwise(a, b, [&](std::int8_t va, std::int8_t vb) {
    const std::int64_t second = (k.negate ? -1 : 1) * std::int64_t{vb} * k.mult_b;
    const std::int64_t t = std::int64_t{va} * k.mult_a + second + k.offset;
    return clamp8(shift_even(static_cast<std::int32_t>(t), k.shift), k.lo, k.hi);
  });
}

struct product {
  std::int8_t zero_a = 0, zero_b = 0;
  post out;
};

inline tensor golden(const product& k, const tensor& a, const tensor& b) {
  return elementwise(a, b, [&](std::int8_t va, std::int8_t vb) {
    return k.out((va - k.zero_a) * (vb - k.zero_b));
  });
}

// Entry e stands for the stored byte e, i.e. for the int8 value e - 256 * (e > 127).
struct lookup {
  std::array<std::uint8_t, 256> entries{};
};

inline tensor golden(const lookup& k, const tensor& in) {
  tensor out = in;
  for (auto& v : out.v) {
    v = static_cast<std::int8_t>(k.entries[static_cast<std::uint8_t>(v)]);
  }
  return out;
}

// ---- Descriptors ----

inline void set_input(spec::descriptor& d, const layout& l) {
  d.in_base = l.base, d.in_stride = l.stride, d.in_h = l.h, d.in_w = l.w;
  d.in_cb = l.cb, d.in_cp_log2 = l.cp_log2, d.in_c_last = l.c_last;
}
inline void set_output(spec::descriptor& d, const layout& l) {
  d.out_base = l.base, d.out_stride = l.stride, d.out_h = l.h, d.out_w = l.w;
  d.out_cb = l.cb, d.out_cp_log2 = l.cp_log2, d.out_c_last = l.c_last;
}
inline spec::descriptor describe(const conv& k, const layout& in, const layout& out) {
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::mat_mul);
  set_input(d, in);
  set_output(d, out);
  d.kernel_h = k.kh, d.kernel_w = k.kw, d.stride_y = k.sy, d.stride_x = k.sx;
  d.pad_top = k.pt, d.pad_left = k.pl, d.pad_value = static_cast<std::uint8_t>(k.pad_value);
  d.taps = k.kh * k.kw * in.cb;
  const std::uint32_t per_tile = 64u >> in.cp_log2;
  d.k_tiles = (d.taps + per_tile - 1) / per_tile;
  d.n_tiles = (k.cout + 63) / 64;
  d.param_pages = (k.cout + 255) / 256;
  d.clamp_lo = static_cast<std::uint8_t>(k.lo), d.clamp_hi = static_cast<std::uint8_t>(k.hi);
  d.out_zero = static_cast<std::uint8_t>(k.zero);
  return d;
}
inline spec::descriptor describe(const pool& p, const layout& in, const layout& out) {
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::max_pool);
  set_input(d, in);
  set_output(d, out);
  d.kernel_h = p.kh, d.kernel_w = p.kw, d.stride_y = p.sy, d.stride_x = p.sx;
  d.pad_top = p.pt, d.pad_left = p.pl;
  return d;
}
inline spec::descriptor describe(const addition& k, const layout& a, const layout& b,
                                 const layout& out) {
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::add);
  set_input(d, a);
  d.in2_base = b.base, d.in2_stride = b.stride;
  set_output(d, out);
  d.add_mult_a = k.mult_a, d.add_mult_b = k.mult_b;
  d.add_offset = static_cast<std::uint32_t>(k.offset), d.add_shift = k.shift;
  d.in2_negate = k.negate, d.in2_broadcast = b.h == 1 && b.w == 1;
  d.clamp_lo = static_cast<std::uint8_t>(k.lo), d.clamp_hi = static_cast<std::uint8_t>(k.hi);
  return d;
}
inline void set_post(spec::descriptor& d, const post& p) {
  d.vec_mult = p.mult, d.vec_shift = p.shift, d.out_zero = static_cast<std::uint8_t>(p.zero);
  d.clamp_lo = static_cast<std::uint8_t>(p.lo), d.clamp_hi = static_cast<std::uint8_t>(p.hi);
}
inline spec::descriptor describe(const average& p, const layout& in, const layout& out) {
  spec::descriptor d = describe(static_cast<const pool&>(p), in, out);
  d.op = static_cast<std::uint32_t>(spec::op::avg_pool);
  d.in_zero = static_cast<std::uint8_t>(p.in_zero);
  set_post(d, p.out);
  return d;
}
inline spec::descriptor describe(const product& k, const layout& a, const layout& b,
                                 const layout& out) {
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::mul);
  set_input(d, a);
  d.in2_base = b.base, d.in2_stride = b.stride;
  d.in2_broadcast = b.h == 1 && b.w == 1;
  set_output(d, out);
  d.in_zero = static_cast<std::uint8_t>(k.zero_a), d.in2_zero = static_cast<std::uint8_t>(k.zero_b);
  set_post(d, k.out);
  return d;
}
inline spec::descriptor describe(const lookup&, const layout& in, const layout& out) {
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::table);
  set_input(d, in);
  set_output(d, out);
  d.param_pages = 1;
  return d;
}

// ---- Pages ----

using page = std::array<std::uint8_t, 4096>;

// All pages of a layer for one run, in fetch order: parameters, then the tiles once per block of
// 512 rows. Output channels that do not exist get arbitrary weights: they must not matter.
inline std::vector<page> pages_of(const conv& k, const layout& in, int rows, int array_n,
                                  std::mt19937& rng) {
  std::vector<page> out;
  for (int p = 0; p < (k.cout + 255) / 256; ++p) {
    page pg{};
    for (int i = 0; i < 256; ++i) {
      const int co = p * 256 + i;
      std::uint8_t* e = &pg[i * 16];
      if (co >= k.cout) continue;
      for (int b = 0; b < 4; ++b) {
        e[b] = static_cast<std::uint8_t>(static_cast<std::uint32_t>(k.bias[co]) >> (8 * b));
        e[4 + b] = static_cast<std::uint8_t>(k.mult[co] >> (8 * b));
      }
      e[8] = k.shift[co];
    }
    out.push_back(pg);
  }
  const int cp = 1 << in.cp_log2, per_tile = 64 / cp;
  const int taps = k.kh * k.kw * static_cast<int>(in.cb);
  std::vector<page> tiles;
  for (int n = 0; n < (k.cout + 63) / 64; ++n) {
    for (int kt = 0; kt < (taps + per_tile - 1) / per_tile; ++kt) {
      page pg{};
      std::size_t pos = 0;
      for (int ki = 0; ki < 64 / array_n; ++ki) {
        for (int ni = 0; ni < 64 / array_n; ++ni) {
          for (int r = 0; r < array_n; ++r) {
            for (int c = 0; c < array_n; ++c) {
              const int byte = ki * array_n + r, co = n * 64 + ni * array_n + c;
              const int tap = kt * per_tile + byte / cp;
              const int ch = tap % static_cast<int>(in.cb) * 64 + byte % cp;
              const int pixel = tap / static_cast<int>(in.cb);
              std::int8_t v = 0;
              if (co >= k.cout) {
                v = static_cast<std::int8_t>(static_cast<int>(rng() % 255) - 127);
              } else if (tap < taps && ch < k.c) {
                v = k.weight(co, pixel / k.kw, pixel % k.kw, ch);
              }
              pg[pos++] = static_cast<std::uint8_t>(v);
            }
          }
        }
      }
      tiles.push_back(pg);
    }
  }
  for (int m = 0; m < rows; m += 512) out.insert(out.end(), tiles.begin(), tiles.end());
  return out;
}

// A table's page; what follows the entries must not matter.
inline page page_of(const lookup& k, std::mt19937& rng) {
  page pg;
  for (auto& b : pg) b = static_cast<std::uint8_t>(rng());
  std::copy(k.entries.begin(), k.entries.end(), pg.begin());
  return pg;
}

// ---- Random data ----

inline int pick(std::mt19937& rng, int lo, int hi) {
  return lo + static_cast<int>(rng() % static_cast<unsigned>(hi - lo + 1));
}

inline tensor random_tensor(std::mt19937& rng, int n, int h, int w, int c) {
  tensor t(n, h, w, c);
  for (auto& v : t.v) v = static_cast<std::int8_t>(rng());
  return t;
}

// Fills in weights and requantisation so that results spread over the int8 range.
inline void randomise(conv& k, std::mt19937& rng) {
  const int depth = k.kh * k.kw * k.c;
  k.weights.resize(static_cast<std::size_t>(k.cout) * depth);
  for (auto& w : k.weights) w = static_cast<std::int8_t>(pick(rng, -127, 127));
  k.bias.resize(k.cout), k.mult.resize(k.cout), k.shift.resize(k.cout);
  const double sigma = 5400.0 * std::sqrt(static_cast<double>(depth));
  for (int co = 0; co < k.cout; ++co) {
    k.bias[co] = pick(rng, -20000, 20000);
    k.mult[co] = rng() % 32 == 0 ? 0 : (1u << 23) + rng() % (1u << 23);
    // mult * 2^-shift is about 70 / sigma
    const int s = static_cast<int>(std::lround(std::log2(12.0e6 * sigma / 70.0)));
    k.shift[co] = static_cast<std::uint8_t>(std::clamp(s + pick(rng, -1, 1), 0, 63));
  }
  k.pad_value = static_cast<std::int8_t>(rng());
  k.zero = static_cast<std::int8_t>(pick(rng, -60, 60));
  k.lo = rng() % 2 ? k.zero : std::int8_t{-128};
  k.hi = rng() % 4 ? std::int8_t{127} : std::int8_t{100};
}

// Sums of about sigma spread over the int8 range.
inline post random_post(std::mt19937& rng, double sigma) {
  post p;
  p.mult = rng() % 16 == 0 ? 0 : (1u << 23) + rng() % (1u << 23);
  const int s = static_cast<int>(std::lround(std::log2(12.0e6 * sigma / 70.0)));
  p.shift = std::clamp(s + pick(rng, -1, 1), 0, 63);
  p.zero = static_cast<std::int8_t>(rng());
  p.lo = static_cast<std::int8_t>(rng() % 3 ? -128 : pick(rng, -100, 0));
  p.hi = static_cast<std::int8_t>(rng() % 3 ? 127 : pick(rng, 0, 100));
  return p;
}

}  // namespace latchkey::test
