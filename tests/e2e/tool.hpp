// What the end-to-end tests share: the latchkey tool as a child process, and a fresh workspace with
// a card's state, a record, a program and a package.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace latchkey::e2e {

namespace fs = std::filesystem;
using bytes = std::vector<std::uint8_t>;

bytes read(const fs::path& path);
void write(const fs::path& path, const bytes& data);
void write(const fs::path& path, const std::string& text);

/// What a finished child left behind.
struct Outcome {
  int code = -1;  ///< Exit code; 128 + signal number for a child that a signal ended
  bool timed_out = false;
  std::string out, err;

  /// Standard output as JSON; null when it is none.
  nlohmann::json json() const;
  /// The message of the error object; empty without one.
  std::string message() const;
  /// Bytes that the card released although the run failed; 0 without an error object.
  std::uint64_t released() const;
};

/// A running child; its destructor kills what still runs.
class Child {
 public:
  Child(const std::vector<std::string>& words, const std::map<std::string, std::string>& env,
        const fs::path& folder, const std::function<void()>& before_exec = {});
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  bool running();
  void signal(int number) const;
  /// What stands on standard error by now.
  std::string err() const;
  Outcome wait(std::chrono::seconds limit = std::chrono::seconds(120));

 private:
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
  fs::path out_, err_;
};

/// A temporary folder that holds the state of its cards and every file of the test.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  fs::path path(const std::string& name) const { return root_ / name; }
  std::string str(const std::string& name) const { return path(name).string(); }

  /// Runs `latchkey --json words...` to its end. The child has no terminal and no input.
  Outcome tool(const std::vector<std::string>& words,
               const std::map<std::string, std::string>& env = {},
               const std::function<void()>& before_exec = {}) const;
  /// As tool, still running.
  std::unique_ptr<Child> start(const std::vector<std::string>& words,
                               const std::map<std::string, std::string>& env = {},
                               const std::function<void()>& before_exec = {}) const;

  // The steps of a session. Each is checked with ADD_FAILURE and returns the tool's JSON.
  nlohmann::json enroll(const std::string& device, const std::string& record) const;
  nlohmann::json compile_digits(const std::string& program,
                                const std::vector<std::string>& more = {}) const;
  nlohmann::json lock(const std::string& program, const std::string& record,
                      const std::string& package, const std::vector<std::string>& more = {}) const;
  /// enroll, compile_digits and lock: card.lkd of sim:7, digits.lkm, digits.ref, digits.lkx.
  void session() const;

  /// Words of `run` for digits.lkx on sim:7 with card.lkd and `count` test images.
  std::vector<std::string> run_words(int count, const std::vector<std::string>& more = {}) const;

 private:
  std::map<std::string, std::string> environment(
      const std::map<std::string, std::string>& more) const;
  fs::path root_;
};

/// Files of the repository and of Debian's dataset-fashion-mnist.
std::string model(const std::string& name);
std::string fashion(const std::string& name);
std::string digit_images();
std::string digit_labels();

/// Where the parts of a package lie.
struct Layout {
  std::size_t header, manifest, key, tags, pages, num_pages, end;
};
Layout layout_of(const bytes& package);

/// The package or any other file with one bit changed, under a new name; returns its path.
std::string flipped(const Workspace& w, const std::string& from, const std::string& to,
                    std::size_t byte, unsigned bit);
/// The record with one bit of its helper data changed. For a bit of the device id the record's own
/// field changes too, so that the host cannot notice.
std::string flipped_helper(const Workspace& w, const std::string& from, const std::string& to,
                           std::size_t byte, unsigned bit);

}  // namespace latchkey::e2e
