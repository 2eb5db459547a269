// The compiler's intermediate: a program in the making. Every pass takes the draft that the pass
// before it left and fills in its part; nothing else passes between them.
//
//   pass              reads                   writes
//   check_graph       graph, options          out.name, out.target
//   lower_nodes       graph                   layouts, places; steps: operation, shapes, window,
//                                             constants, tiles; out.input, out.output
//   fuse_depthwise    steps                   steps, merged: see `step`
//   fuse_add          steps                   steps, merged
//   fuse_table        steps                   steps, merged
//   join_in_place     steps, layouts,         steps: those that make parts of a join write the
//                     options                 whole themselves
//   fold_pixels       steps                   window, output shape and tiles of narrow layers; fold
//   place_blocks      steps, graph            in_planar, in2_planar, out_planar
//   spill_tensors     steps, layouts,         steps: Spill and Load; tensors, layouts of what comes
//                     options                 back; out.spill_pages
//   plan_scratchpad   steps, layouts          in_base, in2_base, out_base of every descriptor;
//                                             out.peak_words, out.max_batch
//   pack_parameters   steps, graph            page_base and region; out.pages behind the
//   descriptors emit_descriptors  steps                   out.descriptors, out.layers, out.regions,
//   page 0 on check_program     out                     nothing: throws when anything disagrees
//
// A fusion pass runs right after lower_nodes. It merges a step into its neighbour, moves the nodes,
// inputs and output over and erases the step; places, pages and numbers are given out later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compiler/compile.hpp"
#include "compiler/plan.hpp"
#include "compiler/program.hpp"
#include "model/qgraph.hpp"

namespace latchkey::compiler {

/// One descriptor in the making: the network's input, one or more nodes of the graph, or its
/// output.
struct step {
  spec::descriptor desc;
  layer_report report;
  /// What it computes, the main operation first; empty for what only moves a tensor. Nodes after
  /// the first are fused into it.
  std::vector<const model::qnode*> nodes;
  /// Tensors it reads: at in_base, at in2_base. Index in draft::tensors; of a view what it is of.
  std::vector<int> inputs;
  int output = -1;               ///< Tensor it writes, or a part of it; -1: none (Output, Spill)
  std::uint32_t out_offset = 0;  ///< Words from its tensor's first one
  std::uint32_t fold = 1;        ///< Neighbouring pixels that are one row of the array
};

struct draft {
  const model::qgraph& graph;
  const compile_options& options;
  std::vector<model::qtensor> tensors;  ///< The graph's, then copies that come back from a spill
  std::vector<tensor_layout> layouts;   ///< By tensor
  std::vector<int> places;              ///< By tensor of the graph: itself, or what it is a view of
  std::vector<step> steps;              ///< In execution order: Input, nodes, Output
  program out;

  const model::qtensor& tensor(int t) const { return tensors.at(static_cast<std::size_t>(t)); }
  int place(int t) const { return places.at(static_cast<std::size_t>(t)); }
  const tensor_layout& layout(int t) const { return layouts.at(static_cast<std::size_t>(t)); }
};

/// The draft for people and tools: tensors with their layouts, steps with the descriptor fields
/// that are not zero, regions with the SHA-256 of their pages. Shapes, scales and places, but no
/// weight, bias or multiplier of a layer.
nlohmann::json to_json(const draft& d);

inline bool is(const step& s, spec::op op) { return s.desc.op == static_cast<std::uint32_t>(op); }

/// The column, counted over all tiles, of channel `c` of pixel `pixel` among the `fold` of a row.
inline std::uint32_t column_of(const step& s, std::uint32_t c, std::uint32_t pixel) {
  if (s.desc.dw_pairs != 0) return c / 32 * spec::tile_dim + pixel * 32 + c % 32;
  return pixel * ((1u << s.desc.out_cp_log2) / s.fold) + c;
}

/// Words behind a tensor that must be there, though nobody uses them: an output's base and the
/// images' strides together lie inside the scratchpad, and a part's base lies inside its tensor.
/// Where parts are told by a pitch or slices the accelerator counts exactly.
inline std::uint32_t words_behind(const step& s) {
  return s.desc.out_pitch == 0 && s.desc.slices == 0 ? s.out_offset : 0;
}

/// No step.
constexpr std::size_t nowhere = static_cast<std::size_t>(-1);
/// The step behind which tensor `t` stands, the last that writes a part of it; or nowhere.
std::size_t writer_of(const draft& d, int t);
/// The same when it alone writes `t`, and a single input of all steps is `t`, the network's output
/// counted; else nowhere.
std::size_t writer_for_one(const draft& d, int t);

/// A tensor lives from the first step that writes to it to the last one that reads it. A step reads
/// its inputs while it writes its output, so all of them are alive in it. A tensor that no step
/// touches has no words.
std::vector<lifetime> lifetimes(const draft& d);
/// Scratchpad words of the tensors that a step reads and writes, for one image.
std::uint64_t words_used(const draft& d, const step& s);
/// Images that must fit: as many as asked for, or one.
std::uint32_t images_asked(const draft& d);

/// `into` does the work of `next` too, which reads its result, and writes what that one wrote;
/// `name` joins its own. Descriptor and inputs are the caller's.
void absorb(step& into, const step& next, const std::string& name);

/// errc::unsupported_model, naming the layer.
[[noreturn]] void unsupported(const std::string& layer, const std::string& message);

/// For refusals of `images` images: "one image", and what to do.
std::string images_text(std::uint32_t images);
std::string advice(std::uint32_t images);

/// An activation or bound as the scratchpad holds it: the unsigned byte xor 0x80.
constexpr std::uint8_t stored(std::uint8_t unsigned_byte) {
  return static_cast<std::uint8_t>(unsigned_byte ^ 0x80);
}

/// Writes `v` little-endian to out[0..3].
void put_u32_at(std::uint8_t* out, std::uint32_t v);

}  // namespace latchkey::compiler
