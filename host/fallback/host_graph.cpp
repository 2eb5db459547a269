#include "fallback/host_graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <unordered_map>

#include "latchkey/error.hpp"

namespace latchkey::fallback {
namespace {

using nlohmann::json;

constexpr const char* kElements[] = {"f32", "u8", "i8", "i32", "i64", "bool"};

bool attribute_fits(const json& a) {
  if (a.is_array()) {
    return std::all_of(a.begin(), a.end(), [](const json& v) { return v.is_number(); });
  }
  return a.is_number() || a.is_string();
}

}  // namespace

const char* name_of(element type) { return kElements[static_cast<std::size_t>(type)]; }

std::int64_t elements(const shape& dims) {
  std::int64_t n = 1;
  if (dims.size() > kMaxRank) {
    throw error(errc::unsupported_model,
                fmt::format("{} dimensions, at most {} are supported", dims.size(), kMaxRank));
  }
  for (const std::int64_t d : dims) {
    if (d < 0 || d > kMaxElements || (n *= d) > kMaxElements) {
      throw error(errc::unsupported_model,
                  fmt::format("shape {} is negative or has more than {} elements", text(dims),
                              kMaxElements));
    }
  }
  return n;
}

std::string text(const shape& dims) {
  return dims.empty() ? "one value" : fmt::format("{}", fmt::join(dims, " x "));
}

std::vector<tensor> run(const host_graph& graph, tensor input, std::vector<node_report>* report) {
  const auto same = [](const shape& a, const shape& b) {
    return a.size() == b.size() && !a.empty() && std::equal(a.begin() + 1, a.end(), b.begin() + 1);
  };
  if (input.type != graph.input_type || !same(input.dims, graph.input_dims) ||
      static_cast<std::int64_t>(input.values.size()) != elements(input.dims)) {
    throw error(errc::mismatch,
                fmt::format("host part: input '{}' is {} of {}, but {} of {} was given",
                            graph.input, text(graph.input_dims), name_of(graph.input_type),
                            text(input.dims), name_of(input.type)));
  }
  std::unordered_map<std::string, tensor> values;
  const auto find = [&](const std::string& name) -> const tensor* {
    if (const auto c = graph.constants.find(name); c != graph.constants.end()) return &c->second;
    const auto v = values.find(name);
    return v == values.end() ? nullptr : &v->second;
  };
  values.emplace(graph.input, std::move(input));
  for (const node& n : graph.nodes) {
    const auto fail = [&](const std::string& reason, const call* c) {
      const tensor* x = c && !c->in.empty() ? c->in[0] : nullptr;
      throw error(errc::unsupported_model,
                  fmt::format("node '{}' ({}){}: {}", n.name, n.op,
                              x ? " on " + text(x->dims) : std::string(), reason));
    };
    call c{n, graph.opset, {}, {}};
    for (const std::string& name : n.inputs) {
      c.in.push_back(name.empty() ? nullptr : find(name));
      if (!name.empty() && !c.in.back()) fail("reads '" + name + "', which nothing gives", nullptr);
    }
    try {
      execute(c);
    } catch (const error& e) {
      fail(e.what(), &c);
    }
    if (c.out.size() < n.outputs.size()) {
      fail(fmt::format("gives {} results, {} are named", c.out.size(), n.outputs.size()), &c);
    }
    if (report) report->push_back({n.name, n.op, c.out.at(0).dims, c.macs});
    for (std::size_t i = 0; i < n.outputs.size(); ++i) {
      if (n.outputs[i].empty()) continue;
      if (find(n.outputs[i])) fail("writes '" + n.outputs[i] + "', which is there already", &c);
      values.emplace(n.outputs[i], std::move(c.out[i]));
    }
  }
  std::vector<tensor> out;
  for (const std::string& name : graph.outputs) {
    const tensor* t = find(name);
    if (!t) {
      throw error(errc::unsupported_model,
                  fmt::format("host part: output '{}' is not computed", name));
    }
    out.push_back(*t);
  }
  return out;
}

tensor zeros(const host_graph& graph, std::int64_t batch) {
  tensor zero{graph.input_type, graph.input_dims, {}};
  zero.dims.at(0) = batch;
  zero.values.resize(static_cast<std::size_t>(elements(zero.dims)));
  return zero;
}

std::vector<node_report> report(const host_graph& graph) {
  std::vector<node_report> out;
  run(graph, zeros(graph), &out);
  return out;
}

std::uint64_t macs(const host_graph& graph) {
  std::uint64_t sum = 0;
  for (const node_report& r : report(graph)) sum += r.macs;
  return sum;
}

json to_json(const host_graph& graph) {
  json constants = json::object();
  for (const auto& [name, t] : graph.constants) {
    constants[name] = {{"type", name_of(t.type)}, {"shape", t.dims}, {"values", t.values}};
  }
  json nodes = json::array();
  for (const node& n : graph.nodes) {
    nodes.push_back({{"name", n.name},
                     {"op", n.op},
                     {"inputs", n.inputs},
                     {"outputs", n.outputs},
                     {"attributes", n.attributes}});
  }
  return {
      {"version", kVersion},
      {"opset", graph.opset},
      {"input",
       {{"name", graph.input}, {"type", name_of(graph.input_type)}, {"shape", graph.input_dims}}},
      {"constants", std::move(constants)},
      {"nodes", std::move(nodes)},
      {"outputs", graph.outputs}};
}

host_graph from_json(const json& j, const std::string& what) {
  const auto bad = [&](const std::string& why) { throw error(errc::bad_file, what + ": " + why); };
  const auto type_of = [&](const json& v) {
    const auto name = v.get<std::string>();
    const auto* const found = std::find(std::begin(kElements), std::end(kElements), name);
    if (found == std::end(kElements)) bad("type '" + name + "' is unknown");
    return static_cast<element>(found - std::begin(kElements));
  };
  host_graph g;
  try {
    if (const auto v = j.at("version").get<std::int64_t>(); v != kVersion) {
      bad(fmt::format("version {}; this version reads {}", v, kVersion));
    }
    g.opset = j.at("opset").get<int>();
    g.input = j.at("input").at("name").get<std::string>();
    g.input_type = type_of(j.at("input").at("type"));
    g.input_dims = j.at("input").at("shape").get<shape>();
    for (const auto& [name, c] : j.at("constants").items()) {
      tensor t{type_of(c.at("type")), c.at("shape").get<shape>(),
               c.at("values").get<std::vector<double>>()};
      if (static_cast<std::int64_t>(t.values.size()) != elements(t.dims)) {
        bad(fmt::format("constant '{}': {} values for shape {}", name, t.values.size(),
                        text(t.dims)));
      }
      g.constants.emplace(name, std::move(t));
    }
    for (const json& n : j.at("nodes")) {
      g.nodes.push_back({n.at("name").get<std::string>(), n.at("op").get<std::string>(),
                         n.at("inputs").get<std::vector<std::string>>(),
                         n.at("outputs").get<std::vector<std::string>>(), n.at("attributes")});
      const json& a = g.nodes.back().attributes;
      if (!a.is_object() || !std::all_of(a.begin(), a.end(), attribute_fits)) {
        bad(fmt::format("node '{}': its attributes are malformed", g.nodes.back().name));
      }
    }
    g.outputs = j.at("outputs").get<std::vector<std::string>>();
    if (g.nodes.empty() || g.nodes.size() > kMaxNodes || g.outputs.empty() ||
        g.outputs.size() > kMaxNodes) {
      bad("has no nodes or outputs, or more than 1,000");
    }
    if (g.input_dims.empty() || g.input_dims[0] != 1) bad("its input is not one image");
    report(g);  // A run on zeros checks names, operators, attributes and shapes.
  } catch (const json::exception& e) {
    bad(std::string("is malformed (") + e.what() + ")");
  } catch (const error& e) {
    if (e.code() == errc::bad_file) throw;
    bad(e.what());
  }
  return g;
}

}  // namespace latchkey::fallback
