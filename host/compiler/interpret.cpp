#include "compiler/interpret.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "latchkey/error.hpp"

namespace latchkey::compiler {
namespace {

constexpr std::uint32_t word_bytes = spec::beat_bytes;
constexpr std::uint32_t tile = spec::tile_dim;

[[noreturn]] void fail(const std::string& message) {
  throw error(errc::run_failed, "engine model: " + message);
}

std::int32_t as_int8(std::uint32_t byte) {
  return static_cast<std::int8_t>(static_cast<std::uint8_t>(byte));
}

std::int32_t clamp_int8(std::int64_t v, std::uint32_t lo, std::uint32_t hi) {
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(v, as_int8(lo), as_int8(hi)));
}

std::uint8_t clamp_byte(std::int64_t v, const spec::descriptor& d) {
  return static_cast<std::uint8_t>(clamp_int8(v, d.clamp_lo, d.clamp_hi));
}

// The post unit's two roundings, written here once more rather than taken from the reference
// executor: the two must agree because both follow the specification, not because they are one.

/// |v| to 24 significant bits, half to even: the bits that float32 has.
std::int64_t round_24(std::int64_t v) {
  std::uint64_t a = v < 0 ? 0 - static_cast<std::uint64_t>(v) : static_cast<std::uint64_t>(v);
  unsigned shift = 0;
  while ((a >> shift) >= 1u << 24) ++shift;
  if (shift > 0) {
    const std::uint64_t low = a & ((std::uint64_t{1} << shift) - 1);
    const std::uint64_t half = std::uint64_t{1} << (shift - 1);
    a >>= shift;
    if (low > half || (low == half && a % 2 == 1)) ++a;
    a <<= shift;
  }
  return v < 0 ? -static_cast<std::int64_t>(a) : static_cast<std::int64_t>(a);
}

/// v / 2^s, half to even.
std::int64_t shift_half_even(std::int64_t v, unsigned s) {
  if (s == 0) return v;
  const std::int64_t q = v >> s;
  const auto low = static_cast<std::uint64_t>(v) & ((std::uint64_t{1} << s) - 1);
  const std::uint64_t half = std::uint64_t{1} << (s - 1);
  return q + (low > half || (low == half && (q & 1) == 1) ? 1 : 0);
}

/// The post unit on an accumulator, with the numbers that a descriptor holds.
std::uint8_t requantise(std::int32_t acc, const spec::descriptor& d) {
  const std::int64_t product = round_24(round_24(acc) * static_cast<std::int64_t>(d.vec_mult));
  return clamp_byte(shift_half_even(product, d.vec_shift & 63u) + as_int8(d.out_zero), d);
}

/// Sum of two stored bytes as Add defines it, clamped; int32 wraps as the hardware's does.
std::uint8_t add_bytes(const spec::descriptor& d, std::int32_t a, std::int32_t b) {
  const std::uint32_t second = static_cast<std::uint32_t>(b) * d.add_mult_b;
  const std::uint32_t t = static_cast<std::uint32_t>(a) * d.add_mult_a +
                          (d.in2_negate != 0 ? 0 - second : second) + d.add_offset;
  return clamp_byte(shift_half_even(static_cast<std::int32_t>(t), d.add_shift), d);
}

std::uint32_t real_channels(std::uint32_t block, std::uint32_t blocks, std::uint32_t cp_log2,
                            std::uint32_t c_last) {
  return block + 1 == blocks ? c_last : 1u << cp_log2;
}

}  // namespace

engine_model::engine_model(const target& build, std::uint8_t fill)
    : array_n_(build.array_n), spad_(std::size_t{build.spad_words} * word_bytes, fill) {
  if (array_n_ != 16 && array_n_ != 32 && array_n_ != 64) fail("the array is not 16, 32 or 64");
}

