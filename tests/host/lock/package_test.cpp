// Packages: round trip, that every byte is authenticated, and that refusals say why.
#include "lock/package.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "latchkey/error.hpp"
#include "lock_fixture.hpp"

namespace latchkey::lock {
namespace {

using ::testing::HasSubstr;
using ::testing::Property;
using ::testing::Throws;
using ::testing::ThrowsMessage;

struct sealed_file {
  device_record record = sample_record();
  compiler::program program = sample_program();
  package sealed = seal(program, record, {7, 0, 0, true});
  bytes file;
  std::size_t header = 0;

  sealed_file() {
    const temp_dir dir;
    write_package(dir.file("p.lkx"), sealed);
    file = io::read_file(dir.file("p.lkx"));
    header = sealed.header.size();
  }
  std::size_t manifest_at() const { return 64 + header; }
  std::size_t key_at() const { return manifest_at() + 128; }
  std::size_t tags_at() const { return key_at() + 56; }
  std::size_t pages_at() const { return tags_at() + 16 * 3; }
};

/// Parses and verifies; true when something was refused, always with a latchkey::error that names
/// the file.
bool refused(const bytes& file, const key_encryption_key& kek) {
  try {
    verify(parse_package(file, "p.lkx"), kek, "p.lkx");
    return false;
  } catch (const error& e) {
    EXPECT_THAT(e.what(), HasSubstr("p.lkx"));
    return true;
  }
}

TEST(Package, RoundTrip) {
  const sealed_file s;
  EXPECT_EQ(s.file.size(), s.pages_at() + 3 * 4096);
  const package p = parse_package(s.file, "p.lkx");
  EXPECT_EQ(p.device(), s.record.pub.id);
  EXPECT_EQ(p.manifest.version, 7u);
  EXPECT_EQ(p.manifest.num_pages, 3u);
  EXPECT_EQ(p.manifest.num_descs, 4u);
  EXPECT_EQ(p.manifest.max_batch, 4u);
  EXPECT_EQ(p.manifest.config_id, spec::config_id(16, 64));
  EXPECT_EQ(p.info.name, "sample");
  EXPECT_EQ(p.info.input, s.program.input);
  EXPECT_EQ(p.info.output, s.program.output);
  EXPECT_EQ(p.info.layers, s.program.layers);
  const compiler::program back = unseal(p, s.record.keys[0].kek(), "p.lkx");
  EXPECT_EQ(back.pages, s.program.pages);
  EXPECT_EQ(back.regions, s.program.regions);
  EXPECT_NO_THROW(verify(p, s.record.keys[0].kek(), "p.lkx"));
  EXPECT_NO_THROW(check_for(p, s.record.pub.id, spec::config_id(16, 64), "p.lkx"));
}

TEST(Package, ManifestLiesAsTheChipReadsIt) {
  const sealed_file s;
  const std::uint8_t* m = &s.file[s.manifest_at()];
  EXPECT_EQ(std::memcmp(m, "LKMF\x01\0\0\0", 8), 0);
  const auto digest = io::sha256({byte_view(s.file).first(64 + s.header)});
  EXPECT_EQ(std::memcmp(m + 8, digest.data(), 16), 0);
  EXPECT_EQ(m[24], 7);
  EXPECT_EQ(std::memcmp(m + 32, s.record.pub.id.data(), 16), 0);
  EXPECT_EQ(m[48], 3);
  EXPECT_EQ(m[52], 1);
  EXPECT_EQ(m[56], 4);
  EXPECT_EQ(m[60], 1);
  EXPECT_EQ(m[72], 4);
  EXPECT_EQ(m[88], 1);
  EXPECT_EQ(m[92], 1);
  for (int i = 96; i < 128; ++i) EXPECT_EQ(m[i], 0);
  // The wrapped key opens to DEK | SHA-256(manifest).
  bytes plain(48);
  ASSERT_TRUE(
      kwp_unwrap(s.record.keys[0].kek().view(), byte_view(s.file).subspan(s.key_at(), 56), plain));
  const auto hash = io::sha256({byte_view(s.file).subspan(s.manifest_at(), 128)});
  EXPECT_TRUE(std::equal(hash.begin(), hash.end(), plain.begin() + 16));
}

TEST(Package, EveryBitOutsideThePagesIsAuthenticated) {
  const sealed_file s;
  ASSERT_FALSE(refused(s.file, s.record.keys[0].kek()));
  bytes file = s.file;
  for (std::size_t bit = 0; bit < 8 * s.pages_at(); ++bit) {
    file[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    ASSERT_TRUE(refused(file, s.record.keys[0].kek())) << "byte " << bit / 8 << " bit " << bit % 8;
    file[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
  }
}

TEST(Package, EveryBitOfThePagesIsAuthenticated) {
  const sealed_file s;
  // Reading treats pages as opaque (RoundTrip checks that they arrive); flip them after it.
  package p = parse_package(s.file, "p.lkx");
  for (std::size_t bit = 0; bit < 8 * p.pages.size(); ++bit) {
    p.pages[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    try {
      verify(p, s.record.keys[0].kek(), "p.lkx");
      FAIL() << "byte " << bit / 8 << " bit " << bit % 8;
    } catch (const error& e) {
      ASSERT_EQ(e.code(), errc::refused);
      ASSERT_THAT(e.what(), HasSubstr("page " + std::to_string(bit / 8 / 4096) + " "));
    }
    p.pages[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
  }
  EXPECT_NO_THROW(verify(p, s.record.keys[0].kek(), "p.lkx"));
}

TEST(Package, EveryTruncationIsRefused) {
  const sealed_file s;
  for (std::size_t n = 0; n < s.file.size(); ++n) {
    const byte_view part = byte_view(s.file).first(n);
    ASSERT_THAT([&] { parse_package(part, "p.lkx"); },
                Throws<error>(Property(&error::code, errc::bad_file)))
        << n;
    ASSERT_THAT([&] { parse_package(part, "p.lkx"); },
                ThrowsMessage<error>(testing::AllOf(HasSubstr("p.lkx"), HasSubstr("truncated"),
                                                    HasSubstr("offset"))))
        << n;
  }
  bytes longer = s.file;
  longer.push_back(0);
  EXPECT_THAT([&] { parse_package(longer, "p.lkx"); }, ThrowsMessage<error>(HasSubstr("follow")));
}

TEST(Package, RefusalsSayWhy) {
  const sealed_file s;
  const auto change = [&](std::size_t at, std::uint8_t value) {
    bytes f = s.file;
    f.at(at) = value;
    return f;
  };
  const auto parse = [](const bytes& f) { parse_package(f, "p.lkx"); };
  EXPECT_THAT([&] { parse(change(0, 'X')); }, ThrowsMessage<error>(HasSubstr("LKXP")));
  EXPECT_THAT([&] { parse(change(4, 9)); }, ThrowsMessage<error>(HasSubstr("format 9")));
  EXPECT_THAT([&] { parse(change(14, 9)); }, ThrowsMessage<error>(HasSubstr("absurd header")));
  EXPECT_THAT([&] { parse(change(23, 0xff)); }, ThrowsMessage<error>(HasSubstr("absurd number")));
  EXPECT_THAT([&] { parse(change(25, 0x77)); }, ThrowsMessage<error>(HasSubstr("add up")));
  EXPECT_THAT([&] { parse(change(40, 1)); }, ThrowsMessage<error>(HasSubstr("reserved")));
  EXPECT_THAT([&] { parse(change(70, '!')); }, ThrowsMessage<error>(HasSubstr("model_id")));
  EXPECT_THAT([&] { parse(change(s.manifest_at(), 'X')); },
              ThrowsMessage<error>(HasSubstr("LKMF")));
  const auto descs = [&](std::uint32_t n) {
    bytes f = change(s.manifest_at() + 56, static_cast<std::uint8_t>(n));
    f.at(s.manifest_at() + 57) = static_cast<std::uint8_t>(n >> 8);
    return f;
  };
  EXPECT_THAT([&] { parse(descs(513)); },
              ThrowsMessage<error>(HasSubstr("num_descs is 513; a chip takes 2 to 512")));
  EXPECT_THAT([&] { parse(descs(512)); },
              ThrowsMessage<error>(HasSubstr("desc_pages is 1, expected 16")));

  device_id other = s.record.pub.id;
  other[0] ^= 1;
  EXPECT_THAT([&] { check_for(s.sealed, other, s.sealed.manifest.config_id, "p.lkx"); },
              Throws<error>(Property(&error::code, errc::mismatch)));
  EXPECT_THAT([&] { check_for(s.sealed, other, s.sealed.manifest.config_id, "p.lkx"); },
              ThrowsMessage<error>(testing::AllOf(HasSubstr(io::to_hex(other)),
                                                  HasSubstr(io::to_hex(s.record.pub.id)))));
  EXPECT_THAT([&] { check_for(s.sealed, s.record.pub.id, 1, "p.lkx"); },
              ThrowsMessage<error>(HasSubstr("0x00000001")));

  EXPECT_THAT([&] { verify(s.sealed, random_kek(), "p.lkx"); },
              ThrowsMessage<error>(HasSubstr("wrapped key does not open")));
}

TEST(Package, SplicedPartsAreRefused) {
  const device_record record = sample_record();
  const compiler::program program = sample_program();
  const package a = seal(program, record, {1, 0, 0, true});
  const package b = seal(program, record, {1, 0, 0, true});
  const auto kek = record.keys[0].kek();
  const auto expect_refused = [&](const package& p, const char* reason) {
    EXPECT_THAT([&] { verify(p, kek, "p"); }, ThrowsMessage<error>(HasSubstr(reason)));
  };
  package p = a;
  p.pages = b.pages;
  expect_refused(p, "page 0");
  p = a;
  p.key = b.key;  // same manifest, so the wrapped key opens, and the pages then do not
  expect_refused(p, "page 0");
  p = a;
  std::swap_ranges(p.pages.begin() + 4096, p.pages.begin() + 8192, p.pages.begin() + 8192);
  std::swap_ranges(p.tags.begin() + 16, p.tags.begin() + 32, p.tags.begin() + 32);
  expect_refused(p, "page 1");
  p = a;
  p.manifest.version = 2;
  expect_refused(p, "manifest");
  p = a;
  p.header.back() = ' ';
  expect_refused(p, "header");
}

TEST(Package, NoTwoPackagesShareAKey) {
  const device_record record = sample_record();
  const compiler::program program = sample_program();
  std::set<bytes> keys, first_pages;
  for (int i = 0; i < 20; ++i) {
    const package p = seal(program, record, {1, 0, 0, true});
    model_key dek;
    std::array<std::uint8_t, 32> bound{};
    ASSERT_TRUE(unwrap_model_key(record.keys[0].kek(), p.key, dek, bound));
    keys.insert(bytes(dek.view().begin(), dek.view().end()));
    first_pages.insert(bytes(p.pages.begin(), p.pages.begin() + 4096));
  }
  EXPECT_EQ(keys.size(), 20u);
  EXPECT_EQ(first_pages.size(), 20u);
}

TEST(Package, NeitherKeysNorWeightsLieInTheFile) {
  const sealed_file s;
  const std::string text(s.file.begin(), s.file.end());
  expect_no_trace(text, s.record.keys[0].kek().view(), "the owner key");
  model_key dek;
  std::array<std::uint8_t, 32> bound{};
  ASSERT_TRUE(unwrap_model_key(s.record.keys[0].kek(), s.sealed.key, dek, bound));
  expect_no_trace(text, dek.view(), "the model key");
  for (std::size_t at = 4096; at + 16 <= s.program.pages.size(); at += 16) {
    EXPECT_EQ(text.find(std::string(&s.program.pages[at], &s.program.pages[at] + 16)),
              std::string::npos)
        << "plaintext of byte " << at << " of the pages";
  }
}

// The convolution's result goes to the spill area and back before the output takes it.
TEST(Package, SpillPagesLieInTheManifest) {
  const device_record record = sample_record();
  compiler::program program = sample_program();
  spec::descriptor spill, load;
  spill.op = static_cast<std::uint32_t>(spec::op::spill);
  load.op = static_cast<std::uint32_t>(spec::op::load);
  load.spilled = 1;
  spill.in_base = load.out_base = 4;
  spill.in_stride = load.out_stride = 1;
  spill.in_h = spill.in_w = load.out_h = load.out_w = 2;
  spill.in_cb = load.out_cb = 1;
  spill.in_cp_log2 = load.out_cp_log2 = 2;
  spill.in_c_last = load.out_c_last = 3;
  spill.spill_page = load.spill_page = 2;
  program.descriptors.insert(program.descriptors.begin() + 2, {spill, load});
  program.layers.insert(program.layers.begin() + 2,
                        {{"y", "spill", {3, 2, 2}}, {"y", "load", {3, 2, 2}}});
  for (std::size_t i = 0; i < program.descriptors.size(); ++i) {
    const auto words = program.descriptors[i].pack();
    for (std::size_t b = 0; b < 4 * words.size(); ++b)
      program.pages[128 * i + b] = static_cast<std::uint8_t>(words[b / 4] >> (8 * (b % 4)));
  }
  EXPECT_THAT([&] { seal(program, record); }, ThrowsMessage<error>(HasSubstr("spill area")));
  program.spill_pages = 3;
  package p = seal(program, record);
  EXPECT_EQ(p.manifest.spill_pages, 3u);
  EXPECT_EQ(to_bytes(p.manifest)[96], 3);
  const auto kek = record.keys[0].kek();
  EXPECT_EQ(unseal(p, kek, "p").spill_pages, 3u);
  // The manifest names what the header does, and the header what the descriptors need.
  p.info.spill_pages = 4;
  EXPECT_THAT([&] { unseal(p, kek, "p"); },
              ThrowsMessage<error>(HasSubstr("spill_pages is 3, expected 4")));
}

TEST(Package, LayersCanBeWithheld) {
  const device_record record = sample_record();
  const package p = seal(sample_program(), record, {1, 0, 0, false});
  EXPECT_EQ(std::string(p.header.begin(), p.header.end()).find("conv"), std::string::npos);
  const temp_dir dir;
  write_package(dir.file("p.lkx"), p);
  EXPECT_NO_THROW(verify(read_package(dir.file("p.lkx")), record.keys[0].kek(), "p"));
}

TEST(Package, SealRefusesWhatItCannotHonour) {
  device_record record = sample_record();
  const compiler::program program = sample_program();
  EXPECT_THAT([&] { seal(program, record, {1, 2, 3, true}); },
              ThrowsMessage<error>(HasSubstr("slot 2")));
  EXPECT_THROW(seal(program, record, {0, 0, 0, true}), error);
  record.pub.config_ids = {spec::config_id(64, 65536)};
  EXPECT_THAT([&] { seal(program, record, {1, 0, 0, true}); },
              Throws<error>(Property(&error::code, errc::mismatch)));
  record.pub.config_ids.push_back(program.target.config_id());
  EXPECT_NO_THROW(seal(program, record, {1, 0, 0, true}));
  compiler::program broken = program;
  broken.pages.resize(2 * 4096);
  EXPECT_THROW(seal(broken, record, {1, 0, 0, true}), error);
}

// What a new wrapping may change: 184 bytes, at one place.
TEST(Package, RewrapLeavesTheWeights) {
  sealed_file s;
  device_record& record = s.record;
  record.keys[0].epoch = 4;
  package p = s.sealed;
  ASSERT_TRUE(rewrap(p, record, {}, "p"));
  EXPECT_EQ(p.manifest.epoch, 4u);
  const temp_dir dir;
  write_package(dir.file("p.lkx"), p);
  const std::string text = read_text(dir.file("p.lkx"));
  const bytes file(text.begin(), text.end());
  ASSERT_EQ(file.size(), s.file.size());
  std::size_t first = file.size(), last = 0;
  for (std::size_t i = 0; i < file.size(); ++i) {
    if (file[i] == s.file[i]) continue;
    first = std::min(first, i);
    last = i;
  }
  EXPECT_GE(first, s.key_at() - 128);
  EXPECT_LT(last, s.key_at() + 56);
  const package back = read_package(dir.file("p.lkx"));
  EXPECT_NO_THROW(verify(back, record.keys[0].kek(), "p"));
  EXPECT_TRUE(refused(file, record.keys[0].kek(0))) << "the epoch before opens the new wrapping";
  EXPECT_TRUE(refused(s.file, record.keys[0].kek(4)));
  // The same model key, so the same weights; and back again.
  model_key before, after;
  std::array<std::uint8_t, 32> bound{};
  ASSERT_TRUE(unwrap_model_key(record.keys[0].kek(0), s.sealed.key, before, bound));
  ASSERT_TRUE(unwrap_model_key(record.keys[0].kek(4), back.key, after, bound));
  EXPECT_TRUE(before == after);
  EXPECT_FALSE(rewrap(p, record, {}, "p")) << "nothing to do";
  EXPECT_TRUE(rewrap(p, record, {0, {}}, "p"));
  EXPECT_NO_THROW(verify(p, record.keys[0].kek(0), "p"));
  // The licence is bound as well.
  ASSERT_TRUE(rewrap(p, record, {{}, true}, "p"));
  EXPECT_EQ(p.manifest.licence_flags, licence_ticket);
  EXPECT_NO_THROW(verify(p, record.keys[0].kek(), "p"));
  package bare = p;
  bare.manifest.licence_flags = 0;
  EXPECT_THROW(verify(bare, record.keys[0].kek(), "p"), error);
}

TEST(Package, RewrapOpensNothingOfOthers) {
  const sealed_file s;
  const auto expect_refused = [&](package p, const device_record& record, errc code) {
    const package before = p;
    EXPECT_THAT([&] { rewrap(p, record, {9, true}, "p"); },
                Throws<error>(Property(&error::code, code)));
    EXPECT_EQ(p.key, before.key);
    EXPECT_EQ(to_bytes(p.manifest), to_bytes(before.manifest));
  };
  device_record record = sample_record();
  expect_refused(s.sealed, record, errc::mismatch);  // another device
  record.pub = s.record.pub;
  expect_refused(s.sealed, record, errc::refused);  // another root of this slot
  record.keys[0] = {3, 0, s.record.keys[0].root.clone()};
  expect_refused(s.sealed, record, errc::usage);  // the record of another slot
  record.keys[0] = {0, 0, s.record.keys[0].root.clone()};
  package p = s.sealed;
  p.manifest.version += 1;
  expect_refused(p, record, errc::refused);
  p = s.sealed;
  p.manifest.slot = 1;
  record.keys.push_back({1, 0, random_kek()});
  expect_refused(p, record, errc::refused);  // one slot's package in another's name
  p = s.sealed;
  p.key[20] ^= 4;
  expect_refused(p, record, errc::refused);
  p = s.sealed;
  EXPECT_TRUE(rewrap(p, record, {9, true}, "p"));
}

}  // namespace
}  // namespace latchkey::lock
