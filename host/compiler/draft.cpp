#include "compiler/draft.hpp"

#include <algorithm>
#include <set>

#include "latchkey/error.hpp"

namespace latchkey::compiler {
namespace {

using nlohmann::json;

json tensors_json(const draft& d) {
  json tensors = json::array();
  for (std::size_t i = 0; i < d.tensors.size(); ++i) {
    const model::qtensor& t = d.tensors[i];
    json j = {{"tensor", i},
              {"name", t.name},
              {"shape", {t.c, t.h, t.w}},
              {"scale", t.scale},
              {"zero_point", t.zero_point}};
    if (i < d.layouts.size()) {
      const tensor_layout& l = d.layouts[i];
      j["layout"] = {{"blocks", l.cb},
                     {"block_bytes_log2", l.cp_log2},
                     {"last_block_channels", l.c_last},
                     {"words", l.words}};
    }
    tensors.push_back(std::move(j));
  }
  return tensors;
}

json descriptor_json(const spec::descriptor& d) {
  json j = json::object();
  for (const spec::descriptor_field& f : spec::descriptor_fields)
    if (d.*f.value != 0) j[std::string(f.name)] = d.*f.value;
  return j;
}

json steps_json(const draft& d) {
  json steps = json::array();
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    const step& s = d.steps[i];
    json nodes = json::array();
    for (const model::qnode* n : s.nodes) nodes.push_back(n->name);
    steps.push_back({{"step", i},
                     {"name", s.report.name},
                     {"op", s.report.op},
                     {"nodes", std::move(nodes)},
                     {"inputs", s.inputs},
                     {"output", s.output},
                     {"out_offset", s.out_offset},
                     {"macs", s.report.macs},
                     {"weight_bytes", s.report.weight_bytes},
                     {"pages", s.report.pages},
                     {"words", s.report.words},
                     {"descriptor", descriptor_json(s.desc)}});
  }
  return steps;
}

json regions_json(const draft& d) {
  json regions = json::array();
  for (const page_region& r : d.out.regions) {
    const io::byte_view pages = io::byte_view(d.out.pages)
                                    .subspan(std::size_t{r.first} * spec::page_bytes,
                                             std::size_t{r.count} * spec::page_bytes);
    regions.push_back({{"region", r.region},
                       {"first", r.first},
                       {"count", r.count},
                       {"sha256", io::to_hex(io::sha256({pages}))}});
  }
  return regions;
}

}  // namespace

std::size_t writer_of(const draft& d, int t) {
  for (std::size_t i = d.steps.size(); i-- > 0;)
    if (d.steps[i].output == t) return i;
  return nowhere;
}

std::size_t writer_for_one(const draft& d, int t) {
  std::ptrdiff_t readers = 0, writers = 0;
  for (const step& s : d.steps) {
    readers += std::count(s.inputs.begin(), s.inputs.end(), t);
    writers += s.output == t ? 1 : 0;
  }
  return readers == 1 && writers == 1 ? writer_of(d, t) : nowhere;
}

std::vector<lifetime> lifetimes(const draft& d) {
  std::vector<lifetime> lives(d.tensors.size());
  const auto touch = [&](int t, std::size_t at, std::uint32_t behind) {
    lifetime& l = lives[static_cast<std::size_t>(t)];
    if (l.words == 0) l.first = at;
    l.words = std::max(l.words, std::uint64_t{d.layout(t).words} + behind);
    l.last = at;
  };
  for (std::size_t i = 0; i < d.steps.size(); ++i) {
    for (const int t : d.steps[i].inputs) touch(t, i, 0);
    if (d.steps[i].output >= 0) touch(d.steps[i].output, i, words_behind(d.steps[i]));
  }
  return lives;
}

std::uint64_t words_used(const draft& d, const step& s) {
  std::set<int> used(s.inputs.begin(), s.inputs.end());
  if (s.output >= 0) used.insert(s.output);
  std::uint64_t words = words_behind(s);
  for (const int t : used) words += d.layout(t).words;
  return words;
}

std::uint32_t images_asked(const draft& d) { return std::max(1u, d.options.max_batch); }

void absorb(step& into, const step& next, const std::string& name) {
  into.report.op += "+" + name;
  into.report.shape = next.report.shape;
  into.report.words = next.report.words;
  into.report.macs += next.report.macs;
  into.report.pages += next.report.pages;
  into.report.weight_bytes += next.report.weight_bytes;
  into.nodes.insert(into.nodes.end(), next.nodes.begin(), next.nodes.end());
  into.output = next.output;
  into.out_offset = next.out_offset;
}

json to_json(const draft& d) {
  return {{"model", d.graph.name},
          {"array_n", d.options.target.array_n},
          {"spad_words", d.options.target.spad_words},
          {"max_batch", d.out.max_batch},
          {"peak_words", d.out.peak_words},
          {"spill_pages", d.out.spill_pages},
          {"pages", d.out.num_pages()},
          {"tensors", tensors_json(d)},
          {"steps", steps_json(d)},
          {"regions", regions_json(d)}};
}

void unsupported(const std::string& layer, const std::string& message) {
  throw error(errc::unsupported_model, "layer '" + layer + "': " + message);
}

std::string images_text(std::uint32_t images) {
  return images == 1 ? "one image" : std::to_string(images) + " images";
}

std::string advice(std::uint32_t images) {
  return std::string("use a build with a larger scratchpad, ") +
         (images > 1 ? "a smaller batch, " : "") +
         "or a model with a smaller input or fewer channels at this layer";
}

void put_u32_at(std::uint8_t* out, std::uint32_t v) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(v >> (8 * i));
}

}  // namespace latchkey::compiler
