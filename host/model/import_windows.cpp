// Operators with windows: convolutions and pools.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

importer::given_window importer::read_window(const value& x, std::vector<std::int64_t> kernel,
                                             bool pooling) const {
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
  for (const auto* list : {&kernel, &strides, &dilations, &pads}) {
    for (const std::int64_t v : *list) {
      if (v < (list == &pads ? 0 : 1) || v > kMaxDim) {
        fail(format("kernel {}, strides {}, dilations {}, pads {}: a value is outside its range",
                    list_text(kernel), list_text(strides), list_text(dilations), list_text(pads)),
             "use kernels, strides and dilations of 1 or more and pads of 0 or more");
      }
    }
  }
  for (std::size_t i = 0; i < 2; ++i) {
    if (dilations[i] == 1) continue;
    if (pooling) {
      fail(format("dilations {} are not supported", list_text(dilations)),
           "use dilation 1; only convolutions may be dilated");
    }
    const std::int64_t grown = (kernel[i] - 1) * dilations[i] + 1;
    if (grown > kMaxWindow) {
      fail(format("kernel {} with dilations {} covers {} pixels", list_text(kernel),
                  list_text(dilations), grown),
           format("use dilations that keep the window within {} pixels", kMaxWindow));
    }
    kernel[i] = grown;
  }
  const auto* auto_pad = attribute("auto_pad");
  const std::string mode = auto_pad && !auto_pad->s().empty() ? auto_pad->s() : "NOTSET";
  for (const char* known : {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}) {
    if (mode == known) return {kernel, strides, pads, mode};
  }
  damaged(format("auto_pad '{}' does not exist", mode));
}

template <typename Op>
std::vector<int> importer::window(const value& x, Op& op, std::vector<std::int64_t> given,
                                  bool pooling) {
  auto [kernel, strides, pads, mode] = read_window(x, std::move(given), pooling);
  const ftensor& in = tensor(x);
  if (x.padded() && mode.rfind("SAME", 0) == 0) {
    fail("follows a Pad and pads by itself", "give the pads as numbers instead of auto_pad");
  }
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
    }
    before += x.pads[i];
    after += x.pads[i + 2];
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

void importer::check_size(const std::vector<int>& dims) const {
  std::int64_t elements = 1;
  for (const int d : dims) elements *= d;
  if (elements > kMaxElements || elements < 1) {
    fail(format("the output {} is too large", dims_text(dims)), "use smaller planes");
  }
}

void importer::maxpool() {
  const value x = activation(0, false);
  if (integer("storage_order", 0) != 0) fail("storage_order is set", "leave it out");
  if (integers("kernel_shape").empty()) damaged("kernel_shape is missing");
  fmaxpool op;
  const std::vector<int> dims = window(x, op, {}, true);
  emit_pool(x, op, dims);
}

void importer::global_maxpool() {
  const value x = activation(0, false);
  emit_pool(x, whole_plane<fmaxpool>(x), {tensor(x).c, 1, 1});
}

int importer::factor_of(double size, double wanted, const char* axis, const char* hint) const {
  const double factor = wanted / size;
  if (!(factor >= 1 && factor <= 15) || factor != std::floor(factor)) {
    fail(format("makes {} {} of {}", wanted, axis, size), hint);
  }
  return static_cast<int>(factor);
}

std::string importer::resize_text(const char* name, const char* before_11,
                                  const char* otherwise) const {
  const auto* a = attribute(name);
  return a ? a->s() : std::string(opset_ < 11 ? before_11 : otherwise);
}

