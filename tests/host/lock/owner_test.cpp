// Attestations and tickets of the host: formats written out byte by byte, and what is refused.
#include "lock/owner.hpp"

#include <gmock/gmock.h>

#include <set>

#include "latchkey/error.hpp"
#include "lock_fixture.hpp"

namespace latchkey::lock {
namespace {

using ::testing::HasSubstr;

bytes words_bytes(std::initializer_list<std::uint32_t> words) {
  bytes out;
  for (const std::uint32_t w : words) io::put_u32(out, w);
  return out;
}

/// What a chip would say, with its proof made from the specification's text.
attestation sample_answer(const device_record& record) {
  attestation a;
  a.asked = random_challenge();
  a.slot = record.keys[0].slot;
  a.device = record.pub.id;
  a.build_version = 0x000102;
  a.build_hash = 0xdeadbeef;
  a.build_flags = 1;
  a.config_id = 0x1234;
  a.life_cycle = 0x5a69;
  a.min_version = 3;
  a.version_floor = 4;
  a.epoch_floor = 5;
  bytes m = words_bytes({0x54414b4c, 1});
  m.insert(m.end(), a.asked.begin(), a.asked.end());
  const bytes slot = words_bytes({a.slot});
  m.insert(m.end(), slot.begin(), slot.end());
  m.insert(m.end(), a.device.begin(), a.device.end());
  const bytes rest = words_bytes({0x000102, 0xdeadbeef, 1, 0x1234, 0x5a69, 3, 4, 5});
  m.insert(m.end(), rest.begin(), rest.end());
  EXPECT_EQ(m.size(), 92u);
  bytes info(33);
  std::copy_n("attest", 6, info.begin());
  info[16] = static_cast<std::uint8_t>(a.slot);
  info[32] = 1;
  a.proof = hmac_sha256(hmac_sha256(record.keys[0].root.view(), info), m);
  return a;
}

bool refused(const attestation& a, const challenge& asked, const device_record& record) {
  try {
    verify(a, asked, record, "answer");
    return false;
  } catch (const error& e) {
    EXPECT_TRUE(e.code() == errc::refused || e.code() == errc::usage) << e.what();
    return true;
  }
}

TEST(Owner, AttestationFollowsTheSpecification) {
  const device_record record = sample_record();
  const attestation a = sample_answer(record);
  EXPECT_EQ(prove(a, record.keys[0].root), a.proof);
  EXPECT_NO_THROW(verify(a, a.asked, record, "answer"));
  const std::string text = to_text(a);
  const attestation back =
      parse_attestation({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}, "a");
  EXPECT_NO_THROW(verify(back, a.asked, record, "answer"));
}

TEST(Owner, EveryWordOfAnAttestationCounts) {
  const device_record record = sample_record();
  const attestation good = sample_answer(record);
  std::uint32_t attestation::* const words[] = {
      &attestation::build_version, &attestation::build_hash,  &attestation::build_flags,
      &attestation::config_id,     &attestation::life_cycle,  &attestation::min_version,
      &attestation::version_floor, &attestation::epoch_floor, &attestation::slot};
  for (const auto word : words) {
    for (int bit = 0; bit < 32; ++bit) {
      attestation a = good;
      a.*word ^= 1u << bit;
      EXPECT_TRUE(refused(a, a.asked, record));
    }
  }
  for (std::size_t i = 0; i < 32; ++i) {
    attestation a = good;
    a.proof[i] ^= static_cast<std::uint8_t>(1u << (i % 8));
    EXPECT_TRUE(refused(a, a.asked, record));
    a = good;
    a.asked[i] ^= 1;
    EXPECT_TRUE(refused(a, a.asked, record)) << "the challenge is not under the proof";
  }
  // Replayed, of another chip, of another slot's owner, of a chip that is not enrolled.
  EXPECT_THAT([&] { verify(good, random_challenge(), record, "answer"); },
              testing::ThrowsMessage<error>(HasSubstr("another challenge")));
  const device_record other = sample_record();
  EXPECT_THAT([&] { verify(good, good.asked, other, "answer"); },
              testing::ThrowsMessage<error>(HasSubstr("is of device")));
  device_record tenant;
  tenant.pub = record.pub;
  tenant.keys.push_back({0, 0, random_kek()});
  EXPECT_TRUE(refused(good, good.asked, tenant));
  attestation open = good;
  open.life_cycle = 0x0240;
  open.proof = prove(open, record.keys[0].root);
  EXPECT_THAT([&] { verify(open, open.asked, record, "answer"); },
              testing::ThrowsMessage<error>(HasSubstr("life cycle")));
}

TEST(Owner, TicketFollowsTheSpecification) {
  const device_record record = sample_record();
  ticket_nonce nonce{};
  for (std::size_t i = 0; i < nonce.size(); ++i) nonce[i] = static_cast<std::uint8_t>(i + 1);
  const auto words = sign({6, 2, 9, 100, 77}, nonce, record.keys[0].root);
  bytes m = words_bytes({0x4b544b4c, 1});
  m.insert(m.end(), nonce.begin(), nonce.end());
  const bytes rest = words_bytes({6, 2, 9, 100, 77, 0});
  m.insert(m.end(), rest.begin(), rest.end());
  bytes info(33);
  std::copy_n("ticket", 6, info.begin());
  info[16] = 6;
  info[32] = 1;
  const auto mac = hmac_sha256(hmac_sha256(record.keys[0].root.view(), info), m);
  m.insert(m.end(), mac.begin(), mac.end());
  EXPECT_EQ(bytes(words.begin(), words.end()), m);
  EXPECT_THROW(sign({8, 0, 0, 1, 1}, nonce, record.keys[0].root), error);

  const std::string text = to_text(words);
  const byte_view view{reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
  EXPECT_EQ(parse_ticket(view, "t"), words);
  EXPECT_THROW(parse_ticket_request(view, "t"), error) << "a ticket is no request";
  for (std::size_t cut = 0; cut + 2 < text.size(); cut += 7) {
    EXPECT_THAT([&] { parse_ticket(view.first(cut), "cut"); },
                testing::Throws<error>(testing::Property(&error::code, errc::bad_file)));
  }
  const ticket_request asked{record.pub.id, 6, nonce};
  const std::string request = to_text(asked);
  const ticket_request back = parse_ticket_request(
      {reinterpret_cast<const std::uint8_t*>(request.data()), request.size()}, "r");
  EXPECT_EQ(back.device, asked.device);
  EXPECT_EQ(back.slot, 6u);
  EXPECT_EQ(back.nonce, nonce);
}

TEST(Owner, TheKeysOfSlotsAndPurposesDiffer) {
  const device_record record = sample_record();
  std::set<bytes> seen;
  const auto fresh = [&](const secret<32>& k) {
    return seen.insert(bytes(k.view().begin(), k.view().end())).second;
  };
  for (std::uint8_t slot = 0; slot < 8; ++slot) {
    const secret<32> root = derive_key(record.keys[0].root, "owner-root", slot, 0);
    EXPECT_TRUE(fresh(root));
    EXPECT_TRUE(fresh(owner_kek(root, slot, 0)));
    EXPECT_TRUE(fresh(owner_kek(root, slot, 1)));
    EXPECT_TRUE(fresh(derive_key(root, "attest", slot, 0)));
    EXPECT_TRUE(fresh(derive_key(root, "ticket", slot, 0)));
  }
}

TEST(Owner, RecordsOfTheFirstFormatAreRefusedWithTheReason) {
  const temp_dir dir;
  write_record(dir.file("a.lkd"), sample_record(), "pass", cheap);
  auto j = nlohmann::json::parse(read_text(dir.file("a.lkd")));
  EXPECT_EQ(j["format"], 2);
  j["format"] = 1;
  std::ofstream(dir.file("old.lkd")) << j.dump();
  EXPECT_THAT([&] { read_record(dir.file("old.lkd"), "pass"); },
              testing::ThrowsMessage<error>(HasSubstr("record format 1")));
  j.erase("secret");  // the public part has not changed
  std::ofstream(dir.file("public.lkd")) << j.dump();
  EXPECT_NO_THROW(read_public_record(dir.file("public.lkd")));
  device_record twice = sample_record();
  twice.keys.push_back({0, 1, random_kek()});
  EXPECT_THROW(write_record(dir.file("b.lkd"), twice, "pass", cheap), error);
  twice.keys[1].slot = 8;
  EXPECT_THROW(write_record(dir.file("b.lkd"), twice, "pass", cheap), error);
}

}  // namespace
}  // namespace latchkey::lock
