#include "kernel.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "Vlatchkey_core.h"
#include "Vlatchkey_core___024root.h"
#include "latchkey/sim/silicon_ops.h"
#include "latchkey_spec.hpp"
#include "verilated.h"
#include "verilated_syms.h"

/// The model's own way out ends the process; here it ends one injection.
void vl_fatal(const char* file, int line, const char*, const char* message) {
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + message);
}
void vl_stop(const char* file, int line, const char* hier) { vl_fatal(file, line, hier, "stop"); }

namespace latchkey::campaign {
namespace {

using root = Vlatchkey_core___024root;

struct forced {
  const char* name;
  unsigned bits;
  std::size_t enable, value, size;
};
constexpr forced forced_table[] = {
#include "forced.inc"
};

constexpr std::uint64_t pages_at = 0x1'2345'0000, tags_at = 0x2'3456'0000;
constexpr std::uint32_t memory_latency = 12;
constexpr std::uint32_t key_patience = 30000, run_patience = 12000, bus_patience = 100;

std::string member_of(const std::string& scope, const char* variable) {
  std::string out;
  for (const char c : scope + "." + variable) {
    if (c == '.')
      out += "__DOT__";
    else if (c == '[')
      out += "__BRA__";
    else if (c == ']')
      out += "__KET__";
    else
      out += c;
  }
  return out;
}

}  // namespace

struct kernel::impl {
  VerilatedContext context;
  std::unique_ptr<Vlatchkey_core> top;
  std::unique_ptr<sim::Silicon> silicon;
  std::unique_ptr<sim::Fuses> fuses;
  latchkey_silicon_ops ops{};

  void die(std::uint64_t seed) {
    sim::SiliconConfig config;
    config.die_seed = seed;
    silicon = std::make_unique<sim::Silicon>(config, 1);
    sim::Environment quiet;
    quiet.noise_scale = 0;  // the same answers however often a fault makes the sampler ask
    silicon->set_environment(quiet);
    sim::FuseState enrolled;
    enrolled.life_cycle = static_cast<std::uint16_t>(sim::LifeCycle::enrolled);
    enrolled.enrolled = true;
    fuses = std::make_unique<sim::Fuses>(enrolled);
    ops = sim::make_ops(*silicon, *fuses);
    die_seed = seed;
  }
  std::uint64_t die_seed = 0;

