// The attack suite: what published attacks learn of the modelled PUF with raw access, and what is
// left to learn from once it is locked.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace latchkey::campaign::attacks {

struct plan {
  std::uint64_t seed = 1;
  bool long_run = false;
  unsigned dice = 40;           ///< whose masks are attacked
  unsigned lot = 300;           ///< opened dice of the same lot, to learn its skew from
  unsigned manipulations = 40;  ///< of each class, each a START of the RTL on two dice
};

using progress = std::function<void(const std::string&)>;

/// Everything below. Throws latchkey::error (usage) for counts of nothing.
nlohmann::json run(const plan& p, const progress& say);

/// Raw access: an attacker who chooses challenges and sees answers, which no build offers.
nlohmann::json with_raw_access(const plan& p, const progress& say);

/// Helper data only: the model of an attacker who reads it.
nlohmann::json from_helper_data(const plan& p, const progress& say);

/// Helper data changed and given back, to the RTL and to a decoder without the tag.
nlohmann::json by_manipulation(const plan& p, const progress& say);

}  // namespace latchkey::campaign::attacks
