// Key of a run, under which activations are spilled: four words of the chip's noise source, drawn
// anew when a run begins (draw_i, a pulse) and gone with it (clear_i, a level).
//
// fail_o: the source gave the same word twice in a row, or none for 2^20 cycles; there is no key
// until the next draw. The words are used as they are: their quality is the source's, see prim_trng.
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
  logic [2:0]  left_q;   // words still to come
  logic        fresh_q;  // no word of this draw yet
  logic [19:0] patience_q;
  logic        repeated, late;

  assign trng_req_o = left_q != '0;
  assign repeated   = trng_valid_i && trng_req_o && !fresh_q && trng_data_i == key_o[127:96];
  assign late       = trng_req_o && !trng_valid_i && patience_q == '1;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      left_q     <= '0;
      fresh_q    <= 1'b0;
      patience_q <= '0;
      valid_o    <= 1'b0;
      fail_o     <= 1'b0;
    end else if (clear_i) begin
      left_q  <= '0;
      valid_o <= 1'b0;
      fail_o  <= 1'b0;
    end else if (draw_i) begin
      left_q     <= 3'd4;
      fresh_q    <= 1'b1;
      patience_q <= '0;
      valid_o    <= 1'b0;
      fail_o     <= 1'b0;
    end else if (trng_req_o) begin
      patience_q <= trng_valid_i ? '0 : patience_q + 1'b1;
      if (trng_valid_i) begin
        fresh_q <= 1'b0;
        left_q  <= left_q - 3'd1;
        valid_o <= left_q == 3'd1 && !repeated;
      end
      if (repeated || late) begin
        left_q <= '0;
        fail_o <= 1'b1;
      end
    end
  end

  // SEC_CM: KEY.ZEROISE
  always_ff @(posedge clk_i) begin
    if (clear_i || fail_o) key_o <= '0;
    else if (trng_req_o && trng_valid_i) key_o <= {trng_data_i, key_o[127:32]};
  end
endmodule
