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
  input  logic [31:0] min_version_i,
  input  logic [2:0]  slot_i,
  output logic [31:0] floor_version_o,
  output logic [31:0] floor_epoch_o,
  input  logic        prog_floor_i,
  input  logic [31:0] floor_version_i,
  input  logic [31:0] floor_epoch_i
);
  assign valid_o = 1'b1;

  // Lowest version and epoch of each owner slot: held until reset.
  logic [7:0]  floor_set_q;
  logic [63:0] floor_mem [8];
  logic [63:0] floor, floor_new;
  assign floor           = floor_set_q[slot_i] ? floor_mem[slot_i] : '0;
  assign floor_version_o = floor[31:0];
  assign floor_epoch_o   = floor[63:32];
  assign floor_new       = {floor_epoch_i > floor_epoch_o ? floor_epoch_i : floor_epoch_o,
                            floor_version_i > floor_version_o ? floor_version_i : floor_version_o};
  always_ff @(posedge clk_i) if (prog_floor_i) floor_mem[slot_i] <= floor_new;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) floor_set_q <= '0;
    else if (prog_floor_i) floor_set_q[slot_i] <= 1'b1;
  end

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
