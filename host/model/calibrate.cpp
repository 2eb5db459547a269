#include "model/calibrate.hpp"

#include <algorithm>
#include <cmath>

namespace latchkey::model {
namespace {

constexpr int kSteps = 255;
/// Candidates for each end of a range: this many, from all of it down to a quarter.
constexpr int kCandidates = 48;

float candidate(float end, int i) {
  return end * (1.0F - 0.75F * static_cast<float>(i) / (kCandidates - 1));
}

}  // namespace

histogram::histogram(const range& whole)
    : whole_(whole), width_((static_cast<double>(whole.hi) - whole.lo) / kBins) {}

void histogram::add(float value) {
  if (!(width_ > 0.0)) return;
  const auto bin = static_cast<std::size_t>((static_cast<double>(value) - whole_.lo) / width_);
  ++bins_[std::min(bin, kBins - 1)];
}

double histogram::value(std::size_t bin) const {
  return whole_.lo + width_ * (static_cast<double>(bin) + 0.5);
}

range histogram::percentile(double share) const {
  if (!(width_ > 0.0)) return whole_;
  std::uint64_t total = 0;
  for (const std::uint64_t n : bins_) total += n;
  const double spare = share * static_cast<double>(total);
  std::size_t low = 0;
  std::size_t high = kBins;
  for (double n = 0; low < kBins && (n += static_cast<double>(bins_[low])) <= spare;) ++low;
  for (double n = 0; high > 0 && (n += static_cast<double>(bins_[high - 1])) <= spare;) --high;
  const double lo = whole_.lo;
  return {std::min(0.0F, static_cast<float>(lo + width_ * static_cast<double>(low))),
          std::max(0.0F, static_cast<float>(lo + width_ * static_cast<double>(high)))};
}

double histogram::error(const range& r) const {
  const double step = (static_cast<double>(r.hi) - r.lo) / kSteps;
  double sum = 0;
  for (std::size_t b = 0; b < kBins; ++b) {
    if (bins_[b] == 0) continue;
    const double v = value(b);
    // Beyond the range the distance to its end, inside it the mean of a step's rounding.
    const double beyond = v < r.lo ? r.lo - v : v > r.hi ? v - r.hi : 0.0;
    sum += static_cast<double>(bins_[b]) * (beyond * beyond + step * step / 12);
  }
  return sum;
}

range histogram::least_error() const {
  if (!(width_ > 0.0)) return whole_;
  range best = whole_;
  double least = error(whole_);
  for (int i = 0; i < kCandidates; ++i) {
    for (int j = 0; j < kCandidates; ++j) {
      const range r{candidate(whole_.lo, i), candidate(whole_.hi, j)};
      const double e = error(r);
      if (e < least) {
        least = e;
        best = r;
      }
      if (!(whole_.hi > 0.0F)) break;
    }
    if (!(whole_.lo < 0.0F)) break;
  }
  return best;
}

double histogram::divergence(const range& r) const {
  // P: the values, those beyond the range moved to its ends. Q: P in 256 steps, each step's sum
  // spread evenly over its bins that hold anything.
  const auto bin = [&](double v) {
    return static_cast<std::size_t>(
        std::clamp((v - whole_.lo) / width_, 0.0, static_cast<double>(kBins - 1)));
  };
  const std::size_t first = bin(r.lo);
  const std::size_t last = bin(r.hi);
  std::array<double, kBins> p{};
  double total = 0;
  for (std::size_t b = 0; b < kBins; ++b) {
    const auto n = static_cast<double>(bins_[b]);
    p[std::clamp(b, first, last)] += n;
    total += n;
  }
  const std::size_t bins = last - first + 1;
  double sum = 0;
  for (std::size_t s = 0; s <= kSteps; ++s) {
    const std::size_t from = first + bins * s / (kSteps + 1);
    const std::size_t to = first + bins * (s + 1) / (kSteps + 1);
    double held = 0;
    double inside = 0;
    std::size_t filled = 0;
    for (std::size_t b = from; b < to; ++b) {
      held += p[b];
      // Q knows what lies inside the range only.
      inside += static_cast<double>(bins_[b]);
      filled += bins_[b] > 0 ? 1U : 0U;
    }
    if (!(held > 0.0)) continue;
    for (std::size_t b = from; b < to; ++b) {
      if (!(p[b] > 0.0)) continue;
      const double q = filled > 0 ? inside / static_cast<double>(filled) : 0.0;
      sum += p[b] / total * std::log(p[b] / std::max(q, 1e-6));
    }
  }
  return sum;
}

range histogram::least_divergence() const {
  if (!(width_ > 0.0)) return whole_;
  // One end after the other: a range that is cut on one side only is what outliers ask for.
  range best = whole_;
  double least = divergence(whole_);
  for (const bool upper : {true, false}) {
    for (int i = 0; i < kCandidates; ++i) {
      range r = best;
      (upper ? r.hi : r.lo) = candidate(upper ? whole_.hi : whole_.lo, i);
      const double d = divergence(r);
      if (d < least) {
        least = d;
        best = r;
      }
    }
  }
  return best;
}

}  // namespace latchkey::model
