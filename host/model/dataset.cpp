#include "model/dataset.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "latchkey/error.hpp"
#include "model/format.hpp"

namespace latchkey::model {
namespace {

constexpr std::size_t kMaxValues = std::size_t{1} << 30;
constexpr std::size_t kChunk = std::size_t{1} << 20;

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& why) {
  throw error(errc::bad_file, format("{}: {}", file.string(), why));
}

}  // namespace

idx_array read_idx(const std::filesystem::path& file) {
  errno = 0;
  // gzopen reads plain files as they are.
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> in(gzopen(file.c_str(), "rb"), gzclose);
  if (!in) {
    fail(file, format("cannot be opened ({}); check the path",
                      errno != 0 ? std::strerror(errno) : "out of memory"));
  }
  const auto read = [&](void* to, std::size_t n) {
    const int got = gzread(in.get(), to, static_cast<unsigned>(n));
    if (got != static_cast<int>(n)) {
      int code = 0;
      const char* text = gzerror(in.get(), &code);
      fail(file, format("ends early or is damaged{}{}; fetch it again", code < 0 ? ": " : "",
                        code < 0 ? text : ""));
    }
  };
  std::array<std::uint8_t, 4> magic{};
  read(magic.data(), magic.size());
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || magic[3] < 1 || magic[3] > 4) {
    fail(file, format("is no IDX file of bytes (magic {:02x}{:02x}{:02x}{:02x})", magic[0],
                      magic[1], magic[2], magic[3]));
  }
  idx_array out;
  std::size_t count = 1;
  for (int i = 0; i < magic[3]; ++i) {
    std::array<std::uint8_t, 4> b{};
    read(b.data(), b.size());
    const std::size_t d = static_cast<std::size_t>(b[0]) << 24 |
                          static_cast<std::size_t>(b[1]) << 16 |
                          static_cast<std::size_t>(b[2]) << 8 | b[3];
    out.dims.push_back(d);
    if (d > kMaxValues || (d > 0 && count > kMaxValues / d)) {
      fail(file, "claims more than 2^30 values");
    }
    count *= d;
  }
  // In chunks: the header is only a claim, the memory follows what is there.
  while (out.values.size() < count) {
    const std::size_t at = out.values.size();
    const std::size_t n = std::min(kChunk, count - at);
    out.values.resize(at + n);
    read(out.values.data() + at, n);
  }
  char more = 0;
  if (gzread(in.get(), &more, 1) != 0) fail(file, "goes on behind its last value, or is damaged");
  return out;
}

dataset read_dataset(const std::string& prefix) {
  const auto find = [&](const char* suffix) {
    const std::string plain = prefix + suffix;
    return std::filesystem::exists(plain) ? plain : plain + ".gz";
  };
  const std::string image_file = find("-images-idx3-ubyte");
  idx_array images = read_idx(image_file);
  idx_array labels = read_idx(find("-labels-idx1-ubyte"));
  if (images.dims.size() != 3 || labels.dims.size() != 1 || images.dims[0] != labels.dims[0]) {
    fail(image_file, "images and labels do not match; fetch both files of one set");
  }
  if (images.dims[1] == 0 || images.dims[2] == 0) fail(image_file, "its images are empty");
  dataset out;
  out.rows = images.dims[1];
  out.columns = images.dims[2];
  out.pixels = std::move(images.values);
  out.labels = std::move(labels.values);
  return out;
}

std::vector<float> dataset::real_image(std::size_t i) const {
  const auto bytes = image(i);
  std::vector<float> out(bytes.size());
  std::transform(bytes.begin(), bytes.end(), out.begin(),
                 [](std::uint8_t b) { return static_cast<float>(b) / 255.0F; });
  return out;
}

std::vector<std::vector<float>> dataset::sample(std::size_t count) const {
  std::vector<std::vector<float>> out;
  const std::size_t n = std::min(count, size());
  for (std::size_t i = 0; i < n; ++i) out.push_back(real_image(i * size() / n));
  return out;
}

}  // namespace latchkey::model
