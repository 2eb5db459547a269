#include "compiler/compile.hpp"

#include <array>
#include <utility>

#include "compiler/draft.hpp"
#include "compiler/passes/passes.hpp"

namespace latchkey::compiler {
namespace {

struct pass {
  std::string_view name;
  void (*run)(draft&);
};

/// A pass joins with a line here. Fusion goes between lower_nodes and spill_tensors.
constexpr std::array pipeline{
    pass{"check_graph", passes::check_graph},
    pass{"lower_nodes", passes::lower_nodes},
    pass{"fuse_depthwise", passes::fuse_depthwise},
    pass{"fuse_add", passes::fuse_add},
    pass{"fuse_table", passes::fuse_table},
    pass{"join_in_place", passes::join_in_place},
    pass{"fold_pixels", passes::fold_pixels},
    pass{"place_blocks", passes::place_blocks},
    pass{"spill_tensors", passes::spill_tensors},
    pass{"plan_scratchpad", passes::plan_scratchpad},
    pass{"pack_parameters", passes::pack_parameters},
    pass{"emit_descriptors", passes::emit_descriptors},
    pass{"check_program", passes::check_program},
};

}  // namespace

program compile(const model::qgraph& graph, const compile_options& options) {
  draft d{graph, options, graph.tensors, {}, {}, {}, {}};
  int number = 0;
  for (const pass& p : pipeline) {
    ++number;
    if (options.on_pass) options.on_pass(p.name, number, static_cast<int>(pipeline.size()));
    p.run(d);
    if (options.after_pass) options.after_pass(p.name, number, d);
  }
  return std::move(d.out);
}

std::uint64_t pages_fetched(const program& p, std::uint32_t batch) {
  std::uint64_t pages = p.regions.at(0).count;
  for (const spec::descriptor& d : p.descriptors) {
    const page_counts of = pages_of(d);
    const std::uint64_t rows = batch * swept_rows(d);
    const std::uint64_t blocks = of.per_block ? (rows + spec::acc_rows - 1) / spec::acc_rows : 1;
    pages += of.once + blocks * of.tiles;
  }
  return pages;
}

}  // namespace latchkey::compiler
