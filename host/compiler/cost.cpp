#include "compiler/cost.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "latchkey/error.hpp"

namespace latchkey::compiler {
namespace {

using cycle = std::uint64_t;

// What the RTL fixes; each with the module whose header says so.
constexpr cycle fetch_cycles = 3;       // lk_page_fetch: request to the bus
constexpr cycle judge_cycles = 9;       // lk_gcm, lk_tile_ring: last beat to readable
constexpr cycle open_cycles = 2;        // the same on the unlocked elaboration
constexpr cycle walk_cycles = 22;       // lk_walker: descriptors stand to first layer's request
constexpr std::size_t ring_pages = 8;   // lk_tile_ring
constexpr cycle issue_cycles = 6;       // lk_sequencer, lk_desc_ram: end of an operation to issue
constexpr cycle setup_cycles = 26;      // lk_engine, lk_setup
constexpr cycle feed_latency = 6;       // lk_feed: sweep to first row in the array's queue
constexpr cycle feed_ahead = 10;        // lk_feed: rows in flight and waiting
constexpr cycle row_distance = 4;       // lk_sweep: rows of an accumulator word
constexpr cycle post_latency = 17;      // lk_drain, lk_writer: last read to last byte written
constexpr cycle add_cycles = 2;         // lk_mover, lk_vector: per word
constexpr cycle mul_cycles = 4;         // lk_mover, lk_vector: per word
constexpr cycle average_cycles = 4;     // lk_vector: a window of fewer taps
constexpr cycle table_cycles = 60;      // lk_table: from its page to its first word
constexpr cycle wide_cycles = 60;       // the same for the second table
constexpr cycle operand_cycles = 70;    // lk_operand: a tile, from its first read to its first beat
constexpr cycle group_rows = 64;        // lk_rows
constexpr cycle max_latency = 8;        // lk_rows: last word to the largest of its row
constexpr cycle sum_latency = 50;       // lk_rows, lk_reciprocal: last word to its row's number
constexpr cycle rows_latency = 24;      // lk_rows, lk_drain, lk_writer: last word to its last byte
constexpr std::uint32_t dw_side = 5;    // lk_depthwise: larger kernels go tap by tap,
constexpr std::uint32_t dw_line = 512;  // and so do longer lines
constexpr cycle move_latency = 5;       // lk_mover
constexpr cycle rekey_cycles = 79;      // lk_gcm: a key is loaded
constexpr cycle spill_cycles = 40;      // lk_lock_chain, lk_spill: a Spill beside its pages,
constexpr cycle reload_cycles = 80;     // and a Load, beside the memory's latency too
constexpr std::uint32_t stream_words = 64;  // the simulated card's input stream
constexpr cycle window_latency = 14;        // lk_feed, lk_vector, lk_writer

/// Array latency, prim_mac_array_pkg::latency(N), and one cycle into the accumulator.
cycle array_latency(std::uint32_t n) { return n == 64 ? 16 : n == 32 ? 15 : 14; }

cycle ceil_of(double v) { return static_cast<cycle>(std::ceil(v)); }

/// Pages in the order of use: when each is readable, given when the ones before were used up.
class page_stream {
 public:
  page_stream(const memory_timing& memory, bool locked)
      : beat_(std::max(1.0, memory.cycles_per_beat)),
        transfer_(memory.page),
        hold_(memory.hold),
        latency_(memory.latency + fetch_cycles),
        judge_(locked ? judge_cycles : open_cycles),
        rekey_(locked ? rekey_cycles : 0),
        // A tag line of 4 beats serves 16 pages.
        page_(beat_ * (spec::page_beats + (locked ? 0.25 : 0.0))) {
    freed_.fill(0);
  }

  /// The walker sets out at `at`.
  void walk(cycle at) { freed_.fill(at + walk_cycles); }
  /// When the bus has carried as many of `pages` pages as the ring holds, for a burst behind them.
  cycle filled(std::size_t pages) const {
    return freed_[0] + latency_ + held(std::min(pages, ring_pages));
  }

