// Inside of the importer: the walk over an ONNX graph and what its operators share. Only
// import*.cpp include it; import.hpp is the interface.
#ifndef LATCHKEY_MODEL_IMPORTER_HPP
#define LATCHKEY_MODEL_IMPORTER_HPP

#include <onnx/onnx_pb.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "fallback/host_graph.hpp"
#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/import.hpp"

namespace latchkey::model {

namespace pb = ONNX_NAMESPACE;

constexpr std::int64_t kMaxFile = std::int64_t{1} << 30;
constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;
constexpr std::int64_t kMaxDim = 65535;
constexpr int kMaxNodes = 10000;
/// Taps of a depthwise kernel that fit the accelerator's page; larger kernels become dense ones.
constexpr std::int64_t kMaxDepthwiseTaps = 64;
/// Window side that the accelerator's descriptor holds; a dilated kernel must stay within it.
constexpr std::int64_t kMaxWindow = 255;
/// Times that a pixel at the border may be multiplied for weight that it lacks there: its rounding
/// grows as much, to 2.5 steps of the result.
constexpr int kMaxRestored = 4;

/// Images for which is computed what may depend on an open batch: one, another few, the most.
constexpr std::array<double, 3> kBatches{1, 2, 256};

/// A tensor whose values the file gives.
struct constant {
  std::vector<std::int64_t> dims;
  int type = pb::TensorProto::UNDEFINED;
  std::vector<double> values;  // Exact for every type that is accepted.
  /// Its values for each of kBatches; those in `values` that differ are NaN. Empty: none do.
  std::vector<std::vector<double>> by_batch;
  /// Set by DequantizeLinear when the integers fit the array: values = integers * scale.
  struct quantised {
    std::vector<std::int8_t> integers;
    std::vector<float> scale;
    int axis = 0;
  };
  std::optional<quantised> q;
  /// The scale or zero point of a DynamicQuantizeLinear: the name of its bytes. Otherwise empty.
  std::string of;

  [[nodiscard]] bool integral() const {
    return type == pb::TensorProto::UINT8 || type == pb::TensorProto::INT8 ||
           type == pb::TensorProto::INT32 || type == pb::TensorProto::INT64;
  }
};

/// What a name of the ONNX graph stands for.
///
/// A view is an activation whose dimensions are not planes: `axes` says for each dimension but the
/// batch which part of the tensor it is.
///
///   c  the channels            G  parts, such as queries, keys and values: the outermost of the
///   y  the rows                   channels split in three
///   x  the columns             H  the heads: the outer part of channels split in two
///   1  nothing: one element    D  the channels of one head: their inner part
///
/// Tokens are "xc", split into heads "xHD" and then "HxD" or "HDx", or into parts "xGHD"; the
/// scores of attention are "yxc", with the heads as rows. Of planes, whole or flattened, axes is
/// empty and the batch first.
struct value {
  std::shared_ptr<const constant> data;  // Constant, or null:
  int tensor = -1;                       // an activation, of
  io_type type = io_type::f32;           // this type,
  std::vector<int> dims;                 // with this shape without the batch,
  std::array<int, 4> pads{};  // zeros that a Pad puts around it (top, left, bottom, right),
  bool sum = false;           // and an int32 sum that waits for its scale.
  std::string axes;           // A view, see above; of planes empty.
  int batch = 0;              // Its place among the dimensions; kNowhere: one image, no batch.
  std::string dynamic;        // Bytes of a DynamicQuantizeLinear, or sums of them: its name.

  static constexpr int kNowhere = -1;

