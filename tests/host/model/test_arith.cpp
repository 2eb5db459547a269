// The integer requantisation against real float32 arithmetic, and the edges of its parts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "latchkey/error.hpp"
#include "model/arith.hpp"

namespace latchkey::model {
namespace {

TEST(Rn24, AgreesWithFloat32) {
  const std::uint64_t seed = 24;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 rng(seed);
  for (int i = 0; i < 1000000; ++i) {
    const auto v = static_cast<std::int64_t>(rng()) >> (1 + rng() % 62);
    ASSERT_EQ(rn24(v), static_cast<std::int64_t>(static_cast<float>(v))) << v;
  }
}

TEST(Rn24, RoundsTiesToEven) {
  EXPECT_EQ(rn24(0), 0);
  EXPECT_EQ(rn24((1 << 24) + 1), 1 << 24);
  EXPECT_EQ(rn24((1 << 24) + 3), (1 << 24) + 4);
  EXPECT_EQ(rn24(-(1 << 24) - 1), -(1 << 24));
  EXPECT_EQ(rn24((1 << 25) - 1), 1 << 25);  // A carry into the next power of two.
  EXPECT_EQ(rn24(std::numeric_limits<std::int32_t>::min()), std::int64_t{-1} << 31);
}

TEST(RneShift, RoundsTiesToEven) {
  EXPECT_EQ(rne_shift(5, 0), 5);
  EXPECT_EQ(rne_shift(1, 1), 0);
  EXPECT_EQ(rne_shift(3, 1), 2);
  EXPECT_EQ(rne_shift(-1, 1), 0);
  EXPECT_EQ(rne_shift(-3, 1), -2);
  EXPECT_EQ(rne_shift(-5, 2), -1);
  EXPECT_EQ(rne_shift(-6, 2), -2);
  EXPECT_EQ(rne_shift(std::numeric_limits<std::int64_t>::max(), 63), 1);
  EXPECT_EQ(rne_shift(std::numeric_limits<std::int64_t>::min(), 63), -1);
}

// ONNX Runtime's own way: int32 -> float32, multiply, round half to even, add, saturate.
std::uint8_t float_way(std::int32_t acc, float m, std::uint8_t zero) {
  const float t = std::nearbyint(static_cast<float>(acc) * m);
  return static_cast<std::uint8_t>(std::clamp(t + static_cast<float>(zero), 0.0F, 255.0F));
}

TEST(Requantise, IsBitExactWithFloat32) {
  const std::uint64_t seed = 7;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<float> exponent(-12.0F, 1.0F);
  for (int i = 0; i < 1000000; ++i) {
    const float sx = std::exp2(exponent(rng));
    const float sw = std::exp2(exponent(rng));
    const float sy = std::exp2(exponent(rng));
    const requant r = make_requant(sx, sw, sy);
    const float m = (sx * sw) / sy;
    // Accumulators whose results fall near the 8-bit range, where rounding shows.
    const double reach = std::min(400.0 / m, 2147483000.0);
    std::uniform_real_distribution<double> range(-reach, reach);
    const auto acc = static_cast<std::int32_t>(range(rng));
    const auto zero = static_cast<std::uint8_t>(rng());
    ASSERT_EQ(requantise(r, acc, zero, 0, 255), float_way(acc, m, zero))
        << "sx " << sx << " sw " << sw << " sy " << sy << " acc " << acc;
  }
}

TEST(Requantise, IsBitExactOnTies) {
  // Powers of two give exact halves: every second accumulator is a tie.
  const requant r = make_requant(0.5F, 1.0F, 1.0F);
  for (std::int32_t acc = -1000; acc <= 1000; ++acc) {
    ASSERT_EQ(requantise(r, acc, 128, 0, 255), float_way(acc, 0.5F, 128)) << acc;
  }
}

TEST(Requantise, Clamps) {
  const requant one = make_requant(1.0F, 1.0F, 1.0F);
  EXPECT_EQ(requantise(one, -50, 10, 10, 200), 10);
  EXPECT_EQ(requantise(one, 500, 10, 10, 200), 200);
  EXPECT_EQ(requantise(one, 5, 10, 10, 200), 15);
  EXPECT_EQ(requantise(one, std::numeric_limits<std::int32_t>::min(), 0, 0, 255), 0);
  EXPECT_EQ(requantise(one, std::numeric_limits<std::int32_t>::max(), 0, 0, 255), 255);
}

TEST(MakeRequant, KeepsTheMantissaIn24Bits) {
  for (float m = 0x1p-38F; m < 0x1p+23F; m *= 1.37F) {
    const requant r = make_requant(m, 1.0F, 1.0F);
    ASSERT_GE(r.multiplier, 1U << 23) << m;
    ASSERT_LT(r.multiplier, 1U << 24) << m;
    ASSERT_EQ(std::ldexp(static_cast<float>(r.multiplier), -r.shift), m);
  }
}

TEST(MakeRequant, TurnsHopelesslySmallMultipliersIntoZero) {
  EXPECT_EQ(make_requant(1e-20F, 1e-20F, 1.0F), requant{});
  EXPECT_EQ(make_requant(std::numeric_limits<float>::denorm_min(), 0.5F, 1.0F), requant{});
  // The last one that is kept already yields 0 for every accumulator.
  const requant last = make_requant(0x1p-40F, 1.0F, 1.0F);
  EXPECT_EQ(last.shift, 63);
  EXPECT_EQ(apply(last, std::numeric_limits<std::int32_t>::max()), 0);
  EXPECT_EQ(make_requant(0x1p-41F, 1.0F, 1.0F), requant{});
}

TEST(MakeRequant, RefusesScalesThatMakeNoSense) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {0.0F, -1.0F, inf, nan}) {
    EXPECT_THROW(make_requant(bad, 1.0F, 1.0F), error) << bad;
    EXPECT_THROW(make_requant(1.0F, bad, 1.0F), error) << bad;
    EXPECT_THROW(make_requant(1.0F, 1.0F, bad), error) << bad;
  }
  EXPECT_THROW(make_requant(0x1p+24F, 1.0F, 1.0F), error);
  EXPECT_NO_THROW(make_requant(std::nextafter(0x1p+24F, 0.0F), 1.0F, 1.0F));
  try {
    make_requant(0.0F, 1.0F, 1.0F);
    FAIL();
  } catch (const error& e) {
    EXPECT_EQ(e.code(), errc::unsupported_model);
    EXPECT_EQ(e.exit_code(), 4);
  }
}

TEST(QuantiseValue, RoundsAndSaturates) {
  EXPECT_EQ(quantise_value(0.5F, 1.0F, 0), 0);
  EXPECT_EQ(quantise_value(1.5F, 1.0F, 0), 2);
  EXPECT_EQ(quantise_value(-1.0F, 1.0F, 0), 0);
  EXPECT_EQ(quantise_value(1e30F, 1.0F, 0), 255);
  EXPECT_EQ(quantise_value(-1e30F, 1.0F, 128), 0);
  EXPECT_EQ(quantise_value(std::numeric_limits<float>::infinity(), 1.0F, 3), 255);
  EXPECT_EQ(quantise_value(-std::numeric_limits<float>::infinity(), 1.0F, 3), 0);
  EXPECT_EQ(quantise_value(std::numeric_limits<float>::quiet_NaN(), 1.0F, 3), 3);
  for (int p = 0; p < 256; ++p) {  // Pixels survive byte / 255 unchanged.
    ASSERT_EQ(quantise_value(static_cast<float>(p) / 255.0F, 1.0F / 255.0F, 0), p);
  }
}

}  // namespace
}  // namespace latchkey::model
