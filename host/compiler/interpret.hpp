// A golden model of the accelerator's compute engine: executes descriptors and plaintext pages on a
// byte image of the scratchpad. It takes every address and every bound from the descriptor, as the
// hardware does, and shares no code with the compiler or the reference executor, so agreement with
// them checks the layouts, the packing and the plan, and its scratchpad is the expected output of
// RTL tests.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "compiler/program.hpp"

namespace latchkey::compiler {

/// The engine's state: scratchpad, spill area and counters. Results are exact in every real
/// channel. Bytes between the real channels of a block and its end ("padding channels") are written
/// as 0 here; the hardware may write anything there, since no result depends on them.
class engine_model {
 public:
  /// `fill` is what the scratchpad holds at first. Throws latchkey::error for an array other than
  /// 16, 32 or 64.
  explicit engine_model(const target& build, std::uint8_t fill = 0);

  /// Runs one descriptor on `batch` images. `pages`: all pages of the program (what has
  /// weights, parameters or a table). `input`: batch * out_stride * 64 bytes (Input). `output`:
  /// receives batch * in_stride * 64 bytes (Output). Throws latchkey::error (errc::run_failed) for
  /// an address outside the scratchpad or the pages, a malformed descriptor, an input of another
  /// length (the hardware's BadInput), or a Load of pages that no Spill has written (its
  /// SpillTampered).
  void execute(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages,
               io::byte_view input, io::bytes& output);

  [[nodiscard]] io::byte_view scratchpad() const { return spad_; }
  [[nodiscard]] std::span<std::uint8_t> scratchpad() { return spad_; }
  /// Multiply-accumulates so far, as the hardware's Macs counter.
  [[nodiscard]] std::uint64_t macs() const { return macs_; }
  /// Parameter pages and tiles taken so far.
  [[nodiscard]] std::uint64_t pages() const { return pages_; }

 private:
  /// params_at, tiles_at: pages where the parameters and the weights begin.
  void mat_mul(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages,
               std::uint32_t params_at, std::uint32_t tiles_at);
  void depthwise(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages,
                 std::uint32_t params_at, std::uint32_t tiles_at);
  /// The Depthwise of dw_pairs: from words of two pixels of 32 channels at in_base.
  void depthwise_pairs(const spec::descriptor& d, std::uint32_t in_base, std::uint32_t batch,
                       io::byte_view pages, std::uint32_t params_at);
  void mat_mul_depthwise(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages);
  void max_pool(const spec::descriptor& d, std::uint32_t batch);
  void avg_pool(const spec::descriptor& d, std::uint32_t batch);
  void mul(const spec::descriptor& d, std::uint32_t batch);
  void table(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages);
  void load(const spec::descriptor& d, io::byte_view pages);
  void product(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages);
  void softmax(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages);
  void layer_norm(const spec::descriptor& d, std::uint32_t batch, io::byte_view pages);
  /// f(a, b) for every byte of the tensor at in_base and, with `two`, the one at in2_base.
  template <typename F>
  void elementwise(const spec::descriptor& d, std::uint32_t batch, bool two, F f);
  void add(const spec::descriptor& d, std::uint32_t batch);
  void spill(const spec::descriptor& d, std::uint32_t batch);
  void reload(const spec::descriptor& d, std::uint32_t batch);
  /// f(row) for the channels of every pixel: stored bytes in, results out.
  template <typename F>
  void rows(const spec::descriptor& d, std::uint32_t batch, F f);
  [[nodiscard]] std::size_t address(std::uint64_t base, std::uint64_t stride, std::uint32_t image,
                                    std::uint64_t offset) const;

  std::uint32_t array_n_;
  std::vector<std::uint8_t> spad_;
  /// In clear: what the model checks is where words go and come from.
  std::map<std::uint64_t, std::array<std::uint8_t, spec::page_bytes>> spilled_;  ///< By page
  std::uint64_t macs_ = 0;
  std::uint64_t pages_ = 0;
};

struct run_result {
  io::bytes output;         ///< batch * output.layout.words * 64 bytes
  std::uint64_t macs = 0;   ///< Counter Macs of the run
  std::uint64_t pages = 0;  ///< Counter Pages of the run: descriptor, parameter and weight pages
};

/// Runs a whole program from its pages alone: reads the descriptors from region 0, executes up to
/// End. `input` holds batch * input.layout.words * 64 bytes (tensor_layout::pack). The scratchpad
/// starts as garbage.
run_result interpret(const program& p, io::byte_view input, std::uint32_t batch);

}  // namespace latchkey::compiler
