#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "commands.hpp"
#include "compiler/file_io.hpp"
#include "compiler/program.hpp"
#include "console.hpp"
#include "latchkey/session.hpp"
#include "lock/owner.hpp"
#include "lock/package.hpp"
#include "model/dataset.hpp"
#include "report.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::vector<std::string> files, records, devices;
  std::string images, raw, labels, expect, output;
  std::string mode = "raw", trace, ticket;
  std::uint32_t ticket_wait = 300;
  std::size_t count = 0;
  std::uint32_t batch = 0, k = 1, units = 0;
  bool unlocked = false, skip_host_checks = false, nhwc = false;
};

struct input_data {
  std::vector<std::uint8_t> bytes;
  std::size_t count = 0;
  ImageFormat format;
};

/// The input that the user sees: the head's, or the card's.
struct edge {
  std::string name, shape;
  std::size_t values = 0;
};

edge input_of(const compiler::program& info) {
  if (info.head) {
    return {info.head->input, fallback::text(info.head->input_dims),
            static_cast<std::size_t>(fallback::elements(info.head->input_dims))};
  }
  const compiler::tensor_layout& l = info.input.layout;
  return {info.input.name,
          info.input.channels_last
              ? fmt::format("{} (channels last)", fallback::text(info.input.shape))
              : fmt::format("{} x {} x {} (C, H, W)", l.c, l.h, l.w),
          std::size_t{l.c} * l.h * l.w};
}

/// Bytes as they are, or float32; what the values' number says is checked by the caller.
void read_npy(const std::string& path, const edge& input, input_data& data) {
  const model::npy_array array = model::read_npy(path);
  const bool one = array.values.size() == input.values;
  if (!one && (array.dims.empty() || array.dims[0] * input.values != array.values.size())) {
    throw error(
        errc::mismatch,
        fmt::format("{}: holds {} values; input '{}' takes {} = {} values an "
                    "image, the images along the first dimension",
                    path, fmt::join(array.dims, " x "), input.name, input.shape, input.values));
  }
  if (array.bytes) {
    for (const float v : array.values) data.bytes.push_back(static_cast<std::uint8_t>(v));
    return;
  }
  data.format.type = ImageFormat::Type::f32;
  data.bytes.resize(array.values.size() * sizeof(float));
  std::memcpy(data.bytes.data(), array.values.data(), data.bytes.size());
}

input_data read_images(const options& o, const edge& input) {
  input_data data;
  data.format.order = o.nhwc ? ImageFormat::Order::nhwc : ImageFormat::Order::nchw;
  const std::size_t values = input.values;
  const std::string& path = o.images.empty() ? o.raw : o.images;
  if (o.images.empty()) {
    data.bytes = io::read_file(path);
    data.format.type = ImageFormat::Type::f32;
  } else if (path.ends_with(".npy")) {
    read_npy(path, input, data);
  } else {
    model::idx_array array = model::read_idx(path);
    const std::size_t items = array.dims.empty() ? 0 : array.dims[0];
    // Not only the number of bytes: 28 x 28 images are bytes enough for a model of 8 x 8 ones.
    if (items == 0 || array.values.size() != items * values) {
      throw error(
          errc::mismatch,
          fmt::format("{}: holds {} as count and size of its images; input '{}' takes {} = {} "
                      "bytes each",
                      path, fmt::join(array.dims, " x "), input.name, input.shape, values));
    }
    data.bytes = std::move(array.values);
  }
  const std::size_t image = values * (data.format.type == ImageFormat::Type::u8 ? 1 : 4);
  if (data.bytes.empty() || data.bytes.size() % image != 0) {
    throw error(
        errc::mismatch,
        fmt::format("{}: {} bytes are no whole number of images; input '{}' takes {} = {} bytes "
                    "each",
                    path, data.bytes.size(), input.name, input.shape, image));
  }
  data.count = data.bytes.size() / image;
  if (o.count) data.count = std::min(data.count, o.count);
  data.bytes.resize(data.count * image);
  return data;
}

OutputMode mode_of(const std::string& name) {
  if (name == "dequant") return OutputMode::dequant;
  if (name == "softmax") return OutputMode::softmax;
  if (name == "top-k") return OutputMode::top_k;
  return OutputMode::raw;
}

