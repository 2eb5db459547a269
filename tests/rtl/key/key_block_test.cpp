// The key block of the operate build against its software twin, with the PUF and the fuses played
// by the test: right keys, every class of wrong input, the order of commands, lock-out, wiping,
// timing.
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wgnu-anonymous-struct"
#include "Vlk_key_block.h"
#include "Vlk_key_block___024root.h"
#pragma clang diagnostic pop
#include "key_twin.h"
#include "latchkey_spec.hpp"
#include "verilated.h"

namespace {

using namespace latchkey::test;

constexpr std::uint32_t kConfig = 0x20C0FFEE, kBuildVersion = latchkey::spec::build_version;
constexpr std::uint16_t kLcOpen = 0x0240, kLcEnrolled = 0x5A69, kLcLocked = 0x7FFB;
constexpr int kStart = 1, kUnwrap = 2, kZeroise = 3, kAttest = 6, kNonce = 7, kTicket = 8;
constexpr std::uint32_t kNoLimit = 0xffffffff;
enum state { kIdle = 0, kBusy = 1, kStarted = 2, kLoaded = 3, kFailed = 4, kLocked = 5 };
enum error {
  kNone = 0,
  kIllegal = 1,
  kHelper = 2,
  kKey = 3,
  kManifest = 4,
  kBadConfig = 5,
  kVersion = 6,
  kLifeCycle = 7,
  kLockout = 8,
  kDevice = 9,
  kHealth = 10,
  kTamper = 11,
  kEpoch = 14,
  kTicketRequired = 15,
  kTicketStale = 16,
  kTicketExpired = 17,
  kBadMessage = 18
};

class KeyBlock : public ::testing::Test {
 protected:
  void SetUp() override { power_up(); }
  void TearDown() override {
    if (dut_) dut_->final();
  }

  void power_up() {
    dut_ = std::make_unique<Vlk_key_block>(&context_);
    dut_->fuse_lc_state_i = kLcEnrolled;
    dut_->fuse_enrolled_i = 1;
    dut_->fuse_min_version_i = 0;
    dut_->build_hash_i = 0x1234abcd;
    dut_->build_flags_i = 1;
    floor_version_.fill(0);
    floor_epoch_.fill(0);
    rows_.clear();
    reset();
  }

  void reset() {
    dut_->rst_ni = 0;
    rows_.clear();
    tick();
    tick();
    dut_->rst_ni = 1;
    tick();
  }

  /// One clock. The test is the PUF: a start is answered, after `puf_delay_` cycles, by 64 words.
  void tick() {
    dut_->puf_resp_valid_i = 0;
    dut_->puf_done_i = 0;
    dut_->puf_resp_i[0] = dut_->puf_resp_i[1] = dut_->puf_resp_i[2] = 0;
    if (!rows_.empty() && cycle_ >= rows_.front().first) {
      const int row = rows_.front().second;
      rows_.pop_front();
      if (row < 64) {
        dut_->puf_resp_valid_i = 1;
        dut_->puf_resp_idx_i = static_cast<std::uint8_t>(row);
        for (int w = 0; w < 3; ++w) dut_->puf_resp_i[w] = load_le32(&answer_[12 * row + 4 * w]);
      } else {
        dut_->puf_done_i = 1;
        dut_->puf_health_fail_i = health_fail_;
        dut_->puf_unstable_i = 77;
      }
    }
    // Random numbers two cycles after they are asked for; fuses burn at the clock.
    dut_->trng_valid_i = trng_works_ && dut_->trng_req_o && ++trng_wait_ >= 3;
    if (dut_->trng_valid_i) trng_wait_ = 0;
    dut_->trng_data_i = dut_->trng_valid_i ? static_cast<std::uint32_t>(rng_()) : 0;
    dut_->clk_i = 0;
    dut_->eval();
    const std::size_t slot = dut_->fuse_slot_o;
    dut_->fuse_floor_version_i = floor_version_[slot];
    dut_->fuse_floor_epoch_i = floor_epoch_[slot];
    dut_->eval();
    if (dut_->fuse_prog_floor_o && fuses_burn_ && dut_->rst_ni) {
      ++burns_;
      floor_version_[slot] =
          std::max<std::uint32_t>(floor_version_[slot], dut_->fuse_floor_version_o);
      floor_epoch_[slot] = std::max<std::uint32_t>(floor_epoch_[slot], dut_->fuse_floor_epoch_o);
    }
    if (dut_->puf_start_o && puf_works_) {
      for (int r = 0; r < 64 - missing_rows_; ++r)
        rows_.emplace_back(cycle_ + 20 + row_pitch_ * r, r);
      rows_.emplace_back(cycle_ + 20 + row_pitch_ * 64, 64);
    }
    dut_->clk_i = 1;
    dut_->eval();
    ++cycle_;
    if (dut_->wipe_o) ++wipes_;
    if (watch_) watch_();
    EXPECT_TRUE(dut_->key_valid_o || from_wide(dut_->key_o, 16) == bytes(16));
  }

  void rewind() {
    dut_->fill_clear_i = 1;
    tick();
    dut_->fill_clear_i = 0;
  }
  template <typename We>
  void fill(We& we, const bytes& data, std::size_t words) {
    for (std::size_t w = 0; w < words; ++w) {
      we = 1;
      dut_->wdata_i = 4 * w < data.size() ? load_le32(&data[4 * w]) : 0;
      tick();
    }
    we = 0;
  }
  void fill_helper(const bytes& h) { fill(dut_->helper_we_i, h, h.size() / 4); }
  void fill_manifest(const bytes& m) { fill(dut_->manifest_we_i, m, m.size() / 4); }
  void fill_message(const bytes& m) { fill(dut_->msg_we_i, m, m.size() / 4); }
  void fill_blob(const bytes& b) { fill(dut_->blob_we_i, b, b.size() / 4); }

  void command(int c) {
    dut_->cmd_valid_i = 1;
    dut_->cmd_i = static_cast<std::uint8_t>(c);
    tick();
    dut_->cmd_valid_i = 0;
  }
  /// Gives the command and waits; returns the cycles it took.
  std::uint64_t run(int c) {
    command(c);
    std::uint64_t n = 1;
    while (dut_->busy_o) {
      tick();
      if (++n > 3000000) throw std::runtime_error("the key block does not come back");
    }
    return n;
  }

  std::uint64_t start(const device& d) {
    answer_ = d.scan;
    rewind();
    fill_helper(d.helper);
    return run(kStart);
  }
  std::uint64_t unwrap(const bytes& manifest, const bytes& blob) {
    rewind();
    fill_manifest(manifest);
    fill_blob(blob);
    return run(kUnwrap);
  }

  std::uint64_t attest(const bytes& challenge, std::uint32_t slot) {
    rewind();
    fill_message(attest_message(challenge, slot));
    return run(kAttest);
  }
  static bytes attest_message(const bytes& challenge, std::uint32_t slot) {
    bytes m = challenge;
    m.resize(36);
    store_le32(&m[32], slot);
    return m;
  }
  /// The answer as docs/registers.md spells it, from what the test feeds the block.
  bytes attested(const device& d, const bytes& challenge, std::uint8_t slot) {
    bytes m(92);
    std::memcpy(m.data(), "LKAT", 4);
    store_le32(&m[4], 1);
    std::copy(challenge.begin(), challenge.end(), m.begin() + 8);
    store_le32(&m[40], slot);
    std::copy(d.id.begin(), d.id.end(), m.begin() + 44);
    store_le32(&m[60], kBuildVersion);
    store_le32(&m[64], dut_->build_hash_i);
    store_le32(&m[68], dut_->build_flags_i);
    store_le32(&m[72], kConfig);
    store_le32(&m[76], dut_->fuse_lc_state_i);
    store_le32(&m[80], dut_->fuse_min_version_i);
    store_le32(&m[84], floor_version_[slot]);
    store_le32(&m[88], floor_epoch_[slot]);
    return hmac_sha256(d.attest_key(slot), m);
  }
  bytes answer_out() { return from_wide(dut_->attest_o, 32); }

