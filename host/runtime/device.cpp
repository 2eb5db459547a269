#include "latchkey/device.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <xrt/xrt_uuid.h>
#include <xrt/experimental/xrt_system.h>

#include <xclbin.h>

#include <cctype>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "card.hpp"
#include "unit.hpp"

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
      throw error(errc::device_busy,
                  fmt::format("device {}: card in use by another process; wait for "
                              "it to end or choose another card",
                              name));
    }
    // The driver's own name for the list of cards; what follows names card and setting.
    static constexpr std::string_view settings = "LATCHKEY_SIM_CARDS: ";
    if (const auto at = why.find(settings); simulated && at != std::string::npos) {
      throw error(errc::usage, fmt::format("simulated card '{}': {}. Settings are temperature, "
                                           "voltage, age, noise and memory, as in "
                                           "sim:7,temperature=85,memory=hbm",
                                           name, why.substr(at + settings.size())));
    }
    // XRT says this when it finds no driver of a real card.
    const bool no_driver = why.find("XILINX_XRT not set") != std::string::npos;
    throw error(errc::no_device,
                fmt::format("device {}: no such card ({}). `latchkey devices` lists the cards; "
                            "simulated ones are named sim:SEED",
                            name, no_driver ? "XRT finds no driver of a real card" : why));
  }
}

/// XRT trusts the lengths inside an xclbin; a cut file would make it read past the end.
void check_image(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  axlf head{};
  in.read(reinterpret_cast<char*>(&head), sizeof head);
  const auto got = static_cast<std::uint64_t>(in.gcount());
  if (got < sizeof head || std::memcmp(head.m_magic, "xclbin2", 8) != 0)
    throw error(errc::bad_file, fmt::format("card image {}: not an xclbin; build it again", path));
  const std::uint64_t size = fs::file_size(path);
  bool fits = head.m_header.m_length <= size;
  const std::uint64_t sections = head.m_header.m_numSections;
  const std::uint64_t table = offsetof(axlf, m_sections);
  fits = fits && sections <= (size - table) / sizeof(axlf_section_header);
  in.seekg(static_cast<std::streamoff>(table));
  for (std::uint64_t i = 0; fits && i < sections; ++i) {
    axlf_section_header section{};
    in.read(reinterpret_cast<char*>(&section), sizeof section);
    fits = in && section.m_sectionOffset <= size &&
           section.m_sectionSize <= size - section.m_sectionOffset;
  }
  if (!fits) {
    throw error(errc::bad_file,
                fmt::format("card image {}: {} bytes are there, its header tells of "
                            "more; build or copy it again",
                            path, size));
  }
}

}  // namespace

Enrolment::~Enrolment() {
  for (OwnerRoot& owner : owners) OPENSSL_cleanse(owner.root.data(), owner.root.size());
}

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
      found.push_back({std::to_string(i), description, false, most_units(false)});
    }
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(simulation::state_dir(), ignored)) {
    const std::string folder = entry.path().filename();
    if (folder.rfind("sim-", 0) == 0)
      found.push_back({"sim:" + folder.substr(4), "simulated card (SystemC/TLM, Verilated kernel)",
                       true, most_units(true)});
  }
  return found;
}

