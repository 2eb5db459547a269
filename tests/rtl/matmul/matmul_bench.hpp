// Drives lk_matmul (any array size and twin) from a list of tile jobs and checks every result,
// every MAC count and the exclusiveness of the events against models.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "requant_model.hpp"

namespace latchkey::test {

// Probability in 1/256 that a stream offers (or takes) a transfer in a cycle; 256 = always.
struct Pace {
  int wt = 256, x = 256, cmd = 256, y = 256;
};

template <class Dut, int kN>
class MatmulBench {
 public:
  static constexpr int kSize = kN;
  static constexpr int kNi = 64 / kN;
  static constexpr int kBeats = kN * kN / 64;
  static constexpr int kAccRows = 512;

  struct Subtile {
    bool skip = false;
    int ni = 0, nvalid = 1, kvalid = 1;
    std::vector<int8_t> w;               // kN * kN, always present: skipped beats are drained
    std::vector<std::vector<int8_t>> x;  // rows x kN; empty if skipped
  };
  // One n tile of one row block: its subtiles in page order, then its drain.
  struct Job {
    int rows = 1, chan = 0, groups = kNi, zero = 0, lo = -128, hi = 127;
    std::vector<Subtile> subtiles;
  };
  struct Stats {
    uint64_t results = 0, mismatches = 0, ties = 0, saturated = 0, float_differs = 0;
    uint64_t macs = 0, macs_expected = 0;
    uint64_t cycles = 0, busy = 0, want = 0, loading = 0, wait_bank = 0, wait_x = 0, beats = 0;
    uint64_t first_take = 0, last_take = 0, first_beat = 0, last_beat = 0, last_result = 0;
    std::vector<int> bad_channels = std::vector<int>(64, 0);
  };

  explicit MatmulBench(uint64_t seed) : rng(seed), params(4096) {
    dut.rst_ni = 0;
    for (int i = 0; i < 3; ++i) tick();
    dut.rst_ni = 1;
    tick();
  }

  void tick() {
    dut.clk_i = 0;
    dut.eval();
    dut.clk_i = 1;
    dut.eval();
  }

  // Writes channels [0, count) of params to the parameter RAM.
  void write_params(int count) {
    for (int g = 0; g < (count + 3) / 4; ++g) {
      dut.prm_we_i = 1;
      dut.prm_addr_i = g;
      for (int i = 0; i < 4; ++i) {
        const ChannelParams& p = params[4 * g + i];
        dut.prm_data_i[4 * i] = static_cast<uint32_t>(p.bias);
        dut.prm_data_i[4 * i + 1] = p.m | 0xa5000000u;  // the upper byte must be ignored
        dut.prm_data_i[4 * i + 2] = p.s | 0xffffff40u;
        dut.prm_data_i[4 * i + 3] = static_cast<uint32_t>(rng());
      }
      tick();
    }
    dut.prm_we_i = 0;
  }

  // Channel parameters that bring accumulators of about `bits` bits into the int8 range; one
  // channel in four has a power-of-two multiplier (ties), one in eight saturates.
  void random_params(int bits) {
    for (ChannelParams& p : params) {
      p.bias = static_cast<int32_t>(rng() % 4096) - 2048;
      const auto kind = rng() % 8;
      p.m = kind < 2 ? 0x800000 : 0x800000 | static_cast<uint32_t>(rng() & 0x7fffff);
      p.s = static_cast<uint32_t>(23 + std::max(1, bits - 7) - (kind == 7 ? 4 : 0));
    }
  }

  Job random_job(int rows, int k_slices, int chan, int skip_in_16) {
    Job j;
    j.rows = rows;
    j.chan = chan;
    j.groups = 1 + static_cast<int>(rng() % kNi);
    j.zero = static_cast<int>(rng() % 256) - 128;
    if (rng() % 3 == 0) j.lo = j.zero;
    fill(j, k_slices, skip_in_16);
    return j;
  }

