// Slots, epochs, attestation and tickets through the tool, on the simulated card.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using nlohmann::json;

const std::string kChallenge(64, '7');

class Ladder : public ::testing::Test {
 protected:
  Ladder() { write(w.path("pass"), std::string("correct horse\n")); }

  /// A command with the passphrase of the records.
  Outcome owner(std::vector<std::string> words,
                const std::map<std::string, std::string>& env = {}) const {
    words.insert(words.end(), {"--passphrase-file", w.str("pass")});
    return w.tool(words, env);
  }
  json good(const std::vector<std::string>& words) const {
    const Outcome o = owner(words);
    EXPECT_EQ(o.code, 0) << words.front() << ": " << o.err;
    return o.code == 0 ? o.json() : json::object();
  }
  void expect_refused(const Outcome& o, int code, const std::vector<std::string>& said) const {
    EXPECT_EQ(o.code, code) << o.out << o.err;
    for (const std::string& word : said)
      EXPECT_NE(o.message().find(word), std::string::npos) << o.message();
    EXPECT_EQ(o.released(), 0u);
  }
  /// Runs with a ticket that the owner makes meanwhile with `more`.
  Outcome run_with_ticket(const std::vector<std::string>& more, int count = 2,
                          const std::vector<std::string>& run_more = {}) const {
    fs::remove(w.path("t"));
    fs::remove(w.path("t.request"));
    auto words = w.run_words(count, run_more);
    words.insert(words.end(), {"--ticket", w.str("t")});
    const auto child = w.start(words);
    for (int i = 0; i < 1200 && !fs::exists(w.path("t.request")) && child->running(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (fs::exists(w.path("t.request"))) {
      std::vector<std::string> sign = {"ticket",   "--request",       w.str("t.request"),
                                       "--record", w.str("card.lkd"), "-o",
                                       w.str("t")};
      sign.insert(sign.end(), more.begin(), more.end());
      good(sign);
    }
    return child->wait();
  }

  Workspace w;
};

TEST_F(Ladder, RotateAndRewrapKeepTheWeights) {
  w.session();
  const bytes before = read(w.path("digits.lkx"));
  const bytes old_record = read(w.path("card.lkd"));
  EXPECT_EQ(good({"rotate", "--record", w.str("card.lkd")})["epoch"], 1);
  EXPECT_EQ(good({"rotate", "--record", w.str("card.lkd"), "--epoch", "7"})["epoch"], 7);
  expect_refused(owner({"rotate", "--record", w.str("card.lkd"), "--epoch", "7"}), 2,
                 {"epochs only rise"});
  const json done = good({"rewrap", w.str("digits.lkx"), "--record", w.str("card.lkd")});
  EXPECT_EQ(done["epoch"], 7);
  EXPECT_TRUE(done["changed"].get<bool>());
  EXPECT_FALSE(good({"rewrap", w.str("digits.lkx"), "--record", w.str("card.lkd")})["changed"]);
  const bytes after = read(w.path("digits.lkx"));
  ASSERT_EQ(after.size(), before.size());
  const Layout at = layout_of(before);
  std::size_t changed = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (after[i] == before[i]) continue;
    ++changed;
    EXPECT_TRUE(i >= at.manifest && i < at.tags) << "byte " << i;
  }
  EXPECT_GT(changed, 40u);
  EXPECT_LE(changed, 184u);
  EXPECT_EQ(w.tool(w.run_words(2, {"--expect", w.str("digits.ref")})).code, 0);
  // A wrapping of one epoch in the name of another: the public manifest does not fool the chip.
  bytes mixed = after;
  std::copy_n(before.begin() + static_cast<std::ptrdiff_t>(at.key), 56,
              mixed.begin() + static_cast<std::ptrdiff_t>(at.key));
  write(w.path("digits.lkx"), mixed);
  expect_refused(w.tool(w.run_words(2)), 9, {"reason 3"});
  // The record from before the rotation still opens what came after it.
  write(w.path("digits.lkx"), after);
  write(w.path("card.lkd"), old_record);
  EXPECT_EQ(good({"inspect", w.str("digits.lkx"), "--record", w.str("card.lkd")})["verified"],
            true);
}

TEST_F(Ladder, TruncatedPackagesAndForeignRecordsAreNotRewrapped) {
  w.session();
  const bytes package = read(w.path("digits.lkx"));
  for (const std::size_t size : {std::size_t{0}, std::size_t{40}, layout_of(package).key + 20,
                                 layout_of(package).pages + 5, package.size() - 1}) {
    write(w.path("cut.lkx"),
          bytes(package.begin(), package.begin() + static_cast<std::ptrdiff_t>(size)));
    expect_refused(owner({"rewrap", w.str("cut.lkx"), "--record", w.str("card.lkd")}), 3, {"cut"});
    EXPECT_EQ(fs::file_size(w.path("cut.lkx")), size) << "a refused rewrap wrote";
  }
  w.enroll("sim:8", "other.lkd");
  expect_refused(
      owner({"rewrap", w.str("digits.lkx"), "--record", w.str("other.lkd"), "--epoch", "3"}), 11,
      {"locked for device"});
  write(w.path("pass"), std::string("wrong\n"));
  expect_refused(
      owner({"rewrap", w.str("digits.lkx"), "--record", w.str("card.lkd"), "--epoch", "3"}), 9,
      {"passphrase"});
  EXPECT_EQ(read(w.path("digits.lkx")), package);
}

// Power lost at every operation on files: the old package or the new one, never neither.
TEST_F(Ladder, PowerLossLosesNeitherPackageNorRecord) {
  w.session();
  for (const std::string file : {"digits.lkx", "card.lkd"}) {
    const bool package = file == "digits.lkx";
    int cuts = 0;
    for (int at = 1; at < 40; ++at) {
      const bytes before = read(w.path(file));
      const auto words =
          package
              ? std::vector<std::string>{"rewrap",          w.str("digits.lkx"), "--record",
                                         w.str("card.lkd"), "--epoch",           std::to_string(at)}
              : std::vector<std::string>{"rotate", "--record", w.str("card.lkd")};
      const Outcome o = owner(words, {{"LD_PRELOAD", LATCHKEY_POWER_CUT},
                                      {"POWER_CUT_PREFIX", w.str(file)},
                                      {"POWER_CUT_AT", std::to_string(at)}});
      const bytes after = read(w.path(file));
      ASSERT_EQ(good({"inspect", w.str("digits.lkx"), "--record", w.str("card.lkd")})["verified"],
                true)
          << file << " lost at operation " << at;
      if (o.code == 0) {
        EXPECT_NE(after, before);
        EXPECT_GE(cuts, package ? 8 : 4) << "open, writes, sync and rename";
        break;
      }
      EXPECT_EQ(o.code, 128 + SIGKILL) << o.err;
      EXPECT_EQ(after, before) << file << " changed before the rename, at operation " << at;
      ++cuts;
      ASSERT_LT(at, 39) << "it never came through";
    }
  }
  EXPECT_EQ(w.tool(w.run_words(1)).code, 0);
}

TEST_F(Ladder, AnInterruptLeavesThePackageWhole) {
  w.session();
  for (int ms = 0; ms < 60; ms += 12) {
    const auto child =
        w.start({"rewrap", w.str("digits.lkx"), "--record", w.str("card.lkd"), "--epoch",
                 std::to_string(ms + 1), "--passphrase-file", w.str("pass")});
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    child->signal(SIGINT);
    const Outcome o = child->wait();
    EXPECT_TRUE(o.code == 0 || o.code == 130 || o.code == 128 + SIGINT) << o.code << o.err;
    EXPECT_EQ(good({"inspect", w.str("digits.lkx"), "--record", w.str("card.lkd")})["verified"],
              true);
  }
}

TEST_F(Ladder, TenantsAreApart) {
  const json made = good({"enroll", "--device", "sim:7", "--record", w.str("card.lkd"), "--slots",
                          "2", "--slot", "3"});
  ASSERT_EQ(made["slots"].size(), 2u);
  EXPECT_EQ(made["slots"][1]["record"], w.str("card-slot4.lkd"));
  const std::string a = w.str("card-slot3.lkd"), b = w.str("card-slot4.lkd");
  EXPECT_FALSE(fs::exists(w.path("card.lkd")));
  w.compile_digits("digits.lkm");
  w.lock("digits.lkm", "card-slot3.lkd", "digits.lkx");
  // Either tenant's record starts the chip: its public part is the same.
  fs::copy_file(b, w.path("card.lkd"));
  EXPECT_EQ(w.tool(w.run_words(1)).code, 0);
  // The other tenant's secret opens, rewraps and proves nothing of this one.
  expect_refused(owner({"inspect", w.str("digits.lkx"), "--record", b}), 9, {"slot 3"});
  expect_refused(owner({"rewrap", w.str("digits.lkx"), "--record", b, "--epoch", "2"}), 2,
                 {"slot 3"});
  expect_refused(
      owner({"lock", w.str("digits.lkm"), "--record", b, "--slot", "3", "-o", w.str("x.lkx")}), 2,
      {"slot 3"});
  good({"attest", "--device", "sim:7", "--record", a, "-o", w.str("answer")});
  const std::string challenge = json::parse(read(w.path("answer")))["challenge"];
  EXPECT_EQ(good({"attest", "--verify", w.str("answer"), "--challenge", challenge, "--record",
                  a})["verified"],
            true);
  expect_refused(
      owner({"attest", "--verify", w.str("answer"), "--challenge", challenge, "--record", b}), 2,
      {"slot 3"});
  // A package of slot 3 relabelled as slot 4's: its own wrapping does not open.
  bytes moved = read(w.path("digits.lkx"));
  moved[layout_of(moved).manifest + 64] = 4;
  write(w.path("digits.lkx"), moved);
  expect_refused(w.tool(w.run_words(1)), 9, {"reason 3"});
  expect_refused(owner({"enroll", "--device", "sim:9", "--record", w.str("n.lkd"), "--slot", "6",
                        "--slots", "3"}),
                 2, {"slots"});
}

TEST_F(Ladder, AttestationProvesTheCard) {
  w.enroll("sim:7", "card.lkd");
  const json here = good({"attest", "--device", "sim:7", "--record", w.str("card.lkd")});
  EXPECT_EQ(here["verified"], true);
  EXPECT_EQ(here["life_cycle"], "5a69");
  expect_refused(owner({"attest", "--device", "sim:7", "--record", w.str("card.lkd"), "--build",
                        here["build_hash"] == "00000001" ? "00000002" : "00000001"}),
                 11, {"build"});
  good({"attest", "--device", "sim:7", "--record", w.str("card.lkd"), "--build",
        here["build_hash"].get<std::string>()});
  // At a distance: no secret on the card's side, no card on the owner's.
  const Outcome asked = w.tool({"attest", "--device", "sim:7", "--record", w.str("card.lkd"),
                                "--challenge", kChallenge, "-o", w.str("answer")});
  ASSERT_EQ(asked.code, 0) << asked.err;
  EXPECT_EQ(asked.json()["verified"], false);
  const auto verify = [&](const std::string& answer, const std::string& challenge) {
    return owner({"attest", "--verify", w.str(answer), "--challenge", challenge, "--record",
                  w.str("card.lkd")});
  };
  EXPECT_EQ(verify("answer", kChallenge).code, 0);
  expect_refused(verify("answer", std::string(64, '8')), 9, {"another challenge"});
  // A card that makes its answers up, word by word.
  const json good_answer = json::parse(read(w.path("answer")));
  for (const char* field : {"build_hash", "build_version", "build_flags", "config_id", "life_cycle",
                            "min_version", "version_floor", "epoch_floor"}) {
    json lie = good_answer;
    lie[field] = lie[field].get<std::uint32_t>() ^ 1u;
    write(w.path("lie"), lie.dump());
    expect_refused(verify("lie", kChallenge), 9, {"proof"});
  }
  json lie = good_answer;
  lie["challenge"] = std::string(64, '8');
  write(w.path("lie"), lie.dump());
  expect_refused(verify("lie", std::string(64, '8')), 9, {"proof"});
  lie.erase("proof");
  write(w.path("lie"), lie.dump());
  expect_refused(verify("lie", std::string(64, '8')), 3, {"proof"});
  // Another card, by its own record and in the name of this one.
  w.enroll("sim:8", "other.lkd");
  good({"attest", "--device", "sim:8", "--record", w.str("other.lkd"), "-o", w.str("answer8")});
  const json eight = json::parse(read(w.path("answer8")));
  expect_refused(verify("answer8", eight["challenge"]), 9, {"is of device"});
  expect_refused(owner({"attest", "--device", "sim:8", "--record", w.str("card.lkd")}), 9,
                 {"reason 3"});
  expect_refused(owner({"attest", "--device", "sim:9", "--record", w.str("card.lkd")}), 7,
                 {"enroll"});
}

TEST_F(Ladder, ATicketIsNeededAndServesOnce) {
  w.session();
  EXPECT_TRUE(good({"rewrap", w.str("digits.lkx"), "--record", w.str("card.lkd"),
                    "--needs-ticket"})["needs_ticket"]);
  expect_refused(w.tool(w.run_words(1)), 9, {"ticket"});
  expect_refused(w.tool(w.run_words(1, {"--skip-host-checks"})), 9, {"reason 15"});
  // The flag is under the wrapped key.
  bytes bare = read(w.path("digits.lkx"));
  const bytes kept = bare;
  bare[layout_of(bare).manifest + 76] = 0;
  write(w.path("digits.lkx"), bare);
  expect_refused(w.tool(w.run_words(1)), 9, {"reason 3"});
  write(w.path("digits.lkx"), kept);
  const Outcome o = run_with_ticket({}, 2, {"--expect", w.str("digits.ref")});
  EXPECT_EQ(o.code, 0) << o.err;
  // The same ticket for the next start of the chip.
  ASSERT_TRUE(fs::exists(w.path("t")));
  expect_refused(w.tool(w.run_words(1, {"--ticket", w.str("t")})), 9, {"reason 16"});
  // Signed by somebody else: another chip's owner.
  w.enroll("sim:8", "other.lkd");
  expect_refused(owner({"ticket", "--request", w.str("t.request"), "--record", w.str("other.lkd"),
                        "-o", w.str("t2")}),
                 11, {"asked by device"});
  EXPECT_FALSE(fs::exists(w.path("t2")));
  expect_refused(w.tool(w.run_words(1, {"--ticket", w.str("none"), "--ticket-wait", "0"})), 9,
                 {"no ticket came"});
}

TEST_F(Ladder, ABudgetOfStartsEnds) {
  w.session();
  EXPECT_EQ(run_with_ticket({"--runs", "2"}, 2, {"--batch", "1"}).code, 0);
  expect_refused(run_with_ticket({"--runs", "1"}, 2, {"--batch", "1"}), 9, {"reason 17"});
  // A ticket too many in its time: 2^20 cycles are more than one start of this network.
  EXPECT_EQ(run_with_ticket({"--time", "1"}, 1).code, 0);
}

TEST_F(Ladder, AnEndedEpochIsRefusedByTheChip) {
  w.session();
  const bytes old = read(w.path("digits.lkx"));
  good({"rotate", "--record", w.str("card.lkd")});
  good({"rewrap", w.str("digits.lkx"), "--record", w.str("card.lkd")});
  const bytes fresh = read(w.path("digits.lkx"));
  write(w.path("digits.lkx"), old);
  EXPECT_EQ(w.tool(w.run_words(1)).code, 0) << "valid until the chip is told";
  write(w.path("digits.lkx"), fresh);
  EXPECT_EQ(run_with_ticket({}).code, 0);  // the record's epoch is the lowest from now on
  const json told = good({"attest", "--device", "sim:7", "--record", w.str("card.lkd")});
  EXPECT_EQ(told["epoch_floor"], 1) << "the fuses of the simulated card remember";
  write(w.path("digits.lkx"), old);
  expect_refused(w.tool(w.run_words(1)), 9, {"reason 14"});
  expect_refused(run_with_ticket({"--min-epoch", "0"}), 9, {"reason 14"});
  write(w.path("digits.lkx"), fresh);
  EXPECT_EQ(w.tool(w.run_words(1)).code, 0);
  // Versions go the same way.
  EXPECT_EQ(run_with_ticket({"--min-version", "1"}).code, 0);
  expect_refused(run_with_ticket({"--min-version", "2"}), 9, {"reason 6"});
  expect_refused(w.tool(w.run_words(1)), 9, {"reason 6"});
  w.lock("digits.lkm", "card.lkd", "digits.lkx", {"--model-version", "2"});
  EXPECT_EQ(w.tool(w.run_words(1)).code, 0);
}

}  // namespace
}  // namespace latchkey::e2e
