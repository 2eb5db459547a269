// The key block of the enrol build: what it makes is checked against the software twin; selection,
// random numbers and fuses are played by the test.
#include <gtest/gtest.h>

#include <functional>
#include <map>

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wgnu-anonymous-struct"
#include "Vlk_enrol_block.h"
#include "Vlk_enrol_block___024root.h"
#pragma clang diagnostic pop
#include "key_twin.h"
#include "verilated.h"

namespace {

using namespace latchkey::test;

constexpr std::uint16_t kLcOpen = 0x0240, kLcEnrolled = 0x5A69, kLcLocked = 0x7FFB;
constexpr int kEnrol = 4, kZeroise = 3, kTaken = 5;
constexpr int kIdle = 0, kExport = 2, kDone = 3, kFailed = 4, kLocked = 5;
constexpr int kNone = 0, kIllegal = 1, kLifeCycle = 7, kLockout = 8, kHealth = 10, kEnrolled = 12,
              kTooFew = 13, kSlots = 19;

class EnrolBlock : public ::testing::Test {
 protected:
  void SetUp() override { power_up(); }
  void TearDown() override { dut_->final(); }

  void power_up() {
    dut_ = std::make_unique<Vlk_enrol_block>(&context_);
    lc_ = kLcOpen;
    enrolled_ = false;
    fuses_burn_ = true;
    dut_->slots_i = 1;
    reset();
  }
  void reset() {
    selecting_ = trng_wait_ = 0;
    dut_->rst_ni = 0;
    tick();
    tick();
    dut_->rst_ni = 1;
    tick();
  }

  void tick() {
    dut_->fuse_lc_state_i = lc_;
    dut_->fuse_enrolled_i = enrolled_;
    dut_->sel_done_i = selecting_ == 1;
    dut_->sel_fail_i = select_fails_;
    dut_->sel_margin_i = 72;
    dut_->trng_valid_i = trng_delay_ > 0 && trng_wait_ >= trng_delay_;
    dut_->trng_data_i = dut_->trng_valid_i ? static_cast<std::uint32_t>(rng_()) : 0;
    if (dut_->trng_valid_i) {
      drawn_.push_back(dut_->trng_data_i);
      trng_wait_ = 0;
    }
    dut_->clk_i = 0;
    dut_->eval();
    if (selecting_ > 0) --selecting_;
    if (dut_->sel_start_o) selecting_ = 50;
    if (dut_->sel_clear_o) selecting_ = 0;
    if (dut_->trng_req_o) ++trng_wait_;
    const unsigned row = dut_->sel_rd_idx_o;
    if (dut_->fuse_prog_enrolled_o || dut_->fuse_prog_lc_o) ++burns_;
    if (dut_->fuse_prog_enrolled_o && fuses_burn_) {
      EXPECT_EQ(lc_, kLcOpen) << "the enrolled bit must be burnt first";
      enrolled_ = true;
    }
    if (dut_->fuse_prog_lc_o && fuses_burn_) {
      EXPECT_TRUE(enrolled_) << "the enrolled bit must be burnt first";
      EXPECT_EQ(dut_->fuse_prog_lc_state_o, kLcEnrolled);
      lc_ = static_cast<std::uint16_t>(lc_ | dut_->fuse_prog_lc_state_o);
    }
    dut_->clk_i = 1;
    dut_->eval();
    // The row of the address before the edge, as from a synchronous memory.
    for (int w = 0; w < 3; ++w) {
      dut_->sel_rd_mask_i[w] = load_le32(&mask_[12 * row + 4 * w]);
      dut_->sel_rd_resp_i[w] =
          load_le32(&scan_[12 * row + 4 * w]) & load_le32(&mask_[12 * row + 4 * w]);
    }
    dut_->eval();
    if (!(enrolled_ && lc_ == kLcEnrolled)) {
      EXPECT_EQ(dut_->kek_rdata_o, 0u);
      EXPECT_EQ(dut_->helper_rdata_o, 0u);
      EXPECT_FALSE(dut_->kek_valid_o);
    }
    ++cycle_;
  }

