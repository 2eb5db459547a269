// Software twin of the key block, on OpenSSL: what enrolment makes and what a package for the
// device holds.
//
// It follows the published formats and shares nothing with the hardware: BCH by long division with
// a generator computed from the field, HMAC and key wrap by OpenSSL.
#pragma once

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <bitset>
#include <cstring>
#include <memory>
#include <numeric>
#include <set>
#include <stdexcept>

#include "bytes.h"

namespace latchkey::test {

inline constexpr std::size_t kScanBits = 6144, kResponseBits = 2040, kBlock = 255, kMessage = 131;

inline bytes hmac_sha256(const bytes& key, const bytes& msg) {
  bytes out(32);
  unsigned n = 32;
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), msg.data(), msg.size(),
           out.data(), &n) == nullptr) {
    throw std::runtime_error("HMAC failed");
  }
  return out;
}

inline bytes sha256(const bytes& msg) {
  bytes out(32);
  SHA256(msg.data(), msg.size(), out.data());
  return out;
}

/// AES-256-KWP (RFC 5649).
inline bytes kwp_wrap(const bytes& kek, const bytes& plain) {
  std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> c(EVP_CIPHER_CTX_new(),
                                                                    EVP_CIPHER_CTX_free);
  EVP_CIPHER_CTX_set_flags(c.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  bytes out(plain.size() + 32);
  int n = 0, m = 0;
  if (EVP_EncryptInit_ex(c.get(), EVP_aes_256_wrap_pad(), nullptr, kek.data(), nullptr) != 1 ||
      EVP_EncryptUpdate(c.get(), out.data(), &n, plain.data(), static_cast<int>(plain.size())) !=
          1 ||
      EVP_EncryptFinal_ex(c.get(), out.data() + n, &m) != 1) {
    throw std::runtime_error("key wrap failed");
  }
  out.resize(static_cast<std::size_t>(n + m));
  return out;
}

/// Generator of BCH(255, 131, 18) over GF(2^8)/0x11D: the polynomial with the roots alpha^1 to
/// alpha^36 and their conjugates. Index = power of x.
inline const std::vector<int>& bch_generator() {
  static const std::vector<int> generator = [] {
    std::vector<unsigned> power(255), log(256);
    for (unsigned i = 0, x = 1; i < 255; ++i) {
      power[i] = x;
      log[x] = i;
      x <<= 1;
      if (x & 256) x ^= 0x11D;
    }
    std::set<unsigned> roots;
    for (unsigned j = 1; j <= 36; ++j) {
      for (unsigned k = 0, r = j; k < 8; ++k, r = r * 2 % 255) roots.insert(r);
    }
    std::vector<unsigned> g{1};
    for (unsigned r : roots) {
      std::vector<unsigned> h(g.size() + 1);
      for (std::size_t i = 0; i < g.size(); ++i) {
        h[i + 1] ^= g[i];
        if (g[i]) h[i] ^= power[(log[g[i]] + r) % 255];
      }
      g = h;
    }
    std::vector<int> out;
    for (unsigned v : g) {
      if (v > 1) throw std::logic_error("the generator is not binary");
      out.push_back(static_cast<int>(v));
    }
    if (out.size() != kBlock - kMessage + 1) throw std::logic_error("wrong generator degree");
    return out;
  }();
  return generator;
}

/// Systematic code word; position 0 is the coefficient of x^254.
inline std::vector<bool> bch_encode(const std::vector<bool>& message) {
  const auto& g = bch_generator();
  std::vector<bool> rem(message);
  rem.resize(kBlock);
  for (std::size_t i = 0; i < kMessage; ++i) {
    if (!rem[i]) continue;
    for (std::size_t k = 0; k < g.size(); ++k) rem[i + k] = rem[i + k] ^ (g[g.size() - 1 - k] != 0);
  }
  std::vector<bool> word(message);
  word.insert(word.end(), rem.begin() + kMessage, rem.end());
  return word;
}

inline bool get_bit(const bytes& b, std::size_t i) { return b[i / 8] >> (i % 8) & 1; }
inline void set_bit(bytes& b, std::size_t i, bool v) {
  b[i / 8] = static_cast<std::uint8_t>((b[i / 8] & ~(1u << (i % 8))) | unsigned{v} << (i % 8));
}

/// Key(label, slot, epoch) of the ladder.
inline bytes ladder_key(const bytes& prk, const std::string& label, std::uint8_t slot,
                        std::uint32_t epoch) {
  bytes info(33);
  std::memcpy(info.data(), label.data(), label.size());
  info[16] = slot;
  store_le32(&info[20], epoch);
  info[32] = 1;
  return hmac_sha256(prk, info);
}

inline bytes extract(const bytes& device_id, const bytes& response) {
  bytes salt = device_id;
  salt.resize(20);
  store_le32(&salt[16], 1);
  return hmac_sha256(salt, response);
}

/// An enrolled device: its noiseless responses (bit = challenge * 96 + chain), helper data and PRK.
struct device {
  bytes scan = bytes(kScanBits / 8);
  bytes id, mask = bytes(kScanBits / 8), response = bytes(256), helper, prk;
  std::vector<std::size_t> where;  // scan positions of the 2,040 bits

  void sign() {
    const bytes body(helper.begin(), helper.begin() + 1056);
    const bytes tag = hmac_sha256(ladder_key(prk, "helper-mac", 0, 0), body);
    std::copy(tag.begin(), tag.end(), helper.begin() + 1056);
  }
  bytes kek(std::uint8_t slot, std::uint32_t epoch) const {
    return ladder_key(root(slot), "owner-kek", slot, epoch);
  }
  /// The root of an owner slot, and the keys of its attestations and tickets.
  bytes root(std::uint8_t slot) const { return ladder_key(prk, "owner-root", slot, 0); }
  bytes attest_key(std::uint8_t slot) const { return ladder_key(root(slot), "attest", slot, 0); }
  bytes ticket_key(std::uint8_t slot) const { return ladder_key(root(slot), "ticket", slot, 0); }
};

inline device make_device(std::mt19937_64& rng) {
  device d;
  d.scan = random_bytes(rng, kScanBits / 8);
  d.id = random_bytes(rng, 16);
  std::vector<std::size_t> order(kScanBits);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), rng);
  d.where.assign(order.begin(), order.begin() + kResponseBits);
  std::sort(d.where.begin(), d.where.end());
  bytes offset(256);
  for (std::size_t b = 0; b < 8; ++b) {
    std::vector<bool> message(kMessage);
    for (std::size_t i = 0; i < kMessage; ++i) message[i] = rng() & 1;
    const auto word = bch_encode(message);
    for (std::size_t i = 0; i < kBlock; ++i) {
      const std::size_t j = b * kBlock + i;
      const bool r = get_bit(d.scan, d.where[j]);
      set_bit(d.response, j, r);
      set_bit(d.mask, d.where[j], true);
      set_bit(offset, j, r ^ word[i]);
    }
  }
  d.response.resize(255);
  d.prk = extract(d.id, d.response);
  d.helper.assign({'L', 'K', 'H', 'D', 1, 0, 0, 0});
  d.helper.insert(d.helper.end(), d.id.begin(), d.id.end());
  d.helper.resize(32);
  d.helper[24] = 64;  // margin
  d.helper.insert(d.helper.end(), d.mask.begin(), d.mask.end());
  d.helper.insert(d.helper.end(), offset.begin(), offset.end());
  d.helper.resize(1088);
  d.sign();
  return d;
}

