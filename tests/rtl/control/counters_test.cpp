// lk_counters against a plain model: one cause a cycle, the causes add up to the cycles, a start
// clears, the end holds, and a carry goes through all 64 bits.
#include <gtest/gtest.h>
#include <verilated.h>

#include <array>
#include <numeric>

#include "Vlk_counters.h"
#include "Vlk_counters___024root.h"
#include "latchkey_spec.hpp"
#include "rng.hpp"

namespace {

using namespace latchkey;
using spec::counter;
using Values = std::array<std::uint64_t, spec::num_counters>;

class Counters : public ::testing::Test {
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

  std::uint32_t word(unsigned index) {
    top_.raddr_i = static_cast<std::uint8_t>(index);
    top_.eval();
    return top_.rdata_o;
  }

  Values read() {
    Values v;
    for (unsigned i = 0; i < v.size(); ++i)
      v[i] = word(2 * i) | std::uint64_t{word(2 * i + 1)} << 32;
    return v;
  }

  static std::uint64_t& at(Values& v, counter c) { return v[static_cast<std::size_t>(c)]; }

  void clear() {
    top_.clear_i = 1;
    tick();
    top_.clear_i = 0;
    want_ = {};
  }

  void randomise() {
    constexpr spec::op kOps[] = {spec::op::input,    spec::op::mat_mul,  spec::op::mat_mul,
                                 spec::op::mat_mul,  spec::op::max_pool, spec::op::add,
                                 spec::op::avg_pool, spec::op::mul,      spec::op::table,
                                 spec::op::output,   spec::op::end,      spec::op::depthwise,
                                 spec::op::product,  spec::op::softmax,  spec::op::layer_norm,
                                 spec::op::load,     spec::op::spill};
    top_.op_i = static_cast<std::uint8_t>(kOps[rng_.below(std::size(kOps))]);
    top_.active_i = rng_.chance(85);
    top_.busy_i = rng_.chance(20);
    top_.post_i = rng_.chance(20);
    top_.feed_i = rng_.chance(20);
    top_.loading_i = rng_.chance(20);
    top_.want_weights_i = rng_.chance(60);
    top_.decrypting_i = rng_.chance(50);
    top_.macs_i = static_cast<std::uint16_t>(rng_.chance(50) ? rng_.below(4097) : 0);
    top_.page_i = rng_.chance(10);
    top_.beat_i = rng_.chance(50);
  }

  /// The order of docs/theory_of_operation.md: the first cause of the list counts.
  counter cause() const {
    if (!top_.active_i) return counter::control;
    switch (static_cast<spec::op>(top_.op_i)) {
      case spec::op::input:
      case spec::op::load:
        return counter::input;
      case spec::op::output:
      case spec::op::spill:
        return counter::output;
      case spec::op::max_pool:
      case spec::op::avg_pool:
      case spec::op::add:
      case spec::op::mul:
        return counter::vector;
      case spec::op::table:
      case spec::op::depthwise:
      case spec::op::softmax:
      case spec::op::layer_norm:
        if (!top_.loading_i && !top_.want_weights_i) return counter::vector;
        [[fallthrough]];  // its pages are waited for as weights are
      case spec::op::product:
      case spec::op::mat_mul:
        if (top_.busy_i) return counter::array_busy;
        if (top_.post_i) return counter::wait_post;
        if (top_.feed_i) return counter::wait_activations;
        if (top_.loading_i) return counter::wait_load;
        if (!top_.want_weights_i) return counter::control;
        return top_.decrypting_i ? counter::wait_decrypt : counter::wait_memory;
      default:
        return counter::control;
    }
  }

  void expect() {
    ++at(want_, counter::cycles);
    ++at(want_, cause());
    at(want_, counter::macs) += top_.macs_i;
    at(want_, counter::pages) += top_.page_i;
    at(want_, counter::beats) += top_.beat_i;
  }

  test::Rng rng_{11};
  Vlk_counters top_;
  Values want_{};
};

TEST_F(Counters, EveryCycleHasOneCause) {
  SCOPED_TRACE(rng_.name());
  for (int run = 0; run < 20; ++run) {
    clear();
    ASSERT_EQ(read(), Values{}) << "a start clears";
    const int cycles = 1 + static_cast<int>(rng_.below(3000));
    for (int i = 0; i < cycles; ++i) {
      randomise();
      top_.running_i = rng_.chance(90);
      if (top_.running_i) expect();
      tick();
    }
    top_.running_i = 0;
    ASSERT_EQ(read(), want_) << "run " << run;
    const Values v = read();
    const auto causes = v.begin() + static_cast<int>(counter::array_busy);
    const auto end = v.begin() + static_cast<int>(counter::control) + 1;
    ASSERT_EQ(std::accumulate(causes, end, std::uint64_t{0}), v[0]);
    for (auto c = causes; cycles > 2000 && c != end; ++c)
      EXPECT_GT(*c, 0u) << spec::counter_names[static_cast<std::size_t>(c - v.begin())];
    // Held until the next start, whatever the inputs do.
    for (int i = 0; i < 20; ++i) {
      randomise();
      tick();
    }
    ASSERT_EQ(read(), v);
  }
}

TEST_F(Counters, ClearWinsOverCounting) {
  randomise();
  top_.running_i = 1;
  for (int i = 0; i < 10; ++i) tick();
  top_.macs_i = 256;
  clear();
  top_.running_i = 0;
  EXPECT_EQ(read(), Values{});
}

TEST_F(Counters, CarriesThroughAll64Bits) {
  constexpr std::uint64_t kStarts[] = {0xffff'fff0u, 0x7fff'ffff'ffff'fff0u,
                                       0xffff'ffff'ffff'fff0u};
  for (const std::uint64_t start : kStarts) {
    SCOPED_TRACE(rng_.name());
    clear();
    auto& raw = top_.rootp->lk_counters__DOT__count_q;
    for (unsigned i = 0; i < spec::num_counters; ++i) {
      raw[2 * i] = static_cast<std::uint32_t>(start);
      raw[2 * i + 1] = static_cast<std::uint32_t>(start >> 32);
      want_[i] = start;
    }
    top_.running_i = 1;
    for (int i = 0; i < 2000; ++i) {
      randomise();
      expect();
      tick();
    }
    top_.running_i = 0;
    ASSERT_EQ(read(), want_);
    for (unsigned i = 0; i < spec::num_counters; ++i)
      EXPECT_NE(want_[i] >> 32, start >> 32) << spec::counter_names[i] << " never carried";
  }
}

TEST_F(Counters, WordsBeyondTheLastReadZero) {
  top_.running_i = top_.active_i = 1;
  for (int i = 0; i < 10; ++i) tick();
  for (unsigned i = 2 * spec::num_counters; i < 64; ++i) EXPECT_EQ(word(i), 0u) << i;
}

}  // namespace
