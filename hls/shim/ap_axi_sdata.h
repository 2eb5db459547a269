// Stand-in for the part of Vitis HLS's ap_axi_sdata.h that our kernels use: a 512-bit AXI-Stream
// transfer with TKEEP and TLAST.
#pragma once
#include <cstdint>

#include "ap_int.h"

template <int Width, int User, int Id, int Dest>
struct ap_axiu {
  static_assert(Width == 512 && User == 0 && Id == 0 && Dest == 0, "the stand-in has one form");
  ap_uint<Width> data;
  std::uint64_t keep = ~std::uint64_t{0};
  bool last = false;
};
