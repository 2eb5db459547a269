// Statistics of the modelled die, its fuses and the C ABI. Expected figures come from closed forms
// of the Gaussian model (two Gaussians of correlation r differ in sign with acos(r) / pi).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "latchkey/sim/silicon.h"

// The DPI functions as Verilated code calls them.
extern "C" {
int latchkey_puf_eval(int chain, long long challenge, int offset);
int latchkey_trng_word();
long long latchkey_fuse_read();
void latchkey_fuse_program(int field, int value);
}

namespace latchkey::sim {
namespace {

constexpr double kPi = 3.14159265358979323846;

SiliconConfig config_of(std::uint64_t die, std::uint64_t lot = 1) {
  SiliconConfig c;
  c.die_seed = die;
  c.lot_seed = lot;
  return c;
}

Environment quiet(double temperature = 25, double voltage = 0.85, double age = 0) {
  Environment e;
  e.temperature_c = temperature;
  e.voltage_v = voltage;
  e.age_years = age;
  e.noise_scale = 0;
  return e;
}

// Challenge whose transformed vector is row k of the Hadamard matrix, from the definition.
std::uint64_t hadamard_challenge(unsigned k) {
  std::uint64_t c = 0;
  for (unsigned i = 0; i < 64; ++i) {
    const unsigned here = __builtin_parity(k & i);
    const unsigned above = i == 63 ? 0 : __builtin_parity(k & (i + 1));
    c |= static_cast<std::uint64_t>(here ^ above) << i;
  }
  return c;
}

std::vector<int> read_all(Silicon& die, int offset = 0) {
  std::vector<int> bits;
  for (unsigned k = 0; k < 64; ++k) {
    const std::uint64_t c = hadamard_challenge(k);
    for (unsigned chain = 0; chain < die.config().chains; ++chain) {
      bits.push_back(die.evaluate(chain, c, offset));
    }
  }
  return bits;
}

double difference(const std::vector<int>& a, const std::vector<int>& b) {
  double d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) d += a[i] != b[i];
  return d / static_cast<double>(a.size());
}

TEST(Philox, PublishedVectors) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~0ull),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822ull),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(NormalQuantile, InvertsTheDistribution) {
  for (double p : {1e-16, 1e-12, 1e-6, 0.001, 0.02, 0.0749, 0.0751, 0.3, 0.5, 0.7, 0.93, 0.999}) {
    const double x = normal_quantile(p);
    EXPECT_NEAR(0.5 * std::erfc(-x / std::sqrt(2.0)) / p, 1.0, 1e-11) << p;
  }
}

TEST(Silicon, SameSeedsAreTheSameDie) {
  Silicon a(7, 3), b(7, 3), other_die(8, 3), other_lot(7, 4);
  EXPECT_EQ(read_all(a), read_all(b));  // noise included
  EXPECT_NE(a.delay(0, 5), other_die.delay(0, 5));
  EXPECT_NE(a.delay(0, 5), other_lot.delay(0, 5));
}

TEST(Silicon, NoiseDependsOnTheNonceAndNotOnTheOrder) {
  Silicon a(config_of(7), 1), b(config_of(7), 1), c(config_of(7), 2);
  std::vector<int> up, down(96 * 40), other;
  for (int n = 0; n < 40; ++n) {
    for (unsigned i = 0; i < 96; ++i) up.push_back(a.evaluate(i, 0x1234, 0));
    for (unsigned i = 96; i-- > 0;) down[n * 96 + i] = b.evaluate(i, 0x1234, 0);
    for (unsigned i = 0; i < 96; ++i) other.push_back(c.evaluate(i, 0x1234, 0));
  }
  EXPECT_EQ(up, down);
  EXPECT_NE(up, other);
  a.power_on(1);
  EXPECT_EQ(a.races(), 0u);
  for (std::size_t i = 0; i < up.size(); ++i) {
    ASSERT_EQ(a.evaluate(static_cast<unsigned>(i % 96), 0x1234, 0), up[i]);
  }
  EXPECT_EQ(a.races(), up.size());
}

