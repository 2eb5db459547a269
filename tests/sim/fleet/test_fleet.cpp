// The die in bulk against the die race by race, and the software decoder against the definition of
// the code. tests/campaign/vault compares both with the RTL.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <set>

#include "latchkey/sim/fleet.h"

namespace latchkey::sim {
namespace {

SiliconConfig config_of(std::uint64_t die) {
  SiliconConfig c;
  c.die_seed = die;
  return c;
}

Environment at(double temperature, double voltage, double age, double noise) {
  Environment e;
  e.temperature_c = temperature;
  e.voltage_v = voltage;
  e.age_years = age;
  e.noise_scale = noise;
  return e;
}

// What lk_puf reads: race after race.
Response voted(Silicon& die, int offset) {
  Response r{};
  for (unsigned k = 0; k < 64; ++k) {
    for (unsigned chain = 0; chain < 96; ++chain) {
      int ones = 0;
      for (int v = 0; v < 15; ++v) ones += die.evaluate(chain, fleet_challenge(k), offset);
      const unsigned i = k * 96 + chain;
      r[i / 64] |= static_cast<std::uint64_t>(ones >= 8) << (i % 64);
    }
  }
  return r;
}

TEST(FleetDie, IsTheSameDieBitForBit) {
  const Environment places[] = {at(25, 0.85, 0, 1), at(85, 0.8925, 10, 1), at(-20, 0.8075, 3, 4),
                                at(25, 0.85, 0, 0), at(25, 0.85, 0, 40)};
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    Silicon slow(config_of(seed), 5);
    FleetDie fast(config_of(seed), 5);
    for (const Environment& e : places) {
      slow.set_environment(e);
      fast.set_environment(e);
      for (int offset : {0, 60, -60, 127, -128}) {
        ASSERT_EQ(fast.read(offset), voted(slow, offset))
            << "die " << seed << ", " << e.temperature_c << " C, offset " << offset;
      }
    }
    slow.power_on(77);
    fast.power_on(77);
    slow.set_environment(at(25, 0.85, 0, 1));
    fast.set_environment(at(25, 0.85, 0, 1));
    ASSERT_EQ(fast.read(), voted(slow, 0));
    for (int i = 0; i < 9; ++i) ASSERT_EQ(fast.trng_word(), slow.trng_word());
  }
}

// A race near the threshold is run again by the slow arithmetic: with a wider band many are.
TEST(FleetDie, RacesNearTheThresholdGetTheSameAnswerTheSlowWay) {
  FleetDie fast(config_of(3), 4), slow(config_of(3), 4, 1u << 21);
  for (double noise : {1.0, 10.0}) {
    fast.set_environment(at(85, 0.8, 2, noise), 0.5);
    slow.set_environment(at(85, 0.8, 2, noise), 0.5);
    for (int offset : {0, 50}) ASSERT_EQ(fast.read(offset), slow.read(offset));
    ASSERT_EQ(fast.single_races(), slow.single_races());
  }
  EXPECT_GT(slow.slow_races(), 50u);
}

TEST(FleetDie, WithoutNoiseItReadsTheDelays) {
  SiliconConfig c = config_of(1);
  FleetDie quiet(c);
  quiet.set_environment(at(25, 0.85, 0, 0));
  EXPECT_EQ(quiet.read(), quiet.exact());
  EXPECT_EQ(quiet.slow_races(), 0u);
}

TEST(FleetDie, AMaskedReadingIsPartOfTheWholeOne) {
  FleetDie a(config_of(3), 1), b(config_of(3), 1);
  const Environment e = at(-20, 0.8925, 10, 3);
  const Enrolled enrolled = enrol(a);
  enrol(b);
  ASSERT_EQ(enrolled.reject, Reject::none);
  a.set_environment(e);
  b.set_environment(e);
  for (int run = 0; run < 3; ++run) {
    const Response whole = a.read();
    const KeyBits part = b.read(enrolled.positions);
    for (unsigned j = 0; j < key_bits; ++j) {
      ASSERT_EQ(part[j / 255][j % 255 / 64] >> (j % 255 % 64) & 1,
                static_cast<std::uint64_t>(bit_of(whole, enrolled.positions[j])));
    }
  }
}

TEST(FleetDie, SingleRacesAreTheFirstOfARun) {
  Silicon slow(config_of(9), 2);
  FleetDie fast(config_of(9), 2);
  const Response r = fast.single_races();
  for (unsigned i = 0; i < 96; ++i) ASSERT_EQ(bit_of(r, i), slow.evaluate(i, 0, 0) != 0);
  EXPECT_EQ(fast.single_races(), r) << "nothing is consumed";
}

TEST(FleetDie, DriftScaleIsADieWithMoreDrift) {
  SiliconConfig strong = config_of(6);
  strong.corner_drift *= 3;
  FleetDie scaled(config_of(6)), whole(strong);
  const Environment e = at(85, 0.8925, 10, 1);
  scaled.set_environment(e, 3);
  whole.set_environment(e);
  for (unsigned i = 0; i < fleet_bits; ++i) ASSERT_NEAR(scaled.delta(i), whole.delta(i), 1e-12);
  EXPECT_EQ(scaled.read(), whole.read());
}

TEST(FleetDie, RefusesNonsense) {
  SiliconConfig c = config_of(1);
  c.chains = 95;
  EXPECT_THROW(FleetDie{c}, std::invalid_argument);
  c = config_of(1);
  c.noise = -1;
  EXPECT_THROW(FleetDie{c}, std::invalid_argument);
  FleetDie die(config_of(1));
  EXPECT_THROW(die.set_environment(at(151, 0.85, 0, 1)), std::invalid_argument);
  EXPECT_THROW(die.set_environment(Environment{}, -1), std::invalid_argument);
  EXPECT_THROW(die.set_environment(Environment{}, std::nan("")), std::invalid_argument);
  EXPECT_THROW(die.read(128), std::out_of_range);
  EXPECT_THROW(die.read(-129), std::out_of_range);
  Enrolled rejected;
  rejected.reject = Reject::stuck_chain;
  EXPECT_THROW(start(die, rejected), std::invalid_argument);
}

// ---- enrolment

TEST(Enrol, RejectsWhatTheSelectionRejects) {
  const auto with_step = [](double step) {
    SiliconConfig c = config_of(1);
    c.pdl_step = step;
    FleetDie die(c);
    return enrol(die);
  };
  EXPECT_EQ(with_step(1.0 / 16).reject, Reject::too_few_reliable);
  EXPECT_EQ(with_step(1.0 / 128).reject, Reject::too_weak_delay_lines);
  EXPECT_EQ(with_step(0).reject, Reject::too_weak_delay_lines);
  EXPECT_TRUE(with_step(0).positions.empty());
  EXPECT_NE(with_step(1.0 / 64).reject, Reject::too_few_reliable);
}

TEST(Enrol, StuckChainsAreThoseOutsideTheBounds) {
  for (unsigned ones : {0u, 7u, 8u, 56u, 57u, 64u}) {
    Response r{};
    for (unsigned i = 0; i < fleet_bits; ++i) {
      const bool one = i % 96 == 40 ? i / 96 < ones : (i / 96) % 2 != 0;
      r[i / 64] |= static_cast<std::uint64_t>(one) << (i % 64);
    }
    EXPECT_EQ(stuck_chains(r), ones <= 7 || ones >= 57 ? 1u : 0u) << ones;
  }
}

TEST(Start, SucceedsOnTheDieAndFailsOnAnother) {
  FleetDie die(config_of(1)), other(config_of(2));
  const Enrolled e = enrol(die);
  ASSERT_EQ(e.reject, Reject::none);
  EXPECT_EQ(e.positions.size(), std::size_t{key_bits});
  const Started good = start(die, e);
  EXPECT_TRUE(good.ok);
  EXPECT_FALSE(good.decoder_failed);
  const Started bad = start(other, e);
  EXPECT_FALSE(bad.ok);
  EXPECT_TRUE(bad.decoder_failed);
}

TEST(Start, EighteenErrorsInABlockAreTheLimit) {
  FleetDie die(config_of(1));
  const Enrolled e = enrol(die);
  for (unsigned block : {0u, 7u}) {
    for (unsigned errors : {1u, 18u, 19u}) {
      KeyBits reading = e.response;
      for (unsigned n = 0; n < errors; ++n) {
        const unsigned j = n * 14;
        reading[block][j / 64] ^= std::uint64_t{1} << (j % 64);
      }
      const Started s = start(e, reading);
      EXPECT_EQ(s.ok, errors <= 18);
      EXPECT_EQ(s.errors[block], errors);
    }
  }
}

// ---- code

bool is_codeword(const Block& word) {
  std::vector<int> exp(255);
  for (int i = 0, v = 1; i < 255; ++i) {
    exp[i] = v;
    v <<= 1;
    if ((v & 256) != 0) v ^= 0x11D;
  }
  for (int j = 1; j <= 36; ++j) {
    int s = 0;
    for (int i = 0; i < 255; ++i) {
      if ((word[i / 64] >> (i % 64) & 1) != 0) s ^= exp[(254 - i) * j % 255];
    }
    if (s != 0) return false;
  }
  return true;
}

Block random_message(std::mt19937_64& rng) { return {rng(), rng(), rng() & 7, 0}; }

TEST(BchTwin, EncodesSystematicallyIntoTheCode) {
  std::mt19937_64 rng(1);
  for (int trial = 0; trial < 200; ++trial) {
    const Block message = random_message(rng), word = bch_encode(message);
    ASSERT_TRUE(is_codeword(word));
    EXPECT_EQ(word[0], message[0]);
    EXPECT_EQ(word[1], message[1]);
    EXPECT_EQ(word[2] & 7, message[2]);
    EXPECT_EQ(word[3] >> 63, 0u) << "position 255 does not exist";
  }
}

TEST(BchTwin, CorrectsUpToEighteenAndFlagsMore) {
  std::mt19937_64 rng(2);
  for (unsigned weight = 0; weight <= 40; ++weight) {
    for (int trial = 0; trial < 100; ++trial) {
      const Block sent = bch_encode(random_message(rng));
      Block received = sent;
      std::set<unsigned> where;
      while (where.size() < weight) where.insert(static_cast<unsigned>(rng() % 255));
      for (unsigned j : where) received[j / 64] ^= std::uint64_t{1} << (j % 64);
      const Correction c = bch_decode(received);
      ASSERT_EQ(c.fail, weight > 18) << weight;
      if (weight <= 18) {
        ASSERT_EQ(c.word, sent);
        ASSERT_EQ(c.corrected, weight);
      }
    }
  }
}

}  // namespace
}  // namespace latchkey::sim
