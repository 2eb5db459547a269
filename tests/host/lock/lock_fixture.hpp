// What the tests of records and packages share: a folder that goes away, a record, a small program,
// and the search for key bytes.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "compiler/file_io.hpp"
#include "compiler/program.hpp"
#include "lock/record.hpp"

namespace latchkey::lock {

class temp_dir {
 public:
  temp_dir() {
    std::string name = (std::filesystem::temp_directory_path() / "latchkey.XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~temp_dir() { std::filesystem::remove_all(path_); }
  temp_dir(const temp_dir&) = delete;
  temp_dir& operator=(const temp_dir&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  bool empty() const { return std::filesystem::is_empty(path_); }
  int count() const {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline constexpr scrypt_cost cheap{1024, 8, 1};

inline key_encryption_key random_kek() {
  key_encryption_key k;
  RAND_bytes(k.writable().data(), 32);
  return k;
}

/// A record of a random device with one random owner key in slot 0, epoch 0. Its helper data has
/// the right head; what follows is random, as on any chip.
inline device_record sample_record() {
  device_record r;
  RAND_bytes(r.pub.id.data(), static_cast<int>(r.pub.id.size()));
  r.pub.helper.resize(helper_bytes);
  RAND_bytes(r.pub.helper.data(), static_cast<int>(r.pub.helper.size()));
  const std::uint8_t head[] = {'L', 'K', 'H', 'D', 1, 0, 0, 0};
  std::copy(std::begin(head), std::end(head), r.pub.helper.begin());
  std::copy(r.pub.id.begin(), r.pub.id.end(), r.pub.helper.begin() + 8);
  r.keys.push_back({0, 0, random_kek()});
  return r;
}

/// Input 2x2x4 -> 1x1 convolution to 3 channels -> output, written out by hand: three pages.
inline compiler::program sample_program() {
  compiler::program p;
  p.name = "sample";
  p.target = {16, 64};
  p.max_batch = 4;
  p.peak_words = 2;
  p.input.name = "x";
  p.input.shape = {4, 2, 2};
  p.input.layout = compiler::tensor_layout::of(2, 2, 4);
  p.input.scale = 0.1F;
  p.input.zero_point = 3;
  p.output.name = "y";
  p.output.shape = {3, 2, 2};
  p.output.layout = compiler::tensor_layout::of(2, 2, 3);

  spec::descriptor in, mm, out, end;
  in.op = static_cast<std::uint32_t>(spec::op::input);
  in.out_stride = 1;
  mm.op = static_cast<std::uint32_t>(spec::op::mat_mul);
  mm.page_base = 1;
  mm.region = 2;
  mm.param_pages = mm.n_tiles = mm.k_tiles = 1;
  mm.in_stride = mm.out_stride = 1;
  mm.in_h = mm.in_w = mm.out_h = mm.out_w = 2;
  mm.in_cb = mm.out_cb = 1;
  mm.in_cp_log2 = mm.out_cp_log2 = 2;
  mm.in_c_last = 4;
  mm.out_c_last = 3;
  mm.out_base = 4;
  mm.kernel_h = mm.kernel_w = mm.stride_y = mm.stride_x = mm.taps = 1;
  mm.clamp_lo = 0x80;
  mm.clamp_hi = 0x7f;
  out.op = static_cast<std::uint32_t>(spec::op::output);
  out.in_base = 4;
  out.in_stride = 1;
  end.op = static_cast<std::uint32_t>(spec::op::end);
  p.descriptors = {in, mm, out, end};
  p.pages.resize(3 * spec::page_bytes);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto words = p.descriptors[i].pack();
    for (std::size_t b = 0; b < 4 * words.size(); ++b)
      p.pages[128 * i + b] = static_cast<std::uint8_t>(words[b / 4] >> (8 * (b % 4)));
  }
  for (std::size_t b = spec::page_bytes; b < p.pages.size(); ++b)
    p.pages[b] = static_cast<std::uint8_t>(b * 2654435761u >> 13);
  p.regions = compiler::regions_of(p.descriptors);
  p.layers = {{"x", "input", {4, 2, 2}, 0, 0, 0, 1},
              {"conv", "conv", {3, 2, 2}, 48, 12, 2, 1},
              {"y", "output", {3, 2, 2}, 0, 0, 0, 0}};
  return p;
}

/// No eight bytes of `key` in `file`, raw, in hexadecimal, or in base64 at any alignment.
inline void expect_no_trace(const std::string& file, byte_view key, const char* what) {
  std::string lower = file;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (std::size_t at = 0; at + 8 <= key.size(); ++at) {
    const byte_view part = key.subspan(at, 8);
    EXPECT_EQ(file.find(std::string(part.begin(), part.end())), std::string::npos)
        << what << " lies open in the file, from byte " << at;
    EXPECT_EQ(lower.find(io::to_hex(part)), std::string::npos) << what << " in hexadecimal";
    for (std::size_t lead = 0; lead < 3; ++lead) {
      // Six bytes from a boundary of three are eight base64 characters wherever the key begins.
      if (lead + 6 > part.size()) continue;
      std::uint8_t text[9];
      EVP_EncodeBlock(text, part.data() + lead, 6);
      EXPECT_EQ(file.find(reinterpret_cast<const char*>(text)), std::string::npos)
          << what << " in base64";
    }
  }
}

}  // namespace latchkey::lock
