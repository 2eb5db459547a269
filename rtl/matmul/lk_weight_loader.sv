// Moves the beats of weight subtiles into the shadow tile of the array, in page order.
//
// One command per subtile (cmd_skip_i: its beats are taken and dropped). A command stays at the
// input until its last beat has been taken; cmd_ready_o marks that cycle. A subtile is
// ArrayN*ArrayN/64 beats. full_o: the shadow tile is complete; swap_i: it becomes the active tile
// in this cycle, so the next subtile's first beat may be taken in the same cycle. With that the
// weight port never pauses between subtiles. clear_i forgets a partly or fully loaded shadow tile.
//
// Weights of -128 are illegal (see prim_mac_array); an assertion watches for them in simulation.
module lk_weight_loader #(
  parameter int unsigned ArrayN = 16,
  localparam int unsigned BeatW = $clog2(ArrayN * ArrayN / 64)
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             clear_i,
  input  logic             cmd_valid_i,
  output logic             cmd_ready_o,
  input  logic             cmd_skip_i,
  input  logic             wt_valid_i,
  output logic             wt_ready_o,
  input  logic [511:0]     wt_data_i,
  output logic             full_o,
  input  logic             swap_i,
  output logic             w_we_o,
  output logic [BeatW-1:0] w_beat_o,
  output logic [511:0]     w_data_o
);
  logic             full_q;
  logic [BeatW-1:0] beat_q;
  logic             take, last;

  assign wt_ready_o  = cmd_valid_i && !clear_i && (cmd_skip_i || !full_q || swap_i);
  assign take        = wt_valid_i && wt_ready_o;
  assign last        = beat_q == '1;
  assign cmd_ready_o = take && last;
  assign full_o      = full_q;
  assign w_we_o      = take && !cmd_skip_i;
  assign w_beat_o    = beat_q;
  assign w_data_o    = wt_data_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      full_q <= 1'b0;
      beat_q <= '0;
    end else if (clear_i) begin
      full_q <= 1'b0;
      beat_q <= '0;
    end else begin
      if (take) beat_q <= beat_q + 1'b1;
      if (w_we_o && last) full_q <= 1'b1;
      else if (swap_i) full_q <= 1'b0;
    end
  end

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni && w_we_o) begin
      logic illegal;
      illegal = 1'b0;
      for (int unsigned i = 0; i < 64; i++) illegal = illegal | (wt_data_i[8*i+:8] == 8'h80);
      assert (!illegal) else $error("%m: a weight is -128, outside [-127,127]");
    end
    assert (!rst_ni || !swap_i || full_q || clear_i) else $error("%m: swap without a full tile");
  end
`endif
endmodule
