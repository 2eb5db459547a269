// Keys of the host side: the type that holds them, the twin of the chip's key ladder, the wrapping
// of model keys and the sealing of pages. All cryptography is OpenSSL's; this file only fixes
// formats. Nothing here prints, logs or writes a key.
//
//   PUF response R (255 bytes), device id
//     -> PRK        = HKDF-Extract-SHA256(salt = device_id | u32 format, IKM = R)      RFC 5869
//     -> helper MAC = HKDF-Expand(PRK, "helper-mac", slot 0, epoch 0)
//     -> owner root = HKDF-Expand(PRK, "owner-root", slot, 0)       leaves the chip at enrolment
//          -> owner KEK       = HKDF-Expand(root, "owner-kek", slot, epoch)
//          -> attestation key = HKDF-Expand(root, "attest", slot, 0)
//          -> ticket key      = HKDF-Expand(root, "ticket", slot, 0)
// Who holds the root of one slot has all keys of that slot, of every epoch, and of no other slot.
//   model key DEK (random, one per package)
//     wrapped key   = AES-256-KWP(KEK, DEK | SHA-256(manifest)), 56 bytes              RFC 5649
//     page          = AES-128-GCM(DEK, IV = version | region | index, no AAD)   NIST SP 800-38D
#pragma once

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <span>
#include <string_view>
#include <vector>

#include "latchkey_spec.hpp"

namespace latchkey::lock {

using bytes = std::vector<std::uint8_t>;
using byte_view = std::span<const std::uint8_t>;
using device_id = std::array<std::uint8_t, 16>;

/// N secret bytes, overwritten when they go out of scope or are moved from. They are copied only by
/// clone(), compared in constant time and cannot be printed.
template <std::size_t N>
class secret {
 public:
  secret() = default;
  explicit secret(std::span<const std::uint8_t, N> value) {
    std::copy(value.begin(), value.end(), data_.begin());
  }
  secret(const secret&) = delete;
  secret& operator=(const secret&) = delete;
  secret(secret&& other) noexcept : data_(other.data_) { other.wipe(); }
  secret& operator=(secret&& other) noexcept {
    if (this != &other) {
      data_ = other.data_;
      other.wipe();
    }
    return *this;
  }
  ~secret() { wipe(); }

  [[nodiscard]] secret clone() const { return secret(std::span<const std::uint8_t, N>(data_)); }
  void wipe() noexcept { OPENSSL_cleanse(data_.data(), N); }
  [[nodiscard]] std::span<const std::uint8_t, N> view() const { return data_; }
  [[nodiscard]] std::span<std::uint8_t, N> writable() { return data_; }

  friend bool operator==(const secret& a, const secret& b) {
    return CRYPTO_memcmp(a.data_.data(), b.data_.data(), N) == 0;
  }
  friend std::ostream& operator<<(std::ostream&, const secret&) = delete;

 private:
  std::array<std::uint8_t, N> data_{};
};

/// A buffer of secret bytes whose length is known only at run time; overwritten on destruction.
/// It never grows, so no freed copy of it stays behind.
class secret_buffer {
 public:
  explicit secret_buffer(std::size_t size) : data_(size) {}
  secret_buffer(secret_buffer&& other) noexcept : data_(std::move(other.data_)) {}
  secret_buffer& operator=(secret_buffer&&) = delete;
  ~secret_buffer() { OPENSSL_cleanse(data_.data(), data_.size()); }
  [[nodiscard]] byte_view view() const { return data_; }
  [[nodiscard]] std::span<std::uint8_t> writable() { return data_; }

 private:
  bytes data_;
};

using key_encryption_key = secret<32>;
using model_key = secret<16>;

/// HKDF of RFC 5869 with SHA-256. hkdf_expand fills `out` (at most 255 * 32 bytes).
secret<32> hkdf_extract(byte_view salt, byte_view ikm);
void hkdf_expand(const secret<32>& prk, byte_view info, std::span<std::uint8_t> out);

/// Bytes of the corrected PUF response.
inline constexpr std::size_t response_bytes = 255;

/// The twin of the chip's ladder: PRK from the response, keys by label.
secret<32> derive_root(const device_id& id, std::span<const std::uint8_t, response_bytes> response);
/// label: at most 16 ASCII characters.
secret<32> derive_key(const secret<32>& root, std::string_view label, std::uint8_t slot,
                      std::uint32_t epoch);
/// The wrapping key of an epoch below the root of an owner slot.
secret<32> owner_kek(const secret<32>& owner_root, std::uint8_t slot, std::uint32_t epoch);
/// HMAC-SHA256 over `data`, for the tag of the helper data.
std::array<std::uint8_t, 32> hmac_sha256(byte_view key, byte_view data);

/// AES-KWP (RFC 5649) with a 16, 24 or 32-byte key.
bytes kwp_wrap(byte_view kek, byte_view plain);
/// Inverse; false, and `plain` untouched, when the wrapped key is not intact under `kek`. Throws
/// latchkey::error only for sizes that no wrapping has. `plain` must have the length wrapped.
bool kwp_unwrap(byte_view kek, byte_view wrapped, std::span<std::uint8_t> plain);

/// A fresh random model key from OpenSSL's generator of private values.
model_key random_model_key();

inline constexpr std::size_t wrapped_key_bytes = 4 * spec::blob_words;
using wrapped_key = std::array<std::uint8_t, wrapped_key_bytes>;
/// The wrapped model key blob: KWP(kek, dek | manifest hash).
wrapped_key wrap_model_key(const key_encryption_key& kek, const model_key& dek,
                           const std::array<std::uint8_t, 32>& manifest_hash);
/// Inverse; false when the blob is not intact under `kek`.
bool unwrap_model_key(const key_encryption_key& kek, const wrapped_key& blob, model_key& dek,
                      std::array<std::uint8_t, 32>& manifest_hash);

/// IV of a page: version u32 | region u16 | index u48, all big-endian.
std::array<std::uint8_t, 12> page_iv(std::uint32_t version, std::uint16_t region,
                                     std::uint64_t index);

/// AES-128-GCM with a 96-bit IV and a 16-byte tag, for many messages under one key.
class page_cipher {
 public:
  explicit page_cipher(const model_key& key);
  ~page_cipher();
  page_cipher(const page_cipher&) = delete;
  page_cipher& operator=(const page_cipher&) = delete;

  /// out.size() == plain.size(); may be the same memory.
  void seal(std::span<const std::uint8_t, 12> iv, byte_view plain, std::span<std::uint8_t> out,
            std::span<std::uint8_t, spec::tag_bytes> tag);
  /// False, and `out` zeroed, when the tag does not match. `out` must not be `sealed` itself.
  bool open(std::span<const std::uint8_t, 12> iv, byte_view sealed,
            std::span<const std::uint8_t, spec::tag_bytes> tag, std::span<std::uint8_t> out);

 private:
  void* encrypt_;  // EVP_CIPHER_CTX, keyed
  void* decrypt_;
};

}  // namespace latchkey::lock
