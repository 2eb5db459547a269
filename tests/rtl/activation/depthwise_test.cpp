// lk_depthwise against the definition of a depthwise convolution: random shapes, kernels that go
// through the line buffers and kernels that do not, late pages, stops and wipes in the middle, and
// the rates its header promises. The test plays page stream and scratchpad, and holds every read to
// the input tensor and every write to the output tensor.
#include <gtest/gtest.h>
#include <verilated.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "VDepthwise16.h"
#include "VDepthwise16___024root.h"
#include "VDepthwise32.h"
#include "VDepthwise32___024root.h"
#include "VDepthwise64.h"
#include "VDepthwise64___024root.h"
#include "depthwise_model.hpp"

namespace latchkey::test {
namespace {

// The three builds: as the engine has them at ArrayN 16, 32 and 64, but for the window's size.
template <class ModelT, class RootT, int TapsV, int PostV, int SideV>
struct build {
  using model = ModelT;
  using root = RootT;
  static constexpr int taps = TapsV, post = PostV, side = SideV;
  // Cycles that an output takes by the module's header.
  static int cycles(int kh, int kw, int c) {
    const int k = std::max(kh, kw);
    const int requant = std::min(64, 1 << layout::of(1, 1, c, 0).cp_log2);
    const int macs = k > side ? kh * kw : (k * k + taps - 1) / taps;
    return std::max(macs, (requant + post - 1) / post);
  }
};
using build16 = build<VDepthwise16, VDepthwise16___024root, 3, 16, 3>;
using build32 = build<VDepthwise32, VDepthwise32___024root, 5, 32, 7>;
using build64 = build<VDepthwise64, VDepthwise64___024root, 9, 64, 5>;

struct outcome {
  bool done = false, bad = false;
  std::uint64_t cycles = 0, macs = 0, want = 0, reads = 0, writes = 0;
};

template <class Build>
class bench {
 public:
  explicit bench(unsigned seed) : rng(seed), memory(65536), ctx_(new VerilatedContext) {
    ctx_->randReset(2);
    ctx_->randSeed(static_cast<int>(seed) + 1);
    m_.reset(new typename Build::model(ctx_.get()));
    m_->rst_ni = 0;
    m_->clear_i = m_->wipe_i = m_->start_i = m_->pg_valid_i = 0;
    for (int i = 0; i < 4; ++i) tick();
    m_->rst_ni = 1;
    tick();
  }
  ~bench() { m_->final(); }

  std::mt19937 rng;
  std::vector<word> memory;
  int page_idle = 0;                        // percent of cycles without a beat
  std::uint64_t clear_at = 0, wipe_at = 0;  // cycle of the operation, 0 = never
  std::deque<word> beats;

  void load(const std::vector<page>& pages) {
    for (const page& p : pages) {
      for (int b = 0; b < 64; ++b) {
        word w;
        std::memcpy(w.data(), &p[b * 64], 64);
        beats.push_back(w);
      }
    }
  }

  outcome run(const spec::descriptor& d, int batch) {
    const auto raw = d.pack();
    for (std::size_t i = 0; i < raw.size(); ++i) m_->desc_i[i] = raw[i];
    m_->batch_i = batch;
    m_->start_i = 1;
    outcome r;
    std::vector<std::uint64_t> written(memory.size());
    for (;;) {
      ++r.cycles;
      m_->clear_i = clear_at != 0 && r.cycles >= clear_at;
      m_->wipe_i = wipe_at != 0 && r.cycles == wipe_at;
      m_->pg_valid_i =
          !beats.empty() && (held_ || page_idle == 0 || static_cast<int>(rng() % 100) >= page_idle);
      held_ = m_->pg_valid_i;
      if (held_) std::memcpy(&m_->pg_data_i[0], beats.front().data(), 64);
      m_->eval();
      if (m_->pg_valid_i && m_->pg_ready_o) beats.pop_front(), held_ = false;
      r.macs += m_->macs_o, r.want += m_->want_o, r.reads += m_->rd_en_o, r.writes += m_->wr_en_o;
      if (m_->want_o && m_->pg_valid_i) throw std::runtime_error("wants what is offered");
      if (m_->rd_en_o) {
        if (m_->rd_addr_o < d.in_base || m_->rd_addr_o >= d.in_base + d.in_stride * batch)
          throw std::runtime_error("reads outside the input");
      }
      if (m_->wr_en_o) {
        const std::uint32_t at = m_->wr_addr_o;
        if (at < d.out_base || at >= d.out_base + d.out_stride * batch)
          throw std::runtime_error("writes outside the output");
        if (written[at] & m_->wr_be_o) throw std::runtime_error("writes a byte twice");
        written[at] |= m_->wr_be_o;
      }
      r.done = m_->done_o;
      r.bad = m_->bad_o;
      const bool stopped = m_->clear_i || m_->wipe_i;
      tick();
      m_->start_i = 0;
      if (r.done || r.bad || stopped) break;
      if (r.cycles > 3000000) throw std::runtime_error("the operation does not end");
    }
    m_->clear_i = m_->wipe_i = m_->pg_valid_i = 0;
    held_ = false;
    return r;
  }