  struct ticket_fields {
    std::uint32_t slot = 5, version = 0, epoch = 0, runs = kNoLimit, time = kNoLimit;
  };
  bytes make_ticket(const bytes& key, const bytes& nonce, const ticket_fields& f) {
    bytes t(48);
    std::memcpy(t.data(), "LKTK", 4);
    store_le32(&t[4], 1);
    std::copy(nonce.begin(), nonce.end(), t.begin() + 8);
    const std::uint32_t words[] = {f.slot, f.version, f.epoch, f.runs, f.time, 0};
    for (std::size_t i = 0; i < 6; ++i) store_le32(&t[24 + 4 * i], words[i]);
    const bytes mac = hmac_sha256(key, t);
    t.insert(t.end(), mac.begin(), mac.end());
    return t;
  }
  bytes nonce() {
    run(kNonce);
    return from_wide(dut_->nonce_o, 16);
  }
  std::uint64_t present(const bytes& ticket) {
    rewind();
    fill_message(ticket);
    return run(kTicket);
  }
  /// Nonce, ticket of the slot's owner, and back.
  std::uint64_t grant(const device& d, const ticket_fields& f) {
    return present(make_ticket(d.ticket_key(static_cast<std::uint8_t>(f.slot)), nonce(), f));
  }
  void start_run() {
    dut_->run_start_i = 1;
    tick();
    dut_->run_start_i = 0;
    tick();
    while (dut_->busy_o) tick();
  }

  void expect(int state, int err, const std::string& what = "") {
    EXPECT_EQ(dut_->state_o, state) << what;
    EXPECT_EQ(dut_->err_o, err) << what;
    EXPECT_EQ(dut_->key_valid_o, state == kLoaded) << what;
    EXPECT_EQ(dut_->manifest_valid_o, state == kLoaded) << what;
  }
  bytes key() { return from_wide(dut_->key_o, 16); }

  struct package {
    bytes dek, manifest, blob;
  };
  package make_package(const device& d, manifest_fields f = {}) {
    if (f.config == 0) f.config = kConfig;
    package p;
    p.dek = random_bytes(rng_, 16);
    p.manifest = make_manifest(rng_, d.id, f);
    p.blob = wrap_model_key(d.kek(static_cast<std::uint8_t>(f.slot), f.epoch), p.dek, p.manifest);
    return p;
  }

  /// Flips `n` of the 255 selected responses of a block.
  device noisy(const device& d, const std::array<int, 8>& errors) {
    device out = d;
    for (std::size_t b = 0; b < 8; ++b) {
      std::vector<std::size_t> pos(kBlock);
      std::iota(pos.begin(), pos.end(), b * kBlock);
      std::shuffle(pos.begin(), pos.end(), rng_);
      for (int e = 0; e < errors[b]; ++e) {
        const std::size_t i = d.where[pos[static_cast<std::size_t>(e)]];
        set_bit(out.scan, i, !get_bit(out.scan, i));
      }
    }
    // What is not selected may be anything.
    for (std::size_t i = 0; i < kScanBits; ++i) {
      if (!get_bit(d.mask, i)) set_bit(out.scan, i, rng_() & 1);
    }
    return out;
  }

  /// True if eight consecutive bytes of `secret`, at a word boundary, stand anywhere in the state
  /// of the simulated block, in either byte order.
  bool state_holds(const bytes& secret) {
    const auto* mem = reinterpret_cast<const std::uint8_t*>(dut_->rootp);
    const std::size_t size = sizeof(*dut_->rootp);
    for (std::size_t i = 0; i + 8 <= secret.size(); i += 4) {
      std::uint8_t le[8], be[8];
      std::memcpy(le, &secret[i], 8);
      for (int k = 0; k < 4; ++k) {  // two words as SHA-256 keeps them
        be[k] = secret[i + 3 - k];
        be[4 + k] = secret[i + 7 - k];
      }
      for (std::size_t a = 0; a + 8 <= size; a += 4) {
        if (std::memcmp(mem + a, le, 8) == 0 || std::memcmp(mem + a, be, 8) == 0) return true;
      }
    }
    return false;
  }
  std::map<std::string, bytes> secrets(const device& d, const package& p,
                                       const manifest_fields& f = {}) {
    return {{"model key", p.dek},
            {"PRK", d.prk},
            {"owner KEK", d.kek(static_cast<std::uint8_t>(f.slot), f.epoch)},
            {"slot root", d.root(static_cast<std::uint8_t>(f.slot))},
            {"attestation key", d.attest_key(static_cast<std::uint8_t>(f.slot))},
            {"ticket key", d.ticket_key(static_cast<std::uint8_t>(f.slot))},
            {"MAC key", ladder_key(d.prk, "helper-mac", 0, 0)},
            {"response", d.response},
            {"scan", d.scan}};
  }
  void expect_forgotten(const device& d, const package& p, const std::string& when) {
    for (const auto& [name, secret] : secrets(d, p)) {
      EXPECT_FALSE(state_holds(secret)) << "the " << name << " is still there " << when;
    }
  }

