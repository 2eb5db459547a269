// A seeded generator for randomised benches: LATCHKEY_SEED replays a run, failures name the seed.
#pragma once

#include <random>
#include <string>

#include "seed.hpp"

namespace latchkey::test {

class Rng {
 public:
  explicit Rng(unsigned otherwise)
      : seed_(static_cast<unsigned>(test_seed(otherwise))), engine_(seed_) {}
  unsigned below(unsigned n) { return static_cast<unsigned>(engine_() % n); }
  std::uint32_t word() { return static_cast<std::uint32_t>(engine_()); }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string name() const { return "LATCHKEY_SEED=" + std::to_string(seed_); }

 private:
  unsigned seed_;
  std::mt19937 engine_;
};

}  // namespace latchkey::test