int importer::repeats_of(double size, double wanted, const char* axis) const {
  const int whole =
      factor_of(size, wanted, axis, "use mode = nearest and whole factors from 1 to 15");
  const double factor = whole;
  // Before opset 11 there is one way to round.
  const std::string mode =
      resize_text("coordinate_transformation_mode", "asymmetric", "half_pixel");
  const std::string rounding = resize_text("nearest_mode", "floor", "round_prefer_floor");
  const auto from = [&](double o) {
    double x = o / factor;
    if (mode == "half_pixel" || (mode == "pytorch_half_pixel" && wanted > 1)) {
      x = (o + 0.5) / factor - 0.5;
    } else if (mode == "tf_half_pixel_for_nn") {
      x = (o + 0.5) / factor;
    } else if (mode == "align_corners" && wanted > 1) {
      x = o * (size - 1) / (wanted - 1);
    }
    double i = std::floor(x);
    if (rounding == "ceil") i = std::ceil(x);
    if (rounding == "round_prefer_floor") i = std::ceil(x - 0.5);
    if (rounding == "round_prefer_ceil") i = std::floor(x + 0.5);
    return std::clamp(i, 0.0, size - 1);
  };
  for (double o = 0; o < wanted; ++o) {
    if (from(o) != std::floor(o / factor) || mode == "tf_crop_and_resize") {
      fail(format("takes {} {} from {} with {} and {}, not each of them {} times", axis, o, from(o),
                  mode, rounding, factor),
           "use half_pixel with round_prefer_floor, or asymmetric with floor");
    }
  }
  return whole;
}

/// Linear interpolation along an axis of `size` elements at a whole factor: the elements repeated,
/// then a window over them, a triangle or a box. What of it lies inside is the weight of a result.
importer::interpolation importer::interpolation_of(double size, double wanted,
                                                   const char* axis) const {
  static constexpr const char* kHint = "use whole factors from 1 to 7, or mode = nearest";
  interpolation k;
  k.factor = factor_of(size, wanted, axis, kHint);
  if (k.factor > 7) fail(format("interpolates {} {} of {}", wanted, axis, size), kHint);
  const std::string mode =
      resize_text("coordinate_transformation_mode", "asymmetric", "half_pixel");
  const bool half = mode == "half_pixel" || (mode == "pytorch_half_pixel" && wanted > 1);
  if (!half && mode != "asymmetric") {
    fail(format("interpolates with {}", mode), "use half_pixel or asymmetric");
  }
  // Half a step between the elements: two boxes that lie one apart where the factor is even.
  const bool triangle = half && k.factor % 2 == 0;
  k.window.assign(static_cast<std::size_t>(k.factor), triangle ? 2 : 1);
  if (triangle) {
    k.window[0] = 1;
    k.window.push_back(1);
  }
  k.before = half ? static_cast<int>(k.window.size() - 1) / 2 : 0;
  k.whole = std::accumulate(k.window.begin(), k.window.end(), 0);
  const int outputs = static_cast<int>(wanted);
  for (int o = 0; o < outputs; ++o) {
    int weight = 0;
    for (int i = 0; i < static_cast<int>(k.window.size()); ++i) {
      const int at = o - k.before + i;
      if (at >= 0 && at < outputs) weight += k.window[static_cast<std::size_t>(i)];
    }
    k.weights.push_back(weight);
  }
  return k;
}

void importer::interpolate(const value& x, double rows, double columns) {
  if (x.type != io_type::f32) fail("interpolates integers", "put DequantizeLinear before it");
  const interpolation v = interpolation_of(x.dims[1], rows, "rows");
  const interpolation h = interpolation_of(x.dims[2], columns, "columns");
  fmaxpool repeat;
  repeat.repeat_y = v.factor;
  repeat.repeat_x = h.factor;
  const std::vector<int> dims{x.dims[0], x.dims[1] * v.factor, x.dims[2] * h.factor};
  check_size(dims);
  const int whole = v.whole * h.whole;
  const auto least = [](const interpolation& k) {
    return *std::min_element(k.weights.begin(), k.weights.end());
  };
  if (whole > kMaxRestored * least(v) * least(h)) {
    fail(format("interpolates between {} of {} parts of a window at the border, where a result "
                "would be up to {:.1f} steps away",
                least(v) * least(h), whole,
                0.5 * (1.0 + static_cast<double>(whole) / (least(v) * least(h)))),
         "use half_pixel, or a factor of 2");
  }
  const std::string& name = node_->output(0);
  const value wide = emit_as(name + " repeated", {x.tensor}, repeat, dims);
  if (whole == 1) {
    result(wide);
    return;
  }
  fconv op;
  op.depthwise = true;
  op.out_channels = op.in_channels = dims[0];
  op.kernel_h = static_cast<int>(v.window.size());
  op.kernel_w = static_cast<int>(h.window.size());
  op.pad_top = v.before;
  op.pad_left = h.before;
  op.pad_bottom = op.kernel_h - 1 - v.before;
  op.pad_right = op.kernel_w - 1 - h.before;
  const auto channels = static_cast<std::size_t>(dims[0]);
  integer_weights q;
  for (std::size_t c = 0; c < channels; ++c) {
    for (const int a : v.window) {
      for (const int b : h.window) q.values.push_back(static_cast<std::int8_t>(a * b));
    }
  }
  const float step = 1.0F / static_cast<float>(whole);
  q.scale.assign(channels, step);
  for (const std::int8_t w : q.values) op.weights.push_back(static_cast<float>(w) * step);
  op.bias.assign(channels, 0.0F);
  op.integers = std::move(q);
  const value blurred = emit_as(name + " with border", {wide.tensor}, std::move(op), dims);
  result(restored(blurred, v.weights, h.weights, whole));
}

