// The attack suite: its learners learn what can be learned, nothing where there is nothing, and its
// verdicts on helper data have controls.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "attacks.hpp"
#include "learners.hpp"

namespace latchkey::campaign::attacks {
namespace {

sim::Silicon die_of(std::uint64_t seed) {
  sim::SiliconConfig c;
  c.die_seed = seed;
  return sim::Silicon(c, 1);
}

TEST(Learners, TheTransformIsTheParityOfTheRest) {
  std::mt19937_64 random(5);
  const std::uint64_t a = random();
  std::array<float, features> phi{}, other{};
  transform(a, phi.data());
  transform(a ^ 1, other.data());
  for (unsigned i = 0; i < features; ++i) {
    // c_0 turns phi_0 alone.
    EXPECT_EQ(other[i], i == 0 ? -phi[i] : phi[i]) << i;
  }
  transform(0, phi.data());
  for (const float x : phi) EXPECT_EQ(x, 1);
}

TEST(Learners, CompositionsAreWhatTheySay) {
  sim::Silicon die = die_of(4);
  std::mt19937_64 random(6);
  for (int n = 0; n < 200; ++n) {
    const std::uint64_t c = random();
    const auto bit = [&](unsigned chain, std::uint64_t x) {
      return die.delay(chain, x) > 0 ? 1 : 0;
    };
    EXPECT_EQ(sim::exact_answer(die, {0, 3}, 2, c), bit(2, c) ^ bit(3, c) ^ bit(4, c));
    const std::uint64_t below =
        (c & ~(std::uint64_t{1} << 32)) | static_cast<std::uint64_t>(bit(0, c)) << 32;
    EXPECT_EQ(sim::exact_answer(die, {1, 2}, 0, c), bit(1, below) ^ bit(2, below));
  }
}

TEST(Learners, LearnAChainAndTwo) {
  sim::Silicon die = die_of(11);
  const sim::Composition one{0, 1}, two{0, 2};
  EXPECT_GT(
      accuracy(logistic_regression(collect(die, one, 3000, 1, 1), 1, 60, 1, 1), die, one, 4000, 2),
      0.95);
  EXPECT_GT(accuracy(perceptron(collect(die, one, 3000, 1, 1), 1, 40, 1), die, one, 4000, 2), 0.88);
  EXPECT_GT(
      accuracy(logistic_regression(collect(die, two, 10000, 1, 1), 2, 40, 4, 1), die, two, 4000, 2),
      0.92);
  const reliability_result r = reliability_attack(collect(die, one, 5000, 11, 1), 1, 400, 3, 1);
  EXPECT_EQ(r.chains_found, 1U);
  EXPECT_GT(accuracy(r.predict, die, one, 4000, 2), 0.93);
}

// The same learners on answers that a coin gave: they fit, and predict nothing.
TEST(Learners, LearnNothingFromACoin) {
  sim::Silicon die = die_of(12);
  const sim::Composition one{0, 1};
  crps data = collect(die, one, 3000, 1, 1);
  std::mt19937_64 coin(8);
  for (float& a : data.answer) a = coin() % 2 != 0 ? 1.0F : -1.0F;
  EXPECT_NEAR(accuracy(logistic_regression(data, 1, 40, 1, 1), die, one, 4000, 2), 0.5, 0.12);
  EXPECT_NEAR(accuracy(perceptron(data, 1, 20, 1), die, one, 4000, 2), 0.5, 0.12);
}

TEST(Learners, AreDeterministic) {
  const sim::Composition one{0, 1};
  std::array<double, 2> seen{};
  for (double& s : seen) {
    sim::Silicon die = die_of(13);
    s = accuracy(logistic_regression(collect(die, one, 500, 1, 1), 1, 20, 1, 1), die, one, 2000, 2);
  }
  EXPECT_EQ(seen[0], seen[1]);
}

TEST(Locked, HelperDataTeachesNothingButTheLotsSkew) {
  plan p;
  p.dice = 10;
  p.lot = 150;
  const nlohmann::json r = from_helper_data(p, [](const std::string&) {});
  const auto& mask = r["mask_reliability"];
  EXPECT_GT(mask["correlation_reached"], 0.95) << "the attack must fit what it is given";
  EXPECT_NEAR(mask["kept_bits"]["share"], 0.5, 0.015);
  EXPECT_LT(std::abs(mask["deviations"].get<double>()), 4);
  const auto& lots = r["other_dice_of_the_lot"];
  EXPECT_NEAR(lots[0]["kept_bits"]["share"], 0.5, 0.015) << "no skew, nothing to learn";
  EXPECT_GT(lots[2]["kept_bits"]["share"], 0.6) << "the control: much skew is learned";
  EXPECT_GT(lots[1]["bits_left"], 256);
}

TEST(Locked, EveryManipulationIsRefusedAlike) {
  plan p;
  p.manipulations = 6;
  const nlohmann::json r = by_manipulation(p, [](const std::string&) {});
  ASSERT_EQ(r["classes"].size(), 4U);
  for (const auto& c : r["classes"]) {
    SCOPED_TRACE(c["change"].get<std::string>());
    EXPECT_EQ(c["refused"], p.manipulations);
    EXPECT_EQ(c["reasons"], nlohmann::json::array({3}));
    EXPECT_EQ(c["as_another_die"], p.manipulations) << "reason or time depend on the secret";
  }
  EXPECT_EQ(r["differential"]["learned_without_the_tag"], p.manipulations)
      << "the control: without the tag the differential works";
}

}  // namespace
}  // namespace latchkey::campaign::attacks
