// Cost model: how many cycles each operation of a program takes, which unit sets the pace, and why.
//
// The model plays the engine's schedule at the granularity of a sweep (one weight subtile over up
// to 512 rows): pages arrive in order from memory into a ring of eight, the port loads a subtile
// while the array sweeps the last one, the feed runs a few rows ahead, a finished bank drains while
// the other is swept, at most two tiles are open. Everything it needs is in the descriptors, so it
// can be held against the counters of a run (LAYER_CYCLES). It predicts time, not results.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "compiler/program.hpp"

namespace latchkey::compiler {

/// Card memory as the weight port sees it, in cycles of the kernel's clock.
struct memory_timing {
  std::string_view name;
  double cycles_per_beat = 1;  ///< Sustained, refresh included; the port takes at most one a cycle
  double page = 64;            ///< Of one page, from first to last beat
  double hold = 0;             ///< By which a page holds up a burst of another port behind it
  std::uint32_t latency = 0;   ///< Request to first beat
};
/// The presets of the simulated card (docs/simulated_card.md) at 300 MHz. Throws latchkey::error
/// (errc::usage) for another name.
memory_timing memory_preset(std::string_view name);

/// What sets a layer's pace. `overhead`: none of the units; filling, draining and latency do.
enum class bound { array, feed, port, memory, post, vector, stream, overhead };
std::string_view describe(bound b);

struct layer_cost {
  std::uint64_t cycles = 0;  ///< From the end of the operation before; the first: from descriptors
  // What each unit would take if it were alone. The largest is a lower bound.
  std::uint64_t array = 0;   ///< Rows swept
  std::uint64_t feed = 0;    ///< Reads that gather those rows
  std::uint64_t port = 0;    ///< Beats of parameters and weights into the array
  std::uint64_t memory = 0;  ///< The same beats, or those of the spill area, at the memory's pace
  std::uint64_t post = 0;    ///< Groups of results through the post unit
  std::uint64_t vector = 0;  ///< Taps or words through the vector unit
  std::uint64_t stream = 0;  ///< Words of the input or output stream
  std::uint64_t macs = 0;    ///< Useful multiply-accumulates of the whole batch
  std::uint64_t bytes = 0;   ///< Bytes of pages fetched, or spilled
  bound by = bound::overhead;
};

struct run_cost {
  std::uint64_t boot = 0;          ///< Start until the descriptors stand
  std::vector<layer_cost> layers;  ///< One per descriptor but End
  std::uint64_t cycles = 0;        ///< Start to done
};

/// One start of `batch` images. Throws latchkey::error (errc::usage) for a batch that the program
/// does not take.
run_cost predict(const program& p, std::uint32_t batch, const memory_timing& memory,
                 bool locked = true);

/// Cycles of one operation on one image, with ideal memory and from its descriptor alone: for
/// choosing between ways to run a layer.
std::uint64_t cycles_alone(const spec::descriptor& d, std::uint32_t array_n);

}  // namespace latchkey::compiler
