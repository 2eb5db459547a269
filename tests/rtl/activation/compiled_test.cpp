// What the compiler makes of a quantised graph, run by the engine's RTL: descriptors and pages go
// in as the sequencer and the walker would hand them over, and every output byte must be the int8
// reference's.
#include <gtest/gtest.h>

#include "VEngine16.h"
#include "VEngine32.h"
#include "VEngine64.h"
#include "compiler/compile.hpp"
#include "engine_sim.hpp"
#include "model/reference.hpp"
#include "program_pages.hpp"
#include "random_graph.hpp"

namespace latchkey::test {
namespace {

using compiler::graph_builder;
using compiler::program;

template <class Sim>
void expect_reference(const model::qgraph& graph, std::uint32_t batch, unsigned seed) {
  Sim s(seed);
  s.page_idle = seed % 2 ? 25 : 0;
  const program p = compiler::compile(graph, {{Sim::array_n, Sim::spad_words}, batch, {}, {}});
  model::reference golden(graph);
  std::vector<std::uint8_t> input;
  std::vector<std::vector<std::uint8_t>> want;
  for (std::uint32_t i = 0; i < batch; ++i) {
    std::vector<std::uint8_t> image(graph.input_tensor().size());
    for (auto& v : image) v = static_cast<std::uint8_t>(s.rng());
    const auto out = golden.infer(image);
    want.emplace_back(out.begin(), out.end());
    const auto packed = p.input.layout.pack(image);
    input.insert(input.end(), packed.begin(), packed.end());
  }
  for (std::size_t i = 0; i < input.size(); i += 64) {
    word w;
    std::copy_n(input.begin() + static_cast<std::ptrdiff_t>(i), 64, w.begin());
    s.input.emplace_back(w, i + 64 == input.size());
  }

  std::uint64_t macs = 0, beats = 0;
  for (const spec::descriptor& d : p.descriptors) {
    s.load_pages(pages_in_order(p, d, batch));
    const run_result r = s.run(d, static_cast<int>(batch));
    ASSERT_FALSE(r.bad_desc || r.bad_input) << "operation " << d.op;
    ASSERT_EQ(s.beats_left(), 0u) << "operation " << d.op;
    macs += r.macs;
    beats += r.beats;
  }
  EXPECT_EQ(macs, batch * p.counted_macs());
  if (Sim::array_n != 64) EXPECT_EQ(macs, batch * graph.macs());
  EXPECT_EQ(beats, 64 * (pages_fetched(p, batch) - p.regions[0].count));

  const std::size_t words = p.output.layout.words;
  ASSERT_EQ(s.output.size(), batch * words);
  for (std::uint32_t i = 0; i < batch; ++i) {
    std::vector<std::uint8_t> image;
    for (std::size_t w = 0; w < words; ++w) {
      const word& from = s.output[i * words + w];
      image.insert(image.end(), from.begin(), from.end());
    }
    const auto got = p.output.layout.unpack(image);
    ASSERT_EQ(std::vector<std::uint8_t>(got.begin(), got.end()), want[i]) << "image " << i;
  }
}

template <class Sim>
class Compiled : public ::testing::Test {};
using sims = ::testing::Types<engine_sim<VEngine16, 16>, engine_sim<VEngine32, 32>,
                              engine_sim<VEngine64, 64>>;
TYPED_TEST_SUITE(Compiled, sims);

TYPED_TEST(Compiled, RandomGraphs) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    graph_builder b(seed);
    expect_reference<TypeParam>(b.random_graph(), 2, seed);
    if (this->HasFailure()) return;
  }
}

// The start of a MobileNet: stem, separable layers with strides, an inverted residual.
TYPED_TEST(Compiled, SeparableNetwork) {
  graph_builder b(77);
  const std::vector<int> none{0, 0, 0, 0}, one{1, 1, 1, 1};
  int t = b.input(3, 16, 16);
  t = b.conv(t, 8, 3, 3, 2, 2, one);
  t = b.depthwise(t, 3, 3, 1, 1, one);
  t = b.conv(t, 16, 1, 1, 1, 1, none);
  const int skip = t;
  t = b.conv(t, 96, 1, 1, 1, 1, none);
  t = b.depthwise(t, 3, 3, 1, 1, one);
  t = b.conv(t, 16, 1, 1, 1, 1, none);
  t = b.add(t, skip);
  t = b.conv(t, 144, 1, 1, 1, 1, none);
  t = b.depthwise(t, 5, 5, 2, 2, {2, 2, 2, 2});
  t = b.conv(t, 40, 1, 1, 1, 1, none);
  t = b.fc(t, 10);
  expect_reference<TypeParam>(b.finish(t), 3, 77);
}

