// The lock: another chip, a changed bit, an exchanged page. Every case is refused with its reason,
// no output byte leaves the card, and afterwards intact files work again.
#include <gmock/gmock.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cstring>

#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Ne;

const std::vector<std::string> kBypass = {"--skip-host-checks"};

class Refusal : public testing::Test {
 protected:
  void SetUp() override {
    w.session();
    package = read(w.path("digits.lkx"));
    at = layout_of(package);
  }

  /// Runs package and record on the device and expects a refusal: exit code, words of the reason,
  /// nothing released, no output file.
  Outcome refused(const std::string& file, const std::string& record, int code,
                  const std::string& reason, const std::vector<std::string>& more = {},
                  const std::string& device = "sim:7") {
    SCOPED_TRACE(file + " with " + record + " on " + device + (more.empty() ? "" : ", bypassed"));
    std::vector<std::string> words = {"run",      w.str(file), "--record", w.str(record),
                                      "--device", device,      "--images", digit_images(),
                                      "--count",  "8",         "-o",       w.str("stolen")};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = w.tool(words);
    EXPECT_EQ(o.code, code) << o.err;
    EXPECT_THAT(o.message(), HasSubstr(reason));
    EXPECT_EQ(o.released(), 0U);
    EXPECT_FALSE(fs::exists(w.path("stolen")));
    EXPECT_FALSE(o.json().contains("counters")) << o.out;
    return o;
  }

  void expect_intact_files_work() {
    const Outcome o = w.tool(w.run_words(8, {"--expect", w.str("digits.ref")}));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(o.json()["differing"], 0);
  }

  std::string variant(const std::string& name, const std::function<void(bytes&)>& change) {
    bytes data = package;
    change(data);
    write(w.path(name), data);
    return name;
  }

  Workspace w;
  bytes package;
  Layout at{};
};

TEST_F(Refusal, AnotherCard) {
  w.enroll("sim:8", "other.lkd");
  refused("digits.lkx", "other.lkd", 11, "locked for device", {}, "sim:8");
  refused("digits.lkx", "other.lkd", 9, "device", kBypass, "sim:8");
  expect_intact_files_work();
}

TEST_F(Refusal, PackageAndRecordOnAnotherCard) {
  // Nothing is wrong with the files; the silicon is another one.
  w.enroll("sim:8", "other.lkd");
  refused("digits.lkx", "card.lkd", 9, "Key failure", {}, "sim:8");
  refused("digits.lkx", "card.lkd", 9, "Key failure", kBypass, "sim:8");
  expect_intact_files_work();
}

TEST_F(Refusal, PackageAndRecordOnACardThatWasNeverEnrolled) {
  refused("digits.lkx", "card.lkd", 7, "not enrolled", {}, "sim:9");
}

TEST_F(Refusal, ForgedDeviceId) {
  // The other card's id in the manifest, past the host's checks: the wrapped key binds the
  // manifest.
  w.enroll("sim:8", "other.lkd");
  const auto id =
      nlohmann::json::parse(read(w.path("other.lkd")))["public"]["device_id"].get<std::string>();
  variant("forged.lkx", [&](bytes& d) {
    for (std::size_t i = 0; i < 16; ++i)
      d[at.manifest + 32 + i] =
          static_cast<std::uint8_t>(std::stoul(id.substr(2 * i, 2), nullptr, 16));
  });
  refused("forged.lkx", "other.lkd", 9, "Key failure", {}, "sim:8");
  refused("forged.lkx", "other.lkd", 9, "Key failure", kBypass, "sim:8");
  // On its own card the manifest now names another device.
  refused("forged.lkx", "card.lkd", 11, "locked for device");
  refused("forged.lkx", "card.lkd", 9, "another device", kBypass);
  expect_intact_files_work();
}

TEST_F(Refusal, OneBitOfTheHeader) {
  for (const std::size_t byte : {0UL, 4UL, 8UL, 16UL, 24UL, 40UL, at.header, at.header + 100,
                                 (at.header + at.manifest) / 2, at.manifest - 1}) {
    flipped(w, "digits.lkx", "bad.lkx", byte, 4);
    refused("bad.lkx", "card.lkd", 3, "bad.lkx");
    refused("bad.lkx", "card.lkd", 3, "bad.lkx", kBypass);
  }
  expect_intact_files_work();
}

