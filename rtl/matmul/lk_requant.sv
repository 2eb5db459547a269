// Post unit: Lanes accumulators of one row per cycle to int8, fully pipelined, latency 10, no
// back-pressure. Lane i: acc_i[32*i+:32], prm_i[62*i+:62] = {s, M, bias'}, y_o[8*i+:8]. zero, lo
// and hi (int8) and the tag travel along. Arithmetic: lk_requant_lane. clear_i drops what is in
// flight. wipe_i lets zeros through all stages for as long as it is high.
module lk_requant #(
  parameter int unsigned Lanes = 16,
  parameter int unsigned TagW  = 13
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                clear_i,
  input  logic                wipe_i,
  input  logic                valid_i,
  input  logic [Lanes*32-1:0] acc_i,
  input  logic [Lanes*62-1:0] prm_i,
  input  logic [7:0]          zero_i,
  input  logic [7:0]          lo_i,
  input  logic [7:0]          hi_i,
  input  logic [TagW-1:0]     tag_i,
  output logic                valid_o,
  output logic [Lanes*8-1:0]  y_o,
  output logic [TagW-1:0]     tag_o
);
  localparam int unsigned Latency = 10;
  localparam int unsigned SideW = TagW + 24;

  logic [Latency-1:0] valid_q;               // valid_q[k]: stage k+1 holds a value
  logic [9:0]         stage;
  // verilator lint_off UNUSEDSIGNAL
  logic [Latency*SideW-1:0] side_q;  // shifts with the stages; the last needs its tag only
  // verilator lint_on UNUSEDSIGNAL

  assign stage = {valid_q[Latency-2:0], valid_i} | {10{wipe_i}};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else if (clear_i) valid_q <= '0;
    else valid_q <= {valid_q[Latency-2:0], valid_i};
  end

  always_ff @(posedge clk_i) begin
    if (stage != '0) begin
      side_q <= {side_q[(Latency-1)*SideW-1:0], tag_i, zero_i, lo_i, hi_i};
    end
  end

  for (genvar i = 0; i < Lanes; i++) begin : gen_lane
    lk_requant_lane u_lane (
      .clk_i,
      .stage_i (stage),
      .acc_i   (wipe_i ? '0 : acc_i[32*i+:32]),
      .bias_i  (wipe_i ? '0 : prm_i[62*i+:32]),
      .m_i     (prm_i[62*i+32+:24]),
      .s_i     (prm_i[62*i+56+:6]),
      .zero_i  (side_q[(Latency-2)*SideW+16+:8]),
      .lo_i    (side_q[(Latency-2)*SideW+8+:8]),
      .hi_i    (side_q[(Latency-2)*SideW+:8]),
      .y_o     (y_o[8*i+:8])
    );
  end

  assign valid_o = valid_q[Latency-1];
  assign tag_o   = side_q[(Latency-1)*SideW+24+:TagW];
endmodule
