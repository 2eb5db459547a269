// Feed: turns sweeps into scratchpad reads and rows of ArrayN activation bytes (implicit im2col).
//
// A sweep names a slice of K and a number of output pixels; the feed walks the pixels (image, oy,
// ox) with counters and adders only and never multiplies. Sweeps follow each other without a
// bubble.
//   ModeDirect: the slice lies inside one channel block: one read, one row, every cycle.
//   ModeGather: the slice holds several taps (blocks narrower than the array). lk_gather makes a
//     row every cycle from the words it keeps, if it has a lane for every kernel row that the slice
//     may touch (geom_i.lanes). Else taps that follow each other in a kernel row and lie in one
//     word are fetched by one read: rotate, mask, merge. A row then takes one cycle per (kernel
//     row, word) that it touches; padding left and right is free.
//   ModeWindow: for the vector unit: one window tap per cycle, aligned to byte 0, in_bytes of one
//     channel block; win_hit_o tells whether the tap lies inside the input. With geom_i.pace a tap
//     comes every fourth cycle, for windows that end faster than their sums are requantised.
// Bytes outside the input are pad_value. Byte b of a row is k = b of the slice; bytes behind the
// last real tap hold whatever was there, because their weights are zero.
//
// Rows are pushed into a small FIFO: the scratchpad is never stalled, a read is only issued when
// its row has a place (credits). clear_i drops everything in flight; wipe_i also erases it.
module lk_feed #(
  parameter int unsigned ArrayN      = 16,
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords)
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                clear_i,
  input  logic                wipe_i,
  input  logic                start_i,       // before the first sweep of a layer
  input  lk_act_pkg::geom_t   geom_i,
  input  logic                sw_valid_i,
  output logic                sw_ready_o,
  input  lk_act_pkg::sweep_t  sw_i,
  output logic                busy_o,
  // scratchpad
  output logic                rd_en_o,
  output logic [Ww-1:0]       rd_addr_o,
  input  logic [511:0]        rd_data_i,     // ReadLatency cycles later
  // rows (direct and gather)
  output logic                x_valid_o,
  input  logic                x_ready_i,
  output logic [8*ArrayN-1:0] x_data_o,
  output logic [6:0]          x_kvalid_o,
  // taps (window); always taken
  output logic                win_valid_o,
  output logic                win_hit_o,
  output logic                win_first_o,
  output logic                win_last_o,
  output logic [511:0]        win_data_o
);
  import lk_act_pkg::*;

  localparam int unsigned Aw    = Ww + 6;
  localparam int unsigned Depth = 8;  // rows in flight and waiting
  localparam int unsigned Lanes = lk_act_pkg::gather_lanes(ArrayN);
  typedef logic [Aw-1:0] addr_t;

  if (ReadLatency + 3 > Depth) begin : gen_bad_latency
    $fatal(1, "%m: ReadLatency %0d needs a deeper row FIFO", ReadLatency);
  end

  logic direct, gather, window, lanes;
  assign direct = geom_i.mode == ModeDirect;
  assign gather = geom_i.mode == ModeGather;
  assign window = geom_i.mode == ModeWindow;
  assign lanes  = gather && geom_i.lanes;

  // ---- Position of the output pixel: addresses are those of window tap (0, 0) ----
  typedef struct packed {
    addr_t              img;   // output pixel (0, 0) of the image
    addr_t              line;  // output pixel (oy, 0)
    addr_t              pos;   // output pixel (oy, ox)
    logic signed [25:0] iy;    // oy * stride_y - pad_top
    logic signed [25:0] ix;
    logic [15:0]        oy;
    logic [15:0]        ox;
    logic [3:0]         again_y;  // times that this row, this window, has been walked
    logic [3:0]         again_x;
  } pos_t;

  pos_t        cur_q, blk_q, init, adv;
  logic        act_q;
  logic [22:0] rows_q;    // rows left, this one included
  sweep_t      sw_q, sw;
  logic        row_end, sweep_end, take;

  always_comb begin
    init      = '0;
    init.img  = addr_t'(geom_i.in_start);
    init.line = addr_t'(geom_i.in_start);
    init.pos  = addr_t'(geom_i.in_start);
    init.iy   = -26'(geom_i.pad_top);
    init.ix   = -26'(geom_i.pad_left);

    adv = cur_q;
    if (cur_q.ox != geom_i.out_w - 16'd1) begin
      adv.ox      = cur_q.ox + 16'd1;
      adv.again_x = cur_q.again_x + 4'd1;
      if (cur_q.again_x == geom_i.again_x) begin
        adv.again_x = '0;
        adv.ix      = cur_q.ix + 26'(geom_i.stride_x);
        adv.pos     = cur_q.pos + addr_t'(geom_i.step_x);
      end
    end else begin
      adv.ox      = '0;
      adv.again_x = '0;
      adv.ix      = -26'(geom_i.pad_left);
      if (cur_q.oy != geom_i.out_h - 16'd1) begin
        adv.oy      = cur_q.oy + 16'd1;
        adv.again_y = cur_q.again_y + 4'd1;
        if (cur_q.again_y == geom_i.again_y) begin
          adv.again_y = '0;
          adv.iy      = cur_q.iy + 26'(geom_i.stride_y);
          adv.line    = cur_q.line + addr_t'(geom_i.step_y);
        end
      end else begin
        adv.oy      = '0;
        adv.again_y = '0;
        adv.iy   = -26'(geom_i.pad_top);
        adv.img  = cur_q.img + addr_t'(geom_i.in_step);
        adv.line = adv.img;
      end
      adv.pos = adv.line;
    end
  end

  // ---- Segment of a row: what one read fetches ----
  logic        seg_first_q;          // first segment of its row
  logic [7:0]  ky_q, kx_q;
  addr_t       row_off_q, x_off_q;
  logic [15:0] taps_q;               // taps of the row that are left
  logic [6:0]  dst_q;                // byte of the row

  logic signed [25:0] iy, ix, kx_lo, kx_hi, kx_run, right;
  logic               y_ok, x_ok, hit, seg_last, seg_more, issue;
  logic [6:0]         fit, cnt;
  logic [5:0]         dst;
  addr_t              addr, base;
  logic [25:0]        used;

  assign iy   = cur_q.iy + 26'(ky_q);
  assign ix   = cur_q.ix + 26'(kx_q);
  assign y_ok = !iy[25] && iy < 26'(geom_i.in_h);
  assign x_ok = !ix[25] && ix < 26'(geom_i.in_w);
  assign base = cur_q.pos + row_off_q;

  always_comb begin
    // Gather: taps kx_lo .. kx_hi-1 of this kernel row are inside the input, cnt in the word.
    kx_run = 26'(geom_i.kernel_w);
    if (17'(kx_q) + 17'(taps_q) < 17'(geom_i.kernel_w)) kx_run = 26'(kx_q) + 26'(taps_q);
    right  = 26'(geom_i.in_w) - cur_q.ix;
    kx_lo  = ix[25] ? -cur_q.ix : 26'(kx_q);
    kx_hi  = right < kx_run ? right : kx_run;
    addr     = base + x_off_q;
    hit      = y_ok && x_ok;
    fit      = '0;
    cnt      = '0;
    dst      = '0;
    seg_more = 1'b0;
    seg_last = 1'b1;
    used     = 26'd1;
    if (gather) begin
      addr     = base + (addr_t'(kx_lo) << geom_i.in_cp);
      hit      = y_ok && kx_lo < kx_hi;
      fit      = (7'd64 - {1'b0, addr[5:0]}) >> geom_i.in_cp;
      seg_more = hit && kx_hi - kx_lo > 26'(fit);
      cnt      = seg_more ? fit : 7'(kx_hi - kx_lo);
      dst      = 6'(dst_q) + 6'((kx_lo - 26'(kx_q)) << geom_i.in_cp);
      used     = seg_more ? kx_lo + 26'(fit) - 26'(kx_q) : kx_run - 26'(kx_q);
      seg_last = taps_q == used[15:0];
    end else if (window) begin
      seg_last = taps_q == 16'd1;
    end
  end

  // ---- Issue ----
  logic [$clog2(Depth):0] cred_q;  // rows on their way to, or in, the FIFO
  logic                   pop;
  logic                   px_ready, lane_issue, runs_idle, runs_done, on_its_way;
  logic [1:0]             pace_q;

  run_t [Lanes-1:0]         runs_q, next_runs_q;
  sweep_t                   next_q;
  logic                     next_valid_q, next_done_q;
  logic [$clog2(Lanes)-1:0] next_lane_q;
  logic [7:0]               next_ky_q, next_kx_q;
  logic [6:0]               next_dst_q, next_taps_q, next_cnt;
  logic [31:0]              next_off_q;

  assign issue      = act_q && !lanes && (window ? !geom_i.pace || pace_q == '0
                                                 : cred_q != ($clog2(Depth) + 1)'(Depth));
  assign row_end    = lanes ? act_q && px_ready : issue && seg_last;
  assign sweep_end  = row_end && rows_q == 23'd1;
  assign on_its_way = lanes ? lane_issue : row_end && !window;
  assign take       = (lanes ? runs_done : sw_valid_i) && (!act_q || sweep_end) && !clear_i;
  assign sw_ready_o = (lanes ? runs_idle : !act_q || sweep_end) && !clear_i;
  assign sw         = lanes ? next_q : sw_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) pace_q <= '0;
    else         pace_q <= pace_q + 1'b1;
  end

  // ---- Runs of the next sweep, one per cycle while the last sweep is walked ----
  assign runs_idle = !next_valid_q;
  assign runs_done = next_valid_q && next_done_q;
  always_comb begin
    next_cnt = 7'(geom_i.kernel_w - next_kx_q);
    if (8'(next_taps_q) < geom_i.kernel_w - next_kx_q) next_cnt = next_taps_q;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      next_valid_q <= 1'b0;
      next_done_q  <= 1'b0;
    end else if (clear_i || wipe_i) begin
      next_valid_q <= 1'b0;
      next_done_q  <= 1'b0;
    end else if (lanes) begin
      if (sw_valid_i && sw_ready_o) next_valid_q <= 1'b1;
      else if (take) next_valid_q <= 1'b0;
      if (take) next_done_q <= 1'b0;
      else if (next_valid_q && next_taps_q == next_cnt) next_done_q <= 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (lanes && sw_valid_i && sw_ready_o) begin
      next_q      <= sw_i;
      next_runs_q <= '0;
      next_lane_q <= '0;
      next_ky_q   <= sw_i.ky;
      next_kx_q   <= sw_i.kx;
      next_off_q  <= sw_i.row_off;
      next_dst_q  <= '0;
      next_taps_q <= sw_i.taps[6:0];
    end else if (next_valid_q && !next_done_q) begin
      next_runs_q[next_lane_q] <= '{on: 1'b1, ky: next_ky_q, kx: next_kx_q,
                                    kx_end: 9'(next_kx_q) + 9'(next_cnt),
                                    row_off: next_off_q, dst: next_dst_q[5:0]};
      next_lane_q <= next_lane_q + 1'b1;
      next_ky_q   <= next_ky_q + 1'b1;
      next_kx_q   <= '0;
      next_off_q  <= next_off_q + geom_i.in_line;
      next_dst_q  <= next_dst_q + (next_cnt << geom_i.in_cp);
      next_taps_q <= next_taps_q - next_cnt;
    end
    if (take) runs_q <= next_runs_q;
  end

  logic                lane_rd_en, lane_row_valid;
  logic [Ww-1:0]       lane_rd_addr;
  logic [8*ArrayN-1:0] lane_row;
  logic [6:0]          lane_kvalid;

  lk_gather #(
    .ArrayN     (ArrayN),
    .Lanes      (Lanes),
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_gather (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .geom_i,
    .runs_i     (runs_q),
    .px_valid_i (act_q && lanes),
    .px_ready_o (px_ready),
    .px_pos_i   (cur_q.pos),
    .px_iy_i    (cur_q.iy),
    .px_ix_i    (cur_q.ix),
    .px_kvalid_i(sw_q.kvalid),
    .rd_en_o    (lane_rd_en),
    .rd_addr_o  (lane_rd_addr),
    .rd_data_i,
    .room_i     (cred_q != ($clog2(Depth) + 1)'(Depth)),
    .issue_o    (lane_issue),
    .row_valid_o(lane_row_valid),
    .row_o      (lane_row),
    .kvalid_o   (lane_kvalid)
  );


  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      act_q  <= 1'b0;
      cred_q <= '0;
    end else if (clear_i || wipe_i) begin
      act_q  <= 1'b0;
      cred_q <= '0;
    end else begin
      if (take) act_q <= 1'b1;
      else if (sweep_end) act_q <= 1'b0;
      cred_q <= cred_q + ($clog2(Depth) + 1)'(on_its_way) - ($clog2(Depth) + 1)'(pop);
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      cur_q <= init;
      blk_q <= init;
    end else begin
      if (row_end) cur_q <= adv;
      if (take) begin
        if (sw.restart) begin
          cur_q <= init;
          blk_q <= init;
        end else if (sw.new_block) begin
          blk_q <= row_end ? adv : cur_q;
        end else begin
          cur_q <= blk_q;
        end
      end
    end
    if (take) begin
      sw_q        <= sw;
      rows_q      <= sw.rows;
      seg_first_q <= 1'b1;
      ky_q        <= sw.ky;
      kx_q        <= sw.kx;
      row_off_q   <= addr_t'(sw.row_off);
      x_off_q     <= addr_t'(sw.x_off);
      taps_q      <= sw.taps;
      dst_q       <= '0;
    end else if (lanes) begin
      if (row_end) rows_q <= rows_q - 1'b1;
    end else if (issue) begin
      seg_first_q <= seg_last;
      if (seg_last) begin
        rows_q    <= rows_q - 1'b1;
        ky_q      <= sw_q.ky;
        kx_q      <= sw_q.kx;
        row_off_q <= addr_t'(sw_q.row_off);
        x_off_q   <= addr_t'(sw_q.x_off);
        taps_q    <= sw_q.taps;
        dst_q     <= '0;
      end else begin
        taps_q <= taps_q - used[15:0];
        dst_q  <= dst_q + 7'(used << geom_i.in_cp);
        kx_q   <= kx_q + 8'(used);
        if (window) x_off_q <= x_off_q + addr_t'(geom_i.in_pitch);
        if (window ? kx_q == geom_i.kernel_w - 8'd1 : !seg_more) begin
          kx_q      <= '0;
          ky_q      <= ky_q + 1'b1;
          row_off_q <= row_off_q + addr_t'(geom_i.in_line);
          x_off_q   <= addr_t'(sw_q.x_off);
        end
      end
    end
  end

  // ---- Read stages: 0 drives the scratchpad, ReadLatency sees its data ----
  typedef struct packed {
    logic       hit;
    logic       first;
    logic       last;
    logic [5:0] src;   // byte of the word that becomes byte dst of the row
    logic [5:0] dst;
    logic [6:0] len;
    logic [6:0] kvalid;
  } seg_t;

  logic [ReadLatency:0] seg_valid_q;
  seg_t                 seg_q [ReadLatency + 1];
  logic [Ww-1:0]        rd_addr_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) seg_valid_q <= '0;
    else if (clear_i || wipe_i) seg_valid_q <= '0;
    else seg_valid_q <= {seg_valid_q[ReadLatency-1:0], issue};
  end

  always_ff @(posedge clk_i) begin
    if (issue) begin
      rd_addr_q       <= addr[Aw-1:6];
      seg_q[0].hit    <= hit;
      seg_q[0].first  <= seg_first_q;
      seg_q[0].last   <= seg_last;
      seg_q[0].src    <= addr[5:0];
      seg_q[0].dst    <= dst;
      seg_q[0].len    <= 7'(cnt << geom_i.in_cp);
      seg_q[0].kvalid <= sw_q.kvalid;
    end
  end
  for (genvar i = 1; i <= ReadLatency; i++) begin : gen_stage
    always_ff @(posedge clk_i) if (seg_valid_q[i-1]) seg_q[i] <= seg_q[i-1];
  end

  assign rd_en_o   = lanes ? lane_rd_en : seg_valid_q[0] && seg_q[0].hit;
  assign rd_addr_o = lanes ? lane_rd_addr : rd_addr_q;

  // ---- Rotate, mask, merge ----
  logic                seg_valid;
  seg_t                seg;
  logic [511:0]        rot;
  logic [8*ArrayN-1:0] row, merge_q;
  assign seg_valid = seg_valid_q[ReadLatency];
  assign seg       = seg_q[ReadLatency];

  // Byte i of the result is byte (i + sh) mod 64 of the word.
  function automatic logic [511:0] rotate(input logic [511:0] w, input logic [5:0] sh);
    logic [1023:0] d;
    d = {w, w} >> {sh, 3'd0};
    return d[511:0];
  endfunction

  always_comb begin
    rot = '0;
    row = '0;
    if (seg_valid) begin
      if (direct) begin
        // src is a multiple of ArrayN here.
        row = rd_data_i[{seg.src, 3'd0} +: 8*ArrayN];
        if (!seg.hit) row = {ArrayN{geom_i.pad_value}};
      end else begin
        rot = rotate(rd_data_i, seg.src - seg.dst);
        row = seg.first ? {ArrayN{geom_i.pad_value}} : merge_q;
        if (seg.hit && gather) begin
          for (int unsigned b = 0; b < ArrayN; b++) begin
            if (7'(b) >= 7'(seg.dst) && 7'(b) < 7'(seg.dst) + seg.len) begin
              row[8*b +: 8] = rot[8*b +: 8];
            end
          end
        end
      end
    end
  end

  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) merge_q <= '0;
    else if (seg_valid && gather) merge_q <= row;
  end

  lk_wipe_fifo #(
    .Width(8*ArrayN + 7),
    .Depth(Depth)
  ) u_rows (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .push_i (lanes ? lane_row_valid && !clear_i : seg_valid && seg.last && !window),
    .data_i (lanes ? {lane_kvalid, lane_row} : {seg.kvalid, row}),
    .valid_o(x_valid_o),
    .ready_i(x_ready_i),
    .data_o ({x_kvalid_o, x_data_o})
  );
  assign pop = x_valid_o && x_ready_i;

  assign win_valid_o = seg_valid && window;
  assign win_hit_o   = seg.hit;
  assign win_first_o = seg.first;
  assign win_last_o  = seg.last;
  assign win_data_o  = rot;

  assign busy_o = act_q || next_valid_q || seg_valid_q != '0 || cred_q != '0;

endmodule
