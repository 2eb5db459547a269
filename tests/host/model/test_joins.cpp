// Concat, Split, Slice and Gather: in float against indices written out here, and in int8, where
// bytes that are only moved stay as they are.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "latchkey/error.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

constexpr errc kNo = errc::unsupported_model;
constexpr int kC = 6, kH = 5, kW = 7;

float at(const floats& x, int c, int y, int w) {
  return x[static_cast<std::size_t>((c * kH + y) * kW + w)];
}

floats run(const fgraph& g, const floats& x) {
  float_executor e(g);
  const auto y = e.infer(x);
  return {y.begin(), y.end()};
}

/// x: N x 6 x 5 x 7 -> op -> y
builder moved(const std::string& op, const strings& more = {}, const strings& outputs = {"y"}) {
  builder b;
  b.input("x", {-1, kC, kH, kW}).output("y");
  strings in{"x"};
  in.insert(in.end(), more.begin(), more.end());
  b.node(op, in, outputs);
  return b;
}

/// The result in float, and the same bytes in int8.
void expect_moved(const builder& b, const floats& x, const floats& want) {
  const fgraph g = b.import();
  EXPECT_EQ(run(g, x), want);
  const qgraph q = quantise(g, {x});
  EXPECT_EQ(q.output_tensor().scale, q.input_tensor().scale);
  const auto bytes = quantise_input(q, x);
  reference golden(q);
  const auto out = golden.infer(bytes);
  ASSERT_EQ(out.size(), want.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto from = std::find(x.begin(), x.end(), want[i]) - x.begin();  // values are distinct
    ASSERT_EQ(out[i], bytes[static_cast<std::size_t>(from)]) << i;
  }
}

TEST(Joins, SliceTakesChannelsRowsAndColumns) {
  const floats x = random_floats(kC * kH * kW, 1);
  struct bounds_of {
    longs starts, ends, steps;
  };
  for (const auto& [starts, ends, steps] :
       {bounds_of{{1, 0, 0}, {5, 9, 9}, {1, 1, 1}}, bounds_of{{0, 1, 2}, {6, 4, 7}, {1, 1, 1}},
        bounds_of{{1, 0, 1}, {6, 5, 7}, {2, 2, 3}},
        bounds_of{{-3, -4, -6}, {-1, -1, -1}, {1, 2, 2}},
        bounds_of{{5, 4, 6}, {6, 5, 7}, {1, 1, 1}}}) {
    builder b = moved("Slice", {"s", "e", "a", "t"});
    b.weight("s", {3}, {starts.begin(), starts.end()}, pb::TensorProto::INT64);
    b.weight("e", {3}, {ends.begin(), ends.end()}, pb::TensorProto::INT64);
    b.weight("a", {3}, {1, 2, -1}, pb::TensorProto::INT64);
    b.weight("t", {3}, {steps.begin(), steps.end()}, pb::TensorProto::INT64);
    const std::array<int, 3> size{kC, kH, kW};
    std::array<std::vector<int>, 3> keep;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto whole = [&](std::int64_t v) {
        return std::clamp<int>(static_cast<int>(v < 0 ? v + size[i] : v), 0, size[i]);
      };
      for (int k = whole(starts[i]); k < whole(ends[i]); k += static_cast<int>(steps[i])) {
        keep[i].push_back(k);
      }
    }
    floats want;
    for (const int c : keep[0]) {
      for (const int y : keep[1]) {
        for (const int w : keep[2]) want.push_back(at(x, c, y, w));
      }
    }
    expect_moved(b, x, want);
  }
}

TEST(Joins, GatherPicksChannels) {
  const floats x = random_floats(kC * kH * kW, 2);
  builder b = moved("Gather", {"i"});
  builder::integer(b.graph().mutable_node()->at(0), "axis", 1);
  b.weight("i", {4}, {5, 0, -2, 2}, pb::TensorProto::INT64);
  floats want;
  for (const int c : {5, 0, 4, 2}) {
    for (int i = 0; i < kH * kW; ++i) want.push_back(x[static_cast<std::size_t>(c * kH * kW + i)]);
  }
  expect_moved(b, x, want);
}

