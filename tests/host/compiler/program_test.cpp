// Program files: round trip, and refusal of everything that is not one, with file, part and offset.
#include "compiler/program.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "compiler/compile.hpp"
#include "compiler/interpret.hpp"
#include "latchkey/error.hpp"
#include "random_graph.hpp"

namespace latchkey::compiler {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Property;
using ::testing::Throws;
using ::testing::ThrowsMessage;

class ProgramFile : public ::testing::Test {
 protected:
  ProgramFile() {
    std::string name = (std::filesystem::temp_directory_path() / "latchkey.XXXXXX").string();
    dir_ = mkdtemp(name.data());
    graph_builder b(21);
    int t = b.input(3, 6, 5);
    t = b.conv(t, 9, 3, 3, 1, 1, {1, 1, 1, 1});
    t = b.add(t, t);
    t = b.max_pool(t, 2, 2, 2, 2, {0, 0, 0, 0});
    model::qgraph graph = b.finish(b.fc(t, 10));
    graph.name = "na\"me \xff";  // no valid UTF-8: ONNX promises none
    graph.input.type = model::io_type::u8;
    program_ = compile(graph, {{16, 1024}, 0, {}});
    path_ = (dir_ / "p.lkm").string();
    write_program(path_, program_);
    file_ = io::read_file(path_);
    header_ = file_.size() - 32 - 32 - program_.pages.size();
  }
  ~ProgramFile() override { std::filesystem::remove_all(dir_); }

  /// The file with another header and a fitting preamble and checksum.
  io::bytes with_header(const std::function<void(nlohmann::json&)>& change) const {
    auto j = io::parse_json(io::byte_view(file_).subspan(32, header_), "test");
    change(j);
    const std::string text = j.dump();
    io::bytes f(file_.begin(), file_.begin() + 8);
    io::put_u64(f, text.size());
    io::put_u64(f, program_.num_pages());
    io::put_u64(f, 32 + text.size() + program_.pages.size() + 32);
    f.insert(f.end(), text.begin(), text.end());
    f.insert(f.end(), program_.pages.begin(), program_.pages.end());
    return with_digest(f);
  }
  static io::bytes with_digest(io::bytes f) {
    const auto d = io::sha256({f});
    f.insert(f.end(), d.begin(), d.end());
    return f;
  }

