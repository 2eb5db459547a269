// One lane of an addition: t = q * mult_a +- b * mult_b + offset (q, b int8; mult unsigned 16 bit;
// t int32, wrapping), y = clamp(t >> shift rounded half to even, lo, hi). Latency 3; stage_i[k] is
// high when stage k takes a value. wipe_i zeroes all stages.
module lk_add_lane (
  input  logic        clk_i,
  input  logic        wipe_i,
  input  logic [2:0]  stage_i,
  input  logic [7:0]  q_i,
  input  logic [7:0]  b_i,
  input  logic [15:0] mult_a_i,
  input  logic [15:0] mult_b_i,
  input  logic        negate_b_i,
  input  logic [31:0] offset_i,
  input  logic [4:0]  shift_i,
  input  logic [7:0]  lo_i,
  input  logic [7:0]  hi_i,
  output logic [7:0]  y_o
);
  logic [31:0] pa_q, pb_q, t_q;

  function automatic logic [7:0] requantise(input logic [31:0] t, input logic [4:0] shift,
                                            input logic [7:0] lo, input logic [7:0] hi);
    logic signed [31:0] q;
    logic [31:0]        rest, half;
    q    = $signed(t) >>> shift;
    rest = t & ((32'd1 << shift) - 32'd1);
    half = (32'd1 << shift) >> 1;
    if (shift != '0 && (rest > half || (rest == half && q[0]))) q = q + 32'sd1;
    if (q < 32'($signed(lo))) return lo;
    if (q > 32'($signed(hi))) return hi;
    return q[7:0];
  endfunction

  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      pa_q <= '0;
      pb_q <= '0;
      t_q  <= '0;
      y_o  <= '0;
    end else if (stage_i != '0) begin
      if (stage_i[0]) begin
        pa_q <= 32'($signed(q_i)) * $signed({16'd0, mult_a_i});
        pb_q <= 32'($signed(b_i)) * $signed({16'd0, mult_b_i});
      end
      if (stage_i[1]) t_q <= (negate_b_i ? pa_q - pb_q : pa_q + pb_q) + offset_i;
      if (stage_i[2]) y_o <= requantise(t_q, shift_i, lo_i, hi_i);
    end
  end
endmodule
