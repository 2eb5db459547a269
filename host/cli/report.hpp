// Counters, and the parts of a model that run on the host, for people and for JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "compiler/program.hpp"
#include "latchkey/session.hpp"

namespace latchkey::cli {

nlohmann::json to_json(const Counters& counters);
/// Cycles, utilisation and where the cycles went; `expected` is what the kernel should have
/// counted, `useful` the network's own multiply-accumulates.
void say_counters(const Counters& counters, std::uint64_t expected, std::uint64_t useful,
                  std::uint32_t array_n);
/// What each unit did of a run of `seconds`; the lines only when there are several.
nlohmann::json to_json(const std::vector<UnitShare>& units, double seconds);
void say_units(const std::vector<UnitShare>& units, double seconds);
/// Fields that go into the JSON object of a failure.
nlohmann::json& error_details();

/// The table of host nodes with their share of the work; nothing for a model without them.
void say_host(const compiler::program& p);

/// The same as JSON: "host" with nodes, macs, macs_share and public_constants.
void add_host(nlohmann::json& summary, const compiler::program& p);

}  // namespace latchkey::cli
