// The two HLS ends of the stream test: memory to stream, stream to memory.
// Registers: 0x10 address (64 bit), 0x18 beats; the sink takes the cycles it rests after each beat
// from bits 31:16 of 0x18 and returns the place of tlast in 0x1C.
#include <cstring>
#include <vector>

#include "latchkey/sim/hls_kernel.h"

namespace {

void run_source(const lk_hls_env* env) {
  const uint64_t address = latchkey::sim::hls_arg64(env, 0x10);
  const uint32_t beats = env->reg_read(env->ctx, 0x18);
  std::vector<uint8_t> data(uint64_t{beats} * LK_BEAT_BYTES);
  env->mem_read(env->ctx, address, data.data(), data.size());
  for (uint32_t i = 0; i < beats; ++i) {
    lk_axis_beat beat{};
    std::memcpy(beat.data, data.data() + uint64_t{i} * LK_BEAT_BYTES, LK_BEAT_BYTES);
    beat.keep = ~uint64_t{0};
    beat.last = i + 1 == beats;
    env->stream_write(env->ctx, &beat);
  }
}

void run_sink(const lk_hls_env* env) {
  const uint64_t address = latchkey::sim::hls_arg64(env, 0x10);
  const uint32_t beats = env->reg_read(env->ctx, 0x18) & 0xFFFF;
  const uint32_t rest = env->reg_read(env->ctx, 0x18) >> 16;
  std::vector<uint8_t> data(uint64_t{beats} * LK_BEAT_BYTES);
  for (uint32_t i = 0; i < beats; ++i) {
    lk_axis_beat beat{};
    env->stream_read(env->ctx, &beat);
    std::memcpy(data.data() + uint64_t{i} * LK_BEAT_BYTES, beat.data, LK_BEAT_BYTES);
    if (rest != 0) env->wait_cycles(env->ctx, rest);
    if (beat.last != 0) env->reg_write(env->ctx, 0x1C, i);
  }
  env->mem_write(env->ctx, address, data.data(), data.size());
}

}  // namespace

LATCHKEY_HLS_KERNEL(run_source, "stream_source", LK_PORT_GMEM_READ | LK_PORT_AXIS_OUT, 20)
LATCHKEY_HLS_KERNEL(run_sink, "stream_sink", LK_PORT_GMEM_WRITE | LK_PORT_AXIS_IN, 20)
