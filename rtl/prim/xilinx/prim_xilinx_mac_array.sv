// Xilinx UltraScale+ twin of prim_mac_array (see there for the interface): N*N/2 explicit DSP48E2,
// two products each, summed in DSP cascades of 8 and an adder tree above them.
//
// Placement. Row r sits at stage r / (N/8) of cascade r % (N/8); the DSP of columns 2p and 2p+1
// multiplies both by the row's activation. A stage works one cycle after the stage above it, so its
// activation and the swap (which copies A1 to A2 inside the DSP) are delayed by the stage.
//
// Weight skew. A tile's beats may start in the very cycle of the previous swap, which reaches stage
// j only j cycles later, and its last beat may come one cycle before its own swap. So the beat b
// that holds a row of stage j needs a delay d with j <= b + d <= j + N*N/64 - 1. For N = 32 and 64,
// b >= j and d = 0 does. For N = 16, b = j/2: d = 3 for even stages and 4 for odd ones.
//
// Unpacking. P of a full cascade is hi * 2^18 + lo with |lo| <= 8 * 127 * 128 < 2^17, hence
// lo = sext(P[17:0]) and hi = sext(P[35:18]) + P[17].
module prim_xilinx_mac_array #(
  parameter int unsigned N = 16,
  localparam int unsigned BeatW = $clog2(N * N / 64)
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              wipe_i,
  input  logic              w_we_i,
  input  logic [BeatW-1:0]  w_beat_i,
  input  logic [511:0]      w_data_i,
  input  logic              x_valid_i,
  input  logic              x_swap_i,
  input  logic [8*N-1:0]    x_data_i,
  output logic              y_valid_o,
  output logic [32*N-1:0]   y_data_o
);
  localparam int unsigned Latency = prim_mac_array_pkg::latency(N);
  localparam int unsigned Stages = prim_mac_array_pkg::CascadeLen;
  localparam int unsigned Cascades = N / Stages;
  localparam int unsigned Pairs = N / 2;
  localparam int unsigned Lanes = 64 / N;  // rows of a beat
  localparam int unsigned SumW = 15 + $clog2(N);

  // ---- valid ------------------------------------------------------------------------------------
  logic [Latency-1:0] valid_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else if (clear_i) valid_q <= '0;
    else valid_q <= {valid_q[Latency-2:0], x_valid_i};
  end
  assign y_valid_o = valid_q[Latency-1];

  // ---- activations and swap, skewed by the stage ------------------------------------------------
  logic [8*Cascades-1:0] x_in_q [Stages];       // input register, grouped by stage
  logic [8*Cascades-1:0] x_st   [Stages];
  logic [Stages-1:0]     swap_q;                // swap_q[j] belongs to x_st[j]

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) swap_q <= '0;
    else swap_q <= {swap_q[Stages-2:0], x_valid_i && x_swap_i};
  end

  for (genvar j = 0; j < Stages; j++) begin : gen_x
    always_ff @(posedge clk_i) begin
      if (x_valid_i) x_in_q[j] <= x_data_i[8*Cascades*j+:8*Cascades];
    end
    if (j == 0) begin : gen_first
      assign x_st[j] = x_in_q[j];
    end else begin : gen_skew
      logic [8*Cascades-1:0] d_q [j];
      always_ff @(posedge clk_i) begin
        d_q[0] <= x_in_q[j];
        for (int unsigned k = 1; k < j; k++) d_q[k] <= d_q[k-1];
      end
      assign x_st[j] = d_q[j-1];
    end
  end

  // ---- weights: pack pairs, skew ----------------------------------------------------------------
  // lane_w[l] and lane_we[l] address the rows beat * Lanes + l.
  logic [26*Pairs-1:0] lane_w    [Lanes];
  logic                lane_we   [Lanes];
  logic [BeatW-1:0]    lane_beat [Lanes];

  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    localparam int unsigned Delay = N == 16 ? 3 + l / 2 : 0;
    logic [26*Pairs-1:0] pack;
    logic [26*Pairs-1:0] w_q    [Delay+1];
    logic [Delay:0]      we_q;
    logic [BeatW-1:0]    beat_q [Delay+1];

    for (genvar p = 0; p < Pairs; p++) begin : gen_pack
      logic signed [7:0] lo, hi;
      assign lo = w_data_i[8*(l*N+2*p)+:8];
      assign hi = w_data_i[8*(l*N+2*p+1)+:8];
      // hi * 2^18 + lo; |hi| <= 127 keeps the borrow inside 8 bits.
      assign pack[26*p+:26] = {8'(hi - 8'(lo[7])), {10{lo[7]}}, lo};
    end

    always_ff @(posedge clk_i) begin
      if (wipe_i) w_q[0] <= '0;  // SEC_CM: WEIGHTS.WIPE
      else if (w_we_i) w_q[0] <= pack;
      beat_q[0] <= w_beat_i;
      for (int unsigned k = 1; k <= Delay; k++) begin
        w_q[k]    <= w_q[k-1];
        beat_q[k] <= beat_q[k-1];
      end
    end
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        we_q <= '0;
      end else begin
        we_q[0] <= w_we_i;
        for (int unsigned k = 1; k <= Delay; k++) we_q[k] <= we_q[k-1];
      end
    end
    assign lane_w[l]    = w_q[Delay];
    assign lane_we[l]   = we_q[Delay];
    assign lane_beat[l] = beat_q[Delay];
  end

  // ---- DSP cascades and unpacking ---------------------------------------------------------------
  logic signed [18:0] lo_q [Cascades][Pairs];
  logic signed [18:0] hi_q [Cascades][Pairs];

  for (genvar g = 0; g < Cascades; g++) begin : gen_cascade
    for (genvar p = 0; p < Pairs; p++) begin : gen_pair
      logic [47:0] pc [Stages+1];
      logic [47:0] sum [Stages];
      assign pc[0] = '0;
      for (genvar j = 0; j < Stages; j++) begin : gen_stage
        localparam int unsigned Row = j * Cascades + g;
        localparam int unsigned Lane = Row % Lanes;
        prim_xilinx_dsp_mac2 #(.First(j == 0)) u_mac2 (
          .clk_i,
          .clear_i     (wipe_i),
          .shadow_we_i (lane_we[Lane] && lane_beat[Lane] == BeatW'(Row / Lanes)),
          .activate_i  (swap_q[j]),
          .a_i         ({lane_w[Lane][26*p+25], lane_w[Lane][26*p+:26]}),
          .b_i         (x_st[j][8*g+:8]),
          .pcin_i      (pc[j]),
          .pcout_o     (pc[j+1]),
          .p_o         (sum[j])
        );
      end
      always_ff @(posedge clk_i) begin
        lo_q[g][p] <= 19'(signed'(sum[Stages-1][17:0]));
        hi_q[g][p] <= 19'(signed'(sum[Stages-1][35:18])) + 19'(sum[Stages-1][17]);
      end
    end
  end

  // ---- adder tree over the cascades -------------------------------------------------------------
  for (genvar c = 0; c < N; c++) begin : gen_sum
    // Heap order: node 1 is the root, nodes Cascades .. 2*Cascades-1 are the leaves.
    logic signed [SumW-1:0] node [2*Cascades];
    for (genvar g = 0; g < Cascades; g++) begin : gen_leaf
      if (c % 2 == 0) begin : gen_lo
        assign node[Cascades+g] = SumW'(lo_q[g][c/2]);
      end else begin : gen_hi
        assign node[Cascades+g] = SumW'(hi_q[g][c/2]);
      end
    end
    for (genvar k = 1; k < Cascades; k++) begin : gen_node
      always_ff @(posedge clk_i) node[k] <= node[2*k] + node[2*k+1];
    end
    assign node[0] = '0;
    assign y_data_o[32*c+:32] = 32'(node[1]);
  end
endmodule
