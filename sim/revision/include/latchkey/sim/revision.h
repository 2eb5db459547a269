// The revision that a card image was built from: DPI function of prim_generic_build_hash.
#ifndef LATCHKEY_SIM_REVISION_H_
#define LATCHKEY_SIM_REVISION_H_

/// First 32 bits of the commit; 0 when unknown or when files differed from it.
extern "C" unsigned int latchkey_build_hash();

#endif  // LATCHKEY_SIM_REVISION_H_
