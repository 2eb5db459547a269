#include "latchkey/sim/compositions.h"

namespace latchkey::sim {
namespace {

template <typename Race>
int compose(const Composition& what, unsigned first, std::uint64_t challenge, Race race) {
  int above = 0;
  for (unsigned i = 0; i < what.upper; ++i) above ^= race(first + i, challenge);
  if (what.upper != 0) {
    challenge = (challenge & ~(std::uint64_t{1} << interposed_stage)) |
                static_cast<std::uint64_t>(above) << interposed_stage;
  }
  int out = 0;
  for (unsigned i = 0; i < what.lower; ++i) out ^= race(first + what.upper + i, challenge);
  return out;
}

}  // namespace

int answer(Silicon& die, const Composition& what, unsigned first, std::uint64_t challenge) {
  return compose(what, first, challenge,
                 [&](unsigned chain, std::uint64_t c) { return die.evaluate(chain, c, 0); });
}

int exact_answer(const Silicon& die, const Composition& what, unsigned first,
                 std::uint64_t challenge) {
  return compose(what, first, challenge,
                 [&](unsigned chain, std::uint64_t c) { return die.delay(chain, c) > 0 ? 1 : 0; });
}

}  // namespace latchkey::sim
