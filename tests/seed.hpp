// Seeds of random tests: the same cases in every run, unless LATCHKEY_SEED asks for others.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace latchkey::test {

/// LATCHKEY_SEED, or what the test draws without it.
inline std::uint64_t test_seed(std::uint64_t otherwise) {
  const char* given = std::getenv("LATCHKEY_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : otherwise;
}

}  // namespace latchkey::test
