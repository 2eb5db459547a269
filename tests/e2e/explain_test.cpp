// `latchkey explain`: the model's cycles against the RTL's counters, layer by layer, for networks
// that others trained; the pictures; and what it says to files that it cannot explain.
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>

#include "compiler/compile.hpp"
#include "random_graph.hpp"
#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::HasSubstr;

void expect_error(const Outcome& o, int code, const std::vector<std::string>& phrases) {
  EXPECT_EQ(o.code, code) << o.err;
  for (const std::string& phrase : phrases) EXPECT_THAT(o.message(), HasSubstr(phrase));
}

std::string fashion_program(const Workspace& w, const std::string& name) {
  const Outcome o = w.tool({"compile", model(name + ".onnx"), "-o", w.str(name + ".lkm"),
                            "--calibrate", fashion("train-images-idx3-ubyte.gz")});
  EXPECT_EQ(o.code, 0) << o.err;
  return w.str(name + ".lkm");
}

/// What must hold of a measured explanation; `tolerance` is the share by which a prediction may
/// miss.
void expect_agreement(const nlohmann::json& j, double tolerance) {
  const nlohmann::json& counters = j["measured"]["counters"];
  const auto cycles = counters["cycles"].get<std::uint64_t>();
  std::uint64_t sum = j["measured"]["boot"].get<std::uint64_t>(), macs = 0;
  double waited = 0;
  for (const nlohmann::json& layer : j["layers"]) {
    const double predicted = layer["cycles"].get<double>(), there = layer["measured"].get<double>();
    // Input waits for the adapter, which starts when the host has it start: not the kernel's time.
    // A refresh of the memory falls into this layer or that.
    if (layer["op"] == "input") {
      waited = there - predicted;
    } else {
      EXPECT_LE(std::abs(predicted - there), tolerance * there + 110) << layer.dump(1);
    }
    sum += layer["measured"].get<std::uint64_t>();
    macs += layer["macs"].get<std::uint64_t>();
  }
  // The layers are the run: only start and end are left, and there is nothing to compute in them.
  EXPECT_LE(sum, cycles);
  EXPECT_GE(sum + 100, cycles);
  EXPECT_EQ(macs, counters["macs"].get<std::uint64_t>());
  EXPECT_NEAR(j["cycles"].get<double>() + waited, static_cast<double>(cycles),
              tolerance * static_cast<double>(cycles) + 110);
}

TEST(Explain, PredictsTheCyclesOfTheRtl) {
  Workspace w;
  for (const std::string name : {"fashion_mlp", "fashion_lenet"}) {
    const std::string program = fashion_program(w, name);
    for (const std::string memory : {"ideal", "ddr4-2400", "hbm"}) {
      SCOPED_TRACE(name + ", " + memory);
      const Outcome o =
          w.tool({"explain", program, "--device", "sim:7,memory=" + memory, "--batch", "8"});
      ASSERT_EQ(o.code, 0) << o.err;
      EXPECT_EQ(o.json()["memory"], memory);
      EXPECT_FALSE(o.json()["measured"]["locked"].get<bool>());
      expect_agreement(o.json(), 0.02);
    }
  }
}

// A skip connection that spills, and a wide output, unlocked and sealed.
TEST(Explain, PredictsSpillsAndLoads) {
  Workspace w;
  compiler::graph_builder b(5);
  // A quarter of the scratchpad, so that two images spill.
  const compiler::target small{16, compiler::target::of(16).spad_words / 4};
  compiler::program program = compiler::compile(b.finish(b.waiting_skip()), {small, 2, {}, {}});
  program.target = compiler::target::of(16);
  EXPECT_GT(program.spill_pages, 0u);
  compiler::write_program(w.str("skip.lkm"), program);
  w.enroll("sim:7", "card.lkd");
  w.lock("skip.lkm", "card.lkd", "skip.lkx");
  for (const std::string memory : {"ideal", "ddr4-2400", "hbm"}) {
    for (const bool locked : {false, true}) {
      SCOPED_TRACE(memory + (locked ? ", locked" : ", unlocked"));
      std::vector<std::string> words = {"explain", w.str("skip.lkm"), "--device",
                                        "sim:7,memory=" + memory};
      if (locked)
        words.insert(words.end(), {"--package", w.str("skip.lkx"), "--record", w.str("card.lkd")});
      const Outcome o = w.tool(words);
      ASSERT_EQ(o.code, 0) << o.err;
      EXPECT_EQ(o.json()["measured"]["locked"].get<bool>(), locked);
      const nlohmann::json j = o.json();
      expect_agreement(j, 0.05);  // a refresh holds up a posted write less than a read
      int moved = 0;
      for (const nlohmann::json& layer : j["layers"]) {
        if (layer["op"] != "spill" && layer["op"] != "load") continue;
        ++moved;
        if (memory != "ideal") continue;  // no refresh
        EXPECT_NEAR(layer["cycles"].get<double>(), layer["measured"].get<double>(), 60)
            << layer.dump(1);
      }
      EXPECT_EQ(moved, 2);
    }
  }
}

