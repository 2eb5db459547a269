// Operators that only relabel: shapes, Identity, Dropout, Constant, Pad.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

constant importer::constant_of(const pb::NodeProto& node, const std::string& file) {
  constant c;
  for (const auto& a : node.attribute()) {
    if (a.name() == "value") {
      return read_constant(a.t(), format("{}: node '{}' (Constant)", file, node.name()));
    }
    if (a.name() == "value_float") {
      c.type = pb::TensorProto::FLOAT;
      c.values = {a.f()};
    } else if (a.name() == "value_int") {
      c.type = pb::TensorProto::INT64;
      c.values = {static_cast<double>(a.i())};
    } else if (a.name() == "value_floats") {
      c.type = pb::TensorProto::FLOAT;
      c.values.assign(a.floats().begin(), a.floats().end());
      c.dims = {a.floats_size()};
    } else if (a.name() == "value_ints") {
      c.type = pb::TensorProto::INT64;
      c.values.assign(a.ints().begin(), a.ints().end());
      c.dims = {a.ints_size()};
    } else {
      continue;
    }
    return c;
  }
  throw error(errc::unsupported_model,
              format("{}: node '{}' (Constant): holds neither numbers nor a dense tensor; store "
                     "numbers as a tensor",
                     file, node.name()));
}

void importer::constant_node() {
  value v;
  v.data = std::make_shared<constant>(constant_of(*node_, file_));
  result(std::move(v));
}

void importer::identity() { result(input(0, kPads | kViews)); }

void importer::dropout() {
  if (has(2) && weights(2)->values != std::vector<double>{0.0}) {
    fail("training_mode is set", "export the model for inference");
  }
  result(activation(0, true, kPads | kViews));
}

void importer::flatten() {
  value x = activation(0, false, kViews);
  const auto rank = static_cast<std::int64_t>(x.dims.size()) + 1;
  std::int64_t axis = integer("axis", 1);
  if (axis < -rank || axis > rank) damaged(format("axis {} is outside the tensor", axis));
  if (axis < 0) axis += rank;
  // A rank-1 tensor flattens to N x 1 either way.
  if (axis != 1) {
    fail(format("axis {} joins other dimensions with the batch", axis), "use axis = 1");
  }
  if (!plane_order(x)) {
    fail(format("flattens {}", view_text(x)),
         "put the channels first (Transpose), or take the mean over the tokens before");
  }
  x.dims = {static_cast<int>(tensor(x).size())};
  x.axes.clear();
  result(std::move(x));
}

std::vector<int> importer::sizes_of(value& x, const constant& shape, std::string& wanted) {
  if (shape.type != pb::TensorProto::INT64) damaged("the shape is not INT64");
  if (integer("allowzero", 0) != 0) fail("allowzero is set", "use sizes without 0");
  std::vector<std::int64_t> to;
  std::optional<std::size_t> open, whole;  // the size that is -1, and the one that is the batch's
  for (const double size : shape.values) {
    const std::size_t i = to.size();
    if (std::abs(size) > static_cast<double>(kMaxElements) || size < -1) {
      damaged(format("size {} makes no sense", size));
    }
    auto d = std::isnan(size) ? 0 : static_cast<std::int64_t>(size);  // see import_folding.cpp
    if (size == 0) {
      if (i >= x.rank()) damaged("copies a dimension that the input has not got");
      if (const auto from = dim_of(x, static_cast<std::int64_t>(i))) d = x.dims[*from];
    }
    if (d == -1 && std::exchange(open, i)) damaged("two sizes are -1");
    if (d == 0 && std::exchange(whole, i)) damaged("two sizes are the batch's");
    to.push_back(d);
  }
  wanted = list_text(to);
  if (to.empty() || to.size() > 5) {
    fail(format("shape {} has {} dimensions", wanted, to.size()),
         "reshape to two or four dimensions, the batch first");
  }
  const auto size = static_cast<std::int64_t>(tensor(x).size());
  const std::int64_t images = std::max<std::int64_t>(out_.batch, 1);
  // The batch is where as many elements lie before it as now; a number has to be its size. One
  // image is anywhere.
  const auto product = [](auto first, auto last) {
    std::int64_t all = 1;
    for (; first != last; ++first) all = std::min(all * *first, kMaxElements + 1);
    return all;
  };
  const auto before = product(x.dims.begin(), x.dims.begin() + std::max(x.batch, 0));
  for (std::size_t at = 0; at <= to.size(); ++at) {
    const bool nowhere = at == to.size();
    if (whole ? at != *whole : nowhere ? out_.batch != 1 : to[at] != images && to[at] != -1) {
      continue;
    }
    std::vector<std::int64_t> sizes = to;
    if (!nowhere) sizes.erase(sizes.begin() + static_cast<std::ptrdiff_t>(at));
    const auto rest = std::find(sizes.begin(), sizes.end(), -1);
    if (rest != sizes.end()) {
      *rest = 1;
      *rest = size / product(sizes.begin(), sizes.end());
    }
    const auto place = sizes.begin() + static_cast<std::ptrdiff_t>(nowhere ? 0 : at);
    const bool kept = out_.batch == 1 || product(sizes.begin(), place) == before;
    if (product(sizes.begin(), sizes.end()) != size || !kept) continue;
    if (!nowhere && out_.batch == 0 && to[at] == 1) {
      out_.remarks.push_back(format("{}: a batch of 1 written in the shape is ignored", where()));
    }
    if (sizes.size() > 1 &&
        std::any_of(sizes.begin(), sizes.end(), [](std::int64_t d) { return d > kMaxDim; })) {
      fail(format("shape {} is too large", wanted), "use smaller planes");
    }
    x.batch = nowhere ? value::kNowhere : static_cast<int>(at);
    return {sizes.begin(), sizes.end()};
  }
  fail(format("shape {} moves the batch, or mixes it with other dimensions", wanted),
       "keep the batch as it is: [0, -1] flattens, [0, C, H, W] restores a plane");
}

