// lk_run_regs: what was written stands, aligned, and no write counts while a run is under way.
#include <gtest/gtest.h>
#include <verilated.h>

#include <iterator>

#include "Vlk_run_regs.h"
#include "latchkey_spec.hpp"
#include "rng.hpp"

namespace {

using namespace latchkey;

class RunRegs : public ::testing::Test {
 protected:
  struct values {
    std::uint64_t pages = 0, tags = 0, spill = 0;
    std::uint32_t batch = 0;
    bool operator==(const values&) const = default;
  };

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

  void write(std::uint32_t address, std::uint32_t data) {
    top_.we_i = 1;
    top_.addr_i = static_cast<std::uint16_t>(address);
    top_.wdata_i = data;
    tick();
    top_.we_i = 0;
  }

  values seen() const {
    return {top_.pages_addr_o, top_.tags_addr_o, top_.spill_addr_o, top_.batch_o};
  }

  test::Rng rng_{23};
  Vlk_run_regs top_;
};

TEST_F(RunRegs, NothingChangesDuringARun) {
  SCOPED_TRACE(rng_.name());
  constexpr std::uint32_t kRegisters[] = {spec::reg::pages_addr_lo, spec::reg::pages_addr_hi,
                                          spec::reg::tags_addr_lo,  spec::reg::tags_addr_hi,
                                          spec::reg::spill_addr_lo, spec::reg::spill_addr_hi,
                                          spec::reg::batch,         spec::reg::cmd};
  values want;
  EXPECT_EQ(seen(), want);
  int taken = 0, lost = 0;
  for (int i = 0; i < 20000; ++i) {
    top_.running_i = rng_.chance(50);
    const std::uint32_t address = kRegisters[rng_.below(std::size(kRegisters))];
    const std::uint32_t data = rng_.chance(50) ? rng_.word() : rng_.below(300);
    const values before = want;
    if (!top_.running_i) {
      const std::uint64_t high = std::uint64_t{data} << 32, low = data & 0xffff'f000u;
      if (address == spec::reg::pages_addr_lo) want.pages = (want.pages & ~0xffff'ffffull) | low;
      if (address == spec::reg::pages_addr_hi) want.pages = (want.pages & 0xffff'ffffu) | high;
      if (address == spec::reg::tags_addr_lo) want.tags = (want.tags & ~0xffff'ffffull) | low;
      if (address == spec::reg::tags_addr_hi) want.tags = (want.tags & 0xffff'ffffu) | high;
      if (address == spec::reg::spill_addr_lo) want.spill = (want.spill & ~0xffff'ffffull) | low;
      if (address == spec::reg::spill_addr_hi) want.spill = (want.spill & 0xffff'ffffu) | high;
      if (address == spec::reg::batch) want.batch = data > 0xffff ? 0 : data;
    }
    write(address, data);
    ASSERT_EQ(seen(), want) << "write " << i << " of 0x" << std::hex << address;
    taken += !(want == before);
    lost += top_.running_i && address != spec::reg::cmd;
  }
  EXPECT_GT(taken, 4000);
  EXPECT_GT(lost, 4000);
}

TEST_F(RunRegs, WithoutAWriteNothingChanges) {
  write(spec::reg::batch, 7);
  for (int i = 0; i < 100; ++i) {
    top_.addr_i = spec::reg::batch;
    top_.wdata_i = rng_.word();
    tick();
    EXPECT_EQ(top_.batch_o, 7u);
  }
}

}  // namespace
