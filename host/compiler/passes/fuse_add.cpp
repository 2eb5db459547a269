// Residual additions into the convolution that makes one of their operands: the post unit adds the
// other operand on the way to the scratchpad, so that neither the addition's own step nor the
// convolution's own result remains. A constant operand is then loaded before the convolution.
#include <algorithm>
#include <cstddef>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

/// Merges the addition into `conv`, which writes its input number `own`.
void merge(step& conv, const step& add, std::size_t own) {
  conv.desc.fuse_add = 1;
  conv.desc.mid_lo = conv.desc.clamp_lo;
  conv.desc.mid_hi = conv.desc.clamp_hi;
  conv.desc.clamp_lo = add.desc.clamp_lo;
  conv.desc.clamp_hi = add.desc.clamp_hi;
  conv.desc.in2_stride = own == 0 ? add.desc.in2_stride : add.desc.in_stride;
  conv.desc.in2_negate = add.desc.in2_negate;
  conv.desc.add_mult_a = own == 0 ? add.desc.add_mult_a : add.desc.add_mult_b;
  conv.desc.add_mult_b = own == 0 ? add.desc.add_mult_b : add.desc.add_mult_a;
  conv.desc.add_offset = add.desc.add_offset;
  conv.desc.add_shift = add.desc.add_shift;
  conv.inputs.push_back(add.inputs[1 - own]);
  absorb(conv, add, "add");
}

/// Whether the addition at `at` can go into the writer of its input number `own`, which then must
/// have no other reader, and whose other input must stand before that writer runs or be loaded.
bool fits(const draft& d, std::size_t at, std::size_t own) {
  const step& add = d.steps[at];
  const std::size_t conv = writer_for_one(d, add.inputs[own]);
  const std::size_t other = writer_of(d, add.inputs[1 - own]);
  if (conv == nowhere || other == nowhere) return false;
  if (other >= conv && !is(d.steps[other], spec::op::load)) return false;
  if (!is(d.steps[conv], spec::op::mat_mul) || d.steps[conv].desc.fuse_add != 0 ||
      d.steps[conv].desc.fuse_dw != 0)
    return false;
  return add.desc.in2_broadcast == 0 && (add.desc.in2_negate == 0 || own == 0);
}

}  // namespace

void fuse_add(draft& d) {
  for (std::size_t i = 0; i < d.steps.size();) {
    const step& s = d.steps[i];
    if (!is(s, spec::op::add) || (!fits(d, i, 0) && !fits(d, i, 1))) {
      ++i;
      continue;
    }
    const std::size_t own = fits(d, i, 0) ? 0 : 1;
    std::size_t conv = writer_of(d, s.inputs[own]);
    const std::size_t other = writer_of(d, s.inputs[1 - own]);
    if (other > conv) {  // a Load reads nothing that a step before it writes
      const auto first = d.steps.begin();
      std::rotate(first + static_cast<std::ptrdiff_t>(conv),
                  first + static_cast<std::ptrdiff_t>(other),
                  first + static_cast<std::ptrdiff_t>(other) + 1);
      ++conv;
    }
    merge(d.steps[conv], s, own);
    d.steps.erase(d.steps.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace latchkey::compiler::passes
