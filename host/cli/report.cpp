#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "console.hpp"

namespace latchkey::cli {
namespace {

struct cause {
  const char* name;
  std::uint64_t cycles;
};

std::vector<cause> causes(const Counters& c) {
  return {{"array_busy", c.array_busy},
          {"wait_memory", c.wait_memory},
          {"wait_decrypt", c.wait_decrypt},
          {"wait_load", c.wait_load},
          {"wait_activations", c.wait_activations},
          {"wait_post", c.wait_post},
          {"vector", c.vector},
          {"input", c.input},
          {"output", c.output},
          {"control", c.control}};
}

}  // namespace

nlohmann::json to_json(const Counters& c) {
  nlohmann::json json = {{"cycles", c.cycles},
                         {"macs", c.macs},
                         {"pages", c.pages},
                         {"beats", c.beats},
                         {"starts", c.starts}};
  for (const cause& entry : causes(c)) json["stalls"][entry.name] = entry.cycles;
  return json;
}

void say_counters(const Counters& c, std::uint64_t expected, std::uint64_t useful,
                  std::uint32_t array_n) {
  if (c.cycles == 0) return;
  const auto share = [&](std::uint64_t n) {
    return 100.0 * static_cast<double>(n) / static_cast<double>(c.cycles);
  };
  say(fmt::format(
      "  {} cycles in {} starts, {} MACs{} ({:.1f} % of the array's peak), {:.3f} weight "
      "beats per cycle",
      grouped(c.cycles), c.starts, grouped(c.macs),
      c.macs == expected ? " as compiled" : fmt::format(" BUT {} COMPILED", grouped(expected)),
      share(useful) / (array_n * array_n),
      static_cast<double>(c.beats) / static_cast<double>(c.cycles)));
  std::string line = "  cycles:";
  for (const cause& entry : causes(c))
    if (entry.cycles) line += fmt::format(" {} {:.1f} %", entry.name, share(entry.cycles));
  say(line);
}

nlohmann::json to_json(const std::vector<UnitShare>& units, double seconds) {
  nlohmann::json list = nlohmann::json::array();
  for (const UnitShare& u : units) {
    nlohmann::json& entry = list.emplace_back(to_json(u.counters));
    entry["device"] = u.device;
    entry["unit"] = u.unit;
    entry["images"] = u.images;
    entry["busy"] = seconds > 0 ? u.busy_seconds / seconds : 0.0;
  }
  return list;
}

void say_units(const std::vector<UnitShare>& units, double seconds) {
  if (units.size() < 2) return;
  std::uint64_t longest = 0, sum = 0;
  for (const UnitShare& u : units) {
    longest = std::max(longest, u.counters.cycles);
    sum += u.counters.cycles;
    say(fmt::format("  {} unit {}: {} images, {} cycles in {} starts, busy {:.1f} % of the run",
                    u.device, u.unit, grouped(u.images), grouped(u.counters.cycles),
                    u.counters.starts, seconds > 0 ? 100.0 * u.busy_seconds / seconds : 0.0));
  }
  if (longest)
    say(fmt::format("  longest unit {} cycles: {:.2f} units' worth of work side by side",
                    grouped(longest), static_cast<double>(sum) / static_cast<double>(longest)));
}

nlohmann::json& error_details() {
  static nlohmann::json details = nlohmann::json::object();
  return details;
}

namespace {

struct part {
  const char* name;
  const fallback::host_graph* graph;
};

std::vector<part> parts_of(const compiler::program& p) {
  std::vector<part> parts;
  if (p.head) parts.push_back({"head", &*p.head});
  if (p.tail) parts.push_back({"tail", &*p.tail});
  return parts;
}

double share(std::uint64_t host, std::uint64_t card) {
  return host + card ? 100.0 * static_cast<double>(host) / static_cast<double>(host + card) : 0.0;
}

std::size_t public_constants(const compiler::program& p) {
  std::size_t n = 0;
  for (const part& q : parts_of(p)) {
    for (const auto& [name, t] : q.graph->constants) n += t.values.size();
  }
  return n;
}

}  // namespace

void say_host(const compiler::program& p) {
  if (!p.head && !p.tail) return;
  const std::uint64_t host = p.host_macs();
  say(fmt::format("on the host, in float: {} of {} operations per image ({:.3f} %)", grouped(host),
                  grouped(host + p.macs()), share(host, p.macs())));
  say(fmt::format("  {:<5} {:<20} {:<12} {:>16} {:>12} {:>8}", "part", "node", "op", "output",
                  "operations", "share"));
  for (const part& q : parts_of(p)) {
    for (const fallback::node_report& r : fallback::report(*q.graph)) {
      say(fmt::format("  {:<5} {:<20} {:<12} {:>16} {:>12} {:>6.3f} %", q.name,
                      r.name.substr(0, 20), r.op, fallback::text(r.dims), grouped(r.macs),
                      100.0 * static_cast<double>(r.macs) /
                          static_cast<double>(std::max<std::uint64_t>(host + p.macs(), 1))));
    }
  }
  say(fmt::format(
      "warning: these nodes and their {} constants are not locked; whoever has the package reads "
      "them",
      grouped(public_constants(p))));
}

void add_host(nlohmann::json& summary, const compiler::program& p) {
  if (!p.head && !p.tail) return;
  nlohmann::json nodes = nlohmann::json::array();
  for (const part& q : parts_of(p)) {
    for (const fallback::node_report& r : fallback::report(*q.graph)) {
      nodes.push_back(
          {{"part", q.name}, {"name", r.name}, {"op", r.op}, {"shape", r.dims}, {"macs", r.macs}});
    }
  }
  summary["host"] = {{"nodes", std::move(nodes)},
                     {"macs", p.host_macs()},
                     {"macs_share", share(p.host_macs(), p.macs()) / 100.0},
                     {"public_constants", public_constants(p)}};
}

}  // namespace latchkey::cli
