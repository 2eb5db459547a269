// A compiled program: what the accelerator fetches (pages), what a host must know to feed it (input
// and output layout, quantisation) and what a person wants to know (the layers). Also its file.
//
// Program file (.lkm), little-endian:
//      0  "LKMP"
//      4  u32 format = 1
//      8  u64 header length h
//     16  u64 number of pages p
//     24  u64 file length = 32 + h + 4096 p + 32
//     32  header, h bytes of JSON (see to_json)
//   32+h  pages, 4096 bytes each: descriptors (region 0), then each layer's region
//   last 32 bytes: SHA-256 of everything before, against accidents. The file holds plaintext
//   weights: whoever has it has the model.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compiler/file_io.hpp"
#include "fallback/host_graph.hpp"
#include "latchkey_spec.hpp"

namespace latchkey::compiler {

/// The build that a program is for; CONFIG_ID of the build is spec::config_id(array_n, spad_words).
struct target {
  std::uint32_t array_n = 64;                   ///< Rows and columns of the array: 16, 32 or 64
  std::uint32_t spad_words = spec::spad_words;  ///< 64-byte words of the scratchpad

  /// The target of the card images for an array of n x n.
  static target of(std::uint32_t n) {
    return {n, n == 64 ? spec::spad_words_n64 : spec::spad_words};
  }
  std::uint32_t config_id() const { return spec::config_id(array_n, spad_words); }
  friend bool operator==(const target&, const target&) = default;
};

/// How one image of a tensor lies in the scratchpad and on the streams: NHWC with channel blocks.
/// Every byte is the unsigned activation xor 0x80.
struct tensor_layout {
  std::uint32_t h = 1, w = 1, c = 1;  ///< Rows, columns, channels
  std::uint32_t cb = 1;               ///< Channel blocks of a pixel
  std::uint32_t cp_log2 = 0;          ///< log2 of the bytes of a block
  std::uint32_t c_last = 1;           ///< Real channels of the last block
  std::uint32_t words = 1;            ///< 64-byte words of an image; images follow one another

  /// The layout of an h x w x c tensor. Throws latchkey::error when a field does not fit.
  static tensor_layout of(std::uint32_t h, std::uint32_t w, std::uint32_t c);
  /// Byte offset inside an image of channel `ch` of pixel (y, x).
  std::size_t offset(std::uint32_t y, std::uint32_t x, std::uint32_t ch) const {
    const std::size_t pixel = std::size_t{y} * w + x;
    return ((pixel * cb + (ch >> cp_log2)) << cp_log2) + (ch & ((1u << cp_log2) - 1));
  }
  /// The image (words * 64 bytes, pad bytes zero) of `values`, quantised bytes in CHW order.
  io::bytes pack(io::byte_view values) const;
  /// Inverse of pack: the h*w*c quantised bytes in CHW order.
  io::bytes unpack(io::byte_view image) const;

  friend bool operator==(const tensor_layout&, const tensor_layout&) = default;
};

/// How the model's own file holds a value of the input or output.
enum class element {
  f32,  ///< real = scale * (byte - zero_point)
  u8,   ///< The byte itself
  i8,   ///< The byte minus 128; the zero point below is the file's plus 128
};

/// The network's input or output.
struct io_tensor {
  std::string name;
  element type = element::f32;
  std::vector<std::int64_t> shape;  ///< As in the model without the batch: [C, H, W] or [C]
  tensor_layout layout;
  float scale = 1;              ///< real = scale * (quantised - zero_point)
  std::uint8_t zero_point = 0;  ///< In the unsigned domain (before xor 0x80)
  bool channels_last = false;   ///< The model's own values lie pixel by pixel: [T, C]
  friend bool operator==(const io_tensor&, const io_tensor&) = default;
};

/// What one descriptor does, for people; sizes per image.
struct layer_report {
  std::string name;
  std::string op;  ///< "conv", "transposed", "fc", "depthwise", "max_pool", "upsample", "avg_pool",
                   ///< "add", "sub", "mul", "table", "product", "softmax", "layer_norm", "join",
                   ///< "input", "output", "spill", "load"; "+add", "+table" or "+depthwise" behind
                   ///< it: fused
  std::vector<std::int64_t> shape;  ///< Output, [C, H, W]
  std::uint64_t macs = 0;           ///< Useful multiply-accumulates
  std::uint64_t weight_bytes = 0;   ///< Weights before padding to tiles
  std::uint32_t pages = 0;          ///< Pages fetched once; tiles are streamed again every 512 rows
  std::uint32_t words = 0;          ///< Scratchpad words of the output
  std::uint64_t zero_macs = 0;      ///< Beside macs: products with zeros, of folded pixels or
                                    ///< between the pixels of a transposed convolution
  friend bool operator==(const layer_report&, const layer_report&) = default;
};

/// A run of pages under one region number; page i of it has index i in its IV.
struct page_region {
  std::uint32_t region = 0;  ///< 0: descriptors; descriptor index + 1 otherwise
  std::uint32_t first = 0;   ///< Global number of its first page
  std::uint32_t count = 0;
  friend bool operator==(const page_region&, const page_region&) = default;
};

struct program {
  std::string name;
  compiler::target target;
  std::uint32_t max_batch = 0;                ///< Most images of one run, 1..256
  std::uint32_t peak_words = 0;               ///< Scratchpad words in use at worst, per image
  std::uint32_t spill_pages = 0;              ///< Of the spill area, for max_batch images
  std::vector<spec::descriptor> descriptors;  ///< End included
  std::vector<page_region> regions;           ///< Contiguous, in page order
  std::vector<io::bytes::value_type> pages;   ///< Plaintext, 4096 bytes each
  io_tensor input, output;
  std::vector<layer_report> layers;  ///< One per descriptor but End
  /// What the host runs before the input and behind the output. Public, constants included.
  std::optional<fallback::host_graph> head, tail;

