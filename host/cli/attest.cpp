#include <fmt/format.h>

#include "commands.hpp"
#include "compiler/file_io.hpp"
#include "console.hpp"
#include "latchkey/device.hpp"
#include "latchkey/package.hpp"
#include "lock/owner.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string device, record, challenge, output, answer, build;
  std::optional<std::uint32_t> slot;
  std::uint32_t array_n = 16, unit = 0;
  passphrase_source passphrase;
};

lock::challenge challenge_of(const options& o) {
  lock::challenge c{};
  const io::bytes data = io::from_hex(o.challenge, "--challenge");
  if (data.size() != c.size()) {
    throw error(errc::usage, "--challenge: 32 bytes are needed, as 64 hexadecimal digits");
  }
  std::copy(data.begin(), data.end(), c.begin());
  return c;
}

nlohmann::json report(const lock::attestation& a, bool verified) {
  return {{"device_id", io::to_hex(a.device)},
          {"challenge", io::to_hex(a.asked)},
          {"slot", a.slot},
          {"build_version", version_text(a.build_version)},
          {"build_hash", fmt::format("{:08x}", a.build_hash)},
          {"build_flags", a.build_flags},
          {"config_id", fmt::format("{:08x}", a.config_id)},
          {"life_cycle", fmt::format("{:04x}", a.life_cycle)},
          {"min_version", a.min_version},
          {"version_floor", a.version_floor},
          {"epoch_floor", a.epoch_floor},
          {"proof", io::to_hex(a.proof)},
          {"verified", verified}};
}

void judge(const options& o, const lock::attestation& a, const lock::challenge& asked,
           const lock::device_record& record, const std::string& what) {
  lock::verify(a, asked, record, what);
  if (!o.build.empty() && fmt::format("{:08x}", a.build_hash) != o.build) {
    throw error(errc::mismatch,
                fmt::format("{}: the chip runs build {:08x}, not {}; load the build that you "
                            "trust, or name this one",
                            what, a.build_hash, o.build));
  }
  say(fmt::format("{}: proven by the chip of device {}", what, io::to_hex(a.device)));
  say(fmt::format("  build {:08x}, version {}, configuration {:08x}, life cycle enrolled",
                  a.build_hash, version_text(a.build_version), a.config_id));
  say(fmt::format("  slot {}: packages from version {} and epoch {} on", a.slot,
                  std::max(a.min_version, a.version_floor), a.epoch_floor));
  if (a.build_flags & 8)
    say("note: this simulated chip was built with waveforms; its secrets are exposed");
  if (a.build_hash == 0 && o.build.empty())
    say("note: the build names no commit, so it can be any; builds of a clean checkout name "
        "theirs");
}

void attest(const options& o) {
  if (o.device.empty() == o.answer.empty())
    throw error(errc::usage, "give --device to ask a chip, or --verify to judge its answer");
  if (!o.answer.empty()) {
    if (o.challenge.empty())
      throw error(errc::usage, "--verify needs the --challenge that was asked");
    const lock::challenge asked = challenge_of(o);
    const lock::attestation a =
        lock::parse_attestation(io::read_file(o.answer, 1u << 16), o.answer);
    judge(o, a, asked, open_record(o.record, o.passphrase), o.answer);
    return result(report(a, true));
  }
  // Asked for somebody else: the secret part stays closed, and the answer is theirs to judge.
  const bool remote = !o.challenge.empty();
  if (remote && o.output.empty())
    throw error(errc::usage, "--challenge on a card needs --output for the answer");
  if (!o.output.empty()) check_folder(o.output);
  const lock::challenge asked = remote ? challenge_of(o) : lock::random_challenge();
  std::optional<lock::device_record> record;
  std::uint32_t slot = o.slot.value_or(0);
  if (!remote) {
    record = open_record(o.record, o.passphrase);
    slot = record->at(o.slot, o.record).slot;
  }
  Device card(o.device);
  const lock::attestation a =
      card.attest(PublicRecord::read(o.record), asked, slot, o.array_n, o.unit);
  if (record) judge(o, a, asked, *record, o.device);
  if (!o.output.empty()) {
    const std::string words = lock::to_text(a);
    io::write_file(o.output, {io::as_bytes(words)});
    say(fmt::format("{}: the chip's answer", o.output));
  }
  result(report(a, record.has_value()));
}

}  // namespace

void add_attest(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "attest", "Let a chip prove which one it is and what it runs: challenge, answer, judgement");
  command->add_option("--device", o->device, "Card: an index, a PCIe address, or sim:SEED");
  command
      ->add_option("--record", o->record,
                   "Device record of the chip (.lkd); with --challenge on a card its public part "
                   "is enough")
      ->required();
  command->add_option("--challenge", o->challenge,
                      "Somebody's challenge, 64 hexadecimal digits: the answer is for them "
                      "(default: a fresh one, and the answer is judged here)");
  command->add_option("-o,--output", o->output, "File for the answer (JSON)");
  command->add_option("--verify", o->answer, "Judge this answer instead of asking a card");
  command->add_option("--build", o->build,
                      "Build that the chip must run: its commit's first 8 hexadecimal digits");
  command->add_option("--slot", o->slot, "Owner slot (default: the record's first; 0)")
      ->check(owner_slot);
  command->add_option("--array", o->array_n, "Array of the operate build: 16, 32 or 64")
      ->check(CLI::IsMember({16, 32, 64}));
  command->add_option("--unit", o->unit, "Compute unit of the card")->check(CLI::Range(0, 98));
  o->passphrase.add_options(*command);
  command->callback([o] { attest(*o); });
}

}  // namespace latchkey::cli
