#include "latchkey/sim/memory_model.h"

#include <algorithm>

namespace latchkey::sim {

MemoryModel::Timing MemoryModel::timing_of(MemoryPreset preset) {
  switch (preset) {
    case MemoryPreset::ideal:
      return {1, 4096, 0.0, clock_ps, 8192, 0, 0, 0, 0};
    case MemoryPreset::hbm:
      return {2, 4096, 1000.0 / 14.4, 120'000, 1024, 28'000, 7'000, 3'900'000, 260'000};
    case MemoryPreset::ddr4_2400:
      break;
  }
  return {1, 4096, 1000.0 / 19.2, 90'000, 8192, 27'500, 7'500, 7'800'000, 350'000};
}

MemoryModel::MemoryModel(const sc_core::sc_module_name& name, DeviceMemory& contents,
                         MemoryPreset preset)
    : sc_module(name),
      socket("socket"),
      contents_(contents),
      timing_(timing_of(preset)),
      channels_(timing_.channels) {
  socket.register_b_transport(this, &MemoryModel::b_transport);
  restart();
}

void MemoryModel::restart() {
  const std::uint64_t now = sc_core::sc_time_stamp().value();
  for (Channel& c : channels_) {
    c = Channel{};
    c.open_row.fill(~std::uint64_t{0});
    c.free_ps = now;
    c.next_refresh_ps = now + timing_.refresh_every_ps;
  }
  statistics_ = MemoryStatistics{};
}

void MemoryModel::b_transport(int, tlm::tlm_generic_payload& transaction, sc_core::sc_time& delay) {
  const bool write = transaction.is_write();
  const std::uint64_t address = transaction.get_address();
  const std::size_t bytes = transaction.get_data_length();
  BurstExtension* extension = nullptr;
  transaction.get_extension(extension);

  const bool ok = write ? contents_.write(address, transaction.get_data_ptr(), bytes,
                                          extension != nullptr ? extension->strobe : nullptr)
                        : contents_.read(address, transaction.get_data_ptr(), bytes);
  transaction.set_response_status(ok ? tlm::TLM_OK_RESPONSE : tlm::TLM_ADDRESS_ERROR_RESPONSE);

  const Timing& t = timing_;
  const std::uint64_t now = sc_core::sc_time_stamp().value() + delay.value();
  Channel& c = channels_[address / t.stripe_bytes % t.channels];
  std::uint64_t latency = t.latency_ps;
  std::uint64_t busy = 0;  // penalties that also occupy the channel
  const std::uint64_t row = address / t.row_bytes;
  const std::size_t bank = row % banks;
  if (t.row_ps != 0 && c.open_row[bank] != row) {
    latency += t.row_ps;
    if (c.last_bank == bank) busy += t.row_ps;
    c.open_row[bank] = row;
  }
  c.last_bank = bank;
  if (c.last_write != write) busy += t.turn_ps;
  c.last_write = write;

  std::uint64_t start = std::max(now + latency, c.free_ps + busy);
  if (t.refresh_every_ps != 0) {
    // Refreshes that fell due while the channel was idle cost nothing.
    if (start > c.next_refresh_ps + t.refresh_every_ps) {
      c.next_refresh_ps = start - (start - c.next_refresh_ps) % t.refresh_every_ps;
    }
    if (start >= c.next_refresh_ps) {
      start = std::max(start, c.next_refresh_ps + t.refresh_ps);
      c.next_refresh_ps += t.refresh_every_ps;
    }
  }
  const std::uint64_t last =
      start + static_cast<std::uint64_t>(static_cast<double>(bytes) * t.ps_per_byte);
  c.free_ps = last;

  MemoryStatistics& s = statistics_;
  (write ? s.write_bytes : s.read_bytes) += bytes;
  (write ? s.write_bursts : s.read_bursts) += 1;
  s.latency_ps += start - now;
  const std::uint64_t base = sc_core::sc_time_stamp().value();
  if (extension != nullptr) extension->first_beat = sc_core::sc_time::from_value(start - base);
  delay = sc_core::sc_time::from_value(last - base);
}

}  // namespace latchkey::sim
