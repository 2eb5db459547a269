// Simulation twin of the PUF bank: asks the modelled die over DPI, once per chain and race, at the
// cycle of the launch. An idle bank evaluates nothing. Interface and timing: prim_puf_bank.
//
// A model of a die must never become a circuit: elaboration fails as soon as SYNTHESIS is defined.
module prim_generic_puf_bank #(
  parameter int unsigned NumChains   = 96,
  parameter int unsigned EvalCycles  = 16,
  parameter int unsigned QuietCycles = 3
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 launch_i,
  input  logic [63:0]          challenge_i,
  input  logic signed [7:0]    offset_i,
  output logic [NumChains-1:0] response_o,
  output logic                 done_o
);
`ifdef SYNTHESIS
  $fatal(1, "%m: the modelled PUF must not be synthesised");
  assign response_o = '0;
  assign done_o     = 1'b0;
  logic unused;
  assign unused = &{clk_i, rst_ni, launch_i, challenge_i, offset_i};
`else
  import "DPI-C" function int latchkey_puf_eval(input int chain, input longint challenge,
                                                input int offset);

  if (QuietCycles < 3 || EvalCycles <= QuietCycles) begin : gen_bad_cycles
    $fatal(1, "%m: EvalCycles > QuietCycles >= 3, got %0d and %0d", EvalCycles, QuietCycles);
  end

  localparam int unsigned Cw = $clog2(EvalCycles + 1);

  logic [Cw-1:0] count_q;  // cycles until done_o; 0 when idle

  assign done_o = count_q == Cw'(1);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      count_q    <= '0;
      response_o <= '0;
    end else if (launch_i) begin
      assert (count_q <= Cw'(1)) else $error("%m: launched while a race is under way");
      count_q <= Cw'(EvalCycles);
      for (int unsigned i = 0; i < NumChains; i++) begin
        response_o[i] <= 1'(latchkey_puf_eval(int'(i), longint'(challenge_i), 32'(offset_i)));
      end
    end else if (count_q != '0) begin
      count_q <= count_q - 1'b1;
    end
  end
`endif
endmodule
