// The campaign's arithmetic against published values, its twin against the RTL, its tool from
// outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "hardware.hpp"
#include "latchkey/error.hpp"
#include "page.hpp"
#include "statistics.hpp"
#include "vault.hpp"

namespace latchkey::campaign {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

// ---- statistics

// Exact intervals as tabulated in textbooks.
TEST(Statistics, ClopperPearson) {
  EXPECT_NEAR(proportion(0, 10).high, 0.2589, 1e-4);  // 1 - 0.05^(1/10)
  EXPECT_EQ(proportion(0, 10).low, 0);
  EXPECT_NEAR(proportion(1, 10).low, 0.00253, 1e-5);
  EXPECT_NEAR(proportion(1, 10).high, 0.44502, 1e-5);
  EXPECT_NEAR(proportion(5, 10).low, 0.18709, 1e-5);
  EXPECT_NEAR(proportion(5, 10).high, 0.81291, 1e-5);
  EXPECT_NEAR(proportion(10, 10).low, 0.7411, 1e-4);
  EXPECT_EQ(proportion(10, 10).high, 1);
  EXPECT_NEAR(proportion(0, 1000000).high, 3e-6, 1e-8);  // rule of three
  EXPECT_EQ(proportion(0, 0).high, 1);
  EXPECT_THROW(proportion(2, 1), std::invalid_argument);
}

TEST(Statistics, BinomialTails) {
  EXPECT_NEAR(binomial_tail(10, 0.5, 7), 56.0 / 1024, 1e-12);
  EXPECT_NEAR(binomial_point(255, 0.01, 0), std::pow(0.99, 255), 1e-12);
  EXPECT_EQ(binomial_tail(255, 0, 18), 0);
  EXPECT_NEAR(binomial_tail(255, 1, 18), 1, 1e-12);
  // Far out the first term dominates: C(255, 19) p^19.
  EXPECT_NEAR(std::log10(binomial_tail(255, 1e-9, 18)),
              (std::lgamma(256) - std::lgamma(20) - std::lgamma(237)) / std::log(10) - 19 * 9,
              1e-3);
}

TEST(Statistics, BetaBinomialHasTheVarianceAskedFor) {
  for (double dispersion : {1.0, 1.3, 4.0}) {
    double sum = 0, mean = 0, squares = 0;
    for (unsigned k = 0; k <= 255; ++k) {
      const double p = beta_binomial_point(255, 0.03, dispersion, k);
      sum += p;
      mean += p * k;
      squares += p * k * k;
    }
    EXPECT_NEAR(sum, 1, 1e-9);
    EXPECT_NEAR(mean, 255 * 0.03, 1e-7);
    EXPECT_NEAR((squares - mean * mean) / (255 * 0.03 * 0.97), dispersion, 1e-6);
  }
  EXPECT_GT(beta_binomial_tail(255, 0.01, 1.5, 18), binomial_tail(255, 0.01, 18));
}

TEST(Statistics, ChiSquareTail) {
  EXPECT_NEAR(chi_square_tail(3.841459, 1), 0.05, 1e-6);
  EXPECT_NEAR(chi_square_tail(18.307038, 10), 0.05, 1e-6);
  EXPECT_NEAR(chi_square_tail(2.558212, 10), 0.99, 1e-6);
  EXPECT_EQ(chi_square_tail(0, 5), 1);
}

TEST(Statistics, FitTellsABinomialFromAMixture) {
  std::mt19937_64 rng(7);
  std::binomial_distribution<unsigned> even(255, 0.02), low(255, 0.01), high(255, 0.03);
  std::vector<std::uint64_t> fair(256), mixed(256);
  for (int i = 0; i < 20000; ++i) {
    ++fair[even(rng)];
    ++mixed[i % 2 == 0 ? low(rng) : high(rng)];
  }
  const auto judge = [](const std::vector<std::uint64_t>& counts) {
    const moments m = moments_of(counts, 255);
    return goodness_of_fit(counts, 255, m.p, 1, 1);
  };
  EXPECT_GT(judge(fair).p_value, 1e-4);
  EXPECT_LT(judge(mixed).p_value, 1e-12);
  EXPECT_NEAR(moments_of(fair, 255).dispersion, 1, 0.05);
  EXPECT_NEAR(moments_of(mixed, 255).dispersion, 2.3, 0.1);
  // Nothing to fit is no good fit.
  std::vector<std::uint64_t> none(256);
  none[0] = 1000;
  EXPECT_EQ(judge(none).freedom, 0);
  EXPECT_EQ(moments_of(none, 255).dispersion, 0);
}

TEST(Statistics, MinEntropy) {
  EXPECT_NEAR(most_common_value(500000, 1000000), 1, 0.004);
  EXPECT_EQ(most_common_value(1000, 1000), 0);
  EXPECT_EQ(most_common_value(0, 1000), 0);
  // SP 800-90B, 6.3.1, worked example: mode 8 of 20.
  EXPECT_NEAR(most_common_value(12, 20), -std::log2(0.6 + 2.576 * std::sqrt(0.24 / 19)), 1e-9);
  const std::uint64_t fair[2][2] = {{1000, 1000}, {1000, 1000}};
  EXPECT_NEAR(markov(2000, 4000, fair), 1, 1e-9);
  const std::uint64_t sticky[2][2] = {{1800, 200}, {200, 1800}};
  EXPECT_NEAR(markov(2000, 4000, sticky), -(std::log2(0.5) + 127 * std::log2(0.9)) / 128, 1e-9);
  const std::uint64_t flipping[2][2] = {{100, 1900}, {1900, 100}};
  EXPECT_NEAR(markov(2000, 4000, flipping), -(std::log2(0.5) + 127 * std::log2(0.95)) / 128, 1e-9);
}

// Message lengths from the published table of primitive BCH codes of length 255.
TEST(Statistics, BchTable) {
  const std::pair<unsigned, unsigned> known[] = {{1, 247}, {2, 239}, {8, 191}, {18, 131}, {19, 123},
                                                 {29, 71}, {31, 55}, {45, 37}, {47, 29},  {55, 21}};
  for (auto [errors, message] : known) EXPECT_EQ(bch_message_bits(errors), message) << errors;
}

TEST(Statistics, ClosedFormsOfTheModel) {
  EXPECT_NEAR(kept_share(0), 1, 1e-12);
  EXPECT_NEAR(kept_bit_error(0, 1), 0.25, 1e-6);
  EXPECT_NEAR(kept_bit_error(0, 0.25), std::atan(0.25) / 3.14159265358979, 1e-6);
  EXPECT_LT(kept_bit_error(0.94, 0.25), 1e-4);
  EXPECT_NEAR(kept_min_entropy(0.94, 0), 1, 1e-9);
  EXPECT_LT(kept_min_entropy(0.94, 0.3), kept_min_entropy(0, 0.3));
}

// ---- RTL

TEST(Twin, IsTheHardware) {
  plan p;
  p.hardware_dice = 3;
  p.hardware_starts = 6;
  p.seed = 99;
  const nlohmann::json r = compare_with_hardware(p, [](const std::string&) {});
  EXPECT_EQ(r["helper_bits"], 3 * 8448);
  EXPECT_EQ(r["helper_bits_differing"], 0);
  EXPECT_EQ(r["starts"], 18);
  EXPECT_EQ(r["verdicts_differing"], 0);
  // Both verdicts were seen.
  EXPECT_GT(r["starts_succeeded"], 4);
  EXPECT_LT(r["starts_succeeded"], 14);
  // Whatever the mask; the time of a START depends on nothing else.
  EXPECT_LT(r["start_cycles"]["most"], 20000);
}

// The same look finds a difference of one bit, and another die.
TEST(Twin, ADifferenceIsSeen) {
  sim::SiliconConfig config;
  config.die_seed = 5;
  const hardware_enrolment rtl = enrol_in_hardware(config, {}, 1);
  ASSERT_TRUE(rtl.ok);
  sim::FleetDie die(config, 1);
  helper_data helper = helper_of(sim::enrol(die));
  EXPECT_EQ(differing_bits(rtl.helper, helper), 0U);
  helper[230] ^= 0x100;
  EXPECT_EQ(differing_bits(rtl.helper, helper), 1U);
  config.die_seed = 6;
  sim::FleetDie other(config, 1);
  EXPECT_GT(differing_bits(rtl.helper, helper_of(sim::enrol(other))), 2000U);
  EXPECT_FALSE(start_in_hardware(config, {}, 2, rtl.helper).ok);
}

// What the selection rejects, the hardware rejects.
TEST(Twin, RejectsWithTheHardware) {
  for (double step : {1.0 / 16, 1.0 / 128}) {
    sim::SiliconConfig config;
    config.pdl_step = step;
    sim::FleetDie die(config, 1);
    EXPECT_NE(sim::enrol(die).reject, sim::Reject::none);
    EXPECT_FALSE(enrol_in_hardware(config, {}, 1).ok);
  }
}

// ---- the campaign

plan small() {
  plan p;
  p.dice = 80;
  p.readings = 2;
  p.noise_dice = 4;
  p.skew_dice = 4;
  p.hardware_dice = 0;
  return p;
}

TEST(Campaign, IsTheSameWhateverTheThreads) {
  plan p = small();
  p.threads = 1;
  nlohmann::json one = run(p, [](const std::string&) {});
  p.threads = 3;
  nlohmann::json three = run(p, [](const std::string&) {});
  one.erase("seconds");
  three.erase("seconds");
  EXPECT_EQ(one, three);
  p.seed = 2;
  nlohmann::json other = run(p, [](const std::string&) {});
  EXPECT_NE(one["fingerprint"], other["fingerprint"]);
}

TEST(Campaign, FiguresAreThoseOfTheModel) {
  const nlohmann::json r = run(small(), [](const std::string&) {});
  EXPECT_EQ(r["enrolment"]["enrolled"], 80);
  EXPECT_NEAR(r["fingerprint"]["uniformity"]["mean"].get<double>(), 0.5, 0.005);
  EXPECT_NEAR(r["fingerprint"]["inter_distance_of_all_pairs"].get<double>(),
              r["fingerprint"]["inter_distance_closed_form"].get<double>(), 0.002);
  EXPECT_EQ(r["environments"][0]["failures"], 0);
  for (const auto& c : r["drift"]) {
    EXPECT_NEAR(c["raw_wrong"].get<double>(), c["raw_target"].get<double>(), 0.005);
  }
  for (const auto& c : r["noise"]) {
    EXPECT_NEAR(c["raw_wrong"].get<double>(), c["raw_target"].get<double>(), 0.01);
  }
  // A quarter of the bits turned by drift is beyond this design, and the campaign says so.
  EXPECT_EQ(r["environments"][0]["starts"], 80 * 2 * 20);
  EXPECT_EQ(r["environments"][1]["starts"], 80 * 2 * 4);
  EXPECT_EQ(r["drift"].back()["failures"], 160);
  EXPECT_EQ(r["drift"].back()["dice_with_a_failure"]["count"], 80);
  EXPECT_GT(r["crossing"]["drift"]["raw_flips"].get<double>(), 0.12);
  EXPECT_LT(r["crossing"]["drift"]["raw_flips"].get<double>(), 0.20);
}

TEST(Campaign, RefusesPlansOfNothing) {
  const auto code = [](plan p) {
    try {
      run(p, [](const std::string&) {});
    } catch (const error& e) {
      return e.code();
    }
    return errc{};
  };
  for (unsigned plan::* field :
       {&plan::dice, &plan::readings, &plan::noise_dice, &plan::skew_dice, &plan::threads}) {
    plan p = small();
    p.*field = 0;
    EXPECT_EQ(code(p), errc::usage);
  }
  plan p = small();
  p.seed = 1U << 24;
  EXPECT_EQ(code(p), errc::usage);
}

// ---- pages

TEST(Page, SaysWhatItIsAndNeedsNothingElse) {
  nlohmann::json r = run(small(), [](const std::string&) {});
  r["command"] = "a command <&>";
  r["hardware"]["start_cycles"] = {{"least", 1}, {"most", 2}, {"mean", 1.5}, {"deviation", 0.5}};
  r["cost"] = cost_of(LATCHKEY_SYNTHESIS);
  const std::string html = html_page(r), markdown = markdown_page(r);
  for (const std::string& page : {html, markdown}) {
    EXPECT_THAT(page, HasSubstr("modelled dice"));
    EXPECT_THAT(page, HasSubstr("none of silicon"));
    EXPECT_THAT(page, HasSubstr("LUT"));
  }
  EXPECT_THAT(html, HasSubstr("<svg"));
  EXPECT_THAT(html, HasSubstr("a command &lt;&amp;&gt;"));
  for (const char* outside : {"http://", "https://", "<script", "<link", "<img", "nan", "inf\""})
    EXPECT_THAT(html, Not(HasSubstr(outside)));
}

TEST(Page, RefusesAReportThatIsNone) {
  EXPECT_THROW(cost_of("/nonexistent"), error);
  EXPECT_THROW(cost_of("/dev/null"), error);
  const fs::path path = fs::temp_directory_path() / "latchkey_vault_test.json";
  std::ofstream(path) << R"({"modules": {"lk_puf": 3}})";
  EXPECT_THROW(cost_of(path), error);
  fs::remove(path);
}

// ---- the tool

struct outcome {
  int code;
  std::string text;
};
outcome tool(const std::string& words) {
  FILE* const pipe = ::popen((std::string(LATCHKEY_VAULT) + " " + words + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen failed");
  outcome o{};
  std::array<char, 4096> buffer{};
  for (std::size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    o.text.append(buffer.data(), n);
  o.code = WEXITSTATUS(::pclose(pipe));
  return o;
}

TEST(Tool, RefusesBadArguments) {
  for (const char* words :
       {"--dice 0", "--dice -1", "--dice many", "--readings 0", "--threads 0", "--hardware-dice 0",
        "--seed 16777216", "--frobnicate", "card", "--json"}) {
    const outcome o = tool(words);
    EXPECT_EQ(o.code, 2) << words << ": " << o.text;
    EXPECT_THAT(o.text, HasSubstr("--help")) << words;
  }
  EXPECT_EQ(tool("--help").code, 0);
}

TEST(Tool, FindsOutBeforeTheWorkThatAFileCannotBeWritten) {
  for (const char* option : {"--json", "--html", "--markdown"}) {
    const outcome o = tool(std::string(option) + " /nonexistent/folder/file");
    EXPECT_EQ(o.code, 12);
    EXPECT_THAT(o.text, HasSubstr("/nonexistent/folder/file"));
    EXPECT_THAT(o.text, Not(HasSubstr("dice"))) << "it began to work";
  }
  EXPECT_EQ(tool("--synthesis /nonexistent").code, 3);
}

TEST(Tool, MakesNewPagesOfAnEarlierResult) {
  const fs::path folder = fs::temp_directory_path() / "latchkey_vault_pages";
  fs::create_directories(folder);
  const std::string first = folder / "first.json", again = folder / "again.json",
                    page = folder / "page.html";
  const outcome made =
      tool("--dice 2 --noise-dice 1 --skew-dice 1 --readings 1 --hardware-dice 1 --json " + first);
  ASSERT_EQ(made.code, 0) << made.text;
  const outcome o =
      tool("--hardware-dice 1 --from " + first + " --json " + again + " --html " + page);
  EXPECT_EQ(o.code, 0) << o.text;
  const auto content = [](const std::string& path) {
    std::ifstream in(path);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  EXPECT_EQ(content(again), content(first));
  EXPECT_THAT(content(page), HasSubstr("<svg"));
  std::ofstream(first) << "{}";
  EXPECT_EQ(tool("--from " + first).code, 3);
  EXPECT_EQ(tool("--from /nonexistent").code, 3);
  fs::remove_all(folder);
}

TEST(Tool, AFullDiskIsAnError) {
  const outcome o =
      tool("--dice 2 --noise-dice 1 --skew-dice 1 --readings 1 --hardware-dice 1 --json /dev/full");
  EXPECT_EQ(o.code, 12) << o.text;
  EXPECT_THAT(o.text, HasSubstr("/dev/full"));
}

}  // namespace
}  // namespace latchkey::campaign
