// latchkey-faults: single faults in the simulated kernel.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <thread>

#include "faults.hpp"
#include "latchkey/error.hpp"
#include "report.hpp"
#include "tool.hpp"

using namespace latchkey;

int main(int argc, char** argv) {
  CLI::App app{
      "Flips state bits and holds verdicts and valid signals of the SIMULATED kernel, one at a "
      "time, "
      "and watches what leaves it."};
  app.name("latchkey-faults");
  campaign::faults::plan p;
  p.threads = std::max(1U, std::thread::hardware_concurrency());
  p.flips = 160;
  p.holds = 160;
  bool long_run = false;
  std::string json_file, html_file, markdown_file;
  app.add_flag("--long", long_run, "Every bit in every state, twice, and every signal");
  app.add_option("--times", p.times, "Flips of a bit in one state")->check(CLI::Range(1U, 1000U));
  app.add_option("--flips", p.flips, "At most so many flips of an attempt; 0: all");
  app.add_option("--holds", p.holds, "At most so many held signals of an attempt; 0: all");
  app.add_option("--seed", p.seed, "Seed of keys, weights, cheats and times")
      ->check(CLI::Range(0U, (1U << 24) - 1));
  app.add_option("--threads", p.threads, "Threads")->check(CLI::Range(1U, 1024U));
  app.add_option("--json", json_file, "Write every figure to this file");
  app.add_option("--html", html_file, "Write a page to this file");
  app.add_option("--markdown", markdown_file, "Write the figures as Markdown to this file");
  try {
    app.parse(argc, argv);
    if (long_run) {
      if (app.count("--times") == 0) p.times = 2;
      if (app.count("--flips") == 0) p.flips = 0;
      if (app.count("--holds") == 0) p.holds = 0;
    }
    campaign::output to_json(json_file), to_html(html_file), to_markdown(markdown_file);
    nlohmann::json r = campaign::faults::run(
        p, [](const std::string& line) { fmt::print(stderr, "    {}\n", line); });
    r["command"] =
        fmt::format("./dev campaign faults{} --seed {}", long_run ? " --long" : "", p.seed);
    for (const char* option : {"--times", "--flips", "--holds"}) {
      if (app.count(option) > 0) {
        r["command"] = r["command"].get<std::string>() + " " + option + " " +
                       app.get_option(option)->as<std::string>();
      }
    }
    fmt::print("{}", campaign::faults::summary(r));
    to_json.write(r.dump(1) + "\n");
    to_html.write(campaign::faults::html_page(r));
    to_markdown.write(campaign::faults::markdown_page(r));
    return r["violations"].empty() ? 0 : 1;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    return campaign::fail("latchkey-faults", static_cast<int>(errc::usage),
                          std::string(e.what()) + "; see --help");
  } catch (const error& e) {
    return campaign::fail("latchkey-faults", e.exit_code(), e.what());
  } catch (const std::exception& e) {
    return campaign::fail("latchkey-faults", 1, e.what());
  }
}
