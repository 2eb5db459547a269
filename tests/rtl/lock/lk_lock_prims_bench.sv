// Bench top: both twins of each lock primitive on the same inputs, and the iterative AES.
module lk_lock_prims_bench (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  // AES round: the three kinds, generic [0] and xilinx [1]
  input  logic              aes_en_i,
  input  logic              aes_last_i,
  input  logic [127:0]      aes_state_i,
  input  logic [127:0]      aes_key_i,
  output logic [2:0][127:0] aes_generic_o,
  output logic [2:0][127:0] aes_xilinx_o,
  // four-product sum
  input  logic              dot_valid_i,
  input  logic [3:0][127:0] dot_a_i,
  input  logic [3:0][127:0] dot_b_i,
  output logic [127:0]      dot_generic_o,
  output logic [127:0]      dot_xilinx_o,
  // iterative AES
  input  logic              key_load_i,
  input  logic [127:0]      key_i,
  output logic              keys_valid_o,
  output logic [lk_gcm_pkg::AesRounds:0][127:0] round_keys_o,
  input  logic              req_valid_i,
  output logic              req_ready_o,
  input  logic [127:0]      req_data_i,
  output logic              rsp_valid_o,
  output logic [127:0]      rsp_data_o
);
  for (genvar k = 0; k < 3; k++) begin : gen_kind
    prim_generic_aes_round #(.Kind(k)) u_generic (
      .clk_i, .clear_i, .en_i(aes_en_i), .last_i(aes_last_i), .state_i(aes_state_i),
      .key_i(aes_key_i), .state_o(aes_generic_o[k])
    );
    prim_xilinx_aes_round #(.Kind(k)) u_xilinx (
      .clk_i, .clear_i, .en_i(aes_en_i), .last_i(aes_last_i), .state_i(aes_state_i),
      .key_i(aes_key_i), .state_o(aes_xilinx_o[k])
    );
  end

  prim_generic_gf128_dot4 u_dot_generic (
    .clk_i, .clear_i, .valid_i(dot_valid_i), .a_i(dot_a_i), .b_i(dot_b_i), .y_o(dot_generic_o)
  );
  prim_xilinx_gf128_dot4 u_dot_xilinx (
    .clk_i, .clear_i, .valid_i(dot_valid_i), .a_i(dot_a_i), .b_i(dot_b_i), .y_o(dot_xilinx_o)
  );

  lk_aes_iter u_iter (
    .clk_i, .rst_ni, .wipe_i(clear_i), .key_load_i, .key_i, .keys_valid_o, .round_keys_o,
    .req_valid_i, .req_ready_o, .req_data_i, .rsp_valid_o, .rsp_data_o
  );
endmodule
