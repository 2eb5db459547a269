// What only the API shows: futures, two cards in one process, a chip handed changed data without
// any check of the host, and what can be read out of the registers and the memory of a card.
//
// XRT takes the list of simulated cards once per process, so all cases share one list and one
// enrolment; each case still works alone.
#include <dlfcn.h>
#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <thread>

#include "compiler/compile.hpp"
#include "latchkey/session.hpp"
#include "latchkey/sim/revision.h"
#include "lock/package.hpp"
#include "lock/record.hpp"
#include "model/dataset.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"
#include "random_graph.hpp"
#include "runtime/card.hpp"
#include "scan.hpp"
#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::AnyOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kPassphrase = "correct horse 42";
constexpr std::size_t kImage = 64, kRecord = 10;
const std::vector<std::string> kCards = {"sim:21", "sim:22"};

/// Enrolled cards with a package each; made by the tool once per process.
struct World {
  Workspace w;
  bytes images, reference;

  World() {
    for (const std::string& card : {"21", "22"}) w.enroll("sim:" + card, card + ".lkd");
    w.compile_digits("digits.lkm");
    for (const std::string& card : {"21", "22"}) w.lock("digits.lkm", card + ".lkd", card + ".lkx");
    images = model::read_idx(digit_images()).values;
    reference = read(w.path("digits.ref"));
    ::setenv("LATCHKEY_STATE_DIR", w.str("state").c_str(), 1);
    ::setenv("LATCHKEY_SIM_ROOT", LATCHKEY_IMAGE_DIR "/..", 1);
    Device::simulate(kCards);
  }
  Package package(const std::string& card) const { return Package::read(w.str(card + ".lkx")); }
  PublicRecord record(const std::string& card) const {
    return PublicRecord::read(w.str(card + ".lkd"));
  }
  std::span<const std::uint8_t> first(std::size_t n) const {
    return std::span(images).first(n * kImage);
  }
  bytes expected(std::size_t from, std::size_t n) const {
    const auto begin = reference.begin() + static_cast<std::ptrdiff_t>(from * kRecord);
    return {begin, begin + static_cast<std::ptrdiff_t>(n * kRecord)};
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

TEST(Api, TheCardNamesItsRevision) {
  world();
  Device device("sim:21");
  EXPECT_EQ(device.load(Build::operate).hash, latchkey_build_hash());
  EXPECT_EQ(device.load(Build::unlocked).hash, latchkey_build_hash());
  EXPECT_EQ(device.load(Build::enrol).hash, latchkey_build_hash());
}

TEST(Api, FuturesGiveWhatRunGives) {
  World& t = world();
  Device device("sim:21");
  Session session(device, t.package("21"), t.record("21"));
  std::vector<std::future<RunResult>> later;
  for (std::size_t i = 0; i < 6; ++i) {
    const auto part = std::span(t.images).subspan(i * 20 * kImage, 20 * kImage);
    later.push_back(session.run_async({part.begin(), part.end()}, 20, {}));
  }
  for (std::size_t i = 0; i < later.size(); ++i) {
    const RunResult r = later[i].get();
    EXPECT_EQ(r.data, t.expected(20 * i, 20)) << "future " << i;
    EXPECT_EQ(r.counters.attributed(), r.counters.cycles);
  }
  const RunResult now = session.run(t.first(120), 120, {});
  EXPECT_EQ(now.data, t.expected(0, 120));
  EXPECT_EQ(now.counters.macs, 120 * t.package("21").get().info.macs());
  // An error arrives through the future; the session goes on.
  auto wrong = session.run_async(bytes(10), 1, {});
  EXPECT_EQ(error_of([&] { wrong.get(); }).first, errc::usage);
  EXPECT_EQ(session.run(t.first(3), 3, {}).data, t.expected(0, 3));
}

TEST(Api, FuturesAreKeptWhenTheSessionEnds) {
  World& t = world();
  Device device("sim:21");
  std::future<RunResult> later;
  {
    Session session(device, t.package("21"), t.record("21"));
    const auto part = t.first(40);
    later = session.run_async({part.begin(), part.end()}, 40, {});
  }
  EXPECT_EQ(later.get().data, t.expected(0, 40));
}

TEST(Api, TwoCardsEachWithItsPackage) {
  World& t = world();
  Device one("sim:21"), two("sim:22");
  Session first(one, t.package("21"), t.record("21")), second(two, t.package("22"), t.record("22"));
  ASSERT_NE(t.package("21").device_id(), t.package("22").device_id());
  std::vector<std::future<RunResult>> later;
  const auto part = t.first(100);
  for (int i = 0; i < 2; ++i) {
    later.push_back(first.run_async({part.begin(), part.end()}, 100, {}));
    later.push_back(second.run_async({part.begin(), part.end()}, 100, {}));
  }
  for (auto& f : later) EXPECT_EQ(f.get().data, t.expected(0, 100));
}

TEST(Api, NeitherCardTakesTheOthersPackage) {
  World& t = world();
  Device one("sim:21");
  const auto host = error_of([&] { Session(one, t.package("22"), t.record("21")); });
  EXPECT_EQ(host.first, errc::mismatch);
  const auto chip = error_of([&] { Session(one, t.package("22"), t.record("21"), {true}); });
  EXPECT_EQ(chip.first, errc::refused);
  EXPECT_THAT(chip.second, HasSubstr("another device"));
}

// Attention, softmax, layer normalisation and a fused table on the locked card: an encoder layer
// that is built here, its tokens in the model's own order, against the reference byte by byte.
TEST(Api, AnEncoderOfATransformerIsExact) {
  World& t = world();
  const std::string built = "/usr/bin/python3 -B " LATCHKEY_NETWORKS
                            "/build.py bert --width 0.17 "
                            "--sequence 24 --inputs 5 --out " +
                            t.w.str("encoder") + " > /dev/null";
  ASSERT_EQ(std::system(built.c_str()), 0);
  const auto folder = t.w.path("encoder");
  const model::npy_array inputs = model::read_npy(folder / "bert-inputs.npy");
  const std::size_t count = inputs.dims.at(0), size = inputs.values.size() / count;

  const model::fgraph real = model::import_onnx(folder / "bert.onnx");
  ASSERT_TRUE(real.inputs[0].channels_last);
  std::vector<std::vector<float>> images;
  for (std::size_t i = 0; i < count; ++i) {
    const auto first = inputs.values.begin() + static_cast<std::ptrdiff_t>(i * size);
    images.push_back(model::to_planes(
        real.inputs[0], real.tensors[static_cast<std::size_t>(real.inputs[0].tensor)].c,
        std::vector<float>(first, first + static_cast<std::ptrdiff_t>(size))));
  }
  const model::qgraph graph = model::quantise(real, images);
  compiler::write_program(t.w.str("encoder.lkm"),
                          compiler::compile(graph, {compiler::target::of(16), 0, {}, {}}));
  t.w.lock("encoder.lkm", "21.lkd", "encoder.lkx");

  Device device("sim:21");
  Session session(device, Package::read(t.w.str("encoder.lkx")), t.record("21"));
  bytes words(inputs.values.size() * sizeof(float));
  std::memcpy(words.data(), inputs.values.data(), words.size());
  const RunResult got = session.run(words, count, {ImageFormat::Type::f32});
  model::reference golden(graph);
  bytes want;
  for (const auto& image : images) {
    const auto out = golden.infer(model::quantise_input(graph, image));
    const auto tokens = model::from_planes(graph.output, graph.output_tensor().c,
                                           std::vector<std::uint8_t>(out.begin(), out.end()));
    want.insert(want.end(), tokens.begin(), tokens.end());
  }
  EXPECT_EQ(got.data, want);
  EXPECT_GT(std::set<std::uint8_t>(want.begin(), want.end()).size(), 100u) << "a tame network";
  EXPECT_EQ(got.counters.macs, count * graph.macs());
  EXPECT_EQ(got.counters.attributed(), got.counters.cycles);
}

/// Images of random bytes, as float32 words of a run, and what the reference makes of them in the
/// card's order.
struct Golden {
  bytes words, want;

  Golden(const model::qgraph& graph, std::mt19937& random, std::size_t count) {
    const model::qtensor &x = graph.input_tensor(), &y = graph.output_tensor();
    model::reference reference(graph);
    for (std::size_t n = 0; n < count; ++n) {
      std::vector<float> image(x.size());
      for (float& v : image)
        v = x.scale * static_cast<float>(static_cast<int>(random() % 256) - x.zero_point);
      const auto out = reference.infer(model::quantise_input(graph, image));
      const std::size_t pixels = out.size() / static_cast<std::size_t>(y.c);
      for (std::size_t p = 0; p < pixels; ++p)
        for (std::size_t c = 0; c < static_cast<std::size_t>(y.c); ++c)
          want.push_back(out[c * pixels + p]);
      const auto* const raw = reinterpret_cast<const std::uint8_t*>(image.data());
      words.insert(words.end(), raw, raw + image.size() * sizeof(float));
    }
    EXPECT_GT(std::set<std::uint8_t>(want.begin(), want.end()).size(), 50u) << "a tame network";
  }
};

/// Additions as the mean of their operands: those of a random graph drive most sums to a bound.
void take_means(model::qgraph& graph) {
  for (model::qnode& n : graph.nodes) {
    auto* const add = std::get_if<model::qadd>(&n.op);
    if (add == nullptr) continue;
    add->mult_a = add->mult_b = 512;
    add->shift = 10;
    add->offset = 0;
    add->negate_b = false;
    add->clamp_lo = 0, add->clamp_hi = 255;
  }
}

// 1.2 MB of float32 an image: more than the input adapter's buffer takes, so the host quantises.
TEST(Api, LargeFloatImagesAreExact) {
  World& t = world();
  compiler::graph_builder b(9);
  const std::vector<int> none{0, 0, 0, 0};
  const model::qgraph graph = b.finish(b.conv(b.input(3, 320, 320), 16, 10, 10, 10, 10, none));
  const compiler::program program = compiler::compile(graph, {compiler::target::of(16), 1, {}, {}});
  ASSERT_GT(graph.input_tensor().size() * sizeof(float), spec::adapter_words * spec::beat_bytes);
  compiler::write_program(t.w.str("large.lkm"), program);
  t.w.lock("large.lkm", "21.lkd", "large.lkx");

  const Golden images(graph, b.engine(), 2);
  Device device("sim:21");
  Session session(device, Package::read(t.w.str("large.lkx")), t.record("21"));
  EXPECT_TRUE(session.run(images.words, 2, {ImageFormat::Type::f32}).data == images.want);
}

// Eight images of a skip connection that the scratchpad does not hold: it goes to card memory,
// sealed, and comes back. Each start draws a key of its own.
TEST(Api, ABatchThatSpillsIsExact) {
  World& t = world();
  compiler::graph_builder b(5);
  model::qgraph graph = b.finish(b.waiting_skip());
  take_means(graph);
  const std::uint32_t batch = 8;
  const compiler::program program =
      compiler::compile(graph, {compiler::target::of(16), batch, {}, {}});
  ASSERT_EQ(program.spill_pages, batch * 64 * 64 / spec::page_beats);
  compiler::write_program(t.w.str("skip.lkm"), program);
  t.w.lock("skip.lkm", "21.lkd", "skip.lkx");

  const Golden images(graph, b.engine(), 2 * batch);
  Device device("sim:21");
  Session session(device, Package::read(t.w.str("skip.lkx")), t.record("21"));
  const RunResult got = session.run(images.words, 2 * batch, {ImageFormat::Type::f32});
  EXPECT_TRUE(got.data == images.want);
  EXPECT_EQ(got.counters.attributed(), got.counters.cycles);
}

// SqueezeNet's fire module, whose convolutions write their channels beside one another, a step of a
// U-Net that copies the result as a part of a wider tensor, and a detector's maps of two scales, of
// which one follows the other.
TEST(Api, JoinsAreExact) {
  World& t = world();
  compiler::graph_builder b(6);
  const std::vector<int> none{0, 0, 0, 0}, same{1, 1, 1, 1};
  const int squeezed = b.conv(b.input(3, 8, 8), 16, 1, 1, 1, 1, none);
  const int narrow = b.conv(squeezed, 64, 1, 1, 1, 1, none);
  const int wide = b.like(b.conv(squeezed, 64, 3, 3, 1, 1, same), narrow);
  const int fire = b.join({narrow, wide});
  const int deep = b.conv(b.max_pool(fire, 2, 2, 2, 2, none), 64, 3, 3, 1, 1, same);
  const int up = b.like(b.conv(b.upsample(deep, 2, 2), 64, 3, 3, 1, 1, same), fire);
  const int large = b.conv(b.join({fire, up}), 10, 1, 1, 1, 1, none);
  const int small = b.like(b.conv(deep, 10, 1, 1, 1, 1, none), large);
  const model::qgraph graph = b.finish(b.join({b.view(large, 64, 1), b.view(small, 16, 1)}, true));
  const compiler::program program = compiler::compile(graph, {compiler::target::of(16), 3, {}, {}});
  std::size_t pitched = 0, copied = 0, maps = 0;
  for (std::size_t i = 0; i < program.layers.size(); ++i) {
    pitched += program.descriptors[i].out_pitch != 0 ? 1 : 0;
    copied += program.layers[i].op == "join" ? 1 : 0;
    maps += program.descriptors[i].out_stride == program.output.layout.words ? 1 : 0;
  }
  ASSERT_EQ(pitched, 4u);
  ASSERT_EQ(copied, 1u);
  ASSERT_EQ(maps, 2u);
  compiler::write_program(t.w.str("joined.lkm"), program);
  t.w.lock("joined.lkm", "21.lkd", "joined.lkx");

  const Golden images(graph, b.engine(), 6);
  Device device("sim:21");
  Session session(device, Package::read(t.w.str("joined.lkx")), t.record("21"));
  const RunResult got = session.run(images.words, 6, {ImageFormat::Type::f32});
  EXPECT_TRUE(got.data == images.want);
  EXPECT_EQ(got.counters.macs, 6 * graph.macs());
  EXPECT_EQ(got.counters.attributed(), got.counters.cycles);
}

// Spills and Loads with nothing between them that fetches pages: what a Load reads must not be
// asked for before its turn, when it does not lie there yet or another Load still runs.
TEST(Api, SpillsAndLoadsInARow) {
  World& t = world();
  compiler::graph_builder b(6);
  const std::vector<int> none{0, 0, 0, 0};
  const int in = b.input(64, 16, 16);
  const int small = b.max_pool(in, 2, 2, 2, 2, none);
  const int again = b.max_pool(small, 1, 1, 1, 1, none);
  const int sum = b.add(small, again);
  const int last = b.max_pool(b.add(sum, again), 2, 2, 2, 2, none);
  model::qgraph graph = b.finish(last);
  take_means(graph);
  compiler::program p = compiler::compile(graph, {compiler::target::of(16), 3, {}, {}});
  ASSERT_EQ(p.descriptors.size(), 8u);

  // Every tensor between two operations goes away and comes back somewhere else, to a place that
  // held nothing; pages of the area are used again.
  std::vector<spec::descriptor> ds;
  std::vector<compiler::layer_report> layers;
  std::uint32_t place = 8192, page = 0;
  for (std::size_t i = 0; i < p.descriptors.size(); ++i) {
    spec::descriptor d = p.descriptors[i];
    const auto op = static_cast<spec::op>(d.op);
    const auto away = [&](std::uint32_t& base, std::uint32_t stride, bool second) {
      spec::descriptor s;
      s.op = static_cast<std::uint32_t>(spec::op::spill);
      s.in_base = base, s.in_stride = stride;
      s.spill_page = page;
      spec::descriptor l;
      l.op = static_cast<std::uint32_t>(spec::op::load);
      l.spilled = 1;
      l.out_base = place, l.out_stride = stride;
      l.spill_page = page;
      if (!second) {
        s.in_h = l.out_h = d.in_h, s.in_w = l.out_w = d.in_w;
        s.in_cb = l.out_cb = d.in_cb, s.in_cp_log2 = l.out_cp_log2 = d.in_cp_log2;
        s.in_c_last = l.out_c_last = d.in_c_last;
      } else {
        s.in_h = l.out_h = d.out_h, s.in_w = l.out_w = d.out_w;
        s.in_cb = l.out_cb = d.out_cb, s.in_cp_log2 = l.out_cp_log2 = d.out_cp_log2;
        s.in_c_last = l.out_c_last = d.out_c_last;
      }
      l.clamp_lo = 0x80, l.clamp_hi = 0x7f;
      page = (page + compiler::pages_for(stride, 3)) % 40;
      base = place;
      place += 3 * stride;
      ds.push_back(s);
      layers.push_back({});
      layers.back().op = "spill";
      ds.push_back(l);
      layers.push_back({});
      layers.back().op = "load";
    };
    if (op == spec::op::max_pool || op == spec::op::add || op == spec::op::output) {
      away(d.in_base, d.in_stride, op == spec::op::add);
      if (op == spec::op::add) away(d.in2_base, d.in2_stride, true);
    }
    ds.push_back(d);
    if (i < p.layers.size()) layers.push_back(p.layers[i]);
  }
  p.descriptors = ds;
  p.layers = layers;
  p.spill_pages = 0;
  for (const spec::descriptor& d : ds) {
    if (d.op == static_cast<std::uint32_t>(spec::op::spill))
      p.spill_pages =
          std::max(p.spill_pages,
                   d.spill_page + static_cast<std::uint32_t>(compiler::pages_for(d.in_stride, 3)));
  }
  p.peak_words = std::max<std::uint32_t>(p.peak_words, place / 3);
  std::fill(p.pages.begin(), p.pages.begin() + spec::page_bytes, std::uint8_t{0});
  for (std::size_t i = 0; i < ds.size(); ++i) {
    const auto words = ds[i].pack();
    std::memcpy(&p.pages[i * spec::desc_bytes], words.data(), sizeof words);
  }
  compiler::write_program(t.w.str("row.lkm"), p);
  t.w.lock("row.lkm", "21.lkd", "row.lkx");

  const Golden images(graph, b.engine(), 3);
  Device device("sim:21");
  Session session(device, Package::read(t.w.str("row.lkx")), t.record("21"));
  for (int run = 0; run < 2; ++run) {
    const RunResult got = session.run(images.words, 3, {ImageFormat::Type::f32});
    EXPECT_TRUE(got.data == images.want) << "run " << run;
  }
}

TEST(Api, SessionsFollowOneAnotherOnOneDevice) {
  World& t = world();
  Device device("sim:21");
  {
    Session session(device, t.package("21"), t.record("21"));
    EXPECT_EQ(session.run(t.first(4), 4, {}).data, t.expected(0, 4));
    // One at a time.
    EXPECT_EQ(error_of([&] { Session(device, t.package("21"), t.record("21")); }).first,
              errc::device_busy);
    EXPECT_EQ(session.run(t.first(4), 4, {}).data, t.expected(0, 4));
  }
  // A refusal between them; then the same device again, and another build in between.
  lock::package bad = t.package("21").get();
  bad.key[9] ^= 1;
  EXPECT_EQ(error_of([&] { Session(device, Package(bad), t.record("21")); }).first, errc::refused);
  {
    Session session(device, t.package("21"), t.record("21"));
    EXPECT_EQ(session.run(t.first(4), 4, {}).data, t.expected(0, 4));
  }
  {
    Session session(device, Program::read(t.w.str("digits.lkm")));
    EXPECT_EQ(session.run(t.first(4), 4, {}).data, t.expected(0, 4));
  }
  Session session(device, t.package("21"), t.record("21"));
  EXPECT_EQ(session.run(t.first(4), 4, {}).data, t.expected(0, 4));
  device.zeroise();
  const auto wiped = error_of([&] { session.run(t.first(4), 4, {}); });
  EXPECT_EQ(wiped.first, errc::refused);
  EXPECT_THAT(wiped.second, HasSubstr("no model key"));
  EXPECT_EQ(session.released_bytes(), 0U);
}

TEST(Api, CardsAreNamedOnce) {
  world();
  Device::simulate(kCards);
  EXPECT_EQ(error_of([] { Device::simulate({"sim:23"}); }).first, errc::usage);
  EXPECT_EQ(error_of([] { Device::simulate({"7"}); }).first, errc::usage);
  EXPECT_EQ(error_of([] { Device("sim:23"); }).first, errc::usage);
}

TEST(Api, BatchAboveTheLimitIsRefused) {
  World& t = world();
  Device device("sim:21");
  Session session(device, t.package("21"), t.record("21"));
  EXPECT_EQ(error_of([&] { session.limit_batch(257); }).first, errc::usage);
  EXPECT_EQ(error_of([&] { session.run({}, 0, {}); }).first, errc::usage);
  session.limit_batch(7);
  const RunResult r = session.run(t.first(20), 20, {});
  EXPECT_EQ(r.counters.starts, 3U);
  EXPECT_EQ(r.data, t.expected(0, 20));
}

// No parser and no check of the host stands before the chip here: every word of the manifest
// counts.
TEST(Api, TheChipItselfRefusesEveryManifestWord) {
  World& t = world();
  const lock::package good = t.package("21").get();
  for (std::size_t word = 0; word < 32; ++word) {
    SCOPED_TRACE("manifest word " + std::to_string(word));
    lock::package bad = good;
    lock::manifest_bytes m = lock::to_bytes(bad.manifest);
    m[4 * word + word % 4] ^= static_cast<std::uint8_t>(1u << (word % 8));
    bad.manifest = lock::manifest_from_bytes(m);
    Device device("sim:21");  // opened anew: a card locks itself after three failures
    const auto e = error_of([&] { Session(device, Package(bad), t.record("21"), {true}); });
    EXPECT_THAT(e.first, AnyOf(errc::refused, errc::mismatch)) << e.second;
    EXPECT_THAT(e.second, HasSubstr("the chip refused the package"));
  }
  Device device("sim:21");
  Session session(device, Package(good), t.record("21"));
  EXPECT_EQ(session.run(t.first(5), 5, {}).data, t.expected(0, 5));
}

TEST(Api, ATamperedPageReleasesNothingAndLocksTheSession) {
  World& t = world();
  lock::package bad = t.package("21").get();
  bad.pages[bad.pages.size() - 1] ^= 1;
  {
    Device device("sim:21");
    Session session(device, Package(bad), t.record("21"));
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto e = error_of([&] { session.run(t.first(9), 9, {}); });
      EXPECT_EQ(e.first, errc::refused) << e.second;
      EXPECT_EQ(session.released_bytes(), 0U);
      EXPECT_THAT(e.second,
                  HasSubstr(attempt == 0 ? "page 6 failed authentication" : "no model key"));
    }
  }
  Device device("sim:21");
  Session session(device, t.package("21"), t.record("21"));
  EXPECT_EQ(session.run(t.first(9), 9, {}).data, t.expected(0, 9));
}

// ---- what can be read out
// --------------------------------------------------------------------------

/// The keys that a host can know of this card and package.
KeyScan keys_of(const World& t, const std::string& card) {
  const lock::device_record record = lock::read_record(t.w.str(card + ".lkd"), kPassphrase);
  const lock::package package = t.package(card).get();
  lock::model_key key;
  std::array<std::uint8_t, 32> hash{};
  if (!lock::unwrap_model_key(record.keys.at(0).kek(), package.key, key, hash))
    throw std::runtime_error("the wrapped key does not open");
  KeyScan scan;
  scan.add("owner key", record.keys[0].root.view());
  scan.add("wrapping key", record.keys[0].kek().view());
  scan.add("model key", key.view());
  return scan;
}

/// Every register of the core's 64 KiB window, as bytes.
bytes registers(Device& device) {
  bytes dump;
  for (std::uint32_t offset = 0; offset < 0x10000; offset += 4) {
    const std::uint32_t word = device.impl().units.at(0).core.read_register(offset);
    for (int b = 0; b < 4; ++b) dump.push_back(static_cast<std::uint8_t>(word >> 8 * b));
  }
  return dump;
}

TEST(ReadOut, NoKeyInAnyRegister) {
  World& t = world();
  const KeyScan scan = keys_of(t, "21");
  Device device("sim:21");
  Session session(device, t.package("21"), t.record("21"));
  const bytes started = registers(device);
  EXPECT_THAT(scan.find(started), IsEmpty());
  EXPECT_EQ(std::string(started.begin() + 0x80, started.begin() + 0x84), "LKCH");  // it did read
  EXPECT_EQ(session.run(t.first(9), 9, {}).data, t.expected(0, 9));
  const bytes ran = registers(device);
  EXPECT_THAT(scan.find(ran), IsEmpty());
  // The window where the enrol build shows its key is empty here, and nothing answers beyond.
  EXPECT_EQ(std::count(ran.begin() + 0x1000, ran.begin() + 0x1020, 0), 0x20);

  bytes planted = ran;
  const lock::device_record record = lock::read_record(t.w.str("21.lkd"), kPassphrase);
  const auto key = record.keys[0].root.view();
  std::copy(key.begin(), key.end(), planted.begin() + 0x1000);
  EXPECT_THAT(scan.find(planted), Contains("owner key"));
}

/// Everything that lies in a card's memory: page by page through the driver's own back door.
class CardMemory {
 public:
  explicit CardMemory(unsigned card) {
    void* const driver = ::dlopen(LATCHKEY_DRIVER, RTLD_NOW | RTLD_NOLOAD);
    if (!driver) throw std::runtime_error("the driver is not loaded");
    read_ = reinterpret_cast<Read>(::dlsym(driver, "xclUnmgdPread"));
    close_ = reinterpret_cast<Close>(::dlsym(driver, "xclClose"));
    const auto open = reinterpret_cast<Open>(::dlsym(driver, "xclOpen"));
    if (!read_ || !close_ || !open) throw std::runtime_error("the driver lacks a function");
    handle_ = open(card, nullptr, 0);
  }
  ~CardMemory() { close_(handle_); }
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;
  /// Buffers by address, in 64-byte beats joined to runs.
  std::map<std::uint64_t, std::string> dump(std::uint64_t from, std::uint64_t to) const {
    std::map<std::uint64_t, std::string> found;
    std::uint64_t start = 0, next = 0;
    char beat[64];
    for (std::uint64_t page = from; page < to; page += 4096) {
      for (std::uint64_t at = page; at < page + 4096; at += 64) {
        if (read_(handle_, 0, beat, sizeof beat, at) != sizeof beat) break;  // next page
        if (at != next || start == 0) start = at;
        found[start].append(beat, sizeof beat);
        next = at + 64;
      }
    }
    return found;
  }

