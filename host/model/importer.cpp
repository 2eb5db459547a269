// The walk over an ONNX graph: versions, inputs, constants, names, and what every operator asks of
// a node. The operators are in the import_*.cpp files.
#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

std::string hint_for(const std::string& op) {
  static const std::unordered_map<std::string, const char*> hints = {
      {"Softmax", "leave it out: the class is the argmax of the logits all the same"},
      {"LogSoftmax", "leave it out: the class is the argmax of the logits all the same"},
      {"Expand", "leave it out: operators spread values and channels by themselves"},
      {"ArgMax", "leave it out: the host takes the argmax of the output"},
      {"BiasGelu", "add the bias in the layer before it and use Gelu"},
      {"QLinearSoftmax", "leave it out: the class is the argmax of the logits all the same"},
      {"QLinearReduceMean", "use QLinearGlobalAveragePool"},
      {"QAttention", "export it as MatMul, Softmax and MatMul, which run on the card"},
      {"Attention", "export it as MatMul, Softmax and MatMul, which run on the card"},
      {"ReduceSum", "use ReduceMean over rows and columns and scale it"},
      {"InstanceNormalization", "use BatchNormalization, which folds into the layer before it"},
      {"GroupNormalization", "use BatchNormalization, which folds into the layer before it"},
      {"LSTM", "recurrent layers have no counterpart; use convolutions"},
      {"GRU", "recurrent layers have no counterpart; use convolutions"},
      {"If", "control flow has no counterpart; export one branch"},
      {"Loop", "control flow has no counterpart; unroll it before exporting"},
      {"Scan", "control flow has no counterpart; unroll it before exporting"},
  };
  const auto found = hints.find(op);
  return found != hints.end()
             ? found->second
             : "supported are Conv, Gemm, MatMul, BatchNormalization, LayerNormalization, Softmax, "
               "pools, Add, Sub, Mul, Concat, Split, Slice, functions of one tensor, Flatten, "
               "Reshape, QLinear operators and Quantize/DequantizeLinear";
}

namespace {

/// Nodes that one refusal names; the rest is counted.
constexpr std::size_t kMaxListed = 20;

std::string listed(const std::string& file, const std::vector<unsupported_nodes::item>& items) {
  if (items.size() == 1) return items[0].message;
  const std::string hint = "; " + hint_for("");
  bool hinted = false;
  std::string text = format("{}: {} nodes are not supported:", file, items.size());
  for (std::size_t i = 0; i < std::min(items.size(), kMaxListed); ++i) {
    std::string m = items[i].message;
    const std::string prefix = file + ": ";
    if (m.rfind(prefix, 0) == 0) m.erase(0, prefix.size());
    if (m.size() > hint.size() && m.compare(m.size() - hint.size(), hint.size(), hint) == 0) {
      m.erase(m.size() - hint.size());  // once, below
      hinted = true;
    }
    text += "\n  " + m;
  }
  if (items.size() > kMaxListed) text += format("\n  and {} more", items.size() - kMaxListed);
  if (hinted) text += "\n" + hint.substr(2);
  return text;
}

}  // namespace

unsupported_nodes::unsupported_nodes(const std::string& file, std::vector<item> items)
    : error(errc::unsupported_model, listed(file, items)), items_(std::move(items)) {}

void importer::walk() {
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
  needed_ = live();
  for (int i = 0; i < graph.node_size(); ++i) {
    for (const std::string& name : graph.node(i).output()) writers_.emplace(name, i);
    if (!needed_[static_cast<std::size_t>(i)]) continue;
    for (const std::string& name : graph.node(i).input()) {
      auto& by = readers_[name];
      if (by.empty() || by.back() != i) by.push_back(i);
    }
  }
  read_constants();
  read_inputs();
  std::vector<bool> open = needed_;
  for (int i = 0; i < graph.node_size(); ++i) {
    if (!open[static_cast<std::size_t>(i)]) continue;
    node_ = &graph.node(i);
    node_index_ = i;
    const std::vector<int> norm = norm_at(i);
    for (const int n : norm) open[static_cast<std::size_t>(n)] = false;
    if (norm.empty()) try_node();
    node_ = nullptr;
  }
}

importer::constants importer::fold_all() {
  check_versions();
  walk();
  return known_constants();
}

importer::constants importer::known_constants() const {
  constants out;
  for (const auto& [name, v] : values_) {
    if (v.data && v.data->of.empty()) out.emplace(name, v.data);
  }
  return out;
}

