// Programs against the reference executor, bit for bit, on random images.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "compiler/compile.hpp"
#include "compiler/interpret.hpp"
#include "model/reference.hpp"
#include "seed.hpp"

namespace latchkey::compiler {

/// Runs `batch` random images through both and compares output, MACs and pages.
inline void expect_equal(const model::qgraph& graph, const program& p, std::uint32_t batch,
                         std::mt19937& random) {
  io::bytes input;
  std::vector<io::bytes> want;
  model::reference golden(graph);
  for (std::uint32_t i = 0; i < batch; ++i) {
    io::bytes image(graph.input_tensor().size());
    for (auto& b : image) b = static_cast<std::uint8_t>(random());
    const auto out = golden.infer(image);
    want.emplace_back(out.begin(), out.end());
    const io::bytes packed = p.input.layout.pack(image);
    input.insert(input.end(), packed.begin(), packed.end());
  }
  // Padding channels of the input are garbage: no result may depend on them.
  for (std::uint32_t i = 0; i < batch; ++i) {
    const std::size_t at = std::size_t{i} * p.input.layout.words * 64;
    io::bytes junk(std::size_t{p.input.layout.words} * 64);
    for (auto& b : junk) b = static_cast<std::uint8_t>(random());
    const io::bytes values = p.input.layout.unpack(io::byte_view(input).subspan(at, junk.size()));
    std::size_t v = 0;
    for (std::uint32_t c = 0; c < p.input.layout.c; ++c)
      for (std::uint32_t y = 0; y < p.input.layout.h; ++y)
        for (std::uint32_t x = 0; x < p.input.layout.w; ++x)
          junk[p.input.layout.offset(y, x, c)] = values[v++] ^ 0x80;
    std::copy(junk.begin(), junk.end(), input.begin() + static_cast<std::ptrdiff_t>(at));
  }
  const run_result got = interpret(p, input, batch);
  ASSERT_EQ(got.output.size(), std::size_t{batch} * p.output.layout.words * 64);
  for (std::uint32_t i = 0; i < batch; ++i) {
    const std::size_t words = std::size_t{p.output.layout.words} * 64;
    ASSERT_EQ(p.output.layout.unpack(io::byte_view(got.output).subspan(i * words, words)), want[i])
        << "image " << i;
  }
  EXPECT_EQ(got.macs, batch * p.counted_macs());
  for (const layer_report& l : p.layers) {
    if (p.target.array_n != 64 && l.op != "transposed") EXPECT_EQ(l.zero_macs, 0u) << l.name;
  }
  EXPECT_EQ(p.macs(), graph.macs());
  EXPECT_EQ(got.pages, pages_fetched(p, batch));
}

/// Where random graphs begin.
inline unsigned first_seed() { return static_cast<unsigned>(test::test_seed(1)); }

}  // namespace latchkey::compiler
