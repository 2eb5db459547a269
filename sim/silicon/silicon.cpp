#include "latchkey/sim/silicon.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace latchkey::sim {
namespace {

// What a random number is for: the last word of the Philox counter, so no two uses share one.
enum Domain : std::uint32_t {
  kNominal = 0,
  kSkew = 1,
  kTemperature = 2,
  kVoltage = 3,
  kAge = 4,
  kStep = 5,
  kPowerOn = 6,
  kNoise = 7,
  kTrng = 8,
};

constexpr double kReferenceTemperature = 25.0;
constexpr double kReferenceVoltage = 0.85;
constexpr double kCornerTemperature = 60.0;                  // K from the reference
constexpr double kCornerVoltage = 0.05 * kReferenceVoltage;  // V from the reference
constexpr double kCornerAge = 10.0;                          // years
// Shares of the variance of the corner drift.
constexpr double kTemperatureShare = 0.64;
constexpr double kVoltageShare = 0.25;
constexpr double kAgeShare = 0.11;

std::uint64_t join(std::uint32_t high, std::uint32_t low) {
  return static_cast<std::uint64_t>(high) << 32 | low;
}

// 64 random bits to a standard normal number. The uniform is at the middle of one of 2^53 cells, so
// neither 0 nor 1 occurs.
double normal(std::uint64_t bits) {
  return normal_quantile((static_cast<double>(bits >> 11) + 0.5) * 0x1p-53);
}

double normal(std::uint64_t key, std::uint32_t chain, std::uint32_t stage, Domain domain) {
  const auto r = philox({stage, chain, 0, domain}, key);
  return normal(join(r[1], r[0]));
}

// A weight vector with Var = scale^2 (1, 2, ..., 2, 1) / 128: its product with any phi has
// standard deviation `scale`.
std::array<double, puf_stages + 1> weights(std::uint64_t key, std::uint32_t chain, Domain domain,
                                           double scale) {
  std::array<double, puf_stages + 1> w{};
  for (std::uint32_t i = 0; i <= puf_stages; ++i) {
    const double variance = (i == 0 || i == puf_stages ? 1.0 : 2.0) / (2.0 * puf_stages);
    w[i] = scale * std::sqrt(variance) * normal(key, chain, i, domain);
  }
  return w;
}

double dot(const std::array<double, puf_stages + 1>& w, std::uint64_t challenge) {
  // Bit i of s: parity of the challenge bits from i upwards, the sign of phi_i.
  std::uint64_t s = challenge;
  for (unsigned shift = 1; shift < puf_stages; shift *= 2) s ^= s >> shift;
  // Four sums let the compiler vectorise without reassociating.
  std::array<double, 4> sum{w[puf_stages], 0.0, 0.0, 0.0};
  for (unsigned i = 0; i < puf_stages; i += 4) {
    for (unsigned j = 0; j < 4; ++j) sum[j] += (s >> (i + j) & 1) != 0 ? -w[i + j] : w[i + j];
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("modelled silicon: " + message);
}

bool non_negative(double x) { return std::isfinite(x) && x >= 0.0; }

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key);
  std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    const double num = (((((((2.5090809287301226727e+3 * r + 3.3430575583588128105e+4) * r +
                             6.7265770927008700853e+4) *
                                r +
                            4.5921953931549871457e+4) *
                               r +
                           1.3731693765509461125e+4) *
                              r +
                          1.9715909503065514427e+3) *
                             r +
                         1.3314166789178437745e+2) *
                            r +
                        3.3871328727963666080e+0) *
                       q;
    const double den = (((((((5.2264952788528545610e+3 * r + 2.8729085735721942674e+4) * r +
                             3.9307895800092710610e+4) *
                                r +
                            2.1213794301586595867e+4) *
                               r +
                           5.3941960214247511077e+3) *
                              r +
                          6.8718700749205790830e+2) *
                             r +
                         4.2313330701600911252e+1) *
                            r +
                        1.0);
    return num / den;
  }
  double r = std::sqrt(-std::log(std::min(p, 1.0 - p)));
  double num = 0.0;
  double den = 1.0;
  if (r <= 5.0) {
    r -= 1.6;
    num = (((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r +
                2.41780725177450611770e-1) *
                   r +
               1.27045825245236838258e+0) *
                  r +
              3.64784832476320460504e+0) *
                 r +
             5.76949722146069140550e+0) *
                r +
            4.63033784615654529590e+0) *
               r +
           1.42343711074968357734e+0);
    den = (((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r +
                1.51986665636164571966e-2) *
                   r +
               1.48103976427480074590e-1) *
                  r +
              6.89767334985100004550e-1) *
                 r +
             1.67638483018380384940e+0) *
                r +
            2.05319162663775882187e+0) *
               r +
           1.0);
  } else {
    r -= 5.0;
    num = (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r +
                1.24266094738807843860e-3) *
                   r +
               2.65321895265761230930e-2) *
                  r +
              2.96560571828504891230e-1) *
                 r +
             1.78482653991729133580e+0) *
                r +
            5.46378491116411436990e+0) *
               r +
           6.65790464350110377720e+0);
    den = (((((((2.04426310338993978564e-15 * r + 1.42151175831644588870e-7) * r +
                1.84631831751005468180e-5) *
                   r +
               7.86869131145613259100e-4) *
                  r +
              1.48753612908506148525e-2) *
                 r +
             1.36929880922735805310e-1) *
                r +
            5.99832206555887937690e-1) *
               r +
           1.0);
  }
  const double x = num / den;
  return q < 0.0 ? -x : x;
}

