// Checks a descriptor against the build and derives the layer's geometry, before anything runs:
// 25 cycles with one 32 x 16 bit multiplier. start_i loads; done_o is a pulse with bad_o and geom_o
// (both stay until the next start).
//
// Every address that the other modules of this room form is inside the scratchpad because of what
// is checked here, so a check must not be left out as "the compiler never does that":
//   all operations: batch not zero, operation known
//   tensors (see shape below): sizes not zero, block layout legal, at most 4,096 channels, an image
//     fits into its stride, base + batch * stride <= SpadWords (see out_tail for parts of a tensor)
//   MatMul: kernel and strides not zero, taps = kernel_h * kernel_w * in_cb, k_tiles, n_tiles and
//     param_pages as the layout demands, clamp_lo <= clamp_hi; with fuse_add also a second tensor
//     of the output's shape, not broadcast, add_shift <= 22, mid_lo <= mid_hi
//   MaxPool, AvgPool: same channel layout in and out, every window touches the input
//   repeat_y, repeat_x: MaxPool of 1 x 1 windows of stride 1 without padding, and not more output
//     than that gives
//   Depthwise: as MaxPool; kernel_h * kernel_w <= 64, k_tiles = 1, n_tiles and param_pages as the
//     layout demands, clamp_lo <= clamp_hi
//   MatMul, Product, pools, Depthwise, Softmax, LayerNorm: fewer than 2^23 rows in all
//   MatMul and Product with in_planar or out_planar: blocks of 64 bytes there; in_planar: 1 x 1
//     windows; out_planar: no fuse_add
//   out_pitch: MatMul, pools and Depthwise only, with blocks of 64 bytes, without fuse_add, fuse_dw
//     and out_planar; out_cb to 64
//   slices: MatMul only, without fuse_add, fuse_dw and out_planar; what holds for images
//     holds for slices, fewer than 2^16 in all
//   fuse_table: MatMul and Product only
//   Product: as MatMul, with 1 x 1 windows of stride 1 without padding and without fuse_add; heads
//     not zero, batch * heads below 2^16; the second tensor's channels in blocks of 64 bytes and a
//     head of it within its stride
//   fuse_dw: MatMul only, not with fuse_add, fuse_table or out_planar. Its Depthwise is checked by
//     a second start, with second_i and the descriptor that it would have: as Depthwise, kernel
//     sides up to 5, lines up to 512, kernel_h <= in_h + pad_top: the last windows of a channel
//     block end in lines of the next, and must not need the one behind it, whose page waits for
//     them
//   dw_pairs: with fuse_dw only; a window up to 3 x 3 and 3 wide, with one column of padding on the
//     left, as many columns out as pairs in; dw_stride_x 1 and whole blocks of 64, or 2, with a
//     tile for each 32 channels, and blocks of 32 or 64 bytes
//   Add, Mul, Table, Softmax, LayerNorm: all tensors of the output's shape; with in2_broadcast the
//     second is one pixel
//   Add: add_shift <= 22, clamp_lo <= clamp_hi
//   AvgPool, Mul, Softmax: vec_mult 0 or 2^23 <= vec_mult < 2^24, vec_shift <= 63 (Softmax: 36),
//     clamp_lo <= clamp_hi
//   Table, Softmax: one parameter page, no tiles
//   LayerNorm: parameter pages for its channels, no tiles; 0 < epsilon < 2^39, clamp_lo <= clamp_hi
//   Add, Mul, fuse_add: in2_stride 0 gives every image the same second tensor
//   Input, Output, Spill, Load: only base and stride count. Load: no tiles; parameter pages for the
//     words of one image, none with spilled, which only a Load has
// OpEnd is legal and does nothing.
module lk_setup #(
  parameter int unsigned ArrayN    = 16,
  parameter int unsigned SpadWords = lk_pkg::SpadWords
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              start_i,
  input  logic              second_i, // desc_i is the Depthwise behind a MatMul with fuse_dw
  input  lk_pkg::desc_t     desc_i,   // stable from start_i to done_o
  input  logic [15:0]       batch_i,
  output logic              done_o,
  output logic              bad_o,
  output lk_act_pkg::geom_t geom_o
);
  import lk_pkg::*;
  import lk_act_pkg::*;

  localparam int unsigned Steps = 20;
  localparam int unsigned Lanes = gather_lanes(ArrayN);

  logic is_mm, is_prod, is_pool, is_add, is_dw, is_in, is_out, is_avg, is_mul, is_table, is_soft;
  logic is_norm, is_load, is_const, fuse;
  assign is_load  = desc_i.op == OpLoad;
  assign is_const = is_load && !desc_i.spilled;
  assign is_prod = desc_i.op == OpProduct;
  assign is_mm   = desc_i.op == OpMatMul || is_prod;
  assign is_pool = desc_i.op == OpMaxPool || is_avg;  // walks windows
  assign is_add  = desc_i.op == OpAdd;
  assign is_dw   = desc_i.op == OpDepthwise;
  assign is_in   = desc_i.op == OpInput || is_load;
  assign is_out  = desc_i.op == OpOutput || desc_i.op == OpSpill;
  assign is_avg  = desc_i.op == OpAvgPool;
  assign is_mul  = desc_i.op == OpMul;
  assign is_table = desc_i.op == OpTable;
  assign is_soft  = desc_i.op == OpSoftmax;
  assign is_norm  = desc_i.op == OpLayerNorm;
  assign fuse     = is_mm && desc_i.fuse_add;

  logic is_words, is_post;  // input of the output's shape; requantises with vec_mult
  assign is_words = is_add || is_mul || is_table || is_soft || is_norm;
  assign is_post  = is_avg || is_mul || is_soft;

  // Which tensors the operation has, and which of them have a shape of their own.
  logic has_in, has_in2, has_out, shape_in, shape_out;
  assign shape_in  = is_mm || is_pool || is_dw;
  assign shape_out = is_mm || is_pool || is_words || is_dw;
  // Nothing lies in the scratchpad between a MatMul and its Depthwise.
  assign has_in    = (shape_in && !second_i) || is_words || is_out;
  assign has_in2   = is_add || is_mul || is_prod || fuse;
  assign has_out   = (shape_out && !(is_mm && desc_i.fuse_dw)) || is_in;

  logic       repeats;
  logic [3:0] repeat_y, repeat_x;
  assign repeats  = desc_i.repeat_y > 4'd1 || desc_i.repeat_x > 4'd1;
  assign repeat_y = desc_i.repeat_y == '0 ? 4'd1 : desc_i.repeat_y;
  assign repeat_x = desc_i.repeat_x == '0 ? 4'd1 : desc_i.repeat_x;

  // The output is a part of the tensor that it lies in: of its channels, of its rows.
  logic pitched, sliced;
  assign pitched = desc_i.out_pitch != '0;
  assign sliced  = desc_i.slices != '0;

  logic in_planar, out_planar;
  assign in_planar  = is_mm && desc_i.in_planar;
  assign out_planar = is_mm && desc_i.out_planar;

  logic [12:0] in_pitch, out_pitch;
  assign in_pitch  = in_planar ? 13'd64 : 13'({6'd0, desc_i.in_cb[6:0]} << desc_i.in_cp_log2);
  always_comb begin
    out_pitch = 13'({6'd0, desc_i.out_cb[6:0]} << desc_i.out_cp_log2);
    if (pitched) out_pitch = {desc_i.out_pitch, 6'd0};
    if (out_planar) out_pitch = 13'd64;
  end

  // The second tensor of a Product, by the shapes of the other two.
  logic [12:0] b_pixels;
  logic [6:0]  b_blocks;
  assign b_pixels = desc_i.in2_transposed
                  ? {desc_i.out_cb[6:0] - 7'd1, 6'd0} + 13'(desc_i.out_c_last)
                  : {desc_i.in_cb[6:0] - 7'd1, 6'd0} + 13'(desc_i.in_c_last);
  assign b_blocks = desc_i.in2_transposed ? desc_i.in_cb[6:0] : desc_i.out_cb[6:0];

  // Checks that need no product.
  function automatic logic bad_shape(input logic [15:0] h, input logic [15:0] w,
                                     input logic [15:0] cb, input logic [2:0] cp,
                                     input logic [6:0] c_last);
    return h == '0 || w == '0 || cb == '0 || cb > 16'd64 || cp > 3'd6 ||
           (cp != 3'd6 && cb != 16'd1) || c_last == '0 || c_last > (7'd1 << cp);
  endfunction

  // Tiles of 64 results. With dw_pairs and a step of two each has 32 channels of the output.
  logic        halves;
  logic [15:0] tiles;
  assign halves = second_i && desc_i.dw_pairs && desc_i.dw_stride_x == 8'd2;
  always_comb begin
    tiles = desc_i.out_cb;
    if (halves) begin
      tiles = 16'd1;
      if (desc_i.out_cp_log2 == 3'd6) begin
        tiles = {desc_i.out_cb[14:0], 1'b0} - 16'(desc_i.out_c_last <= 7'd32);
      end
    end
  end

  logic bad_static;
  always_comb begin
    bad_static = batch_i == '0 ||
                 !(is_mm || is_pool || is_words || is_dw || is_in || is_out ||
                   desc_i.op == OpEnd);
    if (shape_in) begin
      bad_static |= bad_shape(desc_i.in_h, desc_i.in_w, desc_i.in_cb, desc_i.in_cp_log2,
                              desc_i.in_c_last);
      bad_static |= desc_i.kernel_h == '0 || desc_i.kernel_w == '0;
      bad_static |= desc_i.stride_y == '0 || desc_i.stride_x == '0;
    end
    if (shape_out) begin
      bad_static |= bad_shape(desc_i.out_h, desc_i.out_w, desc_i.out_cb, desc_i.out_cp_log2,
                              desc_i.out_c_last);
    end
    if (is_mm || is_dw) begin
      bad_static |= desc_i.n_tiles != tiles;
      bad_static |= desc_i.param_pages != 16'((17'(tiles) + 17'd3) >> 2);
    end
    bad_static |= desc_i.dw_pairs && !desc_i.fuse_dw;
    if (second_i && desc_i.dw_pairs) begin
      bad_static |= desc_i.kernel_h > 8'd3 || desc_i.kernel_w != 8'd3 || desc_i.pad_left != 8'd1 ||
                    desc_i.out_w != desc_i.in_w;
      if (halves) bad_static |= desc_i.out_cp_log2 < 3'd5 || tiles > 16'd64;
      else bad_static |= desc_i.dw_stride_x != 8'd1 || desc_i.out_c_last != 7'd64;
    end
    if (is_dw) bad_static |= desc_i.k_tiles != 16'd1;
    if (repeats) begin
      bad_static |= desc_i.op != OpMaxPool || desc_i.kernel_h != 8'd1 || desc_i.kernel_w != 8'd1 ||
                    desc_i.stride_y != 8'd1 || desc_i.stride_x != 8'd1 || desc_i.pad_top != '0 ||
                    desc_i.pad_left != '0;
    end
    if (is_mm || is_add || is_dw || is_post || is_norm) begin
      bad_static |= $signed(desc_i.clamp_lo) > $signed(desc_i.clamp_hi);
    end
    bad_static |= desc_i.fuse_table && !is_mm;
    if (desc_i.fuse_dw && !second_i) begin
      bad_static |= !is_mm || is_prod || fuse || desc_i.fuse_table || desc_i.out_planar;
    end
    if (second_i) begin
      bad_static |= desc_i.kernel_h > 8'd5 || desc_i.kernel_w > 8'd5 || desc_i.in_w > 16'd512 ||
                    17'(desc_i.kernel_h) > 17'(desc_i.in_h) + 17'(desc_i.pad_top);
    end
    if (in_planar) begin
      bad_static |= desc_i.in_cp_log2 != 3'd6 || desc_i.kernel_h != 8'd1 ||
                    desc_i.kernel_w != 8'd1;
    end
    if (out_planar) bad_static |= desc_i.out_cp_log2 != 3'd6 || fuse;
    if (pitched || sliced) bad_static |= fuse || desc_i.fuse_dw || out_planar;
    if (pitched) begin
      bad_static |= !(desc_i.op == OpMatMul || is_pool || is_dw) || desc_i.out_cp_log2 != 3'd6 ||
                    16'(desc_i.out_pitch) < desc_i.out_cb || desc_i.out_pitch > 7'd64;
    end
    if (sliced) bad_static |= desc_i.op != OpMatMul;
    if (is_prod) begin
      bad_static |= desc_i.heads == '0 || fuse || desc_i.in_h != desc_i.out_h ||
                    desc_i.in_w != desc_i.out_w || desc_i.pad_top != '0 || desc_i.pad_left != '0 ||
                    desc_i.kernel_h != 8'd1 || desc_i.kernel_w != 8'd1 ||
                    desc_i.stride_y != 8'd1 || desc_i.stride_x != 8'd1;
      bad_static |= (desc_i.in2_transposed ? desc_i.in_cp_log2 : desc_i.out_cp_log2) != 3'd6;
    end
    if (is_add || fuse) bad_static |= desc_i.add_shift > 5'd22;
    if (fuse) bad_static |= desc_i.in2_broadcast;
    if (fuse || (is_mm && desc_i.fuse_dw)) begin
      bad_static |= $signed(desc_i.mid_lo) > $signed(desc_i.mid_hi);
    end
    if (is_post) begin
      bad_static |= desc_i.vec_mult != '0 && desc_i.vec_mult[31:23] != 9'd1;
      bad_static |= desc_i.vec_shift > (is_soft ? 8'd36 : 8'd63);
    end
    if (is_table || is_soft) bad_static |= desc_i.param_pages != 16'd1;
    if (is_norm) begin
      bad_static |= desc_i.param_pages != 16'((17'(desc_i.out_cb) + 17'd3) >> 2);
      bad_static |= {desc_i.epsilon_hi, desc_i.epsilon_lo} == '0 || desc_i.epsilon_hi[7];
    end
    if (is_table || is_soft || is_norm) begin
      bad_static |= desc_i.n_tiles != '0 || desc_i.k_tiles != '0;
    end
    if (is_pool || is_dw) begin
      bad_static |= desc_i.in_cb != desc_i.out_cb || desc_i.in_cp_log2 != desc_i.out_cp_log2 ||
                    desc_i.in_c_last != desc_i.out_c_last;
      bad_static |= desc_i.pad_top >= desc_i.kernel_h || desc_i.pad_left >= desc_i.kernel_w;
    end
    if (has_in)  bad_static |= desc_i.in_stride == '0;
    if (is_prod) bad_static |= desc_i.in2_stride == '0;
    bad_static |= desc_i.spilled && !is_load;
    if (is_load) begin
      bad_static |= desc_i.n_tiles != '0 || desc_i.k_tiles != '0;
      bad_static |= 33'(desc_i.param_pages) != (is_const ? (33'(desc_i.out_stride) + 33'd63) >> 6
                                                         : 33'd0);
    end
    if (has_out) bad_static |= desc_i.out_stride == '0;
  end

  // The products, one issued per cycle; a product can be an operand three steps later.
  logic        run_q;
  logic [4:0]  step_q;
  logic [2:0]  valid_q;          // issue, operands, product
  logic [4:0]  step1_q, step2_q;
  logic [31:0] a_d, a_q;
  logic [15:0] b_d, b_q;
  logic [47:0] p_q;

  logic [31:0] line_q, pixels_q, step_x_q, step_y_q, pad_y_q, pad_x_q, in_total_q, out_total_q;
  logic [31:0] out_words_q, in_block_q, out_block_q;
  logic [15:0] window_q, images_q;
  logic [22:0] taps_q, rows_q;
  logic        bad_q;

  always_comb begin
    a_d = '0;
    b_d = '0;
    if (run_q) unique case (step_q)
      5'd0: begin
        a_d = 32'(batch_i);
        b_d = is_prod ? 16'(desc_i.heads) : sliced ? 16'(desc_i.slices) : 16'd1;
      end
      5'd1:  begin a_d = 32'(in_pitch);              b_d = desc_i.in_w; end
      5'd2:  begin a_d = 32'(desc_i.out_h);          b_d = desc_i.out_w; end
      5'd3:  begin a_d = 32'(desc_i.kernel_h);       b_d = 16'(desc_i.kernel_w); end
      5'd4:  begin a_d = 32'(in_pitch);              b_d = 16'(desc_i.stride_x); end
      5'd5:  begin a_d = line_q;                     b_d = desc_i.in_h; end
      5'd6:  begin a_d = pixels_q;                   b_d = 16'(out_pitch); end
      5'd7:  begin a_d = 32'(window_q);              b_d = desc_i.in_cb; end
      5'd8:  begin a_d = pixels_q;                   b_d = images_q; end
      5'd9:  begin a_d = line_q;                     b_d = 16'(desc_i.stride_y); end
      5'd10: begin a_d = line_q;                     b_d = 16'(desc_i.pad_top); end
      5'd11: begin a_d = 32'(in_pitch);              b_d = 16'(desc_i.pad_left); end
      5'd12: begin a_d = desc_i.in_stride;           b_d = images_q; end
      5'd13: begin a_d = desc_i.out_stride;          b_d = is_const ? 16'd1 : images_q; end
      5'd14: begin a_d = desc_i.in2_stride;          b_d = images_q; end
      5'd15: begin
        a_d = repeats ? 32'(desc_i.in_h) : {16'd0, desc_i.out_h - 16'd1};
        b_d = repeats ? 16'(repeat_y) : 16'(desc_i.stride_y);
      end
      5'd16: begin
        a_d = repeats ? 32'(desc_i.in_w) : {16'd0, desc_i.out_w - 16'd1};
        b_d = repeats ? 16'(repeat_x) : 16'(desc_i.stride_x);
      end
      5'd17: begin a_d = in_block_q;                 b_d = desc_i.in_cb; end
      5'd18: begin a_d = out_block_q;                b_d = desc_i.out_cb; end
      5'd19: begin a_d = 32'(b_pixels);              b_d = 16'(b_blocks); end
      default: ;
    endcase
  end

  // Words that an image of the second tensor may have: up to the next, or up to the end if all
  // images share it.
  logic [31:0] in2_room;
  assign in2_room = desc_i.in2_stride != '0 ? desc_i.in2_stride : 32'(SpadWords) - desc_i.in2_base;

  // Words of the last out_stride that a part of a tensor does not touch: a part that starts behind
  // the tensor's first word may leave so many behind the last. The last write is to word
  // base + total - out_tail - 1, as step 6 makes the pixels of an image or slice fit its stride.
  logic [32:0] out_tail;
  always_comb begin
    out_tail = '0;
    if (sliced)  out_tail += 33'(desc_i.out_stride) - 33'(out_words_q);
    if (pitched) out_tail += 33'(desc_i.out_pitch) - 33'(desc_i.out_cb);
  end

  // What is wrong with the product that has just arrived.
  logic bad_p;
  always_comb begin
    bad_p = 1'b0;
    if (valid_q[1]) unique case (step2_q)
      5'd0:  bad_p = p_q > 48'hffff;
      5'd3:  bad_p = is_dw && p_q > 48'd64;
      5'd5:  bad_p = shape_in && has_in && p_q > {10'd0, desc_i.in_stride, 6'd0};
      5'd6:  bad_p = (shape_out && has_out && p_q > {10'd0, desc_i.out_stride, 6'd0}) ||
                     (is_words && p_q > {10'd0, desc_i.in_stride, 6'd0}) ||
                     (has_in2 && !is_prod && (desc_i.in2_broadcast ? 48'(out_pitch) : p_q) >
                                             {10'd0, in2_room, 6'd0});
      5'd7:  bad_p = is_mm && (p_q != 48'(desc_i.taps) ||
                               ((p_q << desc_i.in_cp_log2) + 48'd63) >> 6 != 48'(desc_i.k_tiles));
      5'd8:  bad_p = (shape_in || is_soft || is_norm) && p_q > 48'h7fffff;
      5'd12: bad_p = has_in && p_q + 48'(desc_i.in_base) > 48'(SpadWords);
      5'd13: bad_p = has_out && p_q + 48'(desc_i.out_base) > 48'(SpadWords) + 48'(out_tail);
      5'd14: bad_p = has_in2 && p_q + 48'(desc_i.in2_base) > 48'(SpadWords);
      5'd15: bad_p = repeats ? p_q < 48'(desc_i.out_h)
                             : (is_pool || is_dw) && p_q >= 48'(desc_i.in_h) + 48'(desc_i.pad_top);
      5'd16: bad_p = repeats ? p_q < 48'(desc_i.out_w)
                             : ((is_pool || is_dw) &&
                                p_q >= 48'(desc_i.in_w) + 48'(desc_i.pad_left)) ||
                               (second_i && p_q >= 48'd512);
      5'd17: bad_p = in_planar && p_q > {10'd0, desc_i.in_stride, 6'd0};
      5'd18: bad_p = out_planar && p_q > {10'd0, desc_i.out_stride, 6'd0};
      5'd19: bad_p = is_prod && p_q > 48'(desc_i.in2_stride);
      default: ;
    endcase
  end

  logic last_step;
  assign last_step = run_q && step_q == 5'(Steps) && valid_q == '0;
  assign bad_o     = bad_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      run_q   <= 1'b0;
      valid_q <= '0;
      step_q  <= '0;
      done_o  <= 1'b0;
      bad_q   <= 1'b0;
    end else begin
      done_o <= 1'b0;
      if (clear_i) begin
        run_q   <= 1'b0;
        valid_q <= '0;
      end else if (start_i) begin
        run_q   <= 1'b1;
        step_q  <= '0;
        valid_q <= '0;
        bad_q   <= bad_static;
      end else if (run_q) begin
        if (step_q != 5'(Steps)) step_q <= step_q + 1'b1;
        valid_q <= {valid_q[1:0], step_q != 5'(Steps)};
        if (bad_p) bad_q <= 1'b1;
        if (last_step) begin
          run_q  <= 1'b0;
          done_o <= 1'b1;
        end
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (run_q) begin
      a_q     <= a_d;
      b_q     <= b_d;
      step1_q <= step_q;
      p_q     <= 48'(a_q) * 48'(b_q);
      step2_q <= step1_q;
      if (valid_q[1]) begin
        unique case (step2_q)
          5'd0:  images_q    <= p_q[15:0];
          5'd1:  line_q      <= p_q[31:0];
          5'd2:  pixels_q    <= p_q[31:0];
          5'd3:  window_q    <= p_q[15:0];
          5'd4:  step_x_q    <= p_q[31:0];
          5'd5:  in_block_q  <= p_q[31:0];
          5'd6: begin
            out_words_q <= 32'((p_q + 48'd63) >> 6);
            out_block_q <= p_q[31:0];
          end
          5'd7:  taps_q      <= p_q[22:0];
          5'd8:  rows_q      <= p_q[22:0];
          5'd9:  step_y_q    <= p_q[31:0];
          5'd10: pad_y_q     <= p_q[31:0];
          5'd11: pad_x_q     <= p_q[31:0];
          5'd12: in_total_q  <= p_q[31:0];
          5'd13: out_total_q <= p_q[31:0];
          default: ;
        endcase
      end
    end
  end

  // From the first to the last tap of a slice that holds several. It touches kernel_h kernel rows
  // at most, and one more than there are kernel rows, whole or begun, in that span.
  logic [15:0] slice_span;
  assign slice_span = (16'(ArrayN) >> desc_i.in_cp_log2) - 16'd1;

  // Kept in a register so that nothing of this is computed again while the operation runs.
  function automatic geom_t geometry();
    geom_t g;
    g = '0;
    if (is_pool || is_dw) g.mode = ModeWindow;
    else g.mode = (32'd1 << desc_i.in_cp_log2) >= ArrayN ? ModeDirect : ModeGather;
    g.in_h       = desc_i.in_h;
    g.in_w       = desc_i.in_w;
    g.in_cb      = desc_i.in_cb[6:0];
    g.in_cp      = desc_i.in_cp_log2;
    g.in_c_last  = desc_i.in_c_last;
    g.in_pitch   = in_pitch;
    g.in_line    = line_q;
    g.in_step    = desc_i.in_stride << 6;
    g.in_start   = (desc_i.in_base << 6) - pad_y_q - pad_x_q;
    g.in_planar  = in_planar;
    g.in_block   = in_block_q;
    g.step_x     = step_x_q;
    g.step_y     = step_y_q;
    g.stride_x   = desc_i.stride_x;
    g.stride_y   = desc_i.stride_y;
    g.again_y    = repeat_y - 4'd1;
    g.again_x    = repeat_x - 4'd1;
    g.pad_top    = desc_i.pad_top;
    g.pad_left   = desc_i.pad_left;
    g.pad_value  = desc_i.pad_value;
    g.kernel_w   = desc_i.kernel_w;
    g.window     = window_q;
    g.pace       = is_avg && window_q < 16'd4;
    g.taps       = taps_q;
    g.out_h      = desc_i.out_h;
    g.out_w      = desc_i.out_w;
    g.out_pixels = pixels_q;
    g.rows       = rows_q;
    g.images     = images_q;
    g.out_cb     = desc_i.out_cb[6:0];
    g.out_cp     = desc_i.out_cp_log2;
    g.out_c_last = desc_i.out_c_last;
    g.out_pitch  = out_pitch;
    g.out_block  = out_planar ? out_block_q : 32'd64;
    g.out_start  = desc_i.out_base << 6;
    g.out_step   = desc_i.out_stride << 6;
    g.out_words  = out_words_q;
    g.in_total   = in_total_q;
    g.out_total  = out_total_q;
    g.k_tiles    = desc_i.k_tiles;
    g.lanes      = desc_i.kernel_h <= 8'(Lanes) ||
                   slice_span <= 16'(Lanes - 1) * 16'(desc_i.kernel_w);
    g.fuse       = fuse;
    g.in2_start  = desc_i.in2_base << 6;
    g.in2_step   = desc_i.in2_stride << 6;
    g.fuse_dw    = is_mm && desc_i.fuse_dw;
    g.product    = is_prod;
    g.b_transposed = desc_i.in2_transposed;
    g.b_planar   = desc_i.in2_planar;
    g.b_pixels   = b_pixels;
    g.b_blocks   = b_blocks;
    g.b_c_last   = desc_i.in2_transposed ? desc_i.in_c_last : desc_i.out_c_last;
    return g;
  endfunction

  always_ff @(posedge clk_i) begin
    if (last_step) geom_o <= geometry();
  end
endmodule