  VerilatedContext context_;
  std::unique_ptr<Vlk_key_block> dut_;
  std::mt19937_64 rng_{4711};
  std::uint64_t cycle_ = 0, wipes_ = 0;
  std::function<void()> watch_;
  bytes answer_ = bytes(kScanBits / 8);
  std::deque<std::pair<std::uint64_t, int>> rows_;
  bool health_fail_ = false, puf_works_ = true, trng_works_ = true, fuses_burn_ = true;
  int trng_wait_ = 0, burns_ = 0;
  std::array<std::uint32_t, 8> floor_version_{}, floor_epoch_{};
  int missing_rows_ = 0;
  int row_pitch_ = 3;  // cycles from one word of the PUF to the next
};

// ---- the good way ------------------------------------------------------------------------------

TEST_F(KeyBlock, RightKeyOnTwentyFourDevices) {
  for (int seed = 0; seed < 24; ++seed) {
    rng_.seed(static_cast<std::uint64_t>(seed) + 100);
    power_up();
    const device d = make_device(rng_);
    std::array<int, 8> errors{};
    for (auto& e : errors) e = static_cast<int>(rng_() % 19);
    if (seed == 0) errors.fill(0);
    if (seed == 1) errors.fill(18);
    start(noisy(d, errors));
    ASSERT_NO_FATAL_FAILURE(expect(kStarted, kNone, "seed " + std::to_string(seed)));
    for (int model = 0; model < 2; ++model) {
      manifest_fields f;
      f.slot = static_cast<std::uint32_t>(rng_() & 7);
      f.epoch = static_cast<std::uint32_t>(rng_());
      const package p = make_package(d, f);
      unwrap(p.manifest, p.blob);
      expect(kLoaded, kNone, "seed " + std::to_string(seed));
      EXPECT_EQ(key(), p.dek) << "seed " << seed;
      EXPECT_EQ(from_wide(dut_->manifest_o, 128), p.manifest) << "seed " << seed;
    }
    EXPECT_EQ(dut_->unstable_o, 77);
    EXPECT_EQ(dut_->lc_state_o, kLcEnrolled);
  }
}

TEST_F(KeyBlock, TimeDependsOnNothingSecret) {
  const device d = make_device(rng_);
  const auto good = start(d);
  RecordProperty("start_cycles_without_puf", std::to_string(good - 212));
  EXPECT_EQ(dut_->start_cycles_o, good) << "the counter is the time of the command";
  for (int i = 0; i < 6; ++i) {
    power_up();
    std::array<int, 8> errors{};
    errors.fill(i == 0 ? 18 : 0);
    if (i == 1) errors[7] = 19;
    if (i == 2) errors.fill(90);
    device bad = noisy(d, errors);
    if (i == 3) bad.helper[1056] ^= 1;
    if (i == 4) bad.helper[1087] ^= 128;
    if (i == 5) bad.helper[8] ^= 1;
    const auto n = start(bad);
    expect(i == 0 ? kStarted : kFailed, i == 0 ? kNone : kKey);
    // A failure is followed by 64 cycles of wiping.
    EXPECT_EQ(n, good + (i == 0 ? 0u : 64u)) << "case " << i;
  }
  std::uint64_t right = 0;
  for (int i = 0; i < 5; ++i) {
    power_up();
    start(d);
    package p = make_package(d);
    if (i == 1) p.blob[0] ^= 1;
    if (i == 2) p.blob[55] ^= 1;
    if (i == 3) p.manifest[8] ^= 1;  // hash: first word differs or not, all the same
    if (i == 4) p.manifest[88] ^= 1;
    const auto n = unwrap(p.manifest, p.blob);
    if (i == 0) right = n;
    expect(i == 0 ? kLoaded : kFailed, i == 0 ? kNone : kKey);
    EXPECT_EQ(n, right + (i == 0 ? 0u : 63u)) << "case " << i;
  }
  RecordProperty("unwrap_cycles", std::to_string(right));
  // A ticket: the same time to the verdict, whatever differs.
  for (int i = 0; i < 4; ++i) {
    power_up();
    start(d);
    bytes t = make_ticket(d.ticket_key(5), nonce(), {});
    if (i == 1) t[48] ^= 1;
    if (i == 2) t[79] ^= 128;
    if (i == 3) t[36] ^= 1;
    const auto n = present(t);
    if (i == 0) right = n;
    expect(i == 0 ? kStarted : kFailed, i == 0 ? kNone : kKey);
    // The good one burns its floors after the verdict, the others wipe.
    EXPECT_EQ(n, right + (i == 0 ? 0u : 62u)) << "case " << i;
  }
}

// ---- wrong inputs ------------------------------------------------------------------------------

TEST_F(KeyBlock, TooManyErrorsAreAGenericFailure) {
  const device d = make_device(rng_);
  for (std::size_t b = 0; b < 8; ++b) {
    power_up();
    std::array<int, 8> errors{};
    errors[b] = 19 + static_cast<int>(rng_() % 30);
    start(noisy(d, errors));
    expect(kFailed, kKey, "block " + std::to_string(b));
  }
  power_up();
  const device other = make_device(rng_);
  device mixed = d;
  mixed.scan = other.scan;  // another chip
  start(mixed);
  expect(kFailed, kKey, "another chip");
}

TEST_F(KeyBlock, EveryClassOfFlippedHelperBit) {
  const device d = make_device(rng_);
  auto try_helper = [&](const std::function<void(bytes&)>& change, int err,
                        const std::string& what) {
    power_up();
    device bad = d;
    change(bad.helper);
    start(bad);
    expect(kFailed, err, what);
    const package p = make_package(d);
    unwrap(p.manifest, p.blob);
    expect(kFailed, kIllegal, what + ", then UNWRAP");
  };
  auto flip = [](std::size_t bit) {
    return [bit](bytes& h) { h[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8)); };
  };
  // Public form.
  for (int i = 0; i < 32; i += 5) try_helper(flip(i), kHelper, "magic");
  for (int i = 32; i < 64; i += 5) try_helper(flip(i), kHelper, "format");
  for (int i = 224; i < 256; i += 7) try_helper(flip(i), kHelper, "reserved word");
  for (int i = 8 * 1055; i < 8 * 1056; i += 3) try_helper(flip(i), kHelper, "last offset byte");
  for (int i = 0; i < 6; ++i) {
    try_helper(flip(256 + rng_() % kScanBits), kHelper, "one mask bit: wrong weight");
  }
  // Everything else is found by the tag alone.
  for (int i = 0; i < 10; ++i) {
    try_helper(flip(64 + rng_() % 128), kKey, "device id");
    try_helper(flip(6400 + rng_() % kResponseBits), kKey, "offset");
    try_helper(flip(8448 + rng_() % 256), kKey, "tag");
  }
  for (int i = 192; i < 224; i += 7) try_helper(flip(i), kKey, "margin");
  for (int i = 0; i < 6; ++i) {
    try_helper(
        [&](bytes& h) {  // weight stays: one bit leaves, its unselected neighbour joins
          std::size_t a = 0, b = 0;
          do a = 256 + rng_() % kScanBits;
          while (!get_bit(h, a));
          do b = 256 + rng_() % kScanBits;
          while (get_bit(h, b));
          set_bit(h, a, false);
          set_bit(h, b, true);
        },
        kKey, "two mask bits");
  }
  // A code word xored to the offset decodes to another response that is just as consistent.
  try_helper(
      [&](bytes& h) {
        std::vector<bool> message(kMessage);
        for (std::size_t i = 0; i < kMessage; ++i) message[i] = rng_() & 1;
        const auto word = bch_encode(message);
        for (std::size_t i = 0; i < kBlock; ++i) {
          set_bit(h, 6400 + i, get_bit(h, 6400 + i) ^ word[i]);
        }
      },
      kKey, "offset moved by a code word");
  power_up();
  start(d);
  expect(kStarted, kNone, "unchanged");
}

TEST_F(KeyBlock, EveryByteOfTheWrappedKey) {
  const device d = make_device(rng_);
  for (std::size_t b = 0; b < 56; ++b) {
    reset();
    start(d);
    package p = make_package(d);
    p.blob[b] ^= static_cast<std::uint8_t>(1u << (rng_() % 8));
    unwrap(p.manifest, p.blob);
    expect(kFailed, kKey, "byte " + std::to_string(b));
    unwrap(p.manifest, p.blob);
    expect(kFailed, kIllegal, "the secret must be gone");
  }
}

