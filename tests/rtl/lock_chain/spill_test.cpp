// lk_lock_chain as the way out and back of spilled activations: what lies in memory is AES-GCM
// under the key of the run, what comes back is what was put there last, and nothing else passes.
#include "chain_sim.hpp"

namespace latchkey::lock_chain {
namespace {

using Bytes = std::vector<std::uint8_t>;

class Spill : public Chain {
 protected:
  static constexpr std::uint32_t kArea = 64;

  void SetUp() override {
    Chain::SetUp();
    make(20, 3);
    new_run();
  }

  void new_run() {
    for (auto& b : run_key_) b = static_cast<std::uint8_t>(rng_());
    std::memcpy(&top_.run_key_i, run_key_.data(), 16);
    top_.run_key_valid_i = 1;
    top_.spill_pages_i = kArea;
  }

  Bytes random(std::size_t words) {
    Bytes b(64 * words);
    for (auto& x : b) x = static_cast<std::uint8_t>(rng_());
    return b;
  }

  /// Seals the words from `page` on; `cut`: stops after so many cycles. True if all was taken.
  bool spill(std::uint32_t page, const Bytes& words, unsigned idle = 0, unsigned pause = 0,
             std::uint64_t cut = ~std::uint64_t{0}) {
    top_.seal_i = 1;
    top_.spill_page_i = page;
    std::size_t at = 0;
    std::uint64_t cycles = 0;
    bool offered = false;
    for (const std::uint64_t limit = words.size() * 2 + 20000; at < words.size(); ++cycles) {
      if (cycles == cut || cycles == limit || top_.spill_bad_o) return false;
      offered = offered || rng_() % 100 >= pause;
      top_.sl_valid_i = offered;
      std::memcpy(&top_.sl_data_i, words.data() + at, 64);
      top_.sl_last_i = at + 64 == words.size();
      tick(idle, 100);
      if (taken_word_) {
        at += 64;
        offered = false;
      }
    }
    top_.sl_valid_i = 0;
    top_.seal_i = 0;
    return settle(idle);
  }

  bool settle(unsigned idle = 0) {
    for (int i = 0; i < 20000 && !top_.settled_o; ++i) tick(idle, 100);
    for (int i = 0; i < 500 && !top_.key_ready_o; ++i) tick(idle, 100);
    return top_.settled_o && top_.key_ready_o;
  }

  /// Asks for `pages` of the area from `page` on. What comes is in out_.
  void load(std::uint32_t page, std::uint32_t pages, unsigned idle = 0, unsigned stall = 0) {
    out_.clear();
    top_.unseal_i = 1;
    std::uint32_t next = 0;
    for (std::uint64_t i = 0; i < pages * 1000ull + 3000; ++i) {
      top_.req_valid_i = next < pages;
      top_.req_spilled_i = 1;
      top_.req_page_i = top_.req_index_i = page + next;
      tick(idle, stall);
      if (accepted_) ++next;
      if (top_.fail_o || out_.size() == std::size_t{pages} * kPage) break;
    }
    top_.req_valid_i = top_.req_spilled_i = 0;
    top_.unseal_i = 0;
    if (!top_.fail_o) EXPECT_TRUE(settle(idle));
  }

  void expect_loaded(const Bytes& words) {
    ASSERT_GE(out_.size(), words.size());
    EXPECT_TRUE(std::equal(words.begin(), words.end(), out_.begin())) << "seed " << seed_;
    EXPECT_TRUE(std::all_of(out_.begin() + static_cast<std::ptrdiff_t>(words.size()), out_.end(),
                            [](std::uint8_t b) { return b == 0; }))
        << "the rest of the last page is not zero";
  }

  static std::uint32_t pages_of(const Bytes& words) {
    return static_cast<std::uint32_t>((words.size() + kPage - 1) / kPage);
  }

  void expect_refused(std::uint32_t page, std::uint32_t failing) {
    load(page, 1);
    EXPECT_TRUE(top_.fail_o);
    EXPECT_TRUE(top_.fail_spilled_o);
    EXPECT_EQ(top_.fail_page_o, failing);
    for (int i = 0; i < 3000; ++i) tick();
    EXPECT_TRUE(out_.empty());
    flush();
  }

  std::uint8_t& state() { return top_.rootp->lk_lock_chain__DOT__state_q; }
  std::uint8_t& run_key() { return top_.rootp->lk_lock_chain__DOT__run_key_q; }
  static constexpr std::uint8_t kSeal = 0b011110;  // of lk_lock_chain's state_e

