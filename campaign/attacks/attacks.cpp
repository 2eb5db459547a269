#include "attacks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "latchkey/error.hpp"
#include "learners.hpp"

namespace latchkey::campaign::attacks {
namespace {

constexpr std::size_t test_challenges = 10000;

std::string name_of(const sim::Composition& c) {
  if (c.upper != 0) return fmt::format("interpose ({}, {})", c.upper, c.lower);
  return c.lower == 1 ? "arbiter" : fmt::format("{}-XOR", c.lower);
}

class bench {
 public:
  bench(const plan& p, const progress& say) : plan_(p), say_(say) {}

  /// One attack on one die: `learn` gets the die and says what it used.
  template <typename Learn>
  void attack(const std::string& name, const sim::Composition& what, std::size_t n,
              unsigned readings, Learn learn) {
    const auto began = std::chrono::steady_clock::now();
    sim::SiliconConfig config;
    config.die_seed = 50000 + plan_.seed;
    sim::Silicon die(config, 1);
    const std::uint64_t seed = plan_.seed * 1000003 + n + 17 * what.lower + 31 * what.upper;
    nlohmann::json row = {
        {"attack", name}, {"target", name_of(what)}, {"crps", n}, {"readings", readings}};
    const model m = learn(die, seed, row);
    row["accuracy"] = accuracy(m, die, what, test_challenges, seed + 1);
    row["seconds"] =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    say_(fmt::format("{} on {} from {} challenges: {:.1f} %", name, name_of(what), n,
                     100 * row["accuracy"].get<double>()));
    rows.push_back(std::move(row));
  }
  nlohmann::json rows = nlohmann::json::array();

 private:
  const plan& plan_;
  const progress& say_;
};

// Uncertainty sampling: of a pool of random challenges those are asked whose predicted difference
// is least, a twentieth of the total at a time.
model chosen(sim::Silicon& die, const sim::Composition& what, std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::size_t at_once = std::max<std::size_t>(10, n / 20);
  crps data = collect(die, what, 2 * at_once, 1, seed);
  model m = logistic_regression(data, what.lower, 60, 1, seed);
  while (data.size() < n) {
    std::vector<std::pair<float, std::uint64_t>> pool(20 * at_once);
    std::array<float, features> phi{};
    for (auto& [doubt, challenge] : pool) {
      challenge = random();
      transform(challenge, phi.data());
      doubt = std::abs(m(phi.data()));
    }
    std::sort(pool.begin(), pool.end());
    for (std::size_t i = 0; i < at_once && data.size() < n; ++i) {
      add(data, die, what, pool[i].second);
    }
    m = logistic_regression(data, what.lower, 60, 1, seed);
  }
  return m;
}

}  // namespace

nlohmann::json with_raw_access(const plan& p, const progress& say) {
  bench b(p, say);
  const auto sizes = [&](std::vector<std::size_t> few, std::vector<std::size_t> more) {
    if (p.long_run) few.insert(few.end(), more.begin(), more.end());
    return few;
  };
  const auto regression = [&](unsigned k, const std::vector<std::size_t>& counts, unsigned epochs) {
    for (const std::size_t n : counts) {
      b.attack("logistic regression", {0, k}, n, 1,
               [&](sim::Silicon& die, std::uint64_t seed, nlohmann::json&) {
                 return logistic_regression(collect(die, {0, k}, n, 1, seed), k, epochs,
                                            k == 1 ? 1 : 4, seed);
               });
    }
  };
  regression(1, {64, 250, 1000, 5000}, 100);
  regression(2, sizes({2000, 10000}, {30000}), 60);
  regression(3, sizes({20000}, {60000}), 40);
  if (p.long_run) regression(4, {100000}, 30);

  for (const std::size_t n : {std::size_t{120}, std::size_t{250}, std::size_t{1000}}) {
    b.attack("logistic regression, chosen challenges", {0, 1}, n, 1,
             [&](sim::Silicon& die, std::uint64_t seed, nlohmann::json&) {
               return chosen(die, {0, 1}, n, seed);
             });
  }

  const auto mlp = [&](const sim::Composition& what, unsigned k,
                       const std::vector<std::size_t>& counts, unsigned epochs) {
    for (const std::size_t n : counts) {
      b.attack("multilayer perceptron", what, n, 1,
               [&](sim::Silicon& die, std::uint64_t seed, nlohmann::json&) {
                 return perceptron(collect(die, what, n, 1, seed), k, epochs, seed);
               });
    }
  };
  mlp({0, 1}, 1, {250, 1000, 5000}, 60);
  mlp({0, 2}, 2, sizes({10000}, {40000}), 40);
  if (p.long_run) mlp({0, 3}, 3, {60000}, 30);
  mlp({1, 1}, 5, sizes({10000}, {40000}), 40);
  if (p.long_run) mlp({2, 2}, 5, {100000}, 20);

  const auto reliability = [&](unsigned k, const std::vector<std::size_t>& counts,
                               unsigned restarts) {
    for (const std::size_t n : counts) {
      b.attack("reliability", {0, k}, n, 11,
               [&](sim::Silicon& die, std::uint64_t seed, nlohmann::json& row) {
                 reliability_result r = reliability_attack(
                     collect(die, {0, k}, n, 11, seed), k,
                     std::max(40U, 2000U * 2000U / static_cast<unsigned>(n)), restarts, seed);
                 row["chains_found"] = r.chains_found;
                 return r.predict;
               });
    }
  };
  reliability(1, {1000, 5000}, 4);
  reliability(2, sizes({10000}, {30000}), 12);
  if (p.long_run) reliability(4, {40000}, 30);
  return b.rows;
}

nlohmann::json run(const plan& p, const progress& say) {
  if (p.dice == 0 || p.lot == 0 || p.manipulations == 0) {
    throw error(errc::usage, "an attack campaign of nothing");
  }
  const auto began = std::chrono::steady_clock::now();
  nlohmann::json r = {{"schema", 1},
                      {"what", "attacks on modelled dice and a simulated key block, not silicon"},
                      {"seed", p.seed}};
  r["raw_access"] = with_raw_access(p, say);
  r["helper_data"] = from_helper_data(p, say);
  r["manipulation"] = by_manipulation(p, say);
  r["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return r;
}

}  // namespace latchkey::campaign::attacks
