#include "compiler/interpret.hpp"

#include <algorithm>
#include <array>
#include <cmath>
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

/// Sum of an accumulator and a channel's bias, through its multiplier; no zero point, no clamp.
std::int64_t scaled(std::uint32_t acc, const std::uint8_t* p) {
  const std::int64_t product =
      round_24(static_cast<std::int32_t>(acc + io::get_u32(p))) * std::int64_t{io::get_u32(p + 4)};
  return shift_half_even(round_24(product), p[8] & 63u);
}

/// Byte offset in an image, or a head of it, of channel `c` of pixel `pixel`.
std::uint64_t offset_of(bool planar, std::uint64_t pixels, std::uint32_t cb, std::uint32_t cp_log2,
                        std::uint64_t pixel, std::uint32_t c) {
  const std::uint64_t block = c >> cp_log2;
  return ((planar ? block * pixels + pixel : pixel * cb + block) << cp_log2) +
         (c & ((1u << cp_log2) - 1));
}

unsigned bits(std::uint64_t v) {
  unsigned n = 0;
  for (; v >> n != 0; ++n) {
  }
  return n;
}

/// 1 / m for m of 18 bits, in units of 2^-34.
std::uint64_t inverse(std::uint64_t m) { return ((std::uint64_t{1} << 34) - 1) / m; }

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
      if (d.fuse_dw != 0) {
        mat_mul_depthwise(d, batch, pages);
      } else {
        const std::uint32_t params = d.page_base + d.fuse_table;
        mat_mul(d, batch, pages, params, params + d.param_pages);
      }
      break;
    case spec::op::depthwise:
      depthwise(d, batch, pages, d.page_base, d.page_base + d.param_pages);
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
    case spec::op::product:
      product(d, batch, pages);
      break;
    case spec::op::softmax:
      softmax(d, batch, pages);
      break;
    case spec::op::layer_norm:
      layer_norm(d, batch, pages);
      break;
    case spec::op::spill:
      spill(d, batch);
      break;
    case spec::op::load:
      if (d.spilled != 0)
        reload(d, batch);
      else
        load(d, pages);
      break;
    case spec::op::end:
      break;
    default:
      fail("unknown operation " + std::to_string(d.op));
  }
}

void engine_model::mat_mul_depthwise(const spec::descriptor& d, std::uint32_t batch,
                                     io::byte_view pages) {
  if (d.fuse_add != 0 || d.fuse_table != 0 || d.out_planar != 0)
    fail("a depthwise convolution behind what cannot have one");
  // The tensor between the two lies behind the scratchpad, where no other operation reaches.
  const std::size_t size = spad_.size();
  spec::descriptor conv = matmul_half(d), depth = depthwise_half(d);
  conv.out_base = depth.in_base = static_cast<std::uint32_t>(size / word_bytes);
  const std::uint64_t bytes = (std::uint64_t{d.mid_h} * d.mid_w * conv.out_cb) << conv.out_cp_log2;
  conv.out_stride = depth.in_stride =
      static_cast<std::uint32_t>((bytes + word_bytes - 1) / word_bytes);
  spad_.resize(size + std::size_t{batch} * conv.out_stride * word_bytes);
  const std::uint32_t second = d.page_base + d.param_pages;
  mat_mul(conv, batch, pages, d.page_base, second + d.param_pages + d.n_tiles);
  if (d.dw_pairs != 0) {
    depthwise_pairs(d, depth.in_base, batch, pages, second);
  } else {
    depthwise(depth, batch, pages, second, second + d.param_pages);
  }
  spad_.resize(size);
}

