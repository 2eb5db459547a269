// What must not be there: simulation code in the tool, keys and passphrases in files and outputs.
#include <gmock/gmock.h>

#include <array>
#include <cstdio>
#include <fstream>

#include "lock/package.hpp"
#include "lock/record.hpp"
#include "scan.hpp"
#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::string output_of(const std::string& command) {
  std::string text;
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("popen failed");
  std::array<char, 65536> buffer{};
  for (std::size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    text.append(buffer.data(), n);
  if (::pclose(pipe) != 0) throw std::runtime_error(command + " failed");
  return text;
}

/// What in a binary comes from the simulator: libraries that it needs, and symbols.
struct Binary {
  std::string needed, symbols, strings;
  explicit Binary(const std::string& path)
      : needed(output_of("readelf -d '" + path + "' | grep NEEDED")),
        symbols(output_of("nm -C '" + path + "'; nm -CD '" + path + "'")),
        strings(output_of("strings -n 6 '" + path + "'")) {}

  std::vector<std::string> simulation() const {
    std::vector<std::string> found;
    for (const char* word : {"verilat", "Verilat", "sc_core", "latchkey::sim::", "Vlatchkey_core"})
      if (symbols.find(word) != std::string::npos) found.push_back(word);
    for (const char* library : {"systemc", "hwemu"})
      if (needed.find(library) != std::string::npos) found.push_back(library);
    return found;
  }
};

TEST(Binary, TheToolKnowsXrtAndNoSimulator) {
  const Binary tool(LATCHKEY_TOOL);
  EXPECT_THAT(tool.needed, HasSubstr("libxrt_coreutil"));
  EXPECT_THAT(tool.simulation(), IsEmpty());
  EXPECT_THAT(tool.strings, Not(HasSubstr("sc_core")));
  EXPECT_THAT(tool.symbols, HasSubstr("xrt::")) << "the tool's symbols were not read";
}

TEST(Binary, TheSameLookFindsTheSimulatorInTheDriver) {
  const Binary driver(LATCHKEY_DRIVER);
  EXPECT_THAT(driver.simulation(), Contains("sc_core"));
  EXPECT_THAT(driver.simulation(), Contains("systemc"));
  EXPECT_THAT(driver.simulation(), Contains("latchkey::sim::"));
}

TEST(Scan, FindsEveryFormOfAPlantedKey) {
  std::array<std::uint8_t, 32> key{};
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(17 + 91 * i);
  KeyScan scan;
  scan.add("key", key);
  const std::string raw(key.begin(), key.end());
  const std::string noise = "some text before ";
  const auto found = [&](const std::string& text) {
    return !scan.find(noise + text + "z").empty();
  };
  EXPECT_TRUE(found(raw));
  EXPECT_TRUE(found(raw.substr(16)));  // half of it
  EXPECT_TRUE(found(std::string(raw.rbegin(), raw.rend())));
  EXPECT_TRUE(found(KeyScan::hex(raw, "0123456789abcdef")));
  EXPECT_TRUE(found(KeyScan::hex(raw, "0123456789ABCDEF")));
  for (std::size_t before = 0; before < 3; ++before)
    EXPECT_TRUE(found(KeyScan::base64(std::string(before, 'q') + raw)));
  std::string swapped;
  for (std::size_t i = 0; i < raw.size(); i += 4) {
    const std::string word = raw.substr(i, 4);
    swapped.append(word.rbegin(), word.rend());
  }
  EXPECT_TRUE(found(swapped));
  EXPECT_FALSE(found("and nothing else"));
}