 private:
  using Read = ssize_t (*)(void*, unsigned, void*, std::size_t, std::uint64_t);
  using Open = void* (*)(unsigned, const char*, int);
  using Close = void (*)(void*);
  void* handle_ = nullptr;
  Read read_;
  Close close_;
};

std::uint64_t pages_address(Device& device) {
  return device.impl().units.at(0).core.read_register(spec::reg::pages_addr_lo) |
         std::uint64_t{device.impl().units.at(0).core.read_register(spec::reg::pages_addr_hi)}
             << 32;
}

TEST(ReadOut, NoKeyAndNoPlaintextInTheCardsMemory) {
  World& t = world();
  KeyScan scan = keys_of(t, "21");
  // 64 bytes of weights of each layer, as the program holds them in clear.
  const compiler::program program = compiler::read_program(t.w.str("digits.lkm"));
  for (const std::uint32_t page : {0U, 2U, 4U, 6U}) {
    const auto clear = program.page(page).first(page == 0 ? 128 : 64);
    scan.add_text("plaintext of page " + std::to_string(page), {clear.begin(), clear.end()});
  }
  Device device("sim:21");
  {
    Session session(device, t.package("21"), t.record("21"));
    session.limit_batch(8);
    session.run(t.first(8), 8, {});
    const CardMemory memory(0);
    const std::uint64_t base = pages_address(device);
    const std::uint64_t from = base > 0x100000 ? base - 0x100000 : 0;
    // While it runs the images and results are there too.
    std::atomic<std::size_t> most = 0;
    std::vector<std::string> found;
    std::atomic<bool> done = false;
    std::thread watcher([&] {
      do {
        const auto buffers = memory.dump(from, base + 0x100000);
        most = std::max(most.load(), buffers.size());
        for (const auto& [address, content] : buffers)
          for (const std::string& what : scan.find(content)) found.push_back(what);
      } while (!done);
    });
    const RunResult r = session.run(t.first(360), 360, {});
    done = true;
    watcher.join();
    EXPECT_EQ(r.data, t.expected(0, 360));
    EXPECT_THAT(found, IsEmpty());
    EXPECT_GE(most.load(), 4U) << "pages, tags, images and results were not all seen";
    const auto buffers = memory.dump(from, base + 0x100000);
    ASSERT_TRUE(buffers.contains(base));
    const bytes sealed = t.package("21").get().pages;
    EXPECT_TRUE(buffers.at(base).substr(0, sealed.size()) ==
                std::string(sealed.begin(), sealed.end()));
  }
  // The unlocked build's memory does hold the plaintext, and the same look finds it.
  Session open(device, Program::read(t.w.str("digits.lkm")));
  open.run(t.first(8), 8, {});
  const std::uint64_t base = pages_address(device);
  const auto buffers = CardMemory(0).dump(base, base + 0x10000);
  ASSERT_TRUE(buffers.contains(base));
  EXPECT_THAT(scan.find(buffers.at(base)), SizeIs(4));
}

}  // namespace
}  // namespace latchkey::e2e
