// Counters for people and for JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "latchkey/session.hpp"

namespace latchkey::cli {

nlohmann::json to_json(const Counters& counters);
/// Cycles, utilisation and where the cycles went; `macs` is the compiler's count for the run.
void say_counters(const Counters& counters, std::uint64_t macs, std::uint32_t array_n);
/// Fields that go into the JSON object of a failure.
nlohmann::json& error_details();

}  // namespace latchkey::cli
