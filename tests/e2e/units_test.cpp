// Several compute units: every unit enrolled by itself, one run over all of them, more than one
// card, and what one unit's refusal does to the others.
//
// XRT takes the list of simulated cards once per process, so the API cases share one list and one
// enrolment; each case still works alone.
#include <gmock/gmock.h>

#include "latchkey/session.hpp"
#include "lock/package.hpp"
#include "model/dataset.hpp"
#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::size_t kImage = 64, kRecord = 10;

nlohmann::json enroll_unit(const Workspace& w, const std::string& device, int unit,
                           const std::string& record) {
  const Outcome o = w.tool({"enroll", "--device", device, "--unit", std::to_string(unit),
                            "--record", w.str(record), "--passphrase-file", w.str("pass")});
  EXPECT_EQ(o.code, 0) << o.err;
  return o.json();
}

// ---- through the tool
// ---------------------------------------------------------------------------------

TEST(Units, ALockedRunOverBothIsExact) {
  Workspace w;
  const auto zero = enroll_unit(w, "sim:7", 0, "0.lkd"), one = enroll_unit(w, "sim:7", 1, "1.lkd");
  EXPECT_NE(zero["device_id"], one["device_id"]);
  // Once each, whichever image asks.
  const Outcome again = w.tool({"enroll", "--device", "sim:7", "--unit", "1", "--record",
                                w.str("2.lkd"), "--passphrase-file", w.str("pass")});
  EXPECT_EQ(again.code, 8) << again.err;
  EXPECT_THAT(again.message(), HasSubstr("sim:7 unit 1"));

  const auto compiled = w.compile_digits("digits.lkm");
  w.lock("digits.lkm", "0.lkd", "0.lkx");
  w.lock("digits.lkm", "1.lkd", "1.lkx");
  const std::vector<std::string> rest = {"--device",     "sim:7",    "--images",
                                         digit_images(), "--expect", w.str("digits.ref"),
                                         "--batch",      "40"};
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "run");
    words.insert(words.end(), rest.begin(), rest.end());
    return w.tool(words);
  };
  const Outcome o = run({w.str("0.lkx"), w.str("1.lkx"), "--record", w.str("0.lkd"), "--record",
                         w.str("1.lkd"), "-o", w.str("out")});
  ASSERT_EQ(o.code, 0) << o.err;
  const auto j = o.json();
  EXPECT_EQ(j["compared"], 360 * kRecord);
  EXPECT_EQ(j["differing"], 0);
  EXPECT_EQ(read(w.path("out")), read(w.path("digits.ref")));
  // 360 images in starts of at most 40: nine, made ten for two units.
  EXPECT_EQ(j["counters"]["starts"], 10);
  ASSERT_EQ(j["units"].size(), 2U);
  std::uint64_t images = 0, macs = 0, cycles = 0;
  for (const auto& unit : j["units"]) {
    EXPECT_GE(unit["images"], 3 * 36) << "a unit stood idle: " << j["units"];
    EXPECT_GT(unit["busy"], 0.3);
    images += unit["images"].get<std::uint64_t>();
    macs += unit["macs"].get<std::uint64_t>();
    cycles += unit["cycles"].get<std::uint64_t>();
    EXPECT_EQ(unit["macs"],
              unit["images"].get<std::uint64_t>() * compiled["macs"].get<std::uint64_t>());
  }
  EXPECT_EQ(images, 360U);
  EXPECT_EQ(macs, j["counters"]["macs"].get<std::uint64_t>());
  EXPECT_EQ(cycles, j["counters"]["cycles"].get<std::uint64_t>());

  const Outcome limited = run({w.str("0.lkx"), w.str("1.lkx"), "--record", w.str("0.lkd"),
                               "--record", w.str("1.lkd"), "--units", "1"});
  ASSERT_EQ(limited.code, 0) << limited.err;
  EXPECT_EQ(limited.json()["units"].size(), 1U);
  EXPECT_EQ(limited.json()["differing"], 0);

  // A record is of one unit: in the other order each chip refuses the other's.
  const Outcome crossed =
      run({w.str("1.lkx"), w.str("0.lkx"), "--record", w.str("1.lkd"), "--record", w.str("0.lkd")});
  EXPECT_EQ(crossed.code, 9) << crossed.err;
  EXPECT_THAT(crossed.message(), HasSubstr("sim:7 unit 0"));
  const Outcome uneven = run({w.str("0.lkx"), w.str("1.lkx"), "--record", w.str("0.lkd")});
  EXPECT_EQ(uneven.code, 2) << uneven.err;
}

