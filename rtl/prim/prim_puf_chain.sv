// One arbiter-PUF chain: two edges race through 64 stages, an arbiter tells which came first.
//
// launch_i (one pulse, only when no race is under way) starts a race under challenge_i; done_o
// pulses exactly EvalCycles cycles after it, whatever the answer, and response_o is valid from
// there until the next launch. challenge_i and offset_i must hold from launch_i to done_o. Bit i of
// the challenge crosses (1) or passes (0) the edges in stage i, stage 0 first. offset_i is a number
// of programmable-delay-line steps that favour the answer 1, -128..127 (-128 acts as -127 on
// the fabric). A race includes the time in which both paths fall back, so the next may follow.
//
// Simulation uses prim_generic_puf_chain (the modelled die behind DPI); synthesis, or
// LATCHKEY_TARGET_XILINX, uses prim_xilinx_puf_chain.
module prim_puf_chain #(
  parameter int unsigned ChainIndex = 0,
  parameter int unsigned EvalCycles = 32
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              launch_i,
  input  logic       [63:0] challenge_i,
  input  logic signed [7:0] offset_i,
  output logic              response_o,
  output logic              done_o
);
`ifdef SYNTHESIS
  `define LK_PUF_CHAIN_IMPL prim_xilinx_puf_chain
`elsif LATCHKEY_TARGET_XILINX
  `define LK_PUF_CHAIN_IMPL prim_xilinx_puf_chain
`else
  `define LK_PUF_CHAIN_IMPL prim_generic_puf_chain
`endif
  `LK_PUF_CHAIN_IMPL #(
    .ChainIndex(ChainIndex),
    .EvalCycles(EvalCycles)
  ) u_impl (
    .clk_i,
    .rst_ni,
    .launch_i,
    .challenge_i,
    .offset_i,
    .response_o,
    .done_o
  );
`undef LK_PUF_CHAIN_IMPL
endmodule
