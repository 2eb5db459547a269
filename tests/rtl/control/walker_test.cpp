// lk_walker: the pages of a run are asked for in the order in which the engine consumes them,
// whatever the delays of the descriptor RAM and of the fetcher; a page outside the package stops
// it.
#include <gtest/gtest.h>
#include <verilated.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "Vlk_walker.h"
#include "latchkey_spec.hpp"
#include "seed.hpp"

namespace {

using namespace latchkey;
using Request = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>;  // page, region, index
constexpr std::uint32_t spilled = 0x10000;  // in place of a region: a page of the spill area

class Walker : public ::testing::Test {
 protected:
  void SetUp() override {
    seed_ = static_cast<unsigned>(test::test_seed(99));
    rng_.seed(seed_);
    top_.rst_ni = 0;
    tick(0);
    top_.rst_ni = 1;
    tick(0);
  }

  /// A program of random layers; pages follow one another as the compiler lays them.
  void make(unsigned layers) {
    descs_.clear();
    spill_pages_ = 0;
    desc_pages_ = (layers + 3 + 31) / 32;
    std::uint32_t page = desc_pages_;
    const auto add = [&](spec::op op) -> spec::descriptor& {
      spec::descriptor d;
      d.op = static_cast<std::uint32_t>(op);
      d.out_h = d.out_w = 1;
      descs_.push_back(d);
      return descs_.back();
    };
    add(spec::op::input);
    for (unsigned i = 0; i < layers; ++i) {
      if (rng_() % 4 == 0) {
        static constexpr spec::op without_pages[] = {spec::op::max_pool, spec::op::avg_pool,
                                                     spec::op::add, spec::op::mul, spec::op::spill};
        add(without_pages[rng_() % 5]);
        continue;
      }
      if (rng_() % 6 == 0) {
        spec::descriptor& d = add(spec::op::load);
        d.spilled = 1;
        d.out_stride = 1 + rng_() % 300;
        d.spill_page = rng_() % 100;
        spill_pages_ = std::max(spill_pages_, d.spill_page + (8 * d.out_stride + 63) / 64);
        continue;
      }
      if (rng_() % 4 == 0) {
        static constexpr spec::op no_tiles[] = {spec::op::table, spec::op::softmax,
                                                spec::op::layer_norm, spec::op::product,
                                                spec::op::load};
        const spec::op op = no_tiles[rng_() % 5];
        spec::descriptor& d = add(op);
        d.region = static_cast<std::uint32_t>(descs_.size());
        d.page_base = page;
        d.param_pages = 1 + rng_() % 3;
        d.out_h = 1 + rng_() % 40;  // of no consequence
        if (op == spec::op::product) {
          d.n_tiles = 1 + rng_() % 4;  // they come from the scratchpad
          d.k_tiles = 1 + rng_() % 4;
          d.fuse_table = rng_() % 2;
        }
        page += d.param_pages + d.fuse_table;
        continue;
      }
      const bool depthwise = rng_() % 4 == 0;
      spec::descriptor& d = add(depthwise ? spec::op::depthwise : spec::op::mat_mul);
      d.region = static_cast<std::uint32_t>(descs_.size());
      d.page_base = page;
      d.param_pages = 1 + rng_() % 3;
      d.n_tiles = 1 + rng_() % 4;
      d.k_tiles = depthwise ? 1 : 1 + rng_() % 5;
      d.out_h = 1 + rng_() % 40;
      d.out_w = 1 + rng_() % 40;
      d.slices = rng_() % 4;
      page += d.param_pages + d.n_tiles * d.k_tiles;
      if (depthwise) continue;
      d.fuse_table = rng_() % 4 == 0;
      d.fuse_dw = d.fuse_table == 0 && rng_() % 3 == 0;
      page += d.fuse_table;
      if (d.fuse_dw == 0) continue;
      d.slices = 0;
      d.mid_h = 1 + rng_() % 40;
      d.mid_w = 1 + rng_() % 40;
      page += d.param_pages + d.n_tiles;
    }
    add(spec::op::output);
    add(spec::op::end);
    num_pages_ = page;
  }

  std::vector<Request> expected(std::uint32_t batch) const {
    std::vector<Request> all;
    for (std::uint32_t i = 0; i < desc_pages_; ++i) all.emplace_back(i, 0, i);
    for (const spec::descriptor& d : descs_) {
      const bool depthwise = d.op == static_cast<std::uint32_t>(spec::op::depthwise);
      const auto take = [&](std::uint32_t first, std::uint32_t count) {
        for (std::uint32_t i = first; i < first + count; ++i)
          all.emplace_back(d.page_base + i, d.region, i);
      };
      if (d.spilled != 0) {
        for (std::uint32_t i = 0; i < (batch * d.out_stride + 63) / 64; ++i)
          all.emplace_back(d.spill_page + i, spilled, d.spill_page + i);
        continue;
      }
      const std::uint32_t params = (d.fuse_dw != 0 ? 2 : 1) * d.param_pages + d.fuse_table;
      take(0, params);
      if (!depthwise && d.op != static_cast<std::uint32_t>(spec::op::mat_mul)) continue;
      if (d.fuse_dw != 0) {
        for (std::uint32_t n = 0; n < d.n_tiles; ++n) {
          take(params + n, 1);
          for (std::uint64_t row = 0; row < std::uint64_t{batch} * d.mid_h * d.mid_w;
               row += spec::acc_rows)
            take(params + d.n_tiles + n * d.k_tiles, d.k_tiles);
        }
        continue;
      }
      const std::uint64_t images = std::uint64_t{batch} * std::max(d.slices, 1u);
      for (std::uint64_t row = 0; row < images * d.out_h * d.out_w; row += spec::acc_rows) {
        take(params, d.n_tiles * d.k_tiles);
        if (depthwise) break;  // its weights are read once
      }
    }
    return all;
  }

