// lk_lock_chain with a package and a spill area in an AXI memory.
#pragma once

#include <gtest/gtest.h>
#include <verilated.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "Vlk_lock_chain.h"
#include "Vlk_lock_chain___024root.h"
#include "latchkey_spec.hpp"
#include "lock/keys.hpp"
#include "seed.hpp"

namespace latchkey::lock_chain {

constexpr std::uint32_t kPage = spec::page_bytes;
constexpr std::uint64_t kPages = 0x12345'0000'0000, kTags = 0x23456'0000'0000,
                        kSpill = 0x34567'0000'0000;

struct Request {
  std::uint32_t page;
  std::uint16_t region;
  std::uint32_t index;
};

class Chain : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kVersion = 7;

  void SetUp() override {
    seed_ = static_cast<unsigned>(test::test_seed(20260101));
    rng_.seed(seed_);
    beats_.clear(), bursts_.clear(), answers_.clear(), early_beats_.clear();
    offered_ = aw_held_ = w_held_ = last_ar_held_ = false;
    burst_beat_ = 0;
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
    top_.run_key_valid_i = 0;
    for (int i = 0; i < 2000 && !top_.key_ready_o; ++i) tick();
    ASSERT_TRUE(top_.key_ready_o);
  }

  /// One cycle: the memory answers, beats that come out are kept.
  void tick(unsigned idle_percent = 0, unsigned stall_percent = 0) {
    top_.pages_addr_i = kPages;
    top_.tags_addr_i = kTags;
    top_.version_i = kVersion;
    top_.num_pages_i = count_;
    top_.spill_addr_i = kSpill;
    writes_before(idle_percent);
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
    taken_word_ = top_.rst_ni && top_.sl_valid_i && top_.sl_ready_o;
    accepted_ = top_.rst_ni && top_.req_valid_i && top_.req_ready_o;
    if (ar) burst(top_.m_araddr_o, top_.m_arlen_o + 1u);
    if (r) {
      beats_.pop_front();
      offered_ = false;
    }
    bus_errors_ += top_.rst_ni && top_.bus_error_o;
    writes_after();
    top_.clk_i = 1;
    top_.eval();
    ++cycles_;
  }

  void burst(std::uint64_t address, unsigned beats) {
    ASSERT_EQ(address / 4096, (address + 64 * beats - 1) / 4096) << "a burst crosses 4 KiB";
    for (unsigned i = 0; i < beats; ++i, address += 64) {
      Beat b;
      if (address >= kSpill) {
        const auto& page = spill_[static_cast<std::uint32_t>((address - kSpill) / kPage)];
        std::memcpy(b.data.data(), page.data() + address % kPage, 64);
        b.last = i + 1 == beats;
        beats_.push_back(b);
        continue;
      }
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

  /// The memory's write side: takes a burst's beats after its address and answers some cycles
  /// later.
  void writes_before(unsigned idle_percent) {
    top_.m_awready_i = rng_() % 100 >= idle_percent;
    top_.m_wready_i = rng_() % 100 >= idle_percent;
    top_.m_bvalid_i = !answers_.empty() && answers_.front() <= cycles_total_;
    top_.m_bresp_i = write_error_ ? 2 : 0;
  }

  void writes_after() {
    ++cycles_total_;
    if (!top_.rst_ni) return;
    if (aw_held_) {
      EXPECT_TRUE(top_.m_awvalid_o && top_.m_awaddr_o == held_awaddr_)
          << "the address was withdrawn";
    }
    std::array<std::uint8_t, 64> beat;
    std::memcpy(beat.data(), &top_.m_wdata_o, 64);
    if (w_held_) {
      EXPECT_TRUE(top_.m_wvalid_o && beat == held_beat_ && top_.m_wstrb_o == held_strb_)
          << "a beat was withdrawn";
    }
    aw_held_ = top_.m_awvalid_o && !top_.m_awready_i;
    w_held_ = top_.m_wvalid_o && !top_.m_wready_i;
    held_awaddr_ = top_.m_awaddr_o;
    held_beat_ = beat;
    held_strb_ = top_.m_wstrb_o;
    if (top_.m_bvalid_i && top_.m_bready_o) answers_.pop_front();
    if (top_.m_awvalid_o && top_.m_awready_i) {
      EXPECT_EQ(top_.m_awaddr_o % kPage, 0u);
      EXPECT_GE(top_.m_awaddr_o, kSpill);
      EXPECT_EQ(top_.m_awlen_o, 63);
      bursts_.push_back(top_.m_awaddr_o);
    }
    if (top_.m_wvalid_o && top_.m_wready_i) {
      written_.push_back(beat);
      EXPECT_TRUE(top_.m_wstrb_o == 0 || top_.m_wstrb_o == ~std::uint64_t{0});
      early_beats_.push_back({beat, top_.m_wstrb_o != 0, top_.m_wlast_o != 0});
    }
    while (!bursts_.empty() && !early_beats_.empty()) {
      const auto& b = early_beats_.front();
      auto& page = spill_[static_cast<std::uint32_t>((bursts_.front() - kSpill) / kPage)];
      if (b.write) std::memcpy(page.data() + 64 * burst_beat_, b.data.data(), 64);
      EXPECT_EQ(b.last, burst_beat_ == 63) << "WLAST";
      early_beats_.pop_front();
      if (++burst_beat_ == 64) {
        burst_beat_ = 0;
        bursts_.pop_front();
        answers_.push_back(cycles_total_ + rng_() % 40);
      }
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
        top_.req_spilled_i = 0;
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
    EXPECT_TRUE(bursts_.empty() && early_beats_.empty() && answers_.empty());
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
  bool offered_ = false, accepted_ = false, taken_word_ = false, last_ar_held_ = false;
  struct WriteBeat {
    std::array<std::uint8_t, 64> data;
    bool write, last;
  };
  std::map<std::uint32_t, std::array<std::uint8_t, kPage>> spill_;  ///< Memory of the spill area
  std::vector<std::array<std::uint8_t, 64>> written_;               ///< Every beat that was written
  std::deque<std::uint64_t> bursts_, answers_;
  std::deque<WriteBeat> early_beats_;
  std::array<std::uint8_t, 64> held_beat_{};
  bool aw_held_ = false, w_held_ = false, write_error_ = false;
  std::uint64_t held_awaddr_ = 0, held_strb_ = 0, cycles_total_ = 0;
  unsigned burst_beat_ = 0;
  std::uint64_t last_araddr_ = 0, cycles_ = 0, bus_errors_ = 0, error_page_ = ~std::uint64_t{0};
};

}  // namespace latchkey::lock_chain
