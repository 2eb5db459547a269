#include "statistics.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace latchkey::campaign {
namespace {

/// Regularised incomplete beta by Lentz's continued fraction.
double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incomplete_beta(b, a, 1 - x);
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x)) /
                       a;
  constexpr double tiny = 1e-300;
  double f = 1, c = 1, d = 0;
  for (int i = 0; i <= 5000; ++i) {
    const int m = i / 2;
    double numerator = 1;
    if (i > 0 && i % 2 == 0) numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    if (i % 2 == 1) numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 + numerator * d;
    d = 1 / (std::fabs(d) < tiny ? tiny : d);
    c = 1 + numerator / c;
    if (std::fabs(c) < tiny) c = tiny;
    f *= c * d;
    if (std::fabs(1 - c * d) < 1e-14) break;
  }
  return front * (f - 1);
}

/// Where an increasing function on (0, 1) reaches `level`.
template <typename F>
double solve(F&& f, double level) {
  double low = 0, high = 1;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (f(middle) < level ? low : high) = middle;
  }
  return (low + high) / 2;
}

/// Mean of f over N(0, 1), Simpson's rule on +-8.
template <typename F>
double normal_mean(F&& f) {
  constexpr int steps = 1600;
  constexpr double h = 16.0 / steps;
  double sum = 0;
  for (int i = 0; i <= steps; ++i) {
    const double x = -8 + i * h;
    const double weight = i == 0 || i == steps ? 1 : i % 2 == 1 ? 4 : 2;
    sum += weight * f(x) * std::exp(-x * x / 2);
  }
  return sum * h / 3 / std::sqrt(2 * 3.14159265358979323846);
}

}  // namespace

interval proportion(std::uint64_t successes, std::uint64_t trials) {
  if (successes > trials) throw std::invalid_argument("more successes than trials");
  if (trials == 0) return {};
  const double k = static_cast<double>(successes), n = static_cast<double>(trials);
  interval out{0, 1};
  const double side = successes == 0 || successes == trials ? 0.05 : 0.025;
  if (successes > 0)
    out.low = solve([&](double p) { return incomplete_beta(k, n - k + 1, p); }, side);
  if (successes < trials)
    out.high = solve([&](double p) { return incomplete_beta(k + 1, n - k, p); }, 1 - side);
  return out;
}

double binomial_point(unsigned n, double p, unsigned k) {
  if (k > n) return 0;
  if (p <= 0) return k == 0 ? 1 : 0;
  if (p >= 1) return k == n ? 1 : 0;
  return std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0) +
                  k * std::log(p) + (n - k) * std::log1p(-p));
}

double binomial_tail(unsigned n, double p, unsigned k) {
  double sum = 0;
  for (unsigned i = n; i > k; --i) sum += binomial_point(n, p, i);
  return std::min(sum, 1.0);
}

double chi_square_tail(double x, double freedom) {
  if (x <= 0 || freedom <= 0) return 1;
  const double a = freedom / 2, y = x / 2;
  const double front = std::exp(a * std::log(y) - y - std::lgamma(a));
  if (y < a + 1) {  // series of the lower part
    double term = 1 / a, sum = term;
    for (int n = 1; n < 10000 && term > sum * 1e-15; ++n) sum += term *= y / (a + n);
    return 1 - front * sum;
  }
  double b = y + 1 - a, c = 1e300, d = 1 / b, h = d;
  for (int i = 1; i < 10000; ++i) {
    const double an = -i * (i - a);
    b += 2;
    d = 1 / (an * d + b);
    c = b + an / c;
    h *= d * c;
    if (std::fabs(d * c - 1) < 1e-15) break;
  }
  return front * h;
}

double normal_tail(double x) { return 0.5 * std::erfc(x / std::sqrt(2.0)); }

double beta_binomial_point(unsigned n, double p, double dispersion, unsigned k) {
  const double rho = (dispersion - 1) / (n - 1);
  if (rho <= 1e-9 || p <= 0 || p >= 1) return binomial_point(n, p, k);
  if (k > n) return 0;
  const double a = p * (1 - rho) / rho, b = (1 - p) * (1 - rho) / rho;
  const auto beta = [](double x, double y) {
    return std::lgamma(x) + std::lgamma(y) - std::lgamma(x + y);
  };
  return std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0) +
                  beta(k + a, n - k + b) - beta(a, b));
}

double beta_binomial_tail(unsigned n, double p, double dispersion, unsigned k) {
  double sum = 0;
  for (unsigned i = n; i > k; --i) sum += beta_binomial_point(n, p, dispersion, i);
  return std::min(sum, 1.0);
}

