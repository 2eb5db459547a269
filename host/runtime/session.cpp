// Sessions: a run cut into starts, and the units that work them off.
#include "latchkey/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>

#include "host_parts.hpp"
#include "lock/package.hpp"
#include "lock/record.hpp"
#include "model/arith.hpp"
#include "unit.hpp"

namespace latchkey {
namespace {

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point then) {
  return std::chrono::duration<double>(clock::now() - then).count();
}

/// The starts of one run, given to the units in the order of the images.
class Starts {
 public:
  /// Starts of `batch` images; over several units as many for each, of equal size.
  Starts(std::size_t count, std::uint32_t batch, std::size_t units) : count_(count), idle_(units) {
    std::size_t starts = (count + batch - 1) / batch;
    starts = std::min(count, (starts + units - 1) / units * units);
    size_ = units == 1 ? batch : static_cast<std::uint32_t>((count + starts - 1) / starts);
  }

  /// The next start, for a unit without work. The unit is done when there is none.
  std::optional<Range> take() {
    const std::lock_guard lock(mutex_);
    --idle_;
    return next();
  }
  /// The next start, for a unit that is running one; none when a unit without work will want it.
  std::optional<Range> take_ahead() {
    const std::lock_guard lock(mutex_);
    const std::size_t left = (count_ - taken_ + size_ - 1) / size_;
    return left > idle_ ? next() : std::nullopt;
  }
  /// The unit's start ended and it holds no other.
  void give_back() {
    const std::lock_guard lock(mutex_);
    ++idle_;
  }
  void finished(Range range) {
    {
      const std::lock_guard lock(mutex_);
      done_ += range.count;
    }
    changed_.notify_all();
  }
  void failed(std::exception_ptr why) {
    {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::move(why);
      stopped_ = true;
    }
    changed_.notify_all();
  }
  bool stopped() const {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }
  /// Waits for news; the images done so far, nothing after a failure.
  std::optional<std::size_t> wait_beyond(std::size_t known) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || done_ > known; });
    return stopped_ ? std::nullopt : std::optional(done_);
  }
  std::exception_ptr failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  std::optional<Range> next() {
    if (stopped_ || taken_ == count_) return std::nullopt;
    const auto n = static_cast<std::uint32_t>(std::min<std::size_t>(size_, count_ - taken_));
    const Range range{taken_, n};
    taken_ += n;
    return range;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t count_, taken_ = 0, done_ = 0;
  std::size_t idle_;  // units without work
  std::uint32_t size_;
  bool stopped_ = false;
  std::exception_ptr failure_;
};

/// Works starts off until there are none: while one runs, the next is written to card memory; while
/// that runs, the results of the first are fetched. The kernel's status and counters belong to its
/// last start, so they are read before the next one is begun.
void work_off(Unit& unit, const Job& job, Starts& starts, UnitShare& share) {
  Range range{0, 0};
  unsigned slot = 0;
  bool under_way = false;
  try {
    std::optional<Range> running = starts.take();
    clock::time_point began;
    const auto start = [&](unsigned which) {
      unit.start(which);
      under_way = true;
      began = clock::now();
    };
    if (running) {
      range = *running;
      unit.prepare(slot, job, range);
      start(slot);
    }
    while (running) {
      range = *running;
      std::optional<Range> next = starts.take_ahead();
      if (next) unit.prepare(1 - slot, job, *next);
      under_way = false;
      share.counters += unit.finish(slot);
      share.busy_seconds += seconds_since(began);
      share.images += range.count;
      if (!next) {
        starts.give_back();
        if ((next = starts.take())) unit.prepare(1 - slot, job, *next);
      }
      if (next && starts.stopped()) next.reset();
      if (next) start(1 - slot);
      const unsigned last = slot;
      slot = 1 - slot;
      unit.collect(last);
      starts.finished(range);
      running = next;
    }
  } catch (const std::exception& e) {
    // The host failed between two starts: the kernels end the one that they have.
    if (under_way) unit.drain(slot);
    const auto* known = dynamic_cast<const error*>(&e);
    const std::string what =
        known ? e.what() : fmt::format("device {}: {}", unit.label(), e.what());
    starts.failed(std::make_exception_ptr(
        error(known ? known->code() : errc::run_failed,
              fmt::format("{} (images {} to {} of {}; the results of this run are withheld)", what,
                          range.first, range.first + std::max(range.count, 1U) - 1, job.count))));
  }
}

