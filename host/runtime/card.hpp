// The card behind Device and Session: XRT handles and register access for the loaded build.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include "latchkey/device.hpp"
#include "latchkey_spec.hpp"

namespace latchkey {

struct Device::Impl {
  std::string name;
  bool simulated = false;
  xrt::device device;

  // Of the loaded build; empty before the first load.
  std::optional<BuildInfo> info;
  std::string image;
  xrt::uuid uuid;
  struct Kernels {
    xrt::kernel core;   // latchkey_core or latchkey_enrol, exclusive: registers and runs
    xrt::kernel input;  // not in the enrol build
    xrt::kernel output;
  };
  std::vector<Kernels> units;        // by index; at least one when a build is loaded
  std::set<std::uint32_t> sessions;  // units that a Session has, one Session each

  std::uint32_t read(std::uint32_t unit, std::uint32_t offset) const {
    return units.at(unit).core.read_register(offset);
  }
  void write(std::uint32_t unit, std::uint32_t offset, std::uint32_t value) {
    units.at(unit).core.write_register(offset, value);
  }
  /// Gives a command to a unit's key block and waits until it is done. Returns its reason.
  spec::key_err command(std::uint32_t unit, spec::cmd command);
  /// The unit in messages: "sim:7", "sim:7 unit 1".
  std::string label(std::uint32_t unit) const;
};

/// The simulated cards' driver and images, found beside the program.
namespace simulation {
/// Makes XRT see the named cards; returns the index of `name` among them.
unsigned index_of(const std::string& name);
void prepare(const std::vector<std::string>& names);
/// Folder with a subfolder per simulated card.
std::filesystem::path state_dir();
}  // namespace simulation

/// The path of the card image with that many units. Throws latchkey::error (bad_file) when it is
/// not there.
std::filesystem::path find_image(Build build, std::uint32_t array_n, std::uint32_t units,
                                 bool simulated);
/// Most units of any image of the folder; 0 without images.
std::uint32_t most_units(bool simulated);

}  // namespace latchkey