// Resize, in both forms, and its forerunner: every pixel is repeated.
TEST(Joins, ResizeRepeatsPixels) {
  const floats x = random_floats(kC * kH * kW, 9);
  const int up = 2, across = 3;
  floats want;
  for (int c = 0; c < kC; ++c) {
    for (int y = 0; y < kH * up; ++y) {
      for (int w = 0; w < kW * across; ++w) want.push_back(at(x, c, y / up, w / across));
    }
  }
  const auto text = [](pb::NodeProto& n, const char* name, const char* value) {
    auto* a = n.add_attribute();
    a->set_name(name);
    a->set_type(pb::AttributeProto::STRING);
    a->set_s(value);
  };
  builder scaled = moved("Resize", {"", "s"});
  scaled.weight("s", {4}, {1, 1, up, across});
  expect_moved(scaled, x, want);
  builder sized = moved("Resize", {"", "", "s"});
  sized.weight("s", {4}, {1, kC, kH * up, kW * across}, pb::TensorProto::INT64);
  auto& node = sized.graph().mutable_node()->at(0);
  text(node, "coordinate_transformation_mode", "asymmetric");
  text(node, "nearest_mode", "floor");
  expect_moved(sized, x, want);
  builder old(9);
  old.input("x", {-1, kC, kH, kW}).output("y").node("Upsample", {"x", "s"}, {"y"});
  old.weight("s", {4}, {1, 1, up, across});
  expect_moved(old, x, want);

  const auto refused = [&](const floats& scales, const char* attribute, const char* value,
                           const char* why) {
    builder b = moved("Resize", {"", "s"});
    b.weight("s", {4}, scales);
    if (attribute != nullptr) text(b.graph().mutable_node()->at(0), attribute, value);
    expect_refusal([&] { b.import(); }, kNo, {"my_Resize", why});
  };
  refused({1, 1, 1.5F, 2}, nullptr, nullptr, "makes 7 rows of 5");
  refused({1, 1, 1, 0.5F}, nullptr, nullptr, "makes 3 columns of 7");
  refused({1, 1, 16, 1}, nullptr, nullptr, "whole factors from 1 to 15");
  refused({1, 2, 2, 2}, nullptr, nullptr, "changes the batch or the channels");
  refused({1, 1, 2, 2}, "mode", "cubic", "interpolates in mode 'cubic'");
  refused({1, 1, 2, 3}, "coordinate_transformation_mode", "align_corners", "takes columns");
  refused({1, 1, 2, 2}, "nearest_mode", "ceil", "takes rows");
}

