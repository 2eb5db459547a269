// C simulation of the HLS adapters against references written from their specification.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "ap_axi_sdata.h"
#include "hls_stream.h"
#include "output_adapter.hpp"

using namespace latchkey::hls_kernels;
using axis = ap_axiu<512, 0, 0, 0>;

extern "C" {
void latchkey_input(const word_t* gmem, std::uint32_t batch, std::uint32_t channels,
                    std::uint32_t height, std::uint32_t width, std::uint32_t type,
                    std::uint32_t order, std::uint32_t cp_log2, std::uint32_t words,
                    std::uint32_t image_words, float scale, std::uint32_t zero_point, float mul,
                    float add, std::uint32_t* status, hls::stream<axis>& out);
void latchkey_output(word_t* gmem, std::uint32_t batch, std::uint32_t channels,
                     std::uint32_t pixels, std::uint32_t cp_log2, std::uint32_t words,
                     std::uint32_t record_words, std::uint32_t mode, std::uint32_t k, float scale,
                     std::uint32_t zero_point, std::uint32_t* status, hls::stream<axis>& in);
}

namespace {

constexpr std::uint32_t kUntouched = 0xA5A5A5A5;

struct Shape {
  unsigned channels, height, width;
  unsigned cp_log2() const {
    unsigned log2 = 0;
    while (log2 < 6 && (1u << log2) < channels) ++log2;
    return log2;
  }
  unsigned block() const { return 1u << cp_log2(); }
  unsigned blocks() const { return (channels + block() - 1) / block(); }
  unsigned words() const { return (height * width * blocks() * block() + 63) / 64; }
  /// Byte of (y, x, c) in the core's format.
  unsigned at(unsigned pixel, unsigned c) const {
    return (pixel * blocks() + c / block()) * block() + c % block();
  }
};

std::uint8_t quantise_reference(double v, double scale, int zero_point) {
  if (std::isnan(v)) return static_cast<std::uint8_t>(zero_point);
  // The division is a float division in ONNX QuantizeLinear.
  const double r =
      std::nearbyint(static_cast<double>(static_cast<float>(v) / static_cast<float>(scale))) +
      zero_point;
  return static_cast<std::uint8_t>(std::clamp(r, 0.0, 255.0));
}

std::vector<word_t> to_words(const void* data, std::size_t bytes) {
  std::vector<word_t> words((bytes + 63) / 64);
  std::memcpy(words.data(), data, bytes);
  return words;
}

class InputAdapter : public ::testing::TestWithParam<std::tuple<Shape, int, int>> {};

TEST_P(InputAdapter, MatchesReference) {
  const auto [shape, type, order] = GetParam();
  const unsigned batch = 3, pixels = shape.height * shape.width;
  const unsigned elements = shape.channels * pixels;
  const unsigned size = type == 0 ? 1 : 4;
  const unsigned image_words = (elements * size + 63) / 64;
  const float scale = 0.037f, mul = 1.0f / 255, add = -0.3f;
  const int zero_point = 11;
  const unsigned seed = 7 * shape.channels + 100 * type + order;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 rng(seed);

  std::vector<word_t> memory(batch * image_words);
  std::vector<std::uint8_t> expected(batch * shape.words() * 64, 0x80);
  for (unsigned n = 0; n < batch; ++n) {
    auto* image = reinterpret_cast<std::uint8_t*>(memory.data()) + n * image_words * 64;
    for (unsigned p = 0; p < pixels; ++p) {
      for (unsigned c = 0; c < shape.channels; ++c) {
        const unsigned element = order == 0 ? c * pixels + p : p * shape.channels + c;
        double value;
        if (type == 0) {
          image[element] = static_cast<std::uint8_t>(rng());
          value = static_cast<float>(image[element]) * mul + add;
        } else {
          float f = std::uniform_real_distribution<float>(-3, 12)(rng);
          if (rng() % 50 == 0) f = std::numeric_limits<float>::quiet_NaN();
          if (rng() % 50 == 0) f = std::numeric_limits<float>::infinity();
          if (rng() % 10 == 0) f = scale * (static_cast<float>(rng() % 200) + 0.5f);  // ties
          std::memcpy(image + 4 * element, &f, 4);
          value = f;
        }
        expected[n * shape.words() * 64 + shape.at(p, c)] =
            quantise_reference(value, scale, zero_point) ^ 0x80;
      }
    }
  }
  hls::stream<axis> stream;
  std::uint32_t status = kUntouched;
  latchkey_input(memory.data(), batch, shape.channels, shape.height, shape.width,
                 static_cast<std::uint32_t>(type), static_cast<std::uint32_t>(order),
                 shape.cp_log2(), shape.words(), image_words, scale, zero_point, mul, add, &status,
                 stream);
  EXPECT_EQ(status, static_cast<std::uint32_t>(adapter_status::ok));
  ASSERT_EQ(stream.size(), batch * shape.words());
  for (unsigned w = 0; w < batch * shape.words(); ++w) {
    const axis beat = stream.read();
    EXPECT_EQ(beat.last, w + 1 == batch * shape.words());
    EXPECT_EQ(beat.keep, ~std::uint64_t{0});
    ASSERT_EQ(std::memcmp(beat.data.data(), &expected[64 * w], 64), 0) << "word " << w;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, InputAdapter,
    ::testing::Combine(::testing::Values(Shape{1, 28, 28}, Shape{784, 1, 1}, Shape{3, 9, 7},
                                         Shape{3, 31, 23}, Shape{16, 5, 5}, Shape{20, 7, 9},
                                         Shape{64, 3, 4}, Shape{130, 3, 2}, Shape{33, 2, 5}),
                       ::testing::Values(0, 1), ::testing::Values(0, 1)));

/// Card memory that counts the cycles that a schedule spends beside its port transfers.
struct counting_memory {
  const word_t* words;
  unsigned* cycles;
};
void read_words(counting_memory memory, std::uint64_t first, unsigned count, word_t* to) {
  std::copy_n(memory.words + first, count, to);
}
void spend(counting_memory& memory, unsigned cycles) { *memory.cycles += cycles; }

struct beat_sink {
  unsigned beats = 0;
  void write(const beat_t&) { ++beats; }
};

struct RateCase {
  Shape shape;
  dtype type;
  layout order;
  unsigned beyond;  // cycles beside one per beat
};

class InputRate : public ::testing::TestWithParam<RateCase> {};

TEST_P(InputRate, BeatsFollowEachOther) {
  const RateCase& c = GetParam();
  const unsigned size = element_bytes(c.type);
  const unsigned elements = c.shape.channels * c.shape.height * c.shape.width;
  const unsigned image_words = (elements * size + 63) / 64;
  const std::vector<word_t> memory(2 * image_words);
  unsigned cycles = 0;
  beat_sink sink;
  const auto ram = std::make_unique<input_ram>();
  const input_args args{2,
                        c.shape.channels,
                        c.shape.height,
                        c.shape.width,
                        c.type,
                        c.order,
                        c.shape.cp_log2(),
                        c.shape.words(),
                        image_words,
                        1.0f,
                        0,
                        1.0f,
                        0.0f};
  ASSERT_EQ(input_adapter(counting_memory{memory.data(), &cycles}, sink, args, *ram),
            adapter_status::ok);
  EXPECT_EQ(sink.beats, 2 * c.shape.words());
  EXPECT_EQ(cycles, 2 * c.beyond);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, InputRate,
    ::testing::Values(RateCase{{3, 224, 224}, dtype::u8, layout::nchw, 3},
                      RateCase{{3, 224, 224}, dtype::u8, layout::nhwc, 0},
                      RateCase{{1, 28, 28}, dtype::f32, layout::nchw, 3 * 13},
                      RateCase{{4, 32, 32}, dtype::f32, layout::nchw, 16 + 15 * 12},
                      RateCase{{768, 2, 2}, dtype::u8, layout::nhwc, 0},
                      RateCase{{64, 4, 4}, dtype::u8, layout::nchw, 64 + 15 * 63}));

TEST(InputAdapter, ImageLargerThanItsBufferIsRefusedWithANullBeat) {
  hls::stream<axis> stream;
  std::uint32_t status = kUntouched;
  latchkey_input(nullptr, 1, 1, 1024, 1024, 0, 0, 0, 16384, max_image_words + 1, 1, 0, 1, 0,
                 &status, stream);
  EXPECT_EQ(status, static_cast<std::uint32_t>(adapter_status::too_large));
  ASSERT_EQ(stream.size(), 1u);
  const axis beat = stream.read();
  EXPECT_EQ(beat.keep, 0u);
  EXPECT_TRUE(beat.last);
}

struct OutputCase {
  Shape shape;
  output_mode mode;
  unsigned k;
};

class OutputAdapter : public ::testing::TestWithParam<OutputCase> {
 protected:
  static constexpr unsigned kBatch = 4;
  static constexpr float kScale = 0.11f;
  static constexpr int kZero = 131;

  void run(hls::stream<axis>& stream, std::uint32_t* status) {
    const auto& p = GetParam();
    args_ = {kBatch,
             p.shape.channels,
             p.shape.height * p.shape.width,
             p.shape.cp_log2(),
             p.shape.words(),
             0,
             p.mode,
             p.k,
             kScale,
             kZero};
    args_.record_words = (record_bytes(args_) + 63) / 64;
    memory_.assign(kBatch * args_.record_words + 1, word_t());
    std::memset(static_cast<void*>(memory_.data()), 0xA5, memory_.size() * 64);
    latchkey_output(memory_.data(), kBatch, p.shape.channels, args_.pixels, p.shape.cp_log2(),
                    p.shape.words(), args_.record_words, static_cast<std::uint32_t>(p.mode), p.k,
                    kScale, kZero, status, stream);
  }
  const std::uint8_t* record(unsigned n) const { return memory_[n * args_.record_words].data(); }

  output_args args_{};
  std::vector<word_t> memory_;
};

TEST_P(OutputAdapter, MatchesReference) {
  const auto& param = GetParam();
  const Shape& shape = param.shape;
  std::mt19937 rng(shape.channels);
  hls::stream<axis> stream;
  std::vector<std::vector<std::uint8_t>> q(kBatch);  // quantised values, pixel order
  for (unsigned n = 0; n < kBatch; ++n) {
    std::vector<std::uint8_t> bytes(shape.words() * 64, 0x33);
    for (unsigned p = 0; p < shape.height * shape.width; ++p)
      for (unsigned c = 0; c < shape.channels; ++c) {
        q[n].push_back(static_cast<std::uint8_t>(rng()));
        bytes[shape.at(p, c)] = q[n].back() ^ 0x80;
      }
    for (unsigned w = 0; w < shape.words(); ++w) {
      axis beat;
      std::memcpy(beat.data.data(), &bytes[64 * w], 64);
      beat.last = n + 1 == kBatch && w + 1 == shape.words();
      stream.write(beat);
    }
  }
  std::uint32_t status = kUntouched;
  run(stream, &status);
  ASSERT_EQ(status, static_cast<std::uint32_t>(adapter_status::ok));

  const unsigned channels = shape.channels;
  for (unsigned n = 0; n < kBatch; ++n) {
    for (unsigned p = 0; p < args_.pixels; ++p) {
      const std::uint8_t* values = &q[n][p * channels];
      std::vector<double> softmax(channels);
      for (unsigned c = 0; c < channels; ++c)
        softmax[c] = std::exp(double{kScale} * (values[c] - kZero));
      const double sum = std::accumulate(softmax.begin(), softmax.end(), 0.0);
      std::vector<unsigned> order(channels);
      std::iota(order.begin(), order.end(), 0u);
      std::stable_sort(order.begin(), order.end(),
                       [&](unsigned a, unsigned b) { return values[a] > values[b]; });
      for (unsigned c = 0; c < channels; ++c) {
        const unsigned i = p * channels + c;
        float f;
        std::memcpy(&f, record(n) + 4 * i, 4);
        if (param.mode == output_mode::raw) {
          ASSERT_EQ(record(n)[i], values[c]);
        } else if (param.mode == output_mode::dequant) {
          ASSERT_EQ(f, kScale * static_cast<float>(values[c] - kZero));
        } else if (param.mode == output_mode::softmax) {
          ASSERT_NEAR(f, softmax[c] / sum, 1e-5);
        }
      }
      for (unsigned i = 0; param.mode == output_mode::top_k && i < param.k; ++i) {
        std::uint32_t index;
        float f;
        std::memcpy(&index, record(n) + 8 * (p * param.k + i), 4);
        std::memcpy(&f, record(n) + 8 * (p * param.k + i) + 4, 4);
        ASSERT_EQ(index, order[i]);
        ASSERT_NEAR(f, softmax[index] / sum, 1e-5);
      }
    }
  }
  for (int b = 0; b < 64; ++b)
    EXPECT_EQ(memory_.back().data()[b], 0xA5) << "wrote past the records";
}

TEST_P(OutputAdapter, NullBeatWritesNothing) {
  hls::stream<axis> stream;
  axis null_beat;
  null_beat.keep = 0;
  null_beat.last = true;
  stream.write(null_beat);
  std::uint32_t status = kUntouched;
  run(stream, &status);
  EXPECT_EQ(status, static_cast<std::uint32_t>(adapter_status::aborted));
  for (const word_t& w : memory_)
    for (int b = 0; b < 64; ++b) ASSERT_EQ(w.data()[b], 0xA5);
}

TEST_P(OutputAdapter, StreamThatEndsEarlyIsReported) {
  hls::stream<axis> stream;
  axis beat;
  beat.last = true;  // kBatch images need more than one beat
  stream.write(beat);
  std::uint32_t status = kUntouched;
  run(stream, &status);
  EXPECT_EQ(status, static_cast<std::uint32_t>(adapter_status::wrong_length));
  EXPECT_TRUE(stream.empty());
}

INSTANTIATE_TEST_SUITE_P(Modes, OutputAdapter,
                         ::testing::Values(OutputCase{{10, 1, 1}, output_mode::raw, 0},
                                           OutputCase{{10, 1, 1}, output_mode::dequant, 0},
                                           OutputCase{{10, 1, 1}, output_mode::softmax, 0},
                                           OutputCase{{10, 1, 1}, output_mode::top_k, 3},
                                           OutputCase{{100, 3, 2}, output_mode::raw, 0},
                                           OutputCase{{5, 4, 4}, output_mode::top_k, 5},
                                           OutputCase{{65, 2, 2}, output_mode::softmax, 0}));

}  // namespace
