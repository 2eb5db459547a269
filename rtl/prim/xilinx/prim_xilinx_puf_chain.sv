// One PUF chain on AMD UltraScale+ fabric. Interface and timing: prim_puf_bank, with one response.
//
//   launch -> 64 swap stages -> tuning section -> arbiter
//
// A swap stage is one LUT6 per path: input I0 is the straight edge, I1 the crossing one, I2 the
// challenge bit, I3 forces the output low. I4 and I5 are tied low: they exist so that the router
// has the same freedom in every stage. The tuning section delays one path by |offset| steps with
// LUT6 used as programmable delay lines (Majzoobi, Koushanfar, Devadas 2010): a LUT that buffers I0
// whatever I1..I5 hold is slower through some of its internal multiplexers than through others. A
// fine stage toggles I5 alone, a coarse one I1..I5 together. 15 fine and 7 coarse stages per path,
// thermometer coded, so more offset never means less delay within a group; a coarse step is close
// to 16 fine ones but not equal to it, so margins are steps, not picoseconds. An offset is applied
// to the path of the losing answer: positive offsets slow the path that has to win for a 0.
//
// The arbiter is a flip-flop: the lower path clocks in the upper one. It is cleared between races.
// Its output may be metastable and passes two synchronising registers.
//
// A race takes EvalCycles. The edge has all but the last QuietCycles of them to run through 86 LUT
// and for the arbiter to settle; prim_puf_bank checks that this is long enough. Then the edge falls
// and, with it, every stage is forced low at once: no second journey through 64 stages is waited
// for. That takes all quiet cycles but one; the last lets the forcing net fall before the next edge
// starts. The 22 tuning stages are not forced; they drain behind the stages before them,
// while the next edge still has all 64 of those to go. The synchroniser works in the quiet cycles,
// too.
//
// Unevaluated: delays, entropy and reliability of this cell have not been measured on silicon, and
// no published figure exists for an arbiter PUF on UltraScale+. Symmetry has to come from one
// routed macro (LOC, BEL, LOCK_PINS, FIXED_ROUTE) replicated by relative column: see constraints/.
// Without it the two paths differ by far more than the variation that is to be measured.
//
// The attributes keep synthesis from merging the two paths, which are logically the same signal.
module prim_xilinx_puf_chain #(
  parameter int unsigned EvalCycles  = 16,
  parameter int unsigned QuietCycles = 3
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              launch_i,
  input  logic       [63:0] challenge_i,
  input  logic signed [7:0] offset_i,
  output logic              response_o,
  output logic              done_o
);
  localparam int unsigned Stages = 64;
  localparam int unsigned Fine   = 15;
  localparam int unsigned Coarse = 7;
  localparam int unsigned Tune   = Fine + Coarse;
  localparam int unsigned Cw     = $clog2(EvalCycles + 1);

  // Three: the synchroniser's two registers and response_o.
  if (QuietCycles < 3 || EvalCycles <= QuietCycles) begin : gen_bad_cycles
    $fatal(1, "%m: EvalCycles > QuietCycles >= 3, got %0d and %0d", EvalCycles, QuietCycles);
  end

  // O = !I3 && (I2 ? I1 : I0), and O = I0, for all values of the other inputs.
  localparam logic [63:0] SwapInit   = {4{8'b0000_0000, 8'b1100_1010}};
  localparam logic [63:0] BufferInit = {32{2'b10}};

  // ---- sequencing
  logic [Cw-1:0] count_q;  // cycles until done_o; 0 when idle
  // What runs through the chain, the arbiter not held in clear, and all stages forced low: own ones
  // in every chain.
  (* keep = "true", dont_touch = "true" *) logic edge_q;
  (* keep = "true", dont_touch = "true" *) logic armed_q;
  (* keep = "true", dont_touch = "true" *) logic force_q;

  assign done_o = count_q == Cw'(1);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      count_q <= '0;
      edge_q  <= 1'b0;
      armed_q <= 1'b0;
      force_q <= 1'b0;
    end else if (launch_i) begin
      count_q <= Cw'(EvalCycles);
      edge_q  <= 1'b1;
      armed_q <= 1'b1;
      force_q <= 1'b0;
    end else if (count_q != '0) begin
      count_q <= count_q - 1'b1;
      if (count_q == Cw'(QuietCycles + 1)) begin
        edge_q  <= 1'b0;
        armed_q <= 1'b0;
        force_q <= 1'b1;
      end
      if (count_q == Cw'(2)) force_q <= 1'b0;
    end
  end

  // ---- tuning: thermometer codes, registered so that they are quiet during the race
  logic       [6:0]      magnitude;
  logic [Fine-1:0]   fine_d;
  logic [Coarse-1:0] coarse_d;
  logic [Fine-1:0]   fine_up_q, fine_lo_q;
  logic [Coarse-1:0] coarse_up_q, coarse_lo_q;

  always_comb begin
    if (offset_i == -8'sd128) begin
      magnitude = 7'd127;
    end else begin
      magnitude = 7'(offset_i[7] ? -offset_i : offset_i);
    end
    for (int unsigned i = 0; i < Fine; i++) fine_d[i] = 32'(magnitude[3:0]) > i;
    for (int unsigned i = 0; i < Coarse; i++) coarse_d[i] = 32'(magnitude[6:4]) > i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fine_up_q   <= '0;
      fine_lo_q   <= '0;
      coarse_up_q <= '0;
      coarse_lo_q <= '0;
    end else begin
      // The answer is 1 when the upper path arrives first.
      fine_up_q   <= offset_i[7] ? fine_d : '0;
      coarse_up_q <= offset_i[7] ? coarse_d : '0;
      fine_lo_q   <= offset_i[7] ? '0 : fine_d;
      coarse_lo_q <= offset_i[7] ? '0 : coarse_d;
    end
  end

  // ---- the race
  (* keep = "true", dont_touch = "true" *) wire [Stages+Tune:0] upper;
  (* keep = "true", dont_touch = "true" *) wire [Stages+Tune:0] lower;

  assign upper[0] = edge_q;
  assign lower[0] = edge_q;

  for (genvar i = 0; i < Stages; i++) begin : gen_stage
    (* keep = "true", dont_touch = "true", lock_pins = "all" *)
    LUT6 #(.INIT(SwapInit)) u_upper (
      .O(upper[i+1]), .I0(upper[i]), .I1(lower[i]), .I2(challenge_i[i]),
      .I3(force_q), .I4(1'b0), .I5(1'b0)
    );
    (* keep = "true", dont_touch = "true", lock_pins = "all" *)
    LUT6 #(.INIT(SwapInit)) u_lower (
      .O(lower[i+1]), .I0(lower[i]), .I1(upper[i]), .I2(challenge_i[i]),
      .I3(force_q), .I4(1'b0), .I5(1'b0)
    );
  end

  for (genvar i = 0; i < Tune; i++) begin : gen_tune
    logic [4:0] upper_sel, lower_sel;
    if (i < Fine) begin : gen_fine
      assign upper_sel = {fine_up_q[i], 4'b0};
      assign lower_sel = {fine_lo_q[i], 4'b0};
    end else begin : gen_coarse
      assign upper_sel = {5{coarse_up_q[i-Fine]}};
      assign lower_sel = {5{coarse_lo_q[i-Fine]}};
    end
    (* keep = "true", dont_touch = "true", lock_pins = "all" *)
    LUT6 #(.INIT(BufferInit)) u_upper (
      .O(upper[Stages+i+1]), .I0(upper[Stages+i]), .I1(upper_sel[0]), .I2(upper_sel[1]),
      .I3(upper_sel[2]), .I4(upper_sel[3]), .I5(upper_sel[4])
    );
    (* keep = "true", dont_touch = "true", lock_pins = "all" *)
    LUT6 #(.INIT(BufferInit)) u_lower (
      .O(lower[Stages+i+1]), .I0(lower[Stages+i]), .I1(lower_sel[0]), .I2(lower_sel[1]),
      .I3(lower_sel[2]), .I4(lower_sel[3]), .I5(lower_sel[4])
    );
  end

  wire winner;
  (* keep = "true", dont_touch = "true" *)
  FDCE #(.INIT(1'b0)) u_arbiter (
    .Q(winner), .C(lower[Stages+Tune]), .CE(1'b1), .CLR(~armed_q), .D(upper[Stages+Tune])
  );

  // ---- into the clock domain; the clock edge that ends the race and clears the arbiter is the
  // last to take its answer, which is here two cycles later
  (* async_reg = "true" *) logic [1:0] sync_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      sync_q     <= '0;
      response_o <= 1'b0;
    end else begin
      sync_q <= {sync_q[0], winner};
      if (count_q == Cw'(QuietCycles - 1)) response_o <= sync_q[1];
    end
  end
endmodule
