// Driver of lk_gcm_ring_bench: pages in, plaintext, verdicts and readable beats out, with cycles.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "Vlk_gcm_ring_bench.h"
#include "reference.h"

namespace latchkey::test {

inline constexpr int kBeats = 64;  // of a page

inline GcmMessage make_page(std::mt19937_64& rng, const Bytes& key, const Bytes& iv) {
  GcmMessage m;
  m.key = key;
  m.iv = iv;
  m.plaintext = random_bytes(rng, 64 * kBeats);
  seal(m);
  return m;
}

/// `count` pages, each under an IV of its own.
inline std::vector<GcmMessage> make_pages(std::mt19937_64& rng, const Bytes& key, size_t count) {
  std::vector<GcmMessage> pages;
  for (size_t p = 0; p < count; ++p) pages.push_back(make_page(rng, key, random_bytes(rng, 12)));
  return pages;
}

/// A valid or ready is raised with probability 1/n in a cycle; a valid stays until it is taken.
struct Traffic {
  unsigned header_every, beat_every, read_every;
  unsigned tag_every = 1;  // tags may come long after their headers
};

class PageBench {
 public:
  struct Beat {
    Bytes data;
    uint64_t cycle;
  };
  struct Verdict {
    bool ok;
    uint64_t cycle;
  };

  explicit PageBench(uint64_t seed) : rng_(seed) {
    dut.rst_ni = 0;
    step();
    dut.rst_ni = 1;
    step();
    while (dut.wipe_busy_o) step();
  }

  /// One clock cycle; records what the outputs show in it.
  void step() {
    dut.clk_i = 0;
    dut.eval();
    if (dut.hdr_valid_i && dut.hdr_ready_o) headers.push_back(cycle);
    if (dut.hdr_tag_valid_i && dut.hdr_tag_ready_o) tags.push_back(cycle);
    if (dut.ct_valid_i && dut.ct_ready_o) accepted.push_back(cycle);
    if (dut.pt_valid_o) plain.push_back({from_wide(dut.pt_data_o, 64), cycle});
    if (dut.verdict_valid_o) verdicts.push_back({dut.verdict_ok_o != 0, cycle});
    if (dut.rd_valid_o && dut.rd_ready_i) read.push_back({from_wide(dut.rd_data_o, 64), cycle});
    dut.clk_i = 1;
    dut.eval();
    ++cycle;
  }

  /// Loads a key by pulse and waits; returns the cycles from the pulse to key_ready_o.
  int load_key(const Bytes& key) {
    to_wide(dut.key_i, key.data(), 16);
    dut.key_valid_i = 1;
    dut.key_load_i = 1;
    step();
    dut.key_load_i = 0;
    int n = 1;
    while (!dut.key_ready_o && n < 1000) {
      step();
      ++n;
    }
    return n;
  }

  /// Clears the ring and forgets what was recorded.
  void clear() {
    dut.ring_clear_i = 1;
    step();
    dut.ring_clear_i = 0;
    step();
    while (dut.wipe_busy_o) step();
    forget();
  }

  void forget() {
    headers.clear();
    tags.clear();
    accepted.clear();
    plain.clear();
    verdicts.clear();
    read.clear();
  }

  /// Streams pages until all are read and `settle` more cycles have passed, or nothing moves for
  /// 3,000 cycles. With a failed page the ring stops giving slots, so the pages that had not got
  /// one are sent without: what may still come out of the engine then meets a failed ring.
  void run(const std::vector<GcmMessage>& pages, Traffic t, int settle = 0,
           bool may_stall = false) {
    stream(pages, pages.size() * kBeats, t);
    const size_t want = pages.size() * kBeats;
    int quiet = 0;
    while (quiet < (may_stall ? settle : 3000) && read.size() < want) {
      const size_t before = read.size() + verdicts.size();
      dut.rd_ready_i = rng_() % t.read_every == 0;
      step();
      quiet = read.size() + verdicts.size() == before ? quiet + 1 : 0;
      if (dut.fail_o && quiet > 100) break;
    }
    dut.rd_ready_i = 1;
    for (int i = 0; i < settle; ++i) step();
    dut.rd_ready_i = 0;
  }

  /// Streams only the first `beats` beats of the pages, at full speed, and stops right there.
  void run_beats(const std::vector<GcmMessage>& pages, int beats) {
    stream(pages, static_cast<size_t>(beats), {1, 1, 1});
    dut.rd_ready_i = 0;
  }

  Vlk_gcm_ring_bench dut;
  uint64_t cycle = 0;
  std::vector<uint64_t> headers, tags, accepted;
  std::vector<Beat> plain, read;
  std::vector<Verdict> verdicts;

 private:
  void stream(const std::vector<GcmMessage>& pages, size_t beats, Traffic t) {
    size_t hdr = 0, tag = 0, beat = 0;
    int quiet = 0;
    dut.hdr_valid_i = 0;
    dut.hdr_tag_valid_i = 0;
    dut.ct_valid_i = 0;
    const size_t tags_due = beats == pages.size() * kBeats ? pages.size() : 0;
    while ((beat < beats || hdr < 1 || tag < tags_due) && quiet < 3000) {
      dut.rd_ready_i = rng_() % t.read_every == 0;
      dut.slot_take_i = 0;
      if (!dut.hdr_valid_i && hdr < pages.size() && rng_() % t.header_every == 0) {
        if (dut.slot_free_o) dut.slot_take_i = 1;
        if (dut.slot_free_o || dut.fail_o) {
          dut.hdr_valid_i = 1;
          to_wide(dut.hdr_iv_i, pages[hdr].iv.data(), 12);
        }
      }
      if (!dut.hdr_tag_valid_i && tag < pages.size() && rng_() % t.tag_every == 0) {
        dut.hdr_tag_valid_i = 1;
        to_wide(dut.hdr_tag_i, pages[tag].tag.data(), 16);
      }
      if (!dut.ct_valid_i && beat < beats && rng_() % t.beat_every == 0) {
        dut.ct_valid_i = 1;
        to_wide(dut.ct_data_i, &pages[beat / kBeats].ciphertext[64 * (beat % kBeats)], 64);
      }
      const size_t h = headers.size(), g = tags.size(), a = accepted.size();
      step();
      quiet = headers.size() == h && tags.size() == g && accepted.size() == a ? quiet + 1 : 0;
      if (headers.size() != h) {
        ++hdr;
        dut.hdr_valid_i = 0;
      }
      if (tags.size() != g) {
        ++tag;
        dut.hdr_tag_valid_i = 0;
      }
      if (accepted.size() != a) {
        ++beat;
        dut.ct_valid_i = 0;
      }
    }
    dut.hdr_valid_i = 0;
    dut.hdr_tag_valid_i = 0;
    dut.ct_valid_i = 0;
    dut.slot_take_i = 0;
  }

  std::mt19937_64 rng_;
};

}  // namespace latchkey::test
