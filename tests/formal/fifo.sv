// Proof harness of lk_fifo: a queue of exactly Depth that keeps every transfer, in order, unchanged.
// The method is that of skid.sv; clear_i empties the queue, and the chosen transfer with it. Writes
// when full and reads when empty are tried too: they must do nothing.
module fifo_proof #(
  parameter Width = 8,
  parameter Depth = 4
) (
  input clk
);
  localparam Lw = $clog2(Depth) + 1;

  (* anyseq *) reg             valid_i, ready_i, clear_i, choose;
  (* anyseq *) reg [Width-1:0] data_i;
  wire             ready_o, valid_o;
  wire [Width-1:0] data_o;
  wire [Lw-1:0]    level_o;

  reg rst_n = 1'b0;
  always @(posedge clk) rst_n <= 1'b1;

  lk_fifo #(.Width(Width), .Depth(Depth)) dut (
    .clk_i(clk), .rst_ni(rst_n), .clear_i(clear_i), .valid_i(valid_i), .ready_o(ready_o),
    .data_i(data_i), .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o), .level_o(level_o)
  );

  wire push = valid_i && ready_o;
  wire pop  = valid_o && ready_i;

  reg [Lw-1:0]    held = 0;
  reg             tracked = 1'b0;
  reg             chosen = 1'b0;
  reg [Lw-1:0]    ahead;
  reg [Width-1:0] token;
  always @(posedge clk) begin
    if (rst_n) begin
      if (clear_i) begin
        held    <= 0;
        tracked <= 1'b0;
      end else begin
        held <= held + push - pop;
        if (push && choose && !chosen) begin
          chosen  <= 1'b1;
          tracked <= 1'b1;
          ahead   <= held - pop;
          token   <= data_i;
        end else if (tracked && pop) begin
          ahead <= ahead - 1'b1;
          if (ahead == 0) tracked <= 1'b0;
        end
      end
    end
  end

  reg             stalled = 1'b0;
  reg [Width-1:0] last_data;
  always @(posedge clk) begin
    stalled   <= rst_n && valid_o && !ready_i && !clear_i;
    last_data <= data_o;
  end

  always @(*) begin
    if (rst_n) begin
      assert (held <= Depth);
      assert (level_o == held);
      assert (valid_o == (held != 0));
      assert (ready_o == (held != Depth));
      if (tracked) assert (ahead < held);
      if (tracked && ahead == 0) assert (data_o == token);
      if (stalled) assert (valid_o && data_o == last_data);
    end
  end
endmodule
