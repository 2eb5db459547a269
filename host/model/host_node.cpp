#include "model/host_node.hpp"

#include <cstdint>
#include <vector>

#include "latchkey/error.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

fallback::element element_of(int type, const std::string& what) {
  switch (type) {
    case pb::TensorProto::FLOAT:
    case pb::TensorProto::DOUBLE:
      return fallback::element::f32;
    case pb::TensorProto::UINT8:
      return fallback::element::u8;
    case pb::TensorProto::INT8:
      return fallback::element::i8;
    case pb::TensorProto::INT32:
      return fallback::element::i32;
    case pb::TensorProto::INT64:
      return fallback::element::i64;
    case pb::TensorProto::BOOL:
      return fallback::element::boolean;
    default:
      throw error(errc::unsupported_model,
                  format("{} has type {}, which the host does not run; export in float32", what,
                         type_name(type)));
  }
}

fallback::element element_of(io_type type) {
  return type == io_type::f32  ? fallback::element::f32
         : type == io_type::u8 ? fallback::element::u8
                               : fallback::element::i8;
}

int type_of(fallback::element type) {
  switch (type) {
    case fallback::element::f32:
      return pb::TensorProto::FLOAT;
    case fallback::element::u8:
      return pb::TensorProto::UINT8;
    case fallback::element::i8:
      return pb::TensorProto::INT8;
    case fallback::element::i32:
      return pb::TensorProto::INT32;
    case fallback::element::i64:
      return pb::TensorProto::INT64;
    case fallback::element::boolean:
      return pb::TensorProto::BOOL;
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
