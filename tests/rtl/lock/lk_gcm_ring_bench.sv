// Bench top: the page engine feeding the ring, with the unverified stream between them visible.
module lk_gcm_ring_bench (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         key_valid_i,
  input  logic [127:0] key_i,
  input  logic         key_load_i,
  input  logic         gcm_wipe_i,
  output logic         key_ready_o,
  input  logic         hdr_valid_i,
  output logic         hdr_ready_o,
  input  logic [95:0]  hdr_iv_i,
  input  logic         hdr_tag_valid_i,
  output logic         hdr_tag_ready_o,
  input  logic [127:0] hdr_tag_i,
  input  logic         ct_valid_i,
  output logic         ct_ready_o,
  input  logic [511:0] ct_data_i,
  output logic         pt_valid_o,
  output logic [511:0] pt_data_o,
  output logic         pt_last_o,
  output logic         verdict_valid_o,
  output logic         verdict_ok_o,
  input  logic         ring_clear_i,
  input  logic         ring_wipe_i,
  output logic         wipe_busy_o,
  output logic         slot_free_o,
  input  logic         slot_take_i,
  output logic         fail_o,
  output logic [31:0]  fail_page_o,
  output logic         rd_valid_o,
  input  logic         rd_ready_i,
  output logic [511:0] rd_data_o,
  output logic         rd_first_o,
  output logic         rd_last_o
);
  logic         verdict_bad, unused_tag_valid;
  logic [127:0] unused_tag;
  lk_gcm u_gcm (
    .clk_i, .rst_ni, .seal_i(1'b0), .key_valid_i, .key_i, .key_load_i, .wipe_i(gcm_wipe_i), .key_ready_o,
    .hdr_valid_i, .hdr_ready_o, .hdr_iv_i, .hdr_tag_valid_i, .hdr_tag_ready_o, .hdr_tag_i,
    .ct_valid_i, .ct_ready_o, .ct_data_i,
    .pt_valid_o, .pt_data_o, .pt_last_o, .verdict_valid_o, .verdict_ok_o,
    .verdict_bad_o(verdict_bad), .tag_valid_o(unused_tag_valid), .tag_o(unused_tag)
  );

  lk_tile_ring u_ring (
    .clk_i, .rst_ni, .clear_i(ring_clear_i), .wipe_i(ring_wipe_i), .wipe_busy_o, .slot_free_o,
    .slot_take_i, .wr_valid_i(pt_valid_o), .wr_data_i(pt_data_o), .wr_last_i(pt_last_o),
    .verdict_valid_i(verdict_valid_o), .verdict_ok_i(verdict_ok_o), .verdict_bad_i(verdict_bad),
    .fail_o, .fail_page_o,
    .rd_valid_o, .rd_ready_i, .rd_data_o, .rd_first_o, .rd_last_o
  );
endmodule
