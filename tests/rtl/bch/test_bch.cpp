// lk_bch_encoder and lk_bch_decoder against a reference written from the definition of the code:
// logarithm tables, generator from cyclotomic cosets, long division of polynomials. Nothing is
// shared with the RTL, not even its constants.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "Vlk_bch_decoder.h"
#include "Vlk_bch_decoder___024root.h"
#include "Vlk_bch_encoder.h"
#include "verilated.h"
#include "seed.hpp"

namespace {

constexpr int kN = 255;
constexpr int kK = 131;
constexpr int kT = 18;

// A word: element 0 is the coefficient of x^254.
using Bits = std::vector<std::uint8_t>;

// ---- reference

struct Field {
  std::array<int, 255> exp{};
  std::array<int, 256> log{};
  Field() {
    int v = 1;
    for (int i = 0; i < 255; ++i) {
      exp[i] = v;
      log[v] = i;
      v = v << 1;
      if (v & 0x100) v ^= 0x11D;
    }
  }
  int mul(int a, int b) const { return a == 0 || b == 0 ? 0 : exp[(log[a] + log[b]) % 255]; }
};

const Field& field() {
  static const Field f;
  return f;
}

// Coefficients of the generator, index = power.
std::vector<int> generator() {
  std::set<int> exponents;
  for (int j = 1; j <= 2 * kT; ++j) {
    int e = j;
    do {
      exponents.insert(e);
      e = 2 * e % 255;
    } while (e != j);
  }
  std::vector<int> g{1};
  for (int e : exponents) {
    std::vector<int> next(g.size() + 1, 0);
    for (std::size_t i = 0; i < g.size(); ++i) {
      next[i + 1] ^= g[i];
      next[i] ^= field().mul(g[i], field().exp[e]);
    }
    g = next;
  }
  return g;
}

Bits reference_encode(const Bits& message) {
  const std::vector<int> g = generator();
  std::vector<int> dividend(kN, 0);  // index = power
  for (int i = 0; i < kK; ++i) dividend[kN - 1 - i] = message[i];
  const int degree = static_cast<int>(g.size()) - 1;
  for (int p = kN - 1; p >= degree; --p) {
    if (dividend[p] == 0) continue;
    for (int i = 0; i <= degree; ++i) dividend[p - degree + i] ^= g[i];
  }
  Bits word(message);
  for (int p = degree - 1; p >= 0; --p) word.push_back(static_cast<std::uint8_t>(dividend[p]));
  return word;
}

bool is_codeword(const Bits& word) {
  for (int j = 1; j <= 2 * kT; ++j) {
    int s = 0;
    for (int i = 0; i < kN; ++i) {
      if (word[i] != 0) s ^= field().exp[(kN - 1 - i) * j % 255];
    }
    if (s != 0) return false;
  }
  return true;
}

int distance(const Bits& a, const Bits& b) {
  int d = 0;
  for (std::size_t i = 0; i < a.size(); ++i) d += a[i] != b[i];
  return d;
}

// ---- the modules

class Encoder {
 public:
  Encoder() {
    dut_.rst_ni = 0;
    tick();
    dut_.rst_ni = 1;
    tick();
  }
  ~Encoder() { dut_.final(); }

  // Probabilities of a pause at either side.
  Bits encode(const Bits& message, std::mt19937_64& rng, double in_pause, double out_pause) {
    std::bernoulli_distribution pause_in(in_pause), pause_out(out_pause);
    Bits out;
    std::size_t next = 0;
    for (int cycle = 0; cycle < 20000; ++cycle) {
      dut_.in_valid_i = next < message.size() && !pause_in(rng);
      dut_.in_bit_i = next < message.size() ? message[next] : 1;
      dut_.out_ready_i = !pause_out(rng);
      dut_.eval();
      const bool in = dut_.in_valid_i && dut_.in_ready_o;
      const bool done = dut_.out_valid_o && dut_.out_ready_i && dut_.out_last_o;
      if (dut_.out_valid_o && dut_.out_ready_i) out.push_back(dut_.out_bit_o);
      tick();
      if (in) ++next;
      if (done) return out;
    }
    ADD_FAILURE() << "the encoder did not finish";
    return out;
  }

