// AES-256 decryption of one block (FIPS 197, the inverse cipher), a column a cycle.
//
// `load_i` takes the key (byte b at [8*b+7:8*b]); `start_i` then decrypts `block_i` in 114 cycles:
// 52 to run the key schedule forward to the last round key, one to add it, 56 for the columns of
// fourteen rounds while the schedule runs backward, and four to bring the key window back to where
// it started. No table of round keys exists: the only copy of the key is the 256-bit window.
// `done_o` pulses with the plaintext, which stays until the next start or wipe. Latency is
// constant.
module lk_aes256_inv (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         wipe_i,
  input  logic         load_i,
  input  logic [255:0] key_i,
  input  logic         start_i,
  input  logic [127:0] block_i,
  output logic         busy_o,
  output logic         done_o,
  output logic [127:0] block_o
);
  import lk_key_pkg::*;

  // Window of eight schedule words: slot 0 at [31:0] is the oldest. Forward, w[i] is made from slot
  // 0 = w[i-8] and slot 7 = w[i-1]; backward, w[i-8] from slot 7 = w[i] and slot 6 = w[i-1].
  typedef enum logic [2:0] {Idle, Forward, AddLast, Rounds, Turn} phase_e;
  phase_e       phase_q;
  logic [255:0] win_q;
  logic [5:0]   idx_q;     // Forward, Rounds: i of the schedule step
  logic [3:0]   round_q;   // 13..0
  logic [1:0]   col_q;     // columns done in this round; column 3 goes first
  logic [127:0] state_q;   // rotated by one column a cycle, so every tap is fixed
  logic [95:0]  next_q;    // columns of the next state, the newest at [31:0]
  logic         done_q;

  assign busy_o  = phase_q != Idle;
  assign done_o  = done_q;
  assign block_o = busy_o ? '0 : state_q;

  function automatic logic [7:0] xtime(input logic [7:0] x);
    return {x[6:0], 1'b0} ^ (x[7] ? 8'h1b : 8'h00);
  endfunction

  // InvMixColumns of a column; byte r at [8*r+7:8*r].
  function automatic logic [31:0] inv_mix(input logic [31:0] x);
    logic [7:0]  a [4];
    logic [7:0]  x4, u, v;
    logic [31:0] y;
    for (int r = 0; r < 4; r++) a[r] = x[8*r +: 8];
    // InvMixColumns = MixColumns after adding 4*(a0^a2) to rows 0, 2 and 4*(a1^a3) to rows 1, 3.
    u = xtime(xtime(a[0] ^ a[2]));
    v = xtime(xtime(a[1] ^ a[3]));
    a[0] ^= u;
    a[2] ^= u;
    a[1] ^= v;
    a[3] ^= v;
    x4 = a[0] ^ a[1] ^ a[2] ^ a[3];
    for (int r = 0; r < 4; r++) y[8*r +: 8] = a[r] ^ x4 ^ xtime(a[r] ^ a[(r+1)%4]);
    return y;
  endfunction

  logic [31:0]  sched_in, sched_f, sched_new, column;
  always_comb begin
    sched_in  = '0;
    sched_f   = '0;
    sched_new = '0;
    column    = '0;
    if (phase_q == Forward || phase_q == Rounds) begin
      sched_in = (phase_q == Forward) ? win_q[255:224] : win_q[223:192];
      if (idx_q[2:0] == 3'd0) sched_in = {sched_in[7:0], sched_in[31:8]};  // RotWord
      sched_f = sched_in;
      if (idx_q[1:0] == 2'd0) begin
        for (int r = 0; r < 4; r++) sched_f[8*r +: 8] = aes_sbox(sched_in[8*r +: 8]);
      end
      if (idx_q[2:0] == 3'd0) sched_f[7:0] ^= 8'd1 << (idx_q[5:3] - 3'd1);  // Rcon
      sched_new = sched_f ^ ((phase_q == Forward) ? win_q[31:0] : win_q[255:224]);
    end
    if (phase_q == Rounds) begin
      // InvShiftRows: row r of column c comes from column c - r; here c stands at [127:96].
      for (int r = 0; r < 4; r++) begin
        column[8*r +: 8] = aes_inv_sbox(state_q[32*(3-r) + 8*r +: 8]);
      end
      column ^= win_q[127:96];
      if (round_q != 4'd0) column = inv_mix(column);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      phase_q <= Idle;
      win_q   <= '0;
      idx_q   <= '0;
      round_q <= '0;
      col_q   <= '0;
      state_q <= '0;
      next_q  <= '0;
      done_q  <= 1'b0;
    end else begin
      done_q <= 1'b0;
      if (wipe_i) begin  // SEC_CM: KEY.AES.WIPE
        phase_q <= Idle;
        win_q   <= '0;
        state_q <= '0;
        next_q  <= '0;
      end else begin
        unique case (phase_q)
          Idle: begin
            if (load_i) win_q <= key_i;
            if (start_i) begin
              phase_q <= Forward;
              idx_q   <= 6'd8;
              state_q <= block_i;
            end
          end
          Forward: begin
            win_q <= {sched_new, win_q[255:32]};
            idx_q <= idx_q + 6'd1;
            if (idx_q == 6'd59) phase_q <= AddLast;
          end
          AddLast: begin
            state_q <= state_q ^ win_q[255:128];
            idx_q   <= 6'd59;
            round_q <= 4'd13;
            col_q   <= '0;
            phase_q <= Rounds;
          end
          Rounds: begin
            // Backward; past w[0] the window only turns, so that the same tap serves round 0.
            win_q <= {win_q[223:0], (round_q == 4'd0) ? win_q[255:224] : sched_new};
            idx_q <= idx_q - 6'd1;
            col_q <= col_q + 2'd1;
            if (col_q == 2'd3) begin
              state_q <= {next_q, column};
              next_q  <= '0;
              round_q <= round_q - 4'd1;
              if (round_q == 4'd0) phase_q <= Turn;
            end else begin
              state_q <= {state_q[95:0], state_q[127:96]};
              next_q  <= {next_q[63:0], column};
            end
          end
          Turn: begin
            win_q <= {win_q[31:0], win_q[255:32]};
            col_q <= col_q + 2'd1;
            if (col_q == 2'd3) begin
              phase_q <= Idle;
              done_q  <= 1'b1;
            end
          end
          default: begin
            phase_q <= Idle;
            win_q   <= '0;
            state_q <= '0;
          end
        endcase
      end
    end
  end
endmodule
