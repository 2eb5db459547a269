// The compiler against the golden int8 model: compiled pages, run by the engine model, give the
// reference executor's results bit for bit, on random graphs and on the shapes of real networks.
#include "compiler/compile.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <random>
#include <set>
#include <string>

#include "compiler/cost.hpp"
#include "compiler/draft.hpp"
#include "compiler/interpret.hpp"
#include "compiler/plan.hpp"
#include "latchkey/error.hpp"
#include "model/reference.hpp"
#include "random_graph.hpp"
#include "reference_check.hpp"

namespace latchkey::compiler {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Compile, RandomGraphsMatchTheReference) {
  const unsigned base = first_seed();
  std::set<std::string> ops;
  int varied = 0;
  for (unsigned i = 0; i < 150; ++i) {
    const unsigned seed = base + i;
    SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
    graph_builder b(seed);
    const model::qgraph graph = b.random_graph();
    for (const std::uint32_t n : {16u, 32u, 64u}) {
      SCOPED_TRACE("array " + std::to_string(n));
      const program p = compile(graph, {{n, 1u << 16}, 0, {}});
      for (const layer_report& l : p.layers) ops.insert(l.op);
      const auto batch = std::min(p.max_batch, n == 16 ? 3u : 1u);
      ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, batch, b.engine()));
    }
    // The graph must be worth testing: its output is not one constant.
    io::bytes image(graph.input_tensor().size());
    for (auto& v : image) v = static_cast<std::uint8_t>(b.engine()());
    model::reference golden(graph);
    const auto out = golden.infer(image);
    varied += std::set<std::uint8_t>(out.begin(), out.end()).size() > 1;
  }
  EXPECT_EQ(ops,
            (std::set<std::string>{"input", "conv", "conv+add", "conv+depthwise", "fc", "fc+table",
                                   "depthwise", "max_pool", "upsample", "avg_pool", "add", "sub",
                                   "mul", "table", "transposed", "join", "output"}));
  EXPECT_GT(varied, 75) << "the random graphs have become too tame";
}

TEST(Compile, TightScratchpadsShareWordsAndStillMatch) {
  const unsigned base = first_seed();
  int shared = 0;
  for (unsigned i = 0; i < 60; ++i) {
    SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(base + i));
    graph_builder b(base + i);
    const model::qgraph graph = b.random_graph();
    const program roomy = compile(graph, {{16, 1u << 16}, 1, {}});
    // Exactly as many words as the plan asks for two images; one word less takes one image only.
    const program p = compile(graph, {{16, 2 * roomy.peak_words}, 0, {}});
    EXPECT_EQ(p.max_batch, 2u);
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
    EXPECT_EQ(compile(graph, {{16, 2 * roomy.peak_words - 1}, 0, {}}).max_batch, 1u);
    std::uint64_t all = 0;
    for (const layer_report& l : roomy.layers) all += l.words;
    shared += all > roomy.peak_words;
    if (roomy.peak_words == 1) continue;
    // A word less: something is spilled, a part of a join is copied, or nothing can be done.
    const compile_options less{{16, roomy.peak_words - 1}, 0, {}};
    program spilling;
    try {
      spilling = compile(graph, less);
    } catch (const error&) {
      EXPECT_THAT([&] { compile(graph, less); },
                  ThrowsMessage<error>(testing::AllOf(
                      HasSubstr("layer '"), HasSubstr(std::to_string(roomy.peak_words - 1)),
                      HasSubstr("use a build"))));
      continue;
    }
    EXPECT_EQ(roomy.spill_pages, 0u);
    EXPECT_GT(spilling.descriptors.size(), roomy.descriptors.size());
    EXPECT_EQ(spilling.max_batch, 1u);
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, spilling, 1, b.engine()));
  }
  EXPECT_GT(shared, 20) << "no plan reuses words any more";
}

TEST(Compile, LenetAndMlpShapes) {
  graph_builder b(1);
  int t = b.input(1, 28, 28);
  t = b.conv(t, 16, 5, 5, 1, 1, {2, 2, 2, 2});
  t = b.max_pool(t, 2, 2, 2, 2, {0, 0, 0, 0});
  t = b.conv(t, 32, 5, 5, 1, 1, {0, 0, 0, 0});
  t = b.max_pool(t, 2, 2, 2, 2, {0, 0, 0, 0});
  t = b.fc(t, 120);
  t = b.fc(t, 10);
  const model::qgraph lenet = b.finish(t);
  const program p = compile(lenet, {{32, spec::spad_words}, 0, {}});
  // The second convolution packs four taps of 16 channels into a K-tile: 7 tiles, not 25.
  EXPECT_EQ(p.descriptors[3].k_tiles, 7u);
  // The fully connected layer reads its 5x5x32 input as 12.5 words, not as 25 taps.
  EXPECT_EQ(p.descriptors[5].kernel_h, 1u);
  EXPECT_EQ(p.descriptors[5].taps, 13u);
  EXPECT_EQ(p.descriptors[5].in_c_last, 32u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(lenet, p, 3, b.engine()));

  graph_builder m(2);
  t = m.input(784, 1, 1);
  t = m.fc(m.fc(m.fc(t, 256), 128), 10);
  const model::qgraph mlp = m.finish(t);
  const program q = compile(mlp, {{16, spec::spad_words}, 0, {}});
  EXPECT_EQ(q.descriptors[1].k_tiles, 13u);
  EXPECT_EQ(q.max_batch, 256u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(mlp, q, 256, m.engine()));
}

