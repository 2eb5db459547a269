// lk_sequencer among modelled neighbours (descriptor RAM, page ring, walker, engine, streams) whose
// delays are random: whole runs in order, and every way a run can fail. Whatever fails, and
// whenever, the run ends once, with the first reason, one null beat and no further operation.
#include <gtest/gtest.h>
#include <verilated.h>

#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "Vlk_sequencer.h"
#include "Vlk_sequencer___024root.h"
#include "latchkey_spec.hpp"
#include "rng.hpp"

namespace {

using namespace latchkey;
using spec::op;
using spec::run_status;

constexpr unsigned kDescsPerPage = spec::page_bytes / spec::desc_bytes;
constexpr unsigned kStateBits = 7;

/// What goes wrong in a run.
enum class fault {
  none,
  wipe,
  bus_error,
  tampered,
  bus_error_and_tampered,
  walker_bad,
  spill_tampered,
  spill_bad,
  run_key,
  bad_descriptor,
  bad_input
};

class Sequencer : public ::testing::Test {
 protected:
  void SetUp() override {
    configure();
    top_.rst_ni = 0;
    tick();
    top_.rst_ni = 1;
    tick();
  }

  void configure() {
    top_.key_valid_i = top_.chain_ready_i = top_.manifest_valid_i = 1;
    batch_ = 1 + rng_.below(8);
    max_batch_ = batch_ + rng_.below(3);
  }

  /// Input, `layers` operations of the engine, Output, End.
  void make(unsigned layers) {
    constexpr op kLayers[] = {op::mat_mul, op::max_pool,  op::avg_pool, op::add,  op::mul,
                              op::table,   op::depthwise, op::load,     op::spill};
    ops_ = {op::input};
    for (unsigned i = 0; i < layers; ++i) ops_.push_back(kLayers[rng_.below(std::size(kLayers))]);
    ops_.push_back(op::output);
    ops_.push_back(op::end);
    declare();
  }

  /// The manifest's counts that belong to ops_.
  void declare() {
    num_descs_ = static_cast<std::uint32_t>(ops_.size());
    desc_pages_ = (num_descs_ + kDescsPerPage - 1) / kDescsPerPage;
  }

  spec::descriptor descriptor(unsigned index) const {
    spec::descriptor d;
    d.op = static_cast<std::uint32_t>(ops_.at(index));
    d.page_base = 0x1000 + index;  // recognised at the engine
    d.spilled = ops_.at(index) == op::load && index % 2;
    return d;
  }

  /// One clock cycle. The neighbours' registers change after the edge, as the sequencer's do.
  void tick() {
    spec::manifest m{};
    m.num_descs = num_descs_;
    m.desc_pages = desc_pages_;
    m.max_batch = max_batch_;
    m.spill_pages = spill_pages_;
    std::memcpy(&top_.manifest_i, &m, sizeof m);
    top_.batch_i = static_cast<std::uint16_t>(batch_);

    const bool desc_valid = top_.desc_req_o && !rng_.chance(idle_);
    top_.desc_valid_i = desc_valid;
    if (desc_valid) {
      const auto words = descriptor(top_.desc_idx_o).pack();
      std::memcpy(&top_.desc_i, words.data(), sizeof words);
    }
    top_.pg_valid_i = beats_left_ > 0 && !rng_.chance(idle_);
    top_.pg_last_i = beats_left_ % spec::page_beats == 1;
    top_.eng_ready_i = !engine_busy_ && !rng_.chance(idle_);
    top_.eng_done_i = engine_busy_ && engine_left_ == 0;
    top_.eng_bad_desc_i = engine_busy_ && engine_fault_ == fault::bad_descriptor;
    top_.eng_bad_input_i = engine_busy_ && engine_fault_ == fault::bad_input;
    const bool input_op_ends = in_input_ && top_.eng_done_i && !failed_ && !top_.eng_bad_input_i;
    top_.in_last_taken_i =
        input_left_ && (input_op_ends || (top_.in_drain_o && !rng_.chance(idle_)));
    top_.chain_idle_i = !rng_.chance(idle_);
    top_.chain_settled_i = settled_ && !rng_.chance(idle_);
    top_.null_ready_i = !rng_.chance(idle_);
    top_.clk_i = 0;
    top_.eval();
    sample();
    const bool taken = top_.pg_take_o;
    const bool issued = top_.eng_valid_o && top_.eng_ready_i;
    const bool aborted = top_.eng_abort_o;
    const bool done = top_.eng_done_i;
    const bool input_ends = top_.in_last_taken_i;
    top_.clk_i = 1;
    top_.eval();

    top_.start_i = top_.start_i && !run_done_;
    if (taken) --beats_left_;
    if (input_ends) input_left_ = false;
    if (done) engine_busy_ = in_input_ = false;
    if (engine_busy_) {
      // An abort ends the operation soon; its done is then no success.
      engine_left_ = aborted ? std::min(engine_left_, 1u + rng_.below(4)) : engine_left_;
      engine_left_ -= engine_left_ > 0;
    }
    if (issued) {
      engine_busy_ = true;
      engine_left_ = rng_.below(20);
      in_input_ = issued_.back() == op::input;
    }
  }

