// The pages of a compiled program's operation, as the walker hands them to the engine.
#pragma once

#include <algorithm>
#include <vector>

#include "compiler/program.hpp"
#include "engine_model.hpp"

namespace latchkey::test {

inline std::vector<page> pages_in_order(const compiler::program& p, const spec::descriptor& d,
                                        std::uint32_t batch) {
  std::vector<page> out;
  for (const std::uint32_t i : compiler::page_order(d, batch)) {
    out.emplace_back();
    const auto from = p.page(d.page_base + i);
    std::copy(from.begin(), from.end(), out.back().begin());
  }
  return out;
}

}  // namespace latchkey::test
