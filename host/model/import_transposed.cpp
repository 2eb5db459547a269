// Transposed convolutions. Where the kernel is no larger than its strides, every pixel of the input
// makes pixels of its own, which the array does (qconv). Any other becomes two layers: the input's
// pixels apart, with zeros between them, and a convolution with the kernel turned round.
#include <algorithm>
#include <bit>
#include <utility>

#include "model/importer.hpp"

namespace latchkey::model {
importer::scatter importer::read_scatter(const value& x, const constant& w) const {
  if (w.dims.size() != 4 || w.values.empty()) {
    fail(format("weights of shape {} are not two-dimensional kernels", list_text(w.dims)),
         "use ConvTranspose with weights I x O x H x W");
  }
  const given_window given = read_window(x, {w.dims[2], w.dims[3]}, false);
  auto more = integers("output_padding");
  auto shape = integers("output_shape");
  if (more.empty()) more = {0, 0};
  if (shape.size() == 4) shape.erase(shape.begin(), shape.begin() + 2);
  if (more.size() != 2 || (!shape.empty() && shape.size() != 2)) {
    damaged(format("output_padding {} or output_shape {} is not of two dimensions", list_text(more),
                   list_text(shape)));
  }
  scatter s;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::int64_t size = x.dims[i + 1], stride = given.strides[i], taps = w.dims[i + 2];
    if (more[i] < 0 || more[i] > kMaxDim) {
      damaged(format("output_padding {} is outside its range", list_text(more)));
    }
    const std::int64_t whole = stride * (size - 1) + given.kernel[i] + more[i];
    const bool valid = given.auto_pad == "VALID";
    std::int64_t before = valid ? 0 : given.pads[i];
    std::int64_t out = whole - before - (valid ? 0 : given.pads[i + 2]);
    if (given.auto_pad.rfind("SAME", 0) == 0 || !shape.empty()) {
      out = shape.empty() ? size * stride : shape[i];
      const std::int64_t total = std::max<std::int64_t>(whole - out, 0);
      before = given.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
    }
    if (out < 1 || out > kMaxDim || stride > kMaxWindow) {
      fail(format("steps of {} make {} rows or columns of {}", stride, out, size),
           format("use strides up to {} and an output of 1 to {}", kMaxWindow, kMaxDim));
    }
    s.axes[i].size = static_cast<int>(size);
    s.axes[i].kernel = static_cast<int>(given.kernel[i]);
    s.axes[i].dilation = taps > 1 ? static_cast<int>((given.kernel[i] - 1) / (taps - 1)) : 1;
    s.axes[i].stride = static_cast<int>(stride);
    s.axes[i].before = static_cast<int>(before);
    s.axes[i].out = static_cast<int>(out);
  }
  const std::int64_t group = integer("group", 1);
  if (group < 1 || x.dims[0] % group != 0 || w.dims[0] != x.dims[0]) {
    damaged(format("weights {} do not fit {} input channels in {} groups", list_text(w.dims),
                   x.dims[0], group));
  }
  if (w.dims[1] > kMaxDim / group) fail("has too many output channels", "split the layer");
  s.groups = static_cast<int>(group);
  s.ins = x.dims[0];
  s.outs = static_cast<int>(w.dims[1] * group);
  return s;
}

fconv importer::scatter_layer(scatter& s) const {
  const scatter_axis &rows = s.axes[0], &columns = s.axes[1];
  fconv op;
  op.transposed = s.moves() && rows.own() && columns.own();
  int* const kernels[] = {&op.kernel_h, &op.kernel_w};
  int* const before[] = {&op.pad_top, &op.pad_left};
  int* const behind[] = {&op.pad_bottom, &op.pad_right};
  for (std::size_t i = 0; i < 2; ++i) {
    scatter_axis& a = s.axes[i];
    a.step = op.transposed ? a.dilation : -a.dilation;
    *kernels[i] = a.stride;
    if (op.transposed) continue;
    // What would be cut off at an end meets taps of zero there instead.
    const int lead = a.kernel - 1 - a.before;
    const int trail = a.out - a.size * a.stride + a.before;
    *kernels[i] = std::max(-lead, 0) + a.kernel + std::max(-trail, 0);
    *before[i] = std::max(lead, 0);
    *behind[i] = std::max(trail, 0);
    a.first = std::max(-lead, 0) + a.kernel - 1;
    if (*kernels[i] > kMaxWindow) {
      fail(format("becomes a convolution with a window of {} pixels", *kernels[i]),
           format("use kernels of up to {} pixels, less the rows or columns that pads cut off",
                  kMaxWindow));
    }
  }
  if (op.transposed) {
    op.stride_y = rows.stride;
    op.stride_x = columns.stride;
  }
  op.depthwise = !op.transposed && s.groups > 1 && s.groups == s.ins && s.outs == s.ins &&
                 op.kernel_h * op.kernel_w <= kMaxDepthwiseTaps;

  // The array writes every so many rows of a tensor: all rows have to be whole words of 64 bytes,
  // and the pixels that it makes of one a block of channels. Whole blocks are, whatever the width.
  const auto reads = [&](int channels) {
    return rows.stride == 1 || rows.size == 1 ||
           pixel_bytes(channels) * columns.size % kBlockChannels == 0;
  };
  const auto writes = [&](int channels) {
    const int bytes = pixel_bytes(channels) * columns.stride;
    return (rows.stride == 1 || bytes * columns.size % kBlockChannels == 0) &&
           (bytes % kBlockChannels == 0 ||
            std::has_single_bit(static_cast<unsigned>(columns.stride)));
  };
  const bool wide_in = s.moves() && (!reads(s.ins) || (!op.transposed && !writes(s.ins)));
  const bool wide_out = op.transposed ? !writes(s.outs) : op.depthwise && wide_in;
  op.in_channels = wide_in ? kBlockChannels : s.ins;
  op.out_channels = wide_out ? kBlockChannels : s.outs;
  if (std::int64_t{op.kernel_h} * op.kernel_w * op.in_channels > kMaxElements / op.out_channels) {
    fail(format("its dense form has more than {} weights", kMaxElements),
         "use fewer channels or smaller dilations");
  }
  return op;
}

