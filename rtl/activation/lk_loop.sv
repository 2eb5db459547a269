// Loop controller of MatMul and MaxPool: emits the sweeps in the order in which the pages come
// (for mb, for n, for k: a page; with fuse_dw for n, for mb; inside a page for ki, for ni) and,
// with the last sweep of each (mb, n), the tile of outputs that is then complete.
//
// MatMul: one sweep per subtile. A subtile whose slice of K holds no real byte, or which has no
// real output channel, is emitted with sw_skip_o: lk_matmul drains its weights and no rows follow.
// Tap positions are walked, not divided: a slice of a gathered layer (block narrower than the
// array) is left behind one kernel row per cycle while the array is busy with it.
// MaxPool: one sweep per channel block over all rows; the tile goes with it.
// Product: a block of rows ends with its image, whose weights are its own.
//
// Tiles are numbered modulo four. A new one waits for tile_free_i: at most four are open.
module lk_loop #(
  parameter int unsigned ArrayN = 16
) (
  input  logic               clk_i,
  input  logic               rst_ni,
  input  logic               clear_i,
  input  logic               start_i,
  input  lk_act_pkg::geom_t  geom_i,
  output logic               busy_o,
  output logic               blocked_o,     // a tile waits for tile_free_i
  // sweep; fires when valid and ready
  output logic               sw_valid_o,
  input  logic               sw_ready_i,
  output logic               sw_skip_o,
  output logic               sw_first_o,    // first slice of its tile
  output logic               sw_page_o,     // first subtile of a page
  output logic               sw_dw_o,       // before that page comes one of the Depthwise
  output logic               sw_last_o,     // last sweep of its tile; tile_o is valid with it
  output logic [1:0]         sw_tile_o,
  output logic [1:0]         sw_ni_o,
  output logic [6:0]         sw_nvalid_o,   // real channels of the subtile
  output lk_act_pkg::sweep_t sweep_o,
  output lk_act_pkg::tile_t  tile_o,
  output logic               tile_start_o,  // pulse: the first sweep of a tile fires
  input  logic               tile_free_i
);
  import lk_act_pkg::*;

  localparam int unsigned Sub   = 64 / ArrayN;
  localparam int unsigned LogN  = $clog2(ArrayN);
  localparam int unsigned Block = lk_pkg::AccRows;

  if (ArrayN != 16 && ArrayN != 32 && ArrayN != 64) begin : gen_bad_array
    $fatal(1, "%m: ArrayN must be 16, 32 or 64, got %0d", ArrayN);
  end

  typedef enum logic [1:0] {StIdle, StTile, StEmit, StAdvance} state_e;
  state_e      state_q;
  logic [22:0] rows_left_q;  // rows of this block and behind; Product: those of the image
  logic [15:0] images_q;     // Product: images that are left, this one included
  logic [5:0]  n_q;
  logic [15:0] k_q;
  logic [1:0]  ki_q, ni_q;
  logic [1:0]  tile_q;
  logic        block_first_q, restart_q;
  // The slice of K.
  logic [7:0]  ky_q, kx_q;
  logic [6:0]  cb_q, off_q;
  logic [31:0] row_off_q, x_off_q, block_off_q;
  logic [22:0] taps_left_q;  // taps from the slice's first on
  logic [6:0]  adv_q;        // taps still to walk

  logic is_pool, is_gather;
  assign is_pool   = geom_i.mode == ModeWindow;
  assign is_gather = geom_i.mode == ModeGather;

  logic [22:0] rows;
  assign rows = (!is_pool && rows_left_q > 23'(Block)) ? 23'(Block) : rows_left_q;

  // Real output channels of the tile and of the subtile.
  logic       n_last;
  logic [6:0] tile_chan, sub_base, sub_chan;
  assign n_last    = 7'(n_q) == geom_i.out_cb - 7'd1;
  assign tile_chan = n_last ? geom_i.out_c_last : 7'd64;
  assign sub_base  = 7'(ni_q) << LogN;
  always_comb begin
    if (tile_chan <= sub_base) sub_chan = '0;
    else if (tile_chan - sub_base > 7'(ArrayN)) sub_chan = 7'(ArrayN);
    else sub_chan = tile_chan - sub_base;
  end

  // Real bytes of the slice.
  logic [6:0]  tap_bytes, tap_real, slice_taps, gather_taps, kvalid;
  logic        cb_last;
  logic [12:0] gather_bytes;
  assign cb_last      = cb_q == geom_i.in_cb - 7'd1;
  assign tap_bytes    = 7'd1 << geom_i.in_cp;
  assign tap_real     = cb_last ? geom_i.in_c_last : tap_bytes;
  assign slice_taps   = 7'(ArrayN) >> geom_i.in_cp;
  assign gather_taps  = taps_left_q < 23'(slice_taps) ? taps_left_q[6:0] : slice_taps;
  assign gather_bytes = 13'(gather_taps[6:0]) * 13'(geom_i.in_c_last[5:0]);
  always_comb begin
    if (taps_left_q == '0) kvalid = '0;
    else if (is_gather) kvalid = gather_bytes[6:0];
    else if (tap_real <= off_q) kvalid = '0;
    else if (tap_real - off_q > 7'(ArrayN)) kvalid = 7'(ArrayN);
    else kvalid = tap_real - off_q;
  end

  logic ni_last, ki_last, k_last, tile_first, tile_last, fire;
  assign ni_last    = is_pool || ni_q == 2'(Sub - 1);
  assign ki_last    = is_pool || ki_q == 2'(Sub - 1);
  assign k_last     = is_pool || k_q == geom_i.k_tiles - 16'd1;
  assign tile_first = k_q == '0 && ki_q == '0 && ni_q == '0;
  assign tile_last  = ni_last && ki_last && k_last;

  assign sw_valid_o   = state_q == StEmit;
  assign fire         = sw_valid_o && sw_ready_i;
  assign sw_skip_o    = !is_pool && (sub_chan == '0 || kvalid == '0);
  assign sw_first_o   = k_q == '0 && ki_q == '0;
  assign sw_page_o    = ki_q == '0 && ni_q == '0;
  assign sw_dw_o      = geom_i.fuse_dw && sw_page_o && k_q == '0 && rows_left_q == geom_i.rows;
  assign sw_last_o    = tile_last;
  assign sw_tile_o    = tile_q;
  assign sw_ni_o      = ni_q;
  assign sw_nvalid_o  = sub_chan;
  assign tile_start_o = fire && tile_first;
  assign busy_o       = state_q != StIdle;
  assign blocked_o    = state_q == StTile && !tile_free_i;

  always_comb begin
    sweep_o           = '0;
    sweep_o.new_block = tile_first && block_first_q;
    sweep_o.restart   = tile_first && restart_q;
    sweep_o.rows      = rows;
    sweep_o.ky        = ky_q;
    sweep_o.kx        = kx_q;
    sweep_o.row_off   = row_off_q;
    sweep_o.x_off     = is_pool ? {20'd0, n_q, 6'd0} : x_off_q;
    sweep_o.taps      = is_pool ? geom_i.window : 16'(gather_taps);
    sweep_o.kvalid    = kvalid;

    tile_o            = '0;
    tile_o.new_block  = block_first_q;
    tile_o.rows       = rows;
    tile_o.n          = n_q;
    tile_o.groups     = is_pool ? 3'd1 : 3'((tile_chan + 7'(ArrayN - 1)) >> LogN);
  end

  logic [7:0] kx_room;
  assign kx_room = geom_i.kernel_w - kx_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      rows_left_q   <= '0;
      images_q      <= '0;
      n_q           <= '0;
      k_q           <= '0;
      ki_q          <= '0;
      ni_q          <= '0;
      tile_q        <= '0;
      block_first_q <= 1'b0;
      restart_q     <= 1'b0;
      ky_q          <= '0;
      kx_q          <= '0;
      cb_q          <= '0;
      off_q         <= '0;
      row_off_q     <= '0;
      x_off_q       <= '0;
      block_off_q   <= '0;
      taps_left_q   <= '0;
      adv_q         <= '0;
    end else if (clear_i) begin
      state_q <= StIdle;
      tile_q  <= '0;
    end else begin
      unique case (state_q)
        StIdle: begin
          if (start_i) begin
            state_q       <= StTile;
            rows_left_q   <= geom_i.product ? geom_i.out_pixels[22:0] : geom_i.rows;
            images_q      <= geom_i.images;
            n_q           <= '0;
            k_q           <= '0;
            ki_q          <= '0;
            ni_q          <= '0;
            block_first_q <= 1'b1;
            restart_q     <= 1'b0;
            ky_q          <= '0;
            kx_q          <= '0;
            cb_q          <= '0;
            off_q         <= '0;
            row_off_q     <= '0;
            x_off_q       <= '0;
            block_off_q   <= '0;
            taps_left_q   <= geom_i.taps;
          end
        end
        StTile: if (tile_free_i) state_q <= StEmit;
        StEmit: begin
          if (fire) begin
            ni_q <= ni_last ? '0 : ni_q + 1'b1;
            if (ni_last) begin
              ki_q <= ki_last ? '0 : ki_q + 1'b1;
              if (ki_last) k_q <= k_last ? '0 : k_q + 1'b1;
            end
            if (tile_last) begin
              // Next tile: the walk through K starts again.
              tile_q        <= tile_q + 1'b1;
              block_first_q <= 1'b0;
              ky_q          <= '0;
              kx_q          <= '0;
              cb_q          <= '0;
              off_q         <= '0;
              row_off_q     <= '0;
              x_off_q       <= '0;
              block_off_q   <= '0;
              taps_left_q   <= geom_i.taps;
              state_q       <= StTile;
              n_q           <= n_q + 1'b1;
              if (geom_i.fuse_dw) begin
                block_first_q <= 1'b1;
                rows_left_q   <= rows_left_q - rows;
                restart_q     <= rows_left_q == rows;
                if (rows_left_q != rows) begin
                  n_q <= n_q;
                end else begin
                  rows_left_q <= geom_i.rows;
                  if (n_last) state_q <= StIdle;
                end
              end else if (n_last) begin
                n_q           <= '0;
                block_first_q <= 1'b1;
                rows_left_q   <= rows_left_q - rows;
                if (rows_left_q == rows) begin
                  rows_left_q <= geom_i.out_pixels[22:0];
                  images_q    <= images_q - 1'b1;
                  if (!geom_i.product || images_q == 16'd1) state_q <= StIdle;
                end
              end
            end else if (ni_last && taps_left_q != '0) begin
              // Next slice.
              if (is_gather) begin
                taps_left_q <= taps_left_q - 23'(gather_taps);
                adv_q       <= slice_taps;
                state_q     <= StAdvance;
              end else begin
                off_q   <= off_q + 7'(ArrayN);
                x_off_q <= x_off_q + 32'(ArrayN);
                if (off_q + 7'(ArrayN) == tap_bytes) begin
                  off_q       <= '0;
                  taps_left_q <= taps_left_q - 1'b1;
                  cb_q        <= cb_q + 1'b1;
                  if (geom_i.in_planar) begin
                    block_off_q <= block_off_q + geom_i.in_block;
                    x_off_q     <= block_off_q + geom_i.in_block;
                  end
                  if (cb_last) begin
                    cb_q <= '0;
                    kx_q <= kx_q + 1'b1;
                    if (kx_room == 8'd1) begin
                      kx_q      <= '0;
                      ky_q      <= ky_q + 1'b1;
                      row_off_q <= row_off_q + geom_i.in_line;
                      x_off_q   <= '0;
                    end
                  end
                end
              end
            end
          end
        end
        StAdvance: begin
          if (taps_left_q == '0) begin
            state_q <= StEmit;
          end else if (8'(adv_q) >= kx_room) begin
            adv_q     <= adv_q - kx_room[6:0];
            kx_q      <= '0;
            ky_q      <= ky_q + 1'b1;
            row_off_q <= row_off_q + geom_i.in_line;
            if (8'(adv_q) == kx_room) state_q <= StEmit;
          end else begin
            kx_q    <= kx_q + 8'(adv_q);
            state_q <= StEmit;
          end
        end
        default: state_q <= StIdle;
      endcase
    end
  end
endmodule