void Device::simulate(const std::vector<std::string>& names) {
  for (const std::string& name : names)
    if (!is_simulated(name))
      throw error(errc::usage,
                  fmt::format("'{}' is not a simulated card; those are named sim:SEED", name));
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

BuildInfo Device::load(Build build, std::uint32_t array_n, std::uint32_t units) {
  if (impl_->info && impl_->info->build == build && impl_->units.size() >= units &&
      (build == Build::enrol || impl_->info->array_n == array_n))
    return *impl_->info;
  const std::string image = find_image(build, array_n, units, impl_->simulated).string();
  if (!impl_->sessions.empty()) {
    throw error(errc::device_busy,
                fmt::format("device {}: a session of this program runs on {}; end it before {} is "
                            "loaded",
                            impl_->name, impl_->image, image));
  }
  check_image(image);

  impl_->info.reset();
  impl_->units.clear();
  try {
    impl_->uuid = impl_->device.load_xclbin(image);
    const auto open = [&](const char* kernel, const char* instance, std::uint32_t unit) {
      return xrt::kernel(impl_->device, impl_->uuid,
                         fmt::format("{}:{{{}_{}}}", kernel, instance, unit + 1),
                         xrt::kernel::cu_access_mode::exclusive);
    };
    for (std::uint32_t unit = 0; unit < units; ++unit) {
      Impl::Kernels& k = impl_->units.emplace_back();
      if (build == Build::enrol) {
        k.core = open("latchkey_enrol", "enrol", unit);
      } else {
        k.core = open("latchkey_core", "core", unit);
        k.input = open("latchkey_input", "input", unit);
        k.output = open("latchkey_output", "output", unit);
      }
    }
  } catch (const std::exception& e) {
    impl_->units.clear();
    throw error(errc::bad_file, fmt::format("device {}: loading card image {} failed: {}",
                                            impl_->name, image, e.what()));
  }

  BuildInfo info{};
  for (std::uint32_t unit = 0; unit < units; ++unit) {
    const std::string label = impl_->label(unit);
    const auto read = [&](std::uint32_t offset) { return impl_->read(unit, offset); };
    if (const std::uint32_t magic = read(spec::reg::build_magic); magic != kMagic) {
      throw error(errc::mismatch,
                  fmt::format("device {}: {} does not hold a Latchkey kernel (magic 0x{:08x}, "
                              "expected 0x{:08x})",
                              label, image, magic, kMagic));
    }
    const std::uint32_t flags = read(spec::reg::build_flags);
    info.build = (flags & 2) ? Build::enrol : (flags & 1) ? Build::operate : Build::unlocked;
    info.vendor_primitives = flags & 4;
    info.waveforms = flags & 8;
    info.config_id = read(spec::reg::config_id);
    info.array_n = read(spec::reg::array_n);
    info.spad_words = read(spec::reg::spad_words);
    info.version = read(spec::reg::build_version);
    info.hash = read(spec::reg::build_hash);
    if (info.build != build || (build != Build::enrol && info.array_n != array_n)) {
      throw error(errc::mismatch,
                  fmt::format("device {}: {} holds another build than its name says (flags 0x{:x}, "
                              "array {}); rebuild the card images",
                              label, image, flags, info.array_n));
    }
    if (info.version != spec::build_version) {
      throw error(
          errc::mismatch,
          fmt::format("device {}: card image version {}.{}.{}, this program is {}.{}.{}; build "
                      "both from one source",
                      label, info.version >> 16, info.version >> 8 & 255, info.version & 255,
                      spec::build_version >> 16, spec::build_version >> 8 & 255,
                      spec::build_version & 255));
    }
  }
  impl_->info = info;
  impl_->image = image;
  return info;
}

std::string Device::Impl::label(std::uint32_t unit) const {
  return units.size() > 1 ? fmt::format("{} unit {}", name, unit) : name;
}

spec::key_err Device::Impl::command(std::uint32_t unit, spec::cmd command) {
  write(unit, spec::reg::cmd, static_cast<std::uint32_t>(command));
  // The key block answers within milliseconds; a simulated one within a few seconds.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (static_cast<spec::key_state>(read(unit, spec::reg::key_state)) == spec::key_state::busy) {
    if (std::chrono::steady_clock::now() > deadline) {
      throw error(errc::run_failed,
                  fmt::format("device {}: the key block did not finish; reset the "
                              "card",
                              label(unit)));
    }
    if (!simulated) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return static_cast<spec::key_err>(read(unit, spec::reg::key_err));
}

Enrolment Device::enroll(std::uint32_t first_slot, std::uint32_t slots, std::uint32_t unit) {
  if (slots == 0 || slots > spec::owner_slots || first_slot > spec::owner_slots - slots) {
    throw error(errc::usage,
                fmt::format("owner slots {} to {}: a chip has {}, 0 to {}", first_slot,
                            first_slot + slots - 1, spec::owner_slots, spec::owner_slots - 1));
  }
  load(Build::enrol, 0, unit + 1);
  const std::string label = impl_->label(unit);
  impl_->write(unit, spec::reg::slot, first_slot);
  impl_->write(unit, spec::reg::slots, slots);
  const spec::key_err why = impl_->command(unit, spec::cmd::enrol);
  if (why == spec::key_err::already_enrolled) {
    throw error(
        errc::already_enrolled,
        fmt::format("device {}: this chip was enrolled before and a chip is enrolled once; use "
                    "its device record, or another card",
                    label));
  }
  if (why != spec::key_err::none) {
    throw error(errc::run_failed,
                fmt::format("device {}: enrolment failed: {}", label, spec::describe(why)));
  }
  Enrolment result{};
  result.margin = impl_->read(unit, spec::reg::margin);
  for (std::uint32_t i = 0; i < spec::helper_words; ++i) {
    const std::uint32_t word = impl_->read(unit, spec::reg::helper_out + 4 * i);
    for (int b = 0; b < 4; ++b) result.helper.push_back(static_cast<std::uint8_t>(word >> 8 * b));
  }
  result.owners.resize(slots);  // once: a vector that grows would leave copies behind
  for (std::uint32_t s = 0; s < slots; ++s) {
    result.owners[s].slot = first_slot + s;
    for (std::uint32_t i = 0; i < 8; ++i) {
      std::uint32_t word = impl_->read(unit, spec::reg::kek_out + 32 * s + 4 * i);
      std::memcpy(result.owners[s].root.data() + 4 * i, &word, 4);
      OPENSSL_cleanse(&word, sizeof word);
    }
  }
  impl_->command(unit, spec::cmd::kek_taken);
  return result;
}

lock::attestation Device::attest(const PublicRecord& record,
                                 const std::array<std::uint8_t, 32>& challenge, std::uint32_t slot,
                                 std::uint32_t array_n, std::uint32_t unit) {
  load(Build::operate, array_n, unit + 1);
  Unit u(*this, unit);
  return u.attest(record, challenge, slot);
}

void Device::zeroise() {
  if (!impl_->info || impl_->info->build == Build::enrol) load(Build::operate);
  for (std::uint32_t unit = 0; unit < impl_->units.size(); ++unit) {
    if (const auto why = impl_->command(unit, spec::cmd::zeroise); why != spec::key_err::none) {
      throw error(errc::run_failed, fmt::format("device {}: zeroise failed: {}", impl_->label(unit),
                                                spec::describe(why)));
    }
  }
}

}  // namespace latchkey
