// The locked kernel, Verilated whole, between a host that never gives up and a memory it owns.
//
// The host loads helper data, START, manifest and wrapped key, UNWRAP, starts one run and reads
// every register, whatever the chip answers on the way. What leaves the chip is kept and searched
// for secrets. The kernel's state can be taken at any cycle and put back, also into another kernel.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "latchkey/sim/silicon.h"

namespace latchkey::campaign {

/// What a host feeds, and what must not come back.
struct session {
  std::vector<std::uint32_t> helper, manifest, blob;
  std::vector<std::uint8_t> pages, tags;  ///< sealed; 4,096 and 16 bytes each
  std::vector<std::uint8_t> images;       ///< words of the input stream
  std::uint64_t die_seed = 1;
  std::vector<std::uint8_t> result;  ///< what an honest run releases
  /// Aligned words of the keys, and weights in windows of four bytes: no register may read one.
  std::unordered_set<std::uint32_t> secret_words;
  /// Keys and plaintext pages in windows of eight bytes, at every byte: no stream and no write may
  /// carry one.
  std::unordered_set<std::uint64_t> secret_windows;
};

/// Stages of the host's program, in order.
enum class stage : std::uint8_t { load, start, unwrap, run, look, end };

/// What the host does next. Reading and waiting give up after a while and go on.
enum class action : std::uint8_t {
  write,      ///< value to address
  wait_key,   ///< until KEY_STATE is not busy; it joins host::states
  start_run,  ///< AP_CTRL; from then on the input stream is offered
  wait_run,   ///< until AP_CTRL says done
  look,       ///< read address into host::registers
};
struct step {
  stage in = stage::load;
  action what = action::write;
  std::uint32_t address = 0, value = 0;
};
using steps = std::vector<step>;

struct beat {
  std::array<std::uint8_t, 64> data{};
  bool keep = false, last = false;
  friend bool operator==(const beat&, const beat&) = default;
};

/// Where the host is, and all it saw. A value: copied with a snapshot.
struct host {
  std::uint64_t cycle = 0;
  std::size_t step = 0;         ///< of the program
  unsigned phase = 0;           ///< within the step
  std::uint32_t waited = 0;     ///< cycles
  std::size_t images_sent = 0;  ///< bytes
  bool streaming = false;       ///< the run was started
  bool aw_taken = false, w_taken = false;
  std::deque<std::array<std::uint64_t, 2>> bursts;  ///< next address, beats left
  std::uint32_t memory_wait = 0;
  std::uint32_t answers = 0;  ///< bursts written and not yet answered
  // seen
  std::vector<std::uint32_t> states;     ///< KEY_STATE after START and after UNWRAP
  std::vector<std::uint32_t> registers;  ///< read at the end
  std::vector<beat> out;
  bool gave_up = false;  ///< waited in vain for an answer
  bool leaked = false;   ///< a register, a stream or a write to memory carried a secret
  bool strayed = false;  ///< a read outside pages and tags was asked for
  friend bool operator==(const host&, const host&) = default;
};

/// A point at which a fault can be put in.
struct point {
  std::string module;  ///< path of the instance below the kernel
  std::string name;    ///< of the register or wire
  unsigned bits = 1;
  bool state = false;  ///< a state register (flipped), or a signal (held)
  std::size_t data = 0, enable = 0, value = 0, size = 1;  ///< offsets in the model
};

class kernel {
 public:
  struct snapshot {
    std::vector<std::uint8_t> model;
    host at;
  };

  kernel();
  ~kernel();
  kernel(const kernel&) = delete;
  kernel& operator=(const kernel&) = delete;

  /// From reset, with `s` (which must outlive its use): load to look, see loading() and others.
  void begin(const session& s);
  /// Reset, on the session's die.
  void power_on(const session& s);
  /// Plays other steps to their end, without a reset; the host forgets what it saw before. `s` may
  /// be another one on the same die.
  const host& play(const session& s, steps program);
  /// The stages of an honest session.
  static steps loading(const session& s);
  static steps unwrapping(const session& s);
  static steps running();
  static steps looking();
  /// One cycle. False once the host's program has ended. Throws std::runtime_error when the logic
  /// does not settle.
  bool tick();
  [[nodiscard]] const host& seen() const { return host_; }
  [[nodiscard]] stage at() const;

  [[nodiscard]] snapshot take() const;
  void put(const snapshot& s, const session& of);
  /// The kernel is in the very state of the snapshot, and so is the host.
  [[nodiscard]] bool is(const snapshot& s) const;

  [[nodiscard]] const std::vector<point>& points() const { return points_; }
  [[nodiscard]] std::uint32_t read(const point& p) const;
  void flip(const point& p, unsigned bit);
  /// How many of the windows stand somewhere in the whole state, at any byte.
  [[nodiscard]] std::size_t count(const std::unordered_set<std::uint64_t>& windows) const;
  /// Holds the bit at `level` from the next cycle on; release() ends all holding.
  void hold(const point& p, unsigned bit, bool level);
  void release();

 private:
  struct impl;
  [[nodiscard]] std::uint8_t* bytes() const;
  void sample();
  void look_into(const std::array<std::uint8_t, 64>& data);

  std::unique_ptr<impl> impl_;
  std::vector<point> points_;
  std::vector<std::size_t> own_;  // words of the model that belong to the object: pointers
  const session* session_ = nullptr;
  host host_;
  steps program_;
};

}  // namespace latchkey::campaign
