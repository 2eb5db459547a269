#include <fmt/format.h>

#include "commands.hpp"
#include "console.hpp"
#include "latchkey/error.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string record;
  std::optional<std::uint32_t> slot, epoch;
  passphrase_source passphrase;
};

void rotate(const options& o) {
  const lock::secret_buffer passphrase =
      o.passphrase.read(fmt::format("Passphrase of {}", o.record), false);
  lock::device_record record = lock::read_record(o.record, text(passphrase));
  const lock::owner_key& found = record.at(o.slot, o.record);
  lock::owner_key& owner = record.keys[static_cast<std::size_t>(&found - record.keys.data())];
  const std::uint32_t before = owner.epoch;
  if (!o.epoch && before == ~std::uint32_t{0})
    throw error(errc::usage, fmt::format("{}: the last epoch is reached", o.record));
  const std::uint32_t after = o.epoch.value_or(before + 1);
  if (after <= before) {
    throw error(errc::usage, fmt::format("{}: slot {} is at epoch {} already, and epochs only rise",
                                         o.record, owner.slot, before));
  }
  owner.epoch = after;
  check_interrupt();
  lock::write_record(o.record, record, text(passphrase));

  say(fmt::format("{}: slot {} goes from epoch {} to epoch {}", o.record, owner.slot, before,
                  after));
  say("  the chip's helper data stays; keys of earlier epochs still follow from the record");
  say("  next: `latchkey rewrap` for every package, then tickets with --min-epoch to end the old "
      "epoch on the chips");
  result({{"record", o.record}, {"slot", owner.slot}, {"epoch_before", before}, {"epoch", after}});
}

}  // namespace

void add_rotate(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "rotate", "Begin a new epoch of an owner slot in its device record; needs no card");
  command->add_option("--record", o->record, "Device record with the owner key (.lkd); is replaced")
      ->required();
  command->add_option("--slot", o->slot, "Owner slot (default: the record's first)")
      ->check(owner_slot);
  command->add_option("--epoch", o->epoch, "The new epoch (default: the present one plus 1)")
      ->check(whole_number);
  o->passphrase.add_options(*command);
  command->callback([o] { rotate(*o); });
}

}  // namespace latchkey::cli
