// Drives a Verilated lk_engine: clock, page stream, input and output streams with idle cycles, and
// the counters of an operation.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <string>

#include "engine_model.hpp"

namespace latchkey::test {

struct run_result {
  bool bad_desc = false, bad_input = false, aborted = false;
  std::uint64_t cycles = 0, busy = 0, want = 0, loading = 0, feed = 0, post = 0;
  std::uint64_t macs = 0, beats = 0;
};

template <class Model, int N>
class engine_sim {
 public:
  static constexpr int array_n = N;
  static constexpr std::uint32_t spad_words = 16384;

  explicit engine_sim(unsigned seed) : rng(seed), ctx_(new VerilatedContext) {
    ctx_->randReset(2);
    ctx_->randSeed(static_cast<int>(seed % 1000000) + 1);
    m_.reset(new Model(ctx_.get()));
    m_->rst_ni = 0;
    m_->wipe_i = 0, m_->abort_i = 0, m_->cmd_valid_i = 0, m_->pg_valid_i = 0, m_->in_valid_i = 0;
    m_->out_ready_i = 0, m_->clk_i = 0;
    for (int i = 0; i < 4; ++i) tick();
    m_->rst_ni = 1;
    tick();
  }
  ~engine_sim() { m_->final(); }

  std::mt19937 rng;
  int page_idle = 0, in_idle = 0, out_idle = 0;  // percent of cycles without a beat
  std::uint64_t abort_at = 0;                    // cycle of the operation, 0 = never
  std::uint64_t wipe_at = 0;
  std::deque<std::pair<word, bool>> input;  // words and their tlast
  std::vector<word> output;
  std::vector<bool> output_last;
  std::uint64_t cycles = 0;

  void load_pages(const std::vector<page>& pages) {
    for (const page& p : pages) {
      for (int b = 0; b < 64; ++b) {
        beat x{{}, b == 0, b == 63};
        std::memcpy(x.data.data(), &p[b * 64], 64);
        beats_.push_back(x);
      }
    }
  }
  std::size_t beats_left() const { return beats_.size(); }
  void drop_pages() { beats_.clear(); }

  run_result run(const spec::descriptor& d, int batch, std::uint64_t limit = 20000000) {
    const auto raw = d.pack();
    for (std::size_t i = 0; i < raw.size(); ++i) m_->desc_i[i] = raw[i];
    m_->batch_i = batch;
    m_->cmd_valid_i = 1;
    run_result r;
    for (bool taken = false; !taken;) {
      m_->eval();
      taken = m_->cmd_ready_o;
      tick();
      if (++r.cycles > limit) throw std::runtime_error("the engine takes no command");
    }
    m_->cmd_valid_i = 0;
    for (std::size_t i = 0; i < raw.size(); ++i) m_->desc_i[i] = rng();  // must have been taken
    r.cycles = 0;
    for (bool done = false; !done;) {
      ++r.cycles;
      m_->abort_i = abort_at != 0 && r.cycles >= abort_at;
      m_->wipe_i = wipe_at != 0 && r.cycles == wipe_at;
      r.aborted |= m_->abort_i || m_->wipe_i;
      drive();
      m_->eval();
      const int events =
          m_->ev_busy_o + m_->ev_want_weights_o + m_->ev_loading_o + m_->ev_feed_o + m_->ev_post_o;
      if (events > 1) throw std::runtime_error("two events in one cycle");
      r.busy += m_->ev_busy_o, r.want += m_->ev_want_weights_o, r.loading += m_->ev_loading_o;
      r.feed += m_->ev_feed_o, r.post += m_->ev_post_o, r.macs += m_->macs_o;
      r.beats += sample();
      done = m_->done_o;
      r.bad_desc |= m_->bad_desc_o;
      r.bad_input |= m_->bad_input_o;
      clock();
      if (r.cycles > limit) {
        throw std::runtime_error("the operation does not end; pages left: " +
                                 std::to_string(beats_.size() / 64.0));
      }
    }
    m_->abort_i = 0, m_->wipe_i = 0;
    m_->pg_valid_i = 0, m_->in_valid_i = 0, m_->out_ready_i = 0;
    return r;
  }

  // Waits for a wipe to finish; the cycles it took from now on.
  std::uint64_t wait_wipe() {
    std::uint64_t n = 0;
    for (;; ++n) {
      m_->eval();
      if (!m_->wipe_busy_o) return n;
      tick();
      if (n > 10 * spad_words) throw std::runtime_error("the wipe does not end");
    }
  }
  std::uint64_t wipe() {
    m_->wipe_i = 1;
    tick();
    m_->wipe_i = 0;
    return wait_wipe() + 1;
  }

  /// The model itself, for a look inside.
  const Model& model() const { return *m_; }

  // Writes words through the Input operation, reads them through Output.
  run_result put(std::uint32_t base, std::uint32_t stride, int batch,
                 const std::vector<word>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      input.emplace_back(words[i], i + 1 == words.size());
    }
    spec::descriptor d;
    d.op = static_cast<std::uint32_t>(spec::op::input);
    d.out_base = base, d.out_stride = stride;
    return run(d, batch);
  }
  std::vector<word> get(std::uint32_t base, std::uint32_t stride, int batch) {
    output.clear();
    output_last.clear();
    spec::descriptor d;
    d.op = static_cast<std::uint32_t>(spec::op::output);
    d.in_base = base, d.in_stride = stride;
    run(d, batch);
    return output;
  }

 private:
  struct beat {
    word data;
    bool first, last;
  };

  bool idle(int percent) { return percent != 0 && static_cast<int>(rng() % 100) < percent; }

  void drive() {
    // A beat that was offered stays.
    m_->pg_valid_i = !beats_.empty() && (page_held_ || !idle(page_idle));
    page_held_ = m_->pg_valid_i;
    if (m_->pg_valid_i) {
      std::memcpy(&m_->pg_data_i[0], beats_.front().data.data(), 64);
      m_->pg_first_i = beats_.front().first;
      m_->pg_last_i = beats_.front().last;
    }
    m_->in_valid_i = !input.empty() && (in_held_ || !idle(in_idle));
    in_held_ = m_->in_valid_i;
    if (m_->in_valid_i) {
      std::memcpy(&m_->in_data_i[0], input.front().first.data(), 64);
      m_->in_last_i = input.front().second;
    }
    m_->out_ready_i = !idle(out_idle);
  }

  int sample() {
    int taken = 0;
    if (m_->pg_valid_i && m_->pg_ready_o) {
      beats_.pop_front();
      page_held_ = false;
      taken = 1;
    }
    if (m_->in_valid_i && m_->in_ready_o) {
      input.pop_front();
      in_held_ = false;
    }
    if (m_->out_valid_o && m_->out_ready_i) {
      word w;
      std::memcpy(w.data(), &m_->out_data_o[0], 64);
      output.push_back(w);
      output_last.push_back(m_->out_last_o);
    }
    return taken;
  }

  void clock() {
    m_->clk_i = 1;
    m_->eval();
    m_->clk_i = 0;
    ++cycles;
  }
  void tick() {
    m_->eval();
    clock();
  }

  std::unique_ptr<VerilatedContext> ctx_;
  std::unique_ptr<Model> m_;
  std::deque<beat> beats_;
  bool page_held_ = false, in_held_ = false;
};

}  // namespace latchkey::test
