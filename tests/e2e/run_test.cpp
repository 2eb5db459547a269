// The honest way: enrol, compile, lock, run; what the card answers is what the int8 reference says.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::HasSubstr;

template <class T>
std::vector<T> values(const bytes& data) {
  std::vector<T> v(data.size() / sizeof(T));
  std::memcpy(v.data(), data.data(), v.size() * sizeof(T));
  return v;
}

/// What every successful run must show: all outputs as the reference's, the compiler's count of
/// multiply-accumulates, and every cycle attributed.
void expect_exact(const Outcome& o, std::uint64_t images, std::uint64_t macs_per_image) {
  ASSERT_EQ(o.code, 0) << o.err;
  const auto j = o.json();
  EXPECT_EQ(j["images"], images);
  EXPECT_EQ(j["compared"], images * 10);
  EXPECT_EQ(j["differing"], 0);
  EXPECT_EQ(j["counters"]["macs"], images * macs_per_image);
  EXPECT_EQ(j["macs_expected"], images * macs_per_image);
  std::uint64_t sum = 0;
  for (const auto& [cause, cycles] : j["counters"]["stalls"].items())
    sum += cycles.get<std::uint64_t>();
  EXPECT_EQ(sum, j["counters"]["cycles"].get<std::uint64_t>());
  EXPECT_GT(sum, 0U);
}

constexpr std::uint64_t kDigitMacs = 64 * 64 + 64 * 32 + 32 * 10;

TEST(Run, DigitsAreExactOnTheWholeTestSet) {
  Workspace w;
  const auto enrolled = w.enroll("sim:7", "card.lkd");
  EXPECT_EQ(enrolled["device_id"].get<std::string>().size(), 32U);
  EXPECT_EQ(fs::status(w.path("card.lkd")).permissions(), fs::perms{0600});
  const auto compiled = w.compile_digits("digits.lkm");
  EXPECT_EQ(compiled["macs"], kDigitMacs);
  const auto locked = w.lock("digits.lkm", "card.lkd", "digits.lkx");
  EXPECT_EQ(locked["device_id"], enrolled["device_id"]);
  const Outcome o = w.tool(w.run_words(
      360, {"--expect", w.str("digits.ref"), "--labels", digit_labels(), "-o", w.str("out")}));
  expect_exact(o, 360, kDigitMacs);
  EXPECT_EQ(read(w.path("out")), read(w.path("digits.ref")));
  // The int8 reference's own figure, reached by the card.
  EXPECT_NEAR(o.json()["top1"].get<double>(), compiled["evaluation"]["top1_int8"].get<double>(),
              1e-9);
  EXPECT_EQ(o.json()["card"], "simulated: memory and silicon are models");
  EXPECT_GT(o.json()["key_setup"]["start_cycles"], 0);
}

class Batch : public testing::TestWithParam<int> {};

TEST_P(Batch, IsExactOverSeveralStarts) {
  Workspace w;
  w.session();
  const int images = GetParam() == 1 ? 5 : 150;
  const Outcome o = w.tool(w.run_words(
      images, {"--batch", std::to_string(GetParam()), "--expect", w.str("digits.ref")}));
  expect_exact(o, static_cast<std::uint64_t>(images), kDigitMacs);
  EXPECT_EQ(o.json()["counters"]["starts"], (images + GetParam() - 1) / GetParam());
}

INSTANTIATE_TEST_SUITE_P(Sizes, Batch, testing::Values(1, 7, 64, 256));

/// A model and how many images run on the RTL.
struct workload {
  const char* model;
  unsigned images;
};

void PrintTo(const workload& w, std::ostream* out) { *out << w.model; }

class Network : public testing::TestWithParam<workload> {};

