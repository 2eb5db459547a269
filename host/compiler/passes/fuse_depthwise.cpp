// Depthwise convolutions into the convolution that makes their input: its results go to the
// depthwise path and not to the scratchpad, so that neither the step nor the tensor between them
// remains.
#include <algorithm>
#include <cstddef>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

// lk_depthwise: what its line buffers hold.
constexpr std::uint32_t side = 5, line = 512;

bool is(const step& s, spec::op op) { return s.desc.op == static_cast<std::uint32_t>(op); }

/// The last windows of a channel block end in lines of the next one, and must not need the one
/// behind it: its weights wait for the first block's end.
bool fits_lines(const spec::descriptor& d) {
  return d.kernel_h <= d.in_h + d.pad_top && d.kernel_h <= side && d.kernel_w <= side &&
         d.in_w <= line && (d.out_w - 1) * d.stride_x + 1 <= line;
}

/// The convolution whose result is the input of `depthwise` and of nothing else; the end if none.
std::vector<step>::iterator maker_of(draft& d, const step& depthwise) {
  const int t = depthwise.inputs[0];
  std::ptrdiff_t readers = d.graph.output.tensor == t ? 1 : 0;
  for (const step& s : d.steps) readers += std::count(s.inputs.begin(), s.inputs.end(), t);
  if (readers != 1) return d.steps.end();
  return std::find_if(d.steps.begin(), d.steps.end(), [&](const step& s) {
    return s.output == t && is(s, spec::op::mat_mul) && s.desc.fuse_dw == 0;
  });
}

void merge(step& conv, const step& depthwise) {
  spec::descriptor& c = conv.desc;
  const spec::descriptor& d = depthwise.desc;
  c.fuse_dw = 1;
  c.mid_h = c.out_h;
  c.mid_w = c.out_w;
  c.mid_lo = c.clamp_lo;
  c.mid_hi = c.clamp_hi;
  c.mid_zero = c.out_zero;
  c.dw_kernel_h = d.kernel_h;
  c.dw_kernel_w = d.kernel_w;
  c.dw_stride_y = d.stride_y;
  c.dw_stride_x = d.stride_x;
  c.dw_pad_top = d.pad_top;
  c.dw_pad_left = d.pad_left;
  c.out_stride = d.out_stride;
  c.out_h = d.out_h;
  c.out_w = d.out_w;
  c.clamp_lo = d.clamp_lo;
  c.clamp_hi = d.clamp_hi;
  c.out_zero = d.out_zero;
  conv.report.op += "+depthwise";
  conv.report.shape = depthwise.report.shape;
  conv.report.words = depthwise.report.words;
  conv.report.macs += depthwise.report.macs;
  conv.report.pages += depthwise.report.pages;
  conv.report.weight_bytes += depthwise.report.weight_bytes;
  conv.nodes.push_back(depthwise.nodes[0]);
  conv.output = depthwise.output;
}

}  // namespace

void fuse_depthwise(draft& d) {
  for (std::size_t i = 0; i < d.steps.size();) {
    const step depthwise = d.steps[i];
    const bool may = is(depthwise, spec::op::depthwise) && fits_lines(depthwise.desc);
    const auto maker = may ? maker_of(d, depthwise) : d.steps.end();
    if (maker == d.steps.end()) {
      ++i;
      continue;
    }
    merge(*maker, depthwise);
    d.steps.erase(d.steps.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace latchkey::compiler::passes
