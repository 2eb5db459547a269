// The cores of the key block against NIST's and the RFCs' vectors and against OpenSSL.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/sha.h>

#include <memory>
#include <set>

#include "Vkey_prims_bench.h"
#include "Vkey_prims_bench___024root.h"
#include "bytes.h"
#include "verilated.h"

namespace {

using namespace latchkey::test;
const std::string kVectors = LATCHKEY_VECTORS;

struct run_result {
  bytes value;
  std::uint64_t cycles;
};

class Prims : public ::testing::Test {
 protected:
  void SetUp() override {
    dut_ = std::make_unique<Vkey_prims_bench>(&context_);
    dut_->rst_ni = 0;
    tick();
    tick();
    dut_->rst_ni = 1;
    tick();
  }

  void tick() {
    dut_->clk_i = 0;
    dut_->eval();
    dut_->clk_i = 1;
    dut_->eval();
    ++cycles_;
  }

  /// Sends a message; `stall` of 256 cycles have no word on offer.
  template <typename Valid, typename Ready>
  void send(const bytes& msg, Valid& valid, Ready& ready, unsigned stall) {
    const std::size_t words = msg.empty() ? 1 : (msg.size() + 3) / 4;
    for (std::size_t w = 0; w < words;) {
      std::uint8_t tmp[4] = {0xa5, 0x5a, 0xa5, 0x5a};  // what lies past the end must not matter
      const std::size_t n = std::min<std::size_t>(4, msg.size() - 4 * w);
      for (std::size_t i = 0; i < n; ++i) tmp[i] = msg[4 * w + i];
      dut_->hm_data_i = load_le32(tmp);
      dut_->hm_last_i = w + 1 == words;
      dut_->hm_bytes_i = static_cast<std::uint8_t>(n);
      valid = (rng_() & 255) >= stall;
      dut_->clk_i = 0;
      dut_->eval();
      if (valid && ready) ++w;
      tick();
    }
    valid = 0;
  }

  run_result hmac(bool keyed, const bytes& key, const bytes& msg, unsigned stall = 0) {
    EXPECT_LE(key.size(), 32u);
    to_wide(dut_->hm_key_i, key, 8);
    const auto begin = cycles_;
    dut_->hm_hmac_i = keyed;
    dut_->hm_start_i = 1;
    tick();
    dut_->hm_start_i = 0;
    send(msg, dut_->hm_valid_i, dut_->hm_ready_o, stall);
    for (int i = 0; !dut_->hm_done_o; ++i) {
      if (i > 1000) throw std::runtime_error("no digest");
      tick();
    }
    return {from_wide(dut_->hm_digest_o, 32), cycles_ - begin};
  }

  bytes sha(const bytes& msg, unsigned stall = 0) {
    dut_->sha_start_i = 1;
    tick();
    dut_->sha_start_i = 0;
    send(msg, dut_->sha_valid_i, dut_->sha_ready_o, stall);
    for (int i = 0; !dut_->sha_done_o; ++i) {
      if (i > 1000) throw std::runtime_error("no digest");
      tick();
    }
    return from_wide(dut_->sha_digest_o, 32);
  }

  /// HMAC for a key of any length, on the hardware: long keys are hashed first.
  bytes hmac_any(const bytes& key, const bytes& msg) {
    return hmac(true, key.size() > 64 ? sha(key) : key, msg).value;
  }

  run_result decrypt(const bytes& key, const bytes& block) {
    to_wide(dut_->aes_key_i, key, 8);
    to_wide(dut_->aes_block_i, block, 4);
    dut_->aes_load_i = 1;
    tick();
    dut_->aes_load_i = 0;
    return decrypt_again(block);
  }

  run_result decrypt_again(const bytes& block) {
    to_wide(dut_->aes_block_i, block, 4);
    const auto begin = cycles_;
    dut_->aes_start_i = 1;
    tick();
    dut_->aes_start_i = 0;
    for (int i = 0; !dut_->aes_done_o; ++i) {
      if (i > 1000) throw std::runtime_error("no block");
      tick();
    }
    return {from_wide(dut_->aes_block_o, 16), cycles_ - begin};
  }

