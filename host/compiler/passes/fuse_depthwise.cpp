// Depthwise convolutions into the convolution that makes their input: its results go to the
// depthwise path and not to the scratchpad, so that neither the step nor the tensor between them
// remains.
#include <cstddef>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

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
  absorb(conv, depthwise, "depthwise");
}

}  // namespace

void fuse_depthwise(draft& d) {
  for (std::size_t i = 0; i < d.steps.size();) {
    const step depthwise = d.steps[i];
    const bool fits = is(depthwise, spec::op::depthwise) && fits_line_buffers(depthwise.desc);
    const std::size_t maker = fits ? writer_for_one(d, depthwise.inputs[0]) : nowhere;
    const auto differs = [&](const spec::descriptor& conv) {  // a view lies between
      return conv.out_h != depthwise.desc.in_h || conv.out_w != depthwise.desc.in_w;
    };
    if (maker == nowhere || !is(d.steps[maker], spec::op::mat_mul) ||
        d.steps[maker].desc.fuse_dw != 0 || differs(d.steps[maker].desc)) {
      ++i;
      continue;
    }
    merge(d.steps[maker], depthwise);
    d.steps.erase(d.steps.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace latchkey::compiler::passes
