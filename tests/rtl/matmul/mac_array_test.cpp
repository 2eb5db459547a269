// The twins of prim_mac_array in lockstep, against a model: extreme and random data, every legal
// alignment of loads and swaps, clear and wipe.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include "Vlockstep16.h"
#include "Vlockstep32.h"

namespace latchkey::test {
namespace {

template <class Dut, int n>
struct Config {
  using dut = Dut;
  static constexpr int kN = n;
};

template <class C>
class MacArray : public ::testing::Test {
 protected:
  static constexpr int kN = C::kN;
  static constexpr int kBeats = kN * kN / 64;
  static constexpr int kLatency = kN == 16 ? 13 : kN == 32 ? 14 : 15;
  using Tile = std::vector<int8_t>;

  enum class Data { kRandom, kExtreme, kMaxPositive, kMaxNegative };

  void SetUp() override {
    dut_.rst_ni = 0;
    for (int i = 0; i < 3; ++i) tick();
    dut_.rst_ni = 1;
    wipe();
  }

  void tick() {
    dut_.clk_i = 0;
    dut_.eval();
    dut_.clk_i = 1;
    dut_.eval();
  }

  void wipe() {
    dut_.w_we_i = dut_.x_valid_i = 0;
    dut_.wipe_i = 1;
    for (int i = 0; i < kLatency + 1; ++i) tick();
    dut_.wipe_i = 0;
    active_.assign(kN * kN, 0);
    shadow_.assign(kN * kN, 0);
  }

  // One cycle with an optional beat and an optional row; compares both outputs with the model.
  void cycle(int beat, const Tile* tile, bool valid, bool swap, Data data) {
    dut_.w_we_i = beat >= 0;
    if (beat >= 0) {
      dut_.w_beat_i = static_cast<uint8_t>(beat);
      for (int i = 0; i < 16; ++i) {
        uint32_t word = 0;
        for (int k = 0; k < 4; ++k) {
          word |= uint32_t{static_cast<uint8_t>((*tile)[beat * 64 + 4 * i + k])} << (8 * k);
        }
        dut_.w_data_i[i] = word;
      }
    }
    dut_.x_valid_i = valid;
    dut_.x_swap_i = swap;
    if (valid) {
      if (swap) active_ = shadow_;
      int8_t x[kN];
      for (int8_t& v : x) v = activation(data);
      for (int i = 0; i < kN / 4; ++i) {
        uint32_t word = 0;
        for (int k = 0; k < 4; ++k) word |= uint32_t{static_cast<uint8_t>(x[4 * i + k])} << (8 * k);
        dut_.x_data_i[i] = word;
      }
      std::vector<int32_t> y(kN, 0);
      for (int r = 0; r < kN; ++r)
        for (int c = 0; c < kN; ++c) y[c] += x[r] * active_[r * kN + c];
      expected_.push_back({now_ + kLatency, y});
    }
    if (beat >= 0) std::copy_n(tile->begin() + beat * 64, 64, shadow_.begin() + beat * 64);
    tick();
    ++now_;
    const bool due = !expected_.empty() && expected_.front().first == now_;
    ASSERT_EQ(dut_.generic_valid_o != 0, due) << "cycle " << now_;
    ASSERT_EQ(dut_.xilinx_valid_o != 0, due) << "cycle " << now_;
    if (!due) return;
    for (int c = 0; c < kN; ++c) {
      const int32_t want = expected_.front().second[c];
      ASSERT_EQ(static_cast<int32_t>(dut_.generic_data_o[c]), want) << "column " << c;
      ASSERT_EQ(static_cast<int32_t>(dut_.xilinx_data_o[c]), want) << "column " << c;
      largest_ = std::max(largest_, std::abs(want));
    }
    expected_.pop_front();
    ++rows_;
  }

  int8_t activation(Data d) {
    switch (d) {
      case Data::kExtreme: {
        constexpr int8_t kSet[] = {-128, 127, -127, 0, 1, -1};
        return kSet[rng_() % 6];
      }
      case Data::kMaxPositive:
        return -128;
      case Data::kMaxNegative:
        return -128;
      default:
        return static_cast<int8_t>(rng_());
    }
  }
  Tile make_tile(Data d) {
    Tile t(kN * kN);
    for (int8_t& v : t) {
      if (d == Data::kMaxPositive)
        v = -127;
      else if (d == Data::kMaxNegative)
        v = 127;
      else if (d == Data::kExtreme)
        v = rng_() % 8 == 0 ? 0 : rng_() % 2 ? 127 : -127;
      else
        v = static_cast<int8_t>(static_cast<int>(rng_() % 255) - 127);
    }
    return t;
  }
  void drain() {
    for (int i = 0; i < kLatency + 2; ++i) cycle(-1, nullptr, false, false, Data::kRandom);
    ASSERT_TRUE(expected_.empty());
  }

