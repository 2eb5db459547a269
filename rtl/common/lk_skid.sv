// Skid buffer: a ready/valid register slice that cuts the path in both directions and keeps one
// transfer per cycle. Two entries. It never drops, reorders or invents a transfer
// (proven in tests/formal).
module lk_skid #(
  parameter int unsigned Width = 8
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             valid_i,
  output logic             ready_o,
  input  logic [Width-1:0] data_i,
  output logic             valid_o,
  input  logic             ready_i,
  output logic [Width-1:0] data_o
);
  logic             full_q;  // the skid register holds a transfer that the output could not take
  logic [Width-1:0] skid_q;

  assign ready_o = !full_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      full_q  <= 1'b0;
    end else begin
      if (!valid_o || ready_i) begin
        valid_o <= full_q || valid_i;
        full_q  <= 1'b0;
      end else if (valid_i && ready_o) begin
        full_q <= 1'b1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!valid_o || ready_i) data_o <= full_q ? skid_q : data_i;
    if (ready_o) skid_q <= data_i;
  end
endmodule
