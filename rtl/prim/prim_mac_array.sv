// N x N weight-stationary int8 multiply-accumulate array: y[c] = sum over r of x[r] * w[r][c].
//
// Rows. A row of N activations x enters with x_valid_i, one per cycle; its N sums leave as int32
// with y_valid_o exactly prim_mac_array_pkg::latency(N) cycles later. There is no back-pressure.
// Byte r of x_data_i is x[r]; bits [32*c+31:32*c] of y_data_o are y[c].
//
// Weights are double-buffered. Beats of 64 bytes fill the shadow tile: beat b holds rows
// b*64/N .. (b+1)*64/N-1, byte r*N+c of the tile is w[r][c], so a tile is N*N/64 beats. A row with
// x_swap_i set makes the shadow the active tile, from itself on. A beat in a cycle before the swap
// belongs to the swapped tile, a beat in the cycle of the swap or later to the next one. All beats
// of a tile must arrive, in ascending order and each once, between two swaps: the xilinx twin moves
// them along a skewed pipeline and relies on it.
//
// Numbers. Activations may be any int8. Weights must lie in [-127,127]: the xilinx twin packs two
// products into one DSP, and a cascade of 8 products (-128)*(-128) = 131,072 would overflow the 18
// bits of the lower one. With |w| <= 127 both twins are exact.
//
// wipe_i zeroes both weight tiles and everything derived from them; hold it for at least
// latency(N) cycles. clear_i drops the rows in flight (their sums never become valid).
//
// Twins: generic (fast to simulate) and, when LATCHKEY_TARGET_XILINX is defined, xilinx (explicit
// DSP48E2). tests/rtl/matmul runs them in lockstep.
module prim_mac_array #(
  parameter int unsigned N = 16,
  localparam int unsigned BeatW = $clog2(N * N / 64)
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              wipe_i,
  input  logic              w_we_i,
  input  logic [BeatW-1:0]  w_beat_i,
  input  logic [511:0]      w_data_i,
  input  logic              x_valid_i,
  input  logic              x_swap_i,
  input  logic [8*N-1:0]    x_data_i,
  output logic              y_valid_o,
  output logic [32*N-1:0]   y_data_o
);
  if (N != 16 && N != 32 && N != 64) begin : gen_bad_n
    $fatal(1, "%m: N must be 16, 32 or 64, got %0d", N);
  end

`ifdef LATCHKEY_TARGET_XILINX
  prim_xilinx_mac_array #(.N(N)) u_array (.*);
`else
  prim_generic_mac_array #(.N(N)) u_array (.*);
`endif
endmodule
