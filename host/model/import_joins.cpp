// Operators that move channels, rows and columns: Concat, Split, Slice, Gather. But for a Concat of
// whole channel blocks or of pixels the array does it, by convolutions with weights of 0 and 1;
// values keep their quantisation on the way.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

int importer::plane_axis(const value& x, std::int64_t axis) const {
  const ftensor& t = tensor(x);
  const std::size_t at = axis_of(x, axis);
  if (!x.axes.empty()) {
    const char letter = x.axes[at];
    if (letter == '1') {
      fail(format("works along axis {} of {}", axis, view_text(x)),
           "work along the channels or the tokens");
    }
    return letter == 'y' ? 2 : letter == 'x' ? 3 : 1;
  }
  // Dimensions that are left out at the end have one element.
  std::vector<int> plane = x.dims;
  plane.resize(std::max<std::size_t>(plane.size(), 3), 1);
  if (plane != std::vector<int>{t.c, t.h, t.w}) {
    fail(format("works along axis {} of {}, which is no N x C x H x W", axis, dims_text(x.dims)),
         "work on planes, or on features behind a Gemm");
  }
  return static_cast<int>(at) + 1;
}

value importer::select(const value& x, const std::vector<int>& channels, const std::string& name) {
  const ftensor in = tensor(x);
  fconv op;
  op.out_channels = static_cast<int>(channels.size());
  op.in_channels = in.c;
  const std::size_t ins = static_cast<std::size_t>(in.c);
  if (channels.size() > static_cast<std::size_t>(kMaxElements) / ins) {
    fail(format("moves {} of {} channels", channels.size(), ins), "use fewer channels");
  }
  op.weights.assign(channels.size() * ins, 0.0F);
  op.bias.assign(channels.size(), 0.0F);
  for (std::size_t o = 0; o < channels.size(); ++o) {
    if (channels[o] >= 0) op.weights[o * ins + static_cast<std::size_t>(channels[o])] = 1.0F;
  }
  std::vector<int> dims = x.dims;
  dims[0] = op.out_channels;
  value v = emit_as(name, {x.tensor}, std::move(op), dims);
  v.type = x.type;
  return v;
}

std::vector<int> first_channels(int count, int all) {
  std::vector<int> channels(static_cast<std::size_t>(all), -1);
  std::iota(channels.begin(), channels.begin() + count, 0);
  return channels;
}

fconv one_tap(int channels, int kernel_h, int kernel_w, int row, int column) {
  const auto taps = static_cast<std::size_t>(kernel_h) * static_cast<std::size_t>(kernel_w);
  fconv op;
  op.depthwise = true;
  op.out_channels = op.in_channels = channels;
  op.kernel_h = kernel_h;
  op.kernel_w = kernel_w;
  op.bias.assign(static_cast<std::size_t>(channels), 0.0F);
  op.weights.assign(op.bias.size() * taps, 0.0F);
  for (auto at = static_cast<std::size_t>(row * kernel_w + column); at < op.weights.size();
       at += taps) {
    op.weights[at] = 1.0F;
  }
  return op;
}

void importer::follow(const value& x, const value& of) {
  tensor(x).pinned = tensor(of).pinned;
  out_.follows.emplace_back(x.tensor, of.tensor);
}

/// Whole channel blocks are only put in their place. Others take a convolution each, to its place
/// among zeros, and their sum: of one value a channel.
value importer::join_channels(const std::vector<value>& parts) {
  std::vector<int> dims = parts[0].dims;
  dims[0] = 0;
  for (const value& p : parts) dims[0] += p.dims[0];
  if (dims[0] > kMaxDim) fail(format("joins {} channels", dims[0]), "use fewer channels");
  const bool blocks = parts.back().dims[0] > kBlockChannels / 2 &&
                      std::all_of(parts.begin(), parts.end() - 1,
                                  [](const value& p) { return p.dims[0] % kBlockChannels == 0; });
  if (blocks) {
    std::vector<int> tensors;
    for (const value& p : parts) tensors.push_back(p.tensor);
    return emit(std::move(tensors), fjoin{}, dims);
  }
  std::vector<value> placed;
  int first = 0;
  for (const value& p : parts) {
    std::vector<int> channels(static_cast<std::size_t>(dims[0]), -1);
    std::iota(channels.begin() + first, channels.begin() + first + p.dims[0], 0);
    first += p.dims[0];
    placed.push_back(select(p, channels, format("{} part {}", node_->output(0), placed.size())));
  }
  value sum = placed[0];
  std::vector<int> rounded{sum.tensor};
  for (std::size_t i = 1; i < placed.size(); ++i) {
    const bool last = i + 1 == placed.size();
    const std::string name =
        last ? node_->output(0) : format("{} parts 0 to {}", node_->output(0), i);
    rounded.push_back(placed[i].tensor);
    sum = emit_as(name, {sum.tensor, placed[i].tensor}, fadd{}, dims);
    if (!last) rounded.push_back(sum.tensor);
  }
  for (const int t : rounded) out_.follows.emplace_back(t, sum.tensor);
  return sum;
}

