// Reading and writing of Latchkey's own files: whole-file reads with a limit, a bounds-checked
// little-endian reader whose errors name file, part and offset, and writes that leave either the
// whole new file or the old one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey::io {

using bytes = std::vector<std::uint8_t>;
using byte_view = std::span<const std::uint8_t>;

/// Largest file that any reader accepts: 8 GiB, twice the pages that 32 bits of memory words hold.
inline constexpr std::uint64_t max_file_bytes = 8ull << 30;
/// Largest JSON header of a container.
inline constexpr std::uint64_t max_header_bytes = 16ull << 20;

/// The whole file. Throws latchkey::error when it cannot be read, is no regular file or is larger
/// than `limit` bytes.
bytes read_file(const std::string& path, std::uint64_t limit = max_file_bytes);

/// Writes the concatenated `parts` to a temporary file beside `path`, syncs it and renames it over
/// `path`. On any failure (no space, no permission) the temporary file is removed, `path` is left
/// as it was, and latchkey::error is thrown. `mode` holds the permission bits before the umask;
/// files with secrets use 0600.
void write_file(const std::string& path, std::initializer_list<byte_view> parts,
                unsigned mode = 0644);

/// The characters of a text as bytes; the text must outlive the view.
inline byte_view as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// SHA-256 of the concatenated parts.
std::array<std::uint8_t, 32> sha256(std::initializer_list<byte_view> parts);

/// Lower-case hexadecimal.
std::string to_hex(byte_view data);
/// Inverse of to_hex, either case; throws latchkey::error naming `what` on anything else.
bytes from_hex(std::string_view text, const std::string& what);

/// Appends `value` little-endian.
void put_u32(bytes& out, std::uint32_t value);
void put_u64(bytes& out, std::uint64_t value);
/// The four bytes at p, little-endian.
std::uint32_t get_u32(const std::uint8_t* p);

/// Parses `text` as one JSON object of at most 64 levels; throws latchkey::error naming `what`.
nlohmann::json parse_json(byte_view text, const std::string& what);

/// A cursor over the bytes of a file. Every take that would pass the end throws latchkey::error
/// naming the file, the part and the offset.
class reader {
 public:
  /// `name` is the file's name for messages; `data` must outlive the reader.
  reader(std::string name, byte_view data) : name_(std::move(name)), data_(data) {}

  /// The next `count` bytes, a view into the file.
  byte_view take(std::uint64_t count, std::string_view what);
  std::uint32_t u32(std::string_view what);
  std::uint64_t u64(std::string_view what);
  /// Bytes already taken.
  std::uint64_t offset() const { return offset_; }
  std::uint64_t size() const { return data_.size(); }
  /// Throws latchkey::error: "<name>: <message> (offset <n>)".
  [[noreturn]] void fail(const std::string& message) const { fail(message, offset_); }
  [[noreturn]] void fail(const std::string& message, std::uint64_t offset) const;

 private:
  std::string name_;
  byte_view data_;
  std::uint64_t offset_ = 0;
};

}  // namespace latchkey::io