std::size_t engine_model::address(std::uint64_t base, std::uint64_t stride, std::uint32_t image,
                                  std::uint64_t offset) const {
  const std::uint64_t a = (base + stride * image) * word_bytes + offset;
  if (a >= spad_.size()) fail("byte address " + std::to_string(a) + " is outside the scratchpad");
  return a;
}

void engine_model::execute(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages,
                           io::byte_view input, io::bytes& output) {
  if (d.in_cp_log2 > 6 || d.out_cp_log2 > 6) fail("a channel block of more than 64 bytes");
  switch (static_cast<spec::op>(d.op)) {
    case spec::op::input: {
      const std::size_t size = std::size_t{batch} * d.out_stride * word_bytes;
      if (input.size() != size)
        fail("the input has " + std::to_string(input.size()) + " bytes, not " +
             std::to_string(size));
      if (size == 0) fail("an empty input");
      (void)address(d.out_base, 0, 0, size - 1);
      std::copy(input.begin(), input.end(), spad_.begin() + address(d.out_base, 0, 0, 0));
      break;
    }
    case spec::op::output: {
      const std::size_t size = std::size_t{batch} * d.in_stride * word_bytes;
      if (size == 0) fail("an empty output");
      (void)address(d.in_base, 0, 0, size - 1);
      const auto from = spad_.begin() + address(d.in_base, 0, 0, 0);
      output.assign(from, from + size);
      break;
    }
    case spec::op::mat_mul:
      mat_mul(d, batch, pages);
      break;
    case spec::op::depthwise:
      depthwise(d, batch, pages);
      break;
    case spec::op::max_pool:
      max_pool(d, batch);
      break;
    case spec::op::add:
      add(d, batch);
      break;
    case spec::op::avg_pool:
      avg_pool(d, batch);
      break;
    case spec::op::mul:
      mul(d, batch);
      break;
    case spec::op::table:
      table(d, batch, pages);
      break;
    case spec::op::end:
      break;
    default:
      fail("unknown operation " + std::to_string(d.op));
  }
}