fgraph importer::run() {
  check_versions();
  const pb::GraphProto& graph = model_.graph();
  if (graph.output_size() != 1) {
    throw error(errc::unsupported_model,
                format("{}: the graph has {} outputs, exactly one is supported; cut the model at "
                       "the one you need",
                       file_, graph.output_size()));
  }
  walk();
  if (!issues_.empty()) throw unsupported_nodes(file_, std::move(issues_));
  const value result = lookup(graph.output(0).name(), "graph output");
  if (result.data) {
    throw error(errc::unsupported_model,
                format("{}: output '{}' is constant: nothing is computed from the input; name "
                       "the right output",
                       file_, graph.output(0).name()));
  }
  if (result.sum || result.padded() || !result.dynamic.empty()) {
    throw error(errc::unsupported_model,
                format("{}: output '{}' is {}; {}", file_, graph.output(0).name(),
                       result.sum        ? "an int32 sum"
                       : result.padded() ? "padded"
                                         : "made of bytes whose scale is each image's own",
                       result.sum        ? "multiply it by its scale (Cast, Mul) to get real values"
                       : result.padded() ? "leave out the last Pad"
                                         : "leave out the last DynamicQuantizeLinear"));
  }
  out_.output = output_of(result);
  if (out_.inputs.empty()) {
    throw error(errc::unsupported_model, format("{}: no input is left to compute from", file_));
  }
  std::size_t elements = 0;
  for (const ftensor& t : out_.tensors) elements += t.size();
  if (elements > static_cast<std::size_t>(kMaxElements)) {
    throw error(errc::unsupported_model,
                format("{}: the activations of one image take {} bytes, at most {} are supported; "
                       "use smaller images",
                       file_, elements, kMaxElements));
  }
  simplify(out_);
  split_wide_output(out_);
  isolate_products(out_);
  centre_softmaxes();
  return std::move(out_);
}

io_spec importer::output_of(const value& result) const {
  const std::string& name = model_.graph().output(0).name();
  io_spec out{name, result.tensor, result.type, result.dims};
  if (result.axes.empty() || plane_order(result)) return out;
  // Pixel by pixel, in their order.
  std::string order = core(result);
  std::replace(order.begin(), order.end(), 'D', 'c');
  std::erase(order, 'H');
  const std::string parts = core(result);
  const bool heads_apart =
      parts.find('H') != std::string::npos && parts.find("HD") == std::string::npos;
  if (heads_apart || result.batch != 0 || (order != "xc" && order != "yc" && order != "yxc")) {
    throw unsupported_nodes(
        file_,
        {{writers_.at(name),
          format("{}: output '{}' is {}, an order that results do not leave the card in; end "
                 "with N x C x H x W, N x H x W x C or tokens, N x T x C",
                 file_, name, view_text(result))}});
  }
  out.channels_last = true;
  return out;
}

const std::vector<int>& importer::readers(const std::string& name) const {
  static const std::vector<int> none;
  const auto found = readers_.find(name);
  return found == readers_.end() ? none : found->second;
}

void importer::fail(const std::string& reason, const std::string& hint, errc code) const {
  std::string on;
  for (const std::string& name : node_->input()) {
    const auto found = values_.find(name);
    if (found != values_.end() && !found->second.data) {
      const value& x = found->second;
      on = format(" on {}", x.batch == 0 ? dims_text(x.dims) : view_text(x));
      break;
    }
  }
  throw error(code, format("{}: {}{}: {}; {}", file_, where(), on, reason, hint));
}

void importer::damaged(const std::string& reason) const {
  fail(reason, "the file is damaged or was written by a faulty exporter", errc::bad_file);
}

std::string importer::where() const {
  return format("node '{}' ({})",
                node_->name().empty() ? format("#{}", node_index_) : node_->name(),
                node_->op_type());
}

void importer::check_versions() {
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
}

void importer::define(const std::string& name, value v) {
  if (name.empty() || !values_.emplace(name, std::move(v)).second) {
    throw error(
        errc::bad_file,
        format("{}: the name '{}' is empty or defined twice; the file is damaged", file_, name));
  }
}

