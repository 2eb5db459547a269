#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {

void emit_descriptors(draft& d) {
  program& out = d.out;
  for (const step& s : d.steps) {
    out.descriptors.push_back(s.desc);
    out.layers.push_back(s.report);
    out.layers.back().zero_macs = counted_macs(s.desc) - s.report.macs;
  }
  spec::descriptor end;
  end.op = static_cast<std::uint32_t>(spec::op::end);
  out.descriptors.push_back(end);
  for (std::size_t i = 0; i < out.descriptors.size(); ++i) {
    const auto words = out.descriptors[i].pack();
    for (std::size_t k = 0; k < words.size(); ++k)
      put_u32_at(&out.pages[i * spec::desc_bytes + 4 * k], words[k]);
  }
  out.regions = regions_of(out.descriptors);
}

}  // namespace latchkey::compiler::passes