Silicon::Silicon(const SiliconConfig& config, std::uint64_t power_on_nonce) : config_(config) {
  require(config.chains >= 1 && config.chains <= 65536,
          "needs 1 to 65,536 chains, got " + std::to_string(config.chains));
  require(non_negative(config.noise), "noise must be finite and not negative");
  require(non_negative(config.corner_drift), "corner_drift must be finite and not negative");
  require(non_negative(config.population_skew), "population_skew must be finite and not negative");
  require(non_negative(config.pdl_step), "pdl_step must be finite and not negative");
  require(non_negative(config.pdl_spread), "pdl_spread must be finite and not negative");

  const std::uint64_t die = config.die_seed;
  const double drift = config.corner_drift;
  chains_.resize(config.chains);
  for (std::uint32_t i = 0; i < config.chains; ++i) {
    Chain& chain = chains_[i];
    const std::uint32_t c = config.region * config.chains + i;
    chain.nominal = weights(die, c, kNominal, 1.0);
    const Weights skew = weights(config.lot_seed, c, kSkew, config.population_skew);
    for (unsigned s = 0; s <= puf_stages; ++s) chain.nominal[s] += skew[s];
    chain.temperature = weights(die, c, kTemperature, drift * std::sqrt(kTemperatureShare));
    chain.voltage = weights(die, c, kVoltage, drift * std::sqrt(kVoltageShare));
    chain.age = weights(die, c, kAge, drift * std::sqrt(kAgeShare));
    chain.step = config.pdl_step * (1.0 + config.pdl_spread * normal(die, c, 0, kStep));
  }
  set_environment(Environment{});
  power_on(power_on_nonce);
}

Silicon::Silicon(std::uint64_t die_seed, std::uint64_t lot_seed)
    : Silicon([&] {
        SiliconConfig config;
        config.die_seed = die_seed;
        config.lot_seed = lot_seed;
        return config;
      }()) {}

Silicon::Shift Silicon::shift_of(const Environment& e) {
  // Written so that a NaN fails too.
  require(e.temperature_c >= -55.0 && e.temperature_c <= 150.0,
          "temperature must be -55..150 C, got " + std::to_string(e.temperature_c));
  require(e.voltage_v >= 0.5 && e.voltage_v <= 1.2,
          "voltage must be 0.5..1.2 V, got " + std::to_string(e.voltage_v));
  require(e.age_years >= 0.0 && e.age_years <= 50.0,
          "age must be 0..50 years, got " + std::to_string(e.age_years));
  require(non_negative(e.noise_scale), "noise_scale must be finite and not negative");
  return {(e.temperature_c - kReferenceTemperature) / kCornerTemperature,
          (e.voltage_v - kReferenceVoltage) / kCornerVoltage, std::sqrt(e.age_years / kCornerAge)};
}

void Silicon::set_environment(const Environment& e) {
  const auto [t, v, a] = shift_of(e);
  environment_ = e;
  for (Chain& chain : chains_) {
    for (unsigned i = 0; i <= puf_stages; ++i) {
      chain.shifted[i] =
          chain.nominal[i] + t * chain.temperature[i] + v * chain.voltage[i] + a * chain.age[i];
    }
    chain.last_valid = false;
  }
}

void Silicon::power_on(std::uint64_t nonce) {
  const auto r = philox({static_cast<std::uint32_t>(nonce), static_cast<std::uint32_t>(nonce >> 32),
                         config_.region, kPowerOn},
                        config_.die_seed);
  noise_key_ = join(r[1], r[0]);
  trng_count_ = 0;
  races_ = 0;
  for (Chain& chain : chains_) {
    chain.draws = 0;
    chain.last_valid = false;
  }
}

