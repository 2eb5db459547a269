// lk_engine against the golden model: random layers and sequences, stream stalls, illegal
// descriptors, broken streams, abort and wipe, and the rates that the architecture promises.
#include <gtest/gtest.h>

#include <cstdio>
#include <ctime>
#include <functional>
#include <tuple>
#include <type_traits>

#include "VEngine16.h"
#include "VEngine32.h"
#include "VEngine64.h"
#include "depthwise_model.hpp"
#include "engine_sim.hpp"

namespace latchkey::test {
namespace {

using sim16 = engine_sim<VEngine16, 16>;
using sim32 = engine_sim<VEngine32, 32>;
using sim64 = engine_sim<VEngine64, 64>;

template <class Sim>
void put_tensor(Sim& s, const layout& l, const tensor& t) {
  const run_result r = s.put(l.base, l.stride, t.n, l.pack(t, s.rng));
  ASSERT_FALSE(r.bad_desc);
  ASSERT_FALSE(r.bad_input);
}

// Reads the tensor at l back and compares its real channels.
template <class Sim>
void expect_tensor(Sim& s, const layout& l, const tensor& want, const std::string& what) {
  const std::vector<word> words = s.get(l.base, l.stride, want.n);
  ASSERT_EQ(words.size(), static_cast<std::size_t>(want.n) * l.stride) << what;
  for (std::size_t i = 0; i < words.size(); ++i) {
    ASSERT_EQ(s.output_last[i], i + 1 == words.size()) << what;
  }
  const tensor got = l.unpack(words, want.n);
  int wrong = 0;
  std::string where;
  for (std::size_t i = 0; i < want.v.size(); ++i) {
    if (got.v[i] != want.v[i] && wrong++ == 0) {
      const std::size_t px = i / want.c;
      where = "image " + std::to_string(px / (want.h * want.w)) + " y " +
              std::to_string(px / want.w % want.h) + " x " + std::to_string(px % want.w) +
              " channel " + std::to_string(i % want.c) + ": got " + std::to_string(got.v[i]) +
              ", want " + std::to_string(want.v[i]);
    }
  }
  ASSERT_EQ(wrong, 0) << what << ": " << wrong << " of " << want.v.size() << " differ, first at "
                      << where;
}

std::string name(const conv& k, const tensor& in) {
  char b[200];
  std::snprintf(b, sizeof b, "conv %dx%dx%dx%d -> %dx%dx%d kernel %dx%d stride %d,%d pad %d,%d",
                in.n, in.h, in.w, in.c, k.out_h, k.out_w, k.cout, k.kh, k.kw, k.sy, k.sx, k.pt,
                k.pl);
  return b;
}

// Runs one convolution whose input stands at in; checks the MAC count and that all pages went.
template <class Sim>
run_result run_conv(Sim& s, const conv& k, const layout& in, const layout& out, int batch) {
  const int rows = batch * k.out_h * k.out_w;
  s.load_pages(pages_of(k, in, rows, Sim::array_n, s.rng));
  const run_result r = s.run(describe(k, in, out), batch);
  EXPECT_FALSE(r.bad_desc);
  EXPECT_EQ(s.beats_left(), 0u);
  EXPECT_EQ(r.macs, static_cast<std::uint64_t>(rows) * k.kh * k.kw * k.c * k.cout);
  return r;
}

template <class Sim>
void check_conv(Sim& s, const conv& k, const tensor& in) {
  const layout li = layout::of(in.h, in.w, in.c, pick(s.rng, 0, 3), pick(s.rng, 0, 2));
  const layout lo = layout::of(k.out_h, k.out_w, k.cout,
                               li.base + li.stride * in.n + pick(s.rng, 0, 3), pick(s.rng, 0, 2));
  ASSERT_LE(lo.base + lo.stride * in.n, Sim::spad_words);
  put_tensor(s, li, in);
  run_conv(s, k, li, lo, in.n);
  expect_tensor(s, lo, golden(k, in), name(k, in));
}

conv dense(int c, int cout, std::mt19937& rng) {
  conv k;
  k.c = c, k.cout = cout;
  randomise(k, rng);
  return k;
}

// A random convolution over a random input, at most max_macs of work.
std::pair<conv, tensor> random_conv(std::mt19937& rng, double max_macs) {
  static const int channels[] = {1, 3, 4, 8, 16, 20, 32, 33, 64, 100, 130};
  for (;;) {
    conv k;
    k.kh = pick(rng, 1, 5), k.kw = pick(rng, 1, 5), k.sy = pick(rng, 1, 3), k.sx = pick(rng, 1, 3);
    k.pt = pick(rng, 0, k.kh - 1), k.pl = pick(rng, 0, k.kw - 1);
    k.c = channels[rng() % 11], k.cout = pick(rng, 1, 150);
    const int n = pick(rng, 1, 5), h = pick(rng, 1, 20), w = pick(rng, 1, 20);
    const int hh = h + k.pt + pick(rng, 0, k.kh - 1) - k.kh;
    const int ww = w + k.pl + pick(rng, 0, k.kw - 1) - k.kw;
    if (hh < 0 || ww < 0) continue;
    k.out_h = hh / k.sy + 1, k.out_w = ww / k.sx + 1;
    if (1.0 * n * k.out_h * k.out_w * k.kh * k.kw * k.c * k.cout > max_macs) continue;
    randomise(k, rng);
    return {k, random_tensor(rng, n, h, w, k.c)};
  }
}

std::pair<pool, tensor> random_pool(std::mt19937& rng) {
  static const int channels[] = {1, 3, 4, 8, 16, 20, 32, 33, 64, 100, 130};
  for (;;) {
    pool p;
    p.kh = pick(rng, 1, 4), p.kw = pick(rng, 1, 4), p.sy = pick(rng, 1, 3), p.sx = pick(rng, 1, 3);
    p.pt = pick(rng, 0, p.kh - 1), p.pl = pick(rng, 0, p.kw - 1);
    const int n = pick(rng, 1, 4), h = pick(rng, 1, 14), w = pick(rng, 1, 14);
    const int hh = h + p.pt + pick(rng, 0, p.kh - 1) - p.kh;
    const int ww = w + p.pl + pick(rng, 0, p.kw - 1) - p.kw;
    if (hh < 0 || ww < 0) continue;
    p.out_h = hh / p.sy + 1, p.out_w = ww / p.sx + 1;
    // Every window must touch the input.
    if ((p.out_h - 1) * p.sy >= h + p.pt || (p.out_w - 1) * p.sx >= w + p.pl) continue;
    return {p, random_tensor(rng, n, h, w, channels[rng() % 11])};
  }
}

template <class Sim>
void stalls(Sim& s, int percent) {
  s.page_idle = s.in_idle = s.out_idle = percent;
}

TEST(Engine16, FullyConnected) {
  sim16 s(1);
  for (int i = 0; i < 30; ++i) {
    const int c = pick(s.rng, 1, 300), batch = pick(s.rng, 1, 5);
    SCOPED_TRACE("case " + std::to_string(i));
    const conv k = dense(c, pick(s.rng, 1, 300), s.rng);
    stalls(s, i % 3 == 0 ? 40 : 0);
    check_conv(s, k, random_tensor(s.rng, batch, 1, 1, c));
    if (HasFatalFailure()) return;
  }
}

TEST(Engine16, FlattenedFullyConnected) {
  sim16 s(2);
  const int shapes[][3] = {{28, 28, 1}, {7, 7, 8}, {4, 4, 32}, {5, 3, 20}, {3, 3, 100}};
  for (const auto& f : shapes) {
    for (int batch : {1, 3}) {
      conv k;
      k.kh = f[0], k.kw = f[1], k.c = f[2], k.cout = pick(s.rng, 10, 90);
      randomise(k, s.rng);
      check_conv(s, k, random_tensor(s.rng, batch, f[0], f[1], f[2]));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Engine16, RandomConvolutions) {
  for (unsigned seed = 100; seed < 180; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    sim16 s(seed);
    stalls(s, seed % 4 == 0 ? 30 : 0);
    const auto [k, in] = random_conv(s.rng, 3e6);
    check_conv(s, k, in);
    if (HasFatalFailure()) return;
  }
}

// Blocks of 512 rows that begin in the middle of images and rows of pixels.
TEST(Engine16, ManyRows) {
  sim16 s(3);
  for (const int c : {1, 3, 16, 40}) {
    conv k;
    k.kh = k.kw = 3, k.pt = k.pl = 1, k.out_h = 19, k.out_w = 21, k.c = c, k.cout = 70;
    randomise(k, s.rng);
    check_conv(s, k, random_tensor(s.rng, 4, 19, 21, c));
    if (HasFatalFailure()) return;
  }
  const conv k = dense(20, 5, s.rng);
  check_conv(s, k, random_tensor(s.rng, 1030, 1, 1, 20));
}

// Slices that touch more kernel rows than the gather has lanes for: tall and narrow windows.
template <class Sim>
void tall_windows(unsigned seed) {
  Sim s(seed);
  for (const int kw : {1, 2}) {
    for (const int c : {1, 2, 3}) {
      conv k;
      k.kh = 19, k.kw = kw, k.pt = 4, k.sy = 2, k.out_h = 5, k.out_w = 9 - kw + 1;
      k.c = c, k.cout = 30;
      randomise(k, s.rng);
      check_conv(s, k, random_tensor(s.rng, 2, 23, 9, c));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}
TEST(Engine16, TallWindows) { tall_windows<sim16>(20); }
TEST(Engine64, TallWindows) { tall_windows<sim64>(21); }

TEST(Engine16, MaxPool) {
  for (unsigned seed = 200; seed < 240; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    sim16 s(seed);
    const auto [p, in] = random_pool(s.rng);
    const layout li = layout::of(in.h, in.w, in.c, 1, seed % 2);
    const layout lo = layout::of(p.out_h, p.out_w, in.c, li.base + li.stride * in.n, seed % 3);
    put_tensor(s, li, in);
    const run_result r = s.run(describe(p, li, lo), in.n);
    ASSERT_FALSE(r.bad_desc);
    expect_tensor(s, lo, golden(p, in), "max-pool");
    if (HasFatalFailure()) return;
  }
}

average average_of(const pool& p, std::mt19937& rng) {
  average k;
  static_cast<pool&>(k) = p;
  k.in_zero = static_cast<std::int8_t>(rng());
  k.out = random_post(rng, 74.0 * p.kh * p.kw);
  return k;
}

template <class Sim>
void check_average(Sim& s, const average& k, const tensor& in) {
  const layout li = layout::of(in.h, in.w, in.c, pick(s.rng, 0, 3), pick(s.rng, 0, 2));
  const layout lo =
      layout::of(k.out_h, k.out_w, in.c, li.base + li.stride * in.n, pick(s.rng, 0, 2));
  ASSERT_LE(lo.base + lo.stride * in.n, Sim::spad_words);
  put_tensor(s, li, in);
  ASSERT_FALSE(s.run(describe(k, li, lo), in.n).bad_desc);
  expect_tensor(s, lo, golden(k, in), "average pool");
  expect_tensor(s, li, in, "its input");
}

template <class Sim>
void random_averages(unsigned first, unsigned count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    s.in_idle = s.out_idle = seed % 3 * 20;
    const auto [p, in] = random_pool(s.rng);
    check_average(s, average_of(p, s.rng), in);
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(Engine16, AveragePool) { random_averages<sim16>(700, 60); }
TEST(Engine32, AveragePool) { random_averages<sim32>(760, 10); }
TEST(Engine64, AveragePool) { random_averages<sim64>(770, 10); }

// Windows of one to three taps end faster than the lanes take their sums.
TEST(Engine16, AveragePoolOfSmallWindows) {
  sim16 s(12);
  for (const auto& [kh, kw] : {std::pair{1, 1}, {1, 2}, {2, 1}, {1, 3}, {3, 1}, {2, 2}, {1, 4}}) {
    pool p;
    p.kh = kh, p.kw = kw, p.out_h = 7 - kh, p.out_w = 8 - kw;
    SCOPED_TRACE(std::to_string(kh) + "x" + std::to_string(kw));
    check_average(s, average_of(p, s.rng), random_tensor(s.rng, 3, 6, 7, 100));
    if (HasFatalFailure()) return;
  }
}

// The largest sum there can be, both ways, and a pool over the whole of a large input.
TEST(Engine16, AveragePoolOfTheLargestWindow) {
  sim16 s(13);
  for (const int sign : {1, -1}) {
    pool p;
    p.kh = p.kw = 255;
    average k = average_of(p, s.rng);
    k.in_zero = sign > 0 ? -128 : 127;
    k.out = {};
    // Brings 255 * 255 * 255 to 104, not to a bound.
    k.out.mult = 13630000, k.out.shift = 41, k.out.zero = 3;
    tensor in(1, 255, 255, 1);
    for (auto& v : in.v) v = sign > 0 ? 127 : -128;
    check_average(s, k, in);
    if (HasFatalFailure()) return;
  }
  pool global;
  global.kh = 31, global.kw = 29;
  check_average(s, average_of(global, s.rng), random_tensor(s.rng, 2, 31, 29, 200));
}

addition random_addition(std::mt19937& rng) {
  addition k;
  k.shift = pick(rng, 0, 22);
  k.mult_a = static_cast<std::uint16_t>(rng() >> (16 + (22 - k.shift) * 16 / 23));
  k.mult_b = static_cast<std::uint16_t>(rng() >> (16 + (22 - k.shift) * 16 / 23));
  k.offset = pick(rng, -(1 << k.shift) * 20, (1 << k.shift) * 20);
  k.negate = rng() % 2;
  k.lo = rng() % 2 ? std::int8_t{-30} : std::int8_t{-128};
  return k;
}

// Two tensors, the second of one pixel or of the shape of the first, and now and then one for all
// images; the result in a place of its own, or over the first, or, when all strides agree, over the
// second.
template <class Sim, class Op>
void check_pair(Sim& s, const Op& k, unsigned variant) {
  const int n = pick(s.rng, 1, 4), h = pick(s.rng, 1, 9), w = pick(s.rng, 1, 9);
  const int c = pick(s.rng, 0, 2) ? pick(s.rng, 1, 140) : pick(s.rng, 1, 32);
  const bool one = variant % 2, shared = variant % 3 == 1;
  const tensor a = random_tensor(s.rng, n, h, w, c);
  tensor b = one ? random_tensor(s.rng, n, 1, 1, c) : random_tensor(s.rng, n, h, w, c);
  if (shared) {
    for (std::size_t i = b.v.size() / n; i < b.v.size(); ++i) b.v[i] = b.v[i - b.v.size() / n];
  }
  const layout la = layout::of(h, w, c, 0, 1);
  const layout lb = layout::of(b.h, b.w, c, la.stride * n, one ? 2 : 1);
  layout lo = layout::of(h, w, c, lb.base + lb.stride * n, 0);
  if (variant % 5 == 0) lo = la;
  if (variant % 5 == 2 && !one && !shared) lo = lb;
  put_tensor(s, la, a);
  put_tensor(s, lb, b);
  spec::descriptor d = describe(k, la, lb, lo);
  if (shared) {
    d.in2_base += pick(s.rng, 0, n - 1) * lb.stride;
    d.in2_stride = 0;
  }
  ASSERT_FALSE(s.run(d, n).bad_desc);
  expect_tensor(s, lo, golden(k, a, b), one ? "broadcast" : "elementwise");
  if (lo.base != la.base) expect_tensor(s, la, a, "first operand");
  if (lo.base != lb.base) expect_tensor(s, lb, b, "second operand");
}

template <class Sim>
void random_additions(unsigned first, unsigned count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    check_pair(s, random_addition(s.rng), seed);
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(Engine16, Add) { random_additions<sim16>(300, 60); }
TEST(Engine32, Add) { random_additions<sim32>(360, 10); }
TEST(Engine64, Add) { random_additions<sim64>(370, 10); }

template <class Sim>
void random_products(unsigned first, unsigned count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    product k;
    k.zero_a = static_cast<std::int8_t>(s.rng()), k.zero_b = static_cast<std::int8_t>(s.rng());
    k.out = random_post(s.rng, 9000);
    check_pair(s, k, seed);
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(Engine16, Mul) { random_products<sim16>(800, 60); }
TEST(Engine32, Mul) { random_products<sim32>(860, 10); }
TEST(Engine64, Mul) { random_products<sim64>(870, 10); }

template <class Sim>
void random_tables(unsigned first, unsigned count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    s.page_idle = s.in_idle = s.out_idle = seed % 3 * 30;
    const tensor in = random_tensor(s.rng, pick(s.rng, 1, 4), pick(s.rng, 1, 9), pick(s.rng, 1, 9),
                                    pick(s.rng, 1, 140));
    const layout li = layout::of(in.h, in.w, in.c, 3, 1);
    const layout lo = seed % 2 ? li : layout::of(in.h, in.w, in.c, li.base + li.stride * in.n, 0);
    put_tensor(s, li, in);
    tensor want = in;
    for (int i = 0; i < 2; ++i) {  // a second table must leave nothing of the first
      lookup k;
      for (auto& e : k.entries) e = static_cast<std::uint8_t>(s.rng());
      s.load_pages({page_of(k, s.rng)});
      want = golden(k, i == 0 || seed % 2 == 0 ? in : want);
      ASSERT_FALSE(s.run(describe(k, li, lo), in.n).bad_desc);
      EXPECT_EQ(s.beats_left(), 0u);
      expect_tensor(s, lo, want, "table");
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}
TEST(Engine16, Table) { random_tables<sim16>(900, 40); }
TEST(Engine32, Table) { random_tables<sim32>(940, 5); }
TEST(Engine64, Table) { random_tables<sim64>(950, 5); }
// Runs one depthwise layer whose input stands at in; checks the MAC count and that all pages went.
template <class Sim>
run_result run_depthwise(Sim& s, const depthwise& k, const layout& in, const layout& out,
                         int batch) {
  s.load_pages(pages_of(k, s.rng));
  const run_result r = s.run(describe(k, in, out), batch);
  EXPECT_FALSE(r.bad_desc);
  EXPECT_EQ(s.beats_left(), 0u);
  EXPECT_EQ(r.busy, 0u);
  EXPECT_EQ(r.macs, std::uint64_t{1} * batch * k.out_h * k.out_w * k.kh * k.kw * k.c);
  return r;
}

template <class Sim>
void some_depthwise(unsigned first, int count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    stalls(s, seed % 3 == 0 ? 30 : 0);
    const auto [k, in] = random_depthwise(s.rng);
    const layout li = layout::of(in.h, in.w, in.c, pick(s.rng, 0, 3), pick(s.rng, 0, 2));
    const layout lo = layout::of(k.out_h, k.out_w, k.c, li.base + li.stride * in.n, seed % 3);
    put_tensor(s, li, in);
    run_depthwise(s, k, li, lo, in.n);
    expect_tensor(s, lo, golden(k, in), "depthwise");
    expect_tensor(s, li, in, "its input");
    if (testing::Test::HasFailure()) return;
  }
}
TEST(Engine16, Depthwise) { some_depthwise<sim16>(700, 20); }
TEST(Engine32, Depthwise) { some_depthwise<sim32>(720, 20); }
TEST(Engine64, Depthwise) { some_depthwise<sim64>(740, 20); }

// A MobileNet block: expand, depthwise, project, add; then depthwise again with a stride.
template <class Sim>
void inverted_residual(unsigned seed) {
  Sim s(seed);
  s.page_idle = 20;
  const int n = 2;
  const layout l0 = layout::of(10, 9, 24, 0);
  const layout l1 = layout::of(10, 9, 144, l0.base + l0.stride * n);
  const layout l2 = layout::of(10, 9, 144, l1.base + l1.stride * n);
  const layout l3 = layout::of(10, 9, 24, l2.base + l2.stride * n);
  const layout l4 = layout::of(10, 9, 24, l3.base + l3.stride * n);
  const layout l5 = layout::of(5, 5, 24, l4.base + l4.stride * n);
  const auto pointwise = [&](int c, int cout) {
    conv k;
    k.out_h = 10, k.out_w = 9, k.c = c, k.cout = cout;
    randomise(k, s.rng);
    return k;
  };
  const conv expand = pointwise(24, 144), project = pointwise(144, 24);
  depthwise d;
  d.kh = d.kw = 3, d.pt = d.pl = 1, d.out_h = 10, d.out_w = 9, d.c = 144;
  randomise(d, s.rng);
  depthwise down = d;
  down.c = 24, down.sy = down.sx = 2, down.out_h = down.out_w = 5;
  randomise(down, s.rng);
  addition a;
  a.mult_a = 20000, a.mult_b = 13000, a.shift = 15, a.offset = 12345;

  const tensor x0 = random_tensor(s.rng, n, 10, 9, 24);
  put_tensor(s, l0, x0);
  run_conv(s, expand, l0, l1, n);
  run_depthwise(s, d, l1, l2, n);
  run_conv(s, project, l2, l3, n);
  s.run(describe(a, l3, l0, l4), n);
  run_depthwise(s, down, l4, l5, n);
  const tensor x4 = golden(a, golden(project, golden(d, golden(expand, x0))), x0);
  expect_tensor(s, l4, x4, "sum");
  expect_tensor(s, l5, golden(down, x4), "last layer");
}
TEST(Engine16, InvertedResidual) { inverted_residual<sim16>(760); }
TEST(Engine32, InvertedResidual) { inverted_residual<sim32>(761); }
TEST(Engine64, InvertedResidual) { inverted_residual<sim64>(762); }

// A small residual network, layer after layer in one scratchpad.
template <class Sim>
void residual_network(unsigned seed) {
  Sim s(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  s.page_idle = 20;
  const int n = 3;
  std::uint32_t next = 0;
  const auto place = [&](int h, int w, int c) {
    const layout l = layout::of(h, w, c, next);
    next += l.stride * n;
    return l;
  };
  const auto layer = [&](int c, int cout, int kernel, int out_h, int out_w) {
    conv k;
    k.kh = k.kw = kernel, k.pt = k.pl = kernel / 2, k.out_h = out_h, k.out_w = out_w;
    k.c = c, k.cout = cout;
    randomise(k, s.rng);
    return k;
  };
  const tensor x0 = random_tensor(s.rng, n, 14, 14, 1);
  const layout l0 = place(14, 14, 1);
  put_tensor(s, l0, x0);

  const conv c1 = layer(1, 16, 5, 14, 14);
  const layout l1 = place(14, 14, 16);
  run_conv(s, c1, l0, l1, n);
  const tensor x1 = golden(c1, x0);

  pool p;
  p.kh = p.kw = 2, p.sy = p.sx = 2, p.out_h = p.out_w = 7;
  const layout l2 = place(7, 7, 16);
  s.run(describe(p, l1, l2), n);
  const tensor x2 = golden(p, x1);

  const conv c3 = layer(16, 16, 3, 7, 7);
  const layout l3 = place(7, 7, 16);
  run_conv(s, c3, l2, l3, n);
  const tensor x3 = golden(c3, x2);

  addition a;
  a.mult_a = 20000, a.mult_b = 13000, a.shift = 15, a.offset = 12345;
  const layout l4 = place(7, 7, 16);
  s.run(describe(a, l3, l2, l4), n);
  const tensor x4 = golden(a, x3, x2);

  conv fc = layer(16, 40, 7, 1, 1);
  fc.pt = fc.pl = 0;
  const layout l5 = place(1, 1, 40);
  run_conv(s, fc, l4, l5, n);
  expect_tensor(s, l5, golden(fc, x4), "last layer");
  expect_tensor(s, l1, x1, "first layer");
  expect_tensor(s, l2, x2, "pool");
}
TEST(Engine16, ResidualNetwork) { residual_network<sim16>(400); }
TEST(Engine32, ResidualNetwork) { residual_network<sim32>(401); }
TEST(Engine64, ResidualNetwork) { residual_network<sim64>(402); }

template <class Sim>
void some_convolutions(unsigned first, int count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    s.page_idle = seed % 3 == 0 ? 30 : 0;
    const auto [k, in] = random_conv(s.rng, 3e6);
    check_conv(s, k, in);
    if (testing::Test::HasFatalFailure()) return;
  }
}
TEST(Engine32, RandomConvolutions) { some_convolutions<sim32>(500, 25); }
TEST(Engine64, RandomConvolutions) { some_convolutions<sim64>(600, 25); }

// ---- Outputs that are parts of a tensor ----

// The layer's output as channels of a wider tensor (pitch: its channel blocks; 0: not wider) and,
// with slices (0: none), some of its rows, up to the last word of the scratchpad. What lies between
// stays.
template <class Sim, class Op>
void check_part(Sim& s, const Op& k, const tensor& in, std::uint32_t pitch, int slices) {
  const tensor want = golden(k, in);
  const layout li = layout::of(in.h, in.w, in.c, 0), lo = layout::of(want.h, want.w, want.c, 0);
  spec::descriptor d = describe(k, li, lo);
  d.out_pitch = pitch;
  d.slices = static_cast<std::uint32_t>(slices);
  const std::size_t pixels = static_cast<std::size_t>(want.h) * want.w;
  const std::size_t step = pitch != 0 ? std::size_t{pitch} * 64 : lo.pitch();  // bytes
  const std::size_t own = (pixels * step + 63) / 64;
  d.out_stride = static_cast<std::uint32_t>(own * (slices > 0 ? pick(s.rng, 1, 3) : 1));
  const std::size_t words = (want.n - 1) * d.out_stride + own - (step - lo.pitch()) / 64;
  ASSERT_LE(in.n * li.stride + words + 2, Sim::spad_words);
  const int batch = in.n / std::max(slices, 1);
  put_tensor(s, li, in);

  d.out_base = static_cast<std::uint32_t>(Sim::spad_words - words + 1);
  EXPECT_TRUE(s.run(d, batch, 2000).bad_desc) << "a word beyond the scratchpad";
  --d.out_base;
  const std::uint32_t first = d.out_base - 2;
  std::vector<word> expected(words + 2);
  for (auto& w : expected)
    for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
  ASSERT_FALSE(s.put(first, words + 2, 1, expected).bad_desc);

  if constexpr (std::is_same_v<Op, conv>) {
    s.load_pages(pages_of(k, li, static_cast<int>(want.n * pixels), Sim::array_n, s.rng));
  } else if constexpr (std::is_same_v<Op, depthwise>) {
    s.load_pages(pages_of(k, s.rng));
  }
  ASSERT_FALSE(s.run(d, batch).bad_desc);
  EXPECT_EQ(s.beats_left(), 0u);
  const std::vector<word> got = s.get(first, words + 2, 1);
  for (std::size_t i = 0; i < want.n * pixels; ++i) {
    const std::size_t at = (2 + i / pixels * d.out_stride) * 64 + i % pixels * step;
    for (std::size_t ch = 0; ch < lo.pitch(); ++ch) {
      // Channels that do not exist may hold anything.
      expected[(at + ch) / 64][(at + ch) % 64] =
          ch < std::size_t(want.c) ? static_cast<std::uint8_t>(want.v[i * want.c + ch])
                                   : got[(at + ch) / 64][(at + ch) % 64];
    }
  }
  for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(got[i], expected[i]) << "word " << i;
}

// Inputs small enough for the parts of a tensor of twice the channels and three times the rows.
bool small(const tensor& in) { return in.n * (in.h + 4) * (in.w + 4) <= 700; }

template <class Sim>
void random_parts(unsigned first, unsigned count) {
  for (unsigned seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Sim s(seed);
    stalls(s, seed % 3 == 0 ? 30 : 0);
    const auto wider = [&](int channels) {
      return static_cast<std::uint32_t>((channels + 63) / 64 + pick(s.rng, 0, 3));
    };
    auto [p, pooled] = random_pool(s.rng);
    while (pooled.c <= 32 || !small(pooled)) std::tie(p, pooled) = random_pool(s.rng);
    check_part(s, p, pooled, wider(pooled.c), 0);
    check_part(s, average_of(p, s.rng), pooled, wider(pooled.c), 0);
    auto [w, planes] = random_depthwise(s.rng);
    while (w.c <= 32 || !small(planes)) std::tie(w, planes) = random_depthwise(s.rng);
    check_part(s, w, planes, wider(w.c), 0);
    const int slices = pick(s.rng, 1, 3), batch = pick(s.rng, 1, 2);
    auto [k, in] = random_conv(s.rng, 3e5);
    in = random_tensor(s.rng, batch * slices, in.h, in.w, in.c);
    while (!small(in)) {
      std::tie(k, in) = random_conv(s.rng, 3e5);
      in = random_tensor(s.rng, batch * slices, in.h, in.w, in.c);
    }
    check_part(s, k, in, k.cout > 32 && seed % 4 != 0 ? wider(k.cout) : 0, slices);
    if (testing::Test::HasFailure()) return;
  }
}
TEST(Engine16, PartsOfATensor) { random_parts<sim16>(1700, 30); }
TEST(Engine32, PartsOfATensor) { random_parts<sim32>(1740, 10); }
TEST(Engine64, PartsOfATensor) { random_parts<sim64>(1760, 10); }

// The widest tensor, and more rows in slices than a block of the array's has.
TEST(Engine16, LargeParts) {
  sim16 s(1780);
  check_part(s, dense(20, 70, s.rng), random_tensor(s.rng, 4, 1, 1, 20), 64, 2);
  conv k = dense(40, 90, s.rng);
  k.out_h = 3, k.out_w = 9;
  check_part(s, k, random_tensor(s.rng, 24, 3, 9, 40), 5, 12);
}

// ---- Negative ----

TEST(Engine16, IllegalDescriptorsTouchNothing) {
  sim16 s(7);
  constexpr std::uint32_t words = sim16::spad_words;
  std::vector<word> image(words);
  for (auto& w : image) {
    for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
  }
  ASSERT_FALSE(s.put(0, words, 1, image).bad_input);

  const int batch = 3;
  const layout in = layout::of(6, 5, 70, 100), out = layout::of(6, 5, 300, 4000);
  conv k;
  k.kh = k.kw = 3, k.pt = k.pl = 1, k.out_h = 6, k.out_w = 5, k.c = 70, k.cout = 300;
  randomise(k, s.rng);
  const layout small = layout::of(6, 5, 3, 100);
  conv ks = k;
  ks.c = 3;
  pool p;
  p.kh = p.kw = 2, p.pt = 1, p.out_h = 6, p.out_w = 4;
  const layout pooled = layout::of(6, 4, 70, 4000);
  depthwise w;
  w.kh = w.kw = 3, w.pt = w.pl = 1, w.out_h = 6, w.out_w = 5, w.c = 70;
  randomise(w, s.rng);
  addition a;
  const layout second = layout::of(6, 5, 70, 2000), sum = layout::of(6, 5, 70, 4000);
  const spec::descriptor mm = describe(k, in, out), ms = describe(ks, small, out);
  const spec::descriptor mp = describe(p, in, pooled), ad = describe(a, in, second, sum);
  average v;
  static_cast<pool&>(v) = p;
  const layout pixel = layout::of(1, 1, 70, 3000);
  const spec::descriptor av = describe(v, in, pooled), mu = describe(product{}, in, second, sum);
  const spec::descriptor ab = describe(a, in, pixel, sum), mb = describe(product{}, in, pixel, sum);
  const spec::descriptor ta = describe(lookup{}, in, sum);
  const spec::descriptor dw = describe(w, in, sum);
  spec::descriptor inp, outp;
  inp.op = 1, inp.out_base = 10, inp.out_stride = 20;
  outp.op = 5, outp.in_base = 10, outp.in_stride = 20;

  using desc = spec::descriptor;
  using edit = std::function<void(desc&)>;
  struct bad {
    const char* what;
    desc d;
    edit e;
  };
  std::vector<bad> cases;
  cases.push_back({"unknown operation", mm, [](desc& d) { d.op = 0; }});
  cases.push_back({"spilled, and no Load", mm, [](desc& d) { d.spilled = 1; }});
  for (const desc* base : {&mm, &mp, &av, &dw}) {
    cases.push_back({"in_h 0", *base, [](desc& d) { d.in_h = 0; }});
    cases.push_back({"in_w 0", *base, [](desc& d) { d.in_w = 0; }});
    cases.push_back({"in_cb 0", *base, [](desc& d) { d.in_cb = 0; }});
    cases.push_back({"in_cb 65", *base, [](desc& d) { d.in_cb = 65; }});
    cases.push_back({"in_cp_log2 7", *base, [](desc& d) { d.in_cp_log2 = 7; }});
    cases.push_back({"in_cp_log2 5 with two blocks", *base, [](desc& d) { d.in_cp_log2 = 5; }});
    cases.push_back({"in_c_last 0", *base, [](desc& d) { d.in_c_last = 0; }});
    cases.push_back({"in_c_last 65", *base, [](desc& d) { d.in_c_last = 65; }});
    cases.push_back({"kernel_h 0", *base, [](desc& d) { d.kernel_h = 0; }});
    cases.push_back({"kernel_w 0", *base, [](desc& d) { d.kernel_w = 0; }});
    cases.push_back({"stride_y 0", *base, [](desc& d) { d.stride_y = 0; }});
    cases.push_back({"stride_x 0", *base, [](desc& d) { d.stride_x = 0; }});
    cases.push_back({"in_stride too small", *base, [](desc& d) { --d.in_stride; }});
    cases.push_back({"in_h beyond the stride", *base, [](desc& d) { ++d.in_h; }});
  }
  for (const desc* base : {&mm, &mp, &ad, &av, &mu, &ab, &mb, &ta, &dw}) {
    cases.push_back({"out_h 0", *base, [](desc& d) { d.out_h = 0; }});
    cases.push_back({"out_w 0", *base, [](desc& d) { d.out_w = 0; }});
    cases.push_back({"out_w huge", *base, [](desc& d) { d.out_w = 65535; }});
    cases.push_back({"out_cb 0", *base, [](desc& d) { d.out_cb = 0; }});
    cases.push_back({"out_cb 65", *base, [](desc& d) { d.out_cb = 65; }});
    cases.push_back({"out_cp_log2 7", *base, [](desc& d) { d.out_cp_log2 = 7; }});
    cases.push_back({"out_c_last 0", *base, [](desc& d) { d.out_c_last = 0; }});
    cases.push_back({"out_c_last 65", *base, [](desc& d) { d.out_c_last = 65; }});
    cases.push_back({"out_stride too small", *base, [](desc& d) { --d.out_stride; }});
    cases.push_back({"in_base behind the end", *base, [](desc& d) { d.in_base = words; }});
    cases.push_back(
        {"in_base near the end", *base, [](desc& d) { d.in_base = words - 3 * d.in_stride + 1; }});
    cases.push_back({"in_base wraps", *base, [](desc& d) { d.in_base = 0xffffffffu; }});
    cases.push_back({"in_stride wraps", *base, [](desc& d) { d.in_stride = 0x80000000u; }});
    cases.push_back({"out_base near the end", *base,
                     [](desc& d) { d.out_base = words - 3 * d.out_stride + 1; }});
    cases.push_back({"out_base wraps", *base, [](desc& d) { d.out_base = 0xfffffff0u; }});
    cases.push_back({"out_stride wraps", *base, [](desc& d) { d.out_stride = 0x55555556u; }});
    cases.push_back({"in_stride 0", *base, [](desc& d) { d.in_stride = 0; }});
    cases.push_back({"out_stride 0", *base, [](desc& d) { d.out_stride = 0; }});
  }
  const auto widen = [](desc& d) {
    d.out_pitch = d.out_cb + 2;
    d.out_stride = d.out_h * d.out_w * d.out_pitch;
  };
  for (const desc* base : {&mm, &mp, &av, &dw}) {
    cases.push_back(
        {"a pixel beyond the pitch", *base, [](desc& d) { d.out_pitch = d.out_cb - 1; }});
    cases.push_back({"out_pitch 65", *base,
                     [](desc& d) { d.out_pitch = 65, d.out_stride = d.out_h * d.out_w * 65; }});
    cases.push_back(
        {"wider tensor beyond the stride", *base, [=](desc& d) { widen(d), --d.out_stride; }});
    cases.push_back({"wider tensor near the end", *base,
                     [=](desc& d) { widen(d), d.out_base = words - 3 * d.out_stride + 3; }});
  }
  for (const desc* base : {&ad, &mu, &ab, &mb, &ta}) {
    cases.push_back({"out_pitch of what has none", *base, [](desc& d) { d.out_pitch = d.out_cb; }});
  }
  cases.push_back({"out_pitch of narrow blocks", mm, [](desc& d) {
                     d.out_cb = d.n_tiles = d.param_pages = d.out_pitch = 1;
                     d.out_cp_log2 = 5, d.out_c_last = 32;
                   }});
  cases.push_back({"out_pitch of an input", inp, [](desc& d) { d.out_pitch = 1; }});
  for (const desc& base : {mp, av, dw, ad, mu, ab, mb, ta, inp, outp}) {
    cases.push_back({"slices of what has none", base, [](desc& d) { d.slices = 2; }});
  }
  cases.push_back({"slices of the input beyond the end", mm,
                   [](desc& d) { d.slices = 2, d.in_stride = (words - d.in_base) / 6 + 1; }});
  cases.push_back({"slices near the end", mm,
                   [](desc& d) { d.slices = 2, d.out_base = words - 6 * d.out_stride + 1; }});
  cases.push_back({"c_last beyond a narrow block", ms, [](desc& d) { d.in_c_last = 5; }});
  for (const desc* base : {&mm, &ms}) {
    cases.push_back({"taps", *base, [](desc& d) { ++d.taps; }});
    cases.push_back({"taps 0", *base, [](desc& d) { d.taps = 0; }});
  }
  for (const desc* base : {&mm, &ms, &dw}) {
    cases.push_back({"k_tiles", *base, [](desc& d) { ++d.k_tiles; }});
    cases.push_back({"k_tiles 0", *base, [](desc& d) { d.k_tiles = 0; }});
    cases.push_back({"n_tiles", *base, [](desc& d) { ++d.n_tiles; }});
    cases.push_back({"n_tiles 0", *base, [](desc& d) { d.n_tiles = 0; }});
    cases.push_back({"param_pages", *base, [](desc& d) { ++d.param_pages; }});
    cases.push_back({"param_pages 0", *base, [](desc& d) { d.param_pages = 0; }});
  }
  for (const desc* base : {&mm, &ad, &av, &mu, &dw}) {
    cases.push_back({"clamp", *base, [](desc& d) { d.clamp_lo = 5, d.clamp_hi = 4; }});
  }
  for (const desc* base : {&mp, &av}) {
    cases.push_back({"pool changes channels", *base, [](desc& d) { d.out_c_last = 7; }});
    cases.push_back(
        {"pool changes blocks", *base, [](desc& d) { d.out_cb = 1, d.out_c_last = 6; }});
    cases.push_back({"pool window above the input", *base, [](desc& d) { d.pad_top = 2; }});
    cases.push_back({"pool window left of the input", *base, [](desc& d) { d.pad_left = 2; }});
    cases.push_back({"pool window below the input", *base, [](desc& d) { d.stride_y = 2; }});
    cases.push_back({"pool window right of the input", *base, [](desc& d) { d.stride_x = 2; }});
  }
  for (const desc* base : {&mm, &mp, &av, &dw, &ta}) {
    cases.push_back({"repeats behind a window", *base, [](desc& d) { d.repeat_x = 2; }});
  }
  const auto pixels = [](desc& d) {
    d.kernel_h = d.kernel_w = d.taps = 1, d.pad_top = d.pad_left = 0, d.repeat_y = 2;
    d.out_h = 2 * d.in_h, d.out_w = d.in_w, d.taps = d.in_cb;
  };
  cases.push_back({"more rows than repeats", mp, [=](desc& d) { pixels(d), d.out_h = 13; }});
  cases.push_back({"more columns than repeats", mp, [=](desc& d) { pixels(d), d.out_w = 6; }});
  for (const desc* base : {&av, &mu}) {
    cases.push_back({"vec_mult too small", *base, [](desc& d) { d.vec_mult = (1u << 23) - 1; }});
    cases.push_back({"vec_mult too large", *base, [](desc& d) { d.vec_mult = 1u << 24; }});
    cases.push_back({"vec_mult's top bit", *base, [](desc& d) { d.vec_mult |= 1u << 31; }});
    cases.push_back({"vec_shift 64", *base, [](desc& d) { d.vec_shift = 64; }});
  }
  for (const desc* base : {&ad, &mu, &ab, &mb}) {
    cases.push_back(
        {"in2_base", *base, [](desc& d) { d.in2_base = words - 3 * d.in2_stride + 1; }});
    cases.push_back({"in2_base wraps", *base, [](desc& d) { d.in2_base = 0xffffffffu; }});
    cases.push_back({"in2_stride too small", *base, [](desc& d) { --d.in2_stride; }});
    cases.push_back({"one tensor for all, behind the end", *base,
                     [](desc& d) { d.in2_stride = 0, d.in2_base = words; }});
  }
  for (const desc* base : {&ad, &mu}) {
    cases.push_back({"one tensor for all, beyond the end", *base,
                     [](desc& d) { d.in2_stride = 0, d.in2_base = words - 1; }});
  }
  for (const desc* base : {&ab, &mb}) {
    cases.push_back({"one pixel is no image", *base, [](desc& d) { d.in2_broadcast = 0; }});
  }
  cases.push_back({"depthwise of 65 taps", dw, [](desc& d) { d.kernel_h = 13, d.kernel_w = 5; }});
  cases.push_back({"depthwise changes channels", dw, [](desc& d) { d.out_c_last = 7; }});
  cases.push_back({"depthwise window above the input", dw, [](desc& d) { d.pad_top = 3; }});
  cases.push_back({"depthwise window below the input", dw, [](desc& d) { d.stride_y = 2; }});
  cases.push_back({"add_shift 23", ad, [](desc& d) { d.add_shift = 23; }});
  cases.push_back({"table without its page", ta, [](desc& d) { d.param_pages = 0; }});
  cases.push_back({"table of two pages", ta, [](desc& d) { d.param_pages = 2; }});
  cases.push_back({"table with n_tiles", ta, [](desc& d) { d.n_tiles = 1; }});
  cases.push_back({"table with k_tiles", ta, [](desc& d) { d.k_tiles = 1; }});
  cases.push_back({"input base", inp, [](desc& d) { d.out_base = words - 59; }});
  cases.push_back({"input stride", inp, [](desc& d) { d.out_stride = 0; }});
  cases.push_back({"output base", outp, [](desc& d) { d.in_base = words - 59; }});
  cases.push_back({"output stride", outp, [](desc& d) { d.in_stride = 0; }});
  desc load = inp, again = inp, spill = outp;
  load.op = again.op = static_cast<std::uint32_t>(spec::op::load);
  load.param_pages = (load.out_stride + 63) / 64;
  again.spilled = 1;
  spill.op = static_cast<std::uint32_t>(spec::op::spill);
  for (const desc* base : {&load, &again}) {
    cases.push_back({"load base", *base, [](desc& d) { d.out_base = words - d.out_stride + 1; }});
    cases.push_back({"load of nothing", *base, [](desc& d) { d.out_stride = 0; }});
    cases.push_back({"load with tiles", *base, [](desc& d) { d.n_tiles = 1; }});
    cases.push_back({"load with tiles along K", *base, [](desc& d) { d.k_tiles = 1; }});
    cases.push_back({"load of a page too many", *base, [](desc& d) { ++d.param_pages; }});
  }
  cases.push_back({"load without pages", load, [](desc& d) { d.param_pages = 0; }});
  cases.push_back({"a batch beyond the end", again,
                   [](desc& d) { d.out_base = words - 3 * d.out_stride + 1; }});
  cases.push_back({"spill base", spill, [](desc& d) { d.in_base = words - 59; }});
  cases.push_back({"spill of nothing", spill, [](desc& d) { d.in_stride = 0; }});

  for (const bad& c : cases) {
    SCOPED_TRACE(c.what);
    desc d = c.d;
    c.e(d);
    s.load_pages(std::vector<page>(2));
    s.input.assign(100, {word{}, false});
    s.output.clear();
    const run_result r = s.run(d, batch, 2000);
    EXPECT_TRUE(r.bad_desc);
    EXPECT_FALSE(r.bad_input);
    EXPECT_EQ(s.beats_left(), 128u);
    EXPECT_EQ(s.input.size(), 100u);
    EXPECT_TRUE(s.output.empty());
    s.drop_pages();
    s.input.clear();
  }
  for (const desc& d : {mm, mp, ad, av, mu, ab, mb, ta, dw, inp, outp}) {
    EXPECT_TRUE(s.run(d, 0, 2000).bad_desc) << "batch 0";
  }
  EXPECT_TRUE(s.run(mm, 65535, 2000).bad_desc) << "batch beyond the scratchpad";
  desc thin = ms;
  thin.in_h = thin.in_w = thin.out_h = thin.out_w = 1, thin.in_stride = thin.out_stride = 5;
  thin.slices = 128;
  EXPECT_TRUE(s.run(thin, 513, 2000).bad_desc) << "2^16 slices and more";
  EXPECT_EQ(s.get(0, words, 1), image);

  // The unchanged descriptors are legal.
  s.load_pages(pages_of(k, in, batch * 30, 16, s.rng));
  EXPECT_FALSE(s.run(mm, batch).bad_desc);
  s.load_pages(pages_of(ks, small, batch * 30, 16, s.rng));
  EXPECT_FALSE(s.run(ms, batch).bad_desc);
  EXPECT_FALSE(s.run(mp, batch).bad_desc);
  for (const desc& d : {ad, av, mu, ab, mb}) EXPECT_FALSE(s.run(d, batch).bad_desc);
  s.load_pages(std::vector<page>(1));
  EXPECT_FALSE(s.run(ta, batch).bad_desc);
  s.load_pages(pages_of(w, s.rng));
  EXPECT_FALSE(s.run(dw, batch).bad_desc);
  desc end;
  end.op = 15;
  EXPECT_FALSE(s.run(end, 1).bad_desc);
}

// Pages of random words; what follows the words must not matter.
std::vector<page> pages_of_words(const std::vector<word>& words, std::mt19937& rng) {
  std::vector<page> pages((words.size() + 63) / 64);
  for (page& p : pages)
    for (auto& b : p) b = static_cast<std::uint8_t>(rng());
  for (std::size_t i = 0; i < words.size(); ++i)
    std::copy(words[i].begin(), words[i].end(), pages[i / 64].begin() + i % 64 * 64);
  return pages;
}

// A Load takes one image's words of the package, or a batch of what a Spill gave away, and whole
// pages in either case.
TEST(Engine16, LoadAndSpill) {
  sim16 s(15);
  for (int i = 0; i < 60; ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    stalls(s, i % 3 * 30);
    const auto stride = static_cast<std::uint32_t>(pick(s.rng, 1, i % 2 ? 200 : 64));
    const int batch = pick(s.rng, 1, 4);
    std::vector<word> all(stride * batch + 2), kept(stride * batch);
    for (auto& w : all)
      for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
    s.put(7, all.size(), 1, all);
    std::copy_n(all.begin() + 1, kept.size(), kept.begin());

    spec::descriptor d;
    d.op = static_cast<std::uint32_t>(spec::op::spill);
    d.in_base = 8, d.in_stride = stride;
    s.output.clear(), s.output_last.clear();
    ASSERT_FALSE(s.run(d, batch).bad_desc);
    ASSERT_EQ(s.output, kept);
    for (std::size_t k = 0; k < kept.size(); ++k) ASSERT_EQ(s.output_last[k], k + 1 == kept.size());

    const bool spilled = i % 4 < 2;
    for (auto& w : kept)
      for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
    if (!spilled) kept.resize(stride);
    d = {};
    d.op = static_cast<std::uint32_t>(spec::op::load);
    d.spilled = spilled;
    d.param_pages = spilled ? 0 : (stride + 63) / 64;
    d.out_base = 8, d.out_stride = stride;
    s.load_pages(pages_of_words(kept, s.rng));
    s.input.assign(1, {word{}, true});  // nothing of the input stream is touched
    const run_result r = s.run(d, batch);
    ASSERT_FALSE(r.bad_desc || r.bad_input);
    ASSERT_EQ(s.beats_left(), 0u);
    ASSERT_EQ(s.input.size(), 1u);
    s.input.clear();
    std::copy(kept.begin(), kept.end(), all.begin() + 1);
    ASSERT_EQ(s.get(7, all.size(), 1), all);
  }
}

// An abort in the middle of either; then all is as ever.
TEST(Engine16, AbortOfLoadAndSpill) {
  sim16 s(16);
  std::vector<word> words(300);
  for (auto& w : words)
    for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
  spec::descriptor spill, load;
  spill.op = static_cast<std::uint32_t>(spec::op::spill);
  spill.in_stride = 300;
  load.op = static_cast<std::uint32_t>(spec::op::load);
  load.spilled = 1;
  load.out_stride = 300;
  for (int i = 0; i < 30; ++i) {
    stalls(s, i % 2 * 40);
    s.put(0, 300, 1, words);
    s.abort_at = pick(s.rng, 1, 400);
    if (i % 3) s.load_pages(pages_of_words(words, s.rng));
    EXPECT_FALSE(s.run(i % 3 ? load : spill, 1).bad_desc);
    s.abort_at = 0;
    s.drop_pages();
    s.load_pages(pages_of_words(words, s.rng));
    s.run(load, 1);
    s.output.clear(), s.output_last.clear();
    s.run(spill, 1);
    ASSERT_EQ(s.output, words);
  }
}

TEST(Engine16, BrokenInputStream) {
  sim16 s(8);
  std::vector<word> words(30);
  for (auto& w : words) {
    for (auto& b : w) b = static_cast<std::uint8_t>(s.rng());
  }
  spec::descriptor d;
  d.op = 1, d.out_base = 5, d.out_stride = 10;
  // Short: the last word comes one too early.
  for (int i = 0; i < 29; ++i) s.input.emplace_back(words[i], i == 28);
  EXPECT_TRUE(s.run(d, 3).bad_input);
  EXPECT_TRUE(s.input.empty());
  // Long: the expected last word is not the last.
  for (int i = 0; i < 30; ++i) s.input.emplace_back(words[i], false);
  s.input.emplace_back(word{}, true);
  EXPECT_TRUE(s.run(d, 3).bad_input);
  EXPECT_EQ(s.input.size(), 1u);
  s.input.clear();
  // Exact.
  s.in_idle = 50;
  s.out_idle = 50;
  EXPECT_FALSE(s.put(5, 10, 3, words).bad_input);
  EXPECT_EQ(s.get(5, 10, 3), words);
}

TEST(Engine16, AbortThenCleanRun) {
  sim16 s(9);
  conv k;
  k.kh = k.kw = 3, k.pt = k.pl = 1, k.out_h = 9, k.out_w = 8, k.c = 20, k.cout = 90;
  randomise(k, s.rng);
  const tensor in = random_tensor(s.rng, 2, 9, 8, 20);
  const layout li = layout::of(9, 8, 20, 0), lo = layout::of(9, 8, 90, 1000);
  const tensor want = golden(k, in);
  pool p;
  p.kh = p.kw = 3, p.out_h = 7, p.out_w = 6;
  const layout lp = layout::of(7, 6, 20, 3000);
  addition a;
  const layout la = layout::of(9, 8, 20, 4000);
  depthwise w;
  w.kh = w.kw = 3, w.pt = w.pl = 1, w.out_h = 9, w.out_w = 8, w.c = 20;
  randomise(w, s.rng);
  for (int i = 0; i < 50; ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    s.page_idle = i % 2 ? 30 : 0;
    put_tensor(s, li, in);
    s.abort_at = pick(s.rng, 1, i < 20 ? 300 : 9000);
    run_result r;
    if (i % 5 == 4) {
      s.load_pages(pages_of(w, s.rng));
      r = s.run(describe(w, li, la), 2);
      if (r.aborted) EXPECT_LE(r.cycles, s.abort_at + 3);
    } else if (i % 4 == 3) {
      r = s.run(describe(p, li, lp), 2);
    } else if (i % 4 == 2) {
      r = s.run(describe(a, li, li, la), 2);
    } else {
      s.load_pages(pages_of(k, li, 144, 16, s.rng));
      r = s.run(describe(k, li, lo), 2);
      if (r.aborted) EXPECT_LE(r.cycles, s.abort_at + 3);
    }
    EXPECT_FALSE(r.bad_desc || r.bad_input);
    s.abort_at = 0;
    s.drop_pages();
    expect_tensor(s, li, in, "the input stays");
    run_conv(s, k, li, lo, 2);
    expect_tensor(s, lo, want, "clean run");
    s.run(describe(p, li, lp), 2);
    expect_tensor(s, lp, golden(p, in), "clean pool");
    run_depthwise(s, w, li, la, 2);
    expect_tensor(s, la, golden(w, in), "clean depthwise");
    if (HasFatalFailure()) return;
  }
}

// Whatever an abort or a wipe cuts short, the next run of the same operation is right.
TEST(Engine16, AbortAndWipeOfVectorOperations) {
  sim16 s(14);
  const int n = 2;
  const tensor a = random_tensor(s.rng, n, 9, 8, 70), b = random_tensor(s.rng, n, 9, 8, 70);
  const layout la = layout::of(9, 8, 70, 0), lb = layout::of(9, 8, 70, 400);
  const layout lo = layout::of(9, 8, 70, 1000), lp = layout::of(7, 6, 70, 1000);
  pool p;
  p.kh = p.kw = 3, p.out_h = 7, p.out_w = 6;
  const average av = average_of(p, s.rng);
  product mu;
  mu.out = random_post(s.rng, 9000);
  const addition ad = random_addition(s.rng);
  lookup ta;
  for (auto& e : ta.entries) e = static_cast<std::uint8_t>(s.rng() | 1);

  struct operation {
    const char* what;
    spec::descriptor d;
    layout out;
    tensor want;
    int cycles;
  };
  const operation all[] = {{"average", describe(av, la, lp), lp, golden(av, a), 1600},
                           {"product", describe(mu, la, lb, lo), lo, golden(mu, a, b), 1200},
                           {"sum", describe(ad, la, lb, lo), lo, golden(ad, a, b), 600},
                           {"table", describe(ta, la, lo), lo, golden(ta, a), 450}};
  for (int i = 0; i < 48; ++i) {
    const operation& o = all[i % 4];
    SCOPED_TRACE(std::string(o.what) + " case " + std::to_string(i));
    put_tensor(s, la, a);
    put_tensor(s, lb, b);
    const bool wipe = i % 3 == 2;
    (wipe ? s.wipe_at : s.abort_at) = pick(s.rng, 1, o.cycles);
    const std::uint64_t at = wipe ? s.wipe_at : s.abort_at;
    s.load_pages({page_of(ta, s.rng)});
    const run_result r = s.run(o.d, n);
    EXPECT_FALSE(r.bad_desc || r.bad_input);
    if (r.aborted) EXPECT_LE(r.cycles, at + 3);
    s.abort_at = s.wipe_at = 0;
    s.drop_pages();
    if (wipe) {
      s.wait_wipe();
      if (r.aborted) {
        ASSERT_EQ(s.get(0, sim16::spad_words, 1), std::vector<word>(sim16::spad_words));
      }
      put_tensor(s, la, a);
      put_tensor(s, lb, b);
    }
    expect_tensor(s, la, a, "the input stays");
    if (i % 4 == 3) s.load_pages({page_of(ta, s.rng)});
    EXPECT_FALSE(s.run(o.d, n).bad_desc);
    EXPECT_EQ(s.beats_left(), 0u);
    expect_tensor(s, o.out, o.want, "clean run");
    if (HasFatalFailure()) return;
  }
}

TEST(Engine16, WipeLeavesNothing) {
  sim16 s(10);
  constexpr std::uint32_t words = sim16::spad_words;
  std::vector<word> image(words);
  for (auto& w : image) {
    for (auto& b : w) b = static_cast<std::uint8_t>(s.rng() | 1);
  }
  ASSERT_FALSE(s.put(0, words, 1, image).bad_input);
  const std::uint64_t took = s.wipe();
  EXPECT_GE(took, words / 8);  // a word of each bank a cycle
  EXPECT_LE(took, words / 8 + 100u);
  EXPECT_EQ(s.get(0, words, 1), std::vector<word>(words));

  // A wipe in the middle of a layer ends it; then everything works again.
  conv k;
  k.kh = k.kw = 3, k.pt = k.pl = 1, k.out_h = 9, k.out_w = 8, k.c = 20, k.cout = 90;
  randomise(k, s.rng);
  const tensor in = random_tensor(s.rng, 2, 9, 8, 20);
  const layout li = layout::of(9, 8, 20, 0), lo = layout::of(9, 8, 90, 1000);
  for (int at : {10, 100, 2000, 4000}) {
    put_tensor(s, li, in);
    s.load_pages(pages_of(k, li, 144, 16, s.rng));
    s.wipe_at = at;
    const run_result r = s.run(describe(k, li, lo), 2);
    EXPECT_TRUE(r.aborted);
    EXPECT_LE(r.cycles, s.wipe_at + 3);
    s.wipe_at = 0;
    s.drop_pages();
    s.wait_wipe();
    EXPECT_EQ(s.get(0, words, 1), std::vector<word>(words));
    put_tensor(s, li, in);
    run_conv(s, k, li, lo, 2);
    expect_tensor(s, lo, golden(k, in), "after the wipe");
    if (HasFatalFailure()) return;
  }
}

// ---- Rates ----

void report(const char* what, const run_result& r, double seconds) {
  std::printf(
      "%s: %llu cycles, busy %.4f want %.4f load %.4f feed %.4f post %.4f, "
      "beats/cycle %.4f, MACs %llu, %.0f kcycles per CPU second\n",
      what, static_cast<unsigned long long>(r.cycles), 1.0 * r.busy / r.cycles,
      1.0 * r.want / r.cycles, 1.0 * r.loading / r.cycles, 1.0 * r.feed / r.cycles,
      1.0 * r.post / r.cycles, 1.0 * r.beats / r.cycles, static_cast<unsigned long long>(r.macs),
      r.cycles / seconds / 1e3);
}

template <class Sim>
run_result timed(const char* what, const conv& k, int batch, int h, int w) {
  Sim s(11);
  conv kk = k;
  randomise(kk, s.rng);
  const layout li = layout::of(h, w, k.c, 0);
  const layout lo = layout::of(k.out_h, k.out_w, k.cout, li.stride * batch);
  EXPECT_LE(lo.base + lo.stride * batch, Sim::spad_words);
  const tensor in = random_tensor(s.rng, batch, h, w, k.c);
  put_tensor(s, li, in);
  s.load_pages(pages_of(kk, li, batch * k.out_h * k.out_w, Sim::array_n, s.rng));
  const std::clock_t t0 = std::clock();
  const run_result r = s.run(describe(kk, li, lo), batch);
  report(what, r, static_cast<double>(std::clock() - t0) / CLOCKS_PER_SEC);
  EXPECT_FALSE(r.bad_desc);
  EXPECT_EQ(s.beats_left(), 0u);
  expect_tensor(s, lo, golden(kk, in), what);
  return r;
}

// 512 x 1024 x 256: the array takes a row in nine of ten cycles.
template <class Sim>
void gemm_rate(const char* what) {
  conv k;
  k.c = 1024, k.cout = 256;
  const run_result r = timed<Sim>(what, k, 512, 1, 1);
  EXPECT_GE(1.0 * r.busy / r.cycles, 0.90);
}
TEST(Engine16, GemmRate) { gemm_rate<sim16>("GEMM 512x1024x256 N=16"); }
TEST(Engine64, GemmRate) { gemm_rate<sim64>("GEMM 512x1024x256 N=64"); }

// A convolution whose blocks are as wide as the array: one row per cycle, padding included. At
// N = 64 the drain of the last tile, 512 of 19,100 cycles, stays visible.
template <class Sim>
void conv_rate(const char* what, int c, int side, int kernel, int cout, double busy,
               int batch = 8) {
  conv k;
  k.kh = k.kw = kernel, k.pt = k.pl = kernel / 2, k.out_h = k.out_w = side, k.c = c, k.cout = cout;
  const run_result r = timed<Sim>(what, k, batch, side, side);
  EXPECT_GE(1.0 * r.busy / r.cycles, busy);
}
TEST(Engine16, ConvRate) { conv_rate<sim16>("conv 3x3 64->64 16x16 N=16", 64, 16, 3, 64, 0.90); }
TEST(Engine64, ConvRate) { conv_rate<sim64>("conv 3x3 64->64 16x16 N=64", 64, 16, 3, 64, 0.88); }
// Narrow blocks are gathered, a row per cycle as long as a word per cycle is enough.
TEST(Engine16, GatherRate) {
  conv_rate<sim16>("conv 5x5 1->16 28x28 N=16", 1, 28, 5, 16, 0.90);
  conv_rate<sim16>("conv 3x3 8->32 16x16 N=16", 8, 16, 3, 32, 0.90);
}
TEST(Engine64, GatherRate) {
  conv_rate<sim64>("conv 3x3 3->64 28x28 N=64", 3, 28, 3, 64, 0.80);
  conv_rate<sim64>("conv 5x5 1->64 28x28 N=64", 1, 28, 5, 64, 0.80);
  conv_rate<sim64>("conv 7x7 4->64 28x28 N=64", 4, 28, 7, 64, 0.95);
  conv_rate<sim64>("conv 3x3 16->32 16x16 N=64", 16, 16, 3, 32, 0.80);
  conv_rate<sim64>("conv 3x3 32->64 16x16 N=64", 32, 16, 3, 64, 0.80);
}

// The layers that a residual network is made of, one image. Post unit and writer take a row per
// cycle, so a 1x1 convolution over 64 channels is no slower than what its weights and ends cost.
TEST(Engine64, ResidualLayerRates) {
  conv_rate<sim64>("conv 1x1 64->64 28x28 N=64", 64, 28, 1, 64, 0.50, 1);
  conv_rate<sim64>("conv 1x1 64->256 28x28 N=64", 64, 28, 1, 256, 0.72, 1);
  conv_rate<sim64>("conv 1x1 256->64 28x28 N=64", 256, 28, 1, 64, 0.84, 1);
  conv_rate<sim64>("conv 3x3 64->64 28x28 N=64", 64, 28, 3, 64, 0.90, 1);
}

// Words of 64 channels: 2 cycles to add, 4 to multiply, 1 to look up; a window tap a cycle.
TEST(Engine16, VectorRates) {
  sim16 s(15);
  const int n = 4;
  const tensor in = random_tensor(s.rng, n, 16, 16, 64);
  const layout la = layout::of(16, 16, 64, 0), lo = layout::of(16, 16, 64, la.stride * n);
  put_tensor(s, la, in);
  const std::uint64_t words = 16 * 16 * n, slack = 60;
  EXPECT_LE(s.run(describe(addition{}, la, la, lo), n).cycles, 2 * words + slack);
  EXPECT_LE(s.run(describe(product{}, la, la, lo), n).cycles, 4 * words + slack);
  s.load_pages(std::vector<page>(1));
  EXPECT_LE(s.run(describe(lookup{}, la, lo), n).cycles, words + 124 + slack);
  average k;
  k.kh = k.kw = k.sy = k.sx = 2, k.out_h = k.out_w = 8;
  EXPECT_LE(s.run(describe(k, la, layout::of(8, 8, 64, lo.base)), n).cycles, words + slack);
}

// A depthwise layer: a word of 64 channels every 64 / ArrayN cycles.
template <class Sim>
void depthwise_rate(const char* what) {
  Sim s(12);
  depthwise k;
  k.kh = k.kw = 3, k.pt = k.pl = 1, k.out_h = k.out_w = 28, k.c = 128;
  randomise(k, s.rng);
  const layout li = layout::of(28, 28, 128, 0), lo = layout::of(28, 28, 128, 4 * li.stride);
  const tensor in = random_tensor(s.rng, 4, 28, 28, 128);
  put_tensor(s, li, in);
  const std::clock_t t0 = std::clock();
  const run_result r = run_depthwise(s, k, li, lo, 4);
  report(what, r, static_cast<double>(std::clock() - t0) / CLOCKS_PER_SEC);
  EXPECT_LE(r.cycles, 4 * 28 * 28 * 2 * (64 / Sim::array_n) + 250);
  expect_tensor(s, lo, golden(k, in), what);
}
TEST(Engine16, DepthwiseRate) { depthwise_rate<sim16>("depthwise 3x3 128 28x28 N=16"); }
TEST(Engine32, DepthwiseRate) { depthwise_rate<sim32>("depthwise 3x3 128 28x28 N=32"); }
TEST(Engine64, DepthwiseRate) { depthwise_rate<sim64>("depthwise 3x3 128 28x28 N=64"); }

// One image through the widest layer there is: bound by the page stream, one beat per cycle.
template <class Sim>
void dense_rate(const char* what) {
  conv k;
  k.c = 4096, k.cout = 4096;
  const run_result r = timed<Sim>(what, k, 1, 1, 1);
  EXPECT_GE(1.0 * r.beats / r.cycles, 0.97);
}
TEST(Engine16, DenseRate) { dense_rate<sim16>("dense 1x4096x4096 N=16"); }
TEST(Engine32, DenseRate) { dense_rate<sim32>("dense 1x4096x4096 N=32"); }
TEST(Engine64, DenseRate) { dense_rate<sim64>("dense 1x4096x4096 N=64"); }

}  // namespace
}  // namespace latchkey::test
