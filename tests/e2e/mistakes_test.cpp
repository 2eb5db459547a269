// What a newcomer does wrong: each mistake has its documented exit code and a message that names
// the thing, the reason and the remedy; nothing is left half written.
#include <gmock/gmock.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "tool.hpp"

namespace latchkey::e2e {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

using words = std::vector<std::string>;

/// One mistake: its exit code, and phrases that the message must hold.
void expect_error(const Outcome& o, int code, const std::vector<std::string>& phrases) {
  EXPECT_EQ(o.code, code) << o.err;
  EXPECT_EQ(o.json()["error"]["exit_code"], code) << o.out;
  for (const std::string& phrase : phrases) {
    EXPECT_THAT(o.message(), HasSubstr(phrase));
    EXPECT_THAT(o.err, HasSubstr(phrase));
  }
  EXPECT_THAT(o.err, Not(HasSubstr("terminate called")));
}

/// No temporary file of an interrupted write is left in the workspace.
void expect_no_leftovers(const Workspace& w) {
  for (const auto& entry : fs::directory_iterator(w.path(""))) {
    const std::string name = entry.path().filename();
    const auto dot = name.rfind('.');
    const bool temporary = dot != std::string::npos && name.size() - dot == 9 &&
                           name.find_first_not_of("0123456789abcdef", dot + 1) == std::string::npos;
    EXPECT_FALSE(temporary) << name;
  }
}

/// The child's files below `prefix` lie on a disk with room for `bytes` more.
std::map<std::string, std::string> full_disk(const std::string& prefix, int bytes) {
  return {{"LD_PRELOAD", LATCHKEY_FULL_DISK},
          {"FULL_DISK_PREFIX", prefix},
          {"FULL_DISK_BYTES", std::to_string(bytes)}};
}

words compile_words(const Workspace& w, const std::string& onnx, const words& more = {}) {
  words all = {"compile",        onnx,          "-o",
               w.str("out.lkm"), "--calibrate", model("digits-train-images-idx3-ubyte.gz")};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// digits_mlp.onnx with the one place where `from` stands replaced.
std::string patched(const Workspace& w, const std::string& name, const bytes& from,
                    const bytes& to) {
  bytes data = read(model("digits_mlp.onnx"));
  const auto found = std::find_end(data.begin(), data.end(), from.begin(), from.end());
  if (found == data.end()) throw std::runtime_error("pattern not in the model");
  std::copy(to.begin(), to.end(), found);
  write(w.path(name), data);
  return w.str(name);
}

// ---- compile
// ---------------------------------------------------------------------------------------

TEST(Compile, NoSuchFile) {
  Workspace w;
  expect_error(w.tool(compile_words(w, w.str("none.onnx"))), 3, {"none.onnx", "check the path"});
}

TEST(Compile, NotAnOnnxFile) {
  Workspace w;
  write(w.path("text.onnx"), std::string("this is not a model\n"));
  expect_error(w.tool(compile_words(w, w.str("text.onnx"))), 3, {"text.onnx", "no ONNX model"});
  write(w.path("empty.onnx"), std::string());
  expect_error(w.tool(compile_words(w, w.str("empty.onnx"))), 3, {"empty.onnx"});
  fs::create_directory(w.path("folder.onnx"));
  expect_error(w.tool(compile_words(w, w.str("folder.onnx"))), 3, {"folder.onnx"});
  EXPECT_FALSE(fs::exists(w.path("out.lkm")));
}

TEST(Compile, TruncatedOnnx) {
  Workspace w;
  const bytes data = read(model("digits_mlp.onnx"));
  for (const std::size_t n : {data.size() / 5, data.size() / 2, data.size() - 1}) {
    write(w.path("cut.onnx"), bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(n)));
    expect_error(w.tool(compile_words(w, w.str("cut.onnx"))), 3, {"cut.onnx", "cut short"});
  }
}

TEST(Compile, LaterOpset) {
  Workspace w;
  // opset_import {domain "", version 13} at the end of the file.
  const std::string onnx =
      patched(w, "opset21.onnx", {0x42, 4, 0x0a, 0, 0x10, 13}, {0x42, 4, 0x0a, 0, 0x10, 21});
  expect_error(w.tool(compile_words(w, onnx)), 4, {"opset", "21", "17"});
}

TEST(Compile, UnsupportedOperator) {
  Workspace w;
  const std::string onnx =
      patched(w, "topk.onnx", {0x22, 4, 'R', 'e', 'l', 'u'}, {0x22, 4, 'T', 'o', 'p', 'K'});
  expect_error(w.tool(compile_words(w, onnx)), 4, {"TopK", "support"});
}

TEST(Compile, NoCalibration) {
  Workspace w;
  expect_error(w.tool({"compile", model("digits_mlp.onnx"), "-o", w.str("out.lkm")}), 2,
               {"digits_mlp", "--calibrate"});
}

TEST(Compile, CalibrationImagesOfAnotherSize) {
  Workspace w;
  expect_error(w.tool({"compile", model("digits_mlp.onnx"), "-o", w.str("out.lkm"), "--calibrate",
                       fashion("t10k-images-idx3-ubyte.gz")}),
               11, {"64 values", "784"});
  expect_error(w.tool({"compile", model("digits_mlp.onnx"), "-o", w.str("out.lkm"), "--calibrate",
                       w.str("none.gz")}),
               3, {"none.gz", "check the path"});
}

TEST(Compile, ModelTooLargeForTheScratchpad) {
  Workspace w;
  expect_error(w.tool({"compile", model("fashion_lenet.onnx"), "-o", w.str("out.lkm"),
                       "--calibrate", fashion("t10k-images-idx3-ubyte.gz"), "--calibrate-count",
                       "4", "--scratchpad", "128"}),
               4, {"pool1", "245 scratchpad words", "the build has 128", "smaller input"});
  EXPECT_FALSE(fs::exists(w.path("out.lkm")));
}

TEST(Compile, AbsurdOptions) {
  Workspace w;
  for (const words& more : {words{"--array", "17"}, words{"--batch", "0"}, words{"--batch", "257"},
                            words{"--percentile", "200"}, words{"--calibrate-count", "0"},
                            words{"--calibration", "best"}, words{"--weight-scale", "none"},
                            words{"--scratchpad", "99999999999999"}, words{"--scratchpad", "-4"}})
    expect_error(w.tool(compile_words(w, model("digits_mlp.onnx"), more)), 2, {more[0]});
  expect_error(w.tool(compile_words(w, model("digits_mlp.onnx"), {"--scratchpad", "0"})), 2,
               {"scratchpad"});
}

TEST(Compile, LabelsOfAnotherLength) {
  Workspace w;
  expect_error(w.tool(compile_words(w, model("digits_mlp.onnx"),
                                    {"--evaluate", digit_images(), "--labels",
                                     model("digits-train-labels-idx1-ubyte.gz")})),
               11, {"360 images", "labels"});
}

TEST(Compile, UnwritableOutput) {
  Workspace w;
  auto all = compile_words(w, model("digits_mlp.onnx"));
  all[3] = w.str("no/such/folder/out.lkm");
  expect_error(w.tool(all), 12, {"no/such/folder/out.lkm", "No such file or directory"});
  all[3] = "/dev/full";
  expect_error(w.tool(all), 12, {"/dev/full", "choose another name"});
  if (::geteuid() != 0) {  // root writes everywhere
    fs::create_directory(w.path("closed"));
    fs::permissions(w.path("closed"), fs::perms{0500});
    all[3] = w.str("closed/out.lkm");
    expect_error(w.tool(all), 12, {"closed/out.lkm", "Permission denied"});
  }
}

// ---- cards
// -----------------------------------------------------------------------------------------

TEST(Card, NoSuchDevice) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  for (const char* device : {"5", "0000:81:00.1", "banana"}) {
    all[5] = device;
    expect_error(w.tool(all), 5, {device, "no such card", "latchkey devices", "sim:SEED"});
  }
}

