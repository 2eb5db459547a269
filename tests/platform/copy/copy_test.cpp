// A plain XRT program against the simulated card: nothing here knows that the card is simulated,
// except the environment that ctest sets (CMakeLists.txt) and the tests of what only a simulation
// can show.
#include <experimental/xrt_xclbin.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr unsigned reg_status = 0x24, reg_cycles = 0x28, reg_hang = 0x2C;
constexpr auto to_device = XCL_BO_SYNC_BO_TO_DEVICE;
constexpr auto from_device = XCL_BO_SYNC_BO_FROM_DEVICE;
using Mode = xrt::kernel::cu_access_mode;

const std::string image_path = COPY_XCLBIN;

std::vector<std::uint8_t> random_bytes(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<std::uint8_t> bytes(n);
  for (auto& b : bytes) b = static_cast<std::uint8_t>(generator());
  return bytes;
}

struct Opened {
  xrt::device device;
  xrt::kernel kernel;

  explicit Opened(unsigned index = 0, Mode mode = Mode::exclusive)
      : device(index), kernel(device, device.load_xclbin(image_path), "latchkey_copy", mode) {}

  xrt::bo buffer(std::size_t bytes) { return xrt::bo(device, bytes, kernel.group_id(0)); }
};

std::vector<std::uint8_t> content(xrt::bo& bo) {
  bo.sync(from_device);
  const auto* p = bo.map<const std::uint8_t*>();
  return {p, p + bo.size()};
}

void fill(xrt::bo& bo, const std::vector<std::uint8_t>& bytes) {
  std::copy(bytes.begin(), bytes.end(), bo.map<std::uint8_t*>());
  bo.sync(to_device);
}

// Copies through the card and returns what arrived; fails the test if the run does.
std::vector<std::uint8_t> copy(Opened& card, const std::vector<std::uint8_t>& data) {
  xrt::bo from = card.buffer(data.size());
  xrt::bo to = card.buffer(data.size());
  fill(from, data);
  xrt::run run = card.kernel(from, to, static_cast<std::uint32_t>(data.size()));
  EXPECT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
  return content(to);
}

TEST(Copy, OneMebibyte) {
  Opened card;
  const unsigned seed = 1;
  const auto data = random_bytes(1 << 20, seed);
  EXPECT_EQ(copy(card, data), data) << "seed " << seed;
  // One beat per cycle is the most a kernel can move: the cycle counter is the kernel's own.
  const std::uint32_t cycles = card.kernel.read_register(reg_cycles);
  EXPECT_GE(cycles, (1u << 20) / 64);
  EXPECT_EQ(card.kernel.read_register(reg_status), 0u);
}