TEST(Compile, FullyConnectedOverPaddingChannelsKeepsItsWindow) {
  // 3 channels lie in blocks of 4: reading words would count a padding byte per pixel as work.
  graph_builder b(13);
  const model::qgraph graph = b.finish(b.fc(b.input(3, 5, 7), 20));
  const program p = compile(graph, {{16, 64}, 1, {}});
  EXPECT_EQ(p.descriptors[1].kernel_h, 5u);
  EXPECT_EQ(p.descriptors[1].kernel_w, 7u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
}

TEST(Compile, FullyConnectedOverMoreThanAPixelsChannelsKeepsItsWindow) {
  graph_builder b(15);
  const model::qgraph graph = b.finish(b.fc(b.input(64, 5, 13), 20));
  const program p = compile(graph, {{16, 64 * 65}, 1, {}});
  EXPECT_EQ(p.descriptors[1].kernel_w, 13u);
  EXPECT_EQ(p.descriptors[1].in_cb, 1u);
  EXPECT_EQ(p.descriptors[1].k_tiles, 65u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
}

// A residual block: the addition joins the later of its two convolutions, whichever operand that
// is.
TEST(Compile, ResidualAdditionsAreFused) {
  for (const bool first : {true, false}) {
    graph_builder b(20);
    const int x = b.input(40, 6, 6);
    const int shortcut = b.conv(x, 70, 1, 1, 1, 1, {0, 0, 0, 0});
    const int y = b.conv(b.conv(x, 20, 3, 3, 1, 1, {1, 1, 1, 1}), 70, 1, 1, 1, 1, {0, 0, 0, 0});
    const model::qgraph graph = b.finish(first ? b.add(y, shortcut) : b.add(shortcut, y));
    const program p = compile(graph, {{64, 4096}, 0, {}});
    ASSERT_EQ(p.layers.size(), 5u);  // input, three convolutions, output
    EXPECT_EQ(p.layers[1].op, "conv");
    EXPECT_EQ(p.layers[3].op, "conv+add");
    EXPECT_EQ(p.descriptors[3].fuse_add, 1u);
    EXPECT_EQ(p.descriptors[3].in2_base, p.descriptors[1].out_base);
    EXPECT_EQ(p.descriptors[4].in_base, p.descriptors[3].out_base);
    const auto& add = std::get<model::qadd>(graph.nodes.back().op);
    EXPECT_EQ(p.descriptors[3].add_mult_a, first ? add.mult_a : add.mult_b);
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
  }
}

TEST(Compile, AdditionsStayWhereTheyCannotBeFused) {
  const auto added = [](const model::qgraph& g) {
    std::vector<std::string> ops;
    for (const layer_report& l : compile(g, {{16, 4096}, 1, {}}).layers) ops.push_back(l.op);
    const auto count = [&](const char* op) { return std::count(ops.begin(), ops.end(), op); };
    return count("add") + count("sub") == 1 && count("conv+add") == 0;
  };
  graph_builder reread(22);  // somebody else reads the convolution's result
  int x = reread.input(8, 5, 5);
  const int y = reread.conv(x, 8, 1, 1, 1, 1, {0, 0, 0, 0});
  EXPECT_EQ(
      compile(reread.finish(reread.add(reread.add(y, x), y)), {{16, 4096}, 1, {}}).layers.size(),
      5u);
  graph_builder pooled(23);  // the later operand is no convolution
  x = pooled.conv(pooled.input(8, 5, 5), 8, 1, 1, 1, 1, {0, 0, 0, 0});
  EXPECT_TRUE(added(pooled.finish(pooled.add(x, pooled.max_pool(x, 1, 1, 1, 1, {0, 0, 0, 0})))));
  graph_builder itself(24);  // both operands are one tensor
  x = itself.conv(itself.input(8, 5, 5), 8, 1, 1, 1, 1, {0, 0, 0, 0});
  EXPECT_TRUE(added(itself.finish(itself.add(x, x))));
}

// Constants stand in the scratchpad once, whatever the batch; an addition of one is fused too.
TEST(Compile, ConstantsAreLoadedOnce) {
  graph_builder b(31);
  const int x = b.input(40, 6, 7);
  int t = b.conv(x, 70, 1, 1, 1, 1, {0, 0, 0, 0});
  t = b.add(t, b.constant(70, 6, 7));
  t = b.max_pool(t, 1, 1, 1, 1, {0, 0, 0, 0});
  t = b.add(t, b.constant(70, 6, 7));
  t = b.mul(t, b.constant(70, 6, 7));
  t = b.add(t, b.constant(70, 1, 1));
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{16, 4096}, 0, {}});
  std::vector<std::string> ops;
  for (const layer_report& l : p.layers) ops.push_back(l.op);
  const std::string sum = std::get<model::qadd>(graph.nodes[5].op).negate_b ? "sub" : "add";
  const std::string last = std::get<model::qadd>(graph.nodes[9].op).negate_b ? "sub" : "add";
  EXPECT_EQ(ops, (std::vector<std::string>{"input", "load", "conv+add", "max_pool", "load", sum,
                                           "load", "mul", "load", last, "output"}));
  for (const std::size_t i : {2u, 5u, 7u, 9u}) EXPECT_EQ(p.descriptors[i].in2_stride, 0u) << i;
  // 84 words lie on two pages; the first byte is the first pixel's channel 0.
  EXPECT_EQ(p.descriptors[1].out_stride, 84u);
  EXPECT_EQ(p.descriptors[1].param_pages, 2u);
  EXPECT_EQ(p.layers[1].pages, 2u);
  EXPECT_EQ(p.page(p.descriptors[1].page_base)[0],
            std::get<model::qconstant>(graph.nodes[1].op).values[0] ^ 0x80);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 3, b.engine()));
  const run_cost once = predict(p, 1, memory_preset("ideal"), false);
  EXPECT_EQ(predict(p, 3, memory_preset("ideal"), false).layers[1].vector, once.layers[1].vector);
}

