// lk_open_manifest: takes a whole manifest for this build and nothing else, and wipes what the last
// model left at every unwrap, good or bad.
#include <gtest/gtest.h>
#include <verilated.h>

#include <bit>
#include <vector>

#include "Vlk_open_manifest.h"
#include "latchkey_spec.hpp"
#include "rng.hpp"

namespace {

using namespace latchkey;
using spec::cmd;
using spec::key_err;
using spec::key_state;
using Words = std::vector<std::uint32_t>;

constexpr std::uint32_t kConfig = 0x20c0ffee;
constexpr int kWipe = 9;  // cycles that the wipe of the bench's chain and engine takes

class OpenManifest : public ::testing::Test {
 protected:
  void SetUp() override {
    top_.config_id_i = kConfig;
    top_.rst_ni = 0;
    tick();
    top_.rst_ni = 1;
    tick();
    wipes_ = 0;
  }

  void tick() {
    top_.wipe_busy_i = wiping_ > 0;
    top_.clk_i = 0;
    top_.eval();
    if (top_.wipe_o) {
      wiping_ = kWipe;
      ++wipes_;
    } else if (wiping_ > 0) {
      --wiping_;
    }
    top_.clk_i = 1;
    top_.eval();
  }

  Words good() {
    spec::manifest m{};
    m.magic = 0x464d'4b4c;
    m.format = spec::format_version;
    m.config_id = kConfig;
    m.version = rng_.word();
    m.num_pages = rng_.word();
    m.desc_pages = rng_.word();
    m.num_descs = rng_.word();
    m.max_batch = rng_.word();
    const auto words = std::bit_cast<std::array<std::uint32_t, spec::manifest_words>>(m);
    return {words.begin(), words.end()};
  }

  void rewind() {
    top_.fill_clear_i = 1;
    tick();
    top_.fill_clear_i = 0;
  }

  /// Writes words with pauses in which the data bus shows garbage.
  void fill(const Words& words, unsigned idle = 0) {
    for (const std::uint32_t w : words) {
      while (rng_.chance(idle)) {
        top_.wdata_i = rng_.word();
        tick();
      }
      top_.manifest_we_i = 1;
      top_.wdata_i = w;
      tick();
      top_.manifest_we_i = 0;
    }
  }

  void send(unsigned command) {
    top_.cmd_valid_i = 1;
    top_.cmd_i = static_cast<std::uint8_t>(command);
    tick();
    top_.cmd_valid_i = 0;
  }
  void send(cmd command) { send(static_cast<unsigned>(command)); }

  key_state state() const { return static_cast<key_state>(top_.state_o); }
  key_err err() const { return static_cast<key_err>(top_.err_o); }

  Words seen() const {
    Words w(spec::manifest_words);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = top_.manifest_o[i];
    return w;
  }

  void unwrap_refused(const Words& words, key_err why) {
    const int before = wipes_;
    rewind();
    fill(words);
    send(cmd::unwrap);
    EXPECT_EQ(err(), why);
    EXPECT_EQ(state(), key_state::failed);
    for (int i = 0; i < 2 * kWipe; ++i) {
      EXPECT_FALSE(top_.manifest_valid_o);
      tick();
    }
    EXPECT_EQ(wipes_, before + 1) << "a refused model also ends the last one";
  }

  test::Rng rng_{13};
  Vlk_open_manifest top_;
  int wiping_ = 0, wipes_ = 0;
};

TEST_F(OpenManifest, TakesAWholeManifestForThisBuild) {
  SCOPED_TRACE(rng_.name());
  EXPECT_EQ(state(), key_state::started);
  for (const unsigned idle : {0u, 60u}) {
    for (int i = 0; i < 20; ++i) {
      const Words words = good();
      rewind();
      fill(words, idle);
      EXPECT_FALSE(top_.manifest_valid_o) << "valid before the command";
      const int before = wipes_;
      send(cmd::unwrap);
      EXPECT_EQ(state(), key_state::busy) << "the last model's state is still being wiped";
      for (int n = 0; n < kWipe + 2 && state() == key_state::busy; ++n) tick();
      EXPECT_EQ(state(), key_state::key_loaded);
      EXPECT_EQ(err(), key_err::none);
      EXPECT_EQ(wipes_, before + 1);
      EXPECT_TRUE(top_.manifest_valid_o);
      EXPECT_EQ(seen(), words);
    }
  }
}

TEST_F(OpenManifest, RefusesEveryOtherNumberOfWords) {
  for (std::size_t n = 0; n <= 70; ++n) {
    if (n == spec::manifest_words) continue;
    SCOPED_TRACE(std::to_string(n) + " words");
    Words words = good();
    words.resize(n, words[0]);
    unwrap_refused(words, key_err::manifest_malformed);
  }
}

TEST_F(OpenManifest, RefusesEveryFlippedBitOfMagicFormatAndConfiguration) {
  const struct {
    std::size_t word;
    key_err why;
  } kFields[] = {{0, key_err::manifest_malformed},
                 {1, key_err::manifest_malformed},
                 {7, key_err::config_mismatch}};
  for (const auto& [word, why] : kFields) {
    for (int bit = 0; bit < 32; ++bit) {
      SCOPED_TRACE("word " + std::to_string(word) + " bit " + std::to_string(bit));
      Words words = good();
      words[word] ^= 1u << bit;
      unwrap_refused(words, why);
    }
  }
}

TEST_F(OpenManifest, AWriteOrARewindTakesTheManifestBack) {
  for (const bool write : {true, false}) {
    rewind();
    fill(good());
    send(cmd::unwrap);
    for (int i = 0; i <= kWipe; ++i) tick();
    ASSERT_TRUE(top_.manifest_valid_o);
    if (write)
      fill({0});
    else
      rewind();
    EXPECT_FALSE(top_.manifest_valid_o);
    send(cmd::unwrap);
    EXPECT_FALSE(top_.manifest_valid_o) << "what is left is not a whole manifest";
    EXPECT_EQ(err(), key_err::manifest_malformed);
  }
}

TEST_F(OpenManifest, ZeroiseDropsTheManifestAndWipes) {
  rewind();
  fill(good());
  send(cmd::unwrap);
  for (int i = 0; i <= kWipe; ++i) tick();
  const int before = wipes_;
  send(cmd::zeroise);
  EXPECT_FALSE(top_.manifest_valid_o);
  EXPECT_EQ(state(), key_state::busy);
  for (int i = 0; i < 2 * kWipe; ++i) tick();
  EXPECT_EQ(wipes_, before + 1);
  EXPECT_EQ(state(), key_state::started);
}

TEST_F(OpenManifest, OtherCommandsAreIllegalAndWipeNothing) {
  for (unsigned command = 0; command < 16; ++command) {
    if (command >= 1 && command <= 3) continue;
    send(command);
    EXPECT_EQ(err(), key_err::illegal_command) << command;
    EXPECT_EQ(state(), key_state::failed);
    send(cmd::start);
    EXPECT_EQ(err(), key_err::none);
    EXPECT_EQ(state(), key_state::started);
  }
  EXPECT_EQ(wipes_, 0);
}

}  // namespace
