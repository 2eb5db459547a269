#include "tool.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

extern char** environ;

namespace latchkey::e2e {
namespace {

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string encode64(const bytes& data) {
  std::string text(4 * ((data.size() + 2) / 3) + 1, '\0');
  text.resize(static_cast<std::size_t>(EVP_EncodeBlock(
      reinterpret_cast<std::uint8_t*>(text.data()), data.data(), static_cast<int>(data.size()))));
  return text;
}

bytes decode64(const std::string& text) {
  bytes data(text.size() / 4 * 3);
  const int n = EVP_DecodeBlock(data.data(), reinterpret_cast<const std::uint8_t*>(text.data()),
                                static_cast<int>(text.size()));
  if (n < 0) throw std::runtime_error("not base64");
  const auto pad = static_cast<std::size_t>(std::count(text.begin(), text.end(), '='));
  data.resize(static_cast<std::size_t>(n) - pad);
  return data;
}

}  // namespace

bytes read(const fs::path& path) {
  const std::string text = slurp(path);
  if (text.empty()) throw std::runtime_error(path.string() + " is empty or missing");
  return {text.begin(), text.end()};
}

void write(const fs::path& path, const bytes& data) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

void write(const fs::path& path, const std::string& text) {
  write(path, bytes(text.begin(), text.end()));
}

nlohmann::json Outcome::json() const {
  auto j = nlohmann::json::parse(out, nullptr, false);
  return j.is_discarded() ? nlohmann::json() : j;
}

std::string Outcome::message() const {
  const auto j = json();
  if (!j.is_object() || !j.contains("error")) return {};
  return j["error"].value("message", "");
}

std::uint64_t Outcome::released() const {
  const auto j = json();
  if (!j.is_object() || !j.contains("error")) return 0;
  return j["error"].value("released_bytes", std::uint64_t{0});
}

Child::Child(const std::vector<std::string>& words, const std::map<std::string, std::string>& env,
             const fs::path& folder, const std::function<void()>& before_exec) {
  static std::atomic<int> serial = 0;
  const std::string tag = std::to_string(::getpid()) + "-" + std::to_string(++serial);
  out_ = folder / ("stdout-" + tag);
  err_ = folder / ("stderr-" + tag);

  std::vector<std::string> settings;
  for (char** e = environ; *e; ++e) {
    const std::string entry = *e;
    if (!env.contains(entry.substr(0, entry.find('=')))) settings.push_back(entry);
  }
  for (const auto& [name, value] : env)
    if (!value.empty()) settings.push_back(name + "=" + value);
  std::vector<char*> envp, argv;
  for (auto& s : settings) envp.push_back(s.data());
  envp.push_back(nullptr);
  std::vector<std::string> copy = words;
  for (auto& s : copy) argv.push_back(s.data());
  argv.push_back(nullptr);

  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ == 0) {
    // A session of its own: no controlling terminal that a passphrase could be asked on.
    ::setsid();
    const auto redirect = [](const char* path, int flags, int to) {
      const int fd = ::open(path, flags, 0600);
      if (fd < 0 || ::dup2(fd, to) < 0) ::_exit(126);
      ::close(fd);
    };
    redirect("/dev/null", O_RDONLY, 0);
    redirect(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 1);
    redirect(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 2);
    if (before_exec) before_exec();
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
}

Child::~Child() {
  if (running()) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
  }
}

bool Child::running() {
  if (ended_) return false;
  const pid_t r = ::waitpid(pid_, &status_, WNOHANG);
  ended_ = r == pid_ || (r < 0 && errno == ECHILD);
  return !ended_;
}

void Child::signal(int number) const { ::kill(pid_, number); }
std::string Child::err() const { return slurp(err_); }

