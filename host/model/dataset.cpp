#include "model/dataset.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
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

namespace {

/// The text behind 'key': in the header of an NPY file, up to the end of the entry.
std::string npy_entry(const std::filesystem::path& file, const std::string& header,
                      const std::string& key) {
  const std::size_t at = header.find("'" + key + "'");
  const std::size_t colon = at == std::string::npos ? at : header.find(':', at);
  if (colon == std::string::npos) fail(file, format("its header has no '{}'", key));
  const std::size_t from = header.find_first_not_of(' ', colon + 1);
  if (from == std::string::npos) fail(file, format("its header has no '{}'", key));
  const std::size_t to = header[from] == '(' ? header.find(')', from) : header.find(',', from);
  return header.substr(from, to == std::string::npos ? to : to - from);
}

std::vector<std::size_t> npy_dims(const std::filesystem::path& file, const std::string& shape) {
  std::vector<std::size_t> dims;
  std::size_t count = 1;
  if (shape.empty() || shape[0] != '(') fail(file, format("its shape is '{}'", shape));
  for (std::size_t i = 1; i < shape.size();) {
    if (shape[i] == ' ' || shape[i] == ',') {
      ++i;
      continue;
    }
    std::size_t d = 0;
    std::size_t digits = 0;
    for (; i < shape.size() && shape[i] >= '0' && shape[i] <= '9'; ++i, ++digits) {
      d = std::min(d * 10 + static_cast<std::size_t>(shape[i] - '0'), kMaxValues + 1);
    }
    if (digits == 0) fail(file, format("its shape is '{})'", shape));
    if (d > kMaxValues || (d > 0 && count > kMaxValues / d)) {
      fail(file, "claims more than 2^30 values");
    }
    count *= d;
    dims.push_back(d);
  }
  return dims;
}

}  // namespace

npy_array read_npy(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) fail(file, format("cannot be opened ({}); check the path", std::strerror(errno)));
  const auto size = static_cast<std::uint64_t>(std::max<std::streamoff>(in.tellg(), 0));
  in.seekg(0);
  const auto read = [&](void* to, std::size_t n) {
    if (!in.read(static_cast<char*>(to), static_cast<std::streamsize>(n))) {
      fail(file, "ends early; save it again");
    }
  };
  std::array<std::uint8_t, 8> magic{};
  read(magic.data(), magic.size());
  if (std::memcmp(magic.data(), "\x93NUMPY", 6) != 0 || magic[6] < 1 || magic[6] > 3) {
    fail(file, "is no NPY file of version 1 to 3; write it with numpy.save");
  }
  std::array<std::uint8_t, 4> b{};
  read(b.data(), magic[6] == 1 ? 2 : 4);
  const std::size_t length =
      b[0] | std::size_t{b[1]} << 8 | std::size_t{b[2]} << 16 | std::size_t{b[3]} << 24;
  if (length > size) fail(file, "its header is longer than the file");
  std::string header(length, '\0');
  read(header.data(), length);
  if (npy_entry(file, header, "fortran_order").rfind("False", 0) != 0) {
    fail(file, "is in Fortran order; save numpy.ascontiguousarray of it");
  }
  npy_array out;
  out.dims = npy_dims(file, npy_entry(file, header, "shape"));
  std::size_t count = 1;
  for (const std::size_t d : out.dims) count *= d;
  const std::string type = npy_entry(file, header, "descr");
  const auto take = [&]<typename T>(T /*type*/) {
    const std::uint64_t there = size - static_cast<std::uint64_t>(in.tellg());
    if (there != std::uint64_t{count} * sizeof(T)) {
      fail(file, format("holds {} bytes of values, its shape needs {}; save it again", there,
                        std::uint64_t{count} * sizeof(T)));
    }
    std::vector<T> values(count);
    if (count > 0) read(values.data(), count * sizeof(T));
    out.values.assign(values.begin(), values.end());
  };
  if (type == "'|u1'") {
    out.bytes = true;
    take(std::uint8_t{});
  } else if (type == "'<f4'") {
    take(float{});
  } else if (type == "'<f8'") {
    take(double{});
  } else {
    fail(file, format("holds values of type {}; save uint8, float32 or float64", type));
  }
  return out;
}

namespace {

/// The images of one file, as real values behind one another.
std::vector<float> image_values(const std::filesystem::path& file, std::size_t image_size) {
  std::vector<std::size_t> dims;
  std::vector<float> values;
  bool bytes = true;
  if (file.extension() == ".npy") {
    npy_array array = read_npy(file);
    dims = array.dims;
    bytes = array.bytes;
    values = std::move(array.values);
  } else {
    const idx_array array = read_idx(file);
    dims = array.dims;
    values.assign(array.values.begin(), array.values.end());
  }
  const std::size_t first = dims.empty() ? 0 : dims[0];
  if (values.empty() || (values.size() != image_size && values.size() != first * image_size)) {
    throw error(errc::mismatch,
                format("{}: holds images of {} values, the model's input takes {} values; give "
                       "images of that size, the number of images first",
                       file.string(), values.size() / std::max<std::size_t>(first, 1), image_size));
  }
  if (bytes) {
    for (float& v : values) v /= 255.0F;
  }
  return values;
}

}  // namespace

std::vector<std::vector<float>> read_images(const std::filesystem::path& from,
                                            std::size_t image_size, std::size_t count) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(from)) {
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      if (entry.path().extension() == ".npy") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) {
      throw error(errc::mismatch, format("{}: holds no .npy files", from.string()));
    }
  } else {
    files.push_back(from);
  }
  // With more files than images only some of the files are read.
  const auto pick = [](std::size_t i, std::size_t wanted, std::size_t there) {
    return wanted == 0 || wanted >= there ? i : i * there / wanted;
  };
  const std::size_t used = count == 0 || count >= files.size() ? files.size() : count;
  std::vector<std::vector<float>> all;
  for (std::size_t i = 0; i < used; ++i) {
    const auto values = image_values(files[pick(i, count, files.size())], image_size);
    for (std::size_t at = 0; at < values.size(); at += image_size) {
      all.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(at),
                       values.begin() + static_cast<std::ptrdiff_t>(at + image_size));
    }
  }
  if (count == 0 || count >= all.size()) return all;
  std::vector<std::vector<float>> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(std::move(all[pick(i, count, all.size())]));
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
