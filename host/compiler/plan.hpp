// Scratchpad planning: where each tensor lies, so that tensors which are never alive together share
// words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace latchkey::compiler {

/// A tensor's size and the steps (inclusive) during which it must be kept.
struct lifetime {
  std::uint64_t words = 0;
  std::size_t first = 0, last = 0;
};

struct placement {
  std::vector<std::uint64_t> base;  ///< First word of each tensor
  std::uint64_t peak = 0;           ///< Words in all
  std::uint64_t bound = 0;          ///< Most words alive in one step: no placement needs fewer
  std::size_t worst_step = 0;       ///< A step with `bound` words alive
};

/// Words alive in each step.
std::vector<std::uint64_t> alive_words(const std::vector<lifetime>& tensors);

/// Places the tensors. Greedy best fit in several orders (by size, by extent, by time, and seeded
/// shuffles until the bound is met), keeping the best; deterministic. Placing words is NP-hard, so
/// peak may exceed bound; for chains and residual blocks it does not.
placement place(const std::vector<lifetime>& tensors);

}  // namespace latchkey::compiler
