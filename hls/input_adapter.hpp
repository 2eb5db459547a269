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
// Rate: one memory word in, then one stream beat out per cycle; four cycles a beat for float32.
//   channels last      a beat's bytes come from one run of elements: one read of two words side by
//   side planes, Cp <= 16   64 pixels are turned in a tile while the tile before is sent; the first
//   tile of
//                      an image costs a read per channel
//   planes, Cp >= 32   one element per cycle: a tile of 64 pixels would be too many registers
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

constexpr unsigned element_bytes(dtype type) { return type == dtype::u8 ? 1 : 4; }

/// Channels of a tile of 64 pixels at most; wider blocks have a tile a word.
constexpr unsigned max_tile_channels = 16;
constexpr unsigned max_tile_bytes = max_tile_channels * beat_bytes;

/// The input adapter's on-chip RAM; one per kernel instance. A run may read up to four words behind
/// the image; what it finds there is not used.
struct input_ram {
  word_t image[max_image_words + 4];
  std::uint8_t
      tile[2][max_tile_bytes];  ///< Stream bytes by channel and pixel, one plane after another.
};

/// Stream bytes of the 64 elements from `element` on.
inline void read_run(const word_t* image, unsigned element, const input_args& a,
                     const std::uint8_t* table, std::uint8_t* to) {
  const unsigned size = element_bytes(a.type), elements = beat_bytes / size;
  for (unsigned part = 0; part < size; ++part) {
#pragma HLS PIPELINE II = 1
    const unsigned byte = size * element + beat_bytes * part, low = byte % beat_bytes;
    const word_t pair[2] = {image[byte / beat_bytes], image[byte / beat_bytes + 1]};
    for (unsigned i = 0; i < elements; ++i) {
#pragma HLS UNROLL
      to[part * elements + i] =
          a.type == dtype::u8
              ? table[get8(pair, low + i)]
              : static_cast<std::uint8_t>(
                    quantise(as_float(get32(pair, low + 4 * i)), a.scale, a.zero_point) ^ 0x80u);
    }
  }
}

template <class Memory, class Stream>
adapter_status input_adapter(Memory memory, Stream& out, const input_args& a, input_ram& ram) {
  word_t* const image = ram.image;
  std::uint8_t table[256];
#pragma HLS ARRAY_PARTITION variable = table complete

  const unsigned block = 1u << a.cp_log2;
  const unsigned blocks = (a.channels + block - 1) / block;
  const unsigned pixels = a.height * a.width;
  // One channel or one pixel: both orders are the same.
  const bool planes = a.order == layout::nchw && a.channels > 1 && pixels > 1;
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

  const bool wide = block > max_tile_channels;
  const unsigned tile_words = wide ? 1 : block;
  const unsigned tile_pixels = wide ? beat_bytes / block : beat_bytes;

  for (unsigned n = 0; n < a.batch; ++n) {
    read_words(memory, static_cast<std::uint64_t>(n) * a.image_words, a.image_words, image);
    unsigned pixel = 0, cb = 0;    // first pixel and block of the next word
    unsigned tile_word = 0;        // its place in the tile
    unsigned which = 0, sent = 0;  // the tile that is sent, and its beats so far
    for (unsigned w = 0; w < a.words; ++w) {
      std::uint8_t run[beat_bytes];
#pragma HLS ARRAY_PARTITION variable = run complete
      if (!planes) {
        read_run(image, pixel * a.channels + cb * block, a, table, run);
        spend(memory, element_bytes(a.type) - 1);
      } else if (tile_word == 0) {
        which ^= 1u;
        const unsigned left = a.channels - cb * block;
        const unsigned channels = left < block ? left : block;
        for (unsigned c = 0; c < channels; ++c) {
          read_run(image, (cb * block + c) * pixels + pixel, a, table, run);
          for (unsigned p = 0; p < beat_bytes; ++p) {
#pragma HLS UNROLL
            if (p < tile_pixels) ram.tile[which][c * tile_pixels + p] = run[p];
          }
        }
        const unsigned reads = channels * element_bytes(a.type);
        spend(memory, reads > sent ? reads - sent : 0);
        sent = 0;
      }
      beat_t beat;
      for (unsigned b = 0; b < beat_bytes; ++b) {
#pragma HLS UNROLL
        const unsigned p = b >> a.cp_log2, c = b & (block - 1);
        std::uint8_t value = 0x80;  // padding; its weights are zero
        if (pixel + p < pixels && cb * block + c < a.channels) {
          value = planes
                      ? ram.tile[which][c * tile_pixels + tile_word * (beat_bytes >> a.cp_log2) + p]
                      : run[p * a.channels + c];
        }
        set8(&beat.data, b, value);
      }
      beat.last = n + 1 == a.batch && w + 1 == a.words;
      out.write(beat);
      ++sent;
      tile_word = tile_word + 1 == tile_words ? 0 : tile_word + 1;
      if (++cb == blocks) {
        cb = 0;
        pixel += beat_bytes >> a.cp_log2;
      }
    }
  }
  return adapter_status::ok;
}

}  // namespace latchkey::hls_kernels
