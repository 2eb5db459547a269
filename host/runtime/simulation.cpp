// Asking for simulated cards: two environment variables that XRT reads make it load our driver, one
// more names the cards. Set before the first XRT call; nothing of the simulator is linked here.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <regex>

#include "card.hpp"

namespace fs = std::filesystem;

namespace latchkey {
namespace {

std::mutex mutex;
std::vector<std::string> cards;  // as given, "sim:7,temperature=85"

/// Folder that holds xrt/ and images/: the build folder, or lib/latchkey of an installation.
fs::path simulation_root() {
  if (const char* root = std::getenv("LATCHKEY_SIM_ROOT")) return root;
  std::error_code ignored;
  const fs::path exe = fs::read_symlink("/proc/self/exe", ignored);
  for (fs::path dir = exe.parent_path(); !dir.empty() && dir != dir.root_path();
       dir = dir.parent_path()) {
    for (const fs::path& root : {dir, dir / "lib" / "latchkey"})
      if (fs::exists(root / "xrt" / "lib" / "libxrt_hwemu.so.2", ignored)) return root;
  }
  throw error(
      errc::no_device,
      fmt::format("the simulated card's driver (xrt/lib/libxrt_hwemu.so.2) is not beside {}; "
                  "build it with ./dev build, or name its folder in LATCHKEY_SIM_ROOT",
                  exe.string()));
}

/// "sim:7,temperature=85" to the driver's "7;temperature=85".
std::string driver_form(const std::string& name) {
  std::string form = name.substr(4);
  std::replace(form.begin(), form.end(), ',', ';');
  const std::string seed = form.substr(0, form.find(';'));
  if (seed.empty() || seed.size() > 18 ||
      seed.find_first_not_of("0123456789") != std::string::npos) {
    throw error(errc::usage,
                fmt::format("simulated card '{}': the seed must be a decimal number, as "
                            "in sim:7 or sim:7,temperature=85",
                            name));
  }
  return form;
}

}  // namespace

namespace simulation {

void prepare(const std::vector<std::string>& names) {
  const std::lock_guard lock(mutex);
  if (cards == names) return;
  if (!cards.empty()) {
    throw error(errc::usage,
                fmt::format("this process already simulates {}; name all simulated cards together "
                            "before the first one is opened",
                            fmt::join(cards, " ")));
  }
  std::string list;
  for (const std::string& name : names) {
    if (!list.empty()) list += ',';
    list += driver_form(name);
  }
  const fs::path root = simulation_root();
  ::setenv("XCL_EMULATION_MODE", "hw_emu", 1);
  ::setenv("XILINX_XRT", (root / "xrt").c_str(), 1);
  ::setenv("LATCHKEY_SIM_CARDS", list.c_str(), 1);
  cards = names;
}

unsigned index_of(const std::string& name) {
  {
    const std::lock_guard lock(mutex);
    const auto at = std::find(cards.begin(), cards.end(), name);
    if (at != cards.end()) return static_cast<unsigned>(at - cards.begin());
  }
  prepare({name});
  return 0;
}

fs::path state_dir() {
  if (const char* dir = std::getenv("LATCHKEY_STATE_DIR")) return dir;
  if (const char* dir = std::getenv("XDG_STATE_HOME"); dir && *dir)
    return fs::path(dir) / "latchkey";
  const char* home = std::getenv("HOME");
  return fs::path(home ? home : ".") / ".local" / "state" / "latchkey";
}

}  // namespace simulation

namespace {

fs::path image_folder(bool simulated) {
  if (const char* images = std::getenv("LATCHKEY_IMAGES")) return images;
  if (simulated) return simulation_root() / "images";
  throw error(errc::bad_file,
              "no card images: name the folder with the xclbin files for this card in "
              "LATCHKEY_IMAGES (bitstreams/README.md tells how to make them)");
}

}  // namespace

std::uint32_t most_units(bool simulated) {
  static const std::regex name("(operate|unlocked)-n[0-9]+(x([0-9]{1,2}))?\\.xclbin");
  std::uint32_t most = 0;
  fs::path dir;
  try {
    dir = image_folder(simulated);
  } catch (const error&) {
    return 0;
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(dir, ignored)) {
    std::smatch match;
    const std::string file = entry.path().filename();
    if (std::regex_match(file, match, name)) {
      const std::uint32_t units =
          match[3].matched ? static_cast<std::uint32_t>(std::stoul(match[3])) : 1;
      most = std::max(most, units);
    }
  }
  return most;
}

fs::path find_image(Build build, std::uint32_t array_n, std::uint32_t units, bool simulated) {
  std::string file =
      build == Build::enrol
          ? "enrol"
          : fmt::format("{}-n{}", build == Build::operate ? "operate" : "unlocked", array_n);
  if (units > 1) file += fmt::format("{}x{}", build == Build::enrol ? "-" : "", units);
  file += ".xclbin";
  const fs::path dir = image_folder(simulated);
  if (!fs::exists(dir / file)) {
    std::vector<std::string> there;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(dir, ignored))
      if (entry.path().extension() == ".xclbin") there.push_back(entry.path().filename());
    std::sort(there.begin(), there.end());
    throw error(
        errc::bad_file,
        fmt::format("card image {} is missing; the folder (LATCHKEY_IMAGES names another) has "
                    "{}. Build it, or compile the model with --array for a build that is there",
                    (dir / file).string(),
                    there.empty() ? "no images" : fmt::format("{}", fmt::join(there, ", "))));
  }
  return dir / file;
}

}  // namespace latchkey
