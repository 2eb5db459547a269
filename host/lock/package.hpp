// Sealed packages: a program locked to one device. Every byte of the file is authenticated.
//
// File (.lkx), little-endian, no gaps:
//      0  "LKXP"
//      4  u32 format = 1
//      8  u64 header length h
//     16  u64 number of pages p
//     24  u64 file length
//     32  32 zero bytes
//     64  header, h bytes of JSON: model, target, layout and quantisation of input and output,
//         page regions, and unless withheld the table of layers. Public.
//   64+h  manifest, 128 bytes (docs/registers.md). Public.
//         wrapped model key, 56 bytes: AES-256-KWP(owner KEK, DEK | SHA-256(manifest))
//         tag table, 16 p bytes
//         pages, 4096 p bytes of ciphertext, page order
//
// What binds what: the DEK opens only if the wrapped key is intact (KWP); the wrapped key holds the
// manifest's hash; the manifest's model_id is the first 16 bytes of SHA-256(bytes 0..63 | header),
// so it binds every length and the header; tags bind the pages to key, version, region and index.
// A host without the owner key can check all but the last two; the chip checks manifest, wrapped
// key and pages.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "compiler/program.hpp"
#include "lock/keys.hpp"
#include "lock/record.hpp"

namespace latchkey::lock {

inline constexpr std::uint32_t manifest_magic = 0x464d4b4c;  // "LKMF"
inline constexpr std::uint32_t lock_aes_gcm = 1;             // bit 0 of lock_kinds
inline constexpr std::uint32_t licence_ticket = 1;           // bit 0 of licence_flags
using manifest_bytes = std::array<std::uint8_t, 4 * spec::manifest_words>;

/// A manifest as it lies in memory, and back.
manifest_bytes to_bytes(const spec::manifest& m);
spec::manifest manifest_from_bytes(std::span<const std::uint8_t, 4 * spec::manifest_words> b);

struct package {
  bytes header;            ///< JSON, byte for byte as in the file
  compiler::program info;  ///< The header read: no pages, no descriptors
  spec::manifest manifest;
  wrapped_key key{};
  bytes tags;   ///< 16 bytes per page
  bytes pages;  ///< Ciphertext, 4096 bytes per page

  [[nodiscard]] std::uint32_t num_pages() const { return manifest.num_pages; }
  [[nodiscard]] device_id device() const;
  /// The chip loads it under a ticket of its owner only.
  [[nodiscard]] bool needs_ticket() const { return (manifest.licence_flags & licence_ticket) != 0; }
};

struct seal_options {
  std::uint32_t version = 1;  ///< Model version, part of every IV; the chip refuses versions below
                              ///< its minimum. At least 1.
  std::optional<std::uint32_t> slot;   ///< Owner slot to wrap for; the record's first one
  std::optional<std::uint32_t> epoch;  ///< Epoch to wrap for; the record's present one
  bool publish_layers = true;          ///< Leave the table of layers in the public header
  bool needs_ticket = false;           ///< The chip loads it under a ticket of its owner only
};

/// Locks `program` to the device of `record`. The model key is made here, used once and forgotten,
/// so no two packages, not even of the same program, share a key: one IV never meets two pages.
/// Throws latchkey::error: the record holds no root of the slot, or the program is for a build
/// that the record does not list.
package seal(const compiler::program& program, const device_record& record,
             const seal_options& options = {});

/// What a new wrapping changes; what is absent stays.
struct rewrap_options {
  std::optional<std::uint32_t> epoch;  ///< Default: the record's present one
  std::optional<bool> needs_ticket;
};

/// Wraps the package's model key anew: manifest and wrapped key, 184 bytes, change; header, tags
/// and pages stay, and so does the model key. The old wrapping stays valid until the chip's floor
/// for the slot is raised. Returns whether anything changed. Throws latchkey::error: refused when
/// the wrapped key does not open under the record's root or the manifest is not the sealed one,
/// usage when the record has no root of the package's slot, mismatch for another device's record;
/// the package is then unchanged. Write the file with write_package: it is replaced in one step.
bool rewrap(package& p, const device_record& record, const rewrap_options& options,
            const std::string& what);

/// Writes / reads a package. read_package throws latchkey::error (errc::bad_file) naming the file,
/// the part and the offset: truncated, not a package, other format, header changed, parts that
/// contradict each other.
void write_package(const std::string& path, const package& p);
package read_package(const std::string& path);
/// As read_package, on bytes in memory; `name` stands for the file in messages.
package parse_package(byte_view file, const std::string& name);

/// Whether the package is for this chip; throws latchkey::error (errc::mismatch) with the reason:
/// other device, or other build. `what` names the package in messages.
void check_for(const package& p, const device_id& device, std::uint32_t config_id,
               const std::string& what);

/// Opens the package with the owner key and checks everything: wrapped key, manifest hash, every
/// page's tag, and that the descriptors inside agree with the public header. Returns the program.
/// Throws latchkey::error (errc::refused) with the reason: not this key or changed manifest or
/// wrapped key, page n of region r.
compiler::program unseal(const package& p, const key_encryption_key& kek, const std::string& what);
/// As unseal, but only checks.
void verify(const package& p, const key_encryption_key& kek, const std::string& what);

}  // namespace latchkey::lock