TEST(Copy, EverySizeAroundBeatsAndPages) {
  Opened card;
  unsigned seed = 2;
  for (const std::size_t n : {1u, 2u, 63u, 64u, 65u, 127u, 4032u, 4095u, 4096u, 4097u, 4160u, 8191u,
                              8192u, 8193u, 65536u, 100'001u}) {
    const auto data = random_bytes(n, ++seed);
    EXPECT_EQ(copy(card, data), data) << n << " bytes, seed " << seed;
  }
}

TEST(Copy, ManySmallRunsAndCallbacks) {
  Opened card(0, Mode::shared);
  const auto data = random_bytes(256, 30);
  xrt::bo from = card.buffer(data.size());
  xrt::bo to = card.buffer(data.size());
  fill(from, data);
  xrt::run run(card.kernel);
  run.set_arg(0, from);
  run.set_arg(1, to);
  run.set_arg(2, static_cast<std::uint32_t>(data.size()));
  const auto start = std::chrono::steady_clock::now();
  constexpr int runs = 200;
  for (int i = 0; i < runs; ++i) {
    run.start();
    ASSERT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  RecordProperty("us_per_run", static_cast<int>(took.count() / runs));
  EXPECT_EQ(content(to), data);

  // Several runs queued on the one unit, and a callback.
  std::atomic<int> called{0};
  std::vector<xrt::run> queued;
  for (int i = 0; i < 8; ++i) {
    queued.emplace_back(card.kernel);
    queued.back().add_callback(
        ERT_CMD_STATE_COMPLETED,
        [](const void*, ert_cmd_state, void* counter) {
          ++*static_cast<std::atomic<int>*>(counter);
        },
        &called);
    queued.back()(from, to, static_cast<std::uint32_t>(data.size()));
  }
  for (auto& r : queued) EXPECT_EQ(r.wait(), ERT_CMD_STATE_COMPLETED);
  // wait() may return before the last callback ran.
  for (int i = 0; i < 1000 && called != 8; ++i) usleep(1000);
  EXPECT_EQ(called, 8);
}

TEST(Copy, MissingSyncShows) {
  Opened card;
  const auto data = random_bytes(4096, 40);
  xrt::bo from = card.buffer(data.size());
  xrt::bo to = card.buffer(data.size());
  std::copy(data.begin(), data.end(), from.map<std::uint8_t*>());  // no sync to the card
  EXPECT_EQ(card.kernel(from, to, 4096u).wait(), ERT_CMD_STATE_COMPLETED);
  EXPECT_EQ(content(to), std::vector<std::uint8_t>(4096, 0xA5));

  fill(from, data);
  EXPECT_EQ(card.kernel(from, to, 4096u).wait(), ERT_CMD_STATE_COMPLETED);
  const auto* host = to.map<const std::uint8_t*>();  // no sync from the card
  EXPECT_NE(std::vector<std::uint8_t>(host, host + 4096), data);
  EXPECT_EQ(content(to), data);
}

TEST(Copy, AccessOutsideEveryBufferFailsTheRunAndTheCardRecovers) {
  Opened card;
  const auto data = random_bytes(8192, 50);
  xrt::bo from = card.buffer(data.size());
  xrt::bo to = card.buffer(4096);
  fill(from, data);
  testing::internal::CaptureStderr();
  EXPECT_EQ(card.kernel(from, to, 8192u).wait(), ERT_CMD_STATE_ERROR);
  const std::string report = testing::internal::GetCapturedStderr();
  EXPECT_THAT(report, testing::HasSubstr("latchkey_copy:copy_1 wrote 4096 bytes at 0x"));
  EXPECT_THAT(report, testing::HasSubstr("outside every buffer"));
  EXPECT_EQ(copy(card, data), data);
}

TEST(Copy, ReadOutsideEveryBufferFailsTheRun) {
  Opened card;
  xrt::bo from = card.buffer(4096);
  xrt::bo to = card.buffer(8192);
  testing::internal::CaptureStderr();
  EXPECT_EQ(card.kernel(from, to, 4097u).wait(), ERT_CMD_STATE_ERROR);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("read 64 bytes at 0x"));
}

TEST(Copy, KernelThatNeverFinishesTimesOut) {
  Opened card(1);  // card 1 has a short watchdog
  const auto data = random_bytes(4096, 60);
  xrt::bo from = card.buffer(data.size());
  xrt::bo to = card.buffer(data.size());
  fill(from, data);
  card.kernel.write_register(reg_hang, 1);
  testing::internal::CaptureStderr();
  EXPECT_EQ(card.kernel(from, to, 4096u).wait(), ERT_CMD_STATE_TIMEOUT);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("did not finish"));
  // The reset that follows clears the register.
  EXPECT_EQ(copy(card, data), data);
}

TEST(Copy, AbortEndsARun) {
  Opened card;
  xrt::bo from = card.buffer(4096);
  xrt::bo to = card.buffer(4096);
  card.kernel.write_register(reg_hang, 1);
  xrt::run run = card.kernel(from, to, 4096u);
  EXPECT_EQ(run.abort(), ERT_CMD_STATE_ABORT);
}

