// Sum of four products in GF(2^128), xilinx twin: same function and timing as
// prim_generic_gf128_dot4, which tells bit order and timing.
//
// Three levels of Karatsuba down to 27 leaves of 16 x 16 bits. Everything after the leaves is
// linear, so the four products are added leaf by leaf and recombined and reduced once.
//   stage 1: Karatsuba pre-additions (2 levels of LUT6) and the leaves, summed over the four
//            products (64 AND terms a bit, 3 levels)
//   stage 2: recombination to 255 bits
//   stage 3: reduction
module prim_xilinx_gf128_dot4 (
  input  logic              clk_i,
  input  logic              clear_i,
  input  logic              valid_i,
  input  logic [3:0][127:0] a_i,
  input  logic [3:0][127:0] b_i,
  output logic [127:0]      y_o
);
  localparam int unsigned Leaves = 27;

  // The 27 leaf operands. Leaf 9*i + 3*j + k takes part i of 128 bits, part j of that and part k of
  // that, where part 0 is the low half, 1 the high half and 2 their sum.
  function automatic logic [Leaves-1:0][15:0] split(logic [127:0] x);
    logic [2:0][63:0]         h;
    logic [8:0][31:0]         q;
    logic [Leaves-1:0][15:0]  e;
    h[0] = x[63:0];
    h[1] = x[127:64];
    h[2] = x[63:0] ^ x[127:64];
    for (int unsigned i = 0; i < 3; i++) begin
      q[3*i]     = h[i][31:0];
      q[3*i + 1] = h[i][63:32];
      q[3*i + 2] = h[i][31:0] ^ h[i][63:32];
    end
    for (int unsigned i = 0; i < 9; i++) begin
      e[3*i]     = q[i][15:0];
      e[3*i + 1] = q[i][31:16];
      e[3*i + 2] = q[i][15:0] ^ q[i][31:16];
    end
    return e;
  endfunction

  function automatic logic [30:0] clmul16(logic [15:0] x, logic [15:0] y);
    logic [30:0] z;
    z = '0;
    for (int unsigned i = 0; i < 16; i++) z = z ^ ({15'b0, x & {16{y[i]}}} << i);
    return z;
  endfunction

  function automatic logic [254:0] join_leaves(logic [Leaves-1:0][30:0] p);
    logic [8:0][62:0]  q;
    logic [2:0][126:0] h;
    logic [30:0]       m32;
    logic [62:0]       m64;
    logic [126:0]      m128;
    for (int unsigned i = 0; i < 9; i++) begin
      m32  = p[3*i + 2] ^ p[3*i + 1] ^ p[3*i];
      q[i] = {p[3*i + 1], 32'b0} ^ {16'b0, m32, 16'b0} ^ {32'b0, p[3*i]};
    end
    for (int unsigned i = 0; i < 3; i++) begin
      m64  = q[3*i + 2] ^ q[3*i + 1] ^ q[3*i];
      h[i] = {q[3*i + 1], 64'b0} ^ {32'b0, m64, 32'b0} ^ {64'b0, q[3*i]};
    end
    m128 = h[2] ^ h[1] ^ h[0];
    return {h[1], 128'b0} ^ {64'b0, m128, 64'b0} ^ {128'b0, h[0]};
  endfunction

  function automatic logic [127:0] reduce(logic [254:0] p);
    logic [133:0] t;
    t = {7'b0, p[254:128]} ^ {6'b0, p[254:128], 1'b0} ^ {5'b0, p[254:128], 2'b0}
        ^ {p[254:128], 7'b0};
    return p[127:0] ^ t[127:0] ^ {122'b0, t[133:128]} ^ {121'b0, t[133:128], 1'b0}
           ^ {120'b0, t[133:128], 2'b0} ^ {115'b0, t[133:128], 7'b0};
  endfunction

  logic [Leaves-1:0][30:0] leaf_d, leaf_q;
  logic [254:0]            prod_q;
  logic                    v1_q, v2_q;

  // One signal per lane and one always block per leaf: easy on simulators and synthesis alike.
  logic [Leaves-1:0][15:0] ea [4];
  logic [Leaves-1:0][15:0] eb [4];

  for (genvar l = 0; l < 4; l++) begin : gen_split
    assign ea[l] = split(a_i[l]);
    assign eb[l] = split(b_i[l]);
  end
  for (genvar i = 0; i < Leaves; i++) begin : gen_leaf
    assign leaf_d[i] = clmul16(ea[0][i], eb[0][i]) ^ clmul16(ea[1][i], eb[1][i])
                       ^ clmul16(ea[2][i], eb[2][i]) ^ clmul16(ea[3][i], eb[3][i]);
  end

  always_ff @(posedge clk_i) begin
    if (clear_i) begin  // SEC_CM: KEY.ZEROISE
      v1_q   <= 1'b0;
      v2_q   <= 1'b0;
      leaf_q <= '0;
      prod_q <= '0;
      y_o    <= '0;
    end else begin
      v1_q <= valid_i;
      v2_q <= v1_q;
      if (valid_i) leaf_q <= leaf_d;
      if (v1_q) prod_q <= join_leaves(leaf_q);
      if (v2_q) y_o <= reduce(prod_q);
    end
  end
endmodule
