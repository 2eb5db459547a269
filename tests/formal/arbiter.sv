// Proof harness of lk_arbiter. Requests and ready are unconstrained: requests may even be withdrawn.
// Proven: at most one grant, only to a requester, always one when somebody asks; a grant that was not
// taken stays as long as its request does; and a requester that keeps asking sees at most NumReq - 1
// others served before it (for a requester that the solver chooses, hence for each).
module arbiter_proof #(
  parameter NumReq = 4
) (
  input clk
);
  (* anyseq *) reg [NumReq-1:0] req_i;
  (* anyseq *) reg              ready_i;
  (* anyconst *) reg [NumReq-1:0] who;
  wire [NumReq-1:0] gnt_o;

  reg rst_n = 1'b0;
  always @(posedge clk) rst_n <= 1'b1;

  lk_arbiter #(.NumReq(NumReq)) dut (
    .clk_i(clk), .rst_ni(rst_n), .req_i(req_i), .gnt_o(gnt_o), .ready_i(ready_i)
  );

  wire one_requester = who != 0 && (who & (who - 1'b1)) == 0;
  wire waits = (req_i & who) != 0 && !(ready_i && gnt_o == who);

  reg [NumReq-1:0] refused = 0;  // the grant that the last cycle gave and nobody took
  reg [7:0]        others = 0;   // served since `who` has been asking
  always @(posedge clk) begin
    if (!rst_n) begin
      refused <= 0;
      others  <= 0;
    end else begin
      refused <= ready_i ? 0 : gnt_o;
      if (!waits) others <= 0;
      else if (ready_i) others <= others + 1'b1;
    end
  end

  always @(*) begin
    if (rst_n) begin
      assert ((gnt_o & (gnt_o - 1'b1)) == 0);
      assert ((gnt_o & ~req_i) == 0);
      assert ((gnt_o != 0) == (req_i != 0));
      if ((refused & req_i) != 0) assert (gnt_o == refused);
      if (one_requester) assert (others < NumReq);
    end
  end
endmodule
