// The GCM engine against NIST's vectors, and what zeroising leaves behind.
//
// A NIST message is shorter than a beat and may carry associated data. It runs on the same hardware
// as a page: its blocks (data, then ciphertext, each padded with zeros) stand at the end of its
// beats, zero blocks in front (they do not change GHASH), and the counter starts that much lower.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "Vlk_gcm_engine.h"
#include "Vlk_gcm_engine___024root.h"
#include "reference.h"

namespace latchkey::test {
namespace {

struct Result {
  std::optional<bool> verdict;
  std::vector<Bytes> beats;
};

class GcmVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    dut.rst_ni = 0;
    dut.cfg_beats_i = 1;
    dut.hdr_tag_valid_i = 1;  // with its header
    step();
    dut.rst_ni = 1;
    step();
    step();
  }

  void step() {
    dut.clk_i = 0;
    dut.eval();
    dut.clk_i = 1;
    dut.eval();
    ++cycle;
  }

  void load_key(const Bytes& key) {
    to_wide(dut.key_i, key.data(), 16);
    dut.key_valid_i = 1;
    dut.key_load_i = 1;
    step();
    dut.key_load_i = 0;
    for (int i = 0; i < 500 && !dut.key_ready_o; ++i) step();
    ASSERT_TRUE(dut.key_ready_o);
  }

  void configure(size_t aad_bytes, size_t ct_bytes, size_t& beats, size_t& lead) {
    const size_t aad_blocks = (aad_bytes + 15) / 16, ct_blocks = (ct_bytes + 15) / 16;
    beats = std::max<size_t>(1, (aad_blocks + ct_blocks + 3) / 4);
    lead = 4 * beats - aad_blocks - ct_blocks;
    dut.cfg_beats_i = static_cast<uint16_t>(beats);
    dut.cfg_ctr_i = static_cast<uint32_t>(2 - lead - aad_blocks);
    uint8_t len[16] = {};
    for (int i = 0; i < 8; ++i) {
      len[7 - i] = static_cast<uint8_t>((8 * aad_bytes) >> (8 * i));
      len[15 - i] = static_cast<uint8_t>((8 * ct_bytes) >> (8 * i));
    }
    to_wide(dut.cfg_len_i, len, 16);
  }

  Result send(const Bytes& iv, const Bytes& tag, const Bytes& data) {
    Result r;
    to_wide(dut.hdr_iv_i, iv.data(), 12);
    to_wide(dut.hdr_tag_i, tag.data(), 16);
    dut.hdr_valid_i = 1;
    size_t sent = 0;
    for (int i = 0; i < 300 && (!r.verdict || 64 * r.beats.size() < data.size()); ++i) {
      dut.ct_valid_i = sent < data.size();
      if (dut.ct_valid_i) to_wide(dut.ct_data_i, &data[sent], 64);
      dut.clk_i = 0;
      dut.eval();
      const bool hdr = dut.hdr_valid_i && dut.hdr_ready_o, ct = dut.ct_valid_i && dut.ct_ready_o;
      if (dut.pt_valid_o) r.beats.push_back(from_wide(dut.pt_data_o, 64));
      if (dut.verdict_valid_o) r.verdict = dut.verdict_ok_o;
      step();
      if (hdr) dut.hdr_valid_i = 0;
      if (ct) sent += 64;
    }
    dut.hdr_valid_i = 0;
    dut.ct_valid_i = 0;
    return r;
  }

  // Runs one message, returns the verdict, and the plaintext in `pt`.
  std::optional<bool> decrypt(const Bytes& key, const Bytes& iv, const Bytes& aad, const Bytes& ct,
                              const Bytes& tag, Bytes& pt) {
    size_t beats = 0, lead = 0;
    configure(aad.size(), ct.size(), beats, lead);
    load_key(key);
    Bytes data(64 * beats, 0);
    const size_t aad_at = 16 * lead, ct_at = aad_at + (aad.size() + 15) / 16 * 16;
    std::copy(aad.begin(), aad.end(), data.begin() + aad_at);
    std::copy(ct.begin(), ct.end(), data.begin() + ct_at);
    const Result r = send(iv, tag, data);
    Bytes all;
    for (const auto& b : r.beats) all.insert(all.end(), b.begin(), b.end());
    EXPECT_EQ(all.size(), data.size());
    pt.assign(all.begin() + ct_at, all.begin() + ct_at + ct.size());
    return r.verdict;
  }

