#include <fmt/format.h>

#include "commands.hpp"
#include "console.hpp"
#include "latchkey/device.hpp"

namespace latchkey::cli {

void add_wipe(CLI::App& app) {
  auto device = std::make_shared<std::string>();
  auto* command = app.add_subcommand(
      "wipe", "Zeroise a card: every key, plaintext weight and activation in its operate build");
  command->add_option("--device", *device, "Card: an index, a PCIe address, or sim:SEED")
      ->required();
  command->callback([device] {
    Device card(*device);
    card.zeroise();
    say(fmt::format("{}: keys, weights and activations are wiped; the chip stays enrolled",
                    *device));
    result({{"device", *device}, {"wiped", true}});
  });
}

}  // namespace latchkey::cli
