// The host's key functions against NIST's and the RFC's vectors, and the ladder's format.
#include "lock/keys.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"

namespace latchkey::lock {
namespace {

/// One case of a NIST .rsp or .txt file: "name = value" lines, with the [sections] it stands under.
using vector_case = std::map<std::string, std::string>;

std::vector<vector_case> load(const std::string& file) {
  const std::string folder = LATCHKEY_CRYPTO_VECTORS;
  if (folder.empty()) return {};
  std::ifstream in(folder + "/" + file);
  std::vector<vector_case> cases;
  std::map<std::string, std::string> section;
  std::string line;
  while (std::getline(in, line)) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    const auto trim = [](std::string s) {
      s.erase(0, s.find_first_not_of(' '));
      s.erase(s.find_last_not_of(' ') + 1);
      return s;
    };
    const auto eq = line.find('=');
    if (!line.empty() && line[0] == '[') {
      if (eq != std::string::npos)
        section[trim(line.substr(1, eq - 1))] = trim(line.substr(eq + 1, line.size() - eq - 2));
    } else if (eq != std::string::npos) {
      const std::string name = trim(line.substr(0, eq));
      if (name == "COUNT" || name == "Count") cases.push_back(section);
      if (!cases.empty()) cases.back()[name] = trim(line.substr(eq + 1));
    } else if (line == "FAIL" && !cases.empty()) {
      cases.back()["FAIL"] = "";
    }
  }
  return cases;
}

#define SKIP_WITHOUT_VECTORS() \
  if (std::string(LATCHKEY_CRYPTO_VECTORS).empty()) GTEST_SKIP() << "no cryptography vectors"

bytes hex(const std::string& text) { return io::from_hex(text, "vector"); }

TEST(Keys, SecretsAreNeitherCopiedNorPrinted) {
  static_assert(!std::is_copy_constructible_v<model_key>);
  static_assert(!std::is_copy_assignable_v<model_key>);
  static_assert(!std::is_copy_constructible_v<secret_buffer>);
  model_key a = random_model_key();
  const model_key copy = a.clone();
  EXPECT_TRUE(a == copy);
  const model_key moved = std::move(a);
  EXPECT_TRUE(moved == copy);
  EXPECT_TRUE(a == model_key());  // NOLINT(bugprone-use-after-move): moving wipes
}

TEST(Keys, DestructionWipes) {
  alignas(model_key) std::uint8_t place[sizeof(model_key)];
  auto* key = new (place) model_key(random_model_key());
  key->~model_key();
  // Read through volatile: the compiler may assume the object's end makes its bytes indeterminate.
  const volatile std::uint8_t* raw = place;
  unsigned sum = 0;
  for (std::size_t i = 0; i < sizeof place; ++i) sum |= raw[i];
  EXPECT_EQ(sum, 0u);
}

TEST(Keys, KwpWrapsAsNist) {
  SKIP_WITHOUT_VECTORS();
  int n = 0;
  for (const char* size : {"128", "192", "256"}) {
    for (const auto& c : load(std::string("keywrap/kwtestvectors/KWP_AE_") + size + ".txt")) {
      const bytes key = hex(c.at("K")), plain = hex(c.at("P"));
      ASSERT_EQ(kwp_wrap(key, plain), hex(c.at("C"))) << size << " " << c.at("COUNT");
      ++n;
    }
  }
  EXPECT_GE(n, 1000);
}

TEST(Keys, KwpUnwrapsAsNistAndRefusesTheInvalid) {
  SKIP_WITHOUT_VECTORS();
  int good = 0, refused = 0;
  // The _inv files beside them are for the variant with the inverse cipher, another algorithm.
  for (const char* file : {"KWP_AD_128", "KWP_AD_192", "KWP_AD_256"}) {
    for (const auto& c : load(std::string("keywrap/kwtestvectors/") + file + ".txt")) {
      const bytes key = hex(c.at("K")), wrapped = hex(c.at("C"));
      if (c.contains("FAIL") || !c.contains("P")) {
        // Whatever length the caller expects, an invalid case gives nothing.
        for (std::size_t size = wrapped.size() - 15; size <= wrapped.size() - 8; ++size) {
          bytes out(size, 0x5a);
          ASSERT_FALSE(kwp_unwrap(key, wrapped, out)) << file << " " << c.at("COUNT");
          ASSERT_EQ(out, bytes(size, 0x5a));
        }
        ++refused;
      } else {
        const bytes plain = hex(c.at("P"));
        bytes out(plain.size());
        ASSERT_TRUE(kwp_unwrap(key, wrapped, out)) << file << " " << c.at("COUNT");
        ASSERT_EQ(out, plain);
        ++good;
      }
    }
  }
  EXPECT_EQ(good, 1200);
  EXPECT_EQ(refused, 300);
}

TEST(Keys, KwpRefusesImpossibleSizes) {
  bytes out(16);
  EXPECT_THROW(kwp_wrap(bytes(31), bytes(16)), error);
  EXPECT_THROW(kwp_wrap(bytes(32), bytes()), error);
  EXPECT_THROW(kwp_unwrap(bytes(32), bytes(23), out), error);
  EXPECT_THROW(kwp_unwrap(bytes(32), bytes(8), out), error);
}

TEST(Keys, GcmSealsAsNist) {
  SKIP_WITHOUT_VECTORS();
  int n = 0;
  for (const auto& c : load("ciphers/AES/GCM/gcmEncryptExtIV128.rsp")) {
    // Latchkey's one shape: 96-bit IV, no additional data, whole tag.
    if (c.at("IVlen") != "96" || c.at("AADlen") != "0" || c.at("Taglen") != "128") continue;
    page_cipher cipher{model_key(std::span<const std::uint8_t, 16>(hex(c.at("Key"))))};
    const bytes iv = hex(c.at("IV")), plain = hex(c.at("PT"));
    bytes out(plain.size());
    std::array<std::uint8_t, 16> tag{};
    cipher.seal(std::span<const std::uint8_t, 12>(iv), plain, out, tag);
    ASSERT_EQ(out, hex(c.at("CT"))) << c.at("Count");
    ASSERT_EQ(bytes(tag.begin(), tag.end()), hex(c.at("Tag"))) << c.at("Count");
    ++n;
  }
  EXPECT_GE(n, 50);
}

TEST(Keys, GcmOpensAsNistAndRefusesTheInvalid) {
  SKIP_WITHOUT_VECTORS();
  int good = 0, refused = 0;
  for (const auto& c : load("ciphers/AES/GCM/gcmDecrypt128.rsp")) {
    if (c.at("IVlen") != "96" || c.at("AADlen") != "0" || c.at("Taglen") != "128") continue;
    page_cipher cipher{model_key(std::span<const std::uint8_t, 16>(hex(c.at("Key"))))};
    const bytes iv = hex(c.at("IV")), sealed = hex(c.at("CT")), tag = hex(c.at("Tag"));
    bytes out(sealed.size(), 0x5a);
    const bool ok = cipher.open(std::span<const std::uint8_t, 12>(iv), sealed,
                                std::span<const std::uint8_t, 16>(tag), out);
    ASSERT_EQ(ok, !c.contains("FAIL")) << c.at("Count");
    if (ok) {
      ASSERT_EQ(out, hex(c.at("PT")));
      ++good;
    } else {
      ASSERT_EQ(out, bytes(sealed.size())) << "an invalid case left plaintext";
      ++refused;
    }
  }
  EXPECT_GE(good, 20);
  EXPECT_GE(refused, 20);
}

TEST(Keys, HkdfMatchesRfc5869) {
  SKIP_WITHOUT_VECTORS();
  int n = 0;
  for (const auto& c : load("KDF/rfc-5869-HKDF-SHA256.txt")) {
    const auto prk = hkdf_extract(hex(c.at("salt")), hex(c.at("IKM")));
    EXPECT_EQ(io::to_hex(prk.view()), c.at("PRK"));
    bytes okm(std::stoul(c.at("L")));
    hkdf_expand(prk, hex(c.at("info")), okm);
    EXPECT_EQ(io::to_hex(okm), c.at("OKM"));
    ++n;
  }
  EXPECT_EQ(n, 3);
}

TEST(Keys, LadderFollowsItsFormat) {
  device_id id{};
  std::iota(id.begin(), id.end(), std::uint8_t{1});
  std::array<std::uint8_t, response_bytes> response{};
  std::iota(response.begin(), response.end(), std::uint8_t{7});
  const auto root = derive_root(id, response);

  // The same keys spelled out: salt = id | u32 1, info = label | slot 000 | epoch | zeros, and
  // one HKDF block = HMAC(PRK, info | 01).
  bytes salt(id.begin(), id.end());
  for (const std::uint8_t b : {1, 0, 0, 0}) salt.push_back(b);
  const auto prk = hmac_sha256(salt, response);
  EXPECT_TRUE(root == secret<32>(std::span<const std::uint8_t, 32>(prk)));
  const auto spelled = [&](const std::string& label, std::uint8_t slot, bytes epoch) {
    bytes info(label.begin(), label.end());
    info.resize(16);
    info.insert(info.end(), {slot, 0, 0, 0});
    info.insert(info.end(), epoch.begin(), epoch.end());
    info.resize(32);
    info.push_back(1);
    const auto k = hmac_sha256(prk, info);
    return io::to_hex(k);
  };
  EXPECT_EQ(io::to_hex(derive_key(root, "helper-mac", 0, 0).view()),
            spelled("helper-mac", 0, {0, 0, 0, 0}));
  EXPECT_EQ(io::to_hex(derive_key(root, "owner-kek", 3, 0x01020304).view()),
            spelled("owner-kek", 3, {4, 3, 2, 1}));

  // Every argument matters.
  const auto base = derive_key(root, "owner-kek", 0, 0);
  EXPECT_FALSE(base == derive_key(root, "owner-kek", 1, 0));
  EXPECT_FALSE(base == derive_key(root, "owner-kek", 0, 1));
  EXPECT_FALSE(base == derive_key(root, "owner-kel", 0, 0));
  response[254] ^= 1;
  EXPECT_FALSE(base == derive_key(derive_root(id, response), "owner-kek", 0, 0));
  response[254] ^= 1;
  id[15] ^= 1;
  EXPECT_FALSE(base == derive_key(derive_root(id, response), "owner-kek", 0, 0));
  EXPECT_THROW(derive_key(root, "seventeen letters", 0, 0), error);
}

TEST(Keys, PageIvIsBigEndian) {
  const auto iv = page_iv(0x01020304, 0x0506, 0x0708090a0b0cull);
  const bytes want{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  EXPECT_EQ(bytes(iv.begin(), iv.end()), want);
  EXPECT_THROW(page_iv(1, 1, 1ull << 48), error);
}

TEST(Keys, PagesOpenOnlyInTheirPlace) {
  std::mt19937 random(1);
  const model_key key = random_model_key();
  page_cipher cipher(key);
  bytes plain(spec::page_bytes), sealed(plain.size()), out(plain.size());
  for (auto& b : plain) b = static_cast<std::uint8_t>(random());
  std::array<std::uint8_t, 16> tag{};
  const auto iv = page_iv(1, 2, 3);
  cipher.seal(iv, plain, sealed, tag);
  EXPECT_TRUE(cipher.open(iv, sealed, tag, out));
  EXPECT_EQ(out, plain);
  EXPECT_FALSE(cipher.open(page_iv(2, 2, 3), sealed, tag, out));
  EXPECT_EQ(out, bytes(out.size()));
  EXPECT_FALSE(cipher.open(page_iv(1, 3, 3), sealed, tag, out));
  EXPECT_FALSE(cipher.open(page_iv(1, 2, 4), sealed, tag, out));
  page_cipher other(random_model_key());
  EXPECT_FALSE(other.open(iv, sealed, tag, out));
  // In place, and after failures: the cipher keeps no state between messages.
  bytes in_place = plain;
  std::array<std::uint8_t, 16> tag2{};
  cipher.seal(iv, in_place, in_place, tag2);
  EXPECT_EQ(in_place, sealed);
  EXPECT_EQ(tag2, tag);
}

TEST(Keys, WrappedModelKeyBindsTheManifestHash) {
  key_encryption_key kek;
  kek.writable()[5] = 9;
  const model_key dek = random_model_key();
  std::array<std::uint8_t, 32> hash{};
  hash.fill(0x42);
  const wrapped_key blob = wrap_model_key(kek, dek, hash);
  model_key got;
  std::array<std::uint8_t, 32> bound{};
  ASSERT_TRUE(unwrap_model_key(kek, blob, got, bound));
  EXPECT_TRUE(got == dek);
  EXPECT_EQ(bound, hash);
  for (std::size_t bit = 0; bit < 8 * blob.size(); ++bit) {
    wrapped_key bad = blob;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    model_key none;
    ASSERT_FALSE(unwrap_model_key(kek, bad, none, bound)) << "bit " << bit;
    ASSERT_TRUE(none == model_key());
  }
  kek.writable()[31] ^= 0x80;
  EXPECT_FALSE(unwrap_model_key(kek, blob, got, bound));
}

}  // namespace
}  // namespace latchkey::lock
