// The part of a model that the host runs: a head before the card's input or a tail behind its
// output.
//
// One input, any number of outputs, ONNX's operators and attributes by their names, float32
// arithmetic. There are no layers with weights here by intention: a host graph lies in the public
// header of a package, so whatever its constants say, everybody may read.
//
// A graph works on one image at a time; the first dimension of its input is 1.
#ifndef LATCHKEY_FALLBACK_HOST_GRAPH_HPP
#define LATCHKEY_FALLBACK_HOST_GRAPH_HPP

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace latchkey::fallback {

/// Version of the JSON form.
inline constexpr std::uint32_t kVersion = 1;
/// Most elements of one tensor, and most nodes of one graph.
inline constexpr std::int64_t kMaxElements = std::int64_t{1} << 24;
inline constexpr std::size_t kMaxNodes = 1000;
inline constexpr std::size_t kMaxRank = 8;

enum class element { f32, u8, i8, i32, i64, boolean };
/// "f32", "u8", "i8", "i32", "i64" or "bool".
const char* name_of(element type);

using shape = std::vector<std::int64_t>;

struct tensor {
  element type = element::f32;
  shape dims;
  std::vector<double> values;  ///< Row major; f32 values are rounded to float. Integers are exact.
};

/// Product of the dimensions. Throws latchkey::error (unsupported_model) above kMaxElements, above
/// kMaxRank dimensions and for negative ones.
std::int64_t elements(const shape& dims);
/// "1 x 3 x 8".
std::string text(const shape& dims);

struct node {
  std::string name, op;
  std::vector<std::string> inputs;  ///< Names of values; an empty one is left out.
  std::vector<std::string> outputs;
  nlohmann::json attributes =
      nlohmann::json::object();  ///< Numbers, texts and lists of them, by ONNX's names.
};

struct host_graph {
  int opset = 13;  ///< ONNX operator set of the nodes.
  std::string input;
  element input_type = element::f32;
  shape input_dims;  ///< With the batch of 1.
  std::map<std::string, tensor> constants;
  std::vector<node> nodes;  ///< In execution order.
  std::vector<std::string> outputs;
};

/// Whether an operator of ONNX's standard domain runs here.
bool supports(const std::string& op);

struct node_report {
  std::string name, op;
  shape dims;              ///< Of the first output.
  std::uint64_t macs = 0;  ///< One for every element that arithmetic touches; moving is free.
};

/// Runs the graph and returns its outputs in order. Throws latchkey::error (unsupported_model) that
/// names the node, its operator, its input shape and the reason; (mismatch) when the input is not
/// of the graph's type and shape, its first dimension apart.
std::vector<tensor> run(const host_graph& graph, tensor input,
                        std::vector<node_report>* report = nullptr);

/// An input of zeros.
tensor zeros(const host_graph& graph, std::int64_t batch = 1);
/// The nodes with shapes and cost, from a run on zeros.
std::vector<node_report> report(const host_graph& graph);
/// Operations of one image.
std::uint64_t macs(const host_graph& graph);

nlohmann::json to_json(const host_graph& graph);
/// Reads and checks what to_json wrote. Throws latchkey::error (bad_file) naming `what`.
host_graph from_json(const nlohmann::json& j, const std::string& what);

// ---- operators.cpp ----

/// What one node works on.
struct call {
  const node& n;
  int opset;
  std::vector<const tensor*> in;  ///< Null where an optional input is left out.
  std::vector<tensor> out;
  std::uint64_t macs = 0;
};
/// Computes c.out. Throws latchkey::error (unsupported_model) with the bare reason.
void execute(call& c);

}  // namespace latchkey::fallback

#endif  // LATCHKEY_FALLBACK_HOST_GRAPH_HPP