moments moments_of(const std::vector<std::uint64_t>& counts, unsigned n) {
  moments out;
  double total = 0, sum = 0, squares = 0;
  for (std::size_t k = 0; k < counts.size(); ++k) {
    const double c = static_cast<double>(counts[k]), x = static_cast<double>(k);
    total += c;
    sum += c * x;
    squares += c * x * x;
  }
  if (sum == 0) return out;
  out.mean = sum / total;
  out.p = out.mean / n;
  out.dispersion = (squares / total - out.mean * out.mean) / (n * out.p * (1 - out.p));
  return out;
}

fit goodness_of_fit(const std::vector<std::uint64_t>& counts, unsigned n, double p,
                    double dispersion, int fitted) {
  fit out;
  double total = 0;
  for (std::uint64_t c : counts) total += static_cast<double>(c);
  // Cells from the left; whatever is left at the end joins the last one.
  std::vector<std::pair<double, double>> cells;  // observed, expected
  double observed = 0, expected = 0;
  for (unsigned k = 0; k <= n; ++k) {
    observed += k < counts.size() ? static_cast<double>(counts[k]) : 0;
    expected += total * beta_binomial_point(n, p, dispersion, k);
    if (expected >= 5) {
      cells.emplace_back(observed, expected);
      observed = expected = 0;
    }
  }
  if (cells.empty()) return out;
  cells.back().first += observed;
  cells.back().second += expected;
  out.freedom = std::max(0, static_cast<int>(cells.size()) - 1 - fitted);
  if (out.freedom == 0) return out;
  for (auto [o, e] : cells) out.chi_square += (o - e) * (o - e) / e;
  out.p_value = chi_square_tail(out.chi_square, out.freedom);
  return out;
}

double most_common_value(std::uint64_t ones, std::uint64_t samples) {
  if (samples < 2) return 0;
  const double n = static_cast<double>(samples);
  const double share = static_cast<double>(std::max(ones, samples - ones)) / n;
  const double bound = std::min(1.0, share + 2.576 * std::sqrt(share * (1 - share) / (n - 1)));
  return -std::log2(bound);
}

double markov(std::uint64_t ones, std::uint64_t samples, const std::uint64_t transitions[2][2]) {
  if (samples == 0) return 0;
  const double p1 = static_cast<double>(ones) / static_cast<double>(samples);
  const std::array<double, 2> first{1 - p1, p1};
  double log[2][2];
  for (int a = 0; a < 2; ++a) {
    const double row = static_cast<double>(transitions[a][0] + transitions[a][1]);
    for (int b = 0; b < 2; ++b)
      log[a][b] = row == 0 ? -1e9 : std::log2(static_cast<double>(transitions[a][b]) / row);
  }
  const double log0 = std::log2(first[0]), log1 = std::log2(first[1]);
  const double likeliest =
      std::max({log0 + 127 * log[0][0], log0 + 64 * log[0][1] + 63 * log[1][0],
                log0 + log[0][1] + 126 * log[1][1], log1 + log[1][0] + 126 * log[0][0],
                log1 + 64 * log[1][0] + 63 * log[0][1], log1 + 127 * log[1][1]});
  return std::min(1.0, -likeliest / 128);
}

unsigned bch_message_bits(unsigned errors) {
  std::array<bool, 255> root{};
  for (unsigned j = 1; j <= 2 * errors && j < 255; ++j) {
    for (unsigned e = j, n = 0; n < 8; e = 2 * e % 255, ++n) root[e] = true;
  }
  return 255 - static_cast<unsigned>(std::count(root.begin(), root.end(), true));
}

double kept_share(double margin) { return 2 * normal_tail(margin); }

double kept_bit_error(double margin, double drift) {
  if (drift <= 0) return 0;
  constexpr int steps = 4000;
  const double h = 10.0 / steps;  // from the margin to ten sigma beyond
  double sum = 0;
  for (int i = 0; i <= steps; ++i) {
    const double x = margin + i * h;
    const double weight = i == 0 || i == steps ? 1 : i % 2 == 1 ? 4 : 2;
    sum += weight * std::exp(-x * x / 2) * normal_tail(x / drift);
  }
  return sum * h / 3 / std::sqrt(2 * 3.14159265358979323846) / normal_tail(margin);
}

double kept_min_entropy(double margin, double skew) {
  const double entropy = normal_mean([&](double z) {
    const double one = normal_tail(margin - skew * z), zero = normal_tail(margin + skew * z);
    return -(one + zero) * std::log2(std::max(one, zero) / (one + zero));
  });
  const double kept_mean = normal_mean(
      [&](double z) { return normal_tail(margin - skew * z) + normal_tail(margin + skew * z); });
  return entropy / kept_mean;
}

}  // namespace latchkey::campaign