TEST_P(Network, FashionIsExact) {
  Workspace w;
  w.enroll("sim:7", "card.lkd");
  const std::string name = GetParam().model, count = std::to_string(GetParam().images);
  const Outcome compiled = w.tool(
      {"compile", model(name + ".onnx"), "-o", w.str("net.lkm"), "--calibrate",
       fashion("train-images-idx3-ubyte.gz"), "--calibrate-count", "128", "--evaluate",
       fashion("t10k-images-idx3-ubyte.gz"), "--labels", fashion("t10k-labels-idx1-ubyte.gz"),
       "--count", count, "--reference-output", w.str("net.ref")});
  ASSERT_EQ(compiled.code, 0) << compiled.err;
  w.lock("net.lkm", "card.lkd", "net.lkx");
  const Outcome o = w.tool({"run", w.str("net.lkx"), "--record", w.str("card.lkd"), "--device",
                            "sim:7", "--images", fashion("t10k-images-idx3-ubyte.gz"), "--count",
                            count, "--expect", w.str("net.ref")});
  expect_exact(o, GetParam().images, compiled.json()["macs"].get<std::uint64_t>());
}

INSTANTIATE_TEST_SUITE_P(Models, Network,
                         testing::Values(workload{"fashion_mlp", 48}, workload{"fashion_lenet", 48},
                                         workload{"fashion_resnet8", 200}),
                         [](const auto& p) { return std::string(p.param.model); });

TEST(Run, TheUnlockedBuildGivesTheSameOutputs) {
  Workspace w;
  w.session();
  const Outcome o =
      w.tool({"run", w.str("digits.lkm"), "--unlocked", "--device", "sim:7", "--images",
              digit_images(), "--count", "64", "--expect", w.str("digits.ref")});
  expect_exact(o, 64, kDigitMacs);
  EXPECT_EQ(o.json()["build"], "unlocked");
}

TEST(Run, ThePublicRecordIsEnoughForTheOperator) {
  Workspace w;
  const Outcome e = w.tool({"enroll", "--device", "sim:7", "--record", w.str("card.lkd"),
                            "--public", w.str("public.lkd"), "--passphrase-file", w.str("pass")});
  ASSERT_EQ(e.code, 0) << e.err;
  w.compile_digits("digits.lkm");
  w.lock("digits.lkm", "card.lkd", "digits.lkx");
  const Outcome o =
      w.tool({"run", w.str("digits.lkx"), "--record", w.str("public.lkd"), "--device", "sim:7",
              "--images", digit_images(), "--count", "8", "--expect", w.str("digits.ref")});
  expect_exact(o, 8, kDigitMacs);
  // And not enough for locking.
  const Outcome l = w.tool({"lock", w.str("digits.lkm"), "--record", w.str("public.lkd"), "-o",
                            w.str("x.lkx"), "--passphrase-file", w.str("pass")});
  EXPECT_EQ(l.code, 3);
  EXPECT_THAT(l.message(), HasSubstr("public record without owner keys"));
}

TEST(Run, OutputModesAgreeWithRaw) {
  Workspace w;
  w.session();
  const auto info = w.tool({"inspect", w.str("digits.lkm")}).json();
  const float scale = info["output"]["scale"].get<float>();
  const int zero = info["output"]["zero_point"].get<int>();
  const int n = 20;
  const auto run = [&](const std::string& mode, const std::vector<std::string>& more = {}) {
    std::vector<std::string> extra = {"--mode", mode, "-o", w.str(mode)};
    extra.insert(extra.end(), more.begin(), more.end());
    const Outcome o = w.tool(w.run_words(n, extra));
    EXPECT_EQ(o.code, 0) << o.err;
    return read(w.path(mode));
  };
  const bytes raw = run("raw");
  const auto dequant = values<float>(run("dequant"));
  const auto softmax = values<float>(run("softmax"));
  const bytes top = run("top-k", {"--k", "3"});
  ASSERT_EQ(raw.size(), n * 10U);
  ASSERT_EQ(dequant.size(), n * 10U);
  ASSERT_EQ(softmax.size(), n * 10U);
  ASSERT_EQ(top.size(), n * 24U);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint8_t* q = &raw[10 * i];
    double sum = 0;
    for (int c = 0; c < 10; ++c) sum += std::exp(double{scale} * (q[c] - zero));
    for (std::size_t c = 0; c < 10; ++c) {
      EXPECT_EQ(dequant[10 * i + c], scale * static_cast<float>(q[c] - zero)) << i << "," << c;
      EXPECT_NEAR(softmax[10 * i + c], std::exp(double{scale} * (q[c] - zero)) / sum, 1e-4);
    }
    // Most probable first, the lower class first among equals.
    std::vector<std::uint32_t> order(10);
    for (std::uint32_t c = 0; c < 10; ++c) order[c] = c;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return q[a] > q[b]; });
    for (std::size_t k = 0; k < 3; ++k) {
      std::uint32_t channel;
      float p;
      std::memcpy(&channel, &top[24 * i + 8 * k], 4);
      std::memcpy(&p, &top[24 * i + 8 * k + 4], 4);
      EXPECT_EQ(channel, order[k]) << "image " << i;
      EXPECT_NEAR(p, softmax[10 * i + order[k]], 1e-4);
    }
  }
}