  void run_file(const std::string& name) {
    int passed = 0, failed_as_told = 0, whole_blocks_no_aad = 0, other_iv = 0, other_tag = 0;
    for (const auto& r : read_rsp(LATCHKEY_NIST_VECTORS "/ciphers/AES/GCM/" + name)) {
      ASSERT_EQ(r.at("Keylen"), "128");
      if (r.at("IVlen") != "96") {
        ++other_iv;
        continue;
      }
      if (r.at("Taglen") != "128") {
        ++other_tag;
        continue;
      }
      const Bytes aad = from_hex(r.at("AAD")), ct = from_hex(r.at("CT"));
      Bytes pt;
      const auto verdict =
          decrypt(from_hex(r.at("Key")), from_hex(r.at("IV")), aad, ct, from_hex(r.at("Tag")), pt);
      ASSERT_TRUE(verdict.has_value()) << name << " count " << r.at("Count");
      const bool fail = r.count("FAIL") != 0;
      ASSERT_EQ(*verdict, !fail) << name << " PTlen " << r.at("PTlen") << " AADlen "
                                 << r.at("AADlen") << " count " << r.at("Count");
      if (fail) {
        ++failed_as_told;
      } else {
        ASSERT_EQ(pt, from_hex(r.at("PT"))) << name << " count " << r.at("Count");
        ++passed;
      }
      if (aad.empty() && ct.size() % 16 == 0) ++whole_blocks_no_aad;
    }
    std::printf(
        "%s: %d valid and %d FAIL records run (%d of them without AAD in whole blocks); not "
        "applicable: %d other IV lengths, %d truncated tags\n",
        name.c_str(), passed, failed_as_told, whole_blocks_no_aad, other_iv, other_tag);
    EXPECT_GT(passed, 100);
    if (name.find("Decrypt") != std::string::npos) {
      EXPECT_GT(failed_as_told, 100);
    }
  }

  Vlk_gcm_engine dut;
  uint64_t cycle = 0;
};

TEST_F(GcmVectors, NistGcmDecrypt) { run_file("gcmDecrypt128.rsp"); }
TEST_F(GcmVectors, NistGcmEncrypt) { run_file("gcmEncryptExtIV128.rsp"); }

// A lane computes AES(IV | counter), so with IV and counter chosen freely any block goes through
// it.
TEST_F(GcmVectors, NistEcbThroughTheCounterLanes) {
  int run = 0;
  for (const char* name : {"ECBGFSbox128", "ECBKeySbox128", "ECBVarKey128", "ECBVarTxt128"}) {
    for (const auto& r :
         read_rsp(std::string(LATCHKEY_NIST_VECTORS "/ciphers/AES/ECB/") + name + ".rsp")) {
      const Bytes key = from_hex(r.at("KEY")), pt = from_hex(r.at("PLAINTEXT")),
                  ct = from_hex(r.at("CIPHERTEXT"));
      const uint32_t ctr =
          static_cast<uint32_t>(pt[12]) << 24 | pt[13] << 16 | pt[14] << 8 | pt[15];
      for (uint32_t lane = 0; lane < 4; ++lane) {
        dut.cfg_beats_i = 1;
        dut.cfg_ctr_i = ctr - lane;
        load_key(key);
        const Result res = send(Bytes(pt.begin(), pt.begin() + 12), Bytes(16, 0), Bytes(64, 0));
        ASSERT_EQ(res.beats.size(), 1u);
        const auto at = res.beats[0].begin() + 16 * lane;
        ASSERT_EQ(Bytes(at, at + 16), ct) << name << " count " << r.at("COUNT") << " lane " << lane;
        ++run;
      }
    }
  }
  std::printf("NIST AES-128 ECB blocks through the four lanes: %d run\n", run);
  EXPECT_GE(run, 2000);
}