/// Class of one record: the largest value, the first of equals.
std::size_t class_of(const RunResult& r, std::size_t i, OutputMode mode) {
  if (!r.outputs.empty()) {
    const OutputTensor& t = r.outputs[0];
    const std::size_t n = t.values.size() / static_cast<std::size_t>(t.shape[0]);
    const auto first = t.values.begin() + static_cast<std::ptrdiff_t>(i * n);
    if (n == 1) return static_cast<std::size_t>(*first);
    return static_cast<std::size_t>(
        std::max_element(first, first + static_cast<std::ptrdiff_t>(n)) - first);
  }
  const std::uint8_t* at = r.data.data() + i * r.record_bytes;
  if (mode == OutputMode::top_k) {
    std::uint32_t first;
    std::memcpy(&first, at, 4);
    return first;
  }
  if (mode == OutputMode::raw)
    return static_cast<std::size_t>(std::max_element(at, at + r.record_bytes) - at);
  std::size_t best = 0;
  float best_value = 0;
  for (std::size_t c = 0; c < r.record_bytes / 4; ++c) {
    float v;
    std::memcpy(&v, at + 4 * c, 4);
    if (c == 0 || v > best_value) {
      best = c;
      best_value = v;
    }
  }
  return best;
}

io::byte_view bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * sizeof(float)};
}

/// What the card wrote, or the outputs of the tail as float32, one after another.
void write_results(const std::string& path, const RunResult& done) {
  if (done.outputs.empty()) return io::write_file(path, {done.data});
  std::vector<std::uint8_t> all;
  for (const OutputTensor& t : done.outputs) {
    const io::byte_view v = bytes_of(t.values);
    all.insert(all.end(), v.begin(), v.end());
  }
  io::write_file(path, {all});
}

/// The host's share of a run, in time as measured and in operations as counted.
void report_host(nlohmann::json& summary, const RunResult& done, const compiler::program& info) {
  if (!info.head && !info.tail) return;
  add_host(summary, info);
  const double all = done.host_seconds + done.seconds;
  nlohmann::json& host = summary["host"];
  host["seconds"] = done.host_seconds;
  host["card_seconds"] = done.seconds;
  host["time_share"] = all > 0 ? done.host_seconds / all : 0.0;
  say(fmt::format("host: {:.3f} ms of {:.3f} ms ({:.3f} % of the time), {:.3f} % of the operations",
                  1e3 * done.host_seconds, 1e3 * all, 100 * host["time_share"].get<double>(),
                  100 * host["macs_share"].get<double>()));
  for (const OutputTensor& t : done.outputs) {
    summary["outputs"].push_back({{"name", t.name}, {"type", t.type}, {"shape", t.shape}});
    say(fmt::format("output {}: {} ({})", t.name, fallback::text(t.shape), t.type));
  }
}

