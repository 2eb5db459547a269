// The XRT driver that offers the simulated cards: libxrt_hwemu.so.2.
//
// XRT's own library (libxrt_coreutil) opens this one when XCL_EMULATION_MODE is hw_emu. It calls
// the C functions of <xrt.h>; the C++ half that registers devices with XRT is linked in from
// Debian's static libxrt_hwemu.a (see CMakeLists.txt), and the few internal C++ names those objects
// need are declared below. Functions return 0 or a negative errno as XRT documents, except where
// XRT would swallow the reason: xclOpen and xclLoadXclBin throw, and XRT passes the text on to the
// program.
#include <uuid/uuid.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "latchkey/sim/platform.h"

// XRT's headers come last: they define macros.
#include <ert.h>
#include <experimental/xrt-next.h>
#include <xrt.h>

// ---- The internal names of XRT 2.13 that the glue objects and this driver share
// ---------------------

namespace xrt_core {

class device {
 public:
  void register_axlf(const axlf* top);
};

// Makes, or finds, XRT's object for a handle of ours.
std::shared_ptr<device> get_userpf_device(void* handle, unsigned int index);

namespace query {
enum class key_type;
}

namespace hwemu {
class system {
 public:
  std::pair<unsigned int, unsigned int> get_total_devices(bool is_user) const;
};
}  // namespace hwemu

}  // namespace xrt_core

namespace xclhwemhal2 {
class HwEmShim {
 public:
  static HwEmShim* handleCheck(void* handle);
  int deviceQuery(xrt_core::query::key_type key);
};
}  // namespace xclhwemhal2

namespace {

using latchkey::sim::Card;
using latchkey::sim::DeviceMemory;
using latchkey::sim::Platform;
using latchkey::sim::RunEnd;

constexpr std::size_t page = 4096;
constexpr unsigned int virtual_cu = ~0u;
constexpr std::uint32_t cu_window = 0x10000;
// query_requests.h of XRT 2.13: the copy engine inside the card.
constexpr int query_key_m2m = 60;

struct FreeHost {
  void operator()(std::uint8_t* p) const { std::free(p); }
};

struct Buffer {
  unsigned card = 0;
  std::size_t bytes = 0;
  std::uint32_t flags = 0;
  std::uint64_t address = 0;  // on the card, unless it is an exec buffer
  bool on_card = false;
  std::unique_ptr<std::uint8_t, FreeHost> own;
  std::uint8_t* host = nullptr;  // own, or the user's pointer, or null
  Platform* platform = nullptr;

  ~Buffer() {
    if (on_card) platform->card(card).memory().release(address);
  }
};

struct CuContext {
  unsigned shared = 0;
  bool exclusive = false;
};

// An open of a card. Never freed: XRT frees buffers and closes contexts through a handle after it
// has closed it.
struct Handle {
  unsigned card = 0;
  bool open = true;
  std::shared_ptr<xrt_core::device> device;
  std::map<unsigned, CuContext> contexts;

