// The importer and the quantiser on small models written here: what they accept, what they refuse
// and how, and that no file makes them crash.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <string>

#include "latchkey/error.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

/// x -> Conv(w) -> y on 1 x 2 x 5 x 5, three output channels.
builder conv_model(int opset = 13) {
  builder b(opset);
  b.input("x", {-1, 2, 5, 5}).output("y");
  b.weight("w", {3, 2, 3, 3}, random_floats(54, 1));
  b.node("Conv", {"x", "w"}, {"y"});
  return b;
}

// ---- What is accepted ----

TEST(Import, FoldsBatchNormalisationReluAndConstants) {
  builder b;
  b.input("x", {-1, 2, 6, 6}).output("y");
  b.weight("w", {3, 2, 3, 3}, random_floats(54, 2)).name();
  b.weight("b", {3}, {0.1F, -0.2F, 0.3F});
  b.weight("s", {3}, {1.5F, -0.5F, 2.0F});
  b.weight("t", {3}, {0.5F, 0.0F, -0.5F});
  b.weight("m", {3}, {0.1F, 0.2F, 0.3F});
  b.weight("v", {3}, {1.0F, 0.25F, 4.0F});
  b.weight("k", {1, 3, 1, 1}, {2.0F, 3.0F, 4.0F});
  b.weight("half", {}, {0.5F});
  b.node("Conv", {"x", "w", "b"}, {"c"});
  b.node("BatchNormalization", {"c", "s", "t", "m", "v"}, {"n"});
  b.node("Mul", {"n", "k"}, {"p"});
  b.node("Sub", {"p", "half"}, {"q"});
  b.node("Relu", {"q"}, {"y"});
  const fgraph g = b.import();
  ASSERT_EQ(g.nodes.size(), 1U);
  EXPECT_TRUE(g.remarks.empty());
  EXPECT_EQ(g.tensors.size(), 2U);
  EXPECT_EQ(g.tensors[static_cast<std::size_t>(g.output.tensor)].name, "y");

  // The same by hand, from an unfolded convolution.
  builder plain;
  plain.input("x", {-1, 2, 6, 6}).output("c");
  plain.weight("w", {3, 2, 3, 3}, random_floats(54, 2));
  plain.weight("b", {3}, {0.1F, -0.2F, 0.3F});
  plain.node("Conv", {"x", "w", "b"}, {"c"});
  float_executor folded(g);
  float_executor conv(plain.import());
  const floats x = random_floats(72, 3);
  const auto y = folded.infer(x);
  const auto c = conv.infer(x);
  const float s[] = {1.5F, -0.5F, 2.0F}, t[] = {0.5F, 0, -0.5F}, m[] = {0.1F, 0.2F, 0.3F},
              v[] = {1.0F, 0.25F, 4.0F}, k[] = {2.0F, 3.0F, 4.0F};
  ASSERT_EQ(y.size(), 48U);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t o = i / 16;
    const float n = (c[i] - m[o]) / std::sqrt(v[o] + 1e-5F) * s[o] + t[o];
    ASSERT_NEAR(y[i], std::max(n * k[o] - 0.5F, 0.0F), 1e-5F) << i;
  }
}

/// x -> Conv -> Reshape to what `head` and `tail` join, as exporters that trace shapes write it.
builder traced(const strings& nodes_of_head) {
  builder b;
  b.input("x", {-1, 2, -1, -1}).output("y");
  b.weight("w", {3, 2, 1, 1}, random_floats(6, 1));
  b.weight("zero", {1}, {0}, pb::TensorProto::INT64);
  b.weight("one", {1}, {1}, pb::TensorProto::INT64);
  b.weight("four", {1}, {4}, pb::TensorProto::INT64);
  b.weight("two", {1}, {2}, pb::TensorProto::INT32);
  b.weight("rest", {1}, {-1}, pb::TensorProto::INT32);
  b.weight("third", {}, {2}, pb::TensorProto::INT64);
  b.weight("minus", {1}, {-1}, pb::TensorProto::INT64);
  b.node("Conv", {"x", "w"}, {"c"});
  b.node("Shape", {"c"}, {"s64"});
  builder::integer(b.node("Cast", {"s64"}, {"s32"}), "to", pb::TensorProto::INT32);
  b.node("Slice", {"s32", "zero", "one"}, {"batch"});
  b.node("Gather", {"s32", "third"}, {"rows"});
  builder::ints(b.node("Unsqueeze", {"rows", "zero"}, {"h"}), "unused", {});
  b.node("Slice", {"s32", "minus", "four"}, {"w32"});
  b.node("Mul", {"h", "w32"}, {"area"});
  b.node("Div", {"area", "two"}, {"half"});
  b.node("Add", {"half", "half"}, {"whole"});
  builder::integer(b.node("Concat", nodes_of_head, {"s"}), "axis", 0);
  builder::integer(b.node("Cast", {"s"}, {"shape"}), "to", pb::TensorProto::INT64);
  b.node("Reshape", {"c", "shape"}, {"y"});
  return b;
}