  void eval() {
    latchkey_silicon_select(&ops);
    top->eval();
  }
};

kernel::kernel() : impl_(std::make_unique<impl>()) {
  // What lies between a model's members is no state; from here on two models agree in it.
  mallopt(M_PERTURB, 0xff);
  impl_->context.assertOn(false);  // a broken chip breaks its own assertions
  impl_->top = std::make_unique<Vlatchkey_core>(&impl_->context);
  {
    // What differs between two models that were never evaluated are their pointers.
    VerilatedContext other_context;
    const Vlatchkey_core other(&other_context);
    const auto* a = bytes();
    const auto* b = reinterpret_cast<const std::uint8_t*>(other.rootp);
    for (std::size_t at = 0; at + 8 <= sizeof(root); at += 8) {
      if (std::memcmp(a + at, b + at, 8) != 0) own_.push_back(at);
    }
  }
  Verilated::threadContextp(&impl_->context);
  if (own_.size() > 16) throw std::logic_error("the model's state is not plain memory");

  for (const auto& [name, scope] : *impl_->context.scopeNameMap()) {
    if (scope->varsp() == nullptr) continue;
    std::string path = scope->name();
    if (path.rfind("TOP.", 0) == 0) path.erase(0, 4);
    for (const auto& [variable, v] : *scope->varsp()) {
      point p;
      p.module = path;
      p.name = variable;
      p.bits = static_cast<unsigned>(v.packed().elements());
      p.size = v.entSize();
      p.data = static_cast<std::size_t>(static_cast<const std::uint8_t*>(v.datap()) - bytes());
      const std::string member = member_of(path, variable);
      const auto* f = std::find_if(std::begin(forced_table), std::end(forced_table),
                                   [&](const forced& e) { return member == e.name; });
      p.state = f == std::end(forced_table);
      if (p.bits > 16 || v.isParam()) continue;
      if (!p.state) {
        p.enable = f->enable;
        p.value = f->value;
        p.size = f->size;
      }
      points_.push_back(p);
    }
  }
}

kernel::~kernel() {
  Verilated::threadContextp(&impl_->context);  // the model forgets its scopes in this one
  impl_->top->final();
}

std::uint8_t* kernel::bytes() const { return reinterpret_cast<std::uint8_t*>(impl_->top->rootp); }

steps kernel::loading(const session& s) {
  namespace reg = spec::reg;
  steps out = {{stage::load, action::write, reg::fill_clear, 0}};
  for (const std::uint32_t w : s.helper) {
    out.push_back({stage::load, action::write, reg::helper_in, w});
  }
  out.push_back(
      {stage::start, action::write, reg::cmd, static_cast<std::uint32_t>(spec::cmd::start)});
  out.push_back({stage::start, action::wait_key, 0, 0});
  return out;
}

steps kernel::unwrapping(const session& s) {
  namespace reg = spec::reg;
  steps out = {{stage::unwrap, action::write, reg::fill_clear, 0}};
  for (const std::uint32_t w : s.manifest) {
    out.push_back({stage::unwrap, action::write, reg::manifest_in, w});
  }
  for (const std::uint32_t w : s.blob) {
    out.push_back({stage::unwrap, action::write, reg::blob_in, w});
  }
  out.push_back(
      {stage::unwrap, action::write, reg::cmd, static_cast<std::uint32_t>(spec::cmd::unwrap)});
  out.push_back({stage::unwrap, action::wait_key, 0, 0});
  return out;
}

steps kernel::running() {
  namespace reg = spec::reg;
  return {
      {stage::run, action::write, reg::pages_addr_lo, static_cast<std::uint32_t>(pages_at)},
      {stage::run, action::write, reg::pages_addr_hi, static_cast<std::uint32_t>(pages_at >> 32)},
      {stage::run, action::write, reg::tags_addr_lo, static_cast<std::uint32_t>(tags_at)},
      {stage::run, action::write, reg::tags_addr_hi, static_cast<std::uint32_t>(tags_at >> 32)},
      {stage::run, action::write, reg::batch, 1},
      {stage::run, action::start_run, reg::ap_ctrl, 1},
      {stage::run, action::wait_run, reg::ap_ctrl, 0},
      {stage::run, action::write, reg::ap_ctrl, 1U << 4}};  // continue: the next may start
}

steps kernel::looking() {
  namespace reg = spec::reg;
  steps out;
  const auto look = [&](std::uint32_t r) { out.push_back({stage::look, action::look, r, 0}); };
  for (const std::uint32_t r : {reg::key_state, reg::key_err, reg::run_status}) look(r);
  // Everything there is, and the windows that no operate build has.
  for (std::uint32_t r = 0x10; r < 0x180; r += 4) look(r);
  for (std::uint32_t r = 0; r < 8; ++r) {
    look(reg::helper_out + 4 * r);
    look(reg::kek_out + 4 * r);
    look(reg::layer_cycles + 4 * r);
  }
  return out;
}

void kernel::begin(const session& s) {
  power_on(s);
  program_.clear();
  for (const steps& part : {loading(s), unwrapping(s), running(), looking()}) {
    program_.insert(program_.end(), part.begin(), part.end());
  }
}

const host& kernel::play(const session& s, steps program) {
  session_ = &s;
  host_ = {};
  program_ = std::move(program);
  while (tick()) {
  }
  return host_;
}

void kernel::power_on(const session& s) {
  session_ = &s;
  host_ = {};
  release();
  impl_->die(s.die_seed);
  auto& t = *impl_->top;
  t.ap_rst_n = 0;
  t.s_axi_control_awvalid = t.s_axi_control_wvalid = t.s_axi_control_arvalid = 0;
  t.s_axi_control_bready = t.s_axi_control_rready = 1;
  t.s_axi_control_wstrb = 15;
  t.m_axi_gmem_rvalid = t.m_axi_gmem_rresp = 0;
  t.m_axi_gmem_arready = t.m_axi_gmem_awready = t.m_axi_gmem_wready = 1;
  t.m_axi_gmem_bvalid = t.m_axi_gmem_bresp = 0;
  t.s_axis_in_tvalid = 0;
  t.m_axis_out_tready = 1;
  for (int i = 0; i < 4; ++i) {
    t.ap_clk = i & 1;
    impl_->eval();
  }
  t.ap_rst_n = 1;
}

stage kernel::at() const {
  return host_.step < program_.size() ? program_[host_.step].in : stage::end;
}

bool kernel::tick() {
  if (host_.step >= program_.size()) return false;
  auto& t = *impl_->top;
  host& h = host_;
  const auto [in_stage, what, address, value] = program_[h.step];
  const bool writes = what == action::write || what == action::start_run;

  // ---- drive
  t.s_axi_control_awvalid = writes && h.phase == 0 && !h.aw_taken;
  t.s_axi_control_wvalid = writes && h.phase == 0 && !h.w_taken;
  t.s_axi_control_awaddr = static_cast<std::uint16_t>(address);
  t.s_axi_control_wdata = value;
  t.s_axi_control_arvalid = !writes && h.phase == 0;
  t.s_axi_control_araddr =
      static_cast<std::uint16_t>(what == action::wait_key ? spec::reg::key_state : address);
  t.m_axi_gmem_rvalid = !h.bursts.empty() && h.memory_wait == 0;
  if (t.m_axi_gmem_rvalid) {
    const auto [from, left] = h.bursts.front();
    const bool tag = from >= tags_at;
    const auto& memory = tag ? session_->tags : session_->pages;
    const std::uint64_t offset = from - (tag ? tags_at : pages_at);
    if (offset + 64 <= memory.size()) {
      std::memcpy(&t.m_axi_gmem_rdata, memory.data() + offset, 64);
    } else {
      std::memset(&t.m_axi_gmem_rdata, 0, 64);
    }
    t.m_axi_gmem_rlast = left == 1;
  }
  t.m_axi_gmem_bvalid = h.answers != 0;
  t.s_axis_in_tvalid = h.streaming && h.images_sent < session_->images.size();
  if (t.s_axis_in_tvalid) {
    std::memcpy(&t.s_axis_in_tdata, session_->images.data() + h.images_sent, 64);
    t.s_axis_in_tkeep = ~std::uint64_t{0};
    t.s_axis_in_tlast = h.images_sent + 64 == session_->images.size();
  }
  t.ap_clk = 0;
  impl_->eval();
  sample();
  t.ap_clk = 1;
  impl_->eval();
  ++h.cycle;
  return h.step < program_.size();
}

// A stream or the memory gets this.
void kernel::look_into(const std::array<std::uint8_t, 64>& data) {
  for (std::size_t i = 0; i + 8 <= data.size(); ++i) {
    std::uint64_t window = 0;
    std::memcpy(&window, &data[i], 8);
    host_.leaked = host_.leaked || session_->secret_windows.count(window) != 0;
  }
}

// What is on the wires before the rising edge.
void kernel::sample() {
  auto& t = *impl_->top;
  host& h = host_;
  const auto [in_stage, what, address, value] = program_[h.step];
  const auto next = [&] {
    ++h.step;
    h.phase = 0;
    h.waited = 0;
    h.aw_taken = h.w_taken = false;
  };

  if (h.memory_wait != 0) --h.memory_wait;
  if (t.m_axi_gmem_rvalid && t.m_axi_gmem_rready) {
    auto& [from, left] = h.bursts.front();
    from += 64;
    if (--left == 0) h.bursts.pop_front();
  }
  if (t.m_axi_gmem_arvalid) {
    const std::uint64_t from = t.m_axi_gmem_araddr, beats = t.m_axi_gmem_arlen + 1U;
    const std::uint64_t to = from + 64 * beats;
    h.strayed = h.strayed || !((from >= pages_at && to <= pages_at + session_->pages.size()) ||
                               (from >= tags_at && to <= tags_at + session_->tags.size()));
    if (h.bursts.empty()) h.memory_wait = memory_latency;
    if (h.bursts.size() < 64) h.bursts.push_back({from, beats});
  }
  if (t.s_axis_in_tvalid && t.s_axis_in_tready) h.images_sent += 64;
  if (t.m_axis_out_tvalid && h.out.size() < 64) {
    beat b;
    std::memcpy(b.data.data(), &t.m_axis_out_tdata, 64);
    b.keep = t.m_axis_out_tkeep != 0;
    b.last = t.m_axis_out_tlast;
    look_into(b.data);
    h.out.push_back(b);
  }
  // The program spills nothing; whatever is written all the same is looked into.
  if (t.m_axi_gmem_bvalid && t.m_axi_gmem_bready) --h.answers;
  if (t.m_axi_gmem_wvalid) {
    std::array<std::uint8_t, 64> data;
    std::memcpy(data.data(), &t.m_axi_gmem_wdata, 64);
    look_into(data);
    h.answers += t.m_axi_gmem_wlast;
  }
  const bool answered = t.s_axi_control_rvalid && h.phase == 1;
  const std::uint32_t read = t.s_axi_control_rdata;
  if (t.s_axi_control_rvalid) h.leaked = h.leaked || session_->secret_words.count(read) != 0;

  ++h.waited;
  const std::uint32_t patience = what == action::wait_key
                                     ? key_patience
                                     : (what == action::wait_run ? run_patience : bus_patience);
  switch (what) {
    case action::write:
    case action::start_run:
      h.aw_taken = h.aw_taken || (t.s_axi_control_awvalid && t.s_axi_control_awready);
      h.w_taken = h.w_taken || (t.s_axi_control_wvalid && t.s_axi_control_wready);
      if (h.aw_taken && h.w_taken && h.phase == 0)
        h.phase = 1;
      else if (h.phase == 1 && t.s_axi_control_bvalid) {
        if (what == action::start_run) h.streaming = true;
        return next();
      }
      break;
    default:
      if (h.phase == 0 && t.s_axi_control_arready)
        h.phase = 1;
      else if (answered) {
        h.phase = 0;
        if (what == action::look) {
          h.registers.push_back(read);
          return next();
        }
        if (what == action::wait_key && read != static_cast<std::uint32_t>(spec::key_state::busy)) {
          h.states.push_back(read);
          return next();
        }
        if (what == action::wait_run && (read & 2) != 0) return next();
      }
  }
  if (h.waited > patience) {
    h.gave_up = true;
    if (what == action::wait_key)
      h.states.push_back(static_cast<std::uint32_t>(spec::key_state::busy));
    next();
  }
}

kernel::snapshot kernel::take() const {
  snapshot s;
  s.model.assign(bytes(), bytes() + sizeof(root));
  for (const std::size_t at : own_) std::memset(&s.model[at], 0, 8);
  s.at = host_;
  return s;
}

void kernel::put(const snapshot& s, const session& of) {
  if (session_ != &of) begin(of);  // the die and the host's program
  std::vector<std::uint64_t> own;
  own.reserve(own_.size());
  for (const std::size_t at : own_) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes() + at, 8);
    own.push_back(word);
  }
  std::memcpy(bytes(), s.model.data(), sizeof(root));
  for (std::size_t i = 0; i < own_.size(); ++i) std::memcpy(bytes() + own_[i], &own[i], 8);
  host_ = s.at;
}