// Linear interpolation, by ONNX's definition: of two neighbours each way, at the border of one.
// Inside a result is rounded once; at the border twice, the first time times what its window lacks.
TEST(Joins, ResizeInterpolates) {
  const struct {
    int up, across;
    const char* mode;
    double corner;  // whole window by what of it a corner has
  } cases[] = {{2, 2, "half_pixel", 16.0 / 9},         {2, 2, "asymmetric", 4},
               {1, 2, "pytorch_half_pixel", 4.0 / 3},  {3, 4, "half_pixel", 1.5 * 8 / 5},
               {7, 6, "half_pixel", 7.0 / 4 * 12 / 7}, {3, 1, "asymmetric", 3}};
  const floats x = random_floats(kC * kH * kW, 10);
  const auto attribute = [](builder& b, const char* name, const char* value) {
    auto* a = b.graph().mutable_node(0)->add_attribute();
    a->set_name(name);
    a->set_type(pb::AttributeProto::STRING);
    a->set_s(value);
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.up << " x " << c.across << " " << c.mode);
    const bool half = std::string(c.mode) != "asymmetric";
    struct tap {
      int low, high;
      double weight;
      bool inside;
    };
    const auto taps = [&](int o, int factor, int size) {
      const double at = half ? (o + 0.5) / factor - 0.5 : static_cast<double>(o) / factor;
      const double in = std::clamp(at, 0.0, size - 1.0);
      const int low = static_cast<int>(in);
      return tap{low, std::min(low + 1, size - 1), in - low, at == in};
    };
    floats want;
    std::vector<bool> inside;
    for (int ch = 0; ch < kC; ++ch) {
      for (int y = 0; y < kH * c.up; ++y) {
        for (int w = 0; w < kW * c.across; ++w) {
          const tap v = taps(y, c.up, kH), h = taps(w, c.across, kW);
          const auto row = [&](int r) {
            return (1 - h.weight) * at(x, ch, r, h.low) + h.weight * at(x, ch, r, h.high);
          };
          want.push_back(static_cast<float>((1 - v.weight) * row(v.low) + v.weight * row(v.high)));
          inside.push_back(v.inside && h.inside);
        }
      }
    }
    builder b = moved("Resize", {"", "s"});
    b.weight("s", {4}, {1, 1, static_cast<float>(c.up), static_cast<float>(c.across)});
    attribute(b, "mode", "linear");
    attribute(b, "coordinate_transformation_mode", c.mode);
    const fgraph g = b.import();
    const floats real = run(g, x);
    ASSERT_EQ(real.size(), want.size());
    const qgraph q = quantise(g, {x});
    reference golden(q);
    const floats got = dequantise_output(q, golden.infer(quantise_input(q, x)));
    const double step = q.output_tensor().scale, input = q.input_tensor().scale / 2;
    double worst = 0, border = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(real[i], want[i], 1e-5F) << i;
      (inside[i] ? worst : border) =
          std::max(inside[i] ? worst : border, (std::abs(got[i] - want[i]) - input) / step);
    }
    EXPECT_LE(worst, 0.5 + 1e-3);
    // At even factors above 2 a byte does not hold every ratio.
    const double ratios = c.up > 3 || c.across > 3 ? 0.75 : 0;
    EXPECT_LE(border, 0.5 * (1 + c.corner) + ratios + 1e-3);
    std::printf("%d x %d %s: %.2f steps from ONNX inside, %.2f at the border\n", c.up, c.across,
                c.mode, worst, border);
  }
  const auto refused = [&](const floats& scales, const char* mode, const char* why) {
    builder b = moved("Resize", {"", "s"});
    b.weight("s", {4}, scales);
    attribute(b, "mode", "linear");
    attribute(b, "coordinate_transformation_mode", mode);
    expect_refusal([&] { b.import(); }, kNo, {"my_Resize", why});
  };
  refused({1, 1, 2, 2}, "align_corners", "interpolates with align_corners");
  refused({1, 1, 8, 1}, "half_pixel", "whole factors from 1 to 7");
  refused({1, 1, 1.5F, 1}, "half_pixel", "makes 7 rows of 5");
  refused({1, 1, 3, 3}, "asymmetric", "5.0 steps");
  builder whole = moved("Resize", {"", "s"});
  whole.weight("s", {4}, {1, 1, 2, 2});
  attribute(whole, "mode", "linear");
  EXPECT_GT(refused_when_damaged(whole, 1000), 150);
}

TEST(Joins, ReshapeAndTransposeShuffleChannels) {
  const floats x = random_floats(kC * kH * kW, 6);
  builder b;
  b.input("x", {-1, kC, kH, kW}).output("y");
  b.weight("groups", {5}, {0, 2, 3, kH, kW}, pb::TensorProto::INT64);
  b.weight("plane", {4}, {0, -1, kH, kW}, pb::TensorProto::INT64);
  b.node("Reshape", {"x", "groups"}, {"split"});
  builder::ints(b.node("Transpose", {"split"}, {"swapped"}), "perm", {0, 2, 1, 3, 4});
  b.node("Reshape", {"swapped", "plane"}, {"y"});
  floats want;
  for (const int c : {0, 3, 1, 4, 2, 5}) {
    for (int i = 0; i < kH * kW; ++i) want.push_back(x[static_cast<std::size_t>(c * kH * kW + i)]);
  }
  expect_moved(b, x, want);
  builder::ints(*b.graph().mutable_node(1), "perm", {0, 1, 2, 4, 3});
  b.graph().mutable_node(1)->mutable_attribute()->DeleteSubrange(0, 1);
  expect_refusal([&] { b.import(); }, kNo, {"perm [0, 1, 2, 4, 3]", "order of the elements"});
}

// Weights that the file computes from constants: shaped, filled, turned round.
TEST(Joins, ConstantsAreShapedBeforeUse) {
  builder b;
  b.input("x", {-1, 3}).output("y");
  b.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6});
  b.weight("row", {1}, {0}, pb::TensorProto::INT64);
  b.weight("shape", {3}, {1, -1, 2}, pb::TensorProto::INT64);
  b.weight("two", {1}, {2}, pb::TensorProto::INT64);
  builder::ints(b.node("Transpose", {"w"}, {"wt"}), "perm", {1, 0});  // 1 4 2 5 3 6
  b.node("Reshape", {"wt", "shape"}, {"w3"});
  b.node("Squeeze", {"w3", "row"}, {"w2"});
  auto* fill = b.node("ConstantOfShape", {"two"}, {"bias"}).add_attribute();
  fill->set_name("value");
  fill->set_type(pb::AttributeProto::TENSOR);
  builder::fill(*fill->mutable_t(), {1}, {0.5F}, pb::TensorProto::FLOAT);
  b.node("MatMul", {"x", "w2"}, {"z"});
  b.node("Add", {"z", "bias"}, {"y"});
  EXPECT_EQ(run(b.import(), {1, 10, 100}), (floats{321.5F, 654.5F}));
  b.graph().mutable_initializer(2)->set_int64_data(1, 4);
  expect_refusal([&] { b.import(); }, errc::bad_file, {"[1, 4, 2]", "6 elements"});
}

