// The cost model: what must hold whatever the RTL's latencies are. tests/e2e holds it against the
// counters of the RTL.
#include "compiler/cost.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "compiler/compile.hpp"
#include "latchkey/error.hpp"
#include "random_graph.hpp"
#include "reference_check.hpp"

namespace latchkey::compiler {
namespace {

program compiled(const model::qgraph& graph, std::uint32_t n, std::uint32_t batch = 0) {
  compile_options options;
  options.target.array_n = n;
  options.max_batch = batch;
  return compile(graph, options);
}

/// A 1x1 convolution over `rows` positions: a matrix product of rows x k x n.
model::qgraph gemm(int rows, int k, int n) {
  graph_builder b(1);
  return b.finish(b.conv(b.input(k, 1, rows), n, 1, 1, 1, 1, {0, 0, 0, 0}));
}

/// The unit a layer is bound by may not exceed its cycles; memory may, since pages come ahead.
std::uint64_t busiest(const layer_cost& c) {
  return std::max({c.array, c.feed, c.port, c.post, c.vector, c.stream});
}

TEST(Cost, CountsWhatTheCompilerAndTheWalkerCount) {
  for (unsigned seed = first_seed(); seed < first_seed() + 60; ++seed) {
    SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
    graph_builder b(seed);
    const model::qgraph graph = b.random_graph();
    for (const std::uint32_t n : {16u, 32u, 64u}) {
      const program p = compiled(graph, n, 5);
      for (const std::uint32_t batch : {1u, 5u}) {
        const run_cost run = predict(p, batch, memory_preset("ddr4-2400"));
        ASSERT_EQ(run.layers.size(), p.layers.size());
        std::uint64_t macs = 0, bytes = 0, cycles = run.boot;
        for (const layer_cost& c : run.layers) {
          macs += c.macs;
          bytes += c.bytes;
          cycles += c.cycles;
          EXPECT_GT(c.cycles, busiest(c));
        }
        EXPECT_EQ(macs, batch * graph.macs());
        EXPECT_EQ(bytes / spec::page_bytes + p.regions[0].count, pages_fetched(p, batch));
        EXPECT_GE(run.cycles, cycles);
        // No machine of N x N multipliers is faster.
        EXPECT_GE(run.cycles * n * n, macs);
      }
    }
  }
}

TEST(Cost, MoreImagesAndSlowerMemoryAreNeverFaster) {
  for (unsigned seed = first_seed(); seed < first_seed() + 30; ++seed) {
    SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
    graph_builder b(seed);
    const program p = compiled(b.random_graph(), 16, 4);
    std::uint64_t before = 0;
    for (std::uint32_t batch = 1; batch <= 4; ++batch) {
      const std::uint64_t ideal = predict(p, batch, memory_preset("ideal")).cycles;
      EXPECT_GT(ideal, before);
      EXPECT_LE(ideal, predict(p, batch, memory_preset("hbm")).cycles);
      EXPECT_LE(ideal, predict(p, batch, memory_preset("ddr4-2400")).cycles);
      EXPECT_LE(predict(p, batch, memory_preset("ideal"), false).cycles, ideal);
      before = ideal;
    }
  }
}

/// Words under the taps of slice `slice` of K (N = 16), by kernel row, byte by byte: of the pixels
/// [ox, end) of one line. Word -1: a tap outside the input.
std::set<std::pair<std::uint32_t, std::int64_t>> touched(const spec::descriptor& d,
                                                         std::uint32_t slice, std::uint32_t oy,
                                                         std::uint32_t ox, std::uint32_t end) {
  std::set<std::pair<std::uint32_t, std::int64_t>> words;
  const std::uint32_t taps = 16u >> d.in_cp_log2;
  for (; ox < end; ++ox) {
    for (std::uint32_t t = slice * taps; t < std::min(d.taps, (slice + 1) * taps); ++t) {
      const std::uint32_t ky = t / d.kernel_w, kx = t % d.kernel_w;
      const std::int64_t y = std::int64_t{oy} * d.stride_y + ky - d.pad_top;
      const std::int64_t x = std::int64_t{ox} * d.stride_x + kx - d.pad_left;
      const bool inside = y >= 0 && y < d.in_h && x >= 0 && x < d.in_w;
      for (std::int64_t byte = 0; byte < 1 << d.in_cp_log2; ++byte)
        words.emplace(ky, inside ? (((y * d.in_w + x) << d.in_cp_log2) + byte) / 64 : -1);
    }
  }
  return words;
}

TEST(Cost, LanesReadEachWordOfALineOnce) {
  // 3 channels lie in 4 bytes: at N = 16 a slice of K is 4 taps, and 3 kernel rows have a lane
  // each.
  graph_builder b(7);
  const program p = compiled(b.finish(b.conv(b.input(3, 11, 13), 8, 3, 5, 2, 9, {1, 2, 1, 2})), 16);
  const spec::descriptor& d = p.descriptors[1];
  ASSERT_EQ(d.in_cp_log2, 2u);
  std::uint64_t feed = 0, rows = 0;
  for (std::uint32_t slice = 0; slice * 4 < d.taps; ++slice) {
    std::uint64_t reads = 0;
    for (std::uint32_t oy = 0; oy < d.out_h; ++oy)
      for (const auto& [ky, word] : touched(d, slice, oy, 0, d.out_w)) reads += word >= 0;
    feed += 3 * std::max<std::uint64_t>(reads, d.out_h * d.out_w);
    rows += 3 * d.out_h * d.out_w;
  }
  const layer_cost c = predict(p, 3, memory_preset("ideal")).layers[1];
  EXPECT_EQ(c.feed, feed);
  EXPECT_EQ(c.array, rows);
}

TEST(Cost, WithoutALaneEveryPixelReadsEveryKernelRow) {
  // 16 taps of one byte touch up to nine rows of a kernel 2 wide: more than the 4 lanes.
  graph_builder b(8);
  const program p = compiled(b.finish(b.conv(b.input(1, 40, 70), 8, 9, 2, 1, 3, {4, 1, 4, 0})), 16);
  const spec::descriptor& d = p.descriptors[1];
  ASSERT_EQ(d.in_cp_log2, 0u);
  std::uint64_t reads = 0;
  for (std::uint32_t slice = 0; slice * 16 < d.taps; ++slice) {
    for (std::uint32_t oy = 0; oy < d.out_h; ++oy) {
      for (std::uint32_t ox = 0; ox < d.out_w; ++ox) {
        const auto words = touched(d, slice, oy, ox, ox + 1);
        std::set<std::uint32_t> inside;
        for (const auto& [ky, word] : words)
          if (word >= 0) inside.insert(ky);
        // Padding beside real taps costs nothing.
        for (const auto& [ky, word] : words) reads += word >= 0 || !inside.contains(ky);
      }
    }
  }
  const layer_cost c = predict(p, 2, memory_preset("ideal")).layers[1];
  EXPECT_EQ(c.feed, 2 * reads);
  EXPECT_GT(c.feed, c.array);
  EXPECT_EQ(c.by, bound::feed);
}

TEST(Cost, NamesTheBound) {
  const auto by = [](const model::qgraph& graph, std::uint32_t n, const char* memory) {
    return predict(compiled(graph, n, 1), 1, memory_preset(memory)).layers[1].by;
  };
  // 512 rows a page at N = 64: the array. One row a page: port, or memory when that is slower.
  EXPECT_EQ(by(gemm(512, 1024, 512), 64, "ideal"), bound::array);
  EXPECT_EQ(by(gemm(1, 2048, 2048), 64, "ideal"), bound::port);
  EXPECT_EQ(by(gemm(1, 2048, 2048), 64, "ddr4-2400"), bound::memory);
  // Nothing to do: filling and draining.
  graph_builder b(1);
  EXPECT_EQ(by(b.finish(b.max_pool(b.input(1, 1, 1), 1, 1, 1, 1, {0, 0, 0, 0})), 16, "ideal"),
            bound::overhead);
}

TEST(Cost, RefusesWhatTheProgramOrTheCardHasNot) {
  const program p = compiled(gemm(4, 4, 4), 16, 2);
  for (const std::uint32_t batch : {0u, 3u}) {
    EXPECT_THAT([&] { predict(p, batch, memory_preset("hbm")); },
                ::testing::ThrowsMessage<error>(::testing::HasSubstr("takes 1..2")));
  }
  EXPECT_THAT([] { memory_preset("ddr5"); },
              ::testing::ThrowsMessage<error>(::testing::HasSubstr("ddr4-2400")));
}

}  // namespace
}  // namespace latchkey::compiler
