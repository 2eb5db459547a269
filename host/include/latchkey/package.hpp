// Sealed packages and device records: what locks a program to a chip.
#ifndef LATCHKEY_PACKAGE_HPP
#define LATCHKEY_PACKAGE_HPP

#include <cstdint>
#include <memory>
#include <string>

#include "latchkey/error.hpp"
#include "latchkey/program.hpp"

namespace latchkey {

namespace lock {
struct package;
struct public_record;
struct device_record;
}  // namespace lock

/// The public part of a device record: what a host needs to start a chip. No secret in it.
class PublicRecord {
 public:
  /// Reads the public part of a device record (.lkd), full or public only. Throws bad_file.
  static PublicRecord read(const std::string& path);
  explicit PublicRecord(lock::public_record record);

  std::string device_id() const;  ///< 32 hexadecimal digits
  const lock::public_record& get() const { return *record_; }

 private:
  std::shared_ptr<const lock::public_record> record_;
};

/// A program sealed for one device. Copies share it.
class Package {
 public:
  /// Reads a package (.lkx) and checks what a host can check without a key. Throws bad_file.
  static Package read(const std::string& path);
  void write(const std::string& path) const;

  /// Seals `program` for the device of `record` under a fresh model key, wrapped with the record's
  /// first owner key.
  static Package seal(const Program& program, const lock::device_record& record,
                      std::uint32_t version);

  explicit Package(lock::package package);

  std::string device_id() const;  ///< 32 hexadecimal digits
  std::uint32_t version() const;
  const lock::package& get() const { return *package_; }

 private:
  std::shared_ptr<const lock::package> package_;
};

}  // namespace latchkey

#endif  // LATCHKEY_PACKAGE_HPP