  std::mutex mutex;
  std::condition_variable wake;
  std::uint64_t completions = 0;  // runs that ended
  std::uint64_t seen = 0;         // completions that an xclExecWait reported
  std::uint64_t at_timeout = 0;   // completions when the last xclExecWait timed out
};

// What the driver knows of a card; one per card whatever the number of opens.
struct CardRecord {
  using Counters = std::vector<std::atomic<unsigned>>;
  unsigned opens = 0;
  bool loaded = false;
  xuid_t uuid{};
  std::vector<std::string> units;
  // Runs given to each unit and not ended. Counted without a lock: runs end on the platform's
  // thread, which must never wait for a host thread.
  std::shared_ptr<Counters> queued;
  std::map<unsigned, CuContext> contexts;
};

struct Driver {
  std::mutex mutex;
  std::vector<CardRecord> cards;
  std::map<xclBufferHandle, std::shared_ptr<Buffer>> buffers;
  xclBufferHandle next_buffer = 1;
};

Driver& driver() {
  static Driver* const d = new Driver;  // outlives XRT's static objects
  return *d;
}

Handle& handle_of(xclDeviceHandle h) { return *static_cast<Handle*>(h); }

std::shared_ptr<Buffer> find_buffer(xclBufferHandle bo) {
  std::lock_guard lock(driver().mutex);
  const auto it = driver().buffers.find(bo);
  return it == driver().buffers.end() ? nullptr : it->second;
}

void complain(unsigned card, const std::string& what) {
  std::fprintf(stderr, "latchkey: card %s: %s\n",
               Platform::instance().card(card).config().name().c_str(), what.c_str());
}

std::string section_name(axlf_section_kind kind) {
  switch (kind) {
    case IP_LAYOUT:
      return "IP_LAYOUT";
    case MEM_TOPOLOGY:
      return "MEM_TOPOLOGY";
    case EMULATION_DATA:
      return "EMULATION_DATA";
    case USER_METADATA:
      return "USER_METADATA";
    default:
      return std::to_string(kind);
  }
}

struct Section {
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
};

// A section of an xclbin, with its bounds checked; null when absent.
Section find_section(const axlf* top, axlf_section_kind kind) {
  const axlf_section_header* header = ::xclbin::get_axlf_section(top, kind);
  if (header == nullptr) return {};
  if (header->m_sectionOffset > top->m_header.m_length ||
      header->m_sectionSize > top->m_header.m_length - header->m_sectionOffset) {
    throw std::runtime_error("xclbin: section " + section_name(kind) + " lies outside the file");
  }
  return {reinterpret_cast<const std::uint8_t*>(top) + header->m_sectionOffset,
          header->m_sectionSize};
}

Section need_section(const axlf* top, axlf_section_kind kind) {
  const Section s = find_section(top, kind);
  if (s.data == nullptr) {
    throw std::runtime_error("xclbin: no " + section_name(kind) +
                             " section; is this an image for a real card?");
  }
  return s;
}

// The entries of a counted array section.
template <class Entry>
std::vector<Entry> entries(const Section& s, std::size_t first, const char* name) {
  std::int32_t count = 0;
  if (s.bytes >= sizeof(count)) std::memcpy(&count, s.data, sizeof(count));
  if (count < 0 || s.bytes < first ||
      (s.bytes - first) / sizeof(Entry) < static_cast<std::size_t>(count)) {
    throw std::runtime_error(std::string("xclbin: ") + name + " is cut short");
  }
  std::vector<Entry> list(static_cast<std::size_t>(count));
  if (!list.empty()) std::memcpy(list.data(), s.data + first, list.size() * sizeof(Entry));
  return list;
}

template <std::size_t N>
std::string text_of(const unsigned char (&field)[N]) {
  const char* at = reinterpret_cast<const char*>(field);
  return {at, strnlen(at, N)};
}

// The units in the order XRT numbers them: by interrupt number, or by address when all are zero.
std::vector<std::string> ordered_units(const axlf* top) {
  auto ips =
      entries<ip_data>(need_section(top, IP_LAYOUT), offsetof(ip_layout, m_ip_data), "IP_LAYOUT");
  ips.erase(std::remove_if(ips.begin(), ips.end(),
                           [](const ip_data& ip) { return ip.m_type != IP_KERNEL; }),
            ips.end());
  const auto interrupt = [](const ip_data& ip) { return ip.properties & IP_INTERRUPT_ID_MASK; };
  const bool numbered =
      std::any_of(ips.begin(), ips.end(), [&](const ip_data& ip) { return interrupt(ip) != 0; });
  std::stable_sort(ips.begin(), ips.end(), [&](const ip_data& a, const ip_data& b) {
    return numbered ? interrupt(a) < interrupt(b) : a.m_base_address < b.m_base_address;
  });
  std::vector<std::string> units;
  for (const ip_data& ip : ips) units.push_back(text_of(ip.m_name));
  return units;
}

std::vector<latchkey::sim::MemoryBank> memory_banks(const axlf* top) {
  Section s = find_section(top, ASK_GROUP_TOPOLOGY);
  if (s.data == nullptr) s = need_section(top, MEM_TOPOLOGY);
  std::vector<latchkey::sim::MemoryBank> banks;
  for (const mem_data& m :
       entries<mem_data>(s, offsetof(mem_topology, m_mem_data), "MEM_TOPOLOGY")) {
    banks.push_back({text_of(m.m_tag), m.m_base_address, m.m_size * 1024, m.m_used != 0});
  }
  return banks;
}

void set_state(ert_packet* packet, ert_cmd_state state) {
  auto* header = reinterpret_cast<std::uint32_t*>(packet);
  const std::uint32_t old = __atomic_load_n(header, __ATOMIC_RELAXED);
  __atomic_store_n(header, (old & ~0xFu) | static_cast<std::uint32_t>(state), __ATOMIC_RELEASE);
}

ert_cmd_state state_of(RunEnd end) {
  switch (end) {
    case RunEnd::completed:
      return ERT_CMD_STATE_COMPLETED;
    case RunEnd::failed:
      return ERT_CMD_STATE_ERROR;
    case RunEnd::timed_out:
      return ERT_CMD_STATE_TIMEOUT;
    case RunEnd::aborted:
      break;
  }
  return ERT_CMD_STATE_ABORT;
}

bool has_exclusive(const Handle& h, unsigned unit) {
  const auto it = h.contexts.find(unit);
  return it != h.contexts.end() && it->second.exclusive;
}

bool has_context(const Handle& h, unsigned unit) { return h.contexts.count(unit) != 0; }

// One register access; blocks until the kernel answered.
int access_register(Handle& h, unsigned unit, std::uint32_t offset, bool write,
                    std::uint32_t* value) {
  if (offset % 4 != 0 || offset >= cu_window) return -EINVAL;
  {
    std::lock_guard lock(driver().mutex);
    if (!h.open || unit >= driver().cards[h.card].units.size()) return -EINVAL;
    if (!has_exclusive(h, unit)) return -EPERM;
  }
  std::promise<std::pair<bool, std::uint32_t>> promise;
  auto answer = promise.get_future();
  Platform& platform = Platform::instance();
  platform.call([&] {
    Card& card = platform.card(h.card);
    if (unit >= card.unit_count()) {  // switched off meanwhile
      promise.set_value({false, 0});
      return;
    }
    latchkey::sim::RegisterAccess a;
    a.write = write;
    a.offset = offset;
    a.value = *value;
    a.done = [&promise](bool ok, std::uint32_t v) { promise.set_value({ok, v}); };
    card.unit(unit).access(std::move(a));
  });
  const auto [ok, v] = answer.get();
  if (!ok) return -EIO;
  *value = v;
  return 0;
}

xclBufferHandle add_buffer(Handle& h, void* user, std::size_t bytes, unsigned flags) {
  Platform& platform = Platform::instance();
  auto buffer = std::make_shared<Buffer>();
  buffer->card = h.card;
  buffer->bytes = bytes;
  buffer->flags = flags;
  buffer->platform = &platform;
  if ((flags & XCL_BO_FLAGS_HOST_ONLY) != 0) {
    complain(h.card, "buffers in host memory are not modelled; allocate in a bank of the card");
    return NULLBO;
  }
  if (user != nullptr) {
    buffer->host = static_cast<std::uint8_t*>(user);
  } else if ((flags & XCL_BO_FLAGS_DEV_ONLY) == 0) {
    const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + page - 1) / page * page;
    buffer->own.reset(static_cast<std::uint8_t*>(std::aligned_alloc(page, rounded)));
    if (buffer->own == nullptr) return NULLBO;
    std::memset(buffer->own.get(), 0, rounded);
    buffer->host = buffer->own.get();
  }
  if ((flags & XCL_BO_FLAGS_EXECBUF) == 0) {
    const auto bank = static_cast<std::uint32_t>(flags & XRT_BO_FLAGS_MEMIDX_MASK);
    try {
      buffer->address = platform.card(h.card).memory().allocate(bank, bytes);
      buffer->on_card = true;
    } catch (const std::bad_alloc&) {
      complain(h.card, "memory bank " + std::to_string(bank) + " has no room for " +
                           std::to_string(bytes) + " bytes");
      return NULLBO;
    } catch (const std::exception& e) {
      complain(h.card, std::string("cannot allocate a buffer: ") + e.what());
      return NULLBO;
    }
  }
  std::lock_guard lock(driver().mutex);
  const xclBufferHandle bo = driver().next_buffer++;
  driver().buffers.emplace(bo, std::move(buffer));
  return bo;
}