TEST_F(KeyBlock, EveryWordOfTheManifest) {
  const device d = make_device(rng_);
  std::map<int, int> codes;  // by word; what is not listed is caught by the hash alone
  for (int w : {0, 1, 15, 19, 25, 26, 27, 28, 29, 30, 31}) codes[w] = kManifest;
  codes[7] = kBadConfig;
  for (int w : {8, 9, 10, 11}) codes[w] = kDevice;
  for (int w = 0; w < 32; ++w) {
    for (int i = 0; i < 2; ++i) {
      reset();
      start(d);
      package p = make_package(d);
      // The low bits of the counts stay plausible; the slot stays a slot.
      const int any = static_cast<int>(rng_() % 32);
      const int bit = w == 16 ? any % 3 : w == 13 ? 0 : w == 19 ? 1 + any % 31 : any;
      if ((w == 12 || w == 14) && bit < 6) continue;
      p.manifest[4 * w + bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
      unwrap(p.manifest, p.blob);
      const auto it = codes.find(w);
      expect(kFailed, it == codes.end() ? kKey : it->second,
             "word " + std::to_string(w) + " bit " + std::to_string(bit));
      EXPECT_FALSE(dut_->manifest_valid_o);
    }
  }
}

// The public checks judge properly wrapped keys as well.
TEST_F(KeyBlock, PublicReasons) {
  const device d = make_device(rng_);
  auto try_fields = [&](const manifest_fields& f, int err, const std::string& what) {
    reset();
    start(d);
    const package p = make_package(d, f);
    unwrap(p.manifest, p.blob);
    expect(err ? kFailed : kLoaded, err, what);
    if (err) expect_forgotten(d, p, "after " + what);
  };
  manifest_fields f;
  f.config = kConfig + 1;
  try_fields(f, kBadConfig, "configuration");
  f = {};
  f.pages = 0;
  f.desc_pages = 0;
  try_fields(f, kManifest, "no pages");
  f = {};
  f.desc_pages = 0;
  try_fields(f, kManifest, "no descriptor pages");
  f = {};
  f.desc_pages = 41;
  try_fields(f, kManifest, "more descriptor pages than pages");
  f = {};
  f.desc_pages = 40;
  try_fields(f, kNone, "nothing but descriptor pages");
  f = {};
  f.descs = 0;
  try_fields(f, kManifest, "no descriptors");
  f = {};
  f.locks = 0;
  try_fields(f, kManifest, "no lock");
  f = {};
  f.locks = 3;
  try_fields(f, kManifest, "unknown lock");
  f = {};
  f.slot = 8;
  try_fields(f, kManifest, "slot 8");
  f = {};
  f.flags = 2;
  try_fields(f, kManifest, "licence flags");
  f.flags = 1;
  try_fields(f, kTicketRequired, "a ticket is wanted");
  f = {};
  f.version = 6;
  dut_->fuse_min_version_i = 7;
  try_fields(f, kVersion, "old version");
  EXPECT_EQ(dut_->min_version_o, 7u);
  f.version = 7;
  try_fields(f, kNone, "version at the minimum");
  dut_->fuse_min_version_i = 0x80000000;
  f.version = 0x7fffffff;
  try_fields(f, kVersion, "versions are unsigned");
  f.version = 0x80000000;
  try_fields(f, kNone, "versions are unsigned");
  dut_->fuse_min_version_i = 0;
  f = {};
  floor_version_[5] = f.version + 1;
  try_fields(f, kVersion, "version below the slot's floor");
  floor_version_[5] = f.version;
  floor_epoch_[5] = f.epoch + 1;
  try_fields(f, kEpoch, "epoch below the slot's floor");
  floor_epoch_[5] = f.epoch;
  floor_epoch_[4] = floor_epoch_[6] = floor_version_[4] = floor_version_[6] = kNoLimit;
  try_fields(f, kNone, "at the floors; others' floors do not matter");
}

TEST_F(KeyBlock, KeysOfOthersDoNotOpen) {
  const device d = make_device(rng_), other = make_device(rng_);
  start(d);
  package p = make_package(other);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kDevice, "another device's package");
  reset();
  start(d);
  p = make_package(d);
  unwrap(p.manifest, wrap_model_key(d.kek(5, 8), p.dek, p.manifest));
  expect(kFailed, kKey, "another epoch's KEK");
  reset();
  start(d);
  unwrap(p.manifest, wrap_model_key(d.kek(6, 7), p.dek, p.manifest));
  expect(kFailed, kKey, "another slot's KEK");
  reset();
  start(d);
  unwrap(p.manifest, wrap_model_key(other.kek(5, 7), p.dek, p.manifest));
  expect(kFailed, kKey, "another device's KEK");
  reset();
  start(d);
  const package q = make_package(d);
  unwrap(p.manifest, q.blob);
  expect(kFailed, kKey, "another model's wrapped key");
}

TEST_F(KeyBlock, LifeCycle) {
  const device d = make_device(rng_);
  const std::pair<int, int> cases[] = {{kLcOpen, 1}, {kLcLocked, 1},          {0, 1},
                                       {0xFFFF, 1},  {kLcEnrolled ^ 0x20, 1}, {kLcEnrolled, 0}};
  for (auto [lc, enrolled] : cases) {
    reset();
    dut_->fuse_lc_state_i = static_cast<std::uint16_t>(lc);
    dut_->fuse_enrolled_i = static_cast<std::uint8_t>(enrolled);
    start(d);
    expect(kFailed, kLifeCycle);
  }
  dut_->fuse_lc_state_i = kLcEnrolled;
  dut_->fuse_enrolled_i = 1;
  start(d);
  expect(kStarted, kNone);
  dut_->fuse_lc_state_i = kLcLocked;
  const package p = make_package(d);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kLifeCycle);
}

// ---- order of commands, windows ----------------------------------------------------------------

TEST_F(KeyBlock, IllegalCommandsChangeNothing) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  for (int c : {kUnwrap, 0, 4, 7, 15}) {
    run(c);
    expect(kIdle, kIllegal);
  }
  EXPECT_EQ(wipes_, 0u);
  start(d);
  expect(kStarted, kNone);
  for (int c : {kStart, 0, 9}) {
    run(c);
    expect(kStarted, kIllegal);
  }
  unwrap(p.manifest, p.blob);
  expect(kLoaded, kNone);
  const auto wipes = wipes_;
  for (int c : {kStart, 0, 9}) {
    run(c);
    expect(kLoaded, kIllegal);
    EXPECT_EQ(key(), p.dek);
  }
  EXPECT_EQ(wipes_, wipes);
  // While busy: the command that runs goes on.
  reset();
  answer_ = d.scan;
  fill_helper(d.helper);
  command(kStart);
  for (int i = 0; i < 5000; ++i) tick();
  for (int c : {kStart, kUnwrap, 12}) {
    command(c);
    EXPECT_EQ(dut_->state_o, kBusy);
    EXPECT_EQ(dut_->err_o, kIllegal);
  }
  while (dut_->busy_o) tick();
  EXPECT_EQ(dut_->state_o, kStarted);
}

TEST_F(KeyBlock, WindowsMustHoldExactlyTheirWords) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  answer_ = d.scan;
  for (int words : {0, 1, 271, 273, 544, 272}) {
    rewind();
    fill(dut_->helper_we_i, d.helper, static_cast<std::size_t>(words));
    run(kStart);
    if (words == 272)
      expect(kStarted, kNone);
    else
      expect(kFailed, kHelper, std::to_string(words) + " words");
  }
  for (auto [m, b] : {std::pair<std::size_t, std::size_t>{31, 14},
                      {33, 14},
                      {0, 14},
                      {32, 13},
                      {32, 15},
                      {32, 0},
                      {64, 14},
                      {32, 14}}) {
    run(kZeroise);
    start(d);
    rewind();
    fill(dut_->manifest_we_i, p.manifest, m);
    fill(dut_->blob_we_i, p.blob, b);
    run(kUnwrap);
    if (m == 32 && b == 14)
      expect(kLoaded, kNone);
    else
      expect(kFailed, kManifest, std::to_string(m) + " and " + std::to_string(b) + " words");
  }
  // Writes while busy are dropped and spoil the next use; the command under way sees what it saw.
  run(kZeroise);
  rewind();
  fill_helper(d.helper);
  command(kStart);
  for (int i = 0; i < 200; ++i) tick();
  fill(dut_->helper_we_i, bytes(1088, 0xff), 20);
  while (dut_->busy_o) tick();
  expect(kStarted, kNone);
  run(kZeroise);
  run(kStart);
  expect(kFailed, kHelper, "written while busy");
  // The same words serve twice.
  rewind();
  fill_helper(d.helper);
  run(kStart);
  expect(kStarted, kNone);
  run(kZeroise);
  run(kStart);
  expect(kStarted, kNone);
}

// The manifest that is handed out is the one that was hashed, whatever happens to the window later.
TEST_F(KeyBlock, VerifiedManifestIsLatched) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  start(d);
  unwrap(p.manifest, p.blob);
  rewind();
  fill_manifest(bytes(128, 0xee));
  fill_helper(bytes(1088, 0xee));
  EXPECT_EQ(from_wide(dut_->manifest_o, 128), p.manifest);
  EXPECT_EQ(key(), p.dek);
  // The device id that manifests are compared with is the authenticated one, not the window's.
  rewind();
  device other = make_device(rng_);
  fill_helper(other.helper);
  const package q = make_package(other);
  fill_manifest(q.manifest);
  fill_blob(q.blob);
  run(kUnwrap);
  expect(kFailed, kDevice);
}

