#include "vault.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>

#include "hardware.hpp"
#include "latchkey/error.hpp"
#include "latchkey/sim/fleet.h"
#include "statistics.hpp"

namespace latchkey::campaign {
namespace {

using nlohmann::json;
using sim::Environment;
using sim::fleet_bits;
using sim::fleet_chains;
using sim::fleet_challenges;
using sim::FleetDie;
using sim::key_bits;
using sim::key_blocks;
using sim::Response;
using sim::SiliconConfig;

constexpr double pi = 3.14159265358979323846;
constexpr double target = 1e-9;
// STARTs for each of plan::readings: drift says little more when read again.
constexpr unsigned place_factor = 4, noise_factor = 4, enrolled_factor = 20;

/// Drift or noise, in sigma, that flips `share` of the raw bits: two Gaussians whose correlation is
/// 1 / sqrt(1 + x^2) differ in sign with atan(x) / pi.
double sigma_of(double share) { return std::tan(pi * share); }

// Power-on nonces: one for each use, so that no noise is used twice.
constexpr std::uint64_t enrol_nonce = 1, reference_nonce = 2;
std::uint64_t reading_nonce(std::size_t condition, unsigned reading) {
  return (std::uint64_t{condition} + 1) << 32 | reading;
}

struct condition {
  std::string name;
  Environment where;
  double drift_scale = 1;
  double raw_target = 0;  ///< share of raw bits that the drift is meant to flip; sweeps only
  unsigned factor = 1;    ///< STARTs for each of plan::readings
};

std::vector<condition> environments() {
  const auto at = [](double t, double v, double age, double noise) {
    Environment e;
    e.temperature_c = t;
    e.voltage_v = v;
    e.age_years = age;
    e.noise_scale = noise;
    return e;
  };
  std::vector<condition> out = {
      {"as enrolled", at(25, 0.85, 0, 1)},
      {"cold, low voltage", at(-20, 0.8075, 0, 1)},
      {"hot, high voltage", at(85, 0.8925, 0, 1)},
      {"hot, low voltage", at(85, 0.8075, 0, 1)},
      {"ten years old", at(25, 0.85, 10, 1)},
      {"cold, low voltage, ten years old", at(-20, 0.8075, 10, 1)},
      {"hot, high voltage, ten years old (the corner)", at(85, 0.8925, 10, 1)},
      {"as enrolled, noise x 4", at(25, 0.85, 0, 4)},
      {"the corner, noise x 4", at(85, 0.8925, 10, 4)}};
  for (condition& c : out) c.factor = place_factor;
  out.front().factor = enrolled_factor;
  return out;
}

std::vector<condition> drift_sweep() {
  std::vector<condition> out;
  for (int percent : {8, 10, 12, 14, 15, 16, 17, 18, 19, 20, 22, 25}) {
    Environment corner;
    corner.temperature_c = 85;
    corner.voltage_v = 0.8925;
    corner.age_years = 10;
    const double share = percent / 100.0;
    out.push_back({fmt::format("drift that flips {} % of the raw bits", percent), corner,
                   sigma_of(share) / sim::typical_corner_drift, share});
  }
  return out;
}

struct tally {
  std::uint64_t dice = 0, readings = 0;
  std::uint64_t raw_wrong = 0, raw_bits = 0;
  std::uint64_t kept_wrong = 0, kept_bits = 0;
  std::uint64_t failures = 0, dice_failed = 0;
  std::uint64_t silent = 0;  ///< failed, and no block was flagged
  std::vector<std::uint64_t> blocks = std::vector<std::uint64_t>(sim::bch_n + 1);