  void feed_and_clear(const Bits& bits) {
    for (std::uint8_t b : bits) {
      dut_.in_valid_i = 1;
      dut_.in_bit_i = b;
      dut_.out_ready_i = 1;
      tick();
    }
    dut_.in_valid_i = 0;
    dut_.clear_i = 1;
    tick();
    dut_.clear_i = 0;
  }

 private:
  void tick() {
    dut_.clk_i = 0;
    dut_.eval();
    dut_.clk_i = 1;
    dut_.eval();
  }
  VerilatedContext context_;
  Vlk_bch_encoder dut_{&context_};
};

struct Decoded {
  Bits bits;
  bool fail = false;
  int first = 0;  // cycles from the last bit in to the first bit out
  int last = 0;
  int total = 0;  // cycles from the first bit in until the next word is accepted
};

class Decoder {
 public:
  Decoder() {
    dut_.rst_ni = 0;
    tick();
    dut_.rst_ni = 1;
    tick();
  }
  ~Decoder() {
    Verilated::threadContextp(&context_);  // the encoder's was used last and may be gone
    dut_.final();
  }

  void feed(const Bits& word, std::mt19937_64* rng = nullptr) {
    std::bernoulli_distribution pause(0.3);
    for (std::size_t i = 0; i < word.size();) {
      const bool valid = rng == nullptr || !pause(*rng);
      dut_.in_valid_i = valid;
      dut_.in_bit_i = valid ? word[i] : !word[i];
      dut_.eval();
      ASSERT_TRUE(dut_.in_ready_o);
      ASSERT_FALSE(dut_.out_valid_o);
      tick();
      if (valid) ++i;
    }
    // A bit offered while the decoder works must not be taken.
    dut_.in_valid_i = 1;
    dut_.in_bit_i = 1;
  }

  Decoded decode(const Bits& word, std::mt19937_64* rng = nullptr) {
    Decoded d;
    const std::uint64_t begin = cycle_;
    feed(word, rng);
    for (int c = 1; c < 5000; ++c) {
      dut_.eval();
      if (dut_.out_valid_o) {
        if (d.bits.empty()) d.first = c;
        d.bits.push_back(dut_.out_bit_o);
        if (!dut_.out_last_o) EXPECT_FALSE(dut_.fail_o);
      } else {
        EXPECT_FALSE(dut_.out_bit_o || dut_.out_last_o || dut_.fail_o);
        EXPECT_TRUE(d.bits.empty()) << "gap in the output";
      }
      const bool last = dut_.out_last_o;
      if (last) {
        d.fail = dut_.fail_o;
        d.last = c;
        dut_.in_valid_i = 0;
      } else {
        EXPECT_FALSE(dut_.in_ready_o);
      }
      tick();
      if (last) {
        EXPECT_TRUE(dut_.in_ready_o);
        d.total = static_cast<int>(cycle_ - begin);
        EXPECT_EQ(d.bits.size(), static_cast<std::size_t>(kN));
        d.bits.resize(kN);
        return d;
      }
    }
    ADD_FAILURE() << "the decoder did not finish";
    d.bits.resize(kN);
    return d;
  }

  void clear() {
    dut_.in_valid_i = 0;
    dut_.clear_i = 1;
    tick();
    dut_.clear_i = 0;
    dut_.eval();
    EXPECT_TRUE(dut_.in_ready_o);
    EXPECT_FALSE(dut_.out_valid_o);
  }
  void run(int cycles) {
    for (int i = 0; i < cycles; ++i) tick();
  }

