// Models with parts that run on the host: where the importer cuts, what the parts compute, and what
// is refused and why. The operators are compared with ONNX's own tests.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "compiler/program.hpp"
#include "fallback/host_graph.hpp"
#include "model/partition.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

namespace fs = std::filesystem;

network import(const builder& b, bool host_fallback = true) {
  return import_network(b.bytes(), "test.onnx", host_fallback);
}

strings ops(const std::optional<fallback::host_graph>& g) {
  strings out;
  if (g) {
    for (const auto& n : g->nodes) out.push_back(n.op);
  }
  return out;
}

/// x (4) -> Gemm -> y (3).
builder layer(int opset = 13) {
  builder b(opset);
  b.input("x", {-1, 4}).weight("w", {4, 3}, random_floats(12, 1));
  b.node("MatMul", {"x", "w"}, {"y"});
  return b;
}

TEST(Partition, SoftmaxIsTheTail) {
  builder b = layer();
  b.node("Softmax", {"y"}, {"p"});
  b.output("p");
  const network n = import(b);
  EXPECT_FALSE(n.head);
  ASSERT_TRUE(n.tail);
  EXPECT_EQ(ops(n.tail), strings{"Softmax"});
  EXPECT_EQ(n.card.output.name, "y");
  const auto p = run_tail(*n.tail, std::vector<float>{0.0F, std::log(2.0F), 0.0F}).at(0);
  EXPECT_EQ(p.dims, (fallback::shape{1, 3}));
  EXPECT_NEAR(p.values[0], 0.25, 1e-7);
  EXPECT_NEAR(p.values[1], 0.5, 1e-7);
  // Without the option all of it stays on the card, and the Softmax is left out as ever.
  const network plain = import(b, false);
  EXPECT_FALSE(plain.tail);
  EXPECT_EQ(plain.card.remarks.size(), 1U);
}

TEST(Partition, OneCardOutputFeedsSeveralBranches) {
  builder b = layer();
  b.weight("k", {1}, {2}, pb::TensorProto::INT64);
  b.node("Relu", {"y"}, {"r"});  // The card could, but it needs two outputs then.
  b.node("Softmax", {"y"}, {"p"});
  builder::integer(b.node("ArgMax", {"r"}, {"class"}), "axis", 1);
  b.node("TopK", {"p", "k"}, {"v", "i"});
  b.output("r").output("class").output("v").output("i");
  const network n = import(b);
  ASSERT_TRUE(n.tail);
  EXPECT_EQ(n.card.output.name, "y");
  EXPECT_EQ(ops(n.tail), (strings{"Relu", "Softmax", "ArgMax", "TopK"}));
  const auto out = run_tail(*n.tail, std::vector<float>{-1, 3, 2});
  ASSERT_EQ(out.size(), 4U);
  EXPECT_EQ(out[0].values, (std::vector<double>{0, 3, 2}));
  EXPECT_EQ(out[1].values, std::vector<double>{1});
  EXPECT_EQ(out[1].type, fallback::element::i64);
  EXPECT_EQ(out[3].values, (std::vector<double>{1, 2}));
  expect_refusal([&] { import(b, false); }, errc::unsupported_model,
                 {"4 outputs", "--host-fallback", "TopK"});
}

TEST(Partition, HeadNormalisesAndTransposes) {
  builder b(13);
  b.input("image", {1, 4, 4, 3}, pb::TensorProto::UINT8);
  b.weight("mean", {3}, {1, 2, 3});
  b.weight("std", {3}, {2, 4, 8});
  b.weight("w", {2, 3, 3, 3}, random_floats(54, 2));
  builder::integer(b.node("Cast", {"image"}, {"f"}), "to", pb::TensorProto::FLOAT);
  b.node("Sub", {"f", "mean"}, {"c"});
  b.node("Div", {"c", "std"}, {"d"});
  builder::ints(b.node("Transpose", {"d"}, {"x"}), "perm", {0, 3, 1, 2});
  b.node("Conv", {"x", "w"}, {"y"});
  b.output("y");
  const network n = import(b);
  ASSERT_TRUE(n.head);
  EXPECT_FALSE(n.tail);
  EXPECT_EQ(ops(n.head), (strings{"Cast", "Sub", "Div", "Transpose"}));
  EXPECT_EQ(n.card.inputs.at(0).name, "x");
  EXPECT_EQ(n.card.inputs.at(0).dims, (std::vector<int>{3, 4, 4}));
  std::vector<float> image(48);
  for (std::size_t i = 0; i < 48; ++i) image[i] = static_cast<float>(i);
  const auto x = run_head(*n.head, image);
  ASSERT_EQ(x.size(), 48U);
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t p = 0; p < 16; ++p) {
      const float real =
          (image[3 * p + c] - static_cast<float>(c + 1)) / static_cast<float>(2 << c);
      EXPECT_EQ(x[16 * c + p], real) << c << ' ' << p;
    }
  }
  EXPECT_EQ(fallback::macs(*n.head), 96U);  // Sub and Div; moving is free.
  expect_refusal([&] { import(b, false); }, errc::unsupported_model,
                 {"my_Cast", "run Cast, Sub, Div, Transpose in float", "--host-fallback"});
}