// Rows and columns seen as tokens are the same words; what would fuse fuses through them, but for
// windows.
TEST(Compile, ViewsMoveNothing) {
  graph_builder b(34);
  const int x = b.input(3, 8, 12);
  int t = b.conv(x, 70, 4, 4, 4, 4, {0, 0, 0, 0});
  t = b.add(b.view(t, 1, 6), b.constant(70, 1, 6));
  const int tokens = t;
  t = b.depthwise(b.view(b.conv(t, 64, 1, 1, 1, 1, {0, 0, 0, 0}), 2, 3), 3, 3, 1, 1, {1, 1, 1, 1});
  t = b.table(b.view(b.conv(b.view(t, 3, 2), 70, 1, 1, 1, 1, {0, 0, 0, 0}), 1, 6));
  t = b.add(t, tokens);
  t = b.fc(b.view(t, 6, 1), 10);
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{16, 4096}, 0, {}});
  std::vector<std::string> ops;
  for (const layer_report& l : p.layers) ops.push_back(l.op);
  ASSERT_EQ(ops.size(), 9u) << testing::PrintToString(ops);
  EXPECT_EQ(ops[1], "load");
  EXPECT_EQ(ops[2], "conv+add");
  EXPECT_EQ(ops[3], "conv");
  EXPECT_EQ(ops[4], "depthwise");
  EXPECT_EQ(ops[5], "conv+table");
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 3, b.engine()));
  // Also of the input, and as the output.
  graph_builder e(35);
  const model::qgraph edges =
      e.finish(e.view(e.max_pool(e.view(e.input(5, 4, 6), 3, 8), 1, 1, 1, 1, {0, 0, 0, 0}), 1, 24));
  ASSERT_NO_FATAL_FAILURE(expect_equal(edges, compile(edges, {{16, 64}, 0, {}}), 2, e.engine()));
}

TEST(Compile, RefusesConstantsThatDoNotFit) {
  graph_builder b(32);
  const int x = b.input(64, 5, 5);
  const model::qgraph graph = b.finish(b.mul(x, b.constant(64, 5, 5)));
  EXPECT_EQ(compile(graph, {{16, 75}, 0, {}}).max_batch, 1u);
  EXPECT_THAT([&] { compile(graph, {{16, 74}, 0, {}}); },
              ThrowsMessage<error>(testing::AllOf(HasSubstr("layer 'mul1'"), HasSubstr("75"))));

  // The card's second operand alone may be one.
  model::qgraph swapped = graph;
  std::swap(swapped.nodes[1].inputs[0], swapped.nodes[1].inputs[1]);
  EXPECT_THAT([&] { compile(swapped, {{16, 75}, 0, {}}); },
              ThrowsMessage<error>(HasSubstr("reads a constant other than")));
  model::qgraph cut = graph;
  std::get<model::qconstant>(cut.nodes[0].op).values.pop_back();
  EXPECT_THAT([&] { compile(cut, {{16, 75}, 0, {}}); },
              ThrowsMessage<error>(HasSubstr("1599 values")));
}

