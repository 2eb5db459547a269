// Looking for a key in anything: as it is, in other byte orders, in hexadecimal and in base64.
#pragma once

#include <openssl/evp.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace latchkey::e2e {

class KeyScan {
 public:
  /// Adds a secret. Each 8-byte part counts as found, so a leak of a part of it shows too.
  void add(const std::string& name, std::span<const std::uint8_t> secret) {
    const std::string raw(secret.begin(), secret.end());
    std::string reversed(raw.rbegin(), raw.rend());
    std::string swapped = raw;
    for (std::size_t i = 0; i + 4 <= swapped.size(); i += 4)
      std::reverse(swapped.begin() + static_cast<std::ptrdiff_t>(i),
                   swapped.begin() + static_cast<std::ptrdiff_t>(i + 4));
    const std::pair<const char*, const std::string*> forms[] = {
        {"", &raw}, {", reversed", &reversed}, {", words swapped", &swapped}};
    for (const auto& [form, text] : forms) {
      for (std::size_t i = 0; i + kPart <= text->size(); i += kPart) {
        const std::string part = text->substr(i, kPart);
        needles_.push_back({name + form, part});
        needles_.push_back({name + form + ", hexadecimal", hex(part, "0123456789abcdef")});
        needles_.push_back({name + form + ", HEXADECIMAL", hex(part, "0123456789ABCDEF")});
      }
      // Base64 depends on what stands before: three alignments, without the outer characters.
      for (std::size_t before = 0; before < 3; ++before) {
        const std::string encoded = base64(std::string(before, 'x') + *text);
        needles_.push_back({name + form + ", base64", encoded.substr(4, encoded.size() - 8)});
      }
    }
  }

  /// Adds a text that must not be found, such as a passphrase.
  void add_text(const std::string& name, const std::string& text) {
    needles_.push_back({name, text});
  }

  /// The names of what `where` holds.
  std::vector<std::string> find(const std::string& where) const {
    std::vector<std::string> found;
    for (const Needle& n : needles_)
      if (where.find(n.text) != std::string::npos) found.push_back(n.name);
    return found;
  }
  std::vector<std::string> find(std::span<const std::uint8_t> where) const {
    return find(std::string(where.begin(), where.end()));
  }

  static std::string hex(const std::string& data, const char* digits) {
    std::string text;
    for (const char c : data) {
      text += digits[static_cast<std::uint8_t>(c) >> 4];
      text += digits[static_cast<std::uint8_t>(c) & 15];
    }
    return text;
  }
  static std::string base64(const std::string& data) {
    std::string text(4 * ((data.size() + 2) / 3) + 1, '\0');
    text.resize(static_cast<std::size_t>(EVP_EncodeBlock(
        reinterpret_cast<std::uint8_t*>(text.data()),
        reinterpret_cast<const std::uint8_t*>(data.data()), static_cast<int>(data.size()))));
    return text;
  }

 private:
  static constexpr std::size_t kPart = 8;
  struct Needle {
    std::string name, text;
  };
  std::vector<Needle> needles_;
};

}  // namespace latchkey::e2e
