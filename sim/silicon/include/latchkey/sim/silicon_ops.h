// The C ABI between a Verilated chip and the die it runs on.
//
// The generic primitives (`prim_generic_puf_bank`, `prim_generic_trng`, `prim_generic_fuse`) call
// the DPI functions of dpi.cpp; those forward to the table selected for the calling thread. dpi.cpp
// is compiled into every Verilated model, the model of the silicon is not: a chip image carries
// no die, and the platform gives it one at run time.
//
// Call `latchkey_silicon_select` on the thread that evaluates the model, before each evaluation (or
// once, when the thread evaluates one chip only). The table must outlive the evaluations that use
// it. A DPI call with no table selected ends the process with a message: a chip without a
// die must not go on with invented responses.
#ifndef LATCHKEY_SIM_SILICON_OPS_H_
#define LATCHKEY_SIM_SILICON_OPS_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Fields of `fuse_program`.
enum latchkey_fuse_field {
  LATCHKEY_FUSE_ENROLLED = 0,     // value ignored: sets the bit
  LATCHKEY_FUSE_LIFE_CYCLE = 1,   // value: 16-bit code; its ones are burnt into the current code
  LATCHKEY_FUSE_MIN_VERSION = 2,  // value: new minimum; a smaller one than stored changes nothing
  LATCHKEY_FUSE_VERSION_FLOOR = 16,  // plus the owner slot 0..7; likewise
  LATCHKEY_FUSE_EPOCH_FLOOR = 32,    // likewise
};

typedef struct latchkey_silicon_ops {
  void* ctx;       // passed to puf_eval and trng_word
  void* fuse_ctx;  // passed to the fuse functions
  // One race of `chain` under `challenge` (bit i steers stage i) with `offset` delay-line steps
  // (-128..127) in favour of the answer 1. Returns 0 or 1.
  int32_t (*puf_eval)(void* ctx, uint32_t chain, uint64_t challenge, int32_t offset);
  // 32 fresh random bits.
  uint32_t (*trng_word)(void* ctx);
  // [15:0] life-cycle code, [16] enrolled, [31:17] zero, [63:32] minimum version.
  uint64_t (*fuse_read)(void* fuse_ctx);
  // Floors of an owner slot 0..7: [31:0] lowest version, [63:32] lowest epoch.
  uint64_t (*fuse_floor)(void* fuse_ctx, uint32_t slot);
  void (*fuse_program)(void* fuse_ctx, uint32_t field, uint32_t value);
} latchkey_silicon_ops;

// Selects the die of the calling thread; a null pointer deselects.
void latchkey_silicon_select(const latchkey_silicon_ops* ops);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // LATCHKEY_SIM_SILICON_OPS_H_
