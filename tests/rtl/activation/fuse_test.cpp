// MatMul with fused addition: against the definition (convolution, then addition), against the same
// two operations run one after the other on the engine, illegal descriptors, abort, wipe and rates.
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>

#include "VEngine16.h"
#include "VEngine32.h"
#include "VEngine64.h"
#include "engine_sim.hpp"

namespace latchkey::test {
namespace {

using sim16 = engine_sim<VEngine16, 16>;
using sim32 = engine_sim<VEngine32, 32>;
using sim64 = engine_sim<VEngine64, 64>;

// The convolution's own bounds are k.lo and k.hi; a.lo and a.hi are those of the sum.
struct residual {
  conv k;
  addition a;
  bool subtract = false;
};

tensor golden(const residual& r, const tensor& in, const tensor& second) {
  tensor out = golden(r.k, in);
  for (std::size_t i = 0; i < out.v.size(); ++i) {
    const std::int64_t b = std::int64_t{second.v[i]} * r.a.mult_b;
    const std::int64_t t = std::int64_t{out.v[i]} * r.a.mult_a + (r.subtract ? -b : b) + r.a.offset;
    out.v[i] = clamp8(shift_even(static_cast<std::int32_t>(t), r.a.shift), r.a.lo, r.a.hi);
  }
  return out;
}

spec::descriptor describe(const residual& r, const layout& in, const layout& second,
                          const layout& out) {
  spec::descriptor d = describe(r.k, in, out);
  d.fuse_add = 1;
  d.mid_lo = d.clamp_lo, d.mid_hi = d.clamp_hi;
  d.clamp_lo = static_cast<std::uint8_t>(r.a.lo), d.clamp_hi = static_cast<std::uint8_t>(r.a.hi);
  d.in2_base = second.base, d.in2_stride = second.stride;
  d.in2_negate = r.subtract;
  d.add_mult_a = r.a.mult_a, d.add_mult_b = r.a.mult_b;
  d.add_offset = static_cast<std::uint32_t>(r.a.offset), d.add_shift = r.a.shift;
  return d;
}

residual random_residual(std::mt19937& rng, int c, int cout, int kernel, int side) {
  residual r;
  r.k.kh = r.k.kw = kernel, r.k.pt = r.k.pl = kernel / 2, r.k.out_h = r.k.out_w = side;
  r.k.c = c, r.k.cout = cout;
  randomise(r.k, rng);
  r.a.shift = pick(rng, 0, 22);
  r.a.mult_a = static_cast<std::uint16_t>(rng() >> (16 + (22 - r.a.shift) * 16 / 23));
  r.a.mult_b = static_cast<std::uint16_t>(rng() >> (16 + (22 - r.a.shift) * 16 / 23));
  r.a.offset = pick(rng, -(1 << r.a.shift) * 20, (1 << r.a.shift) * 20);
  if (rng() % 2) r.a.lo = -30;
  r.subtract = rng() % 4 == 0;
  return r;
}

template <class Sim>
void put_tensor(Sim& s, const layout& l, const tensor& t) {
  const run_result r = s.put(l.base, l.stride, t.n, l.pack(t, s.rng));
  ASSERT_FALSE(r.bad_desc || r.bad_input);
}

template <class Sim>
void expect_tensor(Sim& s, const layout& l, const tensor& want, const std::string& what) {
  const tensor got = l.unpack(s.get(l.base, l.stride, want.n), want.n);
  std::size_t wrong = 0, first = 0;
  for (std::size_t i = 0; i < want.v.size(); ++i) {
    if (got.v[i] != want.v[i] && wrong++ == 0) first = i;
  }
  ASSERT_EQ(wrong, 0u) << what << ": " << wrong << " of " << want.v.size()
                       << " differ, first at channel " << first % want.c << " of pixel "
                       << first / want.c << ": got " << int{got.v[first]} << ", want "
                       << int{want.v[first]};
}

// Layouts of input, second tensor and output, one behind the other with gaps.
struct places {
  layout in, second, out;
  places(std::mt19937& rng, const conv& k, const tensor& x) {
    in = layout::of(x.h, x.w, x.c, pick(rng, 0, 9), pick(rng, 0, 2));
    second = layout::of(k.out_h, k.out_w, k.cout, in.base + in.stride * x.n + pick(rng, 0, 9),
                        pick(rng, 0, 3));
    out = layout::of(k.out_h, k.out_w, k.cout, second.base + second.stride * x.n + pick(rng, 0, 9),
                     pick(rng, 0, 2));
  }
};

template <class Sim>
run_result run_fused(Sim& s, const residual& r, const places& p, int batch) {
  s.load_pages(pages_of(r.k, p.in, batch * r.k.out_h * r.k.out_w, Sim::array_n, s.rng));
  const run_result got = s.run(describe(r, p.in, p.second, p.out), batch);
  EXPECT_FALSE(got.bad_desc);
  EXPECT_EQ(s.beats_left(), 0u);
  return got;
}

template <class Sim>
void random_shapes(unsigned first, int count) {
  static const int channels[] = {1, 3, 8, 16, 20, 33, 64, 100};
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    s.page_idle = seed % 3 == 0 ? 30 : 0;
    const int side = pick(s.rng, 1, 14), batch = pick(s.rng, 1, 4);
    const int cout = seed % 2 ? pick(s.rng, 1, 200) : 1 << pick(s.rng, 0, 7);
    const residual r =
        random_residual(s.rng, channels[s.rng() % 8], cout, pick(s.rng, 0, 1) * 2 + 1, side);
    const tensor x = random_tensor(s.rng, batch, side, side, r.k.c);
    const tensor second = random_tensor(s.rng, batch, side, side, cout);
    places p(s.rng, r.k, x);
    const bool in_place = seed % 5 == 0;
    if (in_place) p.out = p.second;
    ASSERT_LE(p.out.base + p.out.stride * batch, Sim::spad_words);
    put_tensor(s, p.in, x);
    put_tensor(s, p.second, second);
    run_fused(s, r, p, batch);
    expect_tensor(s, p.out, golden(r, x, second), "fused");
    if (!in_place) expect_tensor(s, p.second, second, "the second tensor stays");
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(Fuse16, RandomShapes) { random_shapes<sim16>(1000, 40); }
TEST(Fuse32, RandomShapes) { random_shapes<sim32>(1100, 20); }
TEST(Fuse64, RandomShapes) { random_shapes<sim64>(1200, 40); }

// Two blocks of rows that begin in the middle of an image, and tiles that repeat the rows.
TEST(Fuse64, ManyRows) {
  sim64 s(1300);
  const residual r = random_residual(s.rng, 64, 150, 1, 19);
  const tensor x = random_tensor(s.rng, 3, 19, 19, 64),
               second = random_tensor(s.rng, 3, 19, 19, 150);
  const places p(s.rng, r.k, x);
  put_tensor(s, p.in, x);
  put_tensor(s, p.second, second);
  run_fused(s, r, p, 3);
  expect_tensor(s, p.out, golden(r, x, second), "fused");
}

TEST(Fuse16, IsTheUnfusedPair) {
  for (unsigned seed = 1400; seed < 1410; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    sim16 s(seed);
    residual r = random_residual(s.rng, 20, pick(s.rng, 1, 90), 3, 7);
    r.subtract = false;
    const tensor x = random_tensor(s.rng, 2, 7, 7, 20);
    const tensor second = random_tensor(s.rng, 2, 7, 7, r.k.cout);
    const places p(s.rng, r.k, x);
    const layout mid = layout::of(7, 7, r.k.cout, 8000), sum = layout::of(7, 7, r.k.cout, 9000);
    put_tensor(s, p.in, x);
    put_tensor(s, p.second, second);
    run_fused(s, r, p, 2);
    s.load_pages(pages_of(r.k, p.in, 98, 16, s.rng));
    ASSERT_FALSE(s.run(describe(r.k, p.in, mid), 2).bad_desc);
    ASSERT_FALSE(s.run(describe(r.a, mid, p.second, sum), 2).bad_desc);
    expect_tensor(s, p.out, sum.unpack(s.get(sum.base, sum.stride, 2), 2), "fused and unfused");
    if (HasFatalFailure()) return;
  }
}

TEST(Fuse16, IllegalDescriptorsTouchNothing) {
  sim16 s(1500);
  constexpr std::uint32_t words = sim16::spad_words;
  std::vector<word> image(words);
  for (auto& w : image) {
    for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
  }
  ASSERT_FALSE(s.put(0, words, 1, image).bad_input);
  residual r = random_residual(s.rng, 20, 90, 3, 7);
  r.k.lo = -10;
  const layout in = layout::of(7, 7, 20, 0), second = layout::of(7, 7, 90, 200),
               out = layout::of(7, 7, 90, 1000);
  const spec::descriptor good = describe(r, in, second, out);
  using desc = spec::descriptor;
  const std::pair<const char*, std::function<void(desc&)>> cases[] = {
      {"one tensor for all, beyond the end",
       [](desc& d) { d.in2_stride = 0, d.in2_base = words - 1; }},
      {"in2_stride too small", [](desc& d) { --d.in2_stride; }},
      {"in2_stride wraps", [](desc& d) { d.in2_stride = 0x80000000u; }},
      {"in2_base behind the end", [](desc& d) { d.in2_base = words; }},
      {"in2_base near the end", [](desc& d) { d.in2_base = words - 3 * d.in2_stride + 1; }},
      {"in2_base wraps", [](desc& d) { d.in2_base = 0xfffffff0u; }},
      {"in2_broadcast", [](desc& d) { d.in2_broadcast = 1; }},
      {"add_shift 23", [](desc& d) { d.add_shift = 23; }},
      {"bounds between", [](desc& d) { d.mid_lo = 5, d.mid_hi = 4; }},
      {"bounds behind", [](desc& d) { d.clamp_lo = 5, d.clamp_hi = 4; }},
      {"out_pitch", [](desc& d) { d.out_pitch = d.out_cb; }},
      {"slices", [](desc& d) { d.slices = 2; }},
  };
  for (const auto& [what, edit] : cases) {
    SCOPED_TRACE(what);
    desc d = good;
    edit(d);
    s.load_pages(std::vector<page>(2));
    EXPECT_TRUE(s.run(d, 3, 2000).bad_desc);
    EXPECT_EQ(s.beats_left(), 128u);
    s.drop_pages();
    // What only the addition uses does not matter without it.
    if (d.clamp_lo != 5) {
      d.fuse_add = 0;
      s.load_pages(pages_of(r.k, in, 147, 16, s.rng));
      s.abort_at = 40;
      EXPECT_FALSE(s.run(d, 3).bad_desc);
      s.abort_at = 0;
      s.drop_pages();
    }
  }
  EXPECT_EQ(s.get(0, words, 1), image);
}

// Stops in the middle, with bytes of the second tensor waiting and sums on their way.
template <class Sim>
void stops(unsigned seed, int c) {
  Sim s(seed);
  const residual r = random_residual(s.rng, c, 150, 3, 12);
  const tensor x = random_tensor(s.rng, 3, 12, 12, c),
               second = random_tensor(s.rng, 3, 12, 12, 150);
  const places p(s.rng, r.k, x);
  const tensor want = golden(r, x, second);
  put_tensor(s, p.in, x);
  put_tensor(s, p.second, second);
  const std::uint64_t whole = run_fused(s, r, p, 3).cycles;
  for (int i = 0; i < 12; ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    const bool wipe = i % 3 == 0;
    (wipe ? s.wipe_at : s.abort_at) = pick(s.rng, 30, static_cast<int>(whole));
    s.load_pages(pages_of(r.k, p.in, 432, Sim::array_n, s.rng));
    const run_result cut = s.run(describe(r, p.in, p.second, p.out), 3);
    EXPECT_FALSE(cut.bad_desc);
    s.wipe_at = s.abort_at = 0;
    s.drop_pages();
    if (wipe) {
      s.wait_wipe();
      EXPECT_EQ(s.get(0, Sim::spad_words, 1), std::vector<word>(Sim::spad_words));
      put_tensor(s, p.in, x);
      put_tensor(s, p.second, second);
    } else {
      expect_tensor(s, p.second, second, "the second tensor stays");
    }
    run_fused(s, r, p, 3);
    expect_tensor(s, p.out, want, "clean run");
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(Fuse16, AbortAndWipeThenCleanRun) { stops<sim16>(1600, 40); }
TEST(Fuse64, AbortAndWipeThenCleanRun) { stops<sim64>(1601, 40); }
TEST(Fuse64, AbortAndWipeWhileGathering) { stops<sim64>(1602, 3); }

// The addition costs what the walks through the scratchpad take from each other at most: one of
// eight cycles of the sweep that its tile's drain goes along with, which is the only one or the
// last.
TEST(Fuse64, Rate) {
  for (const int c : {64, 128, 256}) {
    sim64 s(1700);
    const residual r = random_residual(s.rng, c, 256, 1, 28);
    const tensor x = random_tensor(s.rng, 1, 28, 28, c),
                 second = random_tensor(s.rng, 1, 28, 28, 256);
    const places p(s.rng, r.k, x);
    put_tensor(s, p.in, x);
    put_tensor(s, p.second, second);
    const run_result fused = run_fused(s, r, p, 1);
    expect_tensor(s, p.out, golden(r, x, second), "fused");
    s.load_pages(pages_of(r.k, p.in, 784, 64, s.rng));
    const run_result alone = s.run(describe(r.k, p.in, p.out), 1);
    const double price = 1.0 * fused.cycles / alone.cycles;
    std::printf("conv 1x1 %d->256 28x28 N=64: %llu cycles, with addition %llu, ratio %.4f\n", c,
                static_cast<unsigned long long>(alone.cycles),
                static_cast<unsigned long long>(fused.cycles), price);
    EXPECT_LE(price, c == 64 ? 1.20 : c == 128 ? 1.10 : 1.03);
  }
}

// Every layer of ResNet-50 (224 x 224, one image) that the array computes, and its max-pool; pages
// come without a gap. The test's scratchpad is small, so an output may lie over its input: what is
// computed is not compared. Equal layers run once and count often.
TEST(Resnet50, Utilisation) {
  sim64 s(1800);
  std::uint64_t cycles = 0, macs = 0;
  const auto layer = [&](int times, int side, int c, int kernel, int stride, int cout, bool add) {
    residual r = random_residual(s.rng, c, cout, kernel, side / stride);
    r.k.sy = r.k.sx = stride;
    const layout in = layout::of(side, side, c, 0);
    layout out = layout::of(r.k.out_h, r.k.out_w, cout, 0);
    out.base = sim64::spad_words - out.stride;
    s.load_pages(pages_of(r.k, in, r.k.out_h * r.k.out_w, 64, s.rng));
    const run_result got = s.run(add ? describe(r, in, out, out) : describe(r.k, in, out), 1);
    ASSERT_FALSE(got.bad_desc);
    ASSERT_EQ(got.macs, std::uint64_t(r.k.out_h) * r.k.out_w * kernel * kernel * c * cout);
    std::printf("%3dx%-3d %4d -> %4d %dx%d /%d%s: %8llu cycles, %.3f of the roofline\n", side, side,
                c, cout, kernel, kernel, stride, add ? " + add" : "      ",
                static_cast<unsigned long long>(got.cycles), got.macs / 4096.0 / got.cycles);
    cycles += times * got.cycles;
    macs += times * got.macs;
  };
  layer(1, 224, 3, 7, 2, 64, false);
  pool p;
  p.kh = p.kw = 3, p.sy = p.sx = 2, p.pt = p.pl = 1, p.out_h = p.out_w = 56;
  const layout wide = layout::of(112, 112, 64, 0);
  const run_result pooled =
      s.run(latchkey::test::describe(p, wide, layout::of(56, 56, 64, wide.stride)), 1);
  ASSERT_FALSE(pooled.bad_desc);
  cycles += pooled.cycles;
  int side = 56, c = 64;
  for (const auto& [width, blocks] : {std::pair{64, 3}, {128, 4}, {256, 6}, {512, 3}}) {
    const int stride = width == 64 ? 1 : 2;
    layer(1, side, c, 1, 1, width, false);
    layer(1, side, width, 3, stride, width, false);
    layer(1, side, c, 1, stride, 4 * width, false);
    side /= stride, c = 4 * width;
    layer(blocks, side, width, 1, 1, c, true);
    layer(blocks - 1, side, c, 1, 1, width, false);
    layer(blocks - 1, side, width, 3, 1, width, false);
    if (HasFatalFailure()) return;
  }
  layer(1, 1, 2048, 1, 1, 1000, false);
  const double used = macs / 4096.0 / cycles;
  std::printf("ResNet-50: %llu MACs in %llu cycles, %.4f of the roofline of 64 x 64\n",
              static_cast<unsigned long long>(macs), static_cast<unsigned long long>(cycles), used);
  EXPECT_GE(used, 0.80);
}

}  // namespace
}  // namespace latchkey::test
