// Vector unit: windows of one tensor, or words of one or two tensors; the operation and its
// numbers come from the descriptor. x is an int8 byte of the scratchpad.
//
// Windows, one tap of up to 64 channels per cycle; pool_valid_o with a finished pixel:
//   MaxPool: the maximum; a tap outside the input (win_hit_i low) does not count.
//   AvgPool: y = requantise(sum of (x - in_zero)); a tap outside adds nothing. The largest window,
//     255 x 255, sums to less than 2^24. Windows must end at least four cycles apart.
// Words, word_valid_o with a result:
//   Add:   y = clamp(t >> add_shift rounded half to even), t = a * add_mult_a + b * add_mult_b +
//          add_offset, or minus b * add_mult_b (in2_negate); t int32, wrapping. 32 lanes: a word
//          may come every second cycle.
//   Mul:   y = requantise((a - in_zero) * (b - in2_zero)). 16 lanes: every fourth cycle.
//   Table: y = entry of a (lk_table). Every cycle.
// The table serves others too: look_y_o are the entries of look_x_i, in the same cycle.
// requantise is the post unit's: vec_mult, vec_shift, out_zero, the clamp; 16 lanes (lk_requant)
// that AvgPool and Mul share.
//
// Bytes that are no real channel give results like any others; nothing depends on them. Everything
// that holds activations or the table is zeroed by wipe_i, which must stay for 64 cycles.
module lk_vector (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          clear_i,
  input  logic          wipe_i,
  input  lk_pkg::desc_t desc_i,
  // windows
  input  logic          win_valid_i,
  input  logic          win_hit_i,
  input  logic          win_first_i,
  input  logic          win_last_i,
  input  logic [511:0]  win_data_i,
  output logic          pool_valid_o,
  output logic [511:0]  pool_data_o,
  // words
  input  logic          word_valid_i,
  input  logic [511:0]  word_a_i,
  input  logic [511:0]  word_b_i,
  output logic          word_valid_o,
  output logic [511:0]  word_data_o,
  // lookups of others, while no word comes
  input  logic              look_valid_i,
  input  logic [511:0]      look_x_i,
  output logic [1:0][511:0] look_y_o,
  // page of the table
  input  logic          table_start_i,
  output logic          table_done_o,
  input  logic          pg_valid_i,
  output logic          pg_ready_o,
  input  logic [511:0]  pg_data_i
);
  import lk_pkg::*;

  localparam int unsigned SumW     = 25;
  localparam int unsigned AddLanes = 32;
  localparam int unsigned ReqLanes = 16;

  logic is_avg, is_add, is_mul, is_table;
  assign is_avg   = desc_i.op == OpAvgPool;
  assign is_add   = desc_i.op == OpAdd;
  assign is_mul   = desc_i.op == OpMul;
  assign is_table = desc_i.op == OpTable;

  // ---- Maximum ----
  function automatic logic [511:0] maximum(input logic [511:0] a, input logic [511:0] b);
    logic [511:0] m;
    for (int unsigned i = 0; i < 64; i++) begin
      m[8*i +: 8] = $signed(b[8*i +: 8]) > $signed(a[8*i +: 8]) ? b[8*i +: 8] : a[8*i +: 8];
    end
    return m;
  endfunction

  logic [511:0] max_q;
  logic         win_end_q;  // the window's last tap is in max_q or sum_q
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) win_end_q <= 1'b0;
    else         win_end_q <= win_valid_i && win_last_i && !clear_i && !wipe_i;
  end
  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      max_q <= '0;
    end else if (win_valid_i && !is_avg) begin
      if (win_first_i)    max_q <= win_hit_i ? win_data_i : {64{8'h80}};
      else if (win_hit_i) max_q <= maximum(max_q, win_data_i);
    end
  end

  // ---- Sums: the next window begins while the last one is requantised ----
  logic [63:0][SumW-1:0] sum_q, hold_q;
  logic                  sum_end;
  assign sum_end = win_end_q && is_avg;

  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      sum_q  <= '0;
      hold_q <= '0;
    end else begin
      if (win_valid_i && is_avg) begin
        for (int unsigned i = 0; i < 64; i++) begin
          automatic logic [8:0] term = '0;
          if (win_hit_i) begin
            term = 9'($signed(win_data_i[8*i +: 8])) - 9'($signed(desc_i.in_zero));
          end
          sum_q[i] <= (win_first_i ? '0 : sum_q[i]) + SumW'($signed(term));
        end
      end
      if (sum_end) hold_q <= sum_q;
    end
  end

  // ---- Words: chunks of 16 bytes (of 32 for Add) go through the lanes ----
  logic [511:0] a_q, b_q;
  logic         start, busy_q, chunk_last;
  logic [1:0]   chunk_q;
  assign start      = sum_end || (word_valid_i && !is_table);
  assign chunk_last = is_add ? chunk_q[1] : chunk_q == 2'd3;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q  <= 1'b0;
      chunk_q <= '0;
    end else if (clear_i || wipe_i) begin
      busy_q  <= 1'b0;
    end else if (start) begin
      busy_q  <= 1'b1;
      chunk_q <= '0;
    end else if (busy_q) begin
      chunk_q <= chunk_q + (is_add ? 2'd2 : 2'd1);
      if (chunk_last) busy_q <= 1'b0;
    end
  end

  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      a_q <= '0;
      b_q <= '0;
    end else if (word_valid_i && !is_table) begin
      a_q <= word_a_i;
      b_q <= word_b_i;
    end
  end

  // ---- Addition: products, sum, shift ----
  // t >> shift, rounded half to even, clamped.
  function automatic logic [7:0] shift_clamp(input logic [31:0] t, input logic [4:0] shift,
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

  logic [1:0]            add_stage_q;
  logic [1:0]            half_q;      // which half of the word a stage holds
  logic [8*AddLanes-1:0] add_y;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) add_stage_q <= '0;
    else if (clear_i || wipe_i) add_stage_q <= '0;
    else add_stage_q <= {add_stage_q[0], busy_q && is_add};
  end
  always_ff @(posedge clk_i) half_q <= {half_q[0], chunk_q[1]};

  for (genvar l = 0; l < AddLanes; l++) begin : gen_add
    logic [31:0] pa_q, pb_q, t_q;
    always_ff @(posedge clk_i) begin
      if (wipe_i) begin
        pa_q <= '0;
        pb_q <= '0;
        t_q  <= '0;
      end else begin
        if (busy_q && is_add) begin
          automatic logic signed [7:0] a = a_q[{chunk_q[1], 8'(8*l)} +: 8];
          automatic logic signed [7:0] b = b_q[{chunk_q[1], 8'(8*l)} +: 8];
          pa_q <= 32'(a) * $signed({16'd0, desc_i.add_mult_a});
          pb_q <= 32'(b) * $signed({16'd0, desc_i.add_mult_b});
        end
        if (add_stage_q[0]) begin
          t_q <= pa_q + (desc_i.in2_negate ? -pb_q : pb_q) + desc_i.add_offset;
        end
      end
    end
    always_comb begin
      add_y[8*l +: 8] = '0;
      if (add_stage_q[1]) begin
        add_y[8*l +: 8] = shift_clamp(t_q, desc_i.add_shift, desc_i.clamp_lo, desc_i.clamp_hi);
      end
    end
  end

  // ---- Requantisation of sums and products ----
  logic                    req_in_q, req_valid;
  logic [1:0]              req_chunk_q, req_chunk;
  logic [ReqLanes*32-1:0]  acc_q;
  logic [127:0]            req_y;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) req_in_q <= 1'b0;
    else         req_in_q <= busy_q && !is_add && !clear_i && !wipe_i;
  end
  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      acc_q <= '0;
    end else if (busy_q && !is_add) begin
      req_chunk_q <= chunk_q;
      for (int unsigned l = 0; l < ReqLanes; l++) begin
        automatic logic signed [8:0] a, b;
        a = 9'($signed(a_q[{chunk_q, 7'(8*l)} +: 8])) - 9'($signed(desc_i.in_zero));
        b = 9'($signed(b_q[{chunk_q, 7'(8*l)} +: 8])) - 9'($signed(desc_i.in2_zero));
        acc_q[32*l +: 32] <= is_mul ? 32'(a) * 32'(b) : 32'($signed(hold_q[{chunk_q, 4'(l)}]));
      end
    end
  end

  lk_requant #(
    .TagW(2)
  ) u_requant (
    .clk_i,
    .rst_ni,
    .clear_i(clear_i || wipe_i),
    .wipe_i,
    .valid_i(req_in_q),
    .acc_i  (acc_q),
    .prm_i  ({ReqLanes{desc_i.vec_shift[5:0], desc_i.vec_mult[23:0], 32'd0}}),
    .zero_i (desc_i.out_zero),
    .lo_i   (desc_i.clamp_lo),
    .hi_i   (desc_i.clamp_hi),
    .tag_i  (req_chunk_q),
    .valid_o(req_valid),
    .y_o    (req_y),
    .tag_o  (req_chunk)
  );

  // ---- Table ----
  logic look;
  assign look = word_valid_i && is_table;

  lk_table u_table (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .wide_i (desc_i.op == OpSoftmax),
    .start_i(table_start_i),
    .done_o (table_done_o),
    .pg_valid_i,
    .pg_ready_o,
    .pg_data_i,
    .valid_i(look || look_valid_i),
    .x_i    (look ? word_a_i : look_x_i),
    .y_o    (look_y_o)
  );

  // ---- Results ----
  logic [511:0] y_q;
  logic         y_end_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      y_end_q <= 1'b0;
    end else begin
      y_end_q <= !clear_i && !wipe_i &&
                 ((add_stage_q[1] && half_q[1]) || (req_valid && req_chunk == 2'd3) || look);
    end
  end
  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i)              y_q                            <= '0;
    else if (look)           y_q                            <= look_y_o[0];
    else if (add_stage_q[1]) y_q[{half_q[1], 8'd0} +: 256]  <= add_y;
    else if (req_valid)      y_q[{req_chunk, 7'd0} +: 128]  <= req_y;
  end

  assign pool_valid_o = is_avg ? y_end_q : win_end_q;
  assign pool_data_o  = is_avg ? y_q : max_q;
  assign word_valid_o = y_end_q && !is_avg;
  assign word_data_o  = y_q;
endmodule
