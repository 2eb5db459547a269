// Device records: what the owner keeps of an enrolled chip.
//
// File (.lkd): JSON with two members.
//   "public"  what a host needs to start the chip: device id, helper data, configurations. No
//             secret; `latchkey` hands it to the chip at every start.
//   "secret"  the roots of owner slots, each with its present epoch, encrypted: AES-256-GCM under
//             scrypt(passphrase, salt, N, r, p), additional data = the public part (compact JSON
//             with sorted keys), so neither part can be exchanged. Absent in a public-only record.
// The plaintext of the secret part, little-endian: u32 count, then per key u32 slot | u32 epoch |
// root[32]. "format" is record_format.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lock/keys.hpp"

namespace latchkey::lock {

/// Records of format 1 held a wrapping key where the root of a slot now is.
inline constexpr std::uint32_t record_format = 2;

inline constexpr std::size_t helper_bytes = 4 * spec::helper_words;

/// The public half of a record.
struct public_record {
  device_id id{};
  bytes helper;                           ///< Helper data blob, helper_bytes long
  std::string name;                       ///< The owner's name for the card; may be empty
  std::vector<std::uint32_t> config_ids;  ///< Builds that the card is used with; empty: any

  friend bool operator==(const public_record&, const public_record&) = default;
};

/// The root of an owner slot as the enrol build exported it, and the epoch that packages are
/// wrapped for now. Keys of every other epoch follow from the root as well: a rotation loses none.
struct owner_key {
  std::uint32_t slot = 0;
  std::uint32_t epoch = 0;
  secret<32> root;

  [[nodiscard]] key_encryption_key kek(std::uint32_t of_epoch) const {
    return owner_kek(root, static_cast<std::uint8_t>(slot), of_epoch);
  }
  [[nodiscard]] key_encryption_key kek() const { return kek(epoch); }
};

struct device_record {
  public_record pub;
  std::vector<owner_key> keys;  ///< Empty after reading without a passphrase

  /// The root of a slot, or nullptr.
  [[nodiscard]] const owner_key* find(std::uint32_t slot) const;
  /// As find(); without a slot the first root. Throws latchkey::error (usage), naming `what`, when
  /// there is none.
  [[nodiscard]] const owner_key& at(std::optional<std::uint32_t> slot,
                                    const std::string& what) const;
};

/// Cost of the passphrase: memory 128 * n * r bytes. n is a power of two.
struct scrypt_cost {
  std::uint64_t n = 1u << 15;
  std::uint64_t r = 8;
  std::uint64_t p = 1;
};

/// Checks magic, format and device id of the helper data against the record. Throws
/// latchkey::error naming `what`.
void check(const public_record& record, const std::string& what);

/// Writes both parts with permissions 0600. Throws latchkey::error for an empty passphrase, a
/// record without keys, or a failed write (the old file then stays).
void write_record(const std::string& path, const device_record& record, std::string_view passphrase,
                  const scrypt_cost& cost = {});

/// Writes the public part only: this is what goes with the card.
void write_public_record(const std::string& path, const public_record& record);

/// Reads the public part of either kind of file.
public_record read_public_record(const std::string& path);

/// Reads both parts. Throws latchkey::error: errc::refused when the passphrase is wrong or the
/// file was changed (they cannot be told apart), errc::bad_file when it is malformed or public
/// only.
device_record read_record(const std::string& path, std::string_view passphrase);

/// As the two above, on the text of a file; `name` stands for it in messages.
public_record parse_public_record(byte_view text, const std::string& name);
device_record parse_record(byte_view text, const std::string& name, std::string_view passphrase);

}  // namespace latchkey::lock
