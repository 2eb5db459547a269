// Fuses on AMD UltraScale+ fabric: registers. Interface: prim_fuse.
//
// The user logic of an SRAM FPGA has no memory of its own: nothing here survives a reset or a
// reconfiguration. Life cycle, enrolled-once and minimum version hold until the next reset
// only, and start from the parameters, that is, from what the (authenticated) bitstream says.
module prim_xilinx_fuse #(
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
  input  logic [31:0] min_version_i
);
  assign valid_o = 1'b1;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      lc_state_o    <= ResetLcState;
      enrolled_o    <= ResetEnrolled;
      min_version_o <= ResetMinVersion;
    end else begin
      if (prog_enrolled_i) enrolled_o <= 1'b1;
      if (prog_lc_i) lc_state_o <= lc_state_o | prog_lc_state_i;
      if (prog_min_version_i && min_version_i > min_version_o) min_version_o <= min_version_i;
    end
  end
endmodule
