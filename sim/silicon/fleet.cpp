#include "latchkey/sim/fleet.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace latchkey::sim {
namespace {

constexpr std::uint32_t kNoiseDomain = 7;  // silicon.cpp
constexpr double kSaturated = 8.4;         // |normal| of the model stays below 8.3
// At 3.5 standard deviations of the noise from zero a race goes wrong with 2.3e-4, a vote of 15
// with 5e-26: such votes are not drawn.
constexpr double kSureVote = 3.5;

// The normal distribution function by cubic Hermite interpolation, error below 1e-10.
class NormalTable {
 public:
  NormalTable() {
    for (int i = 0; i <= kNodes; ++i) {
      const double x = -kSaturated + i * kStep;
      value_[i] = 0.5 * std::erfc(-x / std::sqrt(2.0));
      slope_[i] = kStep * std::exp(-0.5 * x * x) / std::sqrt(2.0 * 3.14159265358979323846);
    }
  }
  double operator()(double x) const {
    const double at = (x + kSaturated) / kStep;
    const int i = std::clamp(static_cast<int>(at), 0, kNodes - 1);
    const double t = at - i, s = 1.0 - t;
    return value_[i] * (1.0 + 2.0 * t) * s * s + value_[i + 1] * t * t * (3.0 - 2.0 * t) +
           slope_[i] * t * s * s - slope_[i + 1] * t * t * s;
  }

