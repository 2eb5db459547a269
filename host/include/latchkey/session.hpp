// Running a model: a program or package loaded into a card, and batches of images through it.
#ifndef LATCHKEY_SESSION_HPP
#define LATCHKEY_SESSION_HPP

#include <array>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "latchkey/device.hpp"
#include "latchkey/package.hpp"
#include "latchkey/program.hpp"

namespace latchkey {

/// How images lie in the caller's buffer, one after another without gaps.
struct ImageFormat {
  enum class Type : std::uint32_t { u8 = 0, f32 = 1 } type = Type::u8;
  /// Of a model whose own input has its channels last (tokens, N x T x C) either means just that.
  enum class Order : std::uint32_t { nchw = 0, nhwc = 1 } order = Order::nchw;
  /// u8 only: the real value of pixel p is p * mul + add.
  float mul = 1.0F / 255.0F;
  float add = 0.0F;
};

/// What the card writes for each image.
enum class OutputMode : std::uint32_t {
  raw = 0,      ///< The quantised values, u8, pixel order, channels innermost
  dequant = 1,  ///< float32, scale * (q - zero_point)
  softmax = 2,  ///< float32 probabilities over the channels of each pixel
  top_k = 3,    ///< k pairs {u32 channel, float32 probability}, most probable first
};

/// The kernel's counters, summed over the starts of a run; names and meaning in docs/registers.md.
struct Counters {
  std::uint64_t cycles = 0, array_busy = 0, wait_memory = 0, wait_decrypt = 0, wait_load = 0,
                wait_activations = 0, wait_post = 0, vector = 0, input = 0, output = 0, control = 0,
                macs = 0, pages = 0, beats = 0;
  std::uint64_t starts = 0;  ///< Starts that the counters cover

  /// The causes, which add up to cycles.
  std::uint64_t attributed() const {
    return array_busy + wait_memory + wait_decrypt + wait_load + wait_activations + wait_post +
           vector + input + output + control;
  }
  Counters& operator+=(const Counters& other);
};

/// A compute unit of a card, counted from 0. Each has a PUF of its own, is enrolled by itself and
/// takes packages locked to it; an unlocked unit has none and takes programs.
struct ComputeUnit {
  Device* device;  ///< Must outlive the session
  std::uint32_t index = 0;
};

/// What one unit did of a run.
struct UnitShare {
  std::string device;
  std::uint32_t unit;
  Counters counters;
  std::size_t images;
  double busy_seconds;  ///< Wall clock with a start under way
};

/// One output of a model whose last operators run on the host.
struct OutputTensor {
  std::string name;
  std::string type;                 ///< As the model computes it: f32, u8, i8, i32, i64 or bool
  std::vector<std::int64_t> shape;  ///< The number of images first
  std::vector<float> values;        ///< Row major
};

struct RunResult {
  std::vector<std::uint8_t> data;     ///< images * record_bytes, in the order of the images
  std::size_t record_bytes = 0;       ///< Bytes per image
  std::vector<OutputTensor> outputs;  ///< Of the model's tail; empty when it has none
  Counters counters;                  ///< Summed over all units
  std::vector<UnitShare> units;       ///< In the order of the session's units
  double seconds = 0;                 ///< Wall clock of the card's part
  double host_seconds = 0;            ///< and of the head and the tail on the host
};

/// Where the cycles of one start went, by operation; the card's register LAYER_CYCLES.
struct LayerCycles {
  std::uint64_t boot = 0;  ///< Start until the descriptors stand
  std::vector<std::uint64_t>
      cycles;  ///< Of each descriptor's operation, fetch included; End has none
};

/// A chip asks the owner of a slot for leave.
struct TicketRequest {
  std::string device_id;  ///< 32 hexadecimal digits
  std::uint32_t slot;
  std::array<std::uint8_t, 16> nonce;  ///< Drawn by the chip for one ticket
};

struct SessionOptions {
  /// Hands the package to the chip even when the host's own checks find fault with it: the chip
  /// decides. For tests and demonstrations; the chip refuses whatever is wrong.
  bool skip_host_checks = false;
  /// Gets the ticket for a request from the package's owner: the 80 bytes of lock::sign. Asked
  /// between start and unwrap, once per unit; the chip drops the nonce whatever comes back. Without
  /// it a package that needs a ticket is refused.
  std::function<std::vector<std::uint8_t>(const TicketRequest&)> ticket = {};
};

/// What loading a package cost, reported apart from inference.
struct KeySetup {
  std::uint64_t start_cycles = 0;    ///< PUF sampling, correction, key derivation
  std::uint64_t cycles = 0;          ///< All of it: start, unwrap and the wipe between
  std::uint32_t unstable_votes = 0;  ///< PUF votes that were not unanimous
};

/// A model in one compute unit or in several, of one card or more. The units stay with the session
/// until it ends. Runs are executed one after another; the starts of a run go to whichever unit is
/// free, and every unit has its next start in card memory before the last one ends.
class Session {
 public:
  /// Loads the operate build, starts the chip's key from `record` (a public or full device record's
  /// public part) and unwraps the package's model key inside the chip.
  /// Throws latchkey::error: mismatch (host-side checks: device, build), refused (the chip).
  Session(Device& device, const Package& package, const PublicRecord& record,
          const SessionOptions& options = {});

  /// Loads the unlocked build and a program in clear.
  Session(Device& device, const Program& program);

  /// The same over several units: one package and record per unit, in the order of `units`, all of
  /// one model and version. Whether their weights are the same only their owner knows. Throws as
  /// above; mismatch for packages of different models.
  Session(const std::vector<ComputeUnit>& units, const std::vector<Package>& packages,
          const std::vector<PublicRecord>& records, const SessionOptions& options = {});
  Session(const std::vector<ComputeUnit>& units, const Program& program);

  Session(Session&&) noexcept;
  ~Session();

  /// Runs `count` images in starts of at most max_batch, over several units in starts of equal
  /// size. `images` holds them in `format`; for a model with a head they lie as the model's own
  /// input does, order nchw meaning "as it is". A model with a tail runs in mode raw only and fills
  /// RunResult::outputs. Throws latchkey::error: usage (size), refused (a page failed
  /// authentication), run_failed. The first failure is thrown, with its unit and images; what other
  /// units had started ends, nothing more is started, and all results of the run are withheld. The
  /// failing start wrote no byte of its result buffer.
  RunResult run(std::span<const std::uint8_t> images, std::size_t count, const ImageFormat& format,
                OutputMode mode = OutputMode::raw, std::uint32_t k = 1);

  /// As run, later. The images are copied.
  std::future<RunResult> run_async(std::vector<std::uint8_t> images, std::size_t count,
                                   const ImageFormat& format, OutputMode mode = OutputMode::raw,
                                   std::uint32_t k = 1);

  /// Images per start; 0 restores the program's own limit. Throws usage when above it.
  void limit_batch(std::uint32_t images);
  /// Called on the thread of the run after each start with the images done so far. What it throws
  /// ends the run as a failure does.
  void on_progress(std::function<void(std::size_t done, std::size_t total)> callback);

  /// Cycles of each operation of the first unit's last start that ended well. One register is read
  /// per operation.
  LayerCycles layer_cycles() const;

  const BuildInfo& build() const;
  /// Of the unit at this place of the session's list.
  const KeySetup& key_setup(std::size_t unit = 0) const;
  /// Bytes that failed starts of the last run wrote into their result buffers: 0 unless the lock is
  /// broken. Counted against the pattern that the buffer was filled with.
  std::size_t released_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace latchkey

#endif  // LATCHKEY_SESSION_HPP
