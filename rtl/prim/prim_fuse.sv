// Fuses: the few bits that are meant to outlive a power cycle.
//
// valid_o rises when the stored values stand at the outputs, the cycle after reset in simulation
// and at once on the fabric; before that lc_state_o is zero, which is no valid code and therefore
// means locked. After a program pulse the outputs show the new values within two cycles.
//
//   prog_enrolled_i     sets enrolled_o for good
//   prog_lc_i           burns the ones of prog_lc_state_i into the code (lk_lc_pkg)
//   prog_min_version_i  raises min_version_o to min_version_i; a smaller value changes nothing
//   prog_floor_i        raises floor_version_o and floor_epoch_o of owner slot slot_i to
//                       floor_version_i and floor_epoch_i, each if it is larger
//
// The pulses may come in the same cycle. Minimum version: of all packages; floors: of the packages
// of one owner slot, read in the same cycle as slot_i. The Reset* parameters are what the fabric
// wakes up with; simulation ignores them, there the card keeps the state.
//
// Simulation uses prim_generic_fuse (the modelled fuses behind DPI); synthesis, or
// LATCHKEY_TARGET_XILINX, uses prim_xilinx_fuse, which forgets everything at reset.
module prim_fuse #(
  parameter logic [15:0] ResetLcState    = lk_lc_pkg::LcOpen,
  parameter logic        ResetEnrolled   = 1'b0,
  parameter logic [31:0] ResetMinVersion = 32'd0
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  output logic        valid_o,
  output logic [15:0] lc_state_o,
  output logic        enrolled_o,
  output logic [31:0] min_version_o,
  input  logic        prog_enrolled_i,
  input  logic        prog_lc_i,
  input  logic [15:0] prog_lc_state_i,
  input  logic        prog_min_version_i,
  input  logic [31:0] min_version_i,
  input  logic [2:0]  slot_i,
  output logic [31:0] floor_version_o,
  output logic [31:0] floor_epoch_o,
  input  logic        prog_floor_i,
  input  logic [31:0] floor_version_i,
  input  logic [31:0] floor_epoch_i
);
`ifdef SYNTHESIS
  `define LK_FUSE_IMPL prim_xilinx_fuse
`elsif LATCHKEY_TARGET_XILINX
  `define LK_FUSE_IMPL prim_xilinx_fuse
`else
  `define LK_FUSE_IMPL prim_generic_fuse
`endif
  `LK_FUSE_IMPL #(
    .ResetLcState(ResetLcState),
    .ResetEnrolled(ResetEnrolled),
    .ResetMinVersion(ResetMinVersion)
  ) u_impl (
    .clk_i,
    .rst_ni,
    .valid_o,
    .lc_state_o,
    .enrolled_o,
    .min_version_o,
    .prog_enrolled_i,
    .prog_lc_i,
    .prog_lc_state_i,
    .prog_min_version_i,
    .min_version_i,
    .slot_i,
    .floor_version_o,
    .floor_epoch_o,
    .prog_floor_i,
    .floor_version_i,
    .floor_epoch_i
  );
`undef LK_FUSE_IMPL
endmodule
