#include "compiler/plan.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

namespace latchkey::compiler {
namespace {

bool overlap(const lifetime& a, const lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

/// Places in the given order, each tensor into the smallest gap that holds it.
placement place_in_order(const std::vector<lifetime>& t, const std::vector<std::size_t>& order) {
  placement p;
  p.base.assign(t.size(), 0);
  std::vector<std::size_t> done;
  for (const std::size_t i : order) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> taken;
    for (const std::size_t j : done)
      if (overlap(t[i], t[j])) taken.emplace_back(p.base[j], p.base[j] + t[j].words);
    std::sort(taken.begin(), taken.end());
    std::uint64_t end = 0, best = 0;
    std::uint64_t best_gap = std::numeric_limits<std::uint64_t>::max();
    for (const auto& [from, to] : taken) {
      if (from >= end + t[i].words && from - end < best_gap) {
        best_gap = from - end;
        best = end;
      }
      end = std::max(end, to);
    }
    p.base[i] = best_gap == std::numeric_limits<std::uint64_t>::max() ? end : best;
    p.peak = std::max(p.peak, p.base[i] + t[i].words);
    done.push_back(i);
  }
  return p;
}

}  // namespace

std::vector<std::uint64_t> alive_words(const std::vector<lifetime>& t) {
  std::size_t steps = 0;
  for (const lifetime& l : t) steps = std::max(steps, l.last + 1);
  std::vector<std::uint64_t> alive(steps);
  for (const lifetime& l : t)
    for (std::size_t s = l.first; s <= l.last; ++s) alive[s] += l.words;
  return alive;
}

placement place(const std::vector<lifetime>& t) {
  const std::vector<std::uint64_t> alive = alive_words(t);
  const auto most = std::max_element(alive.begin(), alive.end());
  const std::uint64_t bound = most == alive.end() ? 0 : *most;

  std::vector<std::size_t> order(t.size());
  std::iota(order.begin(), order.end(), 0);
  placement best = place_in_order(t, order);
  const auto attempt = [&] {
    if (best.peak == bound) return;
    if (placement p = place_in_order(t, order); p.peak < best.peak) best = std::move(p);
  };
  const auto by = [&](auto key) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return key(t[a]) > key(t[b]); });
    attempt();
  };
  by([](const lifetime& l) { return l.words; });
  by([](const lifetime& l) { return l.last - l.first; });
  by([](const lifetime& l) { return l.words * (l.last - l.first + 1); });
  std::mt19937 random(1);
  for (int i = 0; i < 2000 && best.peak != bound; ++i) {
    // Fisher-Yates by hand: std::shuffle differs between libraries.
    for (std::size_t k = order.size(); k > 1; --k) std::swap(order[k - 1], order[random() % k]);
    attempt();
  }
  best.bound = bound;
  best.worst_step = static_cast<std::size_t>(most - alive.begin());
  return best;
}

}  // namespace latchkey::compiler
