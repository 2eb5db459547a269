// Registers the kernels of a card image. Used inside an image only; see model_abi.h.
#ifndef LATCHKEY_SIM_IMAGE_H_
#define LATCHKEY_SIM_IMAGE_H_

#include "latchkey/sim/model_abi.h"

namespace latchkey::sim {

// Adds a kernel to the list that latchkey_image() returns. Call it from a static initialiser.
bool register_rtl_kernel(const lk_rtl_kernel* kernel);
bool register_hls_kernel(const lk_hls_kernel* kernel);

}  // namespace latchkey::sim

#endif  // LATCHKEY_SIM_IMAGE_H_