  // Cycles of a wipe that has been asked for; nothing may be taken or given meanwhile.
  int wait_wipe() {
    for (int n = 1;; ++n) {
      m_->pg_valid_i = 1;
      m_->eval();
      if (!m_->wipe_busy_o) {
        m_->pg_valid_i = 0;
        return n;
      }
      if (m_->pg_ready_o || m_->rd_en_o || m_->wr_en_o)
        throw std::runtime_error("works during a wipe");
      if (n > 5000) throw std::runtime_error("the wipe does not end");
      tick();
    }
  }
  void wipe() {
    m_->wipe_i = 1;
    tick();
    m_->wipe_i = 0;
  }
  // Everything that the test itself put on the inputs.
  void blank_inputs() {
    std::memset(&m_->pg_data_i[0], 0, 64);
    std::memset(&m_->desc_i[0], 0, 128);
    for (auto& s : spad_) s.fill(0);
    tick();
    tick();
  }

  // How often eight bytes of the design's state equal eight bytes of what is given.
  int found(const std::vector<std::array<std::uint8_t, 8>>& what) const {
    const auto* state = reinterpret_cast<const std::uint8_t*>(m_->rootp);
    int hits = 0;
    for (const auto& w : what) {
      for (std::size_t i = 0; i + 8 <= sizeof(typename Build::root); i += 4) {
        hits += std::memcmp(state + i, w.data(), 8) == 0;
      }
    }
    return hits;
  }

 private:
  void tick() {
    m_->eval();
    word next = spad_[0];
    const bool read = m_->rd_en_o && m_->rst_ni;
    if (read) spad_[0] = memory.at(m_->rd_addr_o);
    if (m_->wr_en_o && m_->rst_ni) {
      for (int b = 0; b < 64; ++b) {
        if (m_->wr_be_o >> b & 1)
          memory.at(m_->wr_addr_o)[b] = reinterpret_cast<const std::uint8_t*>(&m_->wr_data_o[0])[b];
      }
    }
    m_->clk_i = 1;
    m_->eval();
    m_->clk_i = 0;
    spad_[1] = next;
    std::memcpy(&m_->rd_data_i[0], spad_[1].data(), 64);
    m_->eval();
  }

