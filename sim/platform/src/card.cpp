#include "latchkey/sim/card.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <system_error>

namespace latchkey::sim {
namespace {

std::string errno_text() { return std::system_category().message(errno); }

// Writes a whole file so that a reader, or a crash, sees the old content or the new one.
void write_file(const std::filesystem::path& path, const std::string& text) {
  const std::string temporary = path.string() + ".new";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) throw std::runtime_error("cannot write " + temporary + ": " + errno_text());
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0) {
      const std::string why = errno_text();
      ::close(fd);
      throw std::runtime_error("cannot write " + temporary + ": " + why);
    }
    done += static_cast<std::size_t>(n);
  }
  const bool ok = ::fsync(fd) == 0;
  ::close(fd);
  if (!ok || std::rename(temporary.c_str(), path.c_str()) != 0) {
    throw std::runtime_error("cannot write " + path.string() + ": " + errno_text());
  }
}

}  // namespace

// ---- CardState
// ------------------------------------------------------------------------------------

CardState::CardState(const std::filesystem::path& root, const CardConfig& config)
    : folder_(root / ("sim-" + std::to_string(config.seed))) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) {
    throw std::runtime_error("cannot make the state folder " + folder_.string() + ": " +
                             error.message() + "; set LATCHKEY_STATE_DIR");
  }
  const std::string lock = folder_ / "lock";
  lock_fd_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) throw std::runtime_error("cannot open " + lock + ": " + errno_text());
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const bool held = errno == EWOULDBLOCK;
    const std::string why = errno_text();
    ::close(lock_fd_);
    lock_fd_ = -1;
    throw std::runtime_error(held ? "card in use: " + config.name() +
                                        " is open in another process (" + folder_.string() + ")"
                                  : "cannot lock " + lock + ": " + why);
  }
  for (std::size_t region = 0; region < rtl_slots; ++region) {
    const std::filesystem::path file = fuse_file(region);
    if (!std::filesystem::exists(file)) continue;  // never written to
    try {
      std::ifstream stream(file);
      const auto json = nlohmann::json::parse(stream);
      if (json.at("format") != 1) throw std::runtime_error("format is not 1");
      FuseState& fuses = fuses_[region];
      fuses.life_cycle = json.at("life_cycle").get<std::uint16_t>();
      fuses.enrolled = json.at("enrolled").get<bool>();
      fuses.min_version = json.at("min_version").get<std::uint32_t>();
      // Cards of earlier versions have no floors yet.
      if (json.contains("version_floor")) {
        fuses.version_floor = json.at("version_floor").get<std::array<std::uint32_t, 8>>();
        fuses.epoch_floor = json.at("epoch_floor").get<std::array<std::uint32_t, 8>>();
      }
    } catch (const std::exception& e) {
      ::close(lock_fd_);
      lock_fd_ = -1;
      throw std::runtime_error("the fuses of " + config.name() + " in " + file.string() +
                               " cannot be read: " + e.what());
    }
  }
}

CardState::~CardState() {
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

std::filesystem::path CardState::fuse_file(std::size_t region) const {
  return folder_ / (region == 0 ? "fuses.json" : "fuses-" + std::to_string(region) + ".json");
}

void CardState::store(std::size_t region, const FuseState& fuses) {
  fuses_.at(region) = fuses;
  nlohmann::ordered_json json;
  json["format"] = 1;
  json["life_cycle"] = fuses.life_cycle;
  json["enrolled"] = fuses.enrolled;
  json["min_version"] = fuses.min_version;
  json["version_floor"] = fuses.version_floor;
  json["epoch_floor"] = fuses.epoch_floor;
  write_file(fuse_file(region), json.dump(2) + "\n");
}

// ---- Image
// ----------------------------------------------------------------------------------------

const Image& Image::open(const void* data, std::size_t bytes) {
  static auto* const images = new std::vector<std::unique_ptr<const Image>>;
  for (const auto& image : *images) {
    if (image->size_ == bytes && std::memcmp(image->bytes_, data, bytes) == 0) return *image;
  }
  images->emplace_back(new Image(data, bytes));
  return *images->back();
}

Image::Image(const void* data, std::size_t bytes) : size_(bytes) {
  const int fd = memfd_create("latchkey_image", MFD_CLOEXEC);
  const auto fail = [&](const std::string& what) {
    if (bytes_ != nullptr) munmap(const_cast<void*>(bytes_), size_);
    if (fd >= 0) ::close(fd);
    throw std::runtime_error(what);
  };
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    fail("cannot make room for the image: " + errno_text());
  }
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) fail("cannot make room for the image: " + errno_text());
  bytes_ = mapped;
  std::memcpy(mapped, data, bytes);
  // The descriptor stays open: the loader takes equal paths for the same library, so its number
  // must not be used again.
  void* library = dlopen(("/proc/self/fd/" + std::to_string(fd)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    fail(std::string("the image's simulation model cannot be loaded: ") + dlerror());
  }
  const auto function = reinterpret_cast<lk_image_fn>(dlsym(library, "latchkey_image"));
  table_ = function == nullptr ? nullptr : function();
  if (table_ == nullptr || table_->abi != LATCHKEY_MODEL_ABI) {
    const std::string version = table_ == nullptr ? "none" : std::to_string(table_->abi);
    dlclose(library);
    fail("the image's simulation model has interface version " + version + ", this card wants " +
         std::to_string(LATCHKEY_MODEL_ABI) + "; build image and driver from the same version");
  }
}

