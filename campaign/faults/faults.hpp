// The fault campaign: one fault at a time, in simulation, into the state machines, verdicts and
// valid signals between a sealed package and a released result.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernel.hpp"

namespace latchkey::campaign::faults {

/// What the host tries. All but the first must be refused.
enum class attempt : std::uint8_t {
  honest,
  other_die,
  helper,
  manifest,
  wrapped_key,
  ticket,  ///< a package that needs one, without
  page,
  tag
};
inline constexpr attempt attempts[] = {attempt::honest,   attempt::other_die,   attempt::helper,
                                       attempt::manifest, attempt::wrapped_key, attempt::ticket,
                                       attempt::page,     attempt::tag};
std::string name_of(attempt a);

/// What came of a fault.
enum class outcome : std::uint8_t {
  masked,     ///< the chip answered as without it
  refused,    ///< it refused, or refused for another reason, and released nothing
  silent,     ///< it gave no answer within the host's patience, and released nothing
  violation,  ///< a secret left the chip, or a result that nothing vouches for
};
std::string name_of(outcome o);

struct plan {
  std::uint64_t seed = 1;
  unsigned threads = 2;
  unsigned times = 1;     ///< flips of a bit in one state of its register, at different cycles
  std::size_t flips = 0;  ///< at most so many flips of an attempt, drawn at random; 0: all
  std::size_t holds = 0;  ///< the same for held signals
};

/// One session that works, and those that cheat.
struct material {
  session honest;
  std::map<attempt, session> sessions;  ///< the honest one too
};
/// `seed` makes the die, `model` and it the network and its keys.
material make_sessions(std::uint64_t seed, std::uint64_t model = 0);

/// One way through without a fault: what it shows, and snapshots along it.
struct track {
  std::vector<kernel::snapshot> snapshots;  ///< every `spacing` cycles
  host final;
  std::map<stage, std::uint64_t> begins;
  std::vector<std::vector<std::uint16_t>> states;  ///< [cycle][state point]
};
inline constexpr std::uint64_t spacing = 512;
track walk(kernel& k, const session& s);

/// What a session ended in, judged from outside; `why` says what a violation is.
outcome judge(attempt a, const session& s, const host& without, const host& with,
              std::string* why = nullptr);

/// Runs it. Throws latchkey::error (mismatch) when a session does not end as it must without any
/// fault: then nothing that follows would mean anything.
nlohmann::json run(const plan& p, const std::function<void(const std::string&)>& say);

}  // namespace latchkey::campaign::faults
