// Compiled programs: an ONNX model as int8 pages and descriptors for one build configuration.
#ifndef LATCHKEY_PROGRAM_HPP
#define LATCHKEY_PROGRAM_HPP

#include <cstdint>
#include <memory>
#include <string>

#include "latchkey/error.hpp"

namespace latchkey {

namespace compiler {
struct program;
}

/// A compiled program. It holds plaintext weights: whoever has it has the model. Copies share it.
class Program {
 public:
  /// Reads a program file (.lkm). Throws latchkey::error (bad_file).
  static Program read(const std::string& path);
  /// Writes it; the old file stays when that fails. Throws latchkey::error (io).
  void write(const std::string& path) const;

  explicit Program(compiler::program program);

  const std::string& name() const;
  std::uint32_t array_n() const;
  std::uint32_t max_batch() const;  ///< Most images of one start
  std::uint64_t macs() const;       ///< Multiply-accumulates per image, on the card
  /// Operations per image that the host does before and behind the card (compile --host-fallback).
  std::uint64_t host_macs() const;
  const compiler::program& get() const { return *program_; }

 private:
  std::shared_ptr<const compiler::program> program_;
};

}  // namespace latchkey

#endif  // LATCHKEY_PROGRAM_HPP
