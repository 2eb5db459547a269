// Constants that the file computes: ONNX's own operator tests with their inputs stored, what
// follows from the shapes of computed tensors, and the open batch.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <sstream>

#include "model/importer.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

namespace fs = std::filesystem;

constexpr errc kNo = errc::unsupported_model;

floats run(const fgraph& g, const floats& x) {
  float_executor e(g);
  const auto y = e.infer(x);
  return {y.begin(), y.end()};
}

importer::constants constants_of(const pb::ModelProto& model) {
  return importer(model, "test.onnx", {}).fold_all();
}

pb::TensorProto stored(const fs::path& file) {
  pb::TensorProto t;
  if (!parse(read_file(file), t)) throw error(errc::bad_file, file.string());
  return t;
}

/// Why a case of ONNX differs; empty if it does not. Throws what the importer refuses.
std::string folded_case(const fs::path& folder) {
  pb::ModelProto model;
  if (!parse(read_file(folder / "model.onnx"), model)) return "cannot be read";
  pb::GraphProto& g = *model.mutable_graph();
  const fs::path data = folder / "test_data_set_0";
  for (int i = 0; i < g.input_size(); ++i) {
    auto& t = *g.add_initializer();
    t = stored(data / ("input_" + std::to_string(i) + ".pb"));
    t.set_name(g.input(i).name());
  }
  g.clear_input();
  const auto constants = constants_of(model);
  for (int o = 0; o < g.output_size(); ++o) {
    const auto found = constants.find(g.output(o).name());
    if (found == constants.end()) throw error(kNo, "is not computed");
    constant want = read_constant(stored(data / ("output_" + std::to_string(o) + ".pb")), "output");
    if (want.type == pb::TensorProto::DOUBLE) want.type = pb::TensorProto::FLOAT;  // the host's
    const constant& got = *found->second;
    if (got.dims != want.dims || got.type != want.type) {
      return list_text(got.dims) + " of " + type_name(got.type) + ", expected " +
             list_text(want.dims) + " of " + type_name(want.type);
    }
    for (std::size_t i = 0; i < want.values.size(); ++i) {
      const double e = want.values[i], close = got.integral() ? 0 : 1e-6;
      if (!(std::abs(got.values[i] - e) <= close * std::max(1.0, std::abs(e)))) {
        return "value " + std::to_string(i) + " is " + std::to_string(got.values[i]) +
               ", expected " + std::to_string(e);
      }
    }
  }
  return {};
}

TEST(Folding, PassesOnnxsOwnTests) {
  const fs::path root = LATCHKEY_ONNX_TESTDATA;
  if (!fs::is_directory(root)) GTEST_SKIP() << "install libonnx-testdata to run the operator tests";
  std::map<std::string, int> passed;
  int refused = 0;
  for (const auto& entry : fs::directory_iterator(root)) {
    pb::ModelProto model;
    if (!fs::exists(entry.path() / "model.onnx") ||
        !parse(read_file(entry.path() / "model.onnx"), model)) {
      continue;
    }
    const std::int64_t opset = model.opset_import(0).version();
    if (model.graph().node_size() != 1 || opset < kMinOpset || opset > kMaxOpset) continue;
    try {
      const std::string why = folded_case(entry.path());
      EXPECT_EQ(why, "") << entry.path().filename();
      passed[model.graph().node(0).op_type()] += why.empty() ? 1 : 0;
    } catch (const error&) {
      ++refused;
    }
  }
  int sum = 0;
  for (const auto& [op, n] : passed) sum += n;
  std::printf("folding: %d cases of ONNX passed, %d are not folded\n", sum, refused);
  std::istringstream folded(
      "Add Clip Concat ConstantOfShape Div Equal Expand Floor Gather Greater GreaterOrEqual Less "
      "LessOrEqual Max Min Mul Pow Range ReduceMax Reshape Shape Sigmoid Slice Split Sqrt Squeeze "
      "Sub Sum Tile TopK Transpose Unsqueeze Where");
  for (std::string op; folded >> op;) {
    EXPECT_GT(passed[op], 0) << op;
  }
}

/// A detector's grid for a map of `c` channels: the centre of every pixel, rows and columns, times
/// the stride, added to the map. Exporters trace it from the map's shape.
builder grid(std::int64_t batch) {
  builder b;
  b.input("x", {batch, 2, 3, 4}).output("y");
  b.weight("w", {2, 2, 1, 1}, {1, 0, 0, 1});
  b.weight("zero", {}, {0}, pb::TensorProto::INT64);
  b.weight("one", {}, {1}, pb::TensorProto::INT64);
  b.weight("two", {}, {2}, pb::TensorProto::INT64);
  b.weight("three", {}, {3}, pb::TensorProto::INT64);
  b.weight("none", {}, {0});
  b.weight("step", {}, {1});
  b.weight("half", {}, {0.5F});
  b.weight("stride", {}, {8});
  b.weight("column", {2}, {-1, 1}, pb::TensorProto::INT64);
  b.weight("row", {2}, {1, -1}, pb::TensorProto::INT64);
  b.weight("front", {1}, {0}, pb::TensorProto::INT64);
  b.node("Conv", {"x", "w"}, {"c"});
  b.node("Shape", {"c"}, {"s"});
  const auto centres = [&](const std::string& axis, const std::string& at, const char* as) {
    b.node("Gather", {"s", at}, {axis});
    builder::integer(b.node("Cast", {axis}, {axis + "f"}), "to", pb::TensorProto::FLOAT);
    b.node("Range", {"none", axis + "f", "step"}, {axis + "r"});
    b.node("Add", {axis + "r", "half"}, {axis + "c"});
    b.node("Shape", {axis + "c"}, {axis + "n"});
    b.node("Reshape", {axis + "c", as}, {axis + "p"});
  };
  centres("h", "two", "column");
  centres("v", "three", "row");
  builder::integer(b.node("Concat", {"hn", "vn"}, {"plane"}), "axis", 0);
  for (const std::string axis : {"v", "h"}) {
    b.node("Expand", {axis + "p", "plane"}, {axis + "e"});
    b.node("Unsqueeze", {axis + "e", "front"}, {axis + "u"});
  }
  builder::integer(b.node("Concat", {"vu", "hu"}, {"centre"}), "axis", 0);
  b.node("Unsqueeze", {"centre", "front"}, {"point"});
  b.node("Mul", {"point", "stride"}, {"anchor"});
  b.node("Add", {"c", "anchor"}, {"y"});
  return b;
}

