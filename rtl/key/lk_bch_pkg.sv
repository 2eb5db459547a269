// Constants and field arithmetic of the key's error-correcting code, BCH(255, 131) over GF(2^8).
//
// Field: polynomial 0x11D (x^8 + x^4 + x^3 + x^2 + 1, primitive), alpha = x = 0x02. Code: narrow
// sense, designed for T = 18 errors: the generator is the product of the minimal polynomials of
// alpha^1 .. alpha^36, that is, of (x - alpha^e) over the 124 exponents in the cyclotomic cosets of
// 1..36. 255 - 124 = 131 message bits. tests/rtl/bch recomputes Generator from this definition.
package lk_bch_pkg;
  parameter int unsigned BchN = 255;
  parameter int unsigned BchK = 131;
  parameter int unsigned BchT = 18;
  parameter int unsigned BchParity = BchN - BchK;

  // Bit i is the coefficient of x^i; the leading x^124 is left out.
  parameter logic [BchParity-1:0] BchGenerator = 124'h1bcb6cce6906958aa17f2231050eb39;

  // Product in GF(2^8).
  function automatic logic [7:0] gf_mul(logic [7:0] a, logic [7:0] b);
    logic [7:0] p;
    p = '0;
    for (int i = 7; i >= 0; i--) begin
      p = {p[6:0], 1'b0} ^ (p[7] ? 8'h1D : 8'h00) ^ (b[i] ? a : 8'h00);
    end
    return p;
  endfunction

  // Square in GF(2^8); linear, so only exclusive-ors.
  function automatic logic [7:0] gf_sqr(logic [7:0] a);
    return gf_mul(a, a);
  endfunction

  // alpha^e for 0 <= e < 255, for constants.
  function automatic logic [7:0] gf_alpha(int unsigned e);
    logic [7:0] p;
    p = 8'h01;
    for (int unsigned i = 0; i < e; i++) p = {p[6:0], 1'b0} ^ (p[7] ? 8'h1D : 8'h00);
    return p;
  endfunction
endpackage