  [[nodiscard]] bool padded() const { return pads != std::array<int, 4>{}; }
  /// Dimensions in the file.
  [[nodiscard]] std::size_t rank() const { return dims.size() + (batch == kNowhere ? 0 : 1); }
};

/// What an operator takes besides plain planes.
enum takes : unsigned { kPlanes = 0, kPads = 1, kViews = 2, kDynamic = 4 };

std::string type_name(int type);
std::string dims_text(const std::vector<int>& dims);

template <typename T>
std::string list_text(const T& values) {
  std::string text = "[";
  for (const auto v : values) text += format("{}{}", text.size() > 1 ? ", " : "", v);
  return text + "]";
}

/// Bytes of a file of up to 1 GiB. Throws latchkey::error (bad_file, io).
std::string read_file(const std::filesystem::path& file);

bool parse(const std::string& bytes, pb::ModelProto& message);
bool parse(const std::string& bytes, pb::TensorProto& message);

/// Reads the values of a TensorProto. what names it in messages.
constant read_constant(const pb::TensorProto& t, const std::string& what);

/// For importer::select(): `count` channels, then zeros up to `all`.
std::vector<int> first_channels(int count, int all);

/// A depthwise convolution that copies: of each window the pixel in that row and column.
fconv one_tap(int channels, int kernel_h, int kernel_w, int row, int column);

/// The nearest form that works, by operator.
std::string hint_for(const std::string& op);

/// Nodes of a sound model that the accelerator cannot run. The message lists them.
class unsupported_nodes : public error {
 public:
  struct item {
    int node = 0;  ///< Index in the graph's list.
    std::string message;
  };
  unsupported_nodes(const std::string& file, std::vector<item> items);
  [[nodiscard]] const std::vector<item>& items() const noexcept { return items_; }

 private:
  std::vector<item> items_;
};

class importer {
 public:
  using constant_ptr = std::shared_ptr<const constant>;
  using constants = std::unordered_map<std::string, constant_ptr>;

  /// known: values of names that fold_all() of a larger part of the same file gave; the nodes that
  /// they replace are gone.
  importer(const pb::ModelProto& model, const std::string& file, const import_options& options,
           constants known = {})
      : model_(model), file_(file), options_(options), known_(std::move(known)) {}

  /// The graph of a model with one output.
  fgraph run();

  /// Imports what can be of a model with any number of outputs, and returns its constants.
  constants fold_all();

  /// What the file gives and what follows from that and from shapes, behind run(), refused or not.
  constants known_constants() const;

 private:
  using handler = void (importer::*)();
  /// The operators of a domain: "" or "com.microsoft".
  static const std::unordered_map<std::string, handler>& handlers(bool microsoft);

  // ---- The file, the names, the node ----

  [[noreturn]] void fail(const std::string& reason, const std::string& hint,
                         errc code = errc::unsupported_model) const;
  [[noreturn]] void damaged(const std::string& reason) const;
  std::string where() const;
  void check_versions();
  /// All nodes in turn. Refusals go to issues_.
  void walk();
  void define(const std::string& name, value v);
  /// The value of a Constant node.
  static constant constant_of(const pb::NodeProto& node, const std::string& file);
  void read_constants();
  void read_inputs();
  /// Nodes that the outputs depend on; the others may be of any kind.
  std::vector<bool> live() const;
  /// Some node, or an output of the graph, reads the name.
  bool read(const std::string& name) const;
  int add_tensor(const std::string& name, const std::vector<int>& dims);
  io_spec output_of(const value& result) const;
  value lookup(const std::string& name, const char* what) const;
  /// Input i. kPads: the operator can take zeros around it; kViews: dimensions in any order;
  /// kDynamic: what a DynamicQuantizeLinear makes.
  value input(int i, unsigned take = kPlanes) const;
  /// Input i, which must be computed from the graph's input.
  value activation(int i, bool floating = true, unsigned take = kPlanes) const;
  std::shared_ptr<const constant> weights(int i) const;
  const pb::AttributeProto* attribute(const char* name) const;
  std::int64_t integer(const char* name, std::int64_t otherwise) const;
  float real(const char* name, float otherwise) const;
  std::vector<std::int64_t> integers(const char* name) const;
  float finite(double v, const char* what) const;
  std::vector<float> finite(const std::vector<double>& values, const char* what) const;
  /// A constant with one element.
  double scalar(int i, const char* what) const;
  /// Gives `to` the shape and the view of `from`.
  void copy_shape(const value& from, value& to);
  /// Nodes that read a name and that the output depends on.
  const std::vector<int>& readers(const std::string& name) const;
  void import_node();
  /// import_node(), but what the accelerator cannot do is noted and its results are unknown, so
  /// that one refusal names every such node that can be judged.
  void try_node();

