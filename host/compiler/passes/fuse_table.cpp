// Tables into the convolution or product that makes their input: results go through the table on
// their way to the scratchpad, so that neither the table's own step nor its input remains.
#include <algorithm>
#include <cstddef>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

bool is(const step& s, spec::op op) { return s.desc.op == static_cast<std::uint32_t>(op); }

/// The step before `at` that writes its input, and whose result nothing else reads; the end if
/// none.
std::vector<step>::iterator maker_of(draft& d, const step& table) {
  const int t = table.inputs[0];
  std::ptrdiff_t readers = d.graph.output.tensor == t ? 1 : 0;
  for (const step& s : d.steps) readers += std::count(s.inputs.begin(), s.inputs.end(), t);
  if (readers != 1) return d.steps.end();
  return std::find_if(d.steps.begin(), d.steps.end(), [&](const step& s) {
    return s.output == t && s.desc.fuse_table == 0 && s.desc.fuse_dw == 0 &&
           (is(s, spec::op::mat_mul) || is(s, spec::op::product));
  });
}

}  // namespace

void fuse_table(draft& d) {
  for (std::size_t i = 0; i < d.steps.size();) {
    const step table = d.steps[i];
    const auto maker = is(table, spec::op::table) ? maker_of(d, table) : d.steps.end();
    if (maker == d.steps.end()) {
      ++i;
      continue;
    }
    maker->desc.fuse_table = 1;
    maker->report.op += "+table";
    maker->report.pages += table.report.pages;
    maker->report.weight_bytes += table.report.weight_bytes;
    maker->nodes.push_back(table.nodes[0]);
    maker->output = table.output;
    d.steps.erase(d.steps.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace latchkey::compiler::passes
