#include "latchkey/sim/device_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <sstream>
#include <stdexcept>

namespace latchkey::sim {
namespace {

constexpr std::uint64_t page = 4096;

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

}  // namespace

void DeviceMemory::Unmap::operator()(std::uint8_t* p) const { munmap(p, bytes); }

void DeviceMemory::set_banks(std::vector<MemoryBank> banks) {
  std::lock_guard lock(mutex_);
  banks_ = std::move(banks);
}

std::uint64_t DeviceMemory::allocate(std::uint32_t bank, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  if (bank >= banks_.size() || !banks_[bank].used) {
    throw std::invalid_argument("memory bank " + std::to_string(bank) +
                                " is not connected in the loaded image");
  }
  if (bytes == 0) throw std::invalid_argument("a buffer of zero bytes");
  const MemoryBank& b = banks_[bank];
  const std::uint64_t need = round_up(bytes, page) + page;
  // First fit.
  std::uint64_t address = b.base;
  for (auto it = buffers_.lower_bound(b.base); it != buffers_.end(); ++it) {
    if (it->first >= address + need) break;
    address = it->first + round_up(it->second.bytes, page) + page;
  }
  if (bytes > b.bytes || address - b.base > b.bytes - bytes) throw std::bad_alloc();

  Buffer buffer;
  buffer.bytes = bytes;
  buffer.accessible = round_up(bytes, 64);
  const std::size_t mapped = round_up(bytes, page);
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  std::memset(data, fill, mapped);
  buffer.data = {static_cast<std::uint8_t*>(data), Unmap{mapped}};
  buffers_.emplace(address, std::move(buffer));
  return address;
}

void DeviceMemory::release(std::uint64_t address) {
  std::lock_guard lock(mutex_);
  last_ = buffers_.end();
  buffers_.erase(address);
}

std::uint8_t* DeviceMemory::find(std::uint64_t address, std::size_t bytes) const {
  const auto inside = [&](std::map<std::uint64_t, Buffer>::const_iterator it) {
    return address >= it->first && bytes <= it->second.accessible &&
           address - it->first <= it->second.accessible - bytes;
  };
  if (last_ == buffers_.end() || !inside(last_)) {
    auto it = buffers_.upper_bound(address);
    if (it == buffers_.begin()) return nullptr;
    --it;
    if (!inside(it)) return nullptr;
    last_ = it;
  }
  return last_->second.data.get() + (address - last_->first);
}

bool DeviceMemory::read(std::uint64_t address, void* data, std::size_t bytes) const {
  std::lock_guard lock(mutex_);
  const std::uint8_t* from = find(address, bytes);
  if (from == nullptr) return false;
  std::memcpy(data, from, bytes);
  return true;
}

bool DeviceMemory::write(std::uint64_t address, const void* data, std::size_t bytes,
                         const std::uint64_t* strobe) {
  std::lock_guard lock(mutex_);
  std::uint8_t* to = find(address, bytes);
  if (to == nullptr) return false;
  const auto* from = static_cast<const std::uint8_t*>(data);
  if (strobe == nullptr) {
    std::memcpy(to, from, bytes);
    return true;
  }
  for (std::size_t beat = 0; beat * 64 < bytes; ++beat) {
    const std::size_t n = bytes - beat * 64 < 64 ? bytes - beat * 64 : 64;
    if (strobe[beat] == ~std::uint64_t{0}) {
      std::memcpy(to + beat * 64, from + beat * 64, n);
      continue;
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (strobe[beat] >> i & 1) to[beat * 64 + i] = from[beat * 64 + i];
    }
  }
  return true;
}

std::string DeviceMemory::describe(std::uint64_t address) const {
  std::lock_guard lock(mutex_);
  auto it = buffers_.upper_bound(address);
  if (it == buffers_.begin()) return "no buffer lies at or below it";
  --it;
  std::ostringstream text;
  text << std::hex << "the nearest buffer below is 0x" << it->first << std::dec << ", "
       << it->second.bytes << " bytes";
  return text.str();
}

std::uint64_t DeviceMemory::bytes_allocated() const {
  std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (const auto& [address, buffer] : buffers_) sum += buffer.bytes;
  return sum;
}

}  // namespace latchkey::sim
