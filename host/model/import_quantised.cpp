// Quantised operators: QuantizeLinear, DequantizeLinear, the QLinear and the integer ones.
#include <algorithm>
#include <cmath>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

std::pair<quantisation, io_type> importer::activation_quantisation(int i, bool zero_optional) {
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

void importer::pin(const value& x, const quantisation& q) {
  ftensor& t = tensor(x);
  if (t.pinned && !(*t.pinned == q)) {
    fail(format("reads '{}' with scale {} and zero point {}, but it has {} and {}", t.name, q.scale,
                q.zero_point, t.pinned->scale, t.pinned->zero_point),
         "use the quantisation that the tensor was written with");
  }
  t.pinned = q;
}

void importer::check_type(const value& x, io_type type) const {
  if (x.type != type) damaged("the type of its input is not the type of its zero point");
}

void importer::quantize_constant(const constant& in) {
  const auto scale = finite(weights(1)->values, "the scale");
  const auto zero = has(2) ? weights(2)->values : std::vector<double>{0.0};
  const int type = has(2) ? weights(2)->type : static_cast<int>(pb::TensorProto::UINT8);
  if (type != pb::TensorProto::UINT8 && type != pb::TensorProto::INT8) {
    fail(format("quantises a constant to {}", type_name(type)), "use INT8 or UINT8");
  }
  const slices over = sliced(in, scale.size(), zero.size());
  auto c = std::make_shared<constant>();
  c->dims = in.dims;
  c->type = type;
  c->values.resize(in.values.size());
  const double low = type == pb::TensorProto::INT8 ? -128 : 0;
  for (std::size_t i = 0; i < in.values.size(); ++i) {
    const float s = scale[over.at(i, scale.size())];
    if (!(s > 0.0F)) fail(format("scale {} is not positive", s), "quantise the model again");
    const float v = std::nearbyint(finite(in.values[i], "the constant") / s);
    c->values[i] = std::clamp(double{v} + zero[over.at(i, zero.size())], low, low + 255);
  }
  value v;
  v.data = std::move(c);
  result(std::move(v));
}

importer::slices importer::sliced(const constant& in, std::size_t scales, std::size_t zeros) const {
  const auto rank = static_cast<std::int64_t>(in.dims.size());
  slices over;
  over.axis = integer("axis", 1);
  if (over.axis < 0) over.axis += rank;
  const bool split = scales > 1 || zeros > 1;
  if (!split) over.axis = 0;
  if (split && (over.axis < 0 || over.axis >= rank)) damaged("axis is outside the tensor");
  const auto at = static_cast<std::size_t>(over.axis);
  over.count = split ? static_cast<std::size_t>(in.dims[at]) : 1;
  for (const std::size_t n : {scales, zeros}) {
    if (n != 1 && n != over.count) {
      damaged(format("{} scales or zero points for {}", n, over.count));
    }
  }
  over.inner = std::max<std::size_t>(in.values.size(), 1);
  if (split) {
    over.inner = 1;
    for (std::size_t i = at + 1; i < in.dims.size(); ++i) {
      over.inner *= static_cast<std::size_t>(in.dims[i]);
    }
  }
  return over;
}

void importer::quantize() {
  const value x = input(0, kPads | kViews);
  if (x.data) {
    quantize_constant(*x.data);
    return;
  }
  if (x.type != io_type::f32) damaged("its input is quantised already");
  if (x.sum) fail("its input is an int32 sum", "multiply it by its scale first");
  const auto [q, type] = activation_quantisation(1, true);
  value v = x;
  ftensor& t = tensor(x);
  if (t.pinned && !(*t.pinned == q)) {
    if (x.padded()) {
      fail("changes the quantisation between a Pad and the layer behind it",
           "quantise both sides of the Pad alike");
    }
    // A change of quantisation: a step of its own.
    const auto c = static_cast<std::size_t>(t.c);
    v = emit_affine(x, std::vector<float>(c, 1.0F), std::vector<float>(c, 0.0F), {});
  }
  tensor(v).pinned = q;
  v.type = type;
  result(std::move(v));
}

/// Static quantisation takes its place: bytes stand for the real values, with a scale of 1 and a
/// zero point of 0 until calibration gives others. ONNX Runtime's quantize_dynamic writes it before
/// MatMulInteger and ConvInteger, whose sums it multiplies by the scale.
void importer::dynamic_quantize() {
  value bytes = activation(0, true, kPads | kViews);
  const std::string& name = node_->output(0);
  bytes.type = io_type::u8;
  bytes.dynamic = name;
  static constexpr int types[] = {pb::TensorProto::FLOAT, pb::TensorProto::UINT8};
  for (int i = 1; i < std::min(node_->output_size(), 3); ++i) {
    if (node_->output(i).empty()) continue;
    constant c;
    c.type = types[i - 1];
    c.values = {i == 1 ? 1.0 : 0.0};
    c.of = name;
    value v;
    v.data = std::make_shared<constant>(std::move(c));
    define(node_->output(i), std::move(v));
  }
  out_.remarks.push_back(format(
      "{} is replaced by the quantisation that calibration gives, one for all images", where()));
  result(std::move(bytes));
}

void importer::dequantize() {
  value x = input(0, kPads | kViews | kDynamic);
  if (!x.dynamic.empty() && !x.sum) {
    const value scale = input(1, kDynamic);
    if (!scale.data || scale.data->of != x.dynamic) {
      fail("scales the bytes of a DynamicQuantizeLinear otherwise", "use its own scale");
    }
    x.type = io_type::f32;
    x.dynamic.clear();
    result(std::move(x));
    return;
  }
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
  if (scale.empty() || zero.empty()) damaged("scale or zero point is empty");
  const slices over = sliced(in, scale.size(), zero.size());
  auto c = std::make_shared<constant>();
  c->dims = in.dims;
  c->type = pb::TensorProto::FLOAT;
  c->values.resize(in.values.size());
  constant::quantised q;
  q.axis = static_cast<int>(over.axis);
  q.integers.resize(in.values.size());
  std::size_t outside = 0;
  for (std::size_t i = 0; i < in.values.size(); ++i) {
    const double v = in.values[i] - zero[over.at(i, zero.size())];
    c->values[i] = static_cast<float>(v) * scale[over.at(i, scale.size())];
    if (v < -127 || v > 127) {
      ++outside;
    } else {
      q.integers[i] = static_cast<std::int8_t>(v);
    }
  }
  const bool bytes = in.type == pb::TensorProto::INT8 || in.type == pb::TensorProto::UINT8;
  const bool positive = std::all_of(scale.begin(), scale.end(), [](float s) { return s > 0; });
  if (bytes && positive && outside == 0) {
    q.scale = spread(scale, over.count);
    c->q = std::move(q);
  } else if (bytes) {
    out_.remarks.push_back(
        format("{}: {} of {} weights lie outside [-127, 127] around their zero point; this tensor "
               "is quantised again",
               where(), outside, in.values.size()));
  }
  value v;
  v.data = std::move(c);
  result(std::move(v));
}

integer_weights importer::qlinear_weights(int i, int scale_at, std::size_t outs, std::size_t axis) {
  const auto scale = finite(weights(scale_at)->values, "the scale of the weights");
  if (scale.size() != 1 && scale.size() != outs) {
    damaged(format("{} scales for {} channels", scale.size(), outs));
  }
  for (const float s : scale) {
    if (!(s > 0.0F)) fail(format("scale {} is not positive", s), "quantise the model again");
  }
  integer_weights q = centred(i, weights(scale_at + 1)->values, outs, axis);
  q.scale = spread(scale, outs);
  return q;
}

integer_weights importer::integer_kernels(int zero_at, std::size_t outs, std::size_t axis) {
  const auto zero = has(zero_at) ? weights(zero_at)->values : std::vector<double>{0.0};
  return centred(1, zero, outs, axis);
}

std::vector<float> importer::real_kernels(int zero_at, std::size_t outs, std::size_t axis) const {
  const auto zero = has(zero_at) ? weights(zero_at)->values : std::vector<double>{0.0};
  return differences(1, zero, outs, axis);
}

void importer::set_dynamic(fconv& op, std::vector<float> weights) {
  const auto outs = static_cast<std::size_t>(op.out_channels);
  op.bias.assign(outs, 0.0F);
  const auto outside =
      std::count_if(weights.begin(), weights.end(), [](float v) { return std::abs(v) > 127.0F; });
  if (outside == 0) {
    op.integers.emplace();
    op.integers->values.assign(weights.begin(), weights.end());
    op.integers->scale.assign(outs, 1.0F);
  } else {
    out_.remarks.push_back(
        format("{}: {} of {} weights lie outside [-127, 127] around their zero point; they are "
               "quantised again",
               where(), outside, weights.size()));
  }
  op.weights = std::move(weights);
}

std::vector<float> importer::differences(int i, const std::vector<double>& zero, std::size_t outs,
                                         std::size_t axis) const {
  const auto w = weights(i);
  if (w->type != pb::TensorProto::INT8 && w->type != pb::TensorProto::UINT8) {
    damaged(format("weights of type {} are not 8 bit", type_name(w->type)));
  }
  if (zero.size() != 1 && zero.size() != outs) {
    damaged(format("{} zero points for {} channels", zero.size(), outs));
  }
  std::size_t inner = 1;
  for (std::size_t d = axis + 1; d < w->dims.size(); ++d) {
    inner *= static_cast<std::size_t>(w->dims[d]);
  }
  std::vector<float> out(w->values.size());
  for (std::size_t n = 0; n < out.size(); ++n) {
    out[n] = static_cast<float>(w->values[n] - zero[zero.size() == 1 ? 0 : n / inner % outs]);
  }
  return out;
}

integer_weights importer::centred(int i, const std::vector<double>& zero, std::size_t outs,
                                  std::size_t axis) {
  const std::vector<float> all = differences(i, zero, outs, axis);
  integer_weights q;
  q.values.resize(all.size());
  std::size_t outside = 0;
  float first = 0;
  for (std::size_t n = 0; n < all.size(); ++n) {
    if (all[n] < -127 || all[n] > 127) {
      if (outside++ == 0) first = all[n];
      continue;
    }
    q.values[n] = static_cast<std::int8_t>(all[n]);
  }
  if (outside > 0) {
    fail(format("{} of {} weights minus their zero point lie outside [-127, 127] (the first is "
                "{}), which int8 weights with zero point 0 cannot hold",
                outside, all.size(), first),
         "quantise the weights symmetrically to int8, or to uint8 around 128 without 0");
  }
  return q;
}

void importer::finish_quantised(value v, int output_at, bool zero_optional) {
  const auto [q, type] = activation_quantisation(output_at, zero_optional);
  tensor(v).pinned = q;
  v.type = type;
  result(std::move(v));
}

value importer::integer_input(unsigned take) {
  value x = activation(0, false, take | kDynamic);
  if (x.type == io_type::f32) damaged("its input is not quantised");
  if (!x.dynamic.empty()) {
    const value zero = has(2) ? lookup(node_->input(2), "tensor") : value{};
    if (!zero.data || zero.data->of != x.dynamic) {
      fail("does not subtract the zero point of the DynamicQuantizeLinear before it",
           "give that as its zero point");
    }
    return x;
  }
  std::uint8_t zero = x.type == io_type::i8 ? 128 : 0;
  if (has(2)) {
    const double z = scalar(2, "the zero point of an activation");
    zero = static_cast<std::uint8_t>(z + zero);
  }
  ftensor& t = tensor(x);
  // Bytes that nothing has scaled yet are numbers by themselves.
  if (!t.pinned) t.pinned = quantisation{1.0F, zero};
  if (t.pinned->zero_point != zero) {
    fail(format("subtracts {} from '{}', whose zero point is {}", zero, t.name,
                t.pinned->zero_point),
         "use the zero point that the tensor was written with");
  }
  return x;
}

void importer::finish_integer(const value& x, value v) {
  v.sum = true;
  v.dynamic = x.dynamic;
  result(std::move(v));
}

void importer::set_integers(const value& x, fconv& op) const {
  const auto outs = static_cast<std::size_t>(op.out_channels);
  // In real numbers the input is scale * (byte - zero point): the weights take the scale back.
  const float back = 1.0F / tensor(x).pinned->scale;
  op.integers->scale.assign(outs, back);
  op.weights.resize(op.integers->values.size());
  std::transform(op.integers->values.begin(), op.integers->values.end(), op.weights.begin(),
                 [&](std::int8_t v) { return static_cast<float>(v) * back; });
  op.bias.assign(outs, 0.0F);
}

void importer::matmul_integer() {
  const value x = integer_input(kViews);
  const auto w = weights(1);
  fconv op = dense(x, *w, false);
  const auto outs = static_cast<std::size_t>(op.out_channels);
  const auto rows = [&]<typename T>(const std::vector<T>& values) {
    return rows_of<T>(values, values.size() / outs, outs, false);
  };
  if (x.dynamic.empty()) {
    op.integers = integer_kernels(3, outs, 1);
    op.integers->values = rows(op.integers->values);
    set_integers(x, op);
  } else {
    set_dynamic(op, rows(real_kernels(3, outs, 1)));
  }
  finish_integer(x, emit_dense(x, std::move(op)));
}

/// QLinearSigmoid and QLinearLeakyRelu: a table of 256 bytes.
void importer::qlinear_unary() {
  const value x = qlinear_input(0, true, kViews);
  scalar_function f;
  if (node_->op_type() == "QLinearSigmoid") {
    f = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  } else {
    const double slope = finite(real("alpha", 0.01F), "alpha");
    f = [slope](double v) { return v < 0 ? slope * v : v; };
  }
  finish_quantised(emit_like(x, {x.tensor}, ftable{f}), 3, true);
}

/// QLinearAdd and QLinearMul of com.microsoft: A, scale, zero point, B with the same, C's.
void importer::qlinear_arithmetic() {
  const bool product = node_->op_type() == "QLinearMul";
  const value a = input(0, kViews);
  const value b = input(3, kViews);
  if (a.data && b.data) fail("both inputs are constant", "fold constants before exporting");
  if (a.data || b.data) {
    const int constant_at = a.data ? 0 : 3;
    const value x = qlinear_input(3 - constant_at, true, kViews);
    constant k = a.data ? *a.data : *b.data;
    const double scale = scalar(constant_at + 1, "the scale of a constant");
    const double zero = has(constant_at + 2) ? scalar(constant_at + 2, "a zero point") : 0.0;
    for (double& v : k.values) {
      v = static_cast<float>(scale) * static_cast<float>(v - zero);
    }
    value v;
    if (const auto by = by_channel(x, k)) {
      const std::vector<float> none(by->size(), product ? 0.0F : 1.0F);
      v = product ? emit_affine(x, *by, none, {}) : emit_affine(x, none, *by, {});
    } else {
      const auto q = activation_quantisation(constant_at + 1, true).first;
      const int c = constant_operand(x, spread_over(x, k), node_->input(constant_at), q);
      v = product ? emit_like(x, {x.tensor, c}, fmul{}) : emit_like(x, {x.tensor, c}, fadd{});
    }
    finish_quantised(std::move(v), 6, true);
    return;
  }
  const pair p = paired(qlinear_input(0, true, kViews), qlinear_input(3, true, kViews));
  finish_quantised(product ? emit_like(p.a, {p.a.tensor, p.b.tensor}, fmul{{}, p.broadcast})
                           : emit_like(p.a, {p.a.tensor, p.b.tensor}, fadd{{}, false, p.broadcast}),
                   6, true);
}

void importer::finish_qlinear(const value& x, fconv op, const std::vector<int>& dims,
                              int output_at) {
  set_reals(x, op);
  finish_quantised(emit({x.tensor}, std::move(op), dims), output_at, false);
}

void importer::set_reals(const value& x, fconv& op) const {
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
}

std::vector<std::int32_t> importer::integer_bias(int i, std::size_t outs) const {
  const auto b = weights(i);
  if (b->type != pb::TensorProto::INT32 || b->values.size() != outs) {
    damaged(format("the bias is not {} values of INT32", outs));
  }
  std::vector<std::int32_t> bias(outs);
  std::transform(b->values.begin(), b->values.end(), bias.begin(),
                 [](double v) { return static_cast<std::int32_t>(v); });
  return bias;
}

value importer::qlinear_input(int i, bool zero_optional, unsigned take) {
  const value x = activation(i, false, take);
  const auto [q, type] = activation_quantisation(i + 1, zero_optional);
  check_type(x, type);
  pin(x, q);
  return x;
}

void importer::qlinear_matmul() {
  const value x = qlinear_input(0, false, kViews);
  const auto w = weights(3);
  fconv op = dense(x, *w, false);
  const auto outs = static_cast<std::size_t>(op.out_channels);
  integer_weights q = qlinear_weights(3, 4, outs, 1);
  q.values = rows_of<std::int8_t>(q.values, q.values.size() / outs, outs, false);
  op.integers = std::move(q);
  set_reals(x, op);
  finish_quantised(emit_dense(x, std::move(op)), 6, false);
}

void importer::qgemm() {
  const value x = qlinear_input(0, false);
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

}  // namespace latchkey::model