int Silicon::evaluate(unsigned index, std::uint64_t challenge, int pdl_offset) {
  if (index >= chains_.size()) {
    throw std::out_of_range("modelled silicon: chain " + std::to_string(index) + " of a die with " +
                            std::to_string(chains_.size()));
  }
  if (pdl_offset < -128 || pdl_offset > 127) {
    throw std::out_of_range("modelled silicon: delay-line offset " + std::to_string(pdl_offset) +
                            " is outside -128..127");
  }
  Chain& chain = chains_[index];
  // A vote repeats the challenge: keep its sum of 65 delays.
  if (!chain.last_valid || chain.last_challenge != challenge) {
    chain.last_challenge = challenge;
    chain.last_delta = dot(chain.shifted, challenge);
    chain.last_valid = true;
  }
  const std::uint64_t n = chain.draws++;
  ++races_;
  double delta = chain.last_delta + chain.step * pdl_offset;
  const double sn = config_.noise * environment_.noise_scale;
  if (sn > 0.0) {
    const auto r =
        philox({static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(n >> 32), index, kNoise},
               noise_key_);
    delta += sn * normal(join(r[1], r[0]));
  }
  return delta > 0.0 ? 1 : 0;
}

double Silicon::delay(unsigned index, std::uint64_t challenge) const {
  return dot(chains_.at(index).shifted, challenge);
}

std::uint32_t Silicon::trng_word() {
  const std::uint64_t block = trng_count_ / 4;
  if (trng_count_ % 4 == 0) {
    trng_block_ = philox(
        {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, kTrng},
        noise_key_);
  }
  return trng_block_[trng_count_++ % 4];
}

std::uint64_t Fuses::read() const {
  return static_cast<std::uint64_t>(state_.min_version) << 32 |
         static_cast<std::uint64_t>(state_.enrolled ? 1 : 0) << 16 | state_.life_cycle;
}

std::uint64_t Fuses::floor(std::uint32_t slot) const {
  return static_cast<std::uint64_t>(state_.epoch_floor.at(slot)) << 32 |
         state_.version_floor.at(slot);
}

void Fuses::program(latchkey_fuse_field field, std::uint32_t value) {
  const FuseState before = state_;
  const auto raise = [&](std::array<std::uint32_t, 8>& floors, latchkey_fuse_field first) {
    std::uint32_t& floor = floors[static_cast<std::size_t>(field - first)];
    floor = std::max(floor, value);
    if (state_ != before && on_change_) on_change_(state_);
  };
  if (field >= LATCHKEY_FUSE_VERSION_FLOOR && field < LATCHKEY_FUSE_VERSION_FLOOR + 8)
    return raise(state_.version_floor, LATCHKEY_FUSE_VERSION_FLOOR);
  if (field >= LATCHKEY_FUSE_EPOCH_FLOOR && field < LATCHKEY_FUSE_EPOCH_FLOOR + 8)
    return raise(state_.epoch_floor, LATCHKEY_FUSE_EPOCH_FLOOR);
  switch (field) {
    case LATCHKEY_FUSE_ENROLLED:
      state_.enrolled = true;
      break;
    case LATCHKEY_FUSE_LIFE_CYCLE:
      state_.life_cycle = static_cast<std::uint16_t>(state_.life_cycle | value);
      break;
    case LATCHKEY_FUSE_MIN_VERSION:
      state_.min_version = std::max(state_.min_version, value);
      break;
    default:
      throw std::invalid_argument("modelled fuses: no field " +
                                  std::to_string(static_cast<unsigned>(field)));
  }
  if (state_ != before && on_change_) on_change_(state_);
}

latchkey_silicon_ops make_ops(Silicon& silicon, Fuses& fuses) {
  latchkey_silicon_ops ops;
  ops.ctx = &silicon;
  ops.fuse_ctx = &fuses;
  // noexcept: an exception must not cross the C ABI, so it terminates here, with its message.
  ops.puf_eval = [](void* ctx, std::uint32_t chain, std::uint64_t challenge,
                    std::int32_t offset) noexcept -> std::int32_t {
    return static_cast<Silicon*>(ctx)->evaluate(chain, challenge, offset);
  };
  ops.trng_word = [](void* ctx) noexcept { return static_cast<Silicon*>(ctx)->trng_word(); };
  ops.fuse_read = [](void* ctx) noexcept { return static_cast<Fuses*>(ctx)->read(); };
  ops.fuse_floor = [](void* ctx, std::uint32_t slot) noexcept {
    return static_cast<Fuses*>(ctx)->floor(slot);
  };
  ops.fuse_program = [](void* ctx, std::uint32_t field, std::uint32_t value) noexcept {
    static_cast<Fuses*>(ctx)->program(static_cast<latchkey_fuse_field>(field), value);
  };
  return ops;
}

}  // namespace latchkey::sim