// Message forms of every length around the accumulator count, with and without associated data,
// and with a counter that wraps at 2^32 on the way.
TEST_F(GcmVectors, RandomFormsAgainstOpenssl) {
  const uint64_t seed = test_seed(11);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (size_t blocks = 0; blocks <= 40; ++blocks) {
    for (size_t aad_bytes : {0, 7, 64, 100}) {
      GcmMessage m;
      m.key = random_bytes(rng, 16);
      m.iv = random_bytes(rng, 12);
      m.aad = random_bytes(rng, aad_bytes);
      m.plaintext = random_bytes(rng, 16 * blocks + (rng() & 1 ? rng() % 16 : 0));
      seal(m);
      Bytes pt;
      ASSERT_EQ(decrypt(m.key, m.iv, m.aad, m.ciphertext, m.tag, pt), true)
          << blocks << " blocks, " << aad_bytes << " bytes of data";
      ASSERT_EQ(pt, m.plaintext);
      m.tag[rng() % 16] ^= static_cast<uint8_t>(1u << (rng() % 8));
      ASSERT_EQ(decrypt(m.key, m.iv, m.aad, m.ciphertext, m.tag, pt), false);
    }
  }
}

// Header rate: endless messages of n beats run without an idle cycle from 20 beats up.
TEST_F(GcmVectors, MessagesOfTwentyBeatsNeedNoGap) {
  std::mt19937_64 rng(test_seed(15));
  const auto idle_cycles = [&](uint16_t beats) {
    dut.cfg_beats_i = beats;
    load_key(random_bytes(rng, 16));
    dut.hdr_valid_i = 1;
    dut.ct_valid_i = 1;
    int idle = 0;
    for (int i = 0; i < 2000; ++i) {
      dut.clk_i = 0;
      dut.eval();
      if (i >= 200 && !dut.ct_ready_o) ++idle;
      step();
    }
    dut.hdr_valid_i = 0;
    dut.ct_valid_i = 0;
    return idle;
  };
  EXPECT_EQ(idle_cycles(20), 0);
  EXPECT_EQ(idle_cycles(64), 0);
  EXPECT_GT(idle_cycles(8), 0);
}

// ---- zeroise ------------------------------------------------------------------------------------

template <class T>
bool all_zero(const T& value) {
  const auto* p = reinterpret_cast<const uint8_t*>(&value);
  for (size_t i = 0; i < sizeof(T); ++i) {
    if (p[i] != 0) return false;
  }
  return true;
}

