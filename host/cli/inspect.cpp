#include <fmt/format.h>

#include "commands.hpp"
#include "compiler/file_io.hpp"
#include "compiler/program.hpp"
#include "console.hpp"
#include "report.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"
#include "latchkey/error.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string file, record;
  passphrase_source passphrase;
};

void say_program(const compiler::program& p) {
  say(fmt::format("  model {}: {} MACs per image, up to {} images a start", p.name,
                  grouped(p.macs()), p.max_batch));
  say(fmt::format("  for the {}x{} array with {} scratchpad words (configuration {:08x})",
                  p.target.array_n, p.target.array_n, grouped(p.target.spad_words),
                  p.target.config_id()));
  if (p.spill_pages != 0) {
    say(fmt::format("  spills up to {} pages ({}) to card memory, sealed", grouped(p.spill_pages),
                    bytes_text(std::uint64_t{p.spill_pages} * spec::page_bytes)));
  }
  const auto say_io = [](const char* which, const compiler::io_tensor& t) {
    say(fmt::format("  {} {}: {} (C, H, W {}, {}, {}), scale {:.6g}, zero point {}", which, t.name,
                    fmt::join(t.shape, " x "), t.layout.c, t.layout.h, t.layout.w, t.scale,
                    t.zero_point));
  };
  say_io("input ", p.input);
  say_io("output", p.output);
  for (const auto& layer : p.layers)
    say(fmt::format("    {:<20} {:<9} {:>14} MACs, {} pages", layer.name, layer.op,
                    grouped(layer.macs), layer.pages));
  say_host(p);
}

void inspect(const options& o) {
  const io::bytes file = io::read_file(o.file);
  const std::string magic(file.begin(),
                          file.begin() + static_cast<long>(std::min<std::size_t>(4, file.size())));
  if (magic == "LKMP") {
    const compiler::program p = compiler::parse_program(file, o.file);
    say(fmt::format("{}: compiled program, intact; holds plaintext weights", o.file));
    say_program(p);
    nlohmann::json json = compiler::to_json(p);
    add_host(json, p);
    json["kind"] = "program";
    result(json);
  } else if (magic == "LKXP") {
    const lock::package p = lock::parse_package(file, o.file);
    say(fmt::format("{}: sealed package for device {}", o.file, io::to_hex(p.device())));
    say(fmt::format("  version {}, {} pages ({}) and {} of tags; locks: AES-128-GCM per page",
                    p.manifest.version, grouped(p.num_pages()), bytes_text(p.pages.size()),
                    bytes_text(p.tags.size())));
    say_program(p.info);
    nlohmann::json json = compiler::to_json(p.info);
    add_host(json, p.info);
    json["kind"] = "package";
    json["device_id"] = io::to_hex(p.device());
    json["version"] = p.manifest.version;
    json["slot"] = p.manifest.slot;
    json["epoch"] = p.manifest.epoch;
    json["needs_ticket"] = p.needs_ticket();
    say(fmt::format("  owner slot {}, epoch {}{}", p.manifest.slot, p.manifest.epoch,
                    p.needs_ticket() ? "; runs only under a ticket" : ""));
    if (!o.record.empty()) {
      const lock::device_record record = open_record(o.record, o.passphrase);
      const lock::owner_key* owner = record.find(p.manifest.slot);
      if (!owner) {
        throw error(errc::refused,
                    fmt::format("{}: holds no owner key of slot {}", o.record, p.manifest.slot));
      }
      lock::verify(p, owner->kek(p.manifest.epoch), o.file);
      say("  verified with the owner key: wrapped key, manifest and every page are intact");
      json["verified"] = true;
    } else {
      say("  the wrapped key and the pages are checked by the chip, or here with --record");
    }
    result(json);
  } else {
    if (file.empty() || file[0] != '{') {
      throw error(errc::bad_file,
                  fmt::format("{}: neither a program (.lkm) nor a package (.lkx) nor a "
                              "device record (.lkd)",
                              o.file));
    }
    const lock::public_record r = lock::parse_public_record(file, o.file);
    say(fmt::format("{}: device record, device id {}{}", o.file, io::to_hex(r.id),
                    r.name.empty() ? "" : ", name " + r.name));
    result({{"kind", "device record"}, {"device_id", io::to_hex(r.id)}, {"name", r.name}});
  }
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command =
      app.add_subcommand("inspect", "Show what a program, package or device record holds");
  command->add_option("file", o->file, "A .lkm, .lkx or .lkd file")->required();
  command->add_option("--record", o->record,
                      "Device record with the owner key: also verify every page of a package");
  o->passphrase.add_options(*command);
  command->callback([o] { inspect(*o); });
}

}  // namespace latchkey::cli