  std::array<std::uint8_t, 16> run_key_{};
};

// The n-th page that is sealed has the IV page u32 | 0 u32 | n u32, big-endian; OpenSSL is the
// judge.
TEST_F(Spill, MemoryHoldsGcmUnderTheRunKey) {
  std::uint32_t number = 0;
  for (const std::uint32_t page : {0u, 5u, 5u, 62u}) {
    const Bytes words = random(page == 62 ? 65 : 64);
    ASSERT_TRUE(spill(page, words));
    lock::model_key key{std::span<const std::uint8_t, 16>(run_key_)};
    lock::page_cipher cipher(key);
    for (std::uint32_t p = 0; p < pages_of(words); ++p, ++number) {
      Bytes plain(kPage, 0), sealed(kPage), tag(16);
      std::copy_n(words.begin() + p * kPage, std::min<std::size_t>(kPage, words.size() - p * kPage),
                  plain.begin());
      std::array<std::uint8_t, 12> iv{};
      iv[3] = static_cast<std::uint8_t>(page + p);
      iv[11] = static_cast<std::uint8_t>(number);
      cipher.seal(iv, plain, sealed, std::span<std::uint8_t, 16>(tag.data(), 16));
      EXPECT_TRUE(std::equal(sealed.begin(), sealed.end(), spill_[page + p].begin()))
          << "page " << page + p << ", seed " << seed_;
    }
  }
}

TEST_F(Spill, ComesBackThroughIdlesAndBackPressure) {
  for (const unsigned idle : {0u, 30u, 80u}) {
    for (const std::size_t words : {1u, 63u, 64u, 65u, 700u}) {
      const Bytes data = random(words);
      const auto page = static_cast<std::uint32_t>(rng_() % 40);
      ASSERT_TRUE(spill(page, data, idle, idle));
      load(page, pages_of(data), idle, idle);
      ASSERT_FALSE(top_.fail_o);
      expect_loaded(data);
    }
  }
}

// Weights that are verified already wait in the ring while something is sealed, and come out after
// it; more are fetched then.
TEST_F(Spill, PagesOfThePackageWaitMeanwhile) {
  const auto requests = sweep(0, 20, 1);
  const Bytes data = random(300);
  std::size_t next = 0;
  out_.clear();
  const auto ask = [&](int cycles, unsigned stall) {
    for (int i = 0; i < cycles; ++i) {
      top_.req_valid_i = next < requests.size();
      if (next < requests.size()) {
        top_.req_page_i = top_.req_index_i = requests[next].page;
        top_.req_region_i = 3;
      }
      tick(0, stall);
      if (accepted_) ++next;
    }
  };
  ask(300, 100);  // nobody reads: some pages stand, some are on their way
  ASSERT_GT(next, 2u);
  ASSERT_TRUE(spill(3, data, 10));
  ask(20 * 64 + 1000, 0);
  top_.req_valid_i = 0;
  expect_plain(requests);
  load(3, pages_of(data));
  expect_loaded(data);
}

TEST_F(Spill, ChangedMovedOldAndUnwrittenPagesFail) {
  const Bytes first = random(128), second = random(64);
  ASSERT_TRUE(spill(8, first));
  const auto old = spill_[8];
  ASSERT_TRUE(spill(8, second));
  load(8, 1);
  expect_loaded(second);
  const auto good = spill_;

  spill_[8][100] ^= 1;  // changed
  expect_refused(8, 8);
  spill_ = good;
  spill_[8] = old;  // what lay there before, sealed in this very run
  expect_refused(8, 8);
  spill_ = good;
  spill_[8] = good.at(9);  // its neighbour
  expect_refused(8, 8);
  spill_ = good;
  expect_refused(20, 20);  // never written in this run
  load(9, 1);              // and what was left alone is as it was
  ASSERT_FALSE(top_.fail_o);
  EXPECT_TRUE(std::equal(out_.begin(), out_.end(), first.begin() + kPage));

  new_run();  // a page of the run before, under its own key
  expect_refused(8, 8);
}

// No beat of the memory's write port ever holds what was to be sealed, and none leaves otherwise.
TEST_F(Spill, NothingInClearIsWritten) {
  run(sweep(0, 20, 2), 10, 10);
  EXPECT_TRUE(written_.empty());
  const Bytes zeros(64 * 200, 0);
  ASSERT_TRUE(spill(0, zeros));
  EXPECT_EQ(written_.size(), 4u * 64);
  for (std::size_t i = 0; i < written_.size(); ++i)
    for (std::size_t k = i + 1; k < written_.size(); ++k) EXPECT_NE(written_[i], written_[k]);
}

TEST_F(Spill, PageBeyondTheAreaIsRefusedUnwritten) {
  EXPECT_FALSE(spill(kArea - 1, random(65)));
  EXPECT_TRUE(top_.spill_bad_o);
  EXPECT_FALSE(spill_.contains(kArea));
  top_.seal_i = top_.sl_valid_i = 0;
  flush();
  EXPECT_FALSE(top_.spill_bad_o);
}

TEST_F(Spill, FlushAnywhereEndsItsBurstsAndLeavesACleanChain) {
  const Bytes data = random(256);
  for (std::uint64_t cut = 1; cut < 600; cut += 13) {
    spill(4, data, 30, 10, cut);
    top_.seal_i = top_.sl_valid_i = 0;
    flush();
    if (cut % 3 == 0) {
      run(sweep(0, 4, 1));
      expect_plain(sweep(0, 4, 1));
    } else {
      ASSERT_TRUE(spill(1, data));
      load(1, 4);
      ASSERT_FALSE(top_.fail_o) << "cut at " << cut << ", page " << top_.fail_page_o;
      expect_loaded(data);
    }
  }
}

TEST_F(Spill, WipeInTheMiddleForgetsTheKeys) {
  EXPECT_FALSE(spill(4, random(256), 0, 0, 300));
  top_.seal_i = top_.sl_valid_i = 0;
  top_.key_valid_i = 0;
  top_.run_key_valid_i = 0;
  top_.wipe_i = 1;
  tick();
  top_.wipe_i = 0;
  for (int i = 0; i < 2000; ++i) tick();
  EXPECT_FALSE(top_.key_ready_o);
  EXPECT_TRUE(top_.idle_o);
  EXPECT_TRUE(bursts_.empty() && answers_.empty());
}

TEST_F(Spill, WriteErrorIsReported) {
  write_error_ = true;
  EXPECT_TRUE(spill(0, random(64)));
  EXPECT_GT(bus_errors_, 0u);
}

// A flipped bit of the state makes a code that does not exist: nothing passes, and the chain says
// so.
TEST_F(Spill, FlippedStateBitsTrap) {
  const Bytes data = random(128);
  for (unsigned bit = 0; bit < 6; ++bit) {
    for (const bool sealing : {false, true}) {
      SetUp();
      if (sealing) spill(4, data, 0, 0, 150);
      state() ^= static_cast<std::uint8_t>(1u << bit);
      const std::size_t before = written_.size();
      for (int i = 0; i < 300; ++i) tick();
      EXPECT_TRUE(top_.fail_o);
      // What was in the FIFO is ciphertext and may still leave.
      EXPECT_LE(written_.size(), before + (sealing ? 32u : 0u));
      top_.seal_i = top_.sl_valid_i = 0;
      run(sweep(0, 4, 1));
      EXPECT_TRUE(out_.empty());
    }
  }
}

// The state alone does not bring what leaves the cipher under the model key to the memory, nor does
// the note alone that the key of the run was loaded.
TEST_F(Spill, MemoryWriteNeedsStateAndKey) {
  const auto attempt = [&](bool flip_state) {
    SetUp();
    std::size_t next = 0;
    for (int i = 0; i < 600; ++i) {
      top_.req_valid_i = 1;
      top_.req_page_i = top_.req_index_i = next % 20;
      top_.req_region_i = 3;
      if (i >= 150 && flip_state) state() = kSeal;
      if (i >= 150 && !flip_state) run_key() = 1;
      tick();
      next += accepted_;
    }
    EXPECT_TRUE(written_.empty());
  };
  attempt(true);
  attempt(false);
}

// A word a cycle, and one change of the key each way.
TEST_F(Spill, OneWordACycle) {
  const Bytes data = random(32 * 64);
  const std::uint64_t before = cycles_total_;
  ASSERT_TRUE(spill(0, data));
  EXPECT_LE(cycles_total_ - before, 32u * 64 + 330);
  const std::uint64_t then = cycles_total_;
  load(0, 32);
  expect_loaded(data);
  EXPECT_LE(cycles_total_ - then, 32u * 64 + 330);
}

}  // namespace
}  // namespace latchkey::lock_chain