  // ---- Folding of constants (import_folding.cpp) ----

  /// Evaluates the node when its inputs are constants and the host has its operator. False: it is
  /// for the importer's own.
  bool fold();
  static bool folds(const std::string& op);
  constant shape_of(const value& x) const;
  /// The results of a node of the host for kBatches[batch] images.
  std::vector<constant> executed(const fallback::node& n, const std::vector<constant_ptr>& in,
                                 std::size_t batch) const;
  std::vector<constant> executed_for_all(const fallback::node& n,
                                         const std::vector<constant_ptr>& in) const;
  constant_ptr expanded_shape(const constant& x, constant_ptr shape) const;
  std::vector<std::int64_t> reshaped(const constant& x) const;
  constant permuted(const constant& x) const;
  /// Reshape, Squeeze, Unsqueeze or Transpose of a constant.
  bool relabel_constant();
  /// perm of a Transpose, checked.
  std::vector<std::size_t> permutation(std::size_t rank) const;

  bool has(int i) const { return i < node_->input_size() && !node_->input(i).empty(); }

  const ftensor& tensor(const value& v) const {
    return out_.tensors[static_cast<std::size_t>(v.tensor)];
  }

  ftensor& tensor(const value& v) { return out_.tensors[static_cast<std::size_t>(v.tensor)]; }

  void result(value v) { define(node_->output(0), std::move(v)); }

  template <typename Op>
  value emit(std::vector<int> inputs, Op op, const std::vector<int>& dims) {
    return emit_as(node_->output(0), std::move(inputs), std::move(op), dims);
  }

  /// With the shape of `like`, flattened or not, and seen as it is.
  template <typename Op>
  value emit_like(const value& like, std::vector<int> inputs, Op op) {
    return emit_like_as(node_->output(0), like, std::move(inputs), std::move(op));
  }
  template <typename Op>
  value emit_like_as(const std::string& name, const value& like, std::vector<int> inputs, Op op) {
    value v = emit_as(name, std::move(inputs), std::move(op), like.dims);
    copy_shape(like, v);
    return v;
  }

  template <typename Op>
  value emit_as(const std::string& name, std::vector<int> inputs, Op op,
                const std::vector<int>& dims) {
    value v;
    v.dims = dims;
    v.tensor = add_tensor(name, dims);
    fnode n;
    n.name = format("{} ({})", node_->name().empty() ? name : node_->name(), node_->op_type());
    n.inputs = std::move(inputs);
    n.output = v.tensor;
    n.op = std::move(op);
    out_.nodes.push_back(std::move(n));
    return v;
  }

  static std::vector<float> spread(const std::vector<float>& v, std::size_t n) {
    return v.size() == 1 ? std::vector<float>(n, v[0]) : v;
  }

  template <typename T, typename U>
  static std::vector<T> rows_of(const std::vector<U>& w, std::size_t k, std::size_t outs,
                                bool transposed) {
    std::vector<T> out(w.size());
    for (std::size_t o = 0; o < outs; ++o) {
      for (std::size_t i = 0; i < k; ++i) {
        out[o * k + i] = static_cast<T>(transposed ? w[o * k + i] : w[i * outs + o]);
      }
    }
    return out;
  }

  // ---- Shapes (import_shapes.cpp) ----

  void constant_node();
  void identity();
  void cast();
  void dropout();
  void flatten();
  void pad();
  /// The dimensions that a Reshape gives to x, without the batch, whose place x gets; in `wanted`
  /// the shape for messages.
  std::vector<int> sizes_of(value& x, const constant& shape, std::string& wanted);
  void reshape();
  void squeeze();
  void transpose();
  void unsqueeze();
  std::vector<std::int64_t> axes(std::int64_t rank) const;

  // ---- Views (import_views.cpp) ----

