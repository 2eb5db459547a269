// IDX and NPY files, sound and broken.
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

class Npy : public Idx {
 protected:
  static std::string npy(const std::string& type, const std::string& shape,
                         const std::string& values, const std::string& order = "False") {
    std::string header =
        "{'descr': '" + type + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
    header.resize((10 + header.size() + 64) / 64 * 64 - 10, ' ');
    header.back() = '\n';
    return std::string("\x93NUMPY\x01\0", 8) + static_cast<char>(header.size() & 0xFF) +
           static_cast<char>(header.size() >> 8) + header + values;
  }
  template <typename T>
  static std::string raw(std::initializer_list<T> values) {
    return {reinterpret_cast<const char*>(std::data(values)), values.size() * sizeof(T)};
  }
};

TEST_F(Npy, ReadsBytesAndRealValues) {
  const npy_array bytes = read_npy(write("a.npy", npy("|u1", "(2, 3)", "abcdef")));
  EXPECT_EQ(bytes.dims, (std::vector<std::size_t>{2, 3}));
  EXPECT_TRUE(bytes.bytes);
  EXPECT_EQ(bytes.values.at(5), 'f');
  const npy_array real = read_npy(write("b.npy", npy("<f4", "(2,)", raw({0.5F, -3.0F}))));
  EXPECT_EQ(real.values, (std::vector<float>{0.5F, -3.0F}));
  EXPECT_FALSE(real.bytes);
  const npy_array wide = read_npy(write("c.npy", npy("<f8", "()", raw({0.25}))));
  EXPECT_EQ(wide.values, std::vector<float>{0.25F});
  EXPECT_TRUE(wide.dims.empty());
}

TEST_F(Npy, RefusesBrokenFiles) {
  const std::string good = npy("|u1", "(2, 3)", "abcdef");
  const std::pair<const char*, std::string> broken[] = {
      {"empty", ""},
      {"magic", "\x93NUMPX" + good.substr(6)},
      {"version", good.substr(0, 6) + '\x09' + good.substr(7)},
      {"short", good.substr(0, good.size() - 1)},
      {"long", good + "x"},
      {"header", good.substr(0, 40)},
      {"header length", good.substr(0, 8) + "\xFF\xFF" + good.substr(10)},
      {"order", npy("|u1", "(2, 3)", "abcdef", "True")},
      {"type", npy("<i4", "(1,)", "abcd")},
      {"big endian", npy(">f4", "(1,)", "abcd")},
      {"shape", npy("|u1", "(2, x)", "ab")},
      {"negative", npy("|u1", "(-1,)", "a")},
      {"huge", npy("|u1", "(99999999999999999999, 9)", "a")},
      {"overflow", npy("<f8", "(1048576, 1048576)", "a")},
      {"no shape", npy("|u1", "None", "a")},
  };
  for (const auto& [what, content] : broken) {
    const std::string path = write("broken.npy", content);
    try {
      read_npy(path);
      ADD_FAILURE() << what << " was accepted";
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::bad_file) << what;
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(read_npy(folder_ / "none.npy"), error);
  for (std::size_t n = 0; n < good.size(); ++n) {
    EXPECT_THROW(read_npy(write("cut.npy", good.substr(0, n))), error) << n;
  }
}

TEST_F(Npy, ImagesComeFromFilesAndFolders) {
  write("b.npy", npy("<f4", "(2, 1, 2)", raw({1.0F, 2.0F, 3.0F, 4.0F})));  // Two images.
  write("a.npy", npy("|u1", "(1, 2)", std::string("\x00\xFF", 2)));        // One.
  write("c.txt", "no image");
  const auto all = read_images(folder_, 2, 0);
  EXPECT_EQ(all, (std::vector<std::vector<float>>{{0, 1}, {1, 2}, {3, 4}}));
  EXPECT_EQ(read_images(folder_, 2, 2), (std::vector<std::vector<float>>{{0, 1}, {1, 2}}));
  EXPECT_EQ(read_images(folder_ / "b.npy", 4, 9), (std::vector<std::vector<float>>{{1, 2, 3, 4}}));
  EXPECT_EQ(read_images(write("set", idx({2, 1, 2}, std::string("\x00\xFF\xFF\x00", 4))), 2, 1),
            (std::vector<std::vector<float>>{{0, 1}}));
  const auto expect_mismatch = [&](const std::filesystem::path& from, std::size_t size) {
    try {
      read_images(from, size, 0);
      ADD_FAILURE() << from << " was accepted";
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::mismatch) << e.what();
    }
  };
  expect_mismatch(folder_ / "b.npy", 3);
  expect_mismatch(write("none.npy", npy("<f4", "(0, 2)", "")), 2);
  std::filesystem::create_directories(folder_ / "empty");
  expect_mismatch(folder_ / "empty", 2);
}

}  // namespace
}  // namespace latchkey::model