  void add(const sim::Started& s, bool first) {
    ++readings;
    kept_bits += key_bits;
    for (unsigned e : s.errors) {
      kept_wrong += e;
      if (first) ++blocks[e];
    }
    failures += !s.ok;
    silent += !s.ok && !s.decoder_failed;
  }
  void add(const tally& o) {
    dice += o.dice;
    readings += o.readings;
    raw_wrong += o.raw_wrong;
    raw_bits += o.raw_bits;
    kept_wrong += o.kept_wrong;
    kept_bits += o.kept_bits;
    failures += o.failures;
    dice_failed += o.dice_failed;
    silent += o.silent;
    for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] += o.blocks[i];
  }
};

/// Key failure if errors fall into a block of 255 as a beta-binomial says.
double key_failure(double bit_error, double dispersion = 1) {
  const double block = beta_binomial_tail(sim::bch_n, bit_error, dispersion, sim::bch_t);
  return block >= 1 ? 1 : -std::expm1(key_blocks * std::log1p(-block));
}

json to_json(const fit& f) {
  return {{"chi_square", f.chi_square}, {"freedom", f.freedom}, {"p_value", f.p_value}};
}

/// A failure rate as JSON: what was counted, its bound, and what the binomial would say.
json to_json(const condition& c, const tally& t) {
  const interval failure = proportion(t.failures, t.readings);
  const interval by_die = proportion(t.dice_failed, t.dice);
  const interval kept = proportion(t.kept_wrong, t.kept_bits);
  const double kept_rate = static_cast<double>(t.kept_wrong) / static_cast<double>(t.kept_bits);
  const moments m = moments_of(t.blocks, sim::bch_n);
  const double dispersion = std::max(1.0, m.dispersion);
  std::vector<std::uint64_t> blocks = t.blocks;
  while (blocks.size() > 1 && blocks.back() == 0) blocks.pop_back();
  json j = {
      {"name", c.name},
      {"temperature_c", c.where.temperature_c},
      {"voltage_v", c.where.voltage_v},
      {"age_years", c.where.age_years},
      {"noise_scale", c.where.noise_scale},
      {"drift_scale", c.drift_scale},
      {"dice", t.dice},
      {"starts", t.readings},
      {"raw_wrong", static_cast<double>(t.raw_wrong) / static_cast<double>(t.raw_bits)},
      {"kept_wrong", t.kept_wrong},
      {"kept_bits", t.kept_bits},
      {"kept_error", {{"rate", kept_rate}, {"low", kept.low}, {"high", kept.high}}},
      {"failures", t.failures},
      {"failure",
       {{"rate", static_cast<double>(t.failures) / static_cast<double>(t.readings)},
        {"low", failure.low},
        {"high", failure.high}}},
      {"dice_with_a_failure",
       {{"count", t.dice_failed}, {"low", by_die.low}, {"high", by_die.high}}},
      {"failures_not_flagged", t.silent},
      {"blocks_by_errors", blocks},
      {"errors_of_a_block", m.mean},
      {"dispersion", m.dispersion},
      {"fit_binomial", to_json(goodness_of_fit(t.blocks, sim::bch_n, m.p, 1, 1))},
      {"fit_beta_binomial", to_json(goodness_of_fit(t.blocks, sim::bch_n, m.p, dispersion, 2))},
      {"extrapolated_failure", key_failure(kept_rate, dispersion)},
      {"extrapolated_failure_binomial", key_failure(kept_rate)}};
  if (c.raw_target > 0) j["raw_target"] = c.raw_target;
  return j;
}

/// Runs body(worker, i) for i = 0 .. n - 1 on some threads; reports about ten times.
void parallel(unsigned n, unsigned threads, const std::function<void(unsigned, unsigned)>& body,
              const std::function<void(unsigned)>& progress) {
  std::atomic<unsigned> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&](unsigned worker) {
    try {
      for (unsigned i; (i = next.fetch_add(1)) < n;) {
        body(worker, i);
        if ((i + 1) % std::max(1U, n / 10) == 0) {
          const std::lock_guard lock(mutex);
          progress(i + 1);
        }
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      next = n;
    }
  };
  std::vector<std::thread> pool;
  for (unsigned worker = 1; worker < threads; ++worker) pool.emplace_back(work, worker);
  work(0);
  for (std::thread& t : pool) t.join();
  if (failure) std::rethrow_exception(failure);
}

SiliconConfig config_of(const plan& p, unsigned die, std::uint64_t population = 0) {
  SiliconConfig c;
  c.die_seed = p.seed << 40 ^ population << 32 ^ (die + 1);
  c.lot_seed = p.seed << 40 ^ population << 32;
  return c;
}

sim::KeyBits kept_of(const sim::Enrolled& e, const Response& r) {
  sim::KeyBits out{};
  for (unsigned j = 0; j < key_bits; ++j) {
    const std::uint64_t bit = sim::bit_of(r, e.positions[j]);
    out[j / sim::bch_n][j % sim::bch_n / 64] |= bit << (j % sim::bch_n % 64);
  }
  return out;
}

unsigned distance(const Response& a, const Response& b) {
  unsigned n = 0;
  for (std::size_t w = 0; w < a.size(); ++w)
    n += static_cast<unsigned>(__builtin_popcountll(a[w] ^ b[w]));
  return n;
}

/// Ones and readings of every place, over the dice that keep it.
struct kept_counts {
  std::vector<std::uint32_t> kept = std::vector<std::uint32_t>(fleet_bits);
  std::vector<std::uint32_t> ones = std::vector<std::uint32_t>(fleet_bits);
  std::uint64_t transitions[2][2]{};
  std::uint64_t margin_sum = 0, dice = 0, ones_total = 0;

