// The operators of the host: everything that moves elements is one strided copy.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "fallback/host_graph.hpp"
#include "latchkey/error.hpp"

namespace latchkey::fallback {
namespace {

using longs = std::vector<std::int64_t>;

[[noreturn]] void refuse(const std::string& why) { throw error(errc::unsupported_model, why); }

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Steps between neighbours of every dimension, row major.
longs strides(const shape& dims) {
  longs s(dims.size(), 1);
  for (std::size_t i = dims.size(); i-- > 1;) s[i - 1] = s[i] * dims[i];
  return s;
}

/// Row-major copy of a strided view of x: value (i0, i1, ...) is x.values[first + sum i * step].
tensor view(const tensor& x, shape dims, const longs& step, std::int64_t first = 0) {
  tensor y{x.type, std::move(dims), {}};
  y.values.resize(size(elements(y.dims)));
  longs at(y.dims.size(), 0);
  std::int64_t from = first;
  for (double& v : y.values) {
    v = x.values[size(from)];
    for (std::size_t d = at.size(); d-- > 0;) {
      from += step[d];
      if (++at[d] < y.dims[d]) break;
      from -= step[d] * y.dims[d];
      at[d] = 0;
    }
  }
  return y;
}

tensor permuted(const tensor& x, const longs& order) {
  const longs s = strides(x.dims);
  shape dims;
  longs step;
  for (const std::int64_t a : order) {
    dims.push_back(x.dims[size(a)]);
    step.push_back(s[size(a)]);
  }
  return view(x, dims, step);
}

/// Part of one axis.
tensor part(const tensor& x, std::size_t axis, std::int64_t first, std::int64_t count) {
  shape dims = x.dims;
  dims[axis] = count;
  const longs s = strides(x.dims);
  return view(x, dims, s, first * s[axis]);
}

/// Broadcasts x to dims, which broadcast() computed.
tensor expanded(const tensor& x, const shape& dims) {
  if (x.dims == dims) return x;
  const longs s = strides(x.dims);
  longs step(dims.size(), 0);
  const std::size_t lead = dims.size() - x.dims.size();
  for (std::size_t i = 0; i < x.dims.size(); ++i) step[lead + i] = x.dims[i] == 1 ? 0 : s[i];
  return view(x, dims, step);
}

shape broadcast(const shape& a, const shape& b) {
  shape out(std::max(a.size(), b.size()), 1);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto at = [&](const shape& s) { return i < s.size() ? s[s.size() - 1 - i] : 1; };
    const std::int64_t x = at(a);
    const std::int64_t y = at(b);
    if (x != y && x != 1 && y != 1) {
      refuse(fmt::format("shapes {} and {} do not broadcast", text(a), text(b)));
    }
    out[out.size() - 1 - i] = x == 1 ? y : x;
  }
  return out;
}

const tensor& in(const call& c, std::size_t i) {
  if (i >= c.in.size() || !c.in[i]) refuse(fmt::format("input {} is missing", i));
  return *c.in[i];
}

bool has(const call& c, std::size_t i) { return i < c.in.size() && c.in[i]; }

bool has(const call& c, const char* attribute) { return c.n.attributes.contains(attribute); }

std::int64_t integer(double v) {
  constexpr double reach = 4e18;  // INT64_MAX stands for "to the end" in Slice.
  if (std::isnan(v)) refuse("an index is not a number");
  return static_cast<std::int64_t>(std::clamp(v, -reach, reach));
}

double real(const call& c, const char* name, double otherwise) {
  const auto a = c.n.attributes.find(name);
  if (a == c.n.attributes.end()) return otherwise;
  if (!a->is_number()) refuse(fmt::format("attribute '{}' is no number", name));
  return a->get<double>();
}

std::int64_t integer(const call& c, const char* name, std::int64_t otherwise) {
  return has(c, name) ? integer(real(c, name, 0)) : otherwise;
}

std::string word(const call& c, const char* name, const std::string& otherwise) {
  const auto a = c.n.attributes.find(name);
  if (a == c.n.attributes.end()) return otherwise;
  if (!a->is_string()) refuse(fmt::format("attribute '{}' is no text", name));
  return a->get<std::string>();
}

/// A list that is input i or, in older operator sets, an attribute; empty when it is neither.
longs list(const call& c, std::size_t i, const char* name) {
  longs out;
  if (has(c, i)) {
    for (const double v : in(c, i).values) out.push_back(integer(v));
  } else if (has(c, name)) {
    const auto& a = c.n.attributes[name];
    if (!a.is_array()) refuse(fmt::format("attribute '{}' is no list", name));
    for (const auto& v : a) {
      if (!v.is_number()) refuse(fmt::format("attribute '{}' is no list of numbers", name));
      out.push_back(integer(v.get<double>()));
    }
  }
  return out;
}

std::size_t axis_of(std::int64_t axis, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  if (axis < -r || axis >= r) refuse(fmt::format("axis {} is outside {} dimensions", axis, rank));
  return size(axis < 0 ? axis + r : axis);
}

void give(call& c, tensor y) { c.out.push_back(std::move(y)); }

/// Arithmetic: rounds to float and counts.
void give_float(call& c, tensor y, std::uint64_t macs) {
  y.type = element::f32;
  for (double& v : y.values) v = static_cast<double>(static_cast<float>(v));
  c.macs += macs;
  give(c, std::move(y));
}

// ---- Elements ----

using function = double (*)(double);

const std::unordered_map<std::string, function>& functions() {
  static const std::unordered_map<std::string, function> all = {
      {"Abs", [](double x) { return std::abs(x); }},
      {"Ceil", [](double x) { return std::ceil(x); }},
      {"Erf", [](double x) { return std::erf(x); }},
      {"Exp", [](double x) { return std::exp(x); }},
      {"Floor", [](double x) { return std::floor(x); }},
      {"Log", [](double x) { return std::log(x); }},
      {"Neg", [](double x) { return -x; }},
      {"Reciprocal", [](double x) { return 1 / x; }},
      {"Relu", [](double x) { return std::max(x, 0.0); }},
      {"Round", [](double x) { return std::nearbyint(x); }},
      {"Sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"Softplus", [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }},
      {"Sqrt", [](double x) { return std::sqrt(x); }},
      {"Tanh", [](double x) { return std::tanh(x); }},
  };
  return all;
}

void unary(call& c) {
  tensor y = in(c, 0);
  std::transform(y.values.begin(), y.values.end(), y.values.begin(), functions().at(c.n.op));
  const auto n = y.values.size();
  if (y.type == element::f32) return give_float(c, std::move(y), n);
  c.macs += n;
  give(c, std::move(y));
}

void clip(call& c) {
  tensor y = in(c, 0);
  const auto bound = [&](std::size_t i, const char* name, double otherwise) {
    if (!has(c, i)) return real(c, name, otherwise);
    if (in(c, i).values.size() != 1) refuse("a bound is not one value");
    return in(c, i).values[0];
  };
  const double lo = bound(1, "min", -std::numeric_limits<double>::infinity());
  const double hi = bound(2, "max", std::numeric_limits<double>::infinity());
  for (double& v : y.values) v = std::min(std::max(v, lo), hi);
  c.macs += y.values.size();
  give(c, std::move(y));
}

void leaky_relu(call& c) {
  tensor y = in(c, 0);
  const double a = real(c, "alpha", 0.01);
  for (double& v : y.values) v = v < 0 ? a * v : v;
  const auto n = y.values.size();
  give_float(c, std::move(y), n);
}

void hard_sigmoid(call& c) {
  tensor y = in(c, 0);
  const double a = real(c, "alpha", 0.2);
  const double b = real(c, "beta", 0.5);
  for (double& v : y.values) v = std::clamp(a * v + b, 0.0, 1.0);
  const auto n = y.values.size();
  give_float(c, std::move(y), n);
}

double apply(const std::string& op, double a, double b, bool integral) {
  if (op == "Add" || op == "Sum" || op == "Mean") return a + b;
  if (op == "Sub") return a - b;
  if (op == "Mul") return a * b;
  if (op == "Div") {
    if (integral && b == 0) refuse("divides an integer by zero");
    return integral ? std::trunc(a / b) : a / b;
  }
  if (op == "Max") return std::max(a, b);
  if (op == "Min") return std::min(a, b);
  return std::pow(a, b);
}

void arithmetic(call& c) {
  tensor y = in(c, 0);
  const element type = y.type;
  const bool variadic = c.n.op == "Max" || c.n.op == "Min" || c.n.op == "Sum" || c.n.op == "Mean";
  if (c.in.empty() || (!variadic && c.in.size() != 2)) refuse("takes two inputs");
  std::uint64_t macs = 0;
  for (std::size_t i = 1; i < c.in.size(); ++i) {
    const shape dims = broadcast(y.dims, in(c, i).dims);
    if (in(c, i).type != type && c.n.op != "Pow") refuse("its inputs are of different types");
    const tensor b = expanded(in(c, i), dims);
    y = expanded(y, dims);
    for (std::size_t k = 0; k < y.values.size(); ++k) {
      y.values[k] = apply(c.n.op, y.values[k], b.values[k], type != element::f32);
    }
    macs += y.values.size();
  }
  if (c.n.op == "Mean") {
    for (double& v : y.values) v /= static_cast<double>(c.in.size());
  }
  if (type == element::f32) {
    give_float(c, std::move(y), macs);
  } else {
    c.macs += macs;
    give(c, std::move(y));
  }
}

using comparison = bool (*)(double, double);

const std::unordered_map<std::string, comparison>& comparisons() {
  static const std::unordered_map<std::string, comparison> all = {
      {"And", [](double a, double b) { return a != 0 && b != 0; }},
      {"Equal", [](double a, double b) { return a == b; }},
      {"Greater", [](double a, double b) { return a > b; }},
      {"GreaterOrEqual", [](double a, double b) { return a >= b; }},
      {"Less", [](double a, double b) { return a < b; }},
      {"LessOrEqual", [](double a, double b) { return a <= b; }},
      {"Or", [](double a, double b) { return a != 0 || b != 0; }},
  };
  return all;
}

void compare(call& c) {
  const tensor &a = in(c, 0), &b = in(c, 1);
  if (a.type != b.type) refuse("its inputs are of different types");
  const shape dims = broadcast(a.dims, b.dims);
  tensor y = expanded(a, dims);
  const tensor other = expanded(b, dims);
  y.type = element::boolean;
  std::transform(y.values.begin(), y.values.end(), other.values.begin(), y.values.begin(),
                 comparisons().at(c.n.op));
  c.macs += y.values.size();
  give(c, std::move(y));
}

void negate(call& c) {
  tensor y = in(c, 0);
  if (y.type != element::boolean) refuse("negates numbers");
  for (double& v : y.values) v = v == 0 ? 1 : 0;
  c.macs += y.values.size();
  give(c, std::move(y));
}

void where(call& c) {
  const tensor &condition = in(c, 0), &x = in(c, 1), &y = in(c, 2);
  if (x.type != y.type) refuse("chooses between different types");
  const shape dims = broadcast(condition.dims, broadcast(x.dims, y.dims));
  const tensor chosen = expanded(condition, dims), from = expanded(x, dims);
  tensor out = expanded(y, dims);
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    if (chosen.values[i] != 0) out.values[i] = from.values[i];
  }
  give(c, std::move(out));
}

void range(call& c) {
  const auto one = [&](std::size_t i) {
    const tensor& t = in(c, i);
    if (t.values.size() != 1 || t.type != in(c, 0).type) refuse("takes three values of one type");
    return t.values[0];
  };
  const double start = one(0), limit = one(1), delta = one(2);
  const double count = std::max(std::ceil((limit - start) / delta), 0.0);
  if (!(count <= static_cast<double>(kMaxElements))) {
    refuse(fmt::format("from {} to {} by {} is more than {} elements", start, limit, delta,
                       kMaxElements));
  }
  tensor y{in(c, 0).type, {static_cast<std::int64_t>(count)}, {}};
  for (std::int64_t i = 0; i < y.dims[0]; ++i) {
    y.values.push_back(start + static_cast<double>(i) * delta);
  }
  if (y.type == element::f32) return give_float(c, std::move(y), 0);
  give(c, std::move(y));
}

void cast(call& c) {
  tensor y = in(c, 0);
  // Numbers of TensorProto.DataType.
  static const std::unordered_map<std::int64_t, element> types = {
      {1, element::f32}, {2, element::u8},  {3, element::i8},
      {6, element::i32}, {7, element::i64}, {9, element::boolean}};
  const auto found = types.find(integer(c, "to", 0));
  if (found == types.end()) refuse("casts to a type other than float32, u8, i8, i32, i64, bool");
  static const std::unordered_map<element, std::pair<double, double>> range = {
      {element::u8, {0, 255}},
      {element::i8, {-128, 127}},
      {element::i32, {-2147483648.0, 2147483647.0}},
      {element::i64, {-9007199254740992.0, 9007199254740992.0}}};
  y.type = found->second;
  for (double& v : y.values) {
    if (y.type == element::f32) v = static_cast<double>(static_cast<float>(v));
    if (y.type == element::boolean) v = v != 0 ? 1 : 0;
    if (const auto r = range.find(y.type); r != range.end()) {
      v = std::isnan(v) ? 0 : std::clamp(std::trunc(v), r->second.first, r->second.second);
    }
  }
  give(c, std::move(y));
}

// ---- Along axes ----

/// Runs f on every line of x along axis: f(first element's index, step, count).
void lines(const tensor& x, std::size_t axis,
           const std::function<void(std::size_t, std::size_t, std::size_t)>& f) {
  const std::size_t n = size(x.dims[axis]);
  const std::size_t step = size(strides(x.dims)[axis]);
  if (x.values.empty()) return;
  for (std::size_t block = 0; block < x.values.size(); block += n * step) {
    for (std::size_t i = 0; i < step; ++i) f(block + i, step, n);
  }
}

void softmax(call& c) {
  tensor y = in(c, 0);
  const shape dims = y.dims;
  const bool old = c.opset < 13;
  std::size_t axis = axis_of(integer(c, "axis", old ? 1 : -1), dims.size());
  if (old) {  // All dimensions from the axis on together.
    std::int64_t outer = 1;
    for (std::size_t i = 0; i < axis; ++i) outer *= dims[i];
    y.dims = {outer, outer ? static_cast<std::int64_t>(y.values.size()) / outer : 0};
    axis = 1;
  }
  const bool logarithm = c.n.op == "LogSoftmax";
  lines(y, axis, [&](std::size_t at, std::size_t step, std::size_t n) {
    double peak = -std::numeric_limits<double>::infinity();
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) peak = std::max(peak, y.values[at + i * step]);
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(y.values[at + i * step] - peak);
    for (std::size_t i = 0; i < n; ++i) {
      double& v = y.values[at + i * step];
      v = logarithm ? v - peak - std::log(sum) : std::exp(v - peak) / sum;
    }
  });
  y.dims = dims;
  const auto n = y.values.size();
  give_float(c, std::move(y), n);
}