/// Writes the chip's request beside the ticket and waits for the owner's answer.
std::vector<std::uint8_t> get_ticket(const options& o, const TicketRequest& asked,
                                     std::size_t number) {
  const std::string file = o.files.size() == 1 ? o.ticket : fmt::format("{}.{}", o.ticket, number);
  lock::ticket_request request;
  const io::bytes id = io::from_hex(asked.device_id, "device id");
  std::copy(id.begin(), id.end(), request.device.begin());
  request.slot = asked.slot;
  request.nonce = asked.nonce;
  const std::string text = lock::to_text(request);
  io::write_file(file + ".request", {io::as_bytes(text)});
  say(fmt::format("ticket: the owner of slot {} signs {}.request as {}", asked.slot, file, file));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(o.ticket_wait);
  while (!std::filesystem::exists(file)) {
    check_interrupt();
    if (std::chrono::steady_clock::now() > deadline) {
      throw error(errc::refused,
                  fmt::format("{}: no ticket came within {} s; `latchkey ticket --request "
                              "{}.request -o {}` at the owner's desk makes it",
                              file, o.ticket_wait, file, file));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const auto words = lock::parse_ticket(io::read_file(file, 1u << 16), file);
  return {words.begin(), words.end()};
}

void run(const options& o) {
  const OutputMode mode = mode_of(o.mode);
  if (!o.expect.empty() && mode != OutputMode::raw)
    throw error(errc::usage, "--expect compares raw outputs; leave --mode at raw");
  if (!o.unlocked && o.records.empty())
    throw error(errc::usage,
                "a package runs only with the device record of its chip: give --record");

  // Everything that can be checked without the card comes first.
  const std::size_t cards = o.devices.size();
  std::optional<Program> program;
  std::vector<Package> packages;
  std::vector<PublicRecord> records;
  std::size_t units = o.units ? o.units : 1;  // of each card
  if (o.unlocked) {
    if (o.files.size() != 1 || !o.records.empty()) {
      throw error(errc::usage,
                  "--unlocked takes one program, which every unit runs, and no record");
    }
    program = Program::read(o.files.front());
  } else {
    const std::size_t given = o.files.size() / cards;  // for each card
    if (o.files.size() != o.records.size() || given * cards != o.files.size() || given == 0 ||
        o.units > given) {
      throw error(errc::usage,
                  fmt::format("{} package(s), {} record(s), {} card(s) and --units {}: every unit "
                              "takes a package and a record of its own, the units of the first "
                              "card first, as many on every card",
                              o.files.size(), o.records.size(), cards, o.units));
    }
    if (!o.units) units = given;
    for (std::size_t card = 0; card < cards; ++card) {
      for (std::size_t u = 0; u < units; ++u) {
        packages.push_back(Package::read(o.files[card * given + u]));
        records.push_back(PublicRecord::read(o.records[card * given + u]));
      }
    }
  }
  const compiler::program& info = o.unlocked ? program->get() : packages.front().get().info;
  const input_data data = read_images(o, input_of(info));
  std::vector<std::uint8_t> expected, labels;
  if (!o.labels.empty()) {
    labels = model::read_idx(o.labels).values;
    if (labels.size() < data.count) {
      throw error(errc::mismatch,
                  fmt::format("{}: {} labels for {} images", o.labels, labels.size(), data.count));
    }
  }
  if (!o.expect.empty()) {
    expected = io::read_file(o.expect);
    const std::size_t needed =
        data.count * info.output.layout.c * info.output.layout.h * info.output.layout.w;
    if (expected.size() < needed) {
      throw error(errc::mismatch, fmt::format("{}: {} bytes, {} images need {}", o.expect,
                                              expected.size(), data.count, needed));
    }
  }

  if (!o.output.empty()) check_folder(o.output);

  if (!o.trace.empty()) {
    std::filesystem::create_directories(o.trace);
    ::setenv("LATCHKEY_SIM_TRACE", o.trace.c_str(), 1);
  }
  if (cards > 1 && o.devices.front().rfind("sim:", 0) == 0) Device::simulate(o.devices);
  std::vector<Device> devices;
  for (const std::string& name : o.devices) devices.emplace_back(name);
  std::vector<ComputeUnit> places;
  for (Device& device : devices)
    for (std::uint32_t u = 0; u < units; ++u) places.push_back({&device, u});
  const auto began = std::chrono::steady_clock::now();
  SessionOptions settings;
  settings.skip_host_checks = o.skip_host_checks;
  std::size_t tickets = 0;
  if (!o.ticket.empty()) {
    settings.ticket = [&](const TicketRequest& r) { return get_ticket(o, r, tickets++); };
  }
  Session session =
      o.unlocked ? Session(places, *program) : Session(places, packages, records, settings);
  if (o.batch) session.limit_batch(o.batch);
  if (!o.trace.empty() && !session.build().waveforms) {
    throw error(
        errc::usage,
        "--trace: this card image was built without waveforms; `./dev wave` builds one that has "
        "them and exposes its secrets");
  }
  if (session.build().waveforms)
    say("note: this simulated chip was built with waveforms; its secrets are exposed");
  RunResult done;
  try {
    progress bar("running");
    session.on_progress([&](std::size_t n, std::size_t total) { bar.update(n, total); });
    done = session.run(data.bytes, data.count, data.format, mode, o.k);
  } catch (const error&) {
    error_details()["released_bytes"] = session.released_bytes();
    throw;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!o.output.empty()) write_results(o.output, done);

  nlohmann::json summary = {
      {"file", fmt::format("{}", fmt::join(o.files, " "))},
      {"device", fmt::format("{}", fmt::join(o.devices, " "))},
      {"build", o.unlocked ? "unlocked" : "operate"},
      {"card", devices.front().simulated() ? "simulated: memory and silicon are models" : "real"},
      {"images", data.count},
      {"seconds", seconds},
      {"counters", to_json(done.counters)},
      {"units", to_json(done.units, done.seconds)}};
  if (!o.unlocked) {
    summary["key_setup"] = {{"cycles", session.key_setup().cycles},
                            {"start_cycles", session.key_setup().start_cycles},
                            {"unstable_votes", session.key_setup().unstable_votes}};
    say(fmt::format(
        "key: rebuilt from the PUF in {} cycles ({} votes not unanimous); with unwrap and "
        "wipe {} cycles",
        grouped(session.key_setup().start_cycles), session.key_setup().unstable_votes,
        grouped(session.key_setup().cycles)));
  }
  std::string line = fmt::format("{}: {} images", info.name, grouped(data.count));
  if (!labels.empty()) {
    std::size_t correct = 0;
    for (std::size_t i = 0; i < data.count; ++i) correct += class_of(done, i, mode) == labels[i];
    summary["correct"] = correct;
    summary["top1"] = 100.0 * static_cast<double>(correct) / static_cast<double>(data.count);
    line += fmt::format(", top-1 {:.2f} %", summary["top1"].get<double>());
  }
  std::size_t differing = 0;
  if (!expected.empty()) {
    for (std::size_t i = 0; i < done.data.size(); ++i) differing += done.data[i] != expected[i];
    summary["compared"] = done.data.size();
    summary["differing"] = differing;
    line += fmt::format(", {} of {} outputs differ from the int8 reference", grouped(differing),
                        grouped(done.data.size()));
  }
  const std::uint64_t macs = info.counted_macs() * data.count;
  summary["macs_expected"] = macs;
  say(line);
  say_counters(done.counters, macs, info.macs() * data.count, info.target.array_n);
  say_units(done.units, done.seconds);
  report_host(summary, done, info);
  if (labels.empty() && expected.empty() && data.count <= 20) {
    for (std::size_t i = 0; i < data.count; ++i)
      say(fmt::format("  image {:>3}: class {}", i, class_of(done, i, mode)));
  }
  if (differing) {
    error_details()["result"] = summary;
    throw error(errc::mismatch, fmt::format("{} outputs differ from {}", differing, o.expect));
  }
  result(summary);
}

}  // namespace

void add_run(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand("run", "Run images through a locked model on its card");
  command
      ->add_option("file", o->files,
                   "Package (.lkx), one for every unit; with --unlocked one program (.lkm)")
      ->required();
  command
      ->add_option("--device", o->devices,
                   "Card: an index, a PCIe address, or sim:SEED; may be repeated")
      ->required()
      ->allow_extra_args(false);
  command
      ->add_option("--record", o->records,
                   "Device record of the unit, in the order of the packages; its public part is "
                   "enough")
      ->allow_extra_args(false);
  command
      ->add_option("--units", o->units,
                   "Compute units to use on every card (default: one for each package given; with "
                   "--unlocked 1)")
      ->check(CLI::Range(1, 99));
  auto* images =
      command->add_option("--images", o->images,
                          "Images as IDX (also .gz), u8, of which the model sees byte / 255; "
                          "or a .npy file of such bytes, or of real values");
  auto* raw = command->add_option("--raw", o->raw, "Images as raw float32, one after another");
  images->excludes(raw);
  command->add_flag("--nhwc", o->nhwc, "Images lie channels last (default: NCHW)");
  command->add_option("--count", o->count, "Only the first images")->check(whole_number);
  command->add_option("--labels", o->labels, "Labels (IDX): print top-1");
  command->add_option(
      "--expect", o->expect,
      "Raw outputs to compare with (compile --reference-output); a difference is an "
      "error");
  command->add_option("--mode", o->mode, "What to write per image: raw, dequant, softmax or top-k")
      ->check(CLI::IsMember({"raw", "dequant", "softmax", "top-k"}));
  command->add_option("--k", o->k, "Entries of top-k")->check(whole_number);
  command->add_option("-o,--output", o->output,
                      "File for the results; float32, output after output, where the host runs "
                      "the model's last operators");
  command->add_option("--batch", o->batch, "Images per start (default: the program's limit)")
      ->check(whole_number);
  command->add_option(
      "--trace", o->trace,
      "Simulated card, trace build only: folder for waveforms (FST). They expose every "
      "secret of the chip");
  command->add_option("--ticket", o->ticket,
                      "Ticket of the package's owner. The chip's request goes to FILE.request; the "
                      "run waits until FILE is there (several units: FILE.0, FILE.1, ...)");
  command->add_option("--ticket-wait", o->ticket_wait, "Seconds to wait for the ticket (300)")
      ->check(whole_number);
  command->add_flag("--unlocked", o->unlocked,
                    "Run a program in clear on the unlocked build, to measure the lock's price");
  command->add_flag("--skip-host-checks", o->skip_host_checks,
                    "Hand the package to the chip even if the host finds fault with it: the chip "
                    "refuses by itself");
  command->callback([o] {
    if (o->images.empty() && o->raw.empty())
      throw error(errc::usage, "no images: give --images (IDX) or --raw (float32)");
    run(*o);
  });
}

}  // namespace latchkey::cli
