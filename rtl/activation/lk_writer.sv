// Writer: puts results into the output tensor. It takes either ArrayN channels of a row (y, from
// the post unit: for row in rows, for group in groups) or one whole channel block of a row (win,
// from the vector unit), one per cycle without ever waiting, and writes each with byte enables.
//
// Tiles announce what comes: rows, channel block n, groups per row, and whether the rows follow
// those of the last tile (new_block) or repeat them. Up to four tiles may be announced.
// tile_done_o pulses when the last byte of a tile is on its way; busy_o falls when it has been
// written.
//
// A block narrower than ArrayN channels takes the low bytes of y. The data is replicated over the
// word and the byte enables select the place, so there is no shifter.
module lk_writer #(
  parameter int unsigned ArrayN    = 16,
  parameter int unsigned SpadWords = lk_pkg::SpadWords,
  localparam int unsigned Ww       = $clog2(SpadWords)
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                clear_i,
  input  logic                wipe_i,
  input  logic                start_i,      // before the first tile of a layer
  input  lk_act_pkg::geom_t   geom_i,
  input  logic                tile_valid_i,
  output logic                tile_ready_o,
  input  lk_act_pkg::tile_t   tile_i,
  output logic                tile_done_o,
  output logic                busy_o,
  input  logic                y_valid_i,
  output logic                y_ready_o,
  input  logic [8*ArrayN-1:0] y_data_i,
  input  logic [1:0]          y_group_i,
  input  logic                win_valid_i,
  input  logic [511:0]        win_data_i,
  output logic                wr_en_o,
  output logic [Ww-1:0]       wr_addr_o,
  output logic [63:0]         wr_be_o,
  output logic [511:0]        wr_data_o
);
  import lk_act_pkg::*;

  localparam int unsigned Aw   = Ww + 6;
  localparam int unsigned LogN = $clog2(ArrayN);
  typedef logic [Aw-1:0] addr_t;
  typedef struct packed {
    addr_t       img;
    addr_t       pos;   // byte address of the pixel
    logic [31:0] left;  // pixels of the image, this one included
  } pos_t;

  tile_t       tile;
  logic        tile_valid, tile_pop;
  logic [2:0]  unused_level;

  lk_fifo #(
    .Width($bits(tile_t)),
    .Depth(4)
  ) u_tiles (
    .clk_i,
    .rst_ni,
    .clear_i(clear_i || wipe_i),
    .valid_i(tile_valid_i),
    .ready_o(tile_ready_o),
    .data_i (tile_i),
    .valid_o(tile_valid),
    .ready_i(tile_pop),
    .data_o (tile),
    .level_o(unused_level)
  );

  pos_t        cur_q, blk_q, cur, adv;
  addr_t       n_off_q;    // channel block n from the pixel on; blocks come in order
  logic        fresh_q;    // the next row is the first of its tile
  logic [22:0] rows_q, rows;
  logic        beat, row_end;
  logic [1:0]  group;

  assign y_ready_o = tile_valid;
  assign group     = win_valid_i ? 2'd0 : y_group_i;
  assign beat      = tile_valid && (y_valid_i || win_valid_i);
  assign row_end   = beat && 3'(group) == tile.groups - 3'd1;
  assign rows      = fresh_q ? tile.rows : rows_q;
  assign cur       = (fresh_q && !tile.new_block) ? blk_q : cur_q;
  assign tile_pop  = row_end && rows == 23'd1;

  always_comb begin
    adv = cur;
    if (cur.left == 32'd1) begin
      adv.img  = cur.img + addr_t'(geom_i.out_step);
      adv.pos  = adv.img;
      adv.left = geom_i.out_pixels;
    end else begin
      adv.pos  = cur.pos + addr_t'(geom_i.out_pitch);
      adv.left = cur.left - 32'd1;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fresh_q     <= 1'b1;
      tile_done_o <= 1'b0;
    end else if (clear_i || wipe_i) begin
      fresh_q     <= 1'b1;
      tile_done_o <= 1'b0;
    end else begin
      tile_done_o <= tile_pop;
      if (tile_pop)  fresh_q <= 1'b1;
      else if (beat) fresh_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      cur_q.img  <= addr_t'(geom_i.out_start);
      cur_q.pos  <= addr_t'(geom_i.out_start);
      cur_q.left <= geom_i.out_pixels;
      n_off_q    <= '0;
    end else if (beat) begin
      if (tile_pop) begin
        n_off_q <= 7'(tile.n) == geom_i.out_cb - 7'd1 ? '0 : n_off_q + addr_t'(geom_i.out_block);
      end
      cur_q <= row_end ? adv : cur;
      if (fresh_q && tile.new_block) blk_q <= cur_q;
      rows_q <= row_end ? rows - 23'd1 : rows;
    end
  end

  // One register stage, then replication and byte enables.
  logic         wr_q;
  addr_t        addr_q;
  logic [511:0] data_q;
  logic [2:0]   size_q;   // log2 of the bytes written

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) wr_q <= 1'b0;
    else         wr_q <= beat && !clear_i && !wipe_i;
  end
  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      data_q <= '0;
    end else if (beat) begin
      addr_q <= cur.pos + n_off_q + (addr_t'(group) << LogN);
      if (win_valid_i) data_q <= win_data_i;
      else             data_q[8*ArrayN-1:0] <= y_data_i;
      size_q <= (!win_valid_i && geom_i.out_cp > 3'(LogN)) ? 3'(LogN) : geom_i.out_cp;
    end
  end

  assign wr_en_o   = wr_q;
  assign wr_addr_o = addr_q[Aw-1:6];
  always_comb begin
    wr_data_o = '0;
    wr_be_o   = '0;
    if (wr_q) begin
      unique case (size_q)
        3'd0:    begin wr_data_o = {64{data_q[7:0]}};   wr_be_o = 64'h1; end
        3'd1:    begin wr_data_o = {32{data_q[15:0]}};  wr_be_o = 64'h3; end
        3'd2:    begin wr_data_o = {16{data_q[31:0]}};  wr_be_o = 64'hf; end
        3'd3:    begin wr_data_o = {8{data_q[63:0]}};   wr_be_o = 64'hff; end
        3'd4:    begin wr_data_o = {4{data_q[127:0]}};  wr_be_o = 64'hffff; end
        3'd5:    begin wr_data_o = {2{data_q[255:0]}};  wr_be_o = 64'hffff_ffff; end
        default: begin wr_data_o = data_q;              wr_be_o = '1; end
      endcase
      wr_be_o = wr_be_o << addr_q[5:0];
    end
  end

  assign busy_o = tile_valid || wr_q || tile_done_o;
endmodule
