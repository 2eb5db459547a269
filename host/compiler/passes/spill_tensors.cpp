// Tensors that the scratchpad has no room for go to the spill area in card memory and come back
// before they are used again.
//
// A tensor has a gap where steps that do not use it run between two that do: a skip connection. A
// constant has none: it is loaded right before its first use and seldom has a second.
// Until no step has too many words alive, the gap is taken that relieves the overfull steps of most
// words for each word that it moves; then those go that the ones taken later made superfluous.
// A Spill or Load never has more words alive than the step beside it.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "compiler/passes/passes.hpp"
#include "compiler/plan.hpp"

namespace latchkey::compiler::passes {
namespace {

/// Where a tensor can be away: it stands, is used in both steps and in none between.
struct gap {
  int tensor;
  std::size_t from, to;
};

std::vector<gap> gaps_of(const draft& d) {
  std::vector<gap> gaps;
  std::vector<std::size_t> stands(d.tensors.size(), nowhere);  // behind the last of its writers
  for (std::size_t i = 0; i < d.steps.size(); ++i)
    if (d.steps[i].output >= 0) stands[static_cast<std::size_t>(d.steps[i].output)] = i;
  std::vector<std::size_t> last(d.tensors.size(), nowhere);
  const auto use = [&](int t, std::size_t at) {
    const std::size_t writer = stands[static_cast<std::size_t>(t)];
    if (writer > at || is(d.steps[writer], spec::op::load)) return;
    std::size_t& before = last[static_cast<std::size_t>(t)];
    if (before != nowhere && at > before + 1) gaps.push_back({t, before, at});
    before = at;
  };
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    for (const int t : d.steps[i].inputs) use(t, i);
    if (d.steps[i].output >= 0) use(d.steps[i].output, i);
  }
  return gaps;
}

/// The gaps to use, in the order taken, so that no step has more than `limit` words alive, or as
/// few more as possible.
std::vector<gap> choose(const draft& d, std::vector<gap> gaps, std::uint64_t limit) {
  std::vector<std::uint64_t> alive = alive_words(lifetimes(d));
  std::vector<bool> spilled(d.tensors.size());
  std::vector<gap> taken;
  const auto words = [&](const gap& g) { return std::uint64_t{d.layout(g.tensor).words}; };
  for (;;) {
    auto best = gaps.end();
    std::uint64_t most = 0, moved = 1;
    for (auto g = gaps.begin(); g != gaps.end(); ++g) {
      std::uint64_t relief = 0;
      for (std::size_t s = g->from + 1; s < g->to; ++s)
        relief += std::min(words(*g), alive[s] - std::min(alive[s], limit));
      // What lies in the spill area already only comes back once more.
      const std::uint64_t moves =
          words(*g) * (spilled[static_cast<std::size_t>(g->tensor)] ? 1 : 2);
      if (relief * moved < most * moves || (relief * moved == most * moves && relief <= most))
        continue;
      best = g;
      most = relief;
      moved = moves;
    }
    if (best == gaps.end()) break;
    for (std::size_t s = best->from + 1; s < best->to; ++s) alive[s] -= words(*best);
    spilled[static_cast<std::size_t>(best->tensor)] = true;
    taken.push_back(*best);
    gaps.erase(best);
  }
  for (auto g = taken.begin(); g != taken.end();) {
    const auto needed = [&](std::uint64_t others) { return others + words(*g) > limit; };
    const auto first = alive.begin() + static_cast<std::ptrdiff_t>(g->from) + 1;
    const auto last = alive.begin() + static_cast<std::ptrdiff_t>(g->to);
    if (std::any_of(first, last, needed)) {
      ++g;
      continue;
    }
    for (auto s = first; s != last; ++s) *s += words(*g);
    g = taken.erase(g);
  }
  return taken;
}

/// Puts a Spill behind the step that a tensor's first gap begins with, and a Load before every step
/// that a gap ends with; what it brings back is a tensor of its own. Returns the pages of each
/// tensor that is spilled and the steps during which they must be kept; spill_page is its index.
std::vector<lifetime> put_away(draft& d, const std::vector<gap>& gaps) {
  constexpr auto none = static_cast<std::uint32_t>(-1);
  std::vector<int> now(d.tensors.size());  // what stands for each tensor
  std::iota(now.begin(), now.end(), 0);
  std::vector<std::uint32_t> area(d.tensors.size(), none);
  std::vector<lifetime> areas;
  std::vector<step> steps;
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    for (const gap& g : gaps) {
      if (g.to != i) continue;
      const auto t = static_cast<std::size_t>(g.tensor);
      now[t] = static_cast<int>(d.tensors.size());
      d.tensors.push_back(model::qtensor(d.tensors[t]));
      d.layouts.push_back(tensor_layout(d.layouts[t]));
      areas[area[t]].last = steps.size();
      steps.push_back(reload_step(d, now[t]));
      steps.back().desc.spill_page = area[t];
    }
    steps.push_back(d.steps[i]);
    for (int& t : steps.back().inputs) t = now[static_cast<std::size_t>(t)];
    for (const gap& g : gaps) {
      const auto t = static_cast<std::size_t>(g.tensor);
      if (g.from != i || area[t] != none) continue;
      area[t] = static_cast<std::uint32_t>(areas.size());
      areas.push_back({pages_for(d.layouts[t].words, images_asked(d)), steps.size(), 0});
      steps.push_back(spill_step(d, g.tensor));
      steps.back().desc.spill_page = area[t];
    }
  }
  d.steps = std::move(steps);
  return areas;
}