void engine_model::depthwise_pairs(const spec::descriptor& d, std::uint32_t in_base,
                                   std::uint32_t batch, io::byte_view pages,
                                   std::uint32_t params_at) {
  constexpr std::uint32_t half = tile / 2;
  const std::uint8_t* const params = pages.data() + std::size_t{params_at} * spec::page_bytes;
  const std::uint8_t* const weights = params + std::size_t{d.param_pages} * spec::page_bytes;
  const std::uint64_t words = std::uint64_t{d.mid_h} * d.mid_w * d.n_tiles;
  const std::uint32_t step = d.dw_stride_x, taps = d.dw_kernel_h * d.dw_kernel_w;
  const std::int64_t width = std::int64_t{2} * d.mid_w;
  const std::uint64_t pixels = std::uint64_t{d.out_w} * 2 / step;  // of a line
  const std::uint64_t pitch = (std::uint64_t{d.out_cb} << d.out_cp_log2) * step / 2;
  pages_ += d.param_pages + d.n_tiles;
  macs_ += std::uint64_t{batch} * d.out_h * pixels * taps * d.n_tiles * half;

  for (std::uint64_t at = 0; at < batch * d.out_h * pixels; ++at) {
    const auto image = static_cast<std::uint32_t>(at / pixels / d.out_h);
    const auto oy = static_cast<std::int64_t>(at / pixels % d.out_h);
    const auto ox = static_cast<std::int64_t>(at % pixels);
    for (std::uint32_t c = 0; c < d.n_tiles * half; ++c) {
      const std::uint32_t block = c / half;
      const std::uint32_t lane = c % half + static_cast<std::uint32_t>(ox * step % 2) * half;
      std::uint32_t sum = 0;
      for (std::uint32_t t = 0; t < taps; ++t) {
        const std::int64_t iy = oy * d.dw_stride_y - d.dw_pad_top + t / d.dw_kernel_w;
        const std::int64_t ix = ox * step - 1 + t % d.dw_kernel_w;
        std::uint32_t x = d.mid_zero;
        if (iy >= 0 && iy < d.mid_h && ix >= 0 && ix < width) {
          const auto pair = static_cast<std::uint64_t>(iy * d.mid_w + ix / 2);
          x = spad_[address(in_base, words, image,
                            (pair * d.n_tiles + block) * tile +
                                static_cast<std::uint64_t>(ix % 2) * half + c % half)];
        }
        const std::uint8_t w =
            weights[std::size_t{block} * spec::page_bytes + t * word_bytes + lane];
        sum += static_cast<std::uint32_t>(as_int8(x) * as_int8(w));
      }
      const std::int64_t t =
          scaled(sum, params + (std::size_t{block} * tile + lane) * spec::param_bytes);
      spad_[address(
          d.out_base, d.out_stride, image,
          static_cast<std::uint64_t>(oy * static_cast<std::int64_t>(pixels) + ox) * pitch + c)] =
          clamp_byte(t + as_int8(d.out_zero), d);
    }
  }
}

void engine_model::mat_mul(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages,
                           std::uint32_t params_at, std::uint32_t tiles_at) {
  const std::uint32_t cout = out_channels(d);
  const std::uint32_t cp = 1u << d.in_cp_log2;
  const std::uint32_t tpt = word_bytes / cp;
  const std::uint64_t table = std::uint64_t{d.page_base} * spec::page_bytes;
  const std::uint64_t end = tiles_at + std::uint64_t{d.n_tiles} * d.k_tiles;
  if (end * spec::page_bytes > pages.size()) fail("its pages are not all there");
  if (std::uint64_t{d.n_tiles} * tile < cout ||
      std::uint64_t{d.param_pages} * spec::params_per_page < cout ||
      std::uint64_t{d.k_tiles} * tpt < d.taps || d.in_cb == 0 || d.kernel_w == 0)
    fail("the tiles do not cover the layer");
  const std::uint8_t* const params = pages.data() + std::size_t{params_at} * spec::page_bytes;
  const std::uint8_t* const tiles = pages.data() + std::size_t{tiles_at} * spec::page_bytes;

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

  const std::uint64_t out_pixels = std::uint64_t{d.out_h} * d.out_w;
  const std::uint64_t rows = batch * swept_rows(d);
  const std::uint64_t row_blocks = (rows + spec::acc_rows - 1) / spec::acc_rows;
  pages_ += d.fuse_table + d.param_pages + row_blocks * d.n_tiles * d.k_tiles;
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
    const std::uint64_t out_pixel = std::uint64_t{oy} * d.out_w + ox;
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
      const std::uint64_t offset = offset_of(
          d.in_planar != 0, std::uint64_t{d.in_h} * d.in_w, d.in_cb, d.in_cp_log2,
          static_cast<std::uint64_t>(iy) * d.in_w + static_cast<std::uint64_t>(ix), cb * cp);
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
        const std::int64_t t = scaled(acc[c], params + std::size_t{ch} * spec::param_bytes);
        const std::uint64_t offset =
            offset_of(d.out_planar != 0, out_pixels, out_pitch(d), d.out_cp_log2, out_pixel, ch);
        std::uint8_t y = clamp_byte(t + as_int8(d.out_zero), d);
        if (d.fuse_add != 0) {
          const std::uint8_t second = spad_[address(d.in2_base, d.in2_stride, image, offset)];
          y = add_bytes(d, clamp_int8(t + as_int8(d.out_zero), d.mid_lo, d.mid_hi),
                        as_int8(second));
        }
        if (d.fuse_table != 0) y = pages[table + y];
        spad_[address(d.out_base, d.out_stride, image, offset)] = y;
      }
    }
    for (std::uint32_t c = cout; c < d.out_cb << d.out_cp_log2; ++c) {
      spad_[address(
          d.out_base, d.out_stride, image,
          offset_of(d.out_planar != 0, out_pixels, out_pitch(d), d.out_cp_log2, out_pixel, c))] = 0;
    }
  }
}

