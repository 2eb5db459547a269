// One simulated card: memory, compute units, the modelled die and what it keeps between processes.
#ifndef LATCHKEY_SIM_CARD_H_
#define LATCHKEY_SIM_CARD_H_

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

  const FuseState& fuses() const { return fuses_; }
  void store(const FuseState& fuses);
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  int lock_fd_ = -1;
  FuseState fuses_;
};

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
  static constexpr std::size_t rtl_slots = 2;
  static constexpr std::size_t hls_slots = 4;

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
  // their indices. An RTL kernel's s_axis_in is wired to the HLS kernel with a stream output, its
  // m_axis_out to the one with a stream input; the first RTL kernel with the port gets it. Throws
  // std::runtime_error when the image lacks a kernel or the card a slot for it.
  void load(const Image& image, const std::vector<std::string>& units);
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
  AxisFifo input_fifo_, output_fifo_;

  std::unique_ptr<CardState> state_;
  std::unique_ptr<Silicon> silicon_;
  Fuses fuses_;
  latchkey_silicon_ops silicon_ops_{};
  std::vector<ComputeUnit*> units_;
};

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_CARD_H_
