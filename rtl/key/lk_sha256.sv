// SHA-256 (FIPS 180-4), one round per clock, padding included.
//
// `start_i` takes the initial hash value; the message follows as 32-bit words in memory order (the
// first byte of the message is bits [7:0] of the first word). Every word holds four bytes but the
// last, which is marked by `in_last_i` and holds `in_bytes_i` of them (0..4; 0 for an empty rest).
// The first sixteen rounds of a block run as its words arrive, so a block costs 65 cycles when the
// words do. `done_o` pulses with the digest, byte b of it at [8*b+7:8*b], which stays until the
// next start or wipe. The working variables and the schedule are cleared with it.
//
// Limits: messages below 2^32 bytes; a start while busy restarts.
module lk_sha256 (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         wipe_i,     // clear everything, one cycle
  input  logic         start_i,
  input  logic         in_valid_i,
  output logic         in_ready_o,
  input  logic [31:0]  in_data_i,
  input  logic [2:0]   in_bytes_i,
  input  logic         in_last_i,
  output logic         busy_o,
  output logic         done_o,
  output logic [255:0] digest_o
);
  import lk_key_pkg::*;

  logic [31:0] h_q [8];   // hash value
  logic [31:0] v_q [8];   // working variables a..h
  logic [31:0] w_q [16];  // schedule, w_q[15] the newest
  logic [6:0]  round_q;   // 0..63 rounds, 64 adds
  logic [31:0] bytes_q;
  logic        busy_q, done_q;
  logic        mark_q;    // message over, its 0x80 byte still to come
  logic        pad_q;     // message and its 0x80 byte over
  logic        final_q;   // this block ends with the length

  assign busy_o = busy_q;
  assign done_o = done_q;
  for (genvar i = 0; i < 32; i++) begin : gen_digest
    assign digest_o[8*i +: 8] = h_q[i/4][8*(3 - i%4) +: 8];
  end

  logic want_word, step;
  assign want_word  = busy_q && round_q < 7'd16;
  assign in_ready_o = want_word && !mark_q && !pad_q;
  assign step       = busy_q && (round_q < 7'd64) &&
                      (round_q >= 7'd16 || mark_q || pad_q || in_valid_i);

  function automatic logic [31:0] ror(input logic [31:0] x, input int unsigned n);
    return (x >> n) | (x << (32 - n));
  endfunction

  // The word entering the schedule, and the round on it.
  logic [31:0] word, raw, t1, t2;
  always_comb begin
    word = '0;
    raw  = '0;
    t1   = '0;
    t2   = '0;
    if (step) begin
      if (round_q >= 7'd16) begin
        word = w_q[0] + w_q[9] + (ror(w_q[1], 7) ^ ror(w_q[1], 18) ^ (w_q[1] >> 3)) +
               (ror(w_q[14], 17) ^ ror(w_q[14], 19) ^ (w_q[14] >> 10));
      end else if (mark_q) begin
        word = 32'h8000_0000;
      end else if (pad_q) begin
        if (round_q == 7'd14) word = {29'd0, bytes_q[31:29]};
        else if (round_q == 7'd15 && final_q) word = {bytes_q[28:0], 3'd0};
      end else begin
        raw  = {in_data_i[7:0], in_data_i[15:8], in_data_i[23:16], in_data_i[31:24]};
        word = raw;
        if (in_last_i) begin
          unique case (in_bytes_i)
            3'd0:    word = 32'h8000_0000;
            3'd1:    word = {raw[31:24], 24'h80_0000};
            3'd2:    word = {raw[31:16], 16'h8000};
            3'd3:    word = {raw[31:8], 8'h80};
            default: word = raw;
          endcase
        end
      end
      t1 = v_q[7] + (ror(v_q[4], 6) ^ ror(v_q[4], 11) ^ ror(v_q[4], 25)) +
           ((v_q[4] & v_q[5]) ^ (~v_q[4] & v_q[6])) + Sha256K[round_q[5:0]] + word;
      t2 = (ror(v_q[0], 2) ^ ror(v_q[0], 13) ^ ror(v_q[0], 22)) +
           ((v_q[0] & v_q[1]) ^ (v_q[0] & v_q[2]) ^ (v_q[1] & v_q[2]));
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      for (int i = 0; i < 8; i++) h_q[i] <= '0;
      for (int i = 0; i < 8; i++) v_q[i] <= '0;
      for (int i = 0; i < 16; i++) w_q[i] <= '0;
      round_q <= '0;
      bytes_q <= '0;
      busy_q  <= 1'b0;
      done_q  <= 1'b0;
      mark_q  <= 1'b0;
      pad_q   <= 1'b0;
      final_q <= 1'b0;
    end else begin
      done_q <= 1'b0;
      if (wipe_i) begin  // SEC_CM: KEY.SHA.WIPE
        for (int i = 0; i < 8; i++) h_q[i] <= '0;
        for (int i = 0; i < 8; i++) v_q[i] <= '0;
        for (int i = 0; i < 16; i++) w_q[i] <= '0;
        bytes_q <= '0;
        busy_q  <= 1'b0;
      end else if (start_i) begin
        for (int i = 0; i < 8; i++) h_q[i] <= Sha256Init[i];
        for (int i = 0; i < 8; i++) v_q[i] <= Sha256Init[i];
        round_q <= '0;
        bytes_q <= '0;
        busy_q  <= 1'b1;
        mark_q  <= 1'b0;
        pad_q   <= 1'b0;
        final_q <= 1'b0;
      end else if (step) begin
        v_q[7] <= v_q[6];
        v_q[6] <= v_q[5];
        v_q[5] <= v_q[4];
        v_q[4] <= v_q[3] + t1;
        v_q[3] <= v_q[2];
        v_q[2] <= v_q[1];
        v_q[1] <= v_q[0];
        v_q[0] <= t1 + t2;
        for (int i = 0; i < 15; i++) w_q[i] <= w_q[i+1];
        w_q[15] <= word;
        round_q <= round_q + 7'd1;
        if (round_q < 7'd16) begin
          if (mark_q) begin
            mark_q <= 1'b0;
            pad_q  <= 1'b1;
          end else if (!pad_q) begin
            bytes_q <= bytes_q + (in_last_i ? 32'(in_bytes_i) : 32'd4);
            if (in_last_i) begin
              mark_q <= in_bytes_i >= 3'd4;
              pad_q  <= in_bytes_i < 3'd4;
            end
          end else if (round_q == 7'd14) begin
            final_q <= 1'b1;
          end
        end
      end else if (busy_q && round_q == 7'd64) begin
        round_q <= '0;
        for (int i = 0; i < 8; i++) begin
          h_q[i] <= h_q[i] + v_q[i];
          v_q[i] <= final_q ? '0 : h_q[i] + v_q[i];
        end
        if (final_q) begin
          for (int i = 0; i < 16; i++) w_q[i] <= '0;
          busy_q <= 1'b0;
          done_q <= 1'b1;
        end
      end
    end
  end

`ifdef VERILATOR
  // verilator lint_off SYNCASYNCNET
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      in_valid_i && in_ready_o |-> (in_last_i ? in_bytes_i <= 3'd4 : in_bytes_i == 3'd4))
    else $error("%m: a word before the last must hold four bytes");
  // verilator lint_on SYNCASYNCNET
`endif
endmodule