TEST(Card, MalformedSeed) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  for (const char* device : {"sim:", "sim:abc", "sim:-1", "sim:7x", "sim:1e3", "sim: 7",
                             "sim:99999999999999999999999", "sim:,temperature=3"}) {
    all[5] = device;
    expect_error(w.tool(all), 2, {device, "seed must be a decimal number", "sim:7"});
  }
}

TEST(Card, AbsurdSettings) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"sim:7,temperature=9999", "from -55 to 150"},
      {"sim:7,temperature=", "temperature"},
      {"sim:7,temperature=nan", "temperature"},
      {"sim:7,voltage=-1", "voltage"},
      {"sim:7,age=1e9", "age"},
      {"sim:7,noise=x", "noise"},
      {"sim:7,memory=floppy", "ddr4-2400"},
      {"sim:7,colour=red", "no setting called 'colour'"},
      {"sim:7,sim:8", "no setting"}};
  for (const auto& [device, phrase] : cases) {
    all[5] = device;
    expect_error(w.tool(all), 2, {device, phrase});
  }
}

TEST(Card, BeyondItsRangeTheKeyDoesNotComeBackAndNothingIsReleased) {
  Workspace w;
  w.session();
  auto all = w.run_words(8, {"-o", w.str("out")});
  all[5] = "sim:7,noise=100";
  const Outcome o = w.tool(all);
  EXPECT_EQ(o.code, 9) << o.err;
  EXPECT_FALSE(fs::exists(w.path("out")));
}