TEST(Partition, TheMiddleStaysOnTheChip) {
  builder b = layer();
  b.weight("v", {3, 2}, random_floats(6, 3));
  b.weight("k", {1}, {3}, pb::TensorProto::INT64);
  b.node("TopK", {"y", "k"}, {"t", "i"});
  b.node("MatMul", {"t", "v"}, {"z"});
  b.output("z");
  expect_refusal([&] { import(b); }, errc::unsupported_model,
                 {"my_TopK", "N x 3", "intermediate activations never leave the chip"});
  // Nor is the option offered where it does not help.
  try {
    import(b, false);
    FAIL();
  } catch (const error& e) {
    EXPECT_THAT(e.what(), ::testing::Not(HasSubstr("--host-fallback")));
  }
}

TEST(Partition, TwoCardOutputsAreRefused) {
  builder b = layer();
  b.weight("v", {4, 2}, random_floats(8, 3));
  b.node("MatMul", {"x", "v"}, {"z"});
  b.node("Softmax", {"y"}, {"p"});
  b.node("Softmax", {"z"}, {"q"});
  b.output("p").output("q");
  expect_refusal([&] { import(b); }, errc::unsupported_model,
                 {"2 tensors would leave the card", "'y'", "'z'"});
}

TEST(Partition, ATailReadsNothingPastTheCard) {
  builder b = layer();
  b.weight("k", {1}, {3}, pb::TensorProto::INT64);
  b.node("TopK", {"x", "k"}, {"t", "i"});
  b.node("Add", {"y", "t"}, {"z"});
  b.output("z");
  expect_refusal([&] { import(b); }, errc::unsupported_model, {"test.onnx"});
}

TEST(Partition, NothingForTheCardIsRefused) {
  builder b(13);
  b.input("x", {-1, 4}).weight("k", {1}, {3}, pb::TensorProto::INT64);
  b.node("TopK", {"x", "k"}, {"t", "i"});
  b.output("t");
  expect_refusal([&] { import(b); }, errc::unsupported_model, {"no layer is left for the card"});
}

TEST(Partition, NumbersThatAreNoneAreRefused) {
  builder b = layer();
  b.weight("s", {1, 3}, {1, std::nanf(""), 1});
  b.node("Softmax", {"y"}, {"p"});
  b.node("Mul", {"p", "s"}, {"z"});
  b.output("z");
  expect_refusal([&] { import(b); }, errc::unsupported_model, {"constant 's'", "nan"});
}

TEST(Partition, ShapesThatDoNotFitAreRefused) {
  builder b = layer();
  b.weight("s", {1, 5}, {1, 1, 1, 1, 1});
  b.node("Softmax", {"y"}, {"p"});
  b.node("Mul", {"p", "s"}, {"z"});
  b.output("z");
  expect_refusal([&] { import(b); }, errc::unsupported_model,
                 {"my_Mul", "1 x 3", "1 x 5 do not broadcast"});
}

TEST(Partition, PartsThatMixTheBatchAreRefused) {
  builder b = layer();
  builder::integer(b.node("ArgMax", {"y"}, {"c"}), "axis", 0);
  b.output("c");
  expect_refusal([&] { import(b); }, errc::unsupported_model, {"mixes the images of a batch"});
}

TEST(Partition, OneRefusalNamesEveryNode) {
  builder b = layer();
  b.weight("v", {3, 2}, random_floats(6, 3));
  b.node("NonZero", {"y"}, {"n"});
  b.node("LSTM", {"n"}, {"l"});
  b.node("Einsum", {"y"}, {"e"});
  b.node("Add", {"l", "e"}, {"z"});
  b.output("z");
  for (const bool host : {false, true}) {
    expect_refusal(
        [&] { import(b, host); }, errc::unsupported_model,
        {"3 nodes are not supported", "my_NonZero", "my_LSTM", "recurrent layers", "my_Einsum"});
  }
}

