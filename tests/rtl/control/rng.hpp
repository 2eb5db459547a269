// A seeded generator for randomised benches: LATCHKEY_SEED replays a run, failures name the seed.
#pragma once

#include <cstdlib>
#include <random>
#include <string>

namespace latchkey::test {

class Rng {
 public:
  explicit Rng(unsigned otherwise) {
    const char* given = std::getenv("LATCHKEY_SEED");
    seed_ = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 0)) : otherwise;
    engine_.seed(seed_);
  }
  unsigned below(unsigned n) { return static_cast<unsigned>(engine_() % n); }
  std::uint32_t word() { return static_cast<std::uint32_t>(engine_()); }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string name() const { return "LATCHKEY_SEED=" + std::to_string(seed_); }

 private:
  unsigned seed_;
  std::mt19937 engine_;
};

}  // namespace latchkey::test