  /// When the next page is readable.
  cycle ready() const {
    const double first = static_cast<double>(freed_[next_ % ring_pages] + latency_);
    return ceil_of(std::max(first + transfer_, bus_ + page_)) + judge_;
  }
  /// It has been used up at `at`.
  void use(cycle at) {
    const double first = static_cast<double>(freed_[next_ % ring_pages] + latency_);
    bus_ = std::max(first + transfer_, bus_ + page_);
    freed_[next_ % ring_pages] = at;
    ++next_;
  }
  /// By how much bursts of so many pages hold up what waits behind them.
  cycle held(std::size_t pages) const { return ceil_of(hold_ * static_cast<double>(pages)); }
  double beat_cycles() const { return beat_; }
  cycle latency() const { return latency_; }
  cycle rekey() const { return rekey_; }

 private:
  double beat_, transfer_, hold_;
  cycle latency_, judge_, rekey_;
  double page_, bus_ = 0;
  std::array<cycle, ring_pages> freed_;  // when the page's place was free again
  std::size_t next_ = 0;
};

/// A Product's tiles, read from the scratchpad into two halves of a buffer.
class operand_stream {
 public:
  explicit operand_stream(cycle now) : filled_(now), freed_{now, now} {}
  cycle ready() const { return std::max(filled_, freed_[next_ % 2]) + operand_cycles; }
  void use(cycle at) {
    filled_ = std::max(filled_, freed_[next_ % 2]) + spec::page_beats + 1;
    freed_[next_ % 2] = at;
    ++next_;
  }