TEST(Import, ComputesShapesThatTheFileTraces) {
  const builder b = traced({"batch", "rest"});
  import_options how;
  how.input_shape = {2, 4, 6};
  const fgraph g = import_onnx(b.bytes(), "test.onnx", how);
  EXPECT_EQ(g.output.dims, (std::vector<int>{72}));
  const ftensor& x = g.tensors[static_cast<std::size_t>(g.inputs.at(0).tensor)];
  EXPECT_EQ((std::array{x.c, x.h, x.w}), (std::array{2, 4, 6}));
  // 4 * 6 / 2 * 2 = 24 pixels, behind the batch.
  builder three = traced({"batch", "whole", "rest"});
  EXPECT_THAT([&] { import_onnx(three.bytes(), "test.onnx", how); },
              ::testing::ThrowsMessage<error>(HasSubstr("[0, 24, -1]")));
}

TEST(Import, RefusesShapesThatMoveTheBatch) {
  import_options how;
  how.input_shape = {2, 4, 6};
  for (const strings& sizes : {strings{"rest", "batch"}, strings{"two", "batch"}}) {
    EXPECT_THAT([&] { import_onnx(traced(sizes).bytes(), "test.onnx", how); },
                ::testing::ThrowsMessage<error>(HasSubstr("moves the batch")));
  }
}

TEST(Import, BindsOpenSizesOfTheInputAndNoOthers) {
  import_options how;
  EXPECT_THAT([&] { import_onnx(traced({"batch", "rest"}).bytes(), "test.onnx", how); },
              ::testing::ThrowsMessage<error>(HasSubstr("--input-shape")));
  how.input_shape = {3, 4, 6};
  EXPECT_THAT([&] { import_onnx(traced({"batch", "rest"}).bytes(), "test.onnx", how); },
              ::testing::ThrowsMessage<error>(HasSubstr("dimension 1 is 2, not 3")));
  how.input_shape = {2, 4};
  EXPECT_THAT([&] { import_onnx(traced({"batch", "rest"}).bytes(), "test.onnx", how); },
              ::testing::ThrowsMessage<error>(HasSubstr("3 dimensions behind the batch")));
}

TEST(Import, TakesConstantNodesAndClipAttributesOfOldFiles) {
  builder b(9);
  b.input("x", {-1, 4}).output("y");
  auto& w = b.node("Constant", {}, {"w"});
  auto* a = w.add_attribute();
  a->set_name("value");
  builder::fill(*a->mutable_t(), {4, 2}, {1, -1, 1, -1, 1, -1, 1, -1}, pb::TensorProto::FLOAT);
  b.node("MatMul", {"x", "w"}, {"m"});
  auto& clip = b.node("Clip", {"m"}, {"y"});
  builder::real(clip, "min", 0.0F);
  builder::real(clip, "max", 6.0F);
  float_executor e(b.import());
  EXPECT_EQ(e.graph().nodes.size(), 1U);
  EXPECT_THAT(e.infer(floats{1, 2, 3, 4}), ::testing::ElementsAre(6.0F, 0.0F));
  EXPECT_THAT(e.infer(floats{1, 2, 0, 0}), ::testing::ElementsAre(3.0F, 0.0F));
}

TEST(Import, IgnoresWhatTheOutputDoesNotNeed) {
  builder b = conv_model();
  b.node("Softmax", {"y"}, {"unused"});
  EXPECT_EQ(b.import().nodes.size(), 1U);
}

TEST(Import, MovesReluAcrossMaxPool) {
  builder b = conv_model();
  b.graph().mutable_output(0)->set_name("z");
  builder::ints(b.node("MaxPool", {"y"}, {"p"}), "kernel_shape", {2, 2});
  b.node("Relu", {"p"}, {"z"});
  const fgraph g = b.import();
  ASSERT_EQ(g.nodes.size(), 2U);
  EXPECT_EQ(std::get<fconv>(g.nodes[0].op).clip.lo, 0.0F);
}

TEST(Import, MakesATableOfReluThatOthersMustNotSee) {
  builder b = conv_model();
  b.graph().mutable_output(0)->set_name("z");
  b.node("Relu", {"y"}, {"r"});
  b.node("Add", {"y", "r"}, {"z"});
  const fgraph g = b.import();
  ASSERT_EQ(g.nodes.size(), 2U);
  EXPECT_TRUE(std::holds_alternative<ftable>(g.nodes[1].op));
  float_executor e(g);
  float_executor conv(conv_model().import());
  const floats x = random_floats(50, 5);
  const auto z = e.infer(x);
  const auto y = conv.infer(x);
  for (std::size_t i = 0; i < z.size(); ++i) {
    ASSERT_NEAR(z[i], y[i] + std::max(y[i], 0.0F), 1e-6F);
  }
}