const lk_rtl_kernel* Image::find_rtl(const std::string& kernel) const {
  for (std::uint32_t i = 0; i < table_->num_rtl; ++i) {
    if (kernel == table_->rtl[i]->name) return table_->rtl[i];
  }
  return nullptr;
}

const lk_hls_kernel* Image::find_hls(const std::string& kernel) const {
  for (std::uint32_t i = 0; i < table_->num_hls; ++i) {
    if (kernel == table_->hls[i]->name) return table_->hls[i];
  }
  return nullptr;
}

// ---- Card
// -----------------------------------------------------------------------------------------

Card::Card(const sc_core::sc_module_name& name, const CardConfig& config)
    : sc_module(name), config_(config), memory_model_("memory", memory_, config.memory) {
  for (std::size_t i = 0; i < rtl_slots; ++i) {
    rtl_.push_back(std::make_unique<RtlUnit>(("rtl_" + std::to_string(i)).c_str(), *this));
    rtl_.back()->socket.bind(memory_model_.socket);
  }
  for (std::size_t i = 0; i < hls_slots; ++i) {
    hls_.push_back(std::make_unique<HlsUnit>(("hls_" + std::to_string(i)).c_str(), *this));
    hls_.back()->socket.bind(memory_model_.socket);
  }
}

Card::~Card() = default;

void Card::power_on(const std::filesystem::path& state_root) {
  if (state_) return;
  auto state = std::make_unique<CardState>(state_root, config_);
  SiliconConfig die;
  die.die_seed = config_.seed;
  die.lot_seed = config_.lot_seed;
  die.corner_drift = config_.corner_drift;
  const std::uint64_t nonce = config_.nonce ? *config_.nonce : [] {
    std::random_device random;
    return std::uint64_t{random()} << 32 | random();
  }();
  for (std::size_t i = 0; i < rtl_slots; ++i) {
    Region& region = regions_[i];
    die.region = static_cast<std::uint32_t>(i);
    region.silicon = std::make_unique<Silicon>(die, nonce);
    region.silicon->set_environment(config_.environment);
    region.fuses.on_change(nullptr);
    region.fuses.load(state->fuses(i));
    region.fuses.on_change([this, i](const FuseState& fuses) {
      try {
        state_->store(i, fuses);
      } catch (const std::exception& e) {
        fail(e.what(), RunEnd::failed);
      }
    });
    region.ops = make_ops(*region.silicon, region.fuses);
  }
  state_ = std::move(state);
}

void Card::power_off() {
  if (!state_) return;
  unload();
  for (Region& region : regions_) {
    region.silicon.reset();
    region.fuses.on_change(nullptr);
  }
  state_.reset();
}

std::vector<StreamConnection> stream_connections(const char* text, std::size_t bytes) {
  std::vector<StreamConnection> list;
  try {
    const auto json = nlohmann::json::parse(text, text + bytes);
    for (const auto& entry : json.at("stream_connect")) {
      const auto line = entry.get<std::string>();
      const auto colon = line.find(':');
      const std::string from = line.substr(0, colon);
      const std::string to = colon == std::string::npos ? "" : line.substr(colon + 1);
      const auto a = from.find('.'), b = to.find('.');
      if (a == std::string::npos || b == std::string::npos) {
        throw std::runtime_error("'" + line + "' is not unit.port:unit.port");
      }
      list.push_back({from.substr(0, a), from.substr(a + 1), to.substr(0, b), to.substr(b + 1)});
    }
  } catch (const std::exception& e) {
    throw std::runtime_error(std::string("the image's stream connections: ") + e.what());
  }
  return list;
}