// The bits of the parity transform, summed one by one, against the fast form in the library: a
// challenge that differs in bit i alone flips the terms 0..i.
TEST(Silicon, DelayFollowsTheAdditiveModel) {
  Silicon die(11, 1);
  std::mt19937_64 rng(1);
  for (unsigned chain : {0u, 41u, 95u}) {
    // Term by term: the challenge 2^i turns the signs of the terms up to i.
    const double all = die.delay(chain, 0);
    std::vector<double> w(65);
    double below = 0, sum = 0;
    for (unsigned i = 0; i < 64; ++i) {
      const double through_i = (all - die.delay(chain, std::uint64_t{1} << i)) / 2;
      w[i] = through_i - below;
      below = through_i;
      sum += w[i];
    }
    w[64] = all - sum;
    for (int trial = 0; trial < 200; ++trial) {
      const std::uint64_t c = rng();
      double want = w[64];
      for (unsigned i = 0; i < 64; ++i) {
        double phi = 1;
        for (unsigned j = i; j < 64; ++j) phi *= (c >> j & 1) != 0 ? -1 : 1;
        want += w[i] * phi;
      }
      ASSERT_NEAR(die.delay(chain, c), want, 1e-12);
    }
  }
}

TEST(Silicon, DelayHasUnitVarianceAndRowsAreUncorrelated) {
  double sum = 0, square = 0, cross = 0;
  int n = 0, m = 0;
  for (std::uint64_t die = 1; die <= 20; ++die) {
    SiliconConfig c = config_of(die);
    c.population_skew = 0;
    Silicon s(c);
    for (unsigned chain = 0; chain < 96; ++chain) {
      for (unsigned k = 0; k < 64; ++k) {
        const double d = s.delay(chain, hadamard_challenge(k));
        sum += d;
        square += d * d;
        ++n;
        if (k > 0) cross += d * s.delay(chain, hadamard_challenge(k - 1)), ++m;
      }
    }
  }
  EXPECT_NEAR(sum / n, 0.0, 0.015);
  EXPECT_NEAR(square / n, 1.0, 0.02);
  EXPECT_NEAR(cross / m, 0.0, 0.015);
}

TEST(Silicon, UniquenessAndUniformityAreOneHalf) {
  std::vector<std::vector<int>> dies;
  double ones = 0;
  for (std::uint64_t seed = 1; seed <= 16; ++seed) {
    SiliconConfig c = config_of(seed);
    c.population_skew = 0;
    Silicon die(c);
    die.set_environment(quiet());
    dies.push_back(read_all(die));
    for (int b : dies.back()) ones += b;
  }
  double distance = 0;
  int pairs = 0;
  for (std::size_t a = 0; a < dies.size(); ++a) {
    for (std::size_t b = a + 1; b < dies.size(); ++b, ++pairs) {
      const double d = difference(dies[a], dies[b]);
      EXPECT_NEAR(d, 0.5, 0.04);
      distance += d;
    }
  }
  EXPECT_NEAR(distance / pairs, 0.5, 0.005);
  EXPECT_NEAR(ones / (16 * 6144), 0.5, 0.01);
}

TEST(Silicon, SkewMakesDiesOfALotAlike) {
  for (double skew : {0.1, 0.3, 1.0}) {
    const double r = skew * skew / (1 + skew * skew);
    double same_lot = 0, other_lot = 0;
    constexpr int n = 12;
    for (std::uint64_t i = 0; i < n; ++i) {
      SiliconConfig c = config_of(100 + 2 * i, 5);
      c.population_skew = skew;
      Silicon a(c);
      c.die_seed++;
      Silicon b(c);
      a.set_environment(quiet());
      b.set_environment(quiet());
      same_lot += difference(read_all(a), read_all(b)) / n;
      c.lot_seed = 6;
      Silicon elsewhere(c);
      elsewhere.set_environment(quiet());
      other_lot += difference(read_all(a), read_all(elsewhere)) / n;
    }
    EXPECT_NEAR(same_lot, std::acos(r) / kPi, 0.01) << skew;
    EXPECT_NEAR(other_lot, 0.5, 0.01) << skew;
  }
}