void arg_max(call& c) {
  const tensor& x = in(c, 0);
  const std::size_t axis = axis_of(integer(c, "axis", 0), x.dims.size());
  const double sign = c.n.op == "ArgMax" ? 1 : -1;
  const bool last = integer(c, "select_last_index", 0) != 0;
  if (x.dims[axis] == 0) refuse("looks for the largest of nothing");
  tensor y{element::i64, x.dims, {}};
  y.dims[axis] = 1;
  lines(x, axis, [&](std::size_t at, std::size_t step, std::size_t n) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < n; ++i) {
      const double gain = sign * (x.values[at + i * step] - x.values[at + best * step]);
      if (gain > 0 || (last && gain == 0)) best = i;
    }
    y.values.push_back(static_cast<double>(best));
  });
  if (integer(c, "keepdims", 1) == 0) y.dims.erase(y.dims.begin() + static_cast<long>(axis));
  c.macs += x.values.size();
  give(c, std::move(y));
}

void top_k(call& c) {
  const tensor& x = in(c, 0);
  const std::size_t axis = axis_of(integer(c, "axis", -1), x.dims.size());
  const longs wanted = list(c, 1, "k");
  const std::int64_t k = wanted.size() == 1 ? wanted[0] : integer(c, "k", -1);
  if (k < 0 || k > x.dims[axis]) {
    refuse(fmt::format("k = {} is not between 0 and {}", k, x.dims[axis]));
  }
  const bool largest = integer(c, "largest", 1) != 0;
  tensor values{x.type, x.dims, {}};
  values.dims[axis] = k;
  tensor indices{element::i64, values.dims, {}};
  values.values.resize(size(elements(values.dims)));
  indices.values.resize(values.values.size());
  lines(x, axis, [&](std::size_t at, std::size_t step, std::size_t n) {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const double u = x.values[at + a * step];
      const double v = x.values[at + b * step];
      return largest ? u > v : u < v;
    });
    const std::size_t to = at / (n * step) * size(k) * step + at % step;
    for (std::size_t i = 0; i < size(k); ++i) {
      values.values[to + i * step] = x.values[at + order[i] * step];
      indices.values[to + i * step] = static_cast<double>(order[i]);
    }
  });
  c.macs += x.values.size();
  give(c, std::move(values));
  give(c, std::move(indices));
}

