// Models larger than the scratchpad: what is spilled, when it comes back, and that nothing changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "compiler/compile.hpp"
#include "compiler/cost.hpp"
#include "compiler/interpret.hpp"
#include "latchkey/error.hpp"
#include "random_graph.hpp"
#include "reference_check.hpp"

namespace latchkey::compiler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using ::testing::UnorderedElementsAre;

/// Names of the tensors that operations of this kind move.
std::vector<std::string> moved(const program& p, const std::string& op) {
  std::vector<std::string> names;
  for (const layer_report& l : p.layers)
    if (l.op == op) names.push_back(l.name);
  return names;
}

std::uint64_t words_spilled(const program& p) {
  std::uint64_t words = 0;
  for (const spec::descriptor& d : p.descriptors)
    if (d.op == static_cast<std::uint32_t>(spec::op::spill)) words += d.in_stride;
  return words;
}

/// The program, or nothing where the scratchpad is too small for any.
std::optional<program> fitted(const model::qgraph& graph, std::uint32_t words,
                              std::uint32_t batch = 0) {
  try {
    return compile(graph, {{16, words}, batch, {}});
  } catch (const error& e) {
    EXPECT_EQ(e.code(), errc::unsupported_model);
    EXPECT_THAT(e.what(), AllOf(HasSubstr("layer '"), HasSubstr("use a build")));
    return std::nullopt;
  }
}

/// A U-Net of two levels: skips of 64 and 32 words, a bottom whose two tensors have 160 words each,
/// upsampling, one join by Concat as the importer writes it for narrow parts and one by an Add that
/// is fused.
struct u_net {
  explicit u_net(unsigned seed) : builder(seed) {
    graph_builder& b = builder;
    const std::vector<int> same{1, 1, 1, 1}, none{0, 0, 0, 0};
    const int wide = b.conv(b.input(4, 16, 16), 16, 3, 3, 1, 1, same);
    const int small = b.conv(b.max_pool(wide, 2, 2, 2, 2, none), 32, 3, 3, 1, 1, same);
    int t = b.conv(b.max_pool(small, 2, 2, 2, 2, none), 640, 1, 1, 1, 1, none);
    t = b.conv(t, 640, 1, 1, 1, 1, none);
    t = b.upsample(b.conv(t, 32, 1, 1, 1, 1, none), 2, 2);
    t = b.conv(t, 64, 1, 1, 1, 1, none);
    t = b.add(b.conv(small, 64, 1, 1, 1, 1, none), t);
    t = b.upsample(b.conv(t, 16, 3, 3, 1, 1, same), 2, 2);
    t = b.add(b.conv(t, 16, 3, 3, 1, 1, same), wide);
    graph = b.finish(b.conv(t, 3, 1, 1, 1, 1, none));
    for (model::qnode& n : graph.nodes)
      if (auto* const add = std::get_if<model::qadd>(&n.op)) add->negate_b = false;
    wide_skip = b.at(wide).name;
    small_skip = b.at(small).name;
  }
  static constexpr std::uint32_t peak = 2 * 160 + 64 + 32, bottom = 2 * 160;

  graph_builder builder;
  model::qgraph graph;
  std::string wide_skip, small_skip;
};

TEST(Spill, WhatFitsStays) {
  const u_net net(1);
  const program p = compile(net.graph, {{16, u_net::peak}, 0, {}});
  EXPECT_EQ(p.peak_words, u_net::peak);
  EXPECT_EQ(p.spill_pages, 0u);
  EXPECT_THAT(moved(p, "spill"), ElementsAre());
  EXPECT_FALSE(to_json(p).contains("spill_pages"));
}

