// Proof harness of lk_skid: it is a queue of two that keeps every transfer, in order, unchanged.
//
// One transfer, chosen freely by the solver, is remembered with the number of transfers ahead of it.
// When its turn comes, the output must show exactly that data: for every transfer, so nothing is
// lost, duplicated, reordered or altered. Input and back-pressure are unconstrained.
module skid_proof #(
  parameter Width = 8
) (
  input clk
);
  (* anyseq *) reg             valid_i, ready_i, choose;
  (* anyseq *) reg [Width-1:0] data_i;
  wire             ready_o, valid_o;
  wire [Width-1:0] data_o;

  reg rst_n = 1'b0;
  always @(posedge clk) rst_n <= 1'b1;

  lk_skid #(.Width(Width)) dut (
    .clk_i(clk), .rst_ni(rst_n), .valid_i(valid_i), .ready_o(ready_o), .data_i(data_i),
    .valid_o(valid_o), .ready_i(ready_i), .data_o(data_o)
  );

  wire push = valid_i && ready_o;
  wire pop  = valid_o && ready_i;

  reg [1:0]       held = 2'd0;     // transfers inside
  reg             tracked = 1'b0;  // the chosen transfer is inside
  reg             chosen = 1'b0;
  reg [1:0]       ahead;
  reg [Width-1:0] token;
  always @(posedge clk) begin
    if (rst_n) begin
      held <= held + push - pop;
      if (push && choose && !chosen) begin
        chosen  <= 1'b1;
        tracked <= 1'b1;
        ahead   <= held - pop;
        token   <= data_i;
      end else if (tracked && pop) begin
        ahead <= ahead - 2'd1;
        if (ahead == 2'd0) tracked <= 1'b0;
      end
    end
  end

  reg             stalled = 1'b0;
  reg [Width-1:0] last_data;
  always @(posedge clk) begin
    stalled   <= rst_n && valid_o && !ready_i;
    last_data <= data_o;
  end

  always @(*) begin
    if (rst_n) begin
      assert (held <= 2'd2);
      assert (valid_o == (held != 2'd0));
      assert (ready_o == (held != 2'd2));
      if (tracked) assert (ahead < held);
      if (tracked && ahead == 2'd0) assert (data_o == token);
      if (stalled) assert (valid_o && data_o == last_data);
    end
  end
endmodule
