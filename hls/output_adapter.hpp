// Output adapter: the core's results to card memory.
//
// Takes batch * words words from the stream and writes one record of record_words words per image,
// in pixel order with the padding channels dropped. Per image of H*W pixels and C channels:
//
//   raw      H*W*C bytes, the quantised values (u8)
//   dequant  H*W*C float32: scale * (q - zero_point)
//   softmax  H*W*C float32: softmax over the channels of each pixel
//   top_k    per pixel k pairs {u32 channel, float32 softmax probability}, most probable first;
//   equal
//            values in channel order
//
// A null beat (keep 0, last 1) is the core's refusal: nothing is written from then on, and no
// record of the run was written before it, because the core releases nothing before the last tag.
// Rate: one beat per cycle in and out; softmax and top_k spend one cycle per channel and pass.
#pragma once
#include <cmath>

#include "input_adapter.hpp"

namespace latchkey::hls_kernels {

enum class output_mode : std::uint32_t { raw = 0, dequant = 1, softmax = 2, top_k = 3 };

struct output_args {
  std::uint32_t batch, channels, pixels;
  std::uint32_t cp_log2;
  std::uint32_t words;         ///< stream words per image
  std::uint32_t record_words;  ///< memory words per image
  output_mode mode;
  std::uint32_t k;
  float scale;
  std::uint32_t zero_point;
};

/// Bytes of one image's record.
inline std::uint32_t record_bytes(const output_args& a) {
  const std::uint32_t values = a.pixels * a.channels;
  switch (a.mode) {
    case output_mode::raw:
      return values;
    case output_mode::dequant:
    case output_mode::softmax:
      return 4 * values;
    case output_mode::top_k:
      return 8 * a.pixels * a.k;
  }
  return 0;
}

constexpr unsigned max_channels = 4096;

/// The output adapter's on-chip RAM; one per kernel instance.
struct output_ram {
  word_t image[max_image_words];
  word_t record[max_image_words];
  float probability[max_channels];
  bool taken[max_channels];
};

template <class Memory, class Stream>
adapter_status output_adapter(Memory memory, Stream& in, const output_args& a, output_ram& ram) {
  word_t* const image = ram.image;
  word_t* const record = ram.record;
  float* const probability = ram.probability;
  bool* const taken = ram.taken;

  const unsigned block = 1u << a.cp_log2;
  const unsigned blocks = (a.channels + block - 1) / block;
  const bool fits = a.words <= max_image_words && a.record_words <= max_image_words &&
                    a.channels <= max_channels && a.k <= a.channels &&
                    record_bytes(a) <= a.record_words * beat_bytes;

  for (unsigned n = 0; n < a.batch; ++n) {
    for (unsigned w = 0; w < a.words; ++w) {
#pragma HLS PIPELINE II = 1
      const beat_t beat = in.read();
      if (beat.keep == 0) return adapter_status::aborted;
      const bool last = n + 1 == a.batch && w + 1 == a.words;
      if (beat.last != last) {
        // Not our stream: take it to its end, so that the next run starts clean.
        bool done = beat.last;
        while (!done) done = in.read().last;
        return adapter_status::wrong_length;
      }
      if (fits) image[w] = beat.data;
    }
    if (!fits) continue;  // the stream is still taken to its end

    for (unsigned i = 0; i < a.record_words; ++i) record[i] = word_t();
    for (unsigned p = 0; p < a.pixels; ++p) {
      const unsigned base = p * blocks * block;
      int best = 0;
      for (unsigned c = 0; c < a.channels; ++c) {
        const int q = get8(image, base + c) ^ 0x80;
        if (c == 0 || q > best) best = q;
        if (a.mode == output_mode::raw) {
          set8(record, p * a.channels + c, static_cast<std::uint8_t>(q));
        } else if (a.mode == output_mode::dequant) {
          const float v = a.scale * static_cast<float>(q - static_cast<int>(a.zero_point));
          set32(record, 4 * (p * a.channels + c), as_bits(v));
        }
      }
      if (a.mode == output_mode::raw || a.mode == output_mode::dequant) continue;

      float sum = 0.0f;
      for (unsigned c = 0; c < a.channels; ++c) {
        const int q = get8(image, base + c) ^ 0x80;
        probability[c] = std::exp(a.scale * static_cast<float>(q - best));
        taken[c] = false;
        sum += probability[c];
      }
      spend(memory, 2 * a.channels);
      if (a.mode == output_mode::softmax) {
        for (unsigned c = 0; c < a.channels; ++c)
          set32(record, 4 * (p * a.channels + c), as_bits(probability[c] / sum));
        continue;
      }
      for (unsigned i = 0; i < a.k; ++i) {
        unsigned top = 0;
        bool found = false;
        for (unsigned c = 0; c < a.channels; ++c) {
          if (!taken[c] && (!found || probability[c] > probability[top])) {
            top = c;
            found = true;
          }
        }
        taken[top] = true;
        set32(record, 8 * (p * a.k + i), top);
        set32(record, 8 * (p * a.k + i) + 4, as_bits(probability[top] / sum));
        spend(memory, a.channels);
      }
    }
    write_words(memory, static_cast<std::uint64_t>(n) * a.record_words, a.record_words, record);
  }
  return fits ? adapter_status::ok : adapter_status::too_large;
}

}  // namespace latchkey::hls_kernels
