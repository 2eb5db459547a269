#include <algorithm>
#include <string>

#include "compiler/passes/passes.hpp"
#include "compiler/plan.hpp"
#include "latchkey/error.hpp"

namespace latchkey::compiler::passes {
namespace {

/// A tensor lives from the step that writes it to the last one that reads it. A step reads its
/// inputs while it writes its output, so all of them are alive in it. A tensor that no step touches
/// has no words.
std::vector<lifetime> lifetimes(const draft& d) {
  std::vector<lifetime> lives(d.graph.tensors.size());
  const auto touch = [&](int t, std::size_t at) {
    lifetime& l = lives[static_cast<std::size_t>(t)];
    if (l.words == 0) l.first = at;
    l.words = d.layout(t).words;
    l.last = at;
  };
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    for (const int t : d.steps[i].inputs) touch(t, i);
    if (d.steps[i].output >= 0) touch(d.steps[i].output, i);
  }
  return lives;
}

}  // namespace

void plan_scratchpad(draft& d) {
  const placement plan = place(lifetimes(d));

  const std::uint64_t there = d.options.target.spad_words;
  if (plan.peak > there) {
    unsupported(
        d.steps[plan.worst_step].report.name,
        "the activations alive here, with the best placement found, need " +
            std::to_string(plan.peak) +
            " scratchpad words of 64 bytes for one image; the build has " + std::to_string(there) +
            ": use a build with a scratchpad of at least that size, or a model with a smaller "
            "input or fewer channels at this layer");
  }
  d.out.peak_words = static_cast<std::uint32_t>(plan.peak);
  const auto most = static_cast<std::uint32_t>(std::min<std::uint64_t>(256, there / plan.peak));
  const std::uint32_t asked = d.options.max_batch;
  if (asked > most) {
    throw error(errc::unsupported_model, "model '" + d.graph.name + "': " + std::to_string(asked) +
                                             " images need " + std::to_string(asked * plan.peak) +
                                             " scratchpad words of 64 bytes; the build has " +
                                             std::to_string(there) + ", enough for a batch of " +
                                             std::to_string(most));
  }
  d.out.max_batch = asked != 0 ? asked : most;

  // The plan is for one image; a batch scales every size alike, so it scales the plan. A constant,
  // which is there once for all images, wastes the words of the others.
  const auto base = [&](int t) {
    return static_cast<std::uint32_t>(plan.base[static_cast<std::size_t>(t)] * d.out.max_batch);
  };
  for (step& s : d.steps) {
    if (!s.inputs.empty()) s.desc.in_base = base(s.inputs[0]);
    if (s.inputs.size() > 1) s.desc.in2_base = base(s.inputs[1]);
    if (s.output >= 0) s.desc.out_base = base(s.output);
  }
}

}  // namespace latchkey::compiler::passes
