#include "unit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lock/package.hpp"
#include "lock/record.hpp"

namespace latchkey {
namespace {

/// Fills result buffers before a start, so that bytes released by a failed one can be counted.
constexpr std::uint8_t kUntouched = 0x5A;

std::uint32_t words_of(std::size_t bytes) {
  return static_cast<std::uint32_t>((bytes + spec::beat_bytes - 1) / spec::beat_bytes);
}

std::uint32_t bits(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}

/// A buffer of at least `bytes`; the old one when it is large enough.
void grow(xrt::bo& bo, std::size_t& have, std::size_t bytes, const xrt::device& device,
          const xrt::kernel& kernel) {
  if (have >= bytes) return;
  have = 0;
  bo = xrt::bo(device, bytes, kernel.group_id(0));
  have = bytes;
}

}  // namespace

Unit::Unit(Device& device, std::uint32_t index) : card_(device.impl()), index_(index) {
  if (!card_.sessions.insert(index).second) {
    throw error(errc::device_busy, fmt::format("device {}: another session of this program has the "
                                               "card; end it first",
                                               label()));
  }
}

Unit::~Unit() {
  // A card that is gone or locked has wiped itself.
  try {
    if (loaded_) command(spec::cmd::zeroise);
  } catch (const std::exception&) {
  }
  card_.sessions.erase(index_);
}

error Unit::refuse(const std::string& what, spec::key_err why) const {
  std::string advice;
  errc code = errc::refused;
  switch (why) {
    case spec::key_err::key_failure:
      advice =
          "check that the device record belongs to this very card, and that record, package and "
          "ticket are unchanged";
      break;
    case spec::key_err::life_cycle:
      code = errc::not_enrolled;
      advice = "this chip is not enrolled; run `latchkey enroll`";
      break;
    case spec::key_err::config_mismatch:
      code = errc::mismatch;
      advice = "compile and lock the model for this card's build";
      break;
    case spec::key_err::epoch_too_old:
      advice =
          "the package was wrapped for an epoch that its owner has ended; ask them for a "
          "rewrapped one";
      break;
    case spec::key_err::ticket_required:
      advice = "get a ticket from the package's owner: `latchkey run --ticket`";
      break;
    case spec::key_err::ticket_stale:
      advice =
          "a ticket serves once, for the nonce of this very start; ask the owner for a new one";
      break;
    case spec::key_err::ticket_expired:
      advice = "ask the package's owner for a new ticket";
      break;
    case spec::key_err::locked_out:
    case spec::key_err::page_tampered:
      advice = "reset the card and start again with intact files";
      break;
    default:
      advice = "docs/programmers_guide.md lists what each reason asks for";
      break;
  }
  return error(
      code, fmt::format("device {}: the chip refused {}, reason {}: {}. Remedy: {}", label(), what,
                        static_cast<unsigned>(why), spec::describe(why), advice));
}

void Unit::write_window(std::uint32_t reg, std::span<const std::uint8_t> data) {
  for (std::size_t i = 0; i + 4 <= data.size(); i += 4) {
    std::uint32_t word;
    std::memcpy(&word, data.data() + i, 4);
    write(reg, word);
  }
}

void Unit::read_words(std::uint32_t reg, std::span<std::uint8_t> data) const {
  for (std::uint32_t i = 0; i + 4 <= data.size(); i += 4) {
    const std::uint32_t word = read(reg + i);
    std::memcpy(data.data() + i, &word, 4);
  }
}

void Unit::load_memory(std::span<const std::uint8_t> page_bytes,
                       std::span<const std::uint8_t> tag_bytes, std::uint32_t spill_pages) {
  // Tags are fetched in lines of 16.
  const std::size_t line = 16 * spec::tag_bytes;
  const std::size_t tag_size = std::max((tag_bytes.size() + line - 1) / line * line, line);
  pages_ = xrt::bo(card_.device, page_bytes.size(), kernels().core.group_id(0));
  tags_ = xrt::bo(card_.device, tag_size, kernels().core.group_id(1));
  pages_.write(page_bytes.data(), page_bytes.size(), 0);
  pages_.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  if (!tag_bytes.empty()) tags_.write(tag_bytes.data(), tag_bytes.size(), 0);
  tags_.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  // What lies there before a run does not matter: the chip loads only what the run has spilled.
  if (spill_pages != 0) {
    spill_ = xrt::bo(card_.device, std::size_t{spill_pages} * spec::page_bytes,
                     kernels().core.group_id(3));
  }
}

void Unit::start_key(const PublicRecord& record) {
  // A key that an earlier session left would make START illegal. A locked chip refuses this too,
  // and START then says why.
  if (static_cast<spec::key_state>(read(spec::reg::key_state)) != spec::key_state::idle)
    command(spec::cmd::zeroise);
  write(spec::reg::fill_clear, 1);
  write_window(spec::reg::helper_in, record.get().helper);
  if (const auto why = command(spec::cmd::start); why != spec::key_err::none)
    throw refuse("to start its key from the device record", why);
}

lock::attestation Unit::attest(const PublicRecord& record, const lock::challenge& challenge,
                               std::uint32_t slot) {
  start_key(record);
  loaded_ = true;  // the destructor wipes
  write_window(spec::reg::msg_in, challenge);
  write(spec::reg::msg_in, slot);
  if (const auto why = command(spec::cmd::attest); why != spec::key_err::none)
    throw refuse("to attest itself", why);
  lock::attestation a;
  a.asked = challenge;
  a.slot = slot;
  a.device = record.get().id;
  a.build_version = read(spec::reg::build_version);
  a.build_hash = read(spec::reg::build_hash);
  a.build_flags = read(spec::reg::build_flags);
  a.config_id = read(spec::reg::config_id);
  a.life_cycle = read(spec::reg::lc_state);
  a.min_version = read(spec::reg::min_version);
  a.version_floor = read(spec::reg::floor_version);
  a.epoch_floor = read(spec::reg::floor_epoch);
  read_words(spec::reg::attest_out, a.proof);
  return a;
}

void Unit::load_locked(const Package& package, const PublicRecord& record,
                       const SessionOptions& options) {
  const lock::package& p = package.get();
  input_ = p.info.input;
  output_ = p.info.output;
  start_key(record);
  loaded_ = true;  // whatever comes, the destructor wipes
  setup_.start_cycles = read(spec::reg::start_cycles);
  setup_.unstable_votes = read(spec::reg::unstable);

  if (options.ticket) {
    if (const auto why = command(spec::cmd::nonce); why != spec::key_err::none)
      throw refuse("to draw a nonce for a ticket", why);
    TicketRequest request{record.device_id(), p.manifest.slot, {}};
    read_words(spec::reg::nonce_out, request.nonce);
    write_window(spec::reg::msg_in, options.ticket(request));
    if (const auto why = command(spec::cmd::ticket); why != spec::key_err::none)
      throw refuse("the ticket", why);
  }
  const lock::manifest_bytes manifest = lock::to_bytes(p.manifest);
  write_window(spec::reg::manifest_in, manifest);
  write_window(spec::reg::blob_in, p.key);
  if (const auto why = command(spec::cmd::unwrap); why != spec::key_err::none)
    throw refuse("the package", why);
  setup_.cycles = read(spec::reg::setup_cycles);
  num_descs_ = p.manifest.num_descs;
  load_memory(p.pages, p.tags, p.manifest.spill_pages);
}

void Unit::load_open(const compiler::program& p) {
  input_ = p.input;
  output_ = p.output;
  spec::manifest m{};
  m.magic = lock::manifest_magic;
  m.format = spec::format_version;
  m.config_id = p.target.config_id();
  m.num_pages = p.num_pages();
  m.num_descs = static_cast<std::uint32_t>(p.descriptors.size());
  m.desc_pages = p.regions.at(0).count;
  m.max_batch = p.max_batch;
  m.input_words = p.input.layout.words;
  m.output_words = p.output.layout.words;
  m.spill_pages = p.spill_pages;
  num_descs_ = m.num_descs;
  write(spec::reg::fill_clear, 1);
  write_window(spec::reg::manifest_in, lock::to_bytes(m));
  if (const auto why = command(spec::cmd::unwrap); why != spec::key_err::none)
    throw refuse("the program", why);
  load_memory(p.pages, {}, p.spill_pages);
  loaded_ = true;
}

Counters Unit::read_counters() const {
  std::array<std::uint64_t, spec::num_counters> c{};
  for (std::uint32_t i = 0; i < spec::num_counters; ++i) {
    c[i] = read(spec::reg::counters + 8 * i) | std::uint64_t{read(spec::reg::counters + 8 * i + 4)}
                                                   << 32;
  }
  const auto at = [&](spec::counter which) { return c[static_cast<std::size_t>(which)]; };
  Counters r;
  r.cycles = at(spec::counter::cycles);
  r.array_busy = at(spec::counter::array_busy);
  r.wait_memory = at(spec::counter::wait_memory);
  r.wait_decrypt = at(spec::counter::wait_decrypt);
  r.wait_load = at(spec::counter::wait_load);
  r.wait_activations = at(spec::counter::wait_activations);
  r.wait_post = at(spec::counter::wait_post);
  r.vector = at(spec::counter::vector);
  r.input = at(spec::counter::input);
  r.output = at(spec::counter::output);
  r.control = at(spec::counter::control);
  r.macs = at(spec::counter::macs);
  r.pages = at(spec::counter::pages);
  r.beats = at(spec::counter::beats);
  r.starts = 1;
  return r;
}

void Unit::prepare(unsigned slot, const Job& job, Range range) {
  Slot& s = slots_.at(slot);
  const std::uint32_t image_words = words_of(job.image_bytes);
  const std::uint32_t record_words = words_of(job.record_bytes);
  const std::size_t image_room = std::size_t{image_words} * spec::beat_bytes;
  s.job = &job;
  s.range = range;
  s.record_words = record_words;
  s.used = range.count * std::size_t{record_words} * spec::beat_bytes;
  grow(s.in, s.in_bytes, range.count * image_room, card_.device, kernels().input);
  grow(s.out, s.out_bytes, s.used, card_.device, kernels().output);

  auto* in = s.in.map<std::uint8_t*>();
  for (std::uint32_t i = 0; i < range.count; ++i)
    std::memcpy(in + i * image_room, job.images.data() + (range.first + i) * job.image_bytes,
                job.image_bytes);
  s.in.sync(XCL_BO_SYNC_BO_TO_DEVICE, range.count * image_room, 0);
  std::memset(s.out.map<std::uint8_t*>(), kUntouched, s.used);
  s.out.sync(XCL_BO_SYNC_BO_TO_DEVICE, s.used, 0);

  if (!s.core) {
    s.input.emplace(kernels().input);
    s.core.emplace(kernels().core);
    s.output.emplace(kernels().output);
  }
  std::int32_t arg = 0;
  s.input->set_arg(0, s.in);
  for (std::uint32_t v :
       {range.count, input_.layout.c, input_.layout.h, input_.layout.w,
        static_cast<std::uint32_t>(job.format.type), static_cast<std::uint32_t>(job.format.order),
        input_.layout.cp_log2, input_.layout.words, image_words, bits(input_.scale),
        std::uint32_t{input_.zero_point}, bits(job.format.mul), bits(job.format.add)})
    s.input->set_arg(++arg, v);
  s.output->set_arg(0, s.out);
  arg = 0;
  for (std::uint32_t v :
       {range.count, output_.layout.c, output_.layout.h * output_.layout.w, output_.layout.cp_log2,
        output_.layout.words, record_words, static_cast<std::uint32_t>(job.mode), job.k,
        bits(output_.scale), std::uint32_t{output_.zero_point}})
    s.output->set_arg(++arg, v);
  s.core->set_arg(0, pages_);
  s.core->set_arg(1, tags_);
  s.core->set_arg(2, range.count);
  if (spill_) s.core->set_arg(3, spill_);
}

void Unit::start(unsigned slot) {
  // The ends first, so that the core never waits for a start.
  slots_.at(slot).output->start();
  slots_.at(slot).input->start();
  slots_.at(slot).core->start();
}

/// Bytes of the start's result buffer that are no longer the pattern.
std::size_t Unit::written(Slot& s) {
  s.out.sync(XCL_BO_SYNC_BO_FROM_DEVICE, s.used, 0);
  const auto* out = s.out.map<const std::uint8_t*>();
  return s.used - static_cast<std::size_t>(std::count(out, out + s.used, kUntouched));
}

bool Unit::drain(unsigned slot) noexcept {
  Slot& s = slots_.at(slot);
  bool done = true;
  for (auto* run : {&s.core, &s.input, &s.output}) {
    try {
      done = (*run)->wait() == ERT_CMD_STATE_COMPLETED && done;
    } catch (const std::exception&) {
      done = false;
    }
  }
  return done;
}

Counters Unit::finish(unsigned slot) {
  Slot& s = slots_.at(slot);
  const bool done = drain(slot);
  const auto status = static_cast<spec::run_status>(read(spec::reg::run_status));
  if (done && status == spec::run_status::ok) {
    const std::uint32_t taken = kernels().output.read_register(spec::output_arg::status);
    if (taken != 0) {
      released = written(s);
      throw error(
          errc::run_failed,
          fmt::format("device {}: the output adapter ended with status {}", label(), taken));
    }
    return read_counters();
  }
  released = written(s);
  if (static_cast<spec::key_err>(read(spec::reg::key_err)) == spec::key_err::ticket_expired)
    throw refuse("to go on", spec::key_err::ticket_expired);
  switch (status) {
    case spec::run_status::page_tampered:
      throw error(
          errc::refused,
          fmt::format("device {}: page {} failed authentication; keys were wiped, the session "
                      "is locked and no output was released. The package in memory is not what "
                      "its owner sealed: load an intact copy",
                      label(), read(spec::reg::fail_page)));
    case spec::run_status::spill_tampered:
      throw error(
          errc::refused,
          fmt::format(
              "device {}: page {} of the spill area failed authentication; keys were wiped, "
              "the session is locked and no output was released. Something changed card "
              "memory during the run: keep other programs off the card and run again; if "
              "it comes back, suspect the memory or its host",
              label(), read(spec::reg::fail_page)));
    case spec::run_status::no_key:
      throw error(errc::refused,
                  fmt::format("device {}: no model key is loaded; the chip was wiped or "
                              "locked. Open a new session",
                              label()));
    case spec::run_status::ok:
      throw error(
          errc::run_failed,
          fmt::format("device {}: the run did not finish (a memory access outside any buffer, or "
                      "a time-out); see the driver's message",
                      label()));
    default:
      throw error(errc::run_failed,
                  fmt::format("device {}: the run failed: {} (status {})", label(),
                              spec::describe(status), static_cast<unsigned>(status)));
  }
}

void Unit::collect(unsigned slot) {
  Slot& s = slots_.at(slot);
  s.out.sync(XCL_BO_SYNC_BO_FROM_DEVICE, s.used, 0);
  const auto* out = s.out.map<const std::uint8_t*>();
  for (std::uint32_t i = 0; i < s.range.count; ++i)
    std::memcpy(s.job->results + (s.range.first + i) * s.job->record_bytes,
                out + i * s.record_words * spec::beat_bytes, s.job->record_bytes);
}

LayerCycles Unit::layer_cycles() const {
  LayerCycles r;
  std::uint32_t before = read(spec::reg::layer_cycles);
  r.boot = before;
  for (std::uint32_t i = 1; i < num_descs_; ++i) {
    const std::uint32_t now = read(spec::reg::layer_cycles + 4 * i);
    r.cycles.push_back(now - before);  // modulo 2^32, as the register counts
    before = now;
  }
  return r;
}

}  // namespace latchkey