TEST(Run, Float32AndU8ImagesAgree) {
  Workspace w;
  w.session();
  // The reference file's first outputs, from the same images as float32.
  const Outcome u8 = w.tool(w.run_words(4, {"-o", w.str("u8")}));
  ASSERT_EQ(u8.code, 0) << u8.err;
  bytes zero(2 * 64 * 4, 0);  // two black images
  write(w.path("black.f32"), zero);
  const Outcome f32 = w.tool({"run", w.str("digits.lkx"), "--record", w.str("card.lkd"), "--device",
                              "sim:7", "--raw", w.str("black.f32"), "-o", w.str("f32")});
  ASSERT_EQ(f32.code, 0) << f32.err;
  const bytes out = read(w.path("f32"));
  ASSERT_EQ(out.size(), 20U);
  EXPECT_EQ(bytes(out.begin(), out.begin() + 10), bytes(out.begin() + 10, out.end()));
}

// The same images as .npy bytes, as .npy real values and as raw float32.
TEST(Run, NpyFilesHoldImagesToo) {
  Workspace w;
  w.session();
  const auto run = [&](const std::string& option, const std::string& name, const bytes& file) {
    write(w.path(name), file);
    return w.tool({"run", w.str("digits.lkx"), "--record", w.str("card.lkd"), "--device", "sim:7",
                   option, w.str(name), "-o", w.str("out")});
  };
  const auto npy = [](const std::string& type, const std::string& shape, const bytes& values) {
    std::string head =
        "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    head.resize((10 + head.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
    head += '\n';
    bytes file{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    file.push_back(static_cast<std::uint8_t>(head.size()));
    file.push_back(static_cast<std::uint8_t>(head.size() >> 8));
    file.insert(file.end(), head.begin(), head.end());
    file.insert(file.end(), values.begin(), values.end());
    return file;
  };
  bytes pixels(std::size_t{4} * 64);
  std::vector<float> real;
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<std::uint8_t>(i * 37);
    real.push_back(static_cast<float>(pixels[i]) * (1.0F / 255.0F));
  }
  bytes raw(real.size() * sizeof(float));
  std::memcpy(raw.data(), real.data(), raw.size());
  const auto output = [&](const Outcome& o) {
    EXPECT_EQ(o.code, 0) << o.err;
    return read(w.path("out"));
  };
  const bytes u8 = output(run("--images", "u8.npy", npy("|u1", "4, 1, 8, 8", pixels)));
  const bytes f32 = output(run("--images", "f32.npy", npy("<f4", "4, 64", raw)));
  EXPECT_EQ(u8.size(), 40U);
  EXPECT_EQ(u8, f32);
  EXPECT_EQ(u8, output(run("--raw", "images.f32", raw)));

  const Outcome wrong = run("--images", "wrong.npy", npy("|u1", "2, 128", pixels));
  EXPECT_EQ(wrong.code, 11);
  EXPECT_THAT(wrong.err, HasSubstr("holds 2 x 128 values"));
}

TEST(Run, NetworkSealedWithHiddenLayersRuns) {
  Workspace w;
  w.session();
  w.lock("digits.lkm", "card.lkd", "digits.lkx", {"--hide-layers"});
  const auto shown = w.tool({"inspect", w.str("digits.lkx")}).json();
  EXPECT_TRUE(!shown.contains("layers") || shown["layers"].empty()) << shown;
  const Outcome o = w.tool(w.run_words(8, {"--expect", w.str("digits.ref")}));
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.json()["differing"], 0);
}

