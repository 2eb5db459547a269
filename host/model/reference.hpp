// The golden model: a scalar int8 executor of the quantised graph.
//
// It is written from the definition of each node in qgraph.hpp, tensor in CHW order, and shares
// nothing with the compiler, its layouts or its tiles, so that the two can check each other.
#ifndef LATCHKEY_MODEL_REFERENCE_HPP
#define LATCHKEY_MODEL_REFERENCE_HPP

#include <cstdint>
#include <span>
#include <vector>

#include "model/qgraph.hpp"

namespace latchkey::model {

/// Turns one image of io type f32 into the input tensor's bytes. Throws latchkey::error (mismatch)
/// when the element count is not the input's, or the input is not f32.
std::vector<std::uint8_t> quantise_input(const qgraph& graph, std::span<const float> image);

/// The real values of the output tensor's bytes: scale * (byte - zero point).
std::vector<float> dequantise_output(const qgraph& graph, std::span<const std::uint8_t> bytes);

/// Executes one graph, image by image. Not thread-safe; make one per thread. Holds its own copy of
/// the graph.
class reference {
 public:
  /// Throws what validate() throws.
  explicit reference(qgraph graph);

  /// Runs one image (input tensor bytes, CHW). Returns every tensor, indexed as qgraph::tensors;
  /// valid until the next call. Throws latchkey::error (mismatch) for a wrong image size.
  const std::vector<std::vector<std::uint8_t>>& run(std::span<const std::uint8_t> image);

  /// The output tensor's bytes of one image.
  std::span<const std::uint8_t> infer(std::span<const std::uint8_t> image);

  [[nodiscard]] const qgraph& graph() const noexcept { return graph_; }

 private:
  void conv(const qconv& op, const std::vector<std::int16_t>& weights, const qtensor& in,
            const std::vector<std::uint8_t>& x, const qtensor& out, std::vector<std::uint8_t>& y);

  qgraph graph_;
  std::vector<std::vector<std::int16_t>> weights_;  // per node, widened once
  std::vector<std::vector<std::uint8_t>> values_;   // per tensor
  std::vector<std::int16_t> padded_;
  std::vector<std::int32_t> acc_;
};

/// Index of the largest byte, the first of equals: the class of an image.
int argmax(std::span<const std::uint8_t> values) noexcept;

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_REFERENCE_HPP
