// What the subcommands share: output for people or as JSON, progress, passphrases, interruption.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstddef>
#include <string>

#include "latchkey_spec.hpp"
#include "lock/keys.hpp"
#include "lock/record.hpp"

namespace latchkey::cli {

/// Output settings of the process.
struct console {
  bool json = false;  ///< One JSON object on standard output, nothing else there
};
console& the_console();

/// A line for people: standard output, or standard error when standard output carries JSON.
void say(const std::string& line);
/// The command's result: prints the object when JSON is asked for.
void result(const nlohmann::json& object);

/// A bar on a terminal, a line every tenth of the way elsewhere. Also where a long job notices an
/// interrupt: update() throws latchkey::error (interrupted) after SIGINT or SIGTERM.
class progress {
 public:
  explicit progress(std::string what) : what_(std::move(what)) {}
  ~progress();
  void update(std::size_t done, std::size_t total);

 private:
  std::string what_;
  std::size_t last_ = 0;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Installs the handlers. The first signal lets the running step finish; files stay whole.
void catch_signals();
/// Throws latchkey::error (interrupted) when a signal came.
void check_interrupt();

/// Where a passphrase comes from: a prompt, an open file descriptor, or a file. Never an argument.
struct passphrase_source {
  int fd = -1;
  std::string file;

  void add_options(CLI::App& app);
  /// Asks `prompt` on the terminal, twice when `confirm`. Throws latchkey::error (usage) when there
  /// is no terminal and no other source, (bad_file) when the source cannot be read.
  lock::secret_buffer read(const std::string& prompt, bool confirm) const;
};

/// The characters of a passphrase.
inline std::string_view text(const lock::secret_buffer& passphrase) {
  return {reinterpret_cast<const char*>(passphrase.view().data()), passphrase.view().size()};
}

/// A device record with its secret part; asks for its passphrase.
lock::device_record open_record(const std::string& file, const passphrase_source& source);

/// Throws latchkey::error (io) unless the folder of `path` can be written into: asked before work
/// whose result would be lost.
void check_folder(const std::string& path);

/// For options that count something. CLI11 itself lets "-5" wrap and clamps what is too large.
inline const CLI::Validator whole_number(
    [](const std::string& text) -> std::string {
      if (!text.empty() && text.size() <= 10 &&
          text.find_first_not_of("0123456789") == std::string::npos &&
          std::stoull(text) <= 0xffffffffu)
        return {};
      return "'" + text + "' is not a whole number from 0 to 4294967295";
    },
    "COUNT");

/// For options that name an owner slot.
inline const CLI::Range owner_slot(0, static_cast<int>(spec::owner_slots) - 1);

/// "1.2.3", of a build's version.
std::string version_text(std::uint32_t version);
/// "1,234,567".
std::string grouped(std::uint64_t n);
/// "12.3 KiB".
std::string bytes_text(std::uint64_t n);

}  // namespace latchkey::cli
