// AES encryption round, xilinx twin: the same function and timing as prim_generic_aes_round.
//
// S-boxes are LUTs of one level (prim_xilinx_aes_sbox); MixColumns and AddRoundKey together add one
// or two: six inputs a bit, eight where the reduction of xtime enters. A whole round is meant for
// one cycle at 300 MHz.
//
// Byte order and Kind as in the generic twin.
module prim_xilinx_aes_round #(
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
  if (Kind > 2) begin : gen_bad_kind
    $fatal(1, "%m: Kind must be 0, 1 or 2, got %0d", Kind);
  end

  function automatic logic [7:0] xtime(logic [7:0] x);
    return {x[6:0], 1'b0} ^ (8'h1b & {8{x[7]}});
  endfunction

  logic [127:0] subbed, mixed, next;
  logic         last;

  assign last = (Kind == 1) || (Kind == 2 && last_i);

  // SubBytes and ShiftRows
  for (genvar c = 0; c < 4; c++) begin : gen_col
    for (genvar r = 0; r < 4; r++) begin : gen_row
      prim_xilinx_aes_sbox u_sbox (
        .x_i (state_i[32*((c + r) % 4) + 8*r +: 8]),
        .y_o (subbed[32*c + 8*r +: 8])
      );
    end
    for (genvar r = 0; r < 4; r++) begin : gen_mix
      assign mixed[32*c + 8*r +: 8] =
          xtime(subbed[32*c + 8*r +: 8] ^ subbed[32*c + 8*((r + 1) % 4) +: 8])
          ^ subbed[32*c + 8*((r + 1) % 4) +: 8] ^ subbed[32*c + 8*((r + 2) % 4) +: 8]
          ^ subbed[32*c + 8*((r + 3) % 4) +: 8];
    end
  end
  assign next = (last ? subbed : mixed) ^ key_i;

  always_ff @(posedge clk_i) begin
    if (clear_i) state_o <= '0;  // SEC_CM: KEY.ZEROISE
    else if (en_i) state_o <= next;
  end
endmodule
