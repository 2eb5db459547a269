// Neighbouring pixels of a line as one row of the array, where few channels leave most of it
// unused: the window grows by the steps between them, and every pixel has columns of its own, with
// zeros where its own window ends. A row has more real bytes and channels, and there are fewer
// rows.
//
// Without a Depthwise behind it a narrow output of `fold` pixels is an output of one pixel with
// wider blocks: the same bytes. With one, two pixels of 32 channels are a channel block (dw_pairs).
// What the cost model finds faster is taken; the multiplications by zero are counted by the kernel
// and are no useful ones.
#include <cstdint>
#include <optional>

#include "compiler/cost.hpp"
#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

/// Window and step of `fold` neighbouring pixels; false when they do not fit their fields.
bool widen(spec::descriptor& d, std::uint32_t fold) {
  d.kernel_w += (fold - 1) * d.stride_x;
  d.stride_x *= fold;
  d.taps = d.kernel_h * d.kernel_w * d.in_cb;
  const std::uint32_t taps_per_tile = spec::tile_dim >> d.in_cp_log2;
  d.k_tiles = (d.taps + taps_per_tile - 1) / taps_per_tile;
  return d.kernel_w <= 0xff && d.stride_x <= 0xff && d.k_tiles <= 0xffff;
}

/// A window of whole words, one behind the other, is a window of one pixel of 64 bytes: the feed
/// takes those every cycle. False when it is none and would yet need a new word for every row: the
/// feed gathers those at half the pace.
bool read_as_words(spec::descriptor& d) {
  const auto is_word = [&](std::uint32_t pixels) {
    return pixels << d.in_cp_log2 == spec::tile_dim;
  };
  if (d.in_cp_log2 == 6 || d.kernel_h != 1 || !is_word(d.kernel_w) || !is_word(d.stride_x) ||
      d.pad_left != 0 || (d.in_w << d.in_cp_log2) % spec::tile_dim != 0)
    return d.in_cp_log2 == 6 || d.stride_x << d.in_cp_log2 < spec::tile_dim;
  d.in_w = (d.in_w << d.in_cp_log2) / spec::tile_dim;
  d.in_c_last += spec::tile_dim - (1u << d.in_cp_log2);
  d.in_cp_log2 = 6;
  d.kernel_w = d.stride_x = d.taps = 1;
  return true;
}

std::optional<spec::descriptor> folded(spec::descriptor d, std::uint32_t log2) {
  const std::uint32_t fold = 1u << log2;
  if (d.out_cp_log2 + log2 > 6 || d.out_w % fold != 0 || !widen(d, fold)) return std::nullopt;
  d.out_w /= fold;
  d.out_c_last += (fold - 1) << d.out_cp_log2;
  d.out_cp_log2 += log2;
  if (!read_as_words(d)) return std::nullopt;
  return d;
}

std::optional<spec::descriptor> paired(spec::descriptor d) {
  const std::uint32_t channels = out_channels(d);
  const std::uint32_t step = d.dw_stride_x;
  // Of two steps across only the first pixel of a pair is a result; of one step both are, and lie
  // in one word.
  if (d.out_cp_log2 < 5 || d.mid_w % 2 != 0 || d.dw_kernel_w != 3 || d.dw_kernel_h > 3 ||
      d.dw_pad_left != 1 || step > 2 || d.out_w != d.mid_w / step ||
      (step == 1 && d.out_cp_log2 != 5) || !widen(d, 2)) {
    return std::nullopt;
  }
  d.dw_pairs = 1;
  d.mid_w /= 2;
  d.n_tiles = (channels + 31) / 32;
  d.param_pages = param_pages_for(d.n_tiles * spec::tile_dim);
  if (step == 1) {
    d.out_w /= 2;
    d.out_cp_log2 = 6;
    d.out_c_last = 64;
  }
  if (!read_as_words(d) || d.n_tiles > spec::max_channels / spec::tile_dim ||
      !fits_line_buffers(depthwise_half(d)))
    return std::nullopt;
  return d;
}

}  // namespace

void fold_pixels(draft& d) {
  const std::uint32_t n = d.options.target.array_n;
  if (n != spec::tile_dim) return;  // a smaller array is not wasted on narrow layers
  for (step& s : d.steps) {
    if (!is(s, spec::op::mat_mul)) continue;
    std::uint64_t best = cycles_alone(s.desc, n);
    const spec::descriptor plain = s.desc;
    const auto consider = [&](const std::optional<spec::descriptor>& candidate,
                              std::uint32_t fold) {
      if (!candidate) return;
      const std::uint64_t cycles = cycles_alone(*candidate, n);
      if (cycles >= best) return;
      best = cycles;
      s.desc = *candidate;
      s.fold = fold;
    };
    if (plain.fuse_dw != 0) {
      consider(paired(plain), 2);
    } else {
      for (std::uint32_t log2 = 1; log2 <= 6; ++log2) consider(folded(plain, log2), 1u << log2);
    }
    const page_counts pages = pages_of(s.desc);
    s.report.pages = pages.once + pages.tiles;
  }
}

}  // namespace latchkey::compiler::passes
