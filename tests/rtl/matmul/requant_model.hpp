// Two independent models of the requantisation, written from the formula and not from the RTL.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace latchkey::test {

struct ChannelParams {
  int32_t bias = 0;
  uint32_t m = 0;  // 24-bit mantissa, 0 or in [2^23, 2^24)
  uint32_t s = 0;  // 0 .. 63
};

// v rounded to an integer multiple of 2^shift, divided by it; half to even.
inline __int128 rne_shift(__int128 v, int shift) {
  if (shift <= 0) return v << -shift;
  if (shift > 120) return 0;
  const __int128 one = 1;
  __int128 q = v >> shift;  // floor
  const __int128 rest = v - (q << shift);
  const __int128 half = one << (shift - 1);
  if (rest > half || (rest == half && (q & 1))) ++q;
  return q;
}

// v rounded to 24 significant bits, half to even.
inline __int128 rn24(__int128 v) {
  const __int128 mag = v < 0 ? -v : v;
  int bits = 0;
  while ((mag >> bits) != 0) ++bits;
  if (bits <= 24) return v;
  return rne_shift(v, bits - 24) << (bits - 24);
}

struct Requantised {
  int8_t y = 0;
  bool tie = false;        // the last rounding was exactly half way
  bool saturated = false;  // the clamp took effect
};

// y = clamp(RNE(RN24(RN24(acc + bias) * M) >> s) + zero, lo, hi), in integers.
inline Requantised requantise(int32_t acc, const ChannelParams& p, int zero, int lo, int hi) {
  const auto v = static_cast<int32_t>(static_cast<uint32_t>(acc) + static_cast<uint32_t>(p.bias));
  const __int128 prod = rn24(rn24(v) * static_cast<__int128>(p.m));
  const __int128 t = rne_shift(prod, static_cast<int>(p.s));
  Requantised r;
  if (p.s > 0) {
    const __int128 rest = prod - ((prod >> p.s) << p.s);
    r.tie = rest == (static_cast<__int128>(1) << (p.s - 1));
  }
  const __int128 sum = t + zero;
  r.saturated = sum < lo || sum > hi;
  r.y = static_cast<int8_t>(sum < lo ? lo : sum > hi ? hi : static_cast<int>(sum));
  return r;
}

// What ONNX Runtime does: float32 multiply, round to nearest even, add the zero point, clamp.
inline int8_t requantise_float(int32_t acc, const ChannelParams& p, int zero, int lo, int hi) {
  const auto v = static_cast<int32_t>(static_cast<uint32_t>(acc) + static_cast<uint32_t>(p.bias));
  const float m = std::ldexp(static_cast<float>(p.m), -static_cast<int>(p.s));
  const volatile float product = static_cast<float>(v) * m;  // volatile: rounded to float32 here
  const float t = std::nearbyintf(product) + static_cast<float>(zero);
  return static_cast<int8_t>(std::min(std::max(t, static_cast<float>(lo)), static_cast<float>(hi)));
}

}  // namespace latchkey::test
