#include "lock/keys.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <cstring>
#include <memory>
#include <string>

#include "latchkey/error.hpp"

namespace latchkey::lock {
namespace {

[[noreturn]] void openssl_failed(const char* what) {
  throw error(errc::run_failed, std::string("OpenSSL failed: ") + what);
}

using context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

context new_context() {
  context ctx(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  if (!ctx) openssl_failed("no cipher context");
  return ctx;
}

const EVP_CIPHER* wrap_cipher(std::size_t key_bytes) {
  switch (key_bytes) {
    case 16:
      return EVP_aes_128_wrap_pad();
    case 24:
      return EVP_aes_192_wrap_pad();
    case 32:
      return EVP_aes_256_wrap_pad();
    default:
      throw error(errc::usage, "an AES key-wrapping key of " + std::to_string(key_bytes) +
                                   " bytes; 16, 24 or 32 are possible");
  }
}

int to_int(std::size_t n) {
  if (n > 1u << 30) throw error(errc::usage, "a message of more than 1 GiB for a cipher");
  return static_cast<int>(n);
}

void put_u32(std::uint8_t* out, std::uint32_t v) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(v >> (8 * i));
}

EVP_CIPHER_CTX* cast(void* ctx) { return static_cast<EVP_CIPHER_CTX*>(ctx); }

}  // namespace

std::array<std::uint8_t, 32> hmac_sha256(byte_view key, byte_view data) {
  std::array<std::uint8_t, 32> mac{};
  unsigned length = 0;
  static constexpr std::uint8_t none = 0;  // OpenSSL takes a null key for "the last one"
  if (HMAC(EVP_sha256(), key.empty() ? &none : key.data(), to_int(key.size()),
           data.empty() ? &none : data.data(), data.size(), mac.data(), &length) == nullptr ||
      length != mac.size())
    openssl_failed("HMAC-SHA256");
  return mac;
}

secret<32> hkdf_extract(byte_view salt, byte_view ikm) {
  auto mac = hmac_sha256(salt, ikm);
  secret<32> prk{std::span<const std::uint8_t, 32>(mac)};
  OPENSSL_cleanse(mac.data(), mac.size());
  return prk;
}

void hkdf_expand(const secret<32>& prk, byte_view info, std::span<std::uint8_t> out) {
  if (out.size() > 255 * 32) throw error(errc::usage, "HKDF cannot expand to more than 8160 bytes");
  secret_buffer block(32 + info.size() + 1);  // T(i-1) | info | i, T(0) empty
  std::copy(info.begin(), info.end(), block.writable().begin() + 32);
  std::size_t done = 0;
  for (std::uint8_t i = 1; done < out.size(); ++i) {
    block.writable().back() = i;
    auto t = hmac_sha256(prk.view(), i == 1 ? block.view().subspan(32) : block.view());
    const std::size_t n = std::min<std::size_t>(32, out.size() - done);
    std::copy_n(t.begin(), n, out.begin() + done);
    std::copy(t.begin(), t.end(), block.writable().begin());
    OPENSSL_cleanse(t.data(), t.size());
    done += n;
  }
}

secret<32> derive_root(const device_id& id,
                       std::span<const std::uint8_t, response_bytes> response) {
  std::array<std::uint8_t, 20> salt{};
  std::copy(id.begin(), id.end(), salt.begin());
  put_u32(&salt[16], spec::format_version);
  return hkdf_extract(salt, response);
}

secret<32> derive_key(const secret<32>& root, std::string_view label, std::uint8_t slot,
                      std::uint32_t epoch) {
  if (label.size() > 16) throw error(errc::usage, "a key label of more than 16 characters");
  std::array<std::uint8_t, 32> info{};
  std::copy(label.begin(), label.end(), info.begin());
  info[16] = slot;
  put_u32(&info[20], epoch);
  secret<32> key;
  hkdf_expand(root, info, key.writable());
  return key;
}

secret<32> owner_kek(const secret<32>& owner_root, std::uint8_t slot, std::uint32_t epoch) {
  return derive_key(owner_root, "owner-kek", slot, epoch);
}

bytes kwp_wrap(byte_view kek, byte_view plain) {
  const EVP_CIPHER* cipher = wrap_cipher(kek.size());
  if (plain.empty()) throw error(errc::usage, "nothing to wrap");
  const context ctx = new_context();
  EVP_CIPHER_CTX_set_flags(ctx.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  bytes out((plain.size() + 7) / 8 * 8 + 8);
  int n = 0;
  if (EVP_EncryptInit_ex(ctx.get(), cipher, nullptr, kek.data(), nullptr) != 1 ||
      EVP_EncryptUpdate(ctx.get(), out.data(), &n, plain.data(), to_int(plain.size())) != 1 ||
      static_cast<std::size_t>(n) != out.size())
    openssl_failed("AES key wrap");
  return out;
}

bool kwp_unwrap(byte_view kek, byte_view wrapped, std::span<std::uint8_t> plain) {
  const EVP_CIPHER* cipher = wrap_cipher(kek.size());
  if (wrapped.size() < 16 || wrapped.size() % 8 != 0)
    throw error(errc::usage, "a wrapped key of " + std::to_string(wrapped.size()) +
                                 " bytes; a multiple of 8 from 16 on is possible");
  const context ctx = new_context();
  EVP_CIPHER_CTX_set_flags(ctx.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  if (EVP_DecryptInit_ex(ctx.get(), cipher, nullptr, kek.data(), nullptr) != 1)
    openssl_failed("AES key unwrap");
  secret_buffer out(wrapped.size());
  int n = 0;
  if (EVP_DecryptUpdate(ctx.get(), out.writable().data(), &n, wrapped.data(),
                        to_int(wrapped.size())) != 1 ||
      n < 0 || static_cast<std::size_t>(n) != plain.size())
    return false;
  std::copy_n(out.view().begin(), plain.size(), plain.begin());
  return true;
}

model_key random_model_key() {
  model_key key;
  if (RAND_priv_bytes(key.writable().data(), static_cast<int>(key.view().size())) != 1)
    openssl_failed("the random generator has no entropy");
  return key;
}

wrapped_key wrap_model_key(const key_encryption_key& kek, const model_key& dek,
                           const std::array<std::uint8_t, 32>& manifest_hash) {
  secret<48> plain;
  std::copy(dek.view().begin(), dek.view().end(), plain.writable().begin());
  std::copy(manifest_hash.begin(), manifest_hash.end(), plain.writable().begin() + 16);
  const bytes blob = kwp_wrap(kek.view(), plain.view());
  wrapped_key out{};
  if (blob.size() != out.size()) openssl_failed("AES key wrap gave another length");
  std::copy(blob.begin(), blob.end(), out.begin());
  return out;
}

bool unwrap_model_key(const key_encryption_key& kek, const wrapped_key& blob, model_key& dek,
                      std::array<std::uint8_t, 32>& manifest_hash) {
  secret<48> plain;
  if (!kwp_unwrap(kek.view(), blob, plain.writable())) return false;
  dek = model_key(plain.view().first<16>());
  std::copy_n(plain.view().begin() + 16, 32, manifest_hash.begin());
  return true;
}

std::array<std::uint8_t, 12> page_iv(std::uint32_t version, std::uint16_t region,
                                     std::uint64_t index) {
  if (index >> 48 != 0) throw error(errc::usage, "a page index above 48 bits");
  std::array<std::uint8_t, 12> iv{};
  for (unsigned i = 0; i < 4; ++i) iv[i] = static_cast<std::uint8_t>(version >> (24 - 8 * i));
  for (unsigned i = 0; i < 2; ++i) iv[4 + i] = static_cast<std::uint8_t>(region >> (8 - 8 * i));
  for (unsigned i = 0; i < 6; ++i) iv[6 + i] = static_cast<std::uint8_t>(index >> (40 - 8 * i));
  return iv;
}

page_cipher::page_cipher(const model_key& key) : encrypt_(nullptr), decrypt_(nullptr) {
  // 96 bits are EVP_aes_128_gcm's default IV length.
  context encrypt = new_context();
  context decrypt = new_context();
  if (EVP_EncryptInit_ex(encrypt.get(), EVP_aes_128_gcm(), nullptr, key.view().data(), nullptr) !=
          1 ||
      EVP_DecryptInit_ex(decrypt.get(), EVP_aes_128_gcm(), nullptr, key.view().data(), nullptr) !=
          1)
    openssl_failed("AES-128-GCM key set-up");
  encrypt_ = encrypt.release();
  decrypt_ = decrypt.release();
}

page_cipher::~page_cipher() {  // EVP_CIPHER_CTX_free overwrites the key schedule
  EVP_CIPHER_CTX_free(cast(encrypt_));
  EVP_CIPHER_CTX_free(cast(decrypt_));
}

void page_cipher::seal(std::span<const std::uint8_t, 12> iv, byte_view plain,
                       std::span<std::uint8_t> out, std::span<std::uint8_t, spec::tag_bytes> tag) {
  if (out.size() != plain.size()) throw error(errc::usage, "sealing into another length");
  EVP_CIPHER_CTX* ctx = cast(encrypt_);
  int n = 0, rest = 0;
  std::uint8_t tail[16];  // GCM has no final block, but OpenSSL wants a place for one
  if (EVP_EncryptInit_ex(ctx, nullptr, nullptr, nullptr, iv.data()) != 1 ||
      (!plain.empty() &&
       EVP_EncryptUpdate(ctx, out.data(), &n, plain.data(), to_int(plain.size())) != 1) ||
      EVP_EncryptFinal_ex(ctx, tail, &rest) != 1 ||
      static_cast<std::size_t>(n + rest) != plain.size() ||
      EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, spec::tag_bytes, tag.data()) != 1)
    openssl_failed("AES-128-GCM seal");
}

bool page_cipher::open(std::span<const std::uint8_t, 12> iv, byte_view sealed,
                       std::span<const std::uint8_t, spec::tag_bytes> tag,
                       std::span<std::uint8_t> out) {
  if (out.size() != sealed.size()) throw error(errc::usage, "opening into another length");
  EVP_CIPHER_CTX* ctx = cast(decrypt_);
  std::array<std::uint8_t, spec::tag_bytes> t{};
  std::copy(tag.begin(), tag.end(), t.begin());
  int n = 0, rest = 0;
  std::uint8_t tail[16];
  if (EVP_DecryptInit_ex(ctx, nullptr, nullptr, nullptr, iv.data()) != 1 ||
      (!sealed.empty() &&
       EVP_DecryptUpdate(ctx, out.data(), &n, sealed.data(), to_int(sealed.size())) != 1) ||
      EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, spec::tag_bytes, t.data()) != 1)
    openssl_failed("AES-128-GCM open");
  if (EVP_DecryptFinal_ex(ctx, tail, &rest) == 1) return true;
  OPENSSL_cleanse(out.data(), out.size());
  return false;
}

}  // namespace latchkey::lock
