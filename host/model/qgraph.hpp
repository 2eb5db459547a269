// The quantised graph: what the importer and the quantiser produce, what the reference executor
// runs and what the compiler turns into descriptors and pages.
//
// A graph is a list of tensors and a list of nodes in execution order. Activations are unsigned
// bytes with one scale and one zero point per tensor: real = scale * (byte - zero_point). The batch
// is not part of a shape. Every value of a tensor is in CHW order here: byte (c, y, x) is at
// (c * h + y) * w + x. There is no Relu, Clip, Flatten, Reshape, BatchNormalization, Quantize or
// Dequantize node: they are folded into the clamp, the weights, the shapes and the quantisation of
// their neighbours.
#ifndef LATCHKEY_MODEL_QGRAPH_HPP
#define LATCHKEY_MODEL_QGRAPH_HPP

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <variant>
#include <vector>

#include "model/arith.hpp"

namespace latchkey::model {

/// Channels that lie together in the accelerator. Tensors of more than half as many take whole
/// blocks.
constexpr int kBlockChannels = 64;

/// Bytes that a pixel takes in the accelerator: whole blocks, or a power of two.
constexpr int pixel_bytes(int channels) noexcept {
  if (channels > kBlockChannels / 2) {
    return (channels + kBlockChannels - 1) / kBlockChannels * kBlockChannels;
  }
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(channels)));
}

/// Activations between two nodes.
struct qtensor {
  std::string name;             ///< Name in the ONNX file, for messages and dumps.
  int c = 1, h = 1, w = 1;      ///< Channels, rows, columns of one image; the batch is separate.
  float scale = 1.0F;           ///< Positive and finite.
  std::uint8_t zero_point = 0;  ///< Byte that stands for 0.0.

  [[nodiscard]] std::size_t size() const noexcept {
    return static_cast<std::size_t>(c) * static_cast<std::size_t>(h) * static_cast<std::size_t>(w);
  }
};

/// A convolution or a fully connected layer, one group, no dilation.
///
///   acc = bias[o] + sum over i, ky, kx of (x - zx) * weights[o][i][ky][kx]     (int32, no
///   overflow) y   = clamp(apply(scale[o], acc) + zy, clamp_lo, clamp_hi)
///
/// Pixels outside the input count as the zero point. A fully connected layer is the same thing with
/// kernel_h = input.h, kernel_w = input.w, strides 1 and no padding: its weights, [o][k] with k
/// over the CHW-flattened input, are already in this order, and its output is out_channels x 1 x 1.
///
/// A transposed one makes stride_y x stride_x pixels of each, of as many taps and without padding:
///
///   acc of pixel (y * stride_y + ky, x * stride_x + kx)
///     = bias[o] + sum over i of (x[i][y][x] - zx) * weights[o][i][ky][kx]
struct qconv {
  bool fully_connected = false;  ///< For names and listings; it changes nothing in the arithmetic.
  bool transposed = false;
  int out_channels = 0, in_channels = 0;
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  std::vector<std::int8_t> weights;  ///< [o][i][ky][kx], each in [-127, 127].
  std::vector<float> weight_scale;   ///< One per output channel.
  std::vector<std::int32_t> bias;    ///< One per output channel, in units of sx * weight_scale[o];
                                     ///< without any zero-point correction.
  std::vector<requant> scale;        ///< One per output channel, derived from the three scales.
  std::uint8_t clamp_lo = 0, clamp_hi = 255;  ///< Unsigned bounds; Relu raises clamp_lo.
};

/// The largest byte of a window; taps outside the input are ignored. Input and output share scale
/// and zero point. Every window holds at least one tap that is inside.
struct qmaxpool {
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  /// Every pixel becomes repeat_y x repeat_x pixels (nearest neighbour upsampling), 1..15. Above 1
  /// for windows of one pixel, strides 1 and no padding only.
  int repeat_y = 1, repeat_x = 1;
};

/// Elementwise sum of two tensors of one shape. With x' = byte - 128 (the card's stored form):
///
///   t  = a' * mult_a + b' * mult_b + offset                                    (int32, no
///   overflow) y' = clamp(rne_shift(t, shift), clamp_lo - 128, clamp_hi - 128)
///
/// offset holds all three zero points. negate_b subtracts the second product instead of adding it;
/// with broadcast_b the second tensor is c x 1 x 1 and its value holds for the whole plane.
struct qadd {
  std::uint16_t mult_a = 0, mult_b = 0;
  std::int32_t offset = 0;
  std::uint8_t shift = 0;  ///< 0..22.
  std::uint8_t clamp_lo = 0, clamp_hi = 255;
  bool negate_b = false, broadcast_b = false;
};