  void sample() {
    if (!top_.rst_ni) return;
    if (top_.walker_boot_o) ++boots_;
    if (top_.walker_run_o) {
      ++walks_;
      EXPECT_EQ(beats_left_, 1u) << "walked before the last descriptor stood";
    }
    // Results may leave while the Output runs, and at no other time.
    if (top_.release_o) {
      ++releases_;
      EXPECT_TRUE(engine_busy_ && issued_.back() == op::output && !top_.eng_abort_o);
    }
    // A Spill and a Load of what was spilled say so while they run, and nothing else does.
    const bool running = engine_busy_ && !top_.eng_abort_o && !issued_.empty();
    EXPECT_EQ(top_.seal_o, running && issued_.back() == op::spill);
    EXPECT_EQ(top_.unseal_o,
              running && issued_.back() == op::load && descriptor(issued_index()).spilled != 0);
    if (top_.desc_we_o) {
      EXPECT_TRUE(top_.pg_valid_i);
      EXPECT_EQ(top_.desc_waddr_o, writes_++);
    }
    if (top_.eng_valid_o && top_.eng_ready_i) {
      spec::descriptor d;
      std::array<std::uint32_t, spec::desc_bytes / 4> words;
      std::memcpy(words.data(), &top_.eng_desc_o, sizeof words);
      d = spec::descriptor::unpack(words);
      EXPECT_EQ(d.page_base, 0x1000 + issued_.size());
      EXPECT_FALSE(engine_busy_);
      EXPECT_FALSE(failed_) << "an operation after the failure";
      issued_.push_back(static_cast<op>(d.op));
      if (issued_.back() == op::spill) EXPECT_TRUE(top_.chain_settled_i);
      if (issued_.back() == op::output) {
        EXPECT_TRUE(top_.walker_finished_i && top_.chain_empty_i && !top_.chain_fail_i)
            << "the output began before the last tag";
      }
    }
    if (top_.null_valid_o && top_.null_ready_i) {
      ++nulls_;
      EXPECT_FALSE(input_left_) << "the input adapter would be left hanging";
      EXPECT_FALSE(engine_busy_);
    }
    if (top_.tamper_o) ++tampers_;
    if (top_.done_o) {
      ++dones_;
      run_done_ = true;
      status_ = static_cast<run_status>(top_.status_o);
    }
  }

  unsigned issued_index() const { return static_cast<unsigned>(issued_.size()) - 1; }

  void begin(unsigned idle) {
    idle_ = idle;
    issued_.clear();
    beats_left_ = desc_pages_ * spec::page_beats;
    writes_ = 0;
    boots_ = walks_ = nulls_ = tampers_ = dones_ = 0;
    releases_ = 0;
    run_done_ = failed_ = false;
    input_left_ = true;
    in_input_ = engine_busy_ = false;
    engine_fault_ = fault::none;
    status_.reset();
    top_.wipe_i = top_.wipe_busy_i = top_.bus_error_i = 0;
    top_.chain_fail_i = top_.chain_fail_spilled_i = top_.walker_bad_i = 0;
    top_.spill_bad_i = top_.run_key_fail_i = 0;
    top_.walker_finished_i = top_.chain_empty_i = 1;
    top_.start_i = 1;
  }