  // Fills in random subtiles. The first k slice is never skipped: it initialises the accumulators.
  // With `tiny`, weights are -1, 0, 1 and activations below 8: small sums, for exact ties.
  void fill(Job& j, int k_slices, int skip_in_16, bool tiny = false) {
    for (int k = 0; k < k_slices; ++k) {
      const bool skip_k = k > 0 && static_cast<int>(rng() % 16) < skip_in_16;
      const int kvalid = 1 + static_cast<int>(rng() % kN);
      for (int ni = 0; ni < kNi; ++ni) {
        Subtile s;
        s.ni = ni;
        s.skip = skip_k || ni >= j.groups;
        s.kvalid = kvalid;
        s.nvalid = 1 + static_cast<int>(rng() % kN);
        s.w.resize(kN * kN);
        const bool extreme = rng() % 8 == 0;
        for (int8_t& v : s.w) {
          v = tiny      ? static_cast<int8_t>(static_cast<int>(rng() % 3) - 1)
              : extreme ? (rng() % 2 ? int8_t{127} : int8_t{-127})
                        : static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
        }
        if (!s.skip) {
          s.x.assign(j.rows, std::vector<int8_t>(kN));
          for (auto& row : s.x)
            for (int8_t& v : row) {
              v = tiny      ? static_cast<int8_t>(static_cast<int>(rng() % 15) - 7)
                  : extreme ? int8_t{-128}
                            : static_cast<int8_t>(rng());
            }
        }
        j.subtiles.push_back(std::move(s));
      }
    }
  }

  void queue(const Job& j) {
    std::vector<int32_t> acc(static_cast<size_t>(j.rows) * 64, 0);
    bool seen[4] = {};
    for (const Subtile& s : j.subtiles) {
      Command c;
      c.skip = s.skip;
      c.tile = tile_;
      c.ni = s.ni;
      c.rows = j.rows;
      c.nvalid = s.nvalid;
      c.first = !seen[s.ni];
      c.last = &s == &j.subtiles.back();
      commands_.push_back(c);
      for (int b = 0; b < kBeats; ++b) {
        std::vector<int8_t> beat(s.w.begin() + 64 * b, s.w.begin() + 64 * (b + 1));
        beats_.push_back(std::move(beat));
      }
      if (s.skip) continue;
      seen[s.ni] = true;
      for (int r = 0; r < j.rows; ++r) {
        rows_.push_back({s.x[r], s.kvalid});
        for (int k = 0; k < kN; ++k)
          for (int n = 0; n < kN; ++n) {
            acc[static_cast<size_t>(r) * 64 + s.ni * kN + n] += s.x[r][k] * s.w[k * kN + n];
          }
        stats.macs_expected += static_cast<uint64_t>(s.kvalid * s.nvalid);
      }
    }
    Command d;
    d.drain = true;
    d.rows = j.rows;
    d.chan = j.chan;
    d.groups = j.groups;
    d.zero = j.zero;
    d.lo = j.lo;
    d.hi = j.hi;
    commands_.push_back(d);
    tile_ = (tile_ + 1) % 4;
    for (int r = 0; r < j.rows; ++r)
      for (int g = 0; g < j.groups; ++g) {
        Result res;
        res.row = r;
        res.group = g;
        res.last = r == j.rows - 1 && g == j.groups - 1;
        for (int i = 0; i < kN; ++i) {
          const int32_t a = acc[static_cast<size_t>(r) * 64 + kN * g + i];
          const ChannelParams& p = params.at(j.chan + kN * g + i);
          const Requantised q = requantise(a, p, j.zero, j.lo, j.hi);
          res.y[i] = q.y;
          stats.ties += q.tie;
          stats.saturated += q.saturated;
          stats.float_differs += requantise_float(a, p, j.zero, j.lo, j.hi) != q.y;
        }
        results_.push_back(res);
      }
  }

  // Runs until everything queued has been taken and every result has come, or max_cycles.
  void run(const Pace& pace, uint64_t max_cycles) {
    const uint64_t limit = stats.cycles + max_cycles;
    while (stats.cycles < limit) {
      if (commands_.empty() && beats_.empty() && rows_.empty() && results_.empty()) break;
      step(pace);
      if (::testing::Test::HasFatalFailure()) return;
    }
    for (int i = 0; i < 3; ++i) step(pace);  // the events are one cycle late
  }

  bool finished() const {
    return commands_.empty() && beats_.empty() && rows_.empty() && results_.empty();
  }

