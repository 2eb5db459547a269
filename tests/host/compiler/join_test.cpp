// Joins of channel blocks and of pixels: which parts are made in place, which are copied, and that
// nothing changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "compiler/compile.hpp"
#include "compiler/interpret.hpp"
#include "latchkey/error.hpp"
#include "random_graph.hpp"
#include "reference_check.hpp"

namespace latchkey::compiler {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

const std::vector<int> kNone{0, 0, 0, 0}, kSame{1, 1, 1, 1};

std::vector<std::string> ops_of(const program& p) {
  std::vector<std::string> ops;
  for (const layer_report& l : p.layers) ops.push_back(l.op);
  return ops;
}

/// Descriptors of the copies.
std::vector<spec::descriptor> copies(const program& p) {
  std::vector<spec::descriptor> found;
  for (std::size_t i = 0; i < p.layers.size(); ++i)
    if (p.layers[i].op == "join") found.push_back(p.descriptors[i]);
  return found;
}

bool is(const spec::descriptor& d, spec::op op) { return d.op == static_cast<std::uint32_t>(op); }

/// The program fits the reference on every array, one image and several.
void expect_equal_everywhere(const model::qgraph& graph, std::mt19937& random) {
  for (const std::uint32_t n : {16u, 32u, 64u}) {
    SCOPED_TRACE("array " + std::to_string(n));
    const program p = compile(graph, {{n, 1u << 16}, 3, {}});
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 3, random));
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, random));
  }
}

// SqueezeNet's fire module.
TEST(Join, ConvolutionsWriteTheirPartsInPlace) {
  graph_builder b(1);
  const int squeezed = b.conv(b.input(16, 8, 8), 16, 1, 1, 1, 1, kNone);
  const int narrow = b.conv(squeezed, 64, 1, 1, 1, 1, kNone);
  const int wide = b.like(b.conv(squeezed, 128, 3, 3, 1, 1, kSame), narrow);
  const model::qgraph graph = b.finish(b.conv(b.join({narrow, wide}), 10, 1, 1, 1, 1, kNone));
  const program p = compile(graph, {{16, 1u << 16}, 1, {}});
  EXPECT_THAT(ops_of(p), ElementsAre("input", "conv", "conv", "conv", "conv", "output"));
  const spec::descriptor &first = p.descriptors[2], &second = p.descriptors[3];
  EXPECT_EQ(first.out_pitch, 3u);
  EXPECT_EQ(second.out_pitch, 3u);
  EXPECT_EQ(first.out_cb, 1u);
  EXPECT_EQ(second.out_cb, 2u);
  EXPECT_EQ(first.out_stride, 3u * 64);
  EXPECT_EQ(second.out_base, first.out_base + 1);
  EXPECT_EQ(p.descriptors[4].in_base, first.out_base);
  // The whole beside what the last part is made of, 16 words; no part has words of its own.
  EXPECT_EQ(p.peak_words, 3u * 64 + 16);
  EXPECT_EQ(p.macs(), graph.macs());
  ASSERT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
}

TEST(Join, EveryUnitThatPitchesWritesInPlace) {
  graph_builder b(2);
  const int x = b.conv(b.input(5, 6, 7), 64, 1, 1, 1, 1, kNone);
  const int table = b.table(b.conv(x, 64, 1, 1, 1, 1, kNone));
  const int depthwise =
      b.like(b.depthwise(b.max_pool(x, 1, 1, 1, 1, kNone), 3, 3, 1, 1, kSame), table);
  const int average = b.like(b.avg_pool(x, 3, 3, 1, 1, kSame), table);
  const int small = b.like(b.conv(x, 40, 2, 1, 2, 1, kNone), table);
  const int pooled = b.upsample(small, 2, 1);
  const model::qgraph graph = b.finish(b.join({table, depthwise, average, pooled}));
  const program p = compile(graph, {{16, 1u << 16}, 1, {}});
  EXPECT_THAT(ops_of(p), Not(Contains("join")));
  EXPECT_THAT(ops_of(p), Contains("conv+table"));
  EXPECT_EQ(std::count_if(p.descriptors.begin(), p.descriptors.end(),
                          [](const spec::descriptor& d) { return d.out_pitch == 4; }),
            4);
  ASSERT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
}

/// A join of two parts of 64 channels; `second` makes the second from 64 channels and may go on.
program joined(const std::function<int(graph_builder&, int x, int first)>& second) {
  graph_builder b(3);
  const int x = b.conv(b.input(8, 5, 6), 64, 1, 1, 1, 1, kNone);
  const int first = b.conv(x, 64, 1, 1, 1, 1, kNone);
  const model::qgraph graph = b.finish(second(b, x, first));
  EXPECT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
  return compile(graph, {{16, 1u << 16}, 1, {}});
}

