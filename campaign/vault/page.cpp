#include "page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <vector>

#include "document.hpp"
#include "latchkey/error.hpp"
#include "statistics.hpp"

namespace latchkey::campaign {
namespace {

using nlohmann::json;

constexpr const char* disclaimer =
    "Every figure here is one of modelled dice (sim/silicon/README.md), none of silicon: it shows "
    "what selection, votes and code make of the model's errors, and says nothing about the "
    "entropy, reliability or modelling resistance of a real part.";

double number(const json& j) { return j.get<double>(); }

table failures(const json& points) {
  table t{{"", "raw bits wrong", "kept bits wrong", "failed / STARTs", "95 % bound",
           "dice that failed", "extrapolated"},
          {}};
  for (const json& c : points) {
    t.rows.push_back(
        {c["name"], percent(number(c["raw_wrong"])), small(number(c["kept_error"]["rate"])),
         grouped(c["failures"]) + " / " + grouped(c["starts"]),
         (c["failures"] == 0 ? "< " : "") + small(number(c["failure"]["high"])),
         grouped(c["dice_with_a_failure"]["count"]) + " of " + grouped(c["dice"]),
         number(c["kept_error"]["rate"]) == 0 ? "no errors"
                                              : small(number(c["extrapolated_failure"]))});
  }
  return t;
}

table fits(const json& points) {
  table t{{"", "errors a block", "dispersion", "binomial: chi2 / df", "p",
           "beta-binomial: chi2 / df", "p"},
          {}};
  const auto ratio = [](const json& f) {
    return fmt::format("{:.1f} / {}", number(f["chi_square"]), f["freedom"].get<int>());
  };
  for (const json& c : points) {
    const json &b = c["fit_binomial"], &bb = c["fit_beta_binomial"];
    if (b["freedom"] == 0) continue;
    t.rows.push_back({c["name"], fmt::format("{:.3f}", number(c["errors_of_a_block"])),
                      fmt::format("{:.3f}", number(c["dispersion"])), ratio(b),
                      fmt::format("{:.2g}", number(b["p_value"])),
                      bb["freedom"] == 0 ? "-" : ratio(bb),
                      bb["freedom"] == 0 ? "-" : fmt::format("{:.2g}", number(bb["p_value"]))});
  }
  return t;
}

table fingerprints(const json& r) {
  table t{{"", "mean", "deviation", "least", "most"}, {}};
  const auto add = [&](const char* name, const json& s) {
    t.rows.push_back({name, percent(number(s["mean"])), percent(number(s["deviation"])),
                      percent(number(s["least"])), percent(number(s["most"]))});
  };
  add("uniformity: ones of a die", r["fingerprint"]["uniformity"]);
  add("bit-aliasing: dice with a one at a place", r["fingerprint"]["bit_aliasing"]);
  add("inter-die distance", r["fingerprint"]["inter_distance"]);
  return t;
}

table entropies(const json& r) {
  table t{{"lot's common skew", "dice", "most common value", "the same of perfect bits",
           "without its 99 % bound", "closed form", "bits left of 2,040 after the code"},
          {}};
  for (const json& k : r["entropy"]["kept"]) {
    t.rows.push_back({fmt::format("{} sigma", number(k["skew"])), grouped(k["dice"]),
                      fmt::format("{:.3f}", number(k["most_common_value"])),
                      fmt::format("{:.3f}", number(k["most_common_value_of_perfect_bits"])),
                      fmt::format("{:.3f}", number(k["most_common_value_without_bound"])),
                      fmt::format("{:.3f}", number(k["closed_form"])),
                      fmt::format("{:.0f}", number(k["left_after_code"]))});
  }
  return t;
}

table anchors(const json& r) {
  const json* quarter = nullptr;
  for (const json& c : r["noise"])
    if (std::fabs(number(c["raw_target"]) - 0.25) < 1e-9) quarter = &c;
  const auto cycles = static_cast<std::uint64_t>(number(r["hardware"]["start_cycles"]["most"]));
  std::string size = "./dev campaign was run without a synthesis report";
  if (r.contains("cost")) {
    const json &puf = r["cost"]["lk_puf"], &key = r["cost"]["lk_key_block"];
    size = fmt::format("{} LUT, {} FF (PUF {} / {}, key block {} / {}); mapper's count",
                       grouped(puf["lut"].get<std::uint64_t>() + key["lut"].get<std::uint64_t>()),
                       grouped(puf["ff"].get<std::uint64_t>() + key["ff"].get<std::uint64_t>()),
                       grouped(puf["lut"]), grouped(puf["ff"]), grouped(key["lut"]),
                       grouped(key["ff"]));
  }
  const json& nominal = r["environments"][0];
  return {{"", "this design (model)", "Intrinsic ID QuiddiKey (published)", "PUFKY (published)"},
          {{"what carries the secret", "arbiter PUF, modelled",
            "SRAM, simulated data for the figure below", "ring oscillators, FPGA boards"},
           {"key", "256 bit; 128-bit security needs the entropy below", "256 bit", "128 bit"},
           {"key failure",
            quarter == nullptr
                ? std::string("-")
                : fmt::format("{} of {} at 25 % white noise, bound {}; extrapolated {}",
                              grouped((*quarter)["failures"]), grouped((*quarter)["starts"]),
                              small(number((*quarter)["failure"]["high"])),
                              small(number((*quarter)["extrapolated_failure"]))),
            "< 1e-9 at 25 % noise (4 of 1e10 on simulated data)", "< 1e-9"},
           {"key failure as enrolled",
            fmt::format("{} of {}, bound {}", grouped(nominal["failures"]),
                        grouped(nominal["starts"]), small(number(nominal["failure"]["high"]))),
            "-", "-"},
           {"reconstruction", fmt::format("{} cycles (RTL, START)", grouped(cycles)),
            "53,400 cycles to start", "5.62 ms"},
           {"size", size, "-", "1,162 slices of a low-end FPGA"}}};
}

void bars(plot& p, const json& h, const char* style) {
  const double low = number(h["low"]), high = number(h["high"]);
  const double cell = (high - low) / static_cast<double>(h["counts"].size());
  for (std::size_t i = 0; i < h["counts"].size(); ++i) {
    p.bar(low + static_cast<double>(i) * cell, low + static_cast<double>(i + 1) * cell,
          number(h["counts"][i]), style);
  }
}
double highest(const json& h) {
  double most = 1;
  for (const json& c : h["counts"]) most = std::max(most, number(c));
  return rounded_up(most);
}

std::string histogram_plot(const json& h, const std::string& title, const std::string& x,
                           const std::string& y, const std::string& caption) {
  plot p(title, x, y, number(h["low"]), number(h["high"]), 0, highest(h), false);
  bars(p, h, "a");
  return p.done(caption);
}

std::string sweep_plot(const json& points, const std::string& title, const std::string& x,
                       const std::string& caption) {
  plot p(title, x, "key failure", 0, 0.4, 1e-18, 1, true);
  p.line({{0, 1e-9}, {0.4, 1e-9}}, "target");
  std::vector<std::pair<double, double>> extrapolated;
  for (const json& c : points) {
    if (number(c["extrapolated_failure"]) >= 1e-18)
      extrapolated.emplace_back(number(c["raw_wrong"]), number(c["extrapolated_failure"]));
  }
  p.line(extrapolated, "model");
  for (const json& c : points) {
    p.point(number(c["raw_wrong"]), number(c["failure"]["rate"]),
            std::max(1e-18, number(c["failure"]["low"])), number(c["failure"]["high"]), "seen");
  }
  return p.done(caption);
}

std::string blocks_plot(const json& c) {
  const auto counts = c["blocks_by_errors"].get<std::vector<std::uint64_t>>();
  double total = 0, most = 1;
  for (std::uint64_t n : counts) {
    total += static_cast<double>(n);
    most = std::max(most, static_cast<double>(n));
  }
  const double end = 5 * std::ceil(std::max(20.0, static_cast<double>(counts.size()) + 1) / 5);
  plot p("Errors of a block: " + c["name"].get<std::string>(), "errors among 255 bits", "blocks", 0,
         end, 0.5, std::pow(10, std::ceil(std::log10(most * 2))), true);
  std::vector<std::pair<double, double>> binomial, beta;
  const double rate = number(c["errors_of_a_block"]) / 255;
  const double dispersion = std::max(1.0, number(c["dispersion"]));
  for (unsigned k = 0; k + 1 < end; ++k) {
    if (k < counts.size()) p.bar(k, k + 1, static_cast<double>(counts[k]), "a");
    binomial.emplace_back(k + 0.5, std::max(0.1, total * binomial_point(255, rate, k)));
    beta.emplace_back(k + 0.5,
                      std::max(0.1, total * beta_binomial_point(255, rate, dispersion, k)));
  }
  p.line(binomial, "model");
  p.line(beta, "target");
  p.line({{19, 0.1}, {19, 1e9}}, "limit");
  return p.done(fmt::format(
      "Bars: blocks of the first reading of {} dice. Blue: binomial of the same mean; red: "
      "beta-binomial of the same mean and variance. Grey: beyond 18 the code fails.",
      grouped(c["dice"])));
}

std::uint64_t starts_of_a_die(const json& place) {
  return place["starts"].get<std::uint64_t>() / place["dice"].get<std::uint64_t>();
}

std::string margin_sentence(const json& r) {
  std::string s;
  for (const json& m : r["enrolment"]["margins"]) {
    s += fmt::format("{}{} at {}", s.empty() ? "" : ", ", grouped(m["dice"]),
                     m["margin"].get<int>());
  }
  return s;
}

std::string crossing_sentence(const json& r, const char* which, const char* unit) {
  const json& c = r["crossing"][which];
  if (c.is_null()) return fmt::format("The {} sweep does not cross 1e-9.", which);
  return fmt::format(
      "**Extrapolated** from the errors of kept bits (not counted: no campaign of this size can "
      "count 1e-9), key failure passes 1e-9 at {} {}, between the measured points {} and {}; kept "
      "bits are then wrong with {}.",
      percent(number(c["raw_flips"]), 1), unit, percent(number(c["between"][0]), 0),
      percent(number(c["between"][1]), 0), percent(number(c["kept_error"])));
}

std::string needs_sentence(const json& r) {
  const json& n = r["needs_at_quarter_drift"];
  const double needed = number(n["code_entropy_needed_per_bit"]);
  return fmt::format(
      "**What 25 % drift would need.** It leaves {} of the kept bits wrong. Either a code of the "
      "same length that corrects {} errors a block, BCH(255, {}), whose redundancy leaves 128 bits "
      "only from {:.3f} bits of min-entropy a bit on{}; or a margin of {:.2f} sigma instead of "
      "0.94, "
      "at which the present code suffices ({} wrong at most) and which takes {} chains instead of "
      "96 and {} steps of the delay line, of which there are 127. The margin is the closed form of "
      "the "
      "model without noise.",
      percent(number(n["kept_error"]), 1), n["code_errors"].get<unsigned>(),
      n["code_message_bits"].get<unsigned>(), needed, needed > 1 ? ", which no bit has" : "",
      number(n["margin_sigma"]), percent(number(r["kept_error_allowed"])),
      static_cast<unsigned>(number(n["chains"])), static_cast<unsigned>(number(n["margin_steps"])));
}

std::string dependence_sentence(const json& r) {
  const json& d = r["entropy"]["dependence"];
  if (d.is_null()) return "Fewer than 64 dice: no test of pairs.";
  const auto one = [](const json& t) {
    return fmt::format(
        "{} pairs, mean z^2 {:.4f} ({:+.1f} sigma from 1), worst |z| {:.2f} (p {:.2f})",
        grouped(t["pairs"]), number(t["mean_square"]), number(t["mean_square_z"]),
        number(t["worst_z"]), number(t["worst_p"]));
  };
  return "Correlation of pairs of raw bits over the fleet: within a chain " +
         one(d["within_a_chain"]) + "; the same challenge on neighbouring chains " +
         one(d["neighbouring_chains"]) + ".";
}

}  // namespace

json cost_of(const std::string& path) {
  std::ifstream in(path);
  if (!in)
    throw error(errc::bad_file, path + ": cannot be read; it is written by ./dev synth --update");
  const json report = json::parse(in, nullptr, false);
  json out;
  for (const char* module : {"lk_puf", "lk_key_block", "lk_bch_decoder", "lk_key_ladder",
                             "lk_aes256_kwp", "prim_xilinx_puf_bank"}) {
    if (report.is_discarded() || !report.contains("modules") ||
        !report["modules"].contains(module) || !report["modules"][module].contains("lut")) {
      throw error(errc::bad_file,
                  fmt::format("{}: no report of ./dev synth with a module {}", path, module));
    }
    out[module] = {{"lut", report["modules"][module]["lut"]},
                   {"ff", report["modules"][module]["ff"]}};
  }
  out["tools"] = report.value("tools", json());
  return out;
}

std::string markdown_page(const json& r) {
  const json& f = r["fingerprint"];
  const json& e = r["entropy"];
  const json& h = r["hardware"];
  std::string s = "# The PUF and its key: evidence\n\n";
  s += fmt::format(
      "Written by `{}` (seed {}, {:.0f} s of wall clock on that machine); every figure is in\n"
      "[reports/vault.json](reports/vault.json), the plots in "
      "[reports/vault.html](reports/vault.html). "
      "Not edited by hand.\n\n**{}**\n\n",
      r["command"].get<std::string>(), r["seed"].get<std::uint64_t>(), number(r["seconds"]),
      disclaimer);
  s += "## Beside others\n\n" + markdown(anchors(r));
  s += "Sources: Intrinsic ID, \"The reliability of SRAM PUF\" (white paper, 2020) and QuiddiKey's "
       "product "
       "brief;\nMaes, Van Herrewege, Verbauwhede, \"PUFKY: a fully functional PUF-based "
       "cryptographic key "
       "generator\" (CHES\n2012). Their dice are silicon, ours are not, and noise means different "
       "things: "
       "QuiddiKey's 25 % is white noise\non the bits that enter its code, ours flips 25 % of "
       "single races "
       "before votes and selection.\n\n";
  s += fmt::format(
      "## Are these the hardware's figures\n\nThe campaign evaluates the model of the simulated "
      "card in bulk, "
      "with a software twin of sampler, votes,\nselection, mask, code and decoder. On {} of its "
      "dice the "
      "RTL (`lk_enrol_top`, `lk_key_top`, Verilated) enrolled\nand started too: {} bits of helper "
      "data "
      "compared, {} differ; {} STARTs, of which {} succeeded, {} verdicts\ndiffer. START took {} "
      "cycles, "
      "enrolment {}. A difference ends the campaign.\n\n",
      h["dice"].get<unsigned>(), grouped(h["helper_bits"]),
      h["helper_bits_differing"].get<unsigned>(), grouped(h["starts"]),
      grouped(h["starts_succeeded"]), h["verdicts_differing"].get<unsigned>(),
      grouped(static_cast<std::uint64_t>(number(h["start_cycles"]["least"]))) + " to " +
          grouped(static_cast<std::uint64_t>(number(h["start_cycles"]["most"]))),
      grouped(static_cast<std::uint64_t>(number(h["enrol_cycles"]["least"]))) + " to " +
          grouped(static_cast<std::uint64_t>(number(h["enrol_cycles"]["most"]))));
  s += fmt::format(
      "## Key failure\n\n{} dice of one lot, enrolled as new at 25 C and 0.85 V ({} failed to; "
      "margins used: {}), "
      "then started {} times\nas enrolled and {} times in each other place, with fresh noise. A "
      "START fails when one of eight "
      "blocks of 255 bits "
      "has more than 18 errors. The\nbound is Clopper-Pearson, 95 % (without failures one-sided: "
      "the rule of "
      "three). STARTs of one die share its\ndrift, so dice that failed stand beside. *Raw* is a "
      "voted reading "
      "against the first one as enrolled. The last\ncolumn is no count: a beta-binomial of the "
      "mean and variance "
      "found, cut off at 18.\n\n",
      grouped(r["dice"]),
      grouped(r["dice"].get<std::uint64_t>() - r["enrolment"]["enrolled"].get<std::uint64_t>()),
      margin_sentence(r), starts_of_a_die(r["environments"][0]),
      starts_of_a_die(r["environments"][1]));
  s += markdown(failures(r["environments"]));
  s += "### Drift\n\nThe same dice at 85 C, +5 % of the voltage and ten years, with wires made to "
       "feel it more: "
       "*raw* is the share of\nbits whose sign the drift turns, without noise. Noise is as "
       "enrolled.\n\n";
  s += markdown(failures(r["drift"]));
  s += crossing_sentence(r, "drift", "of raw bits turned by drift") + "\n\n" + needs_sentence(r) +
       "\n\n";
  s += "### White noise\n\nDice enrolled and read under noise so strong: *raw* is the share of "
       "single races that "
       "go the other way. Votes and\nselection see it coming, which they do not of drift.\n\n";
  s += markdown(failures(r["noise"]));
  s += crossing_sentence(r, "noise", "of single races turned by noise") + "\n\n";
  s += "### Do errors fall as assumed\n\nErrors a block, first reading of every die, against the "
       "binomial that design "
       "rules use and the beta-binomial behind\nthe extrapolations (cells of five and more; places "
       "with too few "
       "errors to fill three cells are left out). A\ndispersion above 1 is real in this model: the "
       "answers of one chain "
       "share that chain's spread and drift.\n\n";
  s += markdown(fits(r["environments"])) + markdown(fits(r["drift"])) + markdown(fits(r["noise"]));
  s += fmt::format(
      "## Fingerprint\n\nRaw readings as enrolled, {} dice of one lot, definitions of Maiti and "
      "others. "
      "Inter-die distance of all pairs:\n{}, closed form of the model {}. Reliability is 1 minus "
      "the raw "
      "error of the tables above; as enrolled {}.\n\n",
      grouped(r["dice"]),
      f.contains("inter_distance_of_all_pairs")
          ? percent(number(f["inter_distance_of_all_pairs"]), 3)
          : std::string("-"),
      percent(number(f["inter_distance_closed_form"]), 3),
      percent(1 - number(r["environments"][0]["raw_wrong"])));
  s += markdown(fingerprints(r));
  s += fmt::format(
      "## Entropy\n\nIn the manner of NIST SP 800-90B, whose estimators were made for noise "
      "sources: a fleet stands for "
      "the samples of a\nplace. Raw bits: most common value {:.3f} bits a bit in the mean and "
      "{:.3f} at the worst place "
      "(perfect bits would get\n{:.3f}: the 99 % bound costs that), Markov {:.3f} along challenge "
      "and chain. Kept bits: "
      "Markov {:.3f} in code order.\n\nWhat counts is a kept bit *given its place*, since the mask "
      "is public and a lot's "
      "layout shows in the lot: selection by\nmargin amplifies skew. The closed form is the "
      "model's own answer.\n\n",
      number(e["raw_most_common_value"]), number(e["raw_most_common_value_least"]),
      number(e["raw_most_common_value_of_perfect_bits"]), number(e["raw_markov"]),
      number(e["kept_markov"]));
  s += markdown(entropies(r));
  s += fmt::format(
      "The code gives away {} bits; 128 are left from {:.3f} bits a kept bit on. Where a lot's "
      "skew takes more, "
      "as in the\nlast rows, this design does not give a 128-bit key, whatever the length of the "
      "key that comes out.\n\n"
      "**Budget of delay parameters.** A chain of 64 stages has {} parameters and no more: its "
      "answers to all 2^64 "
      "challenges\nare signs of sums of these. It is asked {} challenges, whose differences of "
      "arrival are uncorrelated "
      "in the model (and\nindependent, being Gaussian) if stage variances are as the model has "
      "them, 1, 2, .., 2, 1; {:.1f} answers a "
      "chain are\nkept. Nothing more may ever be asked: every further answer is the sign of a sum "
      "of the same {} numbers.\nOn silicon unequal stages make the challenges slightly dependent, "
      "neighbouring chains may "
      "share gradients, and the\nestimates above would see neither in a single die. {}\n",
      e["code_leaks_bits"].get<unsigned>(), number(e["needed_per_kept_bit"]),
      e["parameters_of_a_chain"].get<unsigned>(), e["answers_of_a_chain"].get<unsigned>(),
      number(e["kept_answers_of_a_chain"]), e["parameters_of_a_chain"].get<unsigned>(),
      dependence_sentence(r));
  return s;
}

std::string html_page(const json& r) {
  const json& f = r["fingerprint"];
  std::string s = html_begin("PUF report: modelled dice") + "<h1>PUF report</h1>\n";
  s += fmt::format(
      "<p>{} modelled dice, seed {}, <code>{}</code>, {:.0f} s.</p>\n<p class=\"model\">{}</p>\n",
      grouped(r["dice"]), r["seed"].get<std::uint64_t>(), escaped(r["command"].get<std::string>()),
      number(r["seconds"]), disclaimer);
  s += "<h2>Key failure</h2>\n";
  s += sweep_plot(
      r["drift"], "Key failure against drift", "share of raw bits turned by drift",
      "Black: counted, with 95 % intervals (a bare line: no failure). Blue: extrapolated from the "
      "errors of kept bits. Red: 1e-9.");
  s += sweep_plot(r["noise"], "Key failure against white noise",
                  "share of single races turned by noise",
                  "The same for noise that is there at enrolment too.");
  s += html(failures(r["environments"])) + html(failures(r["drift"])) + html(failures(r["noise"]));
  s += "<h2>Errors of a block</h2>\n";
  for (const char* group : {"drift", "noise"}) {
    const json* shown = nullptr;  // the last point at which the code still holds mostly
    for (const json& c : r[group])
      if (number(c["errors_of_a_block"]) > 0.3 && number(c["errors_of_a_block"]) < 10) shown = &c;
    if (shown != nullptr) s += blocks_plot(*shown);
  }
  s += html(fits(r["drift"])) + html(fits(r["noise"]));
  s += "<h2>Fingerprint</h2>\n";
  s += histogram_plot(f["inter_distance_histogram"], "Distance between dice", "share of 6,144 bits",
                      "pairs", "Voted readings of pairs of dice of one lot.");
  s += histogram_plot(f["uniformity_histogram"], "Uniformity", "ones of a die", "dice",
                      "Share of ones among a die's 6,144 bits.");
  s += histogram_plot(f["bit_aliasing_histogram"], "Bit-aliasing", "dice with a one at a place",
                      "places", "Skew common to the lot widens it.");
  {
    double most = 0.01;
    for (const json& c : r["environments"]) most = std::max(most, number(c["raw_wrong"]));
    const double count = static_cast<double>(r["environments"].size());
    plot p("Distance of a die to itself", "place, in the order of the table", "raw bits wrong", 0.5,
           count + 0.5, 0, rounded_up(most), false, 1);
    for (std::size_t i = 0; i < r["environments"].size(); ++i) {
      p.bar(static_cast<double>(i) + 0.65, static_cast<double>(i) + 1.35,
            number(r["environments"][i]["raw_wrong"]), "b");
    }
    s += p.done("Intra-die distance: a voted reading against the first one as enrolled.");
  }
  s += html(fingerprints(r));
  s += "<h2>Entropy of kept bits, given their place</h2>\n" + html(entropies(r));
  s +=
      "<p>" + escaped(dependence_sentence(r)) + "</p>\n<h2>Beside others</h2>\n" + html(anchors(r));
  return s + html_end;
}

}  // namespace latchkey::campaign