  void step(const Pace& pace) {
    auto chance = [&](int p) { return static_cast<int>(rng() % 256) < p; };
    // A valid that was not accepted stays, with its data.
    wt_on_ = !beats_.empty() && (wt_on_ || chance(pace.wt));
    x_on_ = !rows_.empty() && (x_on_ || chance(pace.x));
    cmd_on_ = !commands_.empty() && (cmd_on_ || chance(pace.cmd));
    dut.wt_valid_i = wt_on_;
    if (wt_on_) copy_bytes(&dut.wt_data_i[0], beats_.front().data(), 64);
    dut.x_valid_i = x_on_;
    if (x_on_) {
      copy_bytes(&dut.x_data_i[0], rows_.front().first.data(), kN);
      dut.x_kvalid_i = rows_.front().second;
    }
    dut.sw_valid_i = cmd_on_ && !commands_.front().drain;
    dut.dr_valid_i = cmd_on_ && commands_.front().drain;
    if (cmd_on_) {
      const Command& c = commands_.front();
      if (c.drain) {
        dut.dr_rows_i = c.rows;
        dut.dr_chan_i = c.chan;
        dut.dr_groups_i = c.groups;
        dut.dr_zero_i = static_cast<uint8_t>(c.zero);
        dut.dr_lo_i = static_cast<uint8_t>(c.lo);
        dut.dr_hi_i = static_cast<uint8_t>(c.hi);
      } else {
        dut.sw_skip_i = c.skip;
        dut.sw_first_i = c.first;
        dut.sw_last_i = c.last;
        dut.sw_tile_i = c.tile;
        dut.sw_ni_i = c.ni;
        dut.sw_rows_i = c.rows;
        dut.sw_nvalid_i = c.nvalid;
      }
    }
    dut.y_ready_i = chance(pace.y);
    dut.clk_i = 0;
    dut.eval();

    const bool cmd = cmd_on_ && (dut.sw_valid_i ? dut.sw_ready_o : dut.dr_ready_o);
    const bool wt = wt_on_ && dut.wt_ready_o;
    const bool x = x_on_ && dut.x_ready_o;
    if (dut.y_valid_o && dut.y_ready_i) check_result();
    if (::testing::Test::HasFatalFailure()) return;
    if (cmd) {
      commands_.pop_front();
      cmd_on_ = false;
    }
    if (wt) {
      if (stats.beats++ == 0) stats.first_beat = stats.cycles;
      stats.last_beat = stats.cycles;
      beats_.pop_front();
      wt_on_ = false;
    }
    if (x) {
      rows_.pop_front();
      x_on_ = false;
    }
    dut.clk_i = 1;
    dut.eval();
    ++stats.cycles;

    const int events = dut.ev_busy_o + dut.ev_want_weights_o + dut.ev_loading_o +
                       dut.ev_wait_bank_o + dut.ev_wait_x_o;
    ASSERT_LE(events, 1);
    if (dut.ev_busy_o) {
      if (stats.busy++ == 0) stats.first_take = stats.cycles;
      stats.last_take = stats.cycles;
    }
    stats.want += dut.ev_want_weights_o;
    stats.loading += dut.ev_loading_o;
    stats.wait_bank += dut.ev_wait_bank_o;
    stats.wait_x += dut.ev_wait_x_o;
    stats.macs += dut.macs_o;
  }

  // Forgets what was queued, as clear_i and wipe_i make the design do.
  void forget() {
    commands_.clear();
    beats_.clear();
    rows_.clear();
    results_.clear();
    tile_ = 0;
    wt_on_ = x_on_ = cmd_on_ = false;
    dut.wt_valid_i = dut.x_valid_i = dut.sw_valid_i = dut.dr_valid_i = dut.y_ready_i = 0;
  }

  Dut dut;
  std::mt19937_64 rng;
  std::vector<ChannelParams> params;
  Stats stats;

 private:
  struct Command {
    bool drain = false, skip = false, first = false, last = false;
    int tile = 0, ni = 0, rows = 1, nvalid = 1, chan = 0, groups = 1, zero = 0, lo = 0, hi = 0;
  };
  struct Result {
    int row = 0, group = 0;
    bool last = false;
    int8_t y[kN] = {};
  };

  static void copy_bytes(uint32_t* words, const int8_t* bytes, int count) {
    for (int i = 0; i < count; i += 4) {
      uint32_t w = 0;
      for (int k = 0; k < 4; ++k) w |= uint32_t{static_cast<uint8_t>(bytes[i + k])} << (8 * k);
      words[i / 4] = w;
    }
  }

  void check_result() {
    ASSERT_FALSE(results_.empty()) << "a result that nobody asked for";
    const Result r = results_.front();
    stats.last_result = stats.cycles;
    results_.pop_front();
    ASSERT_EQ(int{dut.y_row_o}, r.row);
    ASSERT_EQ(int{dut.y_group_o}, r.group);
    ASSERT_EQ(dut.y_last_o != 0, r.last);
    for (int i = 0; i < kN; ++i) {
      const auto y = static_cast<int8_t>(dut.y_data_o[i / 4] >> (8 * (i % 4)));
      ++stats.results;
      if (y == r.y[i]) continue;
      ++stats.mismatches;
      ++stats.bad_channels[kN * r.group + i];
    }
  }

  std::deque<Command> commands_;
  std::deque<std::vector<int8_t>> beats_;
  std::deque<std::pair<std::vector<int8_t>, int>> rows_;
  std::deque<Result> results_;
  int tile_ = 0;
  bool wt_on_ = false, x_on_ = false, cmd_on_ = false;
};

}  // namespace latchkey::test