TEST(Card, InUseByAnotherProcess) {
  Workspace w;
  w.session();
  const auto holder = w.start(w.run_words(360, {"--batch", "1"}));
  while (holder->running() && holder->err().find("running:") == std::string::npos)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_TRUE(holder->running()) << holder->err();
  expect_error(w.tool(w.run_words(8)), 6, {"sim:7", "in use", "choose another card"});
  expect_error(w.tool({"wipe", "--device", "sim:7"}), 6, {"sim:7", "in use"});
  const Outcome o = holder->wait();
  EXPECT_EQ(o.code, 0) << o.err;  // not disturbed
  EXPECT_EQ(w.tool(w.run_words(8)).code, 0);
}

TEST(Card, NotEnrolled) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  all[5] = "sim:12345";
  expect_error(w.tool(all), 7, {"sim:12345", "not enrolled", "latchkey enroll"});
}

TEST(Card, EnrolledTwice) {
  Workspace w;
  w.enroll("sim:7", "card.lkd");
  expect_error(w.tool({"enroll", "--device", "sim:7", "--record", w.str("again.lkd"),
                       "--passphrase-file", w.str("pass")}),
               8, {"sim:7", "enrolled before", "device record"});
  EXPECT_FALSE(fs::exists(w.path("again.lkd")));
}

TEST(Card, MissingImage) {
  Workspace w;
  w.session();
  fs::create_directory(w.path("images"));
  expect_error(w.tool(w.run_words(8), {{"LATCHKEY_IMAGES", w.str("images")}}), 3,
               {w.str("images/operate-n16.xclbin"), "missing", "LATCHKEY_IMAGES"});
  w.compile_digits("digits.lkm", {"--array", "32"});
  w.lock("digits.lkm", "card.lkd", "digits.lkx");
  expect_error(w.tool(w.run_words(8)), 3, {"operate-n32.xclbin", "missing", "--array"});
}

TEST(Card, DamagedOrOtherImage) {
  Workspace w;
  w.session();
  fs::create_directory(w.path("images"));
  const auto image = w.path("images/operate-n16.xclbin");
  const std::map<std::string, std::string> env = {{"LATCHKEY_IMAGES", w.str("images")}};
  write(image, std::string("not an xclbin at all"));
  expect_error(w.tool(w.run_words(8), env), 3, {image.string()});
  bytes data = read(LATCHKEY_IMAGE_DIR "/operate-n16.xclbin");
  data.resize(data.size() / 2);
  write(image, data);
  expect_error(w.tool(w.run_words(8), env), 3, {image.string()});
  // Another build under this name.
  write(image, read(LATCHKEY_IMAGE_DIR "/enrol.xclbin"));
  expect_error(w.tool(w.run_words(8), env), 3, {image.string()});
  write(image, read(LATCHKEY_IMAGE_DIR "/unlocked-n16.xclbin"));
  expect_error(w.tool(w.run_words(8), env), 11, {image.string(), "another build", "rebuild"});
}

