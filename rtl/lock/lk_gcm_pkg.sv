// Constants and bit-order helpers shared by the AES-GCM engine.
package lk_gcm_pkg;
  // A build without the lock chain uses none of these.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned Lanes = 4;        // 128-bit blocks in one 512-bit beat
  localparam int unsigned AesRounds = 10;   // AES-128
  localparam int unsigned GhashDepth = 3;   // multiplier stages = GHASH accumulators (d)
  localparam int unsigned Powers = Lanes * GhashDepth + 1;  // H^1 .. H^13 are kept

  // Beats accepted at one clock edge: cycles until the plaintext and, for the last beat of a page,
  // until the verdict are on the outputs.
  localparam int unsigned PtLatency = AesRounds + 2;
  localparam int unsigned VerdictLatency = GhashDepth + 3;
  // verilator lint_on UNUSEDPARAM

  // GCM numbers the bits of a block from the most significant bit of byte 0. Mirroring every byte
  // of a block that lies in memory order makes bit i the coefficient of x^i, and back.
  function automatic logic [127:0] mirror_bytes(logic [127:0] x);
    logic [127:0] y;
    logic [31:0]  w;
    for (int unsigned i = 0; i < 4; i++) begin
      w = x[32*i +: 32];
      w = ((w >> 1) & 32'h55555555) | ((w & 32'h55555555) << 1);
      w = ((w >> 2) & 32'h33333333) | ((w & 32'h33333333) << 2);
      w = ((w >> 4) & 32'h0f0f0f0f) | ((w & 32'h0f0f0f0f) << 4);
      y[32*i +: 32] = w;
    end
    return y;
  endfunction

  function automatic logic [31:0] swap32(logic [31:0] x);
    return {x[7:0], x[15:8], x[23:16], x[31:24]};
  endfunction

  // GCM's length block in memory order: bits of associated data, bits of ciphertext, big-endian.
  function automatic logic [127:0] length_block(logic [31:0] aad_bits, logic [31:0] ct_bits);
    return {swap32(ct_bits), 32'b0, swap32(aad_bits), 32'b0};
  endfunction
endpackage
