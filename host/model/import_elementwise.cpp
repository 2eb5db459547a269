// Elementwise operators: arithmetic, bounds, normalisation, functions of one tensor.
#include <algorithm>
#include <cmath>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

value importer::emit_affine(const value& x, std::vector<float> scale, std::vector<float> shift,
                            bounds clip) {
  return emit_like(x, {x.tensor}, faffine{std::move(scale), std::move(shift), clip});
}

void importer::emit_clip(const value& x, const bounds& b) {
  const auto c = static_cast<std::size_t>(tensor(x).c);
  result(emit_affine(x, std::vector<float>(c, 1.0F), std::vector<float>(c, 0.0F), b));
}

void importer::emit_table(const value& x, scalar_function f) {
  result(emit_like(x, {x.tensor}, ftable{std::move(f)}));
}

void importer::relu() {
  const value x = activation(0, true, kViews);
  bounds b;
  b.lo = 0.0F;
  emit_clip(x, b);
}

void importer::clip() {
  const value x = activation(0, true, kViews);
  bounds b;
  // Opset 6 to 10 have attributes, later ones inputs; a file that mixes them is read as meant.
  if (attribute("min")) b.lo = real("min", b.lo);
  if (attribute("max")) b.hi = real("max", b.hi);
  if (has(1)) b.lo = static_cast<float>(scalar(1, "min"));
  if (has(2)) b.hi = static_cast<float>(scalar(2, "max"));
  if (std::isnan(b.lo) || std::isnan(b.hi)) fail("a bound is not a number", "give real bounds");
  // ONNX: with min above max everything becomes max.
  b.lo = std::min(b.lo, b.hi);
  emit_clip(x, b);
}

void importer::batch_norm() {
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
  result(emit_affine(x, std::move(scale), std::move(shift), {}));
}

importer::pair importer::paired(const value& a, const value& b) const {
  const ftensor& ta = tensor(a);
  const ftensor& tb = tensor(b);
  const bool views = !a.axes.empty() || !b.axes.empty();
  if (a.dims == b.dims && a.axes == b.axes && a.batch == b.batch && ta.c == tb.c && ta.h == tb.h &&
      ta.w == tb.w) {
    return {a, b, false};
  }
  if (views) {
    fail(format("joins {} and {}", view_text(a), view_text(b)),
         "use two tensors of one shape, both reached by the same Reshape and Transpose");
  }
  const auto spreads = [&](const value& small, const value& large) {
    const ftensor& ts = tensor(small);
    const ftensor& tl = tensor(large);
    return small.dims == std::vector<int>{tl.c, 1, 1} && ts.c == tl.c && ts.h == 1 && ts.w == 1 &&
           large.dims == std::vector<int>{tl.c, tl.h, tl.w};
  };
  if (spreads(b, a)) return {a, b, true};
  if (spreads(a, b)) return {b, a, true};
  fail(format("shapes {} and {} differ", dims_text(a.dims), dims_text(b.dims)),
       "use two tensors of one shape, or the second as N x C x 1 x 1");
}

/// max(a, b) = a - min(a - b, 0), and the other way round.
value importer::extreme_of(const pair& p, bool largest) {
  fadd difference{{}, true, p.broadcast};
  (largest ? difference.clip.hi : difference.clip.lo) = 0.0F;
  const value d = emit_like_as(node_->output(0) + " difference", p.a, {p.a.tensor, p.b.tensor},
                               std::move(difference));
  return emit_like(p.a, {p.a.tensor, d.tensor}, fadd{{}, true, false});
}