/// Once, whatever the batch.
void engine_model::load(const spec::descriptor& d, io::byte_view pages) {
  const std::uint64_t first = std::uint64_t{d.page_base} * spec::page_bytes;
  const std::size_t size = std::size_t{d.out_stride} * word_bytes;
  if (size == 0 || size > std::size_t{d.param_pages} * spec::page_bytes ||
      first + std::uint64_t{d.param_pages} * spec::page_bytes > pages.size())
    fail("the pages do not cover what is loaded");
  pages_ += d.param_pages;
  (void)address(d.out_base, 0, 0, size - 1);
  const auto from = pages.begin() + static_cast<std::ptrdiff_t>(first);
  std::copy(from, from + static_cast<std::ptrdiff_t>(size), &spad_[address(d.out_base, 0, 0, 0)]);
}

void engine_model::product(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages) {
  const std::uint32_t cout = out_channels(d);
  const std::uint32_t depth = in_channels(d);
  const std::uint64_t table = std::uint64_t{d.page_base} * spec::page_bytes;
  const std::uint64_t first = table + std::uint64_t{d.fuse_table} * spec::page_bytes;
  if (first + std::uint64_t{d.param_pages} * spec::page_bytes > pages.size())
    fail("its pages are not all there");
  if (std::uint64_t{d.param_pages} * spec::params_per_page < cout || d.heads == 0)
    fail("the parameters do not cover the product");
  const std::uint8_t* const params = pages.data() + first;
  const std::uint64_t pixels = std::uint64_t{d.out_h} * d.out_w;
  const bool transposed = d.in2_transposed != 0;
  pages_ += d.fuse_table + d.param_pages;
  macs_ += std::uint64_t{batch} * d.heads * pixels * depth * cout;

  for (std::uint32_t head = 0; head < batch * d.heads; ++head) {
    for (std::uint64_t pixel = 0; pixel < pixels; ++pixel) {
      for (std::uint32_t c = 0; c < d.out_cb << d.out_cp_log2; ++c) {
        std::uint8_t& y =
            spad_[address(d.out_base, d.out_stride, head,
                          offset_of(d.out_planar != 0, pixels, d.out_cb, d.out_cp_log2, pixel, c))];
        if (c >= cout) {
          y = 0;
          continue;
        }
        std::uint32_t acc = 0;
        for (std::uint32_t k = 0; k < depth; ++k) {
          const std::uint8_t a =
              spad_[address(d.in_base, d.in_stride, head,
                            offset_of(d.in_planar != 0, pixels, d.in_cb, d.in_cp_log2, pixel, k))];
          const std::uint8_t b =
              spad_[address(d.in2_base, d.in2_stride, head,
                            offset_of(d.in2_planar != 0, transposed ? cout : depth,
                                      transposed ? d.in_cb : d.out_cb, 6, transposed ? c : k,
                                      transposed ? k : c))];
          acc += static_cast<std::uint32_t>(as_int8(a) * std::max(as_int8(b), -127));
        }
        const std::int64_t t = scaled(acc, params + std::size_t{c} * spec::param_bytes);
        y = clamp_byte(t + as_int8(d.out_zero), d);
        if (d.fuse_table != 0) y = pages[table + y];
      }
    }
  }
}