  // Decodes from reset until the state register holds `code`, at the earliest when 20 bits are in;
  // without a code to the end. Notes every code on the way.
  bool run_to(const Bits& word, int code, std::set<int>* seen = nullptr) {
    reset();
    std::size_t next = 0;
    for (int c = 0; c < kTotalLimit; ++c) {
      if (seen != nullptr) seen->insert(state());
      if (c >= 20 && state() == code) return true;
      dut_.in_valid_i = next < word.size();
      dut_.in_bit_i = next < word.size() && word[next];
      dut_.eval();
      next += dut_.in_valid_i && dut_.in_ready_o;
      tick();
    }
    return false;
  }
  void reset() {
    dut_.rst_ni = 0;
    tick();
    dut_.rst_ni = 1;
  }
  std::uint8_t& state() { return dut_.rootp->lk_bch_decoder__DOT__state_q; }
  // Whatever is offered, the decoder takes nothing, hands nothing out and holds nothing.
  void expect_trapped() {
    tick();
    for (int i = 0; i < 2000; ++i) {
      dut_.in_valid_i = 1;
      dut_.clear_i = i % 100 == 50;
      dut_.eval();
      ASSERT_FALSE(dut_.in_ready_o || dut_.out_valid_o || dut_.out_last_o || dut_.fail_o) << i;
      for (int w = 0; w < 8; ++w) ASSERT_EQ(dut_.rootp->lk_bch_decoder__DOT__word_q[w], 0u);
      tick();
    }
    dut_.in_valid_i = dut_.clear_i = 0;
  }

 private:
  static constexpr int kTotalLimit = 1215;
  void tick() {
    dut_.clk_i = 0;
    dut_.eval();
    dut_.clk_i = 1;
    dut_.eval();
    ++cycle_;
  }
  VerilatedContext context_;
  Vlk_bch_decoder dut_{&context_};
  std::uint64_t cycle_ = 0;
};

constexpr int kFirst = 706;
constexpr int kLast = 960;
constexpr int kTotal = 1215;

class Bch : public ::testing::Test {
 protected:
  Bits random_message() {
    Bits m(kK);
    for (auto& b : m) b = rng_() & 1;
    return m;
  }
  std::vector<int> random_positions(int weight, int low = 0, int high = kN) {
    std::vector<int> all;
    for (int i = low; i < high; ++i) all.push_back(i);
    std::shuffle(all.begin(), all.end(), rng_);
    all.resize(weight);
    return all;
  }
  static Bits flip(Bits word, const std::vector<int>& positions) {
    for (int p : positions) word[p] ^= 1;
    return word;
  }
  // Decodes sent + errors and expects `sent` back in the constant number of cycles.
  void expect_corrected(const Bits& sent, const std::vector<int>& errors, bool pauses) {
    const Decoded d = decoder_.decode(flip(sent, errors), pauses ? &rng_ : nullptr);
    ASSERT_FALSE(d.fail) << errors.size() << " errors";
    ASSERT_EQ(d.bits, sent) << errors.size() << " errors";
    ASSERT_EQ(d.first, kFirst);
    ASSERT_EQ(d.last, kLast);
    if (!pauses) ASSERT_EQ(d.total, kTotal);
  }

