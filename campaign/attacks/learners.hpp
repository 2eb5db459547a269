// Learners that model a PUF from challenges and responses. Each is the textbook form of a published
// attack, small and deterministic: the same seed gives the same model on one machine.
//
// A challenge enters as its parity transform phi, 65 numbers +1 or -1, in which an arbiter chain is
// linear (silicon.h).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "latchkey/sim/compositions.h"

namespace latchkey::campaign::attacks {

inline constexpr unsigned features = sim::puf_stages + 1;

/// phi of a challenge.
void transform(std::uint64_t challenge, float* phi);

/// What an attacker with raw access collects.
struct crps {
  std::vector<std::uint64_t> challenges;
  std::vector<float> phi;     ///< features per challenge
  std::vector<float> answer;  ///< +1 or -1, of the first reading
  std::vector<float>
      reliability;  ///< |ones - half| of `readings` readings; empty when one was made
  [[nodiscard]] std::size_t size() const { return challenges.size(); }
};

/// `n` random challenges, answered with noise; `readings` > 1 also measures reliability.
crps collect(sim::Silicon& die, const sim::Composition& what, std::size_t n, unsigned readings,
             std::uint64_t seed);
/// Adds one challenge with its answer.
void add(crps& to, sim::Silicon& die, const sim::Composition& what, std::uint64_t challenge);

/// A model: the sign of what it returns predicts the answer (+1 or -1), its size the certainty.
using model = std::function<float(const float* phi)>;

/// Share of `n` fresh random challenges whose noiseless answer the model predicts.
double accuracy(const model& m, const sim::Silicon& die, const sim::Composition& what,
                std::size_t n, std::uint64_t seed);

/// Logistic regression on the product of k linear forms (Ruehrmair et al. 2010; Soelter 2009), by
/// Adam on mini-batches; `restarts` random beginnings, of which the best on the training data wins.
model logistic_regression(const crps& data, unsigned k, unsigned epochs, unsigned restarts,
                          std::uint64_t seed);

/// Multilayer perceptron, three hidden layers of tanh (2^(k-1), 2^k, 2^(k-1) units, at least 8, as
/// Mursi et al. 2020), by Adam on mini-batches.
model perceptron(const crps& data, unsigned k, unsigned epochs, std::uint64_t seed);

/// Reliability attack: chain by chain, weights are found whose |w . phi| correlates with the
/// measured reliability (Becker 2015). Becker searches by CMA-ES; this follows the gradient of the
/// correlation (Tobisch, Aghaie, Becker 2021), which is the lighter form. `restarts` beginnings;
/// beginnings that end in a chain already known are dropped.
struct reliability_result {
  unsigned chains_found = 0;  ///< of k
  model predict;              ///< of all k; a coin when some were not found
};
reliability_result reliability_attack(const crps& data, unsigned k, unsigned epochs,
                                      unsigned restarts, std::uint64_t seed);

/// The ascent by itself: unit weights, and the correlation of |w . phi| with `target` they reach.
struct correlated {
  std::array<float, features> w{};
  double correlation = 0;
};
correlated correlate(const float* phi, const std::vector<float>& target, unsigned epochs,
                     std::uint64_t seed);

}  // namespace latchkey::campaign::attacks