// The card's own clock: two units take about half the time of one.
TEST(Units, TwoHalveTheCardsTime) {
  Workspace w;
  const Outcome compiled = w.tool(
      {"compile", model("fashion_lenet.onnx"), "-o", w.str("net.lkm"), "--calibrate",
       fashion("train-images-idx3-ubyte.gz"), "--calibrate-count", "128", "--evaluate",
       fashion("t10k-images-idx3-ubyte.gz"), "--labels", fashion("t10k-labels-idx1-ubyte.gz"),
       "--count", "48", "--reference-output", w.str("net.ref")});
  ASSERT_EQ(compiled.code, 0) << compiled.err;
  const auto nanoseconds = [&](const std::string& units) {
    const Outcome o =
        w.tool({"run", w.str("net.lkm"), "--unlocked", "--device", "sim:7,memory=ideal", "--units",
                units, "--images", fashion("t10k-images-idx3-ubyte.gz"), "--count", "48", "--batch",
                "12", "--expect", w.str("net.ref")});
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(o.json()["differing"], 0);
    EXPECT_EQ(o.json()["counters"]["macs"], 48 * compiled.json()["macs"].get<std::uint64_t>());
    const bytes text = read(w.path("state/sim-7/statistics.json"));
    return nlohmann::json::parse(text)["simulated_ns"].get<double>();
  };
  const double one = nanoseconds("1"), two = nanoseconds("2");
  RecordProperty("one_unit_ns", std::to_string(one));
  RecordProperty("two_units_ns", std::to_string(two));
  std::printf("48 images of LeNet: %.0f ns on one unit, %.0f ns on two, factor %.2f\n", one, two,
              one / two);
  EXPECT_GT(one / two, 1.7);  // what the host does between starts is in it
  EXPECT_LT(one / two, 2.1);
}

TEST(Units, MoreThanAnyImageHas) {
  Workspace w;
  w.compile_digits("digits.lkm");
  const Outcome o = w.tool({"run", w.str("digits.lkm"), "--unlocked", "--device", "sim:7",
                            "--units", "3", "--images", digit_images()});
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.message(), AllOf(HasSubstr("unlocked-n16x3.xclbin is missing"),
                                 HasSubstr("unlocked-n16x2.xclbin")));
}

// ---- through the API
// ----------------------------------------------------------------------------------

/// Two cards with two enrolled units each.
struct World {
  Workspace w;
  bytes images, reference;

  World() {
    w.compile_digits("digits.lkm");
    for (const std::string card : {"31", "32"}) {
      for (const int unit : {0, 1}) {
        const std::string name = card + "-" + std::to_string(unit);
        enroll_unit(w, "sim:" + card, unit, name + ".lkd");
        w.lock("digits.lkm", name + ".lkd", name + ".lkx");
      }
    }
    images = model::read_idx(digit_images()).values;
    reference = read(w.path("digits.ref"));
    ::setenv("LATCHKEY_STATE_DIR", w.str("state").c_str(), 1);
    ::setenv("LATCHKEY_SIM_ROOT", LATCHKEY_IMAGE_DIR "/..", 1);
    Device::simulate({"sim:31", "sim:32"});
  }
  Package package(const std::string& name) const { return Package::read(w.str(name + ".lkx")); }
  PublicRecord record(const std::string& name) const {
    return PublicRecord::read(w.str(name + ".lkd"));
  }
  std::span<const std::uint8_t> first(std::size_t n) const {
    return std::span(images).first(n * kImage);
  }
  bytes expected(std::size_t n) const {
    return {reference.begin(), reference.begin() + static_cast<std::ptrdiff_t>(n * kRecord)};
  }
};

World& world() {
  static World the_world;
  return the_world;
}

template <class F>
std::pair<errc, std::string> error_of(F&& action) {
  try {
    action();
  } catch (const error& e) {
    return {e.code(), e.what()};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {errc::usage, ""};
}

Package tampered(const Package& package) {
  lock::package bad = package.get();
  bad.pages[bad.pages.size() - 1] ^= 1;
  return Package(bad);
}

TEST(Pool, TwoCardsWithTwoUnitsEach) {
  World& t = world();
  Device a("sim:31"), b("sim:32");
  Session session({{&a, 0}, {&a, 1}, {&b, 0}, {&b, 1}},
                  {t.package("31-0"), t.package("31-1"), t.package("32-0"), t.package("32-1")},
                  {t.record("31-0"), t.record("31-1"), t.record("32-0"), t.record("32-1")});
  session.limit_batch(16);
  std::vector<std::size_t> seen;
  session.on_progress([&](std::size_t done, std::size_t) { seen.push_back(done); });
  const RunResult r = session.run(t.first(300), 300, {});
  EXPECT_EQ(r.data, t.expected(300));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), 300U);
  ASSERT_EQ(r.units.size(), 4U);
  std::uint64_t macs = 0;
  for (const UnitShare& u : r.units) {
    EXPECT_GT(u.images, 0U) << u.device << " unit " << u.unit;
    EXPECT_LE(u.busy_seconds, r.seconds);
    macs += u.counters.macs;
  }
  EXPECT_EQ(macs, 300 * t.package("31-0").get().info.macs());
  // Futures queue behind one another; fewer images than units leave units without work.
  auto later = session.run_async({t.images.begin(), t.images.begin() + 3 * kImage}, 3, {});
  auto wrong = session.run_async(bytes(10), 1, {});
  EXPECT_EQ(later.get().data, t.expected(3));
  EXPECT_EQ(error_of([&] { wrong.get(); }).first, errc::usage);
  // What the callback throws ends the run; the session goes on.
  session.on_progress([](std::size_t, std::size_t) { throw error(errc::interrupted, "enough"); });
  EXPECT_EQ(error_of([&] { session.run(t.first(300), 300, {}); }).first, errc::interrupted);
  session.on_progress({});
  EXPECT_EQ(session.run(t.first(50), 50, {}).data, t.expected(50));
}

