// lk_run_key: fresh words make a key, a source that repeats itself or stays silent makes none,
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

/// Words of a draw, none equal to its neighbour.
std::vector<std::uint32_t> fresh(std::uint32_t seed) {
  std::vector<std::uint32_t> words(32);
  for (std::uint32_t i = 0; i < 32; ++i) words[i] = seed * 0x9e3779b9u + i * i * 0x01000193u + i;
  return words;
}

TEST_F(RunKey, EightFreshWordsMakeOne) {
  EXPECT_FALSE(top_.valid_o || top_.trng_req_o);
  for (const std::uint32_t seed : {5u, 50u}) {
    std::vector<std::uint32_t> words = fresh(seed);
    Words want{};
    for (std::size_t i = 0; i < words.size(); ++i) want[i % 4] ^= words[i];
    words.pop_back();
    draw(words);
    EXPECT_FALSE(top_.valid_o);
    EXPECT_TRUE(top_.trng_req_o);
    draw(fresh(seed));  // a draw that was cut short leaves nothing in the next
    EXPECT_TRUE(top_.valid_o);
    EXPECT_FALSE(top_.fail_o || top_.trng_req_o);
    EXPECT_EQ(key(), want);
  }
  top_.clear_i = 1;
  tick();
  EXPECT_FALSE(top_.valid_o);
  EXPECT_EQ(key(), Words{});
}

TEST_F(RunKey, ASourceThatRepeatsItselfMakesNone) {
  for (const std::size_t at : {1u, 16u, 31u}) {
    std::vector<std::uint32_t> words = fresh(3);
    words[at] = words[at - 1];
    draw(words);
    EXPECT_TRUE(top_.fail_o);
    EXPECT_FALSE(top_.valid_o || top_.trng_req_o);
    EXPECT_EQ(key(), Words{});
  }
  draw(fresh(4));
  EXPECT_TRUE(top_.valid_o);
  // A source that stands still from one run to the next.
  draw({fresh(4).back()});
  EXPECT_TRUE(top_.fail_o);
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
