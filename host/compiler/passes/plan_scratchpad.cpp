#include <algorithm>
#include <string>

#include "compiler/passes/passes.hpp"
#include "compiler/plan.hpp"

namespace latchkey::compiler::passes {
namespace {

/// Throws: `plan` needs more words than there are.
[[noreturn]] void refuse(const draft& d, const placement& plan) {
  const std::uint32_t images = images_asked(d);
  const std::uint64_t there = d.options.target.spad_words;
  const auto largest = std::max_element(
      d.steps.begin(), d.steps.end(),
      [&](const step& a, const step& b) { return words_used(d, a) < words_used(d, b); });
  const std::uint64_t alone = words_used(d, *largest);
  const bool helpless = alone * images > there;
  const std::uint64_t need = helpless ? alone : plan.peak;
  unsupported((helpless ? *largest : d.steps[plan.worst_step]).report.name,
              std::string(helpless ? "the activations that it reads and writes"
                                   : "the activations alive here, with the best placement found,") +
                  " need " + std::to_string(need * images) + " scratchpad words of 64 bytes for " +
                  images_text(images) + "; the build has " + std::to_string(there) +
                  (there >= need ? ", enough for a batch of " + std::to_string(there / need) : "") +
                  (helpless ? ", and spilling others cannot help" : "") + ": " + advice(images));
}

}  // namespace

void plan_scratchpad(draft& d) {
  const placement plan = place(lifetimes(d));

  const std::uint64_t there = d.options.target.spad_words;
  const std::uint32_t asked = d.options.max_batch;
  if (plan.peak * images_asked(d) > there) refuse(d, plan);
  d.out.peak_words = static_cast<std::uint32_t>(plan.peak);
  // A batch that nobody asked for is not worth a spill.
  const std::uint64_t most = d.out.spill_pages != 0 ? 1 : there / plan.peak;
  d.out.max_batch =
      asked != 0 ? asked : static_cast<std::uint32_t>(std::min<std::uint64_t>(256, most));

  // The plan is for one image; a batch scales every size alike, so it scales the plan. A constant,
  // which is there once for all images, wastes the words of the others.
  const auto base = [&](int t) {
    return static_cast<std::uint32_t>(plan.base[static_cast<std::size_t>(t)] * d.out.max_batch);
  };
  for (step& s : d.steps) {
    if (!s.inputs.empty()) s.desc.in_base = base(s.inputs[0]);
    if (s.inputs.size() > 1) s.desc.in2_base = base(s.inputs[1]);
    if (s.output >= 0) s.desc.out_base = base(s.output) + s.out_offset;
  }
}

}  // namespace latchkey::compiler::passes
