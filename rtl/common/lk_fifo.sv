// Synchronous first-word-fall-through FIFO in registers or LUT RAM, for small depths.
// Limits: Depth is a power of two and at least 2; no write when full, no read when empty (both are
// ignored and flagged by an assertion in simulation). Proven in tests/formal.
module lk_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned Depth = 4
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     clear_i,  // synchronous flush
  input  logic                     valid_i,
  output logic                     ready_o,
  input  logic [Width-1:0]         data_i,
  output logic                     valid_o,
  input  logic                     ready_i,
  output logic [Width-1:0]         data_o,
  output logic [$clog2(Depth):0]   level_o
);
  localparam int unsigned Aw = $clog2(Depth);

  if (Depth < 2 || (Depth & (Depth - 1)) != 0) begin : gen_bad_depth
    $fatal(1, "%m: Depth must be a power of two and at least 2, got %0d", Depth);
  end

  logic [Width-1:0] mem [Depth];
  logic [Aw:0]      wr_q, rd_q;

  assign level_o = wr_q - rd_q;
  assign ready_o = level_o != (Aw + 1)'(Depth);
  assign valid_o = level_o != '0;
  assign data_o  = mem[rd_q[Aw-1:0]];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wr_q <= '0;
      rd_q <= '0;
    end else if (clear_i) begin
      wr_q <= '0;
      rd_q <= '0;
    end else begin
      if (valid_i && ready_o) wr_q <= wr_q + 1'b1;
      if (valid_o && ready_i) rd_q <= rd_q + 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (valid_i && ready_o) mem[wr_q[Aw-1:0]] <= data_i;
  end
endmodule