void importer::arithmetic() {
  std::string op = node_->op_type();
  const bool extreme = op == "Max" || op == "Min";
  if (op == "Sum") op = "Add";
  if (node_->input_size() == 1 && (extreme || node_->op_type() == "Sum")) {
    identity();
    return;
  }
  if (node_->input_size() != 2) {
    fail(format("has {} inputs", node_->input_size()), "use two inputs, one after the other");
  }
  const value a = input(0, kViews | kDynamic);
  const value b = input(1, kViews | kDynamic);
  if (a.data && b.data) fail("both inputs are constant", "fold constants before exporting");
  if ((!a.data && a.type != io_type::f32) || (!b.data && b.type != io_type::f32)) {
    fail("works on integers", "put DequantizeLinear before it");
  }
  if (!a.data && !b.data) {
    if (a.sum || b.sum) fail("works on an int32 sum", "multiply it by its scale first");
    if (op == "Div") {
      fail("both inputs are computed", "only Add, Sub, Mul, Max and Min take two tensors");
    }
    const pair p = paired(a, b);
    if (extreme) {
      result(extreme_of(p, op == "Max"));
      return;
    }
    if (op == "Sub" && p.a.tensor != a.tensor) {
      fail(format("subtracts {} from {}", dims_text(b.dims), dims_text(a.dims)),
           "subtract the smaller tensor from the larger one, then multiply by -1");
    }
    result(op == "Mul"
               ? emit_like(p.a, {p.a.tensor, p.b.tensor}, fmul{{}, p.broadcast})
               : emit_like(p.a, {p.a.tensor, p.b.tensor}, fadd{{}, op == "Sub", p.broadcast}));
    return;
  }
  const bool constant_first = a.data != nullptr;
  const value& x = constant_first ? b : a;
  const constant& given = *(constant_first ? a : b).data;
  // Sums of such bytes are real values with the scale that each image would have.
  const bool scaled = op == "Mul" && x.sum && !given.of.empty() && x.dynamic == given.of;
  if (!scaled && (!given.of.empty() || (x.sum && !x.dynamic.empty() && op != "Mul"))) {
    fail("works on sums, or with the scale, of a DynamicQuantizeLinear alone",
         "multiply the sums by that scale first");
  }
  const auto channels = by_channel(x, given);
  if (x.sum && ((op != "Mul" && op != "Add") || !channels)) {
    fail("works on an int32 sum", "multiply it by its scale first");
  }
  if (!channels) {
    combine(op, x, spread_over(x, given), constant_first);
    return;
  }
  const std::vector<float>& k = *channels;
  if (constant_first && op == "Div") {
    if (std::any_of(k.begin(), k.end(), [&](float v) { return v != k[0]; })) {
      fail("divides a constant that differs between channels", "divide one value by the tensor");
    }
    emit_table(x, [v = double{k[0]}](double d) { return v / d; });
    return;
  }
  std::vector<float> scale(k.size(), 1.0F), shift(k.size(), 0.0F);
  bounds limit;
  if (extreme) {
    if (std::any_of(k.begin(), k.end(), [&](float v) { return v != k[0]; })) {
      fail("its constant differs between channels", "use one value for all");
    }
    (op == "Max" ? limit.lo : limit.hi) = k[0];
  }
  for (std::size_t i = 0; i < k.size(); ++i) {
    if (op == "Add") shift[i] = k[i];
    if (op == "Mul") scale[i] = k[i];
    if (op == "Div") scale[i] = finite(1.0 / k[i], "1 / divisor");
    if (op == "Sub") shift[i] = constant_first ? k[i] : -k[i];
    if (op == "Sub" && constant_first) scale[i] = -1.0F;
  }
  value v = emit_affine(x, std::move(scale), std::move(shift), limit);
  v.sum = x.sum && (op == "Add" || (!x.dynamic.empty() && !scaled));
  if (v.sum) v.dynamic = x.dynamic;
  result(std::move(v));
}

/// Arithmetic with a constant that differs inside the planes: a tensor of its own.
void importer::combine(const std::string& op, const value& x, std::vector<float> values,
                       bool constant_first) {
  if (op == "Max" || op == "Min" || (op == "Div" && constant_first)) {
    fail("its constant differs between the elements of an image",
         "use one value; only Add, Sub, Mul and division by a constant take more");
  }
  const int at = constant_first ? 0 : 1;
  const auto& q = lookup(node_->input(at), "tensor").data->q;
  std::optional<quantisation> pinned;
  if (op == "Div") {
    for (float& v : values) v = finite(1.0 / v, "1 / divisor");
  } else if (q && q->scale.size() == 1) {
    pinned = quantisation{q->scale[0], 128};
  }
  value from = x;
  if (op == "Sub" && constant_first) {  // c - x is -x + c: the constant is the second operand
    const auto c = static_cast<std::size_t>(tensor(x).c);
    from = emit_affine(x, std::vector<float>(c, -1.0F), std::vector<float>(c, 0.0F), {});
  }
  const int k = constant_operand(x, std::move(values), node_->input(at), pinned);
  result(op == "Mul" || op == "Div"
             ? emit_like(x, {from.tensor, k}, fmul{})
             : emit_like(x, {from.tensor, k}, fadd{{}, op == "Sub" && !constant_first}));
}

