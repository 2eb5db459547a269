// Exact intervals, tails and tests for counts. No sampling, no tables.
#pragma once

#include <cstdint>
#include <vector>

namespace latchkey::campaign {

struct interval {
  double low = 0, high = 1;
};

/// Clopper-Pearson interval of a proportion at 95 % (two-sided); for no successes the upper bound
/// is the one-sided one, close to the rule of three.
interval proportion(std::uint64_t successes, std::uint64_t trials);

/// P(X > k) of a binomial; precise down to 1e-300.
double binomial_tail(unsigned n, double p, unsigned k);
/// P(X = k).
double binomial_point(unsigned n, double p, unsigned k);

/// The same for a beta-binomial, whose rate varies from trial to trial so that the variance is
/// `dispersion` times the binomial's; a dispersion of 1 or less is the binomial.
double beta_binomial_tail(unsigned n, double p, double dispersion, unsigned k);
double beta_binomial_point(unsigned n, double p, double dispersion, unsigned k);

/// P(chi-square with `freedom` degrees >= x).
double chi_square_tail(double x, double freedom);

/// Standard normal: P(X > x).
double normal_tail(double x);

struct fit {
  double chi_square = 0;
  int freedom = 0;  ///< 0: too few filled cells to test anything
  double p_value = 1;
};
struct moments {
  double mean = 0;
  double p = 0;           ///< mean / n
  double dispersion = 0;  ///< variance over that of the binomial
};
/// Of `counts[k]` observations of k events in n.
moments moments_of(const std::vector<std::uint64_t>& counts, unsigned n);
/// Goodness of fit of the same against a beta-binomial whose parameters, `fitted` of them, come
/// from the counts. Cells expected to hold fewer than five are merged with their neighbours.
fit goodness_of_fit(const std::vector<std::uint64_t>& counts, unsigned n, double p,
                    double dispersion, int fitted);

/// Min-entropy per bit by the most common value (NIST SP 800-90B, 6.3.1): minus log2 of the upper
/// 99 % bound of the larger share.
double most_common_value(std::uint64_t ones, std::uint64_t samples);

/// Min-entropy per bit of a first-order Markov chain (SP 800-90B, 6.3.3) from counts of ones,
/// samples, and transitions[from][to]: of the likeliest sequence of 128 bits.
double markov(std::uint64_t ones, std::uint64_t samples, const std::uint64_t transitions[2][2]);

/// Message bits of the narrow-sense binary BCH code of length 255 that corrects `errors`.
unsigned bch_message_bits(unsigned errors);

/// The model in closed form: probability that a bit kept at `margin` sigma changes sign when the
/// difference of arrival moves by N(0, drift^2), without noise.
double kept_bit_error(double margin, double drift);

/// Share of the bits kept at `margin`.
double kept_share(double margin);

/// Min-entropy per kept bit, given the place, for a lot whose layout adds N(0, skew^2) to all its
/// dice alike: the mean over places of -log2 max(P(0), P(1)) given that the bit is kept.
double kept_min_entropy(double margin, double skew);

}  // namespace latchkey::campaign