// ---- lock-out, tampering, wiping ---------------------------------------------------------------

TEST_F(KeyBlock, ThreeFailedStartsLock) {
  const device d = make_device(rng_);
  device bad = d;
  bad.helper[1060] ^= 4;
  start(bad);
  expect(kFailed, kKey);
  start(d);
  expect(kStarted, kNone, "a success in between");
  run(kZeroise);
  start(bad);
  expect(kFailed, kKey);
  device malformed = d;
  malformed.helper[0] ^= 1;
  for (int i = 0; i < 4; ++i) {
    start(malformed);
    expect(kFailed, kHelper, "public reasons do not count");
  }
  run(kZeroise);
  start(bad);
  expect(kLocked, kLockout, "the success gave nothing back");
  EXPECT_TRUE(dut_->wipe_o);
  for (int c : {kStart, kUnwrap, kZeroise, 9}) {
    start(d);
    run(c);
    expect(kLocked, kLockout);
    EXPECT_TRUE(dut_->wipe_o);
  }
  reset();
  EXPECT_FALSE(dut_->wipe_o);
  start(d);
  expect(kStarted, kNone);
}

TEST_F(KeyBlock, PufFailures) {
  const device d = make_device(rng_);
  health_fail_ = true;
  start(d);
  expect(kFailed, kHealth);
  health_fail_ = false;
  missing_rows_ = 1;
  start(d);
  expect(kFailed, kHealth, "a word is missing");
  missing_rows_ = 0;
  start(d);
  expect(kStarted, kNone);
  run(kZeroise);
  puf_works_ = false;
  start(d);
  expect(kLocked, kLockout, "the third failed start");
  reset();
  start(d);
  expect(kFailed, kHealth, "no answer");
}

// At the pace of the real PUF every block but the last is decoded before the reading ends; what
// the reading's end says comes first all the same.
TEST_F(KeyBlock, DecodesWhileThePufReads) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  row_pitch_ = 496;
  std::array<int, 8> errors{};
  errors.fill(18);
  const auto cycles = start(noisy(d, errors));
  expect(kStarted, kNone);
  EXPECT_LT(cycles, 64U * 496 + 4500);
  EXPECT_EQ(dut_->start_cycles_o, cycles);
  run(kZeroise);
  health_fail_ = true;
  start(d);
  expect(kFailed, kHealth, "a stuck chain, known after most of the decoding");
  expect_forgotten(d, p, "after a failed health test");
  health_fail_ = false;
  missing_rows_ = 1;
  start(d);
  expect(kFailed, kHealth, "the last word is missing");
  expect_forgotten(d, p, "after a missing word");
  missing_rows_ = 0;
  start(d);
  expect(kStarted, kNone);
}

TEST_F(KeyBlock, ZeroiseAtAnyTime) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  const auto length = start(d);
  for (int i = 0; i < 40; ++i) {
    run(kZeroise);
    expect(kIdle, kNone);
    answer_ = d.scan;
    rewind();
    fill_helper(d.helper);
    command(kStart);
    const auto stop = rng_() % length;
    for (std::uint64_t n = 0; n < stop; ++n) tick();
    wipes_ = 0;
    run(kZeroise);
    expect(kIdle, kNone, "after " + std::to_string(stop) + " cycles");
    EXPECT_GE(wipes_, 4u);
    if (rows_.empty()) expect_forgotten(d, p, "after a ZEROISE at " + std::to_string(stop));
    start(d);
    ASSERT_NO_FATAL_FAILURE(
        expect(kStarted, kNone, "started again after " + std::to_string(stop) + " cycles"));
    rewind();
    fill_manifest(p.manifest);
    fill_blob(p.blob);
    command(kUnwrap);
    const auto stop2 = rng_() % 4800;
    for (std::uint64_t n = 0; n < stop2; ++n) tick();
    run(kZeroise);
    expect(kIdle, kNone);
    expect_forgotten(d, p, "after a ZEROISE during UNWRAP at " + std::to_string(stop2));
  }
}

// Power lost at any time in a START or an UNWRAP costs nothing: no strike, no key left, and both
// work afterwards.
TEST_F(KeyBlock, PowerLossInAStartOrAnUnwrap) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  const auto length = start(d);
  for (int i = 0; i < 40; ++i) {
    reset();
    answer_ = d.scan;
    rewind();
    fill_helper(d.helper);
    command(kStart);
    const auto stop = rng_() % length;
    for (std::uint64_t n = 0; n < stop; ++n) tick();
    reset();
    start(d);
    expect(kStarted, kNone, "started again after " + std::to_string(stop) + " cycles");
    rewind();
    fill_manifest(p.manifest);
    fill_blob(p.blob);
    command(kUnwrap);
    const auto stop2 = rng_() % 4800;
    for (std::uint64_t n = 0; n < stop2; ++n) tick();
    reset();
    EXPECT_FALSE(dut_->key_valid_o);
    EXPECT_FALSE(state_holds(p.dek)) << "after " << stop2 << " cycles of UNWRAP";
    start(d);
    unwrap(p.manifest, p.blob);
    ASSERT_NO_FATAL_FAILURE(
        expect(kLoaded, kNone, "unwrapped again after " + std::to_string(stop2) + " cycles"));
    EXPECT_EQ(key(), p.dek);
  }
}

TEST_F(KeyBlock, TamperLocksFromEveryState) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  for (int where = 0; where < 12; ++where) {
    power_up();
    answer_ = d.scan;
    if (where == 1) {
      device bad = d;
      bad.helper[0] ^= 1;
      start(bad);
    } else if (where >= 2) {
      rewind();
      fill_helper(d.helper);
      command(kStart);
      const std::uint64_t stop = rng_() % 17000;
      for (std::uint64_t n = 0; n < stop || (where > 6 && dut_->busy_o); ++n) tick();
      if (where > 6) {
        rewind();
        fill_manifest(p.manifest);
        fill_blob(p.blob);
        command(kUnwrap);
        for (std::uint64_t n = 0; n < stop % 4000 || (where > 9 && dut_->busy_o); ++n) tick();
      }
      if (where > 9) expect(kLoaded, kNone);
    }
    dut_->tamper_i = 1;
    tick();
    dut_->tamper_i = 0;
    EXPECT_FALSE(dut_->key_valid_o);
    EXPECT_TRUE(dut_->wipe_o);
    EXPECT_EQ(key(), bytes(16));
    while (dut_->busy_o) tick();
    expect(kLocked, kTamper, "case " + std::to_string(where));
    expect_forgotten(d, p, "after tampering");
    start(d);
    run(kZeroise);
    expect(kLocked, kTamper);
  }
}

TEST_F(KeyBlock, WhereSecretsAreAndAreNot) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  start(d);
  EXPECT_TRUE(state_holds(d.prk)) << "the search finds nothing: the test is blind";
  for (const auto& [name, secret] : secrets(d, p)) {
    if (name != "PRK") EXPECT_FALSE(state_holds(secret)) << name << " after START";
  }
  unwrap(p.manifest, p.blob);
  EXPECT_TRUE(state_holds(p.dek));
  for (const auto& [name, secret] : secrets(d, p)) {
    if (name == "PRK" || name == "model key") continue;
    EXPECT_FALSE(state_holds(secret)) << name << " with a key loaded";
  }
  run(kZeroise);
  expect_forgotten(d, p, "after ZEROISE");
  // Failures forget as well.
  device bad = d;
  bad.helper[1070] ^= 1;
  start(bad);
  expect(kFailed, kKey);
  expect_forgotten(d, p, "after a failed START");
  start(d);
  package q = p;
  q.blob[7] ^= 1;
  unwrap(q.manifest, q.blob);
  expect(kFailed, kKey);
  expect_forgotten(d, p, "after a failed UNWRAP");
}

