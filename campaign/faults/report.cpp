#include "report.hpp"

#include <fmt/format.h>

#include "document.hpp"

namespace latchkey::campaign::faults {
namespace {

using nlohmann::json;

constexpr const char* outcomes[] = {"masked", "refused", "silent", "violation"};

std::uint64_t count(const json& j) { return j.get<std::uint64_t>(); }

table by_room(const json& r) {
  table t{{"room", "fault", "bits", "injected", "injections", "masked", "refused", "silent",
           "violations"},
          {}};
  for (const auto& [room, kinds] : r["rooms"].items()) {
    for (const auto& [kind, c] : kinds.items()) {
      std::vector<std::string> row = {room, kind, grouped(count(c["bits"])),
                                      grouped(count(c["bits_injected"])),
                                      grouped(count(c["injections"]))};
      for (const char* o : outcomes) row.push_back(grouped(count(c["outcomes"][o])));
      t.rows.push_back(row);
    }
  }
  return t;
}

table by_point(const json& r) {
  table t{{"instance", "name", "fault", "bits", "injected", "injections", "masked", "refused",
           "silent", "violations"},
          {}};
  for (const json& c : r["points"]) {
    std::vector<std::string> row = {c["module"],
                                    c["name"],
                                    c["kind"],
                                    grouped(count(c["bits"])),
                                    grouped(count(c["bits_injected"])),
                                    grouped(count(c["injections"]))};
    for (const char* o : outcomes) row.push_back(grouped(count(c["outcomes"][o])));
    t.rows.push_back(row);
  }
  return t;
}

table found(const json& r) {
  table t{{"what", "attempt", "instance", "name", "bit", "fault", "cycle"}, {}};
  for (const json& v : r["violations"]) {
    t.rows.push_back({v["what"], v["attempt"], v["module"], v["name"],
                      std::to_string(v["bit"].get<int>()), v["fault"],
                      std::to_string(count(v["cycle"]))});
  }
  return t;
}

table ways(const json& r) {
  table t{{"session", "cycles", "KEY_ERR", "RUN_STATUS"}, {}};
  for (const json& s : r["sessions"]) {
    t.rows.push_back({s["attempt"], grouped(count(s["cycles"])), grouped(count(s["key_err"])),
                      grouped(count(s["run_status"]))});
  }
  return t;
}

}  // namespace

std::string summary(const json& r) {
  const json& o = r["outcomes"];
  std::string s = fmt::format("Simulated kernel, not silicon. {} injections, seed {}, {:.0f} s.\n",
                              count(r["injections"]), count(r["seed"]), r["seconds"].get<double>());
  for (const auto& row : by_room(r).rows) {
    s += fmt::format(
        "{:<10}{:<10}{:>6} bits, {:>6} injected, {:>6} injections: {} masked, {} "
        "refused, {} silent, {} violations\n",
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]);
  }
  for (const auto& row : found(r).rows) {
    s += fmt::format("VIOLATION: {}: {}, {}.{} bit {} {} at cycle {}\n", row[0], row[1], row[2],
                     row[3], row[4], row[5], row[6]);
  }
  s += fmt::format("{} violations\n", count(o["violation"]));
  return s;
}

std::string markdown_page(const json& r) {
  std::string s = fmt::format(
      "# Fault campaign\n\nWritten by `{}` ({:.0f} s; figures in "
      "[reports/faults.json](reports/faults.json), point by point in\n"
      "[reports/faults.html](reports/faults.html)). Not edited by hand.\n\n"
      "A **simulated** kernel (array 16 x 16) with one fault at a time: a flipped bit of a state "
      "register, once or more\nin every state that it passes through, or a verdict, compare or "
      "valid "
      "signal held at 0 or 1 for the rest of the\nsession. The points are those of "
      "`campaign/faults/faults.vlt`. Nothing here says how hard it is to cause such a\nfault in "
      "silicon, and two faults at once are not tried.\n\n"
      "The host gives up nowhere: it loads, starts, unwraps, runs and reads every register "
      "whatever the chip answers, in\nan honest session and in seven that must be refused.\n\n",
      r["command"].get<std::string>(), r["seconds"].get<double>());
  s += markdown(ways(r));
  s += "A fault is *masked* when the host sees what it sees without it, *refused* when the chip "
       "says no (or no for another\nreason), *silent* when no answer comes within the host's "
       "patience. In all three nothing is released. A *violation* is\na secret on any port, a "
       "result of a session that must be refused, a wrong result of the honest one, or a key "
       "loaded\nfrom what was not verified.\n\n";
  s += markdown(by_room(r));
  const std::uint64_t n = count(r["outcomes"]["violation"]);
  s += fmt::format("**{} violation{}.**\n", n, n == 1 ? "" : "s");
  if (n != 0) s += "\n" + markdown(found(r));
  return s;
}

std::string html_page(const json& r) {
  std::string s = html_begin("Fault campaign: simulated kernel") + "<h1>Fault campaign</h1>\n";
  s += fmt::format(
      "<p>{} injections, seed {}, <code>{}</code>, {:.0f} s.</p>\n<p class=\"model\">"
      "Single faults in a simulated kernel; no figure of silicon.</p>\n",
      grouped(count(r["injections"])), count(r["seed"]), escaped(r["command"].get<std::string>()),
      r["seconds"].get<double>());
  s += html(ways(r)) + html(by_room(r));
  s += "<h2>Violations</h2>\n";
  s += r["violations"].empty() ? "<p>None.</p>\n" : html(found(r));
  s += "<h2>Point by point</h2>\n" + html(by_point(r));
  return s + html_end;
}

}  // namespace latchkey::campaign::faults
