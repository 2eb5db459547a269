// lk_desc_ram: both clients get the descriptor they asked for, whatever the other does, and neither
// starves.
#include <gtest/gtest.h>
#include <verilated.h>

#include <array>
#include <optional>
#include <vector>

#include "Vlk_desc_ram.h"
#include "latchkey_spec.hpp"
#include "rng.hpp"

namespace {

using namespace latchkey;
constexpr unsigned kBeatWords = spec::beat_bytes / 4;
constexpr unsigned kBeats = spec::desc_bytes / spec::beat_bytes;
using Beat = std::array<std::uint32_t, kBeatWords>;
using Descriptor = std::array<std::uint32_t, spec::desc_bytes / 4>;

class DescRam : public ::testing::Test {
 protected:
  void SetUp() override {
    top_.rst_ni = 0;
    tick();
    top_.rst_ni = 1;
    tick();
  }

  void tick() {
    top_.clk_i = 0;
    top_.eval();
    top_.clk_i = 1;
    top_.eval();
  }

  void drive_write(unsigned address) {
    Beat& beat = memory_[address];
    for (unsigned i = 0; i < kBeatWords; ++i) {
      beat[i] = rng_.word();
      top_.wdata_i[i] = beat[i];
    }
    top_.waddr_i = static_cast<std::uint16_t>(address);
    top_.we_i = 1;
  }

  /// Fills the RAM from address 0, as descriptor pages arrive; `idle` percent of cycles write none.
  void fill(unsigned idle) {
    for (unsigned a = 0; a < memory_.size();) {
      top_.we_i = 0;
      if (!rng_.chance(idle)) drive_write(a++);
      tick();
    }
    top_.we_i = 0;
  }

  Descriptor expected(unsigned index) const {
    Descriptor d;
    for (unsigned i = 0; i < d.size(); ++i)
      d[i] = memory_[kBeats * index + i / kBeatWords][i % kBeatWords];
    return d;
  }

  Descriptor answer() const {
    Descriptor d;
    for (unsigned i = 0; i < d.size(); ++i) d[i] = top_.desc_o[i];
    return d;
  }

  void request(unsigned client, std::optional<unsigned> index) {
    top_.req_i =
        static_cast<std::uint8_t>((top_.req_i & ~(1u << client)) | (index ? 1u << client : 0u));
    constexpr unsigned kWidth = 9;
    static_assert(spec::max_descs == 1u << kWidth);
    const unsigned mask = (1u << kWidth) - 1;
    // Without a request the index is garbage.
    top_.idx_i = (top_.idx_i & ~(mask << (kWidth * client))) | (index.value_or(rng_.word()) & mask)
                                                                   << (kWidth * client);
  }

  test::Rng rng_{7};
  Vlk_desc_ram top_;
  std::vector<Beat> memory_ = std::vector<Beat>(kBeats * spec::max_descs);
};

TEST_F(DescRam, EveryDescriptorForEitherClient) {
  fill(30);
  for (unsigned client = 0; client < 2; ++client) {
    for (unsigned index = 0; index < spec::max_descs; ++index) {
      request(client, index);
      unsigned cycles = 0;
      do {
        tick();
        ASSERT_LT(++cycles, 6u) << "descriptor " << index;
      } while (top_.valid_o == 0);
      ASSERT_EQ(top_.valid_o, 1u << client);
      ASSERT_EQ(answer(), expected(index)) << "descriptor " << index << ", " << rng_.name();
      tick();  // the request stands to the end of the answer's cycle
      ASSERT_EQ(top_.valid_o, 0u) << "an answer lasts one cycle";
      request(client, std::nullopt);
    }
  }
}

TEST_F(DescRam, TwoClientsAtRandom) {
  SCOPED_TRACE(rng_.name());
  fill(0);
  for (const unsigned idle : {0u, 20u, 90u}) {
    std::array<std::optional<unsigned>, 2> wanted;
    std::array<unsigned, 2> served{}, waited{};
    for (int cycle = 0; cycle < 20000; ++cycle) {
      for (unsigned c = 0; c < 2; ++c) {
        if (!wanted[c] && !rng_.chance(idle)) wanted[c] = rng_.below(spec::max_descs);
        request(c, wanted[c]);
      }
      top_.eval();
      ASSERT_NE(top_.valid_o, 3u) << "one answer for two";
      for (unsigned c = 0; c < 2; ++c) {
        if (top_.valid_o >> c & 1) {
          ASSERT_TRUE(wanted[c]) << "client " << c << " was answered unasked";
          ASSERT_EQ(answer(), expected(*wanted[c])) << "client " << c;
          wanted[c].reset();
          ++served[c];
          waited[c] = 0;
        } else if (wanted[c]) {
          // Own read and at most one of the other.
          ASSERT_LT(++waited[c], 10u) << "client " << c << " starves";
        }
      }
      tick();
    }
    EXPECT_GT(served[0], 400u);
    EXPECT_GT(served[1], 400u);
    if (idle == 0) EXPECT_LE(std::max(served[0], served[1]) - std::min(served[0], served[1]), 1u);
  }
}

TEST_F(DescRam, ANewRunReplacesWhatTheLastLeft) {
  fill(0);
  for (int i = 0; i < 200; ++i) {
    const unsigned index = rng_.below(spec::max_descs);
    for (unsigned b = 0; b < kBeats; ++b) {
      drive_write(kBeats * index + b);
      tick();
    }
    top_.we_i = 0;
    request(1, index);
    for (int n = 0; n < 6 && top_.valid_o == 0; ++n) tick();
    ASSERT_EQ(top_.valid_o, 2u);
    ASSERT_EQ(answer(), expected(index)) << rng_.name();
    tick();
    request(1, std::nullopt);
  }
}

}  // namespace