void reduce(call& c) {
  const tensor& x = in(c, 0);
  const longs named = list(c, 1, "axes");
  std::vector<bool> gone(x.dims.size(), named.empty());
  if (named.empty() && integer(c, "noop_with_empty_axes", 0) != 0) return give(c, x);
  for (const std::int64_t a : named) gone[axis_of(a, x.dims.size())] = true;
  longs order;
  shape kept;
  shape dims;
  std::int64_t n = 1;
  for (const bool now : {false, true}) {
    for (std::size_t a = 0; a < gone.size(); ++a) {
      if (gone[a] == now) order.push_back(static_cast<std::int64_t>(a));
    }
  }
  for (std::size_t a = 0; a < gone.size(); ++a) {
    if (gone[a]) n *= x.dims[a];
    if (!gone[a] || integer(c, "keepdims", 1) != 0) dims.push_back(gone[a] ? 1 : x.dims[a]);
  }
  if (n == 0) refuse("reduces nothing");
  const tensor sorted = permuted(x, order);
  tensor y{x.type, dims, {}};
  for (std::size_t at = 0; at < sorted.values.size(); at += size(n)) {
    const auto* const v = &sorted.values[at];
    if (c.n.op == "ReduceMax") {
      y.values.push_back(*std::max_element(v, v + n));
    } else if (c.n.op == "ReduceMin") {
      y.values.push_back(*std::min_element(v, v + n));
    } else {
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) sum += c.n.op == "ReduceL2" ? v[i] * v[i] : v[i];
      if (c.n.op == "ReduceMean") sum /= static_cast<double>(n);
      y.values.push_back(c.n.op == "ReduceL2" ? std::sqrt(sum) : sum);
    }
  }
  if (x.type != element::f32) refuse("reduces integers");
  give_float(c, std::move(y), x.values.size());
}

