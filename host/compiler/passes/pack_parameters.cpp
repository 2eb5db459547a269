// One `pack` per operation of the graph: its pages, from its region's first page on. The step's
// report says how many there are (lower_nodes).
#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <variant>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

constexpr std::uint32_t descs_per_page = spec::page_bytes / spec::desc_bytes;

std::uint32_t u32(int v) { return static_cast<std::uint32_t>(v); }

/// Channel `c` of a parameter page.
void put_channel(std::uint8_t* params, std::size_t c, std::int32_t bias,
                 const model::requant& scale) {
  std::uint8_t* const p = params + c * spec::param_bytes;
  put_u32_at(p, static_cast<std::uint32_t>(bias));
  put_u32_at(p + 4, scale.multiplier);
  p[8] = scale.shift;
}

/// Parameters of each output channel. The array sees x' = x - 128, so
/// sum x*w - zx*sum w = sum x'*w + (128 - zx)*sum w, and the last term goes to the bias.
/// `weights`: one channel's after another's.
void pack_channels(const step& s, int zero_point, std::span<const std::int8_t> weights,
                   std::span<const std::int32_t> bias, std::span<const model::requant> scale,
                   std::uint8_t* params) {
  const std::size_t per_channel = weights.size() / bias.size();
  for (std::size_t o = 0; o < bias.size(); ++o) {
    std::int64_t sum = 0;
    for (const std::int8_t w : weights.subspan(o * per_channel, per_channel)) sum += w;
    const std::int64_t folded = bias[o] + (128 - zero_point) * sum;
    if (folded < std::numeric_limits<std::int32_t>::min() ||
        folded > std::numeric_limits<std::int32_t>::max()) {
      unsupported(s.report.name, "the bias of channel " + std::to_string(o) +
                                     " overflows 32 bits once the zero point is folded in");
    }
    for (std::uint32_t p = 0; p < s.fold; ++p) {
      put_channel(params, column_of(s, static_cast<std::uint32_t>(o), p),
                  static_cast<std::int32_t>(folded), scale[o]);
    }
  }
}

/// What a step of a transposed convolution does, as a 1x1 convolution: its channels are those of
/// stride_x neighbouring pixels of a row, with zeros for the padding between them.
model::qconv row_of(const step& s, const model::qconv& c) {
  const auto ins = static_cast<std::size_t>(c.in_channels);
  const auto rows = static_cast<std::size_t>(c.stride_y);
  const auto columns = static_cast<std::size_t>(c.stride_x);
  const std::size_t row = s.out_offset * rows / s.desc.out_stride;
  const std::size_t pixel = (s.desc.out_cb << s.desc.out_cp_log2) / s.fold / columns;
  model::qconv out;
  out.in_channels = c.in_channels;
  out.out_channels = static_cast<int>((columns - 1) * pixel) + c.out_channels;
  out.bias.resize(static_cast<std::size_t>(out.out_channels));
  out.scale.resize(out.bias.size());
  out.weights.resize(out.bias.size() * ins);
  for (std::size_t w = 0; w < c.weights.size(); ++w) {
    if (w / columns % rows != row) continue;
    const std::size_t o = w / columns / rows / ins, i = w / columns / rows % ins;
    const std::size_t channel = w % columns * pixel + o;
    out.weights[channel * ins + i] = c.weights[w];
    out.bias[channel] = c.bias[o];
    out.scale[channel] = c.scale[o];
  }
  return out;
}

/// The pages of a fused depthwise convolution stand between the parameters and the tiles.
void pack(const draft& d, const step& s, const model::qconv& c, std::uint8_t* region) {
  if (c.transposed) {
    pack(d, s, row_of(s, c), region);
    return;
  }
  const int input = s.inputs[0];
  pack_channels(s, d.tensor(input).zero_point, c.weights, c.bias, c.scale, region);

  const std::uint32_t n = d.options.target.array_n;
  const std::uint32_t per_side = spec::tile_dim / n;
  const tensor_layout& in = d.layout(input);
  const std::uint32_t between = s.desc.fuse_dw != 0 ? s.desc.param_pages + s.desc.n_tiles : 0;
  std::uint8_t* const tiles =
      region + (std::size_t{s.desc.param_pages} + between) * spec::page_bytes;
  // Of the `fold` pixels of a row each one's window lies a step behind the last one's.
  const std::uint32_t step_x = u32(c.stride_x);
  const std::uint32_t kernel_w = u32(c.kernel_w) + (s.fold - 1) * step_x;
  const auto put = [&](std::uint32_t column, std::size_t axis, std::int8_t weight) {
    const std::uint32_t oc = column % spec::tile_dim;
    const std::size_t tile =
        std::size_t{column / spec::tile_dim} * s.desc.k_tiles + axis / spec::tile_dim;
    const auto k = static_cast<std::uint32_t>(axis % spec::tile_dim);
    const std::uint32_t subtile = (k / n) * per_side + oc / n;
    tiles[tile * spec::page_bytes + subtile * n * n + (k % n) * n + oc % n] =
        static_cast<std::uint8_t>(weight);
  };
  std::size_t w = 0;
  for (std::uint32_t o = 0; o < u32(c.out_channels); ++o) {
    for (std::uint32_t i = 0; i < u32(c.in_channels); ++i) {
      for (std::uint32_t ky = 0; ky < u32(c.kernel_h); ++ky) {
        for (std::uint32_t kx = 0; kx < u32(c.kernel_w); ++kx, ++w) {
          // The K axis: taps of one channel block each, in the order of the scratchpad.
          for (std::uint32_t p = 0; p < s.fold; ++p) {
            const std::size_t tap =
                (std::size_t{ky} * kernel_w + kx + p * step_x) * in.cb + (i >> in.cp_log2);
            put(column_of(s, o, p), (tap << in.cp_log2) + (i & ((1u << in.cp_log2) - 1)),
                c.weights[w]);
          }
        }
      }
    }
  }
}

