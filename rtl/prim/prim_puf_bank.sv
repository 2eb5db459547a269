// A bank of arbiter-PUF chains that race together: in each, two edges run through 64 stages and an
// arbiter tells which came first.
//
// launch_i (one pulse, only when no race is under way) starts a race in every chain under the
// common challenge_i; done_o pulses exactly EvalCycles cycles after it, whatever the answers, and
// response_o (one bit per chain) is valid from there until the next launch. challenge_i and
// offset_i must hold from launch_i to done_o. Bit i of the challenge crosses (1) or passes (0) the
// edges in stage i, stage 0 first. offset_i is a number of programmable-delay-line steps that
// favour the answer 1, -128..127 (-128 acts as -127 on the fabric). A race includes the time in
// which both paths are brought back to rest, so the next may be launched with done_o.
//
// How long a race must be. The edge starts from a register and passes 64 stages and 22 tuning
// stages, each one LUT6 and its way to the next; then the arbiter settles and meets the set-up time
// of the register behind it. The last QuietCycles belong to the way back (prim_xilinx_puf_chain).
// So
//     (EvalCycles - QuietCycles) * ClockPs >= 86 * StagePs + SettlePs
// which elaboration checks in both twins, so that simulated cycles are those of the fabric. StagePs
// is a budget, not a measurement: the routed macro must be shown to keep it at the slow corner,
// with all delay lines on (`report_timing` through the chain, over 86). If it does not, EvalCycles
// has to grow. A race that ends too early does not fail loudly: it answers 0.
//
// Simulation uses prim_generic_puf_bank (the modelled die behind DPI); synthesis, or
// LATCHKEY_TARGET_XILINX, uses prim_xilinx_puf_bank, which is prim_xilinx_puf_chain many times. The
// primitive is the bank and not the chain because 96 modules slow every simulated cycle of a chip,
// racing or not.
module prim_puf_bank #(
  parameter int unsigned NumChains   = 96,
  parameter int unsigned EvalCycles  = 16,
  parameter int unsigned QuietCycles = 3,
  parameter int unsigned ClockPs     = 3333,  // 300 MHz
  parameter int unsigned StagePs     = 480,
  parameter int unsigned SettlePs    = 1500
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 launch_i,
  input  logic [63:0]          challenge_i,
  input  logic signed [7:0]    offset_i,
  output logic [NumChains-1:0] response_o,
  output logic                 done_o
);
  localparam int unsigned RaceStages = 64 + 22;

  if ((EvalCycles - QuietCycles) * ClockPs < RaceStages * StagePs + SettlePs)
  begin : gen_bad_race
    $fatal(1, "%m: %0d stages of %0d ps and %0d ps to settle do not fit %0d cycles of %0d ps",
           RaceStages, StagePs, SettlePs, EvalCycles - QuietCycles, ClockPs);
  end

`ifdef SYNTHESIS
  `define LK_PUF_BANK_IMPL prim_xilinx_puf_bank
`elsif LATCHKEY_TARGET_XILINX
  `define LK_PUF_BANK_IMPL prim_xilinx_puf_bank
`else
  `define LK_PUF_BANK_IMPL prim_generic_puf_bank
`endif
  `LK_PUF_BANK_IMPL #(
    .NumChains  (NumChains),
    .EvalCycles (EvalCycles),
    .QuietCycles(QuietCycles)
  ) u_impl (
    .clk_i,
    .rst_ni,
    .launch_i,
    .challenge_i,
    .offset_i,
    .response_o,
    .done_o
  );
`undef LK_PUF_BANK_IMPL
endmodule
