// An RTL kernel between two HLS kernels, started in every order, through plain XRT.
#include <experimental/xrt_xclbin.h>
#include <gtest/gtest.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include <algorithm>
#include <array>
#include <random>

namespace {

using Mode = xrt::kernel::cu_access_mode;

struct Design {
  xrt::device device{0};
  xrt::uuid uuid = device.load_xclbin(STREAM_XCLBIN);
  xrt::kernel invert{device, uuid, "stream_invert", Mode::exclusive};
  xrt::kernel source{device, uuid, "stream_source", Mode::exclusive};
  xrt::kernel sink{device, uuid, "stream_sink", Mode::exclusive};
};

TEST(Stream, EveryStartOrder) {
  Design d;
  std::array<int, 3> order = {0, 1, 2};
  std::mt19937 random(5);
  do {
    for (const std::uint32_t beats : {1u, 63u, 64u, 65u, 1000u}) {
      const std::size_t n = beats * 64;
      xrt::bo from(d.device, n, d.source.group_id(0)), to(d.device, n, d.sink.group_id(0));
      auto* p = from.map<std::uint8_t*>();
      for (std::size_t i = 0; i < n; ++i) p[i] = static_cast<std::uint8_t>(random());
      from.sync(XCL_BO_SYNC_BO_TO_DEVICE);
      std::array<xrt::run, 3> runs;
      for (const int k : order) {
        if (k == 0) runs[0] = d.invert(beats);
        if (k == 1) runs[1] = d.source(from, beats);
        if (k == 2) runs[2] = d.sink(to, beats);
      }
      for (auto& run : runs) ASSERT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED);
      to.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
      const auto* q = to.map<const std::uint8_t*>();
      std::size_t bad = 0;
      for (std::size_t i = 0; i < n; ++i) bad += q[i] != static_cast<std::uint8_t>(~p[i]);
      EXPECT_EQ(bad, 0u) << beats << " beats, order " << order[0] << order[1] << order[2];
      EXPECT_EQ(d.sink.read_register(0x1C), beats - 1) << "tlast";
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

// The kernel is done, and long idle, while its last beats wait in its skid buffer for room.
TEST(Stream, BeatsBehindTheEndOfARunAreNotForgotten) {
  Design d;
  for (const std::uint32_t rest : {1u, 16u, 100u, 300u, 1000u}) {
    for (const std::uint32_t beats : {65u, 66u, 67u, 80u}) {
      xrt::bo from(d.device, beats * 64, d.source.group_id(0));
      xrt::bo to(d.device, beats * 64, d.sink.group_id(0));
      xrt::run sink = d.sink(to, rest << 16 | beats);
      xrt::run invert = d.invert(beats), source = d.source(from, beats);
      EXPECT_EQ(source.wait(), ERT_CMD_STATE_COMPLETED);
      EXPECT_EQ(invert.wait(), ERT_CMD_STATE_COMPLETED);
      EXPECT_EQ(sink.wait(), ERT_CMD_STATE_COMPLETED) << beats << " beats, rest " << rest;
      EXPECT_EQ(d.sink.read_register(0x1C), beats - 1) << "tlast";
    }
  }
}

TEST(Stream, SinkThatWaitsForeverTimesOut) {
  Design d;
  xrt::bo to(d.device, 640, d.sink.group_id(0));
  EXPECT_EQ(d.sink(to, 10u).wait(), ERT_CMD_STATE_TIMEOUT);
}

TEST(Stream, AccessOutsideEveryBufferEndsAllRuns) {
  Design d;
  xrt::bo from(d.device, 64, d.source.group_id(0)), to(d.device, 6400, d.sink.group_id(0));
  xrt::run sink = d.sink(to, 100u), invert = d.invert(100u), source = d.source(from, 100u);
  EXPECT_EQ(source.wait(), ERT_CMD_STATE_ERROR);
  EXPECT_EQ(invert.wait(), ERT_CMD_STATE_ERROR);
  EXPECT_EQ(sink.wait(), ERT_CMD_STATE_ERROR);
}

}  // namespace