void engine_model::mat_mul(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages) {
  const std::uint32_t cout = ((d.out_cb - 1) << d.out_cp_log2) + d.out_c_last;
  const std::uint32_t cp = 1u << d.in_cp_log2;
  const std::uint32_t tpt = word_bytes / cp;
  const std::uint64_t first = std::uint64_t{d.page_base} * spec::page_bytes;
  const std::uint64_t count = d.param_pages + std::uint64_t{d.n_tiles} * d.k_tiles;
  if (first + count * spec::page_bytes > pages.size()) fail("its pages are not all there");
  if (std::uint64_t{d.n_tiles} * tile < cout ||
      std::uint64_t{d.param_pages} * spec::params_per_page < cout ||
      std::uint64_t{d.k_tiles} * tpt < d.taps || d.in_cb == 0 || d.kernel_w == 0)
    fail("the tiles do not cover the layer");
  const std::uint8_t* const params = pages.data() + first;
  const std::uint8_t* const tiles = params + std::size_t{d.param_pages} * spec::page_bytes;

  // Real bytes of each 64-byte K-tile: tap t = k_tile * tpt + byte / cp, channel byte % cp of it.
  const std::size_t k_bytes = std::size_t{d.k_tiles} * word_bytes;
  std::vector<bool> real(k_bytes);
  for (std::uint32_t t = 0; t < d.taps; ++t) {
    const std::uint32_t n = real_channels(t % d.in_cb, d.in_cb, d.in_cp_log2, d.in_c_last);
    for (std::uint32_t c = 0; c < n; ++c) real[std::size_t{t} * cp + c] = true;
  }

  // The array's view of the tiles: subtile (ki, ni) at byte (ki * 64/N + ni) * N * N, row-major.
  const std::uint32_t n_side = tile / array_n_;
  std::vector<std::int8_t> weights(std::size_t{d.n_tiles} * k_bytes * tile);
  for (std::size_t nt = 0; nt < d.n_tiles; ++nt) {
    for (std::size_t k = 0; k < k_bytes; ++k) {
      const std::uint8_t* page = tiles + (nt * d.k_tiles + k / tile) * spec::page_bytes;
      const std::size_t kk = k % tile;
      for (std::size_t c = 0; c < tile; ++c) {
        const std::size_t subtile = (kk / array_n_) * n_side + c / array_n_;
        weights[(nt * k_bytes + k) * tile + c] = static_cast<std::int8_t>(
            page[subtile * array_n_ * array_n_ + (kk % array_n_) * array_n_ + c % array_n_]);
      }
    }
  }

  const std::uint64_t rows = std::uint64_t{batch} * d.out_h * d.out_w;
  const std::uint64_t row_blocks = (rows + spec::acc_rows - 1) / spec::acc_rows;
  pages_ += d.param_pages + row_blocks * d.n_tiles * d.k_tiles;
  // The counter adds, per sweep, rows * real bytes of the slice * real channels of the subtile;
  // slices and subtiles without any are skipped, which adds nothing.
  for (std::size_t slice = 0; slice < k_bytes; slice += array_n_) {
    const auto from = real.begin() + static_cast<std::ptrdiff_t>(slice);
    macs_ += rows * static_cast<std::uint64_t>(std::count(from, from + array_n_, true)) * cout;
  }

  std::vector<std::int8_t> x(k_bytes);
  std::array<std::uint32_t, tile> acc{};
  for (std::uint64_t row = 0; row < rows; ++row) {
    const auto ox = static_cast<std::uint32_t>(row % d.out_w);
    const auto oy = static_cast<std::uint32_t>(row / d.out_w % d.out_h);
    const auto image = static_cast<std::uint32_t>(row / d.out_w / d.out_h);
    std::fill(x.begin(), x.end(), std::int8_t{0});
    for (std::uint32_t t = 0; t < d.taps; ++t) {
      const std::uint32_t cb = t % d.in_cb;
      const std::uint32_t kx = t / d.in_cb % d.kernel_w;
      const std::uint32_t ky = t / d.in_cb / d.kernel_w;
      const std::int64_t iy = std::int64_t{oy} * d.stride_y + ky - d.pad_top;
      const std::int64_t ix = std::int64_t{ox} * d.stride_x + kx - d.pad_left;
      const bool inside = iy >= 0 && iy < d.in_h && ix >= 0 && ix < d.in_w;
      if (!inside) {
        std::fill_n(&x[std::size_t{t} * cp], cp, static_cast<std::int8_t>(d.pad_value));
        continue;
      }
      const std::uint64_t offset =
          ((static_cast<std::uint64_t>(iy) * d.in_w + ix) * d.in_cb + cb) * cp;
      (void)address(d.in_base, d.in_stride, image, offset + cp - 1);
      const std::uint8_t* from = &spad_[address(d.in_base, d.in_stride, image, offset)];
      std::copy_n(from, cp, reinterpret_cast<std::uint8_t*>(&x[std::size_t{t} * cp]));
    }
    for (std::uint32_t nt = 0; nt < d.n_tiles; ++nt) {
      acc.fill(0);  // unsigned: the accumulators wrap as the hardware's do
      const std::int8_t* w = &weights[std::size_t{nt} * k_bytes * tile];
      for (std::size_t k = 0; k < k_bytes; ++k, w += tile) {
        const std::int32_t xk = x[k];
        for (std::size_t c = 0; c < tile; ++c) acc[c] += static_cast<std::uint32_t>(xk * w[c]);
      }
      const std::uint32_t channels = std::min(tile, cout - std::min(cout, nt * tile));
      for (std::uint32_t c = 0; c < channels; ++c) {
        const std::uint32_t ch = nt * tile + c;
        const std::uint8_t* p = params + std::size_t{ch} * spec::param_bytes;
        const auto word = [&](int at) {
          return p[at] | p[at + 1] << 8 | p[at + 2] << 16 |
                 static_cast<std::uint32_t>(p[at + 3]) << 24;
        };
        const auto sum = static_cast<std::int32_t>(acc[c] + word(0));
        const std::int64_t product = round_24(sum) * static_cast<std::int64_t>(word(4));
        const std::int64_t t = shift_half_even(round_24(product), p[8] & 63u);
        const std::uint64_t block = ch >> d.out_cp_log2;
        const std::uint64_t offset =
            (((std::uint64_t{oy} * d.out_w + ox) * d.out_cb + block) << d.out_cp_log2) +
            (ch & ((1u << d.out_cp_log2) - 1));
        std::uint8_t y = clamp_byte(t + as_int8(d.out_zero), d);
        if (d.fuse_add != 0) {
          const std::uint8_t second = spad_[address(d.in2_base, d.in2_stride, image, offset)];
          y = add_bytes(d, clamp_int8(t + as_int8(d.out_zero), d.mid_lo, d.mid_hi),
                        as_int8(second));
        }
        spad_[address(d.out_base, d.out_stride, image, offset)] = y;
      }
    }
    const std::uint64_t pixel = (std::uint64_t{oy} * d.out_w + ox) * d.out_cb;
    for (std::uint32_t c = d.out_c_last; c < 1u << d.out_cp_log2; ++c) {
      spad_[address(d.out_base, d.out_stride, image,
                    ((pixel + d.out_cb - 1) << d.out_cp_log2) + c)] = 0;
    }
  }
}

