// Both twins of prim_mac_array on the same inputs, for the lockstep test.
module mac_array_lockstep #(
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
  output logic              generic_valid_o,
  output logic [32*N-1:0]   generic_data_o,
  output logic              xilinx_valid_o,
  output logic [32*N-1:0]   xilinx_data_o
);
  prim_generic_mac_array #(.N(N)) u_generic (
    .clk_i, .rst_ni, .clear_i, .wipe_i, .w_we_i, .w_beat_i, .w_data_i, .x_valid_i, .x_swap_i,
    .x_data_i, .y_valid_o(generic_valid_o), .y_data_o(generic_data_o)
  );
  prim_xilinx_mac_array #(.N(N)) u_xilinx (
    .clk_i, .rst_ni, .clear_i, .wipe_i, .w_we_i, .w_beat_i, .w_data_i, .x_valid_i, .x_swap_i,
    .x_data_i, .y_valid_o(xilinx_valid_o), .y_data_o(xilinx_data_o)
  );
endmodule