  typename C::dut dut_;
  Tile active_, shadow_;
  std::deque<std::pair<uint64_t, std::vector<int32_t>>> expected_;
  std::mt19937_64 rng_{7};
  uint64_t now_ = 0, rows_ = 0;
  int32_t largest_ = 0;
};

using Configs = ::testing::Types<Config<Vlockstep16, 16>, Config<Vlockstep32, 32>>;
TYPED_TEST_SUITE(MacArray, Configs);

// Loads as early as the contract allows (first beat in the cycle of the previous swap), as late
// (last beat one cycle before the swap) and anything between, with 1 to 12 rows per tile.
TYPED_TEST(MacArray, TwinsAgreeUnderEveryAlignment) {
  using Data = typename TestFixture::Data;
  constexpr int kBeats = TestFixture::kBeats;
  const Data kinds[] = {Data::kRandom, Data::kExtreme, Data::kMaxPositive, Data::kMaxNegative};
  auto tile = this->make_tile(Data::kRandom);
  for (int b = 0; b < kBeats; ++b) this->cycle(b, &tile, false, false, Data::kRandom);
  for (int t = 0; t < 1500; ++t) {
    const Data kind = kinds[t % 4];
    tile = this->make_tile(kinds[(t + 1) % 4]);
    const int rows = 1 + static_cast<int>(this->rng_() % 12);
    // Phase: 0 dense and early, 1 dense and late, 2 random gaps in both streams.
    const int phase = static_cast<int>(this->rng_() % 3);
    const int span = std::max(rows, kBeats);
    int row = 0, beat = 0;
    for (int c = 0; row < rows || beat < kBeats; ++c) {
      bool load = beat < kBeats, take = row < rows;
      if (phase == 1) load = load && c >= span - kBeats;
      if (phase == 2 && c > 0) {
        load = load && this->rng_() % 2;
        take = take && this->rng_() % 2;
      }
      // The first row swaps in the tile loaded before.
      this->cycle(load ? beat : -1, &tile, take, take && row == 0, kind);
      if (this->HasFatalFailure()) return;
      beat += load;
      row += take;
    }
  }
  this->drain();
  EXPECT_GT(this->rows_, 5000u);
  // The largest possible sum was seen: N * 127 * 128.
  EXPECT_EQ(this->largest_, TestFixture::kN * 127 * 128);
}

TYPED_TEST(MacArray, WipeZeroesBothTiles) {
  using Data = typename TestFixture::Data;
  auto tile = this->make_tile(Data::kMaxPositive);
  for (int b = 0; b < TestFixture::kBeats; ++b) this->cycle(b, &tile, false, false, Data::kRandom);
  this->cycle(0, &tile, true, true, Data::kMaxPositive);
  for (int b = 1; b < TestFixture::kBeats; ++b) {
    this->cycle(b, &tile, true, false, Data::kMaxPositive);
  }
  this->drain();
  ASSERT_EQ(this->largest_, TestFixture::kN * 127 * 128);
  this->wipe();
  this->largest_ = 0;
  this->cycle(-1, nullptr, true, false, Data::kMaxPositive);  // the active tile
  this->cycle(-1, nullptr, true, true, Data::kMaxPositive);   // the shadow tile
  this->drain();
  EXPECT_EQ(this->largest_, 0);
  EXPECT_GE(this->rows_, 2u);
}

TYPED_TEST(MacArray, ClearDropsRowsInFlight) {
  using Data = typename TestFixture::Data;
  auto tile = this->make_tile(Data::kRandom);
  for (int b = 0; b < TestFixture::kBeats; ++b) this->cycle(b, &tile, false, false, Data::kRandom);
  for (int i = 0; i < 5; ++i) this->cycle(-1, nullptr, true, i == 0, Data::kRandom);
  this->expected_.clear();
  this->dut_.clear_i = 1;
  this->cycle(-1, nullptr, false, false, Data::kRandom);
  this->dut_.clear_i = 0;
  this->cycle(-1, nullptr, true, false, Data::kRandom);
  this->drain();
  EXPECT_EQ(this->rows_, 1u);
}

}  // namespace
}  // namespace latchkey::test