// ---- Moves ----

void identity(call& c) { give(c, in(c, 0)); }

/// Of inference: everything is kept, and the mask says so.
void dropout(call& c) {
  if (has(c, 2) && in(c, 2).values != std::vector<double>{0}) refuse("training_mode is set");
  tensor mask{element::boolean, in(c, 0).dims, {}};
  mask.values.assign(in(c, 0).values.size(), 1);
  give(c, in(c, 0));
  give(c, std::move(mask));
}

void shape_of(call& c) {
  const shape& dims = in(c, 0).dims;
  const auto rank = static_cast<std::int64_t>(dims.size());
  const auto place = [&](const char* name, std::int64_t otherwise) {
    const std::int64_t v = integer(c, name, otherwise);
    return std::clamp<std::int64_t>(v < 0 ? v + rank : v, 0, rank);
  };
  const std::int64_t first = place("start", 0);
  const std::int64_t last = std::max(first, place("end", rank));
  tensor y{element::i64, {last - first}, {}};
  y.values.assign(dims.begin() + first, dims.begin() + last);
  give(c, std::move(y));
}

void transpose(call& c) {
  const tensor& x = in(c, 0);
  longs order = list(c, 1, "perm");
  if (order.empty()) {
    for (std::size_t i = x.dims.size(); i-- > 0;) order.push_back(static_cast<std::int64_t>(i));
  }
  longs sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted.size() != x.dims.size() || sorted[i] != static_cast<std::int64_t>(i)) {
      refuse("perm is no order of the dimensions");
    }
  }
  give(c, permuted(x, order));
}