// A new model key: the old one goes first, its users are told, and the new one waits for them.
TEST_F(KeyBlock, ChangeOfModelKeyWaitsForTheWipe) {
  const device d = make_device(rng_);
  const package p = make_package(d), q = make_package(d);
  start(d);
  unwrap(p.manifest, p.blob);
  ASSERT_EQ(key(), p.dek);
  rewind();
  fill_manifest(q.manifest);
  fill_blob(q.blob);
  wipes_ = 0;
  command(kUnwrap);
  EXPECT_FALSE(dut_->key_valid_o);
  EXPECT_TRUE(dut_->wipe_o);
  dut_->wipe_busy_i = 1;
  for (int i = 0; i < 20000; ++i) {
    tick();
    ASSERT_FALSE(dut_->key_valid_o);
  }
  EXPECT_EQ(wipes_, 4u) << "a pulse, so that walkers can finish";
  EXPECT_EQ(dut_->state_o, kBusy);
  dut_->wipe_busy_i = 0;
  tick();
  expect(kLoaded, kNone);
  EXPECT_EQ(key(), q.dek);
  // ZEROISE too is over only when the walkers are.
  dut_->wipe_busy_i = 1;
  command(kZeroise);
  for (int i = 0; i < 1000; ++i) tick();
  EXPECT_EQ(dut_->state_o, kBusy);
  dut_->wipe_busy_i = 0;
  run(0);
  EXPECT_EQ(dut_->state_o, kIdle);
}

// Every output except the sideload, every cycle: no four bytes of any secret, neither side by side
// in a port nor one after the other.
TEST_F(KeyBlock, NoSecretOnAnyPublicOutput) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  const auto all = secrets(d, p);
  std::set<std::uint32_t> words;
  for (const auto& [name, s] : all) {
    for (std::size_t i = 0; i + 4 <= s.size(); ++i) words.insert(load_le32(&s[i]));
  }
  std::map<std::string, bytes> streams;
  std::map<std::string, std::uint64_t> last;
  bytes manifest_before;
  watch_ = [&] {
    const std::pair<const char*, std::uint64_t> ports[] = {
        {"state_o", dut_->state_o},
        {"err_o", dut_->err_o},
        {"unstable_o", dut_->unstable_o},
        {"start_cycles_o", dut_->start_cycles_o},
        {"lc_state_o", dut_->lc_state_o},
        {"min_version_o", dut_->min_version_o},
        {"wipe_o", dut_->wipe_o},
        {"busy_o", dut_->busy_o},
        {"manifest_valid_o", dut_->manifest_valid_o},
        {"runs_left_o", dut_->runs_left_o},
        {"time_left_o", dut_->time_left_o},
        {"nonce_o", dut_->nonce_o[0]},
        {"fuse_slot_o", dut_->fuse_slot_o},
        {"fuse_floor_version_o", dut_->fuse_floor_version_o},
        {"fuse_floor_epoch_o", dut_->fuse_floor_epoch_o},
        {"attest_o[0]", dut_->attest_o[0]},
        {"attest_o[3]", dut_->attest_o[3]},
        {"attest_o[7]", dut_->attest_o[7]}};
    for (auto [name, value] : ports) {
      if (last.count(name) && last[name] == value) continue;
      last[name] = value;
      for (int i = 0; i < 4; ++i) {
        streams[name].push_back(static_cast<std::uint8_t>(value >> (8 * i)));
      }
      streams[std::string(name) + " (low bytes)"].push_back(static_cast<std::uint8_t>(value));
    }
    const bytes m = from_wide(dut_->manifest_o, 128);
    if (m != manifest_before) {
      manifest_before = m;
      for (std::size_t i = 0; i + 4 <= m.size(); ++i) {
        EXPECT_EQ(words.count(load_le32(&m[i])), 0u) << "manifest_o, byte " << i;
      }
    }
  };
  start(d);
  attest(random_bytes(rng_, 32), 5);
  expect(kStarted, kNone);
  grant(d, {});
  expect(kStarted, kNone);
  unwrap(p.manifest, p.blob);
  expect(kLoaded, kNone);
  run(kZeroise);
  start(d);
  package q = p;
  q.blob[20] ^= 1;
  unwrap(q.manifest, q.blob);
  expect(kFailed, kKey);
  watch_ = nullptr;
  EXPECT_GE(streams.size(), 8u);
  for (const auto& [name, s] : streams) {
    for (std::size_t i = 0; i + 4 <= s.size(); ++i) {
      if (load_le32(&s[i]) == 0) continue;
      EXPECT_EQ(words.count(load_le32(&s[i])), 0u) << name << ", byte " << i;
    }
  }
}

// ---- attestation and tickets -------------------------------------------------------------------

TEST_F(KeyBlock, AttestationAgreesWithTheTwin) {
  for (int seed = 0; seed < 8; ++seed) {
    power_up();
    const device d = make_device(rng_);
    const auto slot = static_cast<std::uint8_t>(seed);
    dut_->build_hash_i = static_cast<std::uint32_t>(rng_());
    dut_->build_flags_i = static_cast<std::uint32_t>(rng_() & 15);
    dut_->fuse_min_version_i = static_cast<std::uint32_t>(rng_());
    floor_version_[slot] = static_cast<std::uint32_t>(rng_());
    floor_epoch_[slot] = static_cast<std::uint32_t>(rng_());
    start(d);
    EXPECT_EQ(answer_out(), bytes(32)) << "an answer before a challenge";
    const bytes challenge = random_bytes(rng_, 32);
    const auto cycles = attest(challenge, slot);
    expect(kStarted, kNone);
    RecordProperty("attest_cycles", std::to_string(cycles));
    EXPECT_EQ(answer_out(), attested(d, challenge, slot));
    // Every part of the message counts.
    std::set<bytes> answers{answer_out()};
    auto differs = [&](const bytes& c, std::uint8_t s, const std::string& what) {
      attest(c, s);
      EXPECT_EQ(answer_out(), attested(d, c, s)) << what;
      EXPECT_TRUE(answers.insert(answer_out()).second) << what << " makes no difference";
    };
    bytes other = challenge;
    other[rng_() % 32] ^= 1;
    differs(other, slot, "the challenge");
    differs(challenge, static_cast<std::uint8_t>(slot ^ 1), "the slot");
    dut_->build_hash_i ^= 1;
    differs(challenge, slot, "the build's hash");
    dut_->build_flags_i ^= 8;
    differs(challenge, slot, "the build's flags");
    dut_->fuse_min_version_i ^= 1;
    differs(challenge, slot, "the minimum version");
    floor_version_[slot] ^= 1;
    differs(challenge, slot, "the version floor");
    floor_epoch_[slot] ^= 1;
    differs(challenge, slot, "the epoch floor");
    // Nothing of it stays, and loading goes on as ever.
    const package p = make_package(d);
    for (const auto& [name, secret] : secrets(d, p)) {
      if (name != "PRK") EXPECT_FALSE(state_holds(secret)) << name << " after ATTEST";
    }
    floor_epoch_[5] = floor_version_[5] = dut_->fuse_min_version_i = 0;
    unwrap(p.manifest, p.blob);
    expect(kLoaded, kNone);
    attest(challenge, slot);
    expect(kLoaded, kIllegal, "ATTEST with a key loaded");
    run(kZeroise);
    EXPECT_EQ(answer_out(), bytes(32));
  }
}

