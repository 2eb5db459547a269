// The fault campaign: a short one finds nothing, its judge would see something, and its list of
// injection points leaves no state machine out.
#include <gtest/gtest.h>

#include <filesystem>
#include <fnmatch.h>
#include <fstream>
#include <regex>
#include <sstream>

#include "faults.hpp"
#include "latchkey_spec.hpp"

namespace latchkey::campaign::faults {
namespace {

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in) << path;
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

const point& find(const kernel& k, const std::string& module, const std::string& name) {
  for (const point& p : k.points()) {
    if (p.name == name && p.module.size() >= module.size() &&
        p.module.compare(p.module.size() - module.size(), module.size(), module) == 0) {
      return p;
    }
  }
  throw std::runtime_error("no point " + module + "." + name);
}

TEST(Faults, AShortCampaignFindsNoViolation) {
  plan p;
  p.flips = 30;
  p.holds = 30;
  p.seed = 3;
  const nlohmann::json r = run(p, [](const std::string&) {});
  EXPECT_EQ(r["violations"], nlohmann::json::array()) << "seed " << p.seed;
  EXPECT_EQ(r["injections"], 60 * std::size(attempts));
  // Faults do something: some are noticed, some are not.
  EXPECT_GT(r["outcomes"]["refused"], 20);
  EXPECT_GT(r["outcomes"]["masked"], 20);
  for (const char* room : {"puf", "key", "lock", "control"}) {
    EXPECT_GT(r["rooms"][room]["flipped"]["bits"], 5) << room;
    EXPECT_GT(r["rooms"][room]["held"]["bits"], 5) << room;
  }
}

// Every state register of the rooms that hold the lock is a pattern of faults.vlt away.
TEST(Faults, EveryStateMachineIsCovered) {
  std::vector<std::pair<std::string, std::string>> patterns;
  const std::string vlt = text_of(LATCHKEY_POINTS);
  const std::regex line("public_flat_rw -module \"([^\"]+)\" -var \"([^\"]+)\"");
  for (std::sregex_iterator i(vlt.begin(), vlt.end(), line), end; i != end; ++i) {
    patterns.emplace_back((*i)[1], (*i)[2]);
  }
  unsigned machines = 0;
  const std::regex declared("\n\\s*(?:\\(\\*[^\n]*\\*\\)\\s*)?\\w+_e\\s+(\\w+_q)\\b");
  for (const char* room : {"key", "puf", "lock", "control"}) {
    for (const auto& file :
         std::filesystem::directory_iterator(std::filesystem::path(LATCHKEY_RTL) / room)) {
      const std::string module = file.path().stem();
      // The enrol build's own: it never runs a model, and has tests of its own.
      if (file.path().extension() != ".sv" || module.find("enrol") != std::string::npos ||
          module == "lk_puf_select") {
        continue;
      }
      const std::string text = text_of(file.path());
      for (std::sregex_iterator i(text.begin(), text.end(), declared), end; i != end; ++i) {
        const std::string name = (*i)[1];
        if (text.find("case (" + name + ")") == std::string::npos) continue;  // no state machine
        ++machines;
        bool covered = false;
        for (const auto& [m, v] : patterns) {
          covered = covered || (fnmatch(m.c_str(), module.c_str(), 0) == 0 &&
                                fnmatch(v.c_str(), name.c_str(), 0) == 0);
        }
        EXPECT_TRUE(covered) << module << "." << name << " is in no line of " << LATCHKEY_POINTS;
      }
    }
  }
  EXPECT_GE(machines, 9U);
}

// Two faults at once are more than the design claims to withstand; here they show that the judge
// would see a page pass without its tag.
TEST(Faults, TheJudgeSeesAPagePassUnverified) {
  const material m = make_sessions(2);
  const session& s = m.sessions.at(attempt::page);
  kernel k;
  const track t = walk(k, s);
  k.put(t.snapshots[t.begins.at(stage::run) / spacing], s);
  while (k.at() < stage::run) k.tick();
  k.hold(find(k, "u_chain", "verdict_ok"), 0, true);
  k.hold(find(k, "u_chain", "verdict_bad"), 0, false);
  while (k.tick()) {
  }
  std::string why;
  EXPECT_EQ(judge(attempt::page, s, t.final, k.seen(), &why), outcome::violation);
  EXPECT_EQ(why, "a result without verification");
  k.release();
  // One of them alone passes nothing.
  for (const char* one : {"verdict_ok", "verdict_bad"}) {
    SCOPED_TRACE(one);
    k.put(t.snapshots[t.begins.at(stage::run) / spacing], s);
    while (k.at() < stage::run) k.tick();
    k.hold(find(k, "u_chain", one), 0, one == std::string("verdict_ok"));
    while (k.tick()) {
    }
    EXPECT_NE(judge(attempt::page, s, t.final, k.seen()), outcome::violation);
    k.release();
  }
}

// Wires that carry a verdict or a result, stuck at the level that lets things pass, all the time.
TEST(Faults, NoSingleWireLetsPass) {
  const material m = make_sessions(4);
  kernel k;
  struct wire {
    const char *module, *name;
    bool level = true;
  };
  for (const attempt a : {attempt::honest, attempt::helper, attempt::manifest, attempt::wrapped_key,
                          attempt::ticket, attempt::page, attempt::tag}) {
    const session& s = m.sessions.at(a);
    const track t = walk(k, s);
    for (const auto& [module, name, level] :
         {wire{"u_block", "match_flag"}, wire{"u_block", "match_count"},
          wire{"u_block", "ticket_ok"}, wire{"u_block", "ticket_mine"},
          wire{"u_block", "ticket_other", false}, wire{"", "eng_out_valid"},
          wire{"", "eng_out_held"}, wire{"", "out_beat"}, wire{"", "out_open"}}) {
      SCOPED_TRACE(std::string(module) + "." + name);
      k.begin(s);
      k.hold(find(k, module, name), 0, level);
      while (k.tick()) {
      }
      std::string why;
      EXPECT_NE(judge(a, s, t.final, k.seen(), &why), outcome::violation)
          << why << ", attempt " << static_cast<int>(a);
      k.release();
    }
  }
}

TEST(Faults, TheJudgeTellsOutcomesApart) {
  session s;
  s.result.assign(64, 7);
  host good;
  good.states = {2, 3};
  good.registers = {3, 0, 0, 99};
  beat b;
  b.keep = b.last = true;
  b.data.fill(7);
  good.out = {b};
  const auto came = [&](attempt a, const host& h) { return judge(a, s, good, h); };
  EXPECT_EQ(came(attempt::honest, good), outcome::masked);
  host h = good;
  h.registers[3] = 1;  // a counter
  EXPECT_EQ(came(attempt::honest, h), outcome::masked);
  h = good;
  h.out[0].data[5] = 8;
  EXPECT_EQ(came(attempt::honest, h), outcome::violation);
  h = good;
  h.leaked = true;
  EXPECT_EQ(came(attempt::honest, h), outcome::violation);
  EXPECT_EQ(came(attempt::page, good), outcome::violation);
  h = good;
  h.out.clear();
  h.registers[2] = 2;
  EXPECT_EQ(came(attempt::honest, h), outcome::refused);
  EXPECT_EQ(came(attempt::manifest, h), outcome::violation) << "a key was loaded";
  h.gave_up = true;
  EXPECT_EQ(came(attempt::page, h), outcome::silent);
  beat null;
  null.last = true;
  h.out = {null};
  EXPECT_EQ(came(attempt::page, h), outcome::silent);
  h.out[0].data[0] = 1;
  EXPECT_EQ(came(attempt::page, h), outcome::violation) << "data under a null beat";
}

}  // namespace
}  // namespace latchkey::campaign::faults