/// Pixels lie one behind the other, so those of a part only follow those before. Parts that would
/// not fill whole words get channels that are zeros until they do.
value importer::join_pixels(const std::vector<value>& parts, int axis) {
  std::vector<int> dims = parts[0].dims;
  int& joined = dims[static_cast<std::size_t>(axis) - 1];
  joined = 0;
  for (const value& p : parts) joined += p.dims[static_cast<std::size_t>(axis) - 1];
  check_size(dims);
  const int channels = dims[0];
  int bytes = pixel_bytes(channels);
  const auto fills = [&](const value& p) {
    return tensor(p).size() / static_cast<std::size_t>(channels) * static_cast<std::size_t>(bytes) %
               kBlockChannels ==
           0;
  };
  while (!std::all_of(parts.begin(), parts.end() - 1, fills)) bytes *= 2;
  const bool widened = bytes != pixel_bytes(channels);
  std::vector<int> tensors;
  for (const value& p : parts) {
    tensors.push_back(widened ? select(p, first_channels(channels, bytes),
                                       format("{} part {}", node_->output(0), tensors.size()))
                                    .tensor
                              : p.tensor);
  }
  if (!widened) return emit(std::move(tensors), fjoin{true, {}}, dims);
  dims[0] = bytes;
  const value whole =
      emit_as(node_->output(0) + " widened", std::move(tensors), fjoin{true, {}}, dims);
  const value v = select(whole, first_channels(channels, channels), node_->output(0));
  out_.follows.emplace_back(whole.tensor, v.tensor);
  return v;
}

value importer::join(const std::vector<value>& parts, int axis) {
  return axis == 1 ? join_channels(parts) : join_pixels(parts, axis);
}

/// The depthwise kernel makes room: where it sees nothing but padding there are zeros, and to those
/// the constant tokens are added.
void importer::concat_tokens(std::size_t given) {
  const value x = activation(static_cast<int>(given), true, kViews);
  const auto* a = attribute("axis");
  if (!a) damaged("has no axis");
  const int axis = plane_axis(x, a->i());
  const ftensor in = tensor(x);
  if (x.axes.empty() || axis != 3 || in.h != 1 || !channels_last(x) || x.batch != 0) {
    fail(format("joins a constant and {} along axis {}", view_text(x), a->i()),
         "join constant tokens to tokens, N x T x C, along axis 1");
  }
  std::vector<double> rows[2];  // of tokens before x and behind it, channel by channel
  for (std::size_t i = 0; i < static_cast<std::size_t>(node_->input_size()); ++i) {
    if (i == given) continue;
    const auto c = weights(static_cast<int>(i));
    if (c->dims.size() != 3 || c->dims[0] != 1 || c->dims[2] != in.c || c->values.empty()) {
      fail(format("a constant of shape {} is no row of tokens of {} channels", list_text(c->dims),
                  in.c),
           "join constants of shape 1 x T x C");
    }
    auto& to = rows[i < given ? 0 : 1];
    to.insert(to.end(), c->values.begin(), c->values.end());
  }
  const auto channels = static_cast<std::size_t>(in.c);
  const int before = static_cast<int>(rows[0].size() / channels);
  const int behind = static_cast<int>(rows[1].size() / channels);
  const int n = std::max(before, behind);
  if (before != 0 && behind != 0) {
    fail("joins constant tokens on both sides", "join all of them at one end");
  }
  if (n + 1 > kMaxDepthwiseTaps) {
    fail(format("joins {} constant tokens", n), format("join up to {}", kMaxDepthwiseTaps - 1));
  }
  fconv room = one_tap(in.c, 1, n + 1, 0, behind);
  room.pad_left = room.pad_right = n;
  const std::vector<int> plane{in.c, 1, in.w + n};
  check_size(plane);
  const value moved = emit_as(node_->output(0) + " with room", {x.tensor}, std::move(room), plane);
  follow(moved, x);
  const auto tokens = static_cast<std::size_t>(plane[2]);
  const std::size_t first = before != 0 ? 0 : static_cast<std::size_t>(in.w);
  std::vector<float> values(channels * tokens);
  const auto& given_rows = rows[before != 0 ? 0 : 1];
  for (std::size_t i = 0; i < given_rows.size(); ++i) {
    values[i % channels * tokens + first + i / channels] = finite(given_rows[i], "a token");
  }
  const int k = constant_operand(moved, std::move(values), node_->output(0) + " constant", {});
  result(seen_as(emit({moved.tensor, k}, fadd{}, plane), x));
}

