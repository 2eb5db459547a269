// The ring alone (4 slots of 8 beats): order, back-pressure, verdicts, broken protocol, wipe.
#include <gtest/gtest.h>

#include <deque>

#include "Vlk_tile_ring.h"
#include "Vlk_tile_ring___024root.h"
#include "reference.h"

namespace latchkey::test {
namespace {

constexpr int kSlots = 4, kBeats = 8;

class TileRing : public ::testing::Test {
 protected:
  void SetUp() override {
    dut.rst_ni = 0;
    step();
    dut.rst_ni = 1;
    EXPECT_EQ(wait_wipe(), kSlots * kBeats + 1);  // reset wipes, too
  }

  int wait_wipe() {
    int n = 0;
    dut.eval();
    while (dut.wipe_busy_o && n < 1000) {
      EXPECT_FALSE(dut.slot_free_o);
      step();
      ++n;
    }
    return n;
  }

  void step() {
    dut.clk_i = 0;
    dut.eval();
    if (dut.rd_valid_o && dut.rd_ready_i) {
      const Bytes b = from_wide(dut.rd_data_o, 64);
      read.push_back(b);
      EXPECT_EQ(dut.rd_first_o, (read.size() - 1) % kBeats == 0);
      EXPECT_EQ(dut.rd_last_o, (read.size() - 1) % kBeats == kBeats - 1);
      read_at.push_back(cycle);
    }
    dut.clk_i = 1;
    dut.eval();
    ++cycle;
  }

  void take() {
    dut.slot_take_i = 1;
    step();
    dut.slot_take_i = 0;
  }

  // Writes a page of beats filled with `value`, plus the verdict if any.
  void write_page(uint8_t value, int verdict) {
    for (int i = 0; i < kBeats; ++i) {
      to_wide(dut.wr_data_i, Bytes(64, static_cast<uint8_t>(value + i)).data(), 64);
      dut.wr_valid_i = 1;
      dut.wr_last_i = i == kBeats - 1;
      step();
    }
    dut.wr_valid_i = 0;
    dut.wr_last_i = 0;
    if (verdict >= 0) send_verdict(verdict != 0);
  }

  void send_verdict(bool ok) {
    dut.verdict_valid_i = 1;
    dut.verdict_ok_i = ok;
    dut.verdict_bad_i = !ok;
    step();
    dut.verdict_valid_i = 0;
  }

  void idle(int n) {
    for (int i = 0; i < n; ++i) step();
  }

  void expect_only(const std::vector<uint8_t>& pages) {
    ASSERT_EQ(read.size(), pages.size() * kBeats);
    for (size_t i = 0; i < read.size(); ++i) {
      ASSERT_EQ(read[i], Bytes(64, static_cast<uint8_t>(pages[i / kBeats] + i % kBeats)));
    }
  }

