// Key of a run, under which activations are spilled: drawn anew when a run begins (draw_i, a pulse)
// and gone with it (clear_i, a level).
//
// Each of its four words is the exclusive or of eight words of the chip's noise source: bits that
// lean to one side with probability 1/2 + e lean with 1/2 + (2 e)^8 / 2 then, so raw bits of 0.32
// bits of entropy, the claim that the source's own health test holds it to, make 0.97 (independent
// ones; evaluate the source, see docs/security.md).
//
// fail_o: the source gave the same word twice in a row, also from one draw to the next, or none for
// 2^20 cycles; there is no key until the next draw.
module lk_run_key (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         clear_i,
  input  logic         draw_i,
  output logic         trng_req_o,
  input  logic         trng_valid_i,
  input  logic [31:0]  trng_data_i,
  output logic         valid_o,
  output logic [127:0] key_o,
  output logic         fail_o
);
  localparam int unsigned Words = 4 * 8;

  logic [5:0]  left_q;  // words still to come
  logic [31:0] last_q;  // the word before
  logic        seen_q;  // there was one since reset
  logic [19:0] patience_q;
  logic        taken, repeated, late;

  assign trng_req_o = left_q != '0;
  assign taken      = trng_req_o && trng_valid_i;
  assign repeated   = taken && seen_q && trng_data_i == last_q;
  assign late       = trng_req_o && !trng_valid_i && patience_q == '1;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      left_q     <= '0;
      seen_q     <= 1'b0;
      patience_q <= '0;
      valid_o    <= 1'b0;
      fail_o     <= 1'b0;
    end else begin
      if (taken) seen_q <= 1'b1;
      if (clear_i) begin
        left_q  <= '0;
        valid_o <= 1'b0;
        fail_o  <= 1'b0;
      end else if (draw_i) begin
        left_q     <= 6'(Words);
        patience_q <= '0;
        valid_o    <= 1'b0;
        fail_o     <= 1'b0;
      end else if (trng_req_o) begin
        patience_q <= trng_valid_i ? '0 : patience_q + 1'b1;
        if (taken) begin
          left_q  <= left_q - 6'd1;
          valid_o <= left_q == 6'd1 && !repeated;
        end
        if (repeated || late) begin
          left_q <= '0;
          fail_o <= 1'b1;
        end
      end
    end
  end

  // SEC_CM: KEY.ZEROISE
  always_ff @(posedge clk_i) begin
    if (clear_i || draw_i || fail_o) key_o <= '0;
    else if (taken) key_o <= {trng_data_i ^ key_o[31:0], key_o[127:32]};
  end
  always_ff @(posedge clk_i) if (taken) last_q <= trng_data_i;
endmodule