std::vector<float> importer::spread_over(const value& x, const constant& c) const {
  const ftensor& t = tensor(x);
  const std::vector<float> v = finite(c.values, "the constant");
  if (v.size() == 1) return std::vector<float>(t.size(), v[0]);
  // Shapes are aligned at their ends.
  const std::size_t rank = x.rank();
  bool fits = c.dims.size() <= rank;
  std::vector<std::size_t> step(x.dims.size(), 0);  // between elements of the constant
  std::size_t inner = 1;
  for (std::size_t i = c.dims.size(); fits && i-- > 0;) {
    if (c.dims[i] == 1) continue;
    const auto at = dim_of(x, static_cast<std::int64_t>(rank - c.dims.size() + i));
    fits = at && c.dims[i] == x.dims[*at];
    if (fits) step[*at] = inner;
    inner *= static_cast<std::size_t>(c.dims[i]);
  }
  if (!fits) {
    fail(format("a constant of shape {} does not spread over {}", list_text(c.dims), view_text(x)),
         "use one value, one per channel, or one per element of an image");
  }
  const auto columns = static_cast<std::size_t>(t.w);
  const std::size_t plane = static_cast<std::size_t>(t.h) * columns;
  std::vector<std::size_t> skipped;  // channels between elements of x
  for (std::size_t i = 0; i < x.axes.size(); ++i) {
    skipped.push_back(static_cast<std::size_t>(channel_step(x, i)));
  }
  std::vector<float> out(t.size());
  for (std::size_t e = 0; e < out.size(); ++e) {
    std::size_t from = 0, rest = e;
    for (std::size_t i = x.dims.size(); i-- > 0;) {
      const auto size = static_cast<std::size_t>(x.dims[i]);
      const char letter = x.axes.empty() ? '*' : x.axes[i];  // planes are in their own order
      const std::size_t at = letter == '*'   ? rest % size
                             : letter == 'x' ? e % columns
                             : letter == 'y' ? e / columns % static_cast<std::size_t>(t.h)
                                             : e / plane / skipped[i] % size;  // of channels, and 1
      from += at * step[i];
      rest /= size;
    }
    out[e] = v[from];
  }
  return out;
}

std::optional<std::vector<float>> importer::by_channel(const value& x, const constant& c) const {
  const auto channels = static_cast<std::size_t>(tensor(x).c);
  if (c.values.size() == 1) return spread(finite(c.values, "the constant"), channels);
  const std::vector<float> values = spread_over(x, c);
  const std::size_t plane = values.size() / channels;
  std::vector<float> out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % plane == 0) out.push_back(values[i]);
    if (values[i] != out.back()) return {};
  }
  return out;
}

int importer::constant_operand(const value& x, std::vector<float> values, const std::string& name,
                               std::optional<quantisation> pinned) {
  const ftensor t = tensor(x);
  const value v = emit_as(name, {}, fconstant{std::move(values)}, {t.c, t.h, t.w});
  out_.nodes.back().name = format("constant '{}'", name);
  tensor(v).pinned = pinned;
  return v.tensor;
}

/// Functions without parameters.
void importer::unary() {
  static const std::unordered_map<std::string, double (*)(double)> functions = {
      {"Abs", [](double x) { return std::abs(x); }},
      {"Acos", [](double x) { return std::acos(x); }},
      {"Asin", [](double x) { return std::asin(x); }},
      {"Asinh", [](double x) { return std::asinh(x); }},
      {"Atan", [](double x) { return std::atan(x); }},
      {"Ceil", [](double x) { return std::ceil(x); }},
      {"Cos", [](double x) { return std::cos(x); }},
      {"Cosh", [](double x) { return std::cosh(x); }},
      {"Erf", [](double x) { return std::erf(x); }},
      {"Exp", [](double x) { return std::exp(x); }},
      {"Floor", [](double x) { return std::floor(x); }},
      {"HardSwish", [](double x) { return x * std::clamp(x / 6.0 + 0.5, 0.0, 1.0); }},
      {"Log", [](double x) { return std::log(x); }},
      {"Mish", [](double x) { return x * std::tanh(std::log1p(std::exp(x))); }},
      {"Neg", [](double x) { return -x; }},
      {"Reciprocal", [](double x) { return 1.0 / x; }},
      {"Round", [](double x) { return std::nearbyint(x); }},
      {"Sigmoid", [](double x) { return 1.0 / (1.0 + std::exp(-x)); }},
      {"Sign", [](double x) { return static_cast<double>((x > 0) - (x < 0)); }},
      {"Sin", [](double x) { return std::sin(x); }},
      {"Sinh", [](double x) { return std::sinh(x); }},
      {"Softplus", [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }},
      {"Softsign", [](double x) { return x / (1.0 + std::abs(x)); }},
      {"Sqrt", [](double x) { return std::sqrt(x); }},
      {"Tan", [](double x) { return std::tan(x); }},
      {"Tanh", [](double x) { return std::tanh(x); }},
  };
  emit_table(activation(0, true, kViews), functions.at(node_->op_type()));
}

