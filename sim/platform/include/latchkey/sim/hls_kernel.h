// Turns a C++ function into an lk_hls_kernel of a card image.
//
//   static void run_input(const lk_hls_env* env) {
//     uint64_t address = latchkey::sim::hls_arg64(env, 0x10);
//     std::vector<uint8_t> image(bytes);
//     env->mem_read(env->ctx, address, image.data(), image.size());
//     ... latchkey_input(..., out)    where out.write() calls env->stream_write(env->ctx, &beat)
//   }
//   LATCHKEY_HLS_KERNEL(run_input, "latchkey_input", LK_PORT_GMEM_READ | LK_PORT_AXIS_OUT, 24);
#ifndef LATCHKEY_SIM_HLS_KERNEL_H_
#define LATCHKEY_SIM_HLS_KERNEL_H_

#include "latchkey/sim/image.h"

namespace latchkey::sim {

inline uint64_t hls_arg64(const lk_hls_env* env, uint32_t offset) {
  return env->reg_read(env->ctx, offset) |
         static_cast<uint64_t>(env->reg_read(env->ctx, offset + 4)) << 32;
}

}  // namespace latchkey::sim

#define LATCHKEY_HLS_KERNEL(function, kernel_name, port_mask, pipeline_latency)            \
  namespace {                                                                              \
  const lk_hls_kernel latchkey_hls_##function = {kernel_name, port_mask, pipeline_latency, \
                                                 function};                                \
  const bool latchkey_hls_registered_##function =                                          \
      latchkey::sim::register_hls_kernel(&latchkey_hls_##function);                        \
  }

#endif  // LATCHKEY_SIM_HLS_KERNEL_H_