template <typename F>
void engine_model::rows(const spec::descriptor& d, std::uint32_t batch, F f) {
  const std::uint32_t channels = out_channels(d);
  std::vector<std::int32_t> row(channels);
  for (std::uint32_t image = 0; image < batch; ++image) {
    for (std::uint64_t pixel = 0; pixel < std::uint64_t{d.out_h} * d.out_w; ++pixel) {
      const auto at = [&](std::uint64_t base, std::uint64_t stride, std::uint32_t c) {
        return address(base, stride, image, offset_of(false, 0, d.out_cb, d.out_cp_log2, pixel, c));
      };
      for (std::uint32_t c = 0; c < channels; ++c)
        row[c] = as_int8(spad_[at(d.in_base, d.in_stride, c)]);
      f(row);
      for (std::uint32_t c = 0; c < d.out_cb << d.out_cp_log2; ++c) {
        spad_[at(d.out_base, d.out_stride, c)] =
            c < channels ? static_cast<std::uint8_t>(row[c]) : std::uint8_t{0};
      }
    }
  }
}

void engine_model::softmax(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages) {
  const std::uint64_t first = std::uint64_t{d.page_base} * spec::page_bytes;
  if (d.param_pages != 1 || first + spec::page_bytes > pages.size())
    fail("the page of exponentials is not there");
  ++pages_;
  rows(d, batch, [&](std::vector<std::int32_t>& row) {
    const std::int32_t most = *std::max_element(row.begin(), row.end());
    std::uint64_t sum = 0;
    for (std::int32_t& x : row) {
      const auto i = static_cast<std::size_t>(most - x);
      x = pages[first + i] | pages[first + 256 + i] << 8;
      sum += static_cast<std::uint64_t>(x);
    }
    if (sum == 0) fail("a softmax of nothing");
    const unsigned length = bits(sum);
    const std::uint64_t lead = length > 18 ? sum >> (length - 18) : sum << (18 - length);
    const std::uint64_t mult = inverse(lead) * d.vec_mult >> 17;
    for (std::int32_t& x : row) {
      const std::int64_t product = round_24(x * static_cast<std::int64_t>(mult));
      x = clamp_byte(shift_half_even(product, d.vec_shift + length - 1) + as_int8(d.out_zero), d);
    }
  });
}

void engine_model::layer_norm(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages) {
  const std::uint64_t first = std::uint64_t{d.page_base} * spec::page_bytes;
  const std::uint32_t channels = out_channels(d);
  if (std::uint64_t{d.param_pages} * spec::params_per_page < channels ||
      first + std::uint64_t{d.param_pages} * spec::page_bytes > pages.size())
    fail("the parameters do not cover the layer");
  pages_ += d.param_pages;
  const std::uint64_t epsilon = std::uint64_t{d.epsilon_hi} << 32 | d.epsilon_lo;
  rows(d, batch, [&](std::vector<std::int32_t>& row) {
    std::int64_t sum = 0, squares = 0;
    for (const std::int32_t x : row) {
      sum += x;
      squares += x * x;
    }
    const std::uint64_t v = static_cast<std::uint64_t>(channels * squares - sum * sum) + epsilon;
    const unsigned length = (bits(v) + 1) / 2 * 2;
    const std::uint64_t lead = length > 36 ? v >> (length - 36) : v << (36 - length);
    auto root = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(lead)));
    while (root * root > lead) --root;
    while ((root + 1) * (root + 1) <= lead) ++root;
    for (std::uint32_t c = 0; c < channels; ++c) {
      const std::int64_t z =
          (channels * std::int64_t{row[c]} - sum) * static_cast<std::int64_t>(inverse(root)) >>
          (length / 2);
      std::array<std::uint8_t, spec::param_bytes> p{};
      std::copy_n(&pages[first + std::size_t{c} * spec::param_bytes], p.size(), p.begin());
      const bool negative = (p[6] & 0x80) != 0;
      p[6] &= 0x7f;
      const std::int64_t t = scaled(static_cast<std::uint32_t>(negative ? -z : z), p.data());
      row[c] = clamp_byte(t + as_int8(d.out_zero), d);
    }
  });
}

