// The float graph: what the importer makes of an ONNX file, and a float executor for it.
//
// It has the accelerator's shape already (channels, rows, columns; the batch apart) but real
// values. Quantised files give the same graph with quantisations pinned to tensors and weights.
#ifndef LATCHKEY_MODEL_FGRAPH_HPP
#define LATCHKEY_MODEL_FGRAPH_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/qgraph.hpp"

namespace latchkey::model {

/// Channels of a pixel that the accelerator holds.
constexpr int kMaxChannels = 4096;

/// real = scale * (byte - zero_point).
struct quantisation {
  float scale = 1.0F;
  std::uint8_t zero_point = 0;
  friend bool operator==(const quantisation&, const quantisation&) = default;
};

/// Activations of one image, CHW.
struct ftensor {
  std::string name;
  int c = 1, h = 1, w = 1;
  std::optional<quantisation> pinned;  ///< Given by the file; calibration does not touch it.

  [[nodiscard]] std::size_t size() const noexcept {
    return static_cast<std::size_t>(c) * static_cast<std::size_t>(h) * static_cast<std::size_t>(w);
  }
};

/// Bounds of Relu and Clip, applied to the result of a node.
struct bounds {
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
  [[nodiscard]] bool active() const noexcept {
    return lo > -std::numeric_limits<float>::infinity() ||
           hi < std::numeric_limits<float>::infinity();
  }
};

/// Weights as a quantised file holds them.
struct integer_weights {
  std::vector<std::int8_t> values;                ///< As qconv::weights.
  std::vector<float> scale;                       ///< One per output channel.
  std::optional<std::vector<std::int32_t>> bias;  ///< Units of input scale * scale[o].
};

/// Convolution or fully connected layer; see qconv for the order of the weights and for transposed
/// ones. A depthwise one has out_channels = in_channels and one kernel per channel, [c][ky][kx].
struct fconv {
  bool fully_connected = false;
  bool transposed = false;
  bool depthwise = false;
  int out_channels = 0, in_channels = 0;
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  std::vector<float> weights;  ///< [o][i][ky][kx]
  std::vector<float> bias;     ///< [o]
  std::optional<integer_weights> integers;
  bounds clip;
};

/// See qmaxpool for the repeats.
struct fmaxpool {
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int repeat_y = 1, repeat_x = 1;
};

/// Mean of a window. Taps outside the input are zeros and count; without pads there are none.
struct favgpool {
  int kernel_h = 1, kernel_w = 1;
  int stride_y = 1, stride_x = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  bounds clip;
};

/// Sum, or with negate_b the difference, of two tensors; with broadcast_b the second is c x 1 x 1.
struct fadd {
  bounds clip;
  bool negate_b = false, broadcast_b = false;
};

/// Product of two tensors; with broadcast_b the second is c x 1 x 1.
struct fmul {
  bounds clip;
  bool broadcast_b = false;
};

/// A function of every element by itself.
using scalar_function = std::function<double(double)>;

struct ftable {
  scalar_function apply;
};

/// Product of two tensors, head by head, times factor; shapes as qproduct's.
struct fproduct {
  int heads = 1;
  bool transposed = false;
  float factor = 1.0F;
  bounds clip;
};

/// Softmax over the channels of every pixel.
struct fsoftmax {};

/// (x - mean) / sqrt(variance + epsilon) * gamma[c] + beta[c] over the channels of every pixel.
struct flayernorm {
  float epsilon = 0.0F;
  std::vector<float> gamma, beta;
};

/// y = clip(x * scale[c] + shift[c]): batch normalisation, arithmetic with constants, Relu, Clip
/// and changes of quantisation, as imported. simplify() leaves none of them.
struct faffine {
  std::vector<float> scale, shift;
  bounds clip;
};

/// The same pixels in other rows, see qview.
struct fview {};

/// The parts' channels or pixels one behind the other; see qjoin for what parts can be.
struct fjoin {
  bool pixels = false;
  bounds clip;
};

/// Values of the file, the same for every image. Only the second input of an fadd or fmul reads it.
struct fconstant {
  std::vector<float> values;  ///< CHW
};

struct fnode {
  std::string name;         ///< "name (Operator)" of the ONNX node.
  std::vector<int> inputs;  ///< Indices into fgraph::tensors.
  int output = -1;
  std::variant<fconv, fmaxpool, fadd, faffine, favgpool, fmul, ftable, fproduct, fsoftmax,
               flayernorm, fconstant, fview, fjoin>
      op;
};

/// Whether a node's result has the quantisation of its input.
inline bool keeps_quantisation(const fnode& node) {
  return std::holds_alternative<fmaxpool>(node.op) || std::holds_alternative<fview>(node.op);
}

struct fgraph {
  std::string name;
  std::vector<ftensor> tensors;
  std::vector<fnode> nodes;  ///< In execution order.
  std::vector<io_spec> inputs;
  io_spec output;
  /// Tensors (first) that hold values of another one (second) and get its quantisation.
  std::vector<std::pair<int, int>> follows;
  std::int64_t batch = 0;            ///< Batch written in the file; 0 when it is open.
  std::vector<std::string> remarks;  ///< What the importer changed or ignored, for the user.
};

/// Inputs of nodes that read tensor t, and one more if it is the graph's output.
std::ptrdiff_t readers_of(const fgraph& graph, int t);

/// Folds affine nodes into the convolution before them and bounds into the node before them (across
/// a max-pool too). What then still works on elements alone becomes a table: a function, an affine
/// node that is alike for all channels, and sums and products of such functions of one tensor (GELU
/// spelt with Erf, x * Sigmoid(x) and the like become one table). What differs between channels
/// becomes a depthwise 1x1 convolution. A positive factor behind a product goes into the product,
/// scale and shift behind a layer normalisation into its gamma and beta. A join that another join
/// alone reads becomes parts of that one. No affine node is left afterwards.
void simplify(fgraph& graph);

/// Makes an output of more than kMaxChannels, that a dense 1x1 convolution writes and whose values
/// leave pixel by pixel, columns of fewer channels each, whose values come in the same order: token
/// t of 6,625 channels becomes row t of 5 columns of 1,325. It stays as it is where no number of
/// columns up to 255 divides the channels. Call it behind simplify().
void split_wide_output(fgraph& graph);

/// Makes the tensors of products with several heads fit the accelerator, which keeps each head by
/// itself: what such a product reads as tokens is written by a dense 1x1 convolution and read by
/// the product alone, and the tokens that it makes are read by dense 1x1 convolutions only. Where
/// that does not hold, a convolution that copies goes in between. Channels that are only selected
/// right before and behind a product (padding of its heads; queries, keys and values that one layer
/// makes together) become the work of the layers beyond. Call it behind simplify().
void isolate_products(fgraph& graph);

/// Runs a graph in float32, image by image. Holds its own copy. Not thread-safe.
class float_executor {
 public:
  explicit float_executor(fgraph graph);

  /// One image per graph input, CHW. Returns every tensor; valid until the next call. Throws
  /// latchkey::error (mismatch) for a wrong number of inputs or elements.
  const std::vector<std::vector<float>>& run(const std::vector<std::span<const float>>& inputs);

  /// The output of a graph with one input.
  std::span<const float> infer(std::span<const float> image);

  [[nodiscard]] const fgraph& graph() const noexcept { return graph_; }

 private:
  fgraph graph_;
  std::vector<std::vector<float>> values_;
  std::vector<float> padded_, acc_;
};

/// Index of the largest value, the first of equals.
int argmax(std::span<const float> values) noexcept;

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_FGRAPH_HPP
