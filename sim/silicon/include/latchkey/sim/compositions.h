// Study only: strong-PUF compositions of a die's chains, as the literature attacks them. Nothing of
// the hardware composes chains; a key needs them one by one, at 64 fixed challenges.
//
// Sources: XOR arbiter PUF, Suh and Devadas (2007); interpose PUF, Nguyen, Sahoo, Jin, Mahmood,
// Ruehrmair, van Dijk (2019).
#ifndef LATCHKEY_SIM_COMPOSITIONS_H_
#define LATCHKEY_SIM_COMPOSITIONS_H_

#include <cstdint>

#include "latchkey/sim/silicon.h"

namespace latchkey::sim {

/// A composition: `upper` chains whose exclusive or, if there are any, steers stage 32 of `lower`
/// chains, whose exclusive or is the answer. upper = 0: an XOR arbiter PUF; lower = 1 as well: an
/// arbiter PUF. Bit 32 of the challenge is then not the lower chains' (they have 63 free bits).
struct Composition {
  unsigned upper = 0;
  unsigned lower = 1;
};
inline constexpr unsigned interposed_stage = 32;

/// One noisy answer, 0 or 1; chains first .. first + upper + lower - 1 race once each. Throws
/// std::out_of_range for chains that the die does not have.
int answer(Silicon& die, const Composition& what, unsigned first, std::uint64_t challenge);

/// The answer without noise.
int exact_answer(const Silicon& die, const Composition& what, unsigned first,
                 std::uint64_t challenge);

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_COMPOSITIONS_H_