/// Nearest neighbours at whole factors: pixels are repeated. Linear interpolation averages those.
void importer::resize() {
  const value x = activation(0, false);
  const bool upsample = node_->op_type() == "Upsample";
  const auto* mode = attribute("mode");
  const bool linear = mode && mode->s() == "linear";
  if (mode && !linear && mode->s() != "nearest") {
    fail(format("interpolates in mode '{}'", mode->s()), "use mode = nearest or linear");
  }
  if (x.dims.size() != 3) {
    fail(format("works on {} dimensions", x.dims.size() + 1), "resize N x C x H x W");
  }
  plane_axis(x, 1);
  const int at = upsample || opset_ < 11 ? 1 : has(3) ? 3 : 2;
  if (!has(at)) fail("gives neither scales nor sizes", "give scales as a constant");
  const std::vector<double>& given = weights(at)->values;
  if (given.size() != 4) {
    fail(format("gives {} {}", given.size(), at == 3 ? "sizes" : "scales"),
         "give one for each of the four dimensions");
  }
  const auto wanted = [&](std::size_t axis) {
    const double size = x.dims[axis - 1];
    return at == 3 ? given[axis] : std::floor(size * given[axis]);
  };
  if (wanted(1) != x.dims[0] || (at != 3 && given[0] != 1)) {
    fail("changes the batch or the channels", "resize rows and columns only");
  }
  if (linear) {
    interpolate(x, wanted(2), wanted(3));
    return;
  }
  fmaxpool op;
  op.repeat_y = repeats_of(x.dims[1], wanted(2), "rows");
  op.repeat_x = repeats_of(x.dims[2], wanted(3), "columns");
  emit_pool(x, op, {x.dims[0], x.dims[1] * op.repeat_y, x.dims[2] * op.repeat_x});
}

void importer::emit_pool(const value& x, const fmaxpool& op, const std::vector<int>& dims) {
  check_size(dims);
  value v = emit({x.tensor}, op, dims);
  v.type = x.type;
  // Only integers carry their quantisation across: a float result may still get another one.
  if (x.type != io_type::f32) tensor(v).pinned = tensor(x).pinned;
  result(std::move(v));
}

/// A window over all of x, which has to be a plane.
template <typename Op>
Op importer::whole_plane(const value& x) const {
  const ftensor& in = tensor(x);
  if (x.dims != std::vector<int>{in.c, in.h, in.w}) {
    fail(format("needs planes, has {}", dims_text(x.dims)), "use it on N x C x H x W");
  }
  Op op;
  op.kernel_h = in.h;
  op.kernel_w = in.w;
  return op;
}

/// Pixels of each window along an axis that lie between `from` and `to`.
std::vector<int> importer::taps_inside(int outputs, int kernel, int stride, int before, int from,
                                       int to) {
  std::vector<int> taps;
  for (int o = 0; o < outputs; ++o) {
    const int first = o * stride - before;
    taps.push_back(std::max(std::min(first + kernel, to) - std::max(first, from), 1));
  }
  return taps;
}