TEST(Card, StateThatCannotBeReadIsNotSilentlyReplaced) {
  Workspace w;
  w.session();
  write(w.path("state/sim-7/fuses.json"), std::string("{\"format\": 1, \"life"));
  const Outcome o = w.tool(w.run_words(8));
  EXPECT_NE(o.code, 0);
  EXPECT_THAT(o.message(), HasSubstr("fuses"));
  EXPECT_EQ(read(w.path("state/sim-7/fuses.json")).size(), 19U);
}

// ---- records and passphrases
// ------------------------------------------------------------------------

TEST(Record, ExistsAlready) {
  Workspace w;
  write(w.path("card.lkd"), std::string("precious"));
  expect_error(w.tool({"enroll", "--device", "sim:7", "--record", w.str("card.lkd"),
                       "--passphrase-file", w.str("pass")}),
               2, {"card.lkd", "never overwritten", "another name"});
  EXPECT_EQ(read(w.path("card.lkd")).size(), 8U);
  // The chip was not touched.
  w.enroll("sim:7", "other.lkd");
}

TEST(Record, UnwritableFolder) {
  Workspace w;
  expect_error(w.tool({"enroll", "--device", "sim:7", "--record", w.str("none/card.lkd"),
                       "--passphrase-file", w.str("pass")}),
               12, {"none/card.lkd", "cannot write"});
  w.enroll("sim:7", "card.lkd");
}

TEST(Record, DiskFullIsNoticedBeforeTheChipIsEnrolled) {
  Workspace w;
  expect_error(w.tool({"enroll", "--device", "sim:7", "--record", w.str("card.lkd"),
                       "--passphrase-file", w.str("pass")},
                      full_disk(w.str("card.lkd"), 512)),
               12, {"card.lkd", "cannot write", "No space left"});
  EXPECT_FALSE(fs::exists(w.path("card.lkd")));
  expect_no_leftovers(w);
  // The one export is still to be had.
  w.enroll("sim:7", "card.lkd");
}

TEST(Record, WrongPassphrase) {
  Workspace w;
  w.session();
  write(w.path("wrong"), std::string("incorrect horse\n"));
  expect_error(w.tool({"lock", w.str("digits.lkm"), "--record", w.str("card.lkd"), "-o",
                       w.str("x.lkx"), "--passphrase-file", w.str("wrong")}),
               9, {"card.lkd", "wrong passphrase"});
  EXPECT_FALSE(fs::exists(w.path("x.lkx")));
}

TEST(Record, EmptyOrNoPassphrase) {
  Workspace w;
  write(w.path("empty"), std::string("\n"));
  const auto enroll = [&](const words& more) {
    words all = {"enroll", "--device", "sim:7", "--record", w.str("card.lkd")};
    all.insert(all.end(), more.begin(), more.end());
    return w.tool(all);
  };
  expect_error(enroll({"--passphrase-file", w.str("empty")}), 2, {"empty"});
  expect_error(enroll({"--passphrase-file", "/dev/null"}), 2, {"/dev/null", "empty"});
  expect_error(enroll({"--passphrase-file", w.str("none")}), 3, {"none", "passphrase file"});
  expect_error(enroll({"--passphrase-fd", "77"}), 3, {"77"});
  expect_error(enroll({"--passphrase-fd", "0"}), 2, {"empty"});  // standard input: /dev/null
  // No terminal to ask on.
  expect_error(enroll({}), 2, {"no terminal", "--passphrase-fd", "--passphrase-file"});
  write(w.path("long"), std::string(5000, 'x'));
  expect_error(enroll({"--passphrase-file", w.str("long")}), 2, {"longer than"});
  EXPECT_FALSE(fs::exists(w.path("card.lkd")));
  w.enroll("sim:7", "card.lkd");
}

TEST(Record, MissingOrBogus) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  all[3] = w.str("none.lkd");
  expect_error(w.tool(all), 3, {"none.lkd", "No such file"});
  all[3] = w.str("digits.lkm");
  expect_error(w.tool(all), 3, {"digits.lkm", "device record"});
  write(w.path("json.lkd"), std::string("{\"kind\": \"shopping list\"}"));
  all[3] = w.str("json.lkd");
  expect_error(w.tool(all), 3, {"json.lkd", "not a Latchkey device record"});
  all.erase(all.begin() + 2, all.begin() + 4);
  expect_error(w.tool(all), 2, {"--record"});
}