void importer::concat() {
  std::optional<std::size_t> computed;
  std::size_t constants = 0;
  for (int i = 0; i < node_->input_size(); ++i) {
    if (input(i, kPads | kViews).data) {
      ++constants;
    } else {
      computed = static_cast<std::size_t>(i);
    }
  }
  if (computed && constants > 0 && constants + 1 == static_cast<std::size_t>(node_->input_size())) {
    concat_tokens(*computed);
    return;
  }
  std::vector<value> parts;
  for (int i = 0; i < node_->input_size(); ++i) parts.push_back(activation(i, true, kViews));
  const int axis = joined_axis(parts);
  if (parts.size() == 1) {
    result(parts[0]);
    return;
  }
  const value first = parts[0];
  for (value& p : parts) {
    if (!p.axes.empty()) p = as_planes(p);
  }
  const value v = join(parts, axis);
  result(first.axes.empty() ? v : seen_as(v, first));
}

/// Scale and zero point of the result, then of each part behind it.
void importer::qlinear_concat() {
  if (node_->input_size() < 5 || node_->input_size() % 3 != 2) {
    damaged(format("has {} inputs", node_->input_size()));
  }
  std::vector<value> parts;
  for (int i = 2; i < node_->input_size(); i += 3) parts.push_back(qlinear_input(i, false));
  const int axis = joined_axis(parts);
  if (parts.size() == 1) fail("joins one tensor", "leave it out");
  finish_quantised(join(parts, axis), 0, false);
}

int importer::joined_axis(const std::vector<value>& parts) const {
  const auto* a = attribute("axis");
  if (!a || parts.empty()) damaged("has no axis, or no input");
  const int axis = plane_axis(parts[0], a->i());
  if (parts[0].axes.find_first_of("GHD") != std::string::npos) {
    fail(format("joins along axis {}", a->i()), "join channels, axis 1 of planes");
  }
  if (axis == 3 && tensor(parts[0]).h != 1) {
    fail(format("joins columns of {} rows", tensor(parts[0]).h),
         "join channels, rows, or the columns of one row");
  }
  for (const value& p : parts) {
    if (p.axes != parts[0].axes || p.batch != parts[0].batch) {
      fail(format("joins {} and {}", view_text(parts[0]), view_text(p)),
           "bring both into one order");
    }
    if (p.axes.empty()) plane_axis(p, 1);
    const ftensor &t = tensor(p), &first = tensor(parts[0]);
    if (p.dims.size() != parts[0].dims.size() || (axis != 1 && t.c != first.c) ||
        (axis != 2 && t.h != first.h) || (axis != 3 && t.w != first.w)) {
      damaged(format("joins {} and {}", dims_text(parts[0].dims), dims_text(p.dims)));
    }
  }
  return axis;
}