TEST_F(Refusal, ChangedHeaderWithItsHashMadeToFit) {
  // A forger who halves the output scale and mends model_id passes the host; the manifest is bound
  // to the model key.
  variant("bad.lkx", [&](bytes& d) {
    const std::string word = "\"scale\"";
    const auto end = d.begin() + static_cast<std::ptrdiff_t>(at.manifest);
    const auto found = std::search(d.begin(), end, word.begin(), word.end());
    ASSERT_NE(found, end);
    const auto digit =
        std::find_if(found, end, [](std::uint8_t c) { return c >= '1' && c <= '9'; });
    ASSERT_NE(digit, end);
    *digit = *digit == '9' ? '8' : static_cast<std::uint8_t>(*digit + 1);
    std::uint8_t hash[32];
    SHA256(d.data(), at.manifest, hash);
    std::copy_n(hash, 16, d.begin() + static_cast<std::ptrdiff_t>(at.manifest) + 8);
  });
  refused("bad.lkx", "card.lkd", 9, "Key failure");
  expect_intact_files_work();
}

TEST_F(Refusal, OneBitOfEveryManifestWord) {
  for (std::size_t word = 0; word < 32; ++word) {
    SCOPED_TRACE("word " + std::to_string(word));
    flipped(w, "digits.lkx", "bad.lkx", at.manifest + 4 * word, 1);
    const Outcome o = w.tool({"run", w.str("bad.lkx"), "--record", w.str("card.lkd"), "--device",
                              "sim:7", "--images", digit_images(), "--count", "8", "-o",
                              w.str("stolen"), "--skip-host-checks"});
    EXPECT_THAT(o.code, AnyOf(3, 9, 11)) << o.err;
    EXPECT_THAT(o.message(), Ne(""));
    EXPECT_EQ(o.released(), 0U);
    EXPECT_FALSE(fs::exists(w.path("stolen")));
  }
  expect_intact_files_work();
}

TEST_F(Refusal, OneBitOfTheVersionIsRefusedByTheChip) {
  flipped(w, "digits.lkx", "bad.lkx", at.manifest + 24, 1);
  refused("bad.lkx", "card.lkd", 9, "Key failure");
  refused("bad.lkx", "card.lkd", 9, "Key failure", kBypass);
  expect_intact_files_work();
}

TEST_F(Refusal, OneBitOfTheWrappedKey) {
  for (const std::size_t byte : {0UL, 7UL, 8UL, 30UL, 55UL}) {
    flipped(w, "digits.lkx", "bad.lkx", at.key + byte, 0);
    refused("bad.lkx", "card.lkd", 9, "Key failure",
            byte % 2 ? kBypass : std::vector<std::string>{});
  }
  expect_intact_files_work();
}

TEST_F(Refusal, OneBitOfTheTagTable) {
  for (const std::size_t page : {std::size_t{0}, at.num_pages / 2, at.num_pages - 1}) {
    flipped(w, "digits.lkx", "bad.lkx", at.tags + 16 * page + 5 * (page % 3), page % 8);
    const std::string reason = "page " + std::to_string(page) + " failed authentication";
    const Outcome o = refused("bad.lkx", "card.lkd", 9, reason);
    EXPECT_TRUE(o.json()["error"].contains("released_bytes"));
    refused("bad.lkx", "card.lkd", 9, reason, kBypass);
  }
  expect_intact_files_work();
}

// Page 0 holds the descriptors; of each layer the parameters come first, then the weight tiles.
TEST_F(Refusal, OneBitOfAnyPage) {
  for (std::size_t page = 0; page < at.num_pages; ++page) {
    const std::size_t byte = page == 0 ? 0 : page == 1 ? 4095 : (page * 977) % 4096;
    flipped(w, "digits.lkx", "bad.lkx", at.pages + 4096 * page + byte, page % 8);
    const std::string reason = "page " + std::to_string(page) + " failed authentication";
    const Outcome o =
        refused("bad.lkx", "card.lkd", 9, reason, page % 2 ? kBypass : std::vector<std::string>{});
    EXPECT_TRUE(o.json()["error"].contains("released_bytes"));
  }
  expect_intact_files_work();
}

TEST_F(Refusal, OneBitOfALateTileInASecondStart) {
  // The first start of a run has already given its outputs when the page is bad in all: none may be
  // written to the file either.
  flipped(w, "digits.lkx", "bad.lkx", at.end - 1, 7);
  refused("bad.lkx", "card.lkd", 9, "failed authentication", {"--batch", "1"});
}

