// Post-training quantisation: the float graph and some images give the quantised graph.
//
// Weights: int8, symmetric, one scale per output channel: max|w| / 127, or the one of the least
// squared error. Activations: unsigned
// bytes, one scale and zero point per tensor, from the values seen on the calibration images, with
// 0.0 always exactly representable. Biases: int32, rne(b / (sx * sw)). Relu and Clip become clamps,
// a max-pool keeps the quantisation of its input. Quantisations that the file gives are kept as
// they are, and a model that gives them all needs no images.
#ifndef LATCHKEY_MODEL_QUANTISE_HPP
#define LATCHKEY_MODEL_QUANTISE_HPP

#include <string>
#include <vector>

#include "model/fgraph.hpp"
#include "model/qgraph.hpp"

namespace latchkey::model {

/// How the range of an activation follows from the values seen. The graph's input always keeps its
/// whole range.
enum class calibration {
  min_max,     ///< The whole range seen.
  percentile,  ///< The range without the outermost values on each side.
  mse,         ///< The range whose 256 steps have the least mean squared error.
  entropy,     ///< The range whose 256 steps have the least Kullback-Leibler divergence.
};

enum class weight_scale {
  max,  ///< max|w| / 127 of each output channel.
  mse,  ///< The scale of the least squared error, from max|w| / 127 down to 0.8 of it.
};

struct quantise_options {
  calibration method = calibration::min_max;
  double percentile = 99.99;  ///< Share of the values, in percent, that each end leaves inside.
  weight_scale weights = weight_scale::max;
  /// Takes what the rounding of the weights adds to the mean of a channel, at the means seen on the
  /// images, out of the channel's bias again.
  bool bias_correction = false;
};

/// Quantises a simplified graph with one input. images: CHW float images of the input's size; a few
/// hundred are enough. Throws latchkey::error: usage for no images where some are needed or a
/// percentile outside (50, 100], mismatch for images of another size, unsupported_model for graphs
/// with several inputs, activations that are not finite, contradicting quantisations, and layers
/// whose accumulator could overflow.
qgraph quantise(const fgraph& graph, const std::vector<std::vector<float>>& images,
                const quantise_options& options = {});

/// What quantisation does to one layer, as signal-to-noise ratios in dB; infinite where nothing
/// differs.
struct layer_sensitivity {
  std::string name;
  double own = 0;    ///< Noise that this layer adds to what it reads.
  double total = 0;  ///< Noise of its result, all layers before it included.
};

/// Compares the int8 reference with the float model layer by layer on some images. quantised is
/// what quantise() made of graph. Throws latchkey::error: usage without images, mismatch for images
/// of another size.
std::vector<layer_sensitivity> sensitivity(const fgraph& graph, const qgraph& quantised,
                                           const std::vector<std::vector<float>>& images);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_QUANTISE_HPP