TEST(Joins, SplitGivesThePartsThatAreRead) {
  const floats x = random_floats(kC * kH * kW, 3);
  builder b = moved("Split", {"sizes"}, {"unread", "y", "rest"});
  builder::integer(b.graph().mutable_node()->at(0), "axis", 1);
  b.weight("sizes", {3}, {1, 2, 3}, pb::TensorProto::INT64);
  expect_moved(b, x, {x.begin() + kH * kW, x.begin() + 3 * kH * kW});
  EXPECT_EQ(b.import().nodes.size(), 1U);
}

/// The halves of a tensor in their other order, through layers of different ranges.
builder crossed() {
  builder b;
  b.input("x", {-1, kC, kH, kW}).output("y");
  builder::integer(b.node("Split", {"x"}, {"a", "b"}), "axis", 1);
  b.weight("ten", {1}, {10.0F});
  b.node("Mul", {"a", "ten"}, {"large"});
  b.node("Sigmoid", {"b"}, {"small"});
  builder::integer(b.node("Concat", {"small", "large", "b"}, {"y"}), "axis", 1);
  return b;
}

TEST(Joins, ConcatRoundsEveryPartOnce) {
  const floats x = random_floats(kC * kH * kW, 4);
  const fgraph g = crossed().import();
  const floats y = run(g, x);
  const std::size_t half = x.size() / 2;
  ASSERT_EQ(y.size(), x.size() + half);
  for (std::size_t i = 0; i < half; ++i) {
    EXPECT_NEAR(y[i], 1.0F / (1.0F + std::exp(-x[half + i])), 1e-6F);
    EXPECT_NEAR(y[half + i], 10.0F * x[i], 1e-5F);
    EXPECT_EQ(y[2 * half + i], x[half + i]);
  }
  const qgraph q = quantise(g, {x});
  reference golden(q);
  const auto out = dequantise_output(q, golden.infer(quantise_input(q, x)));
  // Half a step of the result, and what the parts were off before: one step of each.
  const float step = q.output_tensor().scale;
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(out[i], y[i], 0.51F * step + (i >= half && i < 2 * half ? 10.0F : 1.0F) / 100.0F)
        << i;
  }
  // All that the join makes shares one quantisation.
  for (const qnode& node : q.nodes) {
    if (node.name.find("Concat") == std::string::npos) continue;
    EXPECT_EQ(q.tensors[static_cast<std::size_t>(node.output)].scale, step) << node.name;
  }
}

// ---- Concat of whole channel blocks ----

/// The first node of this kind; null where there is none.
template <typename Op, typename Graph>
const auto* find(const Graph& g) {
  const auto node = std::find_if(g.nodes.begin(), g.nodes.end(),
                                 [](const auto& n) { return std::holds_alternative<Op>(n.op); });
  return node == g.nodes.end() ? nullptr : &*node;
}

/// Layers on x, N x 4 x 5 x 5, and what joins them.
class blocks : public builder {
 public:
  blocks() {
    input("x", {-1, 4, 5, 5});
    output("y");
  }
  /// A 1x1 convolution of `in`, of which each has its own range.
  std::string conv(const std::string& in, int ins, int outs) {
    const std::string n = std::to_string(++count_);
    const auto size = static_cast<std::size_t>(ins) * static_cast<std::size_t>(outs);
    weight("w" + n, {outs, ins, 1, 1},
           random_floats(size, 100U + static_cast<unsigned>(count_),
                         0.3F * static_cast<float>(count_)));
    node("Conv", {in, "w" + n}, {"c" + n});
    return "c" + n;
  }
  std::string op(const std::string& type, const strings& in, const std::string& out) {
    auto& n = node(type, in, {out});
    if (type == "Concat") integer(n, "axis", 1);
    if (type == "MaxPool") ints(n, "kernel_shape", {1, 1});
    return out;
  }
  qgraph quantised() const { return quantise(import(), {image()}); }
  static floats image() { return random_floats(4 * 5 * 5, 8); }

