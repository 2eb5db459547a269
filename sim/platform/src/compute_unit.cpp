#include "latchkey/sim/compute_unit.h"

#include <algorithm>
#include <cstring>
#include <sstream>

#include "latchkey/sim/card.h"
#include "latchkey/sim/platform.h"

namespace latchkey::sim {
namespace {

constexpr std::uint64_t page = 4096;
// A simulation thread evaluates a Verilated design, which wants more than SystemC's default stack.
constexpr std::size_t stack_bytes = std::size_t{8} << 20;

// ap_ctrl_chain.
constexpr std::uint32_t reg_ctrl = 0x00, reg_gier = 0x04, reg_ier = 0x08, reg_isr = 0x0C;
constexpr std::uint32_t ctrl_start = 1u << 0, ctrl_done = 1u << 1, ctrl_idle = 1u << 2;
constexpr std::uint32_t ctrl_continue = 1u << 4;

constexpr std::size_t register_words = 0x10000 / 4;

std::string hex(std::uint64_t value) {
  std::ostringstream text;
  text << "0x" << std::hex << value;
  return text.str();
}

std::uint64_t now_ps() { return sc_core::sc_time_stamp().value(); }
std::uint64_t cycle_of(std::uint64_t ps) { return (ps + clock_ps - 1) / clock_ps; }

}  // namespace

// ---- ComputeUnit
// ----------------------------------------------------------------------------------

ComputeUnit::ComputeUnit(const sc_core::sc_module_name& name, Card& card)
    : sc_module(name), socket("socket"), card_(card) {
  payload_.set_extension(&extension_);
}

void ComputeUnit::submit(Run run) {
  queue_.push_back(std::move(run));
  card_.wake_units();
}

void ComputeUnit::access(RegisterAccess access) {
  if (!loaded_) {
    access.done(false, 0);
    return;
  }
  accesses_.push_back(std::move(access));
  wake();
}

bool ComputeUnit::abort(std::uint64_t id) {
  for (auto it = queue_.begin(); it != queue_.end(); ++it) {
    if (it->id != id) continue;
    const auto done = std::move(it->done);
    queue_.erase(it);
    done(RunEnd::aborted);
    return true;
  }
  if (!busy_ || current_.id != id) return false;
  finish_run(RunEnd::aborted);
  request_reset();
  return true;
}

void ComputeUnit::fail_all(RunEnd end) {
  const bool was_busy = busy_;
  if (busy_) finish_run(end);
  std::deque<Run> queue;
  queue.swap(queue_);
  for (Run& run : queue) run.done(end);
  std::deque<RegisterAccess> accesses;
  accesses.swap(accesses_);
  for (RegisterAccess& a : accesses) a.done(false, 0);
  if (was_busy || loaded_) request_reset();
}

void ComputeUnit::catch_up() {
  cycle_ = std::max(cycle_, cycle_of(now_ps()));
  synced_cycle_ = cycle_;
}

void ComputeUnit::synchronise() {
  if (Platform::host_waiting()) sc_core::sc_pause();
  const std::uint64_t target = cycle_ * clock_ps;
  const std::uint64_t now = now_ps();
  wait(sc_core::sc_time::from_value(target > now ? target - now : 0));
  synced_cycle_ = cycle_;
}

sc_core::sc_time ComputeUnit::local_delay() const {
  const std::uint64_t local = cycle_ * clock_ps;
  const std::uint64_t now = now_ps();
  return sc_core::sc_time::from_value(local > now ? local - now : 0);
}

bool ComputeUnit::burst(bool write, std::uint64_t address, void* data, std::size_t bytes,
                        const std::uint64_t* strobe, std::uint64_t& first_ps,
                        std::uint64_t& last_ps) {
  payload_.set_command(write ? tlm::TLM_WRITE_COMMAND : tlm::TLM_READ_COMMAND);
  payload_.set_address(address);
  payload_.set_data_ptr(static_cast<unsigned char*>(data));
  payload_.set_data_length(static_cast<unsigned>(bytes));
  payload_.set_streaming_width(static_cast<unsigned>(bytes));
  payload_.set_byte_enable_ptr(nullptr);
  payload_.set_dmi_allowed(false);
  payload_.set_response_status(tlm::TLM_INCOMPLETE_RESPONSE);
  extension_.strobe = strobe;
  sc_core::sc_time delay = local_delay();
  socket->b_transport(payload_, delay);
  first_ps = now_ps() + extension_.first_beat.value();
  last_ps = now_ps() + delay.value();
  if (payload_.is_response_error()) {
    card_.fail(title_ + (write ? " wrote " : " read ") + std::to_string(bytes) + " bytes at " +
                   hex(address) + ", outside every buffer (" + card_.memory().describe(address) +
                   ")",
               RunEnd::failed);
    return false;
  }
  return true;
}

void ComputeUnit::finish_run(RunEnd end) {
  busy_ = false;
  const auto done = std::move(current_.done);
  current_ = Run{};
  done(end);
}

// ---- RtlUnit
// --------------------------------------------------------------------------------------

RtlUnit::RtlUnit(const sc_core::sc_module_name& name, Card& card) : ComputeUnit(name, card) {
  SC_HAS_PROCESS(RtlUnit);
  SC_THREAD(thread);
  set_stack_size(stack_bytes);
}

RtlUnit::~RtlUnit() { unload(); }

void RtlUnit::load(const lk_rtl_kernel* kernel, const std::string& title,
                   const latchkey_silicon_ops* silicon, AxisFifo* in, AxisFifo* out,
                   const std::string& trace_path) {
  unload();
  pins_ = lk_pins{};
  void* instance = kernel->create(silicon, &pins_);
  if (instance == nullptr) throw std::bad_alloc();
  if (!trace_path.empty() && kernel->trace_open(instance, trace_path.c_str()) != 0) {
    kernel->destroy(instance);
    throw std::runtime_error("cannot write the waveform " + trace_path +
                             ": the folder must exist and the image be built with LATCHKEY_TRACE");
  }
  kernel_ = kernel;
  instance_ = instance;
  title_ = title;
  in_ = in;
  out_ = out;
  quantum_ = in != nullptr || out != nullptr ? stream_quantum : lone_quantum;
  loaded_ = true;
  cycles_run_ = 0;
  request_reset();
}

void RtlUnit::unload() {
  if (instance_ == nullptr) return;
  loaded_ = false;
  fail_all(RunEnd::aborted);
  reset_pending_ = true;
  kernel_->trace_close(instance_);
  kernel_->destroy(instance_);
  instance_ = nullptr;
  kernel_ = nullptr;
}

bool RtlUnit::step() {
  cycle();
  synchronise_if_due();
  return !reset_pending_ && instance_ != nullptr;
}

void RtlUnit::thread() {
  for (;;) {
    if (instance_ == nullptr) {
      wait(wake_event_);
      catch_up();
    } else if (reset_pending_) {
      reset_kernel();
    } else if (!accesses_.empty()) {
      serve_access();
    } else if (!busy_ && !queue_.empty()) {
      start_run();
    } else if (busy_) {
      if (!step()) continue;
      const bool has_interrupt = (kernel_->ports & LK_PORT_INTERRUPT) != 0;
      if (has_interrupt ? pins_.interrupt != 0 : cycle_ % 64 == 0) service_interrupt();
      if (busy_ && cycle_ - last_activity_ > card_.config().watchdog_cycles) {
        card_.fail(title_ + " moved no data for " + std::to_string(card_.config().watchdog_cycles) +
                       " cycles and did not finish",
                   RunEnd::timed_out);
      }
    } else if (cycle_ - last_activity_ < drain_cycles) {
      step();
    } else {
      synchronise();
      if (instance_ == nullptr || reset_pending_ || !accesses_.empty() || !queue_.empty()) continue;
      // A kernel may be done while its last beats still wait for room.
      const bool beats_wait = out_ != nullptr && pins_.out_tvalid != 0;
      if (beats_wait && !out_->full()) {
        last_activity_ = cycle_;
        continue;
      }
      sc_core::sc_event_or_list events;
      events |= wake_event_;
      // A beat that the idle kernel does not take is no reason to go on.
      if (in_ != nullptr && in_->empty()) events |= in_->data_event;
      if (beats_wait) events |= out_->space_event;
      wait(events);
      catch_up();
      last_activity_ = cycle_;
    }
  }
}

void RtlUnit::reset_kernel() {
  reset_pending_ = false;
  read_head_ = read_count_ = 0;
  beat_shown_ = in_shown_ = false;
  writes_.clear();
  answers_.clear();
  write_beat_ = 0;
  if (in_ != nullptr) in_->clear();
  if (out_ != nullptr) out_->clear();
  lk_pins& p = pins_;
  p.s_awvalid = p.s_wvalid = p.s_bready = p.s_arvalid = p.s_rready = 0;
  p.m_rvalid = p.m_bvalid = p.in_tvalid = 0;
  p.rst_n = 0;
  for (unsigned i = 0; i < reset_cycles; ++i) {
    kernel_->settle(instance_);
    kernel_->clock(instance_);
    ++cycle_;
  }
  p.rst_n = 1;
  for (unsigned i = 0; i < 4; ++i) {
    if (!step()) return;
  }
  if (!mmio_write(reg_gier, 1)) return;
  mmio_write(reg_ier, 1);
  last_activity_ = cycle_;
}

void RtlUnit::cycle() {
  lk_pins& p = pins_;
  p.m_arready = read_count_ < max_outstanding;
  if (!beat_shown_ && read_count_ != 0 && cycle_ >= next_beat_cycle_) {
    const ReadBurst& b = reads_[read_head_];
    std::memcpy(p.m_rdata, b.data.data() + std::size_t{b.next} * LK_BEAT_WORDS, LK_BEAT_BYTES);
    p.m_rlast = b.next + 1 == b.beats;
    p.m_rresp = 0;
    beat_shown_ = true;
  }
  p.m_rvalid = beat_shown_;
  p.m_awready = writes_.size() < 4 && answers_.size() < max_outstanding;
  p.m_wready = !writes_.empty();
  p.m_bvalid = !answers_.empty() && answers_.front() <= cycle_;
  p.m_bresp = 0;
  if (in_ != nullptr) {
    if (!in_shown_ && !in_->empty() && in_->front().cycle <= cycle_) {
      const lk_axis_beat& beat = in_->front().beat;
      std::memcpy(p.in_tdata, beat.data, LK_BEAT_BYTES);
      p.in_tkeep = beat.keep;
      p.in_tlast = beat.last;
      in_shown_ = true;
    }
    p.in_tvalid = in_shown_;
  }
  if (out_ != nullptr) p.out_tready = !out_->full();

  kernel_->settle(instance_);
  ++cycle_;
  ++cycles_run_;

  bool active = false;
  if (p.m_rvalid && p.m_rready) {
    active = true;
    beat_shown_ = false;
    ReadBurst& b = reads_[read_head_];
    if (++b.next == b.beats) {
      read_head_ = (read_head_ + 1) % max_outstanding;
      if (--read_count_ != 0) next_beat_cycle_ = cycle_of(reads_[read_head_].first_ps);
    } else {
      next_beat_cycle_ = cycle_of(b.first_ps + (b.last_ps - b.first_ps) * b.next / b.beats);
    }
  }
  if (p.m_bvalid && p.m_bready) {
    active = true;
    answers_.pop_front();
  }
  if (p.m_wvalid && p.m_wready) {
    active = true;
    accept_write();
  }
  if (p.m_arvalid && p.m_arready) {
    active = true;
    accept_read();
  }
  if (p.m_awvalid && p.m_awready) {
    active = true;
    if (legal_burst("write", p.m_awaddr, p.m_awlen + 1u)) {
      writes_.push_back({p.m_awaddr, p.m_awlen + 1u});
    }
  }
  if (in_shown_ && p.in_tready) {
    active = true;
    in_shown_ = false;
    in_->pop(cycle_);
  }
  if (out_ != nullptr && p.out_tvalid && p.out_tready) {
    active = true;
    AxisFifo::Entry& entry = out_->push();
    std::memcpy(entry.beat.data, p.out_tdata, LK_BEAT_BYTES);
    entry.beat.keep = p.out_tkeep;
    entry.beat.last = p.out_tlast;
    entry.cycle = cycle_;
    out_->commit();
  }
  if (active) last_activity_ = cycle_;
  kernel_->clock(instance_);
}

bool RtlUnit::legal_burst(const char* channel, std::uint64_t address, unsigned beats) {
  const std::string burst = title_ + ": " + channel + " burst at " + hex(address) + " of " +
                            std::to_string(beats) + " beats ";
  if (pins_.burst_shape_ok == 0) {
    card_.fail(burst + "has a beat size other than 64 bytes or is not incrementing",
               RunEnd::failed);
  } else if (address % LK_BEAT_BYTES != 0) {
    card_.fail(burst + "is not aligned to 64 bytes", RunEnd::failed);
  } else if (address % page + std::uint64_t{beats} * LK_BEAT_BYTES > page) {
    card_.fail(burst + "crosses a 4 KiB boundary", RunEnd::failed);
  } else {
    return true;
  }
  return false;
}

void RtlUnit::accept_read() {
  const std::uint64_t address = pins_.m_araddr;
  const unsigned beats = pins_.m_arlen + 1u;
  if (!legal_burst("read", address, beats)) return;
  ReadBurst& b = reads_[(read_head_ + read_count_) % max_outstanding];
  b.beats = beats;
  b.next = 0;
  if (!burst(false, address, b.data.data(), std::size_t{beats} * LK_BEAT_BYTES, nullptr, b.first_ps,
             b.last_ps)) {
    return;
  }
  if (read_count_++ == 0) next_beat_cycle_ = cycle_of(b.first_ps);
}

void RtlUnit::accept_write() {
  const WriteBurst& w = writes_.front();
  std::memcpy(write_data_.data() + std::size_t{write_beat_} * LK_BEAT_WORDS, pins_.m_wdata,
              LK_BEAT_BYTES);
  write_strobe_[write_beat_] = pins_.m_wstrb;
  ++write_beat_;
  if ((pins_.m_wlast != 0) != (write_beat_ == w.beats)) {
    card_.fail(title_ + ": wlast in beat " + std::to_string(write_beat_) + " of a write burst of " +
                   std::to_string(w.beats),
               RunEnd::failed);
    return;
  }
  if (write_beat_ != w.beats) return;
  std::uint64_t first_ps = 0, last_ps = 0;
  if (!burst(true, w.address, write_data_.data(), std::size_t{w.beats} * LK_BEAT_BYTES,
             write_strobe_.data(), first_ps, last_ps)) {
    return;
  }
  answers_.push_back(cycle_of(last_ps));
  writes_.pop_front();
  write_beat_ = 0;
}

bool RtlUnit::mmio_write(std::uint32_t offset, std::uint32_t value) {
  lk_pins& p = pins_;
  p.s_awaddr = static_cast<std::uint16_t>(offset);
  p.s_wdata = value;
  p.s_wstrb = 0xF;
  p.s_awvalid = p.s_wvalid = p.s_bready = 1;
  for (std::uint64_t n = 0; n < answer_limit; ++n) {
    if (!step()) return false;
    if (p.s_awready) p.s_awvalid = 0;
    if (p.s_wready) p.s_wvalid = 0;
    if (p.s_bvalid) {
      p.s_bready = 0;
      return true;
    }
  }
  card_.fail(title_ + " did not answer a write to register " + hex(offset), RunEnd::failed);
  return false;
}

bool RtlUnit::mmio_read(std::uint32_t offset, std::uint32_t& value) {
  lk_pins& p = pins_;
  p.s_araddr = static_cast<std::uint16_t>(offset);
  p.s_arvalid = p.s_rready = 1;
  for (std::uint64_t n = 0; n < answer_limit; ++n) {
    if (!step()) return false;
    if (p.s_arready) p.s_arvalid = 0;
    if (p.s_rvalid) {
      p.s_rready = 0;
      value = p.s_rdata;
      return true;
    }
  }
  card_.fail(title_ + " did not answer a read of register " + hex(offset), RunEnd::failed);
  return false;
}

void RtlUnit::serve_access() {
  RegisterAccess a = std::move(accesses_.front());
  accesses_.pop_front();
  bool ok = true;
  for (std::uint64_t n = 0; ok && n < card_.config().mmio_cycles; ++n) ok = step();
  std::uint32_t value = a.value;
  ok = ok && (a.write ? mmio_write(a.offset, a.value) : mmio_read(a.offset, value));
  a.done(ok, value);
}

void RtlUnit::start_run() {
  current_ = std::move(queue_.front());
  queue_.pop_front();
  busy_ = true;
  last_activity_ = cycle_;
  // The list is copied: a failure on the way ends the run and clears current_.
  const auto registers = current_.registers;
  for (const auto& [offset, value] : registers) {
    if (!mmio_write(offset, value)) return;
  }
  mmio_write(reg_ctrl, ctrl_start);
  last_activity_ = cycle_;
}

void RtlUnit::service_interrupt() {
  std::uint32_t status = 0;
  if ((kernel_->ports & LK_PORT_INTERRUPT) != 0) {
    if (!mmio_read(reg_isr, status) || !mmio_write(reg_isr, status)) return;
  }
  std::uint32_t control = 0;
  if (!mmio_read(reg_ctrl, control)) return;
  if ((control & ctrl_done) == 0) return;
  if (!mmio_write(reg_ctrl, ctrl_continue)) return;
  last_activity_ = cycle_;
  if (busy_) finish_run(RunEnd::completed);
}

// ---- HlsUnit
// --------------------------------------------------------------------------------------

HlsUnit::HlsUnit(const sc_core::sc_module_name& name, Card& card)
    : ComputeUnit(name, card), registers_(register_words) {
  SC_HAS_PROCESS(HlsUnit);
  SC_THREAD(thread);
  set_stack_size(stack_bytes);
}

void HlsUnit::load(const lk_hls_kernel* kernel, const std::string& title, AxisFifo* in,
                   AxisFifo* out) {
  unload();
  kernel_ = kernel;
  title_ = title;
  in_ = in;
  out_ = out;
  loaded_ = true;
  cycles_run_ = 0;
  std::fill(registers_.begin(), registers_.end(), 0);
}

void HlsUnit::unload() {
  if (!loaded_) return;
  loaded_ = false;
  fail_all(RunEnd::aborted);
  request_reset();
  kernel_ = nullptr;
}

void HlsUnit::wake() {
  serve_accesses();
  ComputeUnit::wake();
}

void HlsUnit::request_reset() {
  abort_ = running_;
  ComputeUnit::wake();
}

// The registers of an HLS kernel are the platform's, so the host reads them at any time.
void HlsUnit::serve_accesses() {
  while (!accesses_.empty()) {
    const RegisterAccess a = std::move(accesses_.front());
    accesses_.pop_front();
    std::uint32_t value = a.value;
    if (a.offset / 4 >= register_words) {
      a.done(false, 0);
      continue;
    }
    if (a.offset < 0x10) {
      if (!a.write) value = a.offset == reg_ctrl ? (busy_ ? ctrl_start : ctrl_idle) : 0;
    } else if (a.write) {
      registers_[a.offset / 4] = value;
    } else {
      value = registers_[a.offset / 4];
    }
    a.done(true, value);
  }
}

void HlsUnit::thread() {
  for (;;) {
    if (kernel_ == nullptr || queue_.empty()) {
      wait(wake_event_);
      catch_up();
      continue;
    }
    current_ = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    abort_ = false;
    for (const auto& [offset, value] : current_.registers) {
      if (offset / 4 < register_words) registers_[offset / 4] = value;
    }
    const std::uint64_t start = cycle_;
    in_cycle_ = out_cycle_ = cycle_;
    lk_hls_env env{};
    env.ctx = this;
    env.stream_read = [](void* c, lk_axis_beat* b) { self(c).stream_read(b); };
    env.stream_write = [](void* c, const lk_axis_beat* b) { self(c).stream_write(b); };
    env.mem_read = [](void* c, std::uint64_t address, void* data, std::uint64_t bytes) {
      self(c).memory(false, address, data, bytes);
    };
    env.mem_write = [](void* c, std::uint64_t address, const void* data, std::uint64_t bytes) {
      self(c).memory(true, address, const_cast<void*>(data), bytes);
    };
    env.reg_read = [](void* c, std::uint32_t offset) -> std::uint32_t {
      return offset / 4 < register_words ? self(c).registers_[offset / 4] : 0;
    };
    env.reg_write = [](void* c, std::uint32_t offset, std::uint32_t value) {
      if (offset / 4 < register_words) self(c).registers_[offset / 4] = value;
    };
    env.wait_cycles = [](void* c, std::uint32_t cycles) {
      self(c).advance_to(self(c).cycle_ + cycles);
    };
    running_ = true;
    try {
      advance_to(cycle_ + kernel_->latency);
      kernel_->run(&env);
      synchronise();
    } catch (const Aborted&) {
    }
    running_ = false;
    cycles_run_ += cycle_ - start;
    if (busy_ && !abort_) finish_run(RunEnd::completed);
    abort_ = false;
  }
}

void HlsUnit::advance_to(std::uint64_t cycle) {
  cycle_ = std::max(cycle_, cycle);
  synchronise_if_due();
  if (abort_) throw Aborted{};
}

void HlsUnit::pause_until(const sc_core::sc_event& event) {
  if (Platform::host_waiting()) sc_core::sc_pause();
  wait(event | wake_event_);
  if (abort_) throw Aborted{};
}

void HlsUnit::stream_read(lk_axis_beat* beat) {
  if (in_ == nullptr) {
    card_.fail(title_ + " reads a stream that nothing is connected to", RunEnd::failed);
    throw Aborted{};
  }
  while (in_->empty()) pause_until(in_->data_event);
  in_cycle_ = std::max({cycle_, in_cycle_ + 1, in_->front().cycle});
  *beat = in_->front().beat;
  in_->pop(in_cycle_);
  advance_to(in_cycle_);
}

void HlsUnit::stream_write(const lk_axis_beat* beat) {
  if (out_ == nullptr) {
    card_.fail(title_ + " writes a stream that nothing is connected to", RunEnd::failed);
    throw Aborted{};
  }
  while (out_->full()) {
    pause_until(out_->space_event);
    cycle_ = std::max(cycle_, out_->pop_cycle());
  }
  out_cycle_ = std::max(cycle_, out_cycle_ + 1);
  AxisFifo::Entry& entry = out_->push();
  entry.beat = *beat;
  entry.cycle = out_cycle_ + 1;
  out_->commit();
  advance_to(out_cycle_);
}

void HlsUnit::memory(bool write, std::uint64_t address, void* data, std::uint64_t bytes) {
  auto* at = static_cast<std::uint8_t*>(data);
  std::uint64_t reached = cycle_;
  bool first = true;
  while (bytes != 0) {
    const std::uint64_t n = std::min(bytes, page - address % page);
    std::uint64_t first_ps = 0, last_ps = 0;
    if (!burst(write, address, at, n, nullptr, first_ps, last_ps)) throw Aborted{};
    if (write) {
      reached = std::max(reached, cycle_of(last_ps));
    } else if (first) {
      reached = cycle_of(first_ps);
    }
    first = false;
    address += n;
    at += n;
    bytes -= n;
  }
  advance_to(reached);
}

}  // namespace latchkey::sim
