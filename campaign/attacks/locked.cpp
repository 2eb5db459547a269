// What is left of the PUF once it is locked: the helper data, which is public.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "attacks.hpp"
#include "hardware.hpp"
#include "latchkey/error.hpp"
#include "latchkey/sim/fleet.h"
#include "learners.hpp"
#include "statistics.hpp"

namespace latchkey::campaign::attacks {
namespace {

bool bit_of(const sim::KeyBits& bits, unsigned j) {
  return (bits[j / sim::bch_n][j % sim::bch_n / 64] >> (j % sim::bch_n % 64) & 1) != 0;
}

sim::SiliconConfig die_of(const plan& p, std::uint64_t n, double skew) {
  sim::SiliconConfig c;
  c.die_seed = 70000 + p.seed * 4099 + n;
  c.lot_seed = 70000 + p.seed;
  c.population_skew = skew;
  return c;
}

sim::Enrolled enrolled(const sim::SiliconConfig& config) {
  for (std::uint64_t nonce = 1;; ++nonce) {
    sim::FleetDie die(config, nonce);
    sim::Enrolled e = sim::enrol(die);
    if (e.reject == sim::Reject::none) return e;
    if (nonce == 8) throw error(errc::mismatch, "a die that never enrols");
  }
}

nlohmann::json counted(std::uint64_t right, std::uint64_t of) {
  const interval i = proportion(right, of);
  return {{"right", right},
          {"of", of},
          {"share", static_cast<double>(right) / static_cast<double>(of)},
          {"low", i.low},
          {"high", i.high}};
}

/// E[max(X, n - X)] of a binomial with p = 1/2: what a coin gets right when an oracle may turn it.
double turned_coin(unsigned n) {
  double e = 0;
  for (unsigned k = 0; k <= n; ++k) e += binomial_point(n, 0.5, k) * std::max(k, n - k);
  return e;
}

/// Places of kept bits next to which another, unkept place fits without changing the order.
struct substitution {
  unsigned key_bit = 0;
  std::uint16_t from = 0, to = 0;
};
std::vector<substitution> substitutions(const sim::Enrolled& e) {
  std::vector<substitution> out;
  for (unsigned j = 1; j + 1 < sim::key_bits; ++j) {
    for (unsigned to = e.positions[j - 1] + 1U; to < e.positions[j + 1]; ++to) {
      if (to == e.positions[j]) continue;
      out.push_back({j, e.positions[j], static_cast<std::uint16_t>(to)});
      break;
    }
  }
  return out;
}

void flip_offset(helper_data& h, unsigned j) { h[200 + j / 32] ^= 1U << (j % 32); }
void flip_mask(helper_data& h, unsigned place) { h[8 + place / 32] ^= 1U << (place % 32); }

/// `count` other bits of the code block of `j`.
std::vector<unsigned> companions(unsigned j, unsigned count, std::mt19937_64& random) {
  std::set<unsigned> out;
  while (out.size() < count) {
    const unsigned other =
        j / sim::bch_n * sim::bch_n + static_cast<unsigned>(random() % sim::bch_n);
    if (other != j) out.insert(other);
  }
  return {out.begin(), out.end()};
}

}  // namespace

nlohmann::json from_helper_data(const plan& p, const progress& say) {
  nlohmann::json out;

  // 1. The mask says which differences are large: reliability, one bit of it. The attack that
  // breaks XOR PUFs is run on it, chain by chain.
  std::uint64_t right = 0, turned = 0, kept = 0;
  double expected_turned = 0, variance_turned = 0, fit = 0, chains = 0;
  std::vector<float> phi(std::size_t{sim::fleet_challenges} * features);
  for (unsigned k = 0; k < sim::fleet_challenges; ++k) {
    transform(sim::fleet_challenge(k), &phi[std::size_t{k} * features]);
  }
  for (unsigned d = 0; d < p.dice; ++d) {
    const sim::Enrolled e = enrolled(die_of(p, d, 0));
    std::vector<std::vector<std::pair<unsigned, bool>>> bits(sim::fleet_chains);
    for (unsigned j = 0; j < sim::key_bits; ++j) {
      bits[e.positions[j] % sim::fleet_chains].emplace_back(e.positions[j] / sim::fleet_chains,
                                                            bit_of(e.response, j));
    }
    for (unsigned c = 0; c < sim::fleet_chains; ++c) {
      std::vector<float> target(sim::fleet_challenges);
      for (const auto& [k, r] : bits[c]) target[k] = 1;
      const correlated w = correlate(phi.data(), target, 300, p.seed + 977 * d + c);
      fit += w.correlation;
      ++chains;
      unsigned agree = 0;
      for (const auto& [k, r] : bits[c]) {
        float z = 0;
        for (unsigned f = 0; f < features; ++f) z += w.w[f] * phi[std::size_t{k} * features + f];
        agree += (z > 0) == r;
      }
      const auto n = static_cast<unsigned>(bits[c].size());
      right += agree;
      turned += std::max(agree, n - agree);
      kept += n;
      const double mean = turned_coin(n);
      expected_turned += mean;
      for (unsigned k = 0; k <= n; ++k) {
        const double off = std::max(k, n - k) - mean;
        variance_turned += binomial_point(n, 0.5, k) * off * off;
      }
    }
  }
  out["mask_reliability"] = {
      {"dice", p.dice},
      {"chains", static_cast<unsigned>(chains)},
      {"correlation_reached", fit / chains},
      {"kept_bits", counted(right, kept)},
      {"sign_of_each_chain_given", static_cast<double>(turned) / static_cast<double>(kept)},
      {"a_coin_with_the_same_gift", expected_turned / static_cast<double>(kept)},
      {"deviations", (static_cast<double>(turned) - expected_turned) / std::sqrt(variance_turned)}};
  say(fmt::format("reliability attack on the mask: {:.2f} % of {} kept bits",
                  100.0 * static_cast<double>(right) / static_cast<double>(kept), kept));

  // 2. Other dice of the lot, opened: the layout's skew, place by place.
  out["other_dice_of_the_lot"] = nlohmann::json::array();
  for (const double skew : {0.0, 0.1, 0.3}) {
    std::vector<int> balance(sim::fleet_bits);
    double margin = 0;
    for (unsigned d = 0; d < p.lot; ++d) {
      const sim::Enrolled e = enrolled(die_of(p, 100000 + d, skew));
      margin += e.margin * sim::SiliconConfig{}.pdl_step / p.lot;
      for (unsigned j = 0; j < sim::key_bits; ++j) {
        balance[e.positions[j]] += bit_of(e.response, j) ? 1 : -1;
      }
    }
    std::uint64_t guessed = 0, all = 0;
    for (unsigned d = 0; d < p.dice; ++d) {
      const sim::Enrolled e = enrolled(die_of(p, d, skew));
      for (unsigned j = 0; j < sim::key_bits; ++j, ++all) {
        guessed += (balance[e.positions[j]] > 0) == bit_of(e.response, j);
      }
    }
    const double entropy = kept_min_entropy(margin, skew);
    const unsigned leaked = sim::key_blocks * (sim::bch_n - sim::bch_k);
    out["other_dice_of_the_lot"].push_back({{"skew", skew},
                                            {"opened", p.lot},
                                            {"attacked", p.dice},
                                            {"kept_bits", counted(guessed, all)},
                                            {"min_entropy_a_kept_bit", entropy},
                                            {"code_gives_away", leaked},
                                            {"bits_left", entropy * sim::key_bits - leaked}});
    say(fmt::format("skew {}: a place's majority gets {:.2f} % of kept bits", skew,
                    100.0 * static_cast<double>(guessed) / static_cast<double>(all)));
  }
  return out;
}

nlohmann::json by_manipulation(const plan& p, const progress& say) {
  std::mt19937_64 random(p.seed);
  const sim::SiliconConfig config = die_of(p, 0, 0.1), other = die_of(p, 1, 0.1);
  const hardware_enrolment chip = enrol_in_hardware(config, {}, 1);
  sim::FleetDie twin(config, 1);
  const sim::Enrolled e = sim::enrol(twin);
  if (!chip.ok || differing_bits(chip.helper, helper_of(e)) != 0) {
    throw error(errc::mismatch, "the RTL did not enrol as its twin");
  }
  const sim::Response raw = twin.exact();
  sim::Environment quiet;
  quiet.noise_scale = 0;
  const hardware_start honest = start_in_hardware(config, quiet, 2, chip.helper);
  if (!honest.ok) throw error(errc::mismatch, "the RTL does not start with its own helper data");

  nlohmann::json classes = nlohmann::json::array();
  const auto attack = [&](const std::string& name, auto change) {
    std::set<int> reasons;
    unsigned refused = 0, same_on_another_die = 0;
    for (unsigned n = 0; n < p.manipulations; ++n) {
      helper_data h = chip.helper;
      change(h, n);
      const hardware_start mine = start_in_hardware(config, quiet, 2, h);
      const hardware_start theirs = start_in_hardware(other, quiet, 2, h);
      refused += !mine.ok;
      reasons.insert(mine.error);
      same_on_another_die += mine.error == theirs.error && mine.cycles == theirs.cycles;
    }
    classes.push_back({{"change", name},
                       {"tried", p.manipulations},
                       {"refused", refused},
                       {"reasons", reasons},
                       {"as_another_die", same_on_another_die}});
    say(fmt::format("{}: {} of {} refused", name, refused, p.manipulations));
  };
  attack("one bit of the offset", [&](helper_data& h, unsigned) {
    flip_offset(h, static_cast<unsigned>(random() % sim::key_bits));
  });
  attack("two bits of one block of the offset", [&](helper_data& h, unsigned) {
    const auto j = static_cast<unsigned>(random() % sim::key_bits);
    flip_offset(h, j);
    flip_offset(h, companions(j, 1, random).front());
  });
  attack("one bit of device id, margin or tag", [&](helper_data& h, unsigned n) {
    const unsigned word = n % 3 == 0 ? 2 + n % 4 : (n % 3 == 1 ? 6 : 264 + n % 8);
    h[word] ^= 1U << (random() % 32);
  });

  // The differential attack: 18 wrong bits load a block up to its limit, then one kept bit is
  // exchanged for a neighbour; whether the block still decodes tells whether the two are equal.
  const auto all = substitutions(e);
  unsigned learned = 0, equal = 0;
  std::vector<std::pair<helper_data, bool>> tried;
  for (unsigned n = 0; n < p.manipulations; ++n) {
    const substitution s = all[random() % all.size()];
    const auto extra = companions(s.key_bit, sim::bch_t, random);
    const bool truth = sim::bit_of(raw, s.to) == bit_of(e.response, s.key_bit);
    // Without the tag: the decoder's own verdict on the noiseless reading.
    sim::Block received{};
    const unsigned block = s.key_bit / sim::bch_n;
    for (unsigned i = 0; i < sim::bch_n; ++i) {
      const unsigned j = block * sim::bch_n + i;
      bool bit = sim::bit_of(raw, j == s.key_bit ? s.to : e.positions[j]) != bit_of(e.offset, j);
      if (std::find(extra.begin(), extra.end(), j) != extra.end()) bit = !bit;
      received[i / 64] |= std::uint64_t{bit} << (i % 64);
    }
    learned += !sim::bch_decode(received).fail == truth;
    equal += truth;
    helper_data h = chip.helper;
    for (const unsigned j : extra) flip_offset(h, j);
    flip_mask(h, s.from);
    flip_mask(h, s.to);
    tried.emplace_back(h, truth);
  }
  attack("a kept bit exchanged for its neighbour, 18 bits of its block wrong",
         [&](helper_data& h, unsigned n) { h = tried[n].first; });
  return {{"honest_start_cycles", honest.cycles},
          {"classes", classes},
          {"differential",
           {{"tried", p.manipulations},
            {"pairs_equal", equal},
            {"learned_without_the_tag", learned},
            // Every exchange is refused alike, so the best guess is the likelier case.
            {"learned_from_the_rtl", std::max(equal, p.manipulations - equal)}}}};
}

}  // namespace latchkey::campaign::attacks