void engine_model::depthwise(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages) {
  const std::uint32_t channels = ((d.out_cb - 1) << d.out_cp_log2) + d.out_c_last;
  const std::uint32_t taps = d.kernel_h * d.kernel_w;
  const std::uint64_t first = std::uint64_t{d.page_base} * spec::page_bytes;
  const std::uint64_t count = std::uint64_t{d.param_pages} + d.n_tiles;
  if (first + count * spec::page_bytes > pages.size()) fail("its pages are not all there");
  if (taps == 0 || taps > spec::page_beats || d.n_tiles != d.out_cb || d.k_tiles != 1 ||
      d.in_cb != d.out_cb || d.in_cp_log2 != d.out_cp_log2 || d.in_c_last != d.out_c_last ||
      std::uint64_t{d.param_pages} * spec::params_per_page < channels)
    fail("the pages do not cover the layer");
  const std::uint8_t* const params = pages.data() + first;
  const std::uint8_t* const tiles = params + std::size_t{d.param_pages} * spec::page_bytes;
  pages_ += count;
  macs_ += std::uint64_t{batch} * d.out_h * d.out_w * taps * channels;

  for (std::uint32_t image = 0; image < batch; ++image) {
    for (std::uint64_t pixel = 0; pixel < std::uint64_t{d.out_h} * d.out_w; ++pixel) {
      const std::int64_t top =
          static_cast<std::int64_t>(pixel / d.out_w) * d.stride_y - std::int64_t{d.pad_top};
      const std::int64_t left =
          static_cast<std::int64_t>(pixel % d.out_w) * d.stride_x - std::int64_t{d.pad_left};
      for (std::uint32_t i = 0; i < d.out_cb << d.out_cp_log2; ++i) {
        const std::uint32_t block = i >> d.out_cp_log2, c = i & ((1u << d.out_cp_log2) - 1);
        std::uint8_t& y = spad_[address(d.out_base, d.out_stride, image,
                                        ((pixel * d.out_cb + block) << d.out_cp_log2) + c)];
        if (i >= channels) {
          y = 0;
          continue;
        }
        const std::uint8_t* const p = params + std::size_t{i} * spec::param_bytes;
        const auto word = [&](int at) {
          return p[at] | p[at + 1] << 8 | p[at + 2] << 16 |
                 static_cast<std::uint32_t>(p[at + 3]) << 24;
        };
        std::uint32_t sum = word(0);  // unsigned: wraps as the hardware's does
        for (std::uint32_t t = 0; t < taps; ++t) {
          const std::int64_t iy = top + t / d.kernel_w, ix = left + t % d.kernel_w;
          const std::uint64_t from = static_cast<std::uint64_t>(iy) * d.in_w + ix;
          const bool inside = iy >= 0 && iy < d.in_h && ix >= 0 && ix < d.in_w;
          const std::uint8_t x =
              inside ? spad_[address(d.in_base, d.in_stride, image,
                                     ((from * d.in_cb + block) << d.in_cp_log2) + c)]
                     : static_cast<std::uint8_t>(d.pad_value);
          const std::uint8_t w = tiles[std::size_t{block} * spec::page_bytes + t * word_bytes + c];
          sum += static_cast<std::uint32_t>(as_int8(x) * as_int8(w));
        }
        const std::int64_t product =
            round_24(static_cast<std::int32_t>(sum)) * static_cast<std::int64_t>(word(4));
        const std::int64_t t = shift_half_even(round_24(product), p[8] & 63u);
        y = clamp_byte(t + as_int8(d.out_zero), d);
      }
    }
  }
}