void engine_model::depthwise(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages,
                             std::uint32_t params_at, std::uint32_t tiles_at) {
  const std::uint32_t channels = out_channels(d);
  const std::uint32_t taps = d.kernel_h * d.kernel_w;
  if ((std::uint64_t{tiles_at} + d.n_tiles) * spec::page_bytes > pages.size())
    fail("its pages are not all there");
  if (taps == 0 || taps > spec::page_beats || d.n_tiles != d.out_cb || d.k_tiles != 1 ||
      d.in_cb != d.out_cb || d.in_cp_log2 != d.out_cp_log2 || d.in_c_last != d.out_c_last ||
      std::uint64_t{d.param_pages} * spec::params_per_page < channels)
    fail("the pages do not cover the layer");
  const std::uint8_t* const params = pages.data() + std::size_t{params_at} * spec::page_bytes;
  const std::uint8_t* const tiles = pages.data() + std::size_t{tiles_at} * spec::page_bytes;
  pages_ += d.param_pages + d.n_tiles;
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
                                        ((pixel * out_pitch(d) + block) << d.out_cp_log2) + c)];
        if (i >= channels) {
          y = 0;
          continue;
        }
        std::uint32_t sum = 0;  // unsigned: wraps as the hardware's does
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
        const std::int64_t t = scaled(sum, params + std::size_t{i} * spec::param_bytes);
        y = clamp_byte(t + as_int8(d.out_zero), d);
      }
    }
  }
}

void engine_model::max_pool(const spec::descriptor& d, std::uint32_t batch) {
  const std::uint32_t repeat_y = std::max(d.repeat_y, 1u), repeat_x = std::max(d.repeat_x, 1u);
  for (std::uint32_t image = 0; image < batch; ++image) {
    for (std::uint32_t oy = 0; oy < d.out_h; ++oy) {
      for (std::uint32_t ox = 0; ox < d.out_w; ++ox) {
        for (std::uint32_t b = 0; b < d.in_cb; ++b) {
          const std::uint32_t n = real_channels(b, d.in_cb, d.in_cp_log2, d.in_c_last);
          for (std::uint32_t c = 0; c < 1u << d.in_cp_log2; ++c) {
            std::int32_t best = -129;
            for (std::uint32_t ky = 0; ky < d.kernel_h; ++ky) {
              for (std::uint32_t kx = 0; kx < d.kernel_w; ++kx) {
                const std::int64_t iy = std::int64_t{oy / repeat_y} * d.stride_y + ky - d.pad_top;
                const std::int64_t ix = std::int64_t{ox / repeat_x} * d.stride_x + kx - d.pad_left;
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
                          ((pixel * out_pitch(d) + b) << d.out_cp_log2) + c)] =
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
        spad_[address(d.out_base, d.out_stride, image,
                      ((i / d.in_cb * out_pitch(d) + b) << d.out_cp_log2) + c)] =
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

void engine_model::spill(const spec::descriptor& d, std::uint32_t batch) {
  const std::uint64_t size = std::uint64_t{batch} * d.in_stride * word_bytes;
  const std::uint64_t pages = pages_for(d.in_stride, batch);
  if (d.spill_page + pages > spec::max_spill_pages) fail("a Spill of more pages than have tags");
  for (std::uint64_t i = 0; i < size; ++i) {
    spilled_[d.spill_page + i / spec::page_bytes][i % spec::page_bytes] =
        spad_[address(d.in_base, 0, 0, i)];
  }
}

void engine_model::reload(const spec::descriptor& d, std::uint32_t batch) {
  const std::uint64_t size = std::uint64_t{batch} * d.out_stride * word_bytes;
  for (std::uint64_t i = 0; i < size; ++i) {
    const auto page = spilled_.find(d.spill_page + i / spec::page_bytes);
    if (page == spilled_.end()) {
      fail("page " + std::to_string(d.spill_page + i / spec::page_bytes) +
           " of the spill area was never spilled");
    }
    spad_[address(d.out_base, 0, 0, i)] = page->second[i % spec::page_bytes];
  }
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