TEST_F(KeyBlock, MalformedChallenges) {
  const device d = make_device(rng_);
  const bytes challenge = random_bytes(rng_, 32);
  attest(challenge, 0);
  expect(kIdle, kIllegal, "without a START");
  EXPECT_EQ(answer_out(), bytes(32));
  for (std::size_t words : {0, 8, 10, 20, 21}) {
    run(kZeroise);
    start(d);
    rewind();
    fill(dut_->msg_we_i, attest_message(challenge, 0), words);
    run(kAttest);
    expect(kFailed, kBadMessage, std::to_string(words) + " words");
    EXPECT_EQ(answer_out(), bytes(32));
  }
  for (std::uint32_t slot : {8u, 0x100u, 0x80000000u}) {
    start(d);
    attest(challenge, slot);
    expect(kFailed, kBadMessage, "slot " + std::to_string(slot));
  }
  start(d);
  dut_->fuse_lc_state_i = kLcLocked;
  attest(challenge, 0);
  expect(kFailed, kLifeCycle);
}

// Who holds the root of one slot has the keys of that slot and of no other.
TEST_F(KeyBlock, SlotsShareNoKey) {
  const device d = make_device(rng_);
  std::set<bytes> keys{d.prk};
  for (std::uint8_t s = 0; s < 8; ++s) {
    for (const bytes& k : {d.root(s), d.kek(s, 0), d.kek(s, 1), d.attest_key(s), d.ticket_key(s)})
      EXPECT_TRUE(keys.insert(k).second) << "slot " << int{s};
  }
  // With slot 4's root one makes no package, ticket or answer of slot 5.
  reset();
  start(d);
  package p = make_package(d);
  unwrap(p.manifest, wrap_model_key(ladder_key(d.root(4), "owner-kek", 5, 7), p.dek, p.manifest));
  expect(kFailed, kKey, "a key that was made below another slot's root");
  start(d);
  present(make_ticket(ladder_key(d.root(4), "ticket", 5, 0), nonce(), {}));
  expect(kFailed, kKey, "a ticket of another slot's owner");
  EXPECT_EQ(burns_, 0);
  // A ticket of slot 4 lets in nothing of slot 5.
  start(d);
  ticket_fields f;
  f.slot = 4;
  grant(d, f);
  expect(kStarted, kNone);
  manifest_fields m;
  m.flags = 1;
  p = make_package(d, m);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kTicketRequired);
}

TEST_F(KeyBlock, TicketsLetInAndRaiseFloors) {
  const device d = make_device(rng_);
  manifest_fields m;
  m.flags = 1;
  const package p = make_package(d, m);
  start(d);
  ticket_fields f;
  f.version = m.version;
  f.epoch = m.epoch;
  const auto cycles = grant(d, f);
  RecordProperty("ticket_cycles", std::to_string(cycles));
  expect(kStarted, kNone);
  EXPECT_EQ(floor_version_[5], m.version);
  EXPECT_EQ(floor_epoch_[5], m.epoch);
  EXPECT_EQ(dut_->runs_left_o, kNoLimit);
  for (const auto& [name, secret] : secrets(d, p)) {
    if (name != "PRK") EXPECT_FALSE(state_holds(secret)) << name << " after TICKET";
  }
  unwrap(p.manifest, p.blob);
  expect(kLoaded, kNone);
  EXPECT_EQ(key(), p.dek);
  for (int i = 0; i < 5; ++i) start_run();
  expect(kLoaded, kNone, "no limit");
  run(kZeroise);
  EXPECT_EQ(dut_->runs_left_o, 0u);
  start(d);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kTicketRequired, "the ticket went with ZEROISE");
  // A lower floor lowers nothing; a higher one shuts the package out, after a reset too.
  start(d);
  f.version = f.epoch = 0;
  grant(d, f);
  expect(kStarted, kNone);
  EXPECT_EQ(floor_epoch_[5], m.epoch);
  f.epoch = m.epoch + 1;
  grant(d, f);
  expect(kStarted, kNone);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kEpoch, "replayed from the epoch before");
  reset();
  start(d);
  f.epoch = 0;
  grant(d, f);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kEpoch, "the fuses remember");
}

TEST_F(KeyBlock, TicketsServeOnce) {
  const device d = make_device(rng_);
  const bytes k = d.ticket_key(5);
  start(d);
  present(make_ticket(k, bytes(16), {}));
  expect(kFailed, kTicketStale, "without a nonce");
  start(d);
  const bytes ticket = make_ticket(k, nonce(), {});
  present(ticket);
  expect(kStarted, kNone);
  EXPECT_EQ(from_wide(dut_->nonce_o, 16), bytes(16));
  present(ticket);
  expect(kFailed, kTicketStale, "again");
  start(d);
  present(ticket);
  expect(kFailed, kTicketStale, "again after a START");
  start(d);
  run(kNonce);
  present(ticket);
  expect(kFailed, kTicketStale, "for another nonce");
  start(d);
  bytes n = nonce();
  const bytes first = make_ticket(k, n, {});
  EXPECT_NE(nonce(), n);
  present(first);
  expect(kFailed, kTicketStale, "for the nonce before the last");
  // A refused ticket spends its nonce as well.
  start(d);
  n = nonce();
  bytes bad = make_ticket(k, n, {});
  bad[60] ^= 1;
  present(bad);
  expect(kFailed, kKey);
  start(d);
  present(make_ticket(k, n, {}));
  expect(kFailed, kTicketStale);
  reset();
  start(d);
  present(make_ticket(k, n, {}));
  expect(kFailed, kTicketStale, "after a reset");
}

TEST_F(KeyBlock, EveryByteOfATicket) {
  const device d = make_device(rng_);
  for (std::size_t b = 0; b < 80; ++b) {
    reset();
    burns_ = 0;
    start(d);
    bytes t = make_ticket(d.ticket_key(5), nonce(), {});
    int bit = static_cast<int>(rng_() % 8);
    if (b == 24) bit %= 3;  // another slot, not a slot that is none
    t[b] ^= static_cast<std::uint8_t>(1u << bit);
    present(t);
    const bool format = b < 8 || (b > 24 && b < 28) || (b >= 44 && b < 48);
    expect(kFailed,
           format             ? kBadMessage
           : b >= 8 && b < 24 ? kTicketStale
                              : kKey,
           "byte " + std::to_string(b));
    EXPECT_EQ(burns_, 0);
    EXPECT_EQ(dut_->runs_left_o, 0u);
  }
  for (std::size_t words : {0, 9, 19, 21, 32}) {
    reset();
    start(d);
    const bytes t = make_ticket(d.ticket_key(5), nonce(), {});
    rewind();
    fill(dut_->msg_we_i, t, words);
    run(kTicket);
    expect(kFailed, kBadMessage, std::to_string(words) + " words");
  }
  reset();
  start(d);
  present(make_ticket(make_device(rng_).ticket_key(5), nonce(), {}));
  expect(kFailed, kKey, "another chip's ticket");
  reset();
  start(d);
  fuses_burn_ = false;
  ticket_fields f;
  f.epoch = 3;
  grant(d, f);
  expect(kFailed, kHealth, "a fuse that does not burn");
  fuses_burn_ = true;
  reset();
  start(d);
  trng_works_ = false;
  run(kNonce);
  expect(kFailed, kHealth, "no random numbers");
}

