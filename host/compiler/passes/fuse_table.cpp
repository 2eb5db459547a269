// Tables into the convolution or product that makes their input: results go through the table on
// their way to the scratchpad, so that neither the table's own step nor its input remains.
#include <cstddef>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

/// Whether a step's results can go through a table.
bool takes_table(const step& s) {
  return s.desc.fuse_table == 0 && s.desc.fuse_dw == 0 &&
         (is(s, spec::op::mat_mul) || is(s, spec::op::product));
}

}  // namespace

void fuse_table(draft& d) {
  for (std::size_t i = 0; i < d.steps.size();) {
    const step table = d.steps[i];
    const std::size_t maker =
        is(table, spec::op::table) ? writer_for_one(d, table.inputs[0]) : nowhere;
    if (maker == nowhere || !takes_table(d.steps[maker])) {
      ++i;
      continue;
    }
    d.steps[maker].desc.fuse_table = 1;
    absorb(d.steps[maker], table, "table");
    d.steps.erase(d.steps.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace latchkey::compiler::passes
