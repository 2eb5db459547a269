#include "model/import.hpp"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"

namespace latchkey::model {
namespace {

namespace pb = ONNX_NAMESPACE;

constexpr std::int64_t kMaxFile = std::int64_t{1} << 30;
constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;
constexpr std::int64_t kMaxDim = 65535;
constexpr int kMaxNodes = 10000;

/// A tensor whose values the file gives.
struct constant {
  std::vector<std::int64_t> dims;
  int type = pb::TensorProto::UNDEFINED;
  std::vector<double> values;  // Exact for every type that is accepted.
  /// Set by DequantizeLinear when the integers fit the array: values = integers * scale.
  struct quantised {
    std::vector<std::int8_t> integers;
    std::vector<float> scale;
    int axis = 0;
  };
  std::optional<quantised> q;

  [[nodiscard]] bool integral() const {
    return type == pb::TensorProto::UINT8 || type == pb::TensorProto::INT8 ||
           type == pb::TensorProto::INT32 || type == pb::TensorProto::INT64;
  }
};

/// What a name of the ONNX graph stands for.
struct value {
  std::shared_ptr<const constant> data;  // Constant, or null:
  int tensor = -1;                       // an activation, of
  io_type type = io_type::f32;           // this type,
  std::vector<int> dims;                 // with this shape behind the batch.
};

std::string type_name(int type) {
  return pb::TensorProto::DataType_IsValid(type)
             ? pb::TensorProto::DataType_Name(static_cast<pb::TensorProto::DataType>(type))
             : format("type {}", type);
}

std::string dims_text(const std::vector<int>& dims) {
  std::string text = "N";
  for (const int d : dims) text += format(" x {}", d);
  return text;
}

template <typename T>
std::string list_text(const T& values) {
  std::string text = "[";
  for (const auto v : values) text += format("{}{}", text.size() > 1 ? ", " : "", v);
  return text + "]";
}

std::string read_file(const std::filesystem::path& file) {
  std::error_code ec;
  if (std::filesystem::is_directory(file, ec)) {
    throw error(errc::bad_file, format("{}: is a directory; name a file in it", file.string()));
  }
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) {
    throw error(errc::bad_file, format("{}: cannot be opened ({}); check the path", file.string(),
                                       std::strerror(errno)));
  }
  const std::streamoff size = in.tellg();
  if (size < 0 || size > kMaxFile) {
    throw error(errc::bad_file,
                format("{}: {} bytes, files up to 1 GiB can be read", file.string(), size));
  }
  std::string bytes(static_cast<std::size_t>(size), '\0');
  in.seekg(0);
  if (size > 0 && !in.read(bytes.data(), size)) {
    throw error(errc::io, format("{}: reading failed", file.string()));
  }
  return bytes;
}

template <typename Message>
bool parse(const std::string& bytes, Message& message) {
  google::protobuf::io::ArrayInputStream raw(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream in(&raw);
  in.SetTotalBytesLimit(static_cast<int>(kMaxFile));
  in.SetRecursionLimit(64);
  return message.ParseFromCodedStream(&in) && in.ConsumedEntireMessage();
}

/// Reads the values of a TensorProto. what names it in messages.
constant read_constant(const pb::TensorProto& t, const std::string& what) {
  const auto fail = [&](const std::string& why) {
    throw error(errc::bad_file, format("{}: {}", what, why));
  };
  constant out;
  out.type = t.data_type();
  std::int64_t count = 1;
  for (const std::int64_t d : t.dims()) {
    if (d < 0 || d > kMaxElements || (d > 0 && count > kMaxElements / d)) {
      fail(format("shape {} is negative or beyond {} elements", list_text(t.dims()), kMaxElements));
    }
    count *= d;
    out.dims.push_back(d);
  }
  if (t.data_location() == pb::TensorProto::EXTERNAL || t.external_data_size() > 0) {
    fail("its values lie in another file; save the model with its weights inside");
  }
  if (t.has_segment()) fail("segmented tensors cannot be read; save the model again");
  const auto n = static_cast<std::size_t>(count);
  const std::string& raw = t.raw_data();
  const auto take = [&]<typename T>(T /*type*/, const auto& field) {
    // Check sizes before allocating: the shape is only a claim.
    const bool from_raw = !raw.empty();
    const std::size_t have =
        from_raw ? raw.size() / sizeof(T) : static_cast<std::size_t>(field.size());
    if (have != n || (from_raw && raw.size() % sizeof(T) != 0)) {
      fail(format("shape {} needs {} values of {}, the file holds {}; it is damaged",
                  list_text(t.dims()), n, type_name(out.type), have));
    }
    out.values.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      if (from_raw) {
        T v;
        std::memcpy(&v, raw.data() + i * sizeof(T), sizeof(T));
        out.values[i] = static_cast<double>(v);
      } else {
        out.values[i] = static_cast<double>(static_cast<T>(field.Get(static_cast<int>(i))));
      }
    }
  };
  switch (t.data_type()) {
    case pb::TensorProto::FLOAT:
      take(float{}, t.float_data());
      break;
    case pb::TensorProto::DOUBLE:
      take(double{}, t.double_data());
      break;
    case pb::TensorProto::UINT8:
      take(std::uint8_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT8:
      take(std::int8_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT32:
      take(std::int32_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT64:
      take(std::int64_t{}, t.int64_data());
      break;
    case pb::TensorProto::BOOL:
      take(std::uint8_t{}, t.int32_data());
      break;
    default:
      throw error(errc::unsupported_model,
                  format("{}: {} values are not supported; export the model in float32", what,
                         type_name(t.data_type())));
  }
  return out;
}

/// The nearest form that works, by operator.
std::string hint_for(const std::string& op) {
  static const std::unordered_map<std::string, const char*> hints = {
      {"AveragePool", "use MaxPool, or a Conv with stride and constant weights"},
      {"GlobalAveragePool", "use a Conv whose kernel covers the whole plane, or Flatten and Gemm"},
      {"Softmax", "leave it out: the class is the argmax of the logits all the same"},
      {"LogSoftmax", "leave it out: the class is the argmax of the logits all the same"},
      {"Sigmoid", "use Relu or Clip"},
      {"HardSigmoid", "use Relu or Clip"},
      {"HardSwish", "use Relu or Clip"},
      {"Tanh", "use Relu or Clip"},
      {"LeakyRelu", "use Relu"},
      {"PRelu", "use Relu"},
      {"Elu", "use Relu"},
      {"Gelu", "use Relu"},
      {"Transpose", "export the model in NCHW order without Transpose"},
      {"Shape", "export with Flatten (torch.flatten(x, 1)) or a Reshape with a constant shape"},
      {"Concat", "add tensors (Add) instead of joining them"},
      {"ConvTranspose", "use Conv"},
      {"ConvInteger", "use QLinearConv"},
      {"MatMulInteger", "use QLinearMatMul, or QLinearConv with a 1x1 kernel for a bias"},
      {"DynamicQuantizeLinear", "quantise statically, or import the float model and calibrate"},
      {"QLinearAdd", "import the float or QDQ model"},
      {"LayerNormalization", "use BatchNormalization, which folds into the layer before it"},
      {"Pad", "use the pads attribute of Conv or MaxPool"},
      {"Squeeze", "use Flatten or Reshape"},
      {"Unsqueeze", "use Reshape"},
      {"LSTM", "recurrent layers have no counterpart; use convolutions"},
      {"GRU", "recurrent layers have no counterpart; use convolutions"},
      {"If", "control flow has no counterpart; export one branch"},
      {"Loop", "control flow has no counterpart; unroll it before exporting"},
      {"Scan", "control flow has no counterpart; unroll it before exporting"},
  };
  const auto found = hints.find(op);
  return found != hints.end()
             ? found->second
             : "supported are Conv, Gemm, MatMul, BatchNormalization, Relu, Clip, MaxPool, Add, "
               "Flatten, Reshape, QLinearConv, QLinearMatMul and Quantize/DequantizeLinear";
}

class importer {
 public:
  importer(const pb::ModelProto& model, const std::string& file, const import_options& options)
      : model_(model), file_(file), options_(options) {}

  fgraph run() {
    check_versions();
    const pb::GraphProto& graph = model_.graph();
    out_.name = graph.name().empty() ? file_ : graph.name();
    if (graph.node_size() > kMaxNodes) {
      throw error(errc::unsupported_model, format("{}: {} nodes, at most {} can be read", file_,
                                                  graph.node_size(), kMaxNodes));
    }
    if (graph.sparse_initializer_size() > 0) {
      throw error(errc::unsupported_model,
                  format("{}: sparse initializers are not supported; save dense ones", file_));
    }
    read_constants();
    read_inputs();
    const std::vector<bool> needed = live();
    for (int i = 0; i < graph.node_size(); ++i) {
      if (needed[static_cast<std::size_t>(i)]) {
        node_ = &graph.node(i);
        node_index_ = i;
        import_node();
        node_ = nullptr;
      }
    }
    const value result = lookup(graph.output(0).name(), "graph output");
    if (result.data) {
      throw error(errc::unsupported_model,
                  format("{}: output '{}' is constant: nothing is computed from the input; name "
                         "the right output",
                         file_, graph.output(0).name()));
    }
    out_.output = {graph.output(0).name(), result.tensor, result.type, result.dims};
    if (out_.inputs.empty()) {
      throw error(errc::unsupported_model, format("{}: no input is left to compute from", file_));
    }
    std::size_t elements = 0;
    for (const ftensor& t : out_.tensors) elements += t.size();
    if (elements > static_cast<std::size_t>(kMaxElements)) {
      throw error(
          errc::unsupported_model,
          format("{}: the activations of one image take {} bytes, at most {} are supported; "
                 "use smaller images",
                 file_, elements, kMaxElements));
    }
    simplify(out_);
    return std::move(out_);
  }

 private:
  // ---- Messages ----

  [[noreturn]] void fail(const std::string& reason, const std::string& hint,
                         errc code = errc::unsupported_model) const {
    std::string on;
    for (const std::string& name : node_->input()) {
      const auto found = values_.find(name);
      if (found != values_.end() && !found->second.data) {
        on = format(" on {}", dims_text(found->second.dims));
        break;
      }
    }
    throw error(code, format("{}: {}{}: {}; {}", file_, where(), on, reason, hint));
  }

  [[noreturn]] void damaged(const std::string& reason) const {
    fail(reason, "the file is damaged or was written by a faulty exporter", errc::bad_file);
  }

  std::string where() const {
    return format("node '{}' ({})",
                  node_->name().empty() ? format("#{}", node_index_) : node_->name(),
                  node_->op_type());
  }

  // ---- The file ----

  void check_versions() {
    if (!model_.has_graph()) {
      throw error(errc::bad_file, format("{}: holds no graph; it is not an ONNX model", file_));
    }
    for (const auto& set : model_.opset_import()) {
      if (set.domain().empty() || set.domain() == "ai.onnx")
        opset_ = static_cast<int>(std::clamp<std::int64_t>(set.version(), -1, 1000000));
    }
    if (opset_ == 0) {
      throw error(errc::bad_file,
                  format("{}: names no operator set; it is not a complete ONNX model", file_));
    }
    if (opset_ < kMinOpset || opset_ > kMaxOpset) {
      throw error(errc::unsupported_model,
                  format("{}: operator set {} is not supported, {} to {} are; export the model "
                         "again with opset_version={}",
                         file_, opset_, kMinOpset, kMaxOpset, opset_ < kMinOpset ? 13 : kMaxOpset));
    }
    if (model_.ir_version() > 8) {
      out_.remarks.push_back(
          format("the file has IR version {}, newer than 8; its operator set {} is known, so it is "
                 "read as version 8",
                 model_.ir_version(), opset_));
    }
    if (model_.functions_size() > 0) {
      throw error(errc::unsupported_model,
                  format("{}: model-local functions are not supported; inline them "
                         "(onnx.inliner) before importing",
                         file_));
    }
    const pb::GraphProto& graph = model_.graph();
    if (graph.output_size() != 1) {
      throw error(errc::unsupported_model,
                  format("{}: the graph has {} outputs, exactly one is supported; cut the model at "
                         "the one you need",
                         file_, graph.output_size()));
    }
  }

  void define(const std::string& name, value v) {
    if (name.empty() || !values_.emplace(name, std::move(v)).second) {
      throw error(
          errc::bad_file,
          format("{}: the name '{}' is empty or defined twice; the file is damaged", file_, name));
    }
  }

  void read_constants() {
    for (const pb::TensorProto& t : model_.graph().initializer()) {
      value v;
      v.data = std::make_shared<constant>(
          read_constant(t, format("{}: initializer '{}'", file_, t.name())));
      define(t.name(), std::move(v));
    }
    for (const auto& [name, path] : options_.constants) {
      pb::TensorProto t;
      if (!parse(read_file(path), t)) {
        throw error(errc::bad_file, format("{}: is not a serialised tensor", path.string()));
      }
      value v;
      v.data = std::make_shared<constant>(read_constant(t, path.string()));
      define(name, std::move(v));
    }
  }

  void read_inputs() {
    for (const pb::ValueInfoProto& info : model_.graph().input()) {
      if (values_.count(info.name()) > 0) continue;  // A weight with an initializer.
      const auto refuse = [&](const std::string& why) {
        throw error(errc::unsupported_model, format("{}: input '{}': {}", file_, info.name(), why));
      };
      if (!info.type().has_tensor_type()) refuse("is no tensor; only tensors are supported");
      const auto& type = info.type().tensor_type();
      value v;
      switch (type.elem_type()) {
        case pb::TensorProto::FLOAT:
          v.type = io_type::f32;
          break;
        case pb::TensorProto::UINT8:
          v.type = io_type::u8;
          break;
        case pb::TensorProto::INT8:
          v.type = io_type::i8;
          break;
        default:
          refuse(format("has type {}, supported are FLOAT, UINT8 and INT8",
                        type_name(type.elem_type())));
      }
      const auto& shape = type.shape();
      if (!type.has_shape() || shape.dim_size() < 1 || shape.dim_size() > 4) {
        refuse(format("has {} dimensions, supported are 1 to 4 with the batch first",
                      shape.dim_size()));
      }
      std::int64_t elements = 1;
      for (int i = 0; i < shape.dim_size(); ++i) {
        const bool known = shape.dim(i).has_dim_value();
        const std::int64_t d = shape.dim(i).dim_value();
        if (i == 0) {
          if (known && d < 0) refuse(format("has a batch of {}", d));
          if (known && d > 0) out_.batch = d;
          continue;
        }
        if (!known || d < 1 || d > kMaxDim) {
          refuse(
              format("dimension {} is {}, only the batch may be open and the others lie in 1..{}; "
                     "export the model with a fixed size",
                     i, known ? std::to_string(d) : "open", kMaxDim));
        }
        elements *= d;
        if (elements > kMaxElements) refuse(format("has more than {} elements", kMaxElements));
        v.dims.push_back(static_cast<int>(d));
      }
      v.tensor = add_tensor(info.name(), v.dims);
      out_.inputs.push_back({info.name(), v.tensor, v.type, v.dims});
      define(info.name(), std::move(v));
    }
  }

  /// Nodes that the output depends on; the others may be of any kind.
  std::vector<bool> live() const {
    const pb::GraphProto& graph = model_.graph();
    std::unordered_set<std::string> wanted{graph.output(0).name()};
    std::vector<bool> needed(static_cast<std::size_t>(graph.node_size()));
    for (int i = graph.node_size(); i-- > 0;) {
      const pb::NodeProto& n = graph.node(i);
      const bool used = std::any_of(n.output().begin(), n.output().end(),
                                    [&](const auto& o) { return wanted.count(o) > 0; });
      if (!used) continue;
      needed[static_cast<std::size_t>(i)] = true;
      wanted.insert(n.input().begin(), n.input().end());
    }
    return needed;
  }

  int add_tensor(const std::string& name, const std::vector<int>& dims) {
    ftensor t;
    t.name = name;
    if (!dims.empty()) t.c = dims[0];
    if (dims.size() > 1) t.h = dims[1];
    if (dims.size() > 2) t.w = dims[2];
    out_.tensors.push_back(t);
    return static_cast<int>(out_.tensors.size()) - 1;
  }

  // ---- Looking at a node ----

  value lookup(const std::string& name, const char* what) const {
    const auto found = values_.find(name);
    if (found != values_.end()) return found->second;
    for (const pb::NodeProto& n : model_.graph().node()) {
      if (std::find(n.output().begin(), n.output().end(), name) == n.output().end()) continue;
      throw error(
          errc::bad_file,
          format("{}: {} '{}' is read before node '{}' ({}) writes it, or is a result of it "
                 "that is not supported; nodes must be sorted and free of cycles",
                 file_, what, name, n.name(), n.op_type()));
    }
    throw error(errc::bad_file,
                format("{}: {} '{}' is given by no input, initializer or node; the file is damaged",
                       file_, what, name));
  }

  bool has(int i) const { return i < node_->input_size() && !node_->input(i).empty(); }

  value input(int i) const {
    if (!has(i)) damaged(format("input {} is missing", i));
    return lookup(node_->input(i), "tensor");
  }

  /// Input i, which must be computed from the graph's input.
  value activation(int i, bool floating = true) const {
    value v = input(i);
    if (v.data) {
      fail(format("input {} ('{}') is constant", i, node_->input(i)),
           "fold the constant part of the model before exporting");
    }
    if (floating && v.type != io_type::f32) {
      fail(format("input {} holds integers", i),
           "use the QLinear form of the operator or put DequantizeLinear before it");
    }
    return v;
  }

  std::shared_ptr<const constant> weights(int i) const {
    value v = input(i);
    if (!v.data) {
      fail(format("input {} ('{}') is computed, but must be constant", i, node_->input(i)),
           "store it as an initializer");
    }
    return v.data;
  }

  const pb::AttributeProto* attribute(const char* name) const {
    for (const auto& a : node_->attribute()) {
      if (a.name() == name) return &a;
    }
    return nullptr;
  }

  std::int64_t integer(const char* name, std::int64_t otherwise) const {
    const auto* a = attribute(name);
    return a ? a->i() : otherwise;
  }

  float real(const char* name, float otherwise) const {
    const auto* a = attribute(name);
    return a ? a->f() : otherwise;
  }

  std::vector<std::int64_t> integers(const char* name) const {
    const auto* a = attribute(name);
    return a ? std::vector<std::int64_t>(a->ints().begin(), a->ints().end())
             : std::vector<std::int64_t>{};
  }

  const ftensor& tensor(const value& v) const {
    return out_.tensors[static_cast<std::size_t>(v.tensor)];
  }
  ftensor& tensor(const value& v) { return out_.tensors[static_cast<std::size_t>(v.tensor)]; }

  float finite(double v, const char* what) const {
    const auto f = static_cast<float>(v);
    if (!std::isfinite(f)) fail(format("{} holds {}", what, v), "train or export the model again");
    return f;
  }

  std::vector<float> finite(const std::vector<double>& values, const char* what) const {
    std::vector<float> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(),
                   [&](double v) { return finite(v, what); });
    return out;
  }

  /// A constant with one element.
  double scalar(int i, const char* what) const {
    const auto c = weights(i);
    if (c->values.size() != 1) {
      fail(format("{} has {} values", what, c->values.size()),
           "use one value for the whole tensor");
    }
    return c->values[0];
  }

  // ---- Writing the graph ----

  void result(value v) { define(node_->output(0), std::move(v)); }

  template <typename Op>
  value emit(std::vector<int> inputs, Op op, const std::vector<int>& dims) {
    value v;
    v.dims = dims;
    v.tensor = add_tensor(node_->output(0), dims);
    fnode n;
    n.name = format("{} ({})", node_->name().empty() ? node_->output(0) : node_->name(),
                    node_->op_type());
    n.inputs = std::move(inputs);
    n.output = v.tensor;
    n.op = std::move(op);
    out_.nodes.push_back(std::move(n));
    return v;
  }

  /// An affine node: the result has the shape of its input, flattened or not.
  void emit_affine(const value& x, std::vector<float> scale, std::vector<float> shift,
                   bounds clip) {
    value v = emit({x.tensor}, faffine{std::move(scale), std::move(shift), clip}, x.dims);
    copy_shape(x, v);
    result(std::move(v));
  }

  void copy_shape(const value& from, const value& to) {
    const ftensor source = tensor(from);
    ftensor& t = tensor(to);
    t.c = source.c;
    t.h = source.h;
    t.w = source.w;
  }

  void import_node() {
    const std::string& op = node_->op_type();
    const std::string& domain = node_->domain();
    // What ONNX Runtime's own quantiser writes for a Gemm; the rest of that domain is unknown here.
    const bool microsoft = domain == "com.microsoft";
    if (!(domain.empty() || domain == "ai.onnx" || (microsoft && op == "QGemm"))) {
      fail(format("domain '{}' is not supported", domain),
           microsoft ? "quantise into QDQ format, or export with standard ONNX operators only"
                     : "export with standard ONNX operators only");
    }
    if (op == "QGemm" && !microsoft) damaged("is no standard operator");
    if (node_->output_size() < 1 || node_->output(0).empty()) damaged("has no output");
    using handler = void (importer::*)();
    static const std::unordered_map<std::string, handler> handlers = {
        {"Add", &importer::arithmetic},
        {"BatchNormalization", &importer::batch_norm},
        {"Clip", &importer::clip},
        {"Constant", &importer::constant_node},
        {"Conv", &importer::conv},
        {"DequantizeLinear", &importer::dequantize},
        {"Div", &importer::arithmetic},
        {"Dropout", &importer::dropout},
        {"Flatten", &importer::flatten},
        {"Gemm", &importer::gemm},
        {"Identity", &importer::identity},
        {"MatMul", &importer::matmul},
        {"MaxPool", &importer::maxpool},
        {"Mul", &importer::arithmetic},
        {"QGemm", &importer::qgemm},
        {"QLinearConv", &importer::qlinear_conv},
        {"QLinearMatMul", &importer::qlinear_matmul},
        {"QuantizeLinear", &importer::quantize},
        {"Relu", &importer::relu},
        {"Reshape", &importer::reshape},
        {"Sub", &importer::arithmetic},
    };
    const auto found = handlers.find(op);
    if (found == handlers.end()) fail("the operator is not supported", hint_for(op));
    (this->*found->second)();
  }

  void constant_node() {
    auto c = std::make_shared<constant>();
    if (const auto* a = attribute("value")) {
      *c = read_constant(a->t(), format("{}: {}", file_, where()));
    } else if (const auto* f = attribute("value_float")) {
      c->type = pb::TensorProto::FLOAT;
      c->values = {f->f()};
    } else if (const auto* i = attribute("value_int")) {
      c->type = pb::TensorProto::INT64;
      c->values = {static_cast<double>(i->i())};
    } else if (const auto* fs = attribute("value_floats")) {
      c->type = pb::TensorProto::FLOAT;
      c->values.assign(fs->floats().begin(), fs->floats().end());
      c->dims = {fs->floats_size()};
    } else if (const auto* is = attribute("value_ints")) {
      c->type = pb::TensorProto::INT64;
      c->values.assign(is->ints().begin(), is->ints().end());
      c->dims = {is->ints_size()};
    } else {
      fail("holds neither numbers nor a dense tensor", "store numbers as a tensor");
    }
    value v;
    v.data = std::move(c);
    result(std::move(v));
  }

  void identity() { result(input(0)); }

  void dropout() {
    if (has(2) && weights(2)->values != std::vector<double>{0.0}) {
      fail("training_mode is set", "export the model for inference");
    }
    result(activation(0));
  }

  void relu() {
    const value x = activation(0);
    bounds b;
    b.lo = 0.0F;
    const auto c = static_cast<std::size_t>(tensor(x).c);
    emit_affine(x, std::vector<float>(c, 1.0F), std::vector<float>(c, 0.0F), b);
  }

  void clip() {
    const value x = activation(0);
    bounds b;
    // Opset 6 to 10 have attributes, later ones inputs; a file that mixes them is read as meant.
    if (attribute("min")) b.lo = real("min", b.lo);
    if (attribute("max")) b.hi = real("max", b.hi);
    if (has(1)) b.lo = static_cast<float>(scalar(1, "min"));
    if (has(2)) b.hi = static_cast<float>(scalar(2, "max"));
    if (std::isnan(b.lo) || std::isnan(b.hi)) fail("a bound is not a number", "give real bounds");
    // ONNX: with min above max everything becomes max.
    b.lo = std::min(b.lo, b.hi);
    const auto c = static_cast<std::size_t>(tensor(x).c);
    emit_affine(x, std::vector<float>(c, 1.0F), std::vector<float>(c, 0.0F), b);
  }

  void batch_norm() {
    const value x = activation(0);
    if (integer("training_mode", 0) != 0) fail("training_mode is set", "export for inference");
    for (int i = 1; i < node_->output_size(); ++i) {
      if (!node_->output(i).empty()) fail("has outputs of training", "export for inference");
    }
    const auto channels = static_cast<std::size_t>(x.dims.empty() ? 1 : x.dims[0]);
    const auto c = static_cast<std::size_t>(tensor(x).c);
    std::vector<float> p[4];
    static constexpr const char* kNames[] = {"scale", "bias", "mean", "variance"};
    for (int i = 0; i < 4; ++i) {
      p[i] = finite(weights(i + 1)->values, kNames[i]);
      if (p[i].size() != channels) {
        damaged(format("{} has {} values for {} channels", kNames[i], p[i].size(), channels));
      }
    }
    if (channels != c) {
      fail("normalises the elements of a flattened tensor", "normalise before Flatten");
    }
    const double epsilon = real("epsilon", 1e-5F);
    std::vector<float> scale(c), shift(c);
    for (std::size_t i = 0; i < c; ++i) {
      const double v = static_cast<double>(p[3][i]) + epsilon;
      if (!(v > 0.0)) fail(format("variance {} is negative", p[3][i]), "train the model again");
      const double s = p[0][i] / std::sqrt(v);
      scale[i] = finite(s, "scale / sqrt(variance)");
      shift[i] = finite(p[1][i] - p[2][i] * s, "bias - mean * scale / sqrt(variance)");
    }
    emit_affine(x, std::move(scale), std::move(shift), {});
  }

  /// Add, Sub, Mul and Div with a constant on one side, and Add of two tensors.
  void arithmetic() {
    const std::string& op = node_->op_type();
    const value a = input(0);
    const value b = input(1);
    if (a.data && b.data) fail("both inputs are constant", "fold constants before exporting");
    if ((!a.data && a.type != io_type::f32) || (!b.data && b.type != io_type::f32)) {
      fail("works on integers", "put DequantizeLinear before it");
    }
    if (!a.data && !b.data) {
      if (op != "Add") fail("both inputs are computed", "only Add takes two tensors");
      if (a.dims != b.dims || tensor(a).c != tensor(b).c || tensor(a).h != tensor(b).h) {
        fail(format("shapes {} and {} differ", dims_text(a.dims), dims_text(b.dims)),
             "add tensors of one shape");
      }
      value v = emit({a.tensor, b.tensor}, fadd{}, a.dims);
      copy_shape(a, v);
      result(std::move(v));
      return;
    }
    const bool constant_first = a.data != nullptr;
    const value& x = constant_first ? b : a;
    if (constant_first && op == "Div") fail("divides a constant", "multiply by constants only");
    const std::vector<float> k = per_channel(x, *(constant_first ? a : b).data);
    std::vector<float> scale(k.size(), 1.0F), shift(k.size(), 0.0F);
    for (std::size_t i = 0; i < k.size(); ++i) {
      if (op == "Add") shift[i] = k[i];
      if (op == "Mul") scale[i] = k[i];
      if (op == "Div") scale[i] = finite(1.0 / k[i], "1 / divisor");
      if (op == "Sub") shift[i] = constant_first ? k[i] : -k[i];
      if (op == "Sub" && constant_first) scale[i] = -1.0F;
    }
    emit_affine(x, std::move(scale), std::move(shift), {});
  }

  /// Broadcasts a constant over x; it may differ between channels only.
  std::vector<float> per_channel(const value& x, const constant& c) const {
    const auto channels = static_cast<std::size_t>(tensor(x).c);
    const std::vector<float> v = finite(c.values, "the constant");
    if (v.size() == 1) return std::vector<float>(channels, v[0]);
    // Shapes are aligned at their ends; dimension 0 of N, C, H, W is the batch.
    const std::size_t rank = x.dims.size() + 1;
    bool fits = c.dims.size() <= rank && v.size() == channels && !x.dims.empty() &&
                static_cast<std::size_t>(x.dims[0]) == channels;
    for (std::size_t i = 0; fits && i < c.dims.size(); ++i) {
      const std::size_t axis = rank - c.dims.size() + i;
      fits = c.dims[i] == (axis == 1 ? static_cast<std::int64_t>(channels) : 1);
    }
    if (!fits) {
      fail(format("a constant of shape {} does not vary by channel only", list_text(c.dims)),
           "use one value, or one value per channel");
    }
    return v;
  }

  // ---- Shapes ----

  void flatten() {
    value x = activation(0, false);
    const auto rank = static_cast<std::int64_t>(x.dims.size()) + 1;
    std::int64_t axis = integer("axis", 1);
    if (axis < -rank || axis > rank) damaged(format("axis {} is outside the tensor", axis));
    if (axis < 0) axis += rank;
    // A rank-1 tensor flattens to N x 1 either way.
    if (axis != 1) {
      fail(format("axis {} joins other dimensions with the batch", axis), "use axis = 1");
    }
    x.dims = {static_cast<int>(tensor(x).size())};
    result(std::move(x));
  }

  void reshape() {
    value x = activation(0, false);
    const auto shape = weights(1);
    if (shape->type != pb::TensorProto::INT64) damaged("the shape is not INT64");
    if (integer("allowzero", 0) != 0) fail("allowzero is set", "use sizes without 0");
    const auto size = static_cast<std::int64_t>(tensor(x).size());
    std::vector<std::int64_t> to;
    int open = -1;
    for (std::size_t i = 0; i < shape->values.size(); ++i) {
      if (std::abs(shape->values[i]) > static_cast<double>(kMaxElements)) {
        damaged(format("size {} makes no sense", shape->values[i]));
      }
      auto d = static_cast<std::int64_t>(shape->values[i]);
      if (d == 0 && i > 0) {
        if (i - 1 >= x.dims.size()) damaged("copies a dimension that the input has not got");
        d = x.dims[i - 1];
      }
      if (d == -1) {
        if (open >= 0) damaged("two sizes are -1");
        open = static_cast<int>(i);
      }
      if (d < -1 || d > kMaxElements) damaged(format("size {} makes no sense", d));
      to.push_back(d);
    }
    const std::string wanted = list_text(to);
    if (to.empty() || to.size() > 4) {
      fail(format("shape {} has {} dimensions", wanted, to.size()),
           "reshape to two or four dimensions, the batch first");
    }
    std::int64_t rest = 1;
    for (std::size_t i = 1; i < to.size(); ++i) {
      if (to[i] > 0) rest = std::min(rest * to[i], kMaxElements + 1);
    }
    if (open > 0) {
      if (size % rest != 0) damaged(format("shape {} does not divide {} elements", wanted, size));
      to[static_cast<std::size_t>(open)] = size / rest;
      rest = size;
    }
    // First size: 0 and -1 stand for the batch; a number has to be the batch.
    const bool batch_kept =
        open == 0 || to[0] == 0 || to[0] == out_.batch || (out_.batch == 0 && to[0] == 1);
    if (rest != size || !batch_kept) {
      fail(format("shape {} mixes the batch with other dimensions", wanted),
           "keep the batch first: [0, -1] flattens, [0, C, H, W] restores a plane");
    }
    if (out_.batch == 0 && to[0] == 1 && open != 0) {
      out_.remarks.push_back(format("{}: a batch of 1 written in the shape is ignored", where()));
    }
    std::vector<int> dims;
    for (std::size_t i = 1; i < to.size(); ++i) {
      if (to[i] < 1 || to[i] > kMaxDim) {
        if (to.size() != 2) fail(format("shape {} is too large", wanted), "use smaller planes");
      }
      dims.push_back(static_cast<int>(to[i]));
    }
    ftensor& t = tensor(x);
    const bool same = dims.size() == 1 ||
                      (dims.size() == 3 && dims[0] == t.c && dims[1] == t.h && dims[2] == t.w);
    if (!same) {
      // Another plane over the same elements: only the graph's input can still take any shape.
      const bool edge = std::any_of(out_.inputs.begin(), out_.inputs.end(),
                                    [&](const io_spec& s) { return s.tensor == x.tensor; });
      const bool untouched =
          std::none_of(out_.nodes.begin(), out_.nodes.end(), [&](const fnode& n) {
            return std::find(n.inputs.begin(), n.inputs.end(), x.tensor) != n.inputs.end();
          });
      if (!edge || !untouched || dims.size() > 3) {
        fail(format("shape {} changes the planes of a computed tensor", wanted),
             "only flattening, undoing it, and shaping the input are supported");
      }
      t.c = dims.empty() ? 1 : dims[0];
      t.h = dims.size() > 1 ? dims[1] : 1;
      t.w = dims.size() > 2 ? dims[2] : 1;
    }
    x.dims = std::move(dims);
    result(std::move(x));
  }

  // ---- Windows ----

  /// Kernel, strides and pads of Conv, MaxPool and QLinearConv, checked and resolved.
  template <typename Op>
  std::vector<int> window(const value& x, Op& op, std::vector<std::int64_t> kernel, bool pooling) {
    if (x.dims.size() != 3) {
      fail(format("needs four dimensions, has {}", x.dims.size() + 1),
           "use two-dimensional windows on N x C x H x W");
    }
    const ftensor& in = tensor(x);
    if (x.dims[0] != in.c || x.dims[1] != in.h || x.dims[2] != in.w) {
      fail("the planes of its input were reshaped", "leave out the Reshape");
    }
    const auto given = integers("kernel_shape");
    if (!given.empty()) {
      if (!kernel.empty() && given != kernel) {
        damaged(format("kernel_shape {} contradicts the weights {}", list_text(given),
                       list_text(kernel)));
      }
      kernel = given;
    }
    auto strides = integers("strides");
    auto pads = integers("pads");
    auto dilations = integers("dilations");
    if (strides.empty()) strides = {1, 1};
    if (pads.empty()) pads = {0, 0, 0, 0};
    if (dilations.empty()) dilations = {1, 1};
    if (kernel.size() != 2 || strides.size() != 2 || pads.size() != 4 || dilations.size() != 2) {
      fail("the window is not two-dimensional", "use two-dimensional windows on N x C x H x W");
    }
    if (dilations[0] != 1 || dilations[1] != 1) {
      fail(format("dilations {} are not supported", list_text(dilations)), "use dilation 1");
    }
    for (const auto* list : {&kernel, &strides, &pads}) {
      for (const std::int64_t v : *list) {
        if (v < (list == &pads ? 0 : 1) || v > kMaxDim) {
          fail(format("kernel {}, strides {}, pads {}: a value is outside its range",
                      list_text(kernel), list_text(strides), list_text(pads)),
               "use kernels and strides of 1 or more and pads of 0 or more");
        }
      }
    }
    const auto* auto_pad = attribute("auto_pad");
    const std::string mode = auto_pad && !auto_pad->s().empty() ? auto_pad->s() : "NOTSET";
    const bool ceil = pooling && integer("ceil_mode", 0) != 0;
    const int size[2] = {in.h, in.w};
    int out[2];
    for (std::size_t i = 0; i < 2; ++i) {
      const std::int64_t k = kernel[i];
      const std::int64_t s = strides[i];
      std::int64_t& before = pads[i];
      std::int64_t& after = pads[i + 2];
      if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
        const std::int64_t total =
            std::max<std::int64_t>(((size[i] + s - 1) / s - 1) * s + k - size[i], 0);
        before = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
        after = total - before;
      } else if (mode == "VALID") {
        before = after = 0;
      } else if (mode != "NOTSET") {
        damaged(format("auto_pad '{}' does not exist", mode));
      }
      const std::int64_t span = size[i] + before + after - k;
      if (span < 0) {
        damaged(format("the kernel {} is larger than its padded input", list_text(kernel)));
      }
      std::int64_t n = (ceil ? (span + s - 1) / s : span / s) + 1;
      // A window that would start in the padding behind the input does not exist.
      if (ceil && (n - 1) * s >= size[i] + before) --n;
      if (pooling) {
        after = std::max<std::int64_t>((n - 1) * s + k - size[i] - before, 0);
        if (before >= k || after >= k) {
          fail(format("pads {} are as wide as the kernel {}", list_text(pads), list_text(kernel)),
               "use pads smaller than the kernel");
        }
      }
      if (n > kMaxDim) damaged("the output is larger than any tensor may be");
      out[i] = static_cast<int>(n);
    }
    op.kernel_h = static_cast<int>(kernel[0]);
    op.kernel_w = static_cast<int>(kernel[1]);
    op.stride_y = static_cast<int>(strides[0]);
    op.stride_x = static_cast<int>(strides[1]);
    op.pad_top = static_cast<int>(pads[0]);
    op.pad_left = static_cast<int>(pads[1]);
    op.pad_bottom = static_cast<int>(pads[2]);
    op.pad_right = static_cast<int>(pads[3]);
    return {in.c, out[0], out[1]};
  }

  void check_size(const std::vector<int>& dims) const {
    std::int64_t elements = 1;
    for (const int d : dims) elements *= d;
    if (elements > kMaxElements || elements < 1) {
      fail(format("the output {} is too large", dims_text(dims)), "use smaller planes");
    }
  }

  void maxpool() {
    const value x = activation(0, false);
    if (integer("storage_order", 0) != 0) fail("storage_order is set", "leave it out");
    if (integers("kernel_shape").empty()) damaged("kernel_shape is missing");
    fmaxpool op;
    const std::vector<int> dims = window(x, op, {}, true);
    check_size(dims);
    value v = emit({x.tensor}, op, dims);
    v.type = x.type;
    // Only integers carry their quantisation across: a float result may still get another one.
    if (x.type != io_type::f32) tensor(v).pinned = tensor(x).pinned;
    result(std::move(v));
  }

  /// Geometry of a convolution from the shape of its weights; fills all but the values.
  std::vector<int> conv_shape(const value& x, const constant& w, fconv& op) {
    if (w.dims.size() != 4) {
      fail(format("weights of shape {} are not two-dimensional kernels", list_text(w.dims)),
           "use Conv with weights O x I x H x W");
    }
    const std::int64_t group = integer("group", 1);
    if (group != 1) {
      fail(format("group = {} is not supported", group),
           "use group = 1 (a dense convolution with zeros in place of the missing weights)");
    }
    if (w.values.empty()) damaged("has no weights");
    std::vector<int> dims = window(x, op, {w.dims[2], w.dims[3]}, false);
    if (w.dims[1] != dims[0]) {
      damaged(format("weights {} do not fit {} input channels", list_text(w.dims), dims[0]));
    }
    if (w.dims[0] > kMaxDim) fail("has too many output channels", "split the layer");
    op.out_channels = static_cast<int>(w.dims[0]);
    op.in_channels = dims[0];
    dims[0] = op.out_channels;
    check_size(dims);
    return dims;
  }

  void conv() {
    const value x = activation(0);
    const auto w = weights(1);
    fconv op;
    const std::vector<int> dims = conv_shape(x, *w, op);
    op.weights = finite(w->values, "the weights");
    const auto outs = static_cast<std::size_t>(op.out_channels);
    op.bias = has(2) ? finite(weights(2)->values, "the bias") : std::vector<float>(outs);
    if (op.bias.size() != outs) damaged(format("{} biases for {} channels", op.bias.size(), outs));
    if (w->q && (w->q->scale.size() == 1 || (w->q->axis == 0 && w->q->scale.size() == outs))) {
      integer_weights q;
      q.values = w->q->integers;
      q.scale = spread(w->q->scale, outs);
      op.integers = std::move(q);
    }
    result(emit({x.tensor}, std::move(op), dims));
  }

  static std::vector<float> spread(const std::vector<float>& v, std::size_t n) {
    return v.size() == 1 ? std::vector<float>(n, v[0]) : v;
  }

  /// The layer that multiplies flattened images by w: K x O, or O x K when transposed.
  fconv dense(const value& x, const constant& w, bool transposed) {
    if (x.dims.size() != 1) {
      fail(format("needs two dimensions, has {}", x.dims.size() + 1),
           "flatten the images before it (Flatten, axis = 1)");
    }
    if (w.dims.size() != 2) {
      fail(format("weights of shape {} are not a matrix", list_text(w.dims)),
           "use one matrix of weights for all images");
    }
    const std::int64_t k = w.dims[transposed ? 1 : 0];
    const std::int64_t outs = w.dims[transposed ? 0 : 1];
    const ftensor& in = tensor(x);
    if (k != static_cast<std::int64_t>(in.size()) || outs < 1) {
      damaged(format("weights {} do not fit {} inputs", list_text(w.dims), in.size()));
    }
    if (outs > kMaxDim) fail("has too many outputs", "split the layer");
    fconv op;
    op.fully_connected = true;
    op.out_channels = static_cast<int>(outs);
    op.in_channels = in.c;
    op.kernel_h = in.h;
    op.kernel_w = in.w;
    return op;
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

  void gemm() {
    const value x = activation(0);
    const auto w = weights(1);
    if (integer("transA", 0) != 0) {
      fail("transA is set: rows would no longer be images", "use transA = 0");
    }
    const bool transposed = integer("transB", 0) != 0;
    const float alpha = real("alpha", 1.0F);
    const float beta = real("beta", 1.0F);
    fconv op = dense(x, *w, transposed);
    const auto outs = static_cast<std::size_t>(op.out_channels);
    const std::size_t k = w->values.size() / outs;
    op.weights = rows_of<float>(finite(w->values, "the weights"), k, outs, transposed);
    if (alpha != 1.0F) {
      for (float& v : op.weights) v = finite(v * alpha, "alpha * weights");
    }
    op.bias.assign(outs, 0.0F);
    if (has(2)) {
      const auto c = weights(2);
      const bool one = c->values.size() == 1;
      const bool row = c->values.size() == outs && !c->dims.empty() &&
                       c->dims.back() == static_cast<std::int64_t>(outs) && c->dims.size() <= 2;
      if (!one && !row) {
        fail(format("a bias of shape {} differs between images", list_text(c->dims)),
             "use one bias per output");
      }
      for (std::size_t o = 0; o < outs; ++o) {
        op.bias[o] = finite(c->values[one ? 0 : o] * beta, "beta * bias");
      }
    }
    if (w->q && alpha == 1.0F) integers_of(*w, op, k, transposed);
    result(emit({x.tensor}, std::move(op), {static_cast<int>(outs)}));
  }

  static void integers_of(const constant& w, fconv& op, std::size_t k, bool transposed) {
    const auto outs = static_cast<std::size_t>(op.out_channels);
    const int axis = transposed ? 0 : 1;
    if (w.q->scale.size() != 1 && (w.q->axis != axis || w.q->scale.size() != outs)) return;
    integer_weights q;
    q.values = rows_of<std::int8_t>(w.q->integers, k, outs, transposed);
    q.scale = spread(w.q->scale, outs);
    op.integers = std::move(q);
  }

  void matmul() {
    const value x = activation(0);
    const auto w = weights(1);
    fconv op = dense(x, *w, false);
    const auto outs = static_cast<std::size_t>(op.out_channels);
    const std::size_t k = w->values.size() / outs;
    op.weights = rows_of<float>(finite(w->values, "the weights"), k, outs, false);
    op.bias.assign(outs, 0.0F);
    if (w->q) integers_of(*w, op, k, false);
    result(emit({x.tensor}, std::move(op), {static_cast<int>(outs)}));
  }

  // ---- Quantised operators ----

  /// Scale and zero point at inputs i and i + 1, of one activation.
  std::pair<quantisation, io_type> activation_quantisation(int i, bool zero_optional) {
    quantisation q;
    const double s = scalar(i, "the scale of an activation");
    q.scale = static_cast<float>(s);
    if (!(q.scale > 0.0F) || !std::isfinite(q.scale)) {
      fail(format("scale {} is not positive and finite", s), "quantise the model again");
    }
    if (!has(i + 1)) {
      if (!zero_optional) damaged("the zero point is missing");
      return {q, io_type::u8};
    }
    const auto zero = weights(i + 1);
    const double z = scalar(i + 1, "the zero point of an activation");
    if (zero->type == pb::TensorProto::UINT8) {
      q.zero_point = static_cast<std::uint8_t>(z);
      return {q, io_type::u8};
    }
    if (zero->type == pb::TensorProto::INT8) {
      q.zero_point = static_cast<std::uint8_t>(z + 128);
      return {q, io_type::i8};
    }
    fail(format("a zero point of type {} is not supported", type_name(zero->type)),
         "quantise activations to 8 bits");
  }

  void pin(const value& x, const quantisation& q) {
    ftensor& t = tensor(x);
    if (t.pinned && !(*t.pinned == q)) {
      fail(format("reads '{}' with scale {} and zero point {}, but it has {} and {}", t.name,
                  q.scale, q.zero_point, t.pinned->scale, t.pinned->zero_point),
           "use the quantisation that the tensor was written with");
    }
    t.pinned = q;
  }

  void check_type(const value& x, io_type type) const {
    if (x.type != type) damaged("the type of its input is not the type of its zero point");
  }

  void quantize() {
    const value x = activation(0);
    const auto [q, type] = activation_quantisation(1, true);
    value v = x;
    ftensor& t = tensor(x);
    if (t.pinned && !(*t.pinned == q)) {
      // A change of quantisation: a step of its own.
      const auto c = static_cast<std::size_t>(t.c);
      v = emit({x.tensor}, faffine{std::vector<float>(c, 1.0F), std::vector<float>(c, 0.0F), {}},
               x.dims);
      copy_shape(x, v);
    }
    tensor(v).pinned = q;
    v.type = type;
    result(std::move(v));
  }

  void dequantize() {
    value x = input(0);
    if (!x.data) {
      const auto [q, type] = activation_quantisation(1, true);
      if (x.type == io_type::f32) damaged("its input is not quantised");
      // Without a zero point the type of the input decides, and its zero is 0.
      quantisation given = q;
      if (!has(2) && x.type == io_type::i8) given.zero_point = 128;
      if (has(2)) check_type(x, type);
      pin(x, given);
      x.type = io_type::f32;
      result(std::move(x));
      return;
    }
    const constant& in = *x.data;
    if (!in.integral()) damaged(format("dequantises {}", type_name(in.type)));
    const auto scale = finite(weights(1)->values, "the scale");
    const auto zero = has(2) ? weights(2)->values : std::vector<double>{0.0};
    const auto rank = static_cast<std::int64_t>(in.dims.size());
    std::int64_t axis = integer("axis", 1);
    if (axis < 0) axis += rank;
    const bool split = scale.size() > 1 || zero.size() > 1;
    if (!split) axis = 0;
    if (split && (axis < 0 || axis >= rank)) damaged("axis is outside the tensor");
    const auto at = static_cast<std::size_t>(axis);
    const std::size_t channels = split ? static_cast<std::size_t>(in.dims[at]) : 1;
    for (const std::size_t n : {scale.size(), zero.size()}) {
      if (n != 1 && n != channels) damaged(format("{} scales or zero points for {}", n, channels));
    }
    if (scale.empty() || zero.empty()) damaged("scale or zero point is empty");
    std::size_t inner = in.values.size();
    if (split) {
      inner = 1;
      for (std::size_t i = at + 1; i < in.dims.size(); ++i) {
        inner *= static_cast<std::size_t>(in.dims[i]);
      }
    }
    auto c = std::make_shared<constant>();
    c->dims = in.dims;
    c->type = pb::TensorProto::FLOAT;
    c->values.resize(in.values.size());
    constant::quantised q;
    q.axis = static_cast<int>(axis);
    q.integers.resize(in.values.size());
    std::size_t outside = 0;
    for (std::size_t i = 0; i < in.values.size(); ++i) {
      const std::size_t channel = split ? i / inner % channels : 0;
      const double v = in.values[i] - zero[zero.size() == 1 ? 0 : channel];
      c->values[i] = static_cast<float>(v) * scale[scale.size() == 1 ? 0 : channel];
      if (v < -127 || v > 127) {
        ++outside;
      } else {
        q.integers[i] = static_cast<std::int8_t>(v);
      }
    }
    const bool bytes = in.type == pb::TensorProto::INT8 || in.type == pb::TensorProto::UINT8;
    const bool positive = std::all_of(scale.begin(), scale.end(), [](float s) { return s > 0; });
    if (bytes && positive && outside == 0) {
      q.scale = spread(scale, channels);
      c->q = std::move(q);
    } else if (bytes) {
      out_.remarks.push_back(format(
          "{}: {} of {} weights lie outside [-127, 127] around their zero point; this tensor "
          "is quantised again",
          where(), outside, in.values.size()));
    }
    value v;
    v.data = std::move(c);
    result(std::move(v));
  }

  /// Integer weights of QLinearConv and QLinearMatMul: value - zero point, with scales per channel.
  /// axis is the dimension of the output channels.
  integer_weights qlinear_weights(int i, int scale_at, std::size_t outs, std::size_t axis) {
    const auto w = weights(i);
    if (w->type != pb::TensorProto::INT8 && w->type != pb::TensorProto::UINT8) {
      damaged(format("weights of type {} are not 8 bit", type_name(w->type)));
    }
    const auto scale = finite(weights(scale_at)->values, "the scale of the weights");
    const auto zero = weights(scale_at + 1)->values;
    if ((scale.size() != 1 && scale.size() != outs) || (zero.size() != 1 && zero.size() != outs)) {
      damaged(
          format("{} scales and {} zero points for {} channels", scale.size(), zero.size(), outs));
    }
    for (const float s : scale) {
      if (!(s > 0.0F)) fail(format("scale {} is not positive", s), "quantise the model again");
    }
    std::size_t inner = 1;
    for (std::size_t d = axis + 1; d < w->dims.size(); ++d) {
      inner *= static_cast<std::size_t>(w->dims[d]);
    }
    integer_weights q;
    q.values.resize(w->values.size());
    q.scale = spread(scale, outs);
    std::size_t outside = 0;
    double first = 0;
    for (std::size_t n = 0; n < w->values.size(); ++n) {
      const std::size_t o = n / inner % outs;
      const double v = w->values[n] - zero[zero.size() == 1 ? 0 : o];
      if (v < -127 || v > 127) {
        if (outside++ == 0) first = v;
        continue;
      }
      q.values[n] = static_cast<std::int8_t>(v);
    }
    if (outside > 0) {
      fail(format("{} of {} weights minus their zero point lie outside [-127, 127] (the first is "
                  "{}), which int8 weights with zero point 0 cannot hold",
                  outside, w->values.size(), first),
           "quantise the weights symmetrically to int8, or to uint8 around 128 without 0");
    }
    return q;
  }

  void finish_qlinear(const value& x, fconv op, const std::vector<int>& dims, int output_at) {
    const auto [q, type] = activation_quantisation(output_at, false);
    const std::size_t outs = static_cast<std::size_t>(op.out_channels);
    const std::size_t k = op.integers->values.size() / outs;
    const float sx = tensor(x).pinned->scale;
    op.weights.resize(op.integers->values.size());
    for (std::size_t n = 0; n < op.weights.size(); ++n) {
      op.weights[n] = static_cast<float>(op.integers->values[n]) * op.integers->scale[n / k];
    }
    op.bias.assign(outs, 0.0F);
    if (!op.integers->bias) op.integers->bias.emplace(outs, 0);
    for (std::size_t o = 0; o < outs; ++o) {
      op.bias[o] = static_cast<float>(static_cast<double>((*op.integers->bias)[o]) * sx *
                                      op.integers->scale[o]);
    }
    value v = emit({x.tensor}, std::move(op), dims);
    tensor(v).pinned = q;
    v.type = type;
    result(std::move(v));
  }

  std::vector<std::int32_t> integer_bias(int i, std::size_t outs) const {
    const auto b = weights(i);
    if (b->type != pb::TensorProto::INT32 || b->values.size() != outs) {
      damaged(format("the bias is not {} values of INT32", outs));
    }
    std::vector<std::int32_t> bias(outs);
    std::transform(b->values.begin(), b->values.end(), bias.begin(),
                   [](double v) { return static_cast<std::int32_t>(v); });
    return bias;
  }

  value qlinear_input() {
    const value x = activation(0, false);
    const auto [q, type] = activation_quantisation(1, false);
    check_type(x, type);
    pin(x, q);
    return x;
  }

  void qlinear_conv() {
    const value x = qlinear_input();
    const auto w = weights(3);
    fconv op;
    const std::vector<int> dims = conv_shape(x, *w, op);
    const auto outs = static_cast<std::size_t>(op.out_channels);
    op.integers = qlinear_weights(3, 4, outs, 0);
    if (has(8)) op.integers->bias = integer_bias(8, outs);
    finish_qlinear(x, std::move(op), dims, 6);
  }

  void qlinear_matmul() {
    const value x = qlinear_input();
    const auto w = weights(3);
    fconv op = dense(x, *w, false);
    const auto outs = static_cast<std::size_t>(op.out_channels);
    integer_weights q = qlinear_weights(3, 4, outs, 1);
    q.values = rows_of<std::int8_t>(q.values, q.values.size() / outs, outs, false);
    op.integers = std::move(q);
    finish_qlinear(x, std::move(op), {static_cast<int>(outs)}, 6);
  }

  /// com.microsoft QGemm: A, its scale and zero point, B with the same, C, scale and zero point of
  /// Y.
  void qgemm() {
    const value x = qlinear_input();
    const auto w = weights(3);
    if (integer("transA", 0) != 0) {
      fail("transA is set: rows would no longer be images", "use transA = 0");
    }
    if (real("alpha", 1.0F) != 1.0F) fail("alpha is not 1", "fold alpha into the weights");
    if (!has(7)) fail("its result is not quantised", "give it an output scale and zero point");
    const bool transposed = integer("transB", 0) != 0;
    fconv op = dense(x, *w, transposed);
    const auto outs = static_cast<std::size_t>(op.out_channels);
    integer_weights q = qlinear_weights(3, 4, outs, transposed ? 0 : 1);
    q.values = rows_of<std::int8_t>(q.values, q.values.size() / outs, outs, transposed);
    op.integers = std::move(q);
    if (has(6)) op.integers->bias = integer_bias(6, outs);
    finish_qlinear(x, std::move(op), {static_cast<int>(outs)}, 7);
  }

  const pb::ModelProto& model_;
  std::string file_;
  const import_options& options_;
  int opset_ = 0;
  fgraph out_;
  std::unordered_map<std::string, value> values_;
  const pb::NodeProto* node_ = nullptr;
  int node_index_ = 0;
};

}  // namespace

fgraph import_onnx(const std::string& bytes, const std::string& name,
                   const import_options& options) {
  if (bytes.size() > static_cast<std::size_t>(kMaxFile)) {
    throw error(errc::bad_file, format("{}: models up to 1 GiB can be read", name));
  }
  pb::ModelProto model;
  if (bytes.empty() || !parse(bytes, model)) {
    throw error(errc::bad_file,
                format("{}: is no ONNX model, or is cut short ({} bytes); export or copy it again",
                       name, bytes.size()));
  }
  try {
    return importer(model, name, options).run();
  } catch (const std::bad_alloc&) {
    throw error(
        errc::unsupported_model,
        format("{}: the model does not fit this machine's memory; use a smaller one", name));
  }
}

fgraph import_onnx(const std::filesystem::path& file, const import_options& options) {
  return import_onnx(read_file(file), file.string(), options);
}

tensor_file read_tensor(const std::filesystem::path& file) {
  pb::TensorProto t;
  if (!parse(read_file(file), t)) {
    throw error(errc::bad_file, format("{}: is not a serialised tensor", file.string()));
  }
  const constant c = read_constant(t, file.string());
  tensor_file out;
  out.name = t.name();
  out.dims = c.dims;
  out.type = c.type == pb::TensorProto::UINT8  ? io_type::u8
             : c.type == pb::TensorProto::INT8 ? io_type::i8
                                               : io_type::f32;
  out.values.assign(c.values.begin(), c.values.end());
  return out;
}

}  // namespace latchkey::model
