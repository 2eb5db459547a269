#include "latchkey/package.hpp"

#include <fmt/format.h>

#include "commands.hpp"
#include "console.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string program, record, output;
  std::uint32_t version = 1;
  std::optional<std::uint32_t> slot, epoch;
  bool hide_layers = false, needs_ticket = false;
  passphrase_source passphrase;
};

void run(const options& o) {
  const Program program = Program::read(o.program);
  const lock::device_record record = open_record(o.record, o.passphrase);
  lock::seal_options options;
  options.version = o.version;
  options.slot = o.slot;
  options.epoch = o.epoch;
  options.publish_layers = !o.hide_layers;
  options.needs_ticket = o.needs_ticket;
  const Package package(lock::seal(program.get(), record, options));
  package.write(o.output);

  const lock::package& p = package.get();
  say(fmt::format("sealed {} for device {}", program.name(), package.device_id()));
  say(
      fmt::format("  {}: {} pages, each AES-128-GCM under a fresh model key, one tag a page ({} of "
                  "tags)",
                  o.output, grouped(p.num_pages()), bytes_text(p.tags.size())));
  say(fmt::format("  version {}, owner slot {}, epoch {}{}", o.version, p.manifest.slot,
                  p.manifest.epoch, o.needs_ticket ? "; runs only under a ticket" : ""));
  result({{"package", o.output},
          {"device_id", package.device_id()},
          {"version", o.version},
          {"slot", p.manifest.slot},
          {"epoch", p.manifest.epoch},
          {"needs_ticket", o.needs_ticket},
          {"pages", p.num_pages()},
          {"page_bytes", p.pages.size()},
          {"tag_bytes", p.tags.size()}});
}

}  // namespace

void add_lock(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand("lock", "Seal a compiled program for one enrolled device");
  command->add_option("program", o->program, "Compiled program (.lkm)")->required();
  command->add_option("--record", o->record, "Device record with the owner key (.lkd)")->required();
  command->add_option("-o,--output", o->output, "Package to write (.lkx)")->required();
  command
      ->add_option("--model-version", o->version,
                   "Version of the model; a chip refuses versions below its minimum")
      ->check(CLI::Range(std::uint32_t{1}, ~std::uint32_t{0}));
  command->add_option("--slot", o->slot, "Owner slot to wrap for (default: the record's first)")
      ->check(owner_slot);
  command->add_option("--epoch", o->epoch, "Epoch to wrap for (default: the record's present one)")
      ->check(whole_number);
  command->add_flag("--needs-ticket", o->needs_ticket,
                    "The chip loads the package only under a fresh ticket (`latchkey ticket`)");
  command->add_flag("--hide-layers", o->hide_layers,
                    "Leave the table of layers out of the public header");
  o->passphrase.add_options(*command);
  command->callback([o] { run(*o); });
}

}  // namespace latchkey::cli