  struct unwrap_result {
    bool ok;
    bytes plain;  // as many bytes as the size has
    bool clean;   // nothing but zero beyond them, and nothing at all without ok
    std::uint64_t cycles;
  };

  static int size_index(std::size_t plain_bytes) {
    const std::size_t sizes[] = {1, 8, 9, 31, 512, 48};
    for (int i = 0; i < 6; ++i) {
      if (sizes[i] == plain_bytes) return i;
    }
    throw std::invalid_argument("no unwrapper of this size");
  }

  unwrap_result unwrap(std::size_t plain_bytes, const bytes& key, const bytes& cipher) {
    const int k = size_index(plain_bytes);
    to_wide(dut_->aes_key_i, key, 8);
    for (std::size_t w = 0; w < cipher.size() / 4; ++w) {
      dut_->ct_we_i = 1;
      dut_->ct_addr_i = static_cast<std::uint8_t>(w);
      dut_->ct_data_i = load_le32(&cipher[4 * w]);
      tick();
    }
    dut_->ct_we_i = 0;
    dut_->kwp_sel_i = static_cast<std::uint8_t>(k);
    dut_->kwp_start_i = static_cast<std::uint8_t>(1 << k);
    const auto begin = cycles_;
    bool clean = true;
    tick();
    dut_->kwp_start_i = 0;
    for (int i = 0; !dut_->kwp_done_o; ++i) {
      if (i > 100000) throw std::runtime_error("no verdict");
      for (int w = 0; w < 128; ++w) clean &= dut_->kwp_pt_o[w] == 0;
      tick();
    }
    unwrap_result r{dut_->kwp_ok_o != 0, from_wide(dut_->kwp_pt_o, plain_bytes), clean,
                    cycles_ - begin};
    const bytes all = from_wide(dut_->kwp_pt_o, 512);
    for (std::size_t i = r.ok ? plain_bytes : 0; i < all.size(); ++i) r.clean &= all[i] == 0;
    return r;
  }

  /// Begins an HMAC of one word and stops in state `code`; without a code runs to the end.
  bool hmac_until(int code, const bytes& key, std::set<int>* seen = nullptr) {
    to_wide(dut_->hm_key_i, key, 8);
    dut_->hm_hmac_i = 1;
    dut_->hm_data_i = 0x6b636f6c;
    dut_->hm_bytes_i = 4;
    dut_->hm_last_i = 1;
    dut_->hm_start_i = 1;
    tick();
    dut_->hm_start_i = 0;
    dut_->hm_valid_i = 1;
    for (int i = 0; i < 400; ++i) {
      if (seen != nullptr) seen->insert(hmac_state());
      if (hmac_state() == code) return true;
      dut_->clk_i = 0;
      dut_->eval();
      const bool taken = dut_->hm_valid_i && dut_->hm_ready_o;
      tick();
      if (taken) dut_->hm_valid_i = 0;
    }
    return false;
  }

  /// Begins to unwrap 48 bytes and stops in state `code`; without a code runs to the end.
  bool unwrap_until(int code, const bytes& key, const bytes& cipher,
                    std::set<int>* seen = nullptr) {
    to_wide(dut_->aes_key_i, key, 8);
    for (std::size_t w = 0; w < cipher.size() / 4; ++w) {
      dut_->ct_we_i = 1;
      dut_->ct_addr_i = static_cast<std::uint8_t>(w);
      dut_->ct_data_i = load_le32(&cipher[4 * w]);
      tick();
    }
    dut_->ct_we_i = 0;
    dut_->kwp_sel_i = kKwp48;
    dut_->kwp_start_i = 1 << kKwp48;
    tick();
    dut_->kwp_start_i = 0;
    for (int i = 0; i < kKwpCycles; ++i) {
      if (seen != nullptr) seen->insert(kwp_state());
      if (kwp_state() == code) return true;
      tick();
    }
    return false;
  }

