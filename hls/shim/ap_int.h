// Stand-in for the part of Vitis HLS's ap_int.h that our kernels use, for builds without the
// vendor's headers. Widths are multiples of 8; range(hi, lo) is limited to byte-aligned fields of
// up to 32 bits.
#pragma once
#include <cstdint>
#include <cstring>

template <int Bits>
class ap_uint {
  static_assert(Bits % 8 == 0, "the stand-in holds whole bytes");

 public:
  ap_uint() { std::memset(bytes_, 0, sizeof bytes_); }

  class field {
   public:
    field(ap_uint& value, int low, int width) : value_(value), low_(low), width_(width) {}
    operator std::uint32_t() const {
      std::uint32_t v = 0;
      std::memcpy(&v, value_.bytes_ + low_ / 8, static_cast<std::size_t>(width_ / 8));
      return v;
    }
    field& operator=(std::uint32_t v) {
      std::memcpy(value_.bytes_ + low_ / 8, &v, static_cast<std::size_t>(width_ / 8));
      return *this;
    }

   private:
    ap_uint& value_;
    int low_, width_;
  };

  field range(int high, int low) { return field(*this, low, high - low + 1); }
  std::uint32_t range(int high, int low) const {
    return field(const_cast<ap_uint&>(*this), low, high - low + 1);
  }
  /// Memory order: byte 0 is bits 7:0.
  const std::uint8_t* data() const { return bytes_; }
  std::uint8_t* data() { return bytes_; }

 private:
  std::uint8_t bytes_[Bits / 8];
};
