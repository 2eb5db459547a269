// latchkey-attacks: what published attacks learn of the modelled PUF, and what the lock leaves
// them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "attacks.hpp"
#include "latchkey/error.hpp"
#include "report.hpp"
#include "tool.hpp"

using namespace latchkey;

int main(int argc, char** argv) {
  CLI::App app{
      "Modelling attacks on MODELLED dice with raw access, and what is left to learn once locked."};
  app.name("latchkey-attacks");
  campaign::attacks::plan p;
  std::string json_file, html_file, markdown_file;
  app.add_flag("--long", p.long_run, "More chains, challenges, dice and manipulations");
  app.add_option("--dice", p.dice, "Dice whose masks are attacked")->check(CLI::Range(1U, 100000U));
  app.add_option("--lot", p.lot, "Opened dice of a lot")->check(CLI::Range(1U, 100000U));
  app.add_option("--manipulations", p.manipulations, "Manipulations of each class")
      ->check(CLI::Range(1U, 100000U));
  app.add_option("--seed", p.seed, "Seed of dice, challenges and learners")
      ->check(CLI::Range(0U, (1U << 24) - 1));
  app.add_option("--json", json_file, "Write every figure to this file");
  app.add_option("--html", html_file, "Write a page with a plot to this file");
  app.add_option("--markdown", markdown_file, "Write the figures as Markdown to this file");
  try {
    app.parse(argc, argv);
    if (p.long_run) {
      if (app.count("--dice") == 0) p.dice = 80;
      if (app.count("--lot") == 0) p.lot = 500;
      if (app.count("--manipulations") == 0) p.manipulations = 100;
    }
    campaign::output to_json(json_file), to_html(html_file), to_markdown(markdown_file);
    nlohmann::json r = campaign::attacks::run(
        p, [](const std::string& line) { fmt::print(stderr, "    {}\n", line); });
    r["command"] =
        fmt::format("./dev campaign attacks{} --seed {}", p.long_run ? " --long" : "", p.seed);
    for (const char* option : {"--dice", "--lot", "--manipulations"}) {
      if (app.count(option) > 0) {
        r["command"] = r["command"].get<std::string>() + " " + option + " " +
                       app.get_option(option)->as<std::string>();
      }
    }
    fmt::print("{}", campaign::attacks::summary(r));
    to_json.write(r.dump(1) + "\n");
    to_html.write(campaign::attacks::html_page(r));
    to_markdown.write(campaign::attacks::markdown_page(r));
    return 0;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    return campaign::fail("latchkey-attacks", static_cast<int>(errc::usage),
                          std::string(e.what()) + "; see --help");
  } catch (const error& e) {
    return campaign::fail("latchkey-attacks", e.exit_code(), e.what());
  } catch (const std::exception& e) {
    return campaign::fail("latchkey-attacks", 1, e.what());
  }
}
