#include "lock/record.hpp"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"
#include "lock/fields.hpp"

namespace latchkey::lock {
namespace {

using nlohmann::json;

constexpr const char* kind = "latchkey device record";
constexpr std::uint64_t max_record_bytes = 1u << 20;
constexpr std::size_t key_entry_bytes = 40;
constexpr std::size_t max_keys = spec::owner_slots;
constexpr std::size_t salt_bytes = 16, nonce_bytes = 12, tag_bytes = 16;
// A record that asks for more than this (1 GiB) is an attack on the reader.
constexpr std::uint64_t max_scrypt_memory = 1ull << 30;

std::string base64(byte_view data) {
  std::string out(4 * ((data.size() + 2) / 3) + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<std::uint8_t*>(out.data()), data.data(),
                                static_cast<int>(data.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

bytes from_base64(const std::string& text, const std::string& what) {
  if (text.empty()) return {};
  if (text.size() % 4 != 0) bad(what, "not base64");
  bytes out(text.size() / 4 * 3);
  const int n = EVP_DecodeBlock(out.data(), reinterpret_cast<const std::uint8_t*>(text.data()),
                                static_cast<int>(text.size()));
  if (n < 0) bad(what, "not base64");
  std::size_t pad = 0;
  while (pad < 2 && text[text.size() - 1 - pad] == '=') ++pad;
  out.resize(static_cast<std::size_t>(n) - pad);
  if (base64(out) != text) bad(what, "not canonical base64");
  return out;
}

/// The additional data: the one form in which a public part is authenticated.
std::string compact(const json& j) {
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

json to_json(const public_record& r) {
  return {{"device_id", io::to_hex(r.id)},
          {"name", r.name},
          {"config_ids", r.config_ids},
          {"helper", base64(r.helper)}};
}

public_record public_from_json(const json& j, const std::string& what) {
  if (!j.is_object()) bad(what, "not an object");
  public_record r;
  r.id = hex_member<16>(j, "device_id", what);
  r.name = text_member(j, "name", what);
  r.helper = from_base64(text_member(j, "helper", what), what + ", helper");
  const json& configs = member(j, "config_ids", what);
  if (!configs.is_array()) bad(what, "field 'config_ids' is not a list");
  for (const json& c : configs) {
    if (!c.is_number_unsigned() || c.get<std::uint64_t>() > 0xffffffffu)
      bad(what, "field 'config_ids' holds something that is no configuration");
    r.config_ids.push_back(c.get<std::uint32_t>());
  }
  check(r, what);
  return r;
}

json parse_file(byte_view text, const std::string& name) {
  if (text.empty() || text[0] != '{') bad(name, "not a Latchkey device record");
  json j = io::parse_json(text, name);
  if (const auto it = j.find("kind"); it == j.end() || *it != kind)
    bad(name, "not a Latchkey device record");
  const auto format = number_member(j, "format", 0xffffffffu, name);
  // The public part has been the same ever since.
  if (format != record_format && !(format == 1 && !j.contains("secret"))) {
    bad(name,
        "record format " + std::to_string(format) + "; this version reads format " +
            std::to_string(record_format) +
            (format == 1 ? ": the owner keys of that format open nothing of this version" : ""));
  }
  return j;
}

secret<32> stretch(std::string_view passphrase, byte_view salt, const scrypt_cost& cost,
                   const std::string& what) {
  if (!std::has_single_bit(cost.n) || cost.n < 2 || cost.n > 1u << 24 || cost.r == 0 ||
      cost.r > 64 || cost.p == 0 || cost.p > 16 || 128 * cost.n * cost.r > max_scrypt_memory)
    bad(what, "scrypt parameters out of range");
  secret<32> key;
  // maxmem: the memory itself and scrypt's few extra blocks.
  if (EVP_PBE_scrypt(passphrase.data(), passphrase.size(), salt.data(), salt.size(), cost.n, cost.r,
                     cost.p, max_scrypt_memory + (1u << 20), key.writable().data(),
                     key.view().size()) != 1)
    throw error(errc::run_failed, what + ": scrypt failed; is there enough memory?");
  return key;
}

using context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

/// AES-256-GCM in either direction; false when opening and the tag does not match.
bool gcm256(bool encrypt, const secret<32>& key, byte_view nonce, byte_view aad, byte_view in,
            std::span<std::uint8_t> out, std::span<std::uint8_t, tag_bytes> tag) {
  const context ctx(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  int n = 0;
  std::uint8_t tail[16];
  if (!ctx ||
      EVP_CipherInit_ex(ctx.get(), EVP_aes_256_gcm(), nullptr, key.view().data(), nonce.data(),
                        encrypt ? 1 : 0) != 1 ||
      EVP_CipherUpdate(ctx.get(), nullptr, &n, aad.data(), static_cast<int>(aad.size())) != 1 ||
      EVP_CipherUpdate(ctx.get(), out.data(), &n, in.data(), static_cast<int>(in.size())) != 1)
    throw error(errc::run_failed, "AES-256-GCM failed in OpenSSL");
  if (!encrypt) {
    EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_GCM_SET_TAG, tag_bytes, tag.data());
    return EVP_CipherFinal_ex(ctx.get(), tail, &n) == 1;
  }
  if (EVP_CipherFinal_ex(ctx.get(), tail, &n) != 1 ||
      EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_GCM_GET_TAG, tag_bytes, tag.data()) != 1)
    throw error(errc::run_failed, "AES-256-GCM failed in OpenSSL");
  return true;
}

void put_u32(std::uint8_t* p, std::uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<std::uint8_t>(v >> (8 * i));
}

}  // namespace

const owner_key* device_record::find(std::uint32_t slot) const {
  for (const owner_key& k : keys)
    if (k.slot == slot) return &k;
  return nullptr;
}

const owner_key& device_record::at(std::optional<std::uint32_t> slot,
                                   const std::string& what) const {
  const owner_key* k = slot ? find(*slot) : keys.empty() ? nullptr : &keys.front();
  if (k == nullptr) {
    throw error(errc::usage, what + ": holds no owner key" +
                                 (slot ? " of slot " + std::to_string(*slot) : "") +
                                 "; a slot's owner has a record of its own");
  }
  return *k;
}

void check(const public_record& r, const std::string& what) {
  if (r.helper.size() != helper_bytes) {
    bad(what, "the helper data has " + std::to_string(r.helper.size()) + " bytes, not " +
                  std::to_string(helper_bytes));
  }
  if (std::memcmp(r.helper.data(), "LKHD", 4) != 0)
    bad(what, "the helper data does not begin with 'LKHD'");
  if (const auto f = io::get_u32(&r.helper[4]); f != spec::format_version)
    bad(what, "helper data format " + std::to_string(f) + " is not " +
                  std::to_string(spec::format_version));
  if (!std::equal(r.id.begin(), r.id.end(), r.helper.begin() + 8))
    bad(what, "the helper data is of another device than device_id says");
}

void write_record(const std::string& path, const device_record& record, std::string_view passphrase,
                  const scrypt_cost& cost) {
  if (passphrase.empty())
    throw error(errc::usage, path + ": an empty passphrase would leave the owner key in the open");
  if (record.keys.empty() || record.keys.size() > max_keys)
    throw error(errc::usage, path + ": a record holds 1.." + std::to_string(max_keys) +
                                 " owner keys; use a public record for none");
  for (const owner_key& k : record.keys) {
    if (k.slot >= spec::owner_slots || record.find(k.slot) != &k)
      throw error(errc::usage, path + ": an owner slot is 0..7, and each is there once");
  }
  check(record.pub, path);

  bytes random(salt_bytes + nonce_bytes);
  if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1)
    throw error(errc::run_failed, "OpenSSL's random generator has no entropy");
  const byte_view salt = byte_view(random).first(salt_bytes);
  const byte_view nonce = byte_view(random).subspan(salt_bytes);

  secret_buffer plain(4 + key_entry_bytes * record.keys.size());
  std::uint8_t* out = plain.writable().data();
  put_u32(out, static_cast<std::uint32_t>(record.keys.size()));
  out += 4;
  for (const owner_key& k : record.keys) {
    put_u32(out, k.slot);
    put_u32(out + 4, k.epoch);
    std::copy(k.root.view().begin(), k.root.view().end(), out + 8);
    out += key_entry_bytes;
  }
  const json pub = to_json(record.pub);
  const std::string aad = compact(pub);
  bytes sealed(plain.view().size());
  std::array<std::uint8_t, tag_bytes> tag{};
  gcm256(true, stretch(passphrase, salt, cost, path), nonce, io::as_bytes(aad), plain.view(),
         sealed, tag);

  const json j = {{"kind", kind},
                  {"format", record_format},
                  {"public", pub},
                  {"secret",
                   {{"kdf", "scrypt"},
                    {"n", cost.n},
                    {"r", cost.r},
                    {"p", cost.p},
                    {"salt", io::to_hex(salt)},
                    {"cipher", "aes-256-gcm"},
                    {"nonce", io::to_hex(nonce)},
                    {"data", base64(sealed)},
                    {"tag", io::to_hex(tag)}}}};
  const std::string text = j.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  io::write_file(path, {io::as_bytes(text)}, 0600);
}

void write_public_record(const std::string& path, const public_record& record) {
  check(record, path);
  const json j = {{"kind", kind}, {"format", record_format}, {"public", to_json(record)}};
  const std::string text = j.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  io::write_file(path, {io::as_bytes(text)});
}

public_record parse_public_record(byte_view text, const std::string& name) {
  const json j = parse_file(text, name);
  return public_from_json(member(j, "public", name), name + ", public part");
}

device_record parse_record(byte_view text, const std::string& name, std::string_view passphrase) {
  const json j = parse_file(text, name);
  device_record record;
  record.pub = public_from_json(member(j, "public", name), name + ", public part");
  const std::string where = name + ", secret part";
  const auto it = j.find("secret");
  if (it == j.end()) {
    bad(name, "a public record without owner keys; use the record that enrolment wrote");
  }
  if (!it->is_object()) bad(where, "not an object");
  if (text_member(*it, "kdf", where) != "scrypt" ||
      text_member(*it, "cipher", where) != "aes-256-gcm")
    bad(where, "encrypted in a way that this version does not know");
  const scrypt_cost cost{number_member(*it, "n", 1u << 24, where),
                         number_member(*it, "r", 64, where), number_member(*it, "p", 16, where)};
  const bytes salt = io::from_hex(text_member(*it, "salt", where), where + ", salt");
  const bytes nonce = io::from_hex(text_member(*it, "nonce", where), where + ", nonce");
  const bytes tag_text = io::from_hex(text_member(*it, "tag", where), where + ", tag");
  const bytes sealed = from_base64(text_member(*it, "data", where), where + ", data");
  if (salt.size() != salt_bytes || nonce.size() != nonce_bytes || tag_text.size() != tag_bytes)
    bad(where, "salt, nonce or tag has the wrong length");
  if (sealed.size() < 4 + key_entry_bytes || (sealed.size() - 4) % key_entry_bytes != 0 ||
      (sealed.size() - 4) / key_entry_bytes > max_keys)
    bad(where, "its data has a length that no set of keys has");
  std::array<std::uint8_t, tag_bytes> tag{};
  std::copy(tag_text.begin(), tag_text.end(), tag.begin());
  const std::string aad = compact(member(j, "public", name));
  secret_buffer plain(sealed.size());
  if (passphrase.empty() || !gcm256(false, stretch(passphrase, salt, cost, where), nonce,
                                    io::as_bytes(aad), sealed, plain.writable(), tag)) {
    throw error(errc::refused,
                name + ": wrong passphrase, or the record was changed; the owner keys stay closed");
  }
  const std::uint8_t* p = plain.view().data();
  if (io::get_u32(p) != (sealed.size() - 4) / key_entry_bytes)
    bad(where, "the count of keys is wrong");
  p += 4;
  for (std::size_t i = 0; i < (sealed.size() - 4) / key_entry_bytes; ++i, p += key_entry_bytes) {
    if (io::get_u32(p) >= spec::owner_slots || record.find(io::get_u32(p)) != nullptr)
      bad(where, "a slot above 7, or twice the same");
    record.keys.push_back({io::get_u32(p), io::get_u32(p + 4),
                           secret<32>(std::span<const std::uint8_t, 32>(p + 8, 32))});
  }
  return record;
}

public_record read_public_record(const std::string& path) {
  return parse_public_record(io::read_file(path, max_record_bytes), path);
}

device_record read_record(const std::string& path, std::string_view passphrase) {
  return parse_record(io::read_file(path, max_record_bytes), path, passphrase);
}

}  // namespace latchkey::lock