 private:
  cycle filled_;  // when the last tile was in the buffer
  std::array<cycle, 2> freed_;
  std::size_t next_ = 0;
};

/// One slice of K: N bytes of a row, and the feed's reads for the output pixels of an image.
struct slice {
  bool real = false;                      // it holds a real byte
  bool lanes = false;                     // rows come every cycle while reads keep up
  std::vector<std::uint32_t> reads_upto;  // gather only: reads of pixels 0..i-1
};

/// Words of the scratchpad, counted from the image's first, under taps [kx, kx + run) of kernel row
/// ky; empty outside the input.
struct span {
  std::int64_t from = 0, to = 0;
  bool empty() const { return from == to; }
};
span words_under(const spec::descriptor& d, std::uint32_t oy, std::uint32_t ox, std::uint32_t ky,
                 std::uint32_t kx, std::uint32_t run) {
  const std::int64_t iy = std::int64_t{oy} * d.stride_y - d.pad_top + ky;
  const std::int64_t ix = std::int64_t{ox} * d.stride_x - d.pad_left + kx;
  const std::int64_t lo = std::max<std::int64_t>(ix, 0);
  const std::int64_t hi = std::min<std::int64_t>(ix + run, d.in_w);
  if (iy < 0 || iy >= d.in_h || lo >= hi) return {};
  return {((iy * d.in_w + lo) << d.in_cp_log2) / spec::beat_bytes,
          (((iy * d.in_w + hi) << d.in_cp_log2) - 1) / spec::beat_bytes + 1};
}

/// The reads that gather taps [first, first + count), pixel by pixel. With lanes a word that comes
/// under a run stays there for the next pixels of the line; without, every pixel reads anew, and a
/// run outside the input takes a cycle too.
void count_reads(const spec::descriptor& d, std::uint32_t first, std::uint32_t count, slice& s) {
  s.reads_upto.push_back(0);
  std::vector<std::int64_t> seen;  // by run: words before this one were read
  for (std::uint32_t oy = 0; oy < d.out_h; ++oy) {
    seen.assign(d.kernel_h + 1, 0);
    for (std::uint32_t ox = 0; ox < d.out_w; ++ox) {
      std::uint32_t reads = 0;
      for (std::uint32_t t = first, run = 0; t < first + count; t += run) {
        const std::uint32_t ky = t / d.kernel_w, kx = t % d.kernel_w;
        run = std::min(d.kernel_w - kx, first + count - t);
        const span words = words_under(d, oy, ox, ky, kx, run);
        if (s.lanes) {
          const std::int64_t from = std::max(words.from, seen[ky]);
          if (!words.empty() && words.to > from) {
            reads += static_cast<std::uint32_t>(words.to - from);
            seen[ky] = words.to;
          }
        } else {
          reads += words.empty() ? 1 : static_cast<std::uint32_t>(words.to - words.from);
        }
      }
      s.reads_upto.push_back(s.reads_upto.back() + reads);
    }
  }
}

std::vector<slice> slices_of(const spec::descriptor& d, std::uint32_t n) {
  std::vector<slice> slices(std::size_t{d.k_tiles} * (spec::tile_dim / n));
  const std::uint32_t block = 1u << d.in_cp_log2;
  const std::uint32_t lanes = n == 16 ? 4 : 8;  // lk_act_pkg::gather_lanes
  for (std::size_t i = 0; i < slices.size(); ++i) {
    slice& s = slices[i];
    if (block >= n) {
      const std::size_t tap = i * n / block;
      const std::size_t offset = i * n % block;
      s.real = tap < d.taps && offset < (tap % d.in_cb == d.in_cb - 1 ? d.in_c_last : block);
      continue;
    }
    const std::uint32_t per_slice = n / block;
    const std::size_t first = i * per_slice;
    s.real = first < d.taps;
    s.lanes = d.kernel_h <= lanes || per_slice - 1 <= (lanes - 1) * d.kernel_w;
    if (s.real) {
      count_reads(d, static_cast<std::uint32_t>(first),
                  static_cast<std::uint32_t>(std::min<std::size_t>(per_slice, d.taps - first)), s);
    }
  }
  return slices;
}

/// Cycles in which the feed makes rows [from, from + rows) of the batch.
cycle feed_cycles(const slice& s, std::uint64_t from, std::uint64_t rows) {
  if (s.reads_upto.empty()) return rows;
  const std::uint64_t pixels = s.reads_upto.size() - 1;
  const auto upto = [&](std::uint64_t row) {
    return row / pixels * s.reads_upto.back() + s.reads_upto[row % pixels];
  };
  const cycle reads = upto(from + rows) - upto(from);
  return s.lanes ? std::max(reads, rows) : reads;
}

/// Takes `count` pages one after another and returns when the last has been taken.
cycle take_pages(std::uint64_t count, page_stream& pages, cycle now, layer_cost& cost) {
  for (; count > 0; --count) {
    now = std::max(now, pages.ready()) + spec::page_beats;
    pages.use(now);
    cost.port += spec::page_beats;
  }
  return now;
}

/// Cycles of channel block `b` of a Depthwise over the whole batch.
cycle depthwise_cycles(const spec::descriptor& d, std::uint32_t n, std::uint32_t b,
                       std::uint32_t batch) {
  const std::uint32_t side = std::max(d.kernel_h, d.kernel_w);
  const cycle taps = n == 64 ? 9 : n == 32 ? 5 : 3;  // lk_depthwise: Taps, by array size
  const bool streamed = side <= dw_side && d.in_w <= dw_line;
  const cycle channels = b + 1 == d.out_cb ? d.out_c_last : 1u << d.out_cp_log2;
  const cycle multiply = streamed ? (side * side + taps - 1) / taps : d.kernel_h * d.kernel_w;
  const cycle outputs =
      std::uint64_t{batch} * d.out_h * d.out_w * std::max(multiply, (channels + n - 1) / n);
  const cycle inputs = streamed ? std::uint64_t{batch} * d.in_h * d.in_w : 0;
  return std::max(outputs, inputs);
}

/// Plays the tiles of a MatMul or Product from `now` on, `images` times all rows of one; returns
/// when it is done.
///
/// With a fused Depthwise every n has all blocks of rows, and a row stays `pace` cycles in the post
/// unit until the Depthwise takes it.
template <typename Tiles>
cycle play_tiles(const spec::descriptor& d, std::uint32_t n, std::uint64_t images,
                 std::uint64_t rows_all, double pace, Tiles& pages, cycle now, layer_cost& cost) {
  const std::uint32_t side = spec::tile_dim / n;
  const cycle beats = n * n / spec::beat_bytes;  // of a subtile
  const std::vector<slice> slices = slices_of(d, n);
  const std::uint32_t channels = out_channels(d);

  cycle port = now;                           // when the port is free for the next beat
  cycle feed = now;                           // when the feed is free for the next sweep
  cycle swept = now;                          // end of the last sweep
  cycle shadow = now;                         // when the shadow tile is free
  cycle next_row = now;                       // earliest start that the accumulators allow
  std::array<cycle, 4> written;               // end of the last four tiles; no more are open
  std::array<cycle, 2> drain_from, drain_to;  // the drains of the last two
  written.fill(now);
  drain_from.fill(now);
  drain_to.fill(now);
  std::uint64_t tile = 0;
  const std::uint64_t blocks = (rows_all + spec::acc_rows - 1) / spec::acc_rows;
  const bool fused = pace > 0;
  for (std::uint64_t outer = 0; outer < (fused ? d.n_tiles : images * blocks); ++outer) {
    if (fused) {  // a page of the Depthwise's weights
      port = std::max(port, pages.ready()) + spec::page_beats;
      pages.use(port);
      cost.port += spec::page_beats;
    }
    for (std::uint64_t inner = 0; inner < (fused ? blocks : d.n_tiles); ++inner, ++tile) {
      const auto nt = static_cast<std::uint32_t>(fused ? outer : inner);
      const std::uint64_t from = (fused ? inner : outer % blocks) * spec::acc_rows;
      const std::uint64_t rows = std::min<std::uint64_t>(spec::acc_rows, rows_all - from);
      const std::uint32_t tile_channels = std::min(spec::tile_dim, channels - nt * spec::tile_dim);
      const cycle open = written[tile % 4];
      port = std::max(port, open);
      feed = std::max(feed, open);
      cycle& drain_start = drain_from[tile % 2];
      cycle& drain_end = drain_to[tile % 2];  // of the tile that the bank held before
      std::uint64_t sweeps = 0;
      cycle last_start = now;
      for (std::uint32_t kt = 0; kt < d.k_tiles; ++kt) {
        port = std::max(port, pages.ready());
        for (std::uint32_t ki = 0; ki < side; ++ki) {
          const slice& s = slices[std::size_t{kt} * side + ki];
          const cycle reads = s.real ? feed_cycles(s, from, rows) : 0;
          for (std::uint32_t ni = 0; ni < side; ++ni) {
            cost.port += beats;
            if (!s.real || ni * n >= tile_channels) {
              port += beats;
              continue;
            }
            const cycle full = std::max(port, shadow) + beats;
            port = full;
            const cycle first_row = feed + feed_latency;
            // What overwrites follows the drain of the bank row by row; what adds waits for its
            // end.
            const bool overwrites = sweeps < (tile_channels + n - 1) / n;
            const cycle bank = overwrites ? drain_start + 1 : drain_end;
            const cycle start = std::max({full, swept, next_row, first_row, bank});
            swept = std::max(
                {start + rows, feed + reads + feed_latency, overwrites ? drain_end + 1 : 0});
            ++sweeps;
            last_start = start;
            next_row = rows < row_distance ? swept + row_distance - rows : swept;
            feed = std::max(feed + reads, swept - std::min(swept, feed_ahead));
            shadow = start;
            cost.array += rows;
            cost.feed += reads;
          }
        }
        pages.use(port);
      }
      const cycle groups = (tile_channels + n - 1) / n;
      // The drain follows the last sweep row by row where that one overwrites, and at N = 64 also
      // where the drain before has ended.
      const cycle before = drain_to[(tile + 1) % 2];
      const bool follows = sweeps <= groups || (n == spec::tile_dim && before <= last_start);
      drain_start = std::max(before, (follows ? last_start : swept) + array_latency(n));
      drain_end =
          std::max(drain_start + std::max(rows * groups, ceil_of(static_cast<double>(rows) * pace)),
                   swept + array_latency(n));
      written[tile % 4] = drain_end + post_latency;
      cost.post += rows * groups;
    }
  }
  return std::max({written[0], written[1], written[2], written[3], port});
}

/// Plays a MatMul or Product that is issued at `now`; returns when it is done.
cycle play_mat_mul(const spec::descriptor& d, std::uint32_t n, std::uint32_t batch,
                   page_stream& pages, cycle now, layer_cost& cost) {
  const std::uint64_t rows = swept_rows(d);
  if (d.fuse_table != 0) now = take_pages(1, pages, now, cost) + table_cycles;
  const cycle loaded = take_pages(d.param_pages, pages, now, cost);
  if (static_cast<spec::op>(d.op) == spec::op::product) {
    operand_stream tiles(now);
    return play_tiles(d, n, std::uint64_t{batch} * d.heads, rows, 0, tiles, loaded, cost);
  }
  if (d.fuse_dw == 0) return play_tiles(d, n, 1, batch * rows, 0, pages, loaded, cost);

  const double pace = static_cast<double>(depthwise_cycles(depthwise_half(d), n, 0, batch)) /
                      static_cast<double>(batch * rows);
  now = take_pages(d.param_pages, pages, loaded, cost);
  return play_tiles(matmul_half(d), n, 1, batch * rows, pace, pages, now + setup_cycles, cost) +
         window_latency;
}

/// Softmax and layer normalisation: the passes over each group of rows, and the post unit's part.
cycle play_rows(const spec::descriptor& d, std::uint32_t n, std::uint32_t batch, page_stream& pages,
                cycle now, layer_cost& cost) {
  const bool softmax = static_cast<spec::op>(d.op) == spec::op::softmax;
  const std::uint64_t rows_all = std::uint64_t{batch} * d.out_h * d.out_w;
  const cycle parts = (d.out_cb - 1) * (spec::tile_dim / n) + (d.out_c_last + n - 1) / n;
  const cycle loaded = take_pages(d.param_pages, pages, now, cost);
  if (softmax) now = loaded + table_cycles + wide_cycles;
  for (std::uint64_t from = 0; from < rows_all; from += group_rows) {
    const std::uint64_t rows = std::min<std::uint64_t>(group_rows, rows_all - from);
    const cycle words = rows * d.out_cb;
    if (softmax) now += words + max_latency;
    now += std::max<cycle>(words, d.out_cb + sum_latency);
    cost.vector += (softmax ? 2 : 1) * words + rows * parts;
    now = std::max(now, loaded) + rows * parts;
  }
  return now + rows_latency;
}

/// One block of channels after another; the next block's page is taken while a block runs.
cycle play_depthwise(const spec::descriptor& d, std::uint32_t n, std::uint32_t batch,
                     page_stream& pages, cycle now, layer_cost& cost) {
  cycle port = take_pages(d.param_pages, pages, now, cost);
  for (std::uint32_t b = 0; b < d.out_cb; ++b) {
    const cycle run = depthwise_cycles(d, n, b, batch);
    cost.vector += run;
    port = take_pages(1, pages, port, cost);
    now = std::max(now, port) + run;
  }
  return now + window_latency;
}

/// An operation that the array has no part in.
cycle play_vector(const spec::descriptor& d, std::uint32_t batch, page_stream& pages, cycle now,
                  layer_cost& cost) {
  const std::uint64_t pixels = std::uint64_t{batch} * d.out_h * d.out_w;
  const std::uint64_t image = std::uint64_t{d.out_h} * d.out_w * d.out_cb << d.out_cp_log2;
  const std::uint64_t words = (image + spec::beat_bytes - 1) / spec::beat_bytes * batch;
  const cycle window = std::uint64_t{d.kernel_h} * d.kernel_w;
  switch (static_cast<spec::op>(d.op)) {
    case spec::op::max_pool:
      cost.vector = pixels * d.in_cb * window;
      return now + cost.vector + window_latency;
    case spec::op::avg_pool:
      cost.vector = pixels * d.in_cb * std::max(window, average_cycles);
      return now + cost.vector + window_latency;
    case spec::op::add:
      cost.vector = add_cycles * words;
      return now + cost.vector + window_latency;
    case spec::op::mul:
      cost.vector = mul_cycles * words;
      return now + cost.vector + window_latency;
    case spec::op::table:
      now = take_pages(d.param_pages, pages, now, cost) + table_cycles;
      cost.vector = words;
      return now + cost.vector + window_latency;
    case spec::op::load:  // a word a cycle, as its pages come; once
      cost.vector = d.out_stride;
      return take_pages(d.param_pages, pages, now, cost) + move_latency;
    case spec::op::output:
      // The output adapter writes an image, u8, before it takes the next.
      cost.stream = std::uint64_t{batch} * d.in_stride;
      return now + cost.stream + move_latency +
             (batch - 1) * pages.held(d.in_stride / spec::page_beats);
    default:
      throw error(errc::unsupported_model,
                  "no cost is known for operation " + std::to_string(d.op));
  }
}

/// A Spill, or a Load from the spill area: whole pages, and no other page is fetched meanwhile.
cycle play_spill(std::uint32_t words, std::uint32_t batch, cycle beside, page_stream& pages,
                 cycle now, layer_cost& cost) {
  const std::uint64_t beats = pages_for(words, batch) * spec::page_beats;
  cost.memory = ceil_of(pages.beat_cycles() * static_cast<double>(beats));
  cost.bytes = beats * spec::beat_bytes;
  now += cost.memory + pages.rekey() + beside;
  pages.walk(now);
  return now;
}

/// The input adapter reads image after image (u8, channels last) and waits for each. What the
/// stream holds is there before the core asks; then the bus is busy with the first pages.
cycle play_input(const program& p, std::uint32_t batch, const memory_timing& memory,
                 const page_stream& pages, cycle now, layer_cost& cost) {
  const tensor_layout& l = p.input.layout;
  const cycle image = l.words;  // a word a cycle
  const std::uint64_t ahead = std::min<std::uint64_t>(batch, stream_words / l.words + 1);
  cost.stream = batch * image;
  cycle end = now + ahead * image;
  if (batch > ahead) {
    end = std::max(end, pages.filled(p.num_pages() - p.regions[0].count)) +
          (batch - ahead) * (image + memory.latency);
  }
  return end + move_latency;
}

/// Any other operation that is issued at `now`; returns when it is done.
cycle play(const spec::descriptor& d, std::uint32_t n, std::uint32_t batch, page_stream& pages,
           cycle now, layer_cost& cost) {
  switch (static_cast<spec::op>(d.op)) {
    case spec::op::mat_mul:
    case spec::op::product:
      now = play_mat_mul(d, n, batch, pages, now, cost);
      break;
    case spec::op::softmax:
    case spec::op::layer_norm:
      now = play_rows(d, n, batch, pages, now, cost);
      break;
    case spec::op::depthwise:
      now = play_depthwise(d, n, batch, pages, now, cost);
      break;
    case spec::op::spill:
      return play_spill(d.in_stride, batch, spill_cycles, pages, now, cost);
    case spec::op::load:
      if (d.spilled == 0) {
        now = play_vector(d, batch, pages, now, cost);
        break;
      }
      return play_spill(d.out_stride, batch, reload_cycles + pages.latency(), pages, now, cost);
    default:
      now = play_vector(d, batch, pages, now, cost);
  }
  cost.memory = ceil_of(pages.beat_cycles() * static_cast<double>(cost.port));
  cost.bytes = cost.port * spec::beat_bytes;
  return now;
}

bound bound_of(const layer_cost& c) {
  const std::pair<cycle, bound> units[] = {{c.array, bound::array},  {c.feed, bound::feed},
                                           {c.port, bound::port},    {c.memory, bound::memory},
                                           {c.post, bound::post},    {c.vector, bound::vector},
                                           {c.stream, bound::stream}};
  // The first of equals: a feed that keeps the array's pace does not bound it, nor a memory that
  // keeps the port's.
  auto most = units[0];
  for (const auto& u : units)
    if (u.first > most.first) most = u;
  return 2 * most.first < c.cycles ? bound::overhead : most.second;
}

}  // namespace

memory_timing memory_preset(std::string_view name) {
  // Cycles of 300 MHz: 64 bytes at 19.2 GB/s are one, and 350 ns of 7.8 us go to refresh. Two HBM
  // channels of 14.4 GB/s carry more than the port takes.
  // Latencies with a row to open. A channel that is busy with pages keeps the images waiting.
  if (name == "ideal") return {"ideal", 1.0, 64.0, 0.0, 1};
  if (name == "ddr4-2400") return {"ddr4-2400", 7800.0 / (7800.0 - 350.0), 64.0, 67.0, 36};
  if (name == "hbm") return {"hbm", 1.0, 85.3, 43.0, 45};
  throw error(errc::usage,
              "memory '" + std::string(name) + "' is not known: ideal, ddr4-2400 or hbm");
}

std::string_view describe(bound b) {
  switch (b) {
    case bound::array:
      return "array";
    case bound::feed:
      return "feed";
    case bound::port:
      return "weight port";
    case bound::memory:
      return "memory";
    case bound::post:
      return "post unit";
    case bound::vector:
      return "vector unit";
    case bound::stream:
      return "stream";
    case bound::overhead:
      return "latency";
  }
  return {};
}

std::uint64_t cycles_alone(const spec::descriptor& d, std::uint32_t array_n) {
  page_stream pages(memory_preset("ideal"), true);
  pages.walk(0);
  layer_cost cost;
  return play(d, array_n, 1, pages, 0, cost);
}

run_cost predict(const program& p, std::uint32_t batch, const memory_timing& memory, bool locked) {
  if (batch == 0 || batch > p.max_batch) {
    throw error(errc::usage, "a batch of " + std::to_string(batch) +
                                 " images; the program takes 1.." + std::to_string(p.max_batch));
  }
  run_cost run;
  page_stream pages(memory, locked);
  cycle now = 0;
  for (std::uint32_t i = 0; i < p.regions.at(0).count; ++i) {
    now = std::max(now, pages.ready()) + spec::page_beats;
    pages.use(now);
  }
  run.boot = now;
  pages.walk(now);
  for (std::size_t i = 0; i + 1 < p.descriptors.size(); ++i) {
    const spec::descriptor& d = p.descriptors[i];
    layer_cost c;
    const cycle begun = now;
    now += issue_cycles + setup_cycles;
    now = static_cast<spec::op>(d.op) == spec::op::input
              ? play_input(p, batch, memory, pages, now, c)
              : play(d, p.target.array_n, batch, pages, now, c);
    c.cycles = now - begun;
    if (!p.layers.empty()) c.macs = p.layers[i].macs * batch;
    c.by = bound_of(c);
    run.layers.push_back(c);
  }
  run.cycles = now + issue_cycles;
  return run;
}

}  // namespace latchkey::compiler
