#include "lock/owner.hpp"

#include <openssl/rand.h>

#include <nlohmann/json.hpp>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"
#include "lock/fields.hpp"

namespace latchkey::lock {
namespace {

using nlohmann::json;

constexpr std::uint32_t attest_magic = 0x54414b4c;     // "LKAT"
constexpr std::uint32_t ticket_magic = 0x4b544b4c;     // "LKTK"
constexpr std::uint32_t life_cycle_enrolled = 0x5a69;  // lk_lc_pkg
constexpr const char* answer_kind = "latchkey attestation";
constexpr const char* request_kind = "latchkey ticket request";
constexpr const char* ticket_kind = "latchkey ticket";

json parse(byte_view text, const char* kind, const std::string& name) {
  if (text.empty() || text[0] != '{') bad(name, std::string("not a ") + kind);
  json j = io::parse_json(text, name);
  const auto it = j.find("kind");
  if (it == j.end() || *it != kind) bad(name, std::string("not a ") + kind);
  if (const auto f = j.find("format"); f == j.end() || *f != spec::format_version)
    bad(name,
        "of another format; this version reads format " + std::to_string(spec::format_version));
  return j;
}

std::uint32_t number(const json& j, const char* key, const std::string& name) {
  return static_cast<std::uint32_t>(number_member(j, key, 0xffffffffu, name));
}

std::uint32_t slot_member(const json& j, const std::string& name) {
  return static_cast<std::uint32_t>(number_member(j, "slot", spec::owner_slots - 1, name));
}

void put(bytes& out, byte_view data) { out.insert(out.end(), data.begin(), data.end()); }

std::string dump(const json& j) {
  return j.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

challenge random_challenge() {
  challenge c{};
  if (RAND_bytes(c.data(), static_cast<int>(c.size())) != 1)
    throw error(errc::run_failed, "OpenSSL's random generator has no entropy");
  return c;
}

std::array<std::uint8_t, 32> prove(const attestation& a, const secret<32>& root) {
  bytes m;
  io::put_u32(m, attest_magic);
  io::put_u32(m, spec::format_version);
  put(m, a.asked);
  io::put_u32(m, a.slot);
  put(m, a.device);
  for (const std::uint32_t word : {a.build_version, a.build_hash, a.build_flags, a.config_id,
                                   a.life_cycle, a.min_version, a.version_floor, a.epoch_floor})
    io::put_u32(m, word);
  const secret<32> key = derive_key(root, "attest", static_cast<std::uint8_t>(a.slot), 0);
  return hmac_sha256(key.view(), m);
}

void verify(const attestation& a, const challenge& asked, const device_record& record,
            const std::string& what) {
  const auto refuse = [&](const std::string& why) {
    throw error(errc::refused, what + ": " + why);
  };
  if (a.asked != asked)
    refuse("the answer is to another challenge: it is old, or was replayed. Ask the chip again");
  if (a.device != record.pub.id) {
    refuse("the answer is of device " + io::to_hex(a.device) + ", the record of " +
           io::to_hex(record.pub.id));
  }
  const owner_key* owner = record.find(a.slot);
  if (owner == nullptr) {
    throw error(errc::usage, what + ": the record holds no root of slot " + std::to_string(a.slot) +
                                 "; ask the chip about the record's slot");
  }
  const auto proof = prove(a, owner->root);
  if (CRYPTO_memcmp(proof.data(), a.proof.data(), proof.size()) != 0) {
    refuse(
        "the proof was not made by the chip of this record over these words: a card that is "
        "not the one, or an answer that was changed");
  }
  if (a.life_cycle != life_cycle_enrolled) refuse("the chip is not in the enrolled life cycle");
}

std::string to_text(const attestation& a) {
  return dump({{"kind", answer_kind},
               {"format", spec::format_version},
               {"challenge", io::to_hex(a.asked)},
               {"slot", a.slot},
               {"device_id", io::to_hex(a.device)},
               {"build_version", a.build_version},
               {"build_hash", a.build_hash},
               {"build_flags", a.build_flags},
               {"config_id", a.config_id},
               {"life_cycle", a.life_cycle},
               {"min_version", a.min_version},
               {"version_floor", a.version_floor},
               {"epoch_floor", a.epoch_floor},
               {"proof", io::to_hex(a.proof)}});
}

attestation parse_attestation(byte_view text, const std::string& name) {
  const json j = parse(text, answer_kind, name);
  attestation a;
  a.asked = hex_member<32>(j, "challenge", name);
  a.slot = slot_member(j, name);
  a.device = hex_member<16>(j, "device_id", name);
  a.build_version = number(j, "build_version", name);
  a.build_hash = number(j, "build_hash", name);
  a.build_flags = number(j, "build_flags", name);
  a.config_id = number(j, "config_id", name);
  a.life_cycle = number(j, "life_cycle", name);
  a.min_version = number(j, "min_version", name);
  a.version_floor = number(j, "version_floor", name);
  a.epoch_floor = number(j, "epoch_floor", name);
  a.proof = hex_member<32>(j, "proof", name);
  return a;
}

std::array<std::uint8_t, ticket_bytes> sign(const ticket& t, const ticket_nonce& nonce,
                                            const secret<32>& root) {
  if (t.slot >= spec::owner_slots) throw error(errc::usage, "an owner slot is 0..7");
  bytes m;
  io::put_u32(m, ticket_magic);
  io::put_u32(m, spec::format_version);
  put(m, nonce);
  for (const std::uint32_t word : {t.slot, t.min_version, t.min_epoch, t.runs, t.time, 0u})
    io::put_u32(m, word);
  const secret<32> key = derive_key(root, "ticket", static_cast<std::uint8_t>(t.slot), 0);
  put(m, hmac_sha256(key.view(), m));
  std::array<std::uint8_t, ticket_bytes> out{};
  std::copy(m.begin(), m.end(), out.begin());
  return out;
}

std::string to_text(const ticket_request& r) {
  return dump({{"kind", request_kind},
               {"format", spec::format_version},
               {"device_id", io::to_hex(r.device)},
               {"slot", r.slot},
               {"nonce", io::to_hex(r.nonce)}});
}

ticket_request parse_ticket_request(byte_view text, const std::string& name) {
  const json j = parse(text, request_kind, name);
  ticket_request r;
  r.device = hex_member<16>(j, "device_id", name);
  r.slot = slot_member(j, name);
  r.nonce = hex_member<16>(j, "nonce", name);
  return r;
}

std::string to_text(const std::array<std::uint8_t, ticket_bytes>& words) {
  const auto word = [&](std::size_t i) { return io::get_u32(&words[4 * i]); };
  return dump({{"kind", ticket_kind},
               {"format", spec::format_version},
               {"slot", word(6)},
               {"min_version", word(7)},
               {"min_epoch", word(8)},
               {"runs", word(9)},
               {"time", word(10)},
               {"words", io::to_hex(words)}});
}

std::array<std::uint8_t, ticket_bytes> parse_ticket(byte_view text, const std::string& name) {
  return hex_member<ticket_bytes>(parse(text, ticket_kind, name), "words", name);
}

}  // namespace latchkey::lock