  std::uint64_t seed_ = latchkey::test::test_seed(20240520);
  std::mt19937_64 rng_{seed_};
  ::testing::ScopedTrace trace_{__FILE__, __LINE__, "LATCHKEY_SEED=" + std::to_string(seed_)};
  Decoder decoder_;
  Encoder encoder_;
};

TEST_F(Bch, GeneratorHasTheDegreeAndTheRtlUsesIt) {
  const std::vector<int> g = generator();
  ASSERT_EQ(g.size(), static_cast<std::size_t>(kN - kK + 1));
  for (int c : g) ASSERT_TRUE(c == 0 || c == 1);
  // The message 0..01 is x^124: its code word is the generator.
  Bits message(kK, 0);
  message[kK - 1] = 1;
  const Bits word = encoder_.encode(message, rng_, 0, 0);
  ASSERT_EQ(word.size(), static_cast<std::size_t>(kN));
  for (int p = 0; p < kN; ++p) {
    ASSERT_EQ(word[kN - 1 - p], p < static_cast<int>(g.size()) ? g[p] : 0) << "x^" << p;
  }
}

TEST_F(Bch, EncoderMatchesLongDivision) {
  for (int trial = 0; trial < 200; ++trial) {
    const Bits message = trial == 0 ? Bits(kK, 0) : trial == 1 ? Bits(kK, 1) : random_message();
    const Bits want = reference_encode(message);
    ASSERT_TRUE(is_codeword(want));
    const double pause = trial % 2 == 0 ? 0.0 : 0.4;
    ASSERT_EQ(encoder_.encode(message, rng_, pause, pause), want) << "trial " << trial;
  }
}

TEST_F(Bch, EncoderForgetsAClearedWord) {
  for (int length : {1, 60, 131}) {
    encoder_.feed_and_clear(Bits(length, 1));
    const Bits message = random_message();
    ASSERT_EQ(encoder_.encode(message, rng_, 0, 0), reference_encode(message));
  }
}

TEST_F(Bch, ReferenceRejectsNonCodewords) {
  const Bits word = reference_encode(random_message());
  for (int i = 0; i < kN; ++i) ASSERT_FALSE(is_codeword(flip(word, {i})));
}

TEST_F(Bch, EverySinglePositionIsCorrected) {
  for (int i = 0; i < kN; ++i) {
    expect_corrected(reference_encode(random_message()), {i}, false);
    if (HasFatalFailure()) return;
  }
}

TEST_F(Bch, UpToEighteenErrorsAreCorrectedInConstantTime) {
  int words = 0;
  for (int weight = 0; weight <= kT; ++weight) {
    for (int trial = 0; trial < 300; ++trial, ++words) {
      expect_corrected(reference_encode(random_message()), random_positions(weight),
                       trial % 4 == 3);
      if (HasFatalFailure()) return;
    }
  }
  RecordProperty("words", words);
}

TEST_F(Bch, BurstsAreCorrected) {
  for (int weight = 1; weight <= kT; ++weight) {
    std::vector<int> starts{0, kK - weight, kK - weight / 2, kK, kN - weight};
    for (int i = 0; i < 5; ++i) starts.push_back(static_cast<int>(rng_() % (kN - weight + 1)));
    for (int start : starts) {
      std::vector<int> burst;
      for (int i = 0; i < weight; ++i) burst.push_back(start + i);
      expect_corrected(reference_encode(random_message()), burst, false);
      if (HasFatalFailure()) return;
    }
  }
  // 18 errors spread over a burst of 36 and over a cyclic burst around the ends.
  for (int trial = 0; trial < 30; ++trial) {
    const int start = static_cast<int>(rng_() % (kN - 36));
    expect_corrected(reference_encode(random_message()), random_positions(kT, start, start + 36),
                     false);
    if (HasFatalFailure()) return;
    std::vector<int> ends;
    for (int i = 0; i < kT; ++i) ends.push_back(i < trial % kT ? i : kN - 1 - i);
    expect_corrected(reference_encode(random_message()), ends, false);
    if (HasFatalFailure()) return;
  }
}

TEST_F(Bch, EighteenErrorsInTheMessageOrInTheParityAlone) {
  for (int trial = 0; trial < 20; ++trial) {
    expect_corrected(reference_encode(random_message()), random_positions(kT, 0, kK), false);
    expect_corrected(reference_encode(random_message()), random_positions(kT, kK, kN), false);
    if (HasFatalFailure()) return;
  }
}

// More than 18 errors: a word is either flagged, or it lies within 18 errors of another code word
// and nobody can tell. Of random error patterns the share of the second kind is about 1/18!, so
// none is to be seen here. The time taken is the same.
TEST_F(Bch, MoreThanEighteenErrorsAreFlagged) {
  int words = 0, flagged = 0, miscorrected = 0;
  for (int weight = kT + 1; weight <= 30; ++weight) {
    for (int trial = 0; trial < 250; ++trial, ++words) {
      const Bits sent = reference_encode(random_message());
      const Bits received = flip(sent, random_positions(weight));
      const Decoded d = decoder_.decode(received);
      ASSERT_EQ(d.first, kFirst);
      ASSERT_EQ(d.last, kLast);
      ASSERT_EQ(d.total, kTotal);
      if (d.fail) {
        ++flagged;
      } else {
        ++miscorrected;
        ASSERT_TRUE(is_codeword(d.bits));
        ASSERT_LE(distance(d.bits, received), kT);
        ASSERT_NE(d.bits, sent);
      }
    }
  }
  RecordProperty("words", words);
  RecordProperty("flagged", flagged);
  RecordProperty("miscorrected", miscorrected);
  EXPECT_EQ(flagged, words);
}

TEST_F(Bch, RandomWordsAreFlagged) {
  for (int trial = 0; trial < 300; ++trial) {
    Bits noise(kN);
    for (auto& b : noise) b = rng_() & 1;
    const Decoded d = decoder_.decode(noise);
    ASSERT_TRUE(d.fail);
    ASSERT_EQ(d.last, kLast);
  }
  ASSERT_TRUE(decoder_.decode(flip(Bits(kN, 0), random_positions(19))).fail);
  // All ones is a code word of this code: x + 1 does not divide the generator.
  ASSERT_TRUE(is_codeword(Bits(kN, 1)));
  ASSERT_FALSE(decoder_.decode(Bits(kN, 1)).fail);
}

TEST_F(Bch, AFailedWordLeavesNoTrace) {
  for (int trial = 0; trial < 20; ++trial) {
    const Bits sent = reference_encode(random_message());
    ASSERT_TRUE(decoder_.decode(flip(sent, random_positions(25))).fail);
    expect_corrected(reference_encode(random_message()), random_positions(kT), false);
    if (HasFatalFailure()) return;
  }
}

TEST_F(Bch, ClearDropsTheWordInEveryStep) {
  for (int cycles : {0, 1, 2, 20, 21, 40, 400, 703, 704, 705, 706, 800, 959}) {
    decoder_.feed(reference_encode(random_message()));
    decoder_.run(cycles);
    decoder_.clear();
    expect_corrected(reference_encode(random_message()), random_positions(kT), false);
    if (HasFatalFailure()) return;
  }
  decoder_.feed(Bits(100, 1));
  decoder_.clear();
  expect_corrected(reference_encode(random_message()), random_positions(kT), false);
}

// One and two flipped bits of the state register, in every state there is.
TEST_F(Bch, FlippedStateBitsTrap) {
  const Bits word = encoder_.encode(Bits(kK, 1), rng_, 0, 0);
  std::set<int> codes;
  decoder_.run_to(word, -1, &codes);
  ASSERT_EQ(codes.size(), 6u);
  for (const int code : codes) {
    for (int a = 0; a < 6; ++a) {
      for (int b = a; b < 6; ++b) {  // a == b: one flip
        const int bad = code ^ 1 << a ^ (a == b ? 0 : 1 << b);
        SCOPED_TRACE("state " + std::to_string(code) + " -> " + std::to_string(bad));
        ASSERT_EQ(codes.count(bad), 0u) << "two codes are too near";
        ASSERT_TRUE(decoder_.run_to(word, code));
        decoder_.state() = static_cast<std::uint8_t>(bad);
        ASSERT_NO_FATAL_FAILURE(decoder_.expect_trapped());
      }
    }
  }
  decoder_.reset();
  const Decoded d = decoder_.decode(word);
  EXPECT_EQ(d.bits, word) << "a reset leaves the trap";
}

}  // namespace
