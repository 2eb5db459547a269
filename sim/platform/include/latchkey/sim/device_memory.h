// What lies in a card's memory: banks, and the buffers allocated in them.
#ifndef LATCHKEY_SIM_DEVICE_MEMORY_H_
#define LATCHKEY_SIM_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace latchkey::sim {

struct MemoryBank {
  std::string tag;
  std::uint64_t base = 0;
  std::uint64_t bytes = 0;
  bool used = false;
};

// Buffers at 4 KiB-aligned addresses with an unmapped page behind each, filled with 0xA5 when
// allocated: data that was never synchronised and accesses past an end both show. A buffer is
// accessible up to its size rounded up to a 64-byte beat. Thread safe.
class DeviceMemory {
 public:
  static constexpr std::uint8_t fill = 0xA5;

  // Replaces the banks; buffers stay.
  void set_banks(std::vector<MemoryBank> banks);

  // The address of a new buffer. Throws std::invalid_argument for a bank that does not exist or is
  // not used or for zero bytes, std::bad_alloc when the bank is full.
  std::uint64_t allocate(std::uint32_t bank, std::size_t bytes);
  void release(std::uint64_t address);

  // False, and nothing happens, unless all bytes lie in one buffer. `strobe` has one bit per byte,
  // 64 bytes to a word; null writes all.
  bool read(std::uint64_t address, void* data, std::size_t bytes) const;
  bool write(std::uint64_t address, const void* data, std::size_t bytes,
             const std::uint64_t* strobe = nullptr);

  // The buffer nearest below an address, for messages; empty when there is none.
  std::string describe(std::uint64_t address) const;

  std::uint64_t bytes_allocated() const;

 private:
  struct Unmap {
    std::size_t bytes;
    void operator()(std::uint8_t* p) const;
  };
  struct Buffer {
    std::size_t bytes = 0;       // as asked for
    std::size_t accessible = 0;  // rounded up to a beat
    std::unique_ptr<std::uint8_t, Unmap> data{nullptr, Unmap{0}};
  };

  std::uint8_t* find(std::uint64_t address, std::size_t bytes) const;

  mutable std::mutex mutex_;
  std::vector<MemoryBank> banks_;
  std::map<std::uint64_t, Buffer> buffers_;
  mutable std::map<std::uint64_t, Buffer>::const_iterator last_ = buffers_.end();
};

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_DEVICE_MEMORY_H_