  static std::string view_text(const value& x);
  /// The letters of x, of planes too; empty where dimensions are flattened or grouped.
  std::string letters(const value& x) const;
  /// Its letters without dimensions of one; a head that is the only one counts as all channels.
  std::string core(const value& x) const;
  /// Its letters as a factor of attention: without heads or rows where there is one, and without
  /// dimensions that are nothing.
  std::string matrix(const value& x) const;
  /// Names the dimensions of x; makes it planes where they are.
  void relabel(value& x, std::string axes) const;
  /// Channels that one step along dimension `at`, some of the channels, skips.
  static int channel_step(const value& x, std::size_t at);
  /// The elements `kept` of dimension `at`, the channels or some of them.
  value taken(const value& x, std::size_t at, const std::vector<int>& kept,
              const std::string& name);
  /// Takes a dimension of one element away.
  void drop(value& x, std::size_t at) const;
  /// The letters of these dimensions over the elements of x, in their order; empty if there are
  /// none.
  std::string reshaped_view(const value& x, const std::vector<int>& dims) const;
  /// x as these dimensions where they join its rows and columns to tokens, or part its tokens into
  /// rows and columns; nothing otherwise.
  std::optional<value> regrouped(const value& x, const std::vector<int>& dims);
  value as_planes(value x) const;
  /// Planes as the view that x is; their sizes may differ from its.
  value seen_as(value planes, const value& x) const;
  /// The last dimension is all channels.
  bool channels_last(const value& x) const;
  /// Whether elements come in the order of planes: channels, rows, columns.
  bool plane_order(const value& x) const;
  /// Whether the last dimension of a tensor is taken for its channels, by what reads it behind
  /// functions of elements; with `size`, that of the dimension, also behind a Reshape to tokens.
  bool read_channels_last(const std::string& name, std::size_t rank, int size = 0) const;
  /// Dimension of x that is this axis of the file; nothing for the batch.
  std::optional<std::size_t> dim_of(const value& x, std::int64_t axis) const;
  /// The same, and refuses the batch.
  std::size_t axis_of(const value& x, std::int64_t axis) const;
  void softmax();
  void layer_norm();
  void product();
  /// The weights of attention in QDQ files, behind a Softmax, get the zero point that a product
  /// takes.
  void centre_softmaxes();
  /// Imports the layer normalisation spelt out (mean, Sub, Pow 2, mean, Add, Sqrt, Div) that starts
  /// at this node. Returns its nodes, or none where there is none.
  std::vector<int> norm_at(int mean);
  void emit_norm(const value& x, flayernorm op);

  // ---- Channels, rows and columns (import_joins.cpp) ----

  /// An axis of planes, of features or of a view: 1 for channels, all or a part of them, 2 for
  /// rows, 3 for columns.
  int plane_axis(const value& x, std::int64_t axis) const;
  /// Channel channels[o] of x as channel o; zeros where it is -1.
  value select(const value& x, const std::vector<int>& channels, const std::string& name);
  /// x gets the quantisation of `of`, whose values it holds.
  void follow(const value& x, const value& of);
  value join(const std::vector<value>& parts, int axis);
  value join_channels(const std::vector<value>& parts);
  value join_pixels(const std::vector<value>& parts, int axis);
  /// Tokens with constant ones before or behind them.
  void concat_tokens(std::size_t given);
  /// The axis along which a Concat joins its parts, which fit.
  int joined_axis(const std::vector<value>& parts) const;
  struct range_of {
    std::int64_t first = 0, step = 1, count = 1;
  };
  range_of sliced_axis(std::int64_t start, std::int64_t end, std::int64_t step,
                       std::int64_t size) const;
  value crop(const value& x, const range_of& rows, const range_of& columns,
             const std::string& name);
  value shuffled(const value& x);
  void concat();
  void qlinear_concat();
  void split();
  void slice();
  void gather();
  void pick(const value& x, int axis, double index);

  // ---- Elementwise (import_elementwise.cpp) ----

