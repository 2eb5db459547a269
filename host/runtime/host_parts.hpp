// Head and tail of a model around a run of the card.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compiler/program.hpp"
#include "latchkey/session.hpp"

namespace latchkey {

class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

class HostParts {
 public:
  HostParts(const std::optional<fallback::host_graph>& head,
            const std::optional<fallback::host_graph>& tail, const compiler::io_tensor& output)
      : head_(head), tail_(tail), output_(output) {}

  /// Images for the card, in the format that goes with them.
  struct Input {
    std::span<const std::uint8_t> images;
    ImageFormat format;
    std::vector<std::uint8_t> held;  ///< What images views, when the head made it
  };
  /// Runs the head on every image. Throws latchkey::error (usage) for a wrong size or order.
  [[nodiscard]] Input prepare(std::span<const std::uint8_t> images, std::size_t count,
                              const ImageFormat& format) const;
  /// Runs the tail on the card's raw records.
  [[nodiscard]] std::vector<OutputTensor> finish(std::span<const std::uint8_t> records,
                                                 std::size_t count) const;

 private:
  const std::optional<fallback::host_graph>& head_;
  const std::optional<fallback::host_graph>& tail_;
  const compiler::io_tensor& output_;
};

}  // namespace latchkey
