// The attack suite's result for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace latchkey::campaign::attacks {

std::string summary(const nlohmann::json& result);        ///< for a terminal
std::string markdown_page(const nlohmann::json& result);  ///< docs/attacks.md
std::string html_page(const nlohmann::json& result);      ///< with a plot of the raw attacks

}  // namespace latchkey::campaign::attacks
