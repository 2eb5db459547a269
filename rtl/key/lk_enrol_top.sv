// Key block of the enrol build with its PUF, selection, random numbers and fuses: see
// lk_enrol_block for the interface. This build never ships with a deployed card.
//
// `health_fail_o` and `unstable_o` are the sampler's, for the record of the enrolment.
module lk_enrol_top (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         cmd_valid_i,
  input  logic [3:0]   cmd_i,
  input  logic [7:0]   slot_i,
  input  logic [3:0]   slots_i,
  output logic         busy_o,
  output logic [3:0]   state_o,
  output logic [7:0]   err_o,
  output logic [7:0]   margin_o,
  output logic         health_fail_o,
  output logic [15:0]  unstable_o,
  output logic [15:0]  lc_state_o,
  input  logic [8:0]   rd_addr_i,
  output logic [31:0]  helper_rdata_o,
  output logic         kek_valid_o,
  input  logic [5:0]   kek_rd_addr_i,
  output logic [31:0]  kek_rdata_o,
  input  logic         kek_taken_i
);
  logic              puf_start, puf_busy, puf_resp_valid, puf_done, puf_health_fail;
  logic signed [7:0] puf_offset;
  logic [5:0]        puf_resp_idx, sel_rd_idx;
  logic [95:0]       puf_resp, sel_rd_mask, sel_rd_resp;
  logic              sel_start, sel_clear, sel_busy, sel_done, sel_fail;
  logic [7:0]        sel_margin;
  logic              trng_req, trng_valid;
  logic [31:0]       trng_data, fuse_min_version, floor_version, floor_epoch;
  logic              fuse_valid, fuse_enrolled, fuse_prog_enrolled, fuse_prog_lc;
  logic [15:0]       fuse_lc_state, fuse_prog_lc_state;

  lk_enrol_block u_block (
    .clk_i,
    .rst_ni,
    .cmd_valid_i,
    .cmd_i,
    .slot_i,
    .slots_i,
    .busy_o,
    .state_o,
    .err_o,
    .margin_o,
    .lc_state_o,
    .rd_addr_i,
    .helper_rdata_o,
    .kek_valid_o,
    .kek_rd_addr_i,
    .kek_rdata_o,
    .kek_taken_i,
    .sel_start_o          (sel_start),
    .sel_clear_o          (sel_clear),
    .sel_busy_i           (sel_busy),
    .sel_done_i           (sel_done),
    .sel_fail_i           (sel_fail),
    .sel_margin_i         (sel_margin),
    .sel_rd_idx_o         (sel_rd_idx),
    .sel_rd_mask_i        (sel_rd_mask),
    .sel_rd_resp_i        (sel_rd_resp),
    .puf_busy_i           (puf_busy),
    .trng_req_o           (trng_req),
    .trng_valid_i         (trng_valid),
    .trng_data_i          (trng_data),
    .fuse_enrolled_i      (fuse_enrolled),
    .fuse_lc_state_i      (fuse_lc_state),
    .fuse_prog_enrolled_o (fuse_prog_enrolled),
    .fuse_prog_lc_o       (fuse_prog_lc),
    .fuse_prog_lc_state_o (fuse_prog_lc_state)
  );

  lk_puf_select u_select (
    .clk_i,
    .rst_ni,
    .clear_i           (sel_clear),
    .start_i           (sel_start),
    .puf_start_o       (puf_start),
    .puf_offset_o      (puf_offset),
    .resp_valid_i      (puf_resp_valid),
    .resp_idx_i        (puf_resp_idx),
    .resp_i            (puf_resp),
    .puf_done_i        (puf_done),
    .puf_health_fail_i (puf_health_fail),
    .busy_o            (sel_busy),
    .done_o            (sel_done),
    .fail_o            (sel_fail),
    .margin_o          (sel_margin),
    .rd_idx_i          (sel_rd_idx),
    .rd_mask_o         (sel_rd_mask),
    .rd_resp_o         (sel_rd_resp)
  );

  lk_puf u_puf (
    .clk_i,
    .rst_ni,
    .start_i       (puf_start),
    .offset_i      (puf_offset),
    .busy_o        (puf_busy),
    .resp_valid_o  (puf_resp_valid),
    .resp_idx_o    (puf_resp_idx),
    .resp_o        (puf_resp),
    .done_o        (puf_done),
    .unstable_o    (unstable_o),
    .health_fail_o (puf_health_fail)
  );
  assign health_fail_o = puf_health_fail;

  prim_trng u_trng (
    .clk_i,
    .rst_ni,
    .req_i   (trng_req),
    .valid_o (trng_valid),
    .data_o  (trng_data)
  );

  // Before valid the life-cycle code is zero, which is not open: enrolment is refused.
  prim_fuse u_fuse (
    .clk_i,
    .rst_ni,
    .valid_o            (fuse_valid),
    .lc_state_o         (fuse_lc_state),
    .enrolled_o         (fuse_enrolled),
    .min_version_o      (fuse_min_version),
    .prog_enrolled_i    (fuse_prog_enrolled),
    .prog_lc_i          (fuse_prog_lc),
    .prog_lc_state_i    (fuse_prog_lc_state),
    .prog_min_version_i (1'b0),
    .min_version_i      (32'd0),
    .slot_i             (3'd0),
    .floor_version_o    (floor_version),
    .floor_epoch_o      (floor_epoch),
    .prog_floor_i       (1'b0),
    .floor_version_i    (32'd0),
    .floor_epoch_i      (32'd0)
  );
  logic unused_fuse;
  assign unused_fuse = ^{fuse_valid, fuse_min_version, floor_version, floor_epoch};
endmodule