TEST(Spill, MovesAsFewWordsAsItMust) {
  const u_net net(1);
  const auto spilled = [&](std::uint32_t words) {
    return moved(compile(net.graph, {{16, words}, 0, {}}), "spill");
  };
  // The bottom has both skips beside it.
  EXPECT_THAT(spilled(u_net::peak - 1), ElementsAre(net.small_skip));
  EXPECT_THAT(spilled(u_net::peak - 32), ElementsAre(net.small_skip));
  EXPECT_THAT(spilled(u_net::peak - 33), ElementsAre(net.wide_skip));
  EXPECT_THAT(spilled(u_net::peak - 64), ElementsAre(net.wide_skip));
  EXPECT_THAT(spilled(u_net::peak - 65), UnorderedElementsAre(net.wide_skip, net.small_skip));
  EXPECT_THAT(spilled(u_net::bottom), UnorderedElementsAre(net.wide_skip, net.small_skip));
}

TEST(Spill, ProgramsMatchTheReference) {
  const unsigned seed = first_seed();
  SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
  u_net net(seed);
  for (const std::uint32_t words : {u_net::peak - 1, u_net::peak - 40, u_net::bottom}) {
    for (const std::uint32_t batch : {1u, 2u}) {
      SCOPED_TRACE(std::to_string(words) + " words, batch " + std::to_string(batch));
      const program p = compile(net.graph, {{16, batch * words}, batch, {}});
      EXPECT_EQ(p.max_batch, batch);
      EXPECT_LE(p.peak_words, words);
      ASSERT_NO_FATAL_FAILURE(expect_equal(net.graph, p, batch, net.builder.engine()));
      ASSERT_NO_FATAL_FAILURE(expect_equal(net.graph, p, 1, net.builder.engine()));
    }
  }
}

// Each Spill behind its tensor's last use before the gap, each Load right before the next use.
TEST(Spill, TensorsComeBackRightBeforeTheirUse) {
  const u_net net(1);
  const program p = compile(net.graph, {{16, u_net::bottom}, 0, {}});
  std::vector<std::string> ops;
  for (const layer_report& l : p.layers) ops.push_back(l.op);
  EXPECT_THAT(ops, ElementsAre("input", "conv", "max_pool", "spill", "conv", "max_pool", "spill",
                               "conv", "conv", "conv", "upsample", "conv", "load", "conv+add",
                               "conv", "upsample", "load", "conv+add", "conv", "output"));
  // The fused addition reads what the Load wrote.
  EXPECT_EQ(p.descriptors[17].in2_base, p.descriptors[16].out_base);
  EXPECT_EQ(p.descriptors[16].spill_page, p.descriptors[3].spill_page);
  EXPECT_EQ(p.spill_pages, 2u);
}

// The largest batch without a spill is worth more than one with it, and a batch that is asked for
// may spill.
TEST(Spill, OnlyABatchThatIsAskedForSpills) {
  u_net net(3);
  const compile_options fits_one{{16, 2 * u_net::peak - 1}, 0, {}};
  const program one = compile(net.graph, fits_one);
  EXPECT_EQ(one.max_batch, 1u);
  EXPECT_EQ(one.spill_pages, 0u);
  const program two = compile(net.graph, {fits_one.target, 2, {}});
  EXPECT_EQ(two.max_batch, 2u);
  EXPECT_THAT(moved(two, "spill"), ElementsAre(net.small_skip));
  EXPECT_EQ(two.spill_pages, 1u);  // twice 32 words
  ASSERT_NO_FATAL_FAILURE(expect_equal(net.graph, two, 2, net.builder.engine()));
  EXPECT_EQ(compile(net.graph, {{16, u_net::bottom}, 0, {}}).max_batch, 1u);
}

