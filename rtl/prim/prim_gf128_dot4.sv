// Sum of four products in the field of GCM, three cycles deep: picks the technology twin.
// See prim_generic_gf128_dot4 for function, bit order and timing.
module prim_gf128_dot4 (
  input  logic              clk_i,
  input  logic              clear_i,
  input  logic              valid_i,
  input  logic [3:0][127:0] a_i,
  input  logic [3:0][127:0] b_i,
  output logic [127:0]      y_o
);
`ifdef LATCHKEY_TARGET_XILINX
  prim_xilinx_gf128_dot4 u_impl (.*);
`else
  prim_generic_gf128_dot4 u_impl (.*);
`endif
endmodule