void relabel(call& c, shape dims) {
  tensor y = in(c, 0);
  if (elements(dims) != static_cast<std::int64_t>(y.values.size())) {
    refuse(fmt::format("{} elements do not fit shape {}", y.values.size(), text(dims)));
  }
  y.dims = std::move(dims);
  give(c, std::move(y));
}

void reshape(call& c) {
  const tensor& x = in(c, 0);
  shape dims = list(c, 1, "shape");
  const bool zero = integer(c, "allowzero", 0) != 0;
  std::ptrdiff_t open = -1;
  std::int64_t rest = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 0 && !zero) {
      if (i >= x.dims.size()) refuse("copies a dimension that the input has not got");
      dims[i] = x.dims[i];
    }
    if (dims[i] == -1) {
      if (open >= 0) refuse("two sizes are -1");
      open = static_cast<std::ptrdiff_t>(i);
    } else {
      if (dims[i] < 0 || dims[i] > kMaxElements) refuse("a size makes no sense");
      rest = std::min(rest * dims[i], kMaxElements + 1);
    }
  }
  if (open >= 0) {
    if (rest == 0) refuse("a size of -1 beside one of 0");
    dims[size(open)] = static_cast<std::int64_t>(x.values.size()) / rest;
  }
  relabel(c, std::move(dims));
}

void flatten(call& c) {
  const tensor& x = in(c, 0);
  const std::int64_t at = integer(c, "axis", 1);
  const auto rank = static_cast<std::int64_t>(x.dims.size());
  if (at < -rank || at > rank) refuse(fmt::format("axis {} is outside the tensor", at));
  std::int64_t outer = 1;
  std::int64_t inner = 1;
  for (std::int64_t i = 0; i < rank; ++i) {
    (i < (at < 0 ? at + rank : at) ? outer : inner) *= x.dims[size(i)];
  }
  relabel(c, {outer, inner});
}

void squeeze(call& c) {
  const tensor& x = in(c, 0);
  const longs named = list(c, 1, "axes");
  std::vector<bool> gone(x.dims.size(), false);
  for (std::size_t i = 0; i < gone.size(); ++i) gone[i] = named.empty() && x.dims[i] == 1;
  for (const std::int64_t a : named) gone[axis_of(a, gone.size())] = true;
  shape dims;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    if (!gone[i]) dims.push_back(x.dims[i]);
  }
  relabel(c, std::move(dims));
}