value importer::emit_average(const value& x) {
  if (integers("kernel_shape").empty()) damaged("kernel_shape is missing");
  favgpool op;
  const std::vector<int> dims = window(x, op, {}, true);
  check_size(dims);
  // Pads of its own count when the file says so, what ceil_mode adds behind them never; zeros of a
  // Pad before it always do.
  const bool count = integer("count_include_pad", 0) != 0;
  const auto* auto_pad = attribute("auto_pad");
  const std::string mode = auto_pad ? auto_pad->s() : "";
  auto given = integers("pads");
  if (mode.rfind("SAME", 0) == 0) given = {op.pad_top, op.pad_left, op.pad_bottom, op.pad_right};
  if (mode == "VALID" || given.size() != 4) given.assign(4, 0);
  const auto own = [&](std::size_t i) { return count ? static_cast<int>(given[i]) : 0; };
  const ftensor& in = tensor(x);
  const auto rows = taps_inside(dims[1], op.kernel_h, op.stride_y, op.pad_top, -x.pads[0] - own(0),
                                in.h + x.pads[2] + own(2));
  const auto columns = taps_inside(dims[2], op.kernel_w, op.stride_x, op.pad_left,
                                   -x.pads[1] - own(1), in.w + x.pads[3] + own(3));
  const int whole = op.kernel_h * op.kernel_w;
  const int fewest = *std::min_element(rows.begin(), rows.end()) *
                     *std::min_element(columns.begin(), columns.end());
  if (whole > kMaxRestored * fewest) {
    fail(format(
             "a window at the border divides by {} pixels, others by {}: it would be up to {:.1f} "
             "steps of the result away",
             fewest, whole, 0.5 * (1.0 + static_cast<double>(whole) / fewest)),
         format("use count_include_pad = 1, or windows with at least one pixel of {} inside",
                kMaxRestored));
  }
  if (fewest == whole) return emit({x.tensor}, op, dims);
  return restored(emit_as(node_->output(0) + " with pads", {x.tensor}, op, dims), rows, columns,
                  whole);
}

/// x, whose pixel (y, x) lacks all but rows[y] * columns[x] of `whole` parts of its weight, times
/// what restores it. Both have one quantisation, so that a whole pixel stays as it is.
value importer::restored(const value& x, const std::vector<int>& rows,
                         const std::vector<int>& columns, int whole) {
  std::int64_t unit = 1;  // a common multiple of all weights
  std::int64_t least = whole;
  for (const int r : rows) {
    for (const int c : columns) {
      const std::int64_t weight = std::int64_t{r} * c;
      least = std::min(least, weight);
      if (unit <= kMaxElements) unit = std::lcm(unit, weight);
    }
  }
  std::vector<float> factors;
  for (int c = 0; c < x.dims[0]; ++c) {
    for (const int r : rows) {
      for (const int k : columns) {
        factors.push_back(static_cast<float>(whole) / static_cast<float>(r * k));
      }
    }
  }
  // Multiples of whole / unit have no error where bytes hold them; otherwise at least 1 has none.
  quantisation q;
  q.scale = unit / least <= 255
                ? static_cast<float>(whole) / static_cast<float>(unit)
                : 1.0F / std::floor(255.0F * static_cast<float>(least) / static_cast<float>(whole));
  const int by = constant_operand(x, std::move(factors), node_->output(0) + " at its border", q);
  value v = emit({x.tensor, by}, fmul{}, x.dims);
  out_.follows.emplace_back(x.tensor, v.tensor);
  out_.remarks.push_back(
      format("{}: its border is rounded twice, within {:.1f} steps of the real results", where(),
             0.5 * (1.0 + static_cast<double>(whole) / static_cast<double>(least))));
  return v;
}

void importer::avgpool() { result(emit_average(activation(0, true, kPads))); }

void importer::global_avgpool() {
  const value x = activation(0);
  result(emit({x.tensor}, whole_plane<favgpool>(x), {tensor(x).c, 1, 1}));
}

