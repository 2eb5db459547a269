// Tensors that a product takes apart into heads lie block by block, all pixels of a channel block
// together: the heads of all images are then one row of equal pieces, as images are.
#include <string>
#include <vector>

#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {
namespace {

/// Whether a step is a convolution that makes one pixel at a time.
bool is_convolution(const step& s) {
  return is(s, spec::op::mat_mul) && !std::get<model::qconv>(s.nodes[0]->op).transposed;
}

/// Whether a step can take its first input block by block.
bool reads_blocks(const step& s) {
  return is(s, spec::op::product) ||
         (is_convolution(s) && s.desc.kernel_h == 1 && s.desc.kernel_w == 1);
}

}  // namespace

void place_blocks(draft& d) {
  std::vector<bool> planar(d.graph.tensors.size());
  for (const step& s : d.steps) {
    if (!is(s, spec::op::product) || s.desc.heads == 1) continue;
    planar[static_cast<std::size_t>(s.inputs[1])] = true;
    const int tokens = s.desc.in2_transposed != 0 ? s.inputs[0] : s.output;
    planar[static_cast<std::size_t>(tokens)] = true;
  }
  for (step& s : d.steps) {
    const auto refuse = [&](int t) {
      unsupported(s.report.name, "tensor '" + d.tensor(t).name +
                                     "' holds heads of attention; only 1x1 convolutions, fully "
                                     "connected layers and products can write and read it");
    };
    for (std::size_t i = 0; i < s.inputs.size(); ++i) {
      if (!planar[static_cast<std::size_t>(s.inputs[i])]) continue;
      if (i == 0 ? !reads_blocks(s) : !is(s, spec::op::product)) refuse(s.inputs[i]);
      (i == 0 ? s.desc.in_planar : s.desc.in2_planar) = 1;
    }
    if (s.output < 0 || !planar[static_cast<std::size_t>(s.output)]) continue;
    const bool writes = is(s, spec::op::product) || is_convolution(s);
    if (!writes || s.desc.fuse_add != 0 || s.desc.fuse_dw != 0) refuse(s.output);
    s.desc.out_planar = 1;
  }
}

}  // namespace latchkey::compiler::passes
