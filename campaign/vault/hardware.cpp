#include "hardware.hpp"

#include <memory>
#include <stdexcept>

#include "Vlk_enrol_top.h"
#include "Vlk_key_top.h"
#include "latchkey/sim/silicon_ops.h"
#include "verilated.h"

namespace latchkey::campaign {
namespace {

constexpr int command_start = 1, command_enrol = 4;
constexpr int state_started = 2;  // of the enrol build: the helper data can be read
constexpr std::size_t mask_word = 8, offset_word = 200, tag_word = 264;

template <typename Top>
class chip {
 public:
  chip(sim::Silicon& silicon, sim::Fuses& fuses) : ops_(make_ops(silicon, fuses)) {
    latchkey_silicon_select(&ops_);
    top_ = std::make_unique<Top>(&context_);
    top_->rst_ni = 0;
    tick();
    tick();
    top_->rst_ni = 1;
    tick();
    tick();
  }
  ~chip() {
    top_->final();
    latchkey_silicon_select(nullptr);
  }
  chip(const chip&) = delete;
  chip& operator=(const chip&) = delete;

  Top* operator->() { return top_.get(); }

  void tick() {
    latchkey_silicon_select(&ops_);
    top_->clk_i = 0;
    top_->eval();
    top_->clk_i = 1;
    top_->eval();
  }

  std::uint64_t run(int command) {
    top_->cmd_valid_i = 1;
    top_->cmd_i = static_cast<std::uint8_t>(command);
    tick();
    top_->cmd_valid_i = 0;
    std::uint64_t cycles = 1;
    for (; top_->busy_o; ++cycles) {
      if (cycles > 5000000) throw std::runtime_error("the simulated chip does not come back");
      tick();
    }
    return cycles;
  }

 private:
  VerilatedContext context_;
  latchkey_silicon_ops ops_;
  std::unique_ptr<Top> top_;
};

}  // namespace

hardware_enrolment enrol_in_hardware(const sim::SiliconConfig& die,
                                     const sim::Environment& environment, std::uint64_t nonce) {
  sim::Silicon silicon(die, nonce);
  silicon.set_environment(environment);
  sim::Fuses fuses;
  chip<Vlk_enrol_top> c(silicon, fuses);
  hardware_enrolment out;
  c->slots_i = 1;
  out.cycles = c.run(command_enrol);
  out.error = c->err_o;
  out.margin = c->margin_o;
  out.ok = c->state_o == state_started && c->err_o == 0;
  for (std::size_t w = 0; out.ok && w < helper_words; ++w) {
    c->rd_addr_i = static_cast<std::uint16_t>(w);
    c.tick();
    out.helper[w] = c->helper_rdata_o;
  }
  return out;
}

hardware_start start_in_hardware(const sim::SiliconConfig& die, const sim::Environment& environment,
                                 std::uint64_t nonce, const helper_data& helper) {
  sim::Silicon silicon(die, nonce);
  silicon.set_environment(environment);
  sim::FuseState enrolled;
  enrolled.life_cycle = static_cast<std::uint16_t>(sim::LifeCycle::enrolled);
  enrolled.enrolled = true;
  sim::Fuses fuses(enrolled);
  chip<Vlk_key_top> c(silicon, fuses);
  c->helper_we_i = 1;
  for (std::uint32_t word : helper) {
    c->wdata_i = word;
    c.tick();
  }
  c->helper_we_i = 0;
  c.run(command_start);
  hardware_start out;
  out.ok = c->state_o == state_started;
  out.error = c->err_o;
  out.cycles = c->start_cycles_o;
  out.unstable = c->unstable_o;
  return out;
}

helper_data helper_of(const sim::Enrolled& enrolled) {
  helper_data h{};
  h[0] = 0x44484b4c;  // "LKHD"
  h[1] = 1;
  for (std::size_t b = 0; b < enrolled.device_id.size(); ++b) {
    h[2 + b / 4] |= std::uint32_t{enrolled.device_id[b]} << (8 * (b % 4));
  }
  h[6] = static_cast<std::uint32_t>(enrolled.margin);
  for (std::size_t w = 0; w < enrolled.mask.size(); ++w) {
    h[mask_word + 2 * w] = static_cast<std::uint32_t>(enrolled.mask[w]);
    h[mask_word + 2 * w + 1] = static_cast<std::uint32_t>(enrolled.mask[w] >> 32);
  }
  for (unsigned j = 0; j < sim::key_bits; ++j) {
    const unsigned at = j % sim::bch_n;
    const std::uint64_t bit = enrolled.offset[j / sim::bch_n][at / 64] >> (at % 64) & 1;
    h[offset_word + j / 32] |= static_cast<std::uint32_t>(bit) << (j % 32);
  }
  return h;
}

unsigned differing_bits(const helper_data& a, const helper_data& b) {
  unsigned n = 0;
  for (std::size_t w = 0; w < tag_word; ++w) {
    n += static_cast<unsigned>(__builtin_popcount(a[w] ^ b[w]));
  }
  return n;
}

}  // namespace latchkey::campaign
