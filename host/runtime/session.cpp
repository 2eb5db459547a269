#include "latchkey/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <thread>

#include "card.hpp"
#include "host_parts.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"

namespace latchkey {
namespace {

/// Fills result buffers before a run, so that bytes released by a failed run can be counted.
constexpr std::uint8_t kUntouched = 0x5A;

std::uint32_t words_of(std::size_t bytes) {
  return static_cast<std::uint32_t>((bytes + spec::beat_bytes - 1) / spec::beat_bytes);
}

std::uint32_t bits(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}

}  // namespace

Counters& Counters::operator+=(const Counters& o) {
  cycles += o.cycles;
  array_busy += o.array_busy;
  wait_memory += o.wait_memory;
  wait_decrypt += o.wait_decrypt;
  wait_load += o.wait_load;
  wait_activations += o.wait_activations;
  wait_post += o.wait_post;
  vector += o.vector;
  input += o.input;
  output += o.output;
  control += o.control;
  macs += o.macs;
  pages += o.pages;
  beats += o.beats;
  starts += o.starts;
  return *this;
}

struct Session::Impl {
  Device::Impl& card;
  compiler::io_tensor input, output;
  std::optional<fallback::host_graph> head, tail;
  std::uint32_t max_batch = 1, batch = 1, num_descs = 0;
  xrt::bo pages, tags;
  BuildInfo build{};
  KeySetup setup;
  std::size_t released = 0;
  bool loaded = false;  // the card holds this session's model
  std::function<void(std::size_t, std::size_t)> progress;

  // The worker: one thread, a queue of runs.
  struct Job {
    std::vector<std::uint8_t> images;
    std::size_t count;
    ImageFormat format;
    OutputMode mode;
    std::uint32_t k;
    std::promise<RunResult> promise;
  };
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Job> jobs;
  bool stop = false;
  std::mutex card_mutex;  // one run at a time, whoever asks
  std::thread worker;

  explicit Impl(Device::Impl& c) : card(c) {
    if (c.in_session) {
      throw error(errc::device_busy,
                  fmt::format("device {}: another session of this program has the "
                              "card; end it first",
                              c.name));
    }
    c.in_session = true;
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    if (worker.joinable()) worker.join();
    // Neither key nor weights outlive the session. A card that is gone or locked has wiped itself.
    try {
      if (loaded) card.command(spec::cmd::zeroise);
    } catch (const std::exception&) {
    }
    card.in_session = false;
  }

