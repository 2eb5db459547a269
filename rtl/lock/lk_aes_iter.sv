// Iterative AES-128: key expansion and single blocks, one round a cycle on one round unit.
//
// Key expansion uses the same unit as encryption and needs no S-box of its own: a last round (no
// MixColumns) over a state whose four columns all hold RotWord(w3) yields SubWord(RotWord(w3)) in
// every column, ShiftRows having nothing to move; the round's key input adds the running XOR of the
// old words and the round constant, so its output is the next round key.
//
// Timing: key_load_i to keys_valid_o 12 cycles. A request accepted at one edge has its
// result in rsp_data_o with rsp_valid_o 10 edges later; a new request is accepted every 11 cycles.
// Byte order: byte b of key and blocks is bits [8*b+7:8*b].
// key_load_i wins over wipe_i; both drop whatever is under way.
module lk_aes_iter (
  input  logic                                        clk_i,
  input  logic                                        rst_ni,
  input  logic                                        wipe_i,
  input  logic                                        key_load_i,
  input  logic [127:0]                                key_i,
  output logic                                        keys_valid_o,
  output logic [lk_gcm_pkg::AesRounds:0][127:0]       round_keys_o,
  input  logic                                        req_valid_i,
  output logic                                        req_ready_o,
  input  logic [127:0]                                req_data_i,
  output logic                                        rsp_valid_o,
  output logic [127:0]                                rsp_data_o
);
  localparam logic [3:0] LastRound = 4'(lk_gcm_pkg::AesRounds);

  // Hamming distance 3 between the codes; anything else is a fault and ends in StTrap.
  typedef enum logic [4:0] {
    StIdle    = 5'b00000,
    StExpand  = 5'b00111,
    StEncrypt = 5'b11001,
    StTrap    = 5'b11110
  } state_e;

  (* fsm_encoding = "none" *) state_e state_q;
  logic [lk_gcm_pkg::AesRounds:0][127:0] rk_q;
  logic [3:0]   round_q;  // the round whose operands are on the round unit now
  logic [7:0]   rcon_q;
  logic [127:0] blk_q;
  logic         keys_valid_q, rsp_valid_q;

  assign keys_valid_o = keys_valid_q;
  assign round_keys_o = rk_q;
  assign req_ready_o  = (state_q == StIdle) && keys_valid_q;
  assign rsp_valid_o  = rsp_valid_q;

  logic [127:0] core_state, core_key, core_out, prev_key, src;
  logic [3:0]   done_round;
  logic         core_en, core_last, clear;

  assign clear     = wipe_i || key_load_i || (state_q == StTrap);
  assign core_en   = (state_q == StExpand && round_q <= LastRound) || (state_q == StEncrypt);
  assign core_last = (state_q == StExpand) || (round_q == LastRound);
  assign done_round = round_q - 4'd1;
  assign prev_key  = (round_q == 4'd1) ? rk_q[0] : core_out;
  assign src       = (round_q == 4'd1) ? blk_q ^ rk_q[0] : core_out;

  always_comb begin
    core_state = src;
    core_key   = rk_q[round_q];
    if (state_q == StExpand) begin
      core_state = {4{prev_key[103:96], prev_key[127:104]}};
      core_key[31:0]   = prev_key[31:0] ^ {24'b0, rcon_q};
      core_key[63:32]  = prev_key[63:32] ^ core_key[31:0];
      core_key[95:64]  = prev_key[95:64] ^ core_key[63:32];
      core_key[127:96] = prev_key[127:96] ^ core_key[95:64];
    end
  end

  prim_aes_round #(.Kind(2)) u_round (
    .clk_i   (clk_i),
    .clear_i (clear),
    .en_i    (core_en),
    .last_i  (core_last),
    .state_i (core_state),
    .key_i   (core_key),
    .state_o (core_out)
  );

  assign rsp_data_o = core_out;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q      <= StIdle;
      round_q      <= 4'd1;
      rcon_q       <= 8'h01;
      keys_valid_q <= 1'b0;
      rsp_valid_q  <= 1'b0;
      blk_q        <= '0;
      rk_q         <= '0;
    end else if (clear) begin
      state_q      <= key_load_i ? StExpand : StIdle;
      round_q      <= 4'd1;
      rcon_q       <= 8'h01;
      keys_valid_q <= 1'b0;
      rsp_valid_q  <= 1'b0;
      blk_q        <= '0;
      rk_q         <= '0;  // SEC_CM: KEY.ZEROISE
      if (key_load_i) rk_q[0] <= key_i;
    end else begin
      rsp_valid_q <= 1'b0;
      unique case (state_q)
        StIdle: begin
          if (req_valid_i && req_ready_o) begin
            blk_q   <= req_data_i;
            state_q <= StEncrypt;
          end
        end
        StExpand: begin
          if (round_q != 4'd1) rk_q[done_round] <= core_out;
          rcon_q  <= {rcon_q[6:0], 1'b0} ^ (8'h1b & {8{rcon_q[7]}});
          round_q <= round_q + 4'd1;
          if (round_q > LastRound) begin
            round_q      <= 4'd1;
            keys_valid_q <= 1'b1;
            state_q      <= StIdle;
          end
        end
        StEncrypt: begin
          round_q <= round_q + 4'd1;
          if (round_q == LastRound) begin
            round_q     <= 4'd1;
            rsp_valid_q <= 1'b1;
            state_q     <= StIdle;
          end
        end
        default: state_q <= StTrap;  // SEC_CM: FSM.SPARSE
      endcase
    end
  end
endmodule