void importer::reshape() {
  const value given = activation(0, false, kViews);
  value x = given;
  std::string wanted;
  std::vector<int> dims = sizes_of(x, *weights(1), wanted);
  const auto relabelled = [&] {
    std::string seen = reshaped_view(x, dims);
    if (seen.empty()) return false;
    x.dims = dims;
    relabel(x, std::move(seen));
    result(x);
    return true;
  };
  if (!x.axes.empty() || x.batch != 0) {
    if (relabelled()) return;
    if (dims.size() == 1 && plane_order(x)) {
      x.dims = std::move(dims);
      x.axes.clear();
      result(std::move(x));
      return;
    }
    if (auto v = regrouped(x, dims)) {
      result(std::move(*v));
      return;
    }
    fail(
        format("shape {} joins or splits the dimensions of {}", wanted, view_text(given)),
        "split the channels of tokens into heads, [0, T, H, D], or parts and heads, "
        "[0, T, 3, H, D], or join them again, [0, T, C]; where heads and an open batch are joined, "
        "export with a batch of 1");
  }
  ftensor& t = tensor(x);
  // Five dimensions: groups of channels, for a Transpose that shuffles them.
  const bool same =
      dims.size() == 1 || dims == std::vector<int>{t.c, t.h, t.w} ||
      (dims.size() == 4 && dims[0] * dims[1] == t.c && dims[2] == t.h && dims[3] == t.w);
  if (!same) {
    // Another plane over the same elements: only the graph's input can still take any shape.
    const bool edge = std::any_of(out_.inputs.begin(), out_.inputs.end(),
                                  [&](const io_spec& s) { return s.tensor == x.tensor; });
    const bool untouched = std::none_of(out_.nodes.begin(), out_.nodes.end(), [&](const fnode& n) {
      return std::find(n.inputs.begin(), n.inputs.end(), x.tensor) != n.inputs.end();
    });
    if (!edge || !untouched || dims.size() > 3) {
      if (relabelled()) return;
      if (auto v = regrouped(x, dims)) {
        result(std::move(*v));
        return;
      }
      fail(
          format("shape {} changes the planes of a computed tensor", wanted),
          "only flattening, undoing it, rows and columns as tokens, [0, C, H * W], and shaping the "
          "input are supported");
    }
    t.c = dims.empty() ? 1 : dims[0];
    t.h = dims.size() > 1 ? dims[1] : 1;
    t.w = dims.size() > 2 ? dims[2] : 1;
  }
  x.dims = std::move(dims);
  result(std::move(x));
}

/// The axes of Squeeze and Unsqueeze: an attribute up to opset 12, an input from 13 on. They lie in
/// [0, rank), sorted.
std::vector<std::int64_t> importer::axes(std::int64_t rank) const {
  std::vector<std::int64_t> out = integers("axes");
  if (has(1)) {
    out.clear();
    for (const double v : weights(1)->values) out.push_back(static_cast<std::int64_t>(v));
  }
  for (std::int64_t& a : out) {
    if (a < -rank || a >= rank) damaged(format("axis {} is outside {} dimensions", a, rank));
    if (a < 0) a += rank;
  }
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end()) damaged("names an axis twice");
  return out;
}