/// The engine indexes the table with the byte that it finds in the scratchpad.
void pack(const draft&, const step&, const model::qtable& t, std::uint8_t* region) {
  for (std::size_t byte = 0; byte < t.entries.size(); ++byte)
    region[byte] = stored(t.entries[stored(static_cast<std::uint8_t>(byte))]);
}

/// One multiplier for all channels.
void pack(const draft&, const step& s, const model::qproduct& p, std::uint8_t* region) {
  const std::uint32_t channels = out_channels(s.desc);
  for (std::uint32_t c = 0; c < channels; ++c) {
    put_channel(region, c, 0, p.scale);
  }
}

/// Low bytes, then high bytes.
void pack(const draft&, const step&, const model::qsoftmax& n, std::uint8_t* region) {
  for (std::size_t i = 0; i < n.entries.size(); ++i) {
    region[i] = static_cast<std::uint8_t>(n.entries[i]);
    region[n.entries.size() + i] = static_cast<std::uint8_t>(n.entries[i] >> 8);
  }
}

/// Bit 23 of a multiplier is the sign.
void pack(const draft&, const step&, const model::qlayernorm& n, std::uint8_t* region) {
  for (std::size_t c = 0; c < n.scale.size(); ++c) {
    model::requant scale = n.scale[c];
    if (n.negative[c]) scale.multiplier |= 1u << 23;
    put_channel(region, c, n.bias[c], scale);
  }
}

// One page per channel block, a tap's channels per beat: w is [channel][tap]. It is the step's last
// node; the one before it, if any, makes its input.
void pack(const draft& d, const step& s, const model::qdepthwise& c, std::uint8_t* region) {
  const int input = s.nodes.back()->inputs[0];
  pack_channels(s, d.tensor(input).zero_point, c.weights, c.bias, c.scale, region);

  std::uint8_t* const blocks = region + std::size_t{s.desc.param_pages} * spec::page_bytes;
  const std::size_t taps = c.weights.size() / c.bias.size();
  for (std::size_t w = 0; w < c.weights.size(); ++w) {
    for (std::uint32_t p = 0; p < s.fold; ++p) {
      const std::uint32_t column = column_of(s, static_cast<std::uint32_t>(w / taps), p);
      blocks[column / spec::tile_dim * spec::page_bytes + w % taps * spec::beat_bytes +
             column % spec::tile_dim] = static_cast<std::uint8_t>(c.weights[w]);
    }
  }
}

void pack(const draft& d, const step& s, const model::qconstant& c, std::uint8_t* region) {
  const io::bytes image = d.layout(s.output).pack(c.values);
  std::copy(image.begin(), image.end(), region);
}

// Operations without pages.
template <typename Op>
void pack(const draft&, const step&, const Op&, std::uint8_t*) {}

}  // namespace

void pack_parameters(draft& d) {
  // Descriptor pages first; emit_descriptors fills them. End is a descriptor too.
  std::uint64_t pages = (d.steps.size() + 1 + descs_per_page - 1) / descs_per_page;
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    step& s = d.steps[i];
    if (s.report.pages == 0) continue;
    s.desc.page_base = static_cast<std::uint32_t>(pages);
    s.desc.region = static_cast<std::uint32_t>(i) + 1;
    pages += s.report.pages;
    // The card's addresses are 64 bit, page numbers 32; files end long before.
    if (pages * spec::page_bytes > io::max_file_bytes)
      unsupported(s.report.name, "the model's pages exceed 8 GiB here");
  }
  d.out.pages.assign(pages * spec::page_bytes, 0);
  for (const step& s : d.steps) {
    if (s.report.pages == 0) continue;
    std::uint8_t* const region = &d.out.pages[std::size_t{s.desc.page_base} * spec::page_bytes];
    // A fused table's page comes first.
    const std::size_t table = std::size_t{s.desc.fuse_table} * spec::page_bytes;
    std::visit([&](const auto& op) { pack(d, s, op, region + table); }, s.nodes[0]->op);
    if (table != 0) pack(d, s, std::get<model::qtable>(s.nodes.back()->op), region);
    if (s.desc.fuse_dw != 0) {
      pack(d, s, std::get<model::qdepthwise>(s.nodes.back()->op),
           region + std::size_t{s.desc.param_pages} * spec::page_bytes);
    }
  }
}

}  // namespace latchkey::compiler::passes