  [[nodiscard]] error refuse(const std::string& what, spec::key_err why) const;
  void take_layout(const compiler::program& program);
  void write_window(std::uint32_t reg, std::span<const std::uint8_t> bytes);
  void load_memory(std::span<const std::uint8_t> page_bytes,
                   std::span<const std::uint8_t> tag_bytes);
  void load_locked(const Package& package, const PublicRecord& record);
  void load_open(const Program& program);
  Counters read_counters() const;
  RunResult run(std::span<const std::uint8_t> images, std::size_t count, const ImageFormat& format,
                OutputMode mode, std::uint32_t k);
  RunResult run_card(std::span<const std::uint8_t> images, std::size_t count,
                     const ImageFormat& format, OutputMode mode, std::uint32_t k);
  Counters start(std::span<const std::uint8_t> images, std::uint32_t count,
                 const ImageFormat& format, std::size_t image_bytes, OutputMode mode,
                 std::uint32_t k, std::size_t record_bytes, std::uint8_t* to);
  void work();
};

error Session::Impl::refuse(const std::string& what, spec::key_err why) const {
  std::string advice;
  errc code = errc::refused;
  switch (why) {
    case spec::key_err::key_failure:
      advice =
          "check that the device record belongs to this very card, and that record and package are "
          "unchanged";
      break;
    case spec::key_err::life_cycle:
      code = errc::not_enrolled;
      advice = "this chip is not enrolled; run `latchkey enroll`";
      break;
    case spec::key_err::config_mismatch:
      code = errc::mismatch;
      advice = "compile and lock the model for this card's build";
      break;
    case spec::key_err::locked_out:
    case spec::key_err::page_tampered:
      advice = "reset the card and start again with intact files";
      break;
    default:
      advice = "docs/programmers_guide.md lists what each reason asks for";
      break;
  }
  return error(code,
               fmt::format("device {}: the chip refused {}, reason {}: {}. Remedy: {}", card.name,
                           what, static_cast<unsigned>(why), spec::describe(why), advice));
}

void Session::Impl::take_layout(const compiler::program& program) {
  input = program.input;
  output = program.output;
  head = program.head;
  tail = program.tail;
  max_batch = batch = program.max_batch;
}

void Session::Impl::write_window(std::uint32_t reg, std::span<const std::uint8_t> data) {
  for (std::size_t i = 0; i + 4 <= data.size(); i += 4) {
    std::uint32_t word;
    std::memcpy(&word, data.data() + i, 4);
    card.write(reg, word);
  }
}

void Session::Impl::load_memory(std::span<const std::uint8_t> page_bytes,
                                std::span<const std::uint8_t> tag_bytes) {
  // Tags are fetched in lines of 16.
  const std::size_t line = 16 * spec::tag_bytes;
  const std::size_t tag_size = std::max((tag_bytes.size() + line - 1) / line * line, line);
  pages = xrt::bo(card.device, page_bytes.size(), card.core.group_id(0));
  tags = xrt::bo(card.device, tag_size, card.core.group_id(1));
  pages.write(page_bytes.data(), page_bytes.size(), 0);
  pages.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  if (!tag_bytes.empty()) tags.write(tag_bytes.data(), tag_bytes.size(), 0);
  tags.sync(XCL_BO_SYNC_BO_TO_DEVICE);
}

void Session::Impl::load_locked(const Package& package, const PublicRecord& record) {
  const lock::package& p = package.get();
  take_layout(p.info);
  // A key that an earlier session left would make START illegal. A locked chip refuses this too,
  // and START then says why.
  if (static_cast<spec::key_state>(card.read(spec::reg::key_state)) != spec::key_state::idle)
    card.command(spec::cmd::zeroise);
  card.write(spec::reg::fill_clear, 1);
  write_window(spec::reg::helper_in, record.get().helper);
  if (const auto why = card.command(spec::cmd::start); why != spec::key_err::none)
    throw refuse("to start its key from the device record", why);
  setup.start_cycles = card.read(spec::reg::start_cycles);
  setup.unstable_votes = card.read(spec::reg::unstable);

  const lock::manifest_bytes manifest = lock::to_bytes(p.manifest);
  write_window(spec::reg::manifest_in, manifest);
  write_window(spec::reg::blob_in, p.key);
  if (const auto why = card.command(spec::cmd::unwrap); why != spec::key_err::none)
    throw refuse("the package", why);
  setup.cycles = card.read(spec::reg::setup_cycles);
  num_descs = p.manifest.num_descs;
  load_memory(p.pages, p.tags);
}

void Session::Impl::load_open(const Program& program) {
  const compiler::program& p = program.get();
  take_layout(p);
  spec::manifest m{};
  m.magic = lock::manifest_magic;
  m.format = spec::format_version;
  m.config_id = p.target.config_id();
  m.num_pages = p.num_pages();
  m.num_descs = static_cast<std::uint32_t>(p.descriptors.size());
  m.desc_pages = p.regions.at(0).count;
  m.max_batch = p.max_batch;
  m.input_words = p.input.layout.words;
  m.output_words = p.output.layout.words;
  num_descs = m.num_descs;
  card.write(spec::reg::fill_clear, 1);
  write_window(spec::reg::manifest_in, lock::to_bytes(m));
  if (const auto why = card.command(spec::cmd::unwrap); why != spec::key_err::none)
    throw refuse("the program", why);
  load_memory(p.pages, {});
}

Counters Session::Impl::read_counters() const {
  std::array<std::uint64_t, spec::num_counters> c{};
  for (std::uint32_t i = 0; i < spec::num_counters; ++i) {
    c[i] = card.read(spec::reg::counters + 8 * i) |
           std::uint64_t{card.read(spec::reg::counters + 8 * i + 4)} << 32;
  }
  const auto at = [&](spec::counter which) { return c[static_cast<std::size_t>(which)]; };
  Counters r;
  r.cycles = at(spec::counter::cycles);
  r.array_busy = at(spec::counter::array_busy);
  r.wait_memory = at(spec::counter::wait_memory);
  r.wait_decrypt = at(spec::counter::wait_decrypt);
  r.wait_load = at(spec::counter::wait_load);
  r.wait_activations = at(spec::counter::wait_activations);
  r.wait_post = at(spec::counter::wait_post);
  r.vector = at(spec::counter::vector);
  r.input = at(spec::counter::input);
  r.output = at(spec::counter::output);
  r.control = at(spec::counter::control);
  r.macs = at(spec::counter::macs);
  r.pages = at(spec::counter::pages);
  r.beats = at(spec::counter::beats);
  r.starts = 1;
  return r;
}

Counters Session::Impl::start(std::span<const std::uint8_t> images, std::uint32_t count,
                              const ImageFormat& format, std::size_t image_bytes, OutputMode mode,
                              std::uint32_t k, std::size_t record_bytes, std::uint8_t* to) {
  const std::uint32_t image_words = words_of(image_bytes);
  const std::uint32_t record_words = words_of(record_bytes);
  xrt::bo in(card.device, std::size_t{count} * image_words * spec::beat_bytes,
             card.input.group_id(0));
  xrt::bo out(card.device, std::size_t{count} * record_words * spec::beat_bytes,
              card.output.group_id(0));
  auto* in_map = in.map<std::uint8_t*>();
  for (std::uint32_t i = 0; i < count; ++i)
    std::memcpy(in_map + std::size_t{i} * image_words * spec::beat_bytes,
                images.data() + i * image_bytes, image_bytes);
  in.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  auto* out_map = out.map<std::uint8_t*>();
  std::memset(out_map, kUntouched, out.size());
  out.sync(XCL_BO_SYNC_BO_TO_DEVICE);

  xrt::run input_run(card.input), core_run(card.core), output_run(card.output);
  std::uint32_t arg = 0;
  input_run.set_arg(0, in);
  for (std::uint32_t v :
       {count, input.layout.c, input.layout.h, input.layout.w,
        static_cast<std::uint32_t>(format.type), static_cast<std::uint32_t>(format.order),
        input.layout.cp_log2, input.layout.words, image_words, bits(input.scale),
        std::uint32_t{input.zero_point}, bits(format.mul), bits(format.add)})
    input_run.set_arg(static_cast<int>(++arg), v);
  output_run.set_arg(0, out);
  arg = 0;
  for (std::uint32_t v :
       {count, output.layout.c, output.layout.h * output.layout.w, output.layout.cp_log2,
        output.layout.words, record_words, static_cast<std::uint32_t>(mode), k, bits(output.scale),
        std::uint32_t{output.zero_point}})
    output_run.set_arg(static_cast<int>(++arg), v);
  core_run.set_arg(0, pages);
  core_run.set_arg(1, tags);
  core_run.set_arg(2, count);

  // The ends first, so that the core never waits for a start.
  output_run.start();
  input_run.start();
  core_run.start();
  const bool done = core_run.wait() == ERT_CMD_STATE_COMPLETED &&
                    input_run.wait() == ERT_CMD_STATE_COMPLETED &&
                    output_run.wait() == ERT_CMD_STATE_COMPLETED;

  const auto status = static_cast<spec::run_status>(card.read(spec::reg::run_status));
  out.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  const auto written = [&] {
    return out.size() -
           static_cast<std::size_t>(std::count(out_map, out_map + out.size(), kUntouched));
  };
  if (done && status == spec::run_status::ok) {
    const std::uint32_t taken = card.output.read_register(spec::output_arg::status);
    if (taken != 0) {
      released = written();
      throw error(
          errc::run_failed,
          fmt::format("device {}: the output adapter ended with status {}", card.name, taken));
    }
    for (std::uint32_t i = 0; i < count; ++i)
      std::memcpy(to + i * record_bytes, out_map + std::size_t{i} * record_words * spec::beat_bytes,
                  record_bytes);
    return read_counters();
  }

  released = written();
  switch (status) {
    case spec::run_status::page_tampered:
      throw error(
          errc::refused,
          fmt::format("device {}: page {} failed authentication; keys were wiped, the session "
                      "is locked and no output was released. The package in memory is not what "
                      "its owner sealed: load an intact copy",
                      card.name, card.read(spec::reg::fail_page)));
    case spec::run_status::no_key:
      throw error(errc::refused,
                  fmt::format("device {}: no model key is loaded; the chip was wiped or "
                              "locked. Open a new session",
                              card.name));
    case spec::run_status::ok:
      throw error(
          errc::run_failed,
          fmt::format("device {}: the run did not finish (a memory access outside any buffer, or "
                      "a time-out); see the driver's message",
                      card.name));
    default:
      throw error(errc::run_failed,
                  fmt::format("device {}: the run failed: {} (status {})", card.name,
                              spec::describe(status), static_cast<unsigned>(status)));
  }
}

RunResult Session::Impl::run(std::span<const std::uint8_t> images, std::size_t count,
                             const ImageFormat& format, OutputMode mode, std::uint32_t k) {
  if (tail && mode != OutputMode::raw) {
    throw error(errc::usage,
                "the model's last operators run on the host and give its outputs: run it in raw "
                "mode");
  }
  if (!head && !tail) return run_card(images, count, format, mode, k);
  const HostParts host(head, tail, output);
  Stopwatch before;
  HostParts::Input given{images, format, {}};
  if (head) given = host.prepare(images, count, format);
  const double head_seconds = before.seconds();
  RunResult result = run_card(given.images, count, given.format, mode, k);
  Stopwatch behind;
  if (tail) result.outputs = host.finish(result.data, count);
  result.host_seconds = head_seconds + behind.seconds();
  return result;
}

RunResult Session::Impl::run_card(std::span<const std::uint8_t> images, std::size_t count,
                                  const ImageFormat& format, OutputMode mode, std::uint32_t k) {
  const std::lock_guard lock(card_mutex);
  const Stopwatch watch;
  const std::size_t values = std::size_t{input.layout.c} * input.layout.h * input.layout.w;
  const std::size_t image_bytes = values * (format.type == ImageFormat::Type::u8 ? 1 : 4);
  if (count == 0 || images.size() != count * image_bytes) {
    throw error(
        errc::usage,
        fmt::format("input '{}' takes {} x {} x {} {} values = {} bytes per image; {} bytes were "
                    "given for {} images",
                    input.name, input.layout.c, input.layout.h, input.layout.w,
                    format.type == ImageFormat::Type::u8 ? "u8" : "float32", image_bytes,
                    images.size(), count));
  }
  const std::size_t pixels = std::size_t{output.layout.h} * output.layout.w;
  if (mode == OutputMode::top_k && (k == 0 || k > output.layout.c)) {
    throw error(errc::usage,
                fmt::format("top-k: k = {} is not between 1 and the {} channels of output "
                            "'{}'",
                            k, output.layout.c, output.name));
  }
  RunResult result;
  result.record_bytes = mode == OutputMode::raw     ? pixels * output.layout.c
                        : mode == OutputMode::top_k ? 8 * pixels * k
                                                    : 4 * pixels * output.layout.c;
  for (const std::size_t bytes : {image_bytes, result.record_bytes}) {
    if (words_of(bytes) > spec::adapter_words) {
      throw error(
          errc::usage,
          fmt::format("an image or result of {} bytes is larger than the adapters' buffer of {} "
                      "bytes; use smaller images, u8 instead of float32, or raw output",
                      bytes, spec::adapter_words * spec::beat_bytes));
    }
  }
  result.data.resize(count * result.record_bytes);
  released = 0;
  for (std::size_t done = 0; done < count;) {
    const auto now = static_cast<std::uint32_t>(std::min<std::size_t>(batch, count - done));
    try {
      result.counters +=
          start(images.subspan(done * image_bytes, now * image_bytes), now, format, image_bytes,
                mode, k, result.record_bytes, result.data.data() + done * result.record_bytes);
    } catch (const error&) {
      throw;
    } catch (const std::exception& e) {
      throw error(errc::run_failed, fmt::format("device {}: {}", card.name, e.what()));
    }
    done += now;
    if (progress) progress(done, count);
  }
  result.card_seconds = watch.seconds();
  return result;
}

void Session::Impl::work() {
  for (;;) {
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return stop || !jobs.empty(); });
    if (jobs.empty()) return;  // stop, and everything asked for is done
    Job job = std::move(jobs.front());
    jobs.pop_front();
    lock.unlock();
    try {
      job.promise.set_value(run(job.images, job.count, job.format, job.mode, job.k));
    } catch (...) {
      job.promise.set_exception(std::current_exception());
    }
  }
}