void importer::squeeze() {
  value x = activation(0, false, kViews);
  x.axes = letters(x);
  const std::vector<std::int64_t> given = axes(static_cast<std::int64_t>(x.rank()));
  std::vector<std::size_t> gone;
  bool alone = false;  // without the batch
  for (const std::int64_t a : given) {
    const auto at = dim_of(x, a);
    if (!at && (out_.batch != 1 || x.axes.empty())) {
      fail("takes the batch away", "keep the batch as the first dimension");
    }
    alone = alone || !at;
    if (!at) continue;
    if (x.dims[*at] != 1) damaged(format("axis {} has {} elements, not 1", a, x.dims[*at]));
    gone.push_back(*at);
  }
  for (std::size_t i = 0; given.empty() && i < x.dims.size(); ++i) {
    if (x.dims[i] == 1) gone.push_back(i);
  }
  if (alone) x.batch = value::kNowhere;
  for (auto at = gone.rbegin(); at != gone.rend(); ++at) drop(x, *at);
  // Of one image, what is left of one element may be the batch as well.
  if (const auto one = x.axes.find('1'); alone && one != std::string::npos) {
    drop(x, one);
    x.batch = static_cast<int>(one);
  }
  relabel(x, x.axes);
  result(std::move(x));
}

void importer::unsqueeze() {
  value x = activation(0, false, kViews);
  const auto given = has(1) ? weights(1)->values.size() : integers("axes").size();
  if (given > 4) damaged(format("adds {} dimensions", given));
  const bool view = !x.axes.empty();
  for (const std::int64_t a : axes(static_cast<std::int64_t>(x.rank() + given))) {
    if (a == 0 && !view) {
      fail("puts a dimension before the batch", "keep the batch as the first dimension");
    }
    const bool ahead = a <= x.batch;
    const auto at = a - (ahead || x.batch == value::kNowhere ? 0 : 1);
    x.batch += ahead ? 1 : 0;
    x.dims.insert(x.dims.begin() + at, 1);
    if (view) x.axes.insert(static_cast<std::size_t>(at), 1, '1');
  }
  if (view) relabel(x, x.axes);
  if (x.dims.size() > (x.axes.empty() ? 3U : 4U)) {
    fail(format("gives {} dimensions", x.rank()), "use up to four dimensions");
  }
  result(std::move(x));
}

std::vector<std::size_t> importer::permutation(std::size_t rank) const {
  const std::vector<std::int64_t> given = integers("perm");
  std::vector<std::size_t> perm(given.begin(), given.end());
  if (given.empty()) {
    for (std::size_t i = rank; i-- > 0;) perm.push_back(i);
  }
  std::vector<std::size_t> sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted.size() != rank || sorted[i] != i) {
      damaged(format("perm {} is no permutation of {} dimensions", list_text(given), rank));
    }
  }
  return perm;
}

void importer::transpose() {
  value x = activation(0, false, kViews);
  const std::size_t rank = x.rank();
  const std::vector<std::size_t> perm = permutation(rank);
  if (x.axes.empty() && rank == 5 && perm == std::vector<std::size_t>{0, 2, 1, 3, 4}) {
    result(shuffled(x));
    return;
  }
  // The elements keep their order if the dimensions of more than one element do.
  const std::string before = letters(x);
  std::vector<int> dims;
  std::string seen;
  int batch = x.batch;
  std::size_t last = 0;
  bool keeps = perm[0] == 0;
  for (std::size_t i = 0; i < rank; ++i) {
    const auto at = dim_of(x, static_cast<std::int64_t>(perm[i]));
    if (!at) {
      batch = static_cast<int>(i);
      continue;
    }
    if (!before.empty()) seen += before[*at];
    dims.push_back(x.dims[*at]);
    if (dims.back() == 1) continue;
    keeps = keeps && *at >= last;
    last = *at;
  }
  // Views take any order; planes become one where something works on their last dimension.
  const bool viewed = !x.axes.empty() || (perm[0] == 0 && !before.empty() && !keeps &&
                                          read_channels_last(node_->output(0), rank, dims.back()));
  if (viewed) {
    x.dims = std::move(dims);
    x.batch = batch;
    relabel(x, std::move(seen));
    result(std::move(x));
    return;
  }
  if (!keeps) {
    fail(format("perm {} changes the order of the elements", list_text(perm)),
         "export the model in NCHW order without Transpose; only dimensions of 1 may move");
  }
  x.dims = std::move(dims);
  result(std::move(x));
}

