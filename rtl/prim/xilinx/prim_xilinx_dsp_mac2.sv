// One DSP48E2 as two int8 multipliers that share an activation, with the weights of two tiles
// inside the DSP and a place in a summing cascade.
//
// The port A carries both weights, w_hi * 2^18 + w_lo (27 bits, signed). Register A1 is the shadow
// tile and A2 the active one (AREG = 2), so double buffering takes no fabric register: shadow_we_i
// writes A1 from a_i and activate_i copies A1 to A2. One product then holds both results,
// x*w_hi * 2^18 + x*w_lo, and PCIN adds the row above.
// Cycle 0: b_i and activate_i; cycle 1: B and A2 hold them; cycle 2: M; cycle 3: P and pcout_o.
// pcin_i must therefore belong to an activation one cycle older than b_i.
// clear_i (synchronous) zeroes every register, hence both weights and all that was computed.
module prim_xilinx_dsp_mac2 #(
  parameter bit First = 1'b0  // first of its cascade: no PCIN
) (
  input  logic               clk_i,
  input  logic               clear_i,
  input  logic               shadow_we_i,
  input  logic               activate_i,
  input  logic signed [26:0] a_i,
  input  logic signed [7:0]  b_i,
  input  logic [47:0]        pcin_i,
  output logic [47:0]        pcout_o,
  output logic [47:0]        p_o
);
  // W = 0, Z = PCIN or 0, Y and X = the multiplier.
  localparam logic [8:0] Opmode = First ? 9'b00_000_01_01 : 9'b00_001_01_01;

  DSP48E2 #(
    .AMULTSEL("A"), .BMULTSEL("B"), .A_INPUT("DIRECT"), .B_INPUT("DIRECT"),
    .USE_MULT("MULTIPLY"), .USE_SIMD("ONE48"),
    .AREG(2), .ACASCREG(2), .BREG(1), .BCASCREG(1), .CREG(1), .DREG(0), .ADREG(0),
    .MREG(1), .PREG(1), .ALUMODEREG(0), .CARRYINREG(0), .CARRYINSELREG(0),
    .INMODEREG(0), .OPMODEREG(0)
  ) u_dsp (
    .CLK(clk_i),
    .A({{3{a_i[26]}}, a_i}),
    .B({{10{b_i[7]}}, b_i}),
    .C('0),
    .D('0),
    .ACIN('0),
    .BCIN('0),
    .PCIN(pcin_i),
    .CARRYCASCIN(1'b0),
    .CARRYIN(1'b0),
    .CARRYINSEL('0),
    .MULTSIGNIN(1'b0),
    .ALUMODE('0),
    .INMODE('0),
    .OPMODE(Opmode),
    .CEA1(shadow_we_i),
    .CEA2(activate_i),
    .CEB1(1'b0),
    .CEB2(1'b1),
    .CEC(1'b0),
    .CED(1'b0),
    .CEAD(1'b0),
    .CEM(1'b1),
    .CEP(1'b1),
    .CEALUMODE(1'b0),
    .CECARRYIN(1'b0),
    .CECTRL(1'b0),
    .CEINMODE(1'b0),
    .RSTA(clear_i),
    .RSTB(clear_i),
    .RSTC(1'b0),
    .RSTD(1'b0),
    .RSTM(clear_i),
    .RSTP(clear_i),
    .RSTALLCARRYIN(1'b0),
    .RSTALUMODE(1'b0),
    .RSTCTRL(1'b0),
    .RSTINMODE(1'b0),
    .P(p_o),
    .PCOUT(pcout_o),
    .ACOUT(),
    .BCOUT(),
    .CARRYCASCOUT(),
    .CARRYOUT(),
    .MULTSIGNOUT(),
    .OVERFLOW(),
    .UNDERFLOW(),
    .PATTERNDETECT(),
    .PATTERNBDETECT(),
    .XOROUT()
  );
endmodule
