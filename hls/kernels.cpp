// The HLS tops: latchkey_input and latchkey_output as Vitis takes them. Scalars lie on AXI-Lite
// from 0x10 on, eight bytes apart, in the order of the parameters; spec/latchkey.json holds the
// same map. The stream is the last argument: Vitis numbers the arguments in this order.
#include "ap_axi_sdata.h"
#include "hls_stream.h"
#include "output_adapter.hpp"

using namespace latchkey::hls_kernels;
using axis = ap_axiu<512, 0, 0, 0>;

namespace {

struct axis_writer {
  hls::stream<axis>& stream;
  void write(const beat_t& beat) {
    axis t;
    t.data = beat.data;
    t.keep = beat.keep;
    t.last = beat.last;
    stream.write(t);
  }
};

struct axis_reader {
  hls::stream<axis>& stream;
  beat_t read() {
    const axis t = stream.read();
    beat_t beat;
    beat.data = t.data;
    beat.keep = t.keep;
    beat.last = t.last;
    return beat;
  }
};

}  // namespace

extern "C" {

void latchkey_input(const word_t* gmem, std::uint32_t batch, std::uint32_t channels,
                    std::uint32_t height, std::uint32_t width, std::uint32_t type,
                    std::uint32_t order, std::uint32_t cp_log2, std::uint32_t words,
                    std::uint32_t image_words, float scale, std::uint32_t zero_point, float mul,
                    float add, std::uint32_t* status, hls::stream<axis>& out) {
#pragma HLS INTERFACE m_axi port = gmem bundle = gmem max_read_burst_length = 64
#pragma HLS INTERFACE axis port = out
#pragma HLS INTERFACE s_axilite port = status
#pragma HLS INTERFACE ap_ctrl_chain port = return
  static input_ram ram;
#pragma HLS ARRAY_PARTITION variable = ram.image type = cyclic factor = 2
#pragma HLS BIND_STORAGE variable = ram.image type = ram_2p impl = uram
#pragma HLS ARRAY_PARTITION variable = ram.tile type = complete dim = 0
  axis_writer writer{out};
  const input_args args{batch,
                        channels,
                        height,
                        width,
                        static_cast<dtype>(type),
                        static_cast<layout>(order),
                        cp_log2,
                        words,
                        image_words,
                        scale,
                        zero_point,
                        mul,
                        add};
  *status = static_cast<std::uint32_t>(input_adapter(gmem, writer, args, ram));
}

void latchkey_output(word_t* gmem, std::uint32_t batch, std::uint32_t channels,
                     std::uint32_t pixels, std::uint32_t cp_log2, std::uint32_t words,
                     std::uint32_t record_words, std::uint32_t mode, std::uint32_t k, float scale,
                     std::uint32_t zero_point, std::uint32_t* status, hls::stream<axis>& in) {
#pragma HLS INTERFACE m_axi port = gmem bundle = gmem max_write_burst_length = 64
#pragma HLS INTERFACE axis port = in
#pragma HLS INTERFACE s_axilite port = status
#pragma HLS INTERFACE ap_ctrl_chain port = return
  static output_ram ram;
#pragma HLS BIND_STORAGE variable = ram.image type = ram_2p impl = uram
#pragma HLS BIND_STORAGE variable = ram.record type = ram_2p impl = uram
  axis_reader reader{in};
  const output_args args{
      batch, channels, pixels,    cp_log2, words, record_words, static_cast<output_mode>(mode),
      k,     scale,    zero_point};
  *status = static_cast<std::uint32_t>(output_adapter(gmem, reader, args, ram));
}

}  // extern "C"