TEST(Compile, ManyChannelsSpanParameterPages) {
  graph_builder b(3);
  int t = b.input(70, 2, 2);
  t = b.conv(t, 600, 1, 1, 1, 1, {0, 0, 0, 0});
  t = b.fc(t, 257);
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{32, spec::spad_words}, 1, {}});
  EXPECT_EQ(p.descriptors[1].param_pages, 3u);
  EXPECT_EQ(p.descriptors[2].param_pages, 2u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
}

TEST(Compile, SqueezeAndExcitation) {
  graph_builder b(14);
  const int x = b.input(40, 9, 7);
  const int factor = b.table(b.fc(b.table(b.fc(b.global_pool(x), 10)), 40));
  const model::qgraph graph = b.finish(b.mul(x, factor));
  const program p = compile(graph, {{16, 4096}, 0, {}});
  const spec::descriptor& pool = p.descriptors[1];
  EXPECT_EQ(pool.kernel_h, 9u);
  EXPECT_EQ(pool.kernel_w, 7u);
  EXPECT_EQ(pool.out_h * pool.out_w, 1u);
  // The table is fused into the layer before it, and its page, indexed by the stored byte (0x80
  // stands for 0), comes before the layer's own.
  const spec::descriptor& table = p.descriptors[2];
  EXPECT_EQ(table.fuse_table, 1u);
  EXPECT_EQ(table.param_pages, 1u);
  EXPECT_EQ(p.layers[2].pages, 3u);
  const auto& entries = std::get<model::qtable>(graph.nodes[2].op).entries;
  EXPECT_EQ(p.page(table.page_base)[0x80], entries[0] ^ 0x80);
  EXPECT_EQ(p.page(table.page_base)[0x7f], entries[255] ^ 0x80);
  EXPECT_EQ(p.page(table.page_base)[256], 0u);
  EXPECT_EQ(p.descriptors[4].in2_broadcast, 1u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 3, b.engine()));
}

TEST(Compile, EncodersMatchTheReference) {
  const std::vector<std::array<int, 3>> shapes{{1, 40, 5}, {1, 130, 33}, {2, 64, 16}, {3, 128, 40}};
  unsigned seed = 20;
  for (const auto& [heads, depth, tokens] : shapes) {
    SCOPED_TRACE(std::to_string(heads) + " heads of " + std::to_string(depth));
    graph_builder b(++seed);
    const model::qgraph graph = b.finish(b.encoder(b.input(heads * depth, 1, tokens), heads));
    const program p = compile(graph, {{16, 1u << 16}, 0, {}});
    std::vector<std::string> ops;
    for (const layer_report& l : p.layers) ops.push_back(l.op);
    EXPECT_EQ(ops, (std::vector<std::string>{"input", "conv", "conv", "conv", "product", "softmax",
                                             "product", "conv+add", "layer_norm", "conv+table",
                                             "conv", "softmax", "output"}));
    // Heads lie apart, and only heads.
    for (const int i : {1, 2, 3, 6}) EXPECT_EQ(p.descriptors[i].out_planar, heads > 1) << i;
    EXPECT_EQ(p.descriptors[4].in2_planar, heads > 1);
    EXPECT_EQ(p.descriptors[7].in_planar, heads > 1);
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
  }
}

// What a product cannot do is refused with the layer's name.
TEST(Compile, RefusesHeadsThatItCannotTakeApart) {
  const auto refused = [](const model::qgraph& graph) {
    try {
      compile(graph, {{16, spec::spad_words}, 1, {}});
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::unsupported_model);
      return std::string(e.what());
    }
    return std::string();
  };
  {
    graph_builder b(1);
    const int x = b.input(32, 1, 8);
    const int q = b.factor(x, 32);
    EXPECT_NE(refused(b.finish(b.product(q, b.factor(x, 32), 1, true))).find("33 and more"),
              std::string::npos);
  }
  {
    graph_builder b(2);
    const int x = b.input(128, 1, 9);
    const int q = b.factor(x, 128);
    EXPECT_NE(refused(b.finish(b.product(q, b.factor(x, 128), 2, true))).find("pad the sequence"),
              std::string::npos);
  }
  {
    graph_builder b(3);
    const int x = b.input(128, 1, 40);
    const int q = b.factor(x, 128);
    const int y = b.product(q, b.factor(x, 128), 2, true);
    EXPECT_NE(refused(b.finish(b.add(b.product(b.softmax(y, 128), q, 2, false), x)))
                  .find("heads of attention"),
              std::string::npos);
  }
}

