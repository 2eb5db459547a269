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
  std::uint32_t version = 1, slot = 0, epoch = 0;
  bool hide_layers = false;
  passphrase_source passphrase;
};

void run(const options& o) {
  const Program program = Program::read(o.program);
  const lock::secret_buffer passphrase =
      o.passphrase.read(fmt::format("Passphrase of {}", o.record), false);
  const lock::device_record record = lock::read_record(o.record, text(passphrase));
  lock::seal_options options;
  options.version = o.version;
  options.slot = o.slot;
  options.epoch = o.epoch;
  options.publish_layers = !o.hide_layers;
  const Package package(lock::seal(program.get(), record, options));
  package.write(o.output);

  const lock::package& p = package.get();
  say(fmt::format("sealed {} for device {}", program.name(), package.device_id()));
  say(
      fmt::format("  {}: {} pages, each AES-128-GCM under a fresh model key, one tag a page ({} of "
                  "tags)",
                  o.output, grouped(p.num_pages()), bytes_text(p.tags.size())));
  say(fmt::format("  version {}, owner key of slot {} epoch {}", o.version, o.slot, o.epoch));
  result({{"package", o.output},
          {"device_id", package.device_id()},
          {"version", o.version},
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
  command->add_option("--slot", o->slot, "Owner slot of the wrapping key")
      ->check(CLI::Range(0, 255));
  command->add_option("--epoch", o->epoch, "Epoch of the wrapping key")->check(whole_number);
  command->add_flag("--hide-layers", o->hide_layers,
                    "Leave the table of layers out of the public header");
  o->passphrase.add_options(*command);
  command->callback([o] { run(*o); });
}

}  // namespace latchkey::cli