void importer::reduce_mean() {
  const value x = activation(0, true, kViews);
  std::vector<std::int64_t> axes = integers("axes");
  if (has(1)) {
    axes.clear();
    for (const double v : weights(1)->values) axes.push_back(static_cast<std::int64_t>(v));
  }
  for (std::int64_t& a : axes) {
    if (a < 0) a += static_cast<std::int64_t>(x.dims.size()) + 1;
  }
  std::sort(axes.begin(), axes.end());
  if (!x.axes.empty()) {
    mean_of_view(x, axes);
    return;
  }
  if (x.dims.size() != 3 || axes != std::vector<std::int64_t>{2, 3}) {
    fail(format("takes the mean over axes {} of {} dimensions", list_text(axes), x.dims.size() + 1),
         "use the mean over the rows and columns of N x C x H x W: axes 2 and 3");
  }
  const auto op = whole_plane<favgpool>(x);
  value v = emit({x.tensor}, op, {tensor(x).c, 1, 1});
  if (integer("keepdims", 1) == 0) v.dims.resize(1);
  result(std::move(v));
}

/// Over all rows and columns: of tokens, over all of them.
void importer::mean_of_view(const value& x, const std::vector<std::int64_t>& axes) {
  const ftensor in = tensor(x);
  value v = x;
  std::string over;
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) damaged("names an axis twice");
  for (const std::int64_t a : axes) {
    const auto at = static_cast<std::size_t>(a) - 1;
    if (a == 0) fail("takes the mean over the batch", "keep images apart");
    if (a < 1 || at >= x.dims.size()) damaged(format("axis {} is outside the tensor", a));
    over += x.axes[at];
    v.dims[at] = 1;
    v.axes[at] = '1';
  }
  const bool all = !axes.empty() && (in.h == 1 || over.find('y') != std::string::npos) &&
                   (in.w == 1 || over.find('x') != std::string::npos) &&
                   over.find_first_of("cHD") == std::string::npos;
  if (!all) {
    fail(format("takes the mean over axes {} of {}", list_text(axes), view_text(x)),
         "use the mean over all tokens, axis 1; over channels it has to be the start of a layer "
         "normalisation (mean, Sub, Pow 2, mean, Add, Sqrt, Div)");
  }
  if (integer("keepdims", 1) == 0) {
    for (auto a = axes.rbegin(); a != axes.rend(); ++a) {
      v.dims.erase(v.dims.begin() + (*a - 1));
      v.axes.erase(static_cast<std::size_t>(*a) - 1, 1);
    }
  }
  v.tensor = emit({x.tensor}, whole_plane<favgpool>(as_planes(x)), {in.c, 1, 1}).tensor;
  const std::string names = v.axes;
  relabel(v, names);
  result(std::move(v));
}

std::vector<int> importer::conv_shape(const value& x, const constant& w, fconv& op) {
  if (w.dims.size() != 4) {
    fail(format("weights of shape {} are not two-dimensional kernels", list_text(w.dims)),
         "use Conv with weights O x I x H x W");
  }
  const std::int64_t group = integer("group", 1);
  if (w.values.empty()) damaged("has no weights");
  std::vector<int> dims = window(x, op, {w.dims[2], w.dims[3]}, false);
  if (group < 1 || dims[0] % group != 0 || w.dims[0] % group != 0) {
    damaged(format("group = {} does not divide {} input and {} output channels", group, dims[0],
                   w.dims[0]));
  }
  if (w.dims[1] != dims[0] / group) {
    damaged(format("weights {} do not fit {} input channels in {} groups", list_text(w.dims),
                   dims[0], group));
  }
  if (w.dims[0] > kMaxDim) fail("has too many output channels", "split the layer");
  op.out_channels = static_cast<int>(w.dims[0]);
  op.in_channels = dims[0];
  const std::int64_t taps = std::int64_t{op.kernel_h} * op.kernel_w;
  op.depthwise = group > 1 && group == dims[0] && group == w.dims[0] && taps <= kMaxDepthwiseTaps;
  if (!op.depthwise && taps * dims[0] > kMaxElements / w.dims[0]) {
    fail(format("its dense form has more than {} weights", kMaxElements),
         "use fewer channels or smaller dilations");
  }
  if (group > 1 && !op.depthwise) {
    out_.remarks.push_back(
        format("{}: {} groups became a dense convolution with zero weights", where(), group));
  }
  dims[0] = op.out_channels;
  check_size(dims);
  return dims;
}

