// lk_run_key: four fresh words make a key, a source that repeats itself or stays silent makes none,
// and a key is gone with its run.
#include <gtest/gtest.h>
#include <verilated.h>

#include <array>
#include <cstring>
#include <vector>

#include "Vlk_run_key.h"

namespace {

using Words = std::array<std::uint32_t, 4>;

class RunKey : public ::testing::Test {
 protected:
  void SetUp() override {
    top_.rst_ni = 0;
    tick();
    top_.rst_ni = 1;
    tick();
  }

  void tick() {
    top_.clk_i = 0;
    top_.eval();
    top_.clk_i = 1;
    top_.eval();
  }

  /// Draws; the source gives the words, one every `pause` cycles.
  void draw(const std::vector<std::uint32_t>& words, int pause = 3) {
    top_.draw_i = 1;
    tick();
    top_.draw_i = 0;
    for (const std::uint32_t w : words) {
      for (int i = 0; i < pause; ++i) tick();
      top_.trng_valid_i = 1;
      top_.trng_data_i = w;
      tick();
      top_.trng_valid_i = 0;
      top_.trng_data_i = 0;
    }
    tick();
  }

  Words key() const {
    Words w;
    std::memcpy(w.data(), &top_.key_o, sizeof w);
    return w;
  }

  Vlk_run_key top_;
};

TEST_F(RunKey, FourFreshWords) {
  EXPECT_FALSE(top_.valid_o || top_.trng_req_o);
  draw({1, 2, 3});
  EXPECT_FALSE(top_.valid_o);
  EXPECT_TRUE(top_.trng_req_o);
  for (const std::uint32_t first : {5u, 50u}) {
    draw({first, 6, 7, 5});
    EXPECT_TRUE(top_.valid_o);
    EXPECT_FALSE(top_.fail_o || top_.trng_req_o);
    EXPECT_EQ(key(), (Words{first, 6, 7, 5}));
  }
  top_.clear_i = 1;
  tick();
  EXPECT_FALSE(top_.valid_o);
  EXPECT_EQ(key(), Words{});
}

TEST_F(RunKey, ASourceThatRepeatsItselfMakesNone) {
  for (const auto& words : std::vector<std::vector<std::uint32_t>>{
           {7, 7, 8, 9}, {7, 8, 8, 9}, {7, 8, 9, 9}, {0, 0, 0, 0}}) {
    draw(words);
    EXPECT_TRUE(top_.fail_o);
    EXPECT_FALSE(top_.valid_o || top_.trng_req_o);
    EXPECT_EQ(key(), Words{});
  }
  draw({1, 2, 3, 4});
  EXPECT_TRUE(top_.valid_o);
  // What the last draw left is no word of this one.
  draw({4, 2, 3, 1});
  EXPECT_TRUE(top_.valid_o);
}

TEST_F(RunKey, ASourceThatStopsMakesNone) {
  draw({1, 2});
  for (int i = 0; i < (1 << 20) + 5; ++i) tick();
  EXPECT_TRUE(top_.fail_o);
  EXPECT_FALSE(top_.valid_o || top_.trng_req_o);
  EXPECT_EQ(key(), Words{});
  top_.clear_i = 1;
  tick();
  top_.clear_i = 0;
  tick();
  EXPECT_FALSE(top_.fail_o);
}

}  // namespace