  /// Two tensors of an elementwise operator; with broadcast the second is c x 1 x 1.
  struct pair {
    value a, b;
    bool broadcast = false;
  };
  pair paired(const value& a, const value& b) const;
  value extreme_of(const pair& p, bool largest);
  value surrounded(const value& x);
  /// An affine node: the result has the shape of its input, flattened or not.
  value emit_affine(const value& x, std::vector<float> scale, std::vector<float> shift,
                    bounds clip);
  void emit_clip(const value& x, const bounds& b);
  void emit_table(const value& x, scalar_function f);
  void relu();
  void clip();
  void batch_norm();
  void gelu();
  void parametric();
  void power();
  void prelu();
  void unary();
  /// Add, Sub, Mul, Div, Sum, Max and Min; all but Div, Max and Min also of two tensors.
  void arithmetic();
  void combine(const std::string& op, const value& x, std::vector<float> values,
               bool constant_first);
  /// A constant's value for every element of x, CHW.
  std::vector<float> spread_over(const value& x, const constant& c) const;
  /// One value for each channel; nothing if they differ inside one.
  std::optional<std::vector<float>> by_channel(const value& x, const constant& c) const;
  /// The tensor that holds such values.
  int constant_operand(const value& x, std::vector<float> values, const std::string& name,
                       std::optional<quantisation> pinned);

  // ---- Windows (import_windows.cpp) ----

  /// A window as the node gives it, checked; dilations are in the kernel.
  struct given_window {
    std::vector<std::int64_t> kernel, strides, pads;
    std::string auto_pad;
  };
  given_window read_window(const value& x, std::vector<std::int64_t> kernel, bool pooling) const;
  /// Kernel, strides and pads of Conv, MaxPool and QLinearConv, checked and resolved.
  template <typename Op>
  std::vector<int> window(const value& x, Op& op, std::vector<std::int64_t> kernel, bool pooling);
  void check_size(const std::vector<int>& dims) const;
  void maxpool();
  void global_maxpool();
  /// Times that an axis of `size` elements repeats each of them; refuses what does not repeat.
  int repeats_of(double size, double wanted, const char* axis) const;
  int factor_of(double size, double wanted, const char* axis, const char* hint) const;
  std::string resize_text(const char* name, const char* before_11, const char* otherwise) const;
  struct interpolation {
    int factor = 1, before = 0, whole = 1;
    std::vector<int> window, weights;
  };
  interpolation interpolation_of(double size, double wanted, const char* axis) const;
  void interpolate(const value& x, double rows, double columns);
  void resize();
  void emit_pool(const value& x, const fmaxpool& op, const std::vector<int>& dims);
  void avgpool();
  void global_avgpool();
  void qlinear_avgpool();
  void reduce_mean();
  void mean_of_view(const value& x, const std::vector<std::int64_t>& axes);
  template <typename Op>
  Op whole_plane(const value& x) const;
  static std::vector<int> taps_inside(int outputs, int kernel, int stride, int before, int from,
                                      int to);
  /// An average pool; windows that divide by fewer pixels than others are restored.
  value emit_average(const value& x);
  value restored(const value& x, const std::vector<int>& rows, const std::vector<int>& columns,
                 int whole);
  /// Geometry of a convolution from the shape of its weights; fills all but the values.
  std::vector<int> conv_shape(const value& x, const constant& w, fconv& op);
  /// Weights in the order of fconv: groups that are not depthwise become dense, dilated kernels get
  /// zeros between their taps.
  template <typename T>
  std::vector<T> kernels(const fconv& op, const constant& w, const std::vector<T>& values) const;
  void conv();
  void conv_integer();

  // ---- Transposed convolutions (import_transposed.cpp) ----

  /// One axis of a transposed convolution: element i of the input and element t of the kernel meet
  /// in element i * stride + t - before of the output. Dilations are in the kernel. In the layer
  /// that it becomes, tap t of the file is element first + t * step of the kernel.
  struct scatter_axis {
    int size = 1, kernel = 1, stride = 1, dilation = 1, before = 0, out = 1;
    int first = 0, step = 1;
    /// Every element of the output belongs to one of the input.
    [[nodiscard]] bool own() const {
      return before == 0 && kernel <= stride && out == size * stride;
    }
  };
  struct scatter {
    std::array<scatter_axis, 2> axes;  ///< Rows, columns.
    int groups = 1, ins = 1, outs = 1;
    [[nodiscard]] bool moves() const { return axes[0].stride > 1 || axes[1].stride > 1; }
  };
  scatter read_scatter(const value& x, const constant& w) const;
  /// The layer that it becomes, all but the values: a transposed one, or the convolution that may
  /// stand behind set_apart(). It can have more channels than the file's, of zeros.
  fconv scatter_layer(scatter& s) const;
  template <typename T>
  static std::vector<T> scatter_kernels(const scatter& s, const fconv& op, const constant& w,
                                        const std::vector<T>& values);
  /// x with its pixels a stride apart and zeros between and behind them.
  value set_apart(const value& x, const scatter& s);
  void conv_transpose();

