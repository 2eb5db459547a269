// The enrol and the operate build's key block, Verilated, on a modelled die.
#pragma once

#include <array>
#include <cstdint>

#include "latchkey/sim/fleet.h"

namespace latchkey::campaign {

inline constexpr std::size_t helper_words = 272;
using helper_data = std::array<std::uint32_t, helper_words>;

struct hardware_enrolment {
  bool ok = false;
  int error = 0;  // reason code of the key block
  int margin = 0;
  std::uint64_t cycles = 0;
  helper_data helper{};
};

struct hardware_start {
  bool ok = false;
  int error = 0;
  std::uint32_t cycles = 0;    // START_CYCLES
  std::uint32_t unstable = 0;  // challenges and chains whose votes were not unanimous
};

/// ENROL on a fresh chip around the die, powered on with `nonce`.
hardware_enrolment enrol_in_hardware(const sim::SiliconConfig& die,
                                     const sim::Environment& environment, std::uint64_t nonce);

/// START on an enrolled chip around the die, powered on with `nonce`, given `helper`.
hardware_start start_in_hardware(const sim::SiliconConfig& die, const sim::Environment& environment,
                                 std::uint64_t nonce, const helper_data& helper);

/// Public helper data of the software twin's enrolment; the tag's eight words stay zero.
helper_data helper_of(const sim::Enrolled& enrolled);

/// Bits in which two helper data differ, the tag left out.
unsigned differing_bits(const helper_data& a, const helper_data& b);

}  // namespace latchkey::campaign
