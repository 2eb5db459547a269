// The campaign: a fleet of modelled dice, enrolled and started as the hardware does it.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace latchkey::campaign {

/// How much of what. Every count is at least 1, except `hardware_dice`.
struct plan {
  std::uint64_t seed = 1;
  unsigned threads = 2;
  unsigned dice = 10000;         ///< enrolled at 25 C, read in every environment and at every drift
  unsigned readings = 2;         ///< STARTs of a die at one drift; elsewhere a multiple
  unsigned noise_dice = 300;     ///< dice of each point of the noise sweep
  unsigned skew_dice = 1000;     ///< dice of each lot of the skew study
  unsigned hardware_dice = 3;    ///< dice that the RTL enrols and starts too
  unsigned hardware_starts = 6;  ///< STARTs of each of them, half of them beyond what can succeed
};

/// Runs it. `say` gets a line of progress now and then. Throws latchkey::error (usage) for a count
/// of nothing, (mismatch) when RTL and software twin disagree.
nlohmann::json run(const plan& p, const std::function<void(const std::string&)>& say);

/// RTL and twin on `dice` dice: helper data bit for bit, verdict by verdict. Part of run().
nlohmann::json compare_with_hardware(const plan& p,
                                     const std::function<void(const std::string&)>& say);

}  // namespace latchkey::campaign