// A skip that several layers take, with wide ones between: it is put away once and comes back
// twice.
TEST(Spill, WhatLiesInTheSpillAreaOnlyComesBack) {
  graph_builder b(4);
  const std::vector<int> none{0, 0, 0, 0};
  const int skip = b.conv(b.input(8, 8, 8), 64, 1, 1, 1, 1, none);
  int t = skip;
  for (int i = 0; i < 2; ++i) {
    t = b.conv(t, 256, 1, 1, 1, 1, none);
    t = b.conv(t, 256, 1, 1, 1, 1, none);
    t = b.mul(b.conv(t, 64, 1, 1, 1, 1, none), skip);
  }
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{16, 2 * 256}, 0, {}});
  const std::string& name = b.at(skip).name;
  EXPECT_THAT(moved(p, "spill"), ElementsAre(name));
  EXPECT_THAT(moved(p, "load"), ElementsAre(name, name));
  EXPECT_EQ(p.spill_pages, 1u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
}

// Pages of tensors that are never away together are the same ones.
TEST(Spill, PagesAreUsedAgain) {
  graph_builder b(5);
  const std::vector<int> none{0, 0, 0, 0};
  int t = b.conv(b.input(8, 8, 8), 64, 1, 1, 1, 1, none);
  for (int i = 0; i < 3; ++i) {
    const int skip = t;
    t = b.conv(b.conv(t, 256, 1, 1, 1, 1, none), 256, 1, 1, 1, 1, none);
    t = b.add(b.conv(t, 64, 1, 1, 1, 1, none), skip);
  }
  const model::qgraph graph = b.finish(t);
  const program p = compile(graph, {{16, 2 * 256}, 0, {}});
  EXPECT_EQ(moved(p, "spill").size(), 3u);
  EXPECT_EQ(p.spill_pages, 1u);
  ASSERT_NO_FATAL_FAILURE(expect_equal(graph, p, 1, b.engine()));
}

// Queries, keys and values of several heads lie block by block; they come back as they went.
TEST(Spill, HeadsComeBackBlockByBlock) {
  graph_builder b(6);
  const model::qgraph graph = b.finish(b.encoder(b.input(128, 1, 16), 2));
  const std::uint32_t peak = compile(graph, {{16, 4096}, 1, {}}).peak_words;
  int planar = 0;
  for (std::uint32_t words = peak - 1;; words -= 8) {
    SCOPED_TRACE(std::to_string(words) + " of " + std::to_string(peak) + " words");
    const auto p = fitted(graph, words);
    if (!p) break;
    for (std::size_t i = 0; i < p->layers.size(); ++i) {
      planar += p->layers[i].op == "spill" && p->descriptors[i - 1].out_planar != 0 &&
                p->descriptors[i - 1].out_base == p->descriptors[i].in_base;
    }
    ASSERT_NO_FATAL_FAILURE(expect_equal(graph, *p, 1, b.engine()));
  }
  EXPECT_GT(planar, 0);
}

/// Layers of changing width, with sums and products of tensors from long before.
model::qgraph long_skips(graph_builder& b) {
  const std::vector<int> none{0, 0, 0, 0};
  const int c = b.pick(std::vector<int>{3, 16, 40, 64});
  int t = b.conv(b.input(5, b.uniform(3, 9), b.uniform(3, 9)), c, 1, 1, 1, 1, none);
  std::vector<int> kept{t};
  for (int i = b.uniform(3, 8); i > 0; --i) {
    t = b.conv(t, c * b.uniform(1, 4), 1, 1, 1, 1, none);
    if (b.chance(50)) t = b.depthwise(t, 3, 3, 1, 1, {1, 1, 1, 1});
    t = b.conv(t, c, 1, 1, 1, 1, none);
    if (b.chance(70)) {
      const int other = b.pick(kept);
      t = b.chance(50) ? b.add(t, other) : b.mul(other, t);
    }
    kept.push_back(t);
  }
  return b.finish(t);
}

