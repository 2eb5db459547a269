// lk_requant against the integer formula and against float32 arithmetic: random, ties, saturation.
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>

#include "Vlk_requant.h"
#include "requant_model.hpp"

namespace latchkey::test {
namespace {

constexpr int kLanes = 16;
constexpr int kLatency = 10;

void put_bits(uint32_t* words, int lsb, int width, uint64_t value) {
  for (int i = 0; i < width; ++i) {
    const int bit = lsb + i;
    words[bit / 32] &= ~(1u << (bit % 32));
    words[bit / 32] |= static_cast<uint32_t>((value >> i) & 1) << (bit % 32);
  }
}

class Requant : public ::testing::Test {
 protected:
  void SetUp() override {
    dut_.rst_ni = 0;
    tick();
    tick();
    dut_.rst_ni = 1;
  }
  void tick() {
    dut_.clk_i = 0;
    dut_.eval();
    dut_.clk_i = 1;
    dut_.eval();
  }

  // One row of 16 lanes; the result is checked when it appears.
  void drive(const int32_t* acc, const ChannelParams* p, int zero, int lo, int hi) {
    Expected e;
    e.tag = tag_++ & 0x1fff;
    for (int i = 0; i < kLanes; ++i) {
      dut_.acc_i[i] = static_cast<uint32_t>(acc[i]);
      put_bits(&dut_.prm_i[0], 62 * i, 32, static_cast<uint32_t>(p[i].bias));
      put_bits(&dut_.prm_i[0], 62 * i + 32, 24, p[i].m);
      put_bits(&dut_.prm_i[0], 62 * i + 56, 6, p[i].s);
      const Requantised r = requantise(acc[i], p[i], zero, lo, hi);
      ties_ += r.tie;
      saturations_ += r.saturated;
      e.y[i] = r.y;
      if (p[i].m != 0 && requantise_float(acc[i], p[i], zero, lo, hi) != r.y) ++float_differs_;
    }
    dut_.zero_i = static_cast<uint8_t>(zero);
    dut_.lo_i = static_cast<uint8_t>(lo);
    dut_.hi_i = static_cast<uint8_t>(hi);
    dut_.tag_i = e.tag;
    dut_.valid_i = 1;
    e.cycle = cycle_ + kLatency;
    expected_.push_back(e);
    step();
  }
  void idle() {
    dut_.valid_i = 0;
    step();
  }
  void flush() {
    for (int i = 0; i < kLatency + 2; ++i) idle();
    EXPECT_TRUE(expected_.empty());
  }

  std::mt19937_64 rng_{20240611};
  uint64_t probes_ = 0, mismatches_ = 0, ties_ = 0, saturations_ = 0, float_differs_ = 0;

 private:
  struct Expected {
    uint32_t tag = 0;
    uint64_t cycle = 0;
    int8_t y[kLanes] = {};
  };
  void step() {
    tick();
    ++cycle_;
    if (!dut_.valid_o) {
      ASSERT_TRUE(expected_.empty() || expected_.front().cycle > cycle_);
      return;
    }
    ASSERT_FALSE(expected_.empty());
    const Expected e = expected_.front();
    expected_.pop_front();
    ASSERT_EQ(cycle_, e.cycle);
    ASSERT_EQ(dut_.tag_o, e.tag);
    for (int i = 0; i < kLanes; ++i) {
      const auto y = static_cast<int8_t>(dut_.y_o[i / 4] >> (8 * (i % 4)));
      ++probes_;
      mismatches_ += y != e.y[i];
    }
  }

