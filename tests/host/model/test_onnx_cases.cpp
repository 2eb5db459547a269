// ONNX's own operator tests (libonnx-testdata), for every operator that the importer knows.
//
// The first graph input is the image; the others are bound as constants, as weights would be,
// except where the operator takes two tensors. Each case ends in one of three ways: it agrees with
// the expected output, it is refused by a latchkey::error of kind unsupported_model, or it fails.
// The cases that have to pass are listed, so that a new refusal is a failure too.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <ostream>
#include <set>
#include <string>

#include "latchkey/error.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"

namespace latchkey::model {
namespace {

namespace fs = std::filesystem;

struct result {
  bool passed = false, refused = false;
  std::string why;
};

/// Names of the graph's inputs in order: the names inside the input files.
std::vector<fs::path> input_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (int i = 0;; ++i) {
    const fs::path file = folder / "test_data_set_0" / ("input_" + std::to_string(i) + ".pb");
    if (!fs::exists(file)) return files;
    files.push_back(file);
  }
}

std::vector<std::vector<float>> images(const tensor_file& t) {
  const std::size_t n = t.dims.empty() ? 1 : static_cast<std::size_t>(t.dims[0]);
  const std::size_t size = n == 0 ? 0 : t.values.size() / n;
  std::vector<std::vector<float>> out;
  for (std::size_t i = 0; i < n; ++i) {
    out.emplace_back(t.values.begin() + static_cast<std::ptrdiff_t>(i * size),
                     t.values.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
  }
  return out;
}

std::vector<float> flat(const std::vector<std::vector<float>>& parts) {
  std::vector<float> out;
  for (const auto& p : parts) out.insert(out.end(), p.begin(), p.end());
  return out;
}

std::string compare(const std::vector<float>& got, const tensor_file& expected, float tolerance) {
  if (got.size() != expected.values.size()) {
    return "got " + std::to_string(got.size()) + " values for " +
           std::to_string(expected.values.size());
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    const float e = expected.values[i];
    if (!(std::abs(got[i] - e) <= tolerance * std::max(1.0F, std::abs(e)))) {
      return "value " + std::to_string(i) + " is " + std::to_string(got[i]) + ", expected " +
             std::to_string(e);
    }
  }
  return {};
}

result run_float(const fs::path& folder, bool two_tensors) {
  const auto files = input_files(folder);
  import_options options;
  for (std::size_t i = two_tensors ? 2 : 1; i < files.size(); ++i) {
    options.constants[read_tensor(files[i]).name] = files[i];
  }
  float_executor executor(import_onnx(folder / "model.onnx", options));
  std::vector<std::vector<std::vector<float>>> inputs;
  for (std::size_t i = 0; i < executor.graph().inputs.size(); ++i) {
    inputs.push_back(images(read_tensor(files[i])));
  }
  std::vector<std::vector<float>> outputs;
  for (std::size_t n = 0; n < inputs[0].size(); ++n) {
    std::vector<std::span<const float>> spans;
    for (const auto& in : inputs) spans.emplace_back(in.at(n));
    const auto& values = executor.run(spans);
    outputs.push_back(values[static_cast<std::size_t>(executor.graph().output.tensor)]);
  }
  const tensor_file expected = read_tensor(folder / "test_data_set_0" / "output_0.pb");
  const std::string why = compare(flat(outputs), expected, 1e-5F);
  return {why.empty(), false, why};
}

result run_quantised(const fs::path& folder) {
  const auto files = input_files(folder);
  import_options options;
  for (std::size_t i = 1; i < files.size(); ++i) {
    options.constants[read_tensor(files[i]).name] = files[i];
  }
  reference golden(quantise(import_onnx(folder / "model.onnx", options), {}));
  const qgraph& g = golden.graph();
  const tensor_file expected = read_tensor(folder / "test_data_set_0" / "output_0.pb");
  std::vector<std::vector<float>> outputs;
  for (const auto& image : images(read_tensor(files[0]))) {
    const auto bytes = g.input.type == io_type::f32
                           ? quantise_input(g, image)
                           : std::vector<std::uint8_t>(image.begin(), image.end());
    const auto out = golden.infer(bytes);
    outputs.push_back(g.output.type == io_type::f32 ? dequantise_output(g, out)
                                                    : std::vector<float>(out.begin(), out.end()));
  }
  const std::string why = compare(flat(outputs), expected, 0.0F);  // Exact.
  return {why.empty(), false, why};
}

result run(const fs::path& folder, bool quantised) {
  try {
    if (quantised) return run_quantised(folder);
    const std::string name = folder.filename().string();
    const bool two = name == "test_add" || name == "test_add_bcast" || name == "test_add_uint8";
    return run_float(folder, two);
  } catch (const error& e) {
    // bad_file would say that ONNX's own files are broken.
    return {false, e.code() == errc::unsupported_model, e.what()};
  }
}

struct family {
  const char* name;
  std::vector<std::string> prefixes;
  std::set<std::string> must_pass;
  bool quantised;
};

// What ctest shows of a parameter.
void PrintTo(const family& f, std::ostream* out) { *out << f.name; }

class OnnxCases : public ::testing::TestWithParam<family> {};

TEST_P(OnnxCases, PassOrAreRefusedWithAReason) {
  const fs::path root = LATCHKEY_ONNX_TESTDATA;
  if (!fs::is_directory(root)) GTEST_SKIP() << "install libonnx-testdata to run the operator tests";
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    for (const std::string& prefix : GetParam().prefixes) {
      if (name == prefix || name.rfind(prefix + "_", 0) == 0) names.insert(name);
    }
  }
  int passed = 0;
  int refused = 0;
  for (const std::string& name : names) {
    const result r = run(root / name, GetParam().quantised);
    passed += r.passed ? 1 : 0;
    refused += r.refused ? 1 : 0;
    if (r.passed) std::printf("  pass    %s\n", name.c_str());
    if (r.refused) std::printf("  refused %s: %s\n", name.c_str(), r.why.c_str());
    EXPECT_TRUE(r.passed || r.refused) << name << ": " << r.why;
    if (GetParam().must_pass.count(name) > 0) {
      EXPECT_TRUE(r.passed) << name << ": " << r.why;
    }
  }
  for (const std::string& name : GetParam().must_pass) EXPECT_EQ(names.count(name), 1U) << name;
  std::printf("%s: %d passed, %d refused with a reason, %d failed\n", GetParam().name, passed,
              refused, static_cast<int>(names.size()) - passed - refused);
}

const family kFamilies[] = {
    {"quantised",
     {"test_qlinearconv", "test_qlinearmatmul", "test_quantizelinear", "test_dequantizelinear"},
     {"test_quantizelinear", "test_dequantizelinear"},
     true},
    {"conv",
     {"test_conv", "test_basic_conv"},
     {"test_basic_conv_with_padding", "test_basic_conv_without_padding",
      "test_conv_with_autopad_same", "test_conv_with_strides_and_asymmetric_padding",
      "test_conv_with_strides_no_padding", "test_conv_with_strides_padding"},
     false},
    {"gemm",
     {"test_gemm"},
     {"test_gemm_alpha", "test_gemm_beta", "test_gemm_default_no_bias",
      "test_gemm_default_scalar_bias", "test_gemm_default_single_elem_vector_bias",
      "test_gemm_default_vector_bias", "test_gemm_default_zero_bias", "test_gemm_transposeB"},
     false},
    {"matmul", {"test_matmul"}, {"test_matmul_2d"}, false},
    {"maxpool",
     {"test_maxpool"},
     {"test_maxpool_2d_ceil", "test_maxpool_2d_default", "test_maxpool_2d_pads",
      "test_maxpool_2d_precomputed_pads", "test_maxpool_2d_precomputed_same_upper",
      "test_maxpool_2d_precomputed_strides", "test_maxpool_2d_same_lower",
      "test_maxpool_2d_same_upper", "test_maxpool_2d_strides", "test_maxpool_2d_uint8"},
     false},
    {"batchnorm", {"test_batchnorm"}, {"test_batchnorm_epsilon", "test_batchnorm_example"}, false},
    {"clip",
     {"test_clip"},
     {"test_clip", "test_clip_default_inbounds", "test_clip_default_max", "test_clip_default_min",
      "test_clip_example", "test_clip_inbounds", "test_clip_outbounds", "test_clip_splitbounds"},
     false},
    {"relu", {"test_relu"}, {"test_relu"}, false},
    {"add", {"test_add"}, {"test_add"}, false},
    {"flatten",
     {"test_flatten"},
     {"test_flatten_axis1", "test_flatten_default_axis", "test_flatten_negative_axis3"},
     false},
    {"reshape",
     {"test_reshape"},
     {"test_reshape_negative_dim", "test_reshape_reduced_dims", "test_reshape_zero_dim"},
     false},
    {"identity", {"test_identity"}, {"test_identity"}, false},
    {"dropout",
     {"test_dropout"},
     {"test_dropout_default", "test_dropout_default_old", "test_dropout_default_ratio"},
     false},
};

INSTANTIATE_TEST_SUITE_P(Operators, OnnxCases, ::testing::ValuesIn(kFamilies),
                         [](const auto& p) { return std::string(p.param.name); });

// The two refused QLinear files hold weights that int8 cannot; their arithmetic is the
// accelerator's all the same, so it is checked here on wider integers.
TEST(OnnxCases, ArithmeticOfTheRefusedQLinearFiles) {
  const fs::path root = LATCHKEY_ONNX_TESTDATA;
  if (!fs::is_directory(root)) GTEST_SKIP() << "install libonnx-testdata to run the operator tests";
  for (const char* name : {"test_qlinearconv", "test_qlinearmatmul_2D", "test_qlinearmatmul_3D"}) {
    SCOPED_TRACE(name);
    std::vector<tensor_file> in;
    for (const auto& file : input_files(root / name)) in.push_back(read_tensor(file));
    ASSERT_EQ(in.size(), 8U);
    const tensor_file expected = read_tensor(root / name / "test_data_set_0" / "output_0.pb");
    const requant r = make_requant(in[1].values[0], in[4].values[0], in[6].values[0]);
    const auto zero = static_cast<std::uint8_t>(in[7].values[0]);
    const auto value = [&](int which, std::size_t i) {
      const auto at = static_cast<std::size_t>(which);
      return static_cast<std::int32_t>(in[at].values[i] - in[at + 2].values[0]);
    };
    // A 1x1 convolution of one channel is a product with a 1 x 1 matrix.
    const bool conv = std::string(name) == "test_qlinearconv";
    const std::size_t k = conv ? 1 : 4;
    const std::size_t n = conv ? 1 : 3;
    const std::size_t rows = in[0].values.size() / k;
    const std::size_t rows_per_matrix = conv ? rows : 2;
    ASSERT_EQ(expected.values.size(), rows * n);
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t matrix = row / rows_per_matrix * k * n;
      for (std::size_t o = 0; o < n; ++o) {
        std::int32_t acc = 0;
        for (std::size_t i = 0; i < k; ++i) {
          acc += value(0, row * k + i) * value(3, matrix + i * n + o);
        }
        ASSERT_EQ(requantise(r, acc, zero, 0, 255), expected.values[row * n + o])
            << row << ' ' << o;
      }
    }
  }
}

}  // namespace
}  // namespace latchkey::model