/// A convolution of every channel with a kernel of its own; the arithmetic is qconv's.
///
///   acc = bias[c] + sum over ky, kx of (x - zx) * weights[c][ky][kx]    (int32, no overflow)
///   y   = clamp(apply(scale[c], acc) + zy, clamp_lo, clamp_hi)
struct qdepthwise {
  int channels = 0;
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  std::vector<std::int8_t> weights;  ///< [c][ky][kx], each in [-127, 127].
  std::vector<float> weight_scale;   ///< One per channel.
  std::vector<std::int32_t> bias;    ///< As qconv::bias.
  std::vector<requant> scale;        ///< As qconv::scale.
  std::uint8_t clamp_lo = 0, clamp_hi = 255;
};

/// The mean of a window whose taps outside the input count as the zero point, also in the divisor.
///
///   acc = sum over the window of (x - zx);  y = requantise(scale, acc, zy, clamp_lo, clamp_hi)
///
/// scale is make_requant(sx, 1, fl32(sy * kernel_h * kernel_w)).
struct qavgpool {
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  requant scale;
  std::uint8_t clamp_lo = 0, clamp_hi = 255;
};

/// Elementwise product of two tensors; with broadcast the second one is c x 1 x 1.
///
///   y = requantise(scale, (a - za) * (b - zb), zy, clamp_lo, clamp_hi)
///
/// scale is make_requant(sa, sb, sy).
struct qmul {
  requant scale;
  bool broadcast = false;
  std::uint8_t clamp_lo = 0, clamp_hi = 255;
};

/// y = entries[x]: any function of one quantised tensor, element by element.
struct qtable {
  std::array<std::uint8_t, 256> entries{};
};

/// Two tensors or more, one behind the other: the channels of each pixel or, with `pixels`, the
/// pixels, which are rows of one width or columns of one row. Bytes of part i become
///
///   y = requantise(scale[i], x - zx, zy, clamp_lo, clamp_hi)
///
/// scale[i] is average_requant(sx, sy, 1), so a part with the quantisation of the output keeps its
/// bytes. Of channels all parts but the last have a multiple of kBlockChannels, the last more than
/// half of them; of pixels all but the last take a multiple of kBlockChannels bytes.
struct qjoin {
  bool pixels = false;
  std::vector<requant> scale;  ///< One per part.
  std::uint8_t clamp_lo = 0, clamp_hi = 255;
};

/// A product of two tensors, head by head: what attention makes of queries and keys, and of its
/// weights and the values. Tokens lie along w, h is 1. x' = byte - 128, both zero points are 128,
/// and the second tensor's byte 0 counts as 1 (the array holds no -128).
///
///   transposed:  a is heads * d x 1 x t, b is heads * d x 1 x s, y is s x heads x t
///     acc[j][h][i] = sum over k of a'[h * d + k][i] * b'[h * d + k][j]
///   otherwise:   a is s x heads x t, b is heads * d x 1 x s, y is heads * d x 1 x t
///     acc[h * d + k][i] = sum over j of a'[j][h][i] * b'[h * d + k][j]
///
///   y = requantise(scale, acc, zy, clamp_lo, clamp_hi)                    (int32, no overflow)
///
/// With more than one head d is a multiple of kBlockChannels.
struct qproduct {
  int heads = 1;
  bool transposed = false;
  requant scale;
  std::uint8_t clamp_lo = 0, clamp_hi = 255;
};

/// Softmax over the channels of every pixel. With m the largest x of the pixel, and bits(s) the
/// length of s in binary:
///
///   e[c] = entries[m - x[c]],  s = sum of e,  q = reciprocal(s)  (arith.hpp)
///   y[c] = requantise({q * scale.multiplier >> 17, scale.shift + bits(s) - 1}, e[c], zy, 0, 255)
///
/// scale is make_requant(1, 1, sy), its shift at most 36; entries[i] is
/// rne(65535 * exp(-i * sx)), so entries[0] is 65535.
struct qsoftmax {
  std::array<std::uint16_t, 256> entries{};
  requant scale;
};

/// Layer normalisation over the n channels of every pixel, with x' = byte - 128:
///
///   d[c] = n * x'[c] - sum of x',  v = n * sum of x'^2 - (sum of x')^2 + epsilon
///   z[c] = d[c] / sqrt(v) in units of 2^-16                               (normalised, arith.hpp)
///   y[c] = requantise(scale[c], (negative[c] ? -z[c] : z[c]) + bias[c], zy, 0, 255)
struct qlayernorm {
  std::uint64_t epsilon = 1;       ///< n^2 * epsilon / sx^2; 1 .. 2^39 - 1
  std::vector<requant> scale;      ///< |gamma| / 2^16 / sy; multiplier 0 or in [2^22, 2^23)
  std::vector<bool> negative;      ///< The sign of gamma
  std::vector<std::int32_t> bias;  ///< beta / |gamma| * 2^16
};

