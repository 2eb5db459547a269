// lk_axil_ctrl: ap_ctrl_chain registers, register bus and AXI-Lite handshakes, every access crossed
// with random delays of the channels. The address moves on as soon as it was taken, as a real
// master's.
#include <gtest/gtest.h>
#include <verilated.h>

#include <map>
#include <random>

#include "Vlk_axil_ctrl.h"
#include "seed.hpp"

namespace {

constexpr std::uint32_t kCtrl = 0x00, kGier = 0x04, kIer = 0x08, kIsr = 0x0C;
constexpr std::uint32_t kStart = 1, kDone = 2, kIdle = 4, kReady = 8, kContinue = 16;

class AxilCtrl : public ::testing::Test {
 protected:
  void SetUp() override {
    seed_ = static_cast<unsigned>(latchkey::test::test_seed(4711));
    rng_.seed(seed_);
    top_.ap_idle_i = 1;
    top_.rst_ni = 0;
    tick();
    tick();
    top_.rst_ni = 1;
    tick();
  }

  void tick() {
    top_.clk_i = 0;
    top_.eval();
    if (top_.reg_we_o) registers_[top_.reg_addr_o] = top_.reg_wdata_o;
    // The register bus may answer a cycle after the address, like a RAM.
    const std::uint32_t answer = registers_[top_.reg_raddr_o];
    reads_ += top_.reg_re_o;
    top_.clk_i = 1;
    top_.eval();
    top_.reg_rdata_i = answer;
    top_.ap_done_i = 0;
    top_.ap_ready_i = 0;
  }
  void idle() {
    for (unsigned n = rng_() % 4; n; --n) tick();
  }

  void write(std::uint32_t address, std::uint32_t value) {
    bool aw = false, w = false;
    const unsigned aw_after = rng_() % 3, w_after = rng_() % 3;
    for (unsigned i = 0; !(aw && w); ++i) {
      ASSERT_LT(i, 100u) << "a write was never taken, seed " << seed_;
      top_.s_axi_awvalid_i = !aw && i >= aw_after;
      top_.s_axi_wvalid_i = !w && i >= w_after;
      top_.s_axi_awaddr_i = top_.s_axi_awvalid_i ? address : rng_();
      top_.s_axi_wdata_i = top_.s_axi_wvalid_i ? value : rng_();
      top_.s_axi_wstrb_i = 15;
      top_.clk_i = 0;
      top_.eval();
      const bool aw_now = top_.s_axi_awvalid_i && top_.s_axi_awready_o;
      const bool w_now = top_.s_axi_wvalid_i && top_.s_axi_wready_o;
      tick();
      aw = aw || aw_now;
      w = w || w_now;
    }
    top_.s_axi_awvalid_i = top_.s_axi_wvalid_i = 0;
    top_.s_axi_awaddr_i = rng_();
    idle();
    top_.s_axi_bready_i = 1;
    for (unsigned i = 0;; ++i) {
      ASSERT_LT(i, 100u) << "a write was never answered, seed " << seed_;
      top_.clk_i = 0;
      top_.eval();
      const bool b = top_.s_axi_bvalid_o;
      if (b) EXPECT_EQ(top_.s_axi_bresp_o, 0);
      tick();
      if (b) break;
    }
    top_.s_axi_bready_i = 0;
  }

  std::uint32_t read(std::uint32_t address) {
    top_.s_axi_araddr_i = address;
    top_.s_axi_arvalid_i = 1;
    for (unsigned i = 0;; ++i) {
      if (i == 100) ADD_FAILURE() << "a read was never taken, seed " << seed_;
      top_.clk_i = 0;
      top_.eval();
      const bool taken = top_.s_axi_arready_o;
      tick();
      if (taken || i == 100) break;
    }
    top_.s_axi_arvalid_i = 0;
    top_.s_axi_araddr_i = rng_();
    idle();
    top_.s_axi_rready_i = 1;
    std::uint32_t value = 0;
    for (unsigned i = 0;; ++i) {
      if (i == 100) ADD_FAILURE() << "a read was never answered, seed " << seed_;
      top_.clk_i = 0;
      top_.eval();
      const bool r = top_.s_axi_rvalid_o;
      value = top_.s_axi_rdata_o;
      if (r) EXPECT_EQ(top_.s_axi_rresp_o, 0);
      tick();
      top_.s_axi_araddr_i = rng_();
      if (r || i == 100) break;
    }
    top_.s_axi_rready_i = 0;
    return value;
  }

  Vlk_axil_ctrl top_;
  std::mt19937 rng_;
  unsigned seed_ = 0;
  std::map<std::uint32_t, std::uint32_t> registers_;
  unsigned reads_ = 0;
};

TEST_F(AxilCtrl, RegisterBusReadsBackWhatWasWritten) {
  std::map<std::uint32_t, std::uint32_t> expected;
  for (int i = 0; i < 3000; ++i) {
    const std::uint32_t address = 0x10 + 4 * (rng_() % 64);
    if (rng_() % 2) {
      expected[address] = rng_();
      write(address, expected[address]);
    } else {
      ASSERT_EQ(read(address), expected[address]) << "address " << address << ", seed " << seed_;
    }
    idle();
  }
}

TEST_F(AxilCtrl, ControlRegistersAreNotSelectedByALaterAddress) {
  write(kGier, 1);
  write(kIer, 3);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(read(kGier), 1u);
    ASSERT_EQ(read(kIer), 3u);
    ASSERT_EQ(read(kIsr), 0u);
  }
  EXPECT_EQ(reads_, 0u) << "control registers do not reach the register bus";
}

TEST_F(AxilCtrl, StartDoneContinue) {
  EXPECT_EQ(read(kCtrl) & 0xFF, kIdle);
  write(kCtrl, kStart);
  EXPECT_TRUE(top_.ap_start_o);
  top_.ap_idle_i = 0;
  EXPECT_EQ(read(kCtrl) & (kStart | kIdle), kStart);
  top_.ap_done_i = top_.ap_ready_i = 1;
  tick();
  top_.ap_idle_i = 1;
  EXPECT_FALSE(top_.ap_start_o);
  // Done holds until continue; ready clears by reading.
  EXPECT_EQ(read(kCtrl) & (kDone | kReady), kDone | kReady);
  EXPECT_EQ(read(kCtrl) & (kDone | kReady), kDone);
  // A start before the continue waits for it.
  write(kCtrl, kStart);
  EXPECT_FALSE(top_.ap_start_o);
  write(kCtrl, kContinue);
  EXPECT_TRUE(top_.ap_start_o);
  EXPECT_EQ(read(kCtrl) & kDone, 0u);
}

TEST_F(AxilCtrl, InterruptsAreMaskedHeldAndToggled) {
  write(kCtrl, kStart);
  top_.ap_done_i = 1;
  tick();
  EXPECT_EQ(read(kIsr), 0u) << "nothing was enabled";
  write(kCtrl, kContinue);
  write(kIer, 1);
  write(kCtrl, kStart);
  top_.ap_done_i = 1;
  tick();
  EXPECT_EQ(read(kIsr), 1u);
  EXPECT_FALSE(top_.interrupt_o);
  write(kGier, 1);
  EXPECT_TRUE(top_.interrupt_o);
  write(kIsr, 1);
  EXPECT_EQ(read(kIsr), 0u);
  EXPECT_FALSE(top_.interrupt_o);
}

}  // namespace
