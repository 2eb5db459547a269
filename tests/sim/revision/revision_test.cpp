// BUILD_HASH from both ends: what the primitive shows, and what the build's script makes of a
// folder. That a card image carries the one to the other is Api.TheCardNamesItsRevision.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <verilated.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "Vprim_build_hash.h"
#include "Vprim_build_hash_fabric.h"

// The image's constant, here of the test's own.
extern "C" unsigned int latchkey_build_hash() { return 0xfeedc0de; }

namespace {

namespace fs = std::filesystem;

TEST(Revision, TheSimulatedPrimitiveAsksTheImage) {
  Vprim_build_hash top;
  top.eval();
  EXPECT_EQ(top.hash_o, 0xfeedc0deu);
}

TEST(Revision, TheFabricHasTheParameter) {
  Vprim_build_hash_fabric top;
  top.eval();
  EXPECT_EQ(top.hash_o, 0x01234567u);
}

/// A temporary folder and the script's answer for it.
class RevisionScript : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "latchkey-revision-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    fs::create_directory(root_ / "source");
    // Nothing above the folder and no settings of the user take part.
    ::setenv("GIT_CEILING_DIRECTORIES", root_.c_str(), 1);
    ::setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
    ::unsetenv("GIT_DIR");
  }
  void TearDown() override { fs::remove_all(root_); }

  static bool shell(const std::string& command) {
    const int status = std::system(command.c_str());
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  void git(const std::string& words) {
    ASSERT_TRUE(shell("git -C '" + (root_ / "source").string() +
                      "' -c user.name=test -c user.email=test@localhost " + words +
                      " >/dev/null 2>&1"))
        << "git " << words;
  }

  static std::string read(const fs::path& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  void write(const std::string& text) { std::ofstream(root_ / "source" / "file") << text; }

  void make_repository() {
    git("init -q");
    write("one");
    git("add file");
    git("commit -q -m one");
  }

  std::string head() {
    const std::string out = (root_ / "head").string();
    EXPECT_TRUE(shell("git -C '" + (root_ / "source").string() + "' rev-parse HEAD >" + out));
    return read(out).substr(0, 8);
  }

  /// The number that the written function returns, as it stands there.
  std::string hash() {
    EXPECT_TRUE(shell("'" LATCHKEY_CMAKE "' '-DSOURCE=" + (root_ / "source").string() +
                      "' '-DOUTPUT=" + output().string() + "' -P '" LATCHKEY_SCRIPT "'"));
    const std::string text = read(output());
    const auto at = text.find("return 0x"), end = text.find("u;", at);
    EXPECT_NE(end, std::string::npos) << text;
    return end == std::string::npos ? "" : text.substr(at + 9, end - at - 9);
  }
  fs::path output() const { return root_ / "revision.cpp"; }

  fs::path root_;
};

TEST_F(RevisionScript, NamesTheCommit) {
  ASSERT_NO_FATAL_FAILURE(make_repository());
  const std::string first = hash();
  EXPECT_EQ(first.size(), 8u);
  EXPECT_EQ(first, head());
  // A build without a new commit leaves the file alone, so nothing is compiled or linked again.
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1);
  fs::last_write_time(output(), old);
  EXPECT_EQ(hash(), first);
  EXPECT_EQ(fs::last_write_time(output()), old);
  write("two");
  git("commit -q -a -m two");
  EXPECT_NE(hash(), first);
  EXPECT_EQ(hash(), head());
}

TEST_F(RevisionScript, IsZeroForChangedFiles) {
  ASSERT_NO_FATAL_FAILURE(make_repository());
  write("changed");
  EXPECT_EQ(hash(), "0");
  git("add file");
  EXPECT_EQ(hash(), "0");
}

TEST_F(RevisionScript, IsZeroWithoutARepositoryOrACommit) {
  EXPECT_EQ(hash(), "0");
  git("init -q");
  EXPECT_EQ(hash(), "0");
}

}  // namespace
