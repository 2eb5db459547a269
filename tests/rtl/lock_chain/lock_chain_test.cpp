// lk_lock_chain against an AXI memory: pages are fetched with their tags, come out as plaintext in
// the order asked for, survive idles and back-pressure, and nothing passes after a failure.
#include <gtest/gtest.h>
#include <verilated.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "Vlk_lock_chain.h"
#include "latchkey_spec.hpp"
#include "lock/keys.hpp"

namespace {

using namespace latchkey;
constexpr std::uint32_t kPage = spec::page_bytes;
constexpr std::uint64_t kPages = 0x12345'0000'0000, kTags = 0x23456'0000'0000;

struct Request {
  std::uint32_t page;
  std::uint16_t region;
  std::uint32_t index;
};

class Chain : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kVersion = 7;

  void SetUp() override {
    const char* given = std::getenv("LATCHKEY_SEED");
    seed_ = given ? static_cast<unsigned>(std::atoi(given)) : 20260101u;
    rng_.seed(seed_);
    top_.rst_ni = 0;
    for (int i = 0; i < 4; ++i) tick();
    top_.rst_ni = 1;
    for (int i = 0; i < 600; ++i) tick();  // the ring wipes itself after a reset
  }

  /// `count` pages of random bytes in `region`, sealed as the host seals them.
  void make(std::uint32_t count, std::uint16_t region) {
    count_ = count;
    std::array<std::uint8_t, 16> key{};
    for (auto& b : key) b = static_cast<std::uint8_t>(rng_());
    lock::model_key dek{std::span<const std::uint8_t, 16>(key)};
    lock::page_cipher cipher(dek);
    plain_.resize(std::size_t{count} * kPage);
    for (auto& b : plain_) b = static_cast<std::uint8_t>(rng_());
    sealed_ = plain_;
    tags_.assign((count + 15) / 16 * 256, 0);
    for (std::uint32_t p = 0; p < count; ++p) {
      const auto iv = lock::page_iv(kVersion, region, p);
      cipher.seal(iv, std::span(plain_).subspan(std::size_t{p} * kPage, kPage),
                  std::span(sealed_).subspan(std::size_t{p} * kPage, kPage),
                  std::span<std::uint8_t, 16>(tags_.data() + 16 * p, 16));
    }
    top_.key_valid_i = 0;
    tick();
    std::memcpy(&top_.key_i, key.data(), 16);
    top_.key_valid_i = 1;
    for (int i = 0; i < 2000 && !top_.key_ready_o; ++i) tick();
    ASSERT_TRUE(top_.key_ready_o);
  }

  /// One cycle: the memory answers, beats that come out are kept.
  void tick(unsigned idle_percent = 0, unsigned stall_percent = 0) {
    top_.pages_addr_i = kPages;
    top_.tags_addr_i = kTags;
    top_.version_i = kVersion;
    top_.num_pages_i = count_;
    const bool serve = !beats_.empty() && rng_() % 100 >= idle_percent;
    // A beat that was offered stays.
    offered_ = offered_ || serve;
    top_.m_rvalid_i = offered_ && !beats_.empty();
    if (top_.m_rvalid_i) {
      std::memcpy(&top_.m_rdata_i, beats_.front().data.data(), 64);
      top_.m_rlast_i = beats_.front().last;
      top_.m_rresp_i = beats_.front().error ? 2 : 0;
    }
    top_.m_arready_i = rng_() % 100 >= idle_percent;
    top_.pg_ready_i = rng_() % 100 >= stall_percent;
    top_.clk_i = 0;
    top_.eval();
    const bool ar = top_.m_arvalid_o && top_.m_arready_i;
    const bool r = top_.m_rvalid_i && top_.m_rready_o;
    if (top_.rst_ni && last_ar_held_) {
      EXPECT_TRUE(top_.m_arvalid_o) << "the address was withdrawn";
      EXPECT_EQ(top_.m_araddr_o, last_araddr_);
    }
    last_ar_held_ = top_.rst_ni && top_.m_arvalid_o && !top_.m_arready_i;
    last_araddr_ = top_.m_araddr_o;
    if (top_.rst_ni && top_.pg_valid_o && top_.pg_ready_i) {
      std::array<std::uint8_t, 64> beat;
      std::memcpy(beat.data(), &top_.pg_data_o, 64);
      out_.insert(out_.end(), beat.begin(), beat.end());
    }
    accepted_ = top_.rst_ni && top_.req_valid_i && top_.req_ready_o;
    if (ar) burst(top_.m_araddr_o, top_.m_arlen_o + 1u);
    if (r) {
      beats_.pop_front();
      offered_ = false;
    }
    bus_errors_ += top_.rst_ni && top_.bus_error_o;
    top_.clk_i = 1;
    top_.eval();
    ++cycles_;
  }