TEST(Spill, RandomGraphsMatchTheReferenceInEverSmallerScratchpads) {
  const unsigned base = first_seed();
  int spilling = 0;
  for (unsigned seed = base; seed < base + 60; ++seed) {
    graph_builder b(seed);
    const model::qgraph graph = long_skips(b);
    const std::uint32_t peak = compile(graph, {{16, 1u << 16}, 1, {}}).peak_words;
    const std::uint32_t batch = 1 + seed % 2;
    for (std::uint32_t words = peak - 1; words > 0; words -= words / 20 + 1) {
      SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed) + ", " + std::to_string(words) + " of " +
                   std::to_string(peak) + " words, batch " + std::to_string(batch));
      const auto p = fitted(graph, batch * words, batch);
      if (!p) break;
      ++spilling;
      EXPECT_GT(words_spilled(*p), 0u);
      ASSERT_NO_FATAL_FAILURE(expect_equal(graph, *p, batch, b.engine()));
    }
  }
  EXPECT_GT(spilling, 30) << "the random graphs have no skips any more";
}

TEST(Spill, RefusesWhatSpillingCannotHelp) {
  const u_net net(7);
  const compile_options small{{16, u_net::bottom - 1}, 0, {}};
  // The second convolution of the bottom reads 160 words and writes 160.
  EXPECT_THAT([&] { compile(net.graph, small); },
              ThrowsMessage<error>(AllOf(
                  HasSubstr("layer 'conv5'"), HasSubstr("320 scratchpad words of 64 bytes for one"),
                  HasSubstr("the build has 319"), HasSubstr("cannot help"))));
  EXPECT_THAT([&] { compile(net.graph, {{16, 2 * u_net::bottom - 1}, 2, {}}); },
              ThrowsMessage<error>(AllOf(HasSubstr("640 scratchpad words of 64 bytes for 2 images"),
                                         HasSubstr("a smaller batch"))));

  // 256 images of a skip of 1,100 words.
  graph_builder b(8);
  const std::vector<int> none{0, 0, 0, 0};
  const int skip = b.conv(b.input(8, 11, 100), 64, 1, 1, 1, 1, none);
  int t = b.conv(b.conv(skip, 128, 1, 1, 1, 1, none), 128, 1, 1, 1, 1, none);
  t = b.add(b.conv(t, 64, 1, 1, 1, 1, none), skip);
  const model::qgraph graph = b.finish(t);
  EXPECT_THAT([&] { compile(graph, {{16, 256 * 4400}, 256, {}}); },
              ThrowsMessage<error>(AllOf(HasSubstr("layer 'conv2'"), HasSubstr("4400 pages"),
                                         HasSubstr("the tags of 4096"))));

  // Three descriptors are the edges; a Spill and a Load are two too many.
  graph_builder deep(9);
  t = deep.conv(deep.input(4, 4, 4), 16, 1, 1, 1, 1, none);
  const int first = t;
  for (int i = 0; i < 503; ++i) t = deep.table(t);
  t = deep.conv(deep.conv(t, 64, 1, 1, 1, 1, none), 64, 1, 1, 1, 1, none);
  t = deep.mul(deep.conv(t, 16, 1, 1, 1, 1, none), first);
  ASSERT_NO_THROW(compile(deep.finish(t), {{16, 36}, 1, {}}));
  EXPECT_THAT([&] { compile(deep.finish(t), {{16, 32}, 1, {}}); },
              ThrowsMessage<error>(AllOf(HasSubstr("513 operations"), HasSubstr("holds 512"))));
}

TEST(Spill, SaysWhatItSpillsAndWhy) {
  const u_net net(7);
  std::vector<std::string> remarks;
  compile_options options{{16, u_net::bottom}, 0, {}};
  options.on_remark = [&](const std::string& r) { remarks.push_back(r); };
  compile(net.graph, options);
  EXPECT_THAT(remarks,
              ElementsAre(AllOf(HasSubstr("layer 'conv5'"), HasSubstr("416 scratchpad words"),
                                HasSubstr("the build has 320"), HasSubstr("2 tensors"),
                                HasSubstr("6 KiB there and 6 KiB back"))));
  options.target.spad_words = u_net::peak;
  compile(net.graph, options);
  EXPECT_EQ(remarks.size(), 1u);
}