void importer::read_constants() {
  for (const auto& [name, c] : known_) {
    value v;
    v.data = c;
    define(name, std::move(v));
  }
  for (const pb::TensorProto& t : model_.graph().initializer()) {
    if (known_.count(t.name()) > 0) continue;
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

void importer::read_inputs() {
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
      refuse(
          format("has {} dimensions, supported are 1 to 4 with the batch first", shape.dim_size()));
    }
    const std::vector<int>& given = options_.input_shape;
    if (!given.empty() && given.size() + 1 != static_cast<std::size_t>(shape.dim_size())) {
      refuse(format("has {} dimensions behind the batch, the given shape has {}",
                    shape.dim_size() - 1, given.size()));
    }
    std::int64_t elements = 1;
    for (int i = 0; i < shape.dim_size(); ++i) {
      bool known = shape.dim(i).has_dim_value() && shape.dim(i).dim_value() > 0;
      std::int64_t d = shape.dim(i).dim_value();
      if (i == 0) {
        if (known && d < 0) refuse(format("has a batch of {}", d));
        if (known && d > 0) out_.batch = d;
        continue;
      }
      if (!given.empty()) {
        const std::int64_t wanted = given[static_cast<std::size_t>(i) - 1];
        if (known && wanted != d) refuse(format("dimension {} is {}, not {}", i, d, wanted));
        known = true;
        d = wanted;
      }
      if (!known || d < 1 || d > kMaxDim) {
        refuse(
            format("dimension {} is {}, only the batch may be open and the others lie in 1..{}; "
                   "give the size (--input-shape), or export the model with a fixed one",
                   i, known ? std::to_string(d) : "open", kMaxDim));
      }
      elements *= d;
      if (elements > kMaxElements) refuse(format("has more than {} elements", kMaxElements));
      v.dims.push_back(static_cast<int>(d));
    }
    std::vector<int> planes = v.dims;
    const bool last = v.dims.size() > 1 && read_channels_last(info.name(), v.dims.size() + 1);
    if (last) {
      const bool rows = v.dims.size() > 2;
      planes = {v.dims.back(), rows ? v.dims[0] : 1, v.dims[rows ? 1 : 0]};
      v.axes = rows ? "yxc" : "xc";
    }
    v.tensor = add_tensor(info.name(), planes);
    out_.inputs.push_back({info.name(), v.tensor, v.type, v.dims, last});
    define(info.name(), std::move(v));
  }
}