struct manifest_fields {
  std::uint32_t version = 3, config = 0, pages = 40, desc_pages = 2, descs = 9, locks = 1, slot = 5,
                epoch = 7, flags = 0;
};

inline bytes make_manifest(std::mt19937_64& rng, const bytes& device_id, const manifest_fields& f) {
  bytes m(128);
  std::memcpy(m.data(), "LKMF", 4);
  store_le32(&m[4], 1);
  const bytes model = random_bytes(rng, 16);
  std::copy(model.begin(), model.end(), m.begin() + 8);
  store_le32(&m[24], f.version);
  store_le32(&m[28], f.config);
  std::copy(device_id.begin(), device_id.end(), m.begin() + 32);
  store_le32(&m[48], f.pages);
  store_le32(&m[52], f.desc_pages);
  store_le32(&m[56], f.descs);
  store_le32(&m[60], f.locks);
  store_le32(&m[64], f.slot);
  store_le32(&m[68], f.epoch);
  store_le32(&m[72], 8);
  store_le32(&m[76], f.flags);
  store_le32(&m[88], 196);
  store_le32(&m[92], 3);
  return m;
}

/// The wrapped key of a package: AES-256-KWP(KEK, model key | SHA-256(manifest)).
inline bytes wrap_model_key(const bytes& kek, const bytes& dek, const bytes& manifest) {
  bytes plain = dek;
  const bytes hash = sha256(manifest);
  plain.insert(plain.end(), hash.begin(), hash.end());
  return kwp_wrap(kek, plain);
}

}  // namespace latchkey::test
