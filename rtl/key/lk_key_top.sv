// Key block of the operate build with its PUF and fuses: see lk_key_block for the interface.
//
// The fabric has no fuses of its own; a bitstream of the operate build wakes up as an enrolled
// device (prim_fuse's Reset* parameters). In simulation the card's modelled fuses count instead.
module lk_key_top #(
  parameter logic [31:0] ConfigId   = 32'd0,
  parameter logic [31:0] MinVersion = 32'd0  // what the fuses of a fabric build say
) (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          cmd_valid_i,
  input  logic [3:0]    cmd_i,
  output logic          busy_o,
  output logic [3:0]    state_o,
  output logic [7:0]    err_o,
  input  logic          helper_we_i,
  input  logic          manifest_we_i,
  input  logic          blob_we_i,
  input  logic          msg_we_i,
  input  logic [31:0]   wdata_i,
  input  logic          fill_clear_i,
  input  logic [31:0]   build_hash_i,
  input  logic [31:0]   build_flags_i,
  output logic [255:0]  attest_o,
  output logic [127:0]  nonce_o,
  output logic [31:0]   runs_left_o,
  output logic [31:0]   time_left_o,
  output logic [31:0]   floor_version_o,
  output logic [31:0]   floor_epoch_o,
  input  logic          run_start_i,
  input  logic          run_key_draw_i,   // pulse: a run begins that spills activations
  input  logic          run_key_clear_i,  // level: no such run
  output logic          run_key_valid_o,
  output logic [127:0]  run_key_o,
  output logic          run_key_fail_o,
  input  logic          tamper_i,
  output logic          wipe_o,
  input  logic          wipe_busy_i,
  output logic          key_valid_o,
  output logic [127:0]  key_o,
  output logic          manifest_valid_o,
  output logic [1023:0] manifest_o,
  output logic [31:0]   start_cycles_o,
  output logic [15:0]   unstable_o,
  output logic [31:0]   min_version_o,
  output logic [15:0]   lc_state_o
);
  logic        puf_start, puf_busy, puf_resp_valid, puf_done, puf_health_fail;
  logic [5:0]  puf_resp_idx;
  logic [95:0] puf_resp;
  logic [15:0] puf_unstable, fuse_lc_state;
  logic        fuse_valid, fuse_enrolled;
  logic [31:0] fuse_min_version;
  logic        trng_req, run_trng_req, trng_valid, fuse_prog_floor;
  logic [31:0] trng_data, fuse_floor_version, fuse_floor_epoch;
  logic [2:0]  fuse_slot;

  lk_key_block #(.ConfigId(ConfigId)) u_block (
    .clk_i,
    .rst_ni,
    .cmd_valid_i,
    .cmd_i,
    .busy_o,
    .state_o,
    .err_o,
    .helper_we_i,
    .manifest_we_i,
    .blob_we_i,
    .msg_we_i,
    .wdata_i,
    .fill_clear_i,
    .build_hash_i,
    .build_flags_i,
    .attest_o,
    .nonce_o,
    .runs_left_o,
    .time_left_o,
    .run_start_i,
    .tamper_i,
    .wipe_o,
    .wipe_busy_i,
    .key_valid_o,
    .key_o,
    .manifest_valid_o,
    .manifest_o,
    .start_cycles_o,
    .unstable_o,
    .min_version_o,
    .lc_state_o,
    .puf_start_o        (puf_start),
    .puf_resp_valid_i   (puf_resp_valid),
    .puf_resp_idx_i     (puf_resp_idx),
    .puf_resp_i         (puf_resp),
    .puf_done_i         (puf_done),
    .puf_health_fail_i  (puf_health_fail),
    .puf_unstable_i     (puf_unstable),
    .trng_req_o           (trng_req),
    .trng_valid_i         (trng_valid && trng_req),
    .trng_data_i          (trng_data),
    .fuse_lc_state_i      (fuse_lc_state),
    .fuse_enrolled_i      (fuse_valid && fuse_enrolled),
    .fuse_min_version_i   (fuse_min_version),
    .fuse_slot_o          (fuse_slot),
    .fuse_floor_version_i (floor_version_o),
    .fuse_floor_epoch_i   (floor_epoch_o),
    .fuse_prog_floor_o    (fuse_prog_floor),
    .fuse_floor_version_o (fuse_floor_version),
    .fuse_floor_epoch_o   (fuse_floor_epoch)
  );

  // The key block draws only without a model key, the key of a run only with one; the key block
  // first.
  prim_trng u_trng (
    .clk_i,
    .rst_ni,
    .req_i   (trng_req || run_trng_req),
    .valid_o (trng_valid),
    .data_o  (trng_data)
  );

  lk_run_key u_run_key (
    .clk_i,
    .rst_ni,
    .clear_i      (run_key_clear_i || wipe_o),
    .draw_i       (run_key_draw_i),
    .trng_req_o   (run_trng_req),
    .trng_valid_i (trng_valid && !trng_req),
    .trng_data_i  (trng_data),
    .valid_o      (run_key_valid_o),
    .key_o        (run_key_o),
    .fail_o       (run_key_fail_o)
  );

  lk_puf u_puf (
    .clk_i,
    .rst_ni,
    .start_i       (puf_start),
    .offset_i      (8'sd0),
    .busy_o        (puf_busy),
    .resp_valid_o  (puf_resp_valid),
    .resp_idx_o    (puf_resp_idx),
    .resp_o        (puf_resp),
    .done_o        (puf_done),
    .unstable_o    (puf_unstable),
    .health_fail_o (puf_health_fail)
  );
  logic unused_puf;
  assign unused_puf = puf_busy;

  prim_fuse #(
    .ResetLcState    (lk_lc_pkg::LcEnrolled),
    .ResetEnrolled   (1'b1),
    .ResetMinVersion (MinVersion)
  ) u_fuse (
    .clk_i,
    .rst_ni,
    .valid_o            (fuse_valid),
    .lc_state_o         (fuse_lc_state),
    .enrolled_o         (fuse_enrolled),
    .min_version_o      (fuse_min_version),
    .prog_enrolled_i    (1'b0),
    .prog_lc_i          (1'b0),
    .prog_lc_state_i    (16'd0),
    .prog_min_version_i (1'b0),
    .min_version_i      (32'd0),
    .slot_i             (fuse_slot),
    .floor_version_o,
    .floor_epoch_o,
    .prog_floor_i       (fuse_prog_floor),
    .floor_version_i    (fuse_floor_version),
    .floor_epoch_i      (fuse_floor_epoch)
  );
endmodule
