// Product, Softmax, LayerNorm, fused tables and fused depthwise convolutions on lk_engine: illegal
// descriptors, operations that are cut short, what a wipe leaves. graph_test has the results.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>

#include "VEngine16.h"
#include "VEngine16___024root.h"
#include "compiler/compile.hpp"
#include "engine_sim.hpp"
#include "model/reference.hpp"
#include "program_pages.hpp"
#include "random_graph.hpp"

namespace latchkey::test {
namespace {

using sim16 = engine_sim<VEngine16, 16>;
using compiler::graph_builder;
using compiler::program;
constexpr int batch = 2;

class Program : public ::testing::Test {
 protected:
  explicit Program(model::qgraph of) : sim(77), graph(std::move(of)) {
    p = compiler::compile(graph, {{16, sim16::spad_words}, batch, {}, {}});
    model::reference golden(graph);
    for (int i = 0; i < batch; ++i) {
      std::vector<std::uint8_t> image(graph.input_tensor().size());
      for (auto& v : image) v = static_cast<std::uint8_t>(sim.rng());
      const auto out = golden.infer(image);
      want.emplace_back(out.begin(), out.end());
      const auto packed = p.input.layout.pack(image);
      for (std::size_t w = 0; w < packed.size(); w += 64) {
        word x;
        std::copy_n(packed.begin() + static_cast<std::ptrdiff_t>(w), 64, x.begin());
        input.emplace_back(x, i + 1 == batch && w + 64 == packed.size());
      }
    }
  }

  void load(const spec::descriptor& d) { sim.load_pages(pages_in_order(p, d, batch)); }

  run_result step(std::size_t i) {
    const spec::descriptor& d = p.descriptors[i];
    if (d.op == static_cast<std::uint32_t>(spec::op::input)) {
      sim.input.assign(input.begin(), input.end());
    }
    load(d);
    return sim.run(d, batch);
  }

  void expect_output() {
    const std::size_t words = p.output.layout.words;
    ASSERT_EQ(sim.output.size(), batch * words);
    for (int i = 0; i < batch; ++i) {
      const auto* const first = reinterpret_cast<const std::uint8_t*>(&sim.output[i * words]);
      const auto got = p.output.layout.unpack({first, words * sizeof(word)});
      ASSERT_EQ(std::vector<std::uint8_t>(got.begin(), got.end()), want[i]) << "image " << i;
    }
  }

  /// Whether the operation of descriptor i is one of this file's.
  bool mine(std::size_t i) const {
    const auto op = static_cast<spec::op>(p.descriptors[i].op);
    return op == spec::op::product || op == spec::op::softmax || op == spec::op::layer_norm ||
           p.descriptors[i].fuse_table != 0 || p.descriptors[i].fuse_dw != 0;
  }

  // Operations that are cut short leave their inputs, and run again as if nothing had been.
  void abort_then_run_clean() {
    for (int round = 0; round < 4; ++round) {
      sim.output.clear();
      for (std::size_t i = 0; i + 1 < p.descriptors.size(); ++i) {
        for (int cut = 0; mine(i) && cut < 5; ++cut) {
          load(p.descriptors[i]);
          sim.abort_at = pick(sim.rng, 1, cut == 0 ? 60 : 3000);
          const std::uint64_t at = sim.abort_at;
          const run_result r = sim.run(p.descriptors[i], batch);
          if (r.aborted) EXPECT_LE(r.cycles, at + 3);
          sim.abort_at = 0;
          sim.drop_pages();
        }
        const run_result r = step(i);
        ASSERT_FALSE(r.bad_desc || r.bad_input);
        ASSERT_EQ(sim.beats_left(), 0u);
      }
      ASSERT_NO_FATAL_FAILURE(expect_output());
    }
  }

  const spec::descriptor& find(spec::op op, int number = 0) const {
    for (const spec::descriptor& d : p.descriptors)
      if (d.op == static_cast<std::uint32_t>(op) && number-- == 0) return d;
    throw std::runtime_error("no such operation");
  }