TEST(Silicon, QuietNominalReadsAreIdentical) {
  Silicon die(3, 1);
  die.set_environment(quiet());
  const std::vector<int> first = read_all(die);
  for (int i = 0; i < 5; ++i) {
    die.power_on(i);
    EXPECT_EQ(read_all(die), first);
  }
  for (unsigned chain = 0; chain < 96; ++chain) {
    const std::uint64_t c = hadamard_challenge(9);
    EXPECT_EQ(die.evaluate(chain, c, 0), die.delay(chain, c) > 0 ? 1 : 0);
  }
}

TEST(Silicon, FivePercentOfSingleRacesFlip) {
  double flips = 0;
  constexpr int n = 10;
  for (std::uint64_t seed = 1; seed <= n; ++seed) {
    Silicon noisy(seed, 1), exact(seed, 1);
    exact.set_environment(quiet());
    flips += difference(read_all(noisy), read_all(exact)) / n;
  }
  const double sigma = std::sqrt(1.01);  // the default skew widens the population by 1 %
  EXPECT_NEAR(flips, std::atan(0.158 / sigma) / kPi, 0.003);
  RecordProperty("flips_ppm", static_cast<int>(flips * 1e6));
}

TEST(Silicon, CornerDriftIsAsDocumented) {
  for (double drift : {typical_corner_drift, harsh_corner_drift}) {
    double corner = 0, temperature = 0, voltage = 0, age = 0;
    constexpr int n = 20;
    for (std::uint64_t seed = 1; seed <= n; ++seed) {
      SiliconConfig c = config_of(seed);
      c.corner_drift = drift;
      c.population_skew = 0;
      Silicon die(c);
      die.set_environment(quiet());
      const std::vector<int> nominal = read_all(die);
      die.set_environment(quiet(85, 0.85 * 1.05, 10));
      corner += difference(read_all(die), nominal) / n;
      die.set_environment(quiet(85));
      temperature += difference(read_all(die), nominal) / n;
      die.set_environment(quiet(25, 0.85 * 0.95));
      voltage += difference(read_all(die), nominal) / n;
      die.set_environment(quiet(25, 0.85, 10));
      age += difference(read_all(die), nominal) / n;
    }
    EXPECT_NEAR(corner, std::atan(drift) / kPi, 0.003) << drift;
    EXPECT_NEAR(temperature, std::atan(0.8 * drift) / kPi, 0.003) << drift;
    EXPECT_NEAR(voltage, std::atan(0.5 * drift) / kPi, 0.003) << drift;
    EXPECT_NEAR(age, std::atan(std::sqrt(0.11) * drift) / kPi, 0.003) << drift;
    RecordProperty(drift < 0.3 ? "typical_ppm" : "harsh_ppm", static_cast<int>(corner * 1e6));
  }
}

TEST(Silicon, DriftIsReversibleExceptThatTheCallerSetsTheAge) {
  Silicon die(3, 1);
  const double before = die.delay(5, 77);
  die.set_environment(quiet(85, 0.9, 3));
  EXPECT_NE(die.delay(5, 77), before);
  die.set_environment(quiet());
  EXPECT_EQ(die.delay(5, 77), before);
}

TEST(Silicon, OffsetMovesTheDecision) {
  Silicon die(3, 1);
  die.set_environment(quiet());
  for (unsigned chain = 0; chain < 96; ++chain) {
    int last = 0, rises = 0;
    for (int offset = -128; offset <= 127; ++offset) {
      const int now = die.evaluate(chain, hadamard_challenge(chain % 64), offset);
      EXPECT_GE(now, last);
      rises += now != last;
      last = now;
    }
    EXPECT_LE(rises, 1);
  }
  // Nearly all of a Gaussian lies within +-127 / 64 sigma.
  const std::vector<int> high = read_all(die, 127), low = read_all(die, -128);
  double ones = 0, zeros = 0;
  for (int b : high) ones += b;
  for (int b : low) zeros += b == 0;
  EXPECT_NEAR(ones / 6144, 0.976, 0.01);
  EXPECT_NEAR(zeros / 6144, 0.977, 0.01);
}