// A whole session; then everything that it wrote or printed, file by file.
TEST(Keys, AreInNoFileAndInNoOutput) {
  Workspace w;
  const std::string passphrase = "correct horse 42";
  std::string printed;
  const auto tool = [&](const std::vector<std::string>& words, int code) {
    const Outcome o = w.tool(words);
    EXPECT_EQ(o.code, code) << o.err;
    printed += o.out + o.err;
  };
  tool({"enroll", "--device", "sim:7", "--record", w.str("card.lkd"), "--public",
        w.str("public.lkd"), "--passphrase-file", w.str("pass")},
       0);
  w.compile_digits("digits.lkm");
  tool({"lock", w.str("digits.lkm"), "--record", w.str("card.lkd"), "-o", w.str("digits.lkx"),
        "--passphrase-file", w.str("pass")},
       0);
  for (const char* mode : {"raw", "softmax", "top-k"})
    tool(w.run_words(32, {"--mode", mode, "-o", w.str(std::string("out-") + mode)}), 0);
  tool({"bench", w.str("digits.lkm"), "--device", "sim:7", "--record", w.str("card.lkd"),
        "--images", "8", "--passphrase-file", w.str("pass")},
       0);
  tool({"inspect", w.str("digits.lkx"), "--record", w.str("card.lkd"), "--passphrase-file",
        w.str("pass")},
       0);
  tool({"inspect", w.str("card.lkd")}, 0);
  const Layout at = layout_of(read(w.path("digits.lkx")));
  flipped(w, "digits.lkx", "bad.lkx", at.end - 1, 0);
  auto bad = w.run_words(8);
  bad[1] = w.str("bad.lkx");
  tool(bad, 9);
  flipped_helper(w, "card.lkd", "bad.lkd", 1060, 0);
  bad = w.run_words(8);
  bad[3] = w.str("bad.lkd");
  tool(bad, 9);
  tool({"wipe", "--device", "sim:7"}, 0);

  // The keys that a host can know: the owner key of the record, the model key of the package.
  const lock::device_record record = lock::read_record(w.str("card.lkd"), passphrase);
  ASSERT_EQ(record.keys.size(), 1U);
  const lock::package package = lock::read_package(w.str("digits.lkx"));
  lock::model_key model_key;
  std::array<std::uint8_t, 32> hash{};
  ASSERT_TRUE(lock::unwrap_model_key(record.keys[0].kek(), package.key, model_key, hash));
  KeyScan scan;
  scan.add("owner key", record.keys[0].root.view());
  scan.add("wrapping key", record.keys[0].kek().view());
  scan.add("model key", model_key.view());
  scan.add_text("passphrase", passphrase);

  EXPECT_THAT(scan.find(printed), IsEmpty());
  EXPECT_GT(printed.size(), 2000U);
  std::size_t files = 0;
  const auto scan_files = [&] {
    std::vector<std::string> found;
    files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(w.path(""))) {
      if (!entry.is_regular_file() || entry.path() == w.path("pass")) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(in), {}};
      ++files;
      for (const std::string& what : scan.find(text))
        found.push_back(entry.path().filename().string() + ": " + what);
    }
    return found;
  };
  EXPECT_THAT(scan_files(), IsEmpty());
  EXPECT_GE(files, 15U);  // state, records, program, packages, outputs, standard streams
  // The plaintext of the network is in the program only, not in the package.
  const bytes program = read(w.path("digits.lkm")), sealed = read(w.path("digits.lkx"));
  const auto weights = program.end() - 32 - 3 * 4096;
  EXPECT_EQ(std::search(sealed.begin(), sealed.end(), weights, weights + 64), sealed.end());

  // The same look finds planted keys.
  const auto key = record.keys[0].root.view();
  write(w.path("state/planted"), bytes(key.begin() + 8, key.begin() + 24));
  EXPECT_THAT(scan_files(), Contains(HasSubstr("planted: owner key")));
  write(w.path("state/planted"),
        KeyScan::base64("ab" + std::string(model_key.view().begin(), model_key.view().end())));
  EXPECT_THAT(scan_files(), Contains(HasSubstr("planted: model key, base64")));
}

TEST(Keys, FilesWithSecretsAreTheOwnersOnly) {
  Workspace w;
  w.session();
  for (const char* name : {"card.lkd", "digits.lkm"})
    EXPECT_EQ(fs::status(w.path(name)).permissions() & fs::perms{077}, fs::perms::none) << name;
}

// A passphrase is never an argument: it would stand in the process list.
TEST(Keys, NoOptionTakesAPassphrase) {
  Workspace w;
  for (const char* command : {"enroll", "lock", "inspect", "bench"}) {
    const Outcome o = w.tool({command, "--help"});
    EXPECT_EQ(o.code, 0);
    EXPECT_THAT(o.out, HasSubstr("--passphrase-fd"));
    EXPECT_THAT(o.out, Not(HasSubstr("--passphrase ")));
  }
}

}  // namespace
}  // namespace latchkey::e2e