  /// Ticks to the end of the run; false when it does not come.
  bool finish() {
    for (int i = 0; i < 200000 && !run_done_; ++i) tick();
    const bool ended = run_done_;
    for (int i = 0; i < 3; ++i) tick();
    EXPECT_FALSE(top_.running_o);
    EXPECT_EQ(dones_, 1);
    return ended;
  }

  std::vector<op> without_end() const { return {ops_.begin(), ops_.end() - 1}; }

  void expect_success() {
    EXPECT_EQ(status_, run_status::ok);
    EXPECT_EQ(issued_, without_end());
    EXPECT_EQ(writes_, desc_pages_ * spec::page_beats);
    EXPECT_EQ(boots_, 1);
    EXPECT_EQ(walks_, 1);
    EXPECT_EQ(nulls_, 0);
    EXPECT_EQ(tampers_, 0);
  }

  void expect_failure(run_status why) {
    EXPECT_EQ(status_, why);
    EXPECT_EQ(nulls_, 1);
    EXPECT_FALSE(input_left_);
  }

  /// A start that is refused before a page is asked for.
  void expect_refused(run_status why) {
    begin(30);
    ASSERT_TRUE(finish());
    expect_failure(why);
    EXPECT_EQ(boots_, 0);
    EXPECT_EQ(writes_, 0u);
    EXPECT_TRUE(issued_.empty());
  }

  void inject(fault f) {
    failed_ = true;
    top_.wipe_i = f == fault::wipe;
    top_.bus_error_i = f == fault::bus_error || f == fault::bus_error_and_tampered;
    top_.chain_fail_i = f == fault::tampered || f == fault::bus_error_and_tampered;
    top_.walker_bad_i = f == fault::walker_bad;
    top_.spill_bad_i = f == fault::spill_bad;
    top_.run_key_fail_i = f == fault::run_key;
    top_.chain_fail_spilled_i = f == fault::spill_tampered;
    top_.chain_fail_i = top_.chain_fail_i || f == fault::spill_tampered;
  }

  static run_status reason(fault f) {
    switch (f) {
      case fault::wipe:
        return run_status::wiped;
      case fault::bus_error:
      case fault::bus_error_and_tampered:
        return run_status::bus_error;
      case fault::tampered:
        return run_status::page_tampered;
      case fault::spill_tampered:
        return run_status::spill_tampered;
      case fault::run_key:
        return run_status::no_run_key;
      case fault::walker_bad:
      case fault::spill_bad:
      case fault::bad_descriptor:
        return run_status::bad_descriptor;
      case fault::bad_input:
        return run_status::bad_input;
      case fault::none:
        break;
    }
    return run_status::ok;
  }

  std::uint8_t& state() { return top_.rootp->lk_sequencer__DOT__state_q; }

