#include <fmt/format.h>

#include "commands.hpp"
#include "compiler/file_io.hpp"
#include "console.hpp"
#include "latchkey/error.hpp"
#include "lock/owner.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string request, record, output;
  std::optional<std::uint32_t> min_epoch, runs, time;
  std::uint32_t min_version = 0;
  passphrase_source passphrase;
};

void make(const options& o) {
  const lock::ticket_request request =
      lock::parse_ticket_request(io::read_file(o.request, 1u << 16), o.request);
  check_folder(o.output);
  const lock::device_record record = open_record(o.record, o.passphrase);
  if (request.device != record.pub.id) {
    throw error(errc::mismatch,
                fmt::format("{}: asked by device {}, the record is of {}", o.request,
                            io::to_hex(request.device), io::to_hex(record.pub.id)));
  }
  const lock::owner_key& owner = record.at(request.slot, o.record);
  lock::ticket t;
  t.slot = owner.slot;
  t.min_version = o.min_version;
  t.min_epoch = o.min_epoch.value_or(owner.epoch);
  t.runs = o.runs.value_or(lock::no_limit);
  t.time = o.time.value_or(lock::no_limit);
  const std::string words = lock::to_text(lock::sign(t, request.nonce, owner.root));
  io::write_file(o.output, {io::as_bytes(words)});

  const auto limit = [](std::uint32_t n) {
    return n == lock::no_limit ? std::string("without limit") : grouped(n);
  };
  say(fmt::format("{}: ticket for device {}, slot {}", o.output, io::to_hex(request.device),
                  t.slot));
  say(fmt::format("  starts: {}; time: {} (units of 2^20 cycles)", limit(t.runs), limit(t.time)));
  say(fmt::format("  the chip will refuse packages of this slot below version {} or epoch {}",
                  t.min_version, t.min_epoch));
  result({{"ticket", o.output},
          {"device_id", io::to_hex(request.device)},
          {"slot", t.slot},
          {"min_version", t.min_version},
          {"min_epoch", t.min_epoch},
          {"runs", t.runs == lock::no_limit ? nlohmann::json() : nlohmann::json(t.runs)},
          {"time", t.time == lock::no_limit ? nlohmann::json() : nlohmann::json(t.time)}});
}

}  // namespace

void add_ticket(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "ticket", "Sign a chip's request at the owner's desk: what it may still load, and how long");
  command->add_option("--request", o->request, "The chip's request, written by `run --ticket`")
      ->required();
  command->add_option("--record", o->record, "Device record with the owner key (.lkd)")->required();
  command->add_option("-o,--output", o->output, "Ticket to write")->required();
  command->add_option("--runs", o->runs, "Starts of the kernel (default: no limit)")
      ->check(whole_number);
  command
      ->add_option("--time", o->time,
                   "Time from the ticket's acceptance, in units of 2^20 cycles (default: no limit)")
      ->check(whole_number);
  command
      ->add_option("--min-version", o->min_version,
                   "Lowest model version that the chip may load for this slot from now on")
      ->check(whole_number);
  command
      ->add_option("--min-epoch", o->min_epoch,
                   "Lowest epoch that it may load (default: the record's present one)")
      ->check(whole_number);
  o->passphrase.add_options(*command);
  command->callback([o] { make(*o); });
}

}  // namespace latchkey::cli
