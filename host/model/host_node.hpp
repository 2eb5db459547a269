// ONNX nodes and types as the host's operators know them (fallback/host_graph.hpp).
#ifndef LATCHKEY_MODEL_HOST_NODE_HPP
#define LATCHKEY_MODEL_HOST_NODE_HPP

#include <onnx/onnx_pb.h>

#include <string>

#include "fallback/host_graph.hpp"
#include "model/qgraph.hpp"

namespace latchkey::model {

/// The host's type for one of TensorProto's; double is float there. Throws latchkey::error
/// (unsupported_model) naming `what`.
fallback::element element_of(int type, const std::string& what);
fallback::element element_of(io_type type);
/// TensorProto's type for the host's.
int type_of(fallback::element type);

/// A node of the file with its attributes; index: its place there, which names it if nothing else
/// does. Throws latchkey::error (unsupported_model) for attributes that are no numbers and texts.
fallback::node host_node(const ONNX_NAMESPACE::NodeProto& node, int index, const std::string& file);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_HOST_NODE_HPP