TEST(Record, NoSuchSlot) {
  Workspace w;
  w.session();
  expect_error(w.tool({"lock", w.str("digits.lkm"), "--record", w.str("card.lkd"), "-o",
                       w.str("x.lkx"), "--passphrase-file", w.str("pass"), "--slot", "3"}),
               2, {"slot 3"});
}

// ---- run
// -------------------------------------------------------------------------------------------

TEST(RunMistakes, Files) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  all[1] = w.str("none.lkx");
  expect_error(w.tool(all), 3, {"none.lkx", "No such file"});
  all[1] = w.str("digits.lkm");  // a program where a package belongs
  expect_error(w.tool(all), 3, {"digits.lkm", "not a Latchkey package"});
  all = w.run_words(8);
  all[7] = w.str("none.gz");
  expect_error(w.tool(all), 3, {"none.gz", "check the path"});
  all[7] = w.str("digits.lkx");
  expect_error(w.tool(all), 3, {"digits.lkx", "IDX"});
}

TEST(RunMistakes, ImagesOfAnotherSize) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  all[7] = digit_labels();
  expect_error(w.tool(all), 11, {"digits-test-labels", "holds 360 ", "1 x 8 x 8", "64 bytes each"});
  write(w.path("odd.f32"), bytes(64 * 4 + 2));
  expect_error(w.tool({"run", w.str("digits.lkx"), "--record", w.str("card.lkd"), "--device",
                       "sim:7", "--raw", w.str("odd.f32")}),
               11, {"odd.f32", "258 bytes", "256 bytes each"});
  // 10,000 images of 28 x 28 are bytes enough for 122,500 of 8 x 8.
  all[7] = fashion("t10k-images-idx3-ubyte.gz");
  expect_error(w.tool(all), 11, {"t10k-images", "10000 x 28 x 28", "1 x 8 x 8"});
}

TEST(RunMistakes, LabelsAndReferenceOfAnotherLength) {
  Workspace w;
  w.session();
  write(w.path("labels"), bytes{0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3});
  expect_error(w.tool(w.run_words(8, {"--labels", w.str("labels")})), 11, {"3 labels", "8 images"});
  write(w.path("short.ref"), bytes(79));
  expect_error(w.tool(w.run_words(8, {"--expect", w.str("short.ref")})), 11,
               {"short.ref", "79 bytes", "80"});
  expect_error(w.tool(w.run_words(8, {"--expect", w.str("digits.ref"), "--mode", "softmax"})), 2,
               {"--expect", "raw"});
}

TEST(RunMistakes, AbsurdOptions) {
  Workspace w;
  w.session();
  auto all = w.run_words(8);
  all.resize(all.size() - 2);  // without --count 8
  for (const char* count : {"99999999999999999999999", "-5", "many", "1.5"}) {
    auto with = all;
    with.insert(with.end(), {"--count", count});
    expect_error(w.tool(with), 2, {"--count"});
  }
  for (const words& more : {words{"--batch", "-1"}, words{"--mode", "guess"}, words{"--k", "x"}}) {
    expect_error(w.tool(w.run_words(8, more)), 2, {more[0]});
  }
  expect_error(w.tool(w.run_words(8, {"--batch", "257"})), 2, {"257", "limit of 256"});
  expect_error(w.tool(w.run_words(8, {"--mode", "top-k", "--k", "0"})), 2,
               {"k = 0", "10 channels"});
  expect_error(w.tool(w.run_words(8, {"--mode", "top-k", "--k", "11"})), 2,
               {"k = 11", "10 channels"});
  // More than there are: all of them.
  auto with = all;
  with.insert(with.end(), {"--count", "4000000000"});
  const Outcome o = w.tool(with);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.json()["images"], 360);
  all.erase(all.begin() + 6, all.end());
  expect_error(w.tool(all), 2, {"--images", "--raw"});
}