  std::unique_ptr<VerilatedContext> ctx_;
  std::unique_ptr<typename Build::model> m_;
  std::array<word, 2> spad_{};
  bool held_ = false;
};

std::string name(const depthwise& k, const tensor& in) {
  char b[200];
  std::snprintf(b, sizeof b, "%dx%dx%dx%d -> %dx%d kernel %dx%d stride %d,%d pad %d,%d", in.n, in.h,
                in.w, in.c, k.out_h, k.out_w, k.kh, k.kw, k.sy, k.sx, k.pt, k.pl);
  return b;
}

struct placed {
  layout in, out;
};

template <class Build>
placed place(bench<Build>& b, const depthwise& k, const tensor& in) {
  placed p;
  p.in = layout::of(in.h, in.w, in.c, pick(b.rng, 0, 9), pick(b.rng, 0, 2));
  p.out = layout::of(k.out_h, k.out_w, k.c, p.in.base + p.in.stride * in.n + pick(b.rng, 0, 3),
                     pick(b.rng, 0, 2));
  EXPECT_LE(p.out.base + p.out.stride * in.n, b.memory.size());
  const auto words = p.in.pack(in, b.rng);
  std::copy(words.begin(), words.end(), b.memory.begin() + p.in.base);
  return p;
}

template <class Build>
outcome check(bench<Build>& b, const depthwise& k, const tensor& in) {
  const placed p = place(b, k, in);
  b.load(pages_of(k, b.rng));
  const outcome r = b.run(describe(k, p.in, p.out), in.n);
  EXPECT_TRUE(r.done) << name(k, in);
  EXPECT_FALSE(r.bad) << name(k, in);
  EXPECT_TRUE(b.beats.empty()) << name(k, in);
  EXPECT_EQ(r.macs, std::uint64_t{1} * in.n * k.out_h * k.out_w * k.kh * k.kw * k.c) << name(k, in);
  const std::vector<word> words(b.memory.begin() + p.out.base,
                                b.memory.begin() + p.out.base + p.out.stride * in.n);
  const tensor got = p.out.unpack(words, in.n), want = golden(k, in);
  std::size_t wrong = 0, first = 0;
  for (std::size_t i = want.v.size(); i-- > 0;) {
    if (got.v[i] != want.v[i]) ++wrong, first = i;
  }
  EXPECT_EQ(wrong, 0u) << name(k, in) << ": first at pixel " << first / in.c << ", channel "
                       << first % in.c << ": got " << int{got.v[first]} << ", want "
                       << int{want.v[first]};
  return r;
}

// A layer that keeps the size of its input.
depthwise same(int k, int side, int c, std::mt19937& rng) {
  depthwise d;
  d.kh = d.kw = k, d.pt = d.pl = k / 2, d.out_h = d.out_w = side, d.c = c;
  randomise(d, rng);
  return d;
}

template <class Build>
class Depthwise : public ::testing::Test {};
using builds = ::testing::Types<build16, build32, build64>;
TYPED_TEST_SUITE(Depthwise, builds);

TYPED_TEST(Depthwise, RandomLayers) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    bench<TypeParam> b(seed);
    b.page_idle = seed % 3 == 0 ? 60 : 0;
    const auto [k, in] = random_depthwise(b.rng);
    check(b, k, in);
    if (this->HasFailure()) return;
  }
}

// One after the other in the same design: nothing of a layer is left for the next.
TYPED_TEST(Depthwise, LayerAfterLayer) {
  bench<TypeParam> b(200);
  for (int i = 0; i < 60; ++i) {
    SCOPED_TRACE("layer " + std::to_string(i));
    b.page_idle = i % 4 == 0 ? 30 : 0;
    const auto [k, in] = random_depthwise(b.rng);
    check(b, k, in);
    if (this->HasFailure()) return;
  }
}

// The widest tensors there are, and 4,096 channels.
TYPED_TEST(Depthwise, ManyChannels) {
  bench<TypeParam> b(201);
  for (const int c : {1, 2, 31, 32, 33, 63, 64, 65, 256, 257, 1000, 4096}) {
    check(b, same(3, 2, c, b.rng), random_tensor(b.rng, 2, 2, 2, c));
    if (this->HasFailure()) return;
  }
}

// What the line buffers cannot take is read tap by tap: long and large kernels, long lines.
TYPED_TEST(Depthwise, BeyondTheLineBuffers) {
  bench<TypeParam> b(202);
  const int kernels[][2] = {{8, 8}, {1, 64}, {64, 1}, {7, 9}, {2, 31}, {21, 3}};
  for (const auto& s : kernels) {
    for (const int c : {5, 70}) {
      depthwise k;
      k.kh = s[0], k.kw = s[1], k.c = c, k.pt = k.kh / 2, k.pl = k.kw / 2;
      k.sy = pick(b.rng, 1, 2), k.sx = pick(b.rng, 1, 2);
      ASSERT_TRUE(fit(k, 12, 13, k.kh - 1 - k.pt, k.kw - 1 - k.pl));
      randomise(k, b.rng);
      check(b, k, random_tensor(b.rng, 2, 12, 13, c));
      if (this->HasFailure()) return;
    }
  }
  for (const int w : {511, 512, 513, 700}) {
    for (const int stride : {1, 2}) {
      depthwise k;
      k.kh = k.kw = 3, k.pt = k.pl = 1, k.sx = stride, k.c = 70;
      ASSERT_TRUE(fit(k, 5, w, 1, 1));
      randomise(k, b.rng);
      check(b, k, random_tensor(b.rng, 1, 5, w, 70));
      if (this->HasFailure()) return;
    }
  }
}