// Every register that holds key-dependent state, by name.
std::map<std::string, bool> secret_registers_zero(const Vlk_gcm_engine& dut) {
  const auto& r = *dut.rootp;
  std::map<std::string, bool> z;
#define LATCHKEY_REG(name) z[#name] = all_zero(r.lk_gcm_engine__DOT__##name)
  LATCHKEY_REG(u_iter__DOT__rk_q);
  LATCHKEY_REG(u_iter__DOT__blk_q);
  LATCHKEY_REG(u_iter__DOT__core_out);
  LATCHKEY_REG(u_ghash__DOT__pow_q);
  LATCHKEY_REG(u_ghash__DOT__len_h_q);
  LATCHKEY_REG(u_ghash__DOT__a_q);
  LATCHKEY_REG(u_ghash__DOT__b_q);
  LATCHKEY_REG(u_ghash__DOT__hold_q);
  LATCHKEY_REG(u_ghash__DOT__sum_q);
  LATCHKEY_REG(u_ghash__DOT__y);
  LATCHKEY_REG(u_ghash__DOT__u_mul__DOT__u_impl__DOT__s1_q);
  LATCHKEY_REG(u_ghash__DOT__u_mul__DOT__u_impl__DOT__s2_q);
  LATCHKEY_REG(exp_q);
  LATCHKEY_REG(hash_q);
  LATCHKEY_REG(diff_b_q);
#define LATCHKEY_STAGE(l, s) \
  LATCHKEY_REG(              \
      u_ctr__DOT__gen_lane__BRA__##l##__KET____DOT__gen_round__BRA__##s##__KET____DOT__state)
#define LATCHKEY_LANE(l) \
  LATCHKEY_STAGE(l, 0);  \
  LATCHKEY_STAGE(l, 1);  \
  LATCHKEY_STAGE(l, 2);  \
  LATCHKEY_STAGE(l, 3);  \
  LATCHKEY_STAGE(l, 4);  \
  LATCHKEY_STAGE(l, 5);  \
  LATCHKEY_STAGE(l, 6);  \
  LATCHKEY_STAGE(l, 7);  \
  LATCHKEY_STAGE(l, 8);  \
  LATCHKEY_STAGE(l, 9);  \
  LATCHKEY_STAGE(l, 10)
  LATCHKEY_LANE(0);
  LATCHKEY_LANE(1);
  LATCHKEY_LANE(2);
  LATCHKEY_LANE(3);
#undef LATCHKEY_LANE
#undef LATCHKEY_STAGE
#undef LATCHKEY_REG
  z["pt_data_o"] = all_zero(dut.pt_data_o);
  return z;
}

class GcmZeroise : public GcmVectors, public ::testing::WithParamInterface<const char*> {};

TEST_P(GcmZeroise, LeavesNothingAtTheNextEdge) {
  std::mt19937_64 rng(test_seed(12));
  dut.cfg_beats_i = 4;
  dut.cfg_ctr_i = 2;
  Bytes ones(16, 0);
  ones[15] = 1;
  to_wide(dut.cfg_len_i, ones.data(), 16);
  load_key(random_bytes(rng, 16));
  // Keep everything busy: headers and beats of endless messages.
  dut.hdr_valid_i = 1;
  dut.ct_valid_i = 1;
  for (int i = 0; i < 120; ++i) {
    to_wide(dut.ct_data_i, random_bytes(rng, 64).data(), 64);
    to_wide(dut.hdr_iv_i, random_bytes(rng, 12).data(), 12);
    to_wide(dut.hdr_tag_i, random_bytes(rng, 16).data(), 16);
    step();
  }
  // Control: the list is of live registers. Four beats in the lanes at a time leave some stages
  // with an old state, but none with zero.
  for (const auto& [name, zero] : secret_registers_zero(dut)) EXPECT_FALSE(zero) << name;

  const std::string how = GetParam();
  if (how == "wipe") {
    dut.wipe_i = 1;
    step();
    dut.wipe_i = 0;
  } else if (how == "key_gone") {
    dut.key_valid_i = 0;
    step();
    dut.key_valid_i = 1;
    dut.wipe_i = 1;  // and do not start over
    step();
    dut.wipe_i = 0;
  } else {
    dut.rst_ni = 0;
    step();
    dut.rst_ni = 1;
    dut.key_valid_i = 0;
    step();
  }
  for (const auto& [name, zero] : secret_registers_zero(dut)) EXPECT_TRUE(zero) << name;

  // Nothing is accepted and nothing comes out; every register stays at zero.
  for (int i = 0; i < 200; ++i) {
    dut.clk_i = 0;
    dut.eval();
    ASSERT_FALSE(dut.key_ready_o || dut.hdr_ready_o || dut.ct_ready_o || dut.pt_valid_o ||
                 dut.verdict_valid_o);
    step();
  }
  for (const auto& [name, zero] : secret_registers_zero(dut)) EXPECT_TRUE(zero) << name;

  // and a new key brings it back
  GcmMessage m;
  m.key = random_bytes(rng, 16);
  m.iv = random_bytes(rng, 12);
  m.plaintext = random_bytes(rng, 320);
  seal(m);
  dut.hdr_valid_i = 0;
  dut.ct_valid_i = 0;
  Bytes pt;
  EXPECT_EQ(decrypt(m.key, m.iv, {}, m.ciphertext, m.tag, pt), true);
  EXPECT_EQ(pt, m.plaintext);
}

INSTANTIATE_TEST_SUITE_P(By, GcmZeroise, ::testing::Values("wipe", "key_gone", "reset"),
                         [](const auto& p) { return std::string(p.param); });

// The key state machines trap on a code that is none of theirs, with the key gone.
TEST_F(GcmVectors, FaultInStateCodeTrapsAndZeroises) {
  std::mt19937_64 rng(test_seed(13));
  for (int bit = 0; bit < 7; ++bit) {
    SetUp();
    load_key(random_bytes(rng, 16));
    dut.rootp->lk_gcm_engine__DOT__state_q ^= static_cast<uint8_t>(1u << bit);
    dut.clk_i = 0;
    dut.eval();
    step();
    step();
    EXPECT_TRUE(all_zero(dut.rootp->lk_gcm_engine__DOT__u_iter__DOT__rk_q)) << bit;
    EXPECT_TRUE(all_zero(dut.rootp->lk_gcm_engine__DOT__u_ghash__DOT__pow_q)) << bit;
    dut.key_load_i = 1;  // no way back but reset
    for (int i = 0; i < 200; ++i) {
      step();
      ASSERT_FALSE(dut.key_ready_o || dut.hdr_ready_o || dut.ct_ready_o) << bit;
      dut.key_load_i = 0;
    }
  }
}

// One flipped bit in either comparator or result pipeline cannot turn a fail into a pass.
TEST_F(GcmVectors, SingleFaultInVerdictDoesNotPass) {
  std::mt19937_64 rng(test_seed(14));
  GcmMessage m;
  m.key = random_bytes(rng, 16);
  m.iv = random_bytes(rng, 12);
  m.plaintext = random_bytes(rng, 64);
  seal(m);
  size_t beats = 0, lead = 0;
  configure(0, 64, beats, lead);
  load_key(m.key);
  Bytes bad = m.tag;
  bad[5] ^= 0x10;  // tags differ in one bit: the worst case for a single fault
  const int diff_bit = 8 * 5 + 4;
  for (int fault = 0; fault < 4; ++fault) {
    to_wide(dut.hdr_iv_i, m.iv.data(), 12);
    to_wide(dut.hdr_tag_i, bad.data(), 16);
    to_wide(dut.ct_data_i, m.ciphertext.data(), 64);
    dut.hdr_valid_i = 1;
    step();
    dut.hdr_valid_i = 0;
    for (int i = 0; i < 20; ++i) step();  // E(J0) and the tag are there before the beat
    dut.ct_valid_i = 1;
    bool taken = false, seen = false;
    int since = 0;
    for (int i = 0; i < 60 && !seen; ++i) {
      dut.clk_i = 0;
      dut.eval();
      const bool ct = dut.ct_valid_i && dut.ct_ready_o;
      step();
      if (ct) {
        taken = true;
        dut.ct_valid_i = 0;
      }
      if (taken) ++since;
      auto& r = *dut.rootp;
      if (since == 5) {  // both differences are in their registers
        if (fault == 0) r.lk_gcm_engine__DOT__diff_a_q[diff_bit / 32] ^= 1u << (diff_bit % 32);
        if (fault == 1) r.lk_gcm_engine__DOT__diff_b_q[diff_bit / 32] ^= 1u << (diff_bit % 32);
      }
      if (since == 6) {
        if (fault == 2) r.lk_gcm_engine__DOT__ok_a_q ^= 1;
        if (fault == 3) r.lk_gcm_engine__DOT__ok_b_q ^= 1;
        dut.eval();
      }
      if (dut.verdict_valid_o) {
        seen = true;
        EXPECT_FALSE(dut.verdict_ok_o) << "fault " << fault;
        // the fault did reach one of the two rails
        const uint32_t a = r.lk_gcm_engine__DOT__ok_a_q, b = r.lk_gcm_engine__DOT__ok_b_q;
        EXPECT_EQ(a + b, 1u) << "fault " << fault;
      }
    }
    EXPECT_TRUE(seen);
  }
}

}  // namespace
}  // namespace latchkey::test