  Vlk_tile_ring dut;
  std::vector<Bytes> read;
  std::vector<uint64_t> read_at;
  uint64_t cycle = 0;
};

TEST_F(TileRing, NothingIsReadableBeforeItsVerdict) {
  dut.rd_ready_i = 1;
  take();
  write_page(10, -1);
  idle(100);
  EXPECT_TRUE(read.empty());
  EXPECT_FALSE(dut.rd_valid_o);
  const uint64_t at = cycle;
  send_verdict(true);
  idle(20);
  expect_only({10});
  EXPECT_EQ(read_at.front(), at + 3);
  EXPECT_EQ(read_at.back(), at + 3 + kBeats - 1);
}

TEST_F(TileRing, SlotsAreReservedAndFreedByTheLastRead) {
  for (int i = 0; i < kSlots; ++i) {
    EXPECT_TRUE(dut.slot_free_o);
    take();
  }
  EXPECT_FALSE(dut.slot_free_o);
  for (int i = 0; i < kSlots; ++i) write_page(static_cast<uint8_t>(20 * i), 1);
  idle(10);
  EXPECT_FALSE(dut.slot_free_o);
  dut.rd_ready_i = 1;
  while (read.size() < kBeats - 1) step();
  EXPECT_FALSE(dut.slot_free_o);
  step();
  EXPECT_TRUE(dut.slot_free_o);
  idle(40);
  expect_only({0, 20, 40, 60});
  // four full pages leave without a gap
  EXPECT_EQ(read_at.back() - read_at.front(), static_cast<uint64_t>(kSlots * kBeats - 1));
}

TEST_F(TileRing, RandomTrafficKeepsOrderAndLosesNothing) {
  const uint64_t seed = test_seed(21);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (const unsigned wr : {1u, 2u, 6u}) {
    for (const unsigned rd : {1u, 2u, 6u}) {
      read.clear();
      read_at.clear();
      std::vector<Bytes> sent;
      std::deque<uint64_t> verdicts;  // cycles at which they are due
      int taken = 0, pages = 0;
      const size_t want = 40 * kBeats;
      for (int guard = 0; guard < 40000 && read.size() < want; ++guard) {
        dut.rd_ready_i = rng() % rd == 0;
        dut.clk_i = 0;
        dut.eval();
        dut.slot_take_i = dut.slot_free_o && taken < 40 && rng() % 3 == 0;
        taken += dut.slot_take_i;
        const int at = static_cast<int>(sent.size());
        dut.wr_valid_i =
            at < taken * kBeats && at / kBeats < taken - dut.slot_take_i && rng() % wr == 0;
        dut.wr_last_i = at % kBeats == kBeats - 1;
        if (dut.wr_valid_i) {
          sent.push_back(random_bytes(rng, 64));
          to_wide(dut.wr_data_i, sent.back().data(), 64);
          // Some verdicts come before the end of their page.
          if (at % kBeats == kBeats / 2) verdicts.push_back(cycle + 1 + rng() % 20);
        }
        dut.verdict_valid_i = !verdicts.empty() && verdicts.front() <= cycle;
        dut.verdict_ok_i = 1;
        dut.verdict_bad_i = 0;
        if (dut.verdict_valid_i) {
          verdicts.pop_front();
          ++pages;
        }
        step();
        ASSERT_LE(read.size(), static_cast<size_t>(pages * kBeats));
        ASSERT_LE(read.size(), sent.size());
        ASSERT_FALSE(dut.fail_o);
      }
      dut.wr_valid_i = 0;
      dut.verdict_valid_i = 0;
      dut.slot_take_i = 0;
      ASSERT_EQ(read, sent) << wr << " " << rd;
    }
  }
}

// A verdict may come before the end of its page: what is read stops at what is written.
TEST_F(TileRing, NothingIsReadBeforeItIsWritten) {
  dut.rd_ready_i = 1;
  take();
  const auto write = [&](int beat) {
    const Bytes data(64, static_cast<uint8_t>(beat));
    to_wide(dut.wr_data_i, data.data(), 64);
    dut.wr_valid_i = 1;
    dut.wr_last_i = beat == kBeats - 1;
    step();
    dut.wr_valid_i = 0;
    dut.wr_last_i = 0;
  };
  for (int i = 0; i < kBeats - 2; ++i) write(i);
  send_verdict(true);
  idle(3 * kBeats);
  EXPECT_EQ(read.size(), size_t{kBeats - 2});
  write(kBeats - 2);
  idle(20);
  EXPECT_EQ(read.size(), size_t{kBeats - 1});
  write(kBeats - 1);
  idle(20);
  EXPECT_FALSE(dut.fail_o);
  ASSERT_EQ(read.size(), size_t{kBeats});
  for (int i = 0; i < kBeats; ++i) EXPECT_EQ(read[i], Bytes(64, static_cast<uint8_t>(i)));
}

TEST_F(TileRing, FailedPageStopsItAndAllAfterIt) {
  for (int i = 0; i < 4; ++i) take();
  write_page(10, 1);
  write_page(30, 1);
  write_page(50, 0);
  write_page(70, 1);
  EXPECT_TRUE(dut.fail_o);
  EXPECT_EQ(dut.fail_page_o, 2u);
  EXPECT_FALSE(dut.slot_free_o);
  dut.rd_ready_i = 1;
  idle(200);
  expect_only({10, 30});  // verified before the failure
  EXPECT_TRUE(dut.fail_o);
  EXPECT_FALSE(dut.slot_free_o);
  dut.clear_i = 1;
  step();
  dut.clear_i = 0;
  EXPECT_FALSE(dut.fail_o);
  read.clear();
  take();
  write_page(90, 1);
  idle(20);
  expect_only({90});
}

TEST_F(TileRing, BrokenOrderFailsClosed) {
  const auto expect_fail = [&](const char* what) {
    idle(30);
    EXPECT_TRUE(dut.fail_o) << what;
    EXPECT_TRUE(read.empty()) << what;
    EXPECT_FALSE(dut.rd_valid_o) << what;
    dut.clear_i = 1;
    step();
    dut.clear_i = 0;
    step();
    EXPECT_FALSE(dut.fail_o) << what;
  };
  dut.rd_ready_i = 1;
  write_page(1, 1);
  expect_fail("page without a slot");

  take();
  send_verdict(true);
  write_page(1, 1);
  expect_fail("verdict before the page");

  take();
  dut.wr_valid_i = 1;
  dut.wr_last_i = 1;
  step();
  dut.wr_valid_i = 0;
  dut.wr_last_i = 0;
  send_verdict(true);
  expect_fail("short page");

  take();
  for (int i = 0; i < kBeats; ++i) {
    dut.wr_valid_i = 1;
    step();
  }
  dut.wr_valid_i = 0;
  send_verdict(true);
  expect_fail("page without an end");

  take();
  write_page(1, -1);
  send_verdict(true);
  read.clear();
  dut.clear_i = 1;
  step();
  dut.clear_i = 0;
  read.clear();
  idle(20);
  EXPECT_TRUE(read.empty());  // cleared pages do not come back
}

// The two counts of readable pages: any flipped bit of either stops reading.
TEST_F(TileRing, ADifferenceBetweenTheCountsStopsReading) {
  constexpr int kCountBits = 3;
  const auto flip = [&](int bit) {
    auto& half = bit < kCountBits ? dut.rootp->lk_tile_ring__DOT__verified_q
                                  : dut.rootp->lk_tile_ring__DOT__judged_q;
    half ^= static_cast<uint8_t>(1u << bit % kCountBits);
  };
  for (int bit = 0; bit < 2 * kCountBits; ++bit) {
    SCOPED_TRACE("bit " + std::to_string(bit));
    const auto clear = [&] {
      EXPECT_TRUE(dut.fail_o);
      EXPECT_FALSE(dut.slot_free_o);
      dut.clear_i = 1;
      step();
      dut.clear_i = 0;
      read.clear();
      EXPECT_FALSE(dut.fail_o);
    };
    // A whole page without a verdict, for which the flip stands.
    dut.rd_ready_i = 1;
    take();
    write_page(10, -1);
    flip(bit);
    idle(40);
    EXPECT_TRUE(read.empty());
    clear();

    // A verified page in the middle of its reading, and another behind it that is not: what the
    // read pipeline holds still leaves.
    take();
    take();
    dut.rd_ready_i = 0;
    write_page(30, 1);
    write_page(50, -1);
    dut.rd_ready_i = 1;
    for (int i = 0; i < 100 && read.size() < 2; ++i) step();
    ASSERT_EQ(read.size(), 2u);
    flip(bit);
    const size_t before = read.size();
    idle(40);
    EXPECT_LE(read.size(), before + 2);
    for (size_t i = 0; i < read.size(); ++i)
      EXPECT_EQ(read[i], Bytes(64, static_cast<uint8_t>(30 + i)));
    send_verdict(true);
    idle(40);
    EXPECT_LE(read.size(), before + 2) << "a later verdict mends nothing";
    clear();
  }
}

// A verdict comes on two wires; either alone passes nothing.
TEST_F(TileRing, VerdictsThatContradictThemselvesFail) {
  for (const bool level : {false, true}) {
    SCOPED_TRACE(level);
    read.clear();
    dut.rd_ready_i = 1;
    take();
    write_page(10, -1);
    dut.verdict_valid_i = 1;
    dut.verdict_ok_i = dut.verdict_bad_i = level;
    step();
    dut.verdict_valid_i = 0;
    idle(40);
    EXPECT_TRUE(dut.fail_o);
    EXPECT_TRUE(read.empty());
    dut.clear_i = 1;
    step();
    dut.clear_i = 0;
    step();
    EXPECT_FALSE(dut.fail_o);
  }
}

TEST_F(TileRing, WipeZeroesTheMemoryAndTheLatch) {
  for (int i = 0; i < kSlots; ++i) take();
  for (int i = 0; i < kSlots; ++i) write_page(static_cast<uint8_t>(11 + 20 * i), 1);
  idle(5);
  EXPECT_TRUE(dut.rd_valid_o);
  for (int i = 0; i < kSlots * kBeats; ++i) {
    EXPECT_NE(from_wide(dut.rootp->lk_tile_ring__DOT__mem[i], 64), Bytes(64, 0)) << i;
  }
  EXPECT_NE(from_wide(dut.rootp->lk_tile_ring__DOT__ram_q, 64), Bytes(64, 0));
  dut.wipe_i = 1;
  step();
  dut.wipe_i = 0;
  EXPECT_FALSE(dut.rd_valid_o);
  EXPECT_EQ(from_wide(dut.rd_data_o, 64), Bytes(64, 0));
  EXPECT_EQ(wait_wipe(), kSlots * kBeats + 1);
  // No port can read an unverified address, so look into the model.
  for (int i = 0; i < kSlots * kBeats; ++i) {
    EXPECT_EQ(from_wide(dut.rootp->lk_tile_ring__DOT__mem[i], 64), Bytes(64, 0)) << i;
  }
  EXPECT_EQ(from_wide(dut.rootp->lk_tile_ring__DOT__ram_q, 64), Bytes(64, 0));
}

}  // namespace
}  // namespace latchkey::test
