#include "compiler/compile.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <variant>

#include "compiler/plan.hpp"
#include "latchkey/error.hpp"

namespace latchkey::compiler {
namespace {

constexpr int num_passes = 6;
constexpr std::uint32_t descs_per_page = spec::page_bytes / spec::desc_bytes;

template <typename... F>
struct overloaded : F... {
  using F::operator()...;
};
template <typename... F>
overloaded(F...) -> overloaded<F...>;

std::uint8_t stored(std::uint8_t unsigned_byte) {
  return static_cast<std::uint8_t>(unsigned_byte ^ 0x80);
}

std::uint32_t u32(int v) { return static_cast<std::uint32_t>(v); }
std::size_t index(int v) { return static_cast<std::size_t>(v); }

[[noreturn]] void unsupported(const std::string& layer, const std::string& message) {
  throw error(errc::unsupported_model, "layer '" + layer + "': " + message);
}

[[noreturn]] void not_yet(const std::string& layer, const std::string& what) {
  unsupported(layer, what + " layers are not on the accelerator yet");
}

void put(std::uint8_t* out, std::uint32_t v) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(v >> (8 * i));
}

/// One step of the program: a node, or the input or output.
struct step {
  spec::descriptor desc;
  layer_report report;
  const model::qnode* node = nullptr;
};

class compilation {
 public:
  compilation(const model::qgraph& graph, const compile_options& options)
      : graph_(graph), options_(options) {}

  program run() {
    pass("check_graph");
    check_graph();
    pass("lower_nodes");
    lower_nodes();
    pass("plan_scratchpad");
    plan_scratchpad();
    pass("pack_parameters");
    pack_parameters();
    pass("emit_descriptors");
    emit_descriptors();
    pass("check_program");
    check(out_, "program '" + out_.name + "'");
    return std::move(out_);
  }

 private:
  void pass(std::string_view name) {
    ++pass_;
    if (options_.on_pass) options_.on_pass(name, pass_, num_passes);
  }

  const model::qtensor& tensor(int i) const { return graph_.tensors.at(index(i)); }

  void check_graph() {
    const target& t = options_.target;
    if (t.array_n != 16 && t.array_n != 32 && t.array_n != 64)
      throw error(errc::usage, "an array of " + std::to_string(t.array_n) +
                                   " rows and columns: builds have 16, 32 or 64");
    if (t.spad_words == 0 || t.spad_words > 1u << 26)
      throw error(errc::usage, "a scratchpad of " + std::to_string(t.spad_words) +
                                   " words: 1 to 67108864 are possible");
    if (options_.max_batch > 256)
      throw error(errc::usage, "a batch of " + std::to_string(options_.max_batch) +
                                   " images: 256 is the limit; 0 takes what fits");
    model::validate(graph_);
    // Input, Output and End beside the nodes.
    if (graph_.nodes.size() + 3 > spec::max_descs) {
      throw error(errc::unsupported_model, "model '" + graph_.name + "' has " +
                                               std::to_string(graph_.nodes.size()) +
                                               " layers after folding; the accelerator holds " +
                                               std::to_string(spec::max_descs - 3));
    }
    out_.name = graph_.name;
    out_.target = t;
  }

  io_tensor edge(const model::io_spec& io) const {
    const model::qtensor& t = tensor(io.tensor);
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
    e.layout = layouts_.at(index(io.tensor));
    e.scale = t.scale;
    e.zero_point = t.zero_point;
    return e;
  }

  void lower_nodes() {
    for (const model::qtensor& t : graph_.tensors) {
      try {
        layouts_.push_back(tensor_layout::of(u32(t.h), u32(t.w), u32(t.c)));
      } catch (const error& e) {
        throw error(e.code(), "tensor '" + t.name + "': " + e.what());
      }
    }
    out_.input = edge(graph_.input);
    out_.output = edge(graph_.output);

    step in;
    in.desc.op = static_cast<std::uint32_t>(spec::op::input);
    set_output(in, graph_.input.tensor);
    in.report.name = graph_.input.name;
    in.report.op = "input";
    steps_.push_back(in);
    for (const model::qnode& n : graph_.nodes) steps_.push_back(lower(n));
    step last;
    last.desc.op = static_cast<std::uint32_t>(spec::op::output);
    set_input(last, graph_.output.tensor);
    last.report.name = graph_.output.name;
    last.report.op = "output";
    last.report.shape = shape(graph_.output.tensor);
    steps_.push_back(last);
  }

  std::vector<std::int64_t> shape(int t) const { return {tensor(t).c, tensor(t).h, tensor(t).w}; }

