#include "latchkey/device.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <xrt/xrt_uuid.h>
#include <xrt/experimental/xrt_system.h>

#include <cctype>
#include <chrono>
#include <thread>

#include "card.hpp"

namespace fs = std::filesystem;

namespace latchkey {
namespace {

constexpr std::uint32_t kMagic = 0x48434B4C;  // "LKCH"

bool is_simulated(const std::string& name) { return name.rfind("sim:", 0) == 0; }

xrt::device open_card(const std::string& name, bool simulated) {
  try {
    if (simulated) return xrt::device(simulation::index_of(name));
    if (!name.empty() && name.find_first_not_of("0123456789") == std::string::npos)
      return xrt::device(static_cast<unsigned>(std::stoul(name)));
    return xrt::device(name);
  } catch (const error&) {
    throw;
  } catch (const std::exception& e) {
    const std::string why = e.what();
    if (why.find("in use") != std::string::npos || why.find("busy") != std::string::npos) {
      throw error(errc::device_busy, fmt::format("device {}: card in use by another process; wait for "
                                                 "it to end or choose another card",
                                                 name));
    }
    throw error(errc::no_device,
                fmt::format("device {}: no such card ({}). `latchkey devices` lists the cards; "
                            "simulated ones are named sim:SEED",
                            name, why));
  }
}

}  // namespace

Enrolment::~Enrolment() { OPENSSL_cleanse(key.data(), key.size()); }

std::vector<DeviceInfo> Device::list() {
  std::vector<DeviceInfo> found;
  // With simulated cards prepared XRT would only see those.
  if (!std::getenv("XCL_EMULATION_MODE")) {
    unsigned count = 0;
    try {
      count = xrt::system::enumerate_devices();
    } catch (const std::exception&) {
      count = 0;  // XRT without any driver: no real card
    }
    for (unsigned i = 0; i < count; ++i) {
      std::string description = "card";
      try {
        xrt::device card(i);
        description = card.get_info<xrt::info::device::name>();
      } catch (const std::exception& e) {
        description = e.what();
      }
      found.push_back({std::to_string(i), description, false});
    }
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(simulation::state_dir(), ignored)) {
    const std::string folder = entry.path().filename();
    if (folder.rfind("sim-", 0) == 0)
      found.push_back({"sim:" + folder.substr(4), "simulated card (SystemC/TLM, Verilated kernel)",
                       true});
  }
  return found;
}

void Device::simulate(const std::vector<std::string>& names) {
  for (const std::string& name : names)
    if (!is_simulated(name))
      throw error(errc::usage, fmt::format("'{}' is not a simulated card; those are named sim:SEED",
                                           name));
  simulation::prepare(names);
}

Device::Device(const std::string& name) : impl_(std::make_unique<Impl>()) {
  impl_->name = name;
  impl_->simulated = is_simulated(name);
  impl_->device = open_card(name, impl_->simulated);
}
Device::Device(Device&&) noexcept = default;
Device& Device::operator=(Device&&) noexcept = default;
Device::~Device() = default;

const std::string& Device::name() const { return impl_->name; }
bool Device::simulated() const { return impl_->simulated; }

BuildInfo Device::load(Build build, std::uint32_t array_n) {
  const std::string image = find_image(build, array_n, impl_->simulated).string();
  if (impl_->info && impl_->image == image) return *impl_->info;

  impl_->info.reset();
  impl_->core = {};
  impl_->input = {};
  impl_->output = {};
  try {
    impl_->uuid = impl_->device.load_xclbin(image);
    const bool enrol = build == Build::enrol;
    impl_->core = xrt::kernel(impl_->device, impl_->uuid, enrol ? "latchkey_enrol" : "latchkey_core",
                              xrt::kernel::cu_access_mode::exclusive);
    if (!enrol) {
      impl_->input = xrt::kernel(impl_->device, impl_->uuid, "latchkey_input",
                                 xrt::kernel::cu_access_mode::exclusive);
      impl_->output = xrt::kernel(impl_->device, impl_->uuid, "latchkey_output",
                                  xrt::kernel::cu_access_mode::exclusive);
    }
  } catch (const std::exception& e) {
    throw error(errc::bad_file, fmt::format("device {}: loading card image {} failed: {}",
                                            impl_->name, image, e.what()));
  }

  if (const std::uint32_t magic = impl_->read(spec::reg::build_magic); magic != kMagic) {
    throw error(errc::mismatch, fmt::format("device {}: {} does not hold a Latchkey kernel (magic "
                                            "0x{:08x}, expected 0x{:08x})",
                                            impl_->name, image, magic, kMagic));
  }
  const std::uint32_t flags = impl_->read(spec::reg::build_flags);
  BuildInfo info{};
  info.build = (flags & 2) ? Build::enrol : (flags & 1) ? Build::operate : Build::unlocked;
  info.vendor_primitives = flags & 4;
  info.waveforms = flags & 8;
  info.config_id = impl_->read(spec::reg::config_id);
  info.array_n = impl_->read(spec::reg::array_n);
  info.spad_words = impl_->read(spec::reg::spad_words);
  info.version = impl_->read(spec::reg::build_version);
  info.hash = impl_->read(spec::reg::build_hash);
  if (info.build != build || (build != Build::enrol && info.array_n != array_n)) {
    throw error(errc::mismatch,
                fmt::format("device {}: {} holds another build than its name says (flags 0x{:x}, "
                            "array {}); rebuild the card images",
                            impl_->name, image, flags, info.array_n));
  }
  if (info.version != spec::build_version) {
    throw error(errc::mismatch,
                fmt::format("device {}: card image version {}.{}.{}, this program is {}.{}.{}; build "
                            "both from one source",
                            impl_->name, info.version >> 16, info.version >> 8 & 255,
                            info.version & 255, spec::build_version >> 16,
                            spec::build_version >> 8 & 255, spec::build_version & 255));
  }
  impl_->info = info;
  impl_->image = image;
  return info;
}

spec::key_err Device::Impl::command(spec::cmd command) {
  write(spec::reg::cmd, static_cast<std::uint32_t>(command));
  // The key block answers within milliseconds; a simulated one within a few seconds.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (static_cast<spec::key_state>(read(spec::reg::key_state)) == spec::key_state::busy) {
    if (std::chrono::steady_clock::now() > deadline) {
      throw error(errc::run_failed, fmt::format("device {}: the key block did not finish; reset the "
                                                "card",
                                                name));
    }
    if (!simulated) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return static_cast<spec::key_err>(read(spec::reg::key_err));
}

Enrolment Device::enroll(std::uint32_t slot, std::uint32_t epoch) {
  load(Build::enrol);
  impl_->write(spec::reg::slot, slot);
  impl_->write(spec::reg::epoch, epoch);
  const spec::key_err why = impl_->command(spec::cmd::enrol);
  if (why == spec::key_err::already_enrolled) {
    throw error(errc::already_enrolled,
                fmt::format("device {}: this chip was enrolled before and a chip is enrolled once; use "
                            "its device record, or another card",
                            impl_->name));
  }
  if (why != spec::key_err::none) {
    throw error(errc::run_failed, fmt::format("device {}: enrolment failed: {}", impl_->name,
                                              spec::describe(why)));
  }
  Enrolment result{};
  result.slot = slot;
  result.epoch = epoch;
  result.margin = impl_->read(spec::reg::margin);
  for (std::uint32_t i = 0; i < spec::helper_words; ++i) {
    const std::uint32_t word = impl_->read(spec::reg::helper_out + 4 * i);
    for (int b = 0; b < 4; ++b) result.helper.push_back(static_cast<std::uint8_t>(word >> 8 * b));
  }
  for (std::uint32_t i = 0; i < 8; ++i) {
    std::uint32_t word = impl_->read(spec::reg::kek_out + 4 * i);
    std::memcpy(result.key.data() + 4 * i, &word, 4);
    OPENSSL_cleanse(&word, sizeof word);
  }
  impl_->command(spec::cmd::kek_taken);
  return result;
}

void Device::zeroise() {
  if (!impl_->info || impl_->info->build == Build::enrol) load(Build::operate);
  if (const auto why = impl_->command(spec::cmd::zeroise); why != spec::key_err::none) {
    throw error(errc::run_failed, fmt::format("device {}: zeroise failed: {}", impl_->name,
                                              spec::describe(why)));
  }
}

}  // namespace latchkey