TEST(Import, ShapesAFlatInput) {
  builder b;
  b.input("x", {-1, 50}).output("y");
  b.weight("shape", {4}, {0, 2, 5, 5}, pb::TensorProto::INT64);
  b.weight("w", {3, 2, 3, 3}, random_floats(54, 1));
  b.node("Reshape", {"x", "shape"}, {"r"});
  b.node("Conv", {"r", "w"}, {"y"});
  const fgraph g = b.import();
  EXPECT_EQ(g.inputs[0].dims, std::vector<int>{50});
  EXPECT_EQ(g.tensors[static_cast<std::size_t>(g.inputs[0].tensor)].h, 5);
  float_executor e(g);
  float_executor direct(conv_model().import());
  const floats x = random_floats(50, 6);
  const auto a = e.infer(x);
  const auto c = direct.infer(x);
  EXPECT_EQ(floats(a.begin(), a.end()), floats(c.begin(), c.end()));
}

TEST(Import, BindsGraphInputsToFiles) {
  builder b;
  b.input("x", {-1, 2}).input("w", {2, 1}).output("y");
  b.node("MatMul", {"x", "w"}, {"y"});
  pb::TensorProto t;
  builder::fill(t, {2, 1}, {3, 4}, pb::TensorProto::FLOAT);
  const auto path = std::filesystem::temp_directory_path() /
                    ("latchkey_bound_" + std::to_string(::getpid()) + ".pb");
  std::ofstream(path, std::ios::binary) << t.SerializeAsString();
  import_options options;
  options.constants["w"] = path;
  float_executor e(import_onnx(b.bytes(), "test.onnx", options));
  std::filesystem::remove(path);
  EXPECT_THAT(e.infer(floats{1, 2}), ::testing::ElementsAre(11.0F));
  expect_refusal([&] { import_onnx(b.bytes(), "test.onnx", options); }, errc::bad_file,
                 {path.string(), "cannot be opened"});
  expect_refusal([&] { b.import(); }, errc::unsupported_model, {"my_MatMul", "must be constant"});
}

TEST(Import, ReadsNewerIrVersionsOfKnownOperators) {
  builder b = conv_model(17);
  b.model.set_ir_version(10);
  const fgraph g = b.import();
  ASSERT_EQ(g.remarks.size(), 1U);
  EXPECT_THAT(g.remarks[0], HasSubstr("IR version 10"));
}

// ---- Quantised files ----

/// u8 x -> QLinearConv 1x1 -> u8 y with the given weights.
builder qlinear(const floats& w, int type, float zero) {
  builder b;
  b.input("x", {-1, 2, 2, 2}, pb::TensorProto::UINT8).output("y");
  b.weight("xs", {}, {0.5F});
  b.weight("xz", {}, {10}, pb::TensorProto::UINT8);
  b.weight("w", {2, 2, 1, 1}, w, type);
  b.weight("ws", {2}, {0.25F, 0.125F});
  b.weight("wz", {}, {zero}, type);
  b.weight("ys", {}, {2.0F});
  b.weight("yz", {}, {7}, pb::TensorProto::UINT8);
  b.weight("b", {2}, {100, -30}, pb::TensorProto::INT32);
  b.node("QLinearConv", {"x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"}, {"y"});
  return b;
}

TEST(Quantised, UnsignedWeightsAround128EqualSignedOnes) {
  const qgraph s = quantise(qlinear({-127, 127, 5, -1}, pb::TensorProto::INT8, 0).import(), {});
  const qgraph u = quantise(qlinear({1, 255, 133, 127}, pb::TensorProto::UINT8, 128).import(), {});
  const auto& a = std::get<qconv>(s.nodes.at(0).op);
  const auto& b = std::get<qconv>(u.nodes.at(0).op);
  EXPECT_EQ(a.weights, (std::vector<std::int8_t>{-127, 127, 5, -1}));
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.bias, (std::vector<std::int32_t>{100, -30}));
  EXPECT_EQ(s.input.type, io_type::u8);
  EXPECT_EQ(s.output_tensor().zero_point, 7);
  // By hand: channel 0, x = (20, 30): (10 * -127 + 20 * 127 + 100) * .5 * .25 / 2 + 7
  reference golden(s);
  const auto y = golden.infer(std::vector<std::uint8_t>{20, 20, 20, 20, 30, 30, 30, 30});
  EXPECT_EQ(y[0], 93);  // 1370 / 16 = 85.625 -> 86, + 7
  EXPECT_EQ(y[4], 7);   // (50 - 20 - 30) / 32 = 0
}

