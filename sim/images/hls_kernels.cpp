// The HLS adapters as modules of the simulated card: the same templates that Vitis would compile,
// with memory and streams that go through the card's models.
#include <cstring>
#include <memory>

#include "latchkey/sim/hls_kernel.h"
#include "latchkey_spec.hpp"
#include "output_adapter.hpp"

namespace latchkey::sim {
namespace {

using namespace hls_kernels;

/// Card memory as the adapters' m_axi port; the base address is the kernel's argument.
struct card_memory {
  const lk_hls_env* env;
  std::uint64_t base;
};

// Found by argument-dependent look-up in place of the pointer forms.
void read_words(card_memory memory, std::uint64_t first, unsigned count, word_t* to) {
  memory.env->mem_read(memory.env->ctx, memory.base + first * beat_bytes, to[0].data(),
                       std::uint64_t{count} * beat_bytes);
}
void write_words(card_memory memory, std::uint64_t first, unsigned count, const word_t* from) {
  memory.env->mem_write(memory.env->ctx, memory.base + first * beat_bytes, from[0].data(),
                        std::uint64_t{count} * beat_bytes);
}
void spend(card_memory& memory, unsigned cycles) {
  if (cycles) memory.env->wait_cycles(memory.env->ctx, cycles);
}

struct card_stream {
  const lk_hls_env* env;
  void write(const beat_t& beat) {
    lk_axis_beat out{};
    std::memcpy(out.data, beat.data.data(), sizeof out.data);
    out.keep = beat.keep;
    out.last = beat.last;
    env->stream_write(env->ctx, &out);
  }
  beat_t read() {
    lk_axis_beat in{};
    env->stream_read(env->ctx, &in);
    beat_t beat;
    std::memcpy(beat.data.data(), in.data, sizeof in.data);
    beat.keep = in.keep;
    beat.last = in.last != 0;
    return beat;
  }
};

struct registers {
  const lk_hls_env* env;
  std::uint32_t u32(std::uint32_t offset) const { return env->reg_read(env->ctx, offset); }
  float f32(std::uint32_t offset) const { return as_float(u32(offset)); }
};

void run_input(const lk_hls_env* env) {
  const registers r{env};
  namespace arg = spec::input_arg;
  const input_args args{r.u32(arg::batch),
                        r.u32(arg::channels),
                        r.u32(arg::height),
                        r.u32(arg::width),
                        static_cast<dtype>(r.u32(arg::type)),
                        static_cast<layout>(r.u32(arg::order)),
                        r.u32(arg::cp_log2),
                        r.u32(arg::words),
                        r.u32(arg::image_words),
                        r.f32(arg::scale),
                        r.u32(arg::zero_point),
                        r.f32(arg::mul),
                        r.f32(arg::add)};
  card_stream stream{env};
  // On the heap and per run: kernels of several cards are coroutines of one thread.
  const auto ram = std::make_unique<input_ram>();
  const adapter_status status =
      input_adapter(card_memory{env, hls_arg64(env, arg::images)}, stream, args, *ram);
  env->reg_write(env->ctx, arg::status, static_cast<std::uint32_t>(status));
}

void run_output(const lk_hls_env* env) {
  const registers r{env};
  namespace arg = spec::output_arg;
  const output_args args{r.u32(arg::batch),
                         r.u32(arg::channels),
                         r.u32(arg::pixels),
                         r.u32(arg::cp_log2),
                         r.u32(arg::words),
                         r.u32(arg::record_words),
                         static_cast<output_mode>(r.u32(arg::mode)),
                         r.u32(arg::k),
                         r.f32(arg::scale),
                         r.u32(arg::zero_point)};
  card_stream stream{env};
  const auto ram = std::make_unique<output_ram>();
  const adapter_status status =
      output_adapter(card_memory{env, hls_arg64(env, arg::records)}, stream, args, *ram);
  env->reg_write(env->ctx, arg::status, static_cast<std::uint32_t>(status));
}

// Pipeline depths: table or float path plus packing; dequantisation plus record assembly.
LATCHKEY_HLS_KERNEL(run_input, "latchkey_input", LK_PORT_GMEM_READ | LK_PORT_AXIS_OUT, 24)
LATCHKEY_HLS_KERNEL(run_output, "latchkey_output", LK_PORT_GMEM_WRITE | LK_PORT_AXIS_IN, 32)

}  // namespace
}  // namespace latchkey::sim