// Input, convolution, pool, Spill, ...: a program that spills, for whoever reads it.
class SpillingProgram : public ::testing::Test {
 protected:
  SpillingProgram() {
    const u_net net(11);
    program_ = compile(net.graph, {{16, 2 * u_net::bottom}, 2, {}});
  }
  void refuses(const std::function<void(program&)>& change, const char* reason) const {
    program p = program_;
    change(p);
    EXPECT_THAT([&] { check(p, "x.lkm"); },
                ThrowsMessage<error>(AllOf(HasSubstr("x.lkm"), HasSubstr(reason))));
  }
  program program_;
};

TEST_F(SpillingProgram, RefusalsSayWhy) {
  ASSERT_EQ(program_.layers[3].op, "spill");
  ASSERT_EQ(program_.layers[12].op, "load");
  ASSERT_EQ(program_.layers[16].op, "load");
  const std::uint32_t there = program_.spill_pages;
  EXPECT_EQ(there, 3u);  // twice 64 and twice 32 words
  EXPECT_NO_THROW(check(program_, "x.lkm"));
  refuses([](program& p) { p.descriptors[3].spill_page = 3; }, "inside the spill area");
  refuses([](program& p) { p.descriptors[3].spill_page = 0xffffffff; }, "inside the spill area");
  refuses([](program& p) { p.descriptors[16].spill_page = 0xffffffff; }, "no Spill before it");
  refuses([](program& p) { p.descriptors[16].spill_page += 1; }, "no Spill before it");
  refuses([](program& p) { p.descriptors[16].out_stride += 1; }, "no Spill before it");
  refuses([](program& p) { std::swap(p.descriptors[3], p.descriptors[16]); }, "no Spill before it");
  // Over what the other one put there, which is still needed.
  refuses([](program& p) { p.descriptors[6].spill_page = p.descriptors[3].spill_page; },
          "no Spill before it");
  refuses([](program& p) { p.descriptors[16].spilled = 0; }, "pages do not");
  refuses([](program& p) { p.descriptors[3].in_base = 2 * u_net::bottom; },
          "inside the scratchpad");
  refuses([](program& p) { p.descriptors[3].in_stride = 0; }, "inside the scratchpad");
  refuses([](program& p) { p.descriptors[3].in_h = 0xffff; }, "inside the scratchpad");
  refuses([](program& p) { p.descriptors[16].out_base = 0xffffffff; }, "inside the scratchpad");
  refuses([](program& p) { p.descriptors[16].out_cp_log2 = 7; }, "malformed");
  refuses([](program& p) { ++p.spill_pages; }, "the descriptors spill to 3");
  refuses([](program& p) { --p.spill_pages; }, "inside the spill area");
  refuses([](program& p) { p.spill_pages = spec::max_spill_pages + 1; }, "0..4096");
}

TEST_F(SpillingProgram, ChangedDescriptorsAreRefusedOrRun) {
  std::mt19937 random(33);
  int refused = 0, ran = 0;
  for (int i = 0; i < 1000; ++i) {
    program p = program_;
    const std::vector<std::size_t> moves{3, 6, 12, 16};
    const std::size_t at = moves[random() % 4];
    auto words = p.descriptors[at].pack();
    const std::size_t bit = random() % (words.size() * 32);
    words[bit / 32] ^= 1u << (bit % 32);
    p.descriptors[at] = spec::descriptor::unpack(words);
    if (p.descriptors[at].pack() != words) continue;  // a bit that means nothing
    try {
      check(p, "x.lkm");
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::bad_file);
      ++refused;
      continue;
    }
    if (++ran > 20) continue;
    for (std::size_t k = 0; k < words.size(); ++k) {
      for (std::size_t b = 0; b < 4; ++b) {
        p.pages[at * spec::desc_bytes + 4 * k + b] = static_cast<std::uint8_t>(words[k] >> (8 * b));
      }
    }
    const io::bytes input(std::size_t{p.max_batch} * p.input.layout.words * 64);
    EXPECT_NO_THROW(interpret(p, input, p.max_batch)) << "bit " << bit;
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(ran, 20);
}

