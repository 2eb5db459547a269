// The compiler: quantised graph -> program.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "compiler/program.hpp"
#include "model/qgraph.hpp"

namespace latchkey::compiler {

/// Called before each pass: its name, its number from 1, and how many there are.
using pass_callback = std::function<void(std::string_view name, int number, int count)>;

/// Called with what the user should know of the result, in a sentence.
using remark_callback = std::function<void(const std::string& remark)>;

struct draft;
/// Called after each pass with what it left behind (draft.hpp; to_json makes it readable).
using draft_callback = std::function<void(std::string_view name, int number, const draft& d)>;

struct compile_options {
  compiler::target target;
  std::uint32_t max_batch = 0;  ///< Images per run, up to 256; 0: as many as fit without spilling
  pass_callback on_pass;
  draft_callback after_pass;
  remark_callback on_remark;
};

/// Compiles `graph` by the passes of compile.cpp's pipeline. The result is deterministic.
/// Throws latchkey::error (errc::unsupported_model) naming the layer: what the build cannot do
/// (window or step above 255, more than 4,096 channels, more than 512 descriptors, a bias that
/// overflows int32 once the zero point is folded in), or activations that do not fit the scratchpad
/// although whatever can be away is spilled (words needed, words there, what to do); errc::usage
/// for an impossible target or batch.
program compile(const model::qgraph& graph, const compile_options& options = {});

/// Pages that a run of `batch` images fetches: descriptors and parameters once, tiles once per 512
/// rows.
std::uint64_t pages_fetched(const program& p, std::uint32_t batch);

}  // namespace latchkey::compiler
