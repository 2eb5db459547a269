#include "compiler/file_io.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>

#include "latchkey/error.hpp"

namespace latchkey::io {
namespace {

[[noreturn]] void fail_errno(const std::string& path, const std::string& what, int err) {
  throw error(errc::io, path + ": " + what + ": " + std::strerror(err));
}

/// Owns a descriptor, and a path to unlink unless released.
struct temp_file {
  int fd = -1;
  std::string path;
  ~temp_file() {
    if (fd >= 0) ::close(fd);
    if (!path.empty()) ::unlink(path.c_str());
  }
};

}  // namespace

bytes read_file(const std::string& path, std::uint64_t limit) {
  temp_file f;
  do {
    f.fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (f.fd < 0 && errno == EINTR);
  if (f.fd < 0) {
    throw error(errc::bad_file,
                path + ": cannot open for reading: " + std::strerror(errno) + "; check the path");
  }
  struct stat st{};
  if (::fstat(f.fd, &st) != 0) fail_errno(path, "cannot read its size", errno);
  if (!S_ISREG(st.st_mode)) throw error(errc::bad_file, path + ": not a regular file");
  const auto size = static_cast<std::uint64_t>(st.st_size);
  if (size > limit) {
    throw error(errc::bad_file, path + ": " + std::to_string(size) + " bytes are more than the " +
                                    std::to_string(limit) + " that such a file may have");
  }
  bytes data(size);
  std::size_t done = 0;
  while (done < data.size()) {
    const ssize_t n = ::read(f.fd, data.data() + done, data.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path, "cannot read", errno);
    if (n == 0) throw error(errc::bad_file, path + ": shrank while it was read");
    done += static_cast<std::size_t>(n);
  }
  return data;
}

void write_file(const std::string& path, std::initializer_list<byte_view> parts, unsigned mode) {
  struct stat st{};
  if (::stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    throw error(errc::io, path + ": exists and is not a regular file; choose another name");
  }
  temp_file f;
  // As mkstemp, but with the caller's permissions under the process's umask.
  std::random_device random;
  for (int attempt = 0; f.fd < 0; ++attempt) {
    char suffix[16];
    std::snprintf(suffix, sizeof suffix, ".%08x", static_cast<unsigned>(random()));
    const std::string name = path + suffix;
    f.fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (f.fd >= 0) {
      f.path = name;
    } else if (errno != EEXIST || attempt == 100) {
      fail_errno(path, "cannot create a file there", errno);
    }
  }
  for (const byte_view part : parts) {
    std::size_t done = 0;
    while (done < part.size()) {
      const ssize_t n = ::write(f.fd, part.data() + done, part.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_errno(path, "cannot write", errno);
      done += static_cast<std::size_t>(n);
    }
  }
  if (::fsync(f.fd) != 0) fail_errno(path, "cannot write", errno);
  const int closed = ::close(f.fd);
  f.fd = -1;
  if (closed != 0) fail_errno(path, "cannot write", errno);
  if (::rename(f.path.c_str(), path.c_str()) != 0) fail_errno(path, "cannot create", errno);
  f.path.clear();
  // The rename itself survives a power cut only once its folder is on the disk. A folder that
  // cannot be synced (some network file systems) does not make the file wrong.
  const auto slash = path.rfind('/');
  const std::string dir = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

std::array<std::uint8_t, 32> sha256(std::initializer_list<byte_view> parts) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> ctx(EVP_MD_CTX_new(),
                                                                    &EVP_MD_CTX_free);
  std::array<std::uint8_t, 32> digest{};
  bool ok = ctx && EVP_DigestInit_ex(ctx.get(), EVP_sha256(), nullptr) == 1;
  for (const byte_view part : parts)
    ok = ok && EVP_DigestUpdate(ctx.get(), part.data(), part.size()) == 1;
  if (!ok || EVP_DigestFinal_ex(ctx.get(), digest.data(), nullptr) != 1)
    throw error(errc::run_failed, "SHA-256 failed in OpenSSL");
  return digest;
}

std::string to_hex(byte_view data) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * data.size());
  for (const std::uint8_t b : data) {
    out += digits[b >> 4];
    out += digits[b & 15];
  }
  return out;
}

bytes from_hex(std::string_view text, const std::string& what) {
  const auto digit = [&](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    throw error(errc::bad_file, what + ": not a hexadecimal number");
  };
  if (text.size() % 2 != 0)
    throw error(errc::bad_file, what + ": an odd number of hexadecimal digits");
  bytes out(text.size() / 2);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::uint8_t>(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
  return out;
}

void put_u32(bytes& out, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

std::uint32_t get_u32(const std::uint8_t* p) {
  return p[0] | p[1] << 8 | p[2] << 16 | static_cast<std::uint32_t>(p[3]) << 24;
}

void put_u64(bytes& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

nlohmann::json parse_json(byte_view text, const std::string& what) {
  // The parser recurses on values nested in callbacks only, but comparing and destroying recurse:
  // refuse depth before anything is built.
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = static_cast<char>(text[i]);
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > 64) throw error(errc::bad_file, what + ": nested more than 64 levels deep");
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  try {
    auto json = nlohmann::json::parse(text.begin(), text.end());
    if (!json.is_object()) throw error(errc::bad_file, what + ": not a JSON object");
    return json;
  } catch (const nlohmann::json::exception& e) {
    throw error(errc::bad_file, what + ": not valid JSON: " + e.what());
  }
}

byte_view reader::take(std::uint64_t count, std::string_view what) {
  if (count > data_.size() - offset_) {
    fail("truncated: " + std::string(what) + " needs " + std::to_string(count) +
         " bytes, the file has " + std::to_string(data_.size() - offset_) + " more");
  }
  const byte_view part = data_.subspan(offset_, count);
  offset_ += count;
  return part;
}

std::uint32_t reader::u32(std::string_view what) {
  const byte_view b = take(4, what);
  std::uint32_t v = 0;
  for (int i = 3; i >= 0; --i) v = v << 8 | b[static_cast<std::size_t>(i)];
  return v;
}

std::uint64_t reader::u64(std::string_view what) {
  const byte_view b = take(8, what);
  std::uint64_t v = 0;
  for (int i = 7; i >= 0; --i) v = v << 8 | b[static_cast<std::size_t>(i)];
  return v;
}

void reader::fail(const std::string& message, std::uint64_t offset) const {
  throw error(errc::bad_file, name_ + ": " + message + " (offset " + std::to_string(offset) + ")");
}

}  // namespace latchkey::io