void load_image(Handle& h, const axlf* top) {
  if (std::memcmp(top->m_magic, "xclbin2", 8) != 0) {
    throw std::runtime_error("not an xclbin file (wrong magic)");
  }
  if (top->m_header.m_mode != XCLBIN_HW_EMU) {
    throw std::runtime_error(
        "this xclbin is for a real card; the simulated card takes images for hardware emulation");
  }
  CardRecord& record = driver().cards[h.card];
  if (record.loaded && uuid_compare(record.uuid, top->m_header.uuid) == 0) return;
  for (const auto& [unit, context] : record.contexts) {
    if (unit != virtual_cu || context.shared != 0) {
      throw std::runtime_error("another image is loaded and in use on card " +
                               Platform::instance().card(h.card).config().name() +
                               "; close its kernels first");
    }
  }
  const std::vector<std::string> units = ordered_units(top);
  const Section model = need_section(top, EMULATION_DATA);
  const Section wires = need_section(top, USER_METADATA);
  const auto streams =
      latchkey::sim::stream_connections(reinterpret_cast<const char*>(wires.data), wires.bytes);
  Platform& platform = Platform::instance();
  Card& card = platform.card(h.card);
  auto banks = memory_banks(top);
  platform.call([&] {
    card.load(latchkey::sim::Image::open(model.data, model.bytes), units, streams);
    card.memory().set_banks(std::move(banks));
  });
  record.loaded = true;
  uuid_copy(record.uuid, top->m_header.uuid);
  record.units = units;
  record.queued = std::make_shared<CardRecord::Counters>(units.size());
}