/// Values in the order of the file, I x O/group x H x W.
template <typename T>
std::vector<T> importer::scatter_kernels(const scatter& s, const fconv& op, const constant& w,
                                         const std::vector<T>& values) {
  const auto& [rows, columns] = s.axes;
  const int ins = op.depthwise ? 1 : op.in_channels;
  std::vector<T> out(static_cast<std::size_t>(op.out_channels) * static_cast<std::size_t>(ins) *
                     static_cast<std::size_t>(op.kernel_h * op.kernel_w));
  const int per_group = s.outs / s.groups;
  std::size_t at = 0;
  for (int i = 0; i < s.ins; ++i) {
    for (int j = 0; j < per_group; ++j) {
      const int o = i / (s.ins / s.groups) * per_group + j;
      const int kernel = o * ins + (op.depthwise ? 0 : i);
      for (int ky = 0; ky < w.dims[2]; ++ky) {
        const int row = kernel * op.kernel_h + rows.first + ky * rows.step;
        for (int kx = 0; kx < w.dims[3]; ++kx) {
          const int column = columns.first + kx * columns.step;
          out[static_cast<std::size_t>(row * op.kernel_w + column)] = values[at++];
        }
      }
    }
  }
  return out;
}

value importer::set_apart(const value& x, const scatter& s) {
  const auto& [rows, columns] = s.axes;
  fconv op;
  op.transposed = true;
  op.out_channels = op.in_channels = x.dims[0];
  op.kernel_h = op.stride_y = rows.stride;
  op.kernel_w = op.stride_x = columns.stride;
  const auto channels = static_cast<std::size_t>(x.dims[0]);
  const auto taps = static_cast<std::size_t>(rows.stride * columns.stride);
  if (channels * channels > static_cast<std::size_t>(kMaxElements) / taps) {
    fail(format("steps of {} x {} over {} channels", rows.stride, columns.stride, channels),
         "use fewer channels or smaller strides");
  }
  op.weights.assign(channels * channels * taps, 0.0F);
  for (std::size_t i = 0; i < channels; ++i) op.weights[i * (channels + 1) * taps] = 1.0F;
  op.bias.assign(channels, 0.0F);
  const std::vector<int> dims{x.dims[0], rows.size * rows.stride, columns.size * columns.stride};
  check_size(dims);
  const value v = emit_as(node_->output(0) + " apart", {x.tensor}, std::move(op), dims);
  follow(v, x);
  return v;
}

void importer::conv_transpose() {
  value x = activation(0);
  const auto w = weights(1);
  scatter s = read_scatter(x, *w);
  fconv op = scatter_layer(s);
  const std::vector<int> dims{op.out_channels, s.axes[0].out, s.axes[1].out};
  check_size(dims);
  if (s.groups > 1 && !op.depthwise) {
    out_.remarks.push_back(
        format("{}: {} groups became a dense convolution with zero weights", where(), s.groups));
  }
  op.weights = scatter_kernels(s, op, *w, finite(w->values, "the weights"));
  const auto outs = static_cast<std::size_t>(s.outs);
  op.bias = has(2) ? finite(weights(2)->values, "the bias") : std::vector<float>(outs);
  if (op.bias.size() != outs) damaged(format("{} biases for {} channels", op.bias.size(), outs));
  op.bias.resize(static_cast<std::size_t>(op.out_channels));
  // The file's scales are those of a group's output channels.
  const std::size_t scales = w->q ? w->q->scale.size() : 0;
  if (scales == 1 || (scales == outs / static_cast<std::size_t>(s.groups) && w->q->axis == 1)) {
    integer_weights q;
    q.values = scatter_kernels(s, op, *w, w->q->integers);
    for (std::size_t o = 0; o < op.bias.size(); ++o) q.scale.push_back(w->q->scale[o % scales]);
    op.integers = std::move(q);
  }

  const std::string& name = node_->output(0);
  if (s.moves() && op.in_channels != s.ins) {
    const value wide = select(x, first_channels(s.ins, op.in_channels), name + " widened");
    follow(wide, x);
    x = wide;
  }
  if (s.moves() && !op.transposed) x = set_apart(x, s);
  if (op.out_channels == s.outs) {
    result(emit({x.tensor}, std::move(op), dims));
    return;
  }
  const value made = emit_as(name + " wide", {x.tensor}, std::move(op), dims);
  const value kept = select(made, first_channels(s.outs, s.outs), name);
  out_.follows.emplace_back(made.tensor, kept.tensor);
  result(kept);
}

}  // namespace latchkey::model
