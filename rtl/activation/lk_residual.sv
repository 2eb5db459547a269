// Residual addition behind the post unit: adds to every result of a MatMul the byte of a second
// tensor at the same place (see lk_add_lane) on its way to the writer. Without geom_i.fuse results
// pass unchanged and without delay.
//
// The tiles that are announced to the writer are announced here too (and leave earlier, so the
// writer's room is room enough). For each of them the bytes of the second tensor are read ahead, in
// the order of the results: for row in rows, for group in groups, ArrayN bytes per read. A read is
// only requested when its bytes have a place, so rd_gnt_i may stay low for as long as it likes; a
// result waits until its bytes are here. The second tensor has the output's shape and may be the
// output itself: a byte is read before it is overwritten.
//
// The output has no back-pressure. clear_i drops everything in flight; wipe_i also erases it.
module lk_residual #(
  parameter int unsigned ArrayN      = 16,
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords)
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                clear_i,
  input  logic                wipe_i,
  input  logic                start_i,      // before the first tile of a layer
  input  lk_act_pkg::geom_t   geom_i,
  // verilator lint_off UNUSEDSIGNAL
  input  lk_pkg::desc_t       desc_i,       // multipliers, offset, shift and bounds
  // verilator lint_on UNUSEDSIGNAL
  input  logic                tile_valid_i,
  input  lk_act_pkg::tile_t   tile_i,
  // second read port of the scratchpad
  output logic                rd_en_o,
  input  logic                rd_gnt_i,
  output logic [Ww-1:0]       rd_addr_o,
  input  logic [511:0]        rd_data_i,    // ReadLatency cycles after the grant
  // results in and out
  input  logic                y_valid_i,
  output logic                y_ready_o,
  input  logic [8*ArrayN-1:0] y_data_i,
  input  logic [1:0]          y_group_i,
  output logic                y_valid_o,
  input  logic                y_ready_i,    // low only while no tile is announced
  output logic [8*ArrayN-1:0] y_data_o,
  output logic [1:0]          y_group_o
);
  import lk_act_pkg::*;

  localparam int unsigned Aw    = Ww + 6;
  localparam int unsigned LogN  = $clog2(ArrayN);
  localparam int unsigned Depth = 8;  // reads in flight and waiting
  localparam int unsigned Cw    = $clog2(Depth) + 1;
  typedef logic [Aw-1:0] addr_t;
  typedef struct packed {
    addr_t       img;
    addr_t       pos;   // byte address of the pixel
    logic [31:0] left;  // pixels of the image, this one included
  } pos_t;

  // ---- Walk: the writer's, over the second tensor ----
  tile_t       tile;
  logic        tile_valid, tile_ready, tile_pop;
  logic [2:0]  unused_level;

  lk_fifo #(
    .Width($bits(tile_t)),
    .Depth(4)
  ) u_tiles (
    .clk_i,
    .rst_ni,
    .clear_i(clear_i || wipe_i),
    .valid_i(tile_valid_i && geom_i.fuse),
    .ready_o(tile_ready),
    .data_i (tile_i),
    .valid_o(tile_valid),
    .ready_i(tile_pop),
    .data_o (tile),
    .level_o(unused_level)
  );

  pos_t          cur_q, blk_q, cur, adv;
  logic          fresh_q;   // the next row is the first of its tile
  logic [22:0]   rows_q, rows;
  logic [1:0]    group_q;
  logic [Cw-1:0] cred_q;    // reads that were asked for and whose result has not gone
  logic          req_q, ask, row_end, pop;
  addr_t         addr_q;

  assign ask      = tile_valid && (!req_q || rd_gnt_i) && cred_q != Cw'(Depth);
  assign row_end  = ask && 3'(group_q) == tile.groups - 3'd1;
  assign rows     = fresh_q ? tile.rows : rows_q;
  assign cur      = (fresh_q && !tile.new_block) ? blk_q : cur_q;
  assign tile_pop = row_end && rows == 23'd1;

  always_comb begin
    adv = cur;
    if (cur.left == 32'd1) begin
      adv.img  = cur.img + addr_t'(geom_i.in2_step);
      adv.pos  = adv.img;
      adv.left = geom_i.out_pixels;
    end else begin
      adv.pos  = cur.pos + addr_t'(geom_i.out_pitch);
      adv.left = cur.left - 32'd1;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fresh_q <= 1'b1;
      group_q <= '0;
      cred_q  <= '0;
      req_q   <= 1'b0;
    end else if (clear_i || wipe_i) begin
      fresh_q <= 1'b1;
      group_q <= '0;
      cred_q  <= '0;
      req_q   <= 1'b0;
    end else begin
      cred_q <= cred_q + Cw'(ask) - Cw'(pop);
      req_q  <= ask || (req_q && !rd_gnt_i);
      if (ask) begin
        group_q <= row_end ? '0 : group_q + 1'b1;
        fresh_q <= tile_pop;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      cur_q.img  <= addr_t'(geom_i.in2_start);
      cur_q.pos  <= addr_t'(geom_i.in2_start);
      cur_q.left <= geom_i.out_pixels;
    end else if (ask) begin
      cur_q <= row_end ? adv : cur;
      if (fresh_q && tile.new_block) blk_q <= cur_q;
      rows_q <= row_end ? rows - 23'd1 : rows;
      addr_q <= cur.pos + addr_t'({tile.n, 6'd0}) + (addr_t'(group_q) << LogN);
    end
  end

  assign rd_en_o   = req_q;
  assign rd_addr_o = addr_q[Aw-1:6];

  // ---- Bytes of the second tensor, moved to byte 0 ----
  logic [ReadLatency-1:0]      rd_valid_q;
  logic [ReadLatency-1:0][5:0] src_q;
  // verilator lint_off UNUSEDSIGNAL
  logic [511:0]                moved;
  // verilator lint_on UNUSEDSIGNAL
  logic                        b_valid;
  logic [8*ArrayN-1:0]         b_data;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rd_valid_q <= '0;
    else if (clear_i || wipe_i) rd_valid_q <= '0;
    else rd_valid_q <= {rd_valid_q[ReadLatency-2:0], rd_gnt_i};
  end
  always_ff @(posedge clk_i) begin
    if (rd_gnt_i || rd_valid_q != '0) src_q <= {src_q[ReadLatency-2:0], addr_q[5:0]};
  end
  always_comb begin
    moved = '0;
    if (rd_valid_q[ReadLatency-1]) moved = rd_data_i >> {src_q[ReadLatency-1], 3'd0};
  end

  lk_wipe_fifo #(
    .Width(8 * ArrayN),
    .Depth(Depth)
  ) u_bytes (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .push_i (rd_valid_q[ReadLatency-1]),
    .data_i (moved[8*ArrayN-1:0]),
    .valid_o(b_valid),
    .ready_i(pop),
    .data_o (b_data)
  );

  // ---- Addition ----
  logic [2:0]          stage_q;
  logic [2:0][1:0]     group_pipe_q;
  logic [8*ArrayN-1:0] sum;

  assign pop = geom_i.fuse && y_valid_i && b_valid && !clear_i && !wipe_i;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) stage_q <= '0;
    else if (clear_i || wipe_i) stage_q <= '0;
    else stage_q <= {stage_q[1:0], pop};
  end
  always_ff @(posedge clk_i) begin
    if (pop || stage_q != '0) group_pipe_q <= {group_pipe_q[1:0], y_group_i};
  end

  for (genvar l = 0; l < ArrayN; l++) begin : gen_lane
    lk_add_lane u_lane (
      .clk_i,
      .wipe_i,
      .stage_i   ({stage_q[1:0], pop}),
      .q_i       (y_data_i[8*l +: 8]),
      .b_i       (b_data[8*l +: 8]),
      .mult_a_i  (desc_i.add_mult_a),
      .mult_b_i  (desc_i.add_mult_b),
      .negate_b_i(desc_i.in2_negate),
      .offset_i  (desc_i.add_offset),
      .shift_i   (desc_i.add_shift),
      .lo_i      (desc_i.clamp_lo),
      .hi_i      (desc_i.clamp_hi),
      .y_o       (sum[8*l +: 8])
    );
  end

  assign y_ready_o = geom_i.fuse ? b_valid : y_ready_i;
  assign y_valid_o = geom_i.fuse ? stage_q[2] : y_valid_i;
  assign y_data_o  = geom_i.fuse ? sum : y_data_i;
  assign y_group_o = geom_i.fuse ? group_pipe_q[2] : y_group_i;

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni && !clear_i && !wipe_i) begin
      assert (!(tile_valid_i && geom_i.fuse && !tile_ready)) else $error("%m: a tile is lost");
      assert (!(geom_i.fuse && y_valid_o && !y_ready_i)) else $error("%m: a result is lost");
    end
  end
`endif
endmodule
