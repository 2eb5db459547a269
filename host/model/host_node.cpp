#include "model/host_node.hpp"

#include <cstdint>
#include <utility>
#include <vector>

#include "latchkey/error.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

namespace {

/// The first of two is what a host's type becomes.
constexpr std::pair<int, fallback::element> kTypes[] = {
    {pb::TensorProto::FLOAT, fallback::element::f32},
    {pb::TensorProto::DOUBLE, fallback::element::f32},
    {pb::TensorProto::UINT8, fallback::element::u8},
    {pb::TensorProto::INT8, fallback::element::i8},
    {pb::TensorProto::INT32, fallback::element::i32},
    {pb::TensorProto::INT64, fallback::element::i64},
    {pb::TensorProto::BOOL, fallback::element::boolean},
};

}  // namespace

fallback::element element_of(int type, const std::string& what) {
  for (const auto& [given, element] : kTypes) {
    if (given == type) return element;
  }
  throw error(errc::unsupported_model,
              format("{} has type {}, which the host does not run; export in float32", what,
                     type_name(type)));
}

fallback::element element_of(io_type type) {
  return type == io_type::f32  ? fallback::element::f32
         : type == io_type::u8 ? fallback::element::u8
                               : fallback::element::i8;
}

int type_of(fallback::element type) {
  for (const auto& [given, element] : kTypes) {
    if (element == type) return given;
  }
  return pb::TensorProto::UNDEFINED;
}

fallback::node host_node(const pb::NodeProto& node, int index, const std::string& file) {
  fallback::node out;
  out.name = node.name().empty() ? format("#{}", index) : node.name();
  out.op = node.op_type();
  out.inputs.assign(node.input().begin(), node.input().end());
  out.outputs.assign(node.output().begin(), node.output().end());
  for (const auto& a : node.attribute()) {
    switch (a.type()) {
      case pb::AttributeProto::INT:
        out.attributes[a.name()] = a.i();
        break;
      case pb::AttributeProto::FLOAT:
        out.attributes[a.name()] = a.f();
        break;
      case pb::AttributeProto::STRING:
        out.attributes[a.name()] = a.s();
        break;
      case pb::AttributeProto::INTS:
        out.attributes[a.name()] = std::vector<std::int64_t>(a.ints().begin(), a.ints().end());
        break;
      case pb::AttributeProto::FLOATS:
        out.attributes[a.name()] = std::vector<float>(a.floats().begin(), a.floats().end());
        break;
      default:
        throw error(errc::unsupported_model,
                    format("{}: node '{}' ({}): the host does not run it with attribute '{}'", file,
                           out.name, out.op, a.name()));
    }
  }
  return out;
}

}  // namespace latchkey::model
