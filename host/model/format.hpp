// std::format for clang 14, whose standard library has none: fmt under a local name.
#ifndef LATCHKEY_MODEL_FORMAT_HPP
#define LATCHKEY_MODEL_FORMAT_HPP

#include <fmt/format.h>

namespace latchkey::model {
using fmt::format;
}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_FORMAT_HPP