  void burst(std::uint64_t address, unsigned beats) {
    ASSERT_EQ(address / 4096, (address + 64 * beats - 1) / 4096) << "a burst crosses 4 KiB";
    for (unsigned i = 0; i < beats; ++i, address += 64) {
      Beat b;
      const bool tag = address >= kTags;
      const auto& memory = tag ? tags_ : sealed_;
      const std::uint64_t at = address - (tag ? kTags : kPages);
      ASSERT_LE(at + 64, memory.size()) << "read outside the package";
      std::memcpy(b.data.data(), memory.data() + at, 64);
      b.last = i + 1 == beats;
      b.error = !tag && at / kPage == error_page_;
      beats_.push_back(b);
    }
  }

  /// Asks for the pages in order and runs until all came out, or a failure, or too many cycles.
  void run(const std::vector<Request>& requests, unsigned idle = 0, unsigned stall = 0) {
    out_.clear();
    cycles_ = 0;
    std::size_t next = 0;
    for (std::uint64_t limit = requests.size() * 1000 + 5000; cycles_ < limit;) {
      top_.req_valid_i = next < requests.size();
      if (top_.req_valid_i) {
        top_.req_page_i = requests[next].page;
        top_.req_region_i = requests[next].region;
        top_.req_index_i = requests[next].index;
      }
      tick(idle, stall);
      if (accepted_) ++next;
      if (top_.fail_o || out_.size() == requests.size() * kPage) break;
    }
    top_.req_valid_i = 0;
  }

  void expect_plain(const std::vector<Request>& requests) {
    ASSERT_EQ(out_.size(), requests.size() * kPage);
    for (std::size_t i = 0; i < requests.size(); ++i)
      ASSERT_EQ(
          std::memcmp(&out_[i * kPage], &plain_[std::size_t{requests[i].page} * kPage], kPage), 0)
          << "page " << requests[i].page << " (request " << i << "), seed " << seed_;
  }

  void flush() {
    top_.flush_i = 1;
    tick();
    for (int i = 0; i < 3000 && !(top_.idle_o && beats_.empty()); ++i) tick(10);
    EXPECT_TRUE(top_.idle_o);
    top_.flush_i = 0;
    for (int i = 0; i < 2000 && !(top_.key_ready_o && i > 2); ++i) tick();
    EXPECT_TRUE(top_.key_ready_o);
  }

  static std::vector<Request> sweep(std::uint32_t first, std::uint32_t count, std::uint32_t times) {
    std::vector<Request> requests;
    for (std::uint32_t t = 0; t < times; ++t)
      for (std::uint32_t p = first; p < first + count; ++p) requests.push_back({p, 3, p});
    return requests;
  }

  struct Beat {
    std::array<std::uint8_t, 64> data{};
    bool last = false, error = false;
  };
  Vlk_lock_chain top_;
  std::mt19937 rng_;
  unsigned seed_ = 0;
  std::uint32_t count_ = 0;
  std::vector<std::uint8_t> plain_, sealed_, tags_, out_;
  std::deque<Beat> beats_;
  bool offered_ = false, accepted_ = false, last_ar_held_ = false;
  std::uint64_t last_araddr_ = 0, cycles_ = 0, bus_errors_ = 0, error_page_ = ~std::uint64_t{0};
};

