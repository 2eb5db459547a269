// A model in three parts: a head on the host, the layers on the card, a tail on the host.
//
// The cut follows from what the importer refuses. A refused node goes to the head when nothing
// before it, and to the tail when nothing behind it, has to run on the card; with it go the nodes
// between it and the edge of the model. Layers with weights always have to run on the card. A node
// between two of them is refused: it would carry intermediate activations to the host, and whoever
// reads those can solve for the hidden layers' weights.
//
// The card reads one tensor and writes one. All outputs of the model must follow from that one by
// nodes that the host runs; where the card computes some of them, the tail grows towards the input
// until one tensor is left.
#ifndef LATCHKEY_MODEL_PARTITION_HPP
#define LATCHKEY_MODEL_PARTITION_HPP

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fallback/host_graph.hpp"
#include "model/import.hpp"

namespace latchkey::model {

struct network {
  fgraph card;
  std::optional<fallback::host_graph> head, tail;
};

/// Reads an ONNX file. Without host_fallback all of it runs on the card, and a refusal names the
/// option when it would help. Throws latchkey::error as import_onnx does.
network import_network(const std::filesystem::path& file, bool host_fallback,
                       const import_options& options = {});
network import_network(const std::string& bytes, const std::string& name, bool host_fallback,
                       const import_options& options = {});

/// One image through a head: the values that the card takes.
std::vector<float> run_head(const fallback::host_graph& head, std::span<const float> image);
/// The card's output of one image, in the order of the model's own shape, through a tail.
std::vector<fallback::tensor> run_tail(const fallback::host_graph& tail,
                                       std::span<const float> output);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_PARTITION_HPP