TEST_F(KeyBlock, ABudgetOfRunsAndTimeEnds) {
  const device d = make_device(rng_);
  for (std::uint32_t flags : {1u, 0u}) {  // a ticket binds the packages of its slot, flag or not
    manifest_fields m;
    m.flags = flags;
    const package p = make_package(d, m);
    reset();
    start(d);
    ticket_fields f;
    f.runs = 3;
    grant(d, f);
    unwrap(p.manifest, p.blob);
    for (std::uint32_t left : {2u, 1u, 0u}) {
      start_run();
      expect(kLoaded, kNone);
      EXPECT_EQ(dut_->runs_left_o, left);
    }
    unwrap(p.manifest, p.blob);  // loading again does not refill it
    expect(kLoaded, kNone);
    wipes_ = 0;
    start_run();
    expect(kFailed, kTicketExpired);
    EXPECT_GE(wipes_, 4u);
    expect_forgotten(d, p, "after the last run");
    start(d);
    f.runs = 0;
    grant(d, f);
    unwrap(p.manifest, p.blob);
    expect(kLoaded, kNone);
    start_run();
    expect(kFailed, kTicketExpired, "a ticket for no run");
  }
  manifest_fields m;
  m.flags = 1;
  const package p = make_package(d, m);
  reset();
  start(d);
  ticket_fields f;
  f.time = 1;
  grant(d, f);
  const auto from = cycle_;
  unwrap(p.manifest, p.blob);
  expect(kLoaded, kNone);
  start_run();
  while (dut_->key_valid_o && cycle_ < from + (3u << 20)) tick();
  EXPECT_NEAR(static_cast<double>(cycle_ - from), 1 << 20, 8);
  while (dut_->busy_o) tick();
  expect(kFailed, kTicketExpired, "the time is up");
  expect_forgotten(d, p, "after its time");
  start(d);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kTicketRequired);
  start(d);
  f.time = 0;
  grant(d, f);
  unwrap(p.manifest, p.blob);
  expect(kFailed, kTicketRequired, "a ticket without time only raises floors");
}

// Power lost at any time around a burn: floors are old or new as a whole, and the chip starts.
TEST_F(KeyBlock, PowerLossAroundATicket) {
  const device d = make_device(rng_);
  start(d);
  ticket_fields f;
  f.version = 3;
  f.epoch = 7;
  const auto length = grant(d, f);
  const package p = make_package(d);
  for (std::uint64_t back = 0; back < 40; ++back) {
    power_up();
    start(d);
    const bytes t = make_ticket(d.ticket_key(5), nonce(), f);
    rewind();
    fill_message(t);
    command(kTicket);
    const std::uint64_t stop = back < 24 ? length - back : rng_() % length;
    for (std::uint64_t n = 1; n < stop; ++n) tick();
    reset();
    EXPECT_EQ(floor_version_[5] != 0, floor_epoch_[5] != 0);
    EXPECT_TRUE(floor_epoch_[5] == 0 || floor_epoch_[5] == 7);
    EXPECT_FALSE(state_holds(d.ticket_key(5)));
    start(d);
    expect(kStarted, kNone);
    present(t);
    expect(kFailed, kTicketStale);
    start(d);
    unwrap(p.manifest, p.blob);
    expect(kLoaded, kNone);
  }
}

TEST_F(KeyBlock, FlippedTicketBitsLetNothingIn) {
  const device d = make_device(rng_);
  manifest_fields m;
  m.flags = 1;
  const package p = make_package(d, m);
  for (int bits = 0; bits < 16; ++bits) {
    if (std::bitset<4>(static_cast<unsigned>(bits)).count() == 4) continue;  // 0011 to 1100
    reset();
    start(d);
    dut_->rootp->lk_key_block__DOT__ticket_q ^= static_cast<std::uint8_t>(bits);
    dut_->rootp->lk_key_block__DOT__ticket_slot_q = 5;
    dut_->rootp->lk_key_block__DOT__tkt_time_q = kNoLimit;
    unwrap(p.manifest, p.blob);
    expect(kFailed, kTicketRequired, "flipped " + std::to_string(bits));
  }
}

// ---- faults ------------------------------------------------------------------------------------

// One and two flipped bits of the state register, in every state the walk comes by, end in the
// trap.
TEST_F(KeyBlock, FlippedStateBitsLock) {
  const device d = make_device(rng_);
  const package p = make_package(d);
  const bytes challenge = random_bytes(rng_, 32);
  std::uint64_t tried = 0;
  // First the states there are, then a shot into each.
  std::map<int, std::uint64_t> first;  // state code -> cycle after the beginning
  auto walk = [&](std::uint64_t stop) {
    power_up();
    answer_ = d.scan;
    std::uint64_t n = 0;
    watch_ = [&] {
      if (n > stop) return;
      const int s = dut_->rootp->lk_key_block__DOT__state_q;
      if (stop == UINT64_MAX && !first.count(s)) first[s] = n;
      if (n++ == stop) throw n;
    };
    try {
      start(d);
      attest(challenge, 5);
      grant(d, {});
      unwrap(p.manifest, p.blob);
      run(kZeroise);
    } catch (std::uint64_t) {
      watch_ = nullptr;
      return true;
    }
    watch_ = nullptr;
    return false;
  };
  walk(UINT64_MAX);
  EXPECT_GE(first.size(), 36u);
  for (auto [code, when] : first) {
    for (int flips = 1; flips <= 2; ++flips) {
      ASSERT_TRUE(walk(when));
      ASSERT_EQ(dut_->rootp->lk_key_block__DOT__state_q, code);
      const int a = static_cast<int>(rng_() % 10), b = (a + 1 + static_cast<int>(rng_() % 9)) % 10;
      const int bad = code ^ 1 << a ^ (flips == 2 ? 1 << b : 0);
      dut_->rootp->lk_key_block__DOT__state_q = static_cast<std::uint16_t>(bad);
      dut_->cmd_valid_i = dut_->helper_we_i = dut_->manifest_we_i = dut_->blob_we_i = 0;
      dut_->msg_we_i = dut_->fill_clear_i = 0;
      tick();
      EXPECT_FALSE(dut_->key_valid_o);
      // What the test's own PUF still has to say goes unheard, but stands at the inputs meanwhile.
      for (int i = 0; i < 100 || !rows_.empty(); ++i) tick();
      tick();
      expect(kLocked, kLockout, "state " + std::to_string(code) + " -> " + std::to_string(bad));
      expect_forgotten(d, p, "after a fault in state " + std::to_string(code));
      ++tried;
    }
  }
  EXPECT_GE(tried, 72u);
}

// Each half of the judgement by itself, forced to say "equal" as it is judged.
TEST_F(KeyBlock, OneStuckVerdictPassesNothing) {
  const device d = make_device(rng_);
  constexpr int kStartVerdict = 0x1b2, kUnwrapVerdict = 0x1e0, kTicketVerdict = 0x2d7;
  for (const int where : {kStartVerdict, kUnwrapVerdict, kTicketVerdict}) {
    for (const int half : {0, 1, 2}) {  // 2: both, which shows that the fault reaches the verdict
      power_up();
      int hits = 0;
      watch_ = [&] {
        if (dut_->rootp->lk_key_block__DOT__state_q != where) return;
        ++hits;
        if (half != 1) dut_->rootp->lk_key_block__DOT__differ_q = 0;
        if (half != 0) dut_->rootp->lk_key_block__DOT__equal_q = 8;
      };
      device used = d;
      if (where == kStartVerdict) used.helper[1060] ^= 1;
      start(used);
      if (where == kTicketVerdict) {
        bytes t = make_ticket(d.ticket_key(5), nonce(), {});
        t[50] ^= 1;
        present(t);
      }
      if (where == kUnwrapVerdict) {
        package p = make_package(d);
        p.manifest[88] ^= 1;
        unwrap(p.manifest, p.blob);
      }
      watch_ = nullptr;
      EXPECT_EQ(hits, 1);
      EXPECT_EQ(dut_->state_o == kFailed, half != 2) << "verdict " << where << ", half " << half;
      if (half != 2) EXPECT_EQ(dut_->err_o, kKey);
    }
  }
}

TEST_F(KeyBlock, ImpossibleStrikeCountLocks) {
  for (int s : {2, 4, 5, 6}) {
    reset();
    dut_->rootp->lk_key_block__DOT__strikes_q = static_cast<std::uint8_t>(s);
    tick();
    while (dut_->busy_o) tick();
    expect(kLocked, kLockout, "strikes " + std::to_string(s));
  }
}

}  // namespace
