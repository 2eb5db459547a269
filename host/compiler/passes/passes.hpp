// The compiler's passes, in the order of compile.cpp's pipeline. draft.hpp says what each reads and
// writes. A pass throws latchkey::error naming the layer.
#pragma once

#include "compiler/draft.hpp"

namespace latchkey::compiler::passes {

/// Target, batch and graph are possible at all.
void check_graph(draft& d);
/// Nodes to steps, all but places and pages: one descriptor each, of a join one for each part, of a
/// transposed convolution as many as it makes rows of one.
void lower_nodes(draft& d);
/// Depthwise convolutions into the convolution that makes their input.
void fuse_depthwise(draft& d);
/// Additions into the convolution that makes one of their operands.
void fuse_add(draft& d);
/// Tables into the convolution or product that makes their input.
void fuse_table(draft& d);
/// Parts of joins where the whole has them, by the steps that make them.
void join_in_place(draft& d);
/// Neighbouring pixels of narrow layers into one row of the array.
void fold_pixels(draft& d);
/// Tensors of several heads lie block by block: the steps that write and read them say so.
void place_blocks(draft& d);
/// Tensors that there are no words for to the spill area and back.
void spill_tensors(draft& d);
/// Tensors to scratchpad words; the largest batch.
void plan_scratchpad(draft& d);
/// Biases, multipliers and weights to pages.
void pack_parameters(draft& d);
/// Steps to descriptor pages and the tables of the program.
void emit_descriptors(draft& d);
/// The whole program against the rules that a reader of its file applies.
void check_program(draft& d);

/// The steps that put tensor `t` away and that bring it back, all but places and pages.
step spill_step(const draft& d, int t);
step reload_step(const draft& d, int t);

}  // namespace latchkey::compiler::passes