  void tick(unsigned idle) {
    top_.desc_valid_i = top_.desc_req_o && rng_() % 100 >= idle;
    if (top_.desc_valid_i) {
      const auto words = descs_.at(top_.desc_idx_o).pack();
      std::memcpy(&top_.desc_i, words.data(), sizeof words);
    }
    top_.req_ready_i = rng_() % 100 >= idle;
    top_.clk_i = 0;
    top_.eval();
    if (top_.rst_ni && top_.req_valid_o && top_.req_ready_i)
      seen_.emplace_back(top_.req_page_o, top_.req_spilled_o ? spilled : top_.req_region_o,
                         top_.req_index_o);
    bad_ = bad_ || (top_.rst_ni && top_.bad_o);
    top_.clk_i = 1;
    top_.eval();
    top_.boot_i = top_.run_i = top_.clear_i = 0;
  }

  void walk(std::uint32_t batch, unsigned idle) {
    seen_.clear();
    bad_ = false;
    top_.desc_pages_i = desc_pages_;
    top_.num_descs_i = static_cast<std::uint32_t>(descs_.size());
    top_.num_pages_i = num_pages_;
    top_.spill_pages_i = spill_pages_;
    top_.batch_i = static_cast<std::uint16_t>(batch);
    top_.boot_i = 1;
    for (int i = 0; i < 200 && seen_.size() < desc_pages_; ++i) tick(idle);
    for (int i = 0; i < 5; ++i) tick(idle);
    top_.run_i = 1;
    for (int i = 0; i < 400000 && !(top_.finished_o && i > 5) && !bad_; ++i) tick(idle);
  }

  Vlk_walker top_;
  std::mt19937 rng_;
  unsigned seed_ = 0;
  std::vector<spec::descriptor> descs_;
  std::uint32_t desc_pages_ = 1, num_pages_ = 0, spill_pages_ = 0;
  std::vector<Request> seen_;
  bool bad_ = false;
};

TEST_F(Walker, AsksInTheOrderOfConsumption) {
  for (int program = 0; program < 60; ++program) {
    make(1 + rng_() % 8);
    const std::uint32_t batch = 1 + rng_() % 5;
    for (const unsigned idle : {0u, 50u}) {
      top_.clear_i = 1;
      tick(0);
      walk(batch, idle);
      EXPECT_FALSE(bad_);
      ASSERT_EQ(seen_, expected(batch)) << "program " << program << ", seed " << seed_;
    }
  }
}

TEST_F(Walker, AsManyDescriptorsAsTheRamHolds) {
  make(spec::max_descs - 3);
  ASSERT_EQ(descs_.size(), spec::max_descs);
  walk(2, 30);
  EXPECT_FALSE(bad_);
  ASSERT_EQ(seen_, expected(2)) << "seed " << seed_;
}

TEST_F(Walker, APageOutsideThePackageStopsIt) {
  make(6);
  while (expected(1).size() <= desc_pages_) make(6);
  num_pages_ -= 1;
  walk(1, 0);
  EXPECT_TRUE(bad_);
  for (const auto& [page, region, index] : seen_) {
    if (region != spilled) EXPECT_LT(page, num_pages_);
  }
}

TEST_F(Walker, APageOutsideTheSpillAreaStopsIt) {
  do make(6);
  while (spill_pages_ == 0);
  std::uint32_t last = 0;
  for (const auto& [page, region, index] : expected(8))
    if (region == spilled) last = std::max(last, page);
  spill_pages_ = last;
  walk(8, 0);
  EXPECT_TRUE(bad_);
  for (const auto& [page, region, index] : seen_) {
    if (region == spilled) EXPECT_LT(page, spill_pages_);
  }
}

TEST_F(Walker, ClearForgetsTheRun) {
  make(8);
  walk(2, 20);
  top_.boot_i = 1;
  for (int i = 0; i < 3; ++i) tick(0);
  top_.clear_i = 1;
  tick(0);
  seen_.clear();
  for (int i = 0; i < 100; ++i) tick(0);
  EXPECT_TRUE(seen_.empty());
  walk(2, 0);
  EXPECT_EQ(seen_, expected(2));
}

}  // namespace