void importer::split() {
  const value x = activation(0, false, kViews);
  const std::int64_t axis = integer("axis", 0);
  if (plane_axis(x, axis) != 1) {
    fail(format("splits along axis {}", axis), "split channels, axis 1 of planes");
  }
  const std::size_t at = axis_of(x, axis);
  const int outputs = node_->output_size();
  std::vector<std::int64_t> sizes = integers("split");
  if (has(1)) {
    sizes.clear();
    for (const double v : weights(1)->values) sizes.push_back(static_cast<std::int64_t>(v));
  }
  if (sizes.empty()) {
    if (x.dims[at] % outputs != 0) {
      damaged(format("{} channels in {} equal parts", x.dims[at], outputs));
    }
    sizes.assign(static_cast<std::size_t>(outputs), x.dims[at] / outputs);
  }
  const bool fits = sizes.size() == static_cast<std::size_t>(outputs) &&
                    std::all_of(sizes.begin(), sizes.end(),
                                [](std::int64_t s) { return s > 0 && s <= kMaxDim; }) &&
                    std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) == x.dims[at];
  if (!fits) damaged(format("parts {} of {} channels", list_text(sizes), x.dims[at]));
  int first = 0;
  for (int i = 0; i < outputs; ++i) {
    std::vector<int> kept(static_cast<std::size_t>(sizes[static_cast<std::size_t>(i)]));
    std::iota(kept.begin(), kept.end(), first);
    first += static_cast<int>(kept.size());
    if (node_->output(i).empty() || !read(node_->output(i))) continue;
    define(node_->output(i), taken(x, at, kept, node_->output(i)));
  }
}

/// g groups of n channels become n groups of g.
value importer::shuffled(const value& x) {
  const int groups = x.dims[0], each = x.dims[1];
  std::vector<int> channels;
  for (int i = 0; i < each; ++i) {
    for (int g = 0; g < groups; ++g) channels.push_back(g * each + i);
  }
  value plane = x;
  plane.dims = {groups * each, x.dims[2], x.dims[3]};
  value v = select(plane, channels, node_->output(0));
  follow(v, x);
  v.dims = {each, groups, x.dims[2], x.dims[3]};
  return v;
}

void importer::gather() {
  const value x = activation(0, false, kViews);
  const int axis = plane_axis(x, integer("axis", 0));
  const std::size_t at = axis_of(x, integer("axis", 0));
  const auto given = weights(1);
  const bool one = !x.axes.empty() && given->dims.empty();  // and its dimension goes
  if (one && axis != 1) {
    pick(x, axis, given->values.at(0));
    return;
  }
  if (axis != 1 || (!one && given->dims.size() != 1)) {
    fail(format("picks along axis {} by {} dimensions of indices", axis, given->dims.size()),
         "pick channels, axis 1, by a list");
  }
  std::vector<int> kept;
  for (double v : given->values) {
    if (v < 0) v += x.dims[at];
    if (!(v >= 0 && v < x.dims[at])) damaged(format("index {} of {} channels", v, x.dims[at]));
    kept.push_back(static_cast<int>(v));
  }
  if (kept.empty()) damaged("picks nothing");
  value v = taken(x, at, kept, node_->output(0));
  if (one) drop(v, at);
  result(std::move(v));
}

/// One row or column of a view, such as the first token.
void importer::pick(const value& x, int axis, double index) {
  const ftensor in = tensor(x);
  const int size = axis == 2 ? in.h : in.w;
  if (index < 0) index += size;
  if (!(index >= 0 && index < size)) damaged(format("index {} of {}", index, size));
  const range_of one{static_cast<std::int64_t>(index), 1, 1};
  value v = seen_as(crop(as_planes(x), axis == 2 ? one : range_of{0, 1, in.h},
                         axis == 2 ? range_of{0, 1, in.w} : one, node_->output(0)),
                    x);
  drop(v, x.axes.find(axis == 2 ? 'y' : 'x'));
  result(std::move(v));
}

/// One axis of a Slice: elements first, first + step, ...
importer::range_of importer::sliced_axis(std::int64_t start, std::int64_t end, std::int64_t step,
                                         std::int64_t size) const {
  if (step < 1) fail(format("steps by {}", step), "step forwards");
  const auto clamped = [size](std::int64_t v) {
    return std::clamp<std::int64_t>(v < 0 ? v + size : v, 0, size);
  };
  range_of r;
  r.first = clamped(start);
  r.step = step;
  r.count = (clamped(end) - r.first + step - 1) / step;
  if (r.count < 1) fail(format("keeps nothing of {}", size), "leave it out");
  return r;
}

