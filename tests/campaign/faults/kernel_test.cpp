// Attacks on the whole kernel through its ports: memory rewritten during a run, what a tenant
// leaves behind, and commands in any order. LATCHKEY_SEED replays.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "faults.hpp"
#include "latchkey_spec.hpp"
#include "seed.hpp"

namespace latchkey::campaign::faults {
namespace {

using key_state = spec::key_state;
using cmd = spec::cmd;

std::uint64_t seed() { return test::test_seed(20260301); }

std::vector<std::uint8_t> released(const host& h) {
  std::vector<std::uint8_t> out;
  for (const beat& b : h.out) {
    if (b.keep) out.insert(out.end(), b.data.begin(), b.data.end());
  }
  return out;
}

// One-hot vectors written over everything the host can reach, while the model runs: what is between
// the layers is not there, so the result is the honest one or none.
TEST(Kernel, MemoryRewrittenDuringARunReachesNoActivation) {
  const material m = make_sessions(seed() % 1000);
  session s = m.honest;
  kernel k;
  const track t = walk(k, s);
  const std::uint64_t begin = t.begins.at(stage::run), end = t.begins.at(stage::look);
  unsigned honest = 0, refused = 0;
  for (unsigned n = 0; n < 24; ++n) {
    const std::uint64_t when = begin + (end - begin) * n / 24;
    SCOPED_TRACE("cycle " + std::to_string(when) + ", seed " + std::to_string(seed()));
    s = m.honest;
    k.put(t.snapshots[when / spacing], s);
    while (k.seen().cycle < when) k.tick();
    for (auto* memory : {&s.pages, &s.tags}) {
      for (std::size_t i = 0; i < memory->size(); ++i) {
        (*memory)[i] = i % 64 == n ? 0xff : 0x80;  // stored zeros, one channel hot
      }
    }
    while (k.tick()) {
    }
    EXPECT_FALSE(k.seen().leaked || k.seen().strayed);
    const auto out = released(k.seen());
    if (out.empty())
      ++refused;
    else {
      EXPECT_EQ(out, m.honest.result);
      ++honest;
    }
  }
  EXPECT_GT(refused, 3U) << "early enough, every page is still to come";
  EXPECT_GT(honest, 0U) << "late enough, every page has come";
}

// The next tenant finds nothing: not in the whole state of the chip once its own key is there, and
// not in its results.
TEST(Kernel, NothingOfATenantIsLeftForTheNext) {
  const std::uint64_t die = seed() % 1000;
  const material first = make_sessions(die, 1), second = make_sessions(die, 2);
  const auto& weights = first.honest.secret_windows;
  kernel k;
  k.begin(first.honest);
  while (k.tick()) {
  }
  ASSERT_EQ(released(k.seen()), first.honest.result);
  // The search finds them while they are there.
  const std::size_t before = k.count(weights);
  EXPECT_GT(before, 1000U);

  const host& unwrapped = k.play(second.honest, kernel::unwrapping(second.honest));
  ASSERT_EQ(unwrapped.states, std::vector<std::uint32_t>{3});
  // The response's keys are the die's and stay; of the first tenant's pages there is nothing.
  auto gone = weights;
  for (const std::uint64_t w : second.honest.secret_windows) gone.erase(w);
  EXPECT_EQ(k.count(gone), 0U) << before << " before";

  for (const auto& part : {kernel::running(), kernel::looking()}) {
    const host& h = k.play(second.honest, part);
    EXPECT_FALSE(h.leaked || h.gave_up);
    if (!h.out.empty()) EXPECT_EQ(released(h), second.honest.result);
  }

  // The first tenant's pages under the second's key: refused, and the chip locks.
  session mixed = second.honest;
  mixed.pages = first.honest.pages;
  mixed.tags = first.honest.tags;
  const host& h = k.play(mixed, kernel::running());
  EXPECT_TRUE(released(h).empty());
  steps settled = kernel::looking();
  settled.insert(settled.begin(), {stage::look, action::wait_key, 0, 0});  // wiped, then locked
  const host& after = k.play(mixed, settled);
  EXPECT_EQ(after.registers.at(0), static_cast<std::uint32_t>(key_state::locked));
  EXPECT_FALSE(after.leaked);
}

// What the commands mean, as docs/registers.md has it, for a host that uses its windows whole.
class reference {
 public:
  key_state state = key_state::idle;
  bool helper_good = false, package_good = false, helper_whole = false, package_whole = false;
  unsigned strikes = 0;

