// lk_depthwise behind the descriptor check that it relies on, for a test that plays the page stream
// and the scratchpad.
module depthwise_bench #(
  parameter int unsigned Taps = 9,
  parameter int unsigned Post = 64,
  parameter int unsigned Side = 5,
  parameter int unsigned Line = 512
) (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          clear_i,
  input  logic          wipe_i,
  output logic          wipe_busy_o,
  input  logic          start_i,
  input  lk_pkg::desc_t desc_i,
  input  logic [15:0]   batch_i,
  output logic          bad_o,
  output logic          done_o,
  input  logic          pg_valid_i,
  output logic          pg_ready_o,
  input  logic [511:0]  pg_data_i,
  output logic          rd_en_o,
  output logic [15:0]   rd_addr_o,
  input  logic [511:0]  rd_data_i,
  output logic          wr_en_o,
  output logic [15:0]   wr_addr_o,
  output logic [63:0]   wr_be_o,
  output logic [511:0]  wr_data_o,
  output logic          want_o,
  output logic [12:0]   macs_o
);
  logic              checked, bad;
  lk_act_pkg::geom_t geom;

  lk_setup u_setup (
    .clk_i,
    .rst_ni,
    .clear_i(clear_i || wipe_i),
    .start_i,
    .second_i(1'b0),
    .desc_i,
    .batch_i,
    .done_o (checked),
    .bad_o  (bad),
    .geom_o (geom)
  );
  assign bad_o = checked && bad;

  lk_depthwise #(
    .Taps(Taps),
    .Post(Post),
    .Side(Side),
    .Line(Line)
  ) u_depthwise (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .wipe_busy_o,
    .start_i(checked && !bad),
    .desc_i,
    .geom_i (geom),
    .batch_i,
    .done_o,
    .pg_valid_i,
    .pg_ready_o,
    .pg_data_i,
    .fused_i   (1'b0),
    .pairs_i   (1'b0),
    .halves_i  (1'b0),
    .px_valid_i(1'b0),
    .px_ready_o(),
    .px_data_i ('0),
    .rd_en_o,
    .rd_addr_o,
    .rd_data_i,
    .wr_en_o,
    .wr_addr_o,
    .wr_be_o,
    .wr_data_o,
    .want_o,
    .macs_o
  );
endmodule