TEST(Quantised, WeightsThatInt8CannotHoldAreRefusedAndCounted) {
  expect_refusal([] { qlinear({0, 255, 133, 127}, pb::TensorProto::UINT8, 128).import(); },
                 errc::unsupported_model,
                 {"my_QLinearConv", "1 of 4 weights", "-128", "[-127, 127]"});
  expect_refusal([] { qlinear({0, 10, 20, 30}, pb::TensorProto::UINT8, 255).import(); },
                 errc::unsupported_model, {"4 of 4 weights"});
}

/// float x -> Q -> DQ -> Gemm(DQ(w)) [-> Relu] -> Q -> DQ -> y.
builder qdq(int type, bool relu, float weight = -127) {
  const float shift = type == pb::TensorProto::INT8 ? -128.0F : 0.0F;
  builder b;
  b.input("x", {-1, 2}).output("y");
  b.weight("xs", {}, {0.1F});
  b.weight("xz", {}, {100 + shift}, type);
  b.weight("ys", {}, {0.2F});
  b.weight("yz", {}, {50 + shift}, type);
  b.weight("w", {2, 2}, {weight, 64, 32, 127}, pb::TensorProto::INT8);
  b.weight("ws", {2}, {0.01F, 0.02F});
  b.weight("wz", {2}, {0, 0}, pb::TensorProto::INT8);
  b.weight("b", {2}, {500, -500}, pb::TensorProto::INT32);
  b.weight("bs", {2}, {0.1F * 0.01F, 0.1F * 0.02F});
  b.weight("bz", {2}, {0, 0}, pb::TensorProto::INT32);
  b.node("QuantizeLinear", {"x", "xs", "xz"}, {"xq"});
  b.node("DequantizeLinear", {"xq", "xs", "xz"}, {"xd"});
  builder::integer(b.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}), "axis", 0);
  builder::integer(b.node("DequantizeLinear", {"b", "bs", "bz"}, {"bd"}), "axis", 0);
  builder::integer(b.node("Gemm", {"xd", "wd", "bd"}, {"g"}), "transB", 1);
  if (relu) b.node("Relu", {"g"}, {"r"});
  b.node("QuantizeLinear", {relu ? "r" : "g", "ys", "yz"}, {"yq"});
  b.node("DequantizeLinear", {"yq", "ys", "yz"}, {"y"});
  return b;
}

TEST(Quantised, QdqFilesKeepTheirIntegers) {
  for (const bool relu : {false, true}) {
    const qgraph u = quantise(qdq(pb::TensorProto::UINT8, relu).import(), {});
    ASSERT_EQ(u.nodes.size(), 1U);
    const auto& n = std::get<qconv>(u.nodes[0].op);
    EXPECT_EQ(n.weights, (std::vector<std::int8_t>{-127, 64, 32, 127}));
    EXPECT_EQ(n.bias, (std::vector<std::int32_t>{500, -500}));
    EXPECT_EQ(n.weight_scale, (floats{0.01F, 0.02F}));
    EXPECT_EQ(n.clamp_lo, relu ? 50 : 0);
    EXPECT_EQ(u.input.type, io_type::f32);
    // Signed activations are the same graph.
    const qgraph s = quantise(qdq(pb::TensorProto::INT8, relu).import(), {});
    EXPECT_EQ(s.input_tensor().zero_point, 100);
    EXPECT_EQ(s.output_tensor().zero_point, 50);
    reference a(u);
    reference b(s);
    for (int i = 0; i < 256; ++i) {
      const std::vector<std::uint8_t> x{static_cast<std::uint8_t>(i),
                                        static_cast<std::uint8_t>(255 - i)};
      ASSERT_EQ(a.run(x), b.run(x));
    }
  }
}

TEST(Quantised, QdqWeightsOutOfRangeAreQuantisedAgainWithARemark) {
  const fgraph g = qdq(pb::TensorProto::UINT8, false, -128).import();
  ASSERT_EQ(g.remarks.size(), 1U);
  EXPECT_THAT(g.remarks[0], HasSubstr("1 of 4 weights"));
  const qgraph q = quantise(g, {});
  const auto& n = std::get<qconv>(q.nodes.at(0).op);
  EXPECT_EQ(n.weights[0], -127);
  EXPECT_NEAR(n.weights[1], 64 * 127 / 128.0, 0.51);
}

