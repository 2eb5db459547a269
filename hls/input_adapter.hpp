// Input adapter: images in card memory to the core's activation format.
//
// Reads batch images of C x H x W elements (u8 or float32, NCHW or NHWC; image i starts at word
// i * image_words of the buffer), quantises them and streams batch * words words:
//
//   q = clamp(rne(v / scale) + zero_point, 0, 255), v = x * mul + add for u8 (a table of 256), v =
//   x for float; NaN becomes the zero point. The byte on the stream is q xor 0x80.
//
//   byte of (y, x, c) in an image: ((y*W + x)*CB + cb)*Cp + c%64, Cp = 2^cp_log2, CB = ceil(C/Cp)
//
// Rate: one memory word and one stream beat per cycle when consecutive stream bytes come from
// consecutive elements (C = 1, H*W = 1, or NHWC with C = CB*Cp); else one element per cycle.
#pragma once
#include <cmath>

#include "adapter.hpp"

namespace latchkey::hls_kernels {

struct input_args {
  std::uint32_t batch, channels, height, width;
  dtype type;
  layout order;
  std::uint32_t cp_log2;      ///< log2 of the bytes of a channel block, 0..6
  std::uint32_t words;        ///< stream words per image
  std::uint32_t image_words;  ///< memory words per image
  float scale;
  std::uint32_t zero_point;
  float mul, add;  ///< u8 only: real value of pixel p is p * mul + add
};

enum class adapter_status : std::uint32_t { ok = 0, too_large = 1, aborted = 2, wrong_length = 3 };

inline std::uint8_t quantise(float v, float scale, std::uint32_t zero_point) {
  const float r = std::nearbyint(v / scale) + static_cast<float>(zero_point);
  // Written so that NaN takes neither branch and ends as the zero point.
  if (r <= 0.0f) return 0;
  if (r >= 255.0f) return 255;
  return (r > 0.0f) ? static_cast<std::uint8_t>(r) : static_cast<std::uint8_t>(zero_point);
}

/// The input adapter's on-chip RAM; one per kernel instance.
struct input_ram {
  word_t image[max_image_words];
};

template <class Memory, class Stream>
adapter_status input_adapter(Memory memory, Stream& out, const input_args& a, input_ram& ram) {
  word_t* const image = ram.image;
  std::uint8_t table[256];
#pragma HLS ARRAY_PARTITION variable = table complete

  const unsigned block = 1u << a.cp_log2;
  const unsigned blocks = (a.channels + block - 1) / block;
  const unsigned pixels = a.height * a.width;
  const bool straight =
      a.channels == 1 || (a.channels == block * blocks && (a.order == layout::nhwc || pixels == 1));
  if (a.image_words > max_image_words || a.batch == 0) {
    // A null beat, so that the core ends its run (BadInput) instead of waiting.
    beat_t null_beat;
    null_beat.keep = 0;
    null_beat.last = true;
    out.write(null_beat);
    return adapter_status::too_large;
  }

  for (unsigned p = 0; p < 256; ++p) {
#pragma HLS PIPELINE II = 1
    table[p] = static_cast<std::uint8_t>(
        quantise(static_cast<float>(p) * a.mul + a.add, a.scale, a.zero_point) ^ 0x80u);
  }

  for (unsigned n = 0; n < a.batch; ++n) {
    read_words(memory, static_cast<std::uint64_t>(n) * a.image_words, a.image_words, image);
    // Counters of the next byte: pixel, block and channel within the block.
    unsigned pixel = 0, cb = 0, c = 0;
    for (unsigned w = 0; w < a.words; ++w) {
      beat_t beat;
      for (unsigned b = 0; b < beat_bytes; ++b) {
#pragma HLS UNROLL
        const unsigned channel = cb * block + c;
        std::uint8_t value = 0x80;  // padding; its weights are zero
        if (pixel < pixels && channel < a.channels) {
          const unsigned element =
              (a.order == layout::nhwc) ? pixel * a.channels + channel : channel * pixels + pixel;
          value = (a.type == dtype::u8)
                      ? table[get8(image, element)]
                      : static_cast<std::uint8_t>(
                            quantise(as_float(get32(image, 4 * element)), a.scale, a.zero_point) ^
                            0x80u);
        }
        set8(&beat.data, b, value);
        if (++c == block) {
          c = 0;
          if (++cb == blocks) {
            cb = 0;
            ++pixel;
          }
        }
      }
      beat.last = n + 1 == a.batch && w + 1 == a.words;
      // The stream's own transfer is the beat's first cycle.
      spend(memory, straight ? (a.type == dtype::u8 ? 0 : 3) : beat_bytes - 1);
      out.write(beat);
    }
  }
  return adapter_status::ok;
}

}  // namespace latchkey::hls_kernels