TEST_F(SpillingProgram, FileCarriesItsPages) {
  const nlohmann::json header = nlohmann::json::parse(to_json(program_).dump());
  EXPECT_EQ(header["spill_pages"], 3u);
  program p;
  from_json(header, "x.lkm", p);
  EXPECT_EQ(p.spill_pages, 3u);
  for (const std::uint32_t pages : {0u, spec::max_spill_pages + 1}) {
    nlohmann::json changed = header;
    changed["spill_pages"] = pages;
    EXPECT_THAT([&] { from_json(changed, "x.lkm", p); },
                ThrowsMessage<error>(AllOf(HasSubstr("x.lkm"), HasSubstr("spill_pages"))));
  }
}

TEST_F(SpillingProgram, CostsItsPages) {
  const run_cost ideal = predict(program_, 2, memory_preset("ideal"));
  const layer_cost& spill = ideal.layers[3];
  EXPECT_EQ(spill.bytes, 2u * spec::page_bytes);
  EXPECT_GT(spill.cycles, 2u * spec::page_beats);
  EXPECT_EQ(ideal.layers[16].bytes, spill.bytes);
  EXPECT_EQ(predict(program_, 1, memory_preset("ideal")).layers[3].bytes, spec::page_bytes);
  EXPECT_GT(predict(program_, 2, memory_preset("ddr4-2400")).layers[3].cycles, spill.cycles);
}

TEST(Interpret, LoadsOnlyWhatThisRunHasSpilled) {
  engine_model engine({16, 256}, 0xa5);
  spec::descriptor spill, load;
  spill.op = static_cast<std::uint32_t>(spec::op::spill);
  spill.in_base = 3;
  spill.in_stride = 40;
  spill.spill_page = 7;
  load.op = static_cast<std::uint32_t>(spec::op::load);
  load.spilled = 1;
  load.out_base = 130;
  load.out_stride = 40;
  load.spill_page = 7;
  io::bytes none;
  const auto run = [&](const spec::descriptor& d, std::uint32_t batch) {
    engine.execute(d, batch, {}, {}, none);
  };
  const auto throws = [&](const spec::descriptor& d, std::uint32_t batch, const char* reason) {
    EXPECT_THAT([&] { run(d, batch); }, ThrowsMessage<error>(HasSubstr(reason)));
  };
  throws(load, 1, "page 7 of the spill area was never spilled");
  for (std::size_t i = 0; i < 80 * 64; ++i)
    engine.scratchpad()[3 * 64 + i] = static_cast<std::uint8_t>(i * 7 + i / 64);
  run(spill, 1);
  throws(load, 2, "page 8");  // a second image of 40 words reaches into the next page
  run(spill, 2);
  run(load, 2);
  for (std::size_t i = 0; i < 80 * 64; ++i)
    ASSERT_EQ(engine.scratchpad()[130 * 64 + i], engine.scratchpad()[3 * 64 + i]) << i;
  EXPECT_EQ(engine.scratchpad()[129 * 64 + 63], 0xa5);
  EXPECT_EQ(engine.scratchpad()[210 * 64], 0xa5);
  load.out_base = 250;
  throws(load, 1, "outside the scratchpad");
  spill.in_base = 250;
  throws(spill, 1, "outside the scratchpad");
  spill.in_base = 0;
  spill.spill_page = spec::max_spill_pages;
  throws(spill, 1, "more pages than have tags");
  load.spilled = 0;
  throws(load, 1, "pages do not");
}

}  // namespace
}  // namespace latchkey::compiler