TEST(Explain, MeasuresTheSealedPackageOfTheProgram) {
  Workspace w;
  w.session();
  const Outcome o =
      w.tool({"explain", w.str("digits.lkm"), "--device", "sim:7", "--package", w.str("digits.lkx"),
              "--record", w.str("card.lkd"), "--batch", "16", "--plot", w.str("digits.svg")});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_TRUE(o.json()["measured"]["locked"].get<bool>());
  expect_agreement(o.json(), 0.02);
  const bytes svg = read(w.path("digits.svg"));
  const std::string text(svg.begin(), svg.end());
  EXPECT_THAT(text, testing::StartsWith("<svg "));
  EXPECT_THAT(text, testing::EndsWith("</svg>\n"));
  const nlohmann::json j = o.json();
  EXPECT_FALSE(j["layers"].empty());
  for (const nlohmann::json& layer : j["layers"])
    EXPECT_THAT(text, HasSubstr(layer["name"].get<std::string>()));
}

TEST(Explain, NeedsNoCardToPredict) {
  Workspace w;
  w.compile_digits("digits.lkm");
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"explain", w.str("digits.lkm")};
    words.insert(words.end(), more.begin(), more.end());
    return w.tool(words);
  };
  const Outcome plain = with({"--plot", w.str("digits.html")});
  ASSERT_EQ(plain.code, 0) << plain.err;
  EXPECT_FALSE(plain.json().contains("measured"));
  EXPECT_EQ(plain.json()["batch"], 256);
  EXPECT_TRUE(fs::exists(w.path("digits.html")));
  const auto cycles = [](const Outcome& o) { return o.json()["cycles"].get<std::uint64_t>(); };
  EXPECT_LT(cycles(with({"--batch", "1"})), cycles(plain));
  EXPECT_LE(cycles(with({"--memory", "ideal"})), cycles(plain));
}

TEST(Explain, RefusesWhatItCannotExplain) {
  Workspace w;
  w.session();
  const std::string program = w.str("digits.lkm");
  expect_error(w.tool({"explain", w.str("none.lkm")}), 3, {"none.lkm", "check the path"});
  write(w.path("text.lkm"), std::string("this is not a program\n"));
  expect_error(w.tool({"explain", w.str("text.lkm")}), 3, {"text.lkm", "not a Latchkey program"});
  bytes half = read(program);
  half.resize(half.size() / 2);
  write(w.path("half.lkm"), half);
  expect_error(w.tool({"explain", w.str("half.lkm")}), 3, {"half.lkm", "truncated"});
  expect_error(w.tool({"explain", w.str("digits.lkx")}), 3,
               {"digits.lkx", "sealed package", "--package"});
  expect_error(w.tool({"explain", program, "--batch", "300"}), 2, {"300"});
  expect_error(w.tool({"explain", program, "--memory", "ddr5"}), 2, {"ddr5"});
  expect_error(w.tool({"explain", program, "--plot", w.str("x.png")}), 2, {"x.png", ".svg"});
  expect_error(w.tool({"explain", program, "--package", w.str("digits.lkx")}), 2, {"--package"});
  w.compile_digits("other.lkm", {"--batch", "4"});
  expect_error(w.tool({"explain", w.str("other.lkm"), "--device", "sim:7", "--package",
                       w.str("digits.lkx"), "--record", w.str("card.lkd")}),
               11, {"digits.lkx", "not made from this program"});
}

}  // namespace
}  // namespace latchkey::e2e