void unsqueeze(call& c) {
  const tensor& x = in(c, 0);
  const longs named = list(c, 1, "axes");
  std::vector<bool> fresh(x.dims.size() + named.size(), false);
  if (fresh.size() > kMaxRank) refuse(fmt::format("has {} dimensions", fresh.size()));
  for (const std::int64_t a : named) {
    const std::size_t i = axis_of(a, fresh.size());
    if (fresh[i]) refuse("names an axis twice");
    fresh[i] = true;
  }
  shape dims;
  std::size_t next = 0;
  for (const bool f : fresh) dims.push_back(f ? 1 : x.dims[next++]);
  relabel(c, std::move(dims));
}

void concat(call& c) {
  const tensor& first = in(c, 0);
  if (!has(c, "axis")) refuse("names no axis");
  const std::size_t axis = axis_of(integer(c, "axis", 0), first.dims.size());
  tensor y{first.type, first.dims, {}};
  y.dims[axis] = 0;
  for (std::size_t i = 0; i < c.in.size(); ++i) {
    shape dims = in(c, i).dims;
    if (dims.size() != y.dims.size() || in(c, i).type != y.type) {
      refuse("joins tensors of different ranks or types");
    }
    y.dims[axis] += dims[axis];
    dims[axis] = first.dims[axis];
    if (dims != first.dims) refuse("joins tensors of different shapes");
  }
  elements(y.dims);
  const std::size_t inner = size(strides(first.dims)[axis]);
  std::size_t outer = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= size(first.dims[i]);
  for (std::size_t o = 0; o < outer; ++o) {
    for (const tensor* t : c.in) {
      const auto n = static_cast<std::ptrdiff_t>(inner * size(t->dims[axis]));
      const auto from = t->values.begin() + static_cast<std::ptrdiff_t>(o) * n;
      y.values.insert(y.values.end(), from, from + n);
    }
  }
  give(c, std::move(y));
}

void expand(call& c) {
  const tensor& x = in(c, 0);
  give(c, expanded(x, broadcast(x.dims, list(c, 1, "shape"))));
}

/// A view with a dimension more before each, along which nothing changes.
void tile(call& c) {
  const tensor& x = in(c, 0);
  const longs repeats = list(c, 1, "repeats");
  if (repeats.size() != x.dims.size()) refuse("does not repeat every dimension");
  const longs s = strides(x.dims);
  shape twice, dims;
  longs step;
  for (std::size_t i = 0; i < repeats.size(); ++i) {
    twice.insert(twice.end(), {repeats[i], x.dims[i]});
    step.insert(step.end(), {0, s[i]});
  }
  tensor y = view(x, twice, step);
  for (std::size_t i = 0; i < repeats.size(); ++i) dims.push_back(repeats[i] * x.dims[i]);
  y.dims = std::move(dims);
  give(c, std::move(y));
}

void split(call& c) {
  const tensor& x = in(c, 0);
  const std::size_t axis = axis_of(integer(c, "axis", 0), x.dims.size());
  longs sizes = list(c, 1, "split");
  const auto parts = static_cast<std::int64_t>(c.n.outputs.size());
  if (sizes.empty()) {
    if (parts == 0 || x.dims[axis] % parts != 0) refuse("does not divide into equal parts");
    sizes.assign(size(parts), x.dims[axis] / parts);
  }
  std::int64_t at = 0;
  for (const std::int64_t n : sizes) {
    if (n < 0 || n > x.dims[axis] - at) refuse("its parts are larger than the axis");
    give(c, part(x, axis, at, n));
    at += n;
  }
  if (at != x.dims[axis]) refuse("its parts do not add up to the axis");
}

void slice(call& c) {
  const tensor& x = in(c, 0);
  const longs starts = list(c, 1, "starts");
  const longs ends = list(c, 2, "ends");
  longs axes = list(c, 3, "axes");
  longs steps = list(c, 4, "steps");
  if (axes.empty()) {
    axes.resize(starts.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() ||
      steps.size() != starts.size()) {
    refuse("starts, ends, axes and steps are of different lengths");
  }
  shape dims = x.dims;
  longs step = strides(x.dims);
  std::int64_t first = 0;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::size_t a = axis_of(axes[i], dims.size());
    const std::int64_t n = x.dims[a];
    const std::int64_t by = steps[i];
    if (by == 0 || std::abs(by) > kMaxElements) refuse("a step makes no sense");
    const auto place = [&](std::int64_t v) {
      v = v < 0 ? v + n : v;
      return by > 0 ? std::clamp<std::int64_t>(v, 0, n) : std::clamp<std::int64_t>(v, -1, n - 1);
    };
    const std::int64_t from = place(starts[i]);
    // An end far below zero is the place before the first element, not one counted from the back.
    const std::int64_t to = place(ends[i]);
    const std::int64_t count = by > 0 ? (to - from + by - 1) / by : (from - to - by - 1) / -by;
    dims[a] = std::max<std::int64_t>(count, 0);
    first += from * step[a];
    step[a] *= by;
  }
  if (elements(dims) == 0) first = 0;
  give(c, view(x, dims, step, first));
}