int start_run(Handle& h, const std::shared_ptr<Buffer>& command) {
  auto* packet = reinterpret_cast<ert_start_kernel_cmd*>(command->host);
  const std::size_t masks = 1 + packet->extra_cu_masks;
  if (packet->count < masks || (packet->count + 1) * 4 > command->bytes) return -EINVAL;
  const std::uint32_t* mask = &packet->cu_mask;
  const std::uint32_t* registers = mask + masks;
  const std::size_t words = packet->count - masks;

  std::unique_lock lock(driver().mutex);
  CardRecord& record = driver().cards[h.card];
  unsigned chosen = virtual_cu;
  for (unsigned unit = 0; unit < record.units.size(); ++unit) {
    if ((mask[unit / 32] >> unit % 32 & 1) == 0 || !has_context(h, unit)) continue;
    if (chosen == virtual_cu || (*record.queued)[unit] < (*record.queued)[chosen]) chosen = unit;
  }
  if (chosen == virtual_cu) return -EINVAL;
  const std::shared_ptr<CardRecord::Counters> queued = record.queued;
  ++(*queued)[chosen];
  lock.unlock();

  auto run = std::make_shared<latchkey::sim::Run>();
  run->id = reinterpret_cast<std::uint64_t>(command.get());
  for (std::size_t i = 4; i < words; ++i) {
    run->registers.emplace_back(static_cast<std::uint32_t>(4 * i), registers[i]);
  }
  const unsigned card_index = h.card;
  run->done = [&h, command, chosen, queued](RunEnd end) {
    --(*queued)[chosen];
    {
      std::lock_guard guard(h.mutex);
      set_state(reinterpret_cast<ert_packet*>(command->host), state_of(end));
      ++h.completions;
    }
    h.wake.notify_all();
  };
  set_state(reinterpret_cast<ert_packet*>(packet), ERT_CMD_STATE_RUNNING);
  Platform& platform = Platform::instance();
  platform.call([&] {
    Card& card = platform.card(card_index);
    if (chosen < card.unit_count()) {
      card.unit(chosen).submit(std::move(*run));
    } else {
      run->done(RunEnd::aborted);
    }
  });
  return 0;
}

}  // namespace

// ---- C++ names the glue objects call
// --------------------------------------------------------------

std::pair<unsigned int, unsigned int> xrt_core::hwemu::system::get_total_devices(bool) const {
  const unsigned int n = xclProbe();
  return {n, n};
}

xclhwemhal2::HwEmShim* xclhwemhal2::HwEmShim::handleCheck(void*) {
  static HwEmShim shim;
  return &shim;
}

