// The part of a card image that is the same in every one: the kernel list.
#include "latchkey/sim/image.h"

#include <vector>

namespace latchkey::sim {
namespace {

// Function-local, because kernels register from static initialisers of other files.
std::vector<const lk_rtl_kernel*>& rtl_kernels() {
  static std::vector<const lk_rtl_kernel*> kernels;
  return kernels;
}

std::vector<const lk_hls_kernel*>& hls_kernels() {
  static std::vector<const lk_hls_kernel*> kernels;
  return kernels;
}

}  // namespace

bool register_rtl_kernel(const lk_rtl_kernel* kernel) {
  rtl_kernels().push_back(kernel);
  return true;
}

bool register_hls_kernel(const lk_hls_kernel* kernel) {
  hls_kernels().push_back(kernel);
  return true;
}

}  // namespace latchkey::sim

extern "C" __attribute__((visibility("default"))) const lk_image* latchkey_image(void) {
  static const lk_image image = [] {
    lk_image i{};
    i.abi = LATCHKEY_MODEL_ABI;
    i.num_rtl = static_cast<uint32_t>(latchkey::sim::rtl_kernels().size());
    i.rtl = latchkey::sim::rtl_kernels().data();
    i.num_hls = static_cast<uint32_t>(latchkey::sim::hls_kernels().size());
    i.hls = latchkey::sim::hls_kernels().data();
    return i;
  }();
  return &image;
}