void engine_model::max_pool(const spec::descriptor& d, std::uint32_t batch) {
  for (std::uint32_t image = 0; image < batch; ++image) {
    for (std::uint32_t oy = 0; oy < d.out_h; ++oy) {
      for (std::uint32_t ox = 0; ox < d.out_w; ++ox) {
        for (std::uint32_t b = 0; b < d.in_cb; ++b) {
          const std::uint32_t n = real_channels(b, d.in_cb, d.in_cp_log2, d.in_c_last);
          for (std::uint32_t c = 0; c < 1u << d.in_cp_log2; ++c) {
            std::int32_t best = -129;
            for (std::uint32_t ky = 0; ky < d.kernel_h; ++ky) {
              for (std::uint32_t kx = 0; kx < d.kernel_w; ++kx) {
                const std::int64_t iy = std::int64_t{oy} * d.stride_y + ky - d.pad_top;
                const std::int64_t ix = std::int64_t{ox} * d.stride_x + kx - d.pad_left;
                if (iy < 0 || iy >= d.in_h || ix < 0 || ix >= d.in_w) continue;
                const std::uint64_t pixel = static_cast<std::uint64_t>(iy) * d.in_w + ix;
                best = std::max(
                    best, as_int8(spad_[address(d.in_base, d.in_stride, image,
                                                ((pixel * d.in_cb + b) << d.in_cp_log2) + c)]));
              }
            }
            if (best == -129) fail("a pooling window lies wholly outside the input");
            const std::uint64_t pixel = std::uint64_t{oy} * d.out_w + ox;
            spad_[address(d.out_base, d.out_stride, image,
                          ((pixel * d.out_cb + b) << d.out_cp_log2) + c)] =
                c < n ? static_cast<std::uint8_t>(best) : 0;
          }
        }
      }
    }
  }
}