  std::filesystem::path dir_;
  std::string path_;
  program program_;
  io::bytes file_;
  std::size_t header_ = 0;
};

TEST_F(ProgramFile, RoundTrip) {
  const program p = read_program(path_);
  EXPECT_EQ(p.name, "na\"me \xef\xbf\xbd");
  EXPECT_EQ(p.pages, program_.pages);
  EXPECT_EQ(p.target, program_.target);
  EXPECT_EQ(p.max_batch, program_.max_batch);
  EXPECT_EQ(p.peak_words, program_.peak_words);
  EXPECT_EQ(p.regions, program_.regions);
  EXPECT_EQ(p.input, program_.input);
  EXPECT_EQ(p.input.type, element::u8);
  EXPECT_EQ(p.output, program_.output);
  EXPECT_EQ(p.layers, program_.layers);
  ASSERT_EQ(p.descriptors.size(), program_.descriptors.size());
  for (std::size_t i = 0; i < p.descriptors.size(); ++i)
    EXPECT_EQ(p.descriptors[i].pack(), program_.descriptors[i].pack());
  EXPECT_EQ(std::filesystem::status(path_).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(ProgramFile, EveryTruncationIsRefused) {
  for (std::size_t n = 0; n < file_.size(); ++n) {
    ASSERT_THAT([&] { parse_program(io::byte_view(file_).first(n), "cut.lkm"); },
                ThrowsMessage<error>(
                    AllOf(HasSubstr("cut.lkm"), HasSubstr("truncated"), HasSubstr("offset"))))
        << n;
  }
}

TEST_F(ProgramFile, EveryChangedByteIsRefused) {
  io::bytes f = file_;
  for (std::size_t i = 0; i < f.size(); ++i) {
    f[i] ^= static_cast<std::uint8_t>(1u << (i % 8));
    ASSERT_THAT([&] { parse_program(f, "bad.lkm"); },
                Throws<error>(Property(&error::code, errc::bad_file)))
        << "byte " << i;
    f[i] = file_[i];
  }
}

TEST_F(ProgramFile, RefusalsSayWhy) {
  const auto refuses = [](const io::bytes& f, const char* reason) {
    EXPECT_THAT([&] { parse_program(f, "x.lkm"); },
                ThrowsMessage<error>(AllOf(HasSubstr("x.lkm"), HasSubstr(reason))));
  };
  const auto changed = [&](std::size_t at, std::uint8_t value) {
    io::bytes f = file_;
    f[at] = value;
    return f;
  };
  refuses(changed(0, 'l'), "LKMP");
  refuses(changed(4, 2), "format 2");
  refuses(changed(15, 0x80), "absurd header");
  refuses(changed(23, 0x80), "absurd number of pages");
  refuses(changed(24, 0), "add up");
  refuses(changed(file_.size() - 1, static_cast<std::uint8_t>(file_.back() ^ 1)), "SHA-256");
  io::bytes longer = file_;
  longer.push_back(0);
  refuses(longer, "follow");
  EXPECT_THAT([] { read_program("/nonexistent.lkm"); },
              Throws<error>(Property(&error::code, errc::bad_file)));
}

TEST_F(ProgramFile, OneDescriptorMoreThanTheChipHoldsIsRefused) {
  program p = program_;
  p.layers.clear();
  p.descriptors.insert(p.descriptors.end() - 2, spec::max_descs + 1 - p.descriptors.size(),
                       p.descriptors[1]);
  ASSERT_EQ(p.descriptors.size(), 513u);
  EXPECT_THAT([&] { check(p, "deep"); },
              ThrowsMessage<error>(AllOf(HasSubstr("deep"), HasSubstr("1..512 descriptors"))));
}

// A header can be wrong although its checksum is right: nothing in it is believed.
TEST_F(ProgramFile, HeadersAreChecked) {
  using nlohmann::json;
  const auto refuses = [&](const std::function<void(json&)>& change, const char* reason) {
    EXPECT_THAT([&] { parse_program(with_header(change), "x.lkm"); },
                ThrowsMessage<error>(AllOf(HasSubstr("x.lkm"), HasSubstr(reason))));
  };
  EXPECT_NO_THROW(parse_program(with_header([](json&) {}), "x.lkm"));
  for (const char* key : {"format", "model", "target", "max_batch", "peak_words", "regions",
                          "input", "output", "num_descriptors", "num_pages"})
    refuses([&](json& j) { j.erase(key); }, key);
  for (const char* key : {"format", "model", "target", "max_batch", "regions", "input", "output"})
    refuses([&](json& j) { j[key] = nullptr; }, key);
  refuses([](json& j) { j["max_batch"] = 0; }, "max_batch");
  refuses([](json& j) { j["max_batch"] = 257; }, "max_batch");
  refuses([](json& j) { j["max_batch"] = 200; }, "scratchpad");
  refuses([](json& j) { j["max_batch"] = -1; }, "max_batch");
  refuses([](json& j) { j["max_batch"] = 1.5; }, "max_batch");
  refuses([](json& j) { j["max_batch"] = 1ull << 40; }, "max_batch");
  refuses([](json& j) { j["target"]["array_n"] = 32; }, "config_id");
  refuses(
      [](json& j) {
        j["target"] = {
            {"array_n", 48}, {"spad_words", 1024}, {"config_id", spec::config_id(48, 1024)}};
      },
      "array_n");
  refuses([](json& j) { j["regions"][1]["count"] = 1; }, "regions");
  refuses([](json& j) { j["regions"][0]["count"] = 4000; }, "descriptors");
  refuses([](json& j) { j["regions"] = json::array(); }, "descriptors");
  refuses([](json& j) { j["regions"][0] = 5; }, "regions");
  refuses([](json& j) { j["input"]["scale"] = -1; }, "scale");
  refuses([](json& j) { j["input"]["scale"] = 1e300; }, "scale");
  refuses([](json& j) { j["input"]["type"] = "f64"; }, "f64");
  refuses([](json& j) { j["input"]["zero_point"] = 256; }, "zero_point");
  refuses([](json& j) { j["input"]["channels_last"] = 1; }, "channels_last");
  const program tokens =
      parse_program(with_header([](json& j) { j["input"]["channels_last"] = true; }), "x.lkm");
  EXPECT_TRUE(tokens.input.channels_last && !tokens.output.channels_last);
  EXPECT_EQ(to_json(tokens)["input"]["channels_last"], true);
  EXPECT_FALSE(to_json(tokens)["output"].contains("channels_last"));
  refuses([](json& j) { j["input"]["shape"] = {3, 6, 6}; }, "shape");
  refuses([](json& j) { j["input"]["shape"] = {-3, 6, 5}; }, "shape");
  refuses([](json& j) { j["input"]["layout"]["height"] = 7; }, "layout");
  refuses([](json& j) { j["input"]["layout"]["words"] = 100; }, "layout");
  refuses([](json& j) { j["layers"].erase(0); }, "layers");
  refuses([](json& j) { j["layers"][0] = 1; }, "layers");
  refuses([](json& j) { j["num_pages"] = 1; }, "counts");
}

// Whatever the descriptor pages hold, reading ends in an error or in a program that runs inside its
// scratchpad and its pages.
TEST_F(ProgramFile, ChangedDescriptorsAreRefusedOrRun) {
  std::mt19937 random(31);
  int refused = 0, ran = 0;
  for (int i = 0; i < 3000; ++i) {
    io::bytes f(file_.begin(), file_.end() - 32);
    const std::size_t bit = random() % (program_.descriptors.size() * 128 * 8);
    f[32 + header_ + bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    program p;
    try {
      p = parse_program(with_digest(f), "x.lkm");
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::bad_file);
      ++refused;
      continue;
    }
    const io::bytes input(std::size_t{p.max_batch} * p.input.layout.words * 64);
    EXPECT_NO_THROW(interpret(p, input, p.max_batch)) << "bit " << bit;
    ++ran;
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(ran, 100);
}

// As much for a program of the vector unit's operations, and the reason of each refusal.
class VectorProgram : public ::testing::Test {
 protected:
  VectorProgram() {
    graph_builder b(22);
    const int x = b.input(40, 6, 5);
    const int factor = b.table(b.global_pool(x));
    int t = b.mul(x, factor);
    t = b.add(t, factor);
    program_ = compile(b.finish(t), {{16, 256}, 2, {}});
  }
  // Descriptors: input, average pool, table, product, sum, output, end.
  program program_;
};

TEST_F(VectorProgram, RefusalsSayWhy) {
  using desc = spec::descriptor;
  const auto refuses = [&](std::size_t at, auto change, const char* reason) {
    program p = program_;
    change(p.descriptors.at(at));
    EXPECT_THAT([&] { check(p, "x.lkm"); }, ThrowsMessage<error>(HasSubstr(reason))) << at;
  };
  EXPECT_NO_THROW(check(program_, "x.lkm"));
  for (const std::size_t i : {1u, 3u}) {
    refuses(i, [](desc& d) { d.vec_shift = 64; }, "vec_shift");
    refuses(i, [](desc& d) { d.vec_mult = 1u << 24; }, "vec_mult");
    refuses(i, [](desc& d) { d.vec_mult = 1; }, "vec_mult");
    refuses(i, [](desc& d) { d.clamp_lo = 1, d.clamp_hi = 0; }, "clamp_lo");
  }
  refuses(1, [](desc& d) { d.kernel_w = 0; }, "zero");
  refuses(1, [](desc& d) { d.pad_top = d.kernel_h; }, "outside");
  refuses(1, [](desc& d) { d.out_c_last = 3; }, "channels change");
  refuses(2, [](desc& d) { d.param_pages = 2; }, "one page");
  refuses(2, [](desc& d) { d.n_tiles = 1; }, "one page");
  refuses(2, [](desc& d) { d.region = 7; }, "region");
  refuses(2, [](desc& d) { d.in_w = 2, d.in_stride = 2; }, "shapes");
  for (const std::size_t i : {3u, 4u}) {
    refuses(i, [](desc& d) { d.in2_broadcast = 0; }, "second input");
    refuses(i, [](desc& d) { d.in2_base = 255; }, "second input");
  }
  refuses(4, [](desc& d) { d.add_shift = 23; }, "add_shift");
}

TEST_F(VectorProgram, ChangedDescriptorsAreRefusedOrRun) {
  std::mt19937 random(32);
  int refused = 0, ran = 0;
  for (int i = 0; i < 3000; ++i) {
    program p = program_;
    const std::size_t at = 1 + random() % 4;
    auto words = p.descriptors[at].pack();
    const std::size_t bit = random() % (words.size() * 32);
    words[bit / 32] ^= 1u << (bit % 32);
    p.descriptors[at] = spec::descriptor::unpack(words);
    try {
      check(p, "x.lkm");
    } catch (const error& e) {
      EXPECT_EQ(e.code(), errc::bad_file);
      ++refused;
      continue;
    }
    for (std::size_t k = 0; k < words.size(); ++k) {
      for (std::size_t b = 0; b < 4; ++b) {
        p.pages[at * spec::desc_bytes + 4 * k + b] = static_cast<std::uint8_t>(words[k] >> (8 * b));
      }
    }
    if (p.descriptors[at].pack() != words) continue;  // a bit that means nothing
    const io::bytes input(std::size_t{p.max_batch} * p.input.layout.words * 64);
    EXPECT_NO_THROW(interpret(p, input, p.max_batch)) << "bit " << bit;
    ++ran;
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(ran, 500);
}

TEST(Constants, InAFileAreCheckedAndComeBack) {
  graph_builder b(33);
  const int x = b.input(64, 5, 5);
  const program made = compile(b.finish(b.mul(x, b.constant(64, 5, 5))), {{16, 128}, 1, {}});
  const auto refuses = [&](std::size_t at, auto change, const char* reason) {
    program p = made;
    change(p.descriptors.at(at));
    EXPECT_THAT([&] { check(p, "x.lkm"); }, ThrowsMessage<error>(HasSubstr(reason))) << at;
  };
  using desc = spec::descriptor;
  refuses(1, [](desc& d) { d.param_pages = 2; }, "pages do not follow");
  refuses(1, [](desc& d) { d.n_tiles = 1; }, "pages do not follow");
  refuses(1, [](desc& d) { d.out_stride = 24; }, "output does not lie");
  refuses(1, [](desc& d) { d.out_base = 104; }, "output does not lie");
  refuses(1, [](desc& d) { d.region = 7; }, "region");
  refuses(2, [](desc& d) { d.in2_base = 104; }, "second input");
  EXPECT_NO_THROW(check(made, "x.lkm"));

  const std::string path =
      (std::filesystem::temp_directory_path() / "latchkey-constant.lkm").string();
  write_program(path, made);
  const program read = read_program(path);
  std::filesystem::remove(path);
  EXPECT_EQ(read.pages, made.pages);
  EXPECT_EQ(read.layers, made.layers);
  EXPECT_EQ(read.layers[1].op, "load");
}

/// A program whose layers can write parts of a tensor: channels of a wider one, rows of a higher
/// one.
class Parts : public ::testing::Test {
 protected:
  using desc = spec::descriptor;
  Parts() {
    graph_builder b(34);
    int t = b.depthwise(b.input(70, 6, 5), 3, 3, 1, 1, {1, 1, 1, 1});
    t = b.max_pool(b.conv(t, 140, 3, 3, 1, 1, {1, 1, 1, 1}), 2, 2, 1, 1, {0, 0, 0, 0});
    program_ = compile(b.finish(b.global_pool(t)), {{16, words}, 2, {}});
    for (std::size_t i = 1; i <= 4; ++i) EXPECT_EQ(program_.descriptors.at(i).out_cp_log2, 6u);
  }
  static void widen(desc& d) {
    d.out_pitch = d.out_cb + 2;
    d.out_stride = d.out_h * d.out_w * d.out_pitch;
  }
  static constexpr std::uint32_t words = 2048;
  program program_;  ///< Input, depthwise, convolution, max-pool, average pool, output, end
};

TEST_F(Parts, HoldTheLayersBytesAndNothingElse) {
  engine_model engine(program_.target, 0xa5);
  io::bytes input(std::size_t{2} * program_.input.layout.words * 64), output;
  std::mt19937 random(35);
  for (auto& b : input) b = static_cast<std::uint8_t>(random());
  const auto run = [&](const desc& d, std::uint32_t batch) {
    engine.execute(d, batch, program_.pages, input, output);
  };
  run(program_.descriptors[0], 2);
  for (std::size_t i = 1; i <= 4; ++i) {
    const desc& whole = program_.descriptors[i];
    run(whole, 2);
    std::vector<desc> parts(1, whole);
    widen(parts[0]);
    if (i == 2) {  // both images as slices of one
      parts.insert(parts.end(), 2, whole);
      parts[1].out_stride += 7;
      widen(parts[2]);
      parts[1].slices = parts[2].slices = 2;
    }
    for (desc& part : parts) {
      SCOPED_TRACE("descriptor " + std::to_string(i) + ", slices " + std::to_string(part.slices));
      part.out_base = words / 2 + 3;
      const io::byte_view spad = engine.scratchpad();
      io::bytes want(spad.begin(), spad.end());
      for (std::uint32_t at = 0; at < 2 * whole.out_h * whole.out_w; ++at) {
        const std::uint32_t image = at / (whole.out_h * whole.out_w);
        const std::uint32_t pixel = at % (whole.out_h * whole.out_w);
        const std::uint32_t from = whole.out_base + image * whole.out_stride + pixel * whole.out_cb;
        const std::uint32_t to = part.out_base + image * part.out_stride + pixel * out_pitch(part);
        std::copy_n(spad.begin() + from * 64, whole.out_cb * 64, want.begin() + to * 64);
      }
      const std::uint64_t macs = engine.macs(), pages = engine.pages();
      const std::uint32_t batch = part.slices != 0 ? 1 : 2;
      run(part, batch);
      EXPECT_TRUE(std::equal(want.begin(), want.end(), spad.begin()));
      EXPECT_EQ(engine.macs() - macs, 2 * counted_macs(whole));
      EXPECT_EQ(batch * counted_macs(part), 2 * counted_macs(whole));
      EXPECT_EQ(engine.pages() - pages, page_order(part, batch).size());
      EXPECT_EQ(page_order(part, batch), page_order(whole, 2));
      std::fill_n(engine.scratchpad().begin() + words / 2 * 64, words / 2 * 64, 0xa5);
    }
  }
}

TEST_F(Parts, LieInsideTheScratchpadToTheWord) {
  program p = program_;
  p.layers.clear();  // slices are more work than the table says
  const auto accepts = [&](std::size_t at, const desc& d) {
    program changed = p;
    changed.descriptors[at] = d;
    EXPECT_NO_THROW(check(changed, "x.lkm")) << at;
  };
  const auto refuses = [&](std::size_t at, auto change, const char* reason) {
    program changed = p;
    change(changed.descriptors.at(at));
    EXPECT_THAT([&] { check(changed, "x.lkm"); }, ThrowsMessage<error>(HasSubstr(reason))) << at;
  };
  for (std::size_t i = 1; i <= 4; ++i) {
    desc d = p.descriptors[i];
    widen(d);
    d.out_base = words - 2 * d.out_stride + 2;
    accepts(i, d);
    refuses(i, [&](desc& x) { x = d, ++x.out_base; }, "output does not lie");
    refuses(i, [&](desc& x) { x = d, --x.out_stride; }, "output does not lie");
    refuses(i, [](desc& x) { x.out_pitch = x.out_cb - 1; }, "below out_cb");
    refuses(i, [](desc& x) { x.out_pitch = 65, x.out_stride = 2000; }, "more than a pixel");
    if (i != 2) refuses(i, [](desc& x) { x.slices = 2; }, "slices");
  }
  desc rows = p.descriptors[2];
  rows.slices = 2;
  widen(rows);
  const std::uint32_t own = rows.out_stride;
  rows.out_stride += 50;
  rows.out_base = words - (3 * rows.out_stride + own - 2);
  accepts(2, rows);
  refuses(2, [&](desc& d) { d = rows, ++d.out_base; }, "output does not lie");
  refuses(2, [&](desc& d) { d = rows, d.in_base = words - 4 * d.in_stride + 1; }, "input does not");
  refuses(2, [](desc& d) { d.slices = 255; }, "input does not lie");
  for (void (*const part)(desc&) :
       {+[](desc& d) { d.out_pitch = 3; }, +[](desc& d) { d.slices = 2; }}) {
    refuses(2, [&](desc& d) { part(d), d.fuse_add = 1; }, "of what has none");
    refuses(2, [&](desc& d) { part(d), d.out_planar = 1; }, "of what has none");
    refuses(5, part, "of what has none");
  }
}

TEST(TensorLayout, FollowsTheBlockRule) {
  const auto l = [](std::uint32_t c) { return tensor_layout::of(3, 5, c); };
  EXPECT_EQ(l(1).cp_log2, 0u);
  EXPECT_EQ(l(1).words, 1u);
  EXPECT_EQ(l(3).cp_log2, 2u);
  EXPECT_EQ(l(32).cp_log2, 5u);
  EXPECT_EQ(l(32).words, 8u);
  EXPECT_EQ(l(33).cp_log2, 6u);
  EXPECT_EQ(l(33).c_last, 33u);
  EXPECT_EQ(l(64).cb, 1u);
  EXPECT_EQ(l(65).cb, 2u);
  EXPECT_EQ(l(65).c_last, 1u);
  EXPECT_EQ(l(65).words, 30u);
  EXPECT_EQ(l(65).offset(1, 2, 64), ((1u * 5 + 2) * 2 + 1) * 64);
  EXPECT_EQ(l(3).offset(2, 4, 2), (2u * 5 + 4) * 4 + 2);
  EXPECT_THROW(tensor_layout::of(0, 1, 1), error);
  EXPECT_THROW(tensor_layout::of(65536, 1, 1), error);
  EXPECT_THROW(tensor_layout::of(65535, 65535, 4000), error);
  for (const std::uint32_t c : {1u, 3u, 32u, 40u, 130u}) {
    io::bytes v(15 * c);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<std::uint8_t>(i * 7);
    EXPECT_EQ(l(c).unpack(l(c).pack(v)), v);
  }
  EXPECT_THROW(l(3).pack(io::bytes(44)), error);
  EXPECT_THROW(l(3).unpack(io::bytes(63)), error);
}

}  // namespace
}  // namespace latchkey::compiler