TEST_F(Chain, PagesComeOutInOrderThroughIdlesAndBackPressure) {
  make(70, 3);
  for (const unsigned idle : {0u, 30u, 80u})
    for (const unsigned stall : {0u, 30u, 80u}) {
      const auto requests = sweep(0, 70, 1);
      run(requests, idle, stall);
      expect_plain(requests);
    }
}

TEST_F(Chain, OneBeatACycleWithTagsFetchedAhead) {
  make(256, 3);
  const auto requests = sweep(0, 256, 1);
  run(requests);
  expect_plain(requests);
  // 64 beats a page, 4 beats of tags every 16 pages, and the latency of the first and last page.
  EXPECT_LE(cycles_, 256u * 64 + 16 * 4 + 120);
}

// Tiles that straddle a tag line and are swept again and again take the line anew each time.
TEST_F(Chain, TilesAcrossATagLineSweptFortyTimes) {
  make(40, 3);
  const auto requests = sweep(12, 8, 40);
  run(requests, 10, 0);
  expect_plain(requests);
}

TEST_F(Chain, RandomOrder) {
  make(100, 3);
  std::vector<Request> requests;
  for (int i = 0; i < 300; ++i) {
    const auto p = static_cast<std::uint32_t>(rng_() % 100);
    requests.push_back({p, 3, p});
  }
  run(requests, 20, 20);
  expect_plain(requests);
}

TEST_F(Chain, NothingOfAChangedPageOrAfterItPasses) {
  make(20, 3);
  sealed_[std::size_t{9} * kPage + 1234] ^= 4;
  run(sweep(0, 20, 1), 10, 0);
  EXPECT_TRUE(top_.fail_o);
  EXPECT_EQ(top_.fail_page_o, 9u);
  for (int i = 0; i < 3000; ++i) tick();
  EXPECT_LE(out_.size(), std::size_t{9} * kPage);
}

TEST_F(Chain, ChangedTagWrongRegionAndWrongIndexFail) {
  make(4, 3);
  tags_[16 * 2 + 5] ^= 1;
  run(sweep(0, 4, 1));
  EXPECT_TRUE(top_.fail_o);
  EXPECT_EQ(top_.fail_page_o, 2u);
  for (const Request wrong : {Request{0, 4, 0}, Request{0, 3, 1}}) {
    flush();
    run({wrong});
    EXPECT_TRUE(top_.fail_o);
  }
}

TEST_F(Chain, FlushInTheMiddleLeavesACleanChain) {
  make(40, 3);
  for (int cut = 1; cut < 1500; cut += 97) {
    const auto requests = sweep(0, 40, 1);
    out_.clear();
    std::size_t next = 0;
    for (int i = 0; i < cut; ++i) {
      top_.req_valid_i = 1;
      top_.req_page_i = top_.req_index_i = requests[next].page;
      top_.req_region_i = 3;
      tick(20, 20);
      if (accepted_) ++next;
    }
    top_.req_valid_i = 0;
    flush();
    run(requests, 0, 10);
    expect_plain(requests);
  }
}

// The next run may be of another package at the same place: its tags are fetched, not remembered.
TEST_F(Chain, TagsOfTheRunBeforeAreForgotten) {
  for (int package = 0; package < 3; ++package) {
    make(3, 3);
    top_.forget_i = 1;
    tick();
    top_.forget_i = 0;
    run(sweep(0, 3, 1));
    EXPECT_FALSE(top_.fail_o);
    expect_plain(sweep(0, 3, 1));
  }
}

TEST_F(Chain, BusErrorIsReported) {
  make(8, 3);
  error_page_ = 5;
  run(sweep(0, 8, 1));
  EXPECT_GT(bus_errors_, 0u);
}

}  // namespace