TEST(Compile, TransposedConvolutionsWriteTheirRowsApart) {
  struct shape {
    int c, h, w, out, sy, sx;
  };
  const shape shapes[] = {
      {64, 5, 7, 64, 2, 2},   // whole blocks
      {40, 6, 3, 130, 3, 3},  // padding channels within and at the end
      {16, 4, 8, 8, 2, 2},    // two pixels are a block of 16 bytes
      {3, 2, 16, 20, 2, 4},   // four pixels of 32 bytes are two blocks
      {9, 1, 5, 33, 4, 1},    // one row; it need not fill words
      {20, 5, 3, 9, 1, 2},    // no row has to
      {130, 255, 1, 50, 2, 2},
  };
  unsigned seed = first_seed();
  for (const shape& s : shapes) {
    SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
    graph_builder b(seed++);
    const int x = b.conv(b.input(5, s.h, s.w), s.c, 1, 1, 1, 1, {0, 0, 0, 0});
    ASSERT_TRUE(b.transposes(x, s.out, s.sy, s.sx));
    const int t = b.transposed(x, s.out, s.sy, s.sx);
    const model::qgraph graph = b.finish(b.depthwise(t, 3, 3, 1, 1, {1, 1, 1, 1}));
    for (const std::uint32_t n : {16u, 32u, 64u}) {
      SCOPED_TRACE("array " + std::to_string(n));
      const program p = compile(graph, {{n, 1u << 17}, 2, {}});
      ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
      // Input, convolution, a step for each row of one, depthwise, output.
      ASSERT_EQ(p.layers.size(), 4u + static_cast<std::size_t>(s.sy));
      for (std::size_t row = 0; row < static_cast<std::size_t>(s.sy); ++row) {
        const spec::descriptor& d = p.descriptors[2 + row];
        EXPECT_EQ(image_slices(d), s.sy == 1 ? 1u : static_cast<std::uint32_t>(s.h));
        EXPECT_EQ(d.out_base - p.descriptors[2].out_base,
                  row * d.out_stride / static_cast<std::size_t>(s.sy));
        EXPECT_EQ(p.layers[2 + row].macs,
                  static_cast<std::uint64_t>(s.c) * s.out * s.h * s.w * s.sx);
      }
    }
  }
}

TEST(Compile, TransposedConvolutionsAreCopiedIntoJoins) {
  for (const int sy : {1, 2}) {
    graph_builder b(37);
    const int x = b.input(64, 6, 4);
    const int up = b.transposed(x, 64, sy, 2), skip = b.upsample(x, sy, 2);
    b.like(up, skip);
    const model::qgraph graph = b.finish(b.join({up, skip}));
    const program p = compile(graph, {{16, 1024}, 2, {}});
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
    std::vector<std::string> ops;
    for (const layer_report& l : p.layers) ops.push_back(l.op);
    EXPECT_EQ(std::count(ops.begin(), ops.end(), "join"), 1);
    EXPECT_EQ(std::count(ops.begin(), ops.end(), "transposed"), sy);
  }
}

TEST(Compile, RefusesTransposedConvolutionsThatDoNotFit) {
  const auto refuses = [](int c, int h, int w, int out, int sy, int sx, const char* why) {
    graph_builder b(36);
    const model::qgraph graph = b.finish(b.transposed(b.input(c, h, w), out, sy, sx));
    EXPECT_THAT(
        [&] { compile(graph, {{16, 1u << 16}, 1, {}}); },
        ThrowsMessage<error>(testing::AllOf(HasSubstr("layer 'transposed0'"), HasSubstr(why))));
  };
  refuses(64, 2, 2, 3, 2, 3, "12 bytes");
  refuses(64, 2, 2, 900, 2, 5, "4800 bytes");
  refuses(16, 2, 3, 64, 2, 2, "whole words");
  refuses(64, 2, 3, 8, 2, 2, "whole words");
  refuses(64, 256, 1, 64, 2, 2, "256 rows");
}

TEST(Compile, DepthwiseTakesAPageABlockAndIsReadOnce) {
  graph_builder b(14);
  const int x = b.input(300, 30, 20);
  const model::qgraph graph = b.finish(b.depthwise(x, 3, 5, 1, 2, {1, 2, 1, 2}));
  const program p = compile(graph, {{16, spec::spad_words}, 2, {}});
  const spec::descriptor& d = p.descriptors[1];
  EXPECT_EQ(d.param_pages, 2u);
  EXPECT_EQ(d.n_tiles, 5u);
  EXPECT_EQ(d.k_tiles, 1u);
  EXPECT_EQ(p.layers[1].pages, 7u);
  EXPECT_EQ(p.layers[1].macs, 30u * 10 * 300 * 15);
  EXPECT_EQ(pages_fetched(p, 2), 1u + 7u) << "also when the batch has more than 512 rows";
  // Channel 130 is channel 2 of the third block; tap (1, 4) is beat 9 of its page.
  const auto& c = std::get<model::qdepthwise>(graph.nodes[0].op);
  EXPECT_EQ(static_cast<std::int8_t>(p.page(1 + 2 + 2)[9 * 64 + 2]), c.weights[130 * 15 + 9]);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
}