  void command(int c) {
    dut_->cmd_valid_i = 1;
    dut_->cmd_i = static_cast<std::uint8_t>(c);
    tick();
    dut_->cmd_valid_i = 0;
  }
  std::uint64_t run(int c) {
    command(c);
    std::uint64_t n = 1;
    while (dut_->busy_o) {
      dut_->rd_addr_i = static_cast<std::uint16_t>(rng_() & 511);  // whoever reads early gets zero
      dut_->kek_rd_addr_i = rng_() & 63;
      tick();
      if (++n > 200000) throw std::runtime_error("the enrol block does not come back");
    }
    return n;
  }
  void expect(int state, int err, const std::string& what = "") {
    EXPECT_EQ(dut_->state_o, state) << what;
    EXPECT_EQ(dut_->err_o, err) << what;
    EXPECT_EQ(dut_->kek_valid_o, state == kExport) << what;
  }
  bytes helper() {
    bytes out(1088);
    for (unsigned w = 0; w < 272; ++w) {
      dut_->rd_addr_i = static_cast<std::uint16_t>(w);
      tick();
      store_le32(&out[4 * w], dut_->helper_rdata_o);
    }
    return out;
  }
  /// What the export shows at place `n` of the slots.
  bytes kek(unsigned n = 0) {
    bytes out(32);
    for (unsigned w = 0; w < 8; ++w) {
      dut_->kek_rd_addr_i = static_cast<std::uint8_t>(8 * n + w);
      dut_->eval();
      store_le32(&out[4 * w], dut_->kek_rdata_o);
    }
    return out;
  }

  void new_die() {
    const device d = make_device(rng_);  // for its random scan and its mask of the right weight
    scan_ = d.scan;
    mask_ = d.mask;
    drawn_.clear();
  }
  /// The device that helper data and the test's own responses amount to.
  device from_helper(const bytes& h) {
    device d;
    d.helper = h;
    d.scan = scan_;
    d.id.assign(h.begin() + 8, h.begin() + 24);
    d.mask.assign(h.begin() + 32, h.begin() + 800);
    d.response.assign(255, 0);
    std::size_t j = 0;
    for (std::size_t i = 0; i < kScanBits; ++i) {
      if (get_bit(d.mask, i)) set_bit(d.response, j++, get_bit(scan_, i));
    }
    EXPECT_EQ(j, kResponseBits);
    d.prk = extract(d.id, d.response);
    return d;
  }
  bool state_holds(const bytes& secret) {
    const auto* mem = reinterpret_cast<const std::uint8_t*>(dut_->rootp);
    for (std::size_t i = 0; i + 8 <= secret.size(); i += 4) {
      std::uint8_t be[8];
      for (int k = 0; k < 4; ++k) {
        be[k] = secret[i + 3 - k];
        be[4 + k] = secret[i + 7 - k];
      }
      for (std::size_t a = 0; a + 8 <= sizeof(*dut_->rootp); a += 4) {
        if (!std::memcmp(mem + a, &secret[i], 8) || !std::memcmp(mem + a, be, 8)) return true;
      }
    }
    return false;
  }