/// float32 images as the bytes that the input adapter makes of them, and the format in which it
/// leaves those as they are.
struct Quantised {
  std::vector<std::uint8_t> images;
  ImageFormat format;

  Quantised(std::span<const std::uint8_t> floats, const ImageFormat& given,
            const compiler::io_tensor& input)
      : format{ImageFormat::Type::u8, given.order, input.scale,
               -input.scale * static_cast<float>(input.zero_point)} {
    images.reserve(floats.size() / sizeof(float));
    for (std::size_t at = 0; at < floats.size(); at += sizeof(float)) {
      float v = 0;
      std::memcpy(&v, &floats[at], sizeof v);
      images.push_back(model::quantise_value(v, input.scale, input.zero_point));
    }
  }
};

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
  std::vector<std::unique_ptr<Unit>> units;
  compiler::io_tensor input, output;
  std::optional<fallback::host_graph> head, tail;
  std::uint32_t max_batch = 1, batch = 1;
  BuildInfo build{};
  std::function<void(std::size_t, std::size_t)> progress;

  // The worker: one thread, a queue of runs.
  struct Later {
    std::vector<std::uint8_t> images;
    std::size_t count;
    ImageFormat format;
    OutputMode mode;
    std::uint32_t k;
    std::promise<RunResult> promise;
  };
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Later> jobs;
  bool stop = false;
  std::mutex card_mutex;  // one run at a time, whoever asks
  std::thread worker;

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    if (worker.joinable()) worker.join();
  }

  void open(const std::vector<ComputeUnit>& places, Build which, const compiler::program& program);
  RunResult run(std::span<const std::uint8_t> images, std::size_t count, const ImageFormat& format,
                OutputMode mode, std::uint32_t k);
  RunResult run_card(std::span<const std::uint8_t> images, std::size_t count,
                     const ImageFormat& format, OutputMode mode, std::uint32_t k);
  void work();
};

/// Loads the build into every card and takes the units.
void Session::Impl::open(const std::vector<ComputeUnit>& places, Build which,
                         const compiler::program& program) {
  if (places.empty()) throw error(errc::usage, "a session needs a compute unit");
  for (const ComputeUnit& place : places) {
    std::uint32_t wanted = 1;
    for (const ComputeUnit& other : places)
      if (other.device == place.device) wanted = std::max(wanted, other.index + 1);
    build = place.device->load(which, program.target.array_n, wanted);
  }
  for (const ComputeUnit& place : places)
    units.push_back(std::make_unique<Unit>(*place.device, place.index));
  input = program.input;
  output = program.output;
  head = program.head;
  tail = program.tail;
  max_batch = batch = program.max_batch;
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
  constexpr std::size_t room = spec::adapter_words * spec::beat_bytes;
  if (format.type == ImageFormat::Type::f32 && image_bytes > room && values <= room) {
    const Quantised bytes(images, format, input);
    return run_card(bytes.images, count, bytes.format, mode, k);
  }
  for (const std::size_t bytes : {image_bytes, result.record_bytes}) {
    if (bytes > room) {
      throw error(
          errc::usage,
          fmt::format("an image or result of {} bytes is larger than the adapters' buffer of {} "
                      "bytes; use smaller images or raw output",
                      bytes, room));
    }
  }
  const std::lock_guard lock(card_mutex);
  result.data.resize(count * result.record_bytes);

  // Values of a model with channels last come that way, whatever the order is called.
  ImageFormat as_is = format;
  if (input.channels_last) as_is.order = ImageFormat::Order::nhwc;
  const Job job{
      images, count, as_is, mode, k, image_bytes, result.record_bytes, result.data.data()};
  Starts starts(count, batch, units.size());
  const auto began = clock::now();
  for (const auto& unit : units) {
    unit->released = 0;
    result.units.push_back({unit->card(), unit->index(), {}, 0, 0});
  }
  std::vector<std::thread> threads;
  for (std::size_t u = 0; u < units.size(); ++u)
    threads.emplace_back([&, u] { work_off(*units[u], job, starts, result.units[u]); });
  // This thread tells of progress, and what the callback throws ends the run.
  try {
    for (std::size_t done = 0; done < count;) {
      const auto now = starts.wait_beyond(done);
      if (!now) break;
      done = *now;
      if (progress) progress(done, count);
    }
  } catch (...) {
    starts.failed(std::current_exception());
  }
  for (std::thread& thread : threads) thread.join();  // what was started ends first
  result.seconds = seconds_since(began);
  if (const auto failure = starts.failure()) std::rethrow_exception(failure);
  for (const UnitShare& share : result.units) result.counters += share.counters;
  return result;
}

