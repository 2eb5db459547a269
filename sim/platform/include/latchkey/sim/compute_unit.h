// The compute units of a card: what runs a kernel of the loaded image.
//
// Each unit is one SC_THREAD that keeps its own cycle count and runs ahead of the SystemC kernel by
// at most a quantum (temporal decoupling). Nothing here is thread safe: everything runs on the
// platform's thread, inside or between sc_start calls.
#ifndef LATCHKEY_SIM_COMPUTE_UNIT_H_
#define LATCHKEY_SIM_COMPUTE_UNIT_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <systemc>
#include <tlm>
#include <utility>
#include <vector>

#include "latchkey/sim/memory_model.h"
#include "latchkey/sim/model_abi.h"
#include "tlm_utils/simple_initiator_socket.h"

namespace latchkey::sim {

class Card;

// How a run ended.
enum class RunEnd { completed, failed, timed_out, aborted };

// One launch of a kernel: register writes, then start.
struct Run {
  std::uint64_t id = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> registers;  // byte offset, value
  std::function<void(RunEnd)> done;
};

// A host access to a register. `done` gets false when the unit did not answer.
struct RegisterAccess {
  bool write = false;
  std::uint32_t offset = 0;
  std::uint32_t value = 0;
  std::function<void(bool, std::uint32_t)> done;
};

// An AXI stream between two units. Beats carry the cycle from which they are visible.
class AxisFifo {
 public:
  static constexpr std::size_t depth = 64;
  struct Entry {
    lk_axis_beat beat;
    std::uint64_t cycle;
  };

  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == depth; }
  const Entry& front() const { return entries_[head_]; }
  Entry& push() {  // fill in the returned entry, then commit()
    return entries_[(head_ + count_) % depth];
  }
  void commit() {
    ++count_;
    data_event.notify(sc_core::SC_ZERO_TIME);
  }
  void pop(std::uint64_t cycle) {
    head_ = (head_ + 1) % depth;
    --count_;
    pop_cycle_ = cycle;
    space_event.notify(sc_core::SC_ZERO_TIME);
  }
  std::uint64_t pop_cycle() const { return pop_cycle_; }
  void clear() { count_ = 0; }

  sc_core::sc_event data_event, space_event;

 private:
  std::array<Entry, depth> entries_;
  std::size_t head_ = 0, count_ = 0;
  std::uint64_t pop_cycle_ = 0;
};

class ComputeUnit : public sc_core::sc_module {
 public:
  // Cycles a unit runs ahead: little when streams tie it to another unit, much on its own.
  static constexpr std::uint64_t stream_quantum = 16;
  static constexpr std::uint64_t lone_quantum = 256;

  ComputeUnit(const sc_core::sc_module_name& name, Card& card);

  tlm_utils::simple_initiator_socket<ComputeUnit, 512> socket;

  // Between sc_start calls.
  void submit(Run run);
  void access(RegisterAccess access);
  // Ends the run of this id with RunEnd::aborted; false when it is not here. A running kernel is
  // reset.
  bool abort(std::uint64_t id);

  // Ends all runs and resets the kernel.
  void fail_all(RunEnd end);

  // Makes the unit look at its work again.
  virtual void wake() { wake_event_.notify(sc_core::SC_ZERO_TIME); }

  bool loaded() const { return loaded_; }
  bool has_runs() const { return !queue_.empty() || busy_; }
  const std::string& title() const { return title_; }
  std::uint64_t cycles_run() const { return cycles_run_; }

 protected:
  ~ComputeUnit() override = default;

  // Brings the SystemC time up to the unit's cycle; other units run meanwhile.
  void synchronise();
  // The same, once the local time is a quantum ahead.
  void synchronise_if_due() {
    if (cycle_ - synced_cycle_ >= quantum_) synchronise();
  }
  // The local time never lies before the SystemC time.
  void catch_up();
  sc_core::sc_time local_delay() const;
  // One burst to memory; returns false and fails the card when it lies outside any buffer.
  // first and last are cycles.
  bool burst(bool write, std::uint64_t address, void* data, std::size_t bytes,
             const std::uint64_t* strobe, std::uint64_t& first_ps, std::uint64_t& last_ps);
  void finish_run(RunEnd end);
  virtual void request_reset() = 0;