Session::Session(Device& device, const Package& package, const PublicRecord& record,
                 const SessionOptions& options)
    : impl_(std::make_unique<Impl>(device.impl())) {
  const compiler::program& info = package.get().info;
  impl_->build = device.load(Build::operate, info.target.array_n);
  if (!options.skip_host_checks) {
    lock::check_for(package.get(), record.get().id, impl_->build.config_id, info.name);
  }
  impl_->load_locked(package, record);
  impl_->loaded = true;
}

Session::Session(Device& device, const Program& program)
    : impl_(std::make_unique<Impl>(device.impl())) {
  impl_->build = device.load(Build::unlocked, program.array_n());
  impl_->load_open(program);
  impl_->loaded = true;
}

Session::Session(Session&&) noexcept = default;
Session::~Session() = default;

RunResult Session::run(std::span<const std::uint8_t> images, std::size_t count,
                       const ImageFormat& format, OutputMode mode, std::uint32_t k) {
  return impl_->run(images, count, format, mode, k);
}

std::future<RunResult> Session::run_async(std::vector<std::uint8_t> images, std::size_t count,
                                          const ImageFormat& format, OutputMode mode,
                                          std::uint32_t k) {
  Impl::Job job{std::move(images), count, format, mode, k, {}};
  std::future<RunResult> result = job.promise.get_future();
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->jobs.push_back(std::move(job));
    if (!impl_->worker.joinable())
      impl_->worker = std::thread([impl = impl_.get()] { impl->work(); });
  }
  impl_->wake.notify_one();
  return result;
}

void Session::limit_batch(std::uint32_t images) {
  if (images > impl_->max_batch) {
    throw error(errc::usage, fmt::format("batch {} is above the program's limit of {}", images,
                                         impl_->max_batch));
  }
  impl_->batch = images ? images : impl_->max_batch;
}

void Session::on_progress(std::function<void(std::size_t, std::size_t)> callback) {
  impl_->progress = std::move(callback);
}

LayerCycles Session::layer_cycles() const {
  LayerCycles r;
  std::uint32_t before = impl_->card.read(spec::reg::layer_cycles);
  r.boot = before;
  for (std::uint32_t i = 1; i < impl_->num_descs; ++i) {
    const std::uint32_t now = impl_->card.read(spec::reg::layer_cycles + 4 * i);
    r.cycles.push_back(now - before);  // modulo 2^32, as the register counts
    before = now;
  }
  return r;
}

const BuildInfo& Session::build() const { return impl_->build; }
const KeySetup& Session::key_setup() const { return impl_->setup; }
std::size_t Session::released_bytes() const { return impl_->released; }

}  // namespace latchkey