  Vlk_requant dut_;
  std::deque<Expected> expected_;
  uint64_t cycle_ = 0;
  uint32_t tag_ = 0;
};

TEST_F(Requant, FourMillionProbesMatchIntegersAndFloat32) {
  constexpr int kRows = 262144;  // 4,194,304 probes
  int32_t acc[kLanes];
  ChannelParams p[kLanes];
  for (int row = 0; row < kRows; ++row) {
    const int zero = static_cast<int>(rng_() % 256) - 128;
    int lo = static_cast<int>(rng_() % 256) - 128, hi = static_cast<int>(rng_() % 256) - 128;
    if (row % 4 != 0) lo = -128, hi = 127;
    if (lo > hi) std::swap(lo, hi);
    for (int i = 0; i < kLanes; ++i) {
      const auto r = static_cast<uint32_t>(rng_());
      const int width = static_cast<int>(r % 32);
      acc[i] = static_cast<int32_t>(rng_() & ((uint64_t{2} << width) - 1));
      if (r & 64) acc[i] = static_cast<int32_t>(0u - static_cast<uint32_t>(acc[i]));
      p[i].bias = (r & 128) ? static_cast<int32_t>(rng_()) >> (r >> 8) % 32 : 0;
      p[i].m = 0x800000 | static_cast<uint32_t>(rng_() & 0x7fffff);
      switch ((r >> 16) % 8) {
        case 0:  // powers of two: exact ties in the last rounding
          p[i].m = 0x800000;
          p[i].s = 23 + (r >> 20) % 12;
          break;
        case 1:  // few mantissa bits: ties in the product's rounding
          p[i].m = 0x800000 | static_cast<uint32_t>(rng_() & 0x7) << 20;
          p[i].s = static_cast<uint32_t>(rng_() % 64);
          break;
        case 2:  // any shift
          p[i].s = static_cast<uint32_t>(rng_() % 64);
          break;
        case 3:
          if ((r >> 20) % 4 == 0) p[i].m = 0;
          p[i].s = (r >> 22) % 2 ? 63 : 0;
          break;
        default:  // results of the order of the int8 range
          p[i].s = static_cast<uint32_t>(
              std::clamp(width + 24 - 6 - static_cast<int>(r >> 20) % 4, 0, 63));
          break;
      }
    }
    drive(acc, p, zero, lo, hi);
    if (rng_() % 16 == 0) idle();
  }
  flush();
  RecordProperty("probes", std::to_string(probes_));
  RecordProperty("ties", std::to_string(ties_));
  RecordProperty("saturations", std::to_string(saturations_));
  std::printf("%lu probes: %lu mismatches, %lu ties, %lu saturated, float32 differs %lu times\n",
              probes_, mismatches_, ties_, saturations_, float_differs_);
  EXPECT_EQ(probes_, uint64_t{kRows} * kLanes);
  EXPECT_EQ(mismatches_, 0u);
  EXPECT_EQ(float_differs_, 0u);
  EXPECT_GT(ties_, 50000u);
  EXPECT_GT(saturations_, 500000u);
}

TEST_F(Requant, CornersOfEveryField) {
  const int32_t accs[] = {0,          1,          -1,          2,          -2,         3,
                          -3,         127,        -128,        0xffffff,   0x1000000,  0x1000001,
                          0x1ffffff,  0x1fffffe,  0x2000003,   0x7fffff80, 0x7fffffc0, 0x7fffffff,
                          -0x1000001, -0x1ffffff, -0x7fffffff, INT32_MIN};
  const uint32_t ms[] = {0, 0x800000, 0x800001, 0xc00000, 0xaaaaaa, 0xfffffe, 0xffffff};
  int n = 0;
  int32_t acc[kLanes] = {};
  ChannelParams p[kLanes];
  for (int32_t a : accs)
    for (uint32_t m : ms)
      for (uint32_t s = 0; s < 64; ++s)
        for (int32_t bias : {0, 1, -1, INT32_MAX, INT32_MIN}) {
          acc[n] = a;
          p[n] = {bias, m, s};
          if (++n < kLanes) continue;
          n = 0;
          for (int zero : {-128, 0, 127}) {
            drive(acc, p, zero, -128, 127);
            drive(acc, p, zero, zero, 127);
            drive(acc, p, zero, 5, 5);
          }
        }
  flush();
  EXPECT_GT(probes_, 400000u);
  EXPECT_EQ(mismatches_, 0u);
  EXPECT_EQ(float_differs_, 0u);
}

TEST(RequantModel, RoundsHalfToEven) {
  EXPECT_EQ(static_cast<int>(rne_shift(3, 1)), 2);
  EXPECT_EQ(static_cast<int>(rne_shift(1, 1)), 0);
  EXPECT_EQ(static_cast<int>(rne_shift(-1, 1)), 0);
  EXPECT_EQ(static_cast<int>(rne_shift(-3, 1)), -2);
  EXPECT_EQ(static_cast<int>(rne_shift(-5, 2)), -1);
  EXPECT_EQ(static_cast<int>(rn24(0x1000001)), 0x1000000);
  EXPECT_EQ(static_cast<int>(rn24(0x1000003)), 0x1000004);
}

}  // namespace
}  // namespace latchkey::test
