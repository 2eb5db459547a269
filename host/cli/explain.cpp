#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <random>

#include "commands.hpp"
#include "compiler/cost.hpp"
#include "compiler/file_io.hpp"
#include "console.hpp"
#include "latchkey/session.hpp"
#include "lock/package.hpp"
#include "plot.hpp"
#include "report.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string file, memory, device, package, record, plot;
  std::uint32_t batch = 0;
};

struct measurement {
  LayerCycles layers;
  Counters counters;
  bool locked = false;
  double seconds = 0;
};

compiler::program read(const std::string& path) {
  const io::bytes file = io::read_file(path);
  const std::string_view sealed = "LKXP";
  if (file.size() >= sealed.size() && std::equal(sealed.begin(), sealed.end(), file.begin())) {
    throw error(errc::bad_file,
                fmt::format("{}: a sealed package; its descriptors are encrypted. Explain the "
                            "program (.lkm) that was sealed, and give the package with --package "
                            "to measure it",
                            path));
  }
  return compiler::parse_program(file, path);
}

/// The preset that the simulated card was named with, unless --memory says otherwise.
std::string memory_of(const options& o) {
  if (!o.memory.empty()) return o.memory;
  const std::string setting = ",memory=";
  const std::size_t at = o.device.find(setting);
  if (at == std::string::npos) return "ddr4-2400";
  const std::size_t from = at + setting.size();
  return o.device.substr(from, o.device.find(',', from) - from);
}

/// A package is measured under the program's names, so it must be that program.
void check_same(const compiler::program& p, const lock::package& sealed, const std::string& path) {
  if (sealed.info.name == p.name && sealed.info.target == p.target &&
      sealed.num_pages() == p.num_pages() && sealed.info.max_batch == p.max_batch &&
      sealed.manifest.num_descs == p.descriptors.size() && sealed.info.input == p.input &&
      sealed.info.output == p.output)
    return;
  throw error(errc::mismatch,
              fmt::format("{}: not made from this program (model, build, pages, batch or "
                          "tensors differ); seal it again with `latchkey lock`",
                          path));
}

/// One start of random images. Their values change no cycle.
measurement measure(const options& o, const compiler::program& p, std::uint32_t batch) {
  std::optional<Package> package;
  std::optional<PublicRecord> record;
  if (!o.package.empty()) {
    package = Package::read(o.package);
    record = PublicRecord::read(o.record);
    check_same(p, package->get(), o.package);
  }
  std::vector<std::uint8_t> data(std::size_t{p.input.layout.c} * p.input.layout.h *
                                 p.input.layout.w * batch);
  std::mt19937 rng(batch);
  for (auto& b : data) b = static_cast<std::uint8_t>(rng());
  Device device(o.device);
  Session session = package ? Session(device, *package, *record) : Session(device, Program(p));
  measurement m;
  m.locked = package.has_value();
  say(fmt::format("measuring one start of {} images, {}", batch, m.locked ? "locked" : "unlocked"));
  // Channels last is how the scratchpad holds them: the input adapter takes a word a cycle.
  ImageFormat format;
  format.order = ImageFormat::Order::nhwc;
  const auto began = std::chrono::steady_clock::now();
  m.counters = session.run(data, batch, format).counters;
  m.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  m.layers = session.layer_cycles();
  return m;
}

double part(std::uint64_t a, std::uint64_t b) {
  return b == 0 ? 0.0 : static_cast<double>(a) / static_cast<double>(b);
}

double utilisation(std::uint64_t macs, std::uint32_t n, std::uint64_t cycles) {
  return part(macs, std::uint64_t{n} * n * cycles);
}