template <typename T>
std::vector<T> importer::kernels(const fconv& op, const constant& w,
                                 const std::vector<T>& values) const {
  const auto outs = static_cast<std::size_t>(op.out_channels);
  const auto per_group = static_cast<std::size_t>(w.dims[1]);
  const auto ins = op.depthwise ? 1 : static_cast<std::size_t>(op.in_channels);
  const auto kh = static_cast<std::size_t>(w.dims[2]);
  const auto kw = static_cast<std::size_t>(w.dims[3]);
  const auto to_h = static_cast<std::size_t>(op.kernel_h);
  const auto to_w = static_cast<std::size_t>(op.kernel_w);
  if (ins == per_group && kh == to_h && kw == to_w) return values;
  const std::size_t dy = kh > 1 ? (to_h - 1) / (kh - 1) : 1;
  const std::size_t dx = kw > 1 ? (to_w - 1) / (kw - 1) : 1;
  const auto groups = static_cast<std::size_t>(op.in_channels) / per_group;
  std::vector<T> out(outs * ins * to_h * to_w);
  std::size_t at = 0;
  for (std::size_t o = 0; o < outs; ++o) {
    const std::size_t first = op.depthwise ? 0 : o / (outs / groups) * per_group;
    for (std::size_t i = 0; i < per_group; ++i) {
      for (std::size_t ky = 0; ky < kh; ++ky) {
        for (std::size_t kx = 0; kx < kw; ++kx) {
          out[((o * ins + first + i) * to_h + ky * dy) * to_w + kx * dx] = values[at++];
        }
      }
    }
  }
  return out;
}

void importer::conv() {
  const value x = activation(0, true, kPads);
  const auto w = weights(1);
  fconv op;
  const std::vector<int> dims = conv_shape(x, *w, op);
  op.weights = kernels(op, *w, finite(w->values, "the weights"));
  const auto outs = static_cast<std::size_t>(op.out_channels);
  op.bias = has(2) ? finite(weights(2)->values, "the bias") : std::vector<float>(outs);
  if (op.bias.size() != outs) damaged(format("{} biases for {} channels", op.bias.size(), outs));
  if (w->q && (w->q->scale.size() == 1 || (w->q->axis == 0 && w->q->scale.size() == outs))) {
    integer_weights q;
    q.values = kernels(op, *w, w->q->integers);
    q.scale = spread(w->q->scale, outs);
    op.integers = std::move(q);
  }
  result(emit({x.tensor}, std::move(op), dims));
}

void importer::qlinear_conv() {
  const value x = qlinear_input(0, false, kPads);
  const auto w = weights(3);
  fconv op;
  const std::vector<int> dims = conv_shape(x, *w, op);
  const auto outs = static_cast<std::size_t>(op.out_channels);
  op.integers = qlinear_weights(3, 4, outs, 0);
  op.integers->values = kernels(op, *w, op.integers->values);
  if (has(8)) op.integers->bias = integer_bias(8, outs);
  finish_qlinear(x, std::move(op), dims, 6);
}

/// ConvInteger: sums of (x - zero point) * (w - zero point), which a later Mul scales.
void importer::conv_integer() {
  const value x = integer_input(kPads);
  const auto w = weights(1);
  fconv op;
  const std::vector<int> dims = conv_shape(x, *w, op);
  const auto outs = static_cast<std::size_t>(op.out_channels);
  if (x.dynamic.empty()) {
    op.integers = integer_kernels(3, outs, 0);
    op.integers->values = kernels(op, *w, op.integers->values);
    set_integers(x, op);
  } else {
    set_dynamic(op, kernels(op, *w, real_kernels(3, outs, 0)));
  }
  finish_integer(x, emit({x.tensor}, std::move(op), dims));
}

void importer::qlinear_avgpool() {
  if (integer("channels_last", 0) != 0) {
    fail("channels_last is set", "use channels first, N x C x H x W");
  }
  const value x = qlinear_input(0, true, kPads);
  const bool global = node_->op_type() == "QLinearGlobalAveragePool";
  if (global && x.padded()) fail("follows a Pad", "leave out the Pad");
  finish_quantised(
      global ? emit({x.tensor}, whole_plane<favgpool>(x), {tensor(x).c, 1, 1}) : emit_average(x), 3,
      true);
}

}  // namespace latchkey::model
