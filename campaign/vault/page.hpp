// The campaign's result for people: a page with plots, and the document of docs/puf.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace latchkey::campaign {

/// One HTML file that needs nothing else: plots are SVG inside it.
std::string html_page(const nlohmann::json& result);

/// Markdown with the same figures. `result["cost"]` adds the resources, if it is there.
std::string markdown_page(const nlohmann::json& result);

/// LUT and FF of the PUF and the key block from a report of ./dev synth. Throws latchkey::error
/// (bad_file) when the file is no such report.
nlohmann::json cost_of(const std::string& synthesis_report);

}  // namespace latchkey::campaign
