// Where a run's cycles went. Each cycle of a run is attributed to exactly one cause, so the causes
// add up to Cycles; Macs, Pages and Beats count beside them. All clear at the start of a run and
// hold after it. The order is that of the Counter constants of lk_pkg.
module lk_counters (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        clear_i,
  input  logic        running_i,
  // what the engine does in this cycle
  input  logic        active_i,         // an operation runs
  input  lk_pkg::op_e op_i,
  input  logic        busy_i,
  input  logic        want_weights_i,
  input  logic        loading_i,
  input  logic        feed_i,
  input  logic        post_i,
  input  logic        decrypting_i,
  input  logic [13:0] macs_i,
  input  logic        page_i,
  input  logic        beat_i,
  // read port: 32-bit word index, low word of a counter first
  input  logic [5:0]  raddr_i,
  output logic [31:0] rdata_o
);
  import lk_pkg::*;

  logic [NumCounters-1:0][63:0] count_q;
  logic [NumCounters-1:0]       cause;

  // Operations of the array, and others that take pages.
  logic array, paged;
  assign array = op_i == OpMatMul || op_i == OpProduct;
  assign paged = op_i == OpTable || op_i == OpDepthwise || op_i == OpSoftmax ||
                 op_i == OpLayerNorm;

  always_comb begin
    cause = '0;
    unique case (1'b1)
      active_i && (op_i == OpInput || op_i == OpLoad):  cause[CounterInput] = 1'b1;
      active_i && (op_i == OpOutput || op_i == OpSpill): cause[CounterOutput] = 1'b1;
      active_i && (op_i == OpMaxPool || op_i == OpAvgPool || op_i == OpAdd || op_i == OpMul ||
                   (paged && !loading_i && !want_weights_i)):
                                                        cause[CounterVector] = 1'b1;
      active_i && ((array && (busy_i || post_i || feed_i)) ||
                   ((array || paged) && (loading_i || want_weights_i))):
      begin
        if (busy_i)            cause[CounterArrayBusy] = 1'b1;
        else if (post_i)       cause[CounterWaitPost] = 1'b1;
        else if (feed_i)       cause[CounterWaitActivations] = 1'b1;
        else if (loading_i)    cause[CounterWaitLoad] = 1'b1;
        else if (decrypting_i) cause[CounterWaitDecrypt] = 1'b1;
        else                   cause[CounterWaitMemory] = 1'b1;
      end
      default:                                          cause[CounterControl] = 1'b1;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      count_q <= '0;
    end else if (clear_i) begin
      count_q <= '0;
    end else if (running_i) begin
      count_q[CounterCycles] <= count_q[CounterCycles] + 1'b1;
      for (int unsigned i = CounterArrayBusy; i <= CounterControl; i++) begin
        if (cause[i]) count_q[i] <= count_q[i] + 1'b1;
      end
      if (macs_i != '0) count_q[CounterMacs] <= count_q[CounterMacs] + 64'(macs_i);
      if (page_i) count_q[CounterPages] <= count_q[CounterPages] + 1'b1;
      if (beat_i) count_q[CounterBeats] <= count_q[CounterBeats] + 1'b1;
    end
  end

  assign rdata_o = (raddr_i < 6'(2 * NumCounters)) ? count_q[raddr_i[5:1]][32*raddr_i[0] +: 32]
                                                   : '0;
endmodule