 private:
  static constexpr int kNodes = 1680;
  static constexpr double kStep = 2.0 * kSaturated / kNodes;
  double value_[kNodes + 1], slope_[kNodes + 1];
};

const NormalTable& normal_table() {
  static const NormalTable table;
  return table;
}

// Four counters side by side, one 32-bit word in each 64-bit lane.
typedef std::uint64_t Lanes __attribute__((vector_size(32)));
constexpr unsigned kVectors = 4;  // 16 counters, of which the votes of a bit use 15

// The second output words of Philox4x32-10 for the counters {first + lane, 0, chain, noise}: the
// upper halves of what silicon.cpp makes a normal number of.
void upper_words(std::uint32_t first, std::uint32_t chain, std::uint64_t key, std::uint32_t* out) {
  const Lanes low = {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu};
  Lanes c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
  for (unsigned v = 0; v < kVectors; ++v) {
    c0[v] = (Lanes{first, first, first, first} + Lanes{0, 1, 2, 3} +
             Lanes{4 * v, 4 * v, 4 * v, 4 * v}) &
            low;
    c1[v] = Lanes{};
    c2[v] = Lanes{chain, chain, chain, chain};
    c3[v] = Lanes{kNoiseDomain, kNoiseDomain, kNoiseDomain, kNoiseDomain};
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(key);
  std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (unsigned v = 0; v < kVectors; ++v) {
      const Lanes p0 = c0[v] * 0xD2511F53ull, p1 = c2[v] * 0xCD9E8D57ull;
      c0[v] = (p1 >> 32) ^ c1[v] ^ static_cast<std::uint64_t>(k0);
      c1[v] = p1 & low;
      c2[v] = (p0 >> 32) ^ c3[v] ^ static_cast<std::uint64_t>(k1);
      c3[v] = p0 & low;
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (unsigned v = 0; v < kVectors; ++v) {
    for (unsigned lane = 0; lane < 4; ++lane) {
      out[4 * v + lane] = static_cast<std::uint32_t>(c1[v][lane]);
    }
  }
}

// Sums of w under the 64 Hadamard signs, plus the last weight, to out[challenge * 96].
void transform(const std::array<double, puf_stages + 1>& w, double* out) {
  std::array<double, puf_stages> a;
  std::copy_n(w.begin(), puf_stages, a.begin());
  for (unsigned half = 1; half < puf_stages; half *= 2) {
    for (unsigned i = 0; i < puf_stages; i += 2 * half) {
      for (unsigned j = i; j < i + half; ++j) {
        const double x = a[j], y = a[j + half];
        a[j] = x + y;
        a[j + half] = x - y;
      }
    }
  }
  for (unsigned k = 0; k < puf_stages; ++k) out[k * fleet_chains] = a[k] + w[puf_stages];
}

// ---- GF(2^8)

struct Field {
  std::array<std::uint8_t, 512> exp{};
  std::array<std::uint8_t, 256> log{};
  Field() {
    unsigned v = 1;
    for (unsigned i = 0; i < 255; ++i) {
      exp[i] = exp[i + 255] = static_cast<std::uint8_t>(v);
      log[v] = static_cast<std::uint8_t>(i);
      v <<= 1;
      if ((v & 0x100) != 0) v ^= 0x11D;
    }
  }
  std::uint8_t mul(std::uint8_t a, std::uint8_t b) const {
    return a == 0 || b == 0 ? std::uint8_t{0} : exp[unsigned{log[a]} + log[b]];
  }
};

const Field& field() {
  static const Field f;
  return f;
}

// The odd syndromes S_1, S_3, .. S_35 in 18 of 24 bytes.
using Syndromes = std::array<std::uint64_t, 3>;

// Contribution of every byte of a received word to them.
class SyndromeTable {
 public:
  SyndromeTable() : table_(32 * 256) {
    for (unsigned at = 0; at < 32; ++at) {
      for (unsigned value = 0; value < 256; ++value) {
        std::array<std::uint8_t, 24> s{};
        for (unsigned b = 0; b < 8; ++b) {
          const unsigned position = 8 * at + b;
          if ((value >> b & 1) == 0 || position >= bch_n) continue;
          for (unsigned j = 0; j < bch_t; ++j) {
            s[j] = static_cast<std::uint8_t>(
                s[j] ^ field().exp[(bch_n - 1 - position) * (2 * j + 1) % 255]);
          }
        }
        std::memcpy(table_[at * 256 + value].data(), s.data(), s.size());
      }
    }
  }
  Syndromes operator()(const Block& word) const {
    Syndromes s{};
    for (unsigned at = 0; at < 32; ++at) {
      const Syndromes& t = table_[at * 256 + (word[at / 8] >> (8 * (at % 8)) & 0xff)];
      for (unsigned i = 0; i < s.size(); ++i) s[i] ^= t[i];
    }
    return s;
  }

 private:
  std::vector<Syndromes> table_;
};

const SyndromeTable& syndromes() {
  static const SyndromeTable table;
  return table;
}

// Coefficients of the generator polynomial, index = power.
const std::vector<std::uint8_t>& generator() {
  static const std::vector<std::uint8_t> g = [] {
    std::array<bool, 255> roots{};
    for (unsigned j = 1; j <= 2 * bch_t; ++j) {
      for (unsigned e = j, n = 0; n < 8; e = 2 * e % 255, ++n) roots[e] = true;
    }
    std::vector<std::uint8_t> p{1};
    for (unsigned e = 0; e < roots.size(); ++e) {
      if (!roots[e]) continue;
      std::vector<std::uint8_t> next(p.size() + 1);
      for (unsigned i = 0; i < p.size(); ++i) {
        next[i + 1] = static_cast<std::uint8_t>(next[i + 1] ^ p[i]);
        next[i] = static_cast<std::uint8_t>(next[i] ^ field().mul(p[i], field().exp[e]));
      }
      p = next;
    }
    return p;
  }();
  return g;
}

bool get(const Block& b, unsigned position) {
  return (b[position / 64] >> (position % 64) & 1) != 0;
}
void flip(Block& b, unsigned position) { b[position / 64] ^= std::uint64_t{1} << (position % 64); }

}  // namespace

std::uint64_t fleet_challenge(unsigned k) {
  std::uint64_t s = 0;
  for (unsigned i = 0; i < 64; ++i) {
    s |= static_cast<std::uint64_t>(__builtin_parity(k & i)) << i;
  }
  return s ^ s >> 1;
}

FleetDie::FleetDie(const SiliconConfig& config, std::uint64_t power_on_nonce, std::uint32_t band)
    : silicon_(config, power_on_nonce),
      band_(band),
      nominal_(fleet_bits),
      temperature_(fleet_bits),
      voltage_(fleet_bits),
      age_(fleet_bits),
      delta_(fleet_bits) {
  if (config.chains != fleet_chains) {
    throw std::invalid_argument("modelled fleet: the device has 96 chains, got " +
                                std::to_string(config.chains));
  }
  for (unsigned c = 0; c < fleet_chains; ++c) {
    const Silicon::Chain& chain = silicon_.chains_[c];
    transform(chain.nominal, &nominal_[c]);
    transform(chain.temperature, &temperature_[c]);
    transform(chain.voltage, &voltage_[c]);
    transform(chain.age, &age_[c]);
  }
  set_environment(Environment{});
}

void FleetDie::set_environment(const Environment& e, double drift_scale) {
  if (!std::isfinite(drift_scale) || drift_scale < 0.0) {
    throw std::invalid_argument("modelled fleet: drift_scale must be finite and not negative");
  }
  const Silicon::Shift shift = Silicon::shift_of(e);
  environment_ = e;
  drift_scale_ = drift_scale;
  const double t = drift_scale * shift.temperature, v = drift_scale * shift.voltage,
               a = drift_scale * shift.age;
  for (unsigned i = 0; i < fleet_bits; ++i) {
    delta_[i] = nominal_[i] + t * temperature_[i] + v * voltage_[i] + a * age_[i];
  }
}

void FleetDie::power_on(std::uint64_t nonce) {
  silicon_.power_on(nonce);
  runs_ = 0;
}

void FleetDie::check_run(int pdl_offset) const {
  if (pdl_offset < -128 || pdl_offset > 127) {
    throw std::out_of_range("modelled fleet: delay-line offset " + std::to_string(pdl_offset) +
                            " is outside -128..127");
  }
  // The bulk arithmetic counts a chain's draws in 32 bits.
  if (runs_ >= 0xffffffffu / (fleet_challenges * fleet_votes)) {
    throw std::out_of_range("modelled fleet: too many readings since power-on");
  }
}

std::uint32_t FleetDie::threshold(double delta, double sn) const {
  if (sn <= 0.0) return 0;
  const double high = normal_table()(-delta / sn) * 0x1p32;
  return static_cast<std::uint32_t>(std::clamp(high, 0.0, 4294967295.0));
}

bool FleetDie::slow_race(unsigned i, int pdl_offset, std::uint64_t draw) const {
  ++slow_;
  SiliconConfig config = silicon_.config_;
  config.corner_drift *= drift_scale_;
  Silicon die(config);
  die.set_environment(environment_);
  die.noise_key_ = silicon_.noise_key_;
  die.chains_[i % fleet_chains].draws = draw;
  return die.evaluate(i % fleet_chains, fleet_challenge(i / fleet_chains), pdl_offset) != 0;
}

bool FleetDie::majority(unsigned i, int pdl_offset, double delta, double sn) const {
  const unsigned chain = i % fleet_chains;
  const std::uint64_t first =
      (runs_ * fleet_challenges + i / fleet_chains) * std::uint64_t{fleet_votes};
  std::array<std::uint32_t, 4 * kVectors> random;
  upper_words(static_cast<std::uint32_t>(first), chain, silicon_.noise_key_, random.data());
  const std::uint32_t high = threshold(delta, sn);
  unsigned ones = 0;
  for (unsigned v = 0; v < fleet_votes; ++v) {
    const std::uint32_t apart = random[v] > high ? random[v] - high : high - random[v];
    if (apart <= band_ || sn <= 0.0) {
      ones += slow_race(i, pdl_offset, first + v);
    } else {
      ones += random[v] > high;
    }
  }
  return ones > fleet_votes / 2;
}

Response FleetDie::read(int pdl_offset) {
  check_run(pdl_offset);
  const double sn = silicon_.config_.noise * environment_.noise_scale;
  const double sure = kSureVote * sn + 1e-9;
  Response r{};
  std::array<std::uint16_t, fleet_bits> close;
  unsigned count = 0;
  std::array<double, fleet_chains> shift;
  for (unsigned c = 0; c < fleet_chains; ++c) shift[c] = silicon_.chains_[c].step * pdl_offset;
  for (unsigned i = 0; i < fleet_bits;) {
    for (unsigned c = 0; c < fleet_chains; ++c, ++i) {
      const double delta = delta_[i] + shift[c];
      r[i / 64] |= static_cast<std::uint64_t>(delta > 0.0) << (i % 64);
      close[count] = static_cast<std::uint16_t>(i);
      count += std::fabs(delta) <= sure;
    }
  }
  for (unsigned n = 0; n < count; ++n) {
    const unsigned i = close[n];
    const double delta = delta_[i] + shift[i % fleet_chains];
    const std::uint64_t bit = std::uint64_t{1} << (i % 64);
    r[i / 64] = majority(i, pdl_offset, delta, sn) ? r[i / 64] | bit : r[i / 64] & ~bit;
  }
  ++runs_;
  return r;
}

KeyBits FleetDie::read(const std::vector<std::uint16_t>& positions) {
  check_run(0);
  const double sn = silicon_.config_.noise * environment_.noise_scale;
  const double sure = kSureVote * sn + 1e-9;
  KeyBits r{};
  for (unsigned j = 0; j < positions.size(); ++j) {
    const double delta = delta_[positions[j]];
    const bool one = std::fabs(delta) > sure ? delta > 0.0 : majority(positions[j], 0, delta, sn);
    r[j / bch_n][j % bch_n / 64] |= static_cast<std::uint64_t>(one) << (j % bch_n % 64);
  }
  ++runs_;
  return r;
}

Response FleetDie::single_races() const {
  const double sn = silicon_.config_.noise * environment_.noise_scale;
  Response r{};
  for (unsigned i = 0; i < fleet_bits; ++i) {
    bool one = delta_[i] > 0.0;
    if (std::fabs(delta_[i]) <= kSaturated * sn + 1e-9) {
      const std::uint64_t draw =
          (runs_ * fleet_challenges + i / fleet_chains) * std::uint64_t{fleet_votes};
      const auto word =
          philox({static_cast<std::uint32_t>(draw), static_cast<std::uint32_t>(draw >> 32),
                  i % fleet_chains, kNoiseDomain},
                 silicon_.noise_key_)[1];
      const std::uint32_t high = threshold(delta_[i], sn);
      const std::uint32_t apart = word > high ? word - high : high - word;
      one = apart <= band_ || sn <= 0.0 ? slow_race(i, 0, draw) : word > high;
    }
    r[i / 64] |= static_cast<std::uint64_t>(one) << (i % 64);
  }
  return r;
}

Response FleetDie::exact() const {
  Response r{};
  for (unsigned i = 0; i < fleet_bits; ++i) {
    r[i / 64] |= static_cast<std::uint64_t>(delta_[i] > 0.0) << (i % 64);
  }
  return r;
}

Block bch_encode(const Block& message) {
  const std::vector<std::uint8_t>& g = generator();
  const unsigned degree = static_cast<unsigned>(g.size()) - 1;  // 124
  Block word{};
  std::array<std::uint8_t, bch_n> rest{};
  for (unsigned j = 0; j < bch_k; ++j) {
    rest[j] = get(message, j);
    if (rest[j] != 0) flip(word, j);
  }
  for (unsigned j = 0; j < bch_k; ++j) {
    if (rest[j] == 0) continue;
    for (unsigned i = 0; i <= degree; ++i) {
      rest[j + i] = static_cast<std::uint8_t>(rest[j + i] ^ g[degree - i]);
    }
  }
  for (unsigned j = bch_k; j < bch_n; ++j) {
    if (rest[j] != 0) flip(word, j);
  }
  return word;
}

Correction bch_decode(const Block& received) {
  Correction out;
  out.word = received;
  const Syndromes packed = syndromes()(received);
  if ((packed[0] | packed[1] | packed[2]) == 0) return out;
  std::array<std::uint8_t, 24> odd;
  std::memcpy(odd.data(), packed.data(), odd.size());
  std::array<std::uint8_t, 2 * bch_t + 1> s{};  // S_j
  for (unsigned j = 1; j <= 2 * bch_t; ++j) {
    s[j] = (j & 1) != 0 ? odd[j / 2] : field().mul(s[j / 2], s[j / 2]);
  }
  // Berlekamp's form for binary codes, without inversion, cut off at x^18 as in the hardware.
  std::array<std::uint8_t, bch_t + 1> lambda{1}, b{1};
  std::uint8_t gamma = 1;
  unsigned length = 0;
  for (unsigned r = 0; r < bch_t; ++r) {
    std::uint8_t d = 0;
    for (unsigned i = 0; i <= bch_t && i <= 2 * r; ++i) {
      d = static_cast<std::uint8_t>(d ^ field().mul(lambda[i], s[2 * r + 1 - i]));
    }
    const bool swap = d != 0 && length <= r;
    std::array<std::uint8_t, bch_t + 1> next{}, next_b{};
    for (unsigned i = 0; i <= bch_t; ++i) {
      next[i] = static_cast<std::uint8_t>(field().mul(gamma, lambda[i]) ^
                                          (i > 0 ? field().mul(d, b[i - 1]) : 0));
      if (swap) {
        next_b[i] = i > 0 ? lambda[i - 1] : std::uint8_t{0};
      } else {
        next_b[i] = i > 1 ? b[i - 2] : std::uint8_t{0};
      }
    }
    if (swap) {
      gamma = d;
      length = 2 * r + 1 - length;
    }
    lambda = next;
    b = next_b;
  }
  // lambda(alpha^i) = 0: position x^(255 - i), that is, bit i - 1, is wrong.
  unsigned roots = 0;
  for (unsigned i = 1; i <= bch_n; ++i) {
    std::uint8_t sum = 0;
    for (unsigned j = 0; j <= bch_t; ++j) {
      if (lambda[j] != 0) {
        sum = static_cast<std::uint8_t>(sum ^ field().exp[(field().log[lambda[j]] + i * j) % 255]);
      }
    }
    if (sum == 0) {
      ++roots;
      flip(out.word, i - 1);
    }
  }
  out.corrected = roots;
  out.fail = length > bch_t || roots != length;
  return out;
}

unsigned stuck_chains(const Response& reading) {
  std::array<unsigned, fleet_chains> ones{};
  for (unsigned i = 0; i < fleet_bits; ++i) ones[i % fleet_chains] += bit_of(reading, i);
  return static_cast<unsigned>(
      std::count_if(ones.begin(), ones.end(), [](unsigned n) { return n <= 7 || n >= 57; }));
}

Enrolled enrol(FleetDie& die) {
  Enrolled e;
  if (stuck_chains(die.read(0)) != 0) {
    e.reject = Reject::stuck_chain;
    return e;
  }
  Response plus{}, agree{};
  for (e.margin = first_margin;; e.margin -= margin_step) {
    plus = die.read(e.margin);
    const Response minus = die.read(-e.margin);
    unsigned survivors = 0;
    for (unsigned w = 0; w < agree.size(); ++w) {
      agree[w] = ~(plus[w] ^ minus[w]);
      survivors += static_cast<unsigned>(__builtin_popcountll(agree[w]));
    }
    if (survivors >= key_bits) break;
    if (e.margin < last_margin + margin_step) {
      e.reject = Reject::too_few_reliable;
      return e;
    }
  }
  if (e.margin == first_margin) {
    e.reject = Reject::too_weak_delay_lines;
    return e;
  }
  e.positions.reserve(key_bits);
  for (unsigned i = 0; i < fleet_bits && e.positions.size() < key_bits; ++i) {
    if (!bit_of(agree, i)) continue;
    const unsigned j = static_cast<unsigned>(e.positions.size());
    e.positions.push_back(static_cast<std::uint16_t>(i));
    e.mask[i / 64] |= std::uint64_t{1} << (i % 64);
    if (bit_of(plus, i)) flip(e.response[j / bch_n], j % bch_n);
  }
  for (unsigned w = 0; w < 4; ++w) {
    const std::uint32_t word = die.trng_word();
    for (unsigned b = 0; b < 4; ++b) {
      e.device_id[4 * w + b] = static_cast<std::uint8_t>(word >> (8 * b));
    }
  }
  // Message bits come from the words' lower ends; a word's rest serves the next block.
  std::uint32_t random = 0;
  unsigned left = 0;
  for (unsigned block = 0; block < key_blocks; ++block) {
    Block message{};
    for (unsigned j = 0; j < bch_k; ++j) {
      if (left == 0) {
        random = die.trng_word();
        left = 32;
      }
      if ((random & 1) != 0) flip(message, j);
      random >>= 1;
      --left;
    }
    const Block word = bch_encode(message);
    for (unsigned w = 0; w < word.size(); ++w) {
      e.offset[block][w] = e.response[block][w] ^ word[w];
    }
  }
  return e;
}

Started start(const Enrolled& enrolled, const KeyBits& reading) {
  Started out;
  out.ok = true;
  for (unsigned block = 0; block < key_blocks; ++block) {
    Block received;
    for (unsigned w = 0; w < received.size(); ++w) {
      received[w] = reading[block][w] ^ enrolled.offset[block][w];
      out.errors[block] = static_cast<std::uint16_t>(
          out.errors[block] +
          __builtin_popcountll(reading[block][w] ^ enrolled.response[block][w]));
    }
    const Correction c = bch_decode(received);
    out.decoder_failed |= c.fail;
    for (unsigned w = 0; w < received.size(); ++w) {
      out.ok &= (c.word[w] ^ enrolled.offset[block][w]) == enrolled.response[block][w];
    }
  }
  out.ok &= !out.decoder_failed;
  return out;
}

Started start(FleetDie& die, const Enrolled& enrolled) {
  if (enrolled.reject != Reject::none) {
    throw std::invalid_argument("modelled fleet: the die was not enrolled");
  }
  return start(enrolled, die.read(enrolled.positions));
}

}  // namespace latchkey::sim