  void set_input(step& s, int t) const {
    const tensor_layout& l = layouts_[index(t)];
    s.desc.in_stride = l.words;
    s.desc.in_h = l.h;
    s.desc.in_w = l.w;
    s.desc.in_cb = l.cb;
    s.desc.in_cp_log2 = l.cp_log2;
    s.desc.in_c_last = l.c_last;
  }

  void set_output(step& s, int t) const {
    const tensor_layout& l = layouts_[index(t)];
    s.desc.out_stride = l.words;
    s.desc.out_h = l.h;
    s.desc.out_w = l.w;
    s.desc.out_cb = l.cb;
    s.desc.out_cp_log2 = l.cp_log2;
    s.desc.out_c_last = l.c_last;
    s.desc.clamp_lo = 0x80;
    s.desc.clamp_hi = 0x7f;
    s.report.shape = shape(t);
    s.report.words = l.words;
  }

  template <typename Window>
  void set_window(step& s, const Window& w) const {
    const std::string& name = s.report.name;
    const auto fit = [&](int value, const char* what) {
      if (value < 0 || value > 255) {
        unsupported(name, std::string(what) + " of " + std::to_string(value) +
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

  step lower(const model::qnode& n) {
    step s;
    s.node = &n;
    s.report.name = n.name;
    set_input(s, n.inputs.at(0));
    set_output(s, n.output);
    std::visit(overloaded{[&](const model::qconv& c) { lower_conv(s, n, c); },
                          [&](const model::qmaxpool& p) {
                            s.desc.op = static_cast<std::uint32_t>(spec::op::max_pool);
                            s.report.op = "max_pool";
                            set_window(s, p);
                            s.desc.pad_value = 0x80;
                          },
                          [&](const model::qadd& a) {
                            s.desc.op = static_cast<std::uint32_t>(spec::op::add);
                            s.report.op = "add";
                            s.desc.in2_stride = layouts_[index(n.inputs.at(1))].words;
                            s.desc.add_mult_a = a.mult_a;
                            s.desc.add_mult_b = a.mult_b;
                            s.desc.add_offset = static_cast<std::uint32_t>(a.offset);
                            s.desc.add_shift = a.shift;
                            if (a.negate_b || a.broadcast_b)
                              not_yet(n.name, "difference or broadcast");
                            s.desc.clamp_lo = stored(a.clamp_lo);
                            s.desc.clamp_hi = stored(a.clamp_hi);
                          },
                          [&](const model::qdepthwise&) { not_yet(n.name, "depthwise"); },
                          [&](const model::qavgpool&) { not_yet(n.name, "average pool"); },
                          [&](const model::qmul&) { not_yet(n.name, "product"); },
                          [&](const model::qtable&) { not_yet(n.name, "table"); }},
               n.op);
    return s;
  }

  static bool covers_input(const model::qconv& c, const model::qtensor& in) {
    return c.kernel_h == in.h && c.kernel_w == in.w && c.pad_top == 0 && c.pad_left == 0 &&
           c.pad_bottom == 0 && c.pad_right == 0;
  }

  /// No padding channels between the real ones of neighbouring pixels.
  static bool is_dense(const tensor_layout& l) {
    return l.c_last == 1u << l.cp_log2 || (l.h == 1 && l.w == 1);
  }

  void lower_conv(step& s, const model::qnode& n, const model::qconv& c) {
    spec::descriptor& d = s.desc;
    d.op = static_cast<std::uint32_t>(spec::op::mat_mul);
    s.report.op = c.fully_connected ? "fc" : "conv";
    if (c.out_channels > static_cast<int>(spec::max_channels)) {
      unsupported(n.name, std::to_string(c.out_channels) +
                              " output channels; the accelerator has "
                              "parameters for " +
                              std::to_string(spec::max_channels));
    }
    if (covers_input(c, tensor(n.inputs[0])) && is_dense(layouts_[index(n.inputs[0])])) {
      // Fully connected over an image without padding channels: its bytes are the K axis already,
      // so read them as one pixel of whole words. The tiles are the same; the feed takes a word
      // per cycle instead of a tap, which for one channel is 64 times faster.
      const std::uint32_t bytes = u32(c.kernel_h * c.kernel_w * c.in_channels);
      d.in_h = d.in_w = 1;
      d.in_cb = (bytes + 63) / 64;
      d.in_cp_log2 = 6;
      d.in_c_last = bytes - 64 * (d.in_cb - 1);
      d.kernel_h = d.kernel_w = d.stride_y = d.stride_x = 1;
      d.taps = d.in_cb;
      if (d.in_cb > 0xffff) unsupported(n.name, "more than 65535 words of input");
    } else {
      set_window(s, c);
    }
    const std::uint32_t tpt = 64u >> d.in_cp_log2;
    const std::uint64_t k_tiles = (std::uint64_t{d.taps} + tpt - 1) / tpt;
    if (k_tiles > 0xffff) {
      unsupported(n.name, "its window of " + std::to_string(c.kernel_h) + "x" +
                              std::to_string(c.kernel_w) + "x" + std::to_string(c.in_channels) +
                              " needs " + std::to_string(k_tiles) + " tiles; 65535 are possible");
    }
    d.k_tiles = static_cast<std::uint32_t>(k_tiles);
    d.n_tiles = (u32(c.out_channels) + spec::tile_dim - 1) / spec::tile_dim;
    d.param_pages = (u32(c.out_channels) + spec::params_per_page - 1) / spec::params_per_page;
    d.region = static_cast<std::uint32_t>(steps_.size()) + 1;
    d.pad_value = stored(tensor(n.inputs[0]).zero_point);
    d.clamp_lo = stored(c.clamp_lo);
    d.clamp_hi = stored(c.clamp_hi);
    d.out_zero = stored(tensor(n.output).zero_point);
    s.report.pages = d.param_pages + d.n_tiles * d.k_tiles;
    s.report.weight_bytes = c.weights.size();
    s.report.macs = std::uint64_t{d.out_h} * d.out_w * c.weights.size();
  }

  void plan_scratchpad() {
    // A tensor lives from the step that writes it to the last one that reads it. Step i reads its
    // inputs while it writes its output, so both are alive in it.
    std::vector<lifetime> lives(graph_.tensors.size());
    for (std::size_t t = 0; t < lives.size(); ++t) lives[t].words = 0;
    const auto touch = [&](int t, std::size_t at) {
      lifetime& l = lives[index(t)];
      if (l.words == 0) l.first = at;
      l.words = layouts_[index(t)].words;
      l.last = at;
    };
    touch(graph_.input.tensor, 0);
    for (std::size_t i = 1; i + 1 < steps_.size(); ++i) {
      for (const int t : steps_[i].node->inputs) touch(t, i);
      touch(steps_[i].node->output, i);
    }
    touch(graph_.output.tensor, steps_.size() - 1);
    const placement plan = place(lives);

    const std::uint64_t there = options_.target.spad_words;
    if (plan.peak > there) {
      const step& s = steps_[plan.worst_step];
      unsupported(
          s.report.name,
          "the activations alive here, with the best placement found, need " +
              std::to_string(plan.peak) +
              " scratchpad words of 64 bytes for one image; the build has " +
              std::to_string(there) +
              ": use a build with a scratchpad of at least that size, or a model with a smaller "
              "input or fewer channels at this layer");
    }
    out_.peak_words = static_cast<std::uint32_t>(plan.peak);
    const auto most = static_cast<std::uint32_t>(std::min<std::uint64_t>(256, there / plan.peak));
    if (options_.max_batch > most) {
      throw error(errc::unsupported_model,
                  "model '" + graph_.name + "': " + std::to_string(options_.max_batch) +
                      " images need " + std::to_string(options_.max_batch * plan.peak) +
                      " scratchpad words of 64 bytes; the build has " + std::to_string(there) +
                      ", enough for a batch of " + std::to_string(most));
    }
    out_.max_batch = options_.max_batch != 0 ? options_.max_batch : most;

    // The plan is for one image; a batch scales every size alike, so it scales the plan.
    const auto base = [&](int t) {
      return static_cast<std::uint32_t>(plan.base[index(t)] * out_.max_batch);
    };
    steps_.front().desc.out_base = base(graph_.input.tensor);
    steps_.back().desc.in_base = base(graph_.output.tensor);
    for (std::size_t i = 1; i + 1 < steps_.size(); ++i) {
      const model::qnode& n = *steps_[i].node;
      steps_[i].desc.in_base = base(n.inputs[0]);
      if (n.inputs.size() > 1) steps_[i].desc.in2_base = base(n.inputs[1]);
      steps_[i].desc.out_base = base(n.output);
    }
  }

  void pack_parameters() {
    // Descriptor pages first; they are filled once the page numbers are known.
    const auto descs = static_cast<std::uint32_t>(steps_.size()) + 1;
    std::uint64_t pages = (descs + descs_per_page - 1) / descs_per_page;
    for (step& s : steps_) {
      if (s.report.pages == 0) continue;
      s.desc.page_base = static_cast<std::uint32_t>(pages);
      pages += s.report.pages;
      // The card's addresses are 64 bit, page numbers 32; files end long before.
      if (pages * spec::page_bytes > io::max_file_bytes)
        unsupported(s.report.name, "the model's pages exceed 8 GiB here");
    }
    out_.pages.assign(pages * spec::page_bytes, 0);
    for (const step& s : steps_)
      if (s.report.pages != 0) pack_layer(s, std::get<model::qconv>(s.node->op));
  }

  void pack_layer(const step& s, const model::qconv& c) {
    const spec::descriptor& d = s.desc;
    std::uint8_t* const region = &out_.pages[std::size_t{d.page_base} * spec::page_bytes];
    const int zx = tensor(s.node->inputs[0]).zero_point;
    const std::size_t k_size = c.weights.size() / index(c.out_channels);

    for (int o = 0; o < c.out_channels; ++o) {
      // The array sees x' = x - 128, so sum x*w - zx*sum w = sum x'*w + (128 - zx)*sum w.
      std::int64_t sum = 0;
      for (std::size_t k = 0; k < k_size; ++k) sum += c.weights[index(o) * k_size + k];
      const std::int64_t bias = c.bias[index(o)] + (128 - zx) * sum;
      if (bias < std::numeric_limits<std::int32_t>::min() ||
          bias > std::numeric_limits<std::int32_t>::max()) {
        unsupported(s.report.name, "the bias of channel " + std::to_string(o) +
                                       " overflows 32 bits once the zero point is folded in");
      }
      std::uint8_t* p = region + index(o) * spec::param_bytes;
      put(p, static_cast<std::uint32_t>(static_cast<std::int32_t>(bias)));
      put(p + 4, c.scale[index(o)].multiplier);
      p[8] = c.scale[index(o)].shift;
    }

    const std::uint32_t n = options_.target.array_n;
    const std::uint32_t per_side = spec::tile_dim / n;
    const tensor_layout& in = layouts_[index(s.node->inputs[0])];
    std::uint8_t* const tiles = region + std::size_t{d.param_pages} * spec::page_bytes;
    std::size_t w = 0;
    for (std::uint32_t o = 0; o < u32(c.out_channels); ++o) {
      const std::uint32_t oc = o % spec::tile_dim;
      for (std::uint32_t i = 0; i < u32(c.in_channels); ++i) {
        for (std::uint32_t ky = 0; ky < u32(c.kernel_h); ++ky) {
          for (std::uint32_t kx = 0; kx < u32(c.kernel_w); ++kx, ++w) {
            // The K axis: taps of one channel block each, in the order of the scratchpad.
            const std::size_t tap =
                (std::size_t{ky} * u32(c.kernel_w) + kx) * in.cb + (i >> in.cp_log2);
            const std::size_t axis = (tap << in.cp_log2) + (i & ((1u << in.cp_log2) - 1));
            const std::size_t tile = std::size_t{o / spec::tile_dim} * d.k_tiles + axis / 64;
            const auto k = static_cast<std::uint32_t>(axis % 64);
            const std::uint32_t subtile = (k / n) * per_side + oc / n;
            tiles[tile * spec::page_bytes + subtile * n * n + (k % n) * n + oc % n] =
                static_cast<std::uint8_t>(c.weights[w]);
          }
        }
      }
    }
  }

  void emit_descriptors() {
    spec::descriptor end;
    end.op = static_cast<std::uint32_t>(spec::op::end);
    for (const step& s : steps_) {
      out_.descriptors.push_back(s.desc);
      out_.layers.push_back(s.report);
    }
    out_.descriptors.push_back(end);
    for (std::size_t i = 0; i < out_.descriptors.size(); ++i) {
      const auto words = out_.descriptors[i].pack();
      for (std::size_t k = 0; k < words.size(); ++k)
        put(&out_.pages[i * spec::desc_bytes + 4 * k], words[k]);
    }
    out_.regions = regions_of(out_.descriptors);
  }

  const model::qgraph& graph_;
  const compile_options& options_;
  int pass_ = 0;
  std::vector<tensor_layout> layouts_;  // by tensor
  std::vector<step> steps_;             // Input, nodes, Output
  program out_;
};

}  // namespace

program compile(const model::qgraph& graph, const compile_options& options) {
  return compilation(graph, options).run();
}

std::uint64_t pages_fetched(const program& p, std::uint32_t batch) {
  std::uint64_t pages = p.regions.at(0).count;
  for (const spec::descriptor& d : p.descriptors) {
    if (d.op != static_cast<std::uint32_t>(spec::op::mat_mul)) continue;
    const std::uint64_t rows = std::uint64_t{batch} * d.out_h * d.out_w;
    const std::uint64_t blocks = (rows + spec::acc_rows - 1) / spec::acc_rows;
    pages += d.param_pages + blocks * d.n_tiles * d.k_tiles;
  }
  return pages;
}

}  // namespace latchkey::compiler