TEST_F(Refusal, ExchangedTiles) {
  const auto exchange = [&](bytes& d, std::size_t a, std::size_t b, bool tags) {
    std::swap_ranges(d.begin() + static_cast<std::ptrdiff_t>(at.pages + 4096 * a),
                     d.begin() + static_cast<std::ptrdiff_t>(at.pages + 4096 * (a + 1)),
                     d.begin() + static_cast<std::ptrdiff_t>(at.pages + 4096 * b));
    if (tags)
      std::swap_ranges(d.begin() + static_cast<std::ptrdiff_t>(at.tags + 16 * a),
                       d.begin() + static_cast<std::ptrdiff_t>(at.tags + 16 * (a + 1)),
                       d.begin() + static_cast<std::ptrdiff_t>(at.tags + 16 * b));
  };
  variant("swap.lkx", [&](bytes& d) { exchange(d, 2, 4, false); });
  refused("swap.lkx", "card.lkd", 9, "page 2 failed authentication");
  // With their tags: the place of a page is in its IV.
  variant("swap.lkx", [&](bytes& d) { exchange(d, 2, 4, true); });
  refused("swap.lkx", "card.lkd", 9, "page 2 failed authentication");
  refused("swap.lkx", "card.lkd", 9, "page 2 failed authentication", kBypass);
  variant("swap.lkx", [&](bytes& d) { exchange(d, 0, 6, true); });
  refused("swap.lkx", "card.lkd", 9, "page 0 failed authentication");
  expect_intact_files_work();
}

TEST_F(Refusal, PagesOfAnotherPackageOfTheSameModel) {
  // Locked twice, for the same card: every package has a model key of its own.
  w.lock("digits.lkm", "card.lkd", "twin.lkx");
  const bytes twin = read(w.path("twin.lkx"));
  ASSERT_EQ(twin.size(), package.size());
  ASSERT_NE(bytes(twin.begin() + static_cast<std::ptrdiff_t>(at.pages), twin.end()),
            bytes(package.begin() + static_cast<std::ptrdiff_t>(at.pages), package.end()));
  variant("mixed.lkx", [&](bytes& d) {
    std::copy(twin.begin() + static_cast<std::ptrdiff_t>(at.tags), twin.end(),
              d.begin() + static_cast<std::ptrdiff_t>(at.tags));
  });
  refused("mixed.lkx", "card.lkd", 9, "page 0 failed authentication");
  // The other package's key with its own pages and this manifest is this model under that key: the
  // manifests are equal, so it opens and is genuine.
  EXPECT_EQ(bytes(twin.begin(), twin.begin() + static_cast<std::ptrdiff_t>(at.key)),
            bytes(package.begin(), package.begin() + static_cast<std::ptrdiff_t>(at.key)));
}

// Regions of the helper data: mask 32..799, offset 800..1055, tag 1056..1087, device id 8..23.
struct HelperBit {
  std::size_t byte;
  unsigned bit;
  const char* reason;
};

TEST_F(Refusal, OneBitOfTheHelperData) {
  for (const HelperBit& b :
       {HelperBit{24, 0, "Key failure"},                                      // margin
        HelperBit{32, 0, "mask"},                                             // first of the mask
        HelperBit{400, 3, "mask"},                                            // middle
        HelperBit{799, 7, "mask"},                                            // last
        HelperBit{800, 0, "Key failure"},                                     // first of the offset
        HelperBit{930, 5, "Key failure"}, HelperBit{1054, 7, "Key failure"},  // last used bit
        HelperBit{1056, 0, "Key failure"},                                    // tag
        HelperBit{1087, 7, "Key failure"}}) {
    SCOPED_TRACE("helper byte " + std::to_string(b.byte));
    flipped_helper(w, "card.lkd", "bad.lkd", b.byte, b.bit);
    refused("digits.lkx", "bad.lkd", 9, b.reason,
            b.byte % 2 ? std::vector<std::string>{} : kBypass);
  }
  expect_intact_files_work();
}

TEST_F(Refusal, MagicAndFormatOfTheHelperData) {
  for (const std::size_t byte : {0UL, 4UL}) {
    flipped_helper(w, "card.lkd", "bad.lkd", byte, 2);
    refused("digits.lkx", "bad.lkd", 3, "helper data", kBypass);
  }
}

