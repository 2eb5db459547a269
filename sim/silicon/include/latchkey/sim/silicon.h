// The modelled silicon of one chip: delay-line PUF, noise source and fuses.
//
// It is a model, not silicon. It lets the protocol, the coding and the failure paths be tested with
// plausible error statistics; it proves nothing about the entropy or the reliability of a real
// die. No published arbiter-PUF measurement of an UltraScale+ part was available to fit it to.
//
// Sources
//   * additive delay model and parity transform: Gassend, Lim, Clarke, van Dijk, Devadas,
//     "Identification and authentication of integrated circuits" (2004); Lim, "Extracting secret
//     keys from integrated circuits" (2004);
//   * variances of the transformed weights (1, 2, ..., 2, 1) and Gaussian reliability model:
//     Delvaux, Verbauwhede, "Side channel modeling attacks on 65nm arbiter PUFs" (2013);
//   * programmable delay lines: Majzoobi, Koushanfar, Devadas, "FPGA PUF using programmable delay
//     lines" (2010);
//   * random numbers: Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
//     (2011); normal quantile: Wichura, algorithm AS 241, PPND16 (1988).
//
// The model. A chain has 64 stages; bit i of the challenge crosses (1) or passes (0) the two edges
// in stage i. With phi_i = prod_{j >= i} (1 - 2 c_j) for i < 64 and phi_64 = 1 the edges arrive
// `delta = w . phi` apart, w in R^65. Everything is in units of sigma, the population's standard
// deviation of delta, so Var(w) = (1, 2, ..., 2, 1) / 128. A race answers 1 when
//
//   delta0 + skew + kT (T - T0) g1 + kV (V - V0) g2 + a sqrt(age) g3 + step * offset + N(0, sn^2)
//
// is positive; g1, g2, g3 and skew are weight vectors like w, dotted with the same phi, and g1 to
// g3 are different in every die. sn = 0.158 gives atan(0.158)/pi = 5.0 % of flipped single races.
// kT, kV and a are fixed by the drift at the corner: 60 K, 5 % of the voltage and 10 years away
// from (25 C, 0.85 V, new) the three together amount to `corner_drift` sigma, shared out as 64 %
// temperature, 25 % voltage, 11 % age of the variance. 0.25 sigma (7.8 % of the raw bits flip) is
// the default; 0.40 (12.1 %) is the harsh case that the design still has to survive.
//
// The same (die seed, lot seed, configuration) is the same die on every machine; the same power-on
// nonce gives the same noise. Random numbers are counter based, so the noise of one chain does not
// depend on the order in which the chains are evaluated.
#ifndef LATCHKEY_SIM_SILICON_H_
#define LATCHKEY_SIM_SILICON_H_

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "latchkey/sim/silicon_ops.h"

namespace latchkey::sim {

inline constexpr unsigned puf_stages = 64;

inline constexpr double typical_corner_drift = 0.25;
inline constexpr double harsh_corner_drift = 0.40;

// Philox4x32-10: four random words for a counter and a key.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint64_t key);

// Quantile of the standard normal distribution, 0 < p < 1.
double normal_quantile(double p);

// What a die is made of. Fixed for its life.
struct SiliconConfig {
  std::uint64_t die_seed = 1;
  std::uint64_t lot_seed = 1;
  unsigned chains = 96;
  // Which of the die's PUFs: a design with several kernels has one each, in places of their own.
  // PUF r is the die's chains r * chains and up, with noise sources of its own.
  std::uint32_t region = 0;
  double noise = 0.158;                        // sn, in sigma
  double corner_drift = typical_corner_drift;  // in sigma, see above
  // Standard deviation, in sigma, of the part of delta that the layout gives equally to all dies of
  // a lot (studied: 0, 0.1, 0.3, 1.0). Responses of two dies of a lot correlate by s^2 / (1 + s^2).
  double population_skew = 0.1;
  double pdl_step = 1.0 / 64;  // one offset step, in sigma
  double pdl_spread = 0.05;    // relative standard deviation of the step from chain to chain
};

// Where the die is now.
struct Environment {
  double temperature_c = 25.0;  // junction, -55..150
  double voltage_v = 0.85;      // core supply, 0.5..1.2
  double age_years = 0.0;       // powered years, 0..50
  double noise_scale = 1.0;     // multiplies sn; 0 makes every race exact
};

// One die. Not thread safe: one chip, one thread.
class Silicon {
 public:
  // Throws std::invalid_argument for a negative or non-finite figure or for no chains.
  explicit Silicon(const SiliconConfig& config, std::uint64_t power_on_nonce = 0);
  Silicon(std::uint64_t die_seed, std::uint64_t lot_seed);

