// The compiler: quantised graph -> program.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "compiler/program.hpp"
#include "model/qgraph.hpp"

namespace latchkey::compiler {

/// Called before each pass: its name, its number from 1, and how many there are.
using pass_callback = std::function<void(std::string_view name, int number, int count)>;

struct compile_options {
  compiler::target target;
  std::uint32_t max_batch = 0;  ///< Images per run, up to 256; 0: as many as the scratchpad holds
  pass_callback on_pass;
};

/// Compiles `graph`. Passes: check_graph, lower_nodes, plan_scratchpad, pack_parameters,
/// emit_descriptors, check_program. The result is deterministic.
/// Throws latchkey::error (errc::unsupported_model) naming the layer: what the build cannot do
/// (window or step above 255, more than 4,096 channels, more than 512 descriptors, a bias that
/// overflows int32 once the zero point is folded in), or activations that do not fit the scratchpad
/// even one image at a time (words needed, words there, what to do); errc::usage for an impossible
/// target or batch.
program compile(const model::qgraph& graph, const compile_options& options = {});

/// Pages that a run of `batch` images fetches: descriptors and parameters once, tiles once per 512
/// rows.
std::uint64_t pages_fetched(const program& p, std::uint32_t batch);

}  // namespace latchkey::compiler