 private:
  int count_ = 0;
};

const qtensor& part(const qgraph& q, std::size_t i) {
  return q.tensors[static_cast<std::size_t>(find<qjoin>(q)->inputs.at(i))];
}
bool alike(const qtensor& a, const qtensor& b) {
  return a.scale == b.scale && a.zero_point == b.zero_point;
}

TEST(Joins, ChannelBlocksAreJoinedWithoutAConvolution) {
  const struct {
    std::vector<int> parts;
    bool join;
  } cases[] = {{{64, 64}, true},     {{128, 40}, true}, {{64, 33, 64}, false}, {{64, 32}, false},
               {{64, 64, 33}, true}, {{96, 64}, false}, {{40, 40}, false},     {{16, 64}, false}};
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::PrintToString(c.parts));
    blocks b;
    strings parts;
    std::size_t macs = 0;
    for (const int n : c.parts) {
      parts.push_back(b.conv("x", 4, n));
      macs += static_cast<std::size_t>(n) * 4 * 25;
    }
    b.op("Concat", parts, "y");
    const fgraph g = b.import();
    EXPECT_EQ(find<fjoin>(g) != nullptr, c.join);
    const qgraph q = b.quantised();
    EXPECT_EQ(q.macs() == macs, c.join);
    // Both forms: the parts one behind the other.
    float_executor e(g);
    const auto& values = e.run({b.image()});
    floats want;
    for (std::size_t n = 0; n < c.parts.size(); ++n) {
      const auto& v = values[static_cast<std::size_t>(g.nodes[n].output)];
      want.insert(want.end(), v.begin(), v.end());
    }
    EXPECT_EQ(values[static_cast<std::size_t>(g.output.tensor)], want);
  }
}

// Rounded once: a byte is off by half a step of the joined tensor, and by what its input was off.
TEST(Joins, PartsThatNothingElseReadsAreRoundedAsTheWhole) {
  blocks b;
  const std::string conv = b.conv("x", 4, 64), pooled = b.conv("x", 4, 128);
  b.op("MaxPool", {pooled}, "pooled");
  b.op("Sigmoid", {b.conv("x", 4, 64)}, "table");
  b.op("Concat", {conv, "pooled", "table"}, "y");
  const qgraph q = b.quantised();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(alike(part(q, i), q.output_tensor())) << i;
  reference golden(q);
  const auto& bytes = golden.run(quantise_input(q, b.image()));
  const qnode& table = *find<qtable>(q);
  const qtensor& in = q.tensors[static_cast<std::size_t>(table.inputs[0])];
  const auto& x = bytes[static_cast<std::size_t>(table.inputs[0])];
  const auto& y = bytes[static_cast<std::size_t>(q.output.tensor)];
  const std::size_t first = y.size() - x.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double real = 1 / (1 + std::exp(-static_cast<double>(in.scale) * (x[i] - in.zero_point)));
    const double got = static_cast<double>(q.output_tensor().scale) *
                       (y[first + i] - q.output_tensor().zero_point);
    ASSERT_NEAR(got, real, 0.501 * q.output_tensor().scale) << i;
  }
}

TEST(Joins, PartsThatOthersReadKeepTheirOwnQuantisation) {
  // Read by a layer; made by a pool whose input a layer reads; made by a pool of a joined part.
  for (const char* how : {"layer", "pool", "join"}) {
    SCOPED_TRACE(how);
    blocks b;
    const std::string first = b.conv("x", 4, 64), wide = b.conv("x", 4, 64);
    b.op("MaxPool", {first}, "pooled");
    const bool pool = std::string(how) == "pool";
    b.op("Concat", {pool ? "pooled" : first, wide}, "j");
    if (std::string(how) == "join") b.op("Concat", {"pooled", b.conv("x", 4, 64)}, "other");
    const std::string again = std::string(how) == "join" ? "other" : first;
    const int channels = again == first ? 64 : 128;
    b.op("Add", {b.conv("j", 128, 8), b.conv(again, channels, 8)}, "y");
    const qgraph q = b.quantised();
    const qtensor& whole = q.tensors[static_cast<std::size_t>(find<qjoin>(q)->output)];
    EXPECT_FALSE(alike(part(q, 0), whole));
    EXPECT_TRUE(alike(part(q, 1), whole));
  }
}