void engine_model::avg_pool(const spec::descriptor& d, std::uint32_t batch) {
  for (std::uint32_t image = 0; image < batch; ++image) {
    for (std::uint64_t i = 0; i < std::uint64_t{d.out_h} * d.out_w * d.in_cb; ++i) {
      const auto b = static_cast<std::uint32_t>(i % d.in_cb);
      const auto ox = static_cast<std::int64_t>(i / d.in_cb % d.out_w);
      const auto oy = static_cast<std::int64_t>(i / d.in_cb / d.out_w);
      const std::int64_t top = oy * d.stride_y - d.pad_top, left = ox * d.stride_x - d.pad_left;
      const std::uint32_t n = real_channels(b, d.in_cb, d.in_cp_log2, d.in_c_last);
      for (std::uint32_t c = 0; c < 1u << d.in_cp_log2; ++c) {
        std::int32_t sum = 0;
        for (std::int64_t iy = std::max<std::int64_t>(top, 0);
             iy < std::min<std::int64_t>(top + d.kernel_h, d.in_h); ++iy) {
          for (std::int64_t ix = std::max<std::int64_t>(left, 0);
               ix < std::min<std::int64_t>(left + d.kernel_w, d.in_w); ++ix) {
            const std::uint64_t pixel = static_cast<std::uint64_t>(iy) * d.in_w + ix;
            const std::uint64_t offset = ((pixel * d.in_cb + b) << d.in_cp_log2) + c;
            sum +=
                as_int8(spad_[address(d.in_base, d.in_stride, image, offset)]) - as_int8(d.in_zero);
          }
        }
        spad_[address(d.out_base, d.out_stride, image, (i << d.out_cp_log2) + c)] =
            c < n ? requantise(sum, d) : 0;
      }
    }
  }
}

template <typename F>
void engine_model::elementwise(const spec::descriptor& d, std::uint32_t batch, bool two, F f) {
  const std::uint64_t blocks = std::uint64_t{d.out_h} * d.out_w * d.out_cb;
  for (std::uint32_t image = 0; image < batch; ++image) {
    for (std::uint64_t i = 0; i < blocks; ++i) {
      const auto block = static_cast<std::uint32_t>(i % d.out_cb);
      const std::uint64_t i2 = d.in2_broadcast ? block : i;
      const std::uint32_t n = real_channels(block, d.out_cb, d.out_cp_log2, d.out_c_last);
      for (std::uint32_t c = 0; c < 1u << d.out_cp_log2; ++c) {
        const std::uint64_t offset = (i << d.out_cp_log2) + c;
        const std::uint8_t a = spad_[address(d.in_base, d.in_stride, image, offset)];
        const std::uint8_t b =
            two ? spad_[address(d.in2_base, d.in2_stride, image, (i2 << d.out_cp_log2) + c)] : 0;
        spad_[address(d.out_base, d.out_stride, image, offset)] = c < n ? f(a, b) : 0;
      }
    }
  }
}

void engine_model::add(const spec::descriptor& d, std::uint32_t batch) {
  elementwise(d, batch, true,
              [&](std::uint8_t a, std::uint8_t b) { return add_bytes(d, as_int8(a), as_int8(b)); });
}

void engine_model::mul(const spec::descriptor& d, std::uint32_t batch) {
  elementwise(d, batch, true, [&](std::uint8_t a, std::uint8_t b) {
    return requantise((as_int8(a) - as_int8(d.in_zero)) * (as_int8(b) - as_int8(d.in2_zero)), d);
  });
}

void engine_model::table(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages) {
  const std::uint64_t first = std::uint64_t{d.page_base} * spec::page_bytes;
  if (d.param_pages != 1 || first + spec::page_bytes > pages.size())
    fail("the table's page is not there");
  ++pages_;
  elementwise(d, batch, false,
              [&](std::uint8_t a, std::uint8_t /*b*/) { return pages[first + a]; });
}

run_result interpret(const program& p, io::byte_view input, std::uint32_t batch) {
  if (batch == 0 || batch > p.max_batch) {
    throw error(errc::usage, "a batch of " + std::to_string(batch) +
                                 " images; the program takes 1.." + std::to_string(p.max_batch));
  }
  const std::uint32_t desc_pages = p.regions.at(0).count;
  const auto descriptors = read_descriptors(
      io::byte_view(p.pages).first(std::size_t{desc_pages} * spec::page_bytes), p.name);
  engine_model engine(p.target, 0xa5);
  run_result r;
  for (const spec::descriptor& d : descriptors) engine.execute(d, batch, p.pages, input, r.output);
  r.macs = engine.macs();
  r.pages = engine.pages() + desc_pages;
  return r;
}

}  // namespace latchkey::compiler
