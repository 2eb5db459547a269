// Joins without a copy: the step that makes a part writes it right to its place in the whole, so
// that neither the copy nor the part remains.
//
// The whole then lives from its first part on, and no part of it can be spilled before all stand.
// Where there are no words for that, the parts that wait longest keep their copies.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "compiler/passes/passes.hpp"
#include "compiler/plan.hpp"

namespace latchkey::compiler::passes {
namespace {

/// A step that makes a part, and the one that copies it.
struct made_part {
  std::size_t maker, copy;
};

/// The join that a step copies a part of, or null.
const model::qnode* join_of(const step& s) {
  return !s.nodes.empty() && std::holds_alternative<model::qjoin>(s.nodes[0]->op) ? s.nodes[0]
                                                                                  : nullptr;
}

/// Whether the maker of a part can write what the copy writes: pixels that follow one another, or
/// the copy's channel blocks apart from one another.
bool writes_like(const step& maker, const step& copy) {
  const spec::descriptor& d = maker.desc;
  return (is(maker, spec::op::mat_mul) || is(maker, spec::op::depthwise) ||
          is(maker, spec::op::max_pool) || is(maker, spec::op::avg_pool)) &&
         (copy.desc.out_pitch == 0 ||
          (d.fuse_add == 0 && d.fuse_dw == 0 && d.out_cb == copy.desc.in_cb));
}

/// Parts among the copies from step `first` to `last` that their makers can put in place, in the
/// order in which they are made. A copy that requantises stays.
std::vector<made_part> parts_of(const draft& d, std::size_t first, std::size_t last) {
  std::vector<made_part> parts;
  for (std::size_t i = first; i < last; ++i) {
    if (!is(d.steps[i], spec::op::max_pool)) continue;
    const std::size_t maker = writer_for_one(d, d.steps[i].inputs[0]);
    if (maker != nowhere && writes_like(d.steps[maker], d.steps[i])) parts.push_back({maker, i});
  }
  std::sort(parts.begin(), parts.end(),
            [](const made_part& a, const made_part& b) { return a.maker < b.maker; });
  return parts;
}

/// Whether the whole can live from its first part on, in place of these parts: in the words there,
/// or in no more than a copy of the first part takes.
bool has_room(const draft& d, const std::vector<made_part>& parts, std::size_t first_copy) {
  const std::uint64_t room = std::max<std::uint64_t>(d.options.target.spad_words / images_asked(d),
                                                     words_used(d, d.steps[parts.front().copy]));
  const std::vector<lifetime> lives = lifetimes(d);
  const std::vector<std::uint64_t> alive = alive_words(lives);
  std::uint64_t more = lives[static_cast<std::size_t>(d.steps[first_copy].output)].words;
  auto next = parts.begin();
  for (std::size_t i = next->maker; i < first_copy; ++i) {
    for (; next != parts.end() && next->maker == i; ++next)
      more -= d.layout(d.steps[i].output).words;
    if (more > 0 && alive[i] + more > room) return false;
  }
  return true;
}

void put_in_place(step& maker, const step& copy) {
  maker.output = copy.output;
  maker.out_offset = copy.out_offset;
  maker.desc.out_pitch = copy.desc.out_pitch;
  maker.desc.out_stride = copy.desc.out_stride;
}

}  // namespace

void join_in_place(draft& d) {
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    const model::qnode* const join = join_of(d.steps[i]);
    if (join == nullptr) continue;
    std::size_t last = i;
    while (join_of(d.steps[last]) == join) ++last;
    std::vector<made_part> parts = parts_of(d, i, last);
    while (!parts.empty() && !has_room(d, parts, i)) parts.erase(parts.begin());
    for (const made_part& p : parts) put_in_place(d.steps[p.maker], d.steps[p.copy]);
    std::sort(parts.begin(), parts.end(),
              [](const made_part& a, const made_part& b) { return a.copy > b.copy; });
    for (const made_part& p : parts)
      d.steps.erase(d.steps.begin() + static_cast<std::ptrdiff_t>(p.copy));
    i = last - parts.size() - 1;
  }
}

}  // namespace latchkey::compiler::passes