/// y times a grid that the file computes from the shape of y, behind what the card refuses.
builder scaled_by_shape(std::int64_t batch) {
  builder b(13);
  b.input("x", {batch, 4}).weight("w", {4, 3}, random_floats(12, 1));
  b.node("MatMul", {"x", "w"}, {"y"});
  b.weight("one", {}, {1}, pb::TensorProto::INT64);
  b.weight("zero", {}, {0}, pb::TensorProto::INT64);
  b.weight("first", {1}, {0}, pb::TensorProto::INT64);
  b.weight("rest", {2}, {1, -1}, pb::TensorProto::INT64);
  b.node("Shape", {"y"}, {"sizes"});
  b.node("Gather", {"sizes", "one"}, {"n"});
  b.node("Range", {"zero", "n", "one"}, {"steps"});
  builder::integer(b.node("Cast", {"steps"}, {"s"}), "to", pb::TensorProto::FLOAT);
  b.node("Gather", {"sizes", "first"}, {"images"});
  builder::integer(b.node("Concat", {"images", "rest"}, {"shape"}), "axis", 0);
  b.node("LogSoftmax", {"y"}, {"p"});
  b.node("Mul", {"p", "s"}, {"m"});
  b.node("Reshape", {"m", "shape"}, {"z"});
  b.output("z");
  return b;
}

TEST(Partition, ATailHoldsWhatFollowsFromShapes) {
  for (const std::int64_t batch : {-1, 1}) {
    const network n = import(scaled_by_shape(batch));
    ASSERT_TRUE(n.tail);
    EXPECT_EQ(n.card.output.name, "y");
    EXPECT_EQ(ops(n.tail), (strings{"LogSoftmax", "Mul", "Reshape"}));
    EXPECT_EQ(n.tail->constants.at("s").values, (std::vector<double>{0, 1, 2}));
    EXPECT_EQ(n.tail->constants.at("shape").values, (std::vector<double>{1, 1, -1}));
    const auto z = run_tail(*n.tail, std::vector<float>{0, 0, 0}).at(0);
    EXPECT_EQ(z.dims, (fallback::shape{1, 1, 3}));
    EXPECT_NEAR(z.values[2], -2 * std::log(3.0), 1e-6);
  }
}

/// The probabilities of four bins for two numbers of each of three pixels, and what a convolution
/// makes of them.
builder bins(const floats& weights, const std::string& attribute = "") {
  builder b(13);
  b.input("x", {-1, 2, 1, 3}).weight("w", {8, 2, 1, 1}, random_floats(16, 1));
  b.weight("bins", {1, 4, 1, 1}, weights);
  b.weight("apart", {4}, {0, 2, 4, 3}, pb::TensorProto::INT64);
  b.node("Conv", {"x", "w"}, {"y"});
  b.node("Reshape", {"y", "apart"}, {"r"});
  builder::ints(b.node("Transpose", {"r"}, {"t"}), "perm", {0, 2, 1, 3});
  builder::integer(b.node("Softmax", {"t"}, {"p"}), "axis", 1);
  auto& mean = b.node("Conv", {"p", "bins"}, {"z"});
  mean.set_name("my_mean");
  if (!attribute.empty()) builder::ints(mean, attribute, {2, 2});
  b.output("z");
  return b;
}

TEST(Partition, TheHostTakesTheMeanOfBins) {
  const network n = import(bins({0, 1, 2, 3}));
  ASSERT_TRUE(n.tail);
  EXPECT_EQ(n.card.output.name, "r");
  EXPECT_EQ(ops(n.tail), (strings{"Transpose", "Softmax", "Mul", "ReduceSum"}));
  std::vector<float> y(24, 0.0F);
  y[3 * 3 + 1] = std::log(5.0F);  // number 0, bin 3, pixel 1: 5 of 8
  const auto z = run_tail(*n.tail, y).at(0);
  EXPECT_EQ(z.dims, (fallback::shape{1, 1, 2, 3}));
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(z.values[i], i == 1 ? (1 + 2 + 5 * 3) / 8.0 : 1.5, 1e-6) << i;
  }
}

TEST(Partition, NoLayerWithOtherWeightsRunsOnTheHost) {
  for (const builder& b : {bins({0, 1, 2, 4}), bins({1, 2, 3, 4}), bins({0, 1, 2, 3}, "strides")}) {
    expect_refusal([&] { import(b); }, errc::unsupported_model,
                   {"my_Softmax", "intermediate activations never leave the chip"});
  }
}