TEST_F(Refusal, DeviceIdOfTheHelperData) {
  flipped_helper(w, "card.lkd", "bad.lkd", 8, 0);
  refused("digits.lkx", "bad.lkd", 11, "locked for device");
  refused("digits.lkx", "bad.lkd", 9, "Key failure", kBypass);
  expect_intact_files_work();
}

TEST_F(Refusal, MaskOfTheSameWeight) {
  // One response more and one less: the count is right, the bits are not the enrolled ones.
  auto record = nlohmann::json::parse(read(w.path("card.lkd")));
  flipped_helper(w, "card.lkd", "one.lkd", 100, 0);
  for (unsigned bit = 0; bit < 8; ++bit) {
    flipped_helper(w, "one.lkd", "two.lkd", 500, bit);
    const Outcome o =
        w.tool({"run", w.str("digits.lkx"), "--record", w.str("two.lkd"), "--device", "sim:7",
                "--images", digit_images(), "--count", "8", "-o", w.str("stolen")});
    EXPECT_EQ(o.code, 9) << o.err;
    EXPECT_FALSE(fs::exists(w.path("stolen")));
    if (o.message().find("Key failure") != std::string::npos) return;
  }
  FAIL() << "no choice of bit kept the mask's weight";
}

TEST_F(Refusal, TruncatedAtManyLengths) {
  const std::vector<std::size_t> lengths = {0,
                                            1,
                                            3,
                                            4,
                                            12,
                                            63,
                                            at.header,
                                            at.header + 1,
                                            at.manifest - 1,
                                            at.manifest,
                                            at.manifest + 64,
                                            at.key - 1,
                                            at.key,
                                            at.key + 55,
                                            at.tags,
                                            at.tags + 17,
                                            at.pages - 1,
                                            at.pages,
                                            at.pages + 1,
                                            at.pages + 4096,
                                            at.end - 4096,
                                            at.end - 64,
                                            at.end - 1};
  for (const std::size_t n : lengths) {
    write(w.path("cut.lkx"),
          bytes(package.begin(), package.begin() + static_cast<std::ptrdiff_t>(n)));
    refused("cut.lkx", "card.lkd", 3, "cut.lkx", n % 2 ? kBypass : std::vector<std::string>{});
  }
  bytes longer = package;
  longer.push_back(0);
  write(w.path("long.lkx"), longer);
  refused("long.lkx", "card.lkd", 3, "1 bytes follow the end");
  expect_intact_files_work();
}

TEST_F(Refusal, AnotherConfiguration) {
  w.compile_digits("small.lkm", {"--scratchpad", "1024"});
  w.lock("small.lkm", "card.lkd", "small.lkx");
  const Outcome o = refused("small.lkx", "card.lkd", 11, "build configuration");
  EXPECT_THAT(o.message(), HasSubstr("compile and lock again"));
  refused("small.lkx", "card.lkd", 11, "another build configuration", kBypass);
  expect_intact_files_work();
}

TEST_F(Refusal, AVersionBelowTheChipsMinimum) {
  auto fuses = nlohmann::json::parse(read(w.path("state/sim-7/fuses.json")));
  fuses["min_version"] = 3;
  write(w.path("state/sim-7/fuses.json"), fuses.dump());
  refused("digits.lkx", "card.lkd", 9, "minimum version");
  refused("digits.lkx", "card.lkd", 9, "minimum version", kBypass);
  w.lock("digits.lkm", "card.lkd", "digits.lkx", {"--model-version", "3"});
  expect_intact_files_work();
}

TEST_F(Refusal, TheUnlockedBuildCannotReadAPackage) {
  const Outcome o = w.tool({"run", w.str("digits.lkx"), "--unlocked", "--device", "sim:7",
                            "--images", digit_images(), "--count", "8", "-o", w.str("stolen")});
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.message(), HasSubstr("not a Latchkey program"));
  EXPECT_FALSE(fs::exists(w.path("stolen")));
}

TEST_F(Refusal, AnOldOutputFileStays) {
  write(w.path("stolen"), std::string("old"));
  flipped(w, "digits.lkx", "bad.lkx", at.end - 9, 0);
  const Outcome o = w.tool({"run", w.str("bad.lkx"), "--record", w.str("card.lkd"), "--device",
                            "sim:7", "--images", digit_images(), "-o", w.str("stolen")});
  EXPECT_EQ(o.code, 9);
  EXPECT_EQ(read(w.path("stolen")), (bytes{'o', 'l', 'd'}));
}

}  // namespace
}  // namespace latchkey::e2e