void Session::Impl::work() {
  for (;;) {
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return stop || !jobs.empty(); });
    if (jobs.empty()) return;  // stop, and everything asked for is done
    Later job = std::move(jobs.front());
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
    : Session(std::vector<ComputeUnit>{{&device, 0}}, std::vector{package}, std::vector{record},
              options) {}

Session::Session(Device& device, const Program& program)
    : Session(std::vector<ComputeUnit>{{&device, 0}}, program) {}

Session::Session(const std::vector<ComputeUnit>& units, const std::vector<Package>& packages,
                 const std::vector<PublicRecord>& records, const SessionOptions& options)
    : impl_(std::make_unique<Impl>()) {
  if (units.size() != packages.size() || units.size() != records.size()) {
    throw error(errc::usage,
                fmt::format("a session over {} compute units takes as many packages and records; "
                            "given were {} and {}",
                            units.size(), packages.size(), records.size()));
  }
  for (const Package& package : packages) {
    const compiler::program &a = package.get().info, &b = packages.front().get().info;
    if (a.name != b.name || a.macs() != b.macs() ||
        package.version() != packages.front().version() ||
        package.get().num_pages() != packages.front().get().num_pages()) {
      throw error(errc::mismatch,
                  fmt::format("the packages of a session hold one model: '{}' version {} is not "
                              "'{}' version {}",
                              a.name, package.version(), b.name, packages.front().version()));
    }
  }
  if (packages.empty()) throw error(errc::usage, "a session needs a package");
  const compiler::program& info = packages.front().get().info;
  impl_->open(units, Build::operate, info);
  for (std::size_t u = 0; u < units.size(); ++u) {
    if (!options.skip_host_checks) {
      lock::check_for(packages[u].get(), records[u].get().id, impl_->build.config_id, info.name);
      if (packages[u].get().needs_ticket() && !options.ticket) {
        throw error(errc::refused,
                    fmt::format("{}: runs only under a ticket of its owner (slot {}): `latchkey "
                                "run --ticket`",
                                info.name, packages[u].get().manifest.slot));
      }
    }
    impl_->units[u]->load_locked(packages[u], records[u], options);
  }
}

Session::Session(const std::vector<ComputeUnit>& units, const Program& program)
    : impl_(std::make_unique<Impl>()) {
  impl_->open(units, Build::unlocked, program.get());
  for (const auto& unit : impl_->units) unit->load_open(program.get());
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
  Impl::Later job{std::move(images), count, format, mode, k, {}};
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

LayerCycles Session::layer_cycles() const { return impl_->units.front()->layer_cycles(); }

const BuildInfo& Session::build() const { return impl_->build; }
const KeySetup& Session::key_setup(std::size_t unit) const {
  return impl_->units.at(unit)->setup();
}
std::size_t Session::released_bytes() const {
  std::size_t sum = 0;
  for (const auto& unit : impl_->units) sum += unit->released;
  return sum;
}

}  // namespace latchkey
