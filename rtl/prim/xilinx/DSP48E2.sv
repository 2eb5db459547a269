// Functional simulation model of the DSP48E2, for the mode that prim_xilinx_dsp_mac2 uses: A * B
// with two A registers, one B register, M and P registers, optional PCIN. Written from the vendor's
// user guide UG579; any other mode stops the simulation at once instead of computing something
// else. For synthesis (SYNTHESIS defined) this is only the black box of the device's own cell,
// which yosys' SystemVerilog front end wants to see; leave the file out of a vendor tool's project,
// it knows the cell.
`ifdef SYNTHESIS
(* blackbox *)
`endif
// verilator lint_off UNUSED
// verilator lint_off UNDRIVEN
module DSP48E2 #(
  parameter AMULTSEL = "A",
  parameter BMULTSEL = "B",
  parameter A_INPUT = "DIRECT",
  parameter B_INPUT = "DIRECT",
  parameter USE_MULT = "MULTIPLY",
  parameter USE_SIMD = "ONE48",
  parameter int AREG = 1,
  parameter int ACASCREG = 1,
  parameter int BREG = 1,
  parameter int BCASCREG = 1,
  parameter int CREG = 1,
  parameter int DREG = 1,
  parameter int ADREG = 1,
  parameter int MREG = 1,
  parameter int PREG = 1,
  parameter int ALUMODEREG = 1,
  parameter int CARRYINREG = 1,
  parameter int CARRYINSELREG = 1,
  parameter int INMODEREG = 1,
  parameter int OPMODEREG = 1
) (
  input  logic        CLK,
  input  logic [29:0] A,
  input  logic [17:0] B,
  input  logic [47:0] C,
  input  logic [26:0] D,
  input  logic [29:0] ACIN,
  input  logic [17:0] BCIN,
  input  logic [47:0] PCIN,
  input  logic        CARRYCASCIN, CARRYIN, MULTSIGNIN,
  input  logic [2:0]  CARRYINSEL,
  input  logic [3:0]  ALUMODE,
  input  logic [4:0]  INMODE,
  input  logic [8:0]  OPMODE,
  input  logic        CEA1, CEA2, CEB1, CEB2, CEC, CED, CEAD, CEM, CEP,
  input  logic        CEALUMODE, CECARRYIN, CECTRL, CEINMODE,
  input  logic        RSTA, RSTB, RSTC, RSTD, RSTM, RSTP,
  input  logic        RSTALLCARRYIN, RSTALUMODE, RSTCTRL, RSTINMODE,
  output logic [47:0] P, PCOUT,
  output logic [29:0] ACOUT,
  output logic [17:0] BCOUT,
  output logic        CARRYCASCOUT, MULTSIGNOUT, OVERFLOW, UNDERFLOW, PATTERNDETECT, PATTERNBDETECT,
  output logic [3:0]  CARRYOUT,
  output logic [7:0]  XOROUT
);
`ifndef SYNTHESIS
  if (AMULTSEL != "A" || BMULTSEL != "B" || A_INPUT != "DIRECT" || B_INPUT != "DIRECT" ||
      USE_MULT != "MULTIPLY" || USE_SIMD != "ONE48" || AREG != 2 || BREG != 1 || MREG != 1 ||
      PREG != 1 || ALUMODEREG != 0 || INMODEREG != 0 || OPMODEREG != 0 || CARRYINREG != 0 ||
      CARRYINSELREG != 0) begin : gen_bad_mode
    $fatal(1, "%m: this model has no such mode");
  end

  logic signed [29:0] a1_q, a2_q;
  logic signed [17:0] b2_q;
  logic signed [44:0] m_q;
  logic [47:0]        z;

  assign z = OPMODE[6:4] == 3'b001 ? PCIN : '0;

  always_ff @(posedge CLK) begin
    if (RSTA) begin
      a1_q <= '0;
      a2_q <= '0;
    end else begin
      if (CEA1) a1_q <= A;
      if (CEA2) a2_q <= a1_q;
    end
    if (RSTB) b2_q <= '0;
    else if (CEB2) b2_q <= B;
    // The multiplier is 27 x 18; INMODE[0] = 0 selects A2.
    if (RSTM) m_q <= '0;
    else if (CEM) m_q <= 45'(signed'(a2_q[26:0])) * 45'(b2_q);
    if (RSTP) P <= '0;
    else if (CEP) P <= z + 48'(m_q);
    assert (INMODE == '0 && ALUMODE == '0 && OPMODE[8:7] == '0 && OPMODE[3:0] == 4'b0101 &&
            (OPMODE[6:4] == 3'b000 || OPMODE[6:4] == 3'b001) && CARRYINSEL == '0 && !CARRYIN)
    else $fatal(1, "%m: this model has no such mode");
  end
  assign PCOUT = P;
`endif
endmodule
// verilator lint_on UNDRIVEN
// verilator lint_on UNUSED