/// The same pixels in other rows: c x h x w as c x h' x w' with h * w = h' * w'. It moves nothing.
/// Input and output share scale and zero point.
struct qview {};

/// A tensor of the file, the same for every image. Only the second input of a qadd or qmul reads
/// it.
struct qconstant {
  std::vector<std::uint8_t> values;  ///< CHW
};

/// One operation. inputs has an entry for each part of a qjoin, two for qadd, qmul and qproduct,
/// none for qconstant and one otherwise.
struct qnode {
  std::string name;
  std::vector<int> inputs;  ///< Indices into qgraph::tensors.
  int output = -1;          ///< Index into qgraph::tensors; each tensor has at most one writer.
  std::variant<qconv, qmaxpool, qadd, qdepthwise, qavgpool, qmul, qtable, qproduct, qsoftmax,
               qlayernorm, qconstant, qview, qjoin>
      op;
};

/// Products in a sum of a node whose first tensor is `a`.
[[nodiscard]] int product_depth(const qproduct& op, const qtensor& a) noexcept;

/// Inputs that a node with this operation reads.
[[nodiscard]] std::size_t arity(const qnode& node) noexcept;

/// Element type at the edge of the graph, in the file it came from.
enum class io_type { f32, u8, i8 };

/// How the user's values become the first tensor's bytes, or the last tensor's bytes values.
///
/// f32: byte = clamp(rne(x / scale) + zero_point, 0, 255) and back. u8: the bytes themselves.
/// i8: byte = value + 128 (and the tensor's zero point is the file's plus 128).
struct io_spec {
  std::string name;  ///< Name of the graph's input or output.
  int tensor = -1;   ///< Index into qgraph::tensors.
  io_type type = io_type::f32;
  std::vector<int> dims;  ///< Shape in the file without the batch, e.g. {1, 28, 28} or {10}.
  /// The file's values lie pixel by pixel, the channels of a pixel together (tokens, NHWC); the
  /// graph's are in CHW order all the same, see to_planes() and from_planes().
  bool channels_last = false;
};

/// The file's values of an input in the graph's order, CHW. channels: of the tensor.
template <typename T>
std::vector<T> to_planes(const io_spec& io, int channels, std::vector<T> values) {
  const auto c = static_cast<std::size_t>(channels);
  if (!io.channels_last || c == 0) return values;
  const std::size_t pixels = values.size() / c;
  std::vector<T> out(values.size());
  for (std::size_t i = 0; i < pixels * c; ++i) out[i % c * pixels + i / c] = values[i];
  return out;
}

/// And back: the graph's values of an output as the file has them.
template <typename T>
std::vector<T> from_planes(const io_spec& io, int channels, std::vector<T> values) {
  const auto c = static_cast<std::size_t>(channels);
  if (!io.channels_last || c == 0) return values;
  const std::size_t pixels = values.size() / c;
  std::vector<T> out(values.size());
  for (std::size_t i = 0; i < pixels * c; ++i) out[i] = values[i % c * pixels + i / c];
  return out;
}

struct qgraph {
  std::string name;
  std::vector<qtensor> tensors;
  std::vector<qnode> nodes;  ///< In execution order: a node's inputs were written before it.
  io_spec input;             ///< Values come in CHW order, see to_planes().
  io_spec output;            ///< Values leave in CHW order, see from_planes().

  [[nodiscard]] const qtensor& input_tensor() const {
    return tensors.at(static_cast<std::size_t>(input.tensor));
  }
  [[nodiscard]] const qtensor& output_tensor() const {
    return tensors.at(static_cast<std::size_t>(output.tensor));
  }

  /// Multiply-accumulates of one image in convolutions, fully connected and depthwise layers
  /// (padding taps count; of a transposed one each tap is used once for a pixel of its input) and
  /// products.
  [[nodiscard]] std::uint64_t macs() const;

  /// Weights, biases and constants.
  [[nodiscard]] std::uint64_t parameters() const;
};

/// Output rows (or columns) of a window: floor((in + pad_before + pad_after - kernel) / stride)
/// + 1. 0 when the kernel is larger than the padded input.
constexpr int window_output(int in, int kernel, int stride, int pad_before,
                            int pad_after) noexcept {
  const int span = in + pad_before + pad_after - kernel;
  return span < 0 ? 0 : span / stride + 1;
}

/// The multiplier of an average over a window of count taps.
[[nodiscard]] requant average_requant(float input_scale, float output_scale, int count);

/// Checks every statement above (shapes, orders, ranges, overflow of the accumulator). Throws
/// latchkey::error (unsupported_model) that names the node and says what is wrong.
void validate(const qgraph& graph);

/// Writes the graph as JSON (weights as arrays of integers, scales as exact hexadecimal floats),
/// for tools outside this project. The schema is in host/model/README.md.
void write_json(const qgraph& graph, std::ostream& out);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_QGRAPH_HPP
