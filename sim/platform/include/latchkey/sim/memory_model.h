// The card's memory as a TLM-2.0 target with a timing model.
//
// One AXI burst is one b_transport: address, up to 4,096 bytes, and for writes a BurstExtension
// with the byte strobes. The delay passed in is the initiator's local time ahead of the kernel
// (temporal decoupling); the delay returned is when the last beat was moved. The extension reports
// when the first beat was there, so that the initiator can pace the beats between.
//
// Timing of a channel, per burst:
//   start = max(request + fixed latency, channel free) + refresh and row penalties
//   last  = start + bytes / bandwidth;  channel free = last
// Presets:
//   ideal      one cycle of latency, no bandwidth limit
//   ddr4-2400  one 64-bit channel: 19.2 GB/s; 90 ns from the kernel's port to the first beat; 16
//   banks
//              of 8 KiB rows, interleaved at 8 KiB; opening a row adds 27.5 ns to the latency, and
//              to the channel too if the burst before went to another row of the same bank; turning
//              the bus round between reads and writes costs 7.5 ns; every 7.8 us a refresh stops
//              the channel for 350 ns (8 Gbit parts). A sequential stream gets about 95 % of the
//              peak.
//   hbm        two pseudo-channels of 14.4 GB/s, striped at 4 KiB (a page lies in one of them);
//              120 ns latency, 1 KiB rows, every 3.9 us a refresh of 260 ns.
// The figures are data sheet figures (JESD79-4, JESD235) and a typical interconnect latency; they
// were not fitted to a measured card.
#ifndef LATCHKEY_SIM_MEMORY_MODEL_H_
#define LATCHKEY_SIM_MEMORY_MODEL_H_

#include <array>
#include <cstdint>
#include <systemc>
#include <tlm>
#include <vector>

#include "latchkey/sim/card_config.h"
#include "latchkey/sim/device_memory.h"
#include "tlm_utils/multi_passthrough_target_socket.h"

namespace latchkey::sim {

struct BurstExtension : tlm::tlm_extension<BurstExtension> {
  const std::uint64_t* strobe = nullptr;  // writes: one bit per byte, null for all
  sc_core::sc_time first_beat;  // returned: delay of the first beat, as the delay argument

  tlm::tlm_extension_base* clone() const override { return new BurstExtension(*this); }
  void copy_from(const tlm::tlm_extension_base& other) override {
    *this = static_cast<const BurstExtension&>(other);
  }
};

struct MemoryStatistics {
  std::uint64_t read_bytes = 0, write_bytes = 0;
  std::uint64_t read_bursts = 0, write_bursts = 0;
  std::uint64_t latency_ps = 0;  // sum over bursts, request to first beat
};

class MemoryModel : public sc_core::sc_module {
 public:
  MemoryModel(const sc_core::sc_module_name& name, DeviceMemory& contents, MemoryPreset preset);

  tlm_utils::multi_passthrough_target_socket<MemoryModel, 512> socket;
  // Closes all rows and starts the refresh period now, so that a run after loading an image takes
  // the same time whatever the card did before.
  void restart();
  const MemoryStatistics& statistics() const { return statistics_; }

 private:
  struct Timing {
    unsigned channels;
    std::uint64_t stripe_bytes;
    double ps_per_byte;
    std::uint64_t latency_ps;
    std::uint64_t row_bytes, row_ps;
    std::uint64_t turn_ps;
    std::uint64_t refresh_every_ps, refresh_ps;
  };
  static constexpr std::size_t banks = 16;
  struct Channel {
    std::uint64_t free_ps = 0;
    std::uint64_t next_refresh_ps = 0;
    bool last_write = false;
    std::size_t last_bank = banks;
    std::array<std::uint64_t, banks> open_row{};
  };

  static Timing timing_of(MemoryPreset preset);
  void b_transport(int master, tlm::tlm_generic_payload& transaction, sc_core::sc_time& delay);

  DeviceMemory& contents_;
  const Timing timing_;
  std::vector<Channel> channels_;
  MemoryStatistics statistics_;
};

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_MEMORY_MODEL_H_
