// Depthwise convolution: every channel with its own kernel, requantised, 64 channels side by side.
//
//   pages -> parameters, weights of two channel blocks
//   scratchpad -> rotate -> lk_dw_window (line buffers) -> lk_dw_mac -> lk_requant -> scratchpad
//
// Channel blocks are the outermost loop, then images, rows, pixels. A block's input is streamed
// once in raster order, one pixel per cycle, straight on from row to row, image to image and block
// to block: the window slides across these seams and masks say which of its taps lie in the input,
// so padding costs no cycle. An output leaves with the last pixel it needs (or a seam later, when
// that one is padding). Its taps take ceil(K * K / Taps) cycles, K the larger side of the kernel.
// What does not fit (a kernel beyond Side x Side, a line beyond Line pixels) is read tap by tap
// from the scratchpad: kernel_h * kernel_w cycles per output.
//
// Cycles per output word in the steady state, for a stride of 1 and padding that keeps the size:
//                                  1x1   3x3   5x5   7x7 (tap by tap when Side is 5)
//   Taps 9, Post 64, Side 5          1     1     3    49
//   Taps 5, Post 32, Side 5          2     2     5    49
//   Taps 3, Post 16, Side 5          4     4     9    49
// Post results are requantised per cycle, so a block of c channels takes ceil(c / Post) cycles at
// least: with a small array, Taps 3 and Post 16 cost a third of the multipliers and a quarter of
// the post unit. A larger stride still streams every input pixel. Tensors of less than 64 channels
// take one cycle per pixel as well; several of their pixels share a word, which is read for each.
//
// The page stream holds desc_i.param_pages pages of parameters (as for MatMul) and one page of
// weights per block, beat ky * kernel_w + kx holding the block's 64 channels of that tap; the beats
// behind the last tap are ignored. The next block's page is taken while a block runs.
//
// With fused_i pixels come from px_*, in the order in which they would be read, and a pixel that is
// not there yet is waited for; kernel and line must fit.
//
// With pairs_i (and fused_i) a pixel is a pair of neighbouring ones with 32 channels each (see
// lk_dw_window), in the input as in the results; with halves_i the second half of a result is none,
// and its block has 32 channels.
//
// start_i begins; desc_i, geom_i and batch_i (checked by lk_setup) stay until done_o, a pulse after
// the last write. There is no back-pressure: writes are always taken. want_o: nothing can be done
// without the next page. macs_o: real multiplications of the output issued in the last cycle, taps
// in the padding counted. clear_i (level) drops everything in flight, RAM contents stay; wipe_i
// (pulse or level, its rising edge counts) zeroes all of it: pixels, window, weights, sums,
// parameters and results, with wipe_busy_o meanwhile.
module lk_depthwise #(
  parameter int unsigned Taps        = 9,
  parameter int unsigned Post        = 64,
  parameter int unsigned Side        = 5,
  parameter int unsigned Line        = 512,
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords)
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              wipe_i,
  output logic              wipe_busy_o,
  input  logic              start_i,
  input  lk_pkg::desc_t     desc_i,
  input  lk_act_pkg::geom_t geom_i,
  input  logic [15:0]       batch_i,
  output logic              done_o,
  // verified pages
  input  logic              pg_valid_i,
  output logic              pg_ready_o,
  input  logic [511:0]      pg_data_i,
  // pixels, a channel block each, with fused_i
  input  logic              fused_i,
  input  logic              pairs_i,
  input  logic              halves_i,
  input  logic              px_valid_i,
  output logic              px_ready_o,
  input  logic [511:0]      px_data_i,
  // scratchpad
  output logic              rd_en_o,
  output logic [Ww-1:0]     rd_addr_o,
  input  logic [511:0]      rd_data_i,   // ReadLatency cycles later
  output logic              wr_en_o,
  output logic [Ww-1:0]     wr_addr_o,
  output logic [63:0]       wr_be_o,
  output logic [511:0]      wr_data_o,
  // events
  output logic              want_o,
  output logic [12:0]       macs_o
);
  import lk_dw_pkg::*;

  localparam int unsigned Aw      = Ww + 6;
  localparam int unsigned Lw      = $clog2(Line);
  localparam int unsigned MinLine = 4;   // a line buffer's column is read again three cycles later
  localparam int unsigned Lanes   = 16;  // of one lk_requant, and channels of a parameter read
  localparam int unsigned Groups  = 64 / Post;
  typedef logic [Aw-1:0] addr_t;

  if (Post < Lanes || 64 % Post != 0) begin : gen_bad_post
    $fatal(1, "%m: Post must be 16, 32 or 64, got %0d", Post);
  end
  if (ReadLatency < 2) begin : gen_bad_latency
    $fatal(1, "%m: ReadLatency must be at least 2, got %0d", ReadLatency);
  end
  if (Line < 16 || (Line & (Line - 1)) != 0) begin : gen_bad_line
    $fatal(1, "%m: Line must be a power of two and at least 16, got %0d", Line);
  end

  // ---- Wipe: walk the addresses of all RAMs, then let the pipelines run dry ----
  localparam int unsigned WalkWords  = Line > 256 ? Line : 256;
  localparam int unsigned WipeCycles = WalkWords + 32;
  localparam int unsigned Wc         = $clog2(WipeCycles + 1);
  logic          wiping_q, wipe_seen_q, clear;
  logic [Wc-1:0] walk_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wiping_q    <= 1'b0;
      wipe_seen_q <= 1'b0;
      walk_q      <= '0;
    end else begin
      wipe_seen_q <= wipe_i;
      if (wipe_i && !wipe_seen_q) begin
        wiping_q <= 1'b1;
        walk_q   <= '0;
      end else if (wiping_q) begin
        walk_q <= walk_q + 1'b1;
        if (walk_q == Wc'(WipeCycles - 1)) wiping_q <= 1'b0;
      end
    end
  end
  assign wipe_busy_o = (wipe_i && !wipe_seen_q) || wiping_q;
  assign clear       = clear_i || wipe_busy_o;

  // ---- Start: what the walkers count with, one multiplier ----
  typedef enum logic [1:0] {StIdle, StPrepare, StRun, StDrain} state_e;
  state_e      state_q;
  logic [3:0]  prep_q;
  logic [19:0] a_q;
  logic [15:0] b_q;
  logic [27:0] p_q;
  logic [23:0] last_x_q, last_y_q;        // of the windows' first pixels: (out - 1) * stride
  logic [23:0] line_q, frame_q;           // steps of a line, lines of an image
  logic [27:0] gap_row_q, gap_image_q, gap_first_q;
  logic        stream_q;
  logic [5:0]  chunks_q;                  // cycles that the taps of an output take
  logic [6:0]  passes_q;                  // cycles that its requantisation takes
  logic [12:0] macs_full_q, macs_last_q;  // of a full channel block, of the last

  logic [23:0] frame_min, line_min;
  assign line_min  = last_x_q + 24'd1;
  assign frame_min = last_y_q + 24'd1;

  function automatic logic [5:0] chunks_of(input logic [7:0] k);
    logic [5:0] n;
    n = 6'd1;
    for (int unsigned s = 1; s <= Side; s++) if (k == 8'(s)) n = 6'((s * s + Taps - 1) / Taps);
    return n;
  endfunction

  always_ff @(posedge clk_i) begin
    if (state_q == StPrepare) begin
      unique case (prep_q)
        4'd0: begin a_q <= 20'(geom_i.out_w) - 20'd1;      b_q <= 16'(geom_i.stride_x); end
        4'd1: begin a_q <= 20'(geom_i.out_h) - 20'd1;      b_q <= 16'(geom_i.stride_y); end
        4'd6: begin a_q <= 20'(geom_i.stride_y);           b_q <= line_q[15:0]; end
        4'd7: begin a_q <= 20'(frame_q) - 20'(last_y_q);   b_q <= line_q[15:0]; end
        4'd8: begin
          a_q <= 20'(desc_i.kernel_h) - 20'd1 - 20'(geom_i.pad_top);
          b_q <= line_q[15:0];
        end
        default: ;
      endcase
      p_q <= 28'(a_q) * 28'(b_q);
      unique case (prep_q)
        4'd2: last_x_q <= p_q[23:0];
        4'd3: last_y_q <= p_q[23:0];
        4'd4: begin
          line_q  <= line_min > 24'(geom_i.in_w) ? line_min : 24'(geom_i.in_w);
          frame_q <= frame_min > 24'(geom_i.in_h) ? frame_min : 24'(geom_i.in_h);
        end
        4'd5: begin
          if (line_q < 24'(MinLine)) line_q <= 24'(MinLine);
          stream_q    <= line_q <= 24'(Line) && desc_i.kernel_h <= 8'(Side) &&
                         geom_i.kernel_w <= 8'(Side);
          chunks_q    <= chunks_of(desc_i.kernel_h > geom_i.kernel_w ? desc_i.kernel_h
                                                                     : geom_i.kernel_w);
          passes_q    <= (7'd1 << geom_i.out_cp) <= 7'(Post) ? 7'd1
                                                             : (7'd1 << geom_i.out_cp) / 7'(Post);
          macs_full_q <= halves_i ? {1'b0, geom_i.window[6:0], 5'd0} : {geom_i.window[6:0], 6'd0};
          macs_last_q <= 13'(geom_i.window[6:0]) * 13'(geom_i.out_c_last);
        end
        4'd8:  gap_row_q   <= p_q - 28'(last_x_q) - 28'd1;
        4'd9:  gap_image_q <= p_q - 28'(last_x_q) - 28'd1;
        4'd10: gap_first_q <= p_q + 28'(geom_i.kernel_w) - 28'd1 - 28'(geom_i.pad_left);
        default: ;
      endcase
    end
  end

  // ---- Pages ----
  logic [4:0]  params_left_q;  // pages of parameters to come
  logic [3:0]  param_page_q;
  logic [5:0]  beat_q;
  logic [6:0]  loads_left_q;   // pages of weights to come
  logic [5:0]  load_block_q;
  logic [2:0]  load_row_q, load_col_q;  // of the window, as lk_dw_pkg::ring counts
  logic [1:0]  full_q;         // halves of the weight memory that hold a block
  logic        load_half, to_params, to_weights, page_take, page_last, tap_beat;
  logic        release_half, releases;

  assign load_half  = load_block_q[0];
  assign to_params  = state_q != StIdle && params_left_q != '0;
  assign to_weights = state_q != StIdle && params_left_q == '0 && loads_left_q != '0 &&
                      !full_q[load_half];
  assign pg_ready_o = (to_params || to_weights) && !clear;
  assign page_take  = pg_valid_i && pg_ready_o;
  assign page_last  = page_take && beat_q == 6'(lk_pkg::PageBeats - 1);
  assign tap_beat   = page_take && to_weights && 16'(beat_q) < geom_i.window;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      params_left_q <= '0;
      param_page_q  <= '0;
      beat_q        <= '0;
      loads_left_q  <= '0;
      load_block_q  <= '0;
      load_row_q    <= '0;
      load_col_q    <= '0;
      full_q        <= '0;
    end else if (clear || start_i) begin
      params_left_q <= start_i && !clear ? desc_i.param_pages[4:0] : '0;
      loads_left_q  <= start_i && !clear ? geom_i.out_cb : '0;
      param_page_q  <= '0;
      beat_q        <= '0;
      load_block_q  <= '0;
      load_row_q    <= 3'(desc_i.kernel_h - 8'd1);
      load_col_q    <= 3'(geom_i.kernel_w - 8'd1);
      full_q        <= '0;
    end else begin
      if (page_take) beat_q <= beat_q + 1'b1;
      if (page_last && to_params) begin
        params_left_q <= params_left_q - 1'b1;
        param_page_q  <= param_page_q + 1'b1;
      end
      if (tap_beat) begin
        load_col_q <= load_col_q - 1'b1;
        if (load_col_q == '0) begin
          load_col_q <= 3'(geom_i.kernel_w - 8'd1);
          load_row_q <= load_row_q - 1'b1;
        end
      end
      if (page_last && to_weights) begin
        loads_left_q      <= loads_left_q - 1'b1;
        load_block_q      <= load_block_q + 1'b1;
        load_row_q        <= 3'(desc_i.kernel_h - 8'd1);
        load_col_q        <= 3'(geom_i.kernel_w - 8'd1);
        full_q[load_half] <= 1'b1;
      end
      if (releases) full_q[release_half] <= 1'b0;
    end
  end

  // Where a tap of the page lies among the taps of the window.
  logic [5:0] load_tap;
  always_comb begin
    load_tap = beat_q;
    if (stream_q) begin
      for (int unsigned r = 0; r < Side; r++) begin
        for (int unsigned c = 0; c < Side; c++) begin
          if (load_row_q == 3'(r) && load_col_q == 3'(c)) load_tap = 6'(ring(r, c));
        end
      end
    end
  end

  // The parameters of a block go from the RAM to its half with the first beats of its weights.
  logic [1:0]       fetch_q;
  logic [1:0][2:0]  fetch_at_q;
  logic             fetch;
  logic [16*62-1:0] fetched;
  logic [64*62-1:0] prm_q [2];

  assign fetch = page_take && to_weights && beat_q < 6'd4;
  lk_param_ram u_params (
    .clk_i,
    .we_i        (page_take && to_params),
    .addr_i      ({param_page_q, beat_q}),
    .data_i      (pg_data_i),
    .re_i        (fetch),
    .raddr_i     ({load_block_q, beat_q[1:0]}),
    .rdata_o     (fetched),
    .wipe_i      (wiping_q),
    .wipe_addr_i (walk_q[7:0])
  );
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) fetch_q <= '0;
    else if (clear) fetch_q <= '0;
    else fetch_q <= {fetch_q[0], fetch};
  end
  always_ff @(posedge clk_i) begin
    fetch_at_q <= {fetch_at_q[0], {load_half, beat_q[1:0]}};
  end
  // SEC_CM: DEPTHWISE.WIPE
  for (genvar i = 0; i < 2; i++) begin : gen_half
    for (genvar g = 0; g < 4; g++) begin : gen_group
      always_ff @(posedge clk_i) begin
        if (wiping_q) prm_q[i][16*62*g +: 16*62] <= '0;
        else if (fetch_q[1] && fetch_at_q[1] == {1'(i), 2'(g)}) begin
          prm_q[i][16*62*g +: 16*62] <= fetched;
        end
      end
    end
  end

  // ---- What every cycle of the pipeline does ----
  typedef struct packed {
    logic            step;   // a pixel enters the window
    logic            hit;    // it is read
    logic [5:0]      src;    // its first byte in the word
    logic [Lw-1:0]   col;    // column of the line buffers
    logic            mac;    // taps are multiplied
    logic            first;
    logic            last;
    logic            half;
    logic [5:0]      chunk;
    logic [5:0]      slot;
    logic [Side-1:0] row_ok;
    logic [Side-1:0] col_ok;
    logic            block_end;
    logic            all_end;
  } op_t;
  op_t  op;
  logic issue;

  // ---- Output walker: whose turn it is ----
  logic [15:0]        ox_q, oy_q, image_q;
  logic [5:0]         block_q;
  logic signed [19:0] right_q, bottom_q;  // of the window, in the input
  logic [27:0]        gap_q;              // steps until the next output's last pixel
  logic [5:0]         chunk_q, slot_q;
  logic [7:0]         row_q, col_q;       // tap by tap: rows and columns back from the last tap
  logic [6:0]         cool_q;             // the post unit is taken
  logic               row_end, image_end, images_end, block_last, out_step, ready;
  logic signed [19:0] right_0, bottom_0;

  assign row_end    = ox_q == geom_i.out_w - 16'd1;
  assign image_end  = row_end && oy_q == geom_i.out_h - 16'd1;
  assign images_end = image_end && image_q == batch_i - 16'd1;
  assign block_last = 7'(block_q) == geom_i.out_cb - 7'd1;
  assign right_0    = 20'(geom_i.kernel_w) - 20'd1 - 20'(geom_i.pad_left);
  assign bottom_0   = 20'(desc_i.kernel_h) - 20'd1 - 20'(geom_i.pad_top);
  assign ready      = full_q[block_q[0]];

  // ---- Input walker ----
  // Stream: the pixel that enters. Tap by tap: tap (0, 0) of the output, in image and line.
  addr_t       pos_q, image_pos_q, line_pos_q, block_pos_q, row_off_q, col_off_q;
  logic [15:0] in_x_q, in_image_q;
  logic [23:0] in_y_q;
  logic [6:0]  in_block_q;
  logic        in_hit, in_row_end, in_image_end, in_images_end;
  addr_t       block_0, tap_addr;

  assign in_hit        = in_block_q != geom_i.in_cb && in_x_q < geom_i.in_w &&
                         in_y_q < 24'(geom_i.in_h);
  assign in_row_end    = in_x_q == line_q[15:0] - 16'd1;
  assign in_image_end  = in_row_end && in_y_q == frame_q - 24'd1;
  assign in_images_end = in_image_end && in_image_q == batch_i - 16'd1;
  assign block_0       = stream_q ? addr_t'({desc_i.in_base, 6'd0}) : addr_t'(geom_i.in_start);
  assign tap_addr      = pos_q + row_off_q + col_off_q;

  function automatic logic in_range(input logic signed [19:0] at, input logic [15:0] size);
    return !at[19] && at < $signed({4'd0, size});
  endfunction

  logic go_on, fires, tap_hit, starved, waits;
  assign go_on   = chunk_q != '0;  // stream: more chunks of the same output
  assign fires   = gap_q == '0;
  assign tap_hit = in_range(bottom_q - 20'(row_q), geom_i.in_h) &&
                   in_range(right_q - 20'(col_q), geom_i.in_w);

  always_comb begin
    op        = '0;
    op.half   = block_q[0];
    op.chunk  = chunk_q;
    issue     = 1'b0;
    starved   = 1'b0;
    waits     = 1'b0;
    if (state_q == StRun && stream_q) begin
      op.step  = !go_on;
      op.hit   = !go_on && in_hit;
      op.src   = pos_q[5:0];
      op.col   = in_x_q[Lw-1:0];
      op.mac   = go_on || fires;
      op.first = !go_on;
      op.last  = chunk_q == chunks_q - 6'd1;
      for (int unsigned i = 0; i < Side; i++) begin
        op.row_ok[i] = in_range(bottom_q - 20'(i), geom_i.in_h);
        op.col_ok[i] = in_range(right_q - 20'(i), geom_i.in_w);
      end
      starved = !go_on && fires && !ready;
      waits   = fused_i && op.hit && !px_valid_i;
      issue   = go_on || ((!fires || (ready && cool_q == '0)) && !waits);
    end else if (state_q == StRun) begin
      op.step   = 1'b1;
      op.hit    = tap_hit;
      op.src    = tap_addr[5:0];
      op.mac    = 1'b1;
      op.first  = row_q == desc_i.kernel_h - 8'd1 && col_q == geom_i.kernel_w - 8'd1;
      op.last   = row_q == '0 && col_q == '0;
      op.slot   = slot_q;
      op.row_ok = Side'(tap_hit);
      op.col_ok = Side'(1'b1);
      starved   = !ready;
      issue     = ready && (!op.last || cool_q == '0);
    end
    op.block_end = op.last && images_end;
    op.all_end   = op.block_end && block_last;
  end
  assign out_step = issue && op.mac && op.last;

  always_ff @(posedge clk_i) begin
    if (state_q == StPrepare) begin
      ox_q        <= '0;
      oy_q        <= '0;
      image_q     <= '0;
      block_q     <= '0;
      right_q     <= right_0;
      bottom_q    <= bottom_0;
      gap_q       <= gap_first_q;
      chunk_q     <= '0;
      slot_q      <= '0;
      row_q       <= desc_i.kernel_h - 8'd1;
      col_q       <= geom_i.kernel_w - 8'd1;
      row_off_q   <= '0;
      col_off_q   <= '0;
      cool_q      <= '0;
      in_x_q      <= '0;
      in_y_q      <= '0;
      in_image_q  <= '0;
      in_block_q  <= '0;
      pos_q       <= block_0;
      line_pos_q  <= block_0;
      image_pos_q <= block_0;
      block_pos_q <= block_0;
    end else begin
      if (cool_q != '0) cool_q <= cool_q - 7'd1;
      if (issue && op.mac && (stream_q ? op.first : op.last)) cool_q <= passes_q - 7'd1;

      if (out_step) begin
        ox_q    <= ox_q + 16'd1;
        right_q <= right_q + 20'(geom_i.stride_x);
        gap_q   <= 28'(geom_i.stride_x) - 28'd1;
        if (row_end) begin
          ox_q     <= '0;
          right_q  <= right_0;
          oy_q     <= oy_q + 16'd1;
          bottom_q <= bottom_q + 20'(geom_i.stride_y);
          gap_q    <= gap_row_q;
        end
        if (image_end) begin
          oy_q     <= '0;
          bottom_q <= bottom_0;
          image_q  <= image_q + 16'd1;
          gap_q    <= gap_image_q;
        end
        if (images_end) begin
          image_q <= '0;
          block_q <= block_q + 6'd1;
        end
      end else if (issue && op.step && stream_q && !fires) begin
        gap_q <= gap_q - 28'd1;
      end

      if (issue && stream_q) begin
        chunk_q <= (op.mac && !op.last) ? chunk_q + 6'd1 : '0;
        if (op.step) begin
          if (in_hit) pos_q <= pos_q + addr_t'(geom_i.in_pitch);
          in_x_q <= in_x_q + 16'd1;
          if (in_row_end) begin
            in_x_q <= '0;
            in_y_q <= in_y_q + 24'd1;
          end
          if (in_image_end) begin
            in_y_q      <= '0;
            in_image_q  <= in_image_q + 16'd1;
            image_pos_q <= image_pos_q + addr_t'(geom_i.in_step);
            pos_q       <= image_pos_q + addr_t'(geom_i.in_step);
          end
          if (in_images_end && in_block_q != geom_i.in_cb) begin
            in_image_q  <= '0;
            in_block_q  <= in_block_q + 7'd1;
            block_pos_q <= block_pos_q + addr_t'(64);
            image_pos_q <= block_pos_q + addr_t'(64);
            pos_q       <= block_pos_q + addr_t'(64);
          end
        end
      end else if (issue) begin
        // Next tap: multipliers in turn, so that the weights need no other place.
        slot_q <= slot_q + 6'd1;
        if (slot_q == 6'(Taps - 1)) begin
          slot_q  <= '0;
          chunk_q <= chunk_q + 6'd1;
        end
        col_q     <= col_q - 8'd1;
        col_off_q <= col_off_q + addr_t'(geom_i.in_pitch);
        if (col_q == '0) begin
          col_q     <= geom_i.kernel_w - 8'd1;
          col_off_q <= '0;
          row_q     <= row_q - 8'd1;
          row_off_q <= row_off_q + addr_t'(geom_i.in_line);
        end
        if (op.last) begin
          slot_q    <= '0;
          chunk_q   <= '0;
          row_q     <= desc_i.kernel_h - 8'd1;
          row_off_q <= '0;
          pos_q     <= pos_q + addr_t'(geom_i.step_x);
          if (row_end) begin
            line_pos_q <= line_pos_q + addr_t'(geom_i.step_y);
            pos_q      <= line_pos_q + addr_t'(geom_i.step_y);
          end
          if (image_end) begin
            image_pos_q <= image_pos_q + addr_t'(geom_i.in_step);
            line_pos_q  <= image_pos_q + addr_t'(geom_i.in_step);
            pos_q       <= image_pos_q + addr_t'(geom_i.in_step);
          end
          if (images_end) begin
            block_pos_q <= block_pos_q + addr_t'(64);
            image_pos_q <= block_pos_q + addr_t'(64);
            line_pos_q  <= block_pos_q + addr_t'(64);
            pos_q       <= block_pos_q + addr_t'(64);
          end
        end
      end
    end
  end

  // ---- Control ----
  logic written_last;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      prep_q  <= '0;
      done_o  <= 1'b0;
    end else begin
      done_o <= 1'b0;
      if (clear) begin
        state_q <= StIdle;
      end else begin
        unique case (state_q)
          StIdle: if (start_i) begin
            state_q <= StPrepare;
            prep_q  <= '0;
          end
          StPrepare: begin
            prep_q <= prep_q + 4'd1;
            if (prep_q == 4'd12) state_q <= StRun;
          end
          StRun: if (out_step && op.all_end) state_q <= StDrain;
          StDrain: if (written_last) begin
            state_q <= StIdle;
            done_o  <= 1'b1;
          end
          default: state_q <= StIdle;
        endcase
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) macs_o <= '0;
    else         macs_o <= !(out_step && !clear) ? '0 : block_last ? macs_last_q : macs_full_q;
  end
  assign want_o = starved && !pg_valid_i;

  // ---- Pipeline. Stage 1: read; PixelAt: the pixel stands; then window, multipliers, sum ----
  localparam int unsigned LinesAt = ReadLatency;
  localparam int unsigned DataAt  = ReadLatency + 1;
  localparam int unsigned PixelAt = ReadLatency + 2;
  localparam int unsigned SelAt   = ReadLatency + 3;
  localparam int unsigned SumAt   = ReadLatency + 7;
  logic [SumAt:1] op_valid_q;
  op_t            op_q [SumAt+1];  // [0] is not used
  addr_t          rd_addr_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) op_valid_q <= '0;
    else if (clear) op_valid_q <= '0;
    else op_valid_q <= {op_valid_q[SumAt-1:1], issue};
  end
  assign op_q[0] = op;
  for (genvar i = 1; i <= SumAt; i++) begin : gen_stage
    if (i == 1) begin : gen_first
      always_ff @(posedge clk_i) if (issue) op_q[i] <= op_q[0];
    end else begin : gen_next
      always_ff @(posedge clk_i) if (op_valid_q[i-1]) op_q[i] <= op_q[i-1];
    end
  end
  always_ff @(posedge clk_i) begin
    if (issue) rd_addr_q <= stream_q ? pos_q : tap_addr;
  end
  assign rd_en_o    = op_valid_q[1] && op_q[1].hit && !fused_i;
  assign px_ready_o = fused_i && issue && op.hit && !clear;
  assign rd_addr_o = rd_addr_q[Aw-1:6];

  // A narrow block's channels come to lane 0; what else lies in the word meets lanes that are not
  // written.
  // SEC_CM: DEPTHWISE.WIPE
  logic [511:0] px_q;
  logic [511:0] given_q [1:DataAt];  // pixels from px_data_i, as late as if they were read
  always_ff @(posedge clk_i) begin
    if (wiping_q) begin
      px_q <= '0;
      for (int unsigned i = 1; i <= DataAt; i++) given_q[i] <= '0;
    end else begin
      if (px_ready_o) given_q[1] <= px_data_i;
      for (int unsigned i = 2; i <= DataAt; i++) begin
        if (fused_i && op_valid_q[i-1]) given_q[i] <= given_q[i-1];
      end
      if (op_valid_q[DataAt] && op_q[DataAt].hit) begin
        px_q <= fused_i ? given_q[DataAt]
                        : 512'({rd_data_i, rd_data_i} >> {op_q[DataAt].src, 3'd0});
      end
    end
  end

  logic [Taps-1:0][511:0] taps;
  lk_dw_window #(.Side(Side), .Taps(Taps), .Line(Line)) u_window (
    .clk_i,
    .wipe_i     (wiping_q),
    .wipe_addr_i(walk_q[Lw-1:0]),
    .stream_i   (stream_q),
    .pairs_i    (pairs_i),
    .kernel_h_i (desc_i.kernel_h),
    .kernel_w_i (geom_i.kernel_w),
    .pad_i      (geom_i.pad_value),
    .re_i       (op_valid_q[LinesAt] && op_q[LinesAt].step),
    .raddr_i    (op_q[LinesAt].col),
    .step_i     (op_valid_q[PixelAt] && op_q[PixelAt].step),
    .waddr_i    (op_q[PixelAt].col),
    .px_i       (px_q),
    .sel_i      (op_valid_q[SelAt] && op_q[SelAt].mac),
    .chunk_i    (op_q[SelAt].chunk),
    .slot_i     (op_q[SelAt].slot),
    .row_ok_i   (op_q[SelAt].row_ok),
    .col_ok_i   (op_q[SelAt].col_ok),
    .d_o        (taps)
  );

  logic [64*32-1:0] acc;
  lk_dw_mac #(.Taps(Taps)) u_mac (
    .clk_i,
    .rst_ni,
    .clear_i    (clear),
    .wipe_i     (wiping_q),
    .wipe_addr_i(walk_q[6:0]),
    .w_we_i     (tap_beat),
    .w_half_i   (load_half),
    .w_tap_i    (load_tap),
    .w_data_i   (pg_data_i),
    .sel_i      (op_valid_q[SelAt] && op_q[SelAt].mac),
    .half_i     (op_q[SelAt].half),
    .chunk_i    (op_q[SelAt].chunk),
    .first_i    (op_q[SelAt].first),
    .d_i        (taps),
    .acc_o      (acc)
  );

  // ---- Requantisation: Post channels per cycle ----
  typedef struct packed {
    logic [1:0] group;
    logic       group_last;
    logic       half;
    logic       block_end;
    logic       all_end;
  } tag_t;
  logic               sum_done, rq_valid;
  tag_t               rq_tag;
  logic [Post*32-1:0] rq_acc;
  logic [Post*62-1:0] rq_prm;
  op_t                sum_op;
  assign sum_op   = op_q[SumAt];
  assign sum_done = op_valid_q[SumAt] && sum_op.mac && sum_op.last;

  if (Groups == 1) begin : gen_whole
    assign rq_valid = sum_done;
    assign rq_tag   = '{2'd0, 1'b1, sum_op.half, sum_op.block_end, sum_op.all_end};
    assign rq_acc   = acc;
    assign rq_prm   = prm_q[sum_op.half];
  end else begin : gen_groups
    logic [64*32-1:0] hold_q;
    logic             busy_q;
    logic [1:0]       group_q;
    op_t              hold_op_q;
    logic             group_last;
    assign group_last = 7'(group_q) == passes_q - 7'd1;
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        busy_q  <= 1'b0;
        group_q <= '0;
      end else if (clear) begin
        busy_q  <= 1'b0;
        group_q <= '0;
      end else begin
        if (busy_q) group_q <= group_last ? '0 : group_q + 2'd1;
        if (sum_done) busy_q <= 1'b1;
        else if (group_last) busy_q <= 1'b0;
      end
    end
    // SEC_CM: DEPTHWISE.WIPE
    always_ff @(posedge clk_i) begin
      if (wiping_q) hold_q <= '0;
      else if (sum_done) hold_q <= acc;
      if (sum_done) hold_op_q <= sum_op;
    end
    assign rq_valid = busy_q;
    assign rq_tag   = '{group_q, group_last, hold_op_q.half, hold_op_q.block_end,
                        hold_op_q.all_end};
    assign rq_acc   = hold_q[32*Post*32'(group_q) +: 32*Post];
    assign rq_prm   = prm_q[hold_op_q.half][62*Post*32'(group_q) +: 62*Post];
`ifdef VERILATOR
    always_ff @(posedge clk_i) begin
      if (rst_ni && !clear) begin
        assert (!(sum_done && busy_q && !group_last))
          else $error("%m: results overtake each other");
      end
    end
`endif
  end

  logic [Post/Lanes-1:0]                   y_valids;
  logic [Post/Lanes-1:0][$bits(tag_t)-1:0] y_tags;
  logic [Post*8-1:0]                       y;
  tag_t                                    y_tag;
  logic                                    y_valid;
  for (genvar i = 0; i < Post / Lanes; i++) begin : gen_post
    lk_requant #(.TagW($bits(tag_t))) u_requant (
      .clk_i,
      .rst_ni,
      .clear_i(clear),
      .wipe_i (wiping_q),
      .valid_i(rq_valid),
      .acc_i  (rq_acc[32*Lanes*i +: 32*Lanes]),
      .prm_i  (rq_prm[62*Lanes*i +: 62*Lanes]),
      .zero_i (desc_i.out_zero),
      .lo_i   (desc_i.clamp_lo),
      .hi_i   (desc_i.clamp_hi),
      .tag_i  (rq_tag),
      .valid_o(y_valids[i]),
      .y_o    (y[8*Lanes*i +: 8*Lanes]),
      .tag_o  (y_tags[i])
    );
  end
  assign y_valid = y_valids[0] && !clear;
  assign y_tag   = y_tags[0];

  // ---- Writes: one register stage, then replication and byte enables ----
  localparam logic [2:0] MaxSize = 3'($clog2(Post));
  addr_t             out_pos_q, out_image_q, out_block_q, next_block;
  logic [31:0]       out_left_q;    // pixels of the image, this one included
  logic [15:0]       out_images_q;
  logic              wr_q;
  addr_t             wr_pos_q;
  logic [Post*8-1:0] wr_data_q;
  logic [2:0]        wr_size;
  logic [511:0]      wr_word;

  assign next_block   = out_block_q + (halves_i ? addr_t'(32) : addr_t'(64));
  assign releases     = y_valid && y_tag.group_last && y_tag.block_end;
  assign release_half = y_tag.half;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wr_q         <= 1'b0;
      written_last <= 1'b0;
    end else begin
      wr_q         <= y_valid;
      written_last <= y_valid && y_tag.group_last && y_tag.all_end;
    end
  end
  // SEC_CM: DEPTHWISE.WIPE
  always_ff @(posedge clk_i) begin
    if (wiping_q) wr_data_q <= '0;
    else if (y_valid) wr_data_q <= y;
    if (y_valid) wr_pos_q <= out_pos_q + addr_t'(32'(y_tag.group) * Post);
  end
  always_ff @(posedge clk_i) begin
    if (state_q == StPrepare) begin
      out_pos_q    <= addr_t'(geom_i.out_start);
      out_image_q  <= addr_t'(geom_i.out_start);
      out_block_q  <= addr_t'(geom_i.out_start);
      out_left_q   <= geom_i.out_pixels;
      out_images_q <= batch_i;
    end else if (y_valid && y_tag.group_last) begin
      out_pos_q  <= out_pos_q + addr_t'(geom_i.out_pitch);
      out_left_q <= out_left_q - 32'd1;
      if (out_left_q == 32'd1) begin
        out_left_q   <= geom_i.out_pixels;
        out_images_q <= out_images_q - 16'd1;
        out_image_q  <= out_image_q + addr_t'(geom_i.out_step);
        out_pos_q    <= out_image_q + addr_t'(geom_i.out_step);
        if (out_images_q == 16'd1) begin
          out_images_q <= batch_i;
          out_block_q  <= next_block;
          out_image_q  <= next_block;
          out_pos_q    <= next_block;
        end
      end
    end
  end

  assign wr_size   = geom_i.out_cp > MaxSize ? MaxSize : geom_i.out_cp;
  assign wr_word   = {(64/Post){wr_data_q}};
  assign wr_en_o   = wr_q;
  assign wr_addr_o = wr_pos_q[Aw-1:6];
  always_comb begin
    wr_data_o = '0;
    wr_be_o   = '0;
    if (wr_q) begin
      unique case (wr_size)
        3'd0:    begin wr_data_o = {64{wr_word[7:0]}};   wr_be_o = 64'h1; end
        3'd1:    begin wr_data_o = {32{wr_word[15:0]}};  wr_be_o = 64'h3; end
        3'd2:    begin wr_data_o = {16{wr_word[31:0]}};  wr_be_o = 64'hf; end
        3'd3:    begin wr_data_o = {8{wr_word[63:0]}};   wr_be_o = 64'hff; end
        3'd4:    begin wr_data_o = {4{wr_word[127:0]}};  wr_be_o = 64'hffff; end
        3'd5:    begin wr_data_o = {2{wr_word[255:0]}};  wr_be_o = 64'hffff_ffff; end
        default: begin wr_data_o = wr_word;              wr_be_o = '1; end
      endcase
      wr_be_o = wr_be_o << wr_pos_q[5:0];
    end
  end
endmodule