TEST(Joins, BoundsBehindAConcatAreItsOwn) {
  blocks b;
  b.op("Relu", {b.op("Concat", {b.conv("x", 4, 64), b.conv("x", 4, 64)}, "j")}, "y");
  const fgraph g = b.import();
  ASSERT_EQ(g.nodes.size(), 3U);
  EXPECT_EQ(std::get<fjoin>(g.nodes[2].op).clip.lo, 0.0F);
  const floats y = run(g, b.image());
  EXPECT_EQ(*std::min_element(y.begin(), y.end()), 0.0F);
  // The whole's bytes start at 0, so what rounds the parts to them bounds them too.
  const qgraph q = b.quantised();
  const auto& join = std::get<qjoin>(find<qjoin>(q)->op);
  EXPECT_EQ(q.output_tensor().zero_point, 0);
  EXPECT_EQ(join.clamp_lo, 0);
  EXPECT_EQ(join.clamp_hi, 255);
  EXPECT_TRUE(alike(part(q, 0), q.output_tensor()));
}

TEST(Joins, AJoinThatOnlyAnotherReadsGoesUpInIt) {
  blocks b;
  b.op("Concat", {b.conv("x", 4, 64), b.conv("x", 4, 64)}, "low");
  b.op("Concat", {"low", b.conv("x", 4, 64)}, "middle");
  b.op("Concat", {b.conv("x", 4, 64), "middle", b.conv("x", 4, 40)}, "y");
  const fgraph g = b.import();
  EXPECT_EQ(g.nodes.size(), 6U);
  EXPECT_EQ(find<fjoin>(g)->inputs.size(), 5U);
  float_executor e(g);
  const auto& values = e.run({b.image()});
  floats want;
  for (const int t : find<fjoin>(g)->inputs) {
    const auto& v = values[static_cast<std::size_t>(t)];
    want.insert(want.end(), v.begin(), v.end());
  }
  EXPECT_EQ(values[static_cast<std::size_t>(g.output.tensor)], want);
  // Not where its values are read, clipped or rounded in between.
  blocks read;
  read.op("Concat", {read.conv("x", 4, 64), read.conv("x", 4, 64)}, "low");
  read.op("Concat", {"low", read.conv("low", 128, 64)}, "y");
  EXPECT_EQ(find<fjoin>(read.import())->inputs.size(), 2U);
  blocks clipped;
  clipped.op("Concat", {clipped.conv("x", 4, 64), clipped.conv("x", 4, 64)}, "low");
  clipped.op("Relu", {"low"}, "positive");
  clipped.op("Concat", {"positive", clipped.conv("x", 4, 64)}, "y");
  EXPECT_EQ(find<fjoin>(clipped.import())->inputs.size(), 2U);
  blocks rounded;
  rounded.weight("s", {}, {0.5F});
  rounded.op("Concat", {rounded.conv("x", 4, 64), rounded.conv("x", 4, 64)}, "low");
  rounded.node("QuantizeLinear", {"low", "s"}, {"bytes"});
  rounded.node("DequantizeLinear", {"bytes", "s"}, {"coarse"});
  rounded.op("Concat", {"coarse", rounded.conv("x", 4, 64)}, "y");
  EXPECT_EQ(find<fjoin>(rounded.import())->inputs.size(), 2U);
}

// As ONNX Runtime has it: real values in float32, rounded to the output's quantisation. It rounds a
// quotient where the card rounds a product with a ratio, so a tie may go the other way.
TEST(Joins, QLinearConcatOfChannelBlocks) {
  int differing = 0, bytes = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const floats random = random_floats(4, seed);
    const auto scale = [&](std::size_t i) { return 0.02F + 0.015F * random[i]; };
    builder b;
    b.input("x", {-1, 64, 2, 2}, pb::TensorProto::UINT8).output("y");
    for (std::size_t i = 0; i < 3; ++i) {
      const std::string n = std::to_string(i);
      b.weight("s" + n, {}, {seed == 1 ? scale(0) : scale(i)});
      b.weight("z" + n, {}, {seed == 1 ? 7.0F : static_cast<float>(seed * (i + 1) * 5 % 256)},
               pb::TensorProto::UINT8);
    }
    b.node("QLinearLeakyRelu", {"x", "s0", "z0", "s1", "z1"}, {"t"}).set_domain("com.microsoft");
    auto& join = b.node("QLinearConcat", {"s2", "z2", "x", "s0", "z0", "t", "s1", "z1"}, {"y"});
    join.set_domain("com.microsoft");
    builder::integer(join, "axis", 1);
    const qgraph q = quantise(b.import(), {});
    ASSERT_NE(find<qjoin>(q), nullptr);
    reference golden(q);
    std::vector<std::uint8_t> image(256);
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::uint8_t>(i);
    const auto& values = golden.run(image);
    const auto& y = values[static_cast<std::size_t>(q.output.tensor)];
    const qtensor& out = q.output_tensor();
    std::size_t at = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      for (const std::uint8_t byte : values[static_cast<std::size_t>(find<qjoin>(q)->inputs[i])]) {
        const float real = part(q, i).scale * static_cast<float>(byte - part(q, i).zero_point);
        const int want = quantise_value(real, out.scale, out.zero_point);
        ASSERT_LE(std::abs(y[at] - want), seed == 1 ? 0 : 1);
        differing += y[at++] != want ? 1 : 0;
        ++bytes;
      }
    }
  }
  EXPECT_LE(differing, bytes / 50);
}

