// OpenSSL as the reference of the lock tests, seeds, and NIST's .rsp files.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "seed.hpp"

namespace latchkey::test {

using Bytes = std::vector<uint8_t>;

/// One AES-128-GCM message; sizes in bytes. `ciphertext` is as long as `plaintext`.
struct GcmMessage {
  Bytes key, iv, aad, plaintext, ciphertext, tag;
};

/// Encrypts `m.plaintext` with OpenSSL and fills `m.ciphertext` and `m.tag` (16 bytes).
void seal(GcmMessage& m);

/// One AES-128 block with OpenSSL.
std::array<uint8_t, 16> aes128_encrypt(const uint8_t* key, const uint8_t* block);

Bytes from_hex(const std::string& hex);

/// One record of a NIST .rsp file: the bracketed settings in force and its own name = value lines.
/// A line "FAIL" becomes the key "FAIL"; a section line "[ENCRYPT]" becomes the key "section".
using NistRecord = std::map<std::string, std::string>;
std::vector<NistRecord> read_rsp(const std::string& path);

Bytes random_bytes(std::mt19937_64& rng, size_t n);

/// Copies bytes into a Verilator wide port (32-bit words, little-endian) and back.
template <class Wide>
void to_wide(Wide& w, const uint8_t* bytes, size_t n) {
  std::memcpy(w.data(), bytes, n);
}
template <class Wide>
Bytes from_wide(const Wide& w, size_t n) {
  Bytes b(n);
  std::memcpy(b.data(), w.data(), n);
  return b;
}

}  // namespace latchkey::test
