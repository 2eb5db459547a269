// What the owner of a slot shares with the chip besides packages: attestations and tickets. Twins
// of the chip's commands ATTEST and TICKET (docs/registers.md).
//
//   attestation   the chip's HMAC-SHA256 over a challenge and over what it is, under the slot's
//                 attestation key
//   ticket        the owner's HMAC-SHA256 over a nonce of the chip, the lowest version and epoch
//                 that it may still accept, and a budget, under the slot's ticket key
//
// Both keys follow from the root of the slot (record.hpp). They are symmetric: who can check an
// attestation can make one.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "lock/keys.hpp"
#include "lock/record.hpp"

namespace latchkey::lock {

using challenge = std::array<std::uint8_t, 32>;
using ticket_nonce = std::array<std::uint8_t, 16>;

/// 32 fresh random bytes.
challenge random_challenge();

/// What a chip says of itself, with its proof.
struct attestation {
  challenge asked{};
  std::uint32_t slot = 0;
  device_id device{};
  std::uint32_t build_version = 0;  ///< major << 16 | minor << 8 | patch
  std::uint32_t build_hash = 0;     ///< First 32 bits of the source's commit; 0 when unknown
  std::uint32_t build_flags = 0;    ///< Register BUILD_FLAGS
  std::uint32_t config_id = 0;
  std::uint32_t life_cycle = 0;  ///< Register LC_STATE
  std::uint32_t min_version = 0;
  std::uint32_t version_floor = 0;  ///< Of the slot
  std::uint32_t epoch_floor = 0;
  std::array<std::uint8_t, 32> proof{};
};

/// The proof that the chip of `root` gives.
std::array<std::uint8_t, 32> prove(const attestation& a, const secret<32>& root);

/// Checks challenge and proof against the record. Throws latchkey::error (refused) with what is
/// wrong: another challenge (replayed), another device, no root of that slot (usage), no enrolled
/// chip, or a proof that the chip of this record did not make over these words.
void verify(const attestation& a, const challenge& asked, const device_record& record,
            const std::string& what);

/// JSON, and back; parse throws latchkey::error (bad_file) naming the field.
std::string to_text(const attestation& a);
attestation parse_attestation(byte_view text, const std::string& name);

inline constexpr std::uint32_t no_limit = 0xffffffff;
inline constexpr std::uint32_t ticket_time_cycles = 1u << 20;  ///< Cycles of a unit of time
inline constexpr std::size_t ticket_bytes = 80;

/// What an owner allows.
struct ticket {
  std::uint32_t slot = 0;
  std::uint32_t min_version = 0;
  std::uint32_t min_epoch = 0;
  std::uint32_t runs = no_limit;  ///< Starts of the kernel
  std::uint32_t time = no_limit;  ///< Units of ticket_time_cycles from the ticket's acceptance
};

/// The 20 words that the chip takes.
std::array<std::uint8_t, ticket_bytes> sign(const ticket& t, const ticket_nonce& nonce,
                                            const secret<32>& root);

/// What the host beside the card asks the owner for.
struct ticket_request {
  device_id device{};
  std::uint32_t slot = 0;
  ticket_nonce nonce{};
};
std::string to_text(const ticket_request& r);
ticket_request parse_ticket_request(byte_view text, const std::string& name);

/// A signed ticket as a file; the words alone count, the rest is for readers.
std::string to_text(const std::array<std::uint8_t, ticket_bytes>& words);
std::array<std::uint8_t, ticket_bytes> parse_ticket(byte_view text, const std::string& name);

}  // namespace latchkey::lock
