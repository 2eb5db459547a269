// What both adapters share: the stream's beat, memory bursts, and how cycles are told to a
// simulator.
//
// The kernels are written in Vitis HLS style: fixed loops, local arrays for on-chip RAM, one m_axi
// port, one AXI-Stream port, scalars on AXI-Lite. They are templates over the memory and the
// stream, so that the very same code is the HLS top (pointers and hls::stream), a GoogleTest
// subject (C simulation) and a module of the simulated card.
#pragma once
#include <cstdint>

#include "ap_int.h"
#include "latchkey_spec.hpp"

namespace latchkey::hls_kernels {

constexpr unsigned beat_bytes = spec::beat_bytes;
/// Largest image that the adapters' on-chip buffer takes, in 64-byte words.
constexpr unsigned max_image_words = spec::adapter_words;

using word_t = ap_uint<512>;

/// One transfer of the 512-bit stream. keep has a bit per byte; a null beat (keep 0, last 1) from
/// the core says that the run failed and nothing follows.
struct beat_t {
  word_t data;
  std::uint64_t keep = ~std::uint64_t{0};
  bool last = false;
};

enum class dtype : std::uint32_t { u8 = 0, f32 = 1 };
enum class layout : std::uint32_t { nchw = 0, nhwc = 1 };

/// Words from memory into on-chip RAM: one burst at one word per cycle.
inline void read_words(const word_t* memory, std::uint64_t first, unsigned count, word_t* to) {
  for (unsigned i = 0; i < count; ++i) {
#pragma HLS PIPELINE II = 1
    to[i] = memory[first + i];
  }
}

/// Words from on-chip RAM to memory.
inline void write_words(word_t* memory, std::uint64_t first, unsigned count, const word_t* from) {
  for (unsigned i = 0; i < count; ++i) {
#pragma HLS PIPELINE II = 1
    memory[first + i] = from[i];
  }
}

/// Cycles that a schedule spends beside its port transfers; nothing in synthesis and C simulation.
template <class Memory>
void spend(Memory&, unsigned) {}

/// A 32-bit little-endian element at a byte offset of a word buffer; offsets are multiples of 4.
inline std::uint32_t get32(const word_t* words, unsigned byte) {
  const int low = static_cast<int>(8 * (byte % beat_bytes));
  return words[byte / beat_bytes].range(low + 31, low);
}
inline std::uint8_t get8(const word_t* words, unsigned byte) {
  const int low = static_cast<int>(8 * (byte % beat_bytes));
  return static_cast<std::uint8_t>(words[byte / beat_bytes].range(low + 7, low));
}
inline void set32(word_t* words, unsigned byte, std::uint32_t value) {
  const int low = static_cast<int>(8 * (byte % beat_bytes));
  words[byte / beat_bytes].range(low + 31, low) = value;
}
inline void set8(word_t* words, unsigned byte, std::uint8_t value) {
  const int low = static_cast<int>(8 * (byte % beat_bytes));
  words[byte / beat_bytes].range(low + 7, low) = value;
}

union float_bits {
  float f;
  std::uint32_t u;
};
inline float as_float(std::uint32_t u) {
  float_bits b;
  b.u = u;
  return b.f;
}
inline std::uint32_t as_bits(float f) {
  float_bits b;
  b.f = f;
  return b.u;
}

}  // namespace latchkey::hls_kernels
