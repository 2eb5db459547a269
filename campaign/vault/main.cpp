// latchkey-vault: the campaign of the PUF and the key, on modelled dice only.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iterator>
#include <thread>

#include "latchkey/error.hpp"
#include "page.hpp"
#include "tool.hpp"
#include "vault.hpp"

using namespace latchkey;

namespace {

/// What an earlier run wrote, for new pages and a new look at the hardware.
nlohmann::json earlier(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw error(errc::bad_file, path + ": cannot be read");
  nlohmann::json r = nlohmann::json::parse(in, nullptr, false);
  bool whole = r.is_object() && r.value("schema", nlohmann::json()) == 1;
  for (const char* field : {"command", "seed", "dice", "environments", "drift", "noise",
                            "fingerprint", "entropy", "crossing", "enrolment"}) {
    whole = whole && r.contains(field);
  }
  if (!whole) throw error(errc::bad_file, path + ": not a result of this campaign");
  return r;
}

void summary(const nlohmann::json& r) {
  const auto number = [](const nlohmann::json& j) { return j.get<double>(); };
  fmt::print("Modelled dice, not silicon. {} dice, seed {}, {:.0f} s.\n", r["dice"].get<unsigned>(),
             r["seed"].get<std::uint64_t>(), number(r["seconds"]));
  fmt::print("{:<50}{:>10}{:>12}{:>12}{:>12}\n", "", "raw wrong", "kept wrong", "failures",
             "95 % bound");
  for (const char* group : {"environments", "drift", "noise"}) {
    for (const auto& c : r[group]) {
      fmt::print("{:<50}{:>8.2f} %{:>12.1e}{:>12}{:>12.1e}\n", c["name"].get<std::string>(),
                 100 * number(c["raw_wrong"]), number(c["kept_error"]["rate"]),
                 fmt::format("{}/{}", c["failures"].get<std::uint64_t>(),
                             c["starts"].get<std::uint64_t>()),
                 number(c["failure"]["high"]));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Failure rate, reliability and entropy of the PUF and its key over a fleet of MODELLED "
      "dice."};
  app.name("latchkey-vault");
  campaign::plan p;
  p.threads = std::max(1U, std::thread::hardware_concurrency());
  bool long_run = false;
  std::string from, json_file, html_file, markdown_file, synthesis;
  app.add_flag("--long", long_run, "More dice and readings");
  app.add_option("--dice", p.dice, "Dice of the fleet")->check(CLI::Range(1U, 1U << 24));
  app.add_option("--readings", p.readings, "STARTs of a die at one drift; elsewhere a multiple")
      ->check(CLI::Range(1U, 100000U));
  app.add_option("--noise-dice", p.noise_dice, "Dice of each point of the noise sweep")
      ->check(CLI::Range(1U, 1U << 24));
  app.add_option("--skew-dice", p.skew_dice, "Dice of each lot of the skew study")
      ->check(CLI::Range(1U, 1U << 24));
  app.add_option("--hardware-dice", p.hardware_dice, "Dice that the RTL enrols and starts too")
      ->check(CLI::Range(1U, 10000U));
  app.add_option("--seed", p.seed, "Seed of the fleet")->check(CLI::Range(0U, (1U << 24) - 1));
  app.add_option("--threads", p.threads, "Threads")->check(CLI::Range(1U, 1024U));
  app.add_option("--from", from,
                 "Keep the fleet of this result; check the hardware and write the pages anew");
  app.add_option("--json", json_file, "Write every figure to this file");
  app.add_option("--html", html_file, "Write a page with plots to this file");
  app.add_option("--markdown", markdown_file, "Write the figures as Markdown to this file");
  app.add_option("--synthesis", synthesis, "Report of ./dev synth, for LUT and FF");
  try {
    app.parse(argc, argv);
    if (long_run) {
      const auto unless_given = [&](const char* option, unsigned& value, unsigned then) {
        if (app.count(option) == 0) value = then;
      };
      unless_given("--dice", p.dice, 20000);
      unless_given("--readings", p.readings, 4);
      unless_given("--noise-dice", p.noise_dice, 500);
      unless_given("--skew-dice", p.skew_dice, 4000);
      unless_given("--hardware-dice", p.hardware_dice, 30);
    }
    nlohmann::json result = from.empty() ? nlohmann::json() : earlier(from);
    campaign::output to_json(json_file), to_html(html_file), to_markdown(markdown_file);
    const nlohmann::json cost = synthesis.empty() ? nlohmann::json() : campaign::cost_of(synthesis);
    const auto say = [](const std::string& line) { fmt::print(stderr, "    {}\n", line); };
    if (from.empty()) {
      result = campaign::run(p, say);
      result["command"] =
          fmt::format("./dev campaign vault{} --seed {}", long_run ? " --long" : "", p.seed);
      for (const char* option :
           {"--dice", "--readings", "--noise-dice", "--skew-dice", "--hardware-dice"}) {
        if (app.count(option) > 0) {
          result["command"] = result["command"].get<std::string>() + " " + option + " " +
                              app.get_option(option)->as<std::string>();
        }
      }
    } else {
      p.seed = result["seed"];
      result["hardware"] = campaign::compare_with_hardware(p, say);
    }
    if (!cost.is_null()) result["cost"] = cost;
    summary(result);
    to_json.write(result.dump(1) + "\n");
    to_html.write(campaign::html_page(result));
    to_markdown.write(campaign::markdown_page(result));
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    return campaign::fail("latchkey-vault", static_cast<int>(errc::usage),
                          std::string(e.what()) + "; see --help");
  } catch (const error& e) {
    return campaign::fail("latchkey-vault", e.exit_code(), e.what());
  } catch (const std::exception& e) {
    return campaign::fail("latchkey-vault", 1, e.what());
  }
  return 0;
}
