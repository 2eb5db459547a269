// Fleet mode: the modelled die evaluated in bulk, and a software twin of what the hardware makes of
// its answers. For statistics over tens of thousands of dice, which the RTL is too slow for.
//
// `FleetDie` is the die of silicon.h: same seeds, same weights, same draws of noise, same answers,
// bit for bit. It is fast because it asks for whole readings: the differences of arrival come from
// a Walsh-Hadamard transform instead of 6,144 dot products, and a race is decided by comparing the
// random number with the threshold Phi(-delta / sn) instead of shaping it to a normal one. Where
// the two are so close that rounding could decide, the race is run again by silicon.h's arithmetic.
// Votes that the noise overturns with less than 1e-25 are not drawn at all.
//
// `enrol` and `start` follow lk_puf_select, lk_enrol_block and lk_key_block: margins, trimming,
// order of bits, draws from the TRNG, BCH(255, 131, 18). What comes after the corrected response
// (HKDF, tag) is not modelled: the tag holds if and only if the response is the enrolled one.
#ifndef LATCHKEY_SIM_FLEET_H_
#define LATCHKEY_SIM_FLEET_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "latchkey/sim/silicon.h"

namespace latchkey::sim {

inline constexpr unsigned fleet_chains = 96;
inline constexpr unsigned fleet_challenges = 64;
inline constexpr unsigned fleet_bits = fleet_chains * fleet_challenges;
inline constexpr unsigned fleet_votes = 15;
inline constexpr int first_margin = 96;
inline constexpr int last_margin = 40;
inline constexpr int margin_step = 4;

inline constexpr unsigned bch_n = 255;
inline constexpr unsigned bch_k = 131;
inline constexpr unsigned bch_t = 18;
inline constexpr unsigned key_blocks = 8;
inline constexpr unsigned key_bits = key_blocks * bch_n;

// All bits of a device: bit i = challenge * 96 + chain at word i / 64, position i % 64.
using Response = std::array<std::uint64_t, fleet_bits / 64>;
// 255 bits; position j, the coefficient of x^(254 - j), at word j / 64, position j % 64.
using Block = std::array<std::uint64_t, 4>;
// The masked response, or the offset: bit j of 2,040 is position j % 255 of block j / 255.
using KeyBits = std::array<Block, key_blocks>;

inline bool bit_of(const Response& r, unsigned i) { return (r[i / 64] >> (i % 64) & 1) != 0; }

// The challenge whose parity transform is row k of the 64 x 64 Hadamard matrix.
std::uint64_t fleet_challenge(unsigned k);

// One die in bulk. Not thread safe. Only noise makes the answers differ from call to call; a
// reading consumes the draws of one run of lk_puf.
class FleetDie {
 public:
  // Throws std::invalid_argument as Silicon does, and for another number of chains than 96.
  // Random numbers within `band` / 2^32 of the threshold go the slow way; the default is wider than
  // the error of the fast one, and tests widen it.
  explicit FleetDie(const SiliconConfig& config, std::uint64_t power_on_nonce = 0,
                    std::uint32_t band = 8);

  // As in Silicon. `drift_scale` multiplies config.corner_drift: the same die with wires that feel
  // temperature, voltage and age more, or less.
  void set_environment(const Environment& environment, double drift_scale = 1.0);
  void power_on(std::uint64_t nonce);
  std::uint32_t trng_word() { return silicon_.trng_word(); }

  // One run of lk_puf at `pdl_offset`: majority of 15 votes.
  Response read(int pdl_offset = 0);
  // The same run, of which only the bits at `positions` are computed.
  KeyBits read(const std::vector<std::uint16_t>& positions);
  // A single race of every bit, the first of a run that read() would make; consumes nothing.
  Response single_races() const;
  // The answers without noise.
  Response exact() const;
  // Difference of arrival of bit i without noise, in sigma, in the present environment.
  double delta(unsigned i) const { return delta_[i]; }

  // Races decided by the slow arithmetic since construction.
  std::uint64_t slow_races() const { return slow_; }

 private:
  void check_run(int pdl_offset) const;
  // A race answers 1 when its upper random word is above.
  std::uint32_t threshold(double delta, double sn) const;
  bool majority(unsigned i, int pdl_offset, double delta, double sn) const;
  bool slow_race(unsigned i, int pdl_offset, std::uint64_t draw) const;

  Silicon silicon_;
  std::uint32_t band_;
  Environment environment_;
  double drift_scale_ = 1.0;
  std::uint64_t runs_ = 0;  // since power-on
  mutable std::uint64_t slow_ = 0;
  // Per bit: the transform of nominal, temperature, voltage and age weights, and of their sum.
  std::vector<double> nominal_, temperature_, voltage_, age_, delta_;
};

// ---- BCH(255, 131, 18), GF(2^8) / 0x11D

// Systematic code word of a message (positions 0..130).
Block bch_encode(const Block& message);

struct Correction {
  Block word{};
  unsigned corrected = 0;  // positions changed
  bool fail = false;       // what the decoder's fail_o says
};
// What lk_bch_decoder makes of a received word, its bits under fail_o included.
Correction bch_decode(const Block& received);

// ---- enrolment and start

enum class Reject { none, stuck_chain, too_weak_delay_lines, too_few_reliable };

struct Enrolled {
  Reject reject = Reject::none;
  int margin = 0;  // the margin used, or the last one tried
  std::array<std::uint8_t, 16> device_id{};
  Response mask{};
  std::vector<std::uint16_t> positions;  // of the 2,040 bits, ascending; empty if rejected
  KeyBits response{};                    // the enrolled response
  KeyBits offset{};                      // response xor random code words
};
// The enrolment of lk_enrol_top, its draws from noise and TRNG included. The die has just been
// powered on.
Enrolled enrol(FleetDie& die);

struct Started {
  bool ok = false;              // the tag would hold: every bit is the enrolled one
  bool decoder_failed = false;  // some block was flagged
  std::array<std::uint16_t, key_blocks> errors{};  // bits of the reading that differ from enrolment
};
// Decodes one masked reading.
Started start(const Enrolled& enrolled, const KeyBits& reading);
// One START of lk_key_top: reads and decodes. The health test is not judged.
Started start(FleetDie& die, const Enrolled& enrolled);

// Chains that the health test of a reading at offset 0 calls stuck.
unsigned stuck_chains(const Response& reading);

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_FLEET_H_