bool kernel::is(const snapshot& s) const {
  if (!(host_ == s.at)) return false;
  std::size_t from = 0;
  for (const std::size_t at : own_) {
    if (std::memcmp(bytes() + from, s.model.data() + from, at - from) != 0) return false;
    from = at + 8;
  }
  return std::memcmp(bytes() + from, s.model.data() + from, sizeof(root) - from) == 0;
}

std::uint32_t kernel::read(const point& p) const {
  std::uint32_t v = 0;
  std::memcpy(&v, bytes() + p.data, std::min<std::size_t>(p.size, 4));
  return v;
}

void kernel::flip(const point& p, unsigned bit) {
  bytes()[p.data + bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
}

void kernel::hold(const point& p, unsigned bit, bool level) {
  const auto mask = static_cast<std::uint8_t>(1U << (bit % 8));
  bytes()[p.enable + bit / 8] |= mask;
  auto& v = bytes()[p.value + bit / 8];
  v = static_cast<std::uint8_t>(level ? v | mask : v & ~mask);
}

std::size_t kernel::count(const std::unordered_set<std::uint64_t>& windows) const {
  std::unordered_set<std::uint64_t> found;
  for (std::size_t at = 0; at + 8 <= sizeof(root); ++at) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes() + at, 8);
    if (windows.count(word) != 0) found.insert(word);
  }
  return found.size();
}

void kernel::release() {
  for (const point& p : points_) {
    if (!p.state) std::memset(bytes() + p.enable, 0, p.size);
  }
}

}  // namespace latchkey::campaign
