// lk_drain alone: a wipe leaves no result in its FIFO. What it computes is tested in matmul_test.
#include <gtest/gtest.h>
#include <verilated.h>

#include <random>

#include "Vdrain.h"
#include "Vdrain___024root.h"

namespace {

constexpr int kSlots = 32, kWords = 5;  // of 140 bits: 128 of results, 12 of their place

class Drain : public ::testing::Test {
 protected:
  void SetUp() override {
    top_.rst_ni = 0;
    tick();
    top_.rst_ni = 1;
    tick();
  }

  void tick() {
    for (int i = 0; i < 16; ++i) top_.word_i[i] = rng_();
    top_.clk_i = 0;
    top_.eval();
    top_.clk_i = 1;
    top_.eval();
  }

  bool slot_is_zero(int slot) const {
    std::uint32_t any = 0;
    for (int w = 0; w < kWords; ++w) any |= top_.rootp->lk_drain__DOT__u_out__DOT__mem[slot][w];
    return any == 0;
  }

  /// Fills the FIFO with results that nobody takes; with a multiplier of zero all are the zero
  /// point.
  void fill() {
    top_.dr_valid_i = 1;
    top_.whole_i = 1;
    top_.dr_rows_i = 64;
    top_.dr_groups_i = 4;
    top_.dr_zero_i = 77;
    top_.dr_lo_i = 0x80;
    top_.dr_hi_i = 0x7f;
    top_.eval();
    ASSERT_TRUE(top_.dr_ready_o);
    tick();
    top_.dr_valid_i = 0;
    for (int i = 0; i < 100; ++i) tick();
    ASSERT_TRUE(top_.y_valid_o);
    for (int w = 0; w < 4; ++w) ASSERT_EQ(top_.y_data_o[w], 0x4d4d4d4du);
    for (int slot = 0; slot < kSlots; ++slot) ASSERT_FALSE(slot_is_zero(slot)) << slot;
  }

  std::mt19937 rng_{41};
  Vdrain top_;
};

TEST_F(Drain, WipeLeavesNoResultInTheFifo) {
  fill();
  // As lk_matmul wipes: for longer than the FIFO has slots, and with a clear beside it.
  top_.wipe_i = top_.clear_i = 1;
  for (int i = 0; i < 100; ++i) {
    tick();
    ASSERT_FALSE(top_.y_valid_o);
  }
  for (int slot = 0; slot < kSlots; ++slot) EXPECT_TRUE(slot_is_zero(slot)) << slot;
  top_.wipe_i = 0;
  tick();
  top_.clear_i = 0;
  tick();
  EXPECT_FALSE(top_.y_valid_o) << "the zeros are no results";
  fill();
}

// A clear only drops results; that it leaves them shows that the look above can fail.
TEST_F(Drain, ClearDropsResults) {
  fill();
  top_.clear_i = 1;
  tick();
  top_.clear_i = 0;
  tick();
  EXPECT_FALSE(top_.y_valid_o);
  EXPECT_FALSE(slot_is_zero(0));
}

}  // namespace
