// IDX files, sound and broken.
#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "latchkey/error.hpp"
#include "model/dataset.hpp"

namespace latchkey::model {
namespace {

class Idx : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              (std::string("latchkey_idx_") + info->name() + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& bytes, bool packed = false) {
    const std::string path = (folder_ / name).string();
    if (packed) {
      gzFile out = gzopen(path.c_str(), "wb");
      gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size()));
      gzclose(out);
    } else {
      std::ofstream(path, std::ios::binary) << bytes;
    }
    return path;
  }

  static std::string idx(std::initializer_list<std::uint32_t> dims, const std::string& values) {
    std::string out{'\0', '\0', '\x08', static_cast<char>(dims.size())};
    for (const std::uint32_t d : dims) {
      for (int s = 24; s >= 0; s -= 8) out += static_cast<char>(d >> s & 0xFF);
    }
    return out + values;
  }

  static void expect_bad(const std::string& path) {
    try {
      read_idx(path);
      ADD_FAILURE() << path << " was accepted";
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::bad_file);
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
    }
  }

  std::filesystem::path folder_;
};

TEST_F(Idx, ReadsPlainAndPackedFiles) {
  const std::string file = idx({2, 1, 3}, "abcdef");
  for (const bool packed : {false, true}) {
    const idx_array a = read_idx(write("x", file, packed));
    EXPECT_EQ(a.dims, (std::vector<std::size_t>{2, 1, 3}));
    EXPECT_EQ(std::string(a.values.begin(), a.values.end()), "abcdef");
  }
}

TEST_F(Idx, ReadsADataset) {
  write("set-images-idx3-ubyte.gz", idx({2, 1, 3}, std::string("\x00\xff\x33wxy", 6)), true);
  write("set-labels-idx1-ubyte", idx({2}, "\x01\x02"));
  const dataset d = read_dataset((folder_ / "set").string());
  EXPECT_EQ(d.size(), 2U);
  EXPECT_EQ(d.rows, 1U);
  EXPECT_EQ(d.columns, 3U);
  EXPECT_EQ(d.image(1)[0], 'w');
  EXPECT_EQ(d.real_image(0), (std::vector<float>{0.0F, 1.0F, 0.2F}));
  EXPECT_EQ(d.sample(1).size(), 1U);
  EXPECT_EQ(d.sample(100).size(), 2U);
  EXPECT_EQ(d.sample(0).size(), 0U);
}

TEST_F(Idx, RefusesBrokenFiles) {
  expect_bad((folder_ / "absent").string());
  expect_bad(write("empty", ""));
  expect_bad(write("text", "this is no IDX file"));
  expect_bad(write("short", idx({2, 3}, "abcde")));
  expect_bad(write("long", idx({2, 3}, "abcdefg")));
  expect_bad(write("header", idx({2, 3}, "abcdef").substr(0, 9)));
  expect_bad(write("huge", idx({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, "x")));
  expect_bad(write("claim", idx({0x3FFFFFFF}, "x")));
  std::string floats = idx({1}, "abcd");
  floats[2] = '\x0D';
  expect_bad(write("floats", floats));
  const std::string path = write("damaged.gz", idx({4096}, std::string(4096, 'q')), true);
  std::string packed;
  {
    std::ifstream in(path, std::ios::binary);
    packed.assign(std::istreambuf_iterator<char>(in), {});
  }
  packed[packed.size() / 2] = static_cast<char>(packed[packed.size() / 2] ^ 0x55);
  expect_bad(write("damaged.gz", packed));
}

TEST_F(Idx, RefusesImagesWithoutTheirLabels) {
  write("set-images-idx3-ubyte", idx({2, 1, 1}, "ab"));
  EXPECT_THROW(read_dataset((folder_ / "set").string()), error);
  write("set-labels-idx1-ubyte", idx({3}, "abc"));
  EXPECT_THROW(read_dataset((folder_ / "set").string()), error);
  write("set-labels-idx1-ubyte", idx({2}, "ab"));
  EXPECT_NO_THROW(read_dataset((folder_ / "set").string()));
  write("set-images-idx3-ubyte", idx({2, 0, 1}, ""));
  EXPECT_THROW(read_dataset((folder_ / "set").string()), error);
}

}  // namespace
}  // namespace latchkey::model
