// Both builds on the same modelled die: enrolled by the enrol build, started by the operate build.
#include <gtest/gtest.h>

#include "Vlk_enrol_top.h"
#include "Vlk_key_top.h"
#include "key_twin.h"
#include "latchkey/sim/silicon.h"
#include "verilated.h"

namespace {

using namespace latchkey::test;
using latchkey::sim::Environment;
using latchkey::sim::Fuses;
using latchkey::sim::Silicon;
using latchkey::sim::SiliconConfig;

constexpr int kStart = 1, kUnwrap = 2, kZeroise = 3, kEnrol = 4, kTaken = 5;
constexpr int kStarted = 2, kLoaded = 3, kFailed = 4, kLocked = 5;

/// A Verilated top on a die. The table is chosen before every evaluation.
template <typename Top>
class chip {
 public:
  chip(Silicon& silicon, Fuses& fuses) : ops_(make_ops(silicon, fuses)) {
    latchkey_silicon_select(&ops_);
    dut_ = std::make_unique<Top>(&context_);
    dut_->rst_ni = 0;
    tick();
    tick();
    dut_->rst_ni = 1;
    tick();
    tick();
  }
  ~chip() {
    dut_->final();
    latchkey_silicon_select(nullptr);
  }
  Top* operator->() { return dut_.get(); }
  void tick() {
    latchkey_silicon_select(&ops_);
    dut_->clk_i = 0;
    dut_->eval();
    dut_->clk_i = 1;
    dut_->eval();
  }
  std::uint64_t run(int c) {
    dut_->cmd_valid_i = 1;
    dut_->cmd_i = static_cast<std::uint8_t>(c);
    tick();
    dut_->cmd_valid_i = 0;
    std::uint64_t n = 1;
    while (dut_->busy_o) {
      tick();
      if (++n > 5000000) throw std::runtime_error("the chip does not come back");
    }
    return n;
  }
  template <typename We>
  void fill(We& we, const bytes& data) {
    we = 1;
    for (std::size_t i = 0; i < data.size(); i += 4) {
      dut_->wdata_i = load_le32(&data[i]);
      tick();
    }
    we = 0;
  }

 private:
  VerilatedContext context_;
  latchkey_silicon_ops ops_;
  std::unique_ptr<Top> dut_;
};

struct record {
  bytes helper, root, id;
  unsigned margin = 0;
};

record enrol(Silicon& silicon, Fuses& fuses, std::uint8_t slot) {
  chip<Vlk_enrol_top> c(silicon, fuses);
  c->slot_i = slot;
  c->slots_i = 1;
  const auto cycles = c.run(kEnrol);
  ::testing::Test::RecordProperty("enrol_cycles", std::to_string(cycles));
  record r;
  EXPECT_EQ(c->err_o, 0);
  EXPECT_EQ(c->state_o, kStarted);
  EXPECT_FALSE(c->health_fail_o);
  r.margin = c->margin_o;
  r.helper.resize(1088);
  for (unsigned w = 0; w < 272; ++w) {
    c->rd_addr_i = static_cast<std::uint16_t>(w);
    c.tick();
    store_le32(&r.helper[4 * w], c->helper_rdata_o);
  }
  r.root.resize(32);
  for (unsigned w = 0; w < 8; ++w) {
    c->kek_rd_addr_i = static_cast<std::uint8_t>(w);
    c.tick();
    store_le32(&r.root[4 * w], c->kek_rdata_o);
  }
  c.run(kTaken);
  EXPECT_EQ(c->state_o, kLoaded);
  EXPECT_EQ(c->kek_rdata_o, 0u);
  r.id.assign(r.helper.begin() + 8, r.helper.begin() + 24);
  return r;
}

TEST(KeyChip, EnrolStartUnwrap) {
  for (std::uint64_t die : {11u, 12u, 13u}) {
    SCOPED_TRACE("die " + std::to_string(die));
    std::mt19937_64 rng(die);
    SiliconConfig config;
    config.die_seed = die;
    Silicon silicon(config, 1);
    Fuses fuses;
    const record r = enrol(silicon, fuses, 4);
    EXPECT_TRUE(fuses.state().enrolled);
    EXPECT_EQ(fuses.state().life_cycle, 0x5a69);
    EXPECT_EQ(load_le32(&r.helper[24]), r.margin);

    manifest_fields f;
    f.slot = 4;
    f.epoch = 99;
    const bytes dek = random_bytes(rng, 16), manifest = make_manifest(rng, r.id, f);
    const bytes blob = wrap_model_key(ladder_key(r.root, "owner-kek", 4, 99), dek, manifest);
    const std::pair<double, double> corners[] = {{25, 0.85}, {85, 0.8075}, {-35, 0.8925}};
    for (auto [temperature, voltage] : corners) {
      SCOPED_TRACE(std::to_string(temperature) + " C");
      Environment e;
      e.temperature_c = temperature;
      e.voltage_v = voltage;
      silicon.set_environment(e);
      silicon.power_on(rng());
      chip<Vlk_key_top> c(silicon, fuses);
      c.fill(c->helper_we_i, r.helper);
      const auto cycles = c.run(kStart);
      ASSERT_EQ(c->err_o, 0);
      ASSERT_EQ(c->state_o, kStarted);
      EXPECT_EQ(c->start_cycles_o, cycles);
      EXPECT_LT(cycles, 60000u);
      EXPECT_GT(c->unstable_o, 0);
      ::testing::Test::RecordProperty("start_cycles", std::to_string(cycles));
      c.fill(c->manifest_we_i, manifest);
      c.fill(c->blob_we_i, blob);
      c.run(kUnwrap);
      EXPECT_EQ(c->state_o, kLoaded);
      EXPECT_EQ(from_wide(c->key_o, 16), dek);
      c.run(kZeroise);
      EXPECT_FALSE(c->key_valid_o);
    }
    // A second enrolment is refused.
    chip<Vlk_enrol_top> again(silicon, fuses);
    again.run(kEnrol);
    EXPECT_EQ(again->err_o, 12);
    EXPECT_EQ(again->state_o, 0);
  }
}

TEST(KeyChip, AnotherDieFailsAndLocks) {
  SiliconConfig config;
  config.die_seed = 21;
  Silicon silicon(config, 1);
  Fuses fuses;
  const record r = enrol(silicon, fuses, 0);
  config.die_seed = 22;
  Silicon other(config, 1);
  Fuses other_fuses(fuses.state());
  chip<Vlk_key_top> c(other, other_fuses);
  c.fill(c->helper_we_i, r.helper);
  for (int i = 0; i < 3; ++i) {
    c.run(kStart);
    EXPECT_EQ(c->state_o, i < 2 ? kFailed : kLocked);
    EXPECT_EQ(c->err_o, i < 2 ? 3 : 8);
  }
  EXPECT_TRUE(c->wipe_o);
}

TEST(KeyChip, ADieThatIsNotEnrolledDoesNotStart) {
  Silicon silicon(31, 1);
  Fuses fuses;
  chip<Vlk_key_top> c(silicon, fuses);
  c.fill(c->helper_we_i, bytes(1088));
  c.run(kStart);
  EXPECT_EQ(c->err_o, 7);
  EXPECT_EQ(c->lc_state_o, 0x0240);
  EXPECT_EQ(silicon.races(), 0u) << "the PUF must not even be read";
}

}  // namespace
