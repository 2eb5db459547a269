// Fields of the JSON files of this room. Each throws latchkey::error (bad_file) naming the file and
// the field.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"

namespace latchkey::lock {

[[noreturn]] inline void bad(const std::string& what, const std::string& message) {
  throw error(errc::bad_file, what + ": " + message);
}

inline const nlohmann::json& member(const nlohmann::json& j, const char* key,
                                    const std::string& what) {
  const auto it = j.find(key);
  if (it == j.end()) bad(what, std::string("field '") + key + "' is missing");
  return *it;
}

inline std::string text_member(const nlohmann::json& j, const char* key, const std::string& what) {
  const nlohmann::json& m = member(j, key, what);
  if (!m.is_string()) bad(what, std::string("field '") + key + "' is not a text");
  return m.get<std::string>();
}

inline std::uint64_t number_member(const nlohmann::json& j, const char* key, std::uint64_t max,
                                   const std::string& what) {
  const nlohmann::json& m = member(j, key, what);
  if (!m.is_number_unsigned() || m.get<std::uint64_t>() > max)
    bad(what,
        std::string("field '") + key + "' is not a whole number up to " + std::to_string(max));
  return m.get<std::uint64_t>();
}

/// N bytes in hexadecimal.
template <std::size_t N>
std::array<std::uint8_t, N> hex_member(const nlohmann::json& j, const char* key,
                                       const std::string& what) {
  const io::bytes data = io::from_hex(text_member(j, key, what), what + ", " + key);
  if (data.size() != N)
    bad(what, std::string("field '") + key + "' is not " + std::to_string(N) + " bytes");
  std::array<std::uint8_t, N> out{};
  std::copy(data.begin(), data.end(), out.begin());
  return out;
}

}  // namespace latchkey::lock
