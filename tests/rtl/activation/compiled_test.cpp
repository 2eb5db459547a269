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
  EXPECT_EQ(macs, batch * graph.macs());
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

}  // namespace
}  // namespace latchkey::test