  Card& card_;
  std::string title_;
  bool loaded_ = false;
  bool busy_ = false;  // current_ is running
  Run current_;
  std::deque<Run> queue_;
  std::deque<RegisterAccess> accesses_;
  std::uint64_t cycle_ = 0;  // local time
  std::uint64_t synced_cycle_ = 0;
  std::uint64_t quantum_ = stream_quantum;
  std::uint64_t cycles_run_ = 0;  // for statistics
  sc_core::sc_event wake_event_;

 private:
  tlm::tlm_generic_payload payload_;
  BurstExtension extension_;
};

class RtlUnit : public ComputeUnit {
 public:
  RtlUnit(const sc_core::sc_module_name& name, Card& card);
  ~RtlUnit() override;

  // Between sc_start calls. The kernel table must stay until unload().
  void load(const lk_rtl_kernel* kernel, const std::string& title,
            const latchkey_silicon_ops* silicon, AxisFifo* in, AxisFifo* out,
            const std::string& trace_path);
  void unload();

 private:
  static constexpr std::size_t max_outstanding = 16;
  static constexpr unsigned reset_cycles = 16;
  static constexpr std::uint64_t answer_limit = 4096;  // cycles for AXI-Lite to answer
  static constexpr std::uint64_t drain_cycles = 64;  // a kernel still runs after its last activity

  struct ReadBurst {
    unsigned beats = 0, next = 0;
    std::uint64_t first_ps = 0, last_ps = 0;
    std::array<std::uint32_t, 1024> data;
  };
  struct WriteBurst {
    std::uint64_t address = 0;
    unsigned beats = 0;
  };

  void thread();
  void reset_kernel();
  void cycle();
  // A cycle, and a synchronisation when the quantum is used up. False when the kernel is about to
  // be reset or is gone: the caller gives up what it is doing.
  bool step();
  bool mmio_write(std::uint32_t offset, std::uint32_t value);
  bool mmio_read(std::uint32_t offset, std::uint32_t& value);
  void serve_access();
  void start_run();
  void service_interrupt();
  void request_reset() override {
    reset_pending_ = true;
    wake();
  }
  void accept_read();
  void accept_write();
  bool legal_burst(const char* channel, std::uint64_t address, unsigned beats);

  const lk_rtl_kernel* kernel_ = nullptr;
  void* instance_ = nullptr;
  lk_pins pins_{};
  AxisFifo* in_ = nullptr;
  AxisFifo* out_ = nullptr;
  bool reset_pending_ = false;
  std::uint64_t last_activity_ = 0;

  // Reads: a ring of bursts in the order of their addresses.
  std::vector<ReadBurst> reads_{max_outstanding};
  std::size_t read_head_ = 0, read_count_ = 0;
  std::uint64_t next_beat_cycle_ = 0;
  bool beat_shown_ = false;
  // Writes: accepted addresses, the data of the first of them, answers to give.
  std::deque<WriteBurst> writes_;
  std::array<std::uint32_t, 1024> write_data_;
  std::array<std::uint64_t, 64> write_strobe_;
  unsigned write_beat_ = 0;
  std::deque<std::uint64_t> answers_;  // cycle of each
  bool in_shown_ = false;
};

class HlsUnit : public ComputeUnit {
 public:
  HlsUnit(const sc_core::sc_module_name& name, Card& card);

  void load(const lk_hls_kernel* kernel, const std::string& title, AxisFifo* in, AxisFifo* out);
  void unload();
  void wake() override;

 private:
  struct Aborted {};

  void thread();
  void serve_accesses();
  void request_reset() override;
  void advance_to(std::uint64_t cycle);
  void pause_until(const sc_core::sc_event& event);

  static HlsUnit& self(void* ctx) { return *static_cast<HlsUnit*>(ctx); }
  void stream_read(lk_axis_beat* beat);
  void stream_write(const lk_axis_beat* beat);
  void memory(bool write, std::uint64_t address, void* data, std::uint64_t bytes);

  const lk_hls_kernel* kernel_ = nullptr;
  AxisFifo* in_ = nullptr;
  AxisFifo* out_ = nullptr;
  std::vector<std::uint32_t> registers_;
  std::uint64_t in_cycle_ = 0, out_cycle_ = 0;  // last beat of each port
  bool abort_ = false;
  bool running_ = false;  // the kernel's function is on the stack
};

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_COMPUTE_UNIT_H_
