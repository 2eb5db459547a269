// Systematic serial encoder for BCH(255, 131, 18), lk_bch_pkg. Part of the enrol build.
//
// 131 message bits in, 255 code word bits out, the coefficient of x^254 first: the message bits
// pass straight through (in the cycle in which they are accepted), then 124 parity bits follow,
// x^123 first: the remainder of message * x^124 divided by the generator. out_last_o marks the last
// parity bit; the next message may follow in the next cycle. clear_i drops an unfinished word and
// wipes the register.
//
// Handshake: in_ready_o depends on out_ready_i, out_valid_o on in_valid_i; no other combinational
// path from input to output.
module lk_bch_encoder
  import lk_bch_pkg::*;
(
  input  logic clk_i,
  input  logic rst_ni,
  input  logic clear_i,
  input  logic in_valid_i,
  output logic in_ready_o,
  input  logic in_bit_i,
  output logic out_valid_o,
  input  logic out_ready_i,
  output logic out_bit_o,
  output logic out_last_o
);
  logic [BchParity-1:0] rem_q;
  logic [7:0]           pos_q;  // 0..254, position within the word
  logic                 parity; // the message is through
  logic                 move;

  assign parity      = pos_q >= 8'(BchK);
  assign in_ready_o  = !parity && out_ready_i;
  assign out_valid_o = parity || in_valid_i;
  assign out_bit_o   = parity ? rem_q[BchParity-1] : in_bit_i;
  assign out_last_o  = pos_q == 8'(BchN - 1);
  assign move        = out_valid_o && out_ready_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      rem_q <= '0;
      pos_q <= '0;
    end else if (clear_i) begin
      rem_q <= '0;
      pos_q <= '0;
    end else if (move) begin
      // Shifting the parity out leaves zeros behind, ready for the next word.
      rem_q <= {rem_q[BchParity-2:0], 1'b0} ^
               ((!parity && (in_bit_i ^ rem_q[BchParity-1])) ? BchGenerator : '0);
      pos_q <= out_last_o ? '0 : pos_q + 1'b1;
    end
  end
endmodule
