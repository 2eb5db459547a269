#include "compiler/passes/passes.hpp"
#include "latchkey/error.hpp"

namespace latchkey::compiler::passes {

void check_graph(draft& d) {
  const target& t = d.options.target;
  if (t.array_n != 16 && t.array_n != 32 && t.array_n != 64)
    throw error(errc::usage, "an array of " + std::to_string(t.array_n) +
                                 " rows and columns: builds have 16, 32 or 64");
  if (t.spad_words == 0 || t.spad_words > 1u << 26)
    throw error(errc::usage, "a scratchpad of " + std::to_string(t.spad_words) +
                                 " words: 1 to 67108864 are possible");
  if (d.options.max_batch > 256)
    throw error(errc::usage, "a batch of " + std::to_string(d.options.max_batch) +
                                 " images: 256 is the limit; 0 takes what fits");
  model::validate(d.graph);
  // Input, Output and End beside the nodes.
  std::size_t layers = 0;
  for (const model::qnode& n : d.graph.nodes) {
    const auto* conv = std::get_if<model::qconv>(&n.op);
    if (std::holds_alternative<model::qjoin>(n.op)) {
      layers += n.inputs.size();
    } else if (conv != nullptr && conv->transposed) {
      layers += static_cast<std::size_t>(conv->stride_y);  // a step for each row of an input row's
    } else if (!std::holds_alternative<model::qview>(n.op)) {
      ++layers;
    }
  }
  if (layers + 3 > spec::max_descs) {
    throw error(errc::unsupported_model, "model '" + d.graph.name + "' has " +
                                             std::to_string(layers) +
                                             " layers after folding; the accelerator holds " +
                                             std::to_string(spec::max_descs - 3));
  }
  d.out.name = d.graph.name;
  d.out.target = t;
}

}  // namespace latchkey::compiler::passes