// Narrow layers of which two pixels are a row: with steps of one and of two behind them, padding
// and images of several sizes, and outputs of half a channel block.
TEST(CompiledPairs, MobileNetStart) {
  using Sim = engine_sim<VEngine64, 64>;
  const std::vector<int> none{0, 0, 0, 0}, one{1, 1, 1, 1};
  unsigned seed = 300;
  for (const auto& [h, w] : {std::pair{32, 32}, {24, 40}, {19, 52}, {100, 92}}) {
    for (const int channels : {96, 64, 144}) {
      SCOPED_TRACE(std::to_string(h) + " x " + std::to_string(w) + ", " + std::to_string(channels));
      graph_builder b(++seed);
      int t = b.input(3, h, w);
      t = b.conv(t, 32, 3, 3, 2, 2, one);
      t = b.depthwise(t, 3, 3, 1, 1, one);
      t = b.conv(t, 16, 1, 1, 1, 1, none);
      t = b.conv(t, channels, 1, 1, 1, 1, none);
      t = b.depthwise(t, 3, 3, 2, 2, one);
      t = b.conv(t, 24, 1, 1, 1, 1, none);
      const model::qgraph graph = b.finish(t);
      expect_reference<Sim>(graph, 1 + seed % 3, seed);
      if (HasFailure()) return;
      unsigned pairs = 0;
      const program p = compiler::compile(graph, {{64, Sim::spad_words}, 1, {}, {}});
      for (const spec::descriptor& d : p.descriptors) pairs += d.dw_pairs;
      // 4.5 blocks of 32 become 5, which pays for itself with many rows.
      if (channels == 144)
        EXPECT_GE(pairs, h == 100 ? 2u : 1u);
      else
        EXPECT_EQ(pairs, channels == 64 ? 1u : 2u);
      EXPECT_EQ(p.macs(), graph.macs());
      EXPECT_GT(p.counted_macs(), p.macs());
    }
  }
}

TEST(CompiledPairs, WhatIsNoPairIsRefused) {
  using Sim = engine_sim<VEngine64, 64>;
  graph_builder b(400);
  const std::vector<int> none{0, 0, 0, 0}, one{1, 1, 1, 1};
  int t = b.conv(b.input(3, 32, 32), 32, 3, 3, 2, 2, one);
  t = b.depthwise(t, 3, 3, 1, 1, one);
  t = b.conv(t, 96, 1, 1, 1, 1, none);
  t = b.depthwise(t, 3, 3, 2, 2, one);
  const program p = compiler::compile(b.finish(t), {{64, Sim::spad_words}, 1, {}, {}});
  Sim s(400);
  unsigned pairs = 0;
  for (const spec::descriptor& good : p.descriptors) {
    if (good.dw_pairs == 0) continue;
    ++pairs;
    const auto refused = [&](const char* what, auto change) {
      spec::descriptor bad = good;
      change(bad);
      s.load_pages(pages_in_order(p, good, 1));
      const std::size_t pages = s.beats_left();
      EXPECT_TRUE(s.run(bad, 1).bad_desc) << what;
      EXPECT_EQ(s.beats_left(), pages) << what;
      s.drop_pages();
    };
    refused("a window of one column", [](auto& d) { d.dw_kernel_w = 1, d.dw_pad_left = 0; });
    refused("a window of five columns", [](auto& d) { d.dw_kernel_w = 5; });
    refused("a window of five rows", [](auto& d) { d.dw_kernel_h = 5; });
    refused("no padding", [](auto& d) { d.dw_pad_left = 0; });
    refused("two columns of padding", [](auto& d) { d.dw_pad_left = 2; });
    refused("a step of three", [](auto& d) { d.dw_stride_x = 3; });
    refused("another step", [](auto& d) { d.dw_stride_x = 3 - d.dw_stride_x; });
    refused("a tile more", [](auto& d) { ++d.n_tiles; });
    refused("a column less", [](auto& d) { --d.out_w; });
    refused("a pair more", [](auto& d) { ++d.mid_w; });
    refused("pages of more parameters", [](auto& d) { ++d.param_pages; });
    refused("nothing behind it", [](auto& d) { d.fuse_dw = 0; });
    refused("narrow blocks", [](auto& d) { d.out_cb = 1, d.out_cp_log2 = 4, d.out_c_last = 16; });
  }
  EXPECT_EQ(pairs, 2u);
}

}  // namespace
}  // namespace latchkey::test
