// AES encryption round, generic twin: registered SubBytes, ShiftRows, MixColumns, AddRoundKey.
//
// One table of 256 32-bit columns (the T-table of the Rijndael proposal): entry x holds
// {3*S(x), S(x), S(x), 2*S(x)} from row 3 to row 0, i.e. what a row-0 byte contributes to its
// MixColumns column; other rows contribute the same word rotated. A software-like form, which a
// compiled simulator runs about 100 times faster than an S-box written as a `case`. On an FPGA use
// the xilinx twin; both are tested in lockstep.
//
// Byte order: byte b of the state is bits [8*b+7:8*b]; FIPS 197 row r, column c is byte 4*c + r.
// Kind: 0 = a middle round, 1 = the last round (no MixColumns), 2 = chosen by last_i each cycle.
module prim_generic_aes_round #(
  parameter int unsigned Kind = 0
) (
  input  logic         clk_i,
  input  logic         clear_i,  // synchronous zeroise of the output register
  input  logic         en_i,     // state_o takes the round of state_i; otherwise it holds
  input  logic         last_i,   // only read for Kind 2
  input  logic [127:0] state_i,
  input  logic [127:0] key_i,
  output logic [127:0] state_o
);
  if (Kind > 2) begin : gen_bad_kind
    $fatal(1, "%m: Kind must be 0, 1 or 2, got %0d", Kind);
  end

  localparam logic [31:0] Te [256] = '{
    32'ha56363c6, 32'h847c7cf8, 32'h997777ee, 32'h8d7b7bf6, 32'h0df2f2ff, 32'hbd6b6bd6,
    32'hb16f6fde, 32'h54c5c591, 32'h50303060, 32'h03010102, 32'ha96767ce, 32'h7d2b2b56,
    32'h19fefee7, 32'h62d7d7b5, 32'he6abab4d, 32'h9a7676ec, 32'h45caca8f, 32'h9d82821f,
    32'h40c9c989, 32'h877d7dfa, 32'h15fafaef, 32'heb5959b2, 32'hc947478e, 32'h0bf0f0fb,
    32'hecadad41, 32'h67d4d4b3, 32'hfda2a25f, 32'heaafaf45, 32'hbf9c9c23, 32'hf7a4a453,
    32'h967272e4, 32'h5bc0c09b, 32'hc2b7b775, 32'h1cfdfde1, 32'hae93933d, 32'h6a26264c,
    32'h5a36366c, 32'h413f3f7e, 32'h02f7f7f5, 32'h4fcccc83, 32'h5c343468, 32'hf4a5a551,
    32'h34e5e5d1, 32'h08f1f1f9, 32'h937171e2, 32'h73d8d8ab, 32'h53313162, 32'h3f15152a,
    32'h0c040408, 32'h52c7c795, 32'h65232346, 32'h5ec3c39d, 32'h28181830, 32'ha1969637,
    32'h0f05050a, 32'hb59a9a2f, 32'h0907070e, 32'h36121224, 32'h9b80801b, 32'h3de2e2df,
    32'h26ebebcd, 32'h6927274e, 32'hcdb2b27f, 32'h9f7575ea, 32'h1b090912, 32'h9e83831d,
    32'h742c2c58, 32'h2e1a1a34, 32'h2d1b1b36, 32'hb26e6edc, 32'hee5a5ab4, 32'hfba0a05b,
    32'hf65252a4, 32'h4d3b3b76, 32'h61d6d6b7, 32'hceb3b37d, 32'h7b292952, 32'h3ee3e3dd,
    32'h712f2f5e, 32'h97848413, 32'hf55353a6, 32'h68d1d1b9, 32'h00000000, 32'h2cededc1,
    32'h60202040, 32'h1ffcfce3, 32'hc8b1b179, 32'hed5b5bb6, 32'hbe6a6ad4, 32'h46cbcb8d,
    32'hd9bebe67, 32'h4b393972, 32'hde4a4a94, 32'hd44c4c98, 32'he85858b0, 32'h4acfcf85,
    32'h6bd0d0bb, 32'h2aefefc5, 32'he5aaaa4f, 32'h16fbfbed, 32'hc5434386, 32'hd74d4d9a,
    32'h55333366, 32'h94858511, 32'hcf45458a, 32'h10f9f9e9, 32'h06020204, 32'h817f7ffe,
    32'hf05050a0, 32'h443c3c78, 32'hba9f9f25, 32'he3a8a84b, 32'hf35151a2, 32'hfea3a35d,
    32'hc0404080, 32'h8a8f8f05, 32'had92923f, 32'hbc9d9d21, 32'h48383870, 32'h04f5f5f1,
    32'hdfbcbc63, 32'hc1b6b677, 32'h75dadaaf, 32'h63212142, 32'h30101020, 32'h1affffe5,
    32'h0ef3f3fd, 32'h6dd2d2bf, 32'h4ccdcd81, 32'h140c0c18, 32'h35131326, 32'h2fececc3,
    32'he15f5fbe, 32'ha2979735, 32'hcc444488, 32'h3917172e, 32'h57c4c493, 32'hf2a7a755,
    32'h827e7efc, 32'h473d3d7a, 32'hac6464c8, 32'he75d5dba, 32'h2b191932, 32'h957373e6,
    32'ha06060c0, 32'h98818119, 32'hd14f4f9e, 32'h7fdcdca3, 32'h66222244, 32'h7e2a2a54,
    32'hab90903b, 32'h8388880b, 32'hca46468c, 32'h29eeeec7, 32'hd3b8b86b, 32'h3c141428,
    32'h79dedea7, 32'he25e5ebc, 32'h1d0b0b16, 32'h76dbdbad, 32'h3be0e0db, 32'h56323264,
    32'h4e3a3a74, 32'h1e0a0a14, 32'hdb494992, 32'h0a06060c, 32'h6c242448, 32'he45c5cb8,
    32'h5dc2c29f, 32'h6ed3d3bd, 32'hefacac43, 32'ha66262c4, 32'ha8919139, 32'ha4959531,
    32'h37e4e4d3, 32'h8b7979f2, 32'h32e7e7d5, 32'h43c8c88b, 32'h5937376e, 32'hb76d6dda,
    32'h8c8d8d01, 32'h64d5d5b1, 32'hd24e4e9c, 32'he0a9a949, 32'hb46c6cd8, 32'hfa5656ac,
    32'h07f4f4f3, 32'h25eaeacf, 32'haf6565ca, 32'h8e7a7af4, 32'he9aeae47, 32'h18080810,
    32'hd5baba6f, 32'h887878f0, 32'h6f25254a, 32'h722e2e5c, 32'h241c1c38, 32'hf1a6a657,
    32'hc7b4b473, 32'h51c6c697, 32'h23e8e8cb, 32'h7cdddda1, 32'h9c7474e8, 32'h211f1f3e,
    32'hdd4b4b96, 32'hdcbdbd61, 32'h868b8b0d, 32'h858a8a0f, 32'h907070e0, 32'h423e3e7c,
    32'hc4b5b571, 32'haa6666cc, 32'hd8484890, 32'h05030306, 32'h01f6f6f7, 32'h120e0e1c,
    32'ha36161c2, 32'h5f35356a, 32'hf95757ae, 32'hd0b9b969, 32'h91868617, 32'h58c1c199,
    32'h271d1d3a, 32'hb99e9e27, 32'h38e1e1d9, 32'h13f8f8eb, 32'hb398982b, 32'h33111122,
    32'hbb6969d2, 32'h70d9d9a9, 32'h898e8e07, 32'ha7949433, 32'hb69b9b2d, 32'h221e1e3c,
    32'h92878715, 32'h20e9e9c9, 32'h49cece87, 32'hff5555aa, 32'h78282850, 32'h7adfdfa5,
    32'h8f8c8c03, 32'hf8a1a159, 32'h80898909, 32'h170d0d1a, 32'hdabfbf65, 32'h31e6e6d7,
    32'hc6424284, 32'hb86868d0, 32'hc3414182, 32'hb0999929, 32'h772d2d5a, 32'h110f0f1e,
    32'hcbb0b07b, 32'hfc5454a8, 32'hd6bbbb6d, 32'h3a16162c
  };

  // Byte `row` of the column that ShiftRows brings to column `col`.
  function automatic logic [7:0] pick(logic [127:0] s, int unsigned col, int unsigned row);
    return s[32 * ((col + row) % 4) + 8 * row +: 8];
  endfunction

  function automatic logic [127:0] middle_round(logic [127:0] s, logic [127:0] k);
    logic [127:0] y;
    logic [31:0]  t1, t2, t3;
    for (int unsigned c = 0; c < 4; c++) begin
      t1 = Te[pick(s, c, 1)];
      t2 = Te[pick(s, c, 2)];
      t3 = Te[pick(s, c, 3)];
      y[32 * c +: 32] = Te[pick(s, c, 0)] ^ {t1[23:0], t1[31:24]} ^ {t2[15:0], t2[31:16]}
                        ^ {t3[7:0], t3[31:8]} ^ k[32 * c +: 32];
    end
    return y;
  endfunction

  function automatic logic [127:0] last_round(logic [127:0] s, logic [127:0] k);
    logic [127:0] y;
    for (int unsigned c = 0; c < 4; c++) begin
      y[32 * c +: 32] = {Te[pick(s, c, 3)][15:8], Te[pick(s, c, 2)][15:8],
                         Te[pick(s, c, 1)][15:8], Te[pick(s, c, 0)][15:8]} ^ k[32 * c +: 32];
    end
    return y;
  endfunction

  always_ff @(posedge clk_i) begin
    if (clear_i) begin
      state_o <= '0;  // SEC_CM: KEY.ZEROISE
    end else if (en_i) begin
      if (Kind == 1 || (Kind == 2 && last_i)) state_o <= last_round(state_i, key_i);
      else state_o <= middle_round(state_i, key_i);
    end
  end
endmodule
