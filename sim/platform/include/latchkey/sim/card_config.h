// The settings of the simulated cards of a process, from the environment.
//
//   LATCHKEY_SIM_CARDS   cards separated by ',', each a seed and settings separated by ';':
//                        "7;temperature=85;memory=ddr4-2400,8" is card 0 = sim:7 and card 1 =
//                        sim:8. Default: "1". Settings:
//     temperature=C        junction temperature of the modelled die, -55..150 (25)
//     voltage=V            core voltage, 0.5..1.2 (0.85)
//     age=years            powered years, 0..50 (0)
//     noise=factor         scales the PUF noise, 0 makes it exact (1)
//     drift=sigma          corner drift of the die (see silicon.h)
//     lot=seed             production lot of the die (1)
//     nonce=number         power-on nonce of the noise; random when absent
//     memory=preset        ideal, ddr4-2400 or hbm (ddr4-2400)
//     watchdog=cycles      cycles without any bus transfer after which a run is ended (4000000)
//     mmio=cycles          kernel cycles that one host register access takes (64)
//   LATCHKEY_STATE_DIR   where cards keep their fuses; default $XDG_STATE_HOME/latchkey, then
//                        ~/.local/state/latchkey
//   LATCHKEY_SIM_TRACE   a folder for FST waveforms (trace builds only)
#ifndef LATCHKEY_SIM_CARD_CONFIG_H_
#define LATCHKEY_SIM_CARD_CONFIG_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "latchkey/sim/silicon.h"

namespace latchkey::sim {

// The clock of every kernel: 300 MHz, as a whole number of picoseconds.
inline constexpr std::uint64_t clock_ps = 3333;
inline constexpr unsigned clock_mhz = 300;
// Cards are elaborated once, at first use.
inline constexpr std::size_t max_cards = 8;

enum class MemoryPreset { ideal, ddr4_2400, hbm };

struct CardConfig {
  std::uint64_t seed = 1;
  std::uint64_t lot_seed = 1;
  Environment environment;
  double corner_drift = typical_corner_drift;
  std::optional<std::uint64_t> nonce;
  MemoryPreset memory = MemoryPreset::ddr4_2400;
  std::uint64_t watchdog_cycles = 4'000'000;
  std::uint64_t mmio_cycles = 64;

  std::string name() const { return "sim:" + std::to_string(seed); }
};

// Throws std::invalid_argument naming the card and the setting that is wrong.
std::vector<CardConfig> parse_cards(const std::string& text);

// The cards of this process; LATCHKEY_SIM_CARDS or one card of seed 1.
std::vector<CardConfig> cards_from_environment();

std::filesystem::path state_root_from_environment();

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_CARD_CONFIG_H_