TEST(Partition, JsonKeepsTheGraphAndChecksIt) {
  builder b = layer();
  b.weight("s", {1, 3}, {0.1F, 3e-30F, 7});
  b.node("LogSoftmax", {"y"}, {"p"});
  b.node("Mul", {"p", "s"}, {"z"});
  b.output("z");
  const fallback::host_graph g = *import(b).tail;
  const auto j = nlohmann::json::parse(fallback::to_json(g).dump());
  const fallback::host_graph read = fallback::from_json(j, "header");
  EXPECT_EQ(fallback::to_json(read), fallback::to_json(g));
  EXPECT_EQ(run_tail(read, std::vector<float>{1, 2, 3}).at(0).values,
            run_tail(g, std::vector<float>{1, 2, 3}).at(0).values);
  const auto changed = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json bad = j;
    change(bad);
    expect_refusal([&] { fallback::from_json(bad, "header"); }, errc::bad_file, {"header"});
  };
  changed([](auto& v) { v["version"] = 2; });
  changed([](auto& v) { v["nodes"] = 7; });
  changed([](auto& v) { v["nodes"].clear(); });
  changed([](auto& v) { v["nodes"][0]["op"] = "MatMul"; });
  changed([](auto& v) { v["nodes"][0]["inputs"][0] = "none"; });
  changed([](auto& v) { v["nodes"][0]["attributes"]["axis"] = 9; });
  changed([](auto& v) { v["nodes"][0]["attributes"]["axis"] = {{"a", 1}}; });
  changed([](auto& v) { v["nodes"][1]["outputs"][0] = "p"; });
  changed([](auto& v) { v["constants"]["s"]["values"].push_back(1); });
  changed([](auto& v) { v["constants"]["s"]["values"][0] = nullptr; });
  changed([](auto& v) { v["constants"]["s"]["shape"] = {1, 1 << 30, 1 << 30}; });
  changed([](auto& v) { v["input"]["shape"] = {1, -3}; });
  changed([](auto& v) { v["input"]["type"] = "f64"; });
  changed([](auto& v) { v["outputs"][0] = "none"; });
  changed([](auto& v) { v.erase("opset"); });
}

// ---- ONNX's operator tests ----

struct outcome {
  bool passed = false;
  std::string why;
};

fallback::tensor tensor_of(const pb::TensorProto& t) {
  fallback::tensor out;
  out.dims.assign(t.dims().begin(), t.dims().end());
  const auto n = static_cast<std::size_t>(fallback::elements(out.dims));
  const auto take = [&](auto sample, const auto& field) {
    using T = decltype(sample);
    if (t.raw_data().empty() && static_cast<std::size_t>(field.size()) != n) {
      throw error(errc::unsupported_model, "the case holds its values in another way");
    }
    for (std::size_t i = 0; i < n; ++i) {
      T v{};
      if (!t.raw_data().empty()) {
        std::memcpy(&v, t.raw_data().data() + i * sizeof(T), sizeof(T));
      } else {
        v = static_cast<T>(field.Get(static_cast<int>(i)));
      }
      out.values.push_back(static_cast<double>(v));
    }
  };
  switch (t.data_type()) {
    case pb::TensorProto::FLOAT:
      take(float{}, t.float_data());
      break;
    case pb::TensorProto::INT64:
      out.type = fallback::element::i64;
      take(std::int64_t{}, t.int64_data());
      break;
    case pb::TensorProto::UINT8:
      out.type = fallback::element::u8;
      take(std::uint8_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT32:
      out.type = fallback::element::i32;
      take(std::int32_t{}, t.int32_data());
      break;
    case pb::TensorProto::BOOL:
      out.type = fallback::element::boolean;
      take(std::uint8_t{}, t.int32_data());
      break;
    default:
      throw error(errc::unsupported_model, "the case holds another type");
  }
  return out;
}

template <typename Message>
Message load(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  Message m;
  if (!m.ParseFromString(bytes)) throw error(errc::bad_file, file.string());
  return m;
}

outcome run_case(const fs::path& folder) {
  const auto model = load<pb::ModelProto>(folder / "model.onnx");
  const auto& n = model.graph().node(0);
  fallback::node node;
  node.name = n.name();
  node.op = n.op_type();
  node.inputs.assign(n.input().begin(), n.input().end());
  node.outputs.assign(n.output().begin(), n.output().end());
  for (const auto& a : n.attribute()) {
    if (a.type() == pb::AttributeProto::INT) node.attributes[a.name()] = a.i();
    if (a.type() == pb::AttributeProto::FLOAT) node.attributes[a.name()] = a.f();
    if (a.type() == pb::AttributeProto::STRING) node.attributes[a.name()] = a.s();
    if (a.type() == pb::AttributeProto::INTS) {
      node.attributes[a.name()] = longs(a.ints().begin(), a.ints().end());
    }
  }
  const fs::path data = folder / "test_data_set_0";
  std::vector<fallback::tensor> inputs;
  std::size_t file = 0;
  for (const std::string& name : node.inputs) {
    inputs.push_back(name.empty() ? fallback::tensor{}
                                  : tensor_of(load<pb::TensorProto>(
                                        data / ("input_" + std::to_string(file++) + ".pb"))));
  }
  fallback::call c{node, static_cast<int>(model.opset_import(0).version()), {}, {}};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    c.in.push_back(node.inputs[i].empty() ? nullptr : &inputs[i]);
  }
  fallback::execute(c);
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const auto want =
        tensor_of(load<pb::TensorProto>(data / ("output_" + std::to_string(o) + ".pb")));
    const auto& got = c.out.at(o);
    if (got.dims != want.dims || got.type != want.type) {
      return {false,
              "shape " + fallback::text(got.dims) + ", expected " + fallback::text(want.dims)};
    }
    for (std::size_t i = 0; i < want.values.size(); ++i) {
      const double e = want.values[i];
      if (!(std::abs(got.values[i] - e) <= 1e-5 * std::max(1.0, std::abs(e)))) {
        return {false, "value " + std::to_string(i) + " is " + std::to_string(got.values[i]) +
                           ", expected " + std::to_string(e)};
      }
    }
  }
  return {true, {}};
}