void importer::slice() {
  value x = activation(0, false, kViews);
  const auto list = [&](int i, const char* name) {
    std::vector<std::int64_t> out = integers(name);
    if (has(i)) {
      out.clear();
      for (const double v : weights(i)->values) {
        constexpr double kFar = 1e15;  // INT64_MAX stands for the end
        out.push_back(static_cast<std::int64_t>(std::clamp(v, -kFar, kFar)));
      }
    }
    return out;
  };
  const auto starts = list(1, "starts"), ends = list(2, "ends");
  auto at = list(3, "axes"), steps = list(4, "steps");
  if (at.empty()) {
    at.resize(starts.size());
    std::iota(at.begin(), at.end(), 0);
  }
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (starts.size() != ends.size() || at.size() != starts.size() || steps.size() != starts.size()) {
    damaged("starts, ends, axes and steps differ in number");
  }
  const ftensor in = tensor(x);
  range_of rows{0, 1, in.h}, columns{0, 1, in.w};
  std::vector<std::pair<std::size_t, std::vector<int>>> channels;  // kept, by dimension
  for (std::size_t i = 0; i < at.size(); ++i) {
    const auto dim = dim_of(x, at[i]);
    if (!dim && starts[i] == 0 && steps[i] == 1 &&
        ends[i] >= std::max<std::int64_t>(out_.batch, 1)) {
      continue;  // the whole batch
    }
    const int axis = plane_axis(x, at[i]);
    const range_of r = sliced_axis(starts[i], ends[i], steps[i], x.dims[*dim]);
    if (axis != 1) {
      (axis == 2 ? rows : columns) = r;
    } else if (r.count != x.dims[*dim]) {
      auto& kept = channels.emplace_back(*dim, std::vector<int>{}).second;
      for (std::int64_t k = 0; k < r.count; ++k) {
        kept.push_back(static_cast<int>(r.first + k * r.step));
      }
    }
  }
  const std::string& name = node_->output(0);
  if (rows.count != in.h || columns.count != in.w) {
    const value whole = x;
    x = crop(whole.axes.empty() ? whole : as_planes(whole), rows, columns,
             channels.empty() ? name : name + " cropped");
    if (!whole.axes.empty()) x = seen_as(x, whole);
  }
  for (const auto& [dim, kept] : channels) {
    x = taken(x, dim, kept, name);
  }
  result(std::move(x));
}

/// Rows and columns of every channel: a depthwise kernel of one tap.
value importer::crop(const value& x, const range_of& rows, const range_of& columns,
                     const std::string& name) {
  const ftensor in = tensor(x);
  // One of many columns: first every 64th one, then one of those.
  if (rows.count == in.h && columns.count == 1 && in.w > kMaxDepthwiseTaps) {
    constexpr std::int64_t kStep = kMaxDepthwiseTaps;
    const std::int64_t first = columns.first % kStep;
    const std::int64_t count = (in.w - first - 1) / kStep + 1;
    const value some = crop(x, rows, {first, kStep, count}, name + " and every 64th");
    return crop(some, rows, {columns.first / kStep, 1, 1}, name);
  }
  // The kernel is as wide as what the last window may reach, so that there are just `count` of
  // them.
  const int height = in.h - static_cast<int>(rows.step * (rows.count - 1));
  int width = in.w - static_cast<int>(columns.step * (columns.count - 1));
  // A window that ends at its tap does as well where steps leave room behind the last one.
  if (width > kMaxDepthwiseTaps) {
    width = static_cast<int>(std::max(columns.first + 1, in.w - columns.step * columns.count + 1));
  }
  if (std::int64_t{height} * width > kMaxDepthwiseTaps || rows.step > kMaxWindow ||
      columns.step > kMaxWindow) {
    fail(format("leaves out {} rows and {} columns", height - 1, width - 1),
         format("crop less at a time: (rows + 1) x (columns + 1) up to {}", kMaxDepthwiseTaps));
  }
  fconv op =
      one_tap(in.c, height, width, static_cast<int>(rows.first), static_cast<int>(columns.first));
  op.stride_y = static_cast<int>(rows.step);
  op.stride_x = static_cast<int>(columns.step);
  std::vector<int> dims{in.c, static_cast<int>(rows.count), static_cast<int>(columns.count)};
  dims.resize(x.dims.size());
  value v = emit_as(name, {x.tensor}, std::move(op), dims);
  v.type = x.type;
  follow(v, x);
  return v;
}

}  // namespace latchkey::model