void print(const compiler::program& p, std::uint32_t batch, const compiler::run_cost& cost,
           const std::optional<measurement>& m) {
  const std::uint32_t n = p.target.array_n;
  say(fmt::format("{:<20} {:<9} {:>14} {:>14} {:>11} {:<11} {:>11} {:>6} {:>6}{}", "layer", "op",
                  "output C,H,W", "MACs", "bytes", "bound by", "cycles", "share", "array",
                  m ? fmt::format(" {:>11} {:>7}", "measured", "error") : ""));
  std::uint64_t bytes = 0, macs = 0;
  for (std::size_t i = 0; i < cost.layers.size(); ++i) {
    const compiler::layer_cost& c = cost.layers[i];
    const compiler::layer_report& r = p.layers[i];
    std::string line =
        fmt::format("{:<20} {:<9} {:>14} {:>14} {:>11} {:<11} {:>11} {:>5.1f}% {:>5.1f}%",
                    r.name.substr(0, 20), r.op, fmt::format("{}", fmt::join(r.shape, ",")),
                    grouped(c.macs), bytes_text(c.bytes), describe(c.by), grouped(c.cycles),
                    100 * part(c.cycles, cost.cycles), 100 * utilisation(c.macs, n, c.cycles));
    if (m) {
      const std::uint64_t there = m->layers.cycles.at(i);
      line += fmt::format(" {:>11} {:>+6.1f}%", grouped(there),
                          100 * (part(c.cycles, there) - (there ? 1 : 0)));
    }
    say(line);
    bytes += c.bytes;
    macs += c.macs;
  }
  say(
      fmt::format("predicted: {} cycles, {} MACs, {} of pages, utilisation {:.1f} % of {} MACs a "
                  "cycle",
                  grouped(cost.cycles), grouped(macs), bytes_text(bytes),
                  100 * utilisation(macs, n, cost.cycles), n * n));
  if (m) {
    say(
        fmt::format("measured:  {} cycles ({}), prediction off by {:+.1f} %, utilisation {:.1f} %; "
                    "{:.0f} simulated cycles a second",
                    grouped(m->counters.cycles), m->locked ? "locked" : "unlocked",
                    100 * (part(cost.cycles, m->counters.cycles) - 1),
                    100 * utilisation(macs, n, m->counters.cycles),
                    static_cast<double>(m->counters.cycles) / std::max(m->seconds, 1e-9)));
    say_counters(m->counters, p.counted_macs() * batch, macs, n);
  }
}

nlohmann::json to_json(const compiler::program& p, std::uint32_t batch, const std::string& memory,
                       const compiler::run_cost& cost, const std::optional<measurement>& m) {
  const std::uint32_t n = p.target.array_n;
  nlohmann::json layers = nlohmann::json::array();
  std::uint64_t macs = 0;
  for (std::size_t i = 0; i < cost.layers.size(); ++i) {
    const compiler::layer_cost& c = cost.layers[i];
    const compiler::layer_report& r = p.layers[i];
    macs += c.macs;
    layers.push_back({{"name", r.name},
                      {"op", r.op},
                      {"shape", r.shape},
                      {"macs", c.macs},
                      {"bytes", c.bytes},
                      {"bound", describe(c.by)},
                      {"cycles", c.cycles},
                      {"share", part(c.cycles, cost.cycles)},
                      {"utilisation", utilisation(c.macs, n, c.cycles)},
                      {"units",
                       {{"array", c.array},
                        {"feed", c.feed},
                        {"port", c.port},
                        {"memory", c.memory},
                        {"post", c.post},
                        {"vector", c.vector},
                        {"stream", c.stream}}}});
    if (m) layers.back()["measured"] = m->layers.cycles.at(i);
  }
  nlohmann::json json = {
      {"model", p.name},       {"array_n", n},
      {"batch", batch},        {"memory", memory},
      {"macs", macs},          {"boot", cost.boot},
      {"cycles", cost.cycles}, {"utilisation", utilisation(macs, n, cost.cycles)},
      {"layers", layers}};
  if (m) {
    json["measured"] = {{"boot", m->layers.boot},
                        {"locked", m->locked},
                        {"seconds", m->seconds},
                        {"utilisation", utilisation(macs, n, m->counters.cycles)},
                        {"counters", cli::to_json(m->counters)}};
  }
  return json;
}

