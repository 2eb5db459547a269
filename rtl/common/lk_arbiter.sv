// Round-robin arbiter: grants one of NumReq requests per accepted transfer and gives the requester
// that was served last the lowest priority next time. A grant never falls on a silent requester, at
// most one is given, and it holds while the other side is not ready (proven in tests/formal).
module lk_arbiter #(
  parameter int unsigned NumReq = 2
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic [NumReq-1:0] req_i,
  output logic [NumReq-1:0] gnt_o,    // one-hot or zero, combinational
  input  logic              ready_i   // the granted request is taken at this clock edge
);
  logic [NumReq-1:0] mask_q;  // requesters that come before the others in this round
  logic [NumReq-1:0] hold_q;  // the grant that was given but not taken
  logic [NumReq-1:0] first, pick;

  assign first = req_i & mask_q;
  // Lowest set bit of the masked requests, else of all.
  assign pick  = (first != '0) ? (first & (~first + 1'b1)) : (req_i & (~req_i + 1'b1));
  assign gnt_o = ((hold_q & req_i) != '0) ? hold_q : pick;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      mask_q <= '1;
      hold_q <= '0;
    end else if (gnt_o != '0) begin
      if (ready_i) begin
        mask_q <= ~((gnt_o - 1'b1) | gnt_o);  // those above the served one
        hold_q <= '0;
      end else begin
        hold_q <= gnt_o;
      end
    end
  end
endmodule
