#include "latchkey/sim/card_config.h"

#include <cmath>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace latchkey::sim {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  std::istringstream stream(text);
  while (std::getline(stream, part, separator)) {
    const auto first = part.find_first_not_of(" \t");
    if (first == std::string::npos) {
      parts.emplace_back();
      continue;
    }
    parts.push_back(part.substr(first, part.find_last_not_of(" \t") - first + 1));
  }
  return parts;
}

std::uint64_t to_number(const std::string& what, const std::string& text) {
  std::size_t used = 0;
  std::uint64_t value = 0;
  try {
    if (!text.empty() && text[0] != '-') value = std::stoull(text, &used, 0);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size()) {
    throw std::invalid_argument("LATCHKEY_SIM_CARDS: " + what + " is not a number: '" + text + "'");
  }
  return value;
}

double to_real(const std::string& what, const std::string& text, double low, double high) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || !(value >= low && value <= high)) {
    std::ostringstream message;
    message << "LATCHKEY_SIM_CARDS: " << what << " is not a number from " << low << " to " << high
            << ": '" << text << "'";
    throw std::invalid_argument(message.str());
  }
  return value;
}

MemoryPreset to_preset(const std::string& text) {
  if (text == "ideal") return MemoryPreset::ideal;
  if (text == "ddr4-2400") return MemoryPreset::ddr4_2400;
  if (text == "hbm") return MemoryPreset::hbm;
  throw std::invalid_argument("LATCHKEY_SIM_CARDS: memory is ideal, ddr4-2400 or hbm, not '" +
                              text + "'");
}

}  // namespace

std::vector<CardConfig> parse_cards(const std::string& text) {
  std::vector<CardConfig> cards;
  for (const std::string& entry : split(text, ',')) {
    const std::vector<std::string> parts = split(entry, ';');
    if (parts.empty()) throw std::invalid_argument("LATCHKEY_SIM_CARDS: a card without a seed");
    CardConfig card;
    card.seed = to_number("the seed", parts[0]);
    for (std::size_t i = 1; i < parts.size(); ++i) {
      if (parts[i].empty()) continue;
      const auto equals = parts[i].find('=');
      const std::string key = parts[i].substr(0, equals);
      const std::string value = equals == std::string::npos ? "" : parts[i].substr(equals + 1);
      const std::string what = card.name() + ": " + key;
      if (key == "temperature") {
        card.environment.temperature_c = to_real(what, value, -55, 150);
      } else if (key == "voltage") {
        card.environment.voltage_v = to_real(what, value, 0.5, 1.2);
      } else if (key == "age") {
        card.environment.age_years = to_real(what, value, 0, 50);
      } else if (key == "noise") {
        card.environment.noise_scale = to_real(what, value, 0, 100);
      } else if (key == "drift") {
        card.corner_drift = to_real(what, value, 0, 10);
      } else if (key == "lot") {
        card.lot_seed = to_number(what, value);
      } else if (key == "nonce") {
        card.nonce = to_number(what, value);
      } else if (key == "memory") {
        card.memory = to_preset(value);
      } else if (key == "watchdog") {
        card.watchdog_cycles = to_number(what, value);
      } else if (key == "mmio") {
        card.mmio_cycles = to_number(what, value);
      } else {
        throw std::invalid_argument("LATCHKEY_SIM_CARDS: " + card.name() +
                                    " has no setting called '" + key + "'");
      }
    }
    cards.push_back(card);
  }
  if (cards.empty()) throw std::invalid_argument("LATCHKEY_SIM_CARDS names no card");
  if (cards.size() > max_cards) {
    throw std::invalid_argument("LATCHKEY_SIM_CARDS names " + std::to_string(cards.size()) +
                                " cards; a process has at most " + std::to_string(max_cards));
  }
  return cards;
}

std::vector<CardConfig> cards_from_environment() {
  const char* text = std::getenv("LATCHKEY_SIM_CARDS");
  return parse_cards(text != nullptr && *text != '\0' ? text : "1");
}

std::filesystem::path state_root_from_environment() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string dir = variable("LATCHKEY_STATE_DIR"); !dir.empty()) return dir;
  if (const std::string dir = variable("XDG_STATE_HOME"); !dir.empty()) {
    return std::filesystem::path(dir) / "latchkey";
  }
  if (const std::string dir = variable("HOME"); !dir.empty()) {
    return std::filesystem::path(dir) / ".local" / "state" / "latchkey";
  }
  throw std::runtime_error(
      "no place for the state of the simulated cards: set LATCHKEY_STATE_DIR, or HOME");
}

}  // namespace latchkey::sim
