#include <fmt/format.h>

#include "commands.hpp"
#include "console.hpp"
#include "latchkey/error.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string package, record, output;
  std::optional<std::uint32_t> epoch;
  bool needs_ticket = false, no_ticket = false;
  passphrase_source passphrase;
};

void rewrap(const options& o) {
  lock::package p = lock::read_package(o.package);
  const std::string to = o.output.empty() ? o.package : o.output;
  check_folder(to);
  const lock::device_record record = open_record(o.record, o.passphrase);
  lock::rewrap_options how;
  how.epoch = o.epoch;
  if (o.needs_ticket || o.no_ticket) how.needs_ticket = o.needs_ticket;
  const std::uint32_t before = p.manifest.epoch;
  const bool changed = lock::rewrap(p, record, how, o.package);
  check_interrupt();
  if (changed || to != o.package) lock::write_package(to, p);

  const bool ticket = p.needs_ticket();
  say(fmt::format("{}: {}", to,
                  changed ? fmt::format("rewrapped, epoch {} to {}", before, p.manifest.epoch)
                          : fmt::format("is wrapped for epoch {} already", before)));
  say(fmt::format("  184 bytes {}; {} pages and their tags are as they were{}",
                  changed ? "changed" : "kept", grouped(p.num_pages()),
                  ticket ? "; runs only under a ticket" : ""));
  result({{"package", to},
          {"slot", p.manifest.slot},
          {"epoch_before", before},
          {"epoch", p.manifest.epoch},
          {"needs_ticket", ticket},
          {"changed", changed},
          {"pages", p.num_pages()}});
}

}  // namespace

void add_rewrap(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "rewrap", "Wrap a package's model key for another epoch; the weights stay as they are");
  command->add_option("package", o->package, "Package (.lkx)")->required();
  command->add_option("--record", o->record, "Device record with the owner key (.lkd)")->required();
  command->add_option("-o,--output", o->output,
                      "Package to write (default: the package itself, replaced in one step)");
  command->add_option("--epoch", o->epoch, "Epoch to wrap for (default: the record's present one)")
      ->check(whole_number);
  auto* needs = command->add_flag("--needs-ticket", o->needs_ticket,
                                  "From now on the chip loads it under a ticket only");
  command->add_flag("--no-ticket", o->no_ticket, "From now on without a ticket")->excludes(needs);
  o->passphrase.add_options(*command);
  command->callback([o] { rewrap(*o); });
}

}  // namespace latchkey::cli
