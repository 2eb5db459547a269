// Bytes, hex, random numbers and the vector files' "name = value" records, for the key block's
// tests.
#pragma once

#include <cctype>
#include <cstdint>
#include <fstream>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace latchkey::test {

using bytes = std::vector<std::uint8_t>;

inline bytes from_hex(const std::string& hex) {
  if (hex.size() % 2 != 0) throw std::invalid_argument("odd number of hex digits: " + hex);
  bytes out;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    out.push_back(static_cast<std::uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  }
  return out;
}

inline bytes random_bytes(std::mt19937_64& rng, std::size_t n) {
  bytes out(n);
  for (auto& b : out) b = static_cast<std::uint8_t>(rng());
  return out;
}

inline std::uint32_t load_le32(const std::uint8_t* p) {
  return p[0] | std::uint32_t{p[1]} << 8 | std::uint32_t{p[2]} << 16 | std::uint32_t{p[3]} << 24;
}

inline void store_le32(std::uint8_t* p, std::uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<std::uint8_t>(v >> (8 * i));
}

/// Copies bytes into a Verilator wide port (32-bit words, least significant first).
template <typename Wide>
void to_wide(Wide& port, const bytes& b, std::size_t words) {
  for (std::size_t w = 0; w < words; ++w) {
    std::uint8_t tmp[4] = {};
    for (std::size_t i = 0; i < 4; ++i) {
      if (4 * w + i < b.size()) tmp[i] = b[4 * w + i];
    }
    port[w] = load_le32(tmp);
  }
}

template <typename Wide>
bytes from_wide(const Wide& port, std::size_t n) {
  bytes out(n);
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = static_cast<std::uint8_t>(port[i / 4] >> (8 * (i % 4)));
  }
  return out;
}

/// One record of a vector file: the "name = value" lines of a paragraph that starts with `first`.
/// Bare words ("FAIL") have an empty value; "section" is the last "[NAME = value]" line.
using record = std::map<std::string, std::string>;

inline std::vector<record> read_records(const std::string& path, const std::string& first) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot open the test vectors " + path);
  std::vector<record> out;
  std::string line, section;
  auto trim = [](std::string s) {
    while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.pop_back();
    while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.erase(0, 1);
    return s;
  };
  while (std::getline(in, line)) {
    line = trim(line);
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '[') {
      section = line;
      continue;
    }
    const auto eq = line.find('=');
    const std::string name = trim(line.substr(0, eq));
    const std::string value = eq == std::string::npos ? "" : trim(line.substr(eq + 1));
    if (name == first) {
      out.emplace_back();
      out.back()["section"] = section;
    }
    if (out.empty()) continue;
    out.back()[name] = value;
  }
  return out;
}

}  // namespace latchkey::test