void Card::load(const Image& image, const std::vector<std::string>& units,
                const std::vector<StreamConnection>& streams) {
  struct Placed {
    const lk_rtl_kernel* rtl;
    const lk_hls_kernel* hls;
  };
  std::vector<Placed> placed;
  std::size_t rtl_used = 0, hls_used = 0;
  for (const std::string& unit : units) {
    const std::string kernel = unit.substr(0, unit.find(':'));
    Placed p{image.find_rtl(kernel), image.find_hls(kernel)};
    if (p.rtl == nullptr && p.hls == nullptr) {
      throw std::runtime_error("the image lists " + unit + " but has no model of " + kernel);
    }
    (p.rtl != nullptr ? rtl_used : hls_used) += 1;
    placed.push_back(p);
  }
  if (rtl_used > rtl_slots || hls_used > hls_slots) {
    throw std::runtime_error("the image has " + std::to_string(rtl_used) + " RTL and " +
                             std::to_string(hls_used) + " HLS kernels; the simulated card holds " +
                             std::to_string(rtl_slots) + " and " + std::to_string(hls_slots));
  }
  std::vector<AxisFifo*> in(units.size()), out(units.size());
  // The slot of `unit`'s stream port, checked.
  const auto end = [&](const std::string& unit, const std::string& port,
                       bool output) -> AxisFifo*& {
    const std::string what = "stream_connect " + unit + "." + port + ": ";
    std::size_t i = 0;
    while (i < units.size() && units[i].substr(units[i].find(':') + 1) != unit) ++i;
    if (i == units.size()) throw std::runtime_error(what + "the image has no such unit");
    const bool rtl = placed[i].rtl != nullptr;
    const std::uint32_t ports = rtl ? placed[i].rtl->ports : placed[i].hls->ports;
    const std::string name = rtl ? (output ? "m_axis_out" : "s_axis_in") : (output ? "out" : "in");
    if (port != name || (ports & (output ? LK_PORT_AXIS_OUT : LK_PORT_AXIS_IN)) == 0) {
      throw std::runtime_error(what + "no such " + (output ? "output" : "input"));
    }
    AxisFifo*& slot = output ? out[i] : in[i];
    if (slot != nullptr) throw std::runtime_error(what + "connected twice");
    return slot;
  };
  std::size_t next_fifo = 0;
  for (const StreamConnection& s : streams) {
    AxisFifo*& from = end(s.from_unit, s.from_port, true);
    AxisFifo*& to = end(s.to_unit, s.to_port, false);
    from = to = &fifos_.at(next_fifo++);
  }
  unload();
  memory_model_.restart();
  for (AxisFifo& fifo : fifos_) fifo.clear();
  const char* trace = std::getenv("LATCHKEY_SIM_TRACE");
  std::size_t next_rtl = 0, next_hls = 0;
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (const lk_rtl_kernel* k = placed[i].rtl; k != nullptr) {
      const std::size_t slot = next_rtl++;
      RtlUnit& unit = *rtl_[slot];
      std::string path;
      if (trace != nullptr && *trace != '\0') {
        std::string file = config_.name() + "-" + units[i] + ".fst";
        for (char& c : file) c = c == ':' ? '-' : c;
        path = std::filesystem::path(trace) / file;
      }
      unit.load(k, units[i], &regions_[slot].ops, in[i], out[i], path);
      units_.push_back(&unit);
    } else {
      const lk_hls_kernel* h = placed[i].hls;
      HlsUnit& unit = *hls_[next_hls++];
      unit.load(h, units[i], in[i], out[i]);
      units_.push_back(&unit);
    }
  }
}

void Card::unload() {
  if (!units_.empty() && state_) write_statistics();
  for (auto& unit : rtl_) unit->unload();
  for (auto& unit : hls_) unit->unload();
  units_.clear();
}

void Card::fail(const std::string& reason, RunEnd end) {
  std::fprintf(stderr, "latchkey: card %s: %s\n", config_.name().c_str(), reason.c_str());
  for (ComputeUnit* unit : units_) unit->fail_all(end);
}

bool Card::has_runs() const {
  for (const ComputeUnit* unit : units_) {
    if (unit->has_runs()) return true;
  }
  return false;
}

void Card::wake_units() {
  for (ComputeUnit* unit : units_) unit->wake();
}

void Card::write_statistics() const {
  const MemoryStatistics& m = memory_model_.statistics();
  nlohmann::ordered_json json;
  json["clock_mhz"] = clock_mhz;
  json["simulated_ns"] = sc_core::sc_time_stamp().value() / 1000;
  json["read_bytes"] = m.read_bytes;
  json["write_bytes"] = m.write_bytes;
  json["read_bursts"] = m.read_bursts;
  json["write_bursts"] = m.write_bursts;
  const std::uint64_t bursts = m.read_bursts + m.write_bursts;
  json["mean_latency_ns"] =
      bursts == 0 ? 0.0 : static_cast<double>(m.latency_ps) / 1000.0 / static_cast<double>(bursts);
  for (const ComputeUnit* unit : units_) json["cycles"][unit->title()] = unit->cycles_run();
  try {
    write_file(state_->folder() / "statistics.json", json.dump(2) + "\n");
  } catch (const std::exception&) {
    // Statistics are a courtesy.
  }
}

}  // namespace latchkey::sim