void plot(const options& o, const compiler::program& p, std::uint32_t batch,
          const compiler::memory_timing& memory, const compiler::run_cost& cost,
          const std::optional<measurement>& m) {
  plotted_run picture;
  picture.title = p.name;
  picture.array_n = p.target.array_n;
  picture.beats_per_cycle = 1 / memory.cycles_per_beat;
  std::uint64_t macs = 0;
  for (std::size_t i = 0; i < cost.layers.size(); ++i) {
    picture.layers.push_back({p.layers[i].name, p.layers[i].op, cost.layers[i], {}});
    if (m) picture.layers.back().measured = m->layers.cycles.at(i);
    macs += cost.layers[i].macs;
  }
  const std::uint64_t cycles = m ? m->counters.cycles : cost.cycles;
  picture.subtitle = fmt::format(
      "{0} x {0} array, memory {1}, one start of {2} images: {3} cycles {4}, utilisation {5:.1f} %",
      p.target.array_n, memory.name, batch, grouped(cycles), m ? "measured" : "predicted",
      100 * utilisation(macs, p.target.array_n, cycles));
  const std::string text = o.plot.ends_with(".svg") ? svg(picture) : html(picture);
  io::write_file(o.plot, {io::as_bytes(text)});
  say(fmt::format("wrote {}", o.plot));
}

void explain(const options& o) {
  if (!o.plot.empty() && !o.plot.ends_with(".svg") && !o.plot.ends_with(".html")) {
    throw error(errc::usage, fmt::format("--plot {}: the name must end in .svg or .html", o.plot));
  }
  const compiler::program p = read(o.file);
  if (p.layers.empty())
    throw error(errc::bad_file, fmt::format("{}: holds no table of layers", o.file));
  const compiler::memory_timing memory = compiler::memory_preset(memory_of(o));
  const std::uint32_t batch = o.batch ? o.batch : p.max_batch;
  // The unlocked build is measured unless a package is given; predict what is measured.
  const bool locked = o.device.empty() || !o.package.empty();
  const compiler::run_cost cost = compiler::predict(p, batch, memory, locked);
  if (!o.plot.empty()) check_folder(o.plot);
  std::optional<measurement> m;
  say(fmt::format("{}: {} x {} array, memory {}, one start of {} images", p.name, p.target.array_n,
                  p.target.array_n, memory.name, batch));
  if (!o.device.empty()) m = measure(o, p, batch);
  print(p, batch, cost, m);
  if (!o.plot.empty()) plot(o, p, batch, memory, cost, m);
  result(to_json(p, batch, std::string(memory.name), cost, m));
}

}  // namespace

void add_explain(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "explain", "Say where a program's cycles go, layer by layer, and what bounds each");
  command->add_option("program", o->file, "Program (.lkm)")->required();
  command->add_option("--batch", o->batch, "Images of the start (default: the program's limit)")
      ->check(CLI::Range(1, 256));
  command
      ->add_option("--memory", o->memory,
                   "Card memory to predict for (default: the device's, else ddr4-2400)")
      ->check(CLI::IsMember({"ideal", "ddr4-2400", "hbm"}));
  auto* device = command->add_option(
      "--device", o->device, "Also measure on this card: an index, a PCIe address, or sim:SEED");
  auto* package = command
                      ->add_option("--package", o->package,
                                   "Measure this sealed package of the program instead of the "
                                   "program on the unlocked build")
                      ->needs(device);
  auto* record =
      command->add_option("--record", o->record, "Device record of the card, for --package")
          ->needs(package);
  package->needs(record);
  command->add_option("--plot", o->plot, "Picture to write: roofline and timeline, .svg or .html");
  command->callback([o] { explain(*o); });
}

}  // namespace latchkey::cli