TYPED_TEST(Depthwise, LargeStrides) {
  bench<TypeParam> b(203);
  for (const int stride : {4, 7, 29, 255}) {
    for (const int kernel : {1, 3, 6}) {
      depthwise k;
      k.kh = k.kw = kernel, k.sy = k.sx = stride, k.pt = k.pl = kernel / 2, k.c = 40;
      ASSERT_TRUE(fit(k, 30, 33, 0, 0));
      randomise(k, b.rng);
      check(b, k, random_tensor(b.rng, 2, 30, 33, 40));
      if (this->HasFailure()) return;
    }
  }
}

// The steady state, from the difference between two batches of the same layer.
TYPED_TEST(Depthwise, CyclesPerOutputWord) {
  for (const int kernel : {1, 2, 3, 4, 5, 7}) {
    for (const int c : {16, 32, 64, 192}) {
      bench<TypeParam> b(204);
      const int side = 20;
      depthwise k = same(kernel, side, c, b.rng);
      const outcome one = check(b, k, random_tensor(b.rng, 1, side, side, c));
      const outcome four = check(b, k, random_tensor(b.rng, 4, side, side, c));
      if (this->HasFailure()) return;
      // An even kernel's last outputs need a pixel that comes a line later, or none.
      const int blocks = c > 32 ? (c + 63) / 64 : 1;
      const std::uint64_t outputs = std::uint64_t{3} * side * side * blocks;
      EXPECT_EQ(four.cycles - one.cycles, outputs * TypeParam::cycles(kernel, kernel, c))
          << "kernel " << kernel << ", " << c << " channels";
      const std::uint64_t all = std::uint64_t{4} * side * side * blocks;
      std::printf(
          "%2d multipliers, %2d results: kernel %d, %3d channels: %.3f cycles per word, %llu"
          " at the ends\n",
          TypeParam::taps, TypeParam::post, kernel, c, 1.0 * (four.cycles - one.cycles) / outputs,
          static_cast<unsigned long long>(four.cycles -
                                          all * TypeParam::cycles(kernel, kernel, c)));
    }
  }
}

// In the line buffers' reach every word of the input is read once per block, at any stride.
TYPED_TEST(Depthwise, ReadsEveryPixelOncePerBlock) {
  bench<TypeParam> b(205);
  for (const int stride : {1, 2}) {
    depthwise k;
    k.kh = k.kw = 3, k.pt = k.pl = 1, k.sy = k.sx = stride, k.c = 130;
    ASSERT_TRUE(fit(k, 15, 17, 1, 1));
    randomise(k, b.rng);
    const outcome r = check(b, k, random_tensor(b.rng, 2, 15, 17, 130));
    EXPECT_EQ(r.reads, 3u * 2 * 15 * 17);
  }
}

// Pages that come late are waited for, and only the wait is called one.
TYPED_TEST(Depthwise, WaitsForPages) {
  bench<TypeParam> b(206);
  const depthwise k = same(3, 6, 300, b.rng);
  const tensor in = random_tensor(b.rng, 1, 6, 6, 300);
  const outcome fast = check(b, k, in);
  b.page_idle = 80;
  const outcome slow = check(b, k, in);
  EXPECT_GT(slow.want, fast.want + 200);
  EXPECT_GT(slow.cycles, fast.cycles + 500);
}

// ---- Negative ----

TYPED_TEST(Depthwise, StopsAnywhereAndStartsAgain) {
  bench<TypeParam> b(207);
  for (int i = 0; i < 60; ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    const auto [k, in] = random_depthwise(b.rng);
    const placed p = place(b, k, in);
    b.load(pages_of(k, b.rng));
    b.clear_at = pick(b.rng, 1, i % 2 ? 400 : 3000);
    const outcome r = b.run(describe(k, p.in, p.out), in.n);
    if (!r.done) EXPECT_LE(r.cycles, b.clear_at);
    b.clear_at = 0;
    b.beats.clear();
    const auto [k2, in2] = random_depthwise(b.rng);
    check(b, k2, in2);
    if (this->HasFailure()) return;
  }
}