TEST(Silicon, TrngWordsAreBalancedAndFollowTheNonce) {
  Silicon a(config_of(5), 1), b(config_of(5), 1), c(config_of(5), 2), d(config_of(6), 1);
  int ones = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint32_t w = a.trng_word();
    ASSERT_EQ(w, b.trng_word());
    ones += __builtin_popcount(w);
    ASSERT_FALSE(i > 0 && w == c.trng_word() && w == d.trng_word());
  }
  EXPECT_NEAR(ones / 32000.0, 0.5, 0.015);
}

TEST(Silicon, RefusesNonsense) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Silicon die(1, 1);
  EXPECT_THROW(die.evaluate(96, 0, 0), std::out_of_range);
  EXPECT_THROW(die.evaluate(0, 0, 128), std::out_of_range);
  EXPECT_THROW(die.evaluate(0, 0, -129), std::out_of_range);
  EXPECT_THROW(die.delay(96, 0), std::out_of_range);
  EXPECT_THROW(die.set_environment(quiet(151)), std::invalid_argument);
  EXPECT_THROW(die.set_environment(quiet(nan)), std::invalid_argument);
  EXPECT_THROW(die.set_environment(quiet(25, 0)), std::invalid_argument);
  EXPECT_THROW(die.set_environment(quiet(25, 0.85, -1)), std::invalid_argument);
  Environment e;
  e.noise_scale = -1;
  EXPECT_THROW(die.set_environment(e), std::invalid_argument);
  SiliconConfig c;
  c.chains = 0;
  EXPECT_THROW(Silicon{c}, std::invalid_argument);
  c = {};
  c.noise = nan;
  EXPECT_THROW(Silicon{c}, std::invalid_argument);
  c = {};
  c.corner_drift = -0.1;
  EXPECT_THROW(Silicon{c}, std::invalid_argument);
}

TEST(Fuses, OnlyMoveForward) {
  Fuses fuses;
  std::vector<FuseState> seen;
  fuses.on_change([&](const FuseState& s) { seen.push_back(s); });
  EXPECT_EQ(fuses.read(), 0x0240u);
  fuses.program(LATCHKEY_FUSE_LIFE_CYCLE, 0x5a69);
  fuses.program(LATCHKEY_FUSE_ENROLLED, 0);
  fuses.program(LATCHKEY_FUSE_MIN_VERSION, 7);
  EXPECT_EQ(fuses.read(), 0x0000000700015a69u);
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen.back(), fuses.state());
  // Back: the codes stay, the version stays, nobody is told.
  fuses.program(LATCHKEY_FUSE_LIFE_CYCLE, 0x0240);
  fuses.program(LATCHKEY_FUSE_MIN_VERSION, 6);
  fuses.program(LATCHKEY_FUSE_ENROLLED, 0);
  EXPECT_EQ(fuses.read(), 0x0000000700015a69u);
  EXPECT_EQ(seen.size(), 3u);
  fuses.program(LATCHKEY_FUSE_LIFE_CYCLE, static_cast<std::uint32_t>(LifeCycle::locked));
  EXPECT_EQ(fuses.state().life_cycle, 0x7ffb);
  EXPECT_THROW(fuses.program(static_cast<latchkey_fuse_field>(3), 0), std::invalid_argument);
  // Floors belong to their slot, and only rise.
  const auto told = seen.size();
  const auto field = [](int first, int slot) {
    return static_cast<latchkey_fuse_field>(first + slot);
  };
  fuses.program(field(LATCHKEY_FUSE_VERSION_FLOOR, 3), 5);
  fuses.program(field(LATCHKEY_FUSE_EPOCH_FLOOR, 3), 0x80000000);
  fuses.program(field(LATCHKEY_FUSE_EPOCH_FLOOR, 7), 2);
  EXPECT_EQ(seen.size(), told + 3);
  fuses.program(field(LATCHKEY_FUSE_EPOCH_FLOOR, 7), 1);
  EXPECT_EQ(seen.size(), told + 3);
  EXPECT_EQ(fuses.floor(3), 0x8000000000000005u);
  EXPECT_EQ(fuses.floor(7), 0x0000000200000000u);
  EXPECT_EQ(fuses.floor(2), 0u);
  EXPECT_THROW(fuses.floor(8), std::out_of_range);
  EXPECT_THROW(fuses.program(field(LATCHKEY_FUSE_VERSION_FLOOR, 8), 1), std::invalid_argument);
  EXPECT_THROW(fuses.program(field(LATCHKEY_FUSE_EPOCH_FLOOR, 8), 1), std::invalid_argument);
  Fuses again(fuses.state());
  EXPECT_EQ(again.read(), fuses.read());
  EXPECT_EQ(again.floor(3), fuses.floor(3));
}

