// First-word-fall-through FIFO in registers whose content a wipe clears: for the few rows and words
// that are on their way between the scratchpad and a consumer. clear_i only drops the content.
// Limits: Depth is a power of two and at least 2; the writer keeps credits, so a push into a full
// FIFO is a bug (asserted in simulation, ignored in hardware).
module lk_wipe_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned Depth = 8
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             clear_i,
  input  logic             wipe_i,
  input  logic             push_i,
  input  logic [Width-1:0] data_i,
  output logic             valid_o,
  input  logic             ready_i,
  output logic [Width-1:0] data_o
);
  localparam int unsigned Aw = $clog2(Depth);

  if (Depth < 2 || (Depth & (Depth - 1)) != 0) begin : gen_bad_depth
    $fatal(1, "%m: Depth must be a power of two and at least 2, got %0d", Depth);
  end

  logic [Width-1:0] mem_q [Depth];
  logic [Aw:0]      wr_q, rd_q;
  logic             full;

  assign full    = (wr_q - rd_q) == (Aw + 1)'(Depth);
  assign valid_o = wr_q != rd_q;
  assign data_o  = mem_q[rd_q[Aw-1:0]];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wr_q <= '0;
      rd_q <= '0;
    end else if (clear_i || wipe_i) begin
      wr_q <= '0;
      rd_q <= '0;
    end else begin
      if (push_i && !full) wr_q <= wr_q + 1'b1;
      if (valid_o && ready_i) rd_q <= rd_q + 1'b1;
    end
  end

  // SEC_CM: SPAD.MEM.SEC_WIPE
  for (genvar i = 0; i < Depth; i++) begin : gen_entry
    always_ff @(posedge clk_i) begin
      if (wipe_i) mem_q[i] <= '0;
      else if (push_i && !full && wr_q[Aw-1:0] == Aw'(i)) mem_q[i] <= data_i;
    end
  end

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni) assert (!(push_i && full && !clear_i && !wipe_i)) else $error("%m: overflow");
  end
`endif
endmodule