  std::uint32_t num_pages() const {
    return static_cast<std::uint32_t>(pages.size() / spec::page_bytes);
  }
  io::byte_view page(std::uint32_t index) const {
    return io::byte_view(pages).subspan(std::size_t{index} * spec::page_bytes, spec::page_bytes);
  }
  /// Multiply-accumulates of one image on the card.
  std::uint64_t macs() const;
  /// Those that the kernel counts: with the zeros of folded pixels.
  std::uint64_t counted_macs() const;
  /// Operations of one image in head and tail.
  std::uint64_t host_macs() const;
};

/// Everything but the pages, as the header of a program file (`with_layers`: the table of layers).
nlohmann::json to_json(const program& p, bool with_layers = true);

/// Reads the fields that to_json wrote into `p` (pages and descriptors stay as they are) and checks
/// them. Throws latchkey::error naming `what` and the field.
void from_json(const nlohmann::json& header, const std::string& what, program& p);

/// Channels of an operation's input and output.
constexpr std::uint32_t in_channels(const spec::descriptor& d) {
  return ((d.in_cb - 1) << d.in_cp_log2) + d.in_c_last;
}
constexpr std::uint32_t out_channels(const spec::descriptor& d) {
  return ((d.out_cb - 1) << d.out_cp_log2) + d.out_c_last;
}
/// Channel blocks from one output pixel to the next.
constexpr std::uint32_t out_pitch(const spec::descriptor& d) {
  return d.out_pitch != 0 ? d.out_pitch : d.out_cb;
}
/// Parts of an image that a MatMul works on as images.
constexpr std::uint32_t image_slices(const spec::descriptor& d) {
  return d.slices != 0 ? d.slices : 1;
}
/// Pages that hold the parameters of so many channels.
constexpr std::uint32_t param_pages_for(std::uint32_t channels) {
  return (channels + spec::params_per_page - 1) / spec::params_per_page;
}

/// Pages that `batch` images of so many words take: of a Load, of the spill area.
constexpr std::uint64_t pages_for(std::uint64_t words, std::uint64_t batch = 1) {
  return (words * batch + spec::page_beats - 1) / spec::page_beats;
}

/// The two operations of a MatMul with a fused Depthwise. The tensor between them has no place.
/// With dw_pairs its pixels are pairs, with blocks of two pixels of 32 channels each, and so are
/// those of the Depthwise's output, or, where that one steps by two, blocks of 32 channels.
spec::descriptor matmul_half(spec::descriptor d);
spec::descriptor depthwise_half(spec::descriptor d);
/// Whether a Depthwise can take its pixels from a MatMul: its windows fit the line buffers, and the
/// last ones of a channel block, which end in lines of the next, do not need the one behind it,
/// whose weights wait for the first block's end.
bool fits_line_buffers(const spec::descriptor& depthwise);

/// Multiply-accumulates of an operation that the kernel counts, for one image.
std::uint64_t counted_macs(const spec::descriptor& d);

/// Pages of an operation: once (a table, parameters), and weights, once or for each block of rows.
struct page_counts {
  std::uint32_t once = 0;
  std::uint32_t tiles = 0;
  bool per_block = false;  ///< The tiles come once for every acc_rows rows, else once
};
page_counts pages_of(const spec::descriptor& d);

/// Rows of the array's sweeps for an image: output pixels of all slices, or those between a MatMul
/// and its fused Depthwise.
std::uint64_t swept_rows(const spec::descriptor& d);

/// Numbers, within the operation's region, of the pages that a run of `batch` images takes, in
/// order.
std::vector<std::uint32_t> page_order(const spec::descriptor& d, std::uint32_t batch);

/// The page regions that follow from the descriptors.
std::vector<page_region> regions_of(const std::vector<spec::descriptor>& descriptors);

/// The descriptors in the descriptor pages (region 0): up to the first End. Throws latchkey::error
/// when there is none among the first spec::max_descs.
std::vector<spec::descriptor> read_descriptors(io::byte_view desc_pages, const std::string& what);

/// Checks that pages, regions, descriptors, layouts and batch agree with one another and with the
/// target, so that running the program touches nothing outside it. Throws latchkey::error.
void check(const program& p, const std::string& what);

/// Writes / reads a program file. read_program throws latchkey::error naming the file, the part and
/// the offset for anything but an intact file.
void write_program(const std::string& path, const program& p);
program read_program(const std::string& path);
/// As read_program, on bytes in memory; `name` stands for the file in messages.
program parse_program(io::byte_view file, const std::string& name);

}  // namespace latchkey::compiler
