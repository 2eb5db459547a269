// ONNX import: opset 9 to 17 into the float graph.
//
// Operators, on N, N x C or N x C x H x W with the batch first, which may be open, and on tokens,
// N x T x C (see below):
//
//   layers        Conv (groups, depthwise, dilations), ConvTranspose (likewise), Gemm, MatMul,
//                 BatchNormalization
//   pools         MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, ReduceMean over rows and
//                 columns
//   two tensors   Add, Sub, Mul, Sum, Max, Min, the second also N x C x 1 x 1
//   transformers  MatMul of two tensors as attention has it, Softmax over channels and scores,
//                 LayerNormalization over channels, also spelt out; ReduceMean over tokens; Gemm of
//                 the tokens of one image
//   constants     Add, Sub, Mul, Div, of any shape that spreads over the tensor; Max, Min, Pow, one
//                 value or one per channel
//   elements      Relu, Clip, LeakyRelu, PRelu, Sigmoid, HardSigmoid, HardSwish,
//                 Tanh, Gelu, Elu, Selu, Celu, Softplus, Softsign, Mish, Erf, Exp, Log, Sqrt, Abs,
//                 Neg, Reciprocal, Floor, Ceil, Round, Sign, Shrink, ThresholdedRelu,
//                 trigonometric and hyperbolic functions
//   moves         Concat, Split and Gather of channels, Reshape and Transpose that shuffle them;
//                 Split, Slice and Gather of parts and heads; Slice of channels, rows and columns;
//                 Concat of rows and of tokens, also with constant ones; Resize and Upsample that
//                 repeat pixels or interpolate between them, at whole factors
//   folding       Shape, ConstantOfShape, and of constants everything that the host runs
//                 (fallback/host_graph.hpp); Expand to the batch leaves them as they are
//   relabelling   Flatten, Reshape, Squeeze, Unsqueeze, Transpose that keeps the order of the
//                 elements, Identity, Dropout, Constant, Pad with zeros before Conv or AveragePool
//                 (elsewhere one tap of a depthwise kernel of up to 64); Softmax of features, or
//                 over more than 4,096 channels, as the last node is left out with a remark
//   integers      QuantizeLinear, DequantizeLinear, QLinearConv, QLinearMatMul, ConvInteger and
//                 MatMulInteger with their scale in a Mul behind them, also behind
//                 DynamicQuantizeLinear, which calibration replaces; of com.microsoft QGemm,
//                 QLinearAdd, QLinearConcat, QLinearMul, QLinearAveragePool,
//                 QLinearGlobalAveragePool, QLinearLeakyRelu, QLinearSigmoid, Gelu, FastGelu,
//                 QuickGelu
//
// Tokens. A graph input of three dimensions is tokens, its channels last, when MatMul,
// LayerNormalization, or Softmax or ReduceMean over its last axis reads it, behind functions of
// elements too; one of four dimensions is then N x H x W x C. Tokens are columns of one row.
// Reshape splits their channels in two (heads) or three (queries, keys and values of a layer that
// makes all of them) and joins them again, Transpose moves dimensions in any order, the batch too:
// both only rename, and so they do for planes whose channels an operator wants last. Reshape also
// makes tokens of rows and columns, and rows and columns of tokens. Where the file's batch is 1, it
// may be left out of a shape and come back elsewhere.
// Attention is queries N x H x T x D by keys N x H x D x S, and its weights N x H x T x S by values
// N x H x S x D; or the same of one head without H; or the transposes of the latter the other way
// round. Where several heads have no multiple of 64 channels, or one has 32 and less, queries, keys
// and values get zeros in between. Functions of elements, layers with
// constant weights, Concat, Split, Slice and Gather work on the channels of tokens; Slice and
// Gather of one index also take tokens apart.
//
// An output of more than 4,096 channels is split into columns (split_wide_output in fgraph.hpp).
//
// A ConvTranspose whose kernel is no larger than its strides, which nothing cuts off and which
// fills its output, is one layer. Any other is two: the first sets the pixels apart with zeros
// between them, a dense layer of zeros and ones; the second is a Conv with the kernel turned round.
// Where rows would not be whole words of 64 bytes, it works on channels padded with zeros to 64.
//
// Weights may be initializers, Constant nodes or bound graph inputs. Groups that are not depthwise,
// and depthwise kernels of more than 64 taps, become dense convolutions; dilated kernels get zeros
// between their taps. A Concat of pixels, or of parts that fill channel blocks (qjoin), is only a
// place for each. Other moves are convolutions with weights of 0 and 1, and count as such: 1x1
// dense for channels (a Concat adds the parts, each at its place among zeros), one tap of a
// depthwise kernel of up to 64 for rows and columns. Moved bytes keep their quantisation.
//
// Integer weights. The array holds int8 weights in [-127, 127] with zero point 0. Weights with
// another zero point (unsigned ones around 128, say) are converted by subtracting it, which is
// exact as long as every difference fits; QLinearConv, QLinearMatMul and QGemm whose differences do
// not fit are refused and the message counts them, while DequantizeLinear weights are then
// quantised again and a remark says so. Signed activations become unsigned by adding 128 to value
// and zero point.
#ifndef LATCHKEY_MODEL_IMPORT_HPP
#define LATCHKEY_MODEL_IMPORT_HPP

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/fgraph.hpp"

namespace latchkey::model {

constexpr int kMinOpset = 9;
constexpr int kMaxOpset = 17;

struct import_options {
  /// Graph inputs that are weights, and the files (serialised TensorProto) that hold their values.
  std::map<std::string, std::filesystem::path> constants;
  /// Sizes of the input behind the batch, for dimensions that the file leaves open; empty: none.
  std::vector<int> input_shape;
  /// Refuse a last Softmax instead of leaving it out: the host runs it (partition.hpp).
  bool exact_output = false;
};

/// Reads an ONNX file and simplifies the graph. Throws latchkey::error: bad_file when the file
/// cannot be read, is not an ONNX model or contradicts itself; unsupported_model when it is sound
/// but uses what the accelerator has not got. Messages name the node, its operator, its input
/// shape, the reason and the nearest form that works.
fgraph import_onnx(const std::filesystem::path& file, const import_options& options = {});

/// The same for a model in memory; name stands for the file in messages.
fgraph import_onnx(const std::string& bytes, const std::string& name,
                   const import_options& options = {});

/// A serialised TensorProto, as ONNX test data and input files use it.
struct tensor_file {
  std::string name;
  std::vector<std::int64_t> dims;
  io_type type = io_type::f32;
  std::vector<float> values;  ///< Integers are exact up to 2^24.
};

/// Reads a .pb tensor of float, double, u8, i8, i32 or i64 (the last three as io_type::f32). Throws
/// latchkey::error (bad_file).
tensor_file read_tensor(const std::filesystem::path& file);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_IMPORT_HPP