TEST(Quantised, AChangeOfQuantisationBecomesALayer) {
  builder b;
  b.input("x", {-1, 3, 2, 2}).output("y");
  b.weight("s1", {}, {0.1F});
  b.weight("s2", {}, {0.3F});
  b.weight("z", {}, {20}, pb::TensorProto::UINT8);
  b.node("QuantizeLinear", {"x", "s1", "z"}, {"a"});
  b.node("DequantizeLinear", {"a", "s1", "z"}, {"b"});
  b.node("QuantizeLinear", {"b", "s2", "z"}, {"y"});
  const qgraph g = quantise(b.import(), {});
  ASSERT_EQ(g.nodes.size(), 1U);
  EXPECT_EQ(g.output.type, io_type::u8);
  reference golden(g);
  for (int v = 0; v < 256; ++v) {
    const auto y = golden.infer(std::vector<std::uint8_t>(12, static_cast<std::uint8_t>(v)));
    const double exact = (v - 20) * 0.1 / 0.3 + 20;
    ASSERT_NEAR(y[5], std::clamp(exact, 0.0, 255.0), 0.51) << v;
  }
}

TEST(Quantised, ContradictionsAreRefused) {
  builder b = qdq(pb::TensorProto::UINT8, false);
  b.weight("other", {}, {0.9F});
  b.graph().mutable_node(1)->set_input(1, "other");  // DQ with another scale than its Q.
  expect_refusal([&] { b.import(); }, errc::unsupported_model, {"DequantizeLinear", "0.9", "0.1"});
}

// ---- Quantising float graphs ----

std::vector<floats> random_images(std::size_t count, std::size_t size) {
  std::vector<floats> out;
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(random_floats(size, 100 + static_cast<std::uint32_t>(i)));
  }
  return out;
}

TEST(Quantise, ResidualBlockFollowsTheFloatGraph) {
  builder b;
  b.input("x", {-1, 4, 6, 6}).output("y");
  b.weight("w1", {4, 4, 3, 3}, random_floats(144, 21, 0.3F));
  b.weight("w2", {4, 4, 3, 3}, random_floats(144, 22, 0.3F));
  builder::ints(b.node("Conv", {"x", "w1"}, {"a"}), "pads", {1, 1, 1, 1});
  b.node("Relu", {"a"}, {"r"});
  builder::ints(b.node("Conv", {"r", "w2"}, {"c"}), "pads", {1, 1, 1, 1});
  b.node("Add", {"c", "x"}, {"s"});
  b.node("Relu", {"s"}, {"y"});
  const fgraph f = b.import();
  ASSERT_EQ(f.nodes.size(), 3U);
  const auto images = random_images(16, 144);
  const qgraph q = quantise(f, images);
  const auto& add = std::get<qadd>(q.nodes[2].op);
  EXPECT_EQ(add.clamp_lo, q.output_tensor().zero_point);
  reference golden(q);
  float_executor exact(f);
  double worst = 0;
  for (const floats& image : images) {
    const auto got = dequantise_output(q, golden.infer(quantise_input(q, image)));
    const auto want = exact.infer(image);
    for (std::size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, static_cast<double>(std::abs(got[i] - want[i])));
    }
    // The addition itself: within one step of its own operands.
    const auto& v = golden.run(quantise_input(q, image));
    const qnode& n = q.nodes[2];
    const auto ia = static_cast<std::size_t>(n.inputs[0]);
    const auto ib = static_cast<std::size_t>(n.inputs[1]);
    const auto iy = static_cast<std::size_t>(n.output);
    for (std::size_t i = 0; i < v[iy].size(); ++i) {
      const double sum =
          (v[ia][i] - q.tensors[ia].zero_point) * static_cast<double>(q.tensors[ia].scale) +
          (v[ib][i] - q.tensors[ib].zero_point) * static_cast<double>(q.tensors[ib].scale);
      const double t = std::clamp(
          std::max(sum, 0.0) / q.tensors[iy].scale + q.tensors[iy].zero_point, 0.0, 255.0);
      ASSERT_NEAR(v[iy][i], t, 0.52);
    }
  }
  EXPECT_LT(worst, 6 * q.output_tensor().scale);
}

TEST(Quantise, ChannelsWithoutWeightsKeepTheirBias) {
  builder b;
  b.input("x", {-1, 2}).output("y");
  b.weight("w", {2, 3}, {0, 1e-12F, 1, 0, 1e-12F, -1});
  b.weight("b", {3}, {5.0F, -5.0F, 0.5F});
  b.node("Gemm", {"x", "w", "b"}, {"y"});
  const fgraph f = b.import();
  const qgraph q = quantise(f, random_images(8, 2));
  reference golden(q);
  float_executor exact(f);
  for (const floats& image : random_images(8, 2)) {
    const auto got = dequantise_output(q, golden.infer(quantise_input(q, image)));
    const auto want = exact.infer(image);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(got[i], want[i], 1.5 * q.output_tensor().scale);
  }
}

