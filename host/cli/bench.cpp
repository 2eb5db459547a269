#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <random>

#include "commands.hpp"
#include "compiler/compile.hpp"
#include "console.hpp"
#include "latchkey/session.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"
#include "report.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string workload, device;
  std::vector<std::string> records;
  std::uint32_t array_n = 16, images = 64, units = 0;
  passphrase_source passphrase;
};

/// A layer of seeded random weights: `rows` positions of `k` channels into `n` outputs. The 1x1
/// convolution over rows positions is a GEMM of rows x k x n; rows = 1 is a fully connected layer.
model::qgraph gemm(int rows, int k, int n) {
  std::mt19937 rng(static_cast<unsigned>(rows * 31 + k * 7 + n));
  model::qgraph g;
  g.name = fmt::format("gemm_{}x{}x{}", rows, k, n);
  const float sx = 0.02F, sy = 0.02F * std::sqrt(static_cast<float>(k));
  g.tensors = {{"x", k, 1, rows, sx, 128}, {"y", n, 1, rows, sy, 128}};
  model::qconv conv;
  conv.fully_connected = rows == 1;
  conv.out_channels = n;
  conv.in_channels = k;
  conv.weights.resize(static_cast<std::size_t>(n) * static_cast<std::size_t>(k));
  for (auto& w : conv.weights) w = static_cast<std::int8_t>(static_cast<int>(rng() % 255) - 127);
  conv.weight_scale.assign(static_cast<std::size_t>(n), 0.01F);
  conv.bias.assign(static_cast<std::size_t>(n), 0);
  for (int o = 0; o < n; ++o)
    conv.scale.push_back(
        model::make_requant(sx, conv.weight_scale[static_cast<std::size_t>(o)], sy));
  g.nodes.push_back({g.name, {0}, 1, conv});
  g.input = {"x", 0, model::io_type::u8, {k, 1, rows}};
  g.output = {"y", 1, model::io_type::u8, {n, 1, rows}};
  return g;
}

nlohmann::json measure(Session& session, const compiler::program& p, std::uint32_t images) {
  const std::size_t bytes = std::size_t{p.input.layout.c} * p.input.layout.h * p.input.layout.w;
  std::vector<std::uint8_t> data(bytes * images);
  std::mt19937 rng(images);
  for (auto& b : data) b = static_cast<std::uint8_t>(rng());
  progress bar(session.build().build == Build::operate ? "locked" : "unlocked");
  session.on_progress([&](std::size_t n, std::size_t total) { bar.update(n, total); });
  const auto began = std::chrono::steady_clock::now();
  // Channels last is how the scratchpad holds them, so the input adapter takes a word a cycle.
  ImageFormat format;
  format.order = ImageFormat::Order::nhwc;
  const RunResult done = session.run(data, images, format);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  say_counters(done.counters, p.counted_macs() * images, p.macs() * images, p.target.array_n);
  say_units(done.units, done.seconds);
  nlohmann::json json = to_json(done.counters);
  json["units"] = to_json(done.units, done.seconds);
  json["seconds"] = seconds;
  json["macs_expected"] = p.counted_macs() * images;
  json["macs_useful"] = p.macs() * images;
  return json;
}

void bench(const options& o) {
  std::optional<Program> program;
  std::uint32_t images = o.images;
  if (o.workload == "fc" || o.workload == "gemm") {
    compiler::compile_options options;
    options.target = compiler::target::of(o.array_n);
    // fc: every page is used once, the weight port sets the pace. gemm: 512 rows per page.
    program = Program(compiler::compile(
        o.workload == "fc" ? gemm(1, 4096, 4096) : gemm(512, 2048, 1024), options));
    images = 1;
  } else {
    program = Program::read(o.workload);
    if (images > program->max_batch()) {
      throw error(errc::usage, fmt::format("{}: one start takes at most {} images", o.workload,
                                           program->max_batch()));
    }
  }
  const std::uint32_t units =
      o.units ? o.units : std::max(1U, static_cast<std::uint32_t>(o.records.size()));
  if (!o.records.empty() && units > o.records.size()) {
    throw error(errc::usage,
                fmt::format("--units {}: every unit takes a record of its own, {} given", units,
                            o.records.size()));
  }
  Device device(o.device);
  std::vector<ComputeUnit> places;
  for (std::uint32_t u = 0; u < units; ++u) places.push_back({&device, u});
  nlohmann::json summary = {
      {"workload", o.workload},
      {"device", o.device},
      {"array_n", program->array_n()},
      {"images", images},
      {"units", units},
      {"card", device.simulated() ? "simulated: memory and silicon are models" : "real"}};
  say(fmt::format("{} on {}, {} image(s) in one start{}, unlocked elaboration", program->name(),
                  o.device, images, units > 1 ? fmt::format(" on each of {} units", units) : ""));
  {
    Session session(places, *program);
    summary["unlocked"] = measure(session, program->get(), images * units);
  }
  if (!o.records.empty()) {
    const lock::secret_buffer passphrase =
        o.passphrase.read(fmt::format("Passphrase of {}", fmt::join(o.records, " and ")), false);
    std::vector<Package> packages;
    std::vector<PublicRecord> records;
    for (std::uint32_t u = 0; u < units; ++u) {
      const lock::device_record record = lock::read_record(o.records[u], text(passphrase));
      packages.push_back(Package::seal(*program, record, 1));
      records.emplace_back(record.pub);
    }
    say("locked");
    Session session(places, packages, records);
    summary["locked"] = measure(session, program->get(), images * units);
    summary["key_setup_cycles"] = session.key_setup().cycles;
    const double ratio =
        summary["locked"]["cycles"].get<double>() / summary["unlocked"]["cycles"].get<double>();
    summary["ratio"] = ratio;
    say(fmt::format("locked / unlocked cycles: {:.4f}; key set-up, once per session: {} cycles",
                    ratio, grouped(session.key_setup().cycles)));
  }
  result(summary);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "bench", "Count the cycles of one start, on the unlocked build and, with a record, locked");
  command
      ->add_option("workload", o->workload,
                   "A program (.lkm), or fc (1 x 4096 x 4096), or gemm (512 x 2048 x 1024)")
      ->required();
  command
      ->add_option("--device", o->device, "Card: an index, a PCIe address, or sim:SEED,memory=...")
      ->required();
  command
      ->add_option("--record", o->records,
                   "Device record with the owner key: also measure locked; one for every unit")
      ->allow_extra_args(false);
  command
      ->add_option("--units", o->units,
                   "Compute units, each with a start of its own (default: one for each record)")
      ->check(CLI::Range(1, 99));
  command->add_option("--array", o->array_n, "Array size for fc and gemm: 16, 32 or 64")
      ->check(CLI::IsMember({16, 32, 64}));
  command->add_option("--images", o->images, "Images in the start, for a program")
      ->check(whole_number)
      ->check(CLI::PositiveNumber);
  o->passphrase.add_options(*command);
  command->callback([o] { bench(*o); });
}

}  // namespace latchkey::cli
