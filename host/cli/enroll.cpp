#include <fmt/format.h>

#include <filesystem>

#include "commands.hpp"
#include "compiler/file_io.hpp"
#include "console.hpp"
#include "latchkey/device.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string device, record, public_record, name;
  std::uint32_t slot = 0, epoch = 0, unit = 0;
  passphrase_source passphrase;
};

/// The export works once, so everything that can fail is tried before it.
void check_writable(const std::string& path) {
  namespace fs = std::filesystem;
  if (fs::exists(path)) {
    throw error(errc::usage,
                fmt::format("{}: exists already; a device record is never overwritten. "
                            "Choose another name or move it away",
                            path));
  }
  check_folder(path);
  // More than a record takes, written and removed: a full disk shows now.
  io::write_file(path, {io::bytes(8192)}, 0600);
  fs::remove(path);
}

void enroll(const options& o) {
  check_writable(o.record);
  if (!o.public_record.empty()) check_writable(o.public_record);
  const lock::secret_buffer passphrase =
      o.passphrase.read("Passphrase for the device record", true);
  Device device(o.device);
  check_interrupt();
  Enrolment made = device.enroll(o.slot, o.epoch, o.unit);

  lock::device_record record;
  record.pub.helper = made.helper;
  record.pub.name = o.name;
  std::copy_n(made.helper.begin() + 8, record.pub.id.size(), record.pub.id.begin());
  lock::owner_key& key = record.keys.emplace_back();
  key.slot = made.slot;
  key.epoch = made.epoch;
  std::copy(made.key.begin(), made.key.end(), key.key.writable().begin());
  lock::write_record(o.record, record, text(passphrase));
  if (!o.public_record.empty()) lock::write_public_record(o.public_record, record.pub);

  const std::string id = io::to_hex(record.pub.id);
  say(fmt::format("enrolled {} unit {}: device id {}", o.device, o.unit, id));
  say(fmt::format("  {} of 6,144 PUF responses kept, margin {}{}", grouped(2040), made.margin,
                  device.simulated() ? " (silicon is modelled)" : ""));
  say(fmt::format("  {}: device record, owner key of slot {} epoch {} under the passphrase",
                  o.record, o.slot, o.epoch));
  say("  this chip cannot be enrolled again: keep the record safe");
  result({{"device", o.device},
          {"unit", o.unit},
          {"device_id", id},
          {"record", o.record},
          {"slot", o.slot},
          {"epoch", o.epoch},
          {"margin", made.margin},
          {"silicon", device.simulated() ? "modelled" : "real"}});
}

}  // namespace

void add_enroll(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "enroll",
      "Enrol a chip, once: write its device record (public helper data, and the owner key "
      "under a passphrase)");
  command->add_option("--device", o->device, "Card: an index, a PCIe address, or sim:SEED")
      ->required();
  command
      ->add_option("--record", o->record,
                   "Device record to write (.lkd); keep it at the owner's desk")
      ->required();
  command->add_option("--public", o->public_record,
                      "Also write the public part alone, to go with the card");
  command
      ->add_option(
          "--unit", o->unit,
          "Compute unit of the card: each has a PUF of its own and gets a record of its own")
      ->check(CLI::Range(0, 98));
  command->add_option("--name", o->name, "Your name for the card");
  command->add_option("--slot", o->slot, "Owner slot of the exported key")
      ->check(CLI::Range(0, 255));
  command->add_option("--epoch", o->epoch, "Epoch of the exported key")->check(whole_number);
  o->passphrase.add_options(*command);
  command->callback([o] { enroll(*o); });
}

}  // namespace latchkey::cli