TEST(Quantise, RefusesWhatItCannotCalibrate) {
  const fgraph g = conv_model().import();
  expect_refusal([&] { quantise(g, {}); }, errc::usage, {"calibration images"});
  expect_refusal([&] { quantise(g, {floats(49)}); }, errc::mismatch, {"50", "49"});
  expect_refusal([&] { quantise(g, {floats(50, std::nanf(""))}); }, errc::unsupported_model,
                 {"nan"});
  expect_refusal([&] { quantise(g, {floats(50, 3e38F)}); }, errc::unsupported_model, {"inf"});
  quantise_options options;
  options.method = calibration::percentile;
  for (const double p : {0.0, 50.0, 101.0, std::nan("")}) {
    options.percentile = p;
    expect_refusal([&] { quantise(g, {floats(50, 1.0F)}, options); }, errc::usage, {"percentile"});
  }
  builder two;
  two.input("a", {-1, 2}).input("b", {-1, 2}).output("y");
  two.node("Add", {"a", "b"}, {"y"});
  expect_refusal([&] { quantise(two.import(), {floats(2)}); }, errc::unsupported_model,
                 {"2 inputs"});
  // Images of zeros have no range; any scale will do, none may fail.
  EXPECT_NO_THROW(quantise(g, {floats(50)}));
}

// ---- What is refused ----

TEST(Refusals, NameEveryNodeWhoseOperatorIsUnknown) {
  builder b;
  b.input("x", {-1, 4}).output("y");
  b.node("LSTM", {"x"}, {"a"});
  b.node("Relu", {"a"}, {"b"});
  builder::integer(b.node("Concat", {"b", "b"}, {"c"}), "axis", 1);
  b.node("Einsum", {"c"}, {"y"});
  b.node("Loop", {"x"}, {"unused"});  // the output does not depend on it
  EXPECT_THAT([&] { b.import(); },
              ::testing::ThrowsMessage<error>(::testing::AllOf(
                  HasSubstr("2 nodes are not supported"), HasSubstr("'my_LSTM' (LSTM) on N x 4"),
                  HasSubstr("'my_Einsum' (Einsum)"))));
}

TEST(Refusals, NameTheNodeItsOperatorItsShapeTheReasonAndAWayOut) {
  builder b = conv_model();
  b.graph().mutable_output(0)->set_name("z");
  auto& n = b.node("MaxPool", {"y"}, {"z"});
  builder::ints(n, "kernel_shape", {2, 2});
  builder::ints(n, "dilations", {2, 2});
  expect_refusal([&] { b.import(); }, errc::unsupported_model,
                 {"test.onnx", "my_MaxPool", "(MaxPool)", "N x 3 x 3 x 3", "dilations [2, 2]",
                  "use dilation 1"});
}

TEST(Refusals, OfOperatorsAndForms) {
  const auto change = [](const std::function<void(builder&)>& f) {
    return [f] {
      builder b = conv_model();
      f(b);
      b.import();
    };
  };
  const auto behind = [&](const std::string& op, const longs& kernel = {}) {
    return change([op, kernel](builder& b) {
      b.graph().mutable_output(0)->set_name("z");
      auto& n = b.node(op, {"y"}, {"z"});
      if (!kernel.empty()) builder::ints(n, "kernel_shape", kernel);
    });
  };
  const errc no = errc::unsupported_model;
  expect_refusal(behind("Softmax"), no, {"Softmax", "along the channels"});
  expect_refusal(behind("Concat"), errc::bad_file, {"Concat", "no axis"});
  expect_refusal(behind("LayerNormalization"), no, {"BatchNormalization"});
  expect_refusal(behind("QLinearAdd"), errc::bad_file, {"QLinearAdd", "com.microsoft"});
  expect_refusal(behind("Transpose"), no, {"NCHW"});
  expect_refusal(behind("NoSuchOperator"), no, {"not supported", "supported are"});
  expect_refusal(behind("MaxPool", {2, 2, 2}), no, {"two-dimensional"});
  expect_refusal(behind("MaxPool", {0, 2}), no, {"1 or more"});
  expect_refusal(
      change([](builder& b) { builder::ints(*b.graph().mutable_node(0), "dilations", {1, 300}); }),
      no, {"dilations", "601 pixels", "255"});
  expect_refusal(
      change([](builder& b) { builder::ints(*b.graph().mutable_node(0), "dilations", {0, 1}); }),
      no, {"dilations", "1 or more"});
  expect_refusal(
      change([](builder& b) { builder::ints(*b.graph().mutable_node(0), "pads", {-1, 0, 0, 0}); }),
      no, {"pads"});
  expect_refusal(change([](builder& b) { b.graph().mutable_node(0)->set_domain("com.example"); }),
                 no, {"com.example"});
  expect_refusal(change([](builder& b) { b.output("other"); }), no, {"2 outputs"});
  expect_refusal(change([](builder& b) { b.graph().mutable_output(0)->set_name("w"); }), no,
                 {"constant"});
  expect_refusal(change([](builder& b) {
                   b.graph()
                       .mutable_input(0)
                       ->mutable_type()
                       ->mutable_tensor_type()
                       ->mutable_shape()
                       ->mutable_dim(2)
                       ->set_dim_param("H");
                 }),
                 no, {"'x'", "dimension 2", "open"});
  expect_refusal(change([](builder& b) {
                   b.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->set_elem_type(
                       pb::TensorProto::FLOAT16);
                 }),
                 no, {"FLOAT16"});
  expect_refusal(change([](builder& b) {
                   b.graph().mutable_initializer(0)->set_data_type(pb::TensorProto::FLOAT16);
                 }),
                 no, {"FLOAT16", "float32"});
  expect_refusal(change([](builder& b) {
                   b.graph().mutable_initializer(0)->set_float_data(
                       7, std::numeric_limits<float>::infinity());
                 }),
                 no, {"the weights holds inf"});
  for (const int opset : {1, 8, 18, 21}) {
    expect_refusal([&] { conv_model(opset).import(); }, no,
                   {"operator set " + std::to_string(opset), "9 to 17"});
  }
  for (const int opset : {9, 11, 13, 15, 17}) EXPECT_NO_THROW(conv_model(opset).import()) << opset;
}

