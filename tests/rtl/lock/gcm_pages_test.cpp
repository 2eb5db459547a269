// Whole pages through lk_gcm into lk_tile_ring against OpenSSL: every block, every verdict, rate
// and latency in cycles, damaged pages, key changes.
#include <gtest/gtest.h>

#include <cstdio>

#include "page_bench.h"

namespace latchkey::test {
namespace {

// IVs that would show a carry out of the counter, a swapped byte or a stuck bit.
std::vector<Bytes> special_ivs() {
  std::vector<Bytes> ivs;
  ivs.emplace_back(12, 0x00);
  ivs.emplace_back(12, 0xff);
  Bytes v(12, 0x00);
  v[11] = 0xff;
  ivs.push_back(v);
  v.assign(12, 0xff);
  v[11] = 0xfe;
  ivs.push_back(v);
  v.assign(12, 0);
  for (int i = 0; i < 12; ++i) v[i] = static_cast<uint8_t>(i + 1);
  ivs.push_back(v);
  return ivs;
}

void expect_all_good(const PageBench& b, const std::vector<GcmMessage>& pages) {
  ASSERT_EQ(b.verdicts.size(), pages.size());
  for (size_t p = 0; p < pages.size(); ++p) {
    ASSERT_TRUE(b.verdicts[p].ok) << "page " << p;
  }
  ASSERT_EQ(b.plain.size(), pages.size() * kBeats);
  ASSERT_EQ(b.read.size(), pages.size() * kBeats);
  for (size_t i = 0; i < b.plain.size(); ++i) {
    const auto at = pages[i / kBeats].plaintext.begin() + 64 * (i % kBeats);
    const Bytes want(at, at + 64);
    for (size_t blk = 0; blk < 4; ++blk) {
      ASSERT_TRUE(std::equal(&want[16 * blk], &want[16 * blk] + 16, &b.plain[i].data[16 * blk]))
          << "page " << i / kBeats << " block " << 4 * (i % kBeats) + blk;
    }
    ASSERT_EQ(b.read[i].data, want) << "ring, page " << i / kBeats << " beat " << i % kBeats;
  }
}

TEST(GcmPages, EveryBlockMatchesOpensslUnderIdlesAndBackPressure) {
  const uint64_t seed = test_seed(31);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto ivs = special_ivs();
  size_t beats = 0;
  for (const unsigned hdr_every : {1u, 40u}) {
    for (const unsigned ct_every : {1u, 2u, 5u}) {
      for (const unsigned rd_every : {1u, 2u, 5u}) {
        PageBench b(seed + beats);
        const Bytes key = random_bytes(rng, 16);
        b.load_key(key);
        std::vector<GcmMessage> pages;
        for (int p = 0; p < 10; ++p) {
          pages.push_back(make_page(rng, key, p < 5 ? ivs[p] : random_bytes(rng, 12)));
        }
        b.run(pages, {hdr_every, ct_every, rd_every});
        expect_all_good(b, pages);
        EXPECT_FALSE(b.dut.fail_o);
        beats += b.read.size();
      }
    }
  }
  std::printf("%zu beats, %zu blocks compared\n", beats, 4 * beats);
}

TEST(GcmPages, OneBeatACycleAcrossPagesAndExactLatencies) {
  const uint64_t seed = test_seed(32);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  constexpr size_t kPages = 96;
  PageBench b(seed);
  const Bytes key = random_bytes(rng, 16);
  const int setup = b.load_key(key);
  const std::vector<GcmMessage> pages = make_pages(rng, key, kPages);
  b.run(pages, {1, 1, 1});
  expect_all_good(b, pages);

  EXPECT_EQ(b.accepted.size(), kPages * kBeats);
  EXPECT_EQ(b.accepted.back() - b.accepted.front(), kPages * kBeats - 1);  // not one idle cycle
  EXPECT_EQ(b.plain.back().cycle - b.plain.front().cycle, kPages * kBeats - 1);
  EXPECT_EQ(b.read.back().cycle - b.read.front().cycle, kPages * kBeats - 1);
  for (size_t i = 0; i < b.accepted.size(); ++i) {
    ASSERT_EQ(b.plain[i].cycle - b.accepted[i], 12u);
  }
  for (size_t p = 0; p < kPages; ++p) {
    ASSERT_EQ(b.verdicts[p].cycle - b.accepted[kBeats * (p + 1) - 1], 6u);
    ASSERT_EQ(b.read[kBeats * p].cycle - b.verdicts[p].cycle, 3u);
  }
  EXPECT_EQ(b.accepted.front() - b.headers.front(), 1u);
  EXPECT_EQ(setup, 79);
  std::printf(
      "%zu pages, %zu beats in %llu cycles; key setup %d cycles; header to beat 1, beat to "
      "plaintext 12, last beat to verdict 6, verdict to first readable beat 3\n",
      kPages, b.accepted.size(),
      static_cast<unsigned long long>(b.accepted.back() - b.accepted.front() + 1), setup);
}

// Beats do not wait for the tag, verdicts do: they come in order, 3 cycles after a late tag.
TEST(GcmPages, ATagMayComeAfterItsPage) {
  const uint64_t seed = test_seed(37);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  PageBench b(seed);
  const Bytes key = random_bytes(rng, 16);
  b.load_key(key);
  const std::vector<GcmMessage> pages = make_pages(rng, key, 40);
  b.run(pages, {1, 1, 1, /*tag_every=*/100});
  expect_all_good(b, pages);
  int late = 0;
  ASSERT_EQ(b.tags.size(), pages.size());
  for (size_t p = 0; p < pages.size(); ++p) {
    const uint64_t last = b.accepted[kBeats * (p + 1) - 1];
    ASSERT_EQ(b.verdicts[p].cycle, std::max(last + 6, b.tags[p] + 3)) << "page " << p;
    late += b.tags[p] > last;
  }
  EXPECT_GT(late, 3);
}

// A tag that belongs to another page is refused, early or late.
TEST(GcmPages, TagsOfTwoPagesThatChangePlacesAreRefused) {
  for (const unsigned tag_every : {1u, 200u}) {
    const uint64_t seed = test_seed(38);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", a tag in " + std::to_string(tag_every));
    std::mt19937_64 rng(seed);
    PageBench b(seed);
    const Bytes key = random_bytes(rng, 16);
    b.load_key(key);
    std::vector<GcmMessage> pages = make_pages(rng, key, 3);
    std::swap(pages[1].tag, pages[2].tag);
    b.run(pages, {1, 1, 1, tag_every}, 600);
    ASSERT_EQ(b.verdicts.size(), 3u);
    EXPECT_TRUE(b.verdicts[0].ok);
    EXPECT_FALSE(b.verdicts[1].ok || b.verdicts[2].ok);
    EXPECT_EQ(b.read.size(), size_t{kBeats});
  }
}

// Three pages, the middle one damaged.
void expect_middle_refused(PageBench& b, const std::vector<GcmMessage>& pages,
                           const std::string& what) {
  SCOPED_TRACE(what);
  b.run(pages, {1, 1, 1}, 600);
  ASSERT_EQ(b.verdicts.size(), 3u);
  EXPECT_TRUE(b.verdicts[0].ok);
  EXPECT_FALSE(b.verdicts[1].ok);
  EXPECT_TRUE(b.verdicts[2].ok);  // the engine goes on; the ring does not
  ASSERT_EQ(b.read.size(), static_cast<size_t>(kBeats));
  for (int i = 0; i < kBeats; ++i) {
    ASSERT_TRUE(std::equal(b.read[i].data.begin(), b.read[i].data.end(),
                           pages[0].plaintext.begin() + 64 * i));
  }
  EXPECT_TRUE(b.dut.fail_o);
  EXPECT_EQ(b.dut.fail_page_o, 1u);
  EXPECT_FALSE(b.dut.slot_free_o);
  EXPECT_FALSE(b.dut.rd_valid_o);
}

TEST(GcmPages, DamagedPageIsRefusedAndNothingOfItIsReadable) {
  const uint64_t seed = test_seed(33);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  PageBench b(seed);
  const Bytes key = random_bytes(rng, 16);
  b.load_key(key);
  const std::vector<GcmMessage> good = make_pages(rng, key, 3);

  const auto damaged = [&](const std::string& what, auto&& change) {
    auto pages = good;
    change(pages);
    expect_middle_refused(b, pages, what);
    b.clear();
  };
  // every bit of tag and IV; ciphertext bits in every beat
  for (int i = 0; i < 128; ++i) {
    damaged("tag bit " + std::to_string(i),
            [&](auto& p) { p[1].tag[i / 8] ^= static_cast<uint8_t>(1u << (i % 8)); });
  }
  for (int i = 0; i < 96; ++i) {
    damaged("IV bit " + std::to_string(i),
            [&](auto& p) { p[1].iv[i / 8] ^= static_cast<uint8_t>(1u << (i % 8)); });
  }
  for (int beat = 0; beat < kBeats; ++beat) {
    const unsigned bit = rng() % 512;
    damaged("ciphertext beat " + std::to_string(beat) + " bit " + std::to_string(bit),
            [&](auto& p) {
              p[1].ciphertext[64 * beat + bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
            });
  }
  damaged("blocks swapped", [&](auto& p) {
    std::swap_ranges(p[1].ciphertext.begin(), p[1].ciphertext.begin() + 16,
                     p[1].ciphertext.begin() + 4080);
  });
  damaged("another page in its place", [&](auto& p) { p[1].ciphertext = p[0].ciphertext; });
  damaged("tag of another page", [&](auto& p) { p[1].tag = p[2].tag; });
  damaged("zero tag", [&](auto& p) { p[1].tag.assign(16, 0); });
  damaged("another key", [&](auto& p) {
    p[1].key[0] ^= 1;
    seal(p[1]);
  });

  // and after all that, the good ones still pass
  b.run(good, {1, 1, 1});
  expect_all_good(b, good);
}

TEST(GcmPages, KeyChangeDropsPagesUnderWay) {
  const uint64_t seed = test_seed(34);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  PageBench b(seed);
  for (const int stop_at : {0, 1, 30, 63, 64, 70, 76, 77, 100}) {
    const Bytes key1 = random_bytes(rng, 16), key2 = random_bytes(rng, 16);
    b.load_key(key1);
    b.clear();
    const std::vector<GcmMessage> old = make_pages(rng, key1, 2);
    b.run_beats(old, stop_at);
    b.load_key(key2);
    b.clear();  // the ring's share of dropping everything
    const std::vector<GcmMessage> fresh = make_pages(rng, key2, 2);
    b.run(fresh, {1, 1, 1}, 200);
    SCOPED_TRACE("stopped at beat " + std::to_string(stop_at));
    expect_all_good(b, fresh);  // no stray plaintext, no stray verdict
  }
}

TEST(GcmPages, RisingKeyValidLoadsAndFallingForgets) {
  const uint64_t seed = test_seed(35);
  std::mt19937_64 rng(seed);
  PageBench b(seed);
  const Bytes key = random_bytes(rng, 16);
  to_wide(b.dut.key_i, key.data(), 16);
  b.dut.key_valid_i = 1;
  int n = 0;
  while (!b.dut.key_ready_o && n < 200) {
    b.step();
    ++n;
  }
  EXPECT_EQ(n, 79);
  const std::vector<GcmMessage> pages = make_pages(rng, key, 1);
  b.run(pages, {1, 1, 1});
  expect_all_good(b, pages);
  b.dut.key_valid_i = 0;
  b.step();
  EXPECT_FALSE(b.dut.key_ready_o);
  b.clear();
  b.run(pages, {1, 1, 1}, 300, /*may_stall=*/true);
  EXPECT_TRUE(b.accepted.empty() && b.plain.empty() && b.verdicts.empty() && b.read.empty());
}

TEST(GcmPages, WipedEngineRefusesUntilANewKeyComes) {
  const uint64_t seed = test_seed(36);
  std::mt19937_64 rng(seed);
  PageBench b(seed);
  const Bytes key = random_bytes(rng, 16);
  b.load_key(key);
  const std::vector<GcmMessage> pages = make_pages(rng, key, 2);
  b.run_beats(pages, 40);
  b.dut.gcm_wipe_i = 1;
  b.dut.ring_wipe_i = 1;
  b.step();
  b.dut.gcm_wipe_i = 0;
  b.dut.ring_wipe_i = 0;
  b.forget();
  b.run(pages, {1, 1, 1}, 1000, /*may_stall=*/true);  // key_valid_i is still high
  EXPECT_TRUE(b.accepted.empty() && b.headers.empty());
  EXPECT_TRUE(b.plain.empty() && b.verdicts.empty() && b.read.empty());
  b.load_key(key);
  b.clear();
  b.run(pages, {1, 1, 1});
  expect_all_good(b, pages);
}

}  // namespace
}  // namespace latchkey::test
