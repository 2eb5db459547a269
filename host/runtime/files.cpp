// The public faces of programs, packages and records.
#include "compiler/program.hpp"
#include "latchkey/package.hpp"
#include "latchkey/program.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"

namespace latchkey {

Program::Program(compiler::program program)
    : program_(std::make_shared<const compiler::program>(std::move(program))) {}
Program Program::read(const std::string& path) { return Program(compiler::read_program(path)); }
void Program::write(const std::string& path) const { compiler::write_program(path, *program_); }
const std::string& Program::name() const { return program_->name; }
std::uint32_t Program::array_n() const { return program_->target.array_n; }
std::uint32_t Program::max_batch() const { return program_->max_batch; }
std::uint64_t Program::macs() const { return program_->macs(); }
std::uint64_t Program::host_macs() const { return program_->host_macs(); }

PublicRecord::PublicRecord(lock::public_record record)
    : record_(std::make_shared<const lock::public_record>(std::move(record))) {}
PublicRecord PublicRecord::read(const std::string& path) {
  return PublicRecord(lock::read_public_record(path));
}
std::string PublicRecord::device_id() const { return io::to_hex(record_->id); }

Package::Package(lock::package package)
    : package_(std::make_shared<const lock::package>(std::move(package))) {}
Package Package::read(const std::string& path) { return Package(lock::read_package(path)); }
void Package::write(const std::string& path) const { lock::write_package(path, *package_); }
Package Package::seal(const Program& program, const lock::device_record& record,
                      std::uint32_t version) {
  lock::seal_options options;
  options.version = version;
  return Package(lock::seal(program.get(), record, options));
}
std::string Package::device_id() const { return io::to_hex(package_->device()); }
std::uint32_t Package::version() const { return package_->manifest.version; }

}  // namespace latchkey
