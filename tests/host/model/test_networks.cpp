// The demonstration models on every test image: accuracy in float, int8 bit-exact with ONNX Runtime
// and accurate.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <span>
#include <string>

#include "compiler/file_io.hpp"
#include "latchkey/error.hpp"
#include "model/dataset.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"

namespace latchkey::model {
namespace {

constexpr std::size_t kCalibrationImages = 256;

struct network {
  const char* name;
  std::string train, test;
  double float_at_least, int8_at_least;  // percent
  std::size_t float_step = 1;            // Float accuracy on every step-th image.
};

// What ctest shows of a parameter.
void PrintTo(const network& n, std::ostream* out) { *out << n.name; }

const std::string kModels = LATCHKEY_SOURCE_DIR "/models/";
const std::string kFashion = LATCHKEY_FASHION_MNIST "/";

const network kNetworks[] = {
    {"digits_mlp", kModels + "digits-train", kModels + "digits-test", 97.0, 97.0},
    {"fashion_mlp", kFashion + "train", kFashion + "t10k", 89.3, 89.0},
    {"fashion_lenet", kFashion + "train", kFashion + "t10k", 92.3, 92.0},
};
const network kResidual[] = {
    {"fashion_resnet8", kFashion + "train", kFashion + "t10k", 91.0, 91.5, 10},
};

class Networks : public ::testing::TestWithParam<network> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(GetParam().test + "-images-idx3-ubyte.gz")) {
      GTEST_SKIP() << "no data set " << GetParam().test << "; install dataset-fashion-mnist";
    }
  }
  static fgraph import() {
    return import_onnx(std::filesystem::path(kModels + GetParam().name + ".onnx"));
  }
  static qgraph quantised(const quantise_options& options = {}) {
    return quantise(import(), read_dataset(GetParam().train).sample(kCalibrationImages), options);
  }
};

double int8_accuracy(reference& golden, const dataset& data, std::size_t step = 1) {
  std::size_t right = 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < data.size(); i += step, ++count) {
    const auto q = quantise_input(golden.graph(), data.real_image(i));
    right += argmax(golden.infer(q)) == data.labels[i] ? 1U : 0U;
  }
  return 100.0 * static_cast<double>(right) / static_cast<double>(count);
}

TEST_P(Networks, FloatAccuracy) {
  const dataset data = read_dataset(GetParam().test);
  float_executor executor(import());
  std::size_t right = 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < data.size(); i += GetParam().float_step, ++count) {
    right += argmax(executor.infer(data.real_image(i))) == data.labels[i] ? 1U : 0U;
  }
  const double accuracy = 100.0 * static_cast<double>(right) / static_cast<double>(count);
  std::printf("%s float32: %.2f %% of %zu images\n", GetParam().name, accuracy, count);
  EXPECT_GE(accuracy, GetParam().float_at_least);
}

TEST_P(Networks, PercentileCalibrationStaysClose) {
  const dataset data = read_dataset(GetParam().test);
  quantise_options options;
  options.method = calibration::percentile;
  options.percentile = 99.99;
  const qgraph narrow = quantised(options);
  const qgraph wide = quantised();
  bool narrower = false;
  for (std::size_t t = 0; t < narrow.tensors.size(); ++t) {
    EXPECT_LE(narrow.tensors[t].scale, wide.tensors[t].scale * 1.001F) << narrow.tensors[t].name;
    narrower |= narrow.tensors[t].scale < wide.tensors[t].scale * 0.999F;
  }
  EXPECT_TRUE(narrower);
  EXPECT_EQ(narrow.input_tensor().scale, wide.input_tensor().scale);
  reference golden(narrow);
  reference usual(wide);
  const std::size_t step = data.size() > 1000 ? 10 : 1;
  EXPECT_NEAR(int8_accuracy(golden, data, step), int8_accuracy(usual, data, step), 1.0);
}

// tests/vectors/make_expected.py wrote these with ONNX Runtime from the same quantised graph.
class Vectors : public Networks {};