// Weights and activations are in the design before a wipe, and nowhere after it.
TYPED_TEST(Depthwise, WipeLeavesNothing) {
  bench<TypeParam> b(208);
  for (int i = 0; i < 12; ++i) {
    SCOPED_TRACE("case " + std::to_string(i));
    const depthwise k = same(i % 3 == 2 ? 8 : 3, 9, 128, b.rng);
    const tensor in = random_tensor(b.rng, 2, 9, 9, 128);
    const placed p = place(b, k, in);
    const std::vector<page> pages = pages_of(k, b.rng);
    b.load(pages);
    // Parameters of channels that follow each other differ in bias' and M: 56 bits of each, at the
    // eight places within a byte.
    std::vector<std::array<std::uint8_t, 8>> weights, pixels, params;
    for (std::size_t g = 1; g < pages.size(); ++g) {
      for (std::size_t t = 0; t < 9 * 64; t += 8) {
        weights.emplace_back();
        std::memcpy(weights.back().data(), &pages[g][t], 8);
      }
    }
    for (std::uint32_t w = p.in.base; w < p.in.base + p.in.stride * 2; ++w) {
      pixels.emplace_back();
      std::memcpy(pixels.back().data(), &b.memory[w][16], 8);
    }
    b.wipe_at = i < 6 ? pick(b.rng, 300, 500) : 0;
    const outcome r = b.run(describe(k, p.in, p.out), 2);
    EXPECT_NE(r.done, b.wipe_at != 0);
    b.beats.clear();
    if (b.wipe_at == 0) {
      b.blank_inputs();
      EXPECT_GT(b.found(weights), 0);
      EXPECT_GT(b.found(pixels), 0);
      b.wipe();
    }
    b.wipe_at = 0;
    EXPECT_LE(b.wait_wipe(), 512 + 40);
    b.blank_inputs();
    EXPECT_EQ(b.found(weights), 0);
    EXPECT_EQ(b.found(pixels), 0);
    const auto [k2, in2] = random_depthwise(b.rng);
    check(b, k2, in2);
    if (this->HasFailure()) return;
  }
}

TYPED_TEST(Depthwise, RefusesIllegalDescriptors) {
  bench<TypeParam> b(209);
  const depthwise k = same(3, 6, 70, b.rng);
  const tensor in = random_tensor(b.rng, 1, 6, 6, 70);
  const placed p = place(b, k, in);
  using desc = spec::descriptor;
  const desc good = describe(k, p.in, p.out);
  const std::pair<const char*, std::function<void(desc&)>> edits[] = {
      {"kernel of 65 taps", [](desc& d) { d.kernel_h = 5, d.kernel_w = 13; }},
      {"kernel of 255 x 255", [](desc& d) { d.kernel_h = d.kernel_w = 255; }},
      {"kernel_h 0", [](desc& d) { d.kernel_h = 0; }},
      {"stride_x 0", [](desc& d) { d.stride_x = 0; }},
      {"k_tiles 0", [](desc& d) { d.k_tiles = 0; }},
      {"k_tiles 2", [](desc& d) { d.k_tiles = 2; }},
      {"n_tiles", [](desc& d) { ++d.n_tiles; }},
      {"n_tiles 0", [](desc& d) { d.n_tiles = 0; }},
      {"param_pages 0", [](desc& d) { d.param_pages = 0; }},
      {"param_pages 2", [](desc& d) { d.param_pages = 2; }},
      {"other channels out", [](desc& d) { d.out_c_last = 7; }},
      {"other blocks out", [](desc& d) { d.in_cb = 1; }},
      {"pad_top", [](desc& d) { d.pad_top = 3; }},
      {"pad_left", [](desc& d) { d.pad_left = 3; }},
      {"window below the input", [](desc& d) { d.stride_y = 2; }},
      {"window right of the input", [](desc& d) { d.stride_x = 2; }},
      {"clamp", [](desc& d) { d.clamp_lo = 5, d.clamp_hi = 4; }},
      {"in_stride", [](desc& d) { d.in_stride = 71; }},
      {"out_stride", [](desc& d) { d.out_stride = 71; }},
      {"in_base", [](desc& d) { d.in_base = 65536; }},
      {"out_base", [](desc& d) { d.out_base = 65536; }},
  };
  for (const auto& [what, edit] : edits) {
    SCOPED_TRACE(what);
    desc d = good;
    edit(d);
    b.load(std::vector<page>(2));
    const outcome r = b.run(d, 1);
    EXPECT_TRUE(r.bad);
    EXPECT_EQ(r.reads + r.writes + r.macs, 0u);
    EXPECT_EQ(b.beats.size(), 128u);
    b.beats.clear();
  }
  check(b, k, in);
}

}  // namespace
}  // namespace latchkey::test