// The rows that each step leaves out of the last image may lie behind the scratchpad's last word.
TEST(Compile, RowsOfOneRowEndWithTheScratchpad) {
  graph_builder b(18);
  const model::qgraph graph = b.finish(b.transposed(b.input(640, 1, 4), 64, 3, 1));
  const program p = compile(graph, {{16, 2 * (40 + 12)}, 2, {}});
  EXPECT_EQ(p.descriptors[3].out_base, 2u * 40 + 8);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
}

TEST(Compile, OnePixelGraphWithoutNodes) {
  graph_builder b(4);
  const int t = b.input(5, 3, 3);
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{16, 64}, 2, {}});
  EXPECT_EQ(p.descriptors.size(), 3u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
}

TEST(Compile, IsDeterministicAndAnnouncesItsPasses) {
  graph_builder b(5);
  const model::qgraph graph = b.random_graph();
  std::vector<std::string> lines;
  const auto log = [&](std::string_view name, int i, int n) {
    lines.push_back("Running pass " + std::string(name) + " [" + std::to_string(i) + "/" +
                    std::to_string(n) + "]");
  };
  const program p = compile(graph, {{16, spec::spad_words}, 0, log});
  const program q = compile(graph, {{16, spec::spad_words}, 0, {}});
  EXPECT_EQ(p.pages, q.pages);
  ASSERT_EQ(lines.size(), 13u);
  EXPECT_EQ(lines[9], "Running pass plan_scratchpad [10/13]");
}

TEST(Compile, ShowsWhatEachPassLeavesBehind) {
  graph_builder b(5);
  const model::qgraph graph = b.random_graph();
  std::vector<nlohmann::json> drafts;
  compile_options options;
  options.after_pass = [&](std::string_view, int number, const draft& d) {
    drafts.push_back(to_json(d));
    EXPECT_EQ(drafts.size(), static_cast<std::size_t>(number));
  };
  const program p = compile(graph, options);
  ASSERT_EQ(drafts.size(), 13u);
  EXPECT_TRUE(drafts[0]["steps"].empty());
  std::size_t steps = 2;  // Input and Output
  for (const model::qnode& n : graph.nodes) {
    const auto* conv = std::get_if<model::qconv>(&n.op);
    const bool rows = conv != nullptr && conv->transposed;
    steps += std::holds_alternative<model::qjoin>(n.op) ? n.inputs.size()
             : rows                                     ? static_cast<std::size_t>(conv->stride_y)
                                                        : 1;
  }
  EXPECT_EQ(drafts[1]["steps"].size(), steps);
  EXPECT_EQ(drafts[1]["max_batch"], 0);
  EXPECT_EQ(drafts[8]["max_batch"], 0);
  EXPECT_EQ(drafts[9]["max_batch"], p.max_batch);
  EXPECT_EQ(drafts[9]["pages"], 0);
  EXPECT_EQ(drafts[10]["pages"], p.num_pages());
  // What is dumped last is what was emitted, field by field.
  const nlohmann::json& last = drafts[12];
  ASSERT_EQ(last["steps"].size() + 1, p.descriptors.size());
  for (std::size_t i = 0; i < last["steps"].size(); ++i) {
    spec::descriptor d;
    for (const auto& field : spec::descriptor_fields)
      d.*field.value = last["steps"][i]["descriptor"].value(std::string(field.name), 0u);
    EXPECT_EQ(d.pack(), p.descriptors[i].pack()) << i;
  }
  ASSERT_EQ(last["regions"].size(), p.regions.size());
  EXPECT_EQ(last["regions"][0]["sha256"],
            io::to_hex(io::sha256({io::byte_view(p.pages).first(std::size_t{p.regions[0].count} *
                                                                spec::page_bytes)})));
}

TEST(Compile, BiasFoldingMatchesTheFormula) {
  graph_builder b(6);
  int t = b.input(3, 1, 1);
  t = b.fc(t, 2);
  const model::qgraph graph = b.finish(t);
  const auto& c = std::get<model::qconv>(graph.nodes[0].op);
  const program p = compile(graph, {{16, 64}, 1, {}});
  const std::uint8_t* params = p.page(1).data();
  for (std::size_t o = 0; o < 2; ++o) {
    const int sum = c.weights[3 * o] + c.weights[3 * o + 1] + c.weights[3 * o + 2];
    const std::int32_t want = c.bias[o] + (128 - graph.input_tensor().zero_point) * sum;
    std::int32_t got = 0;
    for (int i = 3; i >= 0; --i) got = got << 8 | params[16 * o + static_cast<std::size_t>(i)];
    EXPECT_EQ(got, want);
  }
}

