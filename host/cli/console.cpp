#include "console.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "latchkey/error.hpp"

namespace latchkey::cli {
namespace {

volatile std::sig_atomic_t signalled = 0;

extern "C" void on_signal(int number) {
  if (signalled) {
    // The second signal does not wait; the kernel's default ends the process.
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  signalled = number;
}

constexpr std::size_t kMaxPassphrase = 1024;

/// One line from a descriptor, without its end.
lock::secret_buffer read_line(int fd, const std::string& what) {
  lock::secret_buffer buffer(kMaxPassphrase);
  std::size_t used = 0;
  for (;;) {
    char c = 0;
    const ssize_t n = ::read(fd, &c, 1);
    if (n < 0 && errno == EINTR) {
      check_interrupt();
      continue;
    }
    if (n < 0) {
      throw error(errc::bad_file,
                  fmt::format("{}: reading the passphrase failed: {}", what, std::strerror(errno)));
    }
    if (n == 0 || c == '\n') break;
    if (used == kMaxPassphrase) {
      throw error(errc::usage,
                  fmt::format("{}: the passphrase is longer than {} bytes", what, kMaxPassphrase));
    }
    buffer.writable()[used++] = static_cast<std::uint8_t>(c);
  }
  lock::secret_buffer line(used);
  std::copy_n(buffer.view().begin(), used, line.writable().begin());
  if (used == 0) throw error(errc::usage, fmt::format("{}: the passphrase is empty", what));
  return line;
}

/// Turns the terminal's echo off for its lifetime.
class no_echo {
 public:
  explicit no_echo(int fd) : fd_(fd) {
    ::tcgetattr(fd_, &saved_);
    termios quiet = saved_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(fd_, TCSAFLUSH, &quiet);
  }
  ~no_echo() { ::tcsetattr(fd_, TCSAFLUSH, &saved_); }
  no_echo(const no_echo&) = delete;
  no_echo& operator=(const no_echo&) = delete;

 private:
  int fd_;
  termios saved_{};
};

}  // namespace

console& the_console() {
  static console instance;
  return instance;
}

void say(const std::string& line) {
  std::FILE* to = the_console().json ? stderr : stdout;
  fmt::print(to, "{}\n", line);
  std::fflush(to);
}

void result(const nlohmann::json& object) {
  if (the_console().json) fmt::print("{}\n", object.dump(2));
}

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void check_interrupt() {
  if (signalled) throw error(errc::interrupted, "interrupted; nothing was left half written");
}

void progress::update(std::size_t done, std::size_t total) {
  check_interrupt();
  if (total == 0) return;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::size_t share = done * 100 / total;
  if (::isatty(STDERR_FILENO)) {
    const std::size_t filled = done * 30 / total;
    fmt::print(stderr, "\r{} [{}{}] {:>3} %  {}/{}  {:.0f} s ", what_, std::string(filled, '#'),
               std::string(30 - filled, '.'), share, done, total, seconds);
    std::fflush(stderr);
    drawn_ = true;
  } else if (share / 10 != last_ / 10 || done == total) {
    fmt::print(stderr, "{}: {}/{} ({:.0f} s)\n", what_, done, total, seconds);
  }
  last_ = share;
}

progress::~progress() {
  if (drawn_) fmt::print(stderr, "\n");
}

void passphrase_source::add_options(CLI::App& app) {
  auto* by_fd = app.add_option("--passphrase-fd", fd,
                               "Read the passphrase from this open file descriptor (first line)");
  auto* by_file =
      app.add_option("--passphrase-file", file, "Read the passphrase from this file (first line)");
  by_fd->excludes(by_file);
}

lock::secret_buffer passphrase_source::read(const std::string& prompt, bool confirm) const {
  if (fd >= 0) return read_line(fd, fmt::format("file descriptor {}", fd));
  if (!file.empty()) {
    const int opened = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (opened < 0) {
      throw error(errc::bad_file, fmt::format("{}: cannot read the passphrase file: {}", file,
                                              std::strerror(errno)));
    }
    struct closer {
      int fd;
      ~closer() { ::close(fd); }
    } close_it{opened};
    return read_line(opened, file);
  }
  const int tty = ::open("/dev/tty", O_RDWR | O_CLOEXEC);
  if (tty < 0) {
    throw error(
        errc::usage,
        "a passphrase is needed and there is no terminal to ask on; give --passphrase-fd or "
        "--passphrase-file");
  }
  struct closer {
    int fd;
    ~closer() { ::close(fd); }
  } close_it{tty};
  const auto ask = [&](const std::string& question) {
    const no_echo guard(tty);
    (void)!::write(tty, question.data(), question.size());
    lock::secret_buffer line = read_line(tty, "terminal");
    (void)!::write(tty, "\n", 1);
    return line;
  };
  lock::secret_buffer first = ask(prompt + ": ");
  if (confirm) {
    const lock::secret_buffer second = ask("Again: ");
    if (!std::ranges::equal(first.view(), second.view()))
      throw error(errc::usage, "the two passphrases differ; nothing was written");
  }
  return first;
}

void check_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::absolute(path).parent_path();
  if (::access(parent.c_str(), W_OK | X_OK) != 0) {
    throw error(errc::io, fmt::format("{}: cannot write into {}: {}", path, parent.string(),
                                      std::strerror(errno)));
  }
}

lock::device_record open_record(const std::string& file, const passphrase_source& source) {
  const lock::secret_buffer passphrase = source.read(fmt::format("Passphrase of {}", file), false);
  return lock::read_record(file, text(passphrase));
}

std::string version_text(std::uint32_t version) {
  return fmt::format("{}.{}.{}", version >> 16, version >> 8 & 255, version & 255);
}

std::string grouped(std::uint64_t n) {
  std::string s = std::to_string(n);
  for (int i = static_cast<int>(s.size()) - 3; i > 0; i -= 3)
    s.insert(static_cast<std::size_t>(i), ",");
  return s;
}

std::string bytes_text(std::uint64_t n) {
  if (n < 10240) return fmt::format("{} B", n);
  if (n < 10240 * 1024) return fmt::format("{:.1f} KiB", static_cast<double>(n) / 1024);
  return fmt::format("{:.1f} MiB", static_cast<double>(n) / (1024 * 1024));
}

}  // namespace latchkey::cli
