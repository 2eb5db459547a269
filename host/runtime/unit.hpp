// One compute unit of a card with a model in it: key set-up, memory, starts.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "card.hpp"
#include "compiler/program.hpp"
#include "latchkey/session.hpp"
#include "lock/keys.hpp"
#include "lock/owner.hpp"

namespace latchkey {

/// What is the same for every start of a run.
struct Job {
  std::span<const std::uint8_t> images;
  std::size_t count;
  ImageFormat format;
  OutputMode mode;
  std::uint32_t k;
  std::size_t image_bytes, record_bytes;
  std::uint8_t* results;  ///< count * record_bytes
};

/// Images first .. first + count - 1 of a job: one start.
struct Range {
  std::size_t first;
  std::uint32_t count;
};

/// A start goes through prepare, start, finish, collect. Two pairs of buffers stay with the unit,
/// so that one start is prepared or collected while the other runs. One thread at a time.
class Unit {
 public:
  /// Throws device_busy when another session of the process has the unit.
  Unit(Device& device, std::uint32_t index);
  /// Neither key nor weights outlive it.
  ~Unit();
  Unit(const Unit&) = delete;
  Unit& operator=(const Unit&) = delete;

  void load_locked(const Package& package, const PublicRecord& record,
                   const SessionOptions& options);
  /// See Device::attest.
  lock::attestation attest(const PublicRecord& record, const lock::challenge& challenge,
                           std::uint32_t slot);
  void load_open(const compiler::program& program);

  /// Images and the pattern of untouched results into card memory.
  void prepare(unsigned slot, const Job& job, Range range);
  void start(unsigned slot);
  /// Waits, and asks the kernel how it ended. Throws unless every page of the start verified.
  Counters finish(unsigned slot);
  /// Waits, and asks nothing.
  bool drain(unsigned slot) noexcept;
  /// Results from card memory to the job's buffer.
  void collect(unsigned slot);

  LayerCycles layer_cycles() const;
  std::string label() const { return card_.label(index_); }
  const std::string& card() const { return card_.name; }
  std::uint32_t index() const { return index_; }
  const KeySetup& setup() const { return setup_; }
  std::size_t released = 0;  ///< Bytes of the result buffer that the last failed start wrote

 private:
  struct Slot {
    xrt::bo in, out;
    std::size_t in_bytes = 0, out_bytes = 0;  // of the buffers
    std::optional<xrt::run> input, core, output;
    const Job* job = nullptr;
    Range range{};
    std::size_t record_words = 0, used = 0;  // used: bytes of `out` that belong to this start
  };

  std::uint32_t read(std::uint32_t offset) const { return card_.read(index_, offset); }
  void write(std::uint32_t offset, std::uint32_t value) { card_.write(index_, offset, value); }
  spec::key_err command(spec::cmd c) { return card_.command(index_, c); }
  Device::Impl::Kernels& kernels() const { return card_.units.at(index_); }
  [[nodiscard]] error refuse(const std::string& what, spec::key_err why) const;
  /// START from the record, whatever an earlier session left.
  void start_key(const PublicRecord& record);
  void write_window(std::uint32_t reg, std::span<const std::uint8_t> data);
  /// The registers from `reg` on.
  void read_words(std::uint32_t reg, std::span<std::uint8_t> data) const;
  void load_memory(std::span<const std::uint8_t> page_bytes,
                   std::span<const std::uint8_t> tag_bytes, std::uint32_t spill_pages);
  Counters read_counters() const;
  std::size_t written(Slot& slot);

  Device::Impl& card_;
  std::uint32_t index_;
  compiler::io_tensor input_, output_;
  std::uint32_t num_descs_ = 0;
  xrt::bo pages_, tags_, spill_;  // spill_: only for a program that spills
  std::array<Slot, 2> slots_;
  KeySetup setup_;
  bool loaded_ = false;  // the unit holds this model
};

}  // namespace latchkey