  VerilatedContext context_;
  std::unique_ptr<Vlk_enrol_block> dut_;
  std::mt19937_64 rng_{31337};
  std::uint64_t cycle_ = 0;
  bytes scan_ = bytes(768), mask_ = bytes(768);
  std::vector<std::uint32_t> drawn_;
  int selecting_ = 0, trng_wait_ = 0, trng_delay_ = 1, burns_ = 0;
  bool select_fails_ = false, enrolled_ = false, fuses_burn_ = true;
  std::uint16_t lc_ = kLcOpen;
};

TEST_F(EnrolBlock, HelperDataAndKeyOfTwelveDies) {
  for (int seed = 0; seed < 12; ++seed) {
    rng_.seed(static_cast<std::uint64_t>(seed) + 900);
    power_up();
    new_die();
    trng_delay_ = 1 + seed % 4;
    const auto slots = static_cast<std::uint8_t>(1 + seed % 8);
    const auto slot = static_cast<std::uint8_t>(rng_() % (9 - slots));
    dut_->slot_i = slot;
    dut_->slots_i = slots;
    command(kEnrol);
    dut_->slot_i = 0;  // taken with the command
    dut_->slots_i = 0;
    while (dut_->busy_o) tick();
    ASSERT_NO_FATAL_FAILURE(expect(kExport, kNone, "seed " + std::to_string(seed)));
    if (seed == 0) RecordProperty("cycles_without_selection", std::to_string(cycle_));
    EXPECT_TRUE(enrolled_);
    EXPECT_EQ(lc_, kLcEnrolled);
    const bytes h = helper();
    const device d = from_helper(h);
    EXPECT_EQ(std::string(h.begin(), h.begin() + 4), "LKHD");
    EXPECT_EQ(load_le32(&h[4]), 1u);
    EXPECT_EQ(load_le32(&h[24]), 72u);
    EXPECT_EQ(dut_->margin_o, 72);
    EXPECT_EQ(load_le32(&h[28]), 0u);
    EXPECT_EQ(d.mask, mask_);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(load_le32(&h[8 + 4 * i]), drawn_[i]) << "device id";
    EXPECT_EQ(h[1055], 0);
    std::set<std::vector<bool>> words;
    for (std::size_t b = 0; b < 8; ++b) {
      std::vector<bool> word(kBlock);
      for (std::size_t i = 0; i < kBlock; ++i) {
        const std::size_t j = b * kBlock + i;
        word[i] = get_bit(h, 6400 + j) ^ get_bit(d.response, j);
      }
      EXPECT_EQ(bch_encode({word.begin(), word.begin() + kMessage}), word) << "block " << b;
      EXPECT_EQ(std::count(word.begin(), word.end(), true) > 80, true) << "block " << b;
      words.insert(word);
    }
    EXPECT_EQ(words.size(), 8u);
    EXPECT_GE(drawn_.size(), 4u + 33u) << "1,048 message bits take 33 words";
    device signed_twin = d;
    signed_twin.sign();
    EXPECT_EQ(h, signed_twin.helper) << "tag";
    for (unsigned n = 0; n < 8; ++n) {
      const auto at = static_cast<std::uint8_t>(slot + n);
      EXPECT_EQ(kek(n), n < slots ? d.root(at) : bytes(32)) << "slot " << int{at};
    }
    EXPECT_FALSE(state_holds(d.prk)) << "the key above all slots";
  }
}

TEST_F(EnrolBlock, SlotsOutsideAreRefused) {
  new_die();
  const std::pair<int, int> cases[] = {{0, 0}, {0, 9}, {1, 8}, {7, 2}, {8, 1}, {255, 1}, {0, 15}};
  for (auto [slot, slots] : cases) {
    dut_->slot_i = static_cast<std::uint8_t>(slot);
    dut_->slots_i = static_cast<std::uint8_t>(slots);
    run(kEnrol);
    expect(kIdle, kSlots, std::to_string(slot) + " and " + std::to_string(slots));
    EXPECT_FALSE(enrolled_);
  }
  dut_->slot_i = 7;
  dut_->slots_i = 1;
  run(kEnrol);
  expect(kExport, kNone);
}

TEST_F(EnrolBlock, TheKeyIsExportedOnce) {
  for (bool by_command : {false, true}) {
    power_up();
    new_die();
    run(kEnrol);
    expect(kExport, kNone);
    const bytes h = helper(), k = kek();
    const device d = from_helper(h);
    EXPECT_EQ(k, d.root(dut_->slot_i));
    EXPECT_TRUE(state_holds(k)) << "the search finds nothing: the test is blind";
    for (const bytes& s : {d.prk, d.response, ladder_key(d.prk, "helper-mac", 0, 0)}) {
      EXPECT_FALSE(state_holds(s)) << "only the owner key may be left";
    }
    run(kEnrol);
    expect(kExport, kIllegal, "ENROL while exporting");
    EXPECT_EQ(kek(), k);
    if (by_command) {
      run(kTaken);
    } else {
      dut_->kek_taken_i = 1;
      tick();
      dut_->kek_taken_i = 0;
      while (dut_->busy_o) tick();
    }
    EXPECT_EQ(dut_->state_o, kDone);
    EXPECT_EQ(kek(), bytes(32));
    EXPECT_FALSE(state_holds(k));
    EXPECT_EQ(helper(), h) << "public, still readable";
    run(kEnrol);
    expect(kDone, kIllegal);
    run(kZeroise);
    expect(kIdle, kNone);
    EXPECT_EQ(helper(), bytes(1088));
    run(kEnrol);
    expect(kIdle, kEnrolled);
    reset();
    run(kEnrol);
    expect(kIdle, kEnrolled);
    EXPECT_EQ(helper(), bytes(1088));
    EXPECT_EQ(kek(), bytes(32));
  }
}

TEST_F(EnrolBlock, RefusesByFuses) {
  new_die();
  for (int lc : {static_cast<int>(kLcEnrolled), static_cast<int>(kLcLocked), 0, 0xffff, 0x0241}) {
    lc_ = static_cast<std::uint16_t>(lc);
    run(kEnrol);
    expect(kIdle, kLifeCycle);
  }
  lc_ = kLcOpen;
  enrolled_ = true;
  run(kEnrol);
  expect(kIdle, kEnrolled);
  enrolled_ = false;
  for (int c : {0, 1, 2, 5, 9}) {
    run(c);
    expect(kIdle, kIllegal);
  }
  EXPECT_EQ(burns_, 0);
  EXPECT_TRUE(drawn_.empty());
  run(kEnrol);
  expect(kExport, kNone);
}

TEST_F(EnrolBlock, FailuresBurnNothing) {
  new_die();
  select_fails_ = true;
  run(kEnrol);
  expect(kFailed, kTooFew);
  select_fails_ = false;
  set_bit(mask_, 0, !get_bit(mask_, 0));
  run(kEnrol);
  expect(kFailed, kTooFew, "a mask of the wrong weight");
  set_bit(mask_, 0, !get_bit(mask_, 0));
  trng_delay_ = 0;
  run(kEnrol);
  expect(kFailed, kHealth, "no random numbers");
  trng_delay_ = 1;
  dut_->puf_busy_i = 1;
  run(kEnrol);
  expect(kFailed, kIllegal, "sampler still busy");
  dut_->puf_busy_i = 0;
  dut_->sel_busy_i = 1;
  run(kEnrol);
  expect(kFailed, kIllegal, "selection still wiping");
  dut_->sel_busy_i = 0;
  EXPECT_EQ(burns_, 0);
  EXPECT_FALSE(enrolled_);
  fuses_burn_ = false;
  run(kEnrol);
  expect(kFailed, kHealth, "a fuse that does not burn");
  EXPECT_EQ(burns_, 1) << "the second fuse must wait for the first";
  EXPECT_EQ(kek(), bytes(32));
  EXPECT_EQ(helper(), bytes(1088));
  fuses_burn_ = true;
  run(kEnrol);
  expect(kExport, kNone);
}

// Whenever the power goes: either the device can still enrol and nothing was ever readable, or it
// refuses to.
TEST_F(EnrolBlock, PowerLossAtAnyTime) {
  new_die();
  const auto begin = cycle_;
  run(kEnrol);
  const auto length = cycle_ - begin;
  int fresh = 0, spent = 0;
  for (int i = 0; i < 60; ++i) {
    power_up();
    command(kEnrol);
    // Half of the cases around the burning, at the end.
    const auto stop =
        i < 30 ? rng_() % length : length - 1 - static_cast<std::uint64_t>(i - 30) / 2;
    for (std::uint64_t n = 0; n < stop && dut_->busy_o; ++n) tick();
    const bool was_enrolled = enrolled_;
    reset();
    expect(kIdle, kNone);
    for (const bytes& b : {helper(), kek()}) {
      EXPECT_EQ(std::count(b.begin(), b.end(), 0), static_cast<long>(b.size()));
    }
    run(kEnrol);
    if (was_enrolled)
      expect(kIdle, kEnrolled);
    else
      expect(kExport, kNone);
    ++(was_enrolled ? spent : fresh);
  }
  EXPECT_GT(fresh, 30);
  EXPECT_GT(spent, 1);
}

TEST_F(EnrolBlock, ZeroiseAtAnyTime) {
  new_die();
  const auto begin = cycle_;
  run(kEnrol);
  const auto length = cycle_ - begin;
  const device d = from_helper(helper());
  run(kZeroise);
  expect(kIdle, kNone);
  for (int i = 0; i < 40; ++i) {
    power_up();
    drawn_.clear();
    command(kEnrol);
    const auto stop = rng_() % (length - 10);
    for (std::uint64_t n = 0; n < stop; ++n) tick();
    run(kZeroise);
    expect(kIdle, kNone, std::to_string(stop));
    EXPECT_FALSE(enrolled_);
    // Drop what stands at the inputs, then search for what is the same in every enrolment.
    const bytes scan = scan_;
    scan_.assign(768, 0);
    tick();
    tick();
    EXPECT_FALSE(state_holds(d.response)) << "after " << stop;
    EXPECT_FALSE(state_holds(scan)) << "after " << stop;
    scan_ = scan;
    run(kEnrol);
    expect(kExport, kNone, "enrolled after " + std::to_string(stop));
  }
}

TEST_F(EnrolBlock, FlippedStateBitsLock) {
  new_die();
  std::map<int, std::uint64_t> first;
  auto begin = cycle_;
  command(kEnrol);
  while (dut_->busy_o) {
    first.emplace(dut_->rootp->lk_enrol_block__DOT__state_q, cycle_ - begin);
    tick();
  }
  first.emplace(dut_->rootp->lk_enrol_block__DOT__state_q, cycle_ - begin);
  EXPECT_GE(first.size(), 15u);
  for (auto [code, when] : first) {
    for (int flips = 1; flips <= 2; ++flips) {
      power_up();
      begin = cycle_;
      command(kEnrol);
      while (cycle_ - begin < when) tick();
      ASSERT_EQ(dut_->rootp->lk_enrol_block__DOT__state_q, code);
      const int a = static_cast<int>(rng_() % 10), b = (a + 1 + static_cast<int>(rng_() % 9)) % 10;
      dut_->rootp->lk_enrol_block__DOT__state_q =
          static_cast<std::uint16_t>(code ^ 1 << a ^ (flips == 2 ? 1 << b : 0));
      for (int i = 0; i < 100; ++i) tick();
      expect(kLocked, kLockout, "state " + std::to_string(code));
      EXPECT_EQ(kek(), bytes(32));
      run(kEnrol);
      run(kZeroise);
      expect(kLocked, kLockout);
    }
  }
}

}  // namespace