TEST(Run, InspectVerifiesWithTheOwnerKey) {
  Workspace w;
  w.session();
  const std::vector<std::string> with_key = {"--record", w.str("card.lkd"), "--passphrase-file",
                                             w.str("pass")};
  std::vector<std::string> words = {"inspect", w.str("digits.lkx")};
  words.insert(words.end(), with_key.begin(), with_key.end());
  const Outcome good = w.tool(words);
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_EQ(good.json()["verified"], true);
  words[1] = flipped(w, "digits.lkx", "bad.lkx", layout_of(read(w.path("digits.lkx"))).end - 1, 7);
  const Outcome bad = w.tool(words);
  EXPECT_EQ(bad.code, 9);
  EXPECT_THAT(bad.message(), HasSubstr("page 6"));
}

TEST(Run, WipeLeavesTheChipEnrolled) {
  Workspace w;
  w.session();
  EXPECT_EQ(w.tool({"wipe", "--device", "sim:7"}).code, 0);
  const Outcome o = w.tool(w.run_words(8, {"--expect", w.str("digits.ref")}));
  EXPECT_EQ(o.code, 0) << o.err;
}

// The chip is enrolled at 25 C and nominal voltage; the key must come back anywhere in its range.
class Environment : public testing::TestWithParam<const char*> {};

TEST_P(Environment, KeepsTheKeyAndTheLogits) {
  Workspace w;
  w.session();
  auto words = w.run_words(16, {"--expect", w.str("digits.ref")});
  words[5] = std::string("sim:7,") + GetParam();
  expect_exact(w.tool(words), 16, kDigitMacs);
}

INSTANTIATE_TEST_SUITE_P(Corners, Environment,
                         testing::Values("temperature=-20", "temperature=25", "temperature=85",
                                         "voltage=0.81", "voltage=0.85", "voltage=0.89", "age=0",
                                         "age=10", "temperature=85,voltage=0.81,age=10",
                                         "temperature=-20,voltage=0.89,age=10"));

class Memory : public testing::TestWithParam<const char*> {};

TEST_P(Memory, ChangesCyclesOnly) {
  Workspace w;
  w.session();
  auto words = w.run_words(16, {"--expect", w.str("digits.ref")});
  words[5] = std::string("sim:7,memory=") + GetParam();
  expect_exact(w.tool(words), 16, kDigitMacs);
}

INSTANTIATE_TEST_SUITE_P(Presets, Memory, testing::Values("ideal", "ddr4-2400", "hbm"));

// Answers come from the RTL and from nowhere else: with one product of the array wrong, the logits
// are wrong, and the comparison notices.
TEST(Fault, OneWrongProductShows) {
  Workspace w;
  w.session();
  fs::create_directory(w.path("images"));
  fs::create_symlink(LATCHKEY_IMAGE_DIR "/faulty-n16.xclbin", w.path("images/operate-n16.xclbin"));
  const Outcome faulty = w.tool(w.run_words(64, {"--expect", w.str("digits.ref")}),
                                {{"LATCHKEY_IMAGES", w.str("images")}});
  EXPECT_EQ(faulty.code, 11) << faulty.err;
  EXPECT_THAT(faulty.err, HasSubstr("outputs differ from the int8 reference"));
  EXPECT_THAT(faulty.err, Not(HasSubstr(" 0 of 640 outputs differ")));
  // The same folder with the good image.
  fs::remove(w.path("images/operate-n16.xclbin"));
  fs::create_symlink(LATCHKEY_IMAGE_DIR "/operate-n16.xclbin", w.path("images/operate-n16.xclbin"));
  const Outcome good = w.tool(w.run_words(64, {"--expect", w.str("digits.ref")}),
                              {{"LATCHKEY_IMAGES", w.str("images")}});
  EXPECT_EQ(good.code, 0) << good.err;
}

}  // namespace
}  // namespace latchkey::e2e
