// Engine: everything that computes, one descriptor at a time.
//
//   pages -> parameter RAM, weights --------v
//   scratchpad -> lk_feed -> rows --> lk_matmul -> y --> lk_residual -> lk_writer -> scratchpad
//   scratchpad -> lk_feed -> taps --> lk_vector (pools) -> lk_writer
//   scratchpad -> lk_mover -> lk_vector (words) -> lk_mover -> scratchpad; streams <-> lk_mover
//   pages -> lk_mover -> scratchpad    (Load)
//   scratchpad, pages -> lk_depthwise -> scratchpad
//   scratchpad -> lk_operand -> weights of a Product
//   scratchpad -> lk_rows -> post unit of lk_matmul -> y    (Softmax, LayerNorm)
//   with fuse_dw: y -> lk_depthwise -> scratchpad
//   page --> table of lk_vector; with fuse_table y goes through it on the way to lk_writer
//
// A command is taken with cmd_valid_i and cmd_ready_o. Its descriptor is checked first (lk_setup,
// about 20 cycles); an illegal one ends with done_o and bad_desc_o and touches nothing: no page, no
// stream word, no scratchpad word. done_o comes once per command, after the last write has landed
// and after the layer's last page has been taken. The page stream must hold exactly the layer's
// pages. MatMul: param_pages, then k_tiles * n_tiles per block of 512 rows. Product, LayerNorm:
// param_pages. Depthwise: param_pages, then n_tiles. Load: param_pages, or with spilled as many as
// its words fill. Table, Softmax: one. With fuse_table the table's
// page comes first. With fuse_dw: the parameters of both, then for each n a page of the Depthwise
// and k_tiles per block of 512 rows.
//
// abort_i (level) stops the operation: its state is dropped, done_o follows, the scratchpad stays.
// No command is taken while it is high. wipe_i (level or pulse) aborts too and zeroes scratchpad,
// rows and words on their way, accumulators, weights and parameters; wipe_busy_o until finished.
//
// Limits: ArrayN 16, 32 or 64; SpadWords a power of two up to 131,072; see lk_setup for
// descriptors. A MatMul, a Product, a pool or a Depthwise must not overlap its inputs with its
// output, nor Add or Mul a broadcast operand with theirs (not checked: results would only be
// wrong); what goes word by word or row by row may write over an input of the same stride.
module lk_engine #(
  parameter int unsigned ArrayN    = 16,
  parameter int unsigned SpadWords = lk_pkg::SpadWords
) (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          wipe_i,
  output logic          wipe_busy_o,
  input  logic          abort_i,
  input  logic          cmd_valid_i,
  output logic          cmd_ready_o,
  input  lk_pkg::desc_t desc_i,
  input  logic [15:0]   batch_i,
  output logic          done_o,
  output logic          bad_desc_o,
  output logic          bad_input_o,
  // verified pages
  input  logic          pg_valid_i,
  output logic          pg_ready_o,
  input  logic [511:0]  pg_data_i,
  input  logic          pg_first_i,
  input  logic          pg_last_i,
  // input and output streams
  input  logic          in_valid_i,
  output logic          in_ready_o,
  input  logic [511:0]  in_data_i,
  input  logic          in_last_i,
  output logic          out_valid_o,
  input  logic          out_ready_i,
  output logic [511:0]  out_data_o,
  output logic          out_last_o,
  output logic          out_held_o,     // what out_valid_o says, by a count of its own
  // attribution of this cycle
  output logic          ev_busy_o,
  output logic          ev_want_weights_o,
  output logic          ev_loading_o,
  output logic          ev_feed_o,
  output logic          ev_post_o,
  output logic [13:0]   macs_o
);
  import lk_pkg::*;
  import lk_act_pkg::*;

  localparam int unsigned ReadLatency = 2;
  localparam int unsigned Ww          = $clog2(SpadWords);
  localparam int unsigned LogN        = $clog2(ArrayN);
  // Multipliers per channel and post lanes of lk_depthwise: in proportion to the array. A 3 x 3
  // kernel gives a word every 64 / ArrayN cycles.
  localparam int unsigned DwTaps      = ArrayN == 64 ? 9 : ArrayN == 32 ? 5 : 3;
  localparam int unsigned DwPost      = ArrayN;

  if (ArrayN != 16 && ArrayN != 32 && ArrayN != 64) begin : gen_bad_array
    $fatal(1, "%m: ArrayN must be 16, 32 or 64, got %0d", ArrayN);
  end
  if (SpadWords < 64 || SpadWords > 131072 ||
      (SpadWords & (SpadWords - 1)) != 0) begin : gen_bad_spad
    $fatal(1, "%m: SpadWords must be a power of two from 64 to 131072, got %0d", SpadWords);
  end

  // ---- Commands ----
  typedef enum logic [3:0] {
    StIdle, StSetup, StSecond, StStart, StMatMul, StPool, StTable, StMove, StRows, StDepthwise,
    StDone
  } state_e;
  state_e      state_q;
  desc_t       desc_q;
  logic [15:0] batch_q;
  logic        bad_desc_q, bad_input_q;
  logic        take, kill, setup_done, setup_bad;
  logic        start_loop, start_move, mover_done, mover_bad, matmul_done, pool_done;
  logic        start_table, table_done, start_dw, dw_done, start_rows, rows_done;
  logic        is_loop, is_rows, table_first;
  geom_t       geom, geom_last, geom_dw;
  desc_t       desc_dw;  // of the Depthwise that runs
  logic        fused;    // behind a MatMul
  logic        pairs, halves;  // of pairs of pixels; and only the left one of each is a result

  // The Depthwise of a MatMul with fuse_dw, as a descriptor of its own.
  assign fused  = desc_q.op == OpMatMul && desc_q.fuse_dw;
  assign pairs  = fused && desc_q.dw_pairs;
  assign halves = pairs && desc_q.dw_stride_x == 8'd2;
  always_comb begin
    desc_dw = desc_q;
    if (fused) begin
      desc_dw.op         = OpDepthwise;
      desc_dw.in_h       = desc_q.mid_h;
      desc_dw.in_w       = desc_q.mid_w;
      desc_dw.in_cb      = desc_q.out_cb;
      desc_dw.in_cp_log2 = desc_q.out_cp_log2;
      desc_dw.in_c_last  = desc_q.out_c_last;
      desc_dw.kernel_h   = desc_q.dw_kernel_h;
      desc_dw.kernel_w   = desc_q.dw_kernel_w;
      desc_dw.stride_y   = desc_q.dw_stride_y;
      desc_dw.stride_x   = pairs ? 8'd1 : desc_q.dw_stride_x;
      desc_dw.pad_top    = desc_q.dw_pad_top;
      desc_dw.pad_left   = desc_q.dw_pad_left;
      desc_dw.pad_value  = desc_q.mid_zero;
      desc_dw.k_tiles    = 16'd1;
    end
  end

  assign kill        = (abort_i || wipe_busy_o) && state_q != StIdle;
  assign cmd_ready_o = state_q == StIdle && !abort_i && !wipe_busy_o;
  assign take        = cmd_valid_i && cmd_ready_o;
  assign done_o      = state_q == StDone;
  assign bad_desc_o  = done_o && bad_desc_q;
  assign bad_input_o = done_o && bad_input_q;
  assign is_loop     = desc_q.op == OpMatMul || desc_q.op == OpProduct || desc_q.op == OpMaxPool ||
                       desc_q.op == OpAvgPool;
  assign is_rows     = desc_q.op == OpSoftmax || desc_q.op == OpLayerNorm;
  assign table_first = desc_q.op == OpTable || desc_q.op == OpSoftmax || desc_q.fuse_table;

  // An operation begins in StStart, or when its table stands.
  logic go;
  assign go          = table_first ? state_q == StTable && table_done : state_q == StStart;
  assign start_table = state_q == StStart && table_first;
  assign start_loop  = go && is_loop;
  assign start_rows  = go && is_rows;
  assign start_dw    = go && (desc_q.op == OpDepthwise || fused);
  assign start_move  = go && !is_loop && !is_rows && desc_q.op != OpDepthwise && desc_q.op != OpEnd;

  state_e run_state;  // in which the operation runs
  always_comb begin
    unique case (desc_q.op)
      OpMatMul, OpProduct:    run_state = StMatMul;
      OpMaxPool, OpAvgPool:   run_state = StPool;
      OpSoftmax, OpLayerNorm: run_state = StRows;
      OpDepthwise:            run_state = StDepthwise;
      OpEnd:                  run_state = StDone;
      default:                run_state = StMove;
    endcase
  end

  // What holds state of a running operation starts over with every operation, so that an abort
  // needs no second cause: everything is cleared while nothing runs.
  logic clear;
  assign clear = kill || state_q == StIdle || state_q == StDone;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q     <= StIdle;
      bad_desc_q  <= 1'b0;
      bad_input_q <= 1'b0;
    end else begin
      unique case (state_q)
        StIdle: begin
          bad_desc_q  <= 1'b0;
          bad_input_q <= 1'b0;
          if (take) state_q <= StSetup;
        end
        StSetup: begin
          if (setup_done) begin
            bad_desc_q <= setup_bad;
            state_q    <= setup_bad ? StDone : fused ? StSecond : StStart;
          end
        end
        StSecond: begin
          if (setup_done) begin
            bad_desc_q <= setup_bad;
            state_q    <= setup_bad ? StDone : StStart;
          end
        end
        StStart:  state_q <= table_first ? StTable : run_state;
        StMatMul: if (matmul_done) state_q <= StDone;
        StPool:   if (pool_done) state_q <= StDone;
        StTable:  if (table_done) state_q <= run_state;
        StRows:   if (rows_done) state_q <= StDone;
        StDepthwise: if (dw_done) state_q <= StDone;
        StMove: begin
          if (mover_done) begin
            state_q     <= StDone;
            bad_input_q <= mover_bad;
          end
        end
        default: state_q <= StIdle;
      endcase
      if (kill && state_q != StDone) begin
        state_q     <= StDone;
        bad_desc_q  <= 1'b0;
        bad_input_q <= 1'b0;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (take) begin
      desc_q  <= desc_i;
      batch_q <= batch_i;
    end
  end

  logic setup_start_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) setup_start_q <= 1'b0;
    else         setup_start_q <= take || (state_q == StSetup && setup_done && !setup_bad &&
                                           fused && !kill);
  end

  // The results of a MatMul with fuse_dw are the Depthwise's input.
  desc_t setup_desc;
  always_comb begin
    setup_desc = state_q == StSecond ? desc_dw : desc_q;
    if (fused && state_q != StSecond) begin
      setup_desc.out_h = desc_q.mid_h;
      setup_desc.out_w = desc_q.mid_w;
      if (pairs) begin
        setup_desc.out_cb      = desc_q.n_tiles;
        setup_desc.out_cp_log2 = 3'd6;
        setup_desc.out_c_last  = 7'd64;
      end
    end
  end
  always_ff @(posedge clk_i) if (state_q == StSetup && setup_done) geom <= geom_last;
  always_comb begin
    geom_dw = geom_last;
    if (halves) begin
      geom_dw.in_cb      = desc_q.n_tiles[6:0];
      geom_dw.out_cb     = desc_q.n_tiles[6:0];
      geom_dw.out_cp     = 3'd5;
      geom_dw.out_c_last = 7'd32;
    end
  end

  lk_setup #(
    .ArrayN   (ArrayN),
    .SpadWords(SpadWords)
  ) u_setup (
    .clk_i,
    .rst_ni,
    .clear_i (kill),
    .start_i (setup_start_q),
    .second_i(state_q == StSecond),
    .desc_i  (setup_desc),
    .batch_i (batch_q),
    .done_o  (setup_done),
    .bad_o   (setup_bad),
    .geom_o  (geom_last)
  );

  // ---- Scratchpad ----
  logic          spad_wipe_busy, mm_wipe_busy, dw_wipe_busy;
  logic          feed_rd_en, move_rd_en, rows_rd_en, write_en, move_wr_en;
  logic [Ww-1:0] feed_rd_addr, move_rd_addr, rows_rd_addr, write_addr, move_wr_addr;
  logic [63:0]   write_be;
  logic [511:0]  write_data, move_wr_data, rd_data, rd2_data;
  logic          res_rd_en, op_rd_en, rd2_gnt;
  logic [Ww-1:0] res_rd_addr, op_rd_addr;
  logic          moving, rows_active;
  logic          dw_rd_en, dw_wr_en, dw_active;
  logic [Ww-1:0] dw_rd_addr, dw_wr_addr;
  logic [63:0]   dw_wr_be;
  logic [511:0]  dw_wr_data;

  assign moving      = state_q == StMove;
  assign rows_active = state_q == StRows;
  assign dw_active   = state_q == StDepthwise;
  assign wipe_busy_o = spad_wipe_busy || mm_wipe_busy || dw_wipe_busy;

  logic          spad_we;
  logic [Ww-1:0] spad_waddr;
  logic [63:0]   spad_wbe;
  logic [511:0]  spad_wdata;
  always_comb begin
    spad_we    = write_en;
    spad_waddr = write_addr;
    spad_wbe   = write_be;
    spad_wdata = write_data;
    if (moving) begin
      spad_we    = move_wr_en;
      spad_waddr = move_wr_addr;
      spad_wbe   = '1;
      spad_wdata = move_wr_data;
    end
    if (dw_active || fused) begin
      spad_we    = dw_wr_en;
      spad_waddr = dw_wr_addr;
      spad_wbe   = dw_wr_be;
      spad_wdata = dw_wr_data;
    end
  end

  logic          rd_en;
  logic [Ww-1:0] rd_addr;
  always_comb begin
    unique case (state_q)
      StDepthwise: {rd_en, rd_addr} = {dw_rd_en, dw_rd_addr};
      StMove:      {rd_en, rd_addr} = {move_rd_en, move_rd_addr};
      StRows:      {rd_en, rd_addr} = {rows_rd_en, rows_rd_addr};
      default:     {rd_en, rd_addr} = {feed_rd_en, feed_rd_addr};
    endcase
  end

  lk_scratchpad #(
    .Words      (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_spad (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .wipe_busy_o(spad_wipe_busy),
    .rd_en_i    (rd_en),
    .rd_addr_i  (rd_addr),
    .rd_data_o  (rd_data),
    .rd2_en_i   (geom.product ? op_rd_en : res_rd_en),
    .rd2_gnt_o  (rd2_gnt),
    .rd2_addr_i (geom.product ? op_rd_addr : res_rd_addr),
    .rd2_data_o (rd2_data),
    .wr_en_i    (spad_we),
    .wr_addr_i  (spad_waddr),
    .wr_be_i    (spad_wbe),
    .wr_data_i  (spad_wdata)
  );

  // ---- Loop ----
  logic   loop_busy, loop_blocked, lp_valid, lp_ready, lp_skip, lp_first, lp_page, lp_last;
  logic   lp_dw;
  logic   lp_tile_start, lp_tile_free, lp_fire;
  logic [1:0] lp_tile_no, lp_ni;
  logic [6:0] lp_nvalid;
  sweep_t lp_sweep;
  tile_t  lp_tile;
  logic   is_mm;

  assign is_mm   = geom.mode != ModeWindow;
  assign lp_fire = lp_valid && lp_ready;

  lk_loop #(.ArrayN(ArrayN)) u_loop (
    .clk_i,
    .rst_ni,
    .clear_i     (clear),
    .start_i     (start_loop),
    .geom_i      (geom),
    .busy_o      (loop_busy),
    .blocked_o   (loop_blocked),
    .sw_valid_o  (lp_valid),
    .sw_ready_i  (lp_ready),
    .sw_skip_o   (lp_skip),
    .sw_first_o  (lp_first),
    .sw_page_o   (lp_page),
    .sw_dw_o     (lp_dw),
    .sw_last_o   (lp_last),
    .sw_tile_o   (lp_tile_no),
    .sw_ni_o     (lp_ni),
    .sw_nvalid_o (lp_nvalid),
    .sweep_o     (lp_sweep),
    .tile_o      (lp_tile),
    .tile_start_o(lp_tile_start),
    .tile_free_i (lp_tile_free)
  );

  // Tiles between their first sweep and their last write, at most four: one is swept and one
  // drained, one loads weights, and one is still being written.
  logic [2:0] tiles_q;
  logic       tile_done, tile_drained, tile_end;
  assign tile_end     = fused ? tile_drained : tile_done && !rows_active;
  assign lp_tile_free = tiles_q != 3'd4;

  // Pages whose sweeps have been announced and whose weights have not all been taken.
  logic [4:0] pages_q;
  logic       page_taken;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      tiles_q <= '0;
      pages_q <= '0;
    end else if (clear) begin
      tiles_q <= '0;
      pages_q <= '0;
    end else begin
      tiles_q <= tiles_q + 3'(lp_tile_start) - 3'(tile_end);
      pages_q <= pages_q + 5'(lp_fire && lp_page && is_mm) - 5'(page_taken);
    end
  end

  // Sweeps towards lk_matmul, sweeps towards the feed, tiles towards drain and writer.
  localparam int unsigned SwW = 1 + 1 + 1 + 2 + 2 + 10 + 7;
  logic       msw_ready, fsw_ready, fsw_valid, dr_ready, tl_ready;
  sweep_t     fsw;
  logic       feed_sw_ready;
  logic       sw_valid, sw_ready, sw_skip, sw_first, sw_last;
  logic [1:0] sw_tile, sw_ni;
  logic [9:0] sw_rows;
  logic [6:0] sw_nvalid;
  logic [2:0] unused_level_m, unused_level_f, unused_level_d;

  assign lp_ready = msw_ready && fsw_ready && dr_ready && tl_ready && !pages_q[4];

  lk_fifo #(
    .Width(SwW),
    .Depth(4)
  ) u_msw (
    .clk_i,
    .rst_ni,
    .clear_i(clear),
    .valid_i(lp_fire && is_mm),
    .ready_o(msw_ready),
    .data_i ({lp_last, lp_skip, lp_first, lp_tile_no, lp_ni, lp_sweep.rows[9:0], lp_nvalid}),
    .valid_o(sw_valid),
    .ready_i(sw_ready),
    .data_o ({sw_last, sw_skip, sw_first, sw_tile, sw_ni, sw_rows, sw_nvalid}),
    .level_o(unused_level_m)
  );

  lk_fifo #(
    .Width($bits(sweep_t)),
    .Depth(4)
  ) u_fsw (
    .clk_i,
    .rst_ni,
    .clear_i(clear),
    .valid_i(lp_fire && !lp_skip),
    .ready_o(fsw_ready),
    .data_i (lp_sweep),
    .valid_o(fsw_valid),
    .ready_i(feed_sw_ready),
    .data_o (fsw),
    .level_o(unused_level_f)
  );

  // A drain follows the last sweep of its tile.
  tile_t      dr;
  logic       dr_queued, dr_take;
  logic [2:0] dr_due_q;
  lk_fifo #(
    .Width($bits(tile_t)),
    .Depth(4)
  ) u_drain (
    .clk_i,
    .rst_ni,
    .clear_i(clear),
    .valid_i(lp_fire && lp_last && is_mm),
    .ready_o(dr_ready),
    .data_i (lp_tile),
    .valid_o(dr_queued),
    .ready_i(dr_take),
    .data_o (dr),
    .level_o(unused_level_d)
  );
  logic dr_valid, mm_dr_ready;
  assign dr_valid = dr_queued && dr_due_q != '0;
  assign dr_take  = dr_valid && mm_dr_ready;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) dr_due_q <= '0;
    else if (clear) dr_due_q <= '0;
    else dr_due_q <= dr_due_q + 3'(sw_valid && sw_ready && sw_last) - 3'(dr_take);
  end

  // ---- Feed ----
  logic                x_valid, x_ready, feed_busy, win_valid, win_hit, win_first, win_last;
  logic [8*ArrayN-1:0] x_data;
  logic [6:0]          x_kvalid;
  logic [511:0]        win_data;

  lk_feed #(
    .ArrayN     (ArrayN),
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_feed (
    .clk_i,
    .rst_ni,
    .clear_i    (clear),
    .wipe_i     (wipe_busy_o),
    .start_i    (start_loop),
    .geom_i     (geom),
    .sw_valid_i (fsw_valid),
    .sw_ready_o (feed_sw_ready),
    .sw_i       (fsw),
    .busy_o     (feed_busy),
    .rd_en_o    (feed_rd_en),
    .rd_addr_o  (feed_rd_addr),
    .rd_data_i  (rd_data),
    .x_valid_o  (x_valid),
    .x_ready_i  (x_ready),
    .x_data_o   (x_data),
    .x_kvalid_o (x_kvalid),
    .win_valid_o(win_valid),
    .win_hit_o  (win_hit),
    .win_first_o(win_first),
    .win_last_o (win_last),
    .win_data_o (win_data)
  );

  // ---- Pages: parameters first, then weights ----
  logic [4:0]   params_left_q;  // parameter pages to come
  logic [3:0]   param_page_q;
  logic [5:0]   param_beat_q;
  logic         to_dw, dw_turn;  // the next page is one of the Depthwise behind a MatMul
  logic         to_load, move_in_ready;
  logic         to_params, to_weights, to_table, wt_ready, table_ready, prm_we, dw_pg_ready;

  assign to_params  = (state_q == StMatMul || state_q == StRows) && params_left_q != '0;
  assign to_weights = state_q == StMatMul && params_left_q == '0 && pages_q != '0 && !dw_turn;
  assign to_table   = state_q == StTable;
  assign to_load    = state_q == StMove && desc_q.op == OpLoad;
  assign pg_ready_o = !kill && (to_params || (to_weights && !geom.product && wt_ready) ||
                                (to_table && table_ready) || (to_dw && dw_pg_ready) ||
                                (to_load && move_in_ready));
  assign prm_we     = to_params && pg_valid_i && !kill;

  // Pages of the Depthwise behind a MatMul: parameters, then one before the first page of each n.
  logic       dw_page, dw_due, dw_due_valid, dw_given_q, due_ready;
  logic [4:0] dw_params_left_q, unused_level_p;
  lk_fifo #(
    .Width(1),
    .Depth(16)
  ) u_due (
    .clk_i,
    .rst_ni,
    .clear_i(clear),
    .valid_i(lp_fire && lp_page && is_mm),
    .ready_o(due_ready),
    .data_i (lp_dw),
    .valid_o(dw_due_valid),
    .ready_i(page_taken),
    .data_o (dw_due),
    .level_o(unused_level_p)
  );
  assign dw_turn = fused && (dw_params_left_q != '0 || (dw_due_valid && dw_due && !dw_given_q));
  assign to_dw   = fused ? dw_turn && state_q == StMatMul && params_left_q == '0 : dw_active;
  assign dw_page = to_dw && pg_valid_i && pg_ready_o && pg_last_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      dw_params_left_q <= '0;
      dw_given_q       <= 1'b0;
    end else if (start_loop) begin
      dw_params_left_q <= fused ? desc_q.param_pages[4:0] : '0;
      dw_given_q       <= 1'b0;
    end else begin
      if (dw_page && dw_params_left_q != '0) dw_params_left_q <= dw_params_left_q - 1'b1;
      else if (dw_page) dw_given_q <= 1'b1;
      if (page_taken) dw_given_q <= 1'b0;
    end
  end

  // A Product's weights come from the scratchpad.
  logic         op_valid, op_last, wt_valid, wt_last;
  logic [511:0] op_data;
  assign wt_valid   = to_weights && !kill && (geom.product ? op_valid : pg_valid_i);
  assign wt_last    = geom.product ? op_last : pg_last_i;
  assign page_taken = wt_valid && wt_ready && wt_last;

  lk_operand #(
    .ArrayN     (ArrayN),
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_operand (
    .clk_i,
    .rst_ni,
    .clear_i   (clear),
    .wipe_i    (wipe_busy_o),
    .start_i   (start_loop && geom.product),
    .geom_i    (geom),
    .rd_en_o   (op_rd_en),
    .rd_gnt_i  (rd2_gnt && geom.product),
    .rd_addr_o (op_rd_addr),
    .rd_data_i (rd2_data),
    .wt_valid_o(op_valid),
    .wt_ready_i(to_weights && wt_ready && !kill),
    .wt_data_o (op_data),
    .wt_last_o (op_last)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      params_left_q <= '0;
      param_page_q  <= '0;
      param_beat_q  <= '0;
    end else if (start_loop || start_rows) begin
      params_left_q <= (is_mm && is_loop) || desc_q.op == OpLayerNorm ? desc_q.param_pages[4:0]
                                                                      : '0;
      param_page_q  <= '0;
      param_beat_q  <= '0;
    end else if (prm_we) begin
      param_beat_q <= param_beat_q + 1'b1;
      if (param_beat_q == 6'(PageBeats - 1)) begin
        params_left_q <= params_left_q - 1'b1;
        param_page_q  <= param_page_q + 1'b1;
      end
    end
  end

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni && prm_we) begin
      assert (pg_first_i == (param_beat_q == '0) && pg_last_i == (param_beat_q == 6'd63))
        else $error("%m: page of parameters is not 64 beats");
    end
  end
`endif

  // ---- Array ----
  logic                y_valid, y_ready, y_row_last, y_last;
  logic [8*ArrayN-1:0] y_data;
  logic [9:0]          y_row;
  logic [1:0]          y_group;
  logic                mm_busy, mm_want, mm_loading, mm_wait_bank, mm_wait_x;
  logic [12:0]         mm_macs, dw_macs;
  logic                g_room, g_take, g_re, g_valid, g_uniform;
  logic [11:0]         g_chan;
  logic [29:0]         g_scale;
  logic [32*ArrayN-1:0] g_acc;
  logic [1:0]          g_group;

  lk_matmul #(.ArrayN(ArrayN)) u_matmul (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .wipe_busy_o      (mm_wipe_busy),
    .clear_i          (clear),
    .wt_valid_i       (wt_valid),
    .wt_ready_o       (wt_ready),
    .wt_data_i        (geom.product ? op_data : pg_data_i),
    .prm_we_i         (prm_we),
    .prm_addr_i       ({param_page_q, param_beat_q}),
    .prm_data_i       (pg_data_i),
    .sw_valid_i       (sw_valid),
    .sw_ready_o       (sw_ready),
    .sw_skip_i        (sw_skip),
    .sw_first_i       (sw_first),
    .sw_last_i        (sw_last),
    .sw_tile_i        (sw_tile),
    .sw_ni_i          (sw_ni),
    .sw_rows_i        (sw_rows),
    .sw_nvalid_i      (sw_nvalid),
    .x_valid_i        (x_valid),
    .x_ready_o        (x_ready),
    .x_data_i         (x_data),
    .x_kvalid_i       (x_kvalid),
    .dr_valid_i       (dr_valid),
    .dr_ready_o       (mm_dr_ready),
    .dr_rows_i        (dr.rows[9:0]),
    .dr_chan_i        ({dr.n, 6'd0}),
    .dr_groups_i      (dr.groups),
    .dr_zero_i        (fused ? desc_q.mid_zero : desc_q.out_zero),
    .dr_lo_i          (geom.fuse || fused ? desc_q.mid_lo : desc_q.clamp_lo),
    .dr_hi_i          (geom.fuse || fused ? desc_q.mid_hi : desc_q.clamp_hi),
    .y_valid_o        (y_valid),
    .y_ready_i        (y_ready),
    .y_data_o         (y_data),
    .y_row_o          (y_row),
    .y_group_o        (y_group),
    .y_row_last_o     (y_row_last),
    .y_last_o         (y_last),
    .g_room_o         (g_room),
    .g_take_i         (g_take),
    .g_re_i           (g_re),
    .g_chan_i         (g_chan),
    .g_valid_i        (g_valid),
    .g_uniform_i      (g_uniform),
    .g_scale_i        (g_scale),
    .g_acc_i          (g_acc),
    .g_group_i        (g_group),
    .ev_busy_o        (mm_busy),
    .ev_want_weights_o(mm_want),
    .ev_loading_o     (mm_loading),
    .ev_wait_bank_o   (mm_wait_bank),
    .ev_wait_x_o      (mm_wait_x),
    .macs_o           (mm_macs)
  );

  // ---- Vector unit and mover ----
  assign in_ready_o = move_in_ready && !to_load;

  logic         pool_valid, word_valid, result_valid;
  logic [511:0] pool_data, word_a, word_b, result;

  // The table serves lk_rows, and results of the array on their way to lk_writer.
  logic                res_valid, rows_look_valid, fuse_table;
  logic [8*ArrayN-1:0] res_data;
  logic [511:0]        rows_look_x;
  logic [1:0][511:0]   look_y;
  assign fuse_table = desc_q.fuse_table;

  lk_vector u_vector (
    .clk_i,
    .rst_ni,
    .clear_i      (clear),
    .wipe_i       (wipe_busy_o),
    .desc_i       (desc_q),
    .win_valid_i  (win_valid),
    .win_hit_i    (win_hit),
    .win_first_i  (win_first),
    .win_last_i   (win_last),
    .win_data_i   (win_data),
    .pool_valid_o (pool_valid),
    .pool_data_o  (pool_data),
    .word_valid_i (word_valid),
    .word_a_i     (word_a),
    .word_b_i     (word_b),
    .word_valid_o (result_valid),
    .word_data_o  (result),
    .look_valid_i (rows_look_valid || (fuse_table && res_valid)),
    .look_x_i     (fuse_table ? 512'(res_data) : rows_look_x),
    .look_y_o     (look_y),
    .table_start_i(start_table),
    .table_done_o (table_done),
    .pg_valid_i   (to_table && pg_valid_i && !kill),
    .pg_ready_o   (table_ready),
    .pg_data_i    (pg_data_i)
  );

  lk_mover #(
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_mover (
    .clk_i,
    .rst_ni,
    .clear_i     (clear),
    .wipe_i      (wipe_busy_o),
    .start_i     (start_move),
    .desc_i      (desc_q),
    .batch_i     (batch_q),
    .geom_i      (geom),
    .done_o      (mover_done),
    .bad_o       (mover_bad),
    .in_valid_i  (to_load ? pg_valid_i && !kill : in_valid_i),
    .in_ready_o  (move_in_ready),
    .in_data_i   (to_load ? pg_data_i : in_data_i),
    .in_last_i   (to_load ? pg_last_i : in_last_i),
    .out_valid_o,
    .out_ready_i,
    .out_data_o,
    .out_last_o,
    .out_held_o,
    .rd_en_o     (move_rd_en),
    .rd_addr_o   (move_rd_addr),
    .rd_data_i   (rd_data),
    .wr_en_o     (move_wr_en),
    .wr_addr_o   (move_wr_addr),
    .wr_data_o   (move_wr_data),
    .word_valid_o(word_valid),
    .word_a_o    (word_a),
    .word_b_o    (word_b),
    .word_valid_i(result_valid),
    .word_data_i (result)
  );

  // ---- Depthwise ----
  logic         dw_want;
  logic [511:0] mid_q;       // a channel block of results on its way to it
  logic         mid_full_q, mid_ready, mid_take, dw_ended_q;
  lk_depthwise #(
    .Taps       (DwTaps),
    .Post       (DwPost),
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_depthwise (
    .clk_i,
    .rst_ni,
    .clear_i    (clear),
    .wipe_i,
    .wipe_busy_o(dw_wipe_busy),
    .start_i    (start_dw),
    .desc_i     (desc_dw),
    .geom_i     (geom_dw),
    .batch_i    (batch_q),
    .done_o     (dw_done),
    .pg_valid_i (to_dw && pg_valid_i && !kill),
    .pg_ready_o (dw_pg_ready),
    .pg_data_i,
    .fused_i    (fused),
    .pairs_i    (pairs),
    .halves_i   (halves),
    .px_valid_i (mid_full_q),
    .px_ready_o (mid_ready),
    .px_data_i  (mid_q),
    .rd_en_o    (dw_rd_en),
    .rd_addr_o  (dw_rd_addr),
    .rd_data_i  (rd_data),
    .wr_en_o    (dw_wr_en),
    .wr_addr_o  (dw_wr_addr),
    .wr_be_o    (dw_wr_be),
    .wr_data_o  (dw_wr_data),
    .want_o     (dw_want),
    .macs_o     (dw_macs)
  );
  assign macs_o = 14'(mm_macs) + 14'(dw_macs);

  // ---- Softmax and layer normalisation ----
  logic  rows_busy, rows_tile_valid;
  tile_t rows_tile;

  lk_rows #(
    .ArrayN     (ArrayN),
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_rows (
    .clk_i,
    .rst_ni,
    .clear_i     (clear),
    .wipe_i      (wipe_busy_o),
    .start_i     (start_rows),
    .hold_i      (to_params),
    .desc_i      (desc_q),
    .geom_i      (geom),
    .busy_o      (rows_busy),
    .rd_en_o     (rows_rd_en),
    .rd_addr_o   (rows_rd_addr),
    .rd_data_i   (rd_data),
    .look_valid_o(rows_look_valid),
    .look_x_o    (rows_look_x),
    .look_y_i    (look_y),
    .g_room_i    (g_room),
    .g_take_o    (g_take),
    .g_re_o      (g_re),
    .g_chan_o    (g_chan),
    .g_valid_o   (g_valid),
    .g_uniform_o (g_uniform),
    .g_scale_o   (g_scale),
    .g_acc_o     (g_acc),
    .g_group_o   (g_group),
    .tile_valid_o(rows_tile_valid),
    .tile_ready_i(tl_ready),
    .tile_o      (rows_tile)
  );

  // ---- Residual addition and writer ----
  logic                writer_busy, res_ready;
  logic [1:0]          res_group;

  // Groups of a row become a channel block for the Depthwise.
  // Pixels behind the last window are dropped.
  assign mid_take     = fused && res_valid && (!mid_full_q || mid_ready || dw_ended_q);
  assign tile_drained = mid_take && y_last;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) mid_full_q <= 1'b0;
    else if (clear || wipe_busy_o) mid_full_q <= 1'b0;
    else if (mid_take) mid_full_q <= y_row_last;
    else if (mid_ready || dw_ended_q) mid_full_q <= 1'b0;
  end
  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_busy_o) mid_q <= '0;
    else if (mid_take) mid_q[9'(res_group) << (LogN + 3) +: 8*ArrayN] <= res_data;
  end

  // It may end before the array does.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) dw_ended_q <= 1'b0;
    else if (start_dw) dw_ended_q <= 1'b0;
    else if (dw_done) dw_ended_q <= 1'b1;
  end

  lk_residual #(
    .ArrayN     (ArrayN),
    .SpadWords  (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_residual (
    .clk_i,
    .rst_ni,
    .clear_i     (clear),
    .wipe_i      (wipe_busy_o),
    .start_i     (start_loop),
    .geom_i      (geom),
    .desc_i      (desc_q),
    .tile_valid_i(lp_fire && lp_last),
    .tile_i      (lp_tile),
    .rd_en_o     (res_rd_en),
    .rd_gnt_i    (rd2_gnt && !geom.product),
    .rd_addr_o   (res_rd_addr),
    .rd_data_i   (rd2_data),
    .y_valid_i   (y_valid),
    .y_ready_o   (y_ready),
    .y_data_i    (y_data),
    .y_group_i   (y_group),
    .y_valid_o   (res_valid),
    .y_ready_i   (fused ? mid_take : res_ready),
    .y_data_o    (res_data),
    .y_group_o   (res_group)
  );

  lk_writer #(
    .ArrayN   (ArrayN),
    .SpadWords(SpadWords)
  ) u_writer (
    .clk_i,
    .rst_ni,
    .clear_i     (clear),
    .wipe_i      (wipe_busy_o),
    .start_i     (start_loop || start_rows),
    .geom_i      (geom),
    .tile_valid_i(rows_active ? rows_tile_valid : lp_fire && lp_last && !fused),
    .tile_ready_o(tl_ready),
    .tile_i      (rows_active ? rows_tile : lp_tile),
    .tile_done_o (tile_done),
    .busy_o      (writer_busy),
    .y_valid_i   (res_valid && !fused),
    .y_ready_o   (res_ready),
    .y_data_i    (fuse_table ? look_y[0][8*ArrayN-1:0] : res_data),
    .y_group_i   (res_group),
    .win_valid_i (pool_valid),
    .win_data_i  (pool_data),
    .wr_en_o     (write_en),
    .wr_addr_o   (write_addr),
    .wr_be_o     (write_be),
    .wr_data_o   (write_data)
  );

  // The writer's tile is the drain's tile, so y_row_o and y_last_o tell nothing new.
  logic unused_y;
  assign unused_y = ^{y_row, feed_busy, due_ready, unused_level_p};

  // ---- Completion ----
  assign pool_done   = !loop_busy && tiles_q == '0 && !writer_busy;
  assign matmul_done = pool_done && params_left_q == '0 && pages_q == '0 && !sw_valid &&
                       (!fused || dw_ended_q);
  assign rows_done   = !rows_busy && !writer_busy && params_left_q == '0;

  // ---- Attribution ----
  logic run_mm, params, post;
  assign run_mm = state_q == StMatMul;
  assign params = params_left_q != '0;
  // Nothing is left for the array, or the loop waits for a bank and the array has run dry.
  assign post   = !params && ((!loop_busy && pages_q == '0 && !sw_valid) ||
                              (loop_blocked && !sw_valid && pages_q == '0));
  always_comb begin
    ev_busy_o         = 1'b0;
    ev_want_weights_o = 1'b0;
    ev_loading_o      = 1'b0;
    ev_feed_o         = 1'b0;
    ev_post_o         = 1'b0;
    if (run_mm) begin
      if (mm_busy) ev_busy_o = 1'b1;
      else if (params) begin
        ev_want_weights_o = !pg_valid_i;
        ev_loading_o      = pg_valid_i;
      end
      else if (mm_wait_bank) ev_post_o = 1'b1;
      else if (mm_loading) ev_loading_o = 1'b1;
      else if (mm_wait_x) ev_feed_o = 1'b1;
      else if (post) ev_post_o = 1'b1;
      else if (mm_want && geom.product) ev_feed_o = 1'b1;
      else if (mm_want) ev_want_weights_o = 1'b1;
    end else if (to_table || (rows_active && params)) begin
      ev_want_weights_o = !pg_valid_i;
      ev_loading_o      = pg_valid_i;
    end else if (dw_active) begin
      ev_want_weights_o = dw_want;
    end
  end
endmodule
