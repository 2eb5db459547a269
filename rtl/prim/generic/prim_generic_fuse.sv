// Simulation twin of the fuses: state of the modelled card behind DPI. Interface: prim_fuse.
module prim_generic_fuse #(
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
  // The card remembers; the reset values are for the fabric.
  logic unused;
  assign unused = &{ResetLcState, ResetEnrolled, ResetMinVersion};

`ifdef SYNTHESIS
  $fatal(1, "%m: the modelled fuses must not be synthesised");
  assign valid_o       = 1'b0;
  assign lc_state_o    = '0;
  assign enrolled_o    = 1'b0;
  assign min_version_o = '0;
  logic unused_ports;
  assign unused_ports = &{clk_i, rst_ni, prog_enrolled_i, prog_lc_i, prog_lc_state_i,
                          prog_min_version_i, min_version_i, slot_i, prog_floor_i,
                          floor_version_i, floor_epoch_i};
  assign floor_version_o = '0;
  assign floor_epoch_o   = '0;
`else
  import "DPI-C" function longint latchkey_fuse_read();
  import "DPI-C" function longint latchkey_fuse_floor(input int slot);
  import "DPI-C" function void latchkey_fuse_program(input int field, input int value);

  // Field numbers of sim/silicon/include/latchkey/sim/silicon_ops.h.
  localparam int FieldEnrolled   = 0;
  localparam int FieldLifeCycle  = 1;
  localparam int FieldMinVersion = 2;
  localparam int FieldVersionFloor = 16;  // plus the slot
  localparam int FieldEpochFloor   = 32;

  logic        stale_q;  // read the fuses in this cycle
  logic [63:0] fuses_q;
  logic [63:0] floors_q [8];
  assign floor_version_o = floors_q[slot_i][31:0];
  assign floor_epoch_o   = floors_q[slot_i][63:32];

  assign lc_state_o    = fuses_q[15:0];
  assign enrolled_o    = fuses_q[16];
  assign min_version_o = fuses_q[63:32];

  logic unused_fuses;
  assign unused_fuses = ^fuses_q[31:17];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      stale_q <= 1'b1;
      valid_o <= 1'b0;
      fuses_q <= '0;
      for (int i = 0; i < 8; i++) floors_q[i] <= '0;
    end else begin
      if (stale_q) begin
        stale_q <= 1'b0;
        valid_o <= 1'b1;
        fuses_q <= 64'(latchkey_fuse_read());
        for (int i = 0; i < 8; i++) floors_q[i] <= 64'(latchkey_fuse_floor(i));
      end
      if (prog_enrolled_i) latchkey_fuse_program(FieldEnrolled, 1);
      if (prog_lc_i) latchkey_fuse_program(FieldLifeCycle, 32'(prog_lc_state_i));
      if (prog_min_version_i) latchkey_fuse_program(FieldMinVersion, int'(min_version_i));
      if (prog_floor_i) begin
        latchkey_fuse_program(FieldVersionFloor + int'(slot_i), int'(floor_version_i));
        latchkey_fuse_program(FieldEpochFloor + int'(slot_i), int'(floor_epoch_i));
      end
      if (prog_enrolled_i || prog_lc_i || prog_min_version_i || prog_floor_i) stale_q <= 1'b1;
    end
  end
`endif
endmodule
