// Small ONNX models, written node by node, for the tests of the importer.
#ifndef LATCHKEY_TESTS_ONNX_BUILDER_HPP
#define LATCHKEY_TESTS_ONNX_BUILDER_HPP

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "latchkey/error.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"

namespace latchkey::model {

namespace pb = ONNX_NAMESPACE;
using ::testing::HasSubstr;
using strings = std::vector<std::string>;
using longs = std::vector<std::int64_t>;
using floats = std::vector<float>;

/// Writes ONNX models node by node.
class builder {
 public:
  explicit builder(int opset = 13) {
    model.set_ir_version(7);
    model.add_opset_import()->set_version(opset);
    model.mutable_graph()->set_name("test");
  }
  pb::GraphProto& graph() { return *model.mutable_graph(); }

  builder& input(const std::string& name, const longs& dims, int type = pb::TensorProto::FLOAT) {
    auto* t = graph().add_input();
    t->set_name(name);
    t->mutable_type()->mutable_tensor_type()->set_elem_type(type);
    for (const auto d : dims) {
      auto* dim = t->mutable_type()->mutable_tensor_type()->mutable_shape()->add_dim();
      if (d < 0) {
        dim->set_dim_param("N");
      } else {
        dim->set_dim_value(d);
      }
    }
    return *this;
  }
  builder& output(const std::string& name) {
    graph().add_output()->set_name(name);
    return *this;
  }
  static void fill(pb::TensorProto& t, const longs& dims, const floats& values, int type) {
    t.set_data_type(type);
    for (const auto d : dims) t.add_dims(d);
    for (const float v : values) {
      if (type == pb::TensorProto::FLOAT) t.add_float_data(v);
      if (type == pb::TensorProto::INT64) t.add_int64_data(static_cast<std::int64_t>(v));
      if (type == pb::TensorProto::INT8 || type == pb::TensorProto::UINT8 ||
          type == pb::TensorProto::INT32) {
        t.add_int32_data(static_cast<std::int32_t>(v));
      }
    }
  }
  pb::TensorProto& weight(const std::string& name, const longs& dims, const floats& values,
                          int type = pb::TensorProto::FLOAT) {
    auto* t = graph().add_initializer();
    t->set_name(name);
    fill(*t, dims, values, type);
    return *t;
  }
  pb::NodeProto& node(const std::string& op, const strings& in, const strings& out) {
    auto* n = graph().add_node();
    n->set_op_type(op);
    n->set_name("my_" + op);
    for (const auto& i : in) n->add_input(i);
    for (const auto& o : out) n->add_output(o);
    return *n;
  }
  static void ints(pb::NodeProto& n, const std::string& name, const longs& values) {
    auto* a = n.add_attribute();
    a->set_name(name);
    a->set_type(pb::AttributeProto::INTS);
    for (const auto v : values) a->add_ints(v);
  }
  static void integer(pb::NodeProto& n, const std::string& name, std::int64_t value) {
    auto* a = n.add_attribute();
    a->set_name(name);
    a->set_type(pb::AttributeProto::INT);
    a->set_i(value);
  }
  static void real(pb::NodeProto& n, const std::string& name, float value) {
    auto* a = n.add_attribute();
    a->set_name(name);
    a->set_type(pb::AttributeProto::FLOAT);
    a->set_f(value);
  }
  [[nodiscard]] std::string bytes() const { return model.SerializeAsString(); }
  fgraph import() const { return import_onnx(bytes(), "test.onnx"); }

  pb::ModelProto model;
};

inline floats random_floats(std::size_t n, std::uint32_t seed, float reach = 1.0F) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> d(-reach, reach);
  floats out(n);
  for (float& v : out) v = d(rng);
  return out;
}

/// Expects a refusal of this kind, whose message holds all of these.
inline void expect_refusal(const std::function<void()>& act, errc code, const strings& parts) {
  try {
    act();
    ADD_FAILURE() << "was accepted; expected: " << ::testing::PrintToString(parts);
  } catch (const error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    for (const auto& p : parts) EXPECT_THAT(e.what(), HasSubstr(p));
  }
}

/// Reads and quantises damaged copies of a model; returns how many were refused.
inline int refused_when_damaged(const builder& b, int copies) {
  const std::string whole = b.bytes();
  std::mt19937_64 rng(7);
  int refused = 0;
  for (int i = 0; i < copies; ++i) {
    std::string bytes = i % 4 == 0 ? whole.substr(0, rng() % whole.size()) : whole;
    for (std::uint64_t k = 0; k <= rng() % 3; ++k) {
      if (!bytes.empty()) bytes[rng() % bytes.size()] = static_cast<char>(rng());
    }
    try {
      const fgraph g = import_onnx(bytes, "damaged");
      if (g.inputs.size() == 1) {
        const auto& in = g.tensors[static_cast<std::size_t>(g.inputs[0].tensor)];
        quantise(g, {floats(in.size(), 0.5F)});
      }
    } catch (const error&) {
      ++refused;
    }
  }
  return refused;
}

}  // namespace latchkey::model

#endif  // LATCHKEY_TESTS_ONNX_BUILDER_HPP