TEST_P(Vectors, EqualsOnnxRuntime) {
  std::ifstream file(LATCHKEY_SOURCE_DIR "/tests/vectors/" + std::string(GetParam().name) +
                     ".expected.json");
  ASSERT_TRUE(file) << "the expected logits are missing";
  const auto expected = nlohmann::json::parse(file);
  ASSERT_EQ(expected.at("calibration_images"), kCalibrationImages);
  const qgraph graph = quantised();
  // First the quantisation itself: other scales would excuse other logits.
  ASSERT_EQ(expected.at("tensors").size(), graph.tensors.size());
  for (std::size_t t = 0; t < graph.tensors.size(); ++t) {
    const auto& e = expected["tensors"][t];
    ASSERT_EQ(e.at("name"), graph.tensors[t].name);
    ASSERT_EQ(std::strtof(e.at("scale").get<std::string>().c_str(), nullptr),
              graph.tensors[t].scale);
    ASSERT_EQ(e.at("zero_point"), graph.tensors[t].zero_point);
  }
  reference golden(graph);
  const dataset data = read_dataset(GetParam().test);
  const auto& logits = expected.at("logits");
  ASSERT_GE(logits.size(), 360U);
  const std::size_t images = expected.at("images");
  ASSERT_EQ(images, data.size());
  const auto start = std::chrono::steady_clock::now();
  std::size_t right = 0;
  std::vector<std::uint8_t> all;  // of every image: the file has their digest
  std::size_t differing = 0;
  std::size_t compared = 0;
  for (std::size_t i = 0; i < images; ++i) {
    const auto out = golden.infer(quantise_input(graph, data.real_image(i)));
    all.insert(all.end(), out.begin(), out.end());
    right += argmax(out) == data.labels[i] ? 1U : 0U;
    if (i >= logits.size()) continue;
    const std::string hex = logits[i];
    ASSERT_EQ(hex.size(), 2 * out.size());
    for (std::size_t o = 0; o < out.size(); ++o, ++compared) {
      differing += std::stoi(hex.substr(2 * o, 2), nullptr, 16) != out[o] ? 1U : 0U;
    }
  }
  const bool equal = io::to_hex(io::sha256({all})) == expected.at("logits_sha256");
  std::printf("%s: %zu of %zu logits differ from ONNX Runtime %s; the digest of all %zu is %s\n",
              GetParam().name, differing, compared,
              expected.at("onnxruntime").get<std::string>().c_str(), all.size(),
              equal ? "the same" : "another");
  EXPECT_EQ(differing, 0U);
  EXPECT_TRUE(equal);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const double accuracy = 100.0 * static_cast<double>(right) / static_cast<double>(images);
  std::printf("%s int8: %.2f %% of %zu images, %llu MACs each, %.1f s\n", GetParam().name, accuracy,
              images, static_cast<unsigned long long>(graph.macs()), seconds.count());
  EXPECT_GE(accuracy, GetParam().int8_at_least);

  // The comparison is not blind: the weights of one output, each moved by one step, show.
  qgraph changed = graph;
  auto& last = std::get<qconv>(changed.nodes.back().op);
  for (std::size_t k = 0; k < last.weights.size() / last.bias.size(); ++k) {
    last.weights[k] = static_cast<std::int8_t>(last.weights[k] + (last.weights[k] < 127 ? 1 : -1));
  }
  reference other(changed);
  bool noticed = false;
  for (std::size_t i = 0; i < 50; ++i) {
    const auto out = other.infer(quantise_input(graph, data.real_image(i)));
    noticed |= std::stoi(logits[i].get<std::string>().substr(0, 2), nullptr, 16) != out[0];
  }
  EXPECT_TRUE(noticed);
}

// Files that ONNX Runtime's quantiser wrote. Integer operators have to agree exactly; QDQ files run
// in float arithmetic there, which may round a tie the other way: one step at most.
TEST(ForeignFiles, FollowOnnxRuntime) {
  const dataset data = read_dataset(kModels + "digits-test");
  for (const auto& [name, steps] : {std::pair{"digits_mlp_qoperator", 0}, {"digits_mlp_qdq", 1}}) {
    SCOPED_TRACE(name);
    const std::string base = LATCHKEY_SOURCE_DIR "/tests/vectors/" + std::string(name);
    const qgraph graph = quantise(import_onnx(std::filesystem::path(base + ".onnx")), {});
    ASSERT_EQ(graph.nodes.size(), 3U);
    reference golden(graph);
    std::ifstream file(base + ".expected.json");
    ASSERT_TRUE(file);
    const auto expected = nlohmann::json::parse(file).at("logits");
    ASSERT_EQ(expected.size(), 100U);
    int differing = 0;
    int right = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto bytes = golden.infer(quantise_input(graph, data.real_image(i)));
      right += argmax(bytes) == data.labels[i] ? 1 : 0;
      const auto out = dequantise_output(graph, bytes);
      for (std::size_t o = 0; o < out.size(); ++o) {
        const float want = std::strtof(expected[i][o].get<std::string>().c_str(), nullptr);
        differing += out[o] != want ? 1 : 0;
        ASSERT_LE(std::abs(out[o] - want),
                  1.001F * static_cast<float>(steps) * graph.output_tensor().scale)
            << "image " << i << " output " << o;
      }
    }
    std::printf("%s: %d of 1000 outputs differ, %d %% right\n", name, differing, right);
    EXPECT_GE(right, 95);
  }
}

const auto kName = [](const auto& p) { return std::string(p.param.name); };
INSTANTIATE_TEST_SUITE_P(Models, Networks, ::testing::ValuesIn(kNetworks), kName);
INSTANTIATE_TEST_SUITE_P(Residual, Networks, ::testing::ValuesIn(kResidual), kName);
INSTANTIATE_TEST_SUITE_P(Models, Vectors, ::testing::ValuesIn(kNetworks), kName);
INSTANTIATE_TEST_SUITE_P(Residual, Vectors, ::testing::ValuesIn(kResidual), kName);

}  // namespace
}  // namespace latchkey::model