// ---- Concat of pixels ----

/// Maps of three scales, of `channels` each, as N x C x pixels or as tokens, all by the same
/// weights.
builder scales(int channels, bool tokens) {
  builder b;
  b.input("x", {-1, 4, 12, 8}).output("y");
  b.weight("w", {channels, 4, 1, 1}, random_floats(static_cast<std::size_t>(channels) * 4, 1));
  b.weight("pixels", {3}, {0, static_cast<float>(channels), -1}, pb::TensorProto::INT64);
  strings parts;
  for (const std::string step : {"1", "2", "3"}) {
    auto& pool = b.node("MaxPool", {"x"}, {"p" + step});
    builder::ints(pool, "kernel_shape", {1, 1});
    builder::ints(pool, "strides", {std::stoi(step), std::stoi(step)});
    b.node("Conv", {"p" + step, "w"}, {"c" + step});
    b.node("Reshape", {"c" + step, "pixels"}, {"r" + step});
    parts.push_back("r" + step);
    if (!tokens) continue;
    builder::ints(b.node("Transpose", {"r" + step}, {"t" + step}), "perm", {0, 2, 1});
    parts.back() = "t" + step;
  }
  builder::integer(b.node("Concat", parts, {"y"}), "axis", tokens ? 1 : 2);
  return b;
}

TEST(Joins, ConcatPutsPixelsBehindOneAnother) {
  // 96, 24 and 12 pixels: the first two fill words of 82 and 16 channels, of 2 they do with 8.
  for (const int channels : {82, 16, 2}) {
    for (const bool tokens : {false, true}) {
      SCOPED_TRACE(::testing::Message() << channels << " channels, tokens " << tokens);
      const fgraph g = scales(channels, tokens).import();
      const auto* const join = find<fjoin>(g);
      ASSERT_NE(join, nullptr);
      EXPECT_TRUE(std::get<fjoin>(join->op).pixels);
      EXPECT_EQ(g.tensors[static_cast<std::size_t>(join->output)].c, channels == 2 ? 8 : channels);
      EXPECT_EQ(g.output.dims,
                tokens ? (std::vector<int>{132, channels}) : (std::vector<int>{channels, 132}));
      EXPECT_EQ(g.output.channels_last, tokens);
      const floats x = random_floats(4 * 12 * 8, 9);
      const floats y = run(g, x);
      ASSERT_EQ(y.size(), static_cast<std::size_t>(channels) * 132);
      const floats w = random_floats(static_cast<std::size_t>(channels) * 4, 1);
      std::size_t i = 0;
      for (std::size_t c = 0; c < static_cast<std::size_t>(channels); ++c) {
        for (const std::size_t step : {1, 2, 3}) {
          for (std::size_t row = 0; row < 12; row += step) {
            for (std::size_t column = 0; column < 8; column += step) {
              float want = 0;
              for (std::size_t k = 0; k < 4; ++k) {
                want += w[c * 4 + k] * x[(k * 12 + row) * 8 + column];
              }
              ASSERT_NEAR(y[i++], want, 1e-5F);
            }
          }
        }
      }
      const qgraph q = quantise(g, {x});
      reference golden(q);
      const auto out = dequantise_output(q, golden.infer(quantise_input(q, x)));
      for (i = 0; i < y.size(); ++i) ASSERT_NEAR(out[i], y[i], 2.5F * q.output_tensor().scale) << i;
    }
  }
}

