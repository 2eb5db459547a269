// Simulation speed of the page engine and the ring, in kilocycles per second of processor
// time (one thread).
#include <cstdio>
#include <ctime>

#include "page_bench.h"

namespace {

using latchkey::test::make_page;
using latchkey::test::PageBench;
using latchkey::test::to_wide;

template <class Body>
void measure(const char* what, int cycles, Body body) {
  const std::clock_t start = std::clock();
  for (int i = 0; i < cycles; ++i) body(i);
  const double s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::printf("%-44s %8.0f kcycles/s\n", what, cycles / s / 1000.0);
}

}  // namespace

int main() {
  std::mt19937_64 rng(1);
  PageBench b(1);
  auto& dut = b.dut;
  const auto tick = [&] {
    dut.clk_i = 0;
    dut.eval();
    dut.clk_i = 1;
    dut.eval();
  };
  measure("no key", 2000000, [&](int) { tick(); });
  const auto key = latchkey::test::random_bytes(rng, 16);
  b.load_key(key);
  measure("key loaded, idle", 2000000, [&](int) { tick(); });

  // One page over and over: every header has the same IV and tag, so every verdict passes.
  const auto page = make_page(rng, key, latchkey::test::random_bytes(rng, 12));
  to_wide(dut.hdr_iv_i, page.iv.data(), 12);
  to_wide(dut.hdr_tag_i, page.tag.data(), 16);
  dut.hdr_tag_valid_i = 1;
  dut.rd_ready_i = 1;
  long beats = 0, reads = 0;
  size_t at = 0;
  constexpr int kCycles = 1000000;
  measure("saturated: AES, GHASH, ring write and read", kCycles, [&](int) {
    dut.hdr_valid_i = dut.slot_free_o;
    dut.ct_valid_i = 1;
    to_wide(dut.ct_data_i, &page.ciphertext[64 * at], 64);
    dut.clk_i = 0;
    dut.eval();
    dut.slot_take_i = dut.hdr_valid_i && dut.hdr_ready_o;
    const bool ct = dut.ct_valid_i && dut.ct_ready_o;
    reads += dut.rd_valid_o;
    dut.clk_i = 1;
    dut.eval();
    dut.slot_take_i = 0;
    if (ct) {
      ++beats;
      at = (at + 1) % latchkey::test::kBeats;
    }
  });
  std::printf("  %ld beats accepted, %ld verified beats read in %d cycles%s\n", beats, reads,
              kCycles, dut.fail_o ? ", FAILED" : "");
  return dut.fail_o ? 1 : 0;
}