class Tampered : public testing::TestWithParam<std::uint32_t> {};

TEST_P(Tampered, OneUnitRefusesAndTheRunIsWithheld) {
  World& t = world();
  const std::uint32_t bad = GetParam();
  {
    Device device("sim:31");
    std::vector<Package> packages = {t.package("31-0"), t.package("31-1")};
    packages[bad] = tampered(packages[bad]);
    Session session({{&device, 0}, {&device, 1}}, packages, {t.record("31-0"), t.record("31-1")});
    session.limit_batch(10);
    const auto e = error_of([&] { session.run(t.first(100), 100, {}); });
    EXPECT_EQ(e.first, errc::refused);
    EXPECT_THAT(e.second, AllOf(HasSubstr("sim:31 unit " + std::to_string(bad)),
                                HasSubstr("page 6 failed authentication"), HasSubstr("images "),
                                HasSubstr("withheld")));
    EXPECT_EQ(session.released_bytes(), 0U);
    // The unit stays locked; one without a key answers no run.
    EXPECT_THAT(error_of([&] { session.run(t.first(100), 100, {}); }).second,
                HasSubstr("no model key"));
  }
  // After a reset both start again with intact files.
  Device device("sim:31");
  Session session({{&device, 0}, {&device, 1}}, {t.package("31-0"), t.package("31-1")},
                  {t.record("31-0"), t.record("31-1")});
  EXPECT_EQ(session.run(t.first(100), 100, {}).data, t.expected(100));
}

INSTANTIATE_TEST_SUITE_P(Units, Tampered, testing::Values(0U, 1U));

TEST(Pool, AUnitHasOneSessionAndUnitsAreIndependent) {
  World& t = world();
  Device device("sim:31");
  device.load(Build::operate, 16, 2);
  Session zero({{&device, 0}}, {t.package("31-0")}, {t.record("31-0")});
  EXPECT_EQ(error_of([&] { Session(device, t.package("31-0"), t.record("31-0")); }).first,
            errc::device_busy);
  EXPECT_EQ(error_of([&] { device.load(Build::unlocked); }).first, errc::device_busy);
  {
    // One unit tampered and locked does not disturb the other.
    Session one({{&device, 1}}, {tampered(t.package("31-1"))}, {t.record("31-1")});
    const auto part = t.first(200);
    auto later = zero.run_async({part.begin(), part.end()}, 200, {});
    EXPECT_EQ(error_of([&] { one.run(t.first(20), 20, {}); }).first, errc::refused);
    EXPECT_EQ(later.get().data, t.expected(200));
  }
  EXPECT_EQ(zero.run(t.first(20), 20, {}).data, t.expected(20));
}

TEST(Pool, TakesPackagesOfOneModel) {
  World& t = world();
  Device device("sim:31");
  t.w.lock("digits.lkm", "31-1.lkd", "old.lkx", {"--model-version", "2"});
  EXPECT_EQ(error_of([&] {
              Session({{&device, 0}, {&device, 1}}, {t.package("31-0"), t.package("old")},
                      {t.record("31-0"), t.record("31-1")});
            }).first,
            errc::mismatch);
  EXPECT_EQ(error_of([&] {
              Session({{&device, 0}, {&device, 1}}, {t.package("31-0")},
                      {t.record("31-0"), t.record("31-1")});
            }).first,
            errc::usage);
  // A package of the other unit of the same card is another device's.
  EXPECT_EQ(error_of([&] {
              Session({{&device, 0}, {&device, 1}}, {t.package("31-0"), t.package("31-0")},
                      {t.record("31-0"), t.record("31-1")});
            }).first,
            errc::mismatch);
}

}  // namespace
}  // namespace latchkey::e2e
