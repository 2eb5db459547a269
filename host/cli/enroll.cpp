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
  std::uint32_t slot = 0, slots = 1, unit = 0;
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

/// One record per slot: FILE for one, FILE with -slotN before its extension for several.
std::vector<std::string> record_names(const options& o) {
  if (o.slots == 1) return {o.record};
  const std::filesystem::path file(o.record);
  std::vector<std::string> names;
  for (std::uint32_t s = o.slot; s < o.slot + o.slots; ++s) {
    std::filesystem::path name = file;
    name.replace_filename(
        fmt::format("{}-slot{}{}", file.stem().string(), s, file.extension().string()));
    names.push_back(name.string());
  }
  return names;
}

void enroll(const options& o) {
  if (o.slot + o.slots > spec::owner_slots)  // before anybody types a passphrase
    throw error(errc::usage,
                fmt::format("owner slots {} to {}: a chip has {}, 0 to {}", o.slot,
                            o.slot + o.slots - 1, spec::owner_slots, spec::owner_slots - 1));
  const std::vector<std::string> names = record_names(o);
  for (const std::string& name : names) check_writable(name);
  if (!o.public_record.empty()) check_writable(o.public_record);
  const lock::secret_buffer passphrase =
      o.passphrase.read("Passphrase for the device record", true);
  Device device(o.device);
  check_interrupt();
  Enrolment made = device.enroll(o.slot, o.slots, o.unit);

  lock::device_record record;
  record.pub.helper = made.helper;
  record.pub.name = o.name;
  std::copy_n(made.helper.begin() + 8, record.pub.id.size(), record.pub.id.begin());
  // All records before anything is said: the export works once.
  for (std::size_t i = 0; i < names.size(); ++i) {
    record.keys.clear();
    lock::owner_key& owner = record.keys.emplace_back();
    owner.slot = made.owners[i].slot;
    std::copy(made.owners[i].root.begin(), made.owners[i].root.end(),
              owner.root.writable().begin());
    lock::write_record(names[i], record, text(passphrase));
  }
  if (!o.public_record.empty()) lock::write_public_record(o.public_record, record.pub);

  const std::string id = io::to_hex(record.pub.id);
  say(fmt::format("enrolled {} unit {}: device id {}", o.device, o.unit, id));
  say(fmt::format("  {} of 6,144 PUF responses kept, margin {}{}", grouped(2040), made.margin,
                  device.simulated() ? " (silicon is modelled)" : ""));
  nlohmann::json slots = nlohmann::json::array();
  for (std::size_t i = 0; i < names.size(); ++i) {
    say(fmt::format("  {}: device record, owner key of slot {} under the passphrase", names[i],
                    o.slot + i));
    slots.push_back({{"slot", o.slot + i}, {"record", names[i]}});
  }
  say("  this chip cannot be enrolled again: keep the record safe");
  result({{"device", o.device},
          {"unit", o.unit},
          {"device_id", id},
          {"record", names.front()},
          {"slot", o.slot},
          {"slots", slots},
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
  command->add_option("--slot", o->slot, "First owner slot whose key is exported")
      ->check(owner_slot);
  command
      ->add_option("--slots", o->slots,
                   "Owner slots, one record each: FILE-slotN for several tenants of one card. "
                   "There is no later export")
      ->check(CLI::Range(1, static_cast<int>(spec::owner_slots)));
  o->passphrase.add_options(*command);
  command->callback([o] { enroll(*o); });
}

}  // namespace latchkey::cli