int xclhwemhal2::HwEmShim::deviceQuery(xrt_core::query::key_type key) {
  return static_cast<int>(key) == query_key_m2m ? 1 : 0;
}

int xclCloseExportHandle(xclBufferExportHandle) { return 0; }
int xclUpdateSchedulerStat(xclDeviceHandle) { return 0; }
int xclCmaEnable(xclDeviceHandle, bool, uint64_t) { return -ENOTSUP; }

int xclInternalResetDevice(xclDeviceHandle handle, xclResetKind) {
  Platform& platform = Platform::instance();
  const unsigned card = handle_of(handle).card;
  platform.call([&] { platform.card(card).fail("reset by the host", RunEnd::aborted); });
  return 0;
}

// ---- The C functions of <xrt.h>
// -------------------------------------------------------------------

extern "C" {

// Called when XRT loads the driver: nothing may throw here, a bad configuration is reported by
// xclOpen.
unsigned int xclProbe() {
  try {
    return static_cast<unsigned int>(latchkey::sim::cards_from_environment().size());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "latchkey: %s\n", e.what());
    return 0;
  }
}

xclDeviceHandle xclOpen(unsigned int index, const char*, xclVerbosityLevel) {
  Platform& platform = Platform::instance();
  if (index >= platform.card_count()) {
    throw std::runtime_error("there is no card " + std::to_string(index) +
                             ": LATCHKEY_SIM_CARDS has " + std::to_string(platform.card_count()));
  }
  auto handle = std::make_unique<Handle>();
  handle->card = index;
  {
    std::lock_guard lock(driver().mutex);
    driver().cards.resize(platform.card_count());
    if (driver().cards[index].opens == 0) {
      const auto root = latchkey::sim::state_root_from_environment();
      platform.call([&] { platform.card(index).power_on(root); });
    }
    ++driver().cards[index].opens;
  }
  Handle* raw = handle.release();
  raw->device = xrt_core::get_userpf_device(raw, index);
  return raw;
}

void xclClose(xclDeviceHandle handle) {
  Handle& h = handle_of(handle);
  Platform& platform = Platform::instance();
  bool last = false;
  {
    std::lock_guard lock(driver().mutex);
    if (!h.open) return;
    h.open = false;
    CardRecord& record = driver().cards[h.card];
    for (const auto& [unit, context] : h.contexts) {
      CuContext& c = record.contexts[unit];
      c.shared -= std::min(c.shared, context.shared);
      if (context.exclusive) c.exclusive = false;
      if (c.shared == 0 && !c.exclusive) record.contexts.erase(unit);
    }
    h.contexts.clear();
    last = --record.opens == 0;
    if (last) {
      record.loaded = false;
      record.units.clear();
    }
  }
  if (last) platform.call([&] { platform.card(h.card).power_off(); });
}

int xclGetDeviceInfo2(xclDeviceHandle handle, xclDeviceInfo2* info) {
  const auto& config = Platform::instance().card(handle_of(handle).card).config();
  *info = xclDeviceInfo2{};
  info->mMagic = 0x586C0C6C;
  std::snprintf(info->mName, sizeof(info->mName), "latchkey_%s", config.name().c_str());
  info->mHALMajorVersion = 2;
  info->mVendorId = 0x10ee;
  info->mDDRSize = std::size_t{16} << 30;
  info->mDataAlignment = page;
  info->mDDRBankCount = 1;
  for (auto& f : info->mOCLFrequency) f = latchkey::sim::clock_mhz;
  info->mNumClocks = 1;
  info->mOnChipTemp = static_cast<unsigned short>(std::max(0.0, config.environment.temperature_c));
  info->mVccIntVol = static_cast<unsigned short>(config.environment.voltage_v * 1000 + 0.5);
  info->mMigCalib = true;
  return 0;
}

int xclLoadXclBin(xclDeviceHandle handle, const axlf* top) {
  Handle& h = handle_of(handle);
  {
    std::lock_guard lock(driver().mutex);
    load_image(h, top);
  }
  h.device->register_axlf(top);
  return 0;
}