TEST(Joins, RowsAreJoinedAsPixels) {
  builder b;
  b.input("x", {-1, 4, 5, 8}).output("y");
  b.weight("w", {16, 4, 1, 1}, random_floats(64, 1));
  b.weight("v", {16, 4, 1, 1}, random_floats(64, 2));
  b.node("Conv", {"x", "w"}, {"a"});
  b.node("Conv", {"x", "v"}, {"c"});
  builder::integer(b.node("Concat", {"a", "c"}, {"low"}), "axis", 2);
  builder::integer(b.node("Concat", {"low", "a"}, {"y"}), "axis", 2);
  const fgraph g = b.import();
  EXPECT_EQ(g.output.dims, (std::vector<int>{16, 15, 8}));
  EXPECT_EQ(find<fjoin>(g)->inputs.size(), 3U);
  const floats y = run(g, random_floats(160, 3));
  for (std::size_t c = 0; c < 16; ++c) {
    for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(y[c * 120 + i], y[c * 120 + 80 + i]);
  }
  builder::integer(*b.graph().mutable_node(2), "axis", 1);
  b.graph().mutable_node(2)->mutable_attribute()->DeleteSubrange(0, 1);
  expect_refusal([&] { b.import(); }, errc::bad_file, {"N x 32 x 5 x 8", "N x 16 x 5 x 8"});
}

TEST(Joins, ALayerBehindASliceHasItsOwnRange) {
  const floats x = random_floats(kC * kH * kW, 5);
  builder b = moved("Slice", {"s", "e", "a"}, {"part"});
  b.weight("s", {1}, {1}, pb::TensorProto::INT64);
  b.weight("e", {1}, {3}, pb::TensorProto::INT64);
  b.weight("a", {1}, {1}, pb::TensorProto::INT64);
  b.weight("k", {1}, {100.0F});
  b.node("Mul", {"part", "k"}, {"y"});
  const qgraph q = quantise(b.import(), {x});
  EXPECT_GT(q.output_tensor().scale, 50.0F * q.input_tensor().scale);
}

TEST(Joins, Refusals) {
  const auto axis = [](const std::string& op, std::int64_t value, const strings& more = {}) {
    builder b = moved(op, more);
    builder::integer(b.graph().mutable_node()->at(0), "axis", value);
    b.weight("i", {1}, {7}, pb::TensorProto::INT64);
    b.weight("sizes", {1}, {5}, pb::TensorProto::INT64);
    return b;
  };
  expect_refusal([&] { axis("Concat", 3, {"x"}).import(); }, kNo, {"columns of 5 rows"});
  expect_refusal([&] { axis("Concat", 0, {"x"}).import(); }, kNo, {"batch"});
  expect_refusal([&] { axis("Concat", 7, {"x"}).import(); }, errc::bad_file, {"axis 7"});
  expect_refusal([&] { axis("Split", 3).import(); }, kNo, {"axis 3", "channels"});
  expect_refusal([&] { axis("Split", 1, {"sizes"}).import(); }, errc::bad_file, {"[5]", "6"});
  expect_refusal([&] { axis("Gather", 1, {"i"}).import(); }, errc::bad_file, {"index 7"});
  expect_refusal([&] { axis("Gather", 2, {"i"}).import(); }, kNo, {"axis 2", "axis 1"});
  const auto slice = [](float start, float end, float by) {
    builder b = moved("Slice", {"s", "e", "a", "t"});
    b.weight("s", {1}, {start}, pb::TensorProto::INT64);
    b.weight("e", {1}, {end}, pb::TensorProto::INT64);
    b.weight("a", {1}, {2}, pb::TensorProto::INT64);
    b.weight("t", {1}, {by}, pb::TensorProto::INT64);
    return b;
  };
  expect_refusal([&] { slice(4, 0, -1).import(); }, kNo, {"steps by -1"});
  expect_refusal([&] { slice(3, 3, 1).import(); }, kNo, {"keeps nothing"});
  builder wide;
  wide.input("x", {-1, 1, 100, 4}).output("y");
  wide.node("Slice", {"x", "s", "e", "a"}, {"y"});
  wide.weight("s", {1}, {70}, pb::TensorProto::INT64);
  wide.weight("e", {1}, {80}, pb::TensorProto::INT64);
  wide.weight("a", {1}, {2}, pb::TensorProto::INT64);
  expect_refusal([&] { wide.import(); }, kNo, {"leaves out 90 rows", "up to 64"});
}

}  // namespace
}  // namespace latchkey::model
