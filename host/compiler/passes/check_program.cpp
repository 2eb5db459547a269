#include "compiler/passes/passes.hpp"

namespace latchkey::compiler::passes {

void check_program(draft& d) { check(d.out, "program '" + d.out.name + "'"); }

}  // namespace latchkey::compiler::passes