/// Functions with the attributes alpha, beta, gamma.
void importer::parametric() {
  const std::string& op = node_->op_type();
  const auto given = [&](const char* name, float otherwise) {
    return double{finite(real(name, otherwise), name)};
  };
  const value x = activation(0, true, kViews);
  if (op == "Selu") {
    const double a = given("alpha", 1.67326319217681884765625F);
    const double g = given("gamma", 1.05070102214813232421875F);
    emit_table(x, [=](double v) { return g * (v > 0 ? v : a * std::expm1(v)); });
    return;
  }
  if (op == "HardSigmoid") {
    const double a = given("alpha", 0.2F);
    const double b = given("beta", 0.5F);
    emit_table(x, [=](double v) { return std::clamp(a * v + b, 0.0, 1.0); });
    return;
  }
  if (op == "Shrink") {
    const double bias = given("bias", 0.0F);
    const double l = given("lambd", 0.5F);
    emit_table(x, [=](double v) { return v < -l ? v + bias : v > l ? v - bias : 0.0; });
    return;
  }
  const double a = given("alpha", op == "LeakyRelu" ? 0.01F : op == "QuickGelu" ? 1.702F : 1.0F);
  if (op == "LeakyRelu") emit_table(x, [=](double v) { return v < 0 ? a * v : v; });
  if (op == "Elu") emit_table(x, [=](double v) { return v < 0 ? a * std::expm1(v) : v; });
  if (op == "ThresholdedRelu") emit_table(x, [=](double v) { return v > a ? v : 0.0; });
  if (op == "QuickGelu") emit_table(x, [=](double v) { return v / (1.0 + std::exp(-a * v)); });
  if (op == "Celu") {
    if (a == 0.0) damaged("alpha is 0");
    emit_table(x,
               [=](double v) { return std::max(v, 0.0) + std::min(0.0, a * std::expm1(v / a)); });
  }
}

void importer::prelu() {
  const value x = activation(0, true, kViews);
  const auto slope = by_channel(x, *weights(1));
  if (!slope) fail("its slopes differ inside a channel", "use one slope, or one per channel");
  if (std::all_of(slope->begin(), slope->end(), [&](float v) { return v == slope->front(); })) {
    emit_table(x, [s = double{slope->front()}](double v) { return v < 0 ? s * v : v; });
    return;
  }
  // x + (slope - 1) * min(x, 0)
  const std::vector<float> ones(slope->size(), 1.0F), zeros(slope->size(), 0.0F);
  std::vector<float> less = *slope;
  for (float& s : less) s -= 1.0F;
  bounds negative;
  negative.hi = 0.0F;
  const std::string& name = node_->output(0);
  const value below =
      emit_like_as(name + " negative", x, {x.tensor}, faffine{ones, zeros, negative});
  const value rest =
      emit_like_as(name + " rest", x, {below.tensor}, faffine{std::move(less), zeros, {}});
  result(emit_like(x, {x.tensor, rest.tensor}, fadd{}));
}

void importer::gelu() {
  if (has(1)) fail("adds a bias", "put the bias into the layer before it");
  const auto* form = attribute("approximate");
  const bool tanh = node_->op_type() == "FastGelu" || (form && form->s() == "tanh");
  if (form && form->s() != "tanh" && form->s() != "none" && !form->s().empty()) {
    damaged(format("approximate '{}' does not exist", form->s()));
  }
  if (tanh) {
    emit_table(activation(0, true, kViews), [](double v) {
      return 0.5 * v * (1.0 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
    });
  } else {
    emit_table(activation(0, true, kViews),
               [](double v) { return 0.5 * v * (1.0 + std::erf(v / 1.4142135623730951)); });
  }
}

void importer::power() {
  const double e = scalar(1, "the exponent");
  if (!std::isfinite(e)) fail(format("the exponent is {}", e), "export the model again");
  emit_table(activation(0, true, kViews), [e](double v) { return std::pow(v, e); });
}

}  // namespace latchkey::model
