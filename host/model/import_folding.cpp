// Folding of constants: what exporters compute of shapes, sizes and weights. The operators are the
// host's (fallback/operators.cpp); what only relabels is done here, for weights of any size and
// their integers.
//
// The open batch is a NaN in a constant, and so is what depends on it: what reads one is computed
// for several batches. Reshape takes it as the batch.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "fallback/host_graph.hpp"
#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/host_node.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

constant importer::shape_of(const value& x) const {
  std::vector<double> sizes;
  const bool open = !x.data && x.batch != value::kNowhere && out_.batch == 0;
  if (x.data) {
    sizes.assign(x.data->dims.begin(), x.data->dims.end());
  } else {
    sizes.assign(x.dims.begin(), x.dims.end());
    if (x.batch != value::kNowhere) {
      sizes.insert(sizes.begin() + x.batch, open ? std::numeric_limits<double>::quiet_NaN()
                                                 : static_cast<double>(out_.batch));
    }
  }
  const auto rank = static_cast<std::int64_t>(sizes.size());
  const auto bound = [&](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const std::int64_t from = bound(integer("start", 0)), to = bound(integer("end", rank));
  constant out;
  out.type = pb::TensorProto::INT64;
  if (from < to) out.values.assign(sizes.begin() + from, sizes.begin() + to);
  out.dims = {static_cast<std::int64_t>(out.values.size())};
  if (open && from <= x.batch && x.batch < to) {
    for (const double images : kBatches) {
      out.by_batch.push_back(out.values);
      out.by_batch.back()[static_cast<std::size_t>(x.batch - from)] = images;
    }
  }
  return out;
}

bool importer::folds(const std::string& op) {
  return op == "Shape" || op == "ConstantOfShape" || fallback::supports(op);
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
  if (op == "Transpose" && !x.data->by_batch.empty()) return false;
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

std::vector<constant> importer::executed(const fallback::node& n,
                                         const std::vector<constant_ptr>& in,
                                         std::size_t batch) const {
  std::vector<fallback::tensor> given(in.size());
  fallback::call c{n, opset_, {}, {}};
  std::string shapes;
  for (std::size_t i = 0; i < in.size(); ++i) {
    c.in.push_back(in[i] ? &given[i] : nullptr);
    if (!in[i]) continue;
    given[i] = {element_of(in[i]->type, format("{}: {}: input {}", file_, where(), i)), in[i]->dims,
                in[i]->by_batch.empty() ? in[i]->values : in[i]->by_batch[batch]};
    shapes += (shapes.empty() ? "" : ", ") + fallback::text(in[i]->dims);
  }
  try {
    fallback::execute(c);
  } catch (const error& e) {
    fail(format("of constants ({}): {}", shapes, e.what()),
         "compute it before exporting and store the result");
  }
  std::vector<constant> out;
  for (fallback::tensor& t : c.out) {
    if (std::any_of(t.values.begin(), t.values.end(), [](double v) { return std::isnan(v); })) {
      fail(format("of constants ({}) gives what is no number", shapes),
           "train or export the model again");
    }
    constant k;
    k.dims = std::move(t.dims);
    k.type = type_of(t.type);
    k.values = std::move(t.values);
    out.push_back(std::move(k));
  }
  return out;
}

/// Computes the node for every batch and marks what differs.
std::vector<constant> importer::executed_for_all(const fallback::node& n,
                                                 const std::vector<constant_ptr>& in) const {
  std::vector<std::vector<constant>> by_batch;
  for (std::size_t batch = 0; batch < kBatches.size(); ++batch) {
    by_batch.push_back(executed(n, in, batch));
  }
  std::vector<constant> out = by_batch[0];
  for (std::size_t o = 0; o < out.size(); ++o) {
    constant& c = out[o];
    for (const auto& results : by_batch) {
      if (results[o].dims != c.dims) {
        fail("its size follows from the open batch", "use constants of a fixed size");
      }
      for (std::size_t i = 0; i < c.values.size(); ++i) {
        if (results[o].values[i] != by_batch[0][o].values[i]) {
          c.values[i] = std::numeric_limits<double>::quiet_NaN();
        }
      }
    }
    if (c.values == by_batch[0][o].values) continue;
    for (auto& results : by_batch) c.by_batch.push_back(std::move(results[o].values));
  }
  return out;
}

/// Expand to the images of the batch, which all see the same constant, leaves that dimension alone.
/// Fewer than three dimensions have no batch, unless it is an open one.
importer::constant_ptr importer::expanded_shape(const constant& x, constant_ptr shape) const {
  if (x.dims.empty() || x.dims[0] != 1 || shape->values.size() != x.dims.size()) return shape;
  const double first = shape->values[0];
  const bool batch = std::isnan(first) || (x.dims.size() > 2 && out_.batch > 0 &&
                                           first == static_cast<double>(out_.batch));
  if (!batch) return shape;
  constant one = *shape;
  one.values[0] = 1;
  for (auto& values : one.by_batch) values[0] = 1;
  return std::make_shared<constant>(std::move(one));
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
  if (relabel_constant()) return true;
  if (op == "Identity" || !folds(op)) return false;
  std::vector<constant_ptr> in;
  for (int i = 0; i < node_->input_size(); ++i) {
    in.push_back(has(i) ? lookup(node_->input(i), "tensor").data : nullptr);
    if (has(i) && !in.back()) return false;
  }
  std::string of;
  bool open = false;
  for (int i = 0; i < node_->input_size(); ++i) {
    const constant_ptr& part = in[static_cast<std::size_t>(i)];
    if (!part) continue;
    open = open || !part->by_batch.empty();
    if (part->of.empty()) continue;
    (void)input(i, op == "Mul" && of.empty() ? kDynamic : kPlanes);  // a product keeps its name
    of = part->of;
  }
  fallback::node n;
  if (op == "ConstantOfShape") {  // one value, spread over the shape
    n.op = "Expand";
    constant one;
    one.type = pb::TensorProto::FLOAT;
    one.values = {0.0};
    if (const auto* a = attribute("value")) one = read_constant(a->t(), where());
    if (one.values.size() != 1) damaged(format("fills with {} values", one.values.size()));
    one.dims.clear();
    in.insert(in.begin(), std::make_shared<constant>(std::move(one)));
  } else {
    n = host_node(*node_, node_index_, file_);
    if (op == "Expand" && in.size() > 1 && in[0] && in[1]) in[1] = expanded_shape(*in[0], in[1]);
  }
  std::vector<constant> out = open ? executed_for_all(n, in) : executed(n, in, 0);
  if (out.size() < static_cast<std::size_t>(node_->output_size())) {
    damaged(format("names {} results, it has {}", node_->output_size(), out.size()));
  }
  out[0].of = of;
  for (int o = 0; o < node_->output_size(); ++o) {
    if (node_->output(o).empty()) continue;
    value v;
    v.data = std::make_shared<constant>(std::move(out[static_cast<std::size_t>(o)]));
    define(node_->output(o), std::move(v));
  }
  return true;
}

}  // namespace latchkey::model
