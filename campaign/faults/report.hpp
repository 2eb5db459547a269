// The fault campaign's result for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace latchkey::campaign::faults {

std::string summary(const nlohmann::json& result);        ///< for a terminal
std::string markdown_page(const nlohmann::json& result);  ///< docs/faults.md
std::string html_page(const nlohmann::json& result);      ///< the same, point by point

}  // namespace latchkey::campaign::faults
