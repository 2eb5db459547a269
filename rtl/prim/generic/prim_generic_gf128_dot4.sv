// Sum of four products in GF(2^128) with x^128 + x^7 + x^2 + x + 1, generic twin:
//   y = a[0]*b[0] + a[1]*b[1] + a[2]*b[2] + a[3]*b[3]
//
// Bit order: bit i of an operand is the coefficient of x^i (GCM's wire order mirrors the bits of
// every byte; the caller does that).
// Timing: operands with valid_i at one edge are in y_o after the third edge (counting that one);
// y_o holds its value until the next valid result arrives. clear_i zeroes every register.
//
// The carry-less 32 x 32 products are done by integer multiplication "with holes": each operand is
// split into four words that keep every fourth bit, so that the sums of a column (at most 8) never
// spill into the next kept bit. That is what a processor does well without a carry-less multiply;
// a compiled simulator runs it some twenty times faster than shift-and-xor. Hardware wants the
// xilinx twin (XOR trees, no integer multipliers); both are tested in lockstep.
module prim_generic_gf128_dot4 (
  input  logic              clk_i,
  input  logic              clear_i,
  input  logic              valid_i,
  input  logic [3:0][127:0] a_i,
  input  logic [3:0][127:0] b_i,
  output logic [127:0]      y_o
);
  // Full carry-less product of two 32-bit words.
  function automatic logic [63:0] clmul32(logic [31:0] x, logic [31:0] y);
    logic [63:0] x0, x1, x2, x3, y0, y1, y2, y3, z0, z1, z2, z3;
    x0 = {32'b0, x & 32'h11111111};
    x1 = {32'b0, x & 32'h22222222};
    x2 = {32'b0, x & 32'h44444444};
    x3 = {32'b0, x & 32'h88888888};
    y0 = {32'b0, y & 32'h11111111};
    y1 = {32'b0, y & 32'h22222222};
    y2 = {32'b0, y & 32'h44444444};
    y3 = {32'b0, y & 32'h88888888};
    z0 = (x0 * y0) ^ (x1 * y3) ^ (x2 * y2) ^ (x3 * y1);
    z1 = (x0 * y1) ^ (x1 * y0) ^ (x2 * y3) ^ (x3 * y2);
    z2 = (x0 * y2) ^ (x1 * y1) ^ (x2 * y0) ^ (x3 * y3);
    z3 = (x0 * y3) ^ (x1 * y2) ^ (x2 * y1) ^ (x3 * y0);
    return (z0 & 64'h1111111111111111) | (z1 & 64'h2222222222222222)
         | (z2 & 64'h4444444444444444) | (z3 & 64'h8888888888888888);
  endfunction

  // Two levels of Karatsuba over 32-bit words; the four products are added leaf by leaf, so that
  // recombination and reduction happen once.
  function automatic logic [127:0] dot4(logic [3:0][127:0] a, logic [3:0][127:0] b);
    logic [63:0] p0, p1, p2, p3, p01, p23, p02, p13, pa;
    logic [63:0] lo_l, lo_h, hi_l, hi_h, mi_l, mi_h, m;
    logic [63:0] r0, r1, r2, r3;
    logic [31:0] a0, a1, a2, a3, b0, b1, b2, b3;
    p0 = '0; p1 = '0; p2 = '0; p3 = '0;
    p01 = '0; p23 = '0; p02 = '0; p13 = '0; pa = '0;
    for (int unsigned l = 0; l < 4; l++) begin
      a0 = a[l][31:0];
      a1 = a[l][63:32];
      a2 = a[l][95:64];
      a3 = a[l][127:96];
      b0 = b[l][31:0];
      b1 = b[l][63:32];
      b2 = b[l][95:64];
      b3 = b[l][127:96];
      p0  = p0 ^ clmul32(a0, b0);
      p1  = p1 ^ clmul32(a1, b1);
      p2  = p2 ^ clmul32(a2, b2);
      p3  = p3 ^ clmul32(a3, b3);
      p01 = p01 ^ clmul32(a0 ^ a1, b0 ^ b1);
      p23 = p23 ^ clmul32(a2 ^ a3, b2 ^ b3);
      p02 = p02 ^ clmul32(a0 ^ a2, b0 ^ b2);
      p13 = p13 ^ clmul32(a1 ^ a3, b1 ^ b3);
      pa  = pa ^ clmul32(a0 ^ a1 ^ a2 ^ a3, b0 ^ b1 ^ b2 ^ b3);
    end
    // 64 x 64 products {h, l}
    m    = p01 ^ p0 ^ p1;
    lo_l = p0 ^ {m[31:0], 32'b0};
    lo_h = p1 ^ {32'b0, m[63:32]};
    m    = p23 ^ p2 ^ p3;
    hi_l = p2 ^ {m[31:0], 32'b0};
    hi_h = p3 ^ {32'b0, m[63:32]};
    m    = pa ^ p02 ^ p13;
    mi_l = p02 ^ {m[31:0], 32'b0};
    mi_h = p13 ^ {32'b0, m[63:32]};
    // the 255-bit product {r3, r2, r1, r0}
    mi_l = mi_l ^ lo_l ^ hi_l;
    mi_h = mi_h ^ lo_h ^ hi_h;
    r0 = lo_l;
    r1 = lo_h ^ mi_l;
    r2 = hi_l ^ mi_h;
    r3 = hi_h;
    // x^128 = x^7 + x^2 + x + 1, first for r3 (which lands in r1 and r2), then for r2
    r1 = r1 ^ r3 ^ (r3 << 1) ^ (r3 << 2) ^ (r3 << 7);
    r2 = r2 ^ (r3 >> 63) ^ (r3 >> 62) ^ (r3 >> 57);
    r0 = r0 ^ r2 ^ (r2 << 1) ^ (r2 << 2) ^ (r2 << 7);
    r1 = r1 ^ (r2 >> 63) ^ (r2 >> 62) ^ (r2 >> 57);
    return {r1, r0};
  endfunction

  logic [127:0] s1_q, s2_q;
  logic         v1_q, v2_q;

  always_ff @(posedge clk_i) begin
    if (clear_i) begin  // SEC_CM: KEY.ZEROISE
      v1_q <= 1'b0;
      v2_q <= 1'b0;
      s1_q <= '0;
      s2_q <= '0;
      y_o  <= '0;
    end else begin
      v1_q <= valid_i;
      v2_q <= v1_q;
      if (valid_i) s1_q <= dot4(a_i, b_i);
      if (v1_q) s2_q <= s1_q;
      if (v2_q) y_o <= s2_q;
    end
  end
endmodule