void gather(call& c) {
  const tensor& x = in(c, 0);
  const tensor& at = in(c, 1);
  const std::size_t axis = axis_of(integer(c, "axis", 0), x.dims.size());
  if (at.type != element::i64 && at.type != element::i32) refuse("its indices are no integers");
  shape dims(x.dims.begin(), x.dims.begin() + static_cast<std::ptrdiff_t>(axis));
  dims.insert(dims.end(), at.dims.begin(), at.dims.end());
  dims.insert(dims.end(), x.dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.dims.end());
  tensor y{x.type, dims, {}};
  y.values.reserve(size(elements(dims)));
  const std::size_t inner = size(strides(x.dims)[axis]);
  const std::int64_t n = x.dims[axis];
  std::size_t outer = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= size(x.dims[i]);
  for (std::size_t o = 0; o < outer; ++o) {
    for (const double v : at.values) {
      const std::int64_t i = integer(v) < 0 ? integer(v) + n : integer(v);
      if (i < 0 || i >= n) refuse(fmt::format("index {} is outside 0..{}", i, n - 1));
      const auto from =
          x.values.begin() + static_cast<std::ptrdiff_t>((o * size(n) + size(i)) * inner);
      y.values.insert(y.values.end(), from, from + static_cast<std::ptrdiff_t>(inner));
    }
  }
  give(c, std::move(y));
}

// ---- Resize ----

/// One axis: the two neighbours of every output and the weight of the second.
struct tap {
  std::int64_t low = 0, high = 0;
  double weight = 0;
};

std::vector<tap> taps(const call& c, std::int64_t n, std::int64_t m, double scale, bool linear) {
  const std::string mode =
      word(c, "coordinate_transformation_mode", c.opset < 11 ? "asymmetric" : "half_pixel");
  const std::string nearest =
      word(c, "nearest_mode", c.opset < 11 ? "floor" : "round_prefer_floor");
  std::vector<tap> out;
  for (std::int64_t o = 0; o < m; ++o) {
    const auto at = static_cast<double>(o);
    double x = 0;
    if (mode == "asymmetric") {
      x = at / scale;
    } else if (mode == "half_pixel") {
      x = (at + 0.5) / scale - 0.5;
    } else if (mode == "pytorch_half_pixel") {
      x = m > 1 ? (at + 0.5) / scale - 0.5 : 0;
    } else if (mode == "align_corners") {
      // ONNX's text divides by the size less one, its own tests by an unrounded size less one.
      if (std::abs(static_cast<double>(n) * scale - static_cast<double>(m)) > 1e-4) {
        refuse("align_corners with a scale that gives no whole size; give sizes instead");
      }
      x = m > 1 ? at * static_cast<double>(n - 1) / static_cast<double>(m - 1) : 0;
    } else {
      refuse("coordinates '" + mode + "' are not supported; use half_pixel");
    }
    if (!linear) {
      double r = 0;
      if (nearest == "floor") {
        r = std::floor(x);
      } else if (nearest == "ceil") {
        r = std::ceil(x);
      } else if (nearest == "round_prefer_floor") {
        r = std::ceil(x - 0.5);
      } else if (nearest == "round_prefer_ceil") {
        r = std::floor(x + 0.5);
      } else {
        refuse("nearest_mode '" + nearest + "' is not supported");
      }
      const auto i = static_cast<std::int64_t>(std::clamp(r, 0.0, static_cast<double>(n - 1)));
      out.push_back({i, i, 0});
      continue;
    }
    x = std::clamp(x, 0.0, static_cast<double>(n - 1));
    const auto low = static_cast<std::int64_t>(std::floor(x));
    out.push_back({low, std::min(low + 1, n - 1), x - std::floor(x)});
  }
  return out;
}