  const SiliconConfig& config() const { return config_; }
  const Environment& environment() const { return environment_; }

  // Moves the die; later races see the shifted delays. Throws std::invalid_argument outside the
  // ranges above.
  void set_environment(const Environment& environment);

  // Restarts the noise and the TRNG from `nonce`. Different nonces give independent noise.
  void power_on(std::uint64_t nonce);

  // One race, 0 or 1, with a fresh draw of noise. Throws std::out_of_range for a chain the die does
  // not have or an offset outside -128..127.
  int evaluate(unsigned chain, std::uint64_t challenge, int pdl_offset);

  // Difference of arrival in sigma without noise at offset 0 in the present environment.
  double delay(unsigned chain, std::uint64_t challenge) const;

  // 32 random bits.
  std::uint32_t trng_word();

  // Races run since power-on, over all chains (an idle chip runs none).
  std::uint64_t races() const { return races_; }

 private:
  friend class FleetDie;  // the same die, evaluated in bulk
  // The environment in corners: 1 is 60 K, 5 % of the voltage, 10 years.
  struct Shift {
    double temperature, voltage, age;
  };
  static Shift shift_of(const Environment& environment);
  using Weights = std::array<double, puf_stages + 1>;
  struct Chain {
    Weights nominal;      // w plus the lot's skew
    Weights temperature;  // g1 per corner step
    Weights voltage;      // g2
    Weights age;          // g3
    Weights shifted;      // all of it in the present environment
    double step;
    std::uint64_t draws;
    std::uint64_t last_challenge;
    double last_delta;
    bool last_valid;
  };

  SiliconConfig config_;
  Environment environment_;
  std::vector<Chain> chains_;
  std::uint64_t noise_key_ = 0;
  std::uint64_t trng_count_ = 0;
  std::array<std::uint32_t, 4> trng_block_{};
  std::uint64_t races_ = 0;
};

// Life-cycle codes; the same as lk_lc_pkg.sv. Each is a superset of the one before, so burning
// fuses can only move forward, and an interrupted burn leaves an invalid code, which counts
// as locked. Pairwise Hamming distance at least 6.
enum class LifeCycle : std::uint16_t {
  open = 0x0240,
  enrolled = 0x5a69,
  locked = 0x7ffb,
};

struct FuseState {
  std::uint16_t life_cycle = static_cast<std::uint16_t>(LifeCycle::open);
  bool enrolled = false;
  std::uint32_t min_version = 0;
  // By owner slot: the lowest version and epoch of its packages.
  std::array<std::uint32_t, 8> version_floor{}, epoch_floor{};

  bool operator==(const FuseState& o) const {
    return life_cycle == o.life_cycle && enrolled == o.enrolled && min_version == o.min_version &&
           version_floor == o.version_floor && epoch_floor == o.epoch_floor;
  }
  bool operator!=(const FuseState& o) const { return !(*this == o); }
};

// One-time-programmable memory: bits go from 0 to 1 and never back, the minimum
// version and the floors only rise. The caller keeps the state between runs: `load` it at start,
// and store what the callback reports.
class Fuses {
 public:
  Fuses() = default;
  explicit Fuses(const FuseState& state) : state_(state) {}

  const FuseState& state() const { return state_; }
  void load(const FuseState& state) { state_ = state; }
  // Called after every change, on the thread that evaluates the chip.
  void on_change(std::function<void(const FuseState&)> callback) {
    on_change_ = std::move(callback);
  }

  std::uint64_t read() const;
  // Throws std::out_of_range for a slot above 7.
  std::uint64_t floor(std::uint32_t slot) const;
  // Throws std::invalid_argument for an unknown field.
  void program(latchkey_fuse_field field, std::uint32_t value);

 private:
  FuseState state_;
  std::function<void(const FuseState&)> on_change_;
};

// The table to hand to `latchkey_silicon_select`. Both objects must outlive it. An exception inside
// a callback ends the process: there is nothing on the other side of the C ABI to catch it.
latchkey_silicon_ops make_ops(Silicon& silicon, Fuses& fuses);

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_SILICON_H_