  void add(const sim::Enrolled& e) {
    ++dice;
    margin_sum += static_cast<unsigned>(e.margin);
    unsigned before = 2;
    for (unsigned j = 0; j < key_bits; ++j) {
      const unsigned at = j % sim::bch_n;
      const unsigned bit = e.response[j / sim::bch_n][at / 64] >> (at % 64) & 1;
      ++kept[e.positions[j]];
      ones[e.positions[j]] += bit;
      ones_total += bit;
      if (before < 2) ++transitions[before][bit];
      before = bit;
    }
  }
  void add(const kept_counts& o) {
    for (unsigned i = 0; i < fleet_bits; ++i) {
      kept[i] += o.kept[i];
      ones[i] += o.ones[i];
    }
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b) transitions[a][b] += o.transitions[a][b];
    margin_sum += o.margin_sum;
    dice += o.dice;
    ones_total += o.ones_total;
  }
};

/// Entropy of kept bits given their place: estimator, what it would say of perfect bits, and the
/// model's closed form.
json kept_entropy(const kept_counts& k, double skew) {
  double estimate = 0, ceiling = 0, plug_in = 0, weight = 0;
  for (unsigned i = 0; i < fleet_bits; ++i) {
    if (k.kept[i] < 2) continue;
    const double w = k.kept[i];
    estimate += w * most_common_value(k.ones[i], k.kept[i]);
    ceiling += w * most_common_value(k.kept[i] / 2, k.kept[i]);
    const double share = std::max(k.ones[i], k.kept[i] - k.ones[i]) / w;
    plug_in += w * -std::log2(share);
    weight += w;
  }
  weight = std::max(weight, 1.0);  // too few dice to keep a place twice: zero, and visibly so
  const double margin =
      static_cast<double>(k.margin_sum) / static_cast<double>(k.dice) * SiliconConfig{}.pdl_step;
  const double closed = kept_min_entropy(margin, skew);
  const double leaked = key_blocks * (sim::bch_n - sim::bch_k);
  return {{"skew", skew},
          {"dice", k.dice},
          {"ones", static_cast<double>(k.ones_total) / (static_cast<double>(k.dice) * key_bits)},
          {"most_common_value", estimate / weight},
          {"most_common_value_of_perfect_bits", ceiling / weight},
          {"most_common_value_without_bound", plug_in / weight},
          {"closed_form", closed},
          {"left_after_code", key_bits * closed - leaked}};
}

struct spread {
  double mean = 0, deviation = 0, least = 0, most = 0;
};
template <typename T>
spread spread_of(const std::vector<T>& values) {
  spread s;
  if (values.empty()) return s;
  double sum = 0, squares = 0;
  s.least = s.most = static_cast<double>(values.front());
  for (const T& value : values) {
    const double v = static_cast<double>(value);
    sum += v;
    squares += v * v;
    s.least = std::min(s.least, v);
    s.most = std::max(s.most, v);
  }
  const double n = static_cast<double>(values.size());
  s.mean = sum / n;
  s.deviation = std::sqrt(std::max(0.0, squares / n - s.mean * s.mean));
  return s;
}
json to_json(const spread& s) {
  return {{"mean", s.mean}, {"deviation", s.deviation}, {"least", s.least}, {"most", s.most}};
}

