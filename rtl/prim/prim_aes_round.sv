// AES encryption round with a registered output: picks the technology twin.
// See prim_generic_aes_round for function, byte order and parameters.
module prim_aes_round #(
  parameter int unsigned Kind = 0
) (
  input  logic         clk_i,
  input  logic         clear_i,
  input  logic         en_i,
  input  logic         last_i,
  input  logic [127:0] state_i,
  input  logic [127:0] key_i,
  output logic [127:0] state_o
);
`ifdef LATCHKEY_TARGET_XILINX
  prim_xilinx_aes_round #(.Kind(Kind)) u_impl (.*);
`else
  prim_generic_aes_round #(.Kind(Kind)) u_impl (.*);
`endif
endmodule