TEST(Join, CopiesWhatCannotBeMadeInPlace) {
  const auto copied = [](const char* why, auto second) {
    SCOPED_TRACE(why);
    const program p = joined(second);
    ASSERT_EQ(copies(p).size(), 1u);
    EXPECT_TRUE(is(copies(p)[0], spec::op::max_pool));
  };
  const auto conv = [](graph_builder& b, int x, int first) {
    return b.like(b.conv(x, 64, 1, 1, 1, 1, kNone), first);
  };
  copied("a second reader", [&](graph_builder& b, int x, int first) {
    const int part = conv(b, x, first);
    return b.add(b.conv(b.join({first, part}), 64, 1, 1, 1, 1, kNone), part);
  });
  copied("a fused addition", [&](graph_builder& b, int x, int first) {
    const int sum = b.add(conv(b, x, first), x);
    b.like(first, sum);
    return b.join({first, sum});
  });
  copied("a fused depthwise", [&](graph_builder& b, int x, int first) {
    return b.join({first, b.like(b.depthwise(conv(b, x, first), 3, 3, 1, 1, kSame), first)});
  });
  copied("a table by itself", [&](graph_builder& b, int x, int first) {
    const int part = b.table(b.max_pool(x, 3, 3, 1, 1, kSame));
    b.like(first, part);
    return b.join({first, part});
  });
  copied("the model's output", [&](graph_builder& b, int x, int first) {
    const int part = conv(b, x, first);
    b.join({first, part});
    return part;
  });
}

TEST(Join, RequantisesPartsOfOtherScales) {
  const program p = joined([](graph_builder& b, int x, int first) {
    return b.join({first, b.conv(x, 64, 1, 1, 1, 1, kNone)});
  });
  ASSERT_EQ(copies(p).size(), 1u);
  EXPECT_TRUE(is(copies(p)[0], spec::op::avg_pool));
  EXPECT_EQ(copies(p)[0].out_pitch, 2u);
}

TEST(Join, TwiceTheSamePartIsCopiedTwice) {
  const program p = joined([](graph_builder& b, int, int first) { return b.join({first, first}); });
  EXPECT_EQ(copies(p).size(), 2u);
}

// Bounds behind a join are those of its copies.
TEST(Join, ClampsWhatItCopies) {
  graph_builder b(4);
  const int x = b.input(64, 4, 4);
  const int y = b.join({x, x});
  model::qgraph graph = b.finish(y);
  auto& join = std::get<model::qjoin>(graph.nodes.back().op);
  join.clamp_lo = 40;
  join.clamp_hi = 200;
  const program p = compile(graph, {{16, 1u << 16}, 1, {}});
  ASSERT_EQ(copies(p).size(), 2u);
  EXPECT_TRUE(is(copies(p)[0], spec::op::avg_pool));
  ASSERT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
}

// The inner whole has a second reader: its parts are made in it, and it is copied as one part.
TEST(Join, JoinsOfJoins) {
  graph_builder b(5);
  const int x = b.conv(b.input(8, 5, 6), 64, 1, 1, 1, 1, kNone);
  const int first = b.conv(x, 64, 1, 1, 1, 1, kNone);
  const int inner = b.join({first, b.like(b.conv(x, 64, 3, 3, 1, 1, kSame), first)});
  const int more = b.like(b.conv(inner, 48, 3, 3, 1, 1, kSame), first);
  const model::qgraph graph = b.finish(b.join({inner, more}));
  const program p = compile(graph, {{16, 1u << 16}, 1, {}});
  ASSERT_EQ(copies(p).size(), 1u);
  EXPECT_EQ(copies(p)[0].in_cb, 2u);
  EXPECT_EQ(copies(p)[0].out_pitch, 3u);
  ASSERT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
}

// A part that waits while wide layers run: with words for the whole it is in place from the start,
// with fewer it waits in words of its own, or in the spill area.
TEST(Join, APartThatWaitsIsCopiedWhereWordsAreScarce) {
  graph_builder b(6);
  const int x = b.conv(b.input(8, 8, 8), 64, 1, 1, 1, 1, kNone);
  const int early = b.conv(x, 64, 1, 1, 1, 1, kNone);
  int t = b.conv(b.conv(x, 256, 1, 1, 1, 1, kNone), 256, 1, 1, 1, 1, kNone);
  const int late = b.like(b.conv(t, 64, 1, 1, 1, 1, kNone), early);
  const model::qgraph graph = b.finish(b.join({early, late}));
  constexpr std::uint32_t wide = 2 * 256, part = 64;
  const auto run = [&](std::uint32_t words, std::vector<std::string> ops) {
    SCOPED_TRACE(std::to_string(words) + " words");
    const program p = compile(graph, {{16, words}, 1, {}});
    EXPECT_LE(p.peak_words, words);
    std::vector<std::string> found = ops_of(p);
    std::erase_if(found, [](const std::string& op) { return op == "conv"; });
    EXPECT_EQ(found, ops);
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
  };
  run(wide + 2 * part, {"input", "output"});
  run(wide + 2 * part - 1, {"input", "join", "output"});
  run(wide + part, {"input", "join", "output"});
  run(wide, {"input", "spill", "load", "join", "output"});
}

