// Cards: finding them, opening one, loading a build, enrolling its chip.
#ifndef LATCHKEY_DEVICE_HPP
#define LATCHKEY_DEVICE_HPP

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "latchkey/error.hpp"

namespace latchkey {

/// The hardware builds. Each is its own card image; loading one replaces the last.
enum class Build {
  operate,   ///< Runs locked models. Has no enrolment, sealing or export logic.
  unlocked,  ///< The same kernel elaborated without the lock chain, for measuring the lock's price.
  enrol,     ///< PUF and key block only; the one build that can export.
};

/// What a loaded build says of itself.
struct BuildInfo {
  Build build;
  bool vendor_primitives;    ///< Vendor cells instead of the generic models
  bool waveforms;            ///< Simulation with waveforms compiled in: exposes secrets
  std::uint32_t config_id;   ///< What a package must agree with
  std::uint32_t array_n;     ///< Rows and columns of the array; 0 in the enrol build
  std::uint32_t spad_words;  ///< 64-byte words of the scratchpad; 0 in the enrol build
  std::uint32_t version;     ///< major << 16 | minor << 8 | patch
  std::uint32_t hash;        ///< First 32 bits of the source's commit; 0 when unknown
};

/// A card as `Device::list` sees it.
struct DeviceInfo {
  std::string name;         ///< What the Device constructor takes
  std::string description;  ///< Shell or model, for people
  bool simulated;
  std::uint32_t units;  ///< Most compute units of any card image for it; 0 without images
};

/// The root of an owner slot: every key of the slot follows from it, no key of another does.
struct OwnerRoot {
  std::uint32_t slot;                 ///< 0..7
  std::array<std::uint8_t, 32> root;  ///< Secret
};

/// What the enrol build exports, once per chip.
struct Enrolment {
  std::vector<std::uint8_t> helper;  ///< Public helper data, 1,088 bytes
  std::vector<OwnerRoot> owners;     ///< One per slot asked for; the destructor overwrites them
  std::uint32_t margin;              ///< Margin at which enough responses survived
  ~Enrolment();
};

class PublicRecord;
namespace lock {
struct attestation;
}

/// One opened card. Move-only. Names:
///   "0", "1", ...             card by index; also a PCIe address such as "0000:03:00.1"
///   "sim:7"                   the simulated card whose silicon has seed 7
///   "sim:7,temperature=85"    with settings: temperature (C), voltage (V), age (years), noise
///                             (factor), memory (ideal, ddr4-2400, hbm)
/// Simulation is never chosen by itself. Simulated cards of one process are named together, before
/// the first is opened, with simulate(); a process with one card need not.
class Device {
 public:
  /// Real cards, then the simulated cards that have state on this machine.
  static std::vector<DeviceInfo> list();

  /// Names the simulated cards of this process. Throws latchkey::error (usage) when XRT was already
  /// started with others, or for a malformed name.
  static void simulate(const std::vector<std::string>& names);

  /// Opens a card. Throws latchkey::error: no_device, device_busy, usage.
  explicit Device(const std::string& name);
  Device(Device&&) noexcept;
  Device& operator=(Device&&) noexcept;
  ~Device();

  const std::string& name() const;
  bool simulated() const;

  /// Loads a build; array_n selects the card image (16, 32 or 64; ignored for enrol) and `units`
  /// how many compute units it has at least: an image that is loaded and has them stays. The images
  /// are `operate-n16.xclbin`, `unlocked-n16.xclbin`, `enrol.xclbin`, ... and with two units
  /// `operate-n16x2.xclbin`, `unlocked-n16x2.xclbin`, `enrol-x2.xclbin`, in $LATCHKEY_IMAGES or
  /// beside the program. Throws latchkey::error: bad_file when the image is missing, mismatch when
  /// a unit's own registers disagree with what was asked for, device_busy when a session runs on
  /// the loaded one.
  BuildInfo load(Build build, std::uint32_t array_n = 16, std::uint32_t units = 1);

  /// Enrols a unit: loads the enrol build, selects reliable PUF responses, exports helper data and
  /// the roots of `slots` owner slots, first_slot and up, within 0..7. Every unit of a card has a
  /// PUF of its own and is enrolled by itself, once. Throws latchkey::error: already_enrolled,
  /// run_failed, usage. The caller must store the result before it is destroyed: it cannot be had
  /// again.
  Enrolment enroll(std::uint32_t first_slot, std::uint32_t slots, std::uint32_t unit = 0);

  /// Loads the operate build, starts the chip's key from `record`, lets the chip prove itself over
  /// `challenge` under the attestation key of `slot`, and wipes. What comes back is only what the
  /// card says; lock::verify judges it. Throws latchkey::error: refused, not_enrolled, device_busy
  /// when a session of this program runs on the card.
  lock::attestation attest(const PublicRecord& record,
                           const std::array<std::uint8_t, 32>& challenge, std::uint32_t slot,
                           std::uint32_t array_n = 16, std::uint32_t unit = 0);

  /// Wipes every key, plaintext weight and activation in every unit of the loaded operate build.
  void zeroise();

  struct Impl;  ///< Shared with Session.
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace latchkey

#endif  // LATCHKEY_DEVICE_HPP