TEST(Fuses, CodesAreSparseAndNested) {
  const std::uint16_t codes[] = {0x0000, static_cast<std::uint16_t>(LifeCycle::open),
                                 static_cast<std::uint16_t>(LifeCycle::enrolled),
                                 static_cast<std::uint16_t>(LifeCycle::locked)};
  for (int a = 1; a < 4; ++a) {
    EXPECT_EQ(codes[a] & codes[a - 1], codes[a - 1]);
    for (int b = 1; b < a; ++b) EXPECT_GE(__builtin_popcount(codes[a] ^ codes[b]), 6);
  }
}

TEST(Ops, ForwardToTheSelectedDie) {
  Silicon a(1, 1), b(2, 1), twin(2, 1);
  Fuses fuses_a, fuses_b;
  const latchkey_silicon_ops ops_a = make_ops(a, fuses_a);
  const latchkey_silicon_ops ops_b = make_ops(b, fuses_b);
  latchkey_silicon_select(&ops_a);
  latchkey_silicon_select(&ops_b);
  for (int i = 0; i < 96; ++i) {
    ASSERT_EQ(latchkey_puf_eval(i, static_cast<long long>(0x8000000000000001ull), -3),
              twin.evaluate(i, 0x8000000000000001ull, -3));
  }
  EXPECT_EQ(static_cast<std::uint32_t>(latchkey_trng_word()), twin.trng_word());
  latchkey_fuse_program(LATCHKEY_FUSE_MIN_VERSION, -1);
  EXPECT_EQ(static_cast<std::uint64_t>(latchkey_fuse_read()), 0xffffffff00000240ull);
  EXPECT_EQ(fuses_a.state().min_version, 0u);
  EXPECT_EQ(a.races(), 0u);
  latchkey_silicon_select(nullptr);
}

// Two PUFs of one die are as different as two dies, in their delays and in their noise sources.
TEST(Silicon, RegionsOfOneDieAreUnlike) {
  SiliconConfig config;
  config.die_seed = 7;
  config.population_skew = 0;
  Silicon zero(config, 5), again(config, 5);
  config.region = 1;
  Silicon one(config, 5);
  int differ = 0, words = 0;
  constexpr int races = 96 * 64;
  for (int i = 0; i < races; ++i) {
    const std::uint64_t challenge = 0x9e3779b97f4a7c15ull * static_cast<std::uint64_t>(i / 96 + 1);
    const auto chain = static_cast<unsigned>(i % 96);
    const bool answer = zero.delay(chain, challenge) > 0;
    EXPECT_EQ(answer, again.delay(chain, challenge) > 0);
    differ += answer != (one.delay(chain, challenge) > 0);
  }
  // Half, within five standard deviations.
  EXPECT_NEAR(differ, races / 2, 5 * 39.2);
  for (int i = 0; i < 64; ++i) words += zero.trng_word() == one.trng_word();
  EXPECT_LE(words, 1);
}

TEST(OpsDeathTest, NoDieOrABadCallEndsTheProcess) {
  latchkey_silicon_select(nullptr);
  EXPECT_DEATH(latchkey_puf_eval(0, 0, 0), "no die is selected");
  EXPECT_DEATH(latchkey_trng_word(), "no die is selected");
  EXPECT_DEATH(latchkey_fuse_read(), "no die is selected");
  EXPECT_DEATH(latchkey_fuse_program(0, 0), "no die is selected");
  Silicon die(1, 1);
  Fuses fuses;
  const latchkey_silicon_ops ops = make_ops(die, fuses);
  latchkey_silicon_select(&ops);
  EXPECT_DEATH(latchkey_puf_eval(96, 0, 0), "chain 96");
  latchkey_silicon_select(nullptr);
}

}  // namespace
}  // namespace latchkey::sim
