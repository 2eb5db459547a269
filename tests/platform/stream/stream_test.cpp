// RTL kernels between HLS kernels, started in every order, through plain XRT. The image has two of
// each; the sinks are crossed, so that a connection by order would show.
#include <experimental/xrt_xclbin.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <xclbin.h>

namespace {

using Mode = xrt::kernel::cu_access_mode;

struct Design {
  xrt::device device{0};
  xrt::uuid uuid = device.load_xclbin(STREAM_XCLBIN);
  xrt::kernel invert{device, uuid, "stream_invert:{invert_1}", Mode::exclusive};
  xrt::kernel source{device, uuid, "stream_source:{source_1}", Mode::exclusive};
  xrt::kernel sink{device, uuid, "stream_sink:{sink_2}", Mode::exclusive};
  xrt::kernel invert2{device, uuid, "stream_invert:{invert_2}", Mode::exclusive};
  xrt::kernel source2{device, uuid, "stream_source:{source_2}", Mode::exclusive};
  xrt::kernel sink2{device, uuid, "stream_sink:{sink_1}", Mode::exclusive};
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

// Both sets at once, many runs queued on each: every set gets its own data, in order.
TEST(Stream, TwoSetsWorkSideBySide) {
  Design d;
  constexpr std::uint32_t rounds = 8, beats = 200, n = beats * 64;
  std::mt19937 random(6);
  struct Job {
    xrt::bo from, to;
    std::array<xrt::run, 3> runs;
  };
  std::vector<Job> jobs;
  for (std::uint32_t i = 0; i < 2 * rounds; ++i) {
    const bool second = i % 2 != 0;
    xrt::kernel &source = second ? d.source2 : d.source, &sink = second ? d.sink2 : d.sink;
    Job job{xrt::bo(d.device, n, source.group_id(0)), xrt::bo(d.device, n, sink.group_id(0)), {}};
    auto* p = job.from.map<std::uint8_t*>();
    for (std::size_t k = 0; k < n; ++k) p[k] = static_cast<std::uint8_t>(random());
    job.from.sync(XCL_BO_SYNC_BO_TO_DEVICE);
    job.runs = {sink(job.to, beats), source(job.from, beats),
                (second ? d.invert2 : d.invert)(beats)};
    jobs.push_back(std::move(job));
  }
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    Job& job = jobs[i];
    for (auto& run : job.runs) ASSERT_EQ(run.wait(), ERT_CMD_STATE_COMPLETED) << "job " << i;
    job.to.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    const auto *p = job.from.map<const std::uint8_t*>(), *q = job.to.map<const std::uint8_t*>();
    std::size_t bad = 0;
    for (std::size_t k = 0; k < n; ++k) bad += q[k] != static_cast<std::uint8_t>(~p[k]);
    EXPECT_EQ(bad, 0u) << "job " << i;
  }
}

// The image with some characters of its connections replaced by as many others.
std::string load_error(const std::string& from, const std::string& to) {
  std::ifstream file(STREAM_XCLBIN, std::ios::binary);
  std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  const auto* top = reinterpret_cast<const axlf*>(image.data());
  const auto* section = xclbin::get_axlf_section(top, USER_METADATA);
  const auto begin = image.begin() + static_cast<std::ptrdiff_t>(section->m_sectionOffset);
  const auto end = begin + static_cast<std::ptrdiff_t>(section->m_sectionSize);
  const auto at = std::search(begin, end, from.begin(), from.end());
  EXPECT_TRUE(at != end && from.size() == to.size()) << from;
  std::copy(to.begin(), to.end(), at);
  xrt::device device(0);
  try {
    device.load_xclbin(top);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

TEST(Stream, AConnectionNamesWhatIsThereOnce) {
  using testing::HasSubstr;
  EXPECT_THAT(load_error("source_1.out", "source_9.out"),
              HasSubstr("source_9.out: the image has no"));
  EXPECT_THAT(load_error("sink_2.in", "sink_2.on"), HasSubstr("sink_2.on: no such input"));
  EXPECT_THAT(load_error("source_1.out", "invert_1.out"),
              HasSubstr("invert_1.out: no such output"));
  EXPECT_THAT(load_error("sink_2.in", "sink_1.in"), HasSubstr("sink_1.in: connected twice"));
  EXPECT_THAT(load_error("source_1.out:", "source_1.out-"),
              HasSubstr("is not unit.port:unit.port"));
  EXPECT_EQ(load_error("source_1.out", "source_1.out"), "");
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