  test::Rng rng_{17};
  Vlk_sequencer top_;
  std::vector<op> ops_, issued_;
  std::uint32_t spill_pages_ = 7;
  std::uint32_t num_descs_ = 0, desc_pages_ = 0, batch_ = 1, max_batch_ = 1;
  unsigned idle_ = 0, beats_left_ = 0, writes_ = 0, engine_left_ = 0, releases_ = 0;
  int boots_ = 0, walks_ = 0, nulls_ = 0, tampers_ = 0, dones_ = 0;
  bool run_done_ = false, failed_ = false, input_left_ = false, in_input_ = false;
  bool engine_busy_ = false, settled_ = true;
  fault engine_fault_ = fault::none;
  std::optional<run_status> status_;
};

TEST_F(Sequencer, RunsEveryDescriptorInOrder) {
  SCOPED_TRACE(rng_.name());
  for (int run = 0; run < 100; ++run) {
    make(rng_.below(run % 10 == 0 ? 200 : 12));
    configure();
    begin(run % 3 == 0 ? 0 : run % 3 == 1 ? 50 : 90);
    ASSERT_TRUE(finish()) << "run " << run;
    expect_success();
  }
}

TEST_F(Sequencer, AsManyDescriptorsAsTheRamHolds) {
  make(spec::max_descs - 3);
  ASSERT_EQ(ops_.size(), spec::max_descs);
  begin(10);
  ASSERT_TRUE(finish());
  expect_success();
}

TEST_F(Sequencer, RefusesCountsThatTheRamDoesNotHold) {
  make(spec::max_descs - 2);
  ASSERT_EQ(ops_.size(), spec::max_descs + 1);
  expect_refused(run_status::bad_descriptor);

  const auto refused = [&](std::uint32_t descs, std::uint32_t pages) {
    SCOPED_TRACE(std::to_string(descs) + " descriptors in " + std::to_string(pages) + " pages");
    num_descs_ = descs;
    desc_pages_ = pages;
    expect_refused(run_status::bad_descriptor);
  };
  refused(0, 0);
  refused(0, 1);
  refused(1, 1);
  refused(5, 0);
  refused(5, 2);
  refused(33, 1);  // what the last run left would be read
  refused(512, 15);
  refused(512, 17);
  refused(512, 0x8000'0010);
  refused(0x200 + 2, 1);
  refused(0x8000'0005, 1);
  refused(0xffff'ffff, 1);
  refused(0xffff'ffff, 0x0800'0000);

  make(3);
  begin(30);
  ASSERT_TRUE(finish()) << "a refusal leaves nothing behind";
  expect_success();
}

TEST_F(Sequencer, RefusesAStartWithoutAKey) {
  for (int what = 0; what < 2; ++what) {
    make(2);
    top_.key_valid_i = what != 0;
    top_.manifest_valid_i = what != 1;
    expect_refused(run_status::no_key);
    configure();
  }
}

TEST_F(Sequencer, WaitsForRoundKeysButNotForEver) {
  make(2);
  begin(20);
  top_.chain_ready_i = 0;
  for (int i = 0; i < 1000; ++i) tick();
  EXPECT_FALSE(top_.running_o);
  EXPECT_EQ(boots_, 0);
  top_.chain_ready_i = 1;
  ASSERT_TRUE(finish());
  expect_success();

  top_.chain_ready_i = 0;
  expect_refused(run_status::no_key);
}

TEST_F(Sequencer, RefusesABadBatch) {
  make(2);
  max_batch_ = 8;
  for (const std::uint32_t batch : {0u, 9u, 0xffffu}) {
    batch_ = batch;
    expect_refused(run_status::bad_batch);
  }
  batch_ = 8;
  begin(0);
  ASSERT_TRUE(finish());
  expect_success();
}

TEST_F(Sequencer, RefusesMoreSpillPagesThanTagsAreKept) {
  make(2);
  for (const std::uint32_t pages : {spec::max_spill_pages + 1, 0x8000'0000u, 0xffff'ffffu}) {
    spill_pages_ = pages;
    expect_refused(run_status::bad_descriptor);
  }
  spill_pages_ = spec::max_spill_pages;
  begin(0);
  ASSERT_TRUE(finish());
  expect_success();
}

TEST_F(Sequencer, RefusesASpillWithoutAnArea) {
  make(1);
  ops_[1] = op::spill;
  begin(0);
  ASSERT_TRUE(finish());
  expect_success();
  spill_pages_ = 0;
  begin(0);
  ASSERT_TRUE(finish());
  expect_failure(run_status::bad_descriptor);
  EXPECT_EQ(issued_.size(), 1u);
}

// What a Spill still has on the bus must be answered before the host hears that the run is over.
TEST_F(Sequencer, TheEndWaitsForTheChain) {
  make(2);
  idle_ = 0;
  begin(0);
  settled_ = false;
  for (int i = 0; i < 2000; ++i) tick();
  EXPECT_FALSE(run_done_);
  settled_ = true;
  ASSERT_TRUE(finish());
  expect_success();
}

TEST_F(Sequencer, AStartWaitsForAWipeThatEnds) {
  make(2);
  begin(0);
  top_.wipe_busy_i = 1;
  for (int i = 0; i < 500; ++i) tick();
  EXPECT_FALSE(top_.running_o);
  top_.wipe_busy_i = 0;
  ASSERT_TRUE(finish());
  expect_success();
}

// A locked key block wipes for ever and has no key: the start must not hang.
TEST_F(Sequencer, AStartUnderAnEndlessWipeEndsForWantOfAKey) {
  make(2);
  begin(0);
  top_.wipe_i = top_.wipe_busy_i = 1;
  top_.key_valid_i = top_.manifest_valid_i = top_.chain_ready_i = 0;
  ASSERT_TRUE(finish());
  expect_failure(run_status::no_key);
}

TEST_F(Sequencer, EveryFailureAtAnyTime) {
  SCOPED_TRACE(rng_.name());
  std::map<fault, std::set<unsigned>> states;  // in which it struck
  int late = 0;
  for (int run = 0; run < 3000; ++run) {
    constexpr fault kFaults[] = {
        fault::wipe,       fault::bus_error,      fault::tampered,  fault::bus_error_and_tampered,
        fault::walker_bad, fault::spill_tampered, fault::spill_bad, fault::run_key};
    const fault f = kFaults[run % std::size(kFaults)];
    make(1 + rng_.below(4));
    begin(run % 2 ? 60 : 10);
    // Now and then before the first page: a pulse there must not be lost either.
    const unsigned when = run % 20 < 5 ? 1 : 2 + rng_.below(run % 2 ? 500 : 250);
    for (unsigned i = 0; i < when && !run_done_; ++i) tick();
    if (!top_.running_o || top_.done_o || run_done_) {  // not begun, or over
      finish();
      ++late;
      continue;
    }
    const unsigned at = state();
    inject(f);
    tick();
    top_.bus_error_i = 0;  // a pulse; the others last
    ASSERT_TRUE(finish()) << "run " << run << " in state " << at;
    states[f].insert(at);
    expect_failure(reason(f));
    EXPECT_EQ(tampers_, f == fault::tampered || f == fault::spill_tampered);
    if (HasFailure()) FAIL() << "run " << run << " in state " << at;
  }
  EXPECT_LT(late, 2000);
  for (const auto& [f, where] : states)
    EXPECT_GE(where.size(), 4u) << "fault " << static_cast<int>(f) << " missed a state";
}

TEST_F(Sequencer, TheEnginesOwnRefusals) {
  SCOPED_TRACE(rng_.name());
  for (int run = 0; run < 200; ++run) {
    make(2 + rng_.below(6));
    begin(run % 2 ? 50 : 0);
    engine_fault_ = fault::none;
    const std::size_t victim = rng_.below(static_cast<unsigned>(ops_.size()) - 1);
    for (int i = 0; i < 20000 && issued_.size() <= victim; ++i) tick();
    ASSERT_EQ(issued_.size(), victim + 1);
    engine_fault_ = run % 3 ? fault::bad_descriptor : fault::bad_input;
    const fault f = engine_fault_;
    ASSERT_TRUE(finish());
    EXPECT_EQ(status_, reason(f));
    EXPECT_EQ(nulls_, 1);
    EXPECT_FALSE(input_left_);
    EXPECT_EQ(issued_.size(), victim + 1) << "an operation after the refusal";
    EXPECT_EQ(tampers_, 0);
  }
}

TEST_F(Sequencer, TheFirstFailureIsReported) {
  make(3);
  begin(0);
  for (int i = 0; i < 20; ++i) tick();
  idle_ = 100;  // the chain never comes to rest: the run stays in its flush
  inject(fault::bus_error);
  tick();
  inject(fault::tampered);
  for (int i = 0; i < 30; ++i) tick();
  inject(fault::wipe);
  for (int i = 0; i < 30; ++i) tick();
  EXPECT_EQ(dones_, 0);
  EXPECT_TRUE(top_.flush_o);
  idle_ = 0;
  ASSERT_TRUE(finish());
  expect_failure(run_status::bus_error);
  EXPECT_EQ(tampers_, 0) << "a bus error says nothing about tampering";
}

TEST_F(Sequencer, TheOutputWaitsForTheLastTag) {
  for (int what = 0; what < 3; ++what) {
    make(2);
    begin(0);
    top_.walker_finished_i = what != 0;
    top_.chain_empty_i = what != 1;
    for (int i = 0; i < 2000; ++i) {
      // Empty and all asked for, and then the last page's tag fails.
      if (what == 2 && issued_.size() == ops_.size() - 2 && !engine_busy_) {
        inject(fault::tampered);
        break;
      }
      tick();
    }
    EXPECT_EQ(issued_.size(), ops_.size() - 2) << "the output was issued";
    if (what != 2) inject(fault::tampered);
    ASSERT_TRUE(finish());
    expect_failure(run_status::page_tampered);
    EXPECT_EQ(issued_.size(), ops_.size() - 2);
  }
  make(2);
  begin(0);
  top_.walker_finished_i = top_.chain_empty_i = 0;
  for (int i = 0; i < 2000; ++i) tick();
  EXPECT_EQ(releases_, 0u);
  top_.walker_finished_i = top_.chain_empty_i = 1;
  ASSERT_TRUE(finish());
  expect_success();
  EXPECT_GT(releases_, 0u);
}

TEST_F(Sequencer, OutputIsLegalOnlyAsTheLastBeforeEnd) {
  SCOPED_TRACE(rng_.name());
  for (int run = 0; run < 200; ++run) {
    make(1 + rng_.below(40));
    const std::size_t where = rng_.below(static_cast<unsigned>(ops_.size()) - 2);
    ops_[where] = op::output;
    begin(20);
    ASSERT_TRUE(finish());
    expect_failure(run_status::bad_descriptor);
    EXPECT_EQ(issued_.size(), where) << "the misplaced output reached the engine";
  }
  // As the very last, with no End behind it.
  make(2);
  ops_.back() = op::output;
  ops_[ops_.size() - 2] = op::add;
  begin(20);
  ASSERT_TRUE(finish());
  expect_failure(run_status::bad_descriptor);
  for (const op o : issued_) EXPECT_NE(o, op::output);
}

TEST_F(Sequencer, UnknownOperationsAndMisplacedEndsAreRefused) {
  for (const unsigned code : {0u, 15u}) {
    for (std::size_t where = 0; where < 5; ++where) {
      SCOPED_TRACE("code " + std::to_string(code) + " at " + std::to_string(where));
      make(2);
      ASSERT_EQ(ops_.size(), 5u);
      if (code == 15 && where == 4) continue;
      ops_[where] = static_cast<op>(code);
      begin(20);
      ASSERT_TRUE(finish());
      expect_failure(run_status::bad_descriptor);
      EXPECT_EQ(issued_.size(), where);
    }
  }
  make(2);
  ops_.back() = op::mat_mul;  // no End at all
  begin(20);
  ASSERT_TRUE(finish());
  expect_failure(run_status::bad_descriptor);
  EXPECT_EQ(issued_.size(), ops_.size() - 1);
}

// One and two flipped bits of the state register, in every state there is.
TEST_F(Sequencer, FlippedStateBitsEndTheRunAsFailed) {
  SCOPED_TRACE(rng_.name());
  std::map<unsigned, bool> found;  // every state; true: visited only by a run that fails
  const auto walk = [&](bool failing, std::optional<unsigned> stop) {
    make(2);
    begin(0);
    for (int i = 0; i < 3000 && !run_done_; ++i) {
      top_.bus_error_i = failing && i == 30;
      found.try_emplace(state(), failing);
      if (state() == stop) return;
      tick();
    }
    ASSERT_FALSE(stop) << "the walk missed state " << *stop;
  };
  for (const bool failing : {false, true}) walk(failing, std::nullopt);
  ASSERT_EQ(found.size(), 10u) << "a state was never visited";
  for (const auto& [code, failing] : std::map(found)) {
    for (unsigned a = 0; a < kStateBits; ++a) {
      for (unsigned b = a; b < kStateBits; ++b) {  // a == b: one flip
        const unsigned bad = code ^ 1u << a ^ (a == b ? 0u : 1u << b);
        ASSERT_FALSE(found.count(bad)) << "two codes are too near";
        SetUp();
        walk(failing, code);
        SCOPED_TRACE("state " + std::to_string(code) + " -> " + std::to_string(bad));
        const auto before = issued_.size();
        state() = static_cast<std::uint8_t>(bad);
        failed_ = true;
        top_.bus_error_i = 0;
        if (code == 0) top_.start_i = 0;  // not even begun
        ASSERT_TRUE(finish());
        EXPECT_EQ(status_, run_status::wiped);
        EXPECT_EQ(nulls_, 1);
        EXPECT_EQ(issued_.size(), before) << "an operation was issued from a wrong state";
      }
    }
  }
}

}  // namespace