  static constexpr int kKwp48 = 5;         // size_index(48)
  static constexpr int kKwpCycles = 5000;  // more than an unwrapping takes
  std::uint8_t& hmac_state() { return dut_->rootp->key_prims_bench__DOT__u_hmac__DOT__state_q; }
  std::uint8_t& kwp_state() {
    return dut_->rootp->key_prims_bench__DOT__gen_kwp__BRA__5__KET____DOT__u_kwp__DOT__state_q;
  }

  VerilatedContext context_;
  std::unique_ptr<Vkey_prims_bench> dut_;
  std::uint64_t cycles_ = 0;
  std::mt19937_64 rng_{20240531};
};

bytes openssl_sha(const bytes& m) {
  bytes out(32);
  SHA256(m.data(), m.size(), out.data());
  return out;
}

bytes openssl_hmac(const bytes& k, const bytes& m) {
  bytes out(32);
  unsigned n = 32;
  HMAC(EVP_sha256(), k.data(), static_cast<int>(k.size()), m.data(), m.size(), out.data(), &n);
  return out;
}

bytes openssl_aes(const bytes& key, const bytes& in, bool encrypt) {
  std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> c(EVP_CIPHER_CTX_new(),
                                                                    EVP_CIPHER_CTX_free);
  bytes out(in.size() + 16);
  int n = 0;
  EVP_CipherInit_ex(c.get(), EVP_aes_256_ecb(), nullptr, key.data(), nullptr, encrypt);
  EVP_CIPHER_CTX_set_padding(c.get(), 0);
  EVP_CipherUpdate(c.get(), out.data(), &n, in.data(), static_cast<int>(in.size()));
  out.resize(in.size());
  return out;
}

bytes openssl_wrap(const bytes& key, const bytes& in) {
  std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> c(EVP_CIPHER_CTX_new(),
                                                                    EVP_CIPHER_CTX_free);
  EVP_CIPHER_CTX_set_flags(c.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  bytes out(in.size() + 32);
  int n = 0, m = 0;
  if (EVP_EncryptInit_ex(c.get(), EVP_aes_256_wrap_pad(), nullptr, key.data(), nullptr) != 1 ||
      EVP_EncryptUpdate(c.get(), out.data(), &n, in.data(), static_cast<int>(in.size())) != 1 ||
      EVP_EncryptFinal_ex(c.get(), out.data() + n, &m) != 1) {
    throw std::runtime_error("OpenSSL does not wrap");
  }
  out.resize(static_cast<std::size_t>(n + m));
  return out;
}

// ---- SHA-256 -----------------------------------------------------------------------------------

TEST_F(Prims, Sha256NistShortAndLong) {
  int cases = 0;
  for (const char* file : {"SHA256ShortMsg.rsp", "SHA256LongMsg.rsp"}) {
    for (auto& r : read_records(kVectors + "/hashes/SHA2/" + file, "Len")) {
      bytes msg = from_hex(r["Msg"]);
      msg.resize(std::stoul(r["Len"]) / 8);
      ASSERT_EQ(sha(msg), from_hex(r["MD"])) << file << " Len = " << r["Len"];
      ASSERT_EQ(hmac(false, {}, msg).value, from_hex(r["MD"])) << file << " Len = " << r["Len"];
      ++cases;
    }
  }
  EXPECT_EQ(cases, 129);
}

TEST_F(Prims, Sha256NistMonteCarlo) {
  auto records = read_records(kVectors + "/hashes/SHA2/SHA256Monte.rsp", "COUNT");
  ASSERT_EQ(records.size(), 100u);
  std::ifstream in(kVectors + "/hashes/SHA2/SHA256Monte.rsp");
  std::string line, seed_hex;
  while (std::getline(in, line)) {
    if (line.rfind("Seed = ", 0) == 0) seed_hex = line.substr(7, 64);
  }
  bytes seed = from_hex(seed_hex);
  // Three of the hundred rounds of a thousand chained hashes.
  for (int c = 0; c < 3; ++c) {
    bytes a = seed, b = seed, d = seed;
    for (int i = 0; i < 1000; ++i) {
      bytes m = a;
      m.insert(m.end(), b.begin(), b.end());
      m.insert(m.end(), d.begin(), d.end());
      bytes md = sha(m);
      a = b;
      b = d;
      d = md;
    }
    seed = d;
    ASSERT_EQ(seed, from_hex(records[c]["MD"])) << "COUNT = " << c;
  }
}

TEST_F(Prims, Sha256EveryLengthWithStalls) {
  for (std::size_t n = 0; n <= 200; ++n) {
    const bytes m = random_bytes(rng_, n);
    ASSERT_EQ(sha(m, n % 2 ? 128 : 0), openssl_sha(m)) << n << " bytes";
  }
}

TEST_F(Prims, Sha256Wipe) {
  sha(random_bytes(rng_, 100));
  dut_->wipe_i = 1;
  tick();
  dut_->wipe_i = 0;
  EXPECT_EQ(from_wide(dut_->sha_digest_o, 32), bytes(32, 0));
  EXPECT_EQ(sha({'a', 'b', 'c'}), openssl_sha({'a', 'b', 'c'}));
}

// ---- HMAC and HKDF -----------------------------------------------------------------------------

TEST_F(Prims, HmacRfc4231) {
  int cases = 0;
  for (auto& r : read_records(kVectors + "/HMAC/rfc-4231-sha256.txt", "Len")) {
    EXPECT_EQ(hmac_any(from_hex(r["Key"]), from_hex(r["Msg"])), from_hex(r["MD"])) << r["Msg"];
    ++cases;
  }
  EXPECT_EQ(cases, 6);
}

TEST_F(Prims, HmacRandomAgainstOpenssl) {
  for (int i = 0; i < 300; ++i) {
    const bytes key = random_bytes(rng_, 1 + rng_() % 32);
    const bytes msg = random_bytes(rng_, rng_() % 300);
    ASSERT_EQ(hmac(true, key, msg, i % 3 ? 0 : 100).value, openssl_hmac(key, msg))
        << i << ": key " << key.size() << ", message " << msg.size();
  }
}

TEST_F(Prims, HmacHelperSizeTakesConstantTime) {
  std::uint64_t cycles = 0;
  for (int i = 0; i < 5; ++i) {
    const auto r = hmac(true, random_bytes(rng_, 32), random_bytes(rng_, 1056));
    if (i == 0) cycles = r.cycles;
    EXPECT_EQ(r.cycles, cycles);
  }
  RecordProperty("cycles_1056_bytes", std::to_string(cycles));
  EXPECT_LE(cycles, 65u * 20 + 16);
}

TEST_F(Prims, HkdfVectors) {
  int cases = 0;
  for (const char* file : {"rfc-5869-HKDF-SHA256.txt", "hkdf-generated.txt"}) {
    for (auto& r : read_records(kVectors + "/KDF/" + file, "COUNT")) {
      if (r.count("Hash") && r["Hash"] != "SHA-256") continue;
      const bytes prk = hmac_any(from_hex(r["salt"]), from_hex(r["IKM"]));
      if (r.count("PRK")) ASSERT_EQ(prk, from_hex(r["PRK"])) << file << " " << r["COUNT"];
      bytes okm, t;
      const std::size_t length = std::min<std::size_t>(std::stoul(r["L"]), 255 * 32);
      for (std::uint8_t n = 1; okm.size() < length; ++n) {
        bytes m = t;
        const bytes info = from_hex(r["info"]);
        m.insert(m.end(), info.begin(), info.end());
        m.push_back(n);
        t = hmac_any(prk, m);
        okm.insert(okm.end(), t.begin(), t.end());
      }
      okm.resize(length);
      ASSERT_EQ(okm, from_hex(r["OKM"])) << file << " " << r["COUNT"];
      ++cases;
    }
  }
  RecordProperty("cases", cases);
  EXPECT_EQ(cases, 4);
}

// ---- AES-256 -----------------------------------------------------------------------------------

TEST_F(Prims, AesNistEcbDecrypt) {
  int cases = 0;
  for (const char* file : {"ECBGFSbox256.rsp", "ECBKeySbox256.rsp", "ECBVarKey256.rsp",
                           "ECBVarTxt256.rsp", "ECBMMT256.rsp"}) {
    for (auto& r : read_records(kVectors + "/ciphers/AES/ECB/" + file, "COUNT")) {
      const bytes ct = from_hex(r["CIPHERTEXT"]), pt = from_hex(r["PLAINTEXT"]);
      const bytes key = from_hex(r["KEY"]);
      for (std::size_t i = 0; i < ct.size(); i += 16) {
        const bytes c(ct.begin() + i, ct.begin() + i + 16), p(pt.begin() + i, pt.begin() + i + 16);
        // The first block loads the key, the next ones use the window as it was left.
        ASSERT_EQ((i ? decrypt_again(c) : decrypt(key, c)).value, p) << file << " " << r["COUNT"];
        ++cases;
      }
    }
  }
  EXPECT_EQ(cases, 920);
}

TEST_F(Prims, AesRandomManyBlocksUnderOneKeyConstantTime) {
  std::uint64_t cycles = 0;
  for (int k = 0; k < 20; ++k) {
    const bytes key = random_bytes(rng_, 32);
    for (int i = 0; i < 20; ++i) {
      const bytes ct = random_bytes(rng_, 16);
      const auto r = i ? decrypt_again(ct) : decrypt(key, ct);
      ASSERT_EQ(r.value, openssl_aes(key, ct, false));
      if (cycles == 0) cycles = r.cycles;
      ASSERT_EQ(r.cycles, cycles);
    }
  }
  RecordProperty("cycles", std::to_string(cycles));
  EXPECT_EQ(cycles, 114u);
}

// ---- KWP ---------------------------------------------------------------------------------------

TEST_F(Prims, KwpNistDecrypt) {
  int good = 0, bad = 0;
  for (auto& r : read_records(kVectors + "/keywrap/kwtestvectors/KWP_AD_256.txt", "COUNT")) {
    const auto eq = r["section"].find('=');
    const std::size_t plain_bytes = std::stoul(r["section"].substr(eq + 1)) / 8;
    const auto u = unwrap(plain_bytes, from_hex(r["K"]), from_hex(r["C"]));
    const bool expect_ok = r.count("FAIL") == 0;
    ASSERT_EQ(u.ok, expect_ok) << r["section"] << " COUNT = " << r["COUNT"];
    ASSERT_TRUE(u.clean) << r["section"] << " COUNT = " << r["COUNT"];
    if (expect_ok) ASSERT_EQ(u.plain, from_hex(r["P"])) << r["section"] << " " << r["COUNT"];
    ++(expect_ok ? good : bad);
  }
  EXPECT_EQ(good, 400);
  EXPECT_EQ(bad, 100);
}

TEST_F(Prims, KwpRandomAgainstOpensslAndEveryByteFlipped) {
  std::uint64_t cycles = 0;
  for (int i = 0; i < 40; ++i) {
    const bytes key = random_bytes(rng_, 32), plain = random_bytes(rng_, 48);
    const bytes wrapped = openssl_wrap(key, plain);
    ASSERT_EQ(wrapped.size(), 56u);
    const auto u = unwrap(48, key, wrapped);
    ASSERT_TRUE(u.ok && u.clean);
    ASSERT_EQ(u.plain, plain);
    if (cycles == 0) cycles = u.cycles;
    ASSERT_EQ(u.cycles, cycles);
  }
  RecordProperty("cycles", std::to_string(cycles));
  const bytes key = random_bytes(rng_, 32), plain = random_bytes(rng_, 48);
  const bytes wrapped = openssl_wrap(key, plain);
  for (std::size_t b = 0; b < wrapped.size(); ++b) {
    bytes c = wrapped;
    c[b] ^= static_cast<std::uint8_t>(1u << (rng_() % 8));
    const auto u = unwrap(48, key, c);
    ASSERT_FALSE(u.ok) << "byte " << b;
    ASSERT_TRUE(u.clean) << "byte " << b;
    ASSERT_EQ(u.cycles, cycles) << "the time must not tell a good key from a bad one";
  }
  bytes wrong = key;
  wrong[31] ^= 0x80;
  EXPECT_FALSE(unwrap(48, wrong, wrapped).ok);
}

// A key of the wrong length wraps to the same number of blocks; the length field must stop it.
TEST_F(Prims, KwpOtherLengthsAreRefused) {
  for (std::size_t n = 41; n <= 48; ++n) {
    const bytes key = random_bytes(rng_, 32), plain = random_bytes(rng_, n);
    const bytes wrapped = openssl_wrap(key, plain);
    ASSERT_EQ(wrapped.size(), 56u);
    EXPECT_EQ(unwrap(48, key, wrapped).ok, n == 48) << n << " bytes";
  }
}

// ---- faults ------------------------------------------------------------------------------------

/// The states of a machine with each code that one or two flipped bits of six make of it.
template <class Shoot>
void for_every_flip(const std::set<int>& codes, Shoot&& shoot) {
  for (const int code : codes) {
    for (int a = 0; a < 6; ++a) {
      for (int b = a; b < 6; ++b) {  // a == b: one flip
        const int bad = code ^ 1 << a ^ (a == b ? 0 : 1 << b);
        SCOPED_TRACE("state " + std::to_string(code) + " -> " + std::to_string(bad));
        ASSERT_EQ(codes.count(bad), 0u) << "two codes are too near";
        ASSERT_NO_FATAL_FAILURE(shoot(code, bad));
      }
    }
  }
}

TEST_F(Prims, HmacFlippedStateBitsEndWithoutADigest) {
  const bytes key = random_bytes(rng_, 32);
  const int idle = hmac_state();
  std::set<int> codes{idle};
  hmac_until(-1, key, &codes);
  ASSERT_EQ(codes.size(), 6u);
  for_every_flip(codes, [&](int code, int bad) {
    if (code != idle) ASSERT_TRUE(hmac_until(code, key));
    hmac_state() = static_cast<std::uint8_t>(bad);
    dut_->hm_valid_i = 1;  // words go on coming
    for (int i = 0; i < 400; ++i) {
      tick();
      ASSERT_FALSE(dut_->hm_done_o);
      ASSERT_FALSE(dut_->hm_ready_o);
      for (int w = 0; w < 8; ++w)
        ASSERT_EQ(dut_->rootp->key_prims_bench__DOT__u_hmac__DOT__inner_q[w], 0u);
    }
    dut_->hm_valid_i = 0;
    const bytes message = random_bytes(rng_, 70);
    ASSERT_EQ(hmac(true, key, message).value, openssl_hmac(key, message));
  });
}

TEST_F(Prims, KwpFlippedStateBitsEndWithoutAVerdict) {
  const bytes key = random_bytes(rng_, 32), plain = random_bytes(rng_, 48);
  const bytes cipher = openssl_wrap(key, plain);
  const int idle = kwp_state();
  std::set<int> codes{idle};
  unwrap_until(-1, key, cipher, &codes);
  ASSERT_EQ(codes.size(), 6u);
  const auto& ring =
      dut_->rootp->key_prims_bench__DOT__gen_kwp__BRA__5__KET____DOT__u_kwp__DOT__ring_q;
  for_every_flip(codes, [&](int code, int bad) {
    dut_->wipe_i = 1;
    tick();
    dut_->wipe_i = 0;
    if (code != idle) ASSERT_TRUE(unwrap_until(code, key, cipher));
    kwp_state() = static_cast<std::uint8_t>(bad);
    for (int i = 0; i < kKwpCycles; ++i) {
      tick();
      ASSERT_FALSE(dut_->kwp_done_o || dut_->kwp_ok_o);
      for (int w = 0; w < 12; ++w) ASSERT_EQ(ring[w] | dut_->kwp_pt_o[w], 0u);
    }
  });
  const auto again = unwrap(48, key, cipher);
  EXPECT_TRUE(again.ok);
  EXPECT_EQ(again.plain, plain);
}

}  // namespace
