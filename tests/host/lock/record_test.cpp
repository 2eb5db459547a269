// Device records: round trip, wrong passphrase, damage, and that no key byte reaches the disk.
#include "lock/record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"
#include "lock_fixture.hpp"

namespace latchkey::lock {
namespace {

using ::testing::HasSubstr;

TEST(Record, RoundTrip) {
  const temp_dir dir;
  device_record r = sample_record();
  r.pub.name = "card \"A\" \xc3\xa9";
  r.pub.config_ids = {1, 0xffffffff};
  r.keys.push_back({7, 0xdeadbeef, random_kek()});
  const std::string path = dir.file("a.lkd");
  write_record(path, r, "correct horse", cheap);
  const device_record back = read_record(path, "correct horse");
  EXPECT_EQ(back.pub, r.pub);
  ASSERT_EQ(back.keys.size(), 2u);
  ASSERT_NE(back.find(7), nullptr);
  EXPECT_TRUE(back.find(7)->root == r.keys[1].root);
  EXPECT_TRUE(back.find(0)->root == r.keys[0].root);
  EXPECT_EQ(back.find(7)->epoch, 0xdeadbeefu);
  EXPECT_EQ(back.find(1), nullptr);
  EXPECT_EQ(read_public_record(path), r.pub);
  struct stat st{};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST(Record, DefaultCostIsStoredAndUsed) {
  const temp_dir dir;
  const device_record r = sample_record();
  write_record(dir.file("a.lkd"), r, "pass");
  const auto j = nlohmann::json::parse(read_text(dir.file("a.lkd")));
  EXPECT_EQ(j["secret"]["n"], 32768);
  EXPECT_TRUE(read_record(dir.file("a.lkd"), "pass").keys[0].root == r.keys[0].root);
}

TEST(Record, WrongPassphraseIsRefusedClearly) {
  const temp_dir dir;
  write_record(dir.file("a.lkd"), sample_record(), "right", cheap);
  for (const char* pass : {"wrong", "", "right ", "Right"}) {
    try {
      read_record(dir.file("a.lkd"), pass);
      FAIL() << "opened with '" << pass << "'";
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::refused);
      EXPECT_THAT(e.what(), HasSubstr("passphrase"));
      EXPECT_THAT(e.what(), HasSubstr("a.lkd"));
    }
  }
}

TEST(Record, EmptyPassphraseAndNoKeysAreNotWritten) {
  const temp_dir dir;
  device_record r = sample_record();
  EXPECT_THROW(write_record(dir.file("a.lkd"), r, "", cheap), error);
  r.keys.clear();
  EXPECT_THROW(write_record(dir.file("a.lkd"), r, "pass", cheap), error);
  EXPECT_TRUE(dir.empty());
}

TEST(Record, PublicRecordHasNoSecret) {
  const temp_dir dir;
  const device_record r = sample_record();
  write_public_record(dir.file("p.lkd"), r.pub);
  EXPECT_EQ(read_public_record(dir.file("p.lkd")), r.pub);
  EXPECT_EQ(read_text(dir.file("p.lkd")).find("secret"), std::string::npos);
  EXPECT_THAT([&] { read_record(dir.file("p.lkd"), "x"); },
              testing::ThrowsMessage<error>(HasSubstr("public record without owner keys")));
}

TEST(Record, HelperDataMustBeOfTheDevice) {
  const temp_dir dir;
  device_record r = sample_record();
  r.pub.id[3] ^= 1;
  EXPECT_THAT([&] { write_record(dir.file("a.lkd"), r, "p", cheap); },
              testing::ThrowsMessage<error>(HasSubstr("another device")));
  r = sample_record();
  r.pub.helper.pop_back();
  EXPECT_THROW(write_public_record(dir.file("a.lkd"), r.pub), error);
  r = sample_record();
  r.pub.helper[0] = 'X';
  EXPECT_THROW(write_public_record(dir.file("a.lkd"), r.pub), error);
  r = sample_record();
  r.pub.helper[4] = 2;
  EXPECT_THROW(write_public_record(dir.file("a.lkd"), r.pub), error);
}

TEST(Record, EveryChangeOfAValueIsRefused) {
  const temp_dir dir;
  device_record r = sample_record();
  r.pub.config_ids = {5};
  r.pub.name = "card";
  write_record(dir.file("a.lkd"), r, "pass", cheap);
  const auto good = nlohmann::json::parse(read_text(dir.file("a.lkd")));
  const auto open = [](const nlohmann::json& j) {
    const std::string text = j.dump();
    return parse_record(
        io::byte_view(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()), "a.lkd",
        "pass");
  };
  EXPECT_NO_THROW(open(good));
  int changes = 0;
  // Public text fields, each character; numbers; and the lists.
  for (const char* part : {"public", "secret"}) {
    for (const auto& [key, value] : good[part].items()) {
      if (value.is_string()) {
        const std::string text = value.get<std::string>();
        for (std::size_t i = 0; i < text.size(); i += text.size() > 100 ? 37 : 1) {
          auto bad = good;
          std::string t = text;
          t[i] = t[i] == 'A' ? 'B' : 'A';
          // Hexadecimal reads the same in either case; that is not a change.
          if (std::tolower(t[i]) == std::tolower(text[i])) continue;
          bad[part][key] = t;
          EXPECT_THROW(open(bad), error) << part << "." << key << " character " << i;
          ++changes;
        }
      } else if (value.is_number()) {
        auto bad = good;
        bad[part][key] = value.get<std::uint64_t>() * 2;
        EXPECT_THROW(open(bad), error) << part << "." << key;
        ++changes;
      }
      auto missing = good;
      missing[part].erase(key);
      EXPECT_THROW(open(missing), error) << part << "." << key;
    }
  }
  EXPECT_GT(changes, 150);
  auto bad = good;
  bad["public"]["config_ids"].push_back(6);
  EXPECT_THROW(open(bad), error);
  bad = good;
  bad["public"]["more"] = 1;  // unknown members are authenticated as well
  EXPECT_THROW(open(bad), error);
  bad = good;
  bad["format"] = 1;
  EXPECT_THROW(open(bad), error);
  bad = good;
  bad["kind"] = "other";
  EXPECT_THROW(open(bad), error);
}

TEST(Record, AbsurdCostsAreRefusedBeforeTheyCost) {
  const temp_dir dir;
  write_record(dir.file("a.lkd"), sample_record(), "pass", cheap);
  const auto good = nlohmann::json::parse(read_text(dir.file("a.lkd")));
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::int64_t>>{{"n", 1 << 24},
                                                                                    {"n", 1000},
                                                                                    {"n", 1},
                                                                                    {"n", 0},
                                                                                    {"n", -4},
                                                                                    {"r", 0},
                                                                                    {"r", 65},
                                                                                    {"p", 0},
                                                                                    {"p", 17}}) {
    auto bad = good;
    bad["secret"][key] = value;
    const std::string text = bad.dump();
    EXPECT_THAT(
        [&] {
          parse_record(
              io::byte_view(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()),
              "a.lkd", "pass");
        },
        testing::Throws<error>(testing::Property(&error::code, errc::bad_file)))
        << key << " " << value;
  }
}

TEST(Record, GarbageIsRefusedWithTheFilesName) {
  const std::string good = [] {
    const temp_dir dir;
    write_record(dir.file("a.lkd"), sample_record(), "pass", cheap);
    return read_text(dir.file("a.lkd"));
  }();
  for (std::size_t n = 0; n + 2 < good.size(); ++n) {  // the last two bytes are "}\n"
    const auto text = io::byte_view(reinterpret_cast<const std::uint8_t*>(good.data()), n);
    EXPECT_THAT([&] { parse_public_record(text, "cut.lkd"); },
                testing::ThrowsMessage<error>(HasSubstr("cut.lkd")))
        << n;
  }
  for (const std::string text : {std::string(100000, '['), std::string("null"), std::string("[]"),
                                 std::string("\xff\xfe")}) {
    EXPECT_THROW(
        parse_public_record(
            io::byte_view(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()), "x"),
        error);
  }
  EXPECT_THAT([] { read_public_record("/nonexistent/a.lkd"); },
              testing::Throws<error>(testing::Property(&error::code, errc::bad_file)));
  EXPECT_THROW(read_public_record("/dev/zero"), error);
}

TEST(Record, NoKeyByteReachesTheFile) {
  const temp_dir dir;
  const device_record r = sample_record();
  write_record(dir.file("a.lkd"), r, "a rather long passphrase", cheap);
  const std::string text = read_text(dir.file("a.lkd"));
  expect_no_trace(text, r.keys[0].root.view(), "the owner key");
  EXPECT_EQ(text.find("rather long"), std::string::npos);
  EXPECT_EQ(dir.count(), 1) << "temporary files were left behind";
}

TEST(Record, AFullDiskLeavesTheOldFileAndNothingElse) {
  const temp_dir dir;
  const std::string path = dir.file("a.lkd");
  write_record(path, sample_record(), "pass", cheap);
  const std::string before = read_text(path);
  // A file-size limit stands for a full disk: write() fails in the middle.
  struct rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small{1000, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THAT([&] { write_record(path, sample_record(), "pass", cheap); },
              testing::Throws<error>(testing::Property(&error::code, errc::io)));
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_text(path), before);
  EXPECT_EQ(dir.count(), 1);
}

TEST(Record, OnlyRegularFilesAreReplaced) {
  const device_record r = sample_record();
  EXPECT_THROW(write_record("/dev/null", r, "pass", cheap), error);
  EXPECT_THROW(write_record("/nonexistent/a.lkd", r, "pass", cheap), error);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

}  // namespace
}  // namespace latchkey::lock