template <typename T>
json histogram(const std::vector<T>& values, double low, double high, unsigned cells) {
  std::vector<std::uint64_t> counts(cells);
  for (const T& v : values) {
    const double at = (static_cast<double>(v) - low) / (high - low) * cells;
    ++counts[static_cast<std::size_t>(std::clamp(at, 0.0, cells - 1.0))];
  }
  return {{"low", low}, {"high", high}, {"counts", counts}};
}

/// Correlation of pairs of places over the fleet, as z-scores.
struct pair_test {
  std::uint64_t pairs = 0;
  double squares = 0, worst = 0;
  void add(double z) {
    ++pairs;
    squares += z * z;
    worst = std::max(worst, std::fabs(z));
  }
  json to_json() const {
    const double n = static_cast<double>(pairs), mean = squares / n;
    // Sum of z^2: mean n, variance 2 n if independent. Worst of n: exceeded by chance with this p.
    return {{"pairs", pairs},
            {"mean_square", mean},
            {"mean_square_z", (mean - 1) * std::sqrt(n / 2)},
            {"worst_z", worst},
            {"worst_p", -std::expm1(n * std::log1p(-2 * normal_tail(worst)))}};
  }
};

/// Tests of the reference readings for dependence: within a chain, and between neighbouring chains.
json dependence(const std::vector<Response>& dice) {
  const std::size_t words = dice.size() / 64;  // a rest of fewer than 64 dice is left out
  if (words == 0) return nullptr;
  std::vector<std::uint64_t> columns(fleet_bits * words);
  for (std::size_t d = 0; d < words * 64; ++d) {
    for (unsigned i = 0; i < fleet_bits; ++i) {
      columns[i * words + d / 64] |= std::uint64_t{sim::bit_of(dice[d], i)} << (d % 64);
    }
  }
  const double n = static_cast<double>(words * 64);
  std::vector<double> share(fleet_bits);
  for (unsigned i = 0; i < fleet_bits; ++i) {
    double ones = 0;
    for (std::size_t w = 0; w < words; ++w) ones += __builtin_popcountll(columns[i * words + w]);
    share[i] = ones / n;
  }
  const auto z = [&](unsigned a, unsigned b) {
    std::uint64_t both = 0;
    for (std::size_t w = 0; w < words; ++w) {
      both += static_cast<unsigned>(
          __builtin_popcountll(columns[a * words + w] & columns[b * words + w]));
    }
    const double p = share[a], q = share[b];
    const double scale = std::sqrt(p * (1 - p) * q * (1 - q));
    return scale == 0 ? 0.0 : (static_cast<double>(both) / n - p * q) / scale * std::sqrt(n);
  };
  pair_test chain, neighbours;
  for (unsigned c = 0; c < fleet_chains; ++c) {
    for (unsigned k = 0; k < fleet_challenges; ++k) {
      for (unsigned l = 0; l < k; ++l) chain.add(z(k * fleet_chains + c, l * fleet_chains + c));
      if (c > 0) neighbours.add(z(k * fleet_chains + c, k * fleet_chains + c - 1));
    }
  }
  return {{"dice", words * 64},
          {"within_a_chain", chain.to_json()},
          {"neighbouring_chains", neighbours.to_json()}};
}

/// Where the extrapolated failure of a sweep passes 1e-9: between which points, and by straight
/// lines in the logarithm.
json crossing(const json& points) {
  for (std::size_t i = 1; i < points.size(); ++i) {
    const double below = points[i - 1]["extrapolated_failure"],
                 above = points[i]["extrapolated_failure"];
    if (below > target || above <= target) continue;
    const double low = points[i - 1]["raw_target"], high = points[i]["raw_target"];
    const double t =
        below <= 0 ? 1 : (std::log(target) - std::log(below)) / (std::log(above) - std::log(below));
    const double kept_low = points[i - 1]["kept_error"]["rate"],
                 kept_high = points[i]["kept_error"]["rate"];
    return {{"raw_flips", low + t * (high - low)},
            {"between", {low, high}},
            {"kept_error", kept_low * std::pow(kept_high / std::max(kept_low, 1e-12), t)}};
  }
  return nullptr;
}

