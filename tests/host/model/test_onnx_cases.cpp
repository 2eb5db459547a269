// ONNX's own operator tests (libonnx-testdata), for every operator that the importer knows.
//
// The first graph input is the image; the others are bound as constants, as weights would be,
// except where the operator takes two tensors. Each case ends in one of three ways: it agrees with
// the expected output, it is refused by a latchkey::error of kind unsupported_model, or it fails.
// The cases that have to pass are listed, so that a new refusal is a failure too.
//
// Quantised operators agree exactly. Float ones agree within 1e-5 in float, and then, quantised
// with the case's own input as calibration, within the steps of the output that the family states:
// half a step of rounding, and what half a step of the input can move the function by.
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
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
  double steps = 0;
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

/// Softmax of each image, for models whose last Softmax the importer left out.
void apply_softmax(std::vector<std::vector<float>>& images, bool logarithm) {
  for (auto& image : images) {
    const double peak = *std::max_element(image.begin(), image.end());
    double sum = 0;
    for (const float v : image) sum += std::exp(v - peak);
    for (float& v : image) {
      const double p = v - peak - std::log(sum);
      v = static_cast<float>(logarithm ? p : std::exp(p));
    }
  }
}

/// The model of a case. Operators that did not change since operator sets 1 to 8 are declared as of
/// set 9, so that the importer, which starts there, reads them.
std::string model_of(const fs::path& folder) {
  std::ifstream in(folder / "model.onnx", std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  ONNX_NAMESPACE::ModelProto model;
  if (!model.ParseFromString(bytes)) return bytes;
  static const std::set<std::string> unchanged = {"Acos",
                                                  "Asin",
                                                  "Atan",
                                                  "ConvTranspose",
                                                  "Cos",
                                                  "Elu",
                                                  "GlobalAveragePool",
                                                  "GlobalMaxPool",
                                                  "HardSigmoid",
                                                  "Selu",
                                                  "Sin",
                                                  "Softplus",
                                                  "Softsign",
                                                  "Tan"};
  for (auto& set : *model.mutable_opset_import()) {
    if (set.version() < 9 && unchanged.count(model.graph().node(0).op_type()) > 0) {
      set.set_version(9);
    }
  }
  // Mean and deviation, which training reads; the importer takes one output.
  auto& graph = *model.mutable_graph();
  if (graph.output_size() == 3 && graph.node(graph.node_size() - 1).output_size() > 0 &&
      graph.output(0).name() == "Y" && graph.input(0).name() == "X") {
    graph.mutable_output()->DeleteSubrange(1, 2);
  }
  return model.SerializeAsString();
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

struct family {
  const char* name;
  std::vector<std::string> prefixes;
  std::set<std::string> must_pass;
  enum { quantised, one_tensor, two_tensors } kind = one_tensor;
  double steps = 0;  ///< Of the quantised output; 0: in float only.
};

// What ctest shows of a parameter.
void PrintTo(const family& f, std::ostream* out) { *out << f.name; }

/// The largest distance of the quantised model's results from the expected ones, in output steps.
double quantised_steps(const fgraph& graph, const std::vector<std::vector<float>>& inputs,
                       const tensor_file& expected) {
  reference golden(quantise(graph, inputs));
  const qgraph& g = golden.graph();
  double worst = 0;
  std::size_t at = 0;
  for (const auto& image : inputs) {
    const auto output = dequantise_output(g, golden.infer(quantise_input(g, image)));
    for (const float v : from_planes(g.output, g.output_tensor().c, output)) {
      const double off = std::abs(v - expected.values.at(at++));
      worst = std::max(worst, off / g.output_tensor().scale);
    }
  }
  return worst;
}

result run_float(const fs::path& folder, const family& f) {
  const auto files = input_files(folder);
  import_options options;
  for (std::size_t i = f.kind == family::two_tensors ? 2 : 1; i < files.size(); ++i) {
    options.constants[read_tensor(files[i]).name] = files[i];
  }
  float_executor executor(import_onnx(model_of(folder), folder.filename().string(), options));
  std::vector<std::vector<std::vector<float>>> inputs;
  for (std::size_t i = 0; i < executor.graph().inputs.size(); ++i) {
    inputs.push_back(images(read_tensor(files[i])));
    const io_spec& io = executor.graph().inputs[i];
    const int channels = executor.graph().tensors[static_cast<std::size_t>(io.tensor)].c;
    for (auto& image : inputs.back()) image = to_planes(io, channels, image);
  }
  const io_spec& io = executor.graph().output;
  const int channels = executor.graph().tensors[static_cast<std::size_t>(io.tensor)].c;
  std::vector<std::vector<float>> outputs;
  for (std::size_t n = 0; n < inputs[0].size(); ++n) {
    std::vector<std::span<const float>> spans;
    for (const auto& in : inputs) spans.emplace_back(in.at(n));
    const auto& values = executor.run(spans);
    outputs.push_back(from_planes(io, channels, values[static_cast<std::size_t>(io.tensor)]));
  }
  const bool softmax =
      std::any_of(executor.graph().remarks.begin(), executor.graph().remarks.end(),
                  [](const std::string& r) { return r.find("is left out") != std::string::npos; });
  if (softmax) apply_softmax(outputs, std::string(f.name) == "logsoftmax");
  const tensor_file expected = read_tensor(folder / "test_data_set_0" / "output_0.pb");
  result r;
  r.why = compare(flat(outputs), expected, 1e-5F);
  const auto& edges = executor.graph().inputs;
  const bool one_input = edges.size() == 1 && edges[0].type == io_type::f32;
  if (r.why.empty() && f.steps > 0 && one_input && !softmax) {
    r.steps = quantised_steps(executor.graph(), inputs[0], expected);
    if (!(r.steps <= f.steps)) {
      r.why = "quantised, it is " + std::to_string(r.steps) + " steps away";
    }
  }
  r.passed = r.why.empty();
  return r;
}

result run_quantised(const fs::path& folder) {
  const auto files = input_files(folder);
  import_options options;
  for (std::size_t i = 1; i < files.size(); ++i) {
    options.constants[read_tensor(files[i]).name] = files[i];
  }
  reference golden(
      quantise(import_onnx(model_of(folder), folder.filename().string(), options), {}));
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

result run(const fs::path& folder, const family& f) {
  try {
    return f.kind == family::quantised ? run_quantised(folder) : run_float(folder, f);
  } catch (const error& e) {
    // bad_file would say that ONNX's own files are broken.
    return {false, e.code() == errc::unsupported_model, e.what()};
  }
}

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
  double worst = 0;
  for (const std::string& name : names) {
    const result r = run(root / name, GetParam());
    passed += r.passed ? 1 : 0;
    refused += r.refused ? 1 : 0;
    worst = std::max(worst, r.steps);
    if (r.passed) std::printf("  pass    %s\n", name.c_str());
    if (r.refused) std::printf("  refused %s: %s\n", name.c_str(), r.why.c_str());
    EXPECT_TRUE(r.passed || r.refused) << name << ": " << r.why;
    if (GetParam().must_pass.count(name) > 0) {
      EXPECT_TRUE(r.passed) << name << ": " << r.why;
    }
  }
  for (const std::string& name : GetParam().must_pass) EXPECT_EQ(names.count(name), 1U) << name;
  std::printf("%s: %d passed, %d refused with a reason, %d failed", GetParam().name, passed,
              refused, static_cast<int>(names.size()) - passed - refused);
  if (GetParam().steps > 0) {
    std::printf("; quantised within %.2f steps, %.2f allowed", worst, GetParam().steps);
  }
  std::printf("\n");
}

const family kFamilies[] = {
    {"quantised",
     {"test_qlinearconv", "test_qlinearmatmul", "test_quantizelinear", "test_dequantizelinear"},
     {"test_quantizelinear", "test_dequantizelinear"},
     family::quantised},
    {"conv",
     {"test_conv", "test_basic_conv"},
     {"test_basic_conv_with_padding", "test_basic_conv_without_padding",
      "test_conv_with_autopad_same", "test_conv_with_strides_and_asymmetric_padding",
      "test_conv_with_strides_no_padding", "test_conv_with_strides_padding"},
     family::one_tensor,
     1},
    {"convtranspose",
     {"test_convtranspose"},
     {"test_convtranspose", "test_convtranspose_autopad_same", "test_convtranspose_dilations",
      "test_convtranspose_kernel_shape", "test_convtranspose_output_shape",
      "test_convtranspose_pad", "test_convtranspose_pads", "test_convtranspose_with_kernel"},
     family::one_tensor,
     1},
    {"gemm",
     {"test_gemm"},
     {"test_gemm_alpha", "test_gemm_beta", "test_gemm_default_no_bias",
      "test_gemm_default_scalar_bias", "test_gemm_default_single_elem_vector_bias",
      "test_gemm_default_vector_bias", "test_gemm_default_zero_bias", "test_gemm_transposeB"},
     family::one_tensor,
     1},
    {"matmul", {"test_matmul"}, {"test_matmul_2d"}, family::one_tensor, 1.25},
    {"maxpool",
     {"test_maxpool"},
     {"test_maxpool_2d_ceil", "test_maxpool_2d_default", "test_maxpool_2d_pads",
      "test_maxpool_2d_precomputed_pads", "test_maxpool_2d_precomputed_same_upper",
      "test_maxpool_2d_precomputed_strides", "test_maxpool_2d_same_lower",
      "test_maxpool_2d_same_upper", "test_maxpool_2d_strides", "test_maxpool_2d_uint8"},
     family::one_tensor,
     0.75},
    {"batchnorm",
     {"test_batchnorm"},
     {"test_batchnorm_epsilon", "test_batchnorm_example"},
     family::one_tensor,
     1.25},
    {"clip",
     {"test_clip"},
     {"test_clip", "test_clip_default_inbounds", "test_clip_default_max", "test_clip_default_min",
      "test_clip_example", "test_clip_inbounds", "test_clip_outbounds", "test_clip_splitbounds"},
     family::one_tensor,
     1.75},
    {"relu", {"test_relu"}, {"test_relu"}, family::one_tensor, 1.75},
    {"add", {"test_add"}, {"test_add"}, family::two_tensors},
    {"flatten",
     {"test_flatten"},
     {"test_flatten_axis1", "test_flatten_default_axis", "test_flatten_negative_axis3"},
     family::one_tensor,
     0.75},
    {"reshape",
     {"test_reshape"},
     {"test_reshape_negative_dim", "test_reshape_reduced_dims", "test_reshape_zero_dim"},
     family::one_tensor,
     0.75},
    {"concat",
     {"test_concat"},
     {"test_concat_2d_axis_1", "test_concat_2d_axis_negative_1", "test_concat_3d_axis_1"},
     family::two_tensors},
    {"split", {"test_split"}, {}, family::one_tensor},
    {"slice",
     {"test_slice"},
     {"test_slice_default_steps", "test_slice_negative_axes"},
     family::one_tensor},
    {"gather", {"test_gather"}, {"test_gather_1"}, family::one_tensor},
    {"identity", {"test_identity"}, {"test_identity"}, family::one_tensor, 0.75},
    {"dropout",
     {"test_dropout"},
     {"test_dropout_default", "test_dropout_default_old", "test_dropout_default_ratio"},
     family::one_tensor,
     0.75},
    {"averagepool",
     {"test_averagepool"},
     {"test_averagepool_2d_ceil", "test_averagepool_2d_default",
      "test_averagepool_2d_pads_count_include_pad", "test_averagepool_2d_precomputed_pads",
      "test_averagepool_2d_precomputed_pads_count_include_pad",
      "test_averagepool_2d_precomputed_same_upper", "test_averagepool_2d_precomputed_strides",
      "test_averagepool_2d_same_lower", "test_averagepool_2d_same_upper",
      "test_averagepool_2d_strides"},
     family::one_tensor,
     2.75},
    {"globalaveragepool",
     {"test_globalaveragepool"},
     {"test_globalaveragepool", "test_globalaveragepool_precomputed"},
     family::one_tensor,
     0.5},
    {"globalmaxpool",
     {"test_globalmaxpool"},
     {"test_globalmaxpool", "test_globalmaxpool_precomputed"},
     family::one_tensor,
     0.5},
    {"reduce_mean", {"test_reduce_mean"}, {}, family::one_tensor},
    {"leakyrelu",
     {"test_leakyrelu"},
     {"test_leakyrelu", "test_leakyrelu_default", "test_leakyrelu_example"},
     family::one_tensor,
     1.75},
    {"prelu", {"test_prelu"}, {}, family::one_tensor},
    {"hardsigmoid",
     {"test_hardsigmoid"},
     {"test_hardsigmoid", "test_hardsigmoid_default", "test_hardsigmoid_example"},
     family::one_tensor,
     1.75},
    {"hardswish",
     {"test_hardswish"},
     {"test_hardswish", "test_hardswish_expanded"},
     family::one_tensor,
     1.5},
    {"sigmoid",
     {"test_sigmoid"},
     {"test_sigmoid", "test_sigmoid_example"},
     family::one_tensor,
     1.25},
    {"tanh", {"test_tanh"}, {"test_tanh", "test_tanh_example"}, family::one_tensor, 2},
    {"elu",
     {"test_elu"},
     {"test_elu", "test_elu_default", "test_elu_example"},
     family::one_tensor,
     1.75},
    {"selu",
     {"test_selu"},
     {"test_selu", "test_selu_default", "test_selu_example"},
     family::one_tensor,
     1.75},
    {"celu", {"test_celu"}, {"test_celu", "test_celu_expanded"}, family::one_tensor, 0.75},
    {"softplus",
     {"test_softplus"},
     {"test_softplus", "test_softplus_example"},
     family::one_tensor,
     1.5},
    {"softsign",
     {"test_softsign"},
     {"test_softsign", "test_softsign_example"},
     family::one_tensor,
     2.25},
    {"erf", {"test_erf"}, {"test_erf"}, family::one_tensor, 2.5},
    {"exp", {"test_exp"}, {"test_exp", "test_exp_example"}, family::one_tensor, 3.25},
    {"log", {"test_log"}, {"test_log", "test_log_example"}, family::one_tensor, 5.25},
    {"sqrt", {"test_sqrt"}, {"test_sqrt", "test_sqrt_example"}, family::one_tensor, 2.25},
    {"reciprocal",
     {"test_reciprocal"},
     {"test_reciprocal", "test_reciprocal_example"},
     family::one_tensor,
     1.5},
    {"abs", {"test_abs"}, {"test_abs"}, family::one_tensor, 1.5},
    {"neg", {"test_neg"}, {"test_neg", "test_neg_example"}, family::one_tensor, 0.75},
    {"sin", {"test_sin"}, {"test_sin", "test_sin_example"}, family::one_tensor, 2},
    {"cos", {"test_cos"}, {"test_cos", "test_cos_example"}, family::one_tensor, 1.75},
    {"tan", {"test_tan"}, {"test_tan", "test_tan_example"}, family::one_tensor},
    {"asin", {"test_asin"}, {"test_asin", "test_asin_example"}, family::one_tensor, 1.5},
    {"acos", {"test_acos"}, {"test_acos", "test_acos_example"}, family::one_tensor, 2.25},
    {"atan", {"test_atan"}, {"test_atan", "test_atan_example"}, family::one_tensor, 1.5},
    {"asinh", {"test_asinh"}, {"test_asinh", "test_asinh_example"}, family::one_tensor, 1.5},
    {"sinh", {"test_sinh"}, {"test_sinh", "test_sinh_example"}, family::one_tensor, 1.25},
    {"cosh", {"test_cosh"}, {"test_cosh", "test_cosh_example"}, family::one_tensor, 2},
    {"pow", {"test_pow"}, {"test_pow_bcast_scalar"}, family::one_tensor, 0.5},
    {"div", {"test_div"}, {}, family::one_tensor},
    {"squeeze", {"test_squeeze"}, {"test_squeeze_negative_axes"}, family::one_tensor, 0.75},
    {"unsqueeze",
     {"test_unsqueeze"},
     {"test_unsqueeze_axis_1", "test_unsqueeze_axis_2", "test_unsqueeze_axis_3"},
     family::one_tensor,
     0.75},
    {"softmax",
     {"test_softmax"},
     {"test_softmax_axis_1", "test_softmax_axis_2", "test_softmax_default_axis",
      "test_softmax_example", "test_softmax_large_number", "test_softmax_negative_axis"},
     family::one_tensor,
     1.5},
    {"layer_normalization",
     {"test_layer_normalization"},
     {"test_layer_normalization_2d_axis1", "test_layer_normalization_2d_axis_negative_1",
      "test_layer_normalization_3d_axis2_epsilon",
      "test_layer_normalization_3d_axis_negative_1_epsilon", "test_layer_normalization_4d_axis3",
      "test_layer_normalization_4d_axis_negative_1", "test_layer_normalization_default_axis"},
     family::one_tensor,
     2},
    {"logsoftmax",
     {"test_logsoftmax"},
     {"test_logsoftmax_example_1", "test_logsoftmax_large_number"},
     family::one_tensor},
    {"transpose",
     {"test_transpose"},
     {"test_transpose_all_permutations_0"},
     family::one_tensor,
     0.75},
    {"matmulinteger", {"test_matmulinteger"}, {}, family::one_tensor},
    {"convinteger", {"test_convinteger", "test_basic_convinteger"}, {}, family::one_tensor},
    {"cast", {"test_cast"}, {}, family::one_tensor},
    {"resize",
     {"test_resize"},
     {"test_resize_upsample_scales_linear", "test_resize_upsample_scales_nearest"},
     family::one_tensor,
     2},
    {"pad", {"test_constant_pad", "test_edge_pad", "test_reflect_pad"}, {}, family::one_tensor},
    {"ceil", {"test_ceil"}, {}},
    {"floor", {"test_floor"}, {}},
    {"round", {"test_round"}, {}},
    {"sign", {"test_sign"}, {}},
    {"thresholdedrelu", {"test_thresholdedrelu"}, {}},
    {"shrink", {"test_shrink"}, {}},
    {"sub", {"test_sub"}, {"test_sub", "test_sub_example"}, family::two_tensors},
    {"mul", {"test_mul"}, {"test_mul", "test_mul_example"}, family::two_tensors},
    {"max", {"test_max"}, {"test_max_one_input", "test_max_two_inputs"}, family::two_tensors},
    {"min", {"test_min"}, {"test_min_one_input", "test_min_two_inputs"}, family::two_tensors},
    {"sum", {"test_sum"}, {"test_sum_one_input", "test_sum_two_inputs"}, family::two_tensors},
    {"mean", {"test_mean"}, {}, family::two_tensors},
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
