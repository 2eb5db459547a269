#include <fmt/format.h>

#include "commands.hpp"
#include "console.hpp"
#include "latchkey/device.hpp"

namespace latchkey::cli {

void add_devices(CLI::App& app) {
  auto* command = app.add_subcommand("devices", "List the cards of this machine");
  command->callback([] {
    const auto devices = Device::list();
    nlohmann::json list = nlohmann::json::array();
    for (const DeviceInfo& d : devices) {
      list.push_back({{"name", d.name},
                      {"description", d.description},
                      {"simulated", d.simulated},
                      {"units", d.units}});
      say(fmt::format("{:<12} {}; {} compute unit(s) with the images at hand", d.name,
                      d.description, d.units));
    }
    if (devices.empty())
      say("no cards. A simulated card needs no set-up: give any seed, as in --device sim:7");
    result({{"devices", list}});
  });
}

}  // namespace latchkey::cli
