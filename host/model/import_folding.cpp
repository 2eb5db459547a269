// Folding of constants: what exporters compute of shapes and sizes. Works on numbers and vectors;
// larger constants go to the operators as they are.
//
// The open batch is a NaN in such a vector: it may be moved about, what is computed of it is NaN
// too, and Reshape takes it as the batch.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

namespace {

/// Elements that are not worth more than a vector of sizes.
constexpr std::size_t kMaxFolded = 65536;

constant vector_of(std::vector<double> values, int type, bool scalar = false) {
  constant c;
  c.type = type;
  if (!scalar) c.dims = {static_cast<std::int64_t>(values.size())};
  c.values = std::move(values);
  return c;
}

double integer_result(double v, int type) {
  // Integer division and casts truncate towards zero.
  return type == pb::TensorProto::FLOAT || type == pb::TensorProto::DOUBLE ? v : std::trunc(v);
}

}  // namespace

constant importer::shape_of(const value& x) const {
  std::vector<double> sizes;
  if (x.data) {
    sizes.assign(x.data->dims.begin(), x.data->dims.end());
  } else {
    sizes.assign(x.dims.begin(), x.dims.end());
    if (x.batch != value::kNowhere) {
      sizes.insert(sizes.begin() + x.batch, out_.batch > 0
                                                ? static_cast<double>(out_.batch)
                                                : std::numeric_limits<double>::quiet_NaN());
    }
  }
  const auto rank = static_cast<std::int64_t>(sizes.size());
  const auto bound = [&](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const std::int64_t from = bound(integer("start", 0)), to = bound(integer("end", rank));
  return vector_of(from < to ? std::vector<double>(sizes.begin() + from, sizes.begin() + to)
                             : std::vector<double>{},
                   pb::TensorProto::INT64);
}

constant importer::sliced_vector(const constant& in) const {
  const auto list = [&](int i, const char* name) {
    if (!has(i)) return integers(name);
    std::vector<std::int64_t> out;
    for (const double v : weights(i)->values) out.push_back(static_cast<std::int64_t>(v));
    return out;
  };
  const auto starts = list(1, "starts"), ends = list(2, "ends"), steps = list(4, "steps");
  if (starts.size() != 1 || ends.size() != 1 || steps.size() > 1) {
    damaged("a vector is cut along one axis, not along others");
  }
  const auto n = static_cast<std::int64_t>(in.values.size());
  const std::int64_t step = steps.empty() ? 1 : steps[0];
  if (step == 0) damaged("the step is 0");
  const auto bound = [&](std::int64_t at) {
    if (at < 0) at = at < -n ? -1 : at + n;
    return std::clamp<std::int64_t>(at, step > 0 ? 0 : -1, step > 0 ? n : n - 1);
  };
  // A negative step ends at -1 when the end lies before the first element.
  const std::int64_t end = step < 0 && ends[0] < -n ? -1 : bound(ends[0]);
  std::vector<double> out;
  for (std::int64_t i = bound(starts[0]); step > 0 ? i < end : i > end; i += step) {
    out.push_back(in.values[static_cast<std::size_t>(i)]);
  }
  return vector_of(std::move(out), in.type);
}

constant importer::gathered(const constant& in, const constant& at) const {
  std::vector<double> out;
  const auto n = static_cast<double>(in.values.size());
  for (const double i : at.values) {
    const double index = i < 0 ? i + n : i;
    if (!(index >= 0 && index < n)) damaged(format("index {} is outside {} elements", i, n));
    out.push_back(in.values[static_cast<std::size_t>(index)]);
  }
  return vector_of(std::move(out), in.type, at.dims.empty());
}

constant importer::computed(const constant& a, const constant& b) const {
  const std::string& op = node_->op_type();
  const bool scalar = a.dims.empty() && b.dims.empty();
  const std::size_t n = std::max(a.values.size(), b.values.size());
  std::vector<double> out;
  for (std::size_t i = 0; i < n; ++i) {
    const double x = a.values[a.values.size() == 1 ? 0 : i];
    const double y = b.values[b.values.size() == 1 ? 0 : i];
    if (op == "Div" && y == 0 && a.integral()) damaged("divides by 0");
    out.push_back(integer_result(op == "Equal" ? static_cast<double>(x == y)
                                 : op == "Add" ? x + y
                                 : op == "Sub" ? x - y
                                 : op == "Mul" ? x * y
                                               : x / y,
                                 a.type));
  }
  return vector_of(std::move(out), a.type, scalar);
}

constant importer::filled(const constant& sizes) const {
  constant out;
  out.type = pb::TensorProto::FLOAT;
  double with = 0.0;
  if (const auto* a = attribute("value")) {
    const constant one = read_constant(a->t(), where());
    if (one.values.size() != 1) damaged(format("fills with {} values", one.values.size()));
    out.type = one.type;
    with = one.values[0];
  }
  std::int64_t elements = 1;
  for (const double size : sizes.values) {
    if (std::isnan(size)) fail("its size is the open batch", "use constants of a fixed size");
    if (!(size >= 0) || size > static_cast<double>(kMaxElements)) {
      damaged(format("size {} makes no sense", size));
    }
    out.dims.push_back(static_cast<std::int64_t>(size));
    elements *= out.dims.back();
    if (elements > kMaxElements) {
      fail(format("makes more than {} elements", kMaxElements), "use smaller constants");
    }
  }
  out.values.assign(static_cast<std::size_t>(elements), with);
  return out;
}

bool importer::folds(const std::string& op) {
  static const std::array names = {
      "Add",    "Cast", "Concat", "ConstantOfShape", "Div",  "Equal", "Expand",
      "Gather", "Mul",  "Shape",  "Slice",           "Sqrt", "Sub",   "Where"};
  return std::find(names.begin(), names.end(), op) != names.end();
}

std::vector<std::int64_t> importer::reshaped(const constant& x) const {
  const auto shape = weights(1);
  const auto size = static_cast<std::int64_t>(x.values.size());
  std::vector<std::int64_t> to;
  std::int64_t rest = 1;
  std::optional<std::size_t> open;
  for (std::size_t i = 0; i < shape->values.size(); ++i) {
    const double v = shape->values[i];
    if (std::isnan(v)) fail("its size is the open batch", "give constants a fixed size");
    if (!(v >= -1 && v <= static_cast<double>(kMaxElements))) {
      damaged(format("size {} makes no sense", v));
    }
    to.push_back(static_cast<std::int64_t>(v));
    if (v == 0 && integer("allowzero", 0) == 0) {
      if (i >= x.dims.size()) damaged("copies a dimension that the input has not got");
      to[i] = x.dims[i];
    }
    if (to[i] == -1) {
      if (open) damaged("two sizes are -1");
      open = i;
    } else {
      rest = std::min(rest * to[i], kMaxElements + 1);
    }
  }
  if (open) {
    if (rest == 0 || size % rest != 0) {
      damaged(format("shape {} does not divide {} elements", list_text(to), size));
    }
    to[*open] = size / rest;
    rest = size;
  }
  if (rest != size) damaged(format("shape {} for {} elements", list_text(to), size));
  return to;
}

constant importer::permuted(const constant& x) const {
  const std::size_t rank = x.dims.size();
  const std::vector<std::size_t> perm = permutation(rank);
  std::vector<std::size_t> step(rank, 1);  // of the input, by its own dimensions
  for (std::size_t d = rank; d-- > 1;) {
    step[d - 1] = step[d] * static_cast<std::size_t>(x.dims[d]);
  }
  constant out = x;
  for (std::size_t d = 0; d < rank; ++d) out.dims[d] = x.dims[perm[d]];
  std::vector<std::int64_t> at(rank, 0);
  std::size_t from = 0;
  for (double& v : out.values) {
    v = x.values[from];
    for (std::size_t d = rank; d-- > 0;) {
      from += step[perm[d]];
      if (++at[d] < out.dims[d]) break;
      from -= step[perm[d]] * static_cast<std::size_t>(out.dims[d]);
      at[d] = 0;
    }
  }
  return out;
}

bool importer::relabel_constant() {
  const std::string& op = node_->op_type();
  if (op != "Reshape" && op != "Squeeze" && op != "Unsqueeze" && op != "Transpose") return false;
  const value x = input(0, kPads | kViews | kDynamic);
  if (!x.data) return false;
  constant out;
  if (op == "Transpose") {
    out = permuted(*x.data);
  } else {
    out = *x.data;
    if (op == "Reshape") {
      out.dims = reshaped(out);
    } else if (op == "Squeeze") {
      auto gone = axes(static_cast<std::int64_t>(out.dims.size()));
      for (auto a = gone.rbegin(); a != gone.rend(); ++a) {
        if (out.dims[static_cast<std::size_t>(*a)] != 1) damaged(format("axis {} is not 1", *a));
        out.dims.erase(out.dims.begin() + *a);
      }
      if (gone.empty()) std::erase(out.dims, 1);
    } else {
      const auto given = has(1) ? weights(1)->values.size() : integers("axes").size();
      for (const std::int64_t a : axes(static_cast<std::int64_t>(out.dims.size() + given))) {
        out.dims.insert(out.dims.begin() + a, 1);
      }
    }
  }
  // Integers with a scale per slice lose their axis; their values say the same.
  if (out.q && (op == "Transpose" || out.q->scale.size() > 1)) out.q.reset();
  value v;
  v.data = std::make_shared<constant>(std::move(out));
  result(std::move(v));
  return true;
}

/// Expand of a constant to the images of the batch, which all see the same.
bool importer::expand_constant() {
  if (node_->op_type() != "Expand") return false;
  value x = input(0, kPads | kViews);
  const auto shape = weights(1);
  if (!x.data) fail("repeats a tensor that is computed", hint_for("Expand"));
  const auto& dims = x.data->dims;
  bool fits = shape->values.size() == dims.size() && !dims.empty() && dims[0] == 1;
  for (std::size_t i = 0; fits && i < dims.size(); ++i) {
    const double size = shape->values[i];
    const bool batch = std::isnan(size) || size == 1 || size == static_cast<double>(out_.batch);
    fits = i == 0 ? batch : size == 1 || size == static_cast<double>(dims[i]);
  }
  if (!fits) {
    fail(format("repeats a constant of shape {} as {}", list_text(dims), list_text(shape->values)),
         "repeat constants along the batch only, or store them at their full size");
  }
  result(std::move(x));
  return true;
}

bool importer::fold() {
  const std::string& op = node_->op_type();
  if (!node_->domain().empty() && node_->domain() != "ai.onnx") return false;
  if (op == "Shape") {
    value v;
    v.data = std::make_shared<constant>(shape_of(input(0, kPads | kViews)));
    result(std::move(v));
    return true;
  }
  if (relabel_constant() || expand_constant()) return true;
  if (!folds(op)) return false;
  std::vector<std::shared_ptr<const constant>> in;
  for (int i = 0; i < node_->input_size(); ++i) {
    if (!has(i)) {
      in.push_back(nullptr);
      continue;
    }
    const value v = lookup(node_->input(i), "tensor");
    if (!v.data || v.data->dims.size() > 1 || v.data->values.size() > kMaxFolded) return false;
    in.push_back(v.data);
  }
  if (in.empty() || !in[0]) damaged("input 0 is missing");
  std::string of;
  for (int i = 0; i < node_->input_size(); ++i) {
    const auto& part = in[static_cast<std::size_t>(i)];
    if (!part || part->of.empty()) continue;
    (void)input(i, op == "Mul" && of.empty() ? kDynamic : kPlanes);  // a product keeps its name
    of = part->of;
  }
  const constant& x = *in[0];
  constant out;
  if (op == "Cast") {
    out = x;
    const std::int64_t to = integer("to", 0);
    if (to != pb::TensorProto::FLOAT && to != pb::TensorProto::INT32 &&
        to != pb::TensorProto::INT64) {
      return false;
    }
    out.type = static_cast<int>(to);
    for (double& v : out.values) v = integer_result(v, out.type);
  } else if (op == "ConstantOfShape") {
    out = filled(x);
  } else if (op == "Concat") {
    out.type = x.type;
    for (const auto& part : in) {
      if (!part || part->dims.empty()) damaged("joins what is no vector");
      out.values.insert(out.values.end(), part->values.begin(), part->values.end());
    }
    out.dims = {static_cast<std::int64_t>(out.values.size())};
  } else if (op == "Sqrt") {
    out = x;
    for (double& v : out.values) v = std::sqrt(v);
  } else if (op == "Slice") {
    out = sliced_vector(x);
  } else if (op == "Where") {
    if (in.size() < 3 || !in[1] || !in[2]) damaged("an input is missing");
    const std::size_t n = std::max({x.values.size(), in[1]->values.size(), in[2]->values.size()});
    for (const auto& part : in) {
      const std::size_t size = part ? part->values.size() : n;
      if (size != 1 && (size != n || n == 0)) damaged("chooses between vectors of other sizes");
    }
    std::vector<double> values;
    for (std::size_t i = 0; i < n; ++i) {
      const constant& from = *in[x.values[x.values.size() == 1 ? 0 : i] != 0 ? 1 : 2];
      values.push_back(from.values[from.values.size() == 1 ? 0 : i]);
    }
    out = vector_of(std::move(values), in[1]->type,
                    x.dims.empty() && in[1]->dims.empty() && in[2]->dims.empty());
  } else {
    if (in.size() < 2 || !in[1]) damaged("input 1 is missing");
    if (op == "Gather") {
      if (x.dims.empty()) damaged("picks from what is no vector");
      out = gathered(x, *in[1]);
    } else {
      const std::size_t a = x.values.size(), b = in[1]->values.size();
      if (a != b && a != 1 && b != 1) damaged(format("joins vectors of {} and {}", a, b));
      if (a == 0 || b == 0) return false;
      out = computed(x, *in[1]);
      if (op == "Equal") out.type = pb::TensorProto::BOOL;
      out.of = of;
    }
  }
  value v;
  v.data = std::make_shared<constant>(std::move(out));
  result(std::move(v));
  return true;
}

}  // namespace latchkey::model