/// A U-Net of two levels whose skips are joined, and whose upper join is joined again.
model::qgraph joined_u_net(graph_builder& b) {
  const int wide = b.conv(b.input(4, 8, 8), 64, 3, 3, 1, 1, kSame);
  const int small = b.conv(b.max_pool(wide, 2, 2, 2, 2, kNone), 128, 3, 3, 1, 1, kSame);
  int t = b.conv(b.max_pool(small, 2, 2, 2, 2, kNone), 512, 1, 1, 1, 1, kNone);
  t = b.conv(b.conv(t, 1024, 1, 1, 1, 1, kNone), 128, 1, 1, 1, 1, kNone);
  if (b.chance(50)) b.like(t, small);
  t = b.join({small, b.upsample(t, 2, 2)});
  const int left = b.conv(t, 64, 3, 3, 1, 1, kSame);
  const int right = b.like(b.conv(t, 64, 1, 1, 1, 1, kNone), left);
  t = b.conv(b.join({left, right}), 64, 1, 1, 1, 1, kNone);
  t = b.join({wide, b.like(b.conv(b.upsample(t, 2, 2), 50, 3, 3, 1, 1, kSame), wide)});
  return b.finish(b.conv(t, 3, 1, 1, 1, 1, kNone));
}

/// Layers whose parts come from one another, from long before, and from joins.
model::qgraph dense_blocks(graph_builder& b) {
  int t = b.conv(b.input(5, b.uniform(2, 6), b.uniform(2, 6)), 64, 1, 1, 1, 1, kNone);
  std::vector<int> kept{t};
  for (int i = b.uniform(2, 6); i > 0; --i) {
    const int other = b.pick(kept);
    int part = b.conv(t, i == 1 ? b.uniform(33, 64) : 64, 1, 1, 1, 1, kNone);
    if (b.chance(70)) b.like(part, other);
    if (b.chance(20)) part = b.max_pool(part, 3, 3, 1, 1, kSame);
    t = i > 1 && b.chance(30) ? b.join({part, other}) : b.join({other, part});
    kept.push_back(t);
    if (i > 1 && b.chance(50)) t = b.conv(t, 64 * b.uniform(1, 5), 1, 1, 1, 1, kNone);
    kept.push_back(t);
  }
  return b.finish(t);
}

/// Maps of one network whose rows are joined, some made long before, and layers behind them.
model::qgraph joined_rows(graph_builder& b) {
  const int width = 4 * b.uniform(1, 2), channels = b.chance(50) ? 16 : 40 + b.uniform(0, 60);
  int t = b.conv(b.input(5, b.uniform(2, 6), width), 64, 1, 1, 1, 1, kNone);
  std::vector<int> parts;
  for (int i = b.uniform(2, 5); i > 0; --i) {
    parts.push_back(b.conv(t, channels, 1, 1, 1, 1, kNone));
    if (b.chance(70)) b.like(parts.back(), parts.front());
    t = b.conv(t, 64 * b.uniform(1, 4), 1, 1, 1, 1, kNone);
  }
  t = b.join(parts, true);
  if (b.chance(50)) t = b.join({t, parts.front()}, true);
  return b.finish(b.chance(50) ? t : b.conv(t, 7, 1, 1, 1, 1, kNone));
}

TEST(Join, MatchTheReferenceInEverSmallerScratchpads) {
  const unsigned base = first_seed();
  int spilling = 0, in_place = 0, copied = 0;
  for (unsigned seed = base; seed < base + 40; ++seed) {
    graph_builder b(seed);
    const model::qgraph graph = seed % 4 == 0   ? joined_u_net(b)
                                : seed % 4 == 1 ? joined_rows(b)
                                                : dense_blocks(b);
    std::uint32_t words = compile(graph, {{16, 1u << 16}, 1, {}}).peak_words;
    const std::uint32_t batch = 1 + seed % 2;
    for (; words > 0; words -= words / 10 + 1) {
      SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed) + ", " + std::to_string(words) +
                   " words, batch " + std::to_string(batch));
      program p;
      try {
        p = compile(graph, {{16, batch * words}, batch, {}});
      } catch (const error& e) {
        EXPECT_THAT(e.what(), HasSubstr("use a build"));
        break;
      }
      EXPECT_LE(p.peak_words, words);
      spilling += p.spill_pages != 0;
      copied += !copies(p).empty();
      for (std::size_t i = 0; i < p.layers.size(); ++i)
        in_place += p.descriptors[i].out_pitch != 0 && p.layers[i].op != "join";
      ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, batch, b.engine()));
    }
  }
  EXPECT_GT(spilling, 20);
  EXPECT_GT(in_place, 20);
  EXPECT_GT(copied, 20);
}