TEST(Compile, RefusesWhatTheBuildCannotDo) {
  const auto refuses = [](const model::qgraph& g, const compile_options& o, const char* reason) {
    EXPECT_THAT([&] { compile(g, o); }, ThrowsMessage<error>(HasSubstr(reason)));
  };
  graph_builder b(7);
  const model::qgraph simple = b.finish(b.fc(b.input(3, 2, 2), 4));
  refuses(simple, {{48, 64}, 0, {}}, "16, 32 or 64");
  refuses(simple, {{16, 0}, 0, {}}, "scratchpad");
  refuses(simple, {{16, 64}, 257, {}}, "257");
  refuses(simple, {{16, 64}, 33, {}}, "enough for a batch of 32, and spilling others cannot help");
  refuses(simple, {{16, 1}, 0, {}}, "layer 'fc0'");

  graph_builder wide(8);
  refuses(wide.finish(wide.fc(wide.input(3, 1, 256), 1)), {{16, 4096}, 0, {}}, "8-bit");
  graph_builder deep(9);
  int t = deep.input(1, 1, 1);
  for (int i = 0; i < 510; ++i) t = deep.max_pool(t, 1, 1, 1, 1, {0, 0, 0, 0});
  refuses(deep.finish(t), {{16, 4096}, 0, {}},
          "has 510 layers after folding; the accelerator holds 509");
  graph_builder many(10);
  refuses(many.finish(many.fc(many.input(1, 1, 1), 4097)), {{16, 4096}, 0, {}}, "4096");

  graph_builder thick(16);
  refuses(thick.finish(thick.fc(thick.input(4097, 1, 1), 3)), {{16, 4096}, 0, {}},
          "its input has 4097 channels; the accelerator takes 4096");
  graph_builder large(15);
  refuses(large.finish(large.depthwise(large.input(3, 20, 20), 5, 13, 1, 1, {0, 0, 0, 0})),
          {{16, 4096}, 0, {}}, "64 taps are possible");
  graph_builder padded(16);
  refuses(padded.finish(padded.depthwise(padded.input(3, 9, 9), 3, 3, 1, 1, {3, 0, 0, 0})),
          {{16, 4096}, 0, {}}, "padding as large as the depthwise kernel");
  graph_builder channels(17);
  refuses(channels.finish(channels.depthwise(channels.input(4097, 1, 1), 1, 1, 1, 1, {0, 0, 0, 0})),
          {{16, 4096}, 0, {}}, "4097 channels");

  model::qgraph broken = simple;
  std::get<model::qconv>(broken.nodes[0].op).weights.pop_back();
  EXPECT_THROW(compile(broken), error);
}

TEST(Compile, AsManyDescriptorsAsTheChipHoldsFit) {
  graph_builder b(11);
  int t = b.input(4, 1, 1);
  for (int i = 0; i < 509; ++i) t = b.fc(t, 4);
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{16, 64}, 0, {}});
  EXPECT_EQ(p.descriptors.size(), 512u);
  EXPECT_EQ(p.regions[0].count, 16u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 2, b.engine()));
}

TEST(Plan, NeverOverlapsTheLivingAndMeetsTheBoundOnChains) {
  const unsigned seed = first_seed();
  SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::vector<lifetime> t(1 + random() % 20);
    for (lifetime& l : t) {
      l.words = 1 + random() % 50;
      l.first = random() % 20;
      l.last = l.first + random() % 6;
    }
    const placement p = place(t);
    EXPECT_GE(p.peak, p.bound);
    for (std::size_t i = 0; i < t.size(); ++i) {
      EXPECT_LE(p.base[i] + t[i].words, p.peak);
      for (std::size_t j = 0; j < i; ++j) {
        if (t[i].first > t[j].last || t[j].first > t[i].last) continue;
        EXPECT_TRUE(p.base[i] + t[i].words <= p.base[j] || p.base[j] + t[j].words <= p.base[i]);
      }
    }
  }
  for (int round = 0; round < 100; ++round) {
    std::vector<lifetime> chain(2 + random() % 30);
    for (std::size_t i = 0; i < chain.size(); ++i) chain[i] = {1 + random() % 100, i, i + 1};
    const placement p = place(chain);
    EXPECT_EQ(p.peak, p.bound);
  }
}

