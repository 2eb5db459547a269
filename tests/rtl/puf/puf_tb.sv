// lk_puf and lk_puf_select as in the enrol build: while the selector is busy it drives the sampler,
// otherwise the test does.
module puf_tb (
  input  logic               clk_i,
  input  logic               rst_ni,
  // sampler
  input  logic               start_i,
  input  logic signed [7:0]  offset_i,
  output logic               busy_o,
  output logic               resp_valid_o,
  output logic [5:0]         resp_idx_o,
  output logic [95:0]        resp_o,
  output logic               done_o,
  output logic [15:0]        unstable_o,
  output logic               health_fail_o,
  // selector
  input  logic               sel_clear_i,
  input  logic               sel_start_i,
  output logic               sel_busy_o,
  output logic               sel_done_o,
  output logic               sel_fail_o,
  output logic [7:0]         sel_margin_o,
  input  logic [5:0]         rd_idx_i,
  output logic [95:0]        rd_mask_o,
  output logic [95:0]        rd_resp_o
);
  logic              sel_puf_start;
  logic signed [7:0] sel_puf_offset;

  lk_puf u_puf (
    .clk_i, .rst_ni,
    .start_i (sel_busy_o ? sel_puf_start : start_i),
    .offset_i(sel_busy_o ? sel_puf_offset : offset_i),
    .busy_o, .resp_valid_o, .resp_idx_o, .resp_o, .done_o, .unstable_o, .health_fail_o
  );

  lk_puf_select u_select (
    .clk_i, .rst_ni,
    .clear_i          (sel_clear_i),
    .start_i          (sel_start_i),
    .puf_start_o      (sel_puf_start),
    .puf_offset_o     (sel_puf_offset),
    .resp_valid_i     (resp_valid_o),
    .resp_idx_i       (resp_idx_o),
    .resp_i           (resp_o),
    .puf_done_i       (done_o),
    .puf_health_fail_i(health_fail_o),
    .busy_o           (sel_busy_o),
    .done_o           (sel_done_o),
    .fail_o           (sel_fail_o),
    .margin_o         (sel_margin_o),
    .rd_idx_i,
    .rd_mask_o,
    .rd_resp_o
  );
endmodule