std::vector<bool> importer::live() const {
  const pb::GraphProto& graph = model_.graph();
  std::unordered_set<std::string> wanted;
  for (const auto& o : graph.output()) wanted.insert(o.name());
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

bool importer::read(const std::string& name) const {
  const pb::GraphProto& graph = model_.graph();
  return std::any_of(graph.output().begin(), graph.output().end(),
                     [&](const auto& o) { return o.name() == name; }) ||
         std::any_of(graph.node().begin(), graph.node().end(), [&](const pb::NodeProto& n) {
           return std::find(n.input().begin(), n.input().end(), name) != n.input().end();
         });
}

int importer::add_tensor(const std::string& name, const std::vector<int>& dims) {
  ftensor t;
  t.name = name;
  if (!dims.empty()) t.c = dims[0];
  if (dims.size() > 1) t.h = dims[1];
  if (dims.size() > 2) t.w = dims[2];
  out_.tensors.push_back(t);
  return static_cast<int>(out_.tensors.size()) - 1;
}

value importer::lookup(const std::string& name, const char* what) const {
  const auto found = values_.find(name);
  if (found != values_.end()) return found->second;
  for (const pb::NodeProto& n : model_.graph().node()) {
    if (std::find(n.output().begin(), n.output().end(), name) == n.output().end()) continue;
    throw error(errc::bad_file,
                format("{}: {} '{}' is read before node '{}' ({}) writes it, or is a result of it "
                       "that is not supported; nodes must be sorted and free of cycles",
                       file_, what, name, n.name(), n.op_type()));
  }
  throw error(errc::bad_file,
              format("{}: {} '{}' is given by no input, initializer or node; the file is damaged",
                     file_, what, name));
}

value importer::input(int i, unsigned take) const {
  if (!has(i)) damaged(format("input {} is missing", i));
  value v = lookup(node_->input(i), "tensor");
  if (v.padded() && (take & kPads) == 0) {
    fail("follows a Pad", "pad right before a Conv or AveragePool only");
  }
  if (!v.axes.empty() && (take & kViews) == 0) {
    fail(format("takes planes, its input is {}", view_text(v)),
         "bring it into the order N x C x H x W before (Transpose), or use MatMul, "
         "LayerNormalization, Softmax and functions of elements");
  }
  const std::string& dynamic = v.data ? v.data->of : v.dynamic;
  if (!dynamic.empty() && (take & kDynamic) == 0) {
    fail(format("takes '{}' of a DynamicQuantizeLinear", node_->input(i)),
         "use its bytes in MatMulInteger and ConvInteger, with its zero point, and multiply the "
         "sums "
         "by its scale (Cast, Mul)");
  }
  return v;
}

value importer::activation(int i, bool floating, unsigned take) const {
  value v = input(i, take);
  if (v.data) {
    fail(format("input {} ('{}') is constant", i, node_->input(i)),
         "fold the constant part of the model before exporting");
  }
  if (v.sum) fail("works on an int32 sum", "multiply it by its scale (Mul) first");
  if (floating && v.type != io_type::f32) {
    fail(format("input {} holds integers", i),
         "use the QLinear form of the operator or put DequantizeLinear before it");
  }
  return v;
}

std::shared_ptr<const constant> importer::weights(int i) const {
  value v = input(i, kPads | kViews);
  if (!v.data) {
    fail(format("input {} ('{}') is computed, but must be constant", i, node_->input(i)),
         "store it as an initializer");
  }
  return v.data;
}

const pb::AttributeProto* importer::attribute(const char* name) const {
  for (const auto& a : node_->attribute()) {
    if (a.name() == name) return &a;
  }
  return nullptr;
}

std::int64_t importer::integer(const char* name, std::int64_t otherwise) const {
  const auto* a = attribute(name);
  return a ? a->i() : otherwise;
}

float importer::real(const char* name, float otherwise) const {
  const auto* a = attribute(name);
  return a ? a->f() : otherwise;
}

std::vector<std::int64_t> importer::integers(const char* name) const {
  const auto* a = attribute(name);
  return a ? std::vector<std::int64_t>(a->ints().begin(), a->ints().end())
           : std::vector<std::int64_t>{};
}

float importer::finite(double v, const char* what) const {
  const auto f = static_cast<float>(v);
  if (!std::isfinite(f)) fail(format("{} holds {}", what, v), "train or export the model again");
  return f;
}

std::vector<float> importer::finite(const std::vector<double>& values, const char* what) const {
  std::vector<float> out(values.size());
  std::transform(values.begin(), values.end(), out.begin(),
                 [&](double v) { return finite(v, what); });
  return out;
}

double importer::scalar(int i, const char* what) const {
  const auto c = weights(i);
  if (c->values.size() != 1) {
    fail(format("{} has {} values", what, c->values.size()), "use one value for the whole tensor");
  }
  return c->values[0];
}

void importer::copy_shape(const value& from, value& to) {
  to.axes = from.axes;
  to.batch = from.batch;
  const ftensor source = tensor(from);
  ftensor& t = tensor(to);
  t.c = source.c;
  t.h = source.h;
  t.w = source.w;
}

const std::unordered_map<std::string, importer::handler>& importer::handlers(bool microsoft) {
  static const std::unordered_map<std::string, handler> standard = {
      {"Add", &importer::arithmetic},
      {"AveragePool", &importer::avgpool},
      {"BatchNormalization", &importer::batch_norm},
      {"Cast", &importer::cast},
      {"Celu", &importer::parametric},
      {"Clip", &importer::clip},
      {"Concat", &importer::concat},
      {"Constant", &importer::constant_node},
      {"Conv", &importer::conv},
      {"ConvInteger", &importer::conv_integer},
      {"ConvTranspose", &importer::conv_transpose},
      {"DequantizeLinear", &importer::dequantize},
      {"Div", &importer::arithmetic},
      {"Dropout", &importer::dropout},
      {"DynamicQuantizeLinear", &importer::dynamic_quantize},
      {"Elu", &importer::parametric},
      {"Flatten", &importer::flatten},
      {"Gather", &importer::gather},
      {"Gelu", &importer::gelu},
      {"Gemm", &importer::gemm},
      {"GlobalAveragePool", &importer::global_avgpool},
      {"GlobalMaxPool", &importer::global_maxpool},
      {"HardSigmoid", &importer::parametric},
      {"Identity", &importer::identity},
      {"LayerNormalization", &importer::layer_norm},
      {"LeakyRelu", &importer::parametric},
      {"LogSoftmax", &importer::softmax},
      {"MatMul", &importer::matmul},
      {"MatMulInteger", &importer::matmul_integer},
      {"Max", &importer::arithmetic},
      {"MaxPool", &importer::maxpool},
      {"Min", &importer::arithmetic},
      {"Mul", &importer::arithmetic},
      {"PRelu", &importer::prelu},
      {"Pad", &importer::pad},
      {"Pow", &importer::power},
      {"QLinearConv", &importer::qlinear_conv},
      {"QLinearMatMul", &importer::qlinear_matmul},
      {"QuantizeLinear", &importer::quantize},
      {"ReduceMean", &importer::reduce_mean},
      {"Relu", &importer::relu},
      {"Resize", &importer::resize},
      {"Reshape", &importer::reshape},
      {"Selu", &importer::parametric},
      {"Shrink", &importer::parametric},
      {"Slice", &importer::slice},
      {"Softmax", &importer::softmax},
      {"Split", &importer::split},
      {"Squeeze", &importer::squeeze},
      {"Sub", &importer::arithmetic},
      {"Sum", &importer::arithmetic},
      {"ThresholdedRelu", &importer::parametric},
      {"Transpose", &importer::transpose},
      {"Unsqueeze", &importer::unsqueeze},
      {"Upsample", &importer::resize},
      {"Abs", &importer::unary},
      {"Acos", &importer::unary},
      {"Asin", &importer::unary},
      {"Asinh", &importer::unary},
      {"Atan", &importer::unary},
      {"Ceil", &importer::unary},
      {"Cos", &importer::unary},
      {"Cosh", &importer::unary},
      {"Erf", &importer::unary},
      {"Exp", &importer::unary},
      {"Floor", &importer::unary},
      {"HardSwish", &importer::unary},
      {"Log", &importer::unary},
      {"Mish", &importer::unary},
      {"Neg", &importer::unary},
      {"Reciprocal", &importer::unary},
      {"Round", &importer::unary},
      {"Sigmoid", &importer::unary},
      {"Sign", &importer::unary},
      {"Sin", &importer::unary},
      {"Sinh", &importer::unary},
      {"Softplus", &importer::unary},
      {"Softsign", &importer::unary},
      {"Sqrt", &importer::unary},
      {"Tan", &importer::unary},
      {"Tanh", &importer::unary},
  };
  // What ONNX Runtime's quantiser and optimiser write; the rest of that domain is unknown here.
  static const std::unordered_map<std::string, handler> runtime = {
      {"DequantizeLinear", &importer::dequantize},
      {"FastGelu", &importer::gelu},
      {"Gelu", &importer::gelu},
      {"QGemm", &importer::qgemm},
      {"QLinearAdd", &importer::qlinear_arithmetic},
      {"QLinearAveragePool", &importer::qlinear_avgpool},
      {"QLinearGlobalAveragePool", &importer::qlinear_avgpool},
      {"QLinearConcat", &importer::qlinear_concat},
      {"QLinearLeakyRelu", &importer::qlinear_unary},
      {"QLinearMul", &importer::qlinear_arithmetic},
      {"QLinearSigmoid", &importer::qlinear_unary},
      {"QuantizeLinear", &importer::quantize},
      {"QuickGelu", &importer::parametric},
  };
  return microsoft ? runtime : standard;
}

void importer::try_node() {
  const bool blind = std::any_of(node_->input().begin(), node_->input().end(),
                                 [&](const std::string& name) { return unknown_.count(name) > 0; });
  // Behind an unsupported node there are no shapes; what can be told is whether there is such an
  // operator at all.
  const std::string& domain = node_->domain();
  const bool known =
      (domain.empty() || domain == "ai.onnx" || domain == "com.microsoft") &&
      (handlers(domain == "com.microsoft").count(node_->op_type()) > 0 || folds(node_->op_type()));
  if (!blind || !known) {
    try {
      import_node();
      return;
    } catch (const error& e) {
      if (e.code() != errc::unsupported_model) throw;
      issues_.push_back({node_index_, e.what()});
    }
  }
  unknown_.insert(node_->output().begin(), node_->output().end());
}

void importer::import_node() {
  const std::string& op = node_->op_type();
  const std::string& domain = node_->domain();
  const bool microsoft = domain == "com.microsoft";
  if (!microsoft && !domain.empty() && domain != "ai.onnx") {
    fail(format("domain '{}' is not supported", domain),
         "export with standard ONNX operators only");
  }
  if (node_->output_size() < 1 || node_->output(0).empty()) damaged("has no output");
  if (fold()) return;
  const auto& known = handlers(microsoft);
  const auto found = known.find(op);
  if (found == known.end()) {
    if (!microsoft && handlers(true).count(op) > 0) {
      damaged("is no standard operator; its domain is com.microsoft");
    }
    fail(microsoft ? "the operator of domain 'com.microsoft' is not supported"
                   : "the operator is not supported",
         hint_for(op));
  }
  (this->*found->second)();
}

}  // namespace latchkey::model