// A detector's maps: what each scale gives, as one row of pixels, behind that of the scale before.
TEST(Join, PixelsOfSeveralScalesFollowOneAnother) {
  struct {
    int channels;
    std::uint32_t words[3];  // of the maps of 8 x 8, 4 x 4 and 3 x 3 pixels
  } const cases[] = {{82, {128, 32, 18}}, {64, {64, 16, 9}}, {16, {16, 4, 3}}};
  for (const auto& c : cases) {
    SCOPED_TRACE(std::to_string(c.channels) + " channels");
    graph_builder b(9);
    const int large = b.conv(b.input(8, 8, 8), 64, 1, 1, 1, 1, kNone);
    const int half = b.conv(large, 64, 3, 3, 2, 2, kSame);
    const auto head = [&](int t) { return b.conv(t, c.channels, 1, 1, 1, 1, kNone); };
    const int early = head(half);
    const int sum = b.add(head(b.max_pool(half, 3, 3, 1, 1, kSame)), early);
    const int small = b.like(head(b.max_pool(half, 2, 2, 1, 1, kNone)), sum);
    const model::qgraph graph = b.finish(b.join(
        {b.view(b.like(head(large), sum), 64, 1), b.view(sum, 16, 1), b.view(small, 9, 1)}, true));
    const program p = compile(graph, {{16, 1u << 16}, 1, {}});
    EXPECT_THAT(ops_of(p), Not(Contains("join")));
    EXPECT_THAT(ops_of(p), Contains("conv+add"));
    std::vector<std::uint32_t> bases;
    const std::uint32_t whole = c.words[0] + c.words[1] + c.words[2];
    for (const spec::descriptor& d : p.descriptors) {
      if (d.out_stride == whole) bases.push_back(d.out_base);
    }
    std::sort(bases.begin(), bases.end());
    ASSERT_EQ(bases.size(), 3u);
    EXPECT_EQ(bases[1], bases[0] + c.words[0]);
    EXPECT_EQ(bases[2], bases[1] + c.words[1]);
    // The base of the last part and a stride lie inside the scratchpad.
    EXPECT_LE(bases[2] + whole, p.peak_words);
    ASSERT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
    // In the words that it needs, and no more.
    const program tight = compile(graph, {{16, 3 * p.peak_words}, 3, {}});
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, tight, 3, b.engine()));
  }
}

TEST(Join, PixelsAreCopiedWhereTheyCannotBeMadeInPlace) {
  graph_builder b(10);
  const int x = b.conv(b.input(8, 4, 4), 32, 1, 1, 1, 1, kNone);
  const int other = b.conv(x, 32, 1, 1, 1, 1, kNone);
  const int table = b.table(b.max_pool(x, 3, 3, 1, 1, kSame));
  const model::qgraph graph = b.finish(b.join({x, other, table}, true));
  const program p = compile(graph, {{16, 1u << 16}, 1, {}});
  ASSERT_EQ(copies(p).size(), 3u);  // read twice, requantised, and a table by itself
  EXPECT_TRUE(is(copies(p)[1], spec::op::avg_pool));
  EXPECT_TRUE(is(copies(p)[2], spec::op::max_pool));
  EXPECT_EQ(copies(p)[2].out_base, copies(p)[0].out_base + 2 * 8);
  ASSERT_NO_FATAL_FAILURE(expect_equal_everywhere(graph, b.engine()));
}

TEST(Join, RefusesMoreChannelsThanAPixelHas) {
  graph_builder b(8);
  const int x = b.input(4096, 1, 1);
  const model::qgraph graph = b.finish(b.join({x, b.conv(x, 64, 1, 1, 1, 1, kNone)}));
  EXPECT_THAT([&] { compile(graph); },
              ThrowsMessage<error>(AllOf(HasSubstr("layer 'join1'"), HasSubstr("4160 channels"),
                                         HasSubstr("takes 4096"))));
}

}  // namespace
}  // namespace latchkey::compiler