TEST(Folding, FollowsShapesOfComputedTensors) {
  // With a batch of 3, which is the number of rows as well, too.
  for (const std::int64_t batch : {-1, 1, 3}) {
    const floats x = random_floats(24, 1);
    const floats y = run(grid(batch).import(), x);
    for (std::size_t i = 0; i < 24; ++i) {
      const std::size_t row = i % 12 / 4, column = i % 4;
      const float centre = static_cast<float>(i < 12 ? column : row) + 0.5F;
      EXPECT_FLOAT_EQ(y[i], x[i] + 8 * centre) << i;
    }
  }
}

/// Nodes that compute with the batch of an input, N x 2 x 3 x 4.
builder with_batch(const std::function<void(builder&)>& add) {
  builder b;
  b.input("x", {-1, 2, 3, 4}).output("y");
  b.weight("first", {1}, {0}, pb::TensorProto::INT64);
  b.weight("next", {1}, {1}, pb::TensorProto::INT64);
  b.node("Shape", {"x"}, {"s"});
  b.node("Gather", {"s", "first"}, {"n"});
  add(b);
  b.node("Relu", {"x"}, {"y"});
  return b;
}

double computed(const builder& b, const std::string& name) {
  builder all = b;
  all.output(name);
  const auto constants = constants_of(all.model);
  const auto found = constants.find(name);
  return found == constants.end() || found->second->values.size() != 1
             ? std::numeric_limits<double>::infinity()
             : found->second->values[0];
}

TEST(Folding, TheOpenBatchStaysOpen) {
  const auto of = [](const std::function<void(builder&)>& add) {
    return computed(with_batch(add), "r");
  };
  EXPECT_TRUE(std::isnan(of([](builder& b) { b.node("Add", {"n", "n"}, {"r"}); })));
  EXPECT_TRUE(std::isnan(of([](builder& b) { b.node("Equal", {"n", "next"}, {"r"}); })));
  EXPECT_TRUE(std::isnan(of([](builder& b) {
    b.node("Equal", {"n", "next"}, {"e"});
    b.node("Where", {"e", "first", "next"}, {"r"});
  })));
  EXPECT_TRUE(std::isnan(of([](builder& b) {
    builder::integer(b.node("Cast", {"n"}, {"r"}), "to", pb::TensorProto::INT32);
  })));
  // What it is the same for every batch is known.
  EXPECT_EQ(of([](builder& b) { b.node("Sub", {"n", "n"}, {"r"}); }), 0);
  EXPECT_EQ(of([](builder& b) { b.node("Less", {"n", "next"}, {"r"}); }), 0);
  EXPECT_EQ(of([](builder& b) { b.node("Max", {"first", "next"}, {"r"}); }), 1);
}

TEST(Folding, RefusesWhatHasNoValue) {
  const auto refused = [](const std::function<void(builder&)>& add, const strings& parts) {
    builder b = with_batch(add);
    b.graph().mutable_output(0)->set_name("z");
    b.node("Add", {"x", "r"}, {"z"});
    expect_refusal([&] { b.import(); }, kNo, parts);
  };
  const auto weight = [](builder& b, const longs& dims, const floats& values) {
    b.weight("k", dims, values);
  };
  refused([](builder& b) { b.node("ConstantOfShape", {"n"}, {"r"}); },
          {"my_ConstantOfShape", "follows from the open batch"});
  refused([](builder& b) { b.node("Div", {"next", "first"}, {"r"}); },
          {"my_Div", "(1, 1)", "divides an integer by zero"});
  refused(
      [&](builder& b) {
        weight(b, {2, 3}, random_floats(6, 1));
        b.weight("l", {2, 2}, random_floats(4, 1));
        b.node("Mul", {"k", "l"}, {"r"});
      },
      {"my_Mul", "(2 x 3, 2 x 2)", "do not broadcast"});
  refused(
      [&](builder& b) {
        weight(b, {2}, {1, -1});
        b.node("Sqrt", {"k"}, {"r"});
      },
      {"my_Sqrt", "no number"});
  refused(
      [&](builder& b) {
        weight(b, {1}, {std::nanf("")});
        b.node("Neg", {"k"}, {"r"});
      },
      {"my_Neg", "no number"});
  refused(
      [&](builder& b) {
        b.weight("k", {2}, {1 << 13, 1 << 13}, pb::TensorProto::INT64);
        b.node("ConstantOfShape", {"k"}, {"r"});
      },
      {"my_ConstantOfShape", "8192 x 8192", "16777216 elements"});
  refused(
      [&](builder& b) {
        b.weight("k", {}, {0}, pb::TensorProto::INT64);
        b.weight("l", {}, {1e9F}, pb::TensorProto::INT64);
        b.weight("m", {}, {1}, pb::TensorProto::INT64);
        b.node("Range", {"k", "l", "m"}, {"r"});
      },
      {"my_Range", "16777216 elements"});
}

}  // namespace
}  // namespace latchkey::model
