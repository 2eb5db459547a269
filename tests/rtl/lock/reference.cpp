#include "reference.h"

#include <openssl/evp.h>

#include <fstream>
#include <memory>
#include <stdexcept>

namespace latchkey::test {
namespace {

using Ctx = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

void check(int rc, const char* what) {
  if (rc != 1) throw std::runtime_error(std::string("OpenSSL: ") + what);
}

std::string trim(const std::string& s) {
  const auto b = s.find_first_not_of(" \t\r\n");
  if (b == std::string::npos) return {};
  return s.substr(b, s.find_last_not_of(" \t\r\n") - b + 1);
}

}  // namespace

void seal(GcmMessage& m) {
  Ctx ctx(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  int n = 0;
  check(EVP_EncryptInit_ex(ctx.get(), EVP_aes_128_gcm(), nullptr, m.key.data(), m.iv.data()),
        "init");
  if (!m.aad.empty()) {
    check(EVP_EncryptUpdate(ctx.get(), nullptr, &n, m.aad.data(), static_cast<int>(m.aad.size())),
          "aad");
  }
  m.ciphertext.resize(m.plaintext.size());
  if (!m.plaintext.empty()) {
    check(EVP_EncryptUpdate(ctx.get(), m.ciphertext.data(), &n, m.plaintext.data(),
                            static_cast<int>(m.plaintext.size())),
          "update");
  }
  uint8_t none[16];
  check(EVP_EncryptFinal_ex(ctx.get(), none, &n), "final");
  m.tag.resize(16);
  check(EVP_CIPHER_CTX_ctrl(ctx.get(), EVP_CTRL_GCM_GET_TAG, 16, m.tag.data()), "tag");
}

std::array<uint8_t, 16> aes128_encrypt(const uint8_t* key, const uint8_t* block) {
  Ctx ctx(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::array<uint8_t, 16> out{};
  int n = 0;
  check(EVP_EncryptInit_ex(ctx.get(), EVP_aes_128_ecb(), nullptr, key, nullptr), "init");
  check(EVP_CIPHER_CTX_set_padding(ctx.get(), 0), "padding");
  check(EVP_EncryptUpdate(ctx.get(), out.data(), &n, block, 16), "update");
  return out;
}

Bytes from_hex(const std::string& hex) {
  if (hex.size() % 2 != 0) throw std::runtime_error("odd hex string: " + hex);
  Bytes b(hex.size() / 2);
  for (size_t i = 0; i < b.size(); ++i) {
    b[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return b;
}

std::vector<NistRecord> read_rsp(const std::string& path) {
  std::ifstream in(path);
  if (!in) {
    throw std::runtime_error("cannot open " + path +
                             ": install python3-cryptography-vectors or set LATCHKEY_NIST_VECTORS");
  }
  std::vector<NistRecord> records;
  NistRecord settings, current;
  const auto flush = [&] {
    if (current.empty()) return;
    NistRecord r = settings;
    for (auto& [k, v] : current) r[k] = v;
    records.push_back(r);
    current.clear();
  };
  std::string line;
  while (std::getline(in, line)) {
    line = trim(line);
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '[') {
      flush();
      const std::string body = line.substr(1, line.size() - 2);
      const auto eq = body.find('=');
      if (eq == std::string::npos) {
        settings["section"] = trim(body);
      } else {
        settings[trim(body.substr(0, eq))] = trim(body.substr(eq + 1));
      }
      continue;
    }
    const auto eq = line.find('=');
    const std::string name = trim(line.substr(0, eq));
    if (name == "Count" || name == "COUNT") flush();
    current[name] = eq == std::string::npos ? "" : trim(line.substr(eq + 1));
  }
  flush();
  return records;
}

Bytes random_bytes(std::mt19937_64& rng, size_t n) {
  Bytes b(n);
  for (auto& x : b) x = static_cast<uint8_t>(rng());
  return b;
}

}  // namespace latchkey::test