TEST(Refusals, OfDamagedFiles) {
  const auto damaged = [](const std::function<void(builder&)>& f, const strings& parts) {
    builder b = conv_model();
    f(b);
    expect_refusal([&] { b.import(); }, errc::bad_file, parts);
  };
  const auto initializer = [](builder& b) { return b.graph().mutable_initializer(0); };
  damaged([](builder& b) { b.graph().clear_initializer(); },
          {"'w'", "no input, initializer or node"});
  damaged([](builder& b) { b.model.clear_opset_import(); }, {"operator set"});
  damaged([](builder& b) { b.model.clear_graph(); }, {"no graph"});
  damaged([](builder& b) { b.graph().mutable_output(0)->set_name("nowhere"); }, {"'nowhere'"});
  damaged([](builder& b) { b.node("Relu", {"x"}, {"y"}); }, {"'y'", "twice"});
  damaged([&](builder& b) { initializer(b)->set_dims(0, 4); }, {"'w'", "72", "54"});
  damaged([&](builder& b) { initializer(b)->set_dims(0, -3); }, {"'w'", "negative"});
  damaged([&](builder& b) { initializer(b)->set_dims(0, std::int64_t{1} << 62); },
          {"'w'", "beyond"});
  damaged(
      [&](builder& b) {
        initializer(b)->clear_dims();
        for (int i = 0; i < 4; ++i) initializer(b)->add_dims(std::int64_t{1} << 20);
      },
      {"beyond"});
  damaged([&](builder& b) { initializer(b)->set_raw_data("abc"); }, {"'w'"});
  damaged([&](builder& b) { initializer(b)->set_data_location(pb::TensorProto::EXTERNAL); },
          {"another file"});
  damaged([](builder& b) { b.graph().mutable_node(0)->clear_input(); }, {"input 0 is missing"});
  damaged([](builder& b) { b.graph().mutable_node(0)->clear_output(); }, {"'y'"});
  damaged([](builder& b) { builder::ints(*b.graph().mutable_node(0), "kernel_shape", {5, 5}); },
          {"kernel_shape"});
  damaged(
      [&](builder& b) {
        initializer(b)->set_dims(1, 1);
        initializer(b)->set_dims(0, 6);
      },
      {"2 input channels"});
  // Two nodes that feed each other.
  builder cycle;
  cycle.input("x", {-1, 2}).output("b");
  cycle.node("Add", {"x", "b"}, {"a"});
  cycle.node("Relu", {"a"}, {"b"});
  expect_refusal([&] { cycle.import(); }, errc::bad_file, {"'b'", "cycles"});
  builder self;
  self.input("x", {-1, 2}).output("a");
  self.node("Add", {"x", "a"}, {"a"});
  expect_refusal([&] { self.import(); }, errc::bad_file, {"'a'", "cycles"});
}