void importer::pad() {
  value x = activation(0, false, kPads);
  const auto* mode = attribute("mode");
  if (mode && !mode->s().empty() && mode->s() != "constant") {
    fail(format("pads in mode '{}'", mode->s()), "use mode = constant with the value 0");
  }
  std::vector<std::int64_t> pads = integers("pads");
  if (has(1)) {
    pads.clear();
    for (const double v : weights(1)->values) pads.push_back(static_cast<std::int64_t>(v));
  }
  if (has(3)) fail("names axes", "give the pads of all dimensions");
  double with = real("value", 0.0F);
  if (has(2) && !weights(2)->values.empty()) with = scalar(2, "the value");
  // Bytes are padded with the byte that stands for 0.0.
  double zero = 0.0;
  if (x.type != io_type::f32) {
    const auto& q = tensor(x).pinned;
    if (!q) fail("pads bytes whose zero point is unknown", "pad before QuantizeLinear");
    zero = q->zero_point - (x.type == io_type::i8 ? 128 : 0);
  }
  if (with != zero) {
    fail(format("pads with {}, where 0.0 is {}", with, zero), "pad with 0.0");
  }
  const std::size_t rank = x.dims.size() + 1;
  if (pads.size() != 2 * rank) {
    damaged(format("{} pads for {} dimensions", pads.size(), rank));
  }
  const bool none = std::all_of(pads.begin(), pads.end(), [](auto p) { return p == 0; });
  if (none) {
    result(std::move(x));
    return;
  }
  const bool outside =
      std::any_of(pads.begin(), pads.end(), [](auto p) { return p < 0 || p > kMaxDim; });
  if (rank != 4 || outside || pads[0] != 0 || pads[1] != 0 || pads[4] != 0 || pads[5] != 0) {
    fail(format("pads {} are not rows and columns around a plane", list_text(pads)),
         "pad the rows and columns of N x C x H x W by 0 or more");
  }
  const std::size_t at[] = {2, 3, 6, 7};
  for (std::size_t i = 0; i < 4; ++i) x.pads[i] += static_cast<int>(pads[at[i]]);
  if (std::any_of(x.pads.begin(), x.pads.end(), [](int p) { return p > kMaxDim; })) {
    fail(format("pads {} are too wide", list_text(x.pads)), "use fewer rows and columns");
  }
  // Operators with pads of their own add these to them.
  const std::vector<int>& by = readers(node_->output(0));
  const bool taken = !by.empty() && model_.graph().output(0).name() != node_->output(0) &&
                     std::all_of(by.begin(), by.end(), [&](int n) {
                       static const std::set<std::string> take{
                           "AveragePool", "Conv",        "ConvInteger",        "DequantizeLinear",
                           "Pad",         "QLinearConv", "QLinearAveragePool", "QuantizeLinear"};
                       return take.contains(model_.graph().node(n).op_type());
                     });
  result(taken ? std::move(x) : surrounded(x));
}

/// With its pads in it: a depthwise kernel of one tap, in windows that see nothing else at the
/// border.
value importer::surrounded(const value& x) {
  const auto [top, left, bottom, right] = x.pads;
  const int height = top + bottom + 1, width = left + right + 1;
  const std::int64_t taps = std::int64_t{height} * width;
  if (taps > kMaxDepthwiseTaps) {
    fail(format("pads {} take a kernel of {} taps", list_text(x.pads), taps),
         format("pad less, (rows + 1) x (columns + 1) up to {}, or right before a Conv or "
                "AveragePool",
                kMaxDepthwiseTaps));
  }
  fconv op = one_tap(x.dims[0], height, width, bottom, right);
  op.pad_top = op.pad_bottom = height - 1;
  op.pad_left = op.pad_right = width - 1;
  const std::vector<int> dims{x.dims[0], x.dims[1] + top + bottom, x.dims[2] + left + right};
  check_size(dims);
  value v = emit({x.tensor}, std::move(op), dims);
  v.type = x.type;
  follow(v, x);
  return v;
}

/// Of sums of ConvInteger and MatMulInteger, and of what is float already.
void importer::cast() {
  const value x = input(0, kPads | kViews | kDynamic);
  const std::int64_t to = integer("to", 0);
  if (x.data || x.type != io_type::f32 || to != pb::TensorProto::FLOAT) {
    fail(format("casts to {}", type_name(static_cast<int>(std::clamp<std::int64_t>(to, -1, 99)))),
         "only int32 sums of ConvInteger and MatMulInteger are cast, to FLOAT");
  }
  result(x);
}

}  // namespace latchkey::model
