#include "model/arith.hpp"

#include <cmath>

#include "latchkey/error.hpp"
#include "model/format.hpp"

namespace latchkey::model {

requant make_requant(float input_scale, float weight_scale, float output_scale) {
  const auto bad = [](float s) { return !(s > 0.0F) || !std::isfinite(s); };
  if (bad(input_scale) || bad(weight_scale) || bad(output_scale)) {
    throw error(errc::unsupported_model,
                format("requantisation: scales {} (input), {} (weights), {} (output) must be "
                       "positive and finite; quantise the model again",
                       input_scale, weight_scale, output_scale));
  }
  // Two roundings to float32, in this order: that is what the integer path reproduces.
  const float product = input_scale * weight_scale;
  const float m = product / output_scale;
  int exponent = 0;
  const float fraction = std::frexp(m, &exponent);
  if (!std::isfinite(m) || exponent > 24) {
    throw error(
        errc::unsupported_model,
        format("requantisation: multiplier {} * {} / {} is not below 2^24; the output scale "
               "is far too small for this layer, quantise the model again",
               input_scale, weight_scale, output_scale));
  }
  const int shift = 24 - exponent;
  // m < 2^-39: no int32 accumulator reaches one half, so the result is always the zero point.
  if (fraction == 0.0F || shift > 63) return {};
  return {static_cast<std::uint32_t>(std::ldexp(fraction, 24)), static_cast<std::uint8_t>(shift)};
}

std::uint8_t quantise_value(float x, float scale, std::uint8_t zero_point) noexcept {
  if (std::isnan(x)) return zero_point;
  // nearbyint rounds half to even in the default rounding mode, which nothing here changes.
  const float t = std::nearbyint(x / scale) + static_cast<float>(zero_point);
  if (!(t > 0.0F)) return 0;
  return t >= 255.0F ? std::uint8_t{255} : static_cast<std::uint8_t>(t);
}

}  // namespace latchkey::model