TEST(Refusals, OfModelsThatAreTooLarge) {
  builder wide;  // 300 additions on planes of a million elements each.
  wide.input("x", {-1, 1, 1024, 1024}).output("t300");
  for (int i = 0; i < 300; ++i) {
    const std::string from = i == 0 ? "x" : "t" + std::to_string(i);
    wide.node("Add", {from, "x"}, {"t" + std::to_string(i + 1)});
  }
  expect_refusal([&] { wide.import(); }, errc::unsupported_model,
                 {"activations", "smaller images"});
  builder groups;  // 10,000 groups of two channels: dense, they would be 400 million weights.
  groups.input("x", {-1, 20000, 1, 1}).output("y");
  groups.weight("w", {20000, 2, 1, 1}, floats(40000, 1.0F));
  builder::integer(groups.node("Conv", {"x", "w"}, {"y"}), "group", 10000);
  expect_refusal([&] { groups.import(); }, errc::unsupported_model, {"my_Conv", "dense form"});
  builder many;
  many.input("x", {-1, 1}).output("x");
  for (int i = 0; i < 10001; ++i) many.node("Relu", {"x"}, {"t" + std::to_string(i)});
  expect_refusal([&] { many.import(); }, errc::unsupported_model, {"10001 nodes"});
  builder far;
  far.input("x", {-1, 4}).output("y");
  auto& shape = far.weight("s", {2}, {0, 4}, pb::TensorProto::INT64);
  shape.set_int64_data(1, std::numeric_limits<std::int64_t>::max());
  far.node("Reshape", {"x", "s"}, {"y"});
  expect_refusal([&] { far.import(); }, errc::bad_file, {"makes no sense"});
}

TEST(Refusals, OfFilesThatAreNoModels) {
  const errc bad = errc::bad_file;
  expect_refusal([] { import_onnx(std::filesystem::path("/nonexistent/model.onnx")); }, bad,
                 {"/nonexistent/model.onnx", "check the path"});
  expect_refusal([] { import_onnx(std::filesystem::path("/")); }, bad, {"directory"});
  expect_refusal([] { import_onnx(std::string(), "empty"); }, bad, {"empty"});
  expect_refusal([] { import_onnx(std::string("#!/bin/sh\necho no model\n"), "script"); }, bad,
                 {"script"});
  expect_refusal([] { import_onnx(std::string(100000, '\0'), "zeros"); }, bad, {"zeros"});
  // Messages nested ten thousand deep: one byte of tag and length per level, inside out.
  std::string nested;
  for (int i = 0; i < 10000; ++i) {
    std::string length;
    for (std::size_t n = nested.size();; n >>= 7) {
      length += static_cast<char>((n & 0x7F) | (n > 0x7F ? 0x80 : 0));
      if (n <= 0x7F) break;
    }
    nested =
        (i % 2 == 0 ? "\x32" : "\x2a") + length + nested;  // AttributeProto.g / NodeProto.attribute
    if (nested.size() > 60000) break;
  }
  std::string length;
  for (std::size_t n = nested.size();; n >>= 7) {
    length += static_cast<char>((n & 0x7F) | (n > 0x7F ? 0x80 : 0));
    if (n <= 0x7F) break;
  }
  expect_refusal([&] { import_onnx("\x3a" + length + nested, "nested"); }, bad, {"nested"});
}

// Every damaged version of a file either imports or ends in a latchkey::error.
void survive(const std::string& bytes, int& accepted, int& refused) {
  try {
    const fgraph g = import_onnx(bytes, "damaged");
    std::vector<floats> images;
    if (g.inputs.size() == 1) {
      images.emplace_back(g.tensors[static_cast<std::size_t>(g.inputs[0].tensor)].size(), 0.5F);
    }
    quantise(g, images);
    ++accepted;
  } catch (const error&) {
    ++refused;
  }
}

TEST(Fuzz, TruncatedAndDamagedFilesNeverCrash) {
  std::ifstream in(LATCHKEY_SOURCE_DIR "/models/digits_mlp.onnx", std::ios::binary);
  const std::string digits((std::istreambuf_iterator<char>(in)), {});
  ASSERT_GT(digits.size(), 1000U);
  int accepted = 0;
  int refused = 0;
  for (const std::string& whole :
       {qdq(pb::TensorProto::INT8, true).bytes(), conv_model().bytes(),
        qlinear({-127, 127, 5, -1}, pb::TensorProto::INT8, 0).bytes(), digits}) {
    const std::size_t step = whole.size() > 5000 ? 97 : 1;
    for (std::size_t n = 0; n < whole.size(); n += step)
      survive(whole.substr(0, n), accepted, refused);
    const std::uint64_t seed = 99;
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937_64 rng(seed);
    for (int i = 0; i < (whole.size() > 5000 ? 300 : 4000); ++i) {
      std::string bytes = whole;
      for (std::uint64_t k = 0; k <= rng() % 3; ++k) {
        bytes[rng() % bytes.size()] = static_cast<char>(rng());
      }
      survive(bytes, accepted, refused);
    }
  }
  std::printf("%d damaged files were still models, %d were refused\n", accepted, refused);
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace latchkey::model
