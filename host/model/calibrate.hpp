// Ranges of activations from histograms of their values.
#ifndef LATCHKEY_MODEL_CALIBRATE_HPP
#define LATCHKEY_MODEL_CALIBRATE_HPP

#include <array>
#include <cstddef>
#include <cstdint>

namespace latchkey::model {

/// A range of real values that holds 0.
struct range {
  float lo = 0.0F, hi = 0.0F;
};

/// Values of one tensor in equal bins over the whole range seen.
class histogram {
 public:
  static constexpr std::size_t kBins = 2048;

  histogram() = default;
  explicit histogram(const range& whole);

  void add(float value);

  /// The range without `share` of the values at each end, to whole bins.
  [[nodiscard]] range percentile(double share) const;
  /// The range whose 256 steps have the least squared error over the values.
  [[nodiscard]] range least_error() const;
  /// The range whose 256 steps lose the least information (Kullback-Leibler divergence).
  [[nodiscard]] range least_divergence() const;

 private:
  [[nodiscard]] double value(std::size_t bin) const;
  [[nodiscard]] double error(const range& r) const;
  [[nodiscard]] double divergence(const range& r) const;

  range whole_;
  double width_ = 0;  ///< Of a bin; 0 when all values are 0.
  std::array<std::uint64_t, kBins> bins_{};
};

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_CALIBRATE_HPP