/// What a design would need to pass 1e-9 with `kept_error` wrong bits, or with a drift that flips a
/// quarter of the raw bits, all else as it is.
json needs(double kept_error, double bit_error_allowed) {
  unsigned errors = sim::bch_t;
  const auto fails = [&](unsigned t) {
    return -std::expm1(key_blocks * std::log1p(-binomial_tail(sim::bch_n, kept_error, t)));
  };
  while (errors < 63 && fails(errors) > target) ++errors;
  const unsigned message = bch_message_bits(errors);
  const double leaked = key_blocks * (sim::bch_n - message);
  // Or: keep only bits so far from zero that this drift leaves what the present code corrects.
  double margin = 0;
  while (margin < 6 && kept_bit_error(margin, sigma_of(0.25)) > bit_error_allowed) margin += 0.001;
  const double chains = key_bits / (kept_share(margin) * fleet_challenges);
  return {{"kept_error", kept_error},
          {"code_errors", errors},
          {"code_message_bits", message},
          {"code_entropy_needed_per_bit", (128 + leaked) / key_bits},
          {"margin_sigma", margin},
          {"chains", std::ceil(chains)},
          {"margin_steps", std::ceil(margin / SiliconConfig{}.pdl_step)}};
}

struct fleet_result {
  std::vector<tally> places, drifts;
  kept_counts kept;
  std::array<std::uint64_t, 4> rejected{};
  std::vector<std::uint64_t> margins = std::vector<std::uint64_t>(128);
  std::uint64_t stuck_at_start = 0;  ///< references that fail the health test
};

}  // namespace

json compare_with_hardware(const plan& p, const std::function<void(const std::string&)>& say) {
  std::uint64_t bits = 0, bits_differing = 0, starts = 0, succeeded = 0, verdicts_differing = 0;
  std::vector<std::uint32_t> start_cycles;
  std::vector<std::uint64_t> enrol_cycles;
  for (unsigned d = 0; d < p.hardware_dice; ++d) {
    SiliconConfig config = config_of(p, d);
    const Environment nominal;
    FleetDie twin(config, enrol_nonce);
    const sim::Enrolled enrolled = sim::enrol(twin);
    const hardware_enrolment rtl = enrol_in_hardware(config, nominal, enrol_nonce);
    enrol_cycles.push_back(rtl.cycles);
    if (rtl.ok != (enrolled.reject == sim::Reject::none)) {
      ++verdicts_differing;
      continue;
    }
    if (!rtl.ok) continue;
    bits += 32 * 264;
    bits_differing += differing_bits(rtl.helper, helper_of(enrolled));
    // From drift that the code corrects with ease to drift that it cannot: both verdicts occur.
    for (unsigned s = 0; s < p.hardware_starts; ++s) {
      const double drift = s % 2 == 0 ? 0.25 + 0.1 * s : 0.9 + 0.1 * s;
      Environment corner;
      corner.temperature_c = d % 2 == 0 ? 85 : -35;
      corner.voltage_v = 0.8925;
      corner.age_years = 10;
      SiliconConfig drifting = config;
      drifting.corner_drift = drift;
      FleetDie again(drifting, reading_nonce(1000, s));
      again.set_environment(corner);
      const sim::Started twin_start = sim::start(again, enrolled);
      const hardware_start rtl_start =
          start_in_hardware(drifting, corner, reading_nonce(1000, s), rtl.helper);
      ++starts;
      succeeded += rtl_start.ok;
      verdicts_differing += rtl_start.ok != twin_start.ok;
      start_cycles.push_back(rtl_start.cycles);
    }
    say(fmt::format("RTL and twin: die {} of {}", d + 1, p.hardware_dice));
  }
  const json out = {{"dice", p.hardware_dice},
                    {"helper_bits", bits},
                    {"helper_bits_differing", bits_differing},
                    {"starts", starts},
                    {"starts_succeeded", succeeded},
                    {"verdicts_differing", verdicts_differing},
                    {"start_cycles", to_json(spread_of(start_cycles))},
                    {"enrol_cycles", to_json(spread_of(enrol_cycles))}};
  if (bits_differing != 0 || verdicts_differing != 0) {
    throw error(
        errc::mismatch,
        fmt::format("RTL and software twin disagree in {} of {} helper bits and {} of {} "
                    "verdicts (seed {}); the campaign's figures would not be the hardware's",
                    bits_differing, bits, verdicts_differing, starts, p.seed));
  }
  return out;
}

