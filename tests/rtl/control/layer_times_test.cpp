// lk_layer_times: every event of a run leaves the cycle in which it came, in order; what has not
// come reads as 0, also when an earlier run had more; nothing is written outside a run.
#include <gtest/gtest.h>
#include <verilated.h>

#include <random>
#include <vector>

#include "Vlk_layer_times.h"
#include "latchkey_spec.hpp"
#include "seed.hpp"

namespace {

using namespace latchkey;

class LayerTimes : public ::testing::Test {
 protected:
  void SetUp() override {
    rng_.seed(static_cast<unsigned>(test::test_seed(7)));
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
    top_.clear_i = top_.loaded_i = top_.ended_i = 0;
  }

  /// The entry as the AXI-Lite front reads it: the address stands for two cycles.
  std::uint32_t read(unsigned entry) {
    top_.raddr_i = static_cast<std::uint16_t>(entry);
    tick();
    const std::uint32_t value = top_.rdata_o;
    tick();
    EXPECT_EQ(top_.rdata_o, value);
    return value;
  }

  /// A run of `events` at random distances; returns when they came.
  std::vector<std::uint32_t> run(unsigned events) {
    std::vector<std::uint32_t> at;
    top_.clear_i = 1;
    tick();
    top_.running_i = 1;
    std::uint32_t cycle = 0;
    for (unsigned i = 0; i < events; ++i) {
      for (unsigned wait = rng_() % 20; wait > 0; --wait, ++cycle) tick();
      (i == 0 ? top_.loaded_i : top_.ended_i) = 1;
      at.push_back(cycle++);
      tick();
    }
    tick();
    top_.running_i = 0;
    tick();
    return at;
  }

  void expect(const std::vector<std::uint32_t>& at) {
    for (unsigned i = 0; i < spec::max_descs; ++i)
      ASSERT_EQ(read(i), i < at.size() ? at[i] : 0u) << "entry " << i;
  }

  Vlk_layer_times top_;
  std::mt19937 rng_;
};

TEST_F(LayerTimes, KeepsTheCycleOfEveryEventOfTheLastRun) {
  for (const unsigned events : {40u, 3u, spec::max_descs, 1u, 0u}) {
    const auto at = run(events);
    ASSERT_NO_FATAL_FAILURE(expect(at));
  }
}

TEST_F(LayerTimes, EventsOutsideARunAndBeyondTheLastEntryAreLost) {
  const auto at = run(5);
  for (int i = 0; i < 4; ++i) {
    top_.ended_i = 1;
    tick();
  }
  ASSERT_NO_FATAL_FAILURE(expect(at));
  auto full = run(spec::max_descs + 9);
  full.resize(spec::max_descs);
  ASSERT_NO_FATAL_FAILURE(expect(full));
}

}  // namespace