std::string kib(std::uint64_t words) {
  return std::to_string((words * spec::beat_bytes + 1023) / 1024) + " KiB";
}

}  // namespace

void spill_tensors(draft& d) {
  const std::uint32_t images = images_asked(d);
  const std::uint64_t there = d.options.target.spad_words / images;
  const auto alone = [&](const step& s) { return words_used(d, s) > there; };
  const std::vector<gap> gaps = gaps_of(d);
  const placement before = place(lifetimes(d));
  // What spilling cannot help is plan_scratchpad's to refuse.
  if (before.peak <= there || gaps.empty() || std::any_of(d.steps.begin(), d.steps.end(), alone))
    return;

  const std::vector<step> steps = d.steps;
  const std::size_t tensors = d.tensors.size();
  std::vector<lifetime> areas;
  // Words that are enough may still not be placed; then a few more tensors go.
  for (std::uint64_t limit = std::min(there, before.bound - 1);;) {
    areas = put_away(d, choose(d, gaps, limit));
    if (place(lifetimes(d)).peak <= there) break;
    d.steps = steps;
    d.tensors.resize(tensors);
    d.layouts.resize(tensors);
    if (limit == 0) return;
    limit -= std::min(limit, there / 16 + 1);
  }

  const std::string& layer = steps[before.worst_step].report.name;
  const std::string need = "the activations alive here need " +
                           std::to_string(before.peak * images) +
                           " scratchpad words of 64 bytes for " + images_text(images) +
                           "; the build has " + std::to_string(d.options.target.spad_words);
  const placement area = place(areas);
  if (area.peak > spec::max_spill_pages) {
    unsupported(layer, need + ", and what has to be spilled takes " + std::to_string(area.peak) +
                           " pages of 4,096 bytes; the chip keeps the tags of " +
                           std::to_string(spec::max_spill_pages) + ": " + advice(images));
  }
  if (d.steps.size() + 1 > spec::max_descs) {
    unsupported(layer, need + ", and spilling makes " + std::to_string(d.steps.size() + 1) +
                           " operations of the model; the accelerator holds " +
                           std::to_string(spec::max_descs) + ": " + advice(images));
  }
  std::uint64_t there_words = 0, back_words = 0;
  for (step& s : d.steps) {
    const bool spills = is(s, spec::op::spill);
    if (!spills && s.desc.spilled == 0) continue;
    s.desc.spill_page = static_cast<std::uint32_t>(area.base[s.desc.spill_page]);
    (spills ? there_words : back_words) += spills ? s.desc.in_stride : s.desc.out_stride;
  }
  d.out.spill_pages = static_cast<std::uint32_t>(area.peak);
  if (d.options.on_remark) {
    d.options.on_remark("layer '" + layer + "': " + need + ": " + std::to_string(areas.size()) +
                        (areas.size() == 1 ? " tensor is" : " tensors are") +
                        " spilled to card memory, sealed: per image " + kib(there_words) +
                        " there and " + kib(back_words) + " back");
  }
}

}  // namespace latchkey::compiler::passes