// The post unit against the arithmetic it stands for: float32, rounding to nearest even. Biases
// serve as accumulators, so any int32 is reached; half of the cases are built to come out next to
// a half, where a rounding left out or done twice shows.
TEST(Interpret, RequantisesAsFloat32Does) {
  const unsigned seed = first_seed();
  SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr std::uint32_t channels = 4096;
  spec::descriptor d;
  d.op = static_cast<std::uint32_t>(spec::op::mat_mul);
  d.param_pages = channels / spec::params_per_page;
  d.n_tiles = channels / spec::tile_dim;
  d.k_tiles = d.in_stride = d.in_h = d.in_w = d.in_cb = d.in_c_last = d.taps = 1;
  d.out_base = 1;
  d.out_stride = d.out_cb = channels / 64;
  d.out_h = d.out_w = d.kernel_h = d.kernel_w = d.stride_y = d.stride_x = 1;
  d.out_cp_log2 = 6;
  d.out_c_last = 64;
  d.clamp_lo = 0x80;
  d.clamp_hi = 0x7f;
  io::bytes pages(std::size_t{d.param_pages + d.n_tiles} * spec::page_bytes);
  std::vector<float> exact(channels);
  int halves = 0, beyond_24_bits = 0;
  for (int round = 0; round < 50; ++round) {
    for (std::uint32_t c = 0; c < channels; ++c) {
      const std::uint32_t m = (1u << 23) + random() % (1u << 23);
      const auto want = static_cast<int>(random() % 120);
      std::int64_t acc = 0;
      unsigned s = 0;
      if (random() % 2 == 0) {
        // acc * m * 2^-s next to want + 1/2, with acc of 24 to 30 bits.
        const std::uint32_t size = 1u << (23 + random() % 7);
        while ((2.0 * want + 1) * std::ldexp(1.0, static_cast<int>(s) - 1) / m < size) ++s;
        acc = std::llround((2.0 * want + 1) * std::ldexp(1.0, static_cast<int>(s) - 1) / m);
      } else {
        acc = static_cast<std::int32_t>(random()) >> (random() % 16);
        while (std::ldexp(std::abs(static_cast<double>(acc)) * m, -static_cast<int>(s)) > 120) ++s;
      }
      if (random() % 2 == 0) acc = -acc;
      acc = std::clamp<std::int64_t>(acc, INT32_MIN, INT32_MAX);
      beyond_24_bits += std::abs(acc) > 1 << 24;
      std::uint8_t* p = &pages[c * spec::param_bytes];
      const auto a = static_cast<std::uint32_t>(static_cast<std::int32_t>(acc));
      for (int i = 0; i < 4; ++i) {
        p[i] = static_cast<std::uint8_t>(a >> (8 * i));
        p[4 + i] = static_cast<std::uint8_t>(m >> (8 * i));
      }
      p[8] = static_cast<std::uint8_t>(s);
      const float scale = std::ldexp(static_cast<float>(m), -static_cast<int>(s));
      const volatile float converted = static_cast<float>(static_cast<std::int32_t>(acc));
      const volatile float product = converted * scale;
      exact[c] = product;
      halves += product - std::floor(product) == 0.5F;
    }
    engine_model engine({16, 65});
    io::bytes none;
    engine.execute(d, 1, pages, {}, none);
    for (std::uint32_t c = 0; c < channels; ++c) {
      ASSERT_EQ(static_cast<std::int8_t>(engine.scratchpad()[64 + c]), std::nearbyint(exact[c]))
          << "round " << round << " channel " << c;
    }
  }
  EXPECT_GT(halves, 10000);
  EXPECT_GT(beyond_24_bits, 10000);
}

TEST(Interpret, RefusesAddressesOutsideAndWrongInputs) {
  graph_builder b(12);
  const model::qgraph graph = b.finish(b.fc(b.input(3, 2, 2), 4));
  const program p = compile(graph, {{16, 64}, 2, {}});
  EXPECT_THROW(interpret(p, io::bytes(63), 1), error);
  EXPECT_THROW(interpret(p, io::bytes(128), 1), error);
  EXPECT_THROW(interpret(p, io::bytes(192), 3), error);
  EXPECT_THROW(interpret(p, io::bytes(), 0), error);
  EXPECT_NO_THROW(interpret(p, io::bytes(128), 2));
  engine_model engine(p.target);
  io::bytes out;
  for (auto change :
       {+[](spec::descriptor& d) { d.in_base = 64; },
        +[](spec::descriptor& d) { d.out_base = 0x3ffffff; },
        +[](spec::descriptor& d) { d.page_base = 3; }, +[](spec::descriptor& d) { d.op = 10; },
        +[](spec::descriptor& d) { d.taps = 4096; }}) {
    spec::descriptor d = p.descriptors[1];
    change(d);
    EXPECT_THROW(engine.execute(d, 1, p.pages, {}, out), error);
  }
}

}  // namespace
}  // namespace latchkey::compiler
