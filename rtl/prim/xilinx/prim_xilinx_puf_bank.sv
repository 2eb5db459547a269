// PUF bank on AMD UltraScale+ fabric: NumChains chains side by side. Interface and timing:
// prim_puf_bank. Every chain sequences its own race, so that its launch register, arbiter and paths
// stay one macro; they all run in lockstep.
module prim_xilinx_puf_bank #(
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
  logic [NumChains-1:0] done;
  assign done_o = done[0];

  for (genvar i = 0; i < NumChains; i++) begin : gen_chain
    prim_xilinx_puf_chain #(
      .EvalCycles (EvalCycles),
      .QuietCycles(QuietCycles)
    ) u_chain (
      .clk_i,
      .rst_ni,
      .launch_i,
      .challenge_i,
      .offset_i,
      .response_o(response_o[i]),
      .done_o    (done[i])
    );
  end
endmodule