TEST(RunMistakes, FullDiskLeavesTheOldFile) {
  Workspace w;
  w.session();
  write(w.path("out"), std::string("old"));
  expect_error(w.tool(w.run_words(360, {"--mode", "dequant", "-o", w.str("out")}),
                      full_disk(w.str("out"), 4096)),
               12, {w.str("out"), "cannot write", "No space left"});
  EXPECT_EQ(read(w.path("out")).size(), 3U);
  // Programs and packages as well.
  const bytes package = read(w.path("digits.lkx")), program = read(w.path("digits.lkm"));
  expect_error(w.tool({"lock", w.str("digits.lkm"), "--record", w.str("card.lkd"), "-o",
                       w.str("digits.lkx"), "--passphrase-file", w.str("pass")},
                      full_disk(w.str("digits.lkx"), 4096)),
               12, {"digits.lkx", "cannot write", "No space left"});
  EXPECT_EQ(read(w.path("digits.lkx")), package);
  auto all = compile_words(w, model("digits_mlp.onnx"));
  all[3] = w.str("digits.lkm");
  expect_error(w.tool(all, full_disk(w.str("digits.lkm"), 4096)), 12,
               {"digits.lkm", "cannot write", "No space left"});
  EXPECT_EQ(read(w.path("digits.lkm")), program);
  expect_no_leftovers(w);
}

TEST(RunMistakes, UnwritableOutputIsNoticedBeforeTheRun) {
  Workspace w;
  w.session();
  const Outcome o = w.tool(w.run_words(8, {"-o", w.str("none/out")}));
  expect_error(o, 12, {"none/out"});
  EXPECT_THAT(o.err, Not(HasSubstr("running:")));
}

class Interrupt : public testing::TestWithParam<int> {};

TEST_P(Interrupt, StopsTheRunAndWritesNothing) {
  Workspace w;
  w.session();
  write(w.path("out"), std::string("old"));
  const auto child = w.start(w.run_words(360, {"--batch", "1", "-o", w.str("out")}));
  while (child->running() && child->err().find("running:") == std::string::npos)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_TRUE(child->running()) << child->err();
  child->signal(GetParam());
  const auto began = std::chrono::steady_clock::now();
  const Outcome o = child->wait();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
  expect_error(o, 130, {"interrupted"});
  EXPECT_EQ(read(w.path("out")).size(), 3U);
  expect_no_leftovers(w);
  // The card is free again.
  EXPECT_EQ(w.tool(w.run_words(8, {"--expect", w.str("digits.ref")})).code, 0);
}

INSTANTIATE_TEST_SUITE_P(Signals, Interrupt, testing::Values(SIGINT, SIGTERM));

// ---- the command line itself
// ------------------------------------------------------------------------

TEST(CommandLine, UnknownSubcommandAndOption) {
  Workspace w;
  expect_error(w.tool({"frobnicate"}), 2, {"frobnicate", "--help"});
  expect_error(w.tool({}), 2, {"subcommand", "--help"});
  expect_error(w.tool({"devices", "--frob"}), 2, {"--frob"});
  expect_error(w.tool({"run", "--frob"}), 2, {"--frob"});
  expect_error(w.tool({"lock"}), 2, {"program", "--help"});
}

TEST(CommandLine, HelpNamesEveryExitCode) {
  Workspace w;
  const Outcome o = w.tool({"--help"});
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.out, AllOf(HasSubstr("enroll"), HasSubstr("compile"),
                           HasSubstr("9 the lock refused"), HasSubstr("130 interrupted")));
  EXPECT_THAT(w.tool({"--version"}).out, HasSubstr("latchkey 0."));
}

TEST(CommandLine, DevicesListsTheCardsWithState) {
  Workspace w;
  EXPECT_EQ(w.tool({"devices"}).json()["devices"].size(), 0U);
  w.enroll("sim:7", "card.lkd");
  const auto list = w.tool({"devices"}).json()["devices"];
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0]["name"], "sim:7");
  EXPECT_EQ(list[0]["simulated"], true);
}

TEST(CommandLine, InspectOfSomethingElse) {
  Workspace w;
  write(w.path("text"), std::string("hello\n"));
  expect_error(w.tool({"inspect", w.str("text")}), 3, {"text"});
  expect_error(w.tool({"inspect", w.str("none")}), 3, {"none"});
  write(w.path("empty"), std::string());
  expect_error(w.tool({"inspect", w.str("empty")}), 3, {"empty"});
}

}  // namespace
}  // namespace latchkey::e2e