TEST(Copy, TwoCardsAtOnce) {
  Opened a(0), b(1);
  const auto data_a = random_bytes(300'000, 70), data_b = random_bytes(300'000, 71);
  xrt::bo from_a = a.buffer(data_a.size()), to_a = a.buffer(data_a.size());
  xrt::bo from_b = b.buffer(data_b.size()), to_b = b.buffer(data_b.size());
  fill(from_a, data_a);
  fill(from_b, data_b);
  const auto n = static_cast<std::uint32_t>(data_a.size());
  for (int i = 0; i < 4; ++i) {
    xrt::run run_a = a.kernel(from_a, to_a, n);
    xrt::run run_b = b.kernel(from_b, to_b, n);
    EXPECT_EQ(run_b.wait(), ERT_CMD_STATE_COMPLETED);
    EXPECT_EQ(run_a.wait(), ERT_CMD_STATE_COMPLETED);
  }
  EXPECT_EQ(content(to_a), data_a);
  EXPECT_EQ(content(to_b), data_b);
  // Separate memories: the same addresses, different content.
  EXPECT_EQ(from_a.address(), from_b.address());
}

TEST(Copy, CycleCountsDoNotDependOnTheHost) {
  std::vector<std::uint32_t> cycles;
  for (int i = 0; i < 2; ++i) {
    Opened card;
    const auto data = random_bytes(200'000, 80);
    EXPECT_EQ(copy(card, data), data);
    cycles.push_back(card.kernel.read_register(reg_cycles));
  }
  EXPECT_EQ(cycles[0], cycles[1]);
}

TEST(Card, RegistersNeedAnExclusiveContext) {
  Opened card(0, Mode::shared);
  EXPECT_THROW(card.kernel.read_register(reg_cycles), std::exception);
}

TEST(Card, ExclusiveMeansExclusive) {
  Opened card;
  xrt::device again(0);
  const auto uuid = again.load_xclbin(image_path);
  EXPECT_THROW(xrt::kernel(again, uuid, "latchkey_copy", Mode::shared), std::exception);
}

TEST(Card, CopiesInsideTheCard) {
  Opened card;
  const auto data = random_bytes(10'000, 90);
  xrt::bo from = card.buffer(data.size()), to = card.buffer(data.size());
  fill(from, data);
  to.copy(from);
  EXPECT_EQ(content(to), data);
}

TEST(Card, NoSuchCard) { EXPECT_THROW(xrt::device(99), std::exception); }

TEST(Card, RefusesAnImageForARealCardAndADamagedOne) {
  std::ifstream stream(image_path, std::ios::binary);
  std::vector<char> image{std::istreambuf_iterator<char>(stream), {}};
  xrt::device device(0);
  const auto load = [&](std::size_t at, char value) {
    std::vector<char> bad = image;
    bad.at(at) = value;
    // Another UUID, or loading would be skipped where the good image is already loaded.
    bad.at(offsetof(axlf, m_header) + offsetof(axlf_header, uuid)) ^= 1;
    return device.load_xclbin(reinterpret_cast<const axlf*>(bad.data()));
  };
  const auto mode = offsetof(axlf, m_header) + offsetof(axlf_header, m_mode);
  EXPECT_THROW(
      {
        try {
          load(mode, 0);
        } catch (const std::exception& e) {
          EXPECT_THAT(e.what(), testing::HasSubstr("real card"));
          throw;
        }
      },
      std::exception);
  // The model's ELF magic.
  const auto* top = reinterpret_cast<const axlf*>(image.data());
  const auto* section = xclbin::get_axlf_section(top, EMULATION_DATA);
  ASSERT_NE(section, nullptr);
  EXPECT_THROW(load(section->m_sectionOffset, 'x'), std::exception);
}

// What another process sees. The child is started afresh: SystemC does not survive a fork.
TEST(Card, InUseByAnotherProcess) {
  if (const char* child = std::getenv("COPY_TEST_CHILD"); child != nullptr) {
    try {
      xrt::device device(0);
    } catch (const std::exception& e) {
      const std::string what = e.what();
      std::_Exit(what.find("card in use: sim:") == std::string::npos ? 4 : 3);
    }
    std::_Exit(5);
  }
  const auto spawn = [] {
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("COPY_TEST_CHILD", "1", 1);
      execl("/proc/self/exe", "copy_test", "--gtest_filter=Card.InUseByAnotherProcess", nullptr);
      std::_Exit(9);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  {
    xrt::device device(0);
    EXPECT_EQ(spawn(), 3);
  }
  EXPECT_EQ(spawn(), 5) << "closing the last handle frees the card";
}

}  // namespace