  /// True if the block is busy with it for a while.
  bool command(std::uint32_t value) {
    if (state == key_state::locked) return false;
    if (value == static_cast<std::uint32_t>(cmd::zeroise)) {
      state = key_state::idle;
      return true;
    }
    if (value == static_cast<std::uint32_t>(cmd::start) &&
        (state == key_state::idle || state == key_state::failed)) {
      if (!helper_whole)
        state = key_state::failed;
      else if (helper_good)
        state = key_state::started;
      else
        state = ++strikes == 3 ? key_state::locked : key_state::failed;
      return true;
    }
    if (value == static_cast<std::uint32_t>(cmd::unwrap) &&
        (state == key_state::started || state == key_state::key_loaded)) {
      state = package_whole && package_good ? key_state::key_loaded : key_state::failed;
      return true;
    }
    return false;
  }
};

TEST(Kernel, CommandsInAnyOrder) {
  const material m = make_sessions(seed() % 1000);
  std::mt19937_64 random(seed());
  kernel k;
  session s = m.honest;
  unsigned runs = 0, results = 0, resets = 0, accesses = 0;
  std::map<key_state, unsigned> seen;
  reference model;
  k.power_on(s);
  for (unsigned n = 0; n < 700; ++n) {
    SCOPED_TRACE("step " + std::to_string(n) + ", seed " + std::to_string(seed()));
    if (model.state == key_state::locked && random() % 4 == 0) {
      k.power_on(s);
      model = {};
      ++resets;
    }
    steps plan;
    const auto write = [&](std::uint32_t address, std::uint32_t value) {
      plan.push_back({stage::load, action::write, address, value});
    };
    std::vector<std::uint8_t> want;
    bool run = false;
    // Every other step is the one that an honest host would do next, or a run never comes.
    unsigned choice = static_cast<unsigned>(random() % 12);
    std::uint32_t fitting = 0;
    if (random() % 2 == 0) {
      if (model.state == key_state::started) {
        choice = model.package_whole ? 3 : 1;
        fitting = static_cast<std::uint32_t>(cmd::unwrap);
      } else if (model.state == key_state::key_loaded) {
        choice = 5;
      } else {
        choice = model.helper_whole ? 3 : 0;
        fitting = static_cast<std::uint32_t>(cmd::start);
      }
    }
    switch (choice) {
      case 0: {  // helper data, mostly whole, sometimes not of this die
        const auto& from = random() % 4 == 0 ? m.sessions.at(attempt::helper) : m.honest;
        const std::size_t words =
            random() % 4 == 0 ? random() % from.helper.size() : from.helper.size();
        write(spec::reg::fill_clear, 0);
        for (std::size_t i = 0; i < words; ++i) write(spec::reg::helper_in, from.helper[i]);
        model.helper_whole = words == from.helper.size();
        model.helper_good = &from == &m.honest;
        model.package_whole = false;
        break;
      }
      case 1:
      case 2: {  // a package
        const attempt kinds[] = {attempt::honest, attempt::honest, attempt::honest,
                                 attempt::manifest, attempt::wrapped_key};
        const attempt a = kinds[random() % 5];
        const session& from = m.sessions.at(a);
        write(spec::reg::fill_clear, 0);
        for (const std::uint32_t w : from.manifest) write(spec::reg::manifest_in, w);
        const std::size_t words = random() % 5 == 0 ? random() % 14 : 14;
        for (std::size_t i = 0; i < words; ++i) write(spec::reg::blob_in, from.blob[i]);
        model.package_whole = words == 14;
        model.package_good = a == attempt::honest;
        model.helper_whole = false;  // the windows were rewound
        break;
      }
      case 3:
      case 4: {  // a command; the last three are none of this build
        const std::uint32_t values[] = {1, 1, 2, 2, 2, 3, 4, 5, 15, 0};
        const std::uint32_t value = fitting != 0 ? fitting : values[random() % 10];
        write(spec::reg::cmd, value);
        if (random() % 3 == 0) write(spec::reg::cmd, static_cast<std::uint32_t>(cmd::start));
        // A second one finds the first under way, unless that was none.
        if (!model.command(value) && plan.size() == 2) model.command(1);
        plan.push_back({stage::load, action::wait_key, 0, 0});
        break;
      }
      case 5: {  // a run, sometimes of changed pages
        run = true;
        const bool tampered = random() % 6 == 0;
        s.pages = tampered ? m.sessions.at(attempt::page).pages : m.honest.pages;
        if (model.state == key_state::key_loaded) {
          if (tampered)
            model.state = key_state::locked;
          else
            want = m.honest.result;
        }
        plan = kernel::running();
        plan.push_back({stage::look, action::wait_key, 0, 0});  // wiped, then locked
        break;
      }
      case 6: {  // writes where no register is, or none that takes one
        for (int i = 0; i < 8; ++i) {
          const auto address = static_cast<std::uint32_t>(0x80 + random() % 0x7f80) & ~3U;
          write(address, static_cast<std::uint32_t>(random()));
        }
        break;
      }
      default:
        for (int i = 0; i < 6; ++i) {
          plan.push_back(
              {stage::look, action::look, static_cast<std::uint32_t>(random() % 0x8000) & ~3U, 0});
        }
    }
    plan.push_back({stage::look, action::look, spec::reg::key_state, 0});
    accesses += static_cast<unsigned>(plan.size());
    const host& h = k.play(s, plan);
    ASSERT_FALSE(h.gave_up) << "no answer";
    ASSERT_FALSE(h.leaked || h.strayed);
    ASSERT_EQ(h.registers.back(), static_cast<std::uint32_t>(model.state));
    ASSERT_EQ(released(h), want);
    runs += run;
    results += !want.empty();
    ++seen[model.state];
  }
  EXPECT_GT(results, 2U) << runs << " runs";
  EXPECT_GT(resets, 1U);
  for (const key_state each : {key_state::idle, key_state::started, key_state::key_loaded,
                               key_state::failed, key_state::locked}) {
    EXPECT_GT(seen[each], 5U) << static_cast<int>(each);
  }
  RecordProperty("accesses", std::to_string(accesses));
}

}  // namespace
}  // namespace latchkey::campaign::faults