int xclReClock2(xclDeviceHandle, unsigned short, const unsigned short*) { return -ENOTSUP; }
int xclP2pEnable(xclDeviceHandle, bool, bool) { return -ENOTSUP; }

int xclOpenContext(xclDeviceHandle handle, const xuid_t uuid, unsigned int unit, bool shared) {
  Handle& h = handle_of(handle);
  std::lock_guard lock(driver().mutex);
  CardRecord& record = driver().cards[h.card];
  if (!h.open || !record.loaded || uuid_compare(record.uuid, uuid) != 0) return -EINVAL;
  if (unit != virtual_cu && unit >= record.units.size()) return -EINVAL;
  CuContext& c = record.contexts[unit];
  if (c.exclusive || (!shared && c.shared != 0)) return -EBUSY;
  if (shared) {
    ++c.shared;
    ++h.contexts[unit].shared;
  } else {
    c.exclusive = true;
    h.contexts[unit].exclusive = true;
  }
  return 0;
}

int xclCloseContext(xclDeviceHandle handle, const xuid_t, unsigned int unit) {
  Handle& h = handle_of(handle);
  std::lock_guard lock(driver().mutex);
  if (!h.open) return 0;  // went with the handle
  const auto mine = h.contexts.find(unit);
  if (mine == h.contexts.end()) return -EINVAL;
  CardRecord& record = driver().cards[h.card];
  CuContext& all = record.contexts[unit];
  if (mine->second.exclusive) {
    mine->second.exclusive = all.exclusive = false;
  } else {
    --mine->second.shared;
    --all.shared;
  }
  if (!mine->second.exclusive && mine->second.shared == 0) h.contexts.erase(mine);
  if (!all.exclusive && all.shared == 0) record.contexts.erase(unit);
  return 0;
}

xclBufferHandle xclAllocBO(xclDeviceHandle handle, size_t size, int, unsigned int flags) {
  return add_buffer(handle_of(handle), nullptr, size, flags);
}

xclBufferHandle xclAllocUserPtrBO(xclDeviceHandle handle, void* user, size_t size,
                                  unsigned int flags) {
  return add_buffer(handle_of(handle), user, size, flags);
}

void xclFreeBO(xclDeviceHandle, xclBufferHandle bo) {
  std::shared_ptr<Buffer> last;  // released outside the lock
  std::lock_guard lock(driver().mutex);
  const auto it = driver().buffers.find(bo);
  if (it == driver().buffers.end()) return;
  last = std::move(it->second);
  driver().buffers.erase(it);
}

void* xclMapBO(xclDeviceHandle, xclBufferHandle bo, bool) {
  const auto b = find_buffer(bo);
  return b == nullptr ? nullptr : b->host;
}

int xclUnmapBO(xclDeviceHandle, xclBufferHandle, void*) { return 0; }

int xclSyncBO(xclDeviceHandle, xclBufferHandle bo, xclBOSyncDirection direction, size_t size,
              size_t offset) {
  const auto b = find_buffer(bo);
  if (b == nullptr || !b->on_card || b->host == nullptr) return -EINVAL;
  if (offset > b->bytes || size > b->bytes - offset) return -EINVAL;
  if (size == 0) return 0;
  DeviceMemory& memory = b->platform->card(b->card).memory();
  bool ok = false;
  if (direction == XCL_BO_SYNC_BO_TO_DEVICE) {
    ok = memory.write(b->address + offset, b->host + offset, size);
  } else if (direction == XCL_BO_SYNC_BO_FROM_DEVICE) {
    ok = memory.read(b->address + offset, b->host + offset, size);
  }
  return ok ? 0 : -EINVAL;
}

int xclCopyBO(xclDeviceHandle, xclBufferHandle to, xclBufferHandle from, size_t size,
              size_t to_offset, size_t from_offset) {
  const auto d = find_buffer(to);
  const auto s = find_buffer(from);
  if (d == nullptr || s == nullptr || !d->on_card || !s->on_card) return -EINVAL;
  if (to_offset > d->bytes || size > d->bytes - to_offset || from_offset > s->bytes ||
      size > s->bytes - from_offset) {
    return -EINVAL;
  }
  std::vector<std::uint8_t> data(size);
  const bool ok =
      s->platform->card(s->card).memory().read(s->address + from_offset, data.data(), size) &&
      d->platform->card(d->card).memory().write(d->address + to_offset, data.data(), size);
  return ok ? 0 : -EINVAL;
}