  sim16 sim;
  model::qgraph graph;
  program p;
  std::vector<std::pair<word, bool>> input;
  std::vector<std::vector<std::uint8_t>> want;
};

class Attention : public Program {
 protected:
  static model::qgraph encoder() {
    graph_builder b(77);
    return b.finish(b.encoder(b.input(128, 1, 20), 2));
  }
  Attention() : Program(encoder()) {}
};

TEST_F(Attention, IllegalDescriptorsTouchNothing) {
  using desc = spec::descriptor;
  struct bad {
    const char* what;
    desc d;
    std::function<void(desc&)> edit;
  };
  const desc scores = find(spec::op::product), context = find(spec::op::product, 1);
  const desc soft = find(spec::op::softmax), norm = find(spec::op::layer_norm);
  desc plain = find(spec::op::mat_mul);  // a query, key or value: planar results
  ASSERT_EQ(scores.in2_transposed, 1u);
  ASSERT_EQ(context.in2_transposed, 0u);
  ASSERT_EQ(plain.out_planar, 1u);
  std::vector<bad> cases{
      {"a head of the keys beyond its stride", scores, [](desc& d) { d.in2_stride -= 1; }},
      {"planar, a window of two", plain,
       [](desc& d) { d.in_planar = 1, d.kernel_w = 2, d.taps *= 2, d.k_tiles *= 2; }},
      {"table of a softmax", soft, [](desc& d) { d.fuse_table = 1; }},
      {"fused addition of planar results", plain,
       [](desc& d) { d.fuse_add = 1, d.in2_stride = d.out_stride, d.mid_hi = 0x7f; }},
      {"planar results beyond their stride", plain, [](desc& d) { d.out_stride -= 1; }},
      {"planar results with a pitch", plain, [](desc& d) { d.out_pitch = d.out_cb; }},
      {"planar results in slices", plain, [](desc& d) { d.slices = 2; }},
      {"softmax with a pitch", soft, [](desc& d) { d.out_pitch = d.out_cb; }},
      {"layer norm with a pitch", norm, [](desc& d) { d.out_pitch = d.out_cb; }},
      {"softmax in slices", soft, [](desc& d) { d.slices = 2; }},
      {"layer norm in slices", norm, [](desc& d) { d.slices = 2; }},
      {"table of a layer norm", norm, [](desc& d) { d.fuse_table = 1; }},
      {"softmax without its page", soft, [](desc& d) { d.param_pages = 0; }},
      {"softmax with tiles", soft, [](desc& d) { d.n_tiles = 1; }},
      {"softmax shift 37", soft, [](desc& d) { d.vec_shift = 37; }},
      {"softmax multiplier", soft, [](desc& d) { d.vec_mult = 1; }},
      {"softmax input stride", soft, [](desc& d) { d.in_stride -= 1; }},
      {"layer norm without parameters", norm, [](desc& d) { d.param_pages = 0; }},
      {"layer norm with tiles", norm, [](desc& d) { d.k_tiles = 1; }},
      {"layer norm epsilon 0", norm, [](desc& d) { d.epsilon_lo = d.epsilon_hi = 0; }},
      {"layer norm epsilon 2^39", norm, [](desc& d) { d.epsilon_hi = 0x80; }},
      {"layer norm clamp", norm, [](desc& d) { d.clamp_lo = 1, d.clamp_hi = 0; }},
      {"layer norm output stride", norm, [](desc& d) { d.out_stride -= 1; }}};
  for (const desc* base : {&scores, &context}) {
    const std::vector<bad> both{
        {"no heads", *base, [](desc& d) { d.heads = 0; }},
        {"heads beyond the scratchpad", *base, [](desc& d) { d.heads = 255, d.in_stride = 64; }},
        {"a window", *base, [](desc& d) { d.kernel_h = 2, d.taps *= 2, d.k_tiles *= 2; }},
        {"a step", *base, [](desc& d) { d.stride_x = 2; }},
        {"padding", *base, [](desc& d) { d.pad_left = 1; }},
        {"other pixels", *base, [](desc& d) { --d.out_w; }},
        {"fused addition", *base, [](desc& d) { d.fuse_add = 1; }},
        {"out_pitch", *base, [](desc& d) { d.out_pitch = d.out_cb; }},
        {"slices", *base, [](desc& d) { d.slices = 2; }},
        {"k_tiles", *base, [](desc& d) { ++d.k_tiles; }},
        {"n_tiles", *base, [](desc& d) { ++d.n_tiles; }},
        {"param_pages", *base, [](desc& d) { ++d.param_pages; }},
        {"in2_base", *base, [](desc& d) { d.in2_base = sim16::spad_words - 1; }},
        {"in2_stride wraps", *base, [](desc& d) { d.in2_stride = 0x80000000u; }},
        {"in_base", *base, [](desc& d) { d.in_base = sim16::spad_words - 1; }},
        {"out_base", *base, [](desc& d) { d.out_base = sim16::spad_words - 1; }},
        {"the second tensor's narrow blocks", *base, [](desc& d) {
           (d.in2_transposed ? d.in_cp_log2 : d.out_cp_log2) = 5;
           (d.in2_transposed ? d.in_c_last : d.out_c_last) = 32;
         }}};
    cases.insert(cases.end(), both.begin(), both.end());
  }
  std::vector<word> image(sim16::spad_words);
  for (auto& w : image)
    for (auto& b : w) b = static_cast<std::uint8_t>(sim.rng());
  ASSERT_FALSE(sim.put(0, sim16::spad_words, 1, image).bad_input);
  for (const bad& c : cases) {
    SCOPED_TRACE(c.what);
    desc d = c.d;
    c.edit(d);
    sim.load_pages(std::vector<page>(2));
    ASSERT_NO_THROW(EXPECT_TRUE(sim.run(d, batch, 2000).bad_desc));
    EXPECT_EQ(sim.beats_left(), 128u);
    sim.drop_pages();
  }
  for (const desc& d : {scores, context, soft, norm}) {
    EXPECT_TRUE(sim.run(d, 0, 2000).bad_desc) << "batch 0";
    EXPECT_TRUE(sim.run(d, 65535, 2000).bad_desc) << "batch beyond the scratchpad";
  }
  EXPECT_TRUE(sim.get(0, sim16::spad_words, 1) == image);
}

TEST_F(Attention, AbortThenCleanRun) { abort_then_run_clean(); }

#define LATCHKEY_BANK(n) &root.lk_engine__DOT__u_operand__DOT__gen_bank__BRA__##n##__KET____DOT__mem
#define LATCHKEY_BANKS(a, b, c, d, e, f, g, h)                                              \
  LATCHKEY_BANK(a), LATCHKEY_BANK(b), LATCHKEY_BANK(c), LATCHKEY_BANK(d), LATCHKEY_BANK(e), \
      LATCHKEY_BANK(f), LATCHKEY_BANK(g), LATCHKEY_BANK(h)

// A wipe in the middle of each operation: nothing of the activations is left, neither in the
// scratchpad nor in the banks of the operand, nor in the sums of rows.
TEST_F(Attention, WipeLeavesNothing) {
  auto& root = *sim.model().rootp;
  const auto banks = {LATCHKEY_BANKS(0, 1, 2, 3, 4, 5, 6, 7),
                      LATCHKEY_BANKS(8, 9, 10, 11, 12, 13, 14, 15),
                      LATCHKEY_BANKS(16, 17, 18, 19, 20, 21, 22, 23),
                      LATCHKEY_BANKS(24, 25, 26, 27, 28, 29, 30, 31),
                      LATCHKEY_BANKS(32, 33, 34, 35, 36, 37, 38, 39),
                      LATCHKEY_BANKS(40, 41, 42, 43, 44, 45, 46, 47),
                      LATCHKEY_BANKS(48, 49, 50, 51, 52, 53, 54, 55),
                      LATCHKEY_BANKS(56, 57, 58, 59, 60, 61, 62, 63)};
  const auto used_banks = [&] {
    int used = 0;
    for (const auto* bank : banks)
      for (int i = 0; i < 128; ++i) used += (*bank)[i] != 0;
    return used;
  };
  const auto used_rows = [&] {
    int used = 0;
    for (int i = 0; i < 64; ++i) {
      used += root.lk_engine__DOT__u_rows__DOT__most_q[i] != 0;
      used += root.lk_engine__DOT__u_rows__DOT__sum_q[i] != 0;
      used += root.lk_engine__DOT__u_rows__DOT__factor_q[i] != 0;
      used += root.lk_engine__DOT__u_rows__DOT__shift_q[i] != 0;
    }
    return used;
  };
  int seen_banks = 0, seen_rows = 0;
  for (std::size_t i = 0; i + 1 < p.descriptors.size(); ++i) {
    if (!mine(i)) continue;
    SCOPED_TRACE(p.layers[i].name);
    for (std::size_t before = 0; before < i; ++before) step(before);
    load(p.descriptors[i]);
    sim.wipe_at = 300;
    seen_banks += used_banks();
    seen_rows += used_rows();
    EXPECT_TRUE(sim.run(p.descriptors[i], batch).aborted);
    sim.wipe_at = 0;
    sim.drop_pages();
    sim.wait_wipe();
    EXPECT_EQ(used_banks(), 0);
    EXPECT_EQ(used_rows(), 0);
    EXPECT_TRUE(sim.get(0, sim16::spad_words, 1) == std::vector<word>(sim16::spad_words));
  }
  EXPECT_GT(seen_banks, 0);
  EXPECT_GT(seen_rows, 0);
  sim.output.clear();
  for (std::size_t i = 0; i + 1 < p.descriptors.size(); ++i) step(i);
  expect_output();
}

// An inverted residual with strides, narrow and wide blocks.
class FusedDepthwise : public Program {
 protected:
  static model::qgraph separable() {
    graph_builder b(78);
    int t = b.conv(b.input(3, 23, 21), 20, 3, 3, 1, 1, {1, 1, 1, 1});
    t = b.depthwise(t, 3, 3, 1, 1, {1, 1, 1, 1});
    t = b.depthwise(b.conv(t, 150, 1, 1, 1, 1, {0, 0, 0, 0}), 5, 5, 2, 2, {2, 2, 2, 2});
    t = b.depthwise(b.conv(t, 64, 1, 1, 1, 1, {0, 0, 0, 0}), 2, 3, 3, 2, {0, 1, 0, 1});
    return b.finish(b.conv(t, 10, 1, 1, 1, 1, {0, 0, 0, 0}));
  }
  FusedDepthwise() : Program(separable()) {}
};

TEST_F(FusedDepthwise, IllegalDescriptorsTouchNothing) {
  using desc = spec::descriptor;
  ASSERT_EQ(p.descriptors.size(), 7u);
  for (const std::size_t i : {1, 2, 3}) ASSERT_EQ(p.descriptors[i].fuse_dw, 1u);
  const desc wide = p.descriptors[2];
  const std::vector<std::pair<const char*, std::function<void(desc&)>>> cases{
      {"behind a product", [](desc& d) { d.op = 10, d.heads = 1; }},
      {"behind a pool", [](desc& d) { d.op = 3; }},
      {"behind a depthwise convolution", [](desc& d) { d.op = 6, d.k_tiles = 1; }},
      {"with an addition", [](desc& d) { d.fuse_add = 1, d.in2_stride = 10000; }},
      {"with a table", [](desc& d) { d.fuse_table = 1; }},
      {"planar", [](desc& d) { d.out_planar = 1; }},
      {"with a pitch", [](desc& d) { d.out_pitch = d.out_cb; }},
      {"in slices", [](desc& d) { d.slices = 2; }},
      {"kernel of 6 rows", [](desc& d) { d.dw_kernel_h = 6; }},
      {"kernel of 6 columns", [](desc& d) { d.dw_kernel_w = 6; }},
      {"kernel of no rows", [](desc& d) { d.dw_kernel_h = 0; }},
      {"no step", [](desc& d) { d.dw_stride_x = 0; }},
      {"a line of 513", [](desc& d) { d.mid_w = 513; }},
      {"no rows between", [](desc& d) { d.mid_h = 0; }},
      {"lower than the kernel", [](desc& d) { d.mid_h = 2, d.out_h = 1; }},
      {"bounds between", [](desc& d) { d.mid_lo = 1, d.mid_hi = 0; }},
      {"2^23 rows between", [](desc& d) { d.mid_h = 65535, d.mid_w = 65; }},
      {"window below", [](desc& d) { d.out_h = 40; }},
      {"window to the right", [](desc& d) { d.out_w = 40; }},
      {"window above", [](desc& d) { d.dw_pad_top = 5; }},
      {"output stride", [](desc& d) { --d.out_stride; }},
      {"output base", [](desc& d) { d.out_base = sim16::spad_words - 1; }},
      {"input stride", [](desc& d) { --d.in_stride; }},
      {"n_tiles", [](desc& d) { ++d.n_tiles; }},
      {"k_tiles", [](desc& d) { ++d.k_tiles; }},
      {"param_pages", [](desc& d) { ++d.param_pages; }},
      {"clamp", [](desc& d) { d.clamp_lo = 1, d.clamp_hi = 0; }}};
  std::vector<word> image(sim16::spad_words);
  for (auto& w : image)
    for (auto& b : w) b = static_cast<std::uint8_t>(sim.rng());
  ASSERT_FALSE(sim.put(0, sim16::spad_words, 1, image).bad_input);
  for (const auto& [what, edit] : cases) {
    SCOPED_TRACE(what);
    desc d = wide;
    edit(d);
    sim.load_pages(std::vector<page>(2));
    ASSERT_NO_THROW(EXPECT_TRUE(sim.run(d, batch, 2000).bad_desc));
    EXPECT_EQ(sim.beats_left(), 128u);
    sim.drop_pages();
  }
  EXPECT_TRUE(sim.get(0, sim16::spad_words, 1) == image);
}

TEST_F(FusedDepthwise, AbortThenCleanRun) { abort_then_run_clean(); }

// Planes lower than the kernel, in three channel blocks: they are not fused, or the depthwise path
// would wait for weights that wait for it.
TEST(DepthwiseOfLowPlanes, IsExact) {
  const std::vector<std::array<int, 5>> shapes{// height, width, kernel, padding above, below
                                               {1, 1, 5, 2, 2}, {1, 9, 3, 1, 1}, {2, 9, 5, 2, 2},
                                               {3, 6, 5, 2, 2}, {2, 5, 3, 1, 1}, {2, 7, 2, 0, 1}};
  unsigned seed = 90;
  for (const auto& [h, w, k, above, below] : shapes) {
    SCOPED_TRACE(std::to_string(h) + " x " + std::to_string(w) + ", kernel " + std::to_string(k));
    graph_builder b(++seed);
    int t = b.conv(b.input(20, h, w), 300, 1, 1, 1, 1, {0, 0, 0, 0});
    t = b.depthwise(t, k, k, 1, 1, {above, above, below, below});
    const model::qgraph graph = b.finish(b.conv(t, 7, 1, 1, 1, 1, {0, 0, 0, 0}));
    for (const std::uint32_t images : {1u, 2u, 3u}) {
      const program p = compiler::compile(graph, {{16, sim16::spad_words}, images, {}, {}});
      EXPECT_EQ(p.descriptors[1].fuse_dw, k <= h + above);
      sim16 sim(seed);
      model::reference golden(graph);
      std::vector<std::uint8_t> want;
      for (std::uint32_t i = 0; i < images; ++i) {
        std::vector<std::uint8_t> image(graph.input_tensor().size());
        for (auto& v : image) v = static_cast<std::uint8_t>(sim.rng());
        const auto out = p.output.layout.pack(golden.infer(image));
        want.insert(want.end(), out.begin(), out.end());
        const auto packed = p.input.layout.pack(image);
        for (std::size_t at = 0; at < packed.size(); at += 64) {
          word x;
          std::copy_n(packed.begin() + static_cast<std::ptrdiff_t>(at), 64, x.begin());
          sim.input.emplace_back(x, i + 1 == images && at + 64 == packed.size());
        }
      }
      for (const spec::descriptor& d : p.descriptors) {
        sim.load_pages(pages_in_order(p, d, images));
        ASSERT_NO_THROW(EXPECT_FALSE(sim.run(d, static_cast<int>(images), 200000).bad_desc));
      }
      ASSERT_EQ(sim.output.size() * 64, want.size());
      for (std::uint32_t i = 0; i < images; ++i) {
        const std::size_t bytes = want.size() / images;
        const auto* const first =
            reinterpret_cast<const std::uint8_t*>(sim.output.data()) + i * bytes;
        EXPECT_EQ(p.output.layout.unpack({first, bytes}),
                  p.output.layout.unpack(io::byte_view(want).subspan(i * bytes, bytes)))
            << "image " << i;
      }
    }
  }
}

}  // namespace
}  // namespace latchkey::test