  // ---- Matrices (import_dense.cpp) ----

  /// The layer that multiplies flattened images by w: K x O, or O x K when transposed.
  fconv dense(const value& x, const constant& w, bool transposed);
  /// Its result: features, or tokens where x is such.
  value emit_dense(const value& x, fconv op);
  void gemm();
  static void integers_of(const constant& w, fconv& op, std::size_t k, bool transposed);
  void matmul();

  // ---- Integers (import_quantised.cpp) ----

  /// Scale and zero point at inputs i and i + 1, of one activation.
  std::pair<quantisation, io_type> activation_quantisation(int i, bool zero_optional);
  void pin(const value& x, const quantisation& q);
  void check_type(const value& x, io_type type) const;
  void quantize();
  void quantize_constant(const constant& in);
  /// How scales and zero points apply to a constant: one for all, or one per index of an axis.
  struct slices {
    std::int64_t axis = 0;
    std::size_t count = 1, inner = 1;
    [[nodiscard]] std::size_t at(std::size_t i, std::size_t scales) const {
      return scales == 1 ? 0 : i / inner % count;
    }
  };
  slices sliced(const constant& in, std::size_t scales, std::size_t zeros) const;
  void dequantize();
  /// Integer weights of QLinearConv and QLinearMatMul: value - zero point, with scales per channel.
  /// axis is the dimension of the output channels.
  integer_weights qlinear_weights(int i, int scale_at, std::size_t outs, std::size_t axis);
  void finish_qlinear(const value& x, fconv op, const std::vector<int>& dims, int output_at);
  /// The real weights and biases of an operator whose integers are set.
  void set_reals(const value& x, fconv& op) const;
  std::vector<std::int32_t> integer_bias(int i, std::size_t outs) const;
  /// An activation at input i, its scale and zero point behind it.
  value qlinear_input(int i, bool zero_optional, unsigned take = kPlanes);
  void finish_quantised(value v, int output_at, bool zero_optional);
  /// Integer weights without a scale, at input 1.
  integer_weights integer_kernels(int zero_at, std::size_t outs, std::size_t axis);
  /// Weights at input i minus their zero points; axis is the dimension of the output channels.
  std::vector<float> differences(int i, const std::vector<double>& zero, std::size_t outs,
                                 std::size_t axis) const;
  integer_weights centred(int i, const std::vector<double>& zero, std::size_t outs,
                          std::size_t axis);
  value integer_input(unsigned take);
  /// v holds sums over x that wait for their scale.
  void finish_integer(const value& x, value v);
  void set_integers(const value& x, fconv& op) const;
  void matmul_integer();
  void dynamic_quantize();
  std::vector<float> real_kernels(int zero_at, std::size_t outs, std::size_t axis) const;
  /// Weights of a layer on bytes of a DynamicQuantizeLinear, which stand for real values.
  void set_dynamic(fconv& op, std::vector<float> weights);
  void qlinear_arithmetic();
  void qlinear_unary();
  void qlinear_conv();
  void qlinear_matmul();
  /// com.microsoft QGemm: A, its scale and zero point, B with the same, C, scale and zero point of
  /// Y.
  void qgemm();

  const pb::ModelProto& model_;
  std::string file_;
  const import_options& options_;
  constants known_;
  int opset_ = 0;
  fgraph out_;
  std::unordered_map<std::string, value> values_;
  std::vector<bool> needed_;  ///< By node: the output depends on it.
  std::unordered_map<std::string, std::vector<int>> readers_;
  std::unordered_map<std::string, int> writers_;
  const pb::NodeProto* node_ = nullptr;
  int node_index_ = 0;
  std::vector<unsupported_nodes::item> issues_;
  std::unordered_set<std::string> unknown_;  ///< Results of nodes that are not supported.
};

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_IMPORTER_HPP