Outcome Child::wait(std::chrono::seconds limit) {
  Outcome o;
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (running()) {
    if (std::chrono::steady_clock::now() > deadline) {
      o.timed_out = true;
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, &status_, 0);
      ended_ = true;
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  o.code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  o.out = slurp(out_);
  o.err = slurp(err_);
  return o;
}

Workspace::Workspace() {
  std::string name = (fs::temp_directory_path() / "latchkey-e2e-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed");
  root_ = name;
  fs::create_directory(path("state"));
  write(path("pass"), std::string("correct horse 42\n"));
}

Workspace::~Workspace() {
  std::error_code ignored;
  fs::remove_all(root_, ignored);
}

std::map<std::string, std::string> Workspace::environment(
    const std::map<std::string, std::string>& more) const {
  // Empty: not set. Nothing of the caller's own cards gets in.
  std::map<std::string, std::string> env = {
      {"LATCHKEY_STATE_DIR", str("state")}, {"LATCHKEY_IMAGES", ""},    {"LATCHKEY_SIM_ROOT", ""},
      {"LATCHKEY_SIM_CARDS", ""},           {"XCL_EMULATION_MODE", ""}, {"XILINX_XRT", ""}};
  for (const auto& [k, v] : more) env[k] = v;
  return env;
}

std::unique_ptr<Child> Workspace::start(const std::vector<std::string>& words,
                                        const std::map<std::string, std::string>& env,
                                        const std::function<void()>& before_exec) const {
  std::vector<std::string> all = {LATCHKEY_TOOL, "--json"};
  all.insert(all.end(), words.begin(), words.end());
  return std::make_unique<Child>(all, environment(env), root_, before_exec);
}

Outcome Workspace::tool(const std::vector<std::string>& words,
                        const std::map<std::string, std::string>& env,
                        const std::function<void()>& before_exec) const {
  Outcome o = start(words, env, before_exec)->wait();
  if (o.timed_out) ADD_FAILURE() << "latchkey " << words.at(0) << " took too long\n" << o.err;
  return o;
}

nlohmann::json Workspace::enroll(const std::string& device, const std::string& record) const {
  const Outcome o = tool(
      {"enroll", "--device", device, "--record", str(record), "--passphrase-file", str("pass")});
  EXPECT_EQ(o.code, 0) << o.err;
  return o.json();
}

nlohmann::json Workspace::compile_digits(const std::string& program,
                                         const std::vector<std::string>& more) const {
  std::vector<std::string> words = {"compile",
                                    model("digits_mlp.onnx"),
                                    "-o",
                                    str(program),
                                    "--calibrate",
                                    model("digits-train-images-idx3-ubyte.gz"),
                                    "--evaluate",
                                    digit_images(),
                                    "--labels",
                                    digit_labels(),
                                    "--reference-output",
                                    path(program).replace_extension(".ref").string()};
  words.insert(words.end(), more.begin(), more.end());
  const Outcome o = tool(words);
  EXPECT_EQ(o.code, 0) << o.err;
  return o.json();
}

nlohmann::json Workspace::lock(const std::string& program, const std::string& record,
                               const std::string& package,
                               const std::vector<std::string>& more) const {
  std::vector<std::string> words = {"lock", str(program), "--record",          str(record),
                                    "-o",   str(package), "--passphrase-file", str("pass")};
  words.insert(words.end(), more.begin(), more.end());
  const Outcome o = tool(words);
  EXPECT_EQ(o.code, 0) << o.err;
  return o.json();
}

void Workspace::session() const {
  enroll("sim:7", "card.lkd");
  compile_digits("digits.lkm");
  lock("digits.lkm", "card.lkd", "digits.lkx");
}

std::vector<std::string> Workspace::run_words(int count,
                                              const std::vector<std::string>& more) const {
  std::vector<std::string> words = {
      "run",   str("digits.lkx"), "--record",     str("card.lkd"), "--device",
      "sim:7", "--images",        digit_images(), "--count",       std::to_string(count)};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::string model(const std::string& name) { return std::string(LATCHKEY_MODELS "/") + name; }
std::string fashion(const std::string& name) { return "/usr/share/datasets/fashion-mnist/" + name; }
std::string digit_images() { return model("digits-test-images-idx3-ubyte.gz"); }
std::string digit_labels() { return model("digits-test-labels-idx1-ubyte.gz"); }

Layout layout_of(const bytes& package) {
  std::uint64_t header = 0, pages = 0;
  std::memcpy(&header, package.data() + 8, 8);
  std::memcpy(&pages, package.data() + 16, 8);
  Layout l{};
  l.header = 64;
  l.manifest = l.header + header;
  l.key = l.manifest + 128;
  l.tags = l.key + 56;
  l.pages = l.tags + 16 * pages;
  l.num_pages = pages;
  l.end = l.pages + 4096 * pages;
  if (l.end != package.size()) throw std::runtime_error("the package's parts do not add up");
  return l;
}

std::string flipped(const Workspace& w, const std::string& from, const std::string& to,
                    std::size_t byte, unsigned bit) {
  bytes data = read(w.path(from));
  data.at(byte) ^= static_cast<std::uint8_t>(1u << bit);
  write(w.path(to), data);
  return w.str(to);
}

std::string flipped_helper(const Workspace& w, const std::string& from, const std::string& to,
                           std::size_t byte, unsigned bit) {
  const bytes text = read(w.path(from));
  auto record = nlohmann::json::parse(text);
  bytes helper = decode64(record["public"]["helper"].get<std::string>());
  if (helper.size() != 1088) throw std::runtime_error("the helper data has another length");
  helper.at(byte) ^= static_cast<std::uint8_t>(1u << bit);
  record["public"]["helper"] = encode64(helper);
  if (byte >= 8 && byte < 24) {
    // The device id stands in the record a second time; a forger changes both.
    static constexpr char digits[] = "0123456789abcdef";
    std::string id;
    for (std::size_t i = 8; i < 24; ++i) {
      id += digits[helper[i] >> 4];
      id += digits[helper[i] & 15];
    }
    record["public"]["device_id"] = id;
  }
  write(w.path(to), record.dump(2));
  return w.str(to);
}

}  // namespace latchkey::e2e
