// DPI-C side of the generic primitives. Compiled into every Verilated model; see silicon_ops.h.
#include <cstdio>
#include <cstdlib>

#include "latchkey/sim/silicon_ops.h"

namespace {

thread_local const latchkey_silicon_ops* selected = nullptr;

const latchkey_silicon_ops& ops(const char* caller) {
  if (selected == nullptr) {
    std::fprintf(stderr,
                 "%s: no die is selected on this thread; call latchkey_silicon_select() before "
                 "evaluating the chip\n",
                 caller);
    std::abort();
  }
  return *selected;
}

}  // namespace

extern "C" {

void latchkey_silicon_select(const latchkey_silicon_ops* table) { selected = table; }

int latchkey_puf_eval(int chain, long long challenge, int offset) {
  const latchkey_silicon_ops& o = ops(__func__);
  return o.puf_eval(o.ctx, static_cast<uint32_t>(chain), static_cast<uint64_t>(challenge), offset);
}

int latchkey_trng_word() {
  const latchkey_silicon_ops& o = ops(__func__);
  return static_cast<int>(o.trng_word(o.ctx));
}

long long latchkey_fuse_read() {
  const latchkey_silicon_ops& o = ops(__func__);
  return static_cast<long long>(o.fuse_read(o.fuse_ctx));
}

long long latchkey_fuse_floor(int slot) {
  const latchkey_silicon_ops& o = ops(__func__);
  return static_cast<long long>(o.fuse_floor(o.fuse_ctx, static_cast<uint32_t>(slot)));
}

void latchkey_fuse_program(int field, int value) {
  const latchkey_silicon_ops& o = ops(__func__);
  o.fuse_program(o.fuse_ctx, static_cast<uint32_t>(field), static_cast<uint32_t>(value));
}

}  // extern "C"
