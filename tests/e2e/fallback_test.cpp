// Models whose last operators the host runs: compile, lock and run them, what is told of the host's
// share, and what is refused.
#include <gmock/gmock.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <cstring>

#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::HasSubstr;
namespace pb = ONNX_NAMESPACE;

constexpr int kImages = 24, kClasses = 10;

/// digits_mlp.onnx, followed by Softmax (output "probabilities") and ArgMax (output "class").
std::string with_tail(const Workspace& w) {
  const bytes file = read(model("digits_mlp.onnx"));
  pb::ModelProto m;
  EXPECT_TRUE(m.ParseFromArray(file.data(), static_cast<int>(file.size())));
  pb::GraphProto& g = *m.mutable_graph();
  const std::string logits = g.output(0).name();
  g.clear_output();
  for (const auto& [op, name] : {std::pair{"Softmax", "probabilities"}, {"ArgMax", "class"}}) {
    pb::NodeProto& n = *g.add_node();
    n.set_op_type(op);
    n.set_name(std::string("my_") + op);
    n.add_input(logits);
    n.add_output(name);
    pb::AttributeProto& axis = *n.add_attribute();
    axis.set_name("axis");
    axis.set_type(pb::AttributeProto::INT);
    axis.set_i(1);
    g.add_output()->set_name(name);
  }
  const std::string path = w.str("tail.onnx");
  const std::string text = m.SerializeAsString();
  write(path, bytes(text.begin(), text.end()));
  return path;
}

std::vector<std::string> compile_words(const Workspace& w, const std::string& onnx,
                                       const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"compile",     onnx,
                                    "-o",          w.str("tail.lkm"),
                                    "--calibrate", model("digits-train-images-idx3-ubyte.gz")};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(Fallback, TailRunsOnTheHostAndIsReported) {
  Workspace w;
  w.session();
  const std::string onnx = with_tail(w);
  const Outcome refused = w.tool(compile_words(w, onnx));
  EXPECT_EQ(refused.code, 4) << refused.err;

  const Outcome compiled = w.tool(compile_words(w, onnx, {"--host-fallback"}));
  ASSERT_EQ(compiled.code, 0) << compiled.err;
  EXPECT_THAT(compiled.err, HasSubstr("not locked"));
  const nlohmann::json host = compiled.json()["host"];
  ASSERT_EQ(host["nodes"].size(), 2u) << host.dump(1);
  EXPECT_EQ(host["nodes"][0]["part"], "tail");
  EXPECT_GT(host["macs_share"].get<double>(), 0);
  EXPECT_LT(host["macs_share"].get<double>(), 0.05);

  w.lock("tail.lkm", "card.lkd", "tail.lkx");
  auto words = w.run_words(kImages, {"-o", w.str("tail.out"), "--labels", digit_labels()});
  std::replace(words.begin(), words.end(), w.str("digits.lkx"), w.str("tail.lkx"));
  const Outcome ran = w.tool(words);
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_GT(ran.json()["host"]["seconds"].get<double>(), 0);
  EXPECT_GT(ran.json()["host"]["time_share"].get<double>(), 0);
  ASSERT_EQ(ran.json()["outputs"].size(), 2u);
  EXPECT_EQ(ran.json()["outputs"][0]["name"], "probabilities");
  EXPECT_EQ(ran.json()["outputs"][0]["shape"], (std::vector<int>{kImages, kClasses}));

  // The same network without a tail: its bytes decide the same, and a probability is a softmax.
  const auto plain_words = w.run_words(kImages, {"-o", w.str("plain.out")});
  ASSERT_EQ(w.tool(plain_words).code, 0);
  const bytes plain = read(w.path("plain.out")), out = read(w.path("tail.out"));
  ASSERT_EQ(plain.size(), std::size_t{kImages} * kClasses);
  ASSERT_EQ(out.size(), 4u * kImages * (kClasses + 1));
  std::vector<float> values(out.size() / 4);
  std::memcpy(values.data(), out.data(), out.size());
  for (int i = 0; i < kImages; ++i) {
    const auto first = plain.begin() + i * kClasses;
    const auto best = std::max_element(first, first + kClasses) - first;
    EXPECT_EQ(values[static_cast<std::size_t>(kImages * kClasses + i)], static_cast<float>(best));
    double sum = 0;
    for (int c = 0; c < kClasses; ++c) sum += values[static_cast<std::size_t>(i * kClasses + c)];
    EXPECT_NEAR(sum, 1.0, 1e-5);
  }
}

TEST(Fallback, ChangedTailIsRefusedBeforeTheCardSeesIt) {
  Workspace w;
  w.session();
  ASSERT_EQ(w.tool(compile_words(w, with_tail(w), {"--host-fallback"})).code, 0);
  w.lock("tail.lkm", "card.lkd", "tail.lkx");
  bytes package = read(w.path("tail.lkx"));
  const std::string what = "Softmax", with = "Sigmoid";
  const auto at = std::search(package.begin(), package.end(), what.begin(), what.end());
  ASSERT_NE(at, package.end());
  std::copy(with.begin(), with.end(), at);
  write(w.path("changed.lkx"), package);
  auto words = w.run_words(kImages);
  std::replace(words.begin(), words.end(), w.str("digits.lkx"), w.str("changed.lkx"));
  const Outcome o = w.tool(words);
  EXPECT_NE(o.code, 0);
  EXPECT_EQ(o.released(), 0u);
}

TEST(Fallback, NothingBetweenTwoLayersGoesToTheHost) {
  Workspace w;
  const bytes file = read(model("digits_mlp.onnx"));
  pb::ModelProto m;
  ASSERT_TRUE(m.ParseFromArray(file.data(), static_cast<int>(file.size())));
  // Behind the first layer: the host would see that layer's results.
  for (pb::NodeProto& n : *m.mutable_graph()->mutable_node()) {
    if (n.op_type() != "Relu") continue;
    n.set_op_type("Einsum");
    pb::AttributeProto& equation = *n.add_attribute();
    equation.set_name("equation");
    equation.set_type(pb::AttributeProto::STRING);
    equation.set_s("ij->ij");
    break;
  }
  const std::string text = m.SerializeAsString();
  write(w.path("middle.onnx"), bytes(text.begin(), text.end()));
  const Outcome o = w.tool(compile_words(w, w.str("middle.onnx"), {"--host-fallback"}));
  EXPECT_EQ(o.code, 4) << o.err;
  EXPECT_THAT(o.message(), HasSubstr("Einsum"));
}

}  // namespace
}  // namespace latchkey::e2e
