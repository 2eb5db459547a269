// Whole programs on lk_engine: random graphs, compiled, their pages and descriptors run by the RTL,
// against the reference executor of host/model.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include "../../host/compiler/random_graph.hpp"
#include "VEngine16.h"
#include "VEngine32.h"
#include "VEngine64.h"
#include "compiler/compile.hpp"
#include "engine_sim.hpp"
#include "model/reference.hpp"

namespace latchkey::test {
namespace {

// The pages of one descriptor in the order in which the engine takes them.
std::vector<page> pages_for(const compiler::program& p, const spec::descriptor& d, int batch) {
  std::vector<page> out;
  const auto fetch = [&](std::uint32_t number) {
    out.emplace_back();
    std::memcpy(out.back().data(), p.page(number).data(), spec::page_bytes);
  };
  const auto op = static_cast<spec::op>(d.op);
  if (op != spec::op::mat_mul && op != spec::op::table && op != spec::op::depthwise) return out;
  for (std::uint32_t i = 0; i < d.param_pages; ++i) fetch(d.page_base + i);
  const std::uint32_t tiles = d.n_tiles * d.k_tiles;
  const std::uint32_t rows = op == spec::op::mat_mul ? batch * d.out_h * d.out_w : 1;
  for (std::uint32_t row = 0; row < rows; row += spec::acc_rows) {
    for (std::uint32_t i = 0; i < tiles; ++i) fetch(d.page_base + d.param_pages + i);
  }
  return out;
}

template <class Sim>
void expect_reference(Sim& s, const model::qgraph& graph, int batch) {
  const compiler::program p =
      compiler::compile(graph, {{Sim::array_n, Sim::spad_words}, static_cast<unsigned>(batch), {}});
  model::reference golden(graph);
  std::vector<std::vector<std::uint8_t>> want;
  const std::size_t in_words = p.input.layout.words, out_words = p.output.layout.words;
  for (int i = 0; i < batch; ++i) {
    std::vector<std::uint8_t> image(graph.input_tensor().size());
    for (auto& b : image) b = static_cast<std::uint8_t>(s.rng());
    const auto out = golden.infer(image);
    want.emplace_back(out.begin(), out.end());
    const auto packed = p.input.layout.pack(image);
    for (std::size_t w = 0; w < in_words; ++w) {
      word x;
      std::memcpy(x.data(), &packed[w * x.size()], x.size());
      s.input.emplace_back(x, i + 1 == batch && w + 1 == in_words);
    }
  }
  s.output.clear();
  std::uint64_t macs = 0;
  for (std::size_t i = 0; i + 1 < p.descriptors.size(); ++i) {
    const spec::descriptor& d = p.descriptors[i];
    s.load_pages(pages_for(p, d, batch));
    const run_result r = s.run(d, batch);
    ASSERT_FALSE(r.bad_desc || r.bad_input) << p.layers[i].op;
    ASSERT_EQ(s.beats_left(), 0u) << p.layers[i].op;
    macs += r.macs;
  }
  EXPECT_EQ(macs, batch * graph.macs());
  ASSERT_EQ(s.output.size(), batch * out_words);
  for (int i = 0; i < batch; ++i) {
    const auto* const first = reinterpret_cast<const std::uint8_t*>(&s.output[i * out_words]);
    const auto got = p.output.layout.unpack({first, out_words * sizeof(word)});
    ASSERT_EQ(std::vector<std::uint8_t>(got.begin(), got.end()), want[i]) << "image " << i;
  }
}

template <class Sim>
void random_graphs(unsigned first, unsigned count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    compiler::graph_builder b(seed);
    const model::qgraph graph = b.random_graph();
    Sim s(seed);
    s.page_idle = s.in_idle = s.out_idle = seed % 3 * 20;
    expect_reference(s, graph, 1 + static_cast<int>(seed % 3));
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(EngineGraphs16, Random) { random_graphs<engine_sim<VEngine16, 16>>(1000, 60); }
TEST(EngineGraphs32, Random) { random_graphs<engine_sim<VEngine32, 32>>(1100, 15); }
TEST(EngineGraphs64, Random) { random_graphs<engine_sim<VEngine64, 64>>(1200, 15); }

// Every vector operation in one graph: what MobileNet's squeeze and excitation looks like.
TEST(EngineGraphs16, SqueezeAndExcitation) {
  for (const int c : {5, 24, 40, 130}) {
    SCOPED_TRACE(std::to_string(c) + " channels");
    compiler::graph_builder b(static_cast<unsigned>(c));
    int t = b.input(c, 9, 7);
    t = b.table(b.conv(t, c, 1, 1, 1, 1, {0, 0, 0, 0}));
    const int factor = b.table(b.fc(b.table(b.fc(b.global_pool(t), 10)), c));
    t = b.add(b.mul(t, factor), t);
    const model::qgraph graph = b.finish(b.avg_pool(t, 3, 3, 2, 2, {1, 1, 1, 1}));
    engine_sim<VEngine16, 16> s(static_cast<unsigned>(c));
    expect_reference(s, graph, 3);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace latchkey::test
