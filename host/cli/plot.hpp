// Pictures of an explained program: a roofline and a timeline, as one SVG without dependencies.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compiler/cost.hpp"

namespace latchkey::cli {

/// One bar of the timeline and, with MACs, one point of the roofline.
struct plotted_layer {
  std::string name, op;
  compiler::layer_cost cost;
  std::optional<std::uint64_t> measured;  ///< Cycles of the run, when there was one
};

struct plotted_run {
  std::string title, subtitle;
  std::uint32_t array_n = 0;
  double beats_per_cycle = 1;  ///< What the memory sustains
  std::vector<plotted_layer> layers;
};

std::string svg(const plotted_run& run);
/// The SVG inside a page of its own.
std::string html(const plotted_run& run);

}  // namespace latchkey::cli
