// One simulated card: memory, compute units, the modelled die and what it keeps between processes.
#ifndef LATCHKEY_SIM_CARD_H_
#define LATCHKEY_SIM_CARD_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <systemc>
#include <vector>

#include "latchkey/sim/card_config.h"
#include "latchkey/sim/compute_unit.h"
#include "latchkey/sim/device_memory.h"
#include "latchkey/sim/memory_model.h"
#include "latchkey/sim/model_abi.h"
#include "latchkey/sim/silicon.h"

namespace latchkey::sim {

// RTL and HLS kernels that a card holds. RTL kernel i of an image has PUF and fuses i of the die.
inline constexpr std::size_t rtl_slots = 4;
inline constexpr std::size_t hls_slots = 8;

// The state folder of a card, locked while this object lives: fuses are read at construction and
// written atomically (temporary file, fsync, rename) at every change.
class CardState {
 public:
  // Throws std::runtime_error saying "in use" when another process or card holds the folder, and
  // for a folder or fuse file that cannot be used.
  CardState(const std::filesystem::path& root, const CardConfig& config);
  ~CardState();
  CardState(const CardState&) = delete;
  CardState& operator=(const CardState&) = delete;

  // `region` < rtl_slots.
  const FuseState& fuses(std::size_t region) const { return fuses_.at(region); }
  void store(std::size_t region, const FuseState& fuses);
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path fuse_file(std::size_t region) const;

  std::filesystem::path folder_;
  int lock_fd_ = -1;
  std::array<FuseState, rtl_slots> fuses_;
};

// A stream between two units of an image: "from_unit.port:to_unit.port" of its link configuration.
struct StreamConnection {
  std::string from_unit, from_port, to_unit, to_port;
};

// The connections in an image's USER_METADATA section, {"stream_connect": ["a_1.out:b_1.in", ...]}.
// Throws std::runtime_error for anything else.
std::vector<StreamConnection> stream_connections(const char* text, std::size_t bytes);

// A card image's shared library. Images stay loaded until the process ends: a kernel function may
// still be on the stack of a simulation thread when its card gets another image. Equal bytes give
// the same object. Platform thread only.
class Image {
 public:
  // Throws std::runtime_error when the bytes are not an image or of another ABI version.
  static const Image& open(const void* data, std::size_t bytes);

  const lk_rtl_kernel* find_rtl(const std::string& kernel) const;
  const lk_hls_kernel* find_hls(const std::string& kernel) const;

 private:
  Image(const void* data, std::size_t bytes);

  const void* bytes_ = nullptr;
  std::size_t size_ = 0;
  const lk_image* table_ = nullptr;
};

class Card : public sc_core::sc_module {
 public:
  Card(const sc_core::sc_module_name& name, const CardConfig& config);
  ~Card() override;

  const CardConfig& config() const { return config_; }
  DeviceMemory& memory() { return memory_; }
  const MemoryStatistics& memory_statistics() const { return memory_model_.statistics(); }

  // Powers the die on and locks the state folder. Throws std::runtime_error (see CardState).
  void power_on(const std::filesystem::path& state_root);
  // Drops the image and the lock.
  void power_off();
  bool powered() const { return state_ != nullptr; }

  // Replaces the image. `units` are names as in IP_LAYOUT ("latchkey_core:core_1"), in the order of
  // their indices. Stream ports are called m_axis_out and s_axis_in on RTL kernels, out and in on
  // HLS kernels; one that no connection names is left open. Throws std::runtime_error when the
  // image lacks a kernel, the card a slot for it, or a connection names what is not there or what
  // another has.
  void load(const Image& image, const std::vector<std::string>& units,
            const std::vector<StreamConnection>& streams);
  void unload();

  std::size_t unit_count() const { return units_.size(); }
  ComputeUnit& unit(std::size_t index) { return *units_.at(index); }

  // Ends every run on the card and resets its kernels; the reason is printed.
  void fail(const std::string& reason, RunEnd end);
  bool has_runs() const;

 private:
  friend class ComputeUnit;

  void wake_units();
  void write_statistics() const;

  CardConfig config_;
  DeviceMemory memory_;
  MemoryModel memory_model_;
  std::vector<std::unique_ptr<RtlUnit>> rtl_;
  std::vector<std::unique_ptr<HlsUnit>> hls_;
  std::array<AxisFifo, rtl_slots + hls_slots> fifos_;  // a unit has one stream input at most

  std::unique_ptr<CardState> state_;
  // One PUF, noise source and set of fuses per RTL kernel.
  struct Region {
    std::unique_ptr<Silicon> silicon;
    Fuses fuses;
    latchkey_silicon_ops ops{};
  };
  std::array<Region, rtl_slots> regions_;
  std::vector<ComputeUnit*> units_;
};

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_CARD_H_
