// The card behind Device and Session: XRT handles and register access for the loaded build.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

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
  xrt::kernel core;   // latchkey_core or latchkey_enrol, exclusive: registers and runs
  xrt::kernel input;  // not in the enrol build
  xrt::kernel output;
  bool in_session = false;  // one Session at a time

  std::uint32_t read(std::uint32_t offset) const { return core.read_register(offset); }
  void write(std::uint32_t offset, std::uint32_t value) { core.write_register(offset, value); }

  /// Gives a command to the key block and waits until it is done. Returns its reason.
  spec::key_err command(spec::cmd command);
};

/// The simulated cards' driver and images, found beside the program.
namespace simulation {
/// Makes XRT see the named cards; returns the index of `name` among them.
unsigned index_of(const std::string& name);
void prepare(const std::vector<std::string>& names);
/// Folder with a subfolder per simulated card.
std::filesystem::path state_dir();
}  // namespace simulation

/// A card image's path. Throws latchkey::error (bad_file) when it is not there.
std::filesystem::path find_image(Build build, std::uint32_t array_n, bool simulated);

}  // namespace latchkey