void resize(call& c) {
  tensor y = in(c, 0);
  const std::string mode = word(c, "mode", "nearest");
  if (mode != "nearest" && mode != "linear") {
    refuse("mode '" + mode + "' is not supported; use nearest or linear");
  }
  if (integer(c, "exclude_outside", 0) != 0) refuse("exclude_outside is set");
  const std::size_t rank = y.dims.size();
  const std::size_t scales_at = c.opset < 11 ? 1 : 2;
  std::vector<double> scales;
  if (has(c, scales_at)) scales = in(c, scales_at).values;
  const longs sizes = c.opset < 11 ? longs{} : list(c, 3, "sizes");
  if ((scales.size() == rank) == (sizes.size() == rank)) {
    refuse("takes either one scale or one size for every dimension");
  }
  std::uint64_t macs = 0;
  for (std::size_t a = 0; a < rank; ++a) {
    const std::int64_t n = y.dims[a];
    const bool sized = sizes.size() == rank;
    const double scale =
        sized ? static_cast<double>(sizes[a]) / static_cast<double>(std::max<std::int64_t>(n, 1))
              : scales[a];
    if (!(scale > 0) || !(scale < 1e6) || n == 0) refuse("a scale makes no sense");
    const std::int64_t m =
        sized ? sizes[a] : static_cast<std::int64_t>(std::floor(static_cast<double>(n) * scale));
    if (m == n && scale == 1) continue;
    shape dims = y.dims;
    dims[a] = m;
    tensor z{y.type, dims, {}};
    z.values.resize(size(elements(dims)));
    const std::vector<tap> at = taps(c, n, m, scale, mode == "linear");
    const std::size_t inner = size(strides(y.dims)[a]);
    for (std::size_t i = 0; i < z.values.size(); ++i) {
      const tap& t = at[i / inner % size(m)];
      const std::size_t base = i / inner / size(m) * size(n) * inner + i % inner;
      z.values[i] = (1 - t.weight) * y.values[base + size(t.low) * inner] +
                    (t.weight > 0 ? t.weight * y.values[base + size(t.high) * inner] : 0);
    }
    if (mode == "linear") macs += 2 * z.values.size();
    y = std::move(z);
  }
  if (y.type != element::f32 && mode == "linear") refuse("interpolates integers");
  c.macs += macs;
  if (y.type == element::f32) return give_float(c, std::move(y), 0);
  give(c, std::move(y));
}

// ---- Quantisation ----

/// Bytes, and the scale and zero point of their range, in float32 as ONNX has it.
void dynamic_quantize(call& c) {
  const tensor& x = in(c, 0);
  if (x.type != element::f32) refuse("takes float values");
  float lo = 0, hi = 0;
  for (const double v : x.values) {
    if (!std::isfinite(v)) refuse("a value is not finite");
    lo = std::min(lo, static_cast<float>(v));
    hi = std::max(hi, static_cast<float>(v));
  }
  const float range = (hi - lo) / 255.0F;
  const float scale = range > 0 ? range : 1.0F;
  const float zero = std::clamp(std::nearbyint(-lo / scale), 0.0F, 255.0F);
  tensor y{element::u8, x.dims, {}};
  for (const double v : x.values) {
    const float rounded = std::nearbyint(static_cast<float>(v) / scale);
    y.values.push_back(std::clamp(rounded + zero, 0.0F, 255.0F));
  }
  c.macs += y.values.size();
  give(c, std::move(y));
  give(c, {element::f32, {}, {scale}});
  give(c, {element::u8, {}, {zero}});
}

using handler = void (*)(call&);

const std::unordered_map<std::string, handler>& handlers() {
  static const std::unordered_map<std::string, handler> all = [] {
    std::unordered_map<std::string, handler> h = {
        {"Add", arithmetic},
        {"ArgMax", arg_max},
        {"ArgMin", arg_max},
        {"Cast", cast},
        {"Clip", clip},
        {"Concat", concat},
        {"Div", arithmetic},
        {"Dropout", dropout},
        {"DynamicQuantizeLinear", dynamic_quantize},
        {"Expand", expand},
        {"Flatten", flatten},
        {"Gather", gather},
        {"HardSigmoid", hard_sigmoid},
        {"Identity", identity},
        {"LeakyRelu", leaky_relu},
        {"LogSoftmax", softmax},
        {"Max", arithmetic},
        {"Mean", arithmetic},
        {"Min", arithmetic},
        {"Mul", arithmetic},
        {"Not", negate},
        {"Pow", arithmetic},
        {"Range", range},
        {"ReduceL2", reduce},
        {"ReduceMax", reduce},
        {"ReduceMean", reduce},
        {"ReduceMin", reduce},
        {"ReduceSum", reduce},
        {"Reshape", reshape},
        {"Resize", resize},
        {"Shape", shape_of},
        {"Slice", slice},
        {"Softmax", softmax},
        {"Split", split},
        {"Squeeze", squeeze},
        {"Sub", arithmetic},
        {"Sum", arithmetic},
        {"Tile", tile},
        {"TopK", top_k},
        {"Transpose", transpose},
        {"Unsqueeze", unsqueeze},
        {"Where", where},
    };
    for (const auto& f : functions()) h.emplace(f.first, unary);
    for (const auto& f : comparisons()) h.emplace(f.first, compare);
    return h;
  }();
  return all;
}

}  // namespace

bool supports(const std::string& op) { return handlers().count(op) > 0; }

void execute(call& c) {
  const auto found = handlers().find(c.n.op);
  if (found == handlers().end()) refuse("the host does not run this operator");
  found->second(c);
}

}  // namespace latchkey::fallback
