// Whole programs on lk_engine: random graphs, compiled, their pages and descriptors run by the RTL,
// against the reference executor of host/model.
#include <gtest/gtest.h>

#include <array>
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
#include "program_pages.hpp"

namespace latchkey::test {
namespace {

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
    s.load_pages(pages_in_order(p, d, static_cast<std::uint32_t>(batch)));
    run_result r;
    ASSERT_NO_THROW(r = s.run(d, batch)) << p.layers[i].name << ", " << p.layers[i].op;
    ASSERT_FALSE(r.bad_desc || r.bad_input) << p.layers[i].op;
    ASSERT_EQ(s.beats_left(), 0u) << p.layers[i].op;
    macs += r.macs;
  }
  EXPECT_EQ(macs, batch * p.counted_macs());
  EXPECT_EQ(p.macs(), graph.macs());
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

// An encoder layer: attention with one head or more, softmax, layer normalisation, a table behind a
// fully connected layer.
template <class Sim>
void encoders(const std::vector<std::array<int, 3>>& shapes, int batch) {
  unsigned seed = 5000;
  for (const auto& [heads, depth, tokens] : shapes) {
    SCOPED_TRACE(std::to_string(heads) + " heads of " + std::to_string(depth) + ", " +
                 std::to_string(tokens) + " tokens");
    compiler::graph_builder b(++seed);
    const model::qgraph graph = b.finish(b.encoder(b.input(heads * depth, 1, tokens), heads));
    // What the layers make of one another, too: each result in turn as the output.
    for (std::size_t last = 3; last < graph.nodes.size(); ++last) {
      if (heads > 1 && last == 5) continue;  // heads of the context lie apart
      model::qgraph part = graph;
      part.nodes.resize(last + 1);
      part.output.tensor = part.nodes.back().output;
      const model::qtensor& t = part.output_tensor();
      part.output.dims = {t.c, t.h, t.w};
      SCOPED_TRACE(part.nodes.back().name);
      Sim s(seed);
      s.page_idle = seed % 3 * 20;
      expect_reference(s, part, batch);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}
TEST(EngineGraphs16, Encoder) {
  encoders<engine_sim<VEngine16, 16>>(
      {{1, 40, 5}, {1, 64, 16}, {1, 100, 33}, {2, 64, 16}, {3, 64, 40}, {2, 128, 70}}, 2);
}
TEST(EngineGraphs32, Encoder) {
  encoders<engine_sim<VEngine32, 32>>({{1, 40, 7}, {1, 130, 65}, {2, 64, 34}}, 3);
}
TEST(EngineGraphs64, Encoder) {
  encoders<engine_sim<VEngine64, 64>>({{1, 40, 7}, {1, 130, 129}, {2, 64, 64}, {1, 64, 260}}, 2);
}

// More rows than a block of the accumulators holds.
TEST(EngineGraphs64, ProductOfManyRows) {
  compiler::graph_builder b(31);
  const int x = b.input(64, 1, 600);
  const int q = b.factor(x, 64), k = b.factor(x, 64);
  engine_sim<VEngine64, 64> s(31);
  expect_reference(s, b.finish(b.product(q, k, 1, true)), 1);
}

// Softmax and layer normalisation of pixels of every width, and of more of them than a group holds.
template <class Sim>
void rows_of(const std::vector<int>& channels, int h, int w, int batch) {
  unsigned seed = 6000;
  for (const int c : channels) {
    for (const bool softmax : {true, false}) {
      SCOPED_TRACE(std::to_string(c) + " channels, " + (softmax ? "softmax" : "layer norm"));
      compiler::graph_builder b(++seed);
      const int x = b.input(c, h, w);
      const int y = softmax ? b.softmax(x, b.uniform(0, 255)) : b.layernorm(x);
      Sim s(seed);
      s.page_idle = seed % 3 * 30;
      expect_reference(s, b.finish(y), batch);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}
TEST(EngineGraphs16, Rows) {
  rows_of<engine_sim<VEngine16, 16>>({1, 2, 5, 16, 17, 32, 33, 64, 65, 100, 192}, 9, 11, 3);
}
TEST(EngineGraphs32, Rows) { rows_of<engine_sim<VEngine32, 32>>({3, 30, 70, 129}, 7, 10, 2); }
TEST(EngineGraphs64, Rows) {
  rows_of<engine_sim<VEngine64, 64>>({4, 31, 64, 200, 768}, 5, 13, 2);
  if (!testing::Test::HasFatalFailure()) rows_of<engine_sim<VEngine64, 64>>({4000, 4096}, 1, 3, 2);
}

}  // namespace
}  // namespace latchkey::test
