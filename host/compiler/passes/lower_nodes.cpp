// One `lower` per operation of the graph: the operation's own fields of the descriptor and the
// report. What every operation has in common, input and output tensor, stands already.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <variant>

#include "compiler/passes/passes.hpp"
#include "latchkey/error.hpp"

namespace latchkey::compiler::passes {
namespace {

std::uint32_t u32(int v) { return static_cast<std::uint32_t>(v); }

void set_op(step& s, spec::op op, std::string name) {
  s.desc.op = static_cast<std::uint32_t>(op);
  s.report.op = std::move(name);
}

void set_input(const draft& d, step& s, int t) {
  const tensor_layout& l = d.layout(t);
  s.inputs.push_back(d.place(t));
  s.desc.in_stride = l.words;
  s.desc.in_h = l.h;
  s.desc.in_w = l.w;
  s.desc.in_cb = l.cb;
  s.desc.in_cp_log2 = l.cp_log2;
  s.desc.in_c_last = l.c_last;
}

/// Of a constant every image sees the same words.
void set_second_input(const draft& d, step& s, int t) {
  s.inputs.push_back(d.place(t));
  const std::size_t writer = writer_of(d, d.place(t));
  const bool constant = writer != nowhere && is(d.steps[writer], spec::op::load);
  s.desc.in2_stride = constant ? 0 : d.layout(t).words;
}

std::vector<std::int64_t> shape(const draft& d, int t) {
  return {d.tensor(t).c, d.tensor(t).h, d.tensor(t).w};
}

void set_output(const draft& d, step& s, int t) {
  const tensor_layout& l = d.layout(t);
  s.output = t;
  s.desc.out_stride = l.words;
  s.desc.out_h = l.h;
  s.desc.out_w = l.w;
  s.desc.out_cb = l.cb;
  s.desc.out_cp_log2 = l.cp_log2;
  s.desc.out_c_last = l.c_last;
  s.desc.clamp_lo = 0x80;
  s.desc.clamp_hi = 0x7f;
  s.report.shape = shape(d, t);
  s.report.words = l.words;
}

void set_clamp(step& s, std::uint8_t lo, std::uint8_t hi) {
  s.desc.clamp_lo = stored(lo);
  s.desc.clamp_hi = stored(hi);
}

template <typename Window>
void set_window(step& s, const Window& w) {
  const auto fit = [&](int value, const char* what) {
    if (value < 0 || value > 255) {
      unsupported(s.report.name, std::string(what) + " of " + std::to_string(value) +
                                     " does not fit the accelerator's 8-bit field (0..255)");
    }
    return u32(value);
  };
  s.desc.kernel_h = fit(w.kernel_h, "a window height");
  s.desc.kernel_w = fit(w.kernel_w, "a window width");
  s.desc.stride_y = fit(w.stride_y, "a vertical step");
  s.desc.stride_x = fit(w.stride_x, "a horizontal step");
  s.desc.pad_top = fit(w.pad_top, "top padding");
  s.desc.pad_left = fit(w.pad_left, "left padding");
  s.desc.taps = s.desc.kernel_h * s.desc.kernel_w * s.desc.in_cb;
}

// --- Convolution and fully connected layer -------------------------------------------------------

/// Bytes of a fully connected layer's input.
std::size_t depth(const model::qconv& c) {
  return c.weights.size() / static_cast<std::size_t>(c.out_channels);
}

bool covers_input(const model::qconv& c, const model::qtensor& in) {
  return c.kernel_h == in.h && c.kernel_w == in.w && c.pad_top == 0 && c.pad_left == 0 &&
         c.pad_bottom == 0 && c.pad_right == 0;
}

/// No padding channels between the real ones of neighbouring pixels.
bool is_dense(const tensor_layout& l) {
  return l.c_last == 1u << l.cp_log2 || (l.h == 1 && l.w == 1);
}

/// Fully connected over an image without padding channels: its bytes are the K axis already, so
/// read them as one pixel of whole words. The tiles are the same; the feed takes a word per cycle
/// instead of a tap, which for one channel is 64 times faster.
void read_as_one_pixel(step& s, const model::qconv& c) {
  spec::descriptor& desc = s.desc;
  const auto bytes = static_cast<std::uint32_t>(depth(c));
  desc.in_h = desc.in_w = 1;
  desc.in_cb = (bytes + 63) / 64;
  desc.in_cp_log2 = 6;
  desc.in_c_last = bytes - 64 * (desc.in_cb - 1);
  desc.kernel_h = desc.kernel_w = desc.stride_y = desc.stride_x = 1;
  desc.taps = desc.in_cb;
}

/// The first row of a transposed convolution's output, and every stride_y-th behind it: of each
/// pixel of the input stride_x pixels side by side, as the output's own layout has them.
void set_transposed(const draft& d, step& s, const model::qconv& c) {
  spec::descriptor& desc = s.desc;
  const tensor_layout& in = d.layout(s.nodes[0]->inputs[0]);
  const tensor_layout& out = d.layout(s.output);
  const auto pixel = [](const tensor_layout& l) { return std::uint64_t{l.cb} << l.cp_log2; };
  const auto whole = [](std::uint64_t bytes) { return bytes % spec::beat_bytes == 0; };
  const std::uint64_t bytes = u32(c.stride_x) * pixel(out);
  if (bytes > spec::max_channels || (!whole(bytes) && !std::has_single_bit(bytes))) {
    unsupported(s.report.name, std::to_string(c.stride_x) + " pixels of " + std::to_string(out.c) +
                                   " channels side by side make " + std::to_string(bytes) +
                                   " bytes, which must be a power of two or a multiple of 64, up "
                                   "to 4,096; pad the channels with zeros or split them");
  }
  desc.out_cp_log2 = std::min(static_cast<std::uint32_t>(std::countr_zero(bytes)), 6u);
  desc.out_cb = static_cast<std::uint32_t>(bytes >> desc.out_cp_log2);
  desc.out_c_last = (1u << desc.out_cp_log2) - (1u << out.cp_log2) + out.c_last;
  desc.out_w = in.w;
  desc.out_h = in.h;
  desc.kernel_h = desc.kernel_w = desc.stride_y = desc.stride_x = 1;
  desc.taps = desc.in_cb;
  if (c.stride_y == 1) return;
  if ((in.h > 1 && !whole(in.w * pixel(in))) || !whole(in.w * bytes)) {
    unsupported(s.report.name, "rows of " + std::to_string(in.w) + " pixels by " +
                                   std::to_string(in.c) +
                                   " channels, or those made of them, do not fill whole words of "
                                   "64 bytes; pad the channels with zeros to 33 and more");
  }
  if (in.h > 0xff) {
    unsupported(s.report.name, std::to_string(in.h) +
                                   " rows are made several of each; 255 are possible: work on "
                                   "parts of the image");
  }
  desc.slices = in.h;
  desc.in_h = desc.out_h = 1;
  desc.in_stride = in.words / in.h;
  desc.out_stride = out.words / in.h;
}

void lower(const draft& d, step& s, const model::qconv& c) {
  spec::descriptor& desc = s.desc;
  set_op(s, spec::op::mat_mul, c.fully_connected ? "fc" : c.transposed ? "transposed" : "conv");
  if (c.out_channels > static_cast<int>(spec::max_channels)) {
    unsupported(s.report.name, std::to_string(c.out_channels) +
                                   " output channels; the accelerator has "
                                   "parameters for " +
                                   std::to_string(spec::max_channels));
  }
  const int in = s.nodes[0]->inputs[0];
  // A pixel has at most max_channels; beyond that the window is walked tap by tap.
  const bool one_pixel =
      covers_input(c, d.tensor(in)) && is_dense(d.layout(in)) && depth(c) <= spec::max_channels;
  if (c.transposed) {
    set_transposed(d, s, c);
  } else if (one_pixel) {
    read_as_one_pixel(s, c);
  } else {
    set_window(s, c);
  }
  const std::uint32_t taps_per_tile = spec::tile_dim >> desc.in_cp_log2;
  const std::uint64_t k_tiles = (std::uint64_t{desc.taps} + taps_per_tile - 1) / taps_per_tile;
  if (k_tiles > 0xffff) {
    unsupported(s.report.name, "its window of " + std::to_string(c.kernel_h) + "x" +
                                   std::to_string(c.kernel_w) + "x" +
                                   std::to_string(c.in_channels) + " needs " +
                                   std::to_string(k_tiles) + " tiles; 65535 are possible");
  }
  desc.k_tiles = static_cast<std::uint32_t>(k_tiles);
  desc.n_tiles = (out_channels(desc) + spec::tile_dim - 1) / spec::tile_dim;
  desc.param_pages = param_pages_for(out_channels(desc));
  desc.pad_value = stored(d.tensor(in).zero_point);
  desc.out_zero = stored(d.tensor(s.output).zero_point);
  set_clamp(s, c.clamp_lo, c.clamp_hi);
  s.report.pages = desc.param_pages + desc.n_tiles * desc.k_tiles;
  s.report.weight_bytes = c.weights.size() / (c.transposed ? u32(c.stride_y) : 1);
  s.report.macs = swept_rows(desc) * s.report.weight_bytes;
}

// --- Depthwise convolution -----------------------------------------------------------------------

void lower(const draft& d, step& s, const model::qdepthwise& c) {
  spec::descriptor& desc = s.desc;
  set_op(s, spec::op::depthwise, "depthwise");
  set_window(s, c);
  if (c.channels > static_cast<int>(spec::max_channels)) {
    unsupported(s.report.name, std::to_string(c.channels) +
                                   " channels; the accelerator has parameters for " +
                                   std::to_string(spec::max_channels));
  }
  if (desc.kernel_h * desc.kernel_w > spec::page_beats) {
    unsupported(s.report.name, "a depthwise kernel of " + std::to_string(c.kernel_h) + "x" +
                                   std::to_string(c.kernel_w) + "; " +
                                   std::to_string(spec::page_beats) + " taps are possible");
  }
  // Otherwise some window would see nothing but padding.
  if (c.pad_top >= c.kernel_h || c.pad_left >= c.kernel_w || c.pad_bottom >= c.kernel_h ||
      c.pad_right >= c.kernel_w)
    unsupported(s.report.name, "padding as large as the depthwise kernel");
  desc.k_tiles = 1;
  desc.n_tiles = desc.out_cb;
  desc.param_pages = param_pages_for(u32(c.channels));
  desc.pad_value = stored(d.tensor(s.inputs[0]).zero_point);
  desc.out_zero = stored(d.tensor(s.output).zero_point);
  set_clamp(s, c.clamp_lo, c.clamp_hi);
  s.report.pages = desc.param_pages + desc.n_tiles;
  s.report.weight_bytes = c.weights.size();
  s.report.macs = std::uint64_t{desc.out_h} * desc.out_w * c.weights.size();
}

// --- Vector operations ---------------------------------------------------------------------------

void lower(const draft&, step& s, const model::qmaxpool& p) {
  const bool repeats = p.repeat_y > 1 || p.repeat_x > 1;
  set_op(s, spec::op::max_pool, repeats ? "upsample" : "max_pool");
  set_window(s, p);
  if (repeats) {
    s.desc.repeat_y = u32(p.repeat_y);
    s.desc.repeat_x = u32(p.repeat_x);
  }
  s.desc.pad_value = 0x80;
}

void lower(const draft& d, step& s, const model::qadd& a) {
  set_op(s, spec::op::add, a.negate_b ? "sub" : "add");
  set_second_input(d, s, s.nodes[0]->inputs.at(1));
  s.desc.in2_negate = a.negate_b;
  s.desc.in2_broadcast = a.broadcast_b;
  s.desc.add_mult_a = a.mult_a;
  s.desc.add_mult_b = a.mult_b;
  s.desc.add_offset = static_cast<std::uint32_t>(a.offset);
  s.desc.add_shift = a.shift;
  set_clamp(s, a.clamp_lo, a.clamp_hi);
}

/// What AvgPool and Mul requantise with; the inputs stand already.
void set_requantisation(const draft& d, step& s, const model::requant& scale) {
  s.desc.vec_mult = scale.multiplier;
  s.desc.vec_shift = scale.shift;
  s.desc.in_zero = stored(d.tensor(s.inputs[0]).zero_point);
  s.desc.out_zero = stored(d.tensor(s.output).zero_point);
}

void lower(const draft& d, step& s, const model::qavgpool& p) {
  set_op(s, spec::op::avg_pool, "avg_pool");
  set_window(s, p);
  set_requantisation(d, s, p.scale);
  set_clamp(s, p.clamp_lo, p.clamp_hi);
}

void lower(const draft& d, step& s, const model::qmul& m) {
  set_op(s, spec::op::mul, "mul");
  const int second = s.nodes[0]->inputs.at(1);
  set_second_input(d, s, second);
  s.desc.in2_zero = stored(d.tensor(second).zero_point);
  s.desc.in2_broadcast = m.broadcast;
  set_requantisation(d, s, m.scale);
  set_clamp(s, m.clamp_lo, m.clamp_hi);
}

void lower(const draft&, step& s, const model::qtable& t) {
  set_op(s, spec::op::table, "table");
  s.desc.param_pages = 1;
  s.report.pages = 1;
  s.report.weight_bytes = t.entries.size();
}

void lower(const draft& d, step& s, const model::qconstant& c) {
  set_op(s, spec::op::load, "load");
  const std::uint64_t pages = pages_for(d.layout(s.output).words);
  if (pages > 0xffff) {
    unsupported(s.report.name,
                "a constant of " + std::to_string(pages) + " pages; 65535 are possible");
  }
  s.desc.param_pages = static_cast<std::uint32_t>(pages);
  s.report.pages = s.desc.param_pages;
  s.report.weight_bytes = c.values.size();
}

/// It is no step: whoever reads it reads what it is of.
void lower(const draft&, step&, const model::qview&) {}

/// A step for each part: part_step.
void lower(const draft&, step&, const model::qjoin&) {}

// --- Attention and its neighbours ----------------------------------------------------------------

/// One head of one side of a product. Several heads lie one behind the other: `place_blocks`.
void set_head(std::uint32_t& stride, std::uint32_t& h, std::uint32_t& cb, std::uint32_t& c_last,
              std::uint32_t heads) {
  stride /= heads;
  if (h == heads) {  // scores: a head is a row of pixels
    h = 1;
  } else {  // tokens: a head is a run of channel blocks
    cb /= heads;
    c_last = spec::tile_dim;
  }
}

void lower(const draft& d, step& s, const model::qproduct& p) {
  spec::descriptor& desc = s.desc;
  set_op(s, spec::op::product, "product");
  const int second = s.nodes[0]->inputs.at(1);
  set_second_input(d, s, second);
  const auto heads = u32(p.heads);
  const int tokens = p.transposed ? s.inputs[0] : s.output;
  const int scores = p.transposed ? s.output : s.inputs[0];
  for (const int t : {tokens, second}) {
    if (d.layout(t).cp_log2 != 6) {
      unsupported(s.report.name, "tensor '" + d.tensor(t).name + "' has " +
                                     std::to_string(d.tensor(t).c) +
                                     " channels; a product takes 33 and more, pad them with zeros");
    }
  }
  if (heads > 0xff) {
    unsupported(s.report.name, std::to_string(heads) + " heads; 255 are possible");
  }
  const tensor_layout& l = d.layout(scores);
  if ((std::uint64_t{l.w} << l.cp_log2) * l.cb % spec::beat_bytes != 0 && heads > 1) {
    unsupported(s.report.name,
                std::to_string(l.w) + " tokens by " + std::to_string(l.c) +
                    " keys: a head's scores do not fill whole words of 64 bytes; pad the sequence "
                    "to an even number of tokens, or to 33 and more");
  }
  if (l.c > spec::max_channels) {
    unsupported(s.report.name, std::to_string(l.c) + " keys; " +
                                   std::to_string(spec::max_channels) + " are possible");
  }
  if (heads > 1) {  // a single one is the whole tensor
    set_head(desc.in_stride, desc.in_h, desc.in_cb, desc.in_c_last, heads);
    set_head(desc.out_stride, desc.out_h, desc.out_cb, desc.out_c_last, heads);
    desc.in2_stride /= heads;
  }
  desc.heads = heads;
  desc.in2_transposed = p.transposed;
  desc.kernel_h = desc.kernel_w = desc.stride_y = desc.stride_x = 1;
  desc.taps = desc.in_cb;
  const std::uint32_t taps_per_tile = spec::tile_dim >> desc.in_cp_log2;
  desc.k_tiles = (desc.taps + taps_per_tile - 1) / taps_per_tile;
  const std::uint32_t channels = out_channels(desc);
  desc.n_tiles = (channels + spec::tile_dim - 1) / spec::tile_dim;
  desc.param_pages = param_pages_for(channels);
  desc.out_zero = stored(d.tensor(s.output).zero_point);
  set_clamp(s, p.clamp_lo, p.clamp_hi);
  s.report.pages = desc.param_pages;
  s.report.macs = d.tensor(s.output).size() *
                  static_cast<std::uint64_t>(product_depth(p, d.tensor(s.inputs[0])));
}

void lower(const draft& d, step& s, const model::qsoftmax& n) {
  set_op(s, spec::op::softmax, "softmax");
  set_requantisation(d, s, n.scale);
  s.desc.param_pages = 1;
  s.report.pages = 1;
  s.report.weight_bytes = 2 * n.entries.size();
}

void lower(const draft& d, step& s, const model::qlayernorm& n) {
  set_op(s, spec::op::layer_norm, "layer_norm");
  s.desc.out_zero = stored(d.tensor(s.output).zero_point);
  s.desc.epsilon_lo = static_cast<std::uint32_t>(n.epsilon);
  s.desc.epsilon_hi = static_cast<std::uint32_t>(n.epsilon >> 32);
  const auto channels = static_cast<std::uint32_t>(n.scale.size());
  s.desc.param_pages = param_pages_for(channels);
  s.report.pages = s.desc.param_pages;
  s.report.weight_bytes = 2 * std::uint64_t{channels};
}

// --- The edges of the graph ----------------------------------------------------------------------

io_tensor edge(const draft& d, const model::io_spec& io) {
  const model::qtensor& t = d.tensor(io.tensor);
  io_tensor e;
  e.name = io.name;
  switch (io.type) {
    case model::io_type::f32:
      e.type = element::f32;
      break;
    case model::io_type::u8:
      e.type = element::u8;
      break;
    case model::io_type::i8:
      e.type = element::i8;
      break;
  }
  e.shape.assign(io.dims.begin(), io.dims.end());
  e.channels_last = io.channels_last;
  e.layout = d.layout(io.tensor);
  e.scale = t.scale;
  e.zero_point = t.zero_point;
  return e;
}

step input_step(const draft& d) {
  step s;
  set_op(s, spec::op::input, "input");
  s.report.name = d.graph.input.name;
  set_output(d, s, d.graph.input.tensor);
  return s;
}

step output_step(const draft& d) {
  step s;
  set_op(s, spec::op::output, "output");
  s.report.name = d.graph.output.name;
  set_input(d, s, d.graph.output.tensor);
  s.report.shape = shape(d, d.graph.output.tensor);
  return s;
}

void check_channels(const draft& d, const model::qnode& n, int t, const char* which) {
  if (d.tensor(t).c > static_cast<int>(spec::max_channels)) {
    unsupported(n.name, std::string("its ") + which + " has " + std::to_string(d.tensor(t).c) +
                            " channels; the accelerator takes " +
                            std::to_string(spec::max_channels));
  }
}

step node_step(const draft& d, const model::qnode& n) {
  step s;
  s.report.name = n.name;
  s.nodes.push_back(&n);
  for (const int t : n.inputs) check_channels(d, n, t, "input");
  if (!n.inputs.empty()) set_input(d, s, n.inputs[0]);
  set_output(d, s, n.output);
  std::visit([&](const auto& op) { lower(d, s, op); }, n.op);
  return s;
}

/// Copies part `part` of a join to its place in the whole: among the channel blocks of every pixel,
/// or behind the pixels of the parts before it.
step part_step(const draft& d, const model::qnode& n, std::size_t part) {
  const auto& join = std::get<model::qjoin>(n.op);
  check_channels(d, n, n.output, "output");
  const int from = n.inputs[part];
  const model::qtensor &in = d.tensor(from), &out = d.tensor(n.output);
  step s;
  s.report.name = n.name + " part " + std::to_string(part);
  s.nodes.push_back(&n);
  set_input(d, s, from);
  set_output(d, s, from);
  s.output = n.output;
  s.desc.out_stride = d.layout(n.output).words;
  const bool as_it_is = in.scale == out.scale && in.zero_point == out.zero_point &&
                        join.clamp_lo == 0 && join.clamp_hi == 255;
  if (as_it_is) {
    lower(d, s, model::qmaxpool{});
  } else {
    model::qavgpool requantised;
    requantised.scale = join.scale[part];
    requantised.clamp_lo = join.clamp_lo;
    requantised.clamp_hi = join.clamp_hi;
    lower(d, s, requantised);
  }
  if (!join.pixels) s.desc.out_pitch = d.layout(n.output).cb;
  for (std::size_t i = 0; i < part; ++i) {
    const tensor_layout& before = d.layout(n.inputs[i]);
    s.out_offset += join.pixels ? before.words : before.cb;
  }
  s.report.op = "join";
  return s;
}

/// The other rows of a transposed convolution's output, of which `first` makes a share.
void push_rows_behind(draft& d, const step& first, const model::qconv& c) {
  const tensor_layout& out = d.layout(first.output);
  for (int row = 1; row < c.stride_y; ++row) {
    step s = first;
    s.out_offset = u32(row) * (out.words / out.h);
    s.report.name += ", row " + std::to_string(row + 1) + " of " + std::to_string(c.stride_y);
    d.steps.push_back(std::move(s));
  }
}

}  // namespace

step spill_step(const draft& d, int t) {
  step s;
  set_op(s, spec::op::spill, "spill");
  s.report.name = d.tensor(t).name;
  set_input(d, s, t);
  s.report.shape = shape(d, t);
  return s;
}

step reload_step(const draft& d, int t) {
  step s;
  set_op(s, spec::op::load, "load");
  s.report.name = d.tensor(t).name;
  s.desc.spilled = 1;
  set_output(d, s, t);
  return s;
}

void lower_nodes(draft& d) {
  for (const model::qtensor& t : d.graph.tensors) {
    try {
      d.layouts.push_back(tensor_layout::of(u32(t.h), u32(t.w), u32(t.c)));
    } catch (const error& e) {
      throw error(e.code(), "tensor '" + t.name + "': " + e.what());
    }
  }
  d.places.resize(d.graph.tensors.size());
  std::iota(d.places.begin(), d.places.end(), 0);
  d.out.input = edge(d, d.graph.input);
  d.out.output = edge(d, d.graph.output);

  d.steps.push_back(input_step(d));
  for (const model::qnode& n : d.graph.nodes) {
    if (std::holds_alternative<model::qview>(n.op)) {
      d.places[static_cast<std::size_t>(n.output)] = d.place(n.inputs[0]);
    } else if (std::holds_alternative<model::qjoin>(n.op)) {
      for (std::size_t i = 0; i < n.inputs.size(); ++i) d.steps.push_back(part_step(d, n, i));
    } else {
      d.steps.push_back(node_step(d, n));
      const auto* conv = std::get_if<model::qconv>(&n.op);
      if (conv != nullptr && conv->transposed) push_rows_behind(d, step(d.steps.back()), *conv);
    }
  }
  d.steps.push_back(output_step(d));
}

}  // namespace latchkey::compiler::passes
