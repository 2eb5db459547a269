// Calibration methods, weight scales, the correction of biases and the sensitivity of layers, on
// values whose best treatment is known.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "latchkey/error.hpp"
#include "model/calibrate.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"
#include "onnx_builder.hpp"

namespace latchkey::model {
namespace {

/// Normal values and one outlier far away.
floats with_outlier(float outlier) {
  std::mt19937 rng(5);
  std::normal_distribution<float> d;
  floats v(400000);
  for (float& x : v) x = d(rng);
  v.push_back(outlier);
  return v;
}

histogram histogram_of(const floats& v) {
  histogram h({std::min(0.0F, *std::min_element(v.begin(), v.end())),
               std::max(0.0F, *std::max_element(v.begin(), v.end()))});
  for (const float x : v) h.add(x);
  return h;
}

/// Mean squared error of v in 256 steps over r, by brute force.
double squared_error(const floats& v, const range& r) {
  const double step = (static_cast<double>(r.hi) - r.lo) / 255;
  double sum = 0;
  for (const float x : v) {
    const double q = std::clamp(std::nearbyint((x - r.lo) / step), 0.0, 255.0);
    sum += std::pow(r.lo + q * step - x, 2);
  }
  return sum / static_cast<double>(v.size());
}

TEST(Calibration, MethodsCutAnOutlierAsTheyShould) {
  const floats v = with_outlier(10.0F);
  const histogram h = histogram_of(v);
  const range whole{*std::min_element(v.begin(), v.end()), 10.0F};
  const range mse = h.least_error();
  const range entropy = h.least_divergence();
  const range cut = h.percentile(0.001);
  EXPECT_LT(mse.hi, 7.0F);
  EXPECT_GT(mse.hi, 3.0F);
  EXPECT_LT(entropy.hi, 9.0F);
  EXPECT_GT(entropy.hi, 3.0F);
  EXPECT_NEAR(cut.hi, 3.09F, 0.3F);  // The 99.9th percentile of a normal distribution.
  EXPECT_NEAR(cut.lo, -3.09F, 0.3F);
  EXPECT_LT(squared_error(v, mse), 0.75 * squared_error(v, whole));
  // No other range of a grid is much better.
  double least = std::numeric_limits<double>::infinity();
  for (float lo = -4.5F; lo <= -3.0F; lo += 0.5F) {
    for (float hi = 3.0F; hi <= 10.0F; hi += 0.5F) {
      least = std::min(least, squared_error(v, {lo, hi}));
    }
  }
  EXPECT_LT(squared_error(v, mse), 1.1 * least);
}

TEST(Calibration, KeepsWhatHasNoOutliers) {
  std::mt19937 rng(6);
  std::uniform_real_distribution<float> d(0.0F, 4.0F);
  floats v(20000);
  for (float& x : v) x = d(rng);
  const histogram h = histogram_of(v);
  EXPECT_GT(h.least_error().hi, 3.9F);
  EXPECT_GT(h.least_divergence().hi, 3.9F);
  EXPECT_EQ(h.least_error().lo, 0.0F);
  const histogram nothing({0.0F, 0.0F});
  EXPECT_EQ(nothing.least_error().hi, 0.0F);
  EXPECT_EQ(nothing.least_divergence().hi, 0.0F);
  EXPECT_EQ(nothing.percentile(0.01).hi, 0.0F);
}

/// x -> Conv 3x3 -> Relu -> Conv 3x3 depthwise -> Gemm -> y.
fgraph network() {
  builder b;
  b.input("x", {-1, 4, 8, 8}).output("y");
  floats w1 = random_floats(288, 41);
  w1[7] = 6.0F;  // One large weight makes its whole channel coarse.
  b.weight("w1", {8, 4, 3, 3}, w1);
  b.weight("w2", {8, 1, 3, 3}, random_floats(72, 42));
  b.weight("w3", {288, 6}, random_floats(1728, 43));
  b.node("Conv", {"x", "w1"}, {"a"});
  b.node("Relu", {"a"}, {"r"});
  auto& dw = b.node("Conv", {"r", "w2"}, {"d"});
  builder::integer(dw, "group", 8);
  builder::ints(dw, "pads", {1, 1, 1, 1});
  b.node("Flatten", {"d"}, {"f"});
  b.node("MatMul", {"f", "w3"}, {"y"});
  return b.import();
}

std::vector<floats> images(std::uint32_t from, std::uint32_t count) {
  std::vector<floats> out;
  for (std::uint32_t i = 0; i < count; ++i) {
    out.push_back(random_floats(256, from + i));
    for (float& v : out.back()) v = 0.5F + 0.5F * v;  // Means that are not 0.
  }
  return out;
}

TEST(Weights, TheLeastSquaredErrorIsNeverAbovePeakScaling) {
  const fgraph f = network();
  quantise_options mse;
  mse.weights = weight_scale::mse;
  const qgraph a = quantise(f, images(1, 8));
  const qgraph b = quantise(f, images(1, 8), mse);
  bool better = false;
  for (std::size_t n = 0; n < f.nodes.size(); ++n) {
    const auto error = [&](const qgraph& q, std::size_t o) {
      const auto& real = std::get<fconv>(f.nodes[n].op);
      const std::size_t k = real.weights.size() / real.bias.size();
      double sum = 0;
      std::visit(
          [&](const auto& op) {
            if constexpr (requires { op.weight_scale; }) {
              for (std::size_t i = o * k; i < (o + 1) * k; ++i) {
                sum += std::pow(double{op.weight_scale[o]} * op.weights[i] - real.weights[i], 2);
              }
            }
          },
          q.nodes[n].op);
      return sum;
    };
    const std::size_t outs = std::get<fconv>(f.nodes[n].op).bias.size();
    for (std::size_t o = 0; o < outs; ++o) {
      EXPECT_LE(error(b, o), error(a, o) * (1 + 1e-6)) << n << ' ' << o;
      better |= error(b, o) < 0.99 * error(a, o);
    }
  }
  EXPECT_TRUE(better);
}

/// Mean difference of the int8 outputs from the float ones, per output, root mean square.
double drift(const fgraph& f, const qgraph& q, const std::vector<floats>& set) {
  float_executor exact(f);
  reference golden(q);
  std::vector<double> mean(q.output_tensor().size());
  for (const floats& image : set) {
    const auto got = dequantise_output(q, golden.infer(quantise_input(q, image)));
    const auto want = exact.infer(image);
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += got[i] - want[i];
  }
  double sum = 0;
  for (const double m : mean) sum += std::pow(m / static_cast<double>(set.size()), 2);
  return std::sqrt(sum / static_cast<double>(mean.size()));
}

TEST(BiasCorrection, TakesTheDriftOfTheOutputsAway) {
  const fgraph f = network();
  const auto seen = images(100, 64);
  quantise_options corrected;
  corrected.bias_correction = true;
  const double before = drift(f, quantise(f, seen), images(1000, 64));
  const double after = drift(f, quantise(f, seen, corrected), images(1000, 64));
  std::printf("drift of the outputs: %.4f, corrected %.4f\n", before, after);
  EXPECT_LT(after, 0.7 * before);
  expect_refusal(
      [&] {
        fgraph pinned = f;
        for (ftensor& t : pinned.tensors) t.pinned = quantisation{0.1F, 128};
        quantise(pinned, {}, corrected);
      },
      errc::usage, {"biases", "--calibrate"});
}

TEST(Sensitivity, FindsTheLayerThatIsCoarse) {
  fgraph f = network();
  const auto set = images(1, 16);
  const auto usual = sensitivity(f, quantise(f, set), set);
  ASSERT_EQ(usual.size(), 3U);
  for (const auto& l : usual) {
    EXPECT_GT(l.own, 20.0) << l.name;
    EXPECT_GT(l.total, 15.0) << l.name;
    EXPECT_LT(l.total, l.own + 3.0) << l.name;  // Noise adds up.
  }
  EXPECT_NE(usual[1].name.find("Conv"), std::string::npos);
  // The tensor behind the second layer gets 100 times too coarse a scale.
  ftensor& t = f.tensors[static_cast<std::size_t>(f.nodes[1].output)];
  const float scale = quantise(f, set).tensors[static_cast<std::size_t>(f.nodes[1].output)].scale;
  t.pinned = quantisation{100 * scale, 128};
  const auto coarse = sensitivity(f, quantise(f, set), set);
  EXPECT_LT(coarse[1].own, usual[1].own - 20.0);
  EXPECT_NEAR(coarse[0].own, usual[0].own, 1e-9);
  EXPECT_GT(coarse[2].own, usual[1].own - 30.0);
  EXPECT_LT(coarse[2].total, usual[2].total - 10.0);
  expect_refusal([&] { sensitivity(f, quantise(f, set), {}); }, errc::usage, {"--calibrate"});
  expect_refusal([&] { sensitivity(f, quantise(f, set), {floats(3)}); }, errc::mismatch, {"3"});
}

TEST(Sensitivity, IsInfiniteWhereNothingDiffers) {
  builder b;
  b.input("x", {-1, 1, 4, 4}).output("y");
  builder::ints(b.node("MaxPool", {"x"}, {"y"}), "kernel_shape", {2, 2});
  const fgraph f = b.import();
  floats image(16);
  for (std::size_t i = 0; i < 16; ++i) image[i] = static_cast<float>(i) / 15.0F * 255.0F;
  const auto report = sensitivity(f, quantise(f, {image}), {image});
  ASSERT_EQ(report.size(), 1U);
  EXPECT_TRUE(std::isinf(report[0].own));
}

}  // namespace
}  // namespace latchkey::model