xclBufferExportHandle xclExportBO(xclDeviceHandle, xclBufferHandle) { return NULLBOEXPORT; }
xclBufferHandle xclImportBO(xclDeviceHandle, xclBufferExportHandle, unsigned int) { return NULLBO; }

int xclGetBOProperties(xclDeviceHandle, xclBufferHandle bo, xclBOProperties* properties) {
  const auto b = find_buffer(bo);
  if (b == nullptr) return -EINVAL;
  *properties = xclBOProperties{};
  properties->handle = bo;
  properties->flags = b->flags;
  properties->size = b->bytes;
  properties->paddr = b->address;
  return 0;
}

ssize_t xclUnmgdPread(xclDeviceHandle handle, unsigned int, void* data, size_t size,
                      uint64_t address) {
  DeviceMemory& memory = Platform::instance().card(handle_of(handle).card).memory();
  return memory.read(address, data, size) ? static_cast<ssize_t>(size) : -EINVAL;
}

ssize_t xclUnmgdPwrite(xclDeviceHandle handle, unsigned int, const void* data, size_t size,
                       uint64_t address) {
  DeviceMemory& memory = Platform::instance().card(handle_of(handle).card).memory();
  return memory.write(address, data, size) ? static_cast<ssize_t>(size) : -EINVAL;
}

size_t xclRead(xclDeviceHandle, xclAddressSpace, uint64_t, void*, size_t) {
  return static_cast<size_t>(-ENOTSUP);
}

size_t xclWrite(xclDeviceHandle, xclAddressSpace, uint64_t, const void*, size_t) {
  return static_cast<size_t>(-ENOTSUP);
}

int xclRegRead(xclDeviceHandle handle, uint32_t unit, uint32_t offset, uint32_t* value) {
  return access_register(handle_of(handle), unit, offset, false, value);
}

int xclRegWrite(xclDeviceHandle handle, uint32_t unit, uint32_t offset, uint32_t value) {
  return access_register(handle_of(handle), unit, offset, true, &value);
}

int xclExecBuf(xclDeviceHandle handle, xclBufferHandle bo) {
  Handle& h = handle_of(handle);
  const auto command = find_buffer(bo);
  if (command == nullptr || command->host == nullptr || command->bytes < sizeof(ert_packet)) {
    return -EINVAL;
  }
  auto* packet = reinterpret_cast<ert_packet*>(command->host);
  switch (packet->opcode) {
    case ERT_START_CU:
      return start_run(h, command);
    case ERT_ABORT: {
      const auto* abort = reinterpret_cast<const ert_abort_cmd*>(packet);
      const auto victim = find_buffer(static_cast<xclBufferHandle>(abort->exec_bo_handle));
      if (victim == nullptr) return -EINVAL;
      Platform& platform = Platform::instance();
      platform.call([&] {
        Card& card = platform.card(h.card);
        const auto id = reinterpret_cast<std::uint64_t>(victim.get());
        for (std::size_t i = 0; i < card.unit_count(); ++i) {
          if (card.unit(i).abort(id)) break;
        }
      });
      std::lock_guard lock(h.mutex);
      set_state(packet, ERT_CMD_STATE_COMPLETED);
      ++h.completions;
      h.wake.notify_all();
      return 0;
    }
    default:
      return -EINVAL;
  }
}

// XRT counts waits per thread over all devices, so with several cards it can miss a completion that
// another thread's wait reported. Once per time-out we therefore report completions again.
int xclExecWait(xclDeviceHandle handle, int timeout_ms) {
  Handle& h = handle_of(handle);
  std::unique_lock lock(h.mutex);
  const auto news = [&h] { return h.completions != h.seen; };
  if (timeout_ms < 0) {
    h.wake.wait(lock, news);
  } else if (!h.wake.wait_for(lock, std::chrono::milliseconds(timeout_ms), news)) {
    const bool again = h.completions != h.at_timeout;
    h.at_timeout = h.completions;
    return again ? 1 : 0;
  }
  h.seen = h.completions;
  return 1;
}

}  // extern "C"
