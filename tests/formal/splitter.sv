// Proof harness of lk_axi_burst_splitter, at the width the kernel uses. The model keeps what is left
// of the request, counted only by the bursts that are taken, and the address where it continues.
// Proven for every request: no burst crosses 4 KiB or has more than MaxBeats beats; addresses follow
// each other; burst_last_o comes exactly when the beats sum up to the request; a burst stays as it is
// while it is stalled; no beats, no burst.
//
// `left` is tied to the design's register of the same meaning by tests/formal/run: induction needs to
// know that both agree, which is itself asserted.
module splitter_proof #(
  parameter BeatsWidth = 27,
  parameter MaxBeats   = 64
) (
  input clk
);
  (* anyseq *) reg                  req_valid, burst_ready;
  (* anyseq *) reg [63:0]           req_addr;
  (* anyseq *) reg [BeatsWidth-1:0] req_beats;
  wire        req_ready, burst_valid, burst_last;
  wire [63:0] burst_addr;
  wire [7:0]  burst_len;
  (* keep *) wire [BeatsWidth-1:0] left;

  reg rst_n = 1'b0;
  always @(posedge clk) rst_n <= 1'b1;

  lk_axi_burst_splitter #(.BeatsWidth(BeatsWidth), .MaxBeats(MaxBeats)) dut (
    .clk_i(clk), .rst_ni(rst_n), .req_valid_i(req_valid), .req_ready_o(req_ready),
    .req_addr_i(req_addr), .req_beats_i(req_beats), .burst_valid_o(burst_valid),
    .burst_ready_i(burst_ready), .burst_addr_o(burst_addr), .burst_len_o(burst_len),
    .burst_last_o(burst_last)
  );

  wire [8:0] beats = burst_len + 9'd1;

  reg [BeatsWidth-1:0] model_left = 0;
  reg [57:0]           model_addr = 0;
  always @(posedge clk) begin
    if (rst_n) begin
      if (req_valid && req_ready) begin
        model_left <= req_beats;
        model_addr <= req_addr[63:6];
      end else if (burst_valid && burst_ready) begin
        model_left <= model_left - beats;
        model_addr <= model_addr + beats;
      end
    end
  end

  reg        stalled = 1'b0;
  reg [63:0] last_addr;
  reg [8:0]  last_len;
  always @(posedge clk) begin
    stalled   <= rst_n && burst_valid && !burst_ready;
    last_addr <= burst_addr;
    last_len  <= {burst_last, burst_len};
  end

  always @(*) begin
    if (rst_n) begin
      assert (left == model_left);
      assert (burst_addr == {model_addr, 6'd0});
      assert (burst_valid == (model_left != 0));
      assert (req_ready == (model_left == 0 || (burst_last && burst_ready)));
      if (burst_valid) begin
        assert (beats <= MaxBeats);
        assert ({1'b0, burst_addr[11:6]} + beats <= 64);
        assert (beats <= model_left);
        assert (burst_last == (beats == model_left));
      end
      if (stalled) begin
        assert (burst_valid && burst_addr == last_addr && {burst_last, burst_len} == last_len);
      end
    end
  end
endmodule