TEST(HostOperators, PassOnnxsOwnTests) {
  const fs::path root = LATCHKEY_ONNX_TESTDATA;
  if (!fs::is_directory(root)) GTEST_SKIP() << "install libonnx-testdata to run the operator tests";
  std::map<std::string, int> passed;
  int refused = 0;
  int total = 0;
  int failed = 0;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (!fs::exists(entry.path() / "model.onnx")) continue;
    const auto model = load<pb::ModelProto>(entry.path() / "model.onnx");
    if (model.graph().node_size() != 1 || model.opset_import_size() != 1) continue;
    const auto& n = model.graph().node(0);
    if (!fallback::supports(n.op_type()) || !n.domain().empty()) continue;
    // Training, sequences and the like are no tensors of one node.
    const std::int64_t opset = model.opset_import(0).version();
    static const std::set<std::string> as_ever = {"And", "Concat", "Flatten", "Not", "Or"};
    if (opset < kMinOpset && as_ever.count(n.op_type()) == 0) continue;
    ++total;
    try {
      const outcome r = run_case(entry.path());
      passed[n.op_type()] += r.passed ? 1 : 0;
      if (!r.passed) {
        ++failed;
        ADD_FAILURE() << entry.path().filename() << ": " << r.why;
      }
    } catch (const error& e) {
      ++refused;
      std::printf("  refused %s: %s\n", entry.path().filename().c_str(), e.what());
    }
  }
  int sum = 0;
  for (const auto& [op, n] : passed) sum += n;
  std::printf("host operators: %d cases of ONNX, %d passed, %d refused, %d failed\n", total, sum,
              refused, failed);
  // Every operator that moves or compares has at least one of ONNX's cases behind it.
  EXPECT_EQ(passed["DynamicQuantizeLinear"], 3);
  for (const char* op : {"Add",       "And",         "ArgMax",     "ArgMin",    "Clip",
                         "Concat",    "Div",         "Dropout",    "Equal",     "Expand",
                         "Flatten",   "Gather",      "Greater",    "Less",      "GreaterOrEqual",
                         "Max",       "LessOrEqual", "LogSoftmax", "Min",       "Mul",
                         "Not",       "Or",          "Pow",        "Range",     "ReduceL2",
                         "ReduceMax", "ReduceMean",  "ReduceMin",  "ReduceSum", "Reshape",
                         "Resize",    "Shape",       "Slice",      "Softmax",   "Split",
                         "Squeeze",   "Sub",         "Tile",       "TopK",      "Transpose",
                         "Unsqueeze", "Where"}) {
    EXPECT_GT(passed[op], 0) << op;
  }
}

}  // namespace
}  // namespace latchkey::model
