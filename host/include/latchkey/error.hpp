// The one exception of the Latchkey host, and the exit codes of its tools.
//
// A message says three things: what failed, where (file, node, register, page), and what to do
// about it. Code that catches an error decides by code(), never by the text.
#ifndef LATCHKEY_ERROR_HPP
#define LATCHKEY_ERROR_HPP

#include <stdexcept>
#include <string>

namespace latchkey {

/// Why an operation failed. The value is the exit code of the command-line tool; 0 is success and 1
/// is left to failures that are not a latchkey::error.
enum class errc : int {
  usage = 2,              ///< The command line or a call's arguments make no sense.
  bad_file = 3,           ///< A file is missing, truncated, malformed or fails its checksum.
  unsupported_model = 4,  ///< The model is sound, but uses something the accelerator has not got.
  no_device = 5,          ///< No card, or no card that answers.
  device_busy = 6,        ///< Another process holds the card.
  not_enrolled = 7,       ///< The chip has no helper data yet.
  already_enrolled = 8,   ///< The chip was enrolled before, which works once.
  refused = 9,            ///< The lock refused: wrong chip, changed data or revoked version.
  run_failed = 10,        ///< The card started the run and did not finish it well.
  mismatch = 11,          ///< Package and card (or two results) do not agree.
  io = 12,                ///< The operating system failed a read or a write.
  interrupted = 130,      ///< Stopped by a signal.
};

/// Thrown by every function of the host library that cannot do what it was asked.
class error : public std::runtime_error {
 public:
  error(errc code, const std::string& message) : std::runtime_error(message), code_(code) {}

  /// Why; also the exit code.
  [[nodiscard]] errc code() const noexcept { return code_; }

  /// code() as a process exit status.
  [[nodiscard]] int exit_code() const noexcept { return static_cast<int>(code_); }

 private:
  errc code_;
};

}  // namespace latchkey

#endif  // LATCHKEY_ERROR_HPP
