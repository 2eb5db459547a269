// Noise source on AMD UltraScale+ fabric: jitter of ring oscillators. Interface: prim_trng.
//
// 16 rings of a gated inverter and two buffers run only while a word is being collected. Each is
// sampled by two registers; the exclusive-or of all samples is one raw bit every SampleDiv cycles,
// long enough for jitter to accumulate. A von Neumann extractor turns pairs of raw bits into bits
// without bias (01 -> 0, 10 -> 1, 00 and 11 -> nothing), if the raw bits are independent. A stuck
// source gives only equal pairs and so no word at all. A repetition test (SP 800-90B 4.4.1)
// guards against what the extractor cannot see: more than RepeatLimit equal raw bits in a row
// throw the word away and start it anew. 64 is the cut-off for a claim of 0.32 bit per raw bit at a
// false alarm of 2^-20.
//
// Unevaluated: rings on this fabric may lock to each other or to the clock; the entropy per raw bit
// has not been measured. Measure it (SP 800-90B) on the card before relying on it, and keep each
// ring within one slice, the rings apart from each other.
module prim_xilinx_trng #(
  parameter int unsigned Rings       = 16,
  parameter int unsigned SampleDiv   = 64,
  parameter int unsigned RepeatLimit = 64
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        req_i,
  output logic        valid_o,
  output logic [31:0] data_o
);
  localparam int unsigned Dw = $clog2(SampleDiv);
  localparam int unsigned Rw = $clog2(RepeatLimit + 1);

  if (Rings < 1 || SampleDiv < 8 || RepeatLimit < 32) begin : gen_bad
    $fatal(1, "%m: needs Rings >= 1, SampleDiv >= 8, RepeatLimit >= 32");
  end

  logic run_q;

  // ---- rings
  logic [Rings-1:0] sample;
  for (genvar r = 0; r < Rings; r++) begin : gen_ring
    (* DONT_TOUCH = "TRUE", ALLOW_COMBINATORIAL_LOOPS = "TRUE" *) wire [2:0] ring;
    // O = I0 & ~I1: the enable and the inversion.
    (* DONT_TOUCH = "TRUE" *) LUT2 #(.INIT(4'b0010)) u_gate (.O(ring[0]), .I0(run_q), .I1(ring[2]));
    (* DONT_TOUCH = "TRUE" *) LUT1 #(.INIT(2'b10)) u_buf0 (.O(ring[1]), .I0(ring[0]));
    (* DONT_TOUCH = "TRUE" *) LUT1 #(.INIT(2'b10)) u_buf1 (.O(ring[2]), .I0(ring[1]));

    (* ASYNC_REG = "TRUE" *) logic [1:0] sync_q;
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) sync_q <= '0;
      else         sync_q <= {sync_q[0], ring[2]};
    end
    assign sample[r] = sync_q[1];
  end

  // ---- collection
  logic [Dw-1:0] div_q;
  logic          raw, last_q, first_q, half_q;
  logic [Rw-1:0] repeat_q;
  logic [31:0]   word_q;
  logic [5:0]    bits_q;

  assign raw     = ^sample;
  assign valid_o = bits_q[5];
  assign data_o  = valid_o ? word_q : '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      run_q    <= 1'b0;
      div_q    <= '0;
      last_q   <= 1'b0;
      first_q  <= 1'b0;
      half_q   <= 1'b0;
      repeat_q <= '0;
      word_q   <= '0;
      bits_q   <= '0;
    end else if (valid_o) begin
      // A word leaves once and stays nowhere.
      run_q    <= 1'b0;
      div_q    <= '0;
      half_q   <= 1'b0;
      repeat_q <= '0;
      word_q   <= '0;
      bits_q   <= '0;
    end else if (!run_q) begin
      run_q <= req_i;
    end else begin
      div_q <= (div_q == Dw'(SampleDiv - 1)) ? '0 : div_q + 1'b1;
      if (div_q == Dw'(SampleDiv - 1)) begin
        last_q   <= raw;
        repeat_q <= (raw == last_q) ? repeat_q + 1'b1 : '0;
        half_q   <= !half_q;
        if (!half_q) begin
          first_q <= raw;
        end else if (first_q != raw) begin
          word_q <= {word_q[30:0], first_q};
          bits_q <= bits_q + 1'b1;
        end
        if (raw == last_q && repeat_q == Rw'(RepeatLimit)) begin
          repeat_q <= '0;
          half_q   <= 1'b0;
          word_q   <= '0;
          bits_q   <= '0;
        end
      end
    end
  end
endmodule
