// Vector unit. Max-pool: the maximum over the window taps that the feed delivers, 64 int8 lanes,
// one tap per cycle; a tap outside the input does not count. Addition: 16 lanes per cycle of
//   t = a * mult_a + b * mult_b + offset   (a, b int8; mult unsigned 16 bit; t int32, wrapping)
//   y = clamp(t >> shift rounded half to even, clamp_lo, clamp_hi)
// over words of two tensors: the pair is taken with add_valid_i and may come every fourth cycle;
// four cycles of 16 bytes follow, three cycles later, chunk c on bytes 16c..16c+15.
module lk_vector (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         clear_i,
  input  logic         wipe_i,
  // max-pool
  input  logic         win_valid_i,
  input  logic         win_hit_i,
  input  logic         win_first_i,
  input  logic         win_last_i,
  input  logic [511:0] win_data_i,
  output logic         max_valid_o,
  output logic [511:0] max_data_o,
  // addition
  input  logic         add_valid_i,
  input  logic [511:0] add_a_i,
  input  logic [511:0] add_b_i,
  input  logic [15:0]  mult_a_i,
  input  logic [15:0]  mult_b_i,
  input  logic [31:0]  offset_i,
  input  logic [4:0]   shift_i,
  input  logic [7:0]   clamp_lo_i,
  input  logic [7:0]   clamp_hi_i,
  output logic         add_valid_o,
  output logic [1:0]   add_chunk_o,
  output logic [127:0] add_data_o
);
  // ---- Maximum ----
  function automatic logic [511:0] maximum(input logic [511:0] a, input logic [511:0] b);
    logic [511:0] m;
    for (int unsigned i = 0; i < 64; i++) begin
      m[8*i +: 8] = $signed(b[8*i +: 8]) > $signed(a[8*i +: 8]) ? b[8*i +: 8] : a[8*i +: 8];
    end
    return m;
  endfunction

  logic [511:0] max_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) max_valid_o <= 1'b0;
    else         max_valid_o <= win_valid_i && win_last_i && !clear_i && !wipe_i;
  end
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      max_q <= '0;
    end else if (win_valid_i && win_first_i) begin
      max_q <= win_hit_i ? win_data_i : {64{8'h80}};
    end else if (win_valid_i && win_hit_i) begin
      max_q <= maximum(max_q, win_data_i);
    end
  end
  assign max_data_o = max_q;

  // ---- Addition ----
  logic [511:0] a_q, b_q;
  logic         busy_q;
  logic [1:0]   chunk_q;
  logic [2:0]   stage_q;
  logic [1:0]   chunk1_q, chunk2_q, chunk3_q;
  logic [31:0]  pa_q [16];
  logic [31:0]  pb_q [16];
  logic [31:0]  t_q  [16];
  logic [127:0] y_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q  <= 1'b0;
      chunk_q <= '0;
      stage_q <= '0;
    end else if (clear_i || wipe_i) begin
      busy_q  <= 1'b0;
      stage_q <= '0;
    end else begin
      stage_q <= {stage_q[1:0], busy_q};
      if (add_valid_i) begin
        busy_q  <= 1'b1;
        chunk_q <= '0;
      end else if (busy_q) begin
        chunk_q <= chunk_q + 1'b1;
        if (chunk_q == 2'd3) busy_q <= 1'b0;
      end
    end
  end

  // t >> shift, rounded half to even, clamped.
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
      a_q <= '0;
      b_q <= '0;
    end else if (add_valid_i) begin
      a_q <= add_a_i;
      b_q <= add_b_i;
    end
    chunk1_q <= chunk_q;
    chunk2_q <= chunk1_q;
    chunk3_q <= chunk2_q;
  end
  for (genvar l = 0; l < 16; l++) begin : gen_lane
    always_ff @(posedge clk_i) begin
      if (wipe_i) begin
        pa_q[l]       <= '0;
        pb_q[l]       <= '0;
        t_q[l]        <= '0;
        y_q[8*l +: 8] <= '0;
      end else begin
        if (busy_q) begin
          automatic logic signed [7:0] a = a_q[{chunk_q, 7'(8*l)} +: 8];
          automatic logic signed [7:0] b = b_q[{chunk_q, 7'(8*l)} +: 8];
          pa_q[l] <= 32'(a) * $signed({16'd0, mult_a_i});
          pb_q[l] <= 32'(b) * $signed({16'd0, mult_b_i});
        end
        if (stage_q[0]) t_q[l] <= pa_q[l] + pb_q[l] + offset_i;
        if (stage_q[1]) y_q[8*l +: 8] <= requantise(t_q[l], shift_i, clamp_lo_i, clamp_hi_i);
      end
    end
  end

  assign add_valid_o = stage_q[2];
  assign add_chunk_o = chunk3_q;
  assign add_data_o  = y_q;
endmodule