json run(const plan& p, const std::function<void(const std::string&)>& say) {
  const auto positive = [](unsigned n, const char* what) {
    if (n == 0) throw error(errc::usage, fmt::format("the campaign needs at least one {}", what));
  };
  positive(p.threads, "thread");
  positive(p.dice, "die");
  positive(p.readings, "reading of a die");
  positive(p.noise_dice, "die of the noise sweep");
  positive(p.skew_dice, "die of the skew study");
  if (p.seed >= 1U << 24) throw error(errc::usage, "the seed must be below 16,777,216");
  const auto began = std::chrono::steady_clock::now();

  json out = {{"schema", 1},
              {"what", "modelled dice, not silicon: sim/silicon/README.md describes the model"},
              {"seed", p.seed},
              {"dice", p.dice},
              {"readings", p.readings}};
  const SiliconConfig standard;
  out["model"] = {{"noise_sigma", standard.noise},
                  {"corner_drift_sigma", standard.corner_drift},
                  {"population_skew_sigma", standard.population_skew},
                  {"pdl_step_sigma", standard.pdl_step},
                  {"pdl_spread", standard.pdl_spread}};
  out["hardware"] = compare_with_hardware(p, say);

  // ---- the fleet
  const std::vector<condition> places = environments(), drifts = drift_sweep();
  std::vector<Response> references(p.dice);
  std::vector<std::uint8_t> usable(p.dice);
  std::vector<fleet_result> parts(p.threads);
  for (fleet_result& part : parts) {
    part.places.resize(places.size());
    part.drifts.resize(drifts.size());
  }
  const auto one_die = [&](unsigned worker, unsigned index) {
    fleet_result& part = parts[worker];
    FleetDie die(config_of(p, index), enrol_nonce);
    const sim::Enrolled enrolled = sim::enrol(die);
    ++part.rejected[static_cast<std::size_t>(enrolled.reject)];
    const Response exact = die.exact();
    die.power_on(reference_nonce);
    references[index] = die.read();
    part.stuck_at_start += sim::stuck_chains(references[index]) != 0;
    if (enrolled.reject != sim::Reject::none) return;
    usable[index] = 1;
    ++part.margins[static_cast<std::size_t>(enrolled.margin)];
    part.kept.add(enrolled);
    const auto read = [&](const condition& c, tally& t, std::size_t number, bool sweep) {
      die.set_environment(c.where, c.drift_scale);
      bool failed = false;
      const unsigned readings = c.factor * p.readings;
      for (unsigned r = 0; r < readings; ++r) {
        die.power_on(reading_nonce(number, r));
        sim::Started s;
        if (r == 0 && !sweep) {
          const Response whole = die.read();
          t.raw_wrong += distance(whole, references[index]);
          t.raw_bits += fleet_bits;
          s = sim::start(enrolled, kept_of(enrolled, whole));
        } else {
          s = sim::start(die, enrolled);
        }
        t.add(s, r == 0);
        failed |= !s.ok;
      }
      if (sweep) {
        t.raw_wrong += distance(die.exact(), exact);
        t.raw_bits += fleet_bits;
      }
      ++t.dice;
      t.dice_failed += failed;
    };
    for (std::size_t i = 0; i < places.size(); ++i) read(places[i], part.places[i], i, false);
    for (std::size_t i = 0; i < drifts.size(); ++i) read(drifts[i], part.drifts[i], 100 + i, true);
  };
  parallel(p.dice, p.threads, one_die,
           [&](unsigned done) { say(fmt::format("fleet: {} of {} dice", done, p.dice)); });
  fleet_result all = std::move(parts.front());
  for (unsigned worker = 1; worker < p.threads; ++worker) {
    const fleet_result& part = parts[worker];
    for (std::size_t i = 0; i < places.size(); ++i) all.places[i].add(part.places[i]);
    for (std::size_t i = 0; i < drifts.size(); ++i) all.drifts[i].add(part.drifts[i]);
    all.kept.add(part.kept);
    for (std::size_t i = 0; i < all.rejected.size(); ++i) all.rejected[i] += part.rejected[i];
    for (std::size_t i = 0; i < all.margins.size(); ++i) all.margins[i] += part.margins[i];
    all.stuck_at_start += part.stuck_at_start;
  }
  if (all.rejected[0] == 0) {
    throw error(errc::mismatch,
                "no modelled die could be enrolled; the model and the selection do "
                "not fit each other");
  }
  out["enrolment"] = {{"enrolled", all.rejected[0]},
                      {"stuck_chain", all.rejected[1]},
                      {"too_weak_delay_lines", all.rejected[2]},
                      {"too_few_reliable", all.rejected[3]},
                      {"health_alarms_of_a_reading", all.stuck_at_start}};
  for (int m = sim::last_margin; m <= sim::first_margin; m += sim::margin_step) {
    if (all.margins[static_cast<std::size_t>(m)] != 0) {
      out["enrolment"]["margins"].push_back(
          {{"margin", m}, {"dice", all.margins[static_cast<std::size_t>(m)]}});
    }
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    out["environments"].push_back(to_json(places[i], all.places[i]));
  }
  for (std::size_t i = 0; i < drifts.size(); ++i) {
    out["drift"].push_back(to_json(drifts[i], all.drifts[i]));
  }

  // ---- fingerprints
  {
    std::vector<double> uniformity(p.dice), aliasing(fleet_bits), inter;
    for (unsigned d = 0; d < p.dice; ++d) {
      uniformity[d] = static_cast<double>(distance(references[d], Response{})) / fleet_bits;
      for (unsigned i = 0; i < fleet_bits; ++i) aliasing[i] += sim::bit_of(references[d], i);
    }
    double raw_entropy = 0, raw_least = 1;
    double same = 0;
    for (double& ones : aliasing) {
      const double n = p.dice;
      same += ones * (ones - 1) + (n - ones) * (n - ones - 1);
      const double h = most_common_value(static_cast<std::uint64_t>(ones), p.dice);
      raw_entropy += h / fleet_bits;
      raw_least = std::min(raw_least, h);
      ones /= n;
    }
    const unsigned partners = std::min(50U, p.dice - 1);
    for (unsigned d = 0; d < p.dice; ++d) {
      for (unsigned k = 1; k <= partners; ++k) {
        inter.push_back(static_cast<double>(distance(references[d], references[(d + k) % p.dice])) /
                        fleet_bits);
      }
    }
    std::uint64_t moves[2][2]{}, ones_total = 0;
    for (const Response& r : references) {
      for (unsigned i = 0; i < fleet_bits; ++i) {
        ones_total += sim::bit_of(r, i);
        if (i > 0) ++moves[sim::bit_of(r, i - 1)][sim::bit_of(r, i)];
      }
    }
    out["fingerprint"] = {
        {"uniformity", to_json(spread_of(uniformity))},
        {"uniformity_histogram", histogram(uniformity, 0.44, 0.56, 60)},
        {"bit_aliasing", to_json(spread_of(aliasing))},
        {"bit_aliasing_histogram", histogram(aliasing, 0.3, 0.7, 80)},
        {"inter_distance", to_json(spread_of(inter))},
        {"inter_distance_histogram", histogram(inter, 0.44, 0.56, 60)},
        {"inter_distance_sampled_pairs", inter.size()},
    };
    if (p.dice > 1) {
      out["fingerprint"]["inter_distance_of_all_pairs"] =
          1 - same / (static_cast<double>(fleet_bits) * p.dice * (p.dice - 1.0));
    }
    const double r = standard.population_skew * standard.population_skew;
    out["fingerprint"]["inter_distance_closed_form"] = std::acos(r / (1 + r)) / pi;
    const std::uint64_t kept_total = all.kept.dice * key_bits;
    out["entropy"] = {
        {"raw_most_common_value", raw_entropy},
        {"raw_most_common_value_least", raw_least},
        {"raw_most_common_value_of_perfect_bits", most_common_value(p.dice / 2, p.dice)},
        {"raw_markov", markov(ones_total, std::uint64_t{p.dice} * fleet_bits, moves)},
        {"kept_markov", markov(all.kept.ones_total, kept_total, all.kept.transitions)},
        {"kept", json::array()},
        {"code_leaks_bits", key_blocks * (sim::bch_n - sim::bch_k)},
        {"needed_per_kept_bit",
         (128.0 + key_blocks * (sim::bch_n - sim::bch_k)) / static_cast<double>(key_bits)},
        {"parameters_of_a_chain", sim::puf_stages + 1},
        {"answers_of_a_chain", fleet_challenges},
        {"kept_answers_of_a_chain", static_cast<double>(key_bits) / fleet_chains}};
    say("dependence of pairs of bits");
    out["entropy"]["dependence"] = dependence(references);
  }

  // ---- lots of other skew
  for (double skew : {0.0, 0.1, 0.3, 1.0}) {
    if (skew == standard.population_skew) {
      out["entropy"]["kept"].push_back(kept_entropy(all.kept, skew));
      continue;
    }
    std::vector<kept_counts> counts(p.threads);
    parallel(
        p.skew_dice, p.threads,
        [&](unsigned worker, unsigned index) {
          SiliconConfig config = config_of(p, index, 1 + static_cast<std::uint64_t>(skew * 10));
          config.population_skew = skew;
          FleetDie die(config, enrol_nonce);
          const sim::Enrolled e = sim::enrol(die);
          if (e.reject == sim::Reject::none) counts[worker].add(e);
        },
        [&](unsigned done) {
          if (done == p.skew_dice) say(fmt::format("skew {}: {} dice", skew, done));
        });
    for (unsigned worker = 1; worker < p.threads; ++worker) counts[0].add(counts[worker]);
    if (counts[0].dice > 0) out["entropy"]["kept"].push_back(kept_entropy(counts[0], skew));
  }

  // ---- white noise: enrolled and read with it
  for (int percent : {5, 10, 15, 20, 25, 27, 28, 29, 30, 33, 36}) {
    condition c{
        fmt::format("noise that flips {} % of single races", percent), {}, 1, percent / 100.0};
    std::vector<tally> tallies(p.threads);
    std::atomic<unsigned> rejected{0};
    parallel(
        p.noise_dice, p.threads,
        [&](unsigned worker, unsigned index) {
          SiliconConfig config = config_of(p, index, 64 + static_cast<unsigned>(percent));
          config.noise = sigma_of(c.raw_target);
          FleetDie die(config, enrol_nonce);
          const sim::Enrolled e = sim::enrol(die);
          if (e.reject != sim::Reject::none) {
            ++rejected;
            return;
          }
          tally& t = tallies[worker];
          bool failed = false;
          for (unsigned r = 0; r < noise_factor * p.readings; ++r) {
            die.power_on(reading_nonce(0, r));
            if (r == 0) {
              t.raw_wrong += distance(die.single_races(), die.exact());
              t.raw_bits += fleet_bits;
            }
            const sim::Started s = sim::start(die, e);
            t.add(s, r == 0);
            failed |= !s.ok;
          }
          ++t.dice;
          t.dice_failed += failed;
        },
        [&](unsigned done) {
          if (done == p.noise_dice) say(fmt::format("{}: {} dice", c.name, done));
        });
    for (unsigned worker = 1; worker < p.threads; ++worker) tallies[0].add(tallies[worker]);
    if (tallies[0].dice == 0) continue;
    json point = to_json(c, tallies[0]);
    point["rejected"] = rejected.load();
    out["noise"].push_back(std::move(point));
  }

  // ---- extrapolations
  out["target"] = target;
  out["crossing"] = {{"drift", crossing(out["drift"])}, {"noise", crossing(out["noise"])}};
  double allowed = 0;
  for (double e = 1e-3; e < 0.1 && key_failure(e) <= target; e += 1e-5) allowed = e;
  out["kept_error_allowed"] = allowed;
  const json& quarter = out["drift"].back();
  out["needs_at_quarter_drift"] = needs(quarter["kept_error"]["rate"], allowed);
  out["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return out;
}

}  // namespace latchkey::campaign
