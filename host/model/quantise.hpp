// Post-training quantisation: the float graph and some images give the quantised graph.
//
// Weights: int8, symmetric, one scale per output channel: max|w| / 127. Activations: unsigned
// bytes, one scale and zero point per tensor, from the values seen on the calibration images, with
// 0.0 always exactly representable. Biases: int32, rne(b / (sx * sw)). Relu and Clip become clamps,
// a max-pool keeps the quantisation of its input. Quantisations that the file gives are kept as
// they are, and a model that gives them all needs no images.
#ifndef LATCHKEY_MODEL_QUANTISE_HPP
#define LATCHKEY_MODEL_QUANTISE_HPP

#include <span>
#include <vector>

#include "model/fgraph.hpp"
#include "model/qgraph.hpp"

namespace latchkey::model {

enum class calibration {
  min_max,     ///< The whole range seen.
  percentile,  ///< The range without the outermost values on each side; the input keeps its range.
};

struct quantise_options {
  calibration method = calibration::min_max;
  double percentile = 99.99;  ///< Share of the values, in percent, that each end leaves inside.
};

/// Quantises a simplified graph with one input. images: CHW float images of the input's size; a few
/// hundred are enough. Throws latchkey::error: usage for no images where some are needed or a
/// percentile outside (50, 100], mismatch for images of another size, unsupported_model for graphs
/// with several inputs, activations that are not finite, contradicting quantisations, and layers
/// whose accumulator could overflow.
qgraph quantise(const fgraph& graph, const std::vector<std::vector<float>>& images,
                const quantise_options& options = {});

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_QUANTISE_HPP
