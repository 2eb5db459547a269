// The integer arithmetic of Latchkey, bit for bit what the accelerator's post unit computes.
//
// Requantisation of an int32 accumulator follows ONNX Runtime's float path exactly, with integers
// only: the float32 multiplier m = fl32(fl32(sx * sw) / sy) is split into a 24-bit mantissa and a
// shift, and the two places where float32 arithmetic rounds (int32 -> float32, and the product) are
// rounded here to 24 significant bits, half to even.
#ifndef LATCHKEY_MODEL_ARITH_HPP
#define LATCHKEY_MODEL_ARITH_HPP

#include <bit>
#include <cstdint>

namespace latchkey::model {

/// v rounded to 24 significant bits of its magnitude, half to even: what float32 keeps of it.
constexpr std::int64_t rn24(std::int64_t v) noexcept {
  const bool negative = v < 0;
  const std::uint64_t mag =
      negative ? 0 - static_cast<std::uint64_t>(v) : static_cast<std::uint64_t>(v);
  const int width = static_cast<int>(std::bit_width(mag));
  if (width <= 24) return v;
  const int drop = width - 24;
  const std::uint64_t half = std::uint64_t{1} << (drop - 1);
  const std::uint64_t rest = mag & ((half << 1) - 1);
  std::uint64_t kept = mag >> drop;
  if (rest > half || (rest == half && (kept & 1) != 0)) ++kept;
  kept <<= drop;
  const auto out = static_cast<std::int64_t>(kept);
  return negative ? -out : out;
}

/// v / 2^s rounded to the nearest integer, half to even. 0 <= s <= 63.
constexpr std::int64_t rne_shift(std::int64_t v, unsigned s) noexcept {
  if (s == 0) return v;
  const std::int64_t floor = v >> s;
  const std::uint64_t rest = static_cast<std::uint64_t>(v) & ((std::uint64_t{1} << s) - 1);
  const std::uint64_t half = std::uint64_t{1} << (s - 1);
  if (rest > half || (rest == half && (floor & 1) != 0)) return floor + 1;
  return floor;
}

/// The multiplier of one output channel: multiplier * 2^-shift.
struct requant {
  std::uint32_t multiplier = 0;  ///< 0, or 2^23 <= multiplier < 2^24.
  std::uint8_t shift = 0;        ///< 0..63.
  friend bool operator==(const requant&, const requant&) = default;
};

/// acc * multiplier * 2^-shift, rounded as float32 would; without zero point and clamp.
constexpr std::int64_t apply(const requant& r, std::int32_t acc) noexcept {
  const std::int64_t product = rn24(acc) * static_cast<std::int64_t>(r.multiplier);
  return rne_shift(rn24(product), r.shift);
}

/// clamp(apply(r, acc) + zero_point, lo, hi) on unsigned bytes.
constexpr std::uint8_t requantise(const requant& r, std::int32_t acc, std::uint8_t zero_point,
                                  std::uint8_t lo, std::uint8_t hi) noexcept {
  const std::int64_t t = apply(r, acc) + zero_point;
  return static_cast<std::uint8_t>(t < lo ? lo : (t > hi ? hi : t));
}

/// floor((2^34 - 1) / m) of v's leading 18 bits m in [2^17, 2^18): 1 / v is about
/// reciprocal(v) * 2^(-16 - bits(v)), at most 2^-16 off. v > 0; the result has 17 bits.
constexpr std::uint32_t reciprocal(std::uint64_t v) noexcept {
  const int length = static_cast<int>(std::bit_width(v));
  const std::uint64_t m = length <= 18 ? v << (18 - length) : v >> (length - 18);
  return static_cast<std::uint32_t>(((std::uint64_t{1} << 34) - 1) / m);
}

/// floor(sqrt(v)), v < 2^36: bit by bit, as the accelerator does it.
constexpr std::uint32_t square_root(std::uint64_t v) noexcept {
  std::uint32_t root = 0;
  for (int bit = 17; bit >= 0; --bit) {
    const std::uint32_t tried = root | std::uint32_t{1} << bit;
    if (std::uint64_t{tried} * tried <= v) root = tried;
  }
  return root;
}

/// d / sqrt(v) in units of 2^-16, for |d| < 2^20 and 0 < v < 2^40: d * reciprocal(root) shifted
/// right, rounded down, with root the root of v's leading 36 bits (35 where v has an odd length).
constexpr std::int32_t normalised(std::int32_t d, std::uint64_t v) noexcept {
  const int length = static_cast<int>(std::bit_width(v) + 1) / 2 * 2;
  const std::uint64_t m = length <= 36 ? v << (36 - length) : v >> (length - 36);
  const std::int64_t product = std::int64_t{d} * reciprocal(square_root(m));
  return static_cast<std::int32_t>(product >> (length / 2));
}

/// Splits fl32(fl32(sx * sw) / sy). A multiplier too small to move any int32 accumulator becomes 0,
/// which is exact. Throws latchkey::error (unsupported_model) for scales that are not positive and
/// finite, and for a multiplier of 2^24 or more.
requant make_requant(float input_scale, float weight_scale, float output_scale);

/// clamp(rne(x / scale) + zero_point, 0, 255): QuantizeLinear of ONNX. NaN becomes the zero point.
std::uint8_t quantise_value(float x, float scale, std::uint8_t zero_point) noexcept;

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_ARITH_HPP
