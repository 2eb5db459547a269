// lk_vector on its own: what a wipe leaves of the table and of the data on its way. Its results are
// checked through the engine.
#include <gtest/gtest.h>
#include <verilated.h>

#include <array>
#include <cstring>
#include <memory>
#include <random>

#include "VVector.h"
#include "latchkey_spec.hpp"

namespace {

using namespace latchkey;
using word = std::array<std::uint8_t, 64>;

class Vector : public ::testing::Test {
 protected:
  Vector() {
    m_.clear_i = 0, m_.wipe_i = 0, m_.win_valid_i = 0, m_.word_valid_i = 0;
    m_.table_start_i = 0, m_.pg_valid_i = 0, m_.rst_ni = 0;
    tick();
    m_.rst_ni = 1;
    tick();
  }
  ~Vector() override { m_.final(); }

  void tick() {
    m_.clk_i = 0;
    m_.eval();
    m_.clk_i = 1;
    m_.eval();
    m_.clk_i = 0;
    m_.eval();
  }

  void set(const spec::descriptor& d) {
    const auto raw = d.pack();
    for (std::size_t i = 0; i < raw.size(); ++i) m_.desc_i[i] = raw[i];
  }
  void set(spec::op op) {
    spec::descriptor d;
    d.op = static_cast<std::uint32_t>(op);
    d.add_mult_a = d.add_mult_b = 1;
    d.vec_mult = 1u << 23, d.vec_shift = 23;
    d.clamp_lo = 0x80, d.clamp_hi = 0x7f;
    set(d);
  }

  /// Gives the table its page: entry e is entry(e), 0xee follows. The cycles until done.
  template <class Entry>
  int load(Entry entry) {
    m_.table_start_i = 1;
    tick();
    m_.table_start_i = 0;
    int cycles = 0;
    for (int beat = 0; beat < 64;) {
      word w;
      for (int i = 0; i < 64; ++i) {
        w[i] = static_cast<std::uint8_t>(beat < 4 ? entry(64 * beat + i) : 0xee);
      }
      std::memcpy(&m_.pg_data_i[0], w.data(), w.size());
      m_.pg_valid_i = 1;
      m_.eval();
      const bool taken = m_.pg_ready_o;
      EXPECT_EQ(static_cast<bool>(m_.table_done_o), taken && beat == 63);
      tick();
      beat += taken;
      ++cycles;
    }
    m_.pg_valid_i = 0;
    return cycles;
  }

  word look(std::uint8_t first) {
    word x;
    for (int i = 0; i < 64; ++i) x[i] = static_cast<std::uint8_t>(first + i);
    std::memcpy(&m_.word_a_i[0], x.data(), x.size());
    m_.word_valid_i = 1;
    tick();
    m_.word_valid_i = 0;
    EXPECT_TRUE(m_.word_valid_o);
    return result();
  }
  word result() const {
    word y;
    std::memcpy(y.data(), &m_.word_data_o[0], y.size());
    return y;
  }
  word pooled() const {
    word y;
    std::memcpy(y.data(), &m_.pool_data_o[0], y.size());
    return y;
  }
  void wipe() {
    m_.wipe_i = 1;
    for (int i = 0; i < 64; ++i) tick();
    m_.wipe_i = 0;
  }

  VVector m_;
};

TEST_F(Vector, TableTakesItsPageAndLooksUp) {
  set(spec::op::table);
  const auto entry = [](int e) { return e * 7 + 3; };
  EXPECT_EQ(load(entry), 4 * 16 + 60);
  for (int first = 0; first < 256; first += 64) {
    const word y = look(static_cast<std::uint8_t>(first));
    for (int i = 0; i < 64; ++i) {
      EXPECT_EQ(y[i], static_cast<std::uint8_t>(entry(first + i))) << first + i;
    }
  }
}

TEST_F(Vector, WipeZeroesTableAndWords) {
  set(spec::op::table);
  load([](int e) { return e | 1; });
  EXPECT_NE(look(0), word{});
  wipe();
  EXPECT_EQ(result(), word{});
  for (int first = 0; first < 256; first += 64) {
    EXPECT_EQ(look(static_cast<std::uint8_t>(first)), word{}) << first;
  }

  std::mt19937 rng(1);
  for (const spec::op op : {spec::op::max_pool, spec::op::avg_pool}) {
    set(op);
    for (int tap = 0; tap < 8; ++tap) {
      for (int i = 0; i < 16; ++i) m_.win_data_i[i] = rng() | 0x01010101u;
      m_.win_valid_i = m_.win_hit_i = 1;
      m_.win_first_i = tap % 4 == 0, m_.win_last_i = tap % 4 == 3;
      tick();
    }
    m_.win_valid_i = 0;
    for (int i = 0; i < 20; ++i) tick();
    EXPECT_NE(pooled(), word{});
    m_.wipe_i = 1;
    tick();
    EXPECT_EQ(pooled(), word{}) << "a cycle into the wipe";
    wipe();
    EXPECT_EQ(pooled(), word{});
    // A window without a first tap adds to what the sums or the maximum hold: nothing.
    std::memset(&m_.win_data_i[0], op == spec::op::max_pool ? 0x80 : 0, 64);
    m_.win_valid_i = m_.win_hit_i = m_.win_last_i = 1, m_.win_first_i = 0;
    tick();
    m_.win_valid_i = 0;
    for (int i = 0; i < 20; ++i) tick();
    EXPECT_EQ(pooled(), word{}) << "after the wipe";
    wipe();
  }
}

}  // namespace
