// lk_matmul: random sweeps on the generic twin (N = 16 and 64) and on the DSP twin (N = 16), a GEMM
// of a million results, rates in cycles, clear, wipe, and the planted fault.
#include <gtest/gtest.h>

#include <chrono>

#include "Vmatmul16.h"
#include "Vmatmul16_dsp.h"
#include "Vmatmul16_fault.h"
#include "Vmatmul64.h"
#include "matmul_bench.hpp"
#include "seed.hpp"

namespace latchkey::test {
namespace {

using Bench16 = MatmulBench<Vmatmul16, 16>;
using Bench64 = MatmulBench<Vmatmul64, 64>;

template <class B>
void expect_clean(const B& b) {
  EXPECT_TRUE(b.finished());
  EXPECT_EQ(b.stats.mismatches, 0u);
  EXPECT_EQ(b.stats.float_differs, 0u);
  EXPECT_EQ(b.stats.macs, b.stats.macs_expected);
}

template <class B>
class Matmul : public ::testing::Test {};
using Benches = ::testing::Types<Bench16, MatmulBench<Vmatmul16_dsp, 16>, Bench64>;
TYPED_TEST_SUITE(Matmul, Benches);

TYPED_TEST(Matmul, RandomSweepsUnderRandomPaces) {
  const uint64_t seed = test_seed(1);
  SCOPED_TRACE("LATCHKEY_SEED=" + std::to_string(seed));
  TypeParam b(seed);
  b.random_params(18);
  b.write_params(4096);
  const Pace paces[] = {{},
                        {256, 256, 256, 40},
                        {40, 256, 256, 256},
                        {256, 40, 256, 256},
                        {256, 256, 20, 256},
                        {128, 128, 128, 128},
                        {200, 60, 200, 30}};
  for (const Pace& pace : paces) {
    for (int rows : {1, 1, 2, 3, 4, 5, 7, 1, 16, 33, 64, 1}) {
      const int k = 1 + static_cast<int>(b.rng() % 6);
      b.queue(b.random_job(rows, k, 64 * static_cast<int>(b.rng() % 64), 5));
    }
    b.run(pace, 2000000);
    if (this->HasFatalFailure()) return;
    ASSERT_TRUE(b.finished());
  }
  expect_clean(b);
  EXPECT_GT(b.stats.results, 20000u);
}

// The shortest distance between two touches of an accumulator word: sweeps of one to five rows of
// one subtile column, whose weights are already there when a late row arrives.
TYPED_TEST(Matmul, ShortSweepsOfOneColumnKeepTheirDistance) {
  TypeParam b(3);
  b.random_params(18);
  b.write_params(64);
  for (const Pace& pace : {Pace{}, Pace{256, 30, 256, 256}, Pace{256, 100, 256, 256}}) {
    for (int rows = 1; rows <= 5; ++rows) {
      typename TypeParam::Job j;
      j.rows = rows;
      j.groups = 1;
      b.fill(j, 24, 2);
      b.queue(j);
    }
    b.run(pace, 2000000);
    if (this->HasFatalFailure()) return;
  }
  expect_clean(b);
}

TYPED_TEST(Matmul, FullBanks) {
  TypeParam b(4);
  b.random_params(18);
  b.write_params(4096);
  for (int i = 0; i < 4; ++i) {
    auto j = b.random_job(512, 2, 4096 - 64, 0);
    b.queue(j);
  }
  b.run({256, 256, 256, 200}, 2000000);
  expect_clean(b);
}

TYPED_TEST(Matmul, ClearForgetsAndTheNextJobIsRight) {
  TypeParam b(5);
  b.random_params(18);
  b.write_params(256);
  for (int i = 0; i < 40; ++i) {
    for (int k = 0; k < 4; ++k) b.queue(b.random_job(1 + i % 9, 3, 64 * (k % 4), 4));
    const int cycles = static_cast<int>(b.rng() % 400);
    for (int c = 0; c < cycles && !b.finished(); ++c) b.step({200, 200, 200, 100});
    if (this->HasFatalFailure()) return;
    b.forget();
    b.dut.clear_i = 1;
    b.tick();
    b.dut.clear_i = 0;
    b.stats.macs = b.stats.macs_expected = 0;
    b.tick();
    b.queue(b.random_job(1 + i % 5, 2, 0, 4));
    b.run({}, 100000);
    if (this->HasFatalFailure()) return;
    expect_clean(b);
  }
}

// Fill accumulators and parameters, wipe, and read both back through the drain: a parameter RAM of
// zeros gives the zero point for any accumulator, and identity parameters then show the
// accumulators themselves.
TYPED_TEST(Matmul, WipeZeroesAccumulatorsAndParameters) {
  TypeParam b(6);
  b.random_params(18);
  b.write_params(4096);
  for (int bank = 0; bank < 2; ++bank) {
    typename TypeParam::Job j;
    j.rows = 512;
    b.fill(j, 1, 0);
    b.queue(j);
  }
  b.run({}, 100000);
  expect_clean(b);

  auto wipe = [&] {
    b.dut.wipe_i = 1;
    b.dut.clk_i = 0;
    b.dut.eval();
    EXPECT_EQ(b.dut.wipe_busy_o, 1);
    b.tick();
    b.dut.wipe_i = 0;
    int cycles = 1;
    b.dut.sw_valid_i = b.dut.dr_valid_i = b.dut.wt_valid_i = b.dut.x_valid_i = 1;
    for (; b.dut.wipe_busy_o; ++cycles) {
      ASSERT_LT(cycles, 3000);
      b.tick();
      if (!b.dut.wipe_busy_o) break;
      EXPECT_EQ(b.dut.sw_ready_o | b.dut.dr_ready_o | b.dut.wt_ready_o | b.dut.x_ready_o |
                    b.dut.y_valid_o,
                0);
    }
    b.dut.sw_valid_i = b.dut.dr_valid_i = b.dut.wt_valid_i = b.dut.x_valid_i = 0;
    EXPECT_LE(cycles, 512 * (64 / TypeParam::kSize) + 70);
  };
  wipe();
  if (this->HasFatalFailure()) return;

  // Every channel has M = 0 now, and every accumulator is zero: two checks in sequence.
  auto drain_all = [&](int zero) {
    for (int bank = 0; bank < 2; ++bank)
      for (int chan = 0; chan < (zero == 77 ? 4096 : 64); chan += 64) {
        typename TypeParam::Job j;
        j.rows = zero == 77 ? 1 : 512;
        j.chan = chan;
        j.zero = zero;
        b.queue(j);  // no subtiles: the model's accumulators are zero
      }
    b.run({}, 100000);
  };
  for (ChannelParams& p : b.params) p = {};
  drain_all(77);
  expect_clean(b);
  for (ChannelParams& p : b.params) p = {0, 0x800000, 23};
  b.write_params(4096);
  drain_all(5);
  expect_clean(b);
}

// Step (b) of the numbers' chain: a million results of real sweeps, none off by one.
TEST(MatmulGemm, MillionResultsWithTiesAndSaturation) {
  Bench16 b(2024);
  b.random_params(19);
  for (int c = 2048; c < 4096; ++c) b.params[c] = {c % 7 - 3, 0x800000, 24u + c % 3};  // for ties
  b.write_params(4096);
  for (int tile = 0; tile < 34; ++tile) {
    const bool tiny = tile >= 30;
    Bench16::Job j;
    j.rows = 512;
    j.chan = 64 * (tile % 32) + (tiny ? 2048 : 0);
    j.zero = tile * 7 % 256 - 128;
    b.fill(j, 3, 0, tiny);
    b.queue(j);
  }
  b.run({}, 1000000);
  std::printf("%lu results: %lu mismatches, %lu ties, %lu saturated, float32 differs %lu times\n",
              b.stats.results, b.stats.mismatches, b.stats.ties, b.stats.saturated,
              b.stats.float_differs);
  expect_clean(b);
  EXPECT_GE(b.stats.results, 1000000u);
  EXPECT_GT(b.stats.ties, 10000u);
  EXPECT_GT(b.stats.saturated, 10000u);
}

template <class B>
void throughput(int rows, int pages, int jobs, double want_busy, double want_beats) {
  B b(9);
  b.random_params(18);
  b.write_params(64);
  for (int i = 0; i < jobs; ++i) {
    typename B::Job j;
    j.rows = rows;
    b.fill(j, pages * B::kNi, 0);
    b.queue(j);
  }
  const auto start = std::chrono::steady_clock::now();
  b.run({}, 10000000);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  expect_clean(b);
  const double busy = static_cast<double>(b.stats.busy) /
                      static_cast<double>(b.stats.last_take - b.stats.first_take + 1);
  const double beats = static_cast<double>(b.stats.beats) /
                       static_cast<double>(b.stats.last_beat - b.stats.first_beat + 1);
  std::printf(
      "N=%d rows=%d: %lu cycles, array busy %.4f, weight beats per cycle %.4f"
      " (%.0f kcycles/s with the test bench)\n",
      B::kSize, rows, b.stats.cycles, busy, beats,
      static_cast<double>(b.stats.cycles) / seconds / 1e3);
  EXPECT_GE(busy, want_busy);
  EXPECT_GE(beats, want_beats);
}

TEST(MatmulRates, ArrayIsBusyWithARowPerLoadCycle) {
  throughput<Bench64>(64, 8, 12, 0.97, 0.97);
  throughput<Bench16>(4, 16, 12, 0.97, 0.97);
  throughput<Bench16>(16, 8, 12, 0.97, 0);
  throughput<Bench64>(200, 8, 4, 0.97, 0);
  throughput<Bench16>(512, 2, 4, 0.97, 0);
}

// The weights of a tile are loaded while its bank is drained, and its rows follow the drain's
// reads.
TEST(MatmulRates, TilesOfOneSweepFollowEachOther) {
  throughput<Bench64>(512, 1, 8, 0.99, 0);
  throughput<Bench64>(196, 1, 12, 0.97, 0);
  throughput<Bench64>(64, 1, 24, 0.97, 0.97);
  throughput<Bench64>(512, 2, 6, 0.99, 0);
  throughput<Bench64>(196, 3, 12, 0.99, 0);
  throughput<Bench16>(512, 1, 6, 0.97, 0);
}

// A drain follows the rows of the last sweep of its tile, so the last results come right behind it.
TEST(MatmulRates, TheDrainFollowsTheLastSweepOfItsTile) {
  Bench64 b(10);
  b.random_params(18);
  b.write_params(64);
  for (const int slices : {1, 2, 3}) {
    const uint64_t before = b.stats.busy;
    Bench64::Job j;
    j.rows = 300;
    b.fill(j, slices, 0);
    b.queue(j);
    b.run({}, 100000);
    expect_clean(b);
    EXPECT_LE(b.stats.last_result - b.stats.last_take, 40u);
    EXPECT_EQ(b.stats.busy - before, 300u * slices);
    EXPECT_EQ(b.stats.wait_bank, 0u);
  }
}

// Tiles of few rows and of many in turn, with results that wait: rows catch up with the drain of
// their bank, and the drain with the rows of its tile.
TYPED_TEST(Matmul, RowsAndDrainsDoNotOvertakeEachOther) {
  TypeParam b(12);
  b.random_params(18);
  b.write_params(4096);
  const Pace paces[] = {{}, {256, 256, 256, 90}, {256, 90, 256, 256}, {256, 256, 256, 10}};
  for (const Pace& pace : paces) {
    for (int i = 0; i < 24; ++i) {
      const int rows = b.rng() % 3 == 0 ? 1 + static_cast<int>(b.rng() % 4)
                                        : 1 + static_cast<int>(b.rng() % 200);
      const int k = b.rng() % 3 == 0 ? 2 : 1;
      b.queue(b.random_job(rows, k, 64 * static_cast<int>(b.rng() % 64), 8));
    }
    b.run(pace, 2000000);
    if (this->HasFatalFailure()) return;
    ASSERT_TRUE(b.finished());
  }
  expect_clean(b);
  EXPECT_GT(b.stats.wait_bank, 100u);
}

TEST(MatmulRates, ShortSweepsRunAtTheWeightPortsRate) {
  throughput<Bench64>(1, 32, 8, 0, 0.97);
  throughput<Bench64>(63, 8, 8, 0, 0.97);
  throughput<Bench16>(1, 32, 8, 0, 0.97);
  throughput<Bench16>(2, 32, 8, 0, 0.97);
  throughput<Bench16>(3, 32, 8, 0, 0.97);
}

// A build with one wrong product must give wrong results, and only where that product counts.
TEST(MatmulFault, OneWrongProductShows) {
  MatmulBench<Vmatmul16_fault, 16> b(11);
  b.random_params(12);
  b.write_params(64);
  for (int i = 0; i < 8; ++i) {
    MatmulBench<Vmatmul16_fault, 16>::Job j;
    j.rows = 40;
    b.fill(j, 1, 0);
    b.queue(j);
  }
  b.run({}, 100000);
  EXPECT_TRUE(b.finished());
  EXPECT_GT(b.stats.mismatches, 0u);
  for (int c = 0; c < 64; ++c) {
    if (c % 16 != 0) EXPECT_EQ(b.stats.bad_channels[c], 0) << "channel " << c;
  }
}

}  // namespace
}  // namespace latchkey::test
