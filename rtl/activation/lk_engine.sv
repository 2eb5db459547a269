// Engine: everything that computes, one descriptor at a time.
//
//   pages -> parameter RAM, weights --------v
//   scratchpad -> lk_feed -> rows --> lk_matmul -> y --> lk_residual -> lk_writer -> scratchpad
//   scratchpad -> lk_feed -> taps --> lk_vector (pools) -> lk_writer
//   scratchpad -> lk_mover -> lk_vector (words) -> lk_mover -> scratchpad; streams <-> lk_mover
//   scratchpad, pages -> lk_depthwise -> scratchpad
//   page --> table of lk_vector
//
// A command is taken with cmd_valid_i and cmd_ready_o. Its descriptor is checked first (lk_setup,
// about 20 cycles); an illegal one ends with done_o and bad_desc_o and touches nothing: no page, no
// stream word, no scratchpad word. done_o comes once per command, after the last write has landed
// and after the layer's last page has been taken. The page stream must hold exactly the layer's
// pages. MatMul: param_pages, then k_tiles * n_tiles per block of 512 rows. Depthwise: param_pages,
// then n_tiles. Table: one.
//
// abort_i (level) stops the operation: its state is dropped, done_o follows, the scratchpad stays.
// No command is taken while it is high. wipe_i (level or pulse) aborts too and zeroes scratchpad,
// rows and words on their way, accumulators, weights and parameters; wipe_busy_o until finished.
//
// Limits: ArrayN 16, 32 or 64; SpadWords a power of two up to 131,072; see lk_setup for descriptors.
// A MatMul, a pool or a Depthwise must not overlap its input with its output, nor Add or Mul a
// broadcast operand with theirs (not checked: results would only be wrong); what goes word by word
// may write over an input of the same stride.
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
  output logic [12:0]   macs_o
);
  import lk_pkg::*;
  import lk_act_pkg::*;

  localparam int unsigned ReadLatency = 2;
  localparam int unsigned Ww          = $clog2(SpadWords);
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
    StIdle, StSetup, StStart, StMatMul, StPool, StTable, StMove, StDepthwise, StDone
  } state_e;
  state_e      state_q;
  desc_t       desc_q;
  logic [15:0] batch_q;
  logic        bad_desc_q, bad_input_q;
  logic        take, kill, setup_done, setup_bad;
  logic        start_loop, start_move, mover_done, mover_bad, matmul_done, pool_done;
  logic        start_table, table_done, start_dw, dw_done;
  geom_t       geom;

  assign kill        = (abort_i || wipe_busy_o) && state_q != StIdle;
  assign cmd_ready_o = state_q == StIdle && !abort_i && !wipe_busy_o;
  assign take        = cmd_valid_i && cmd_ready_o;
  assign done_o      = state_q == StDone;
  assign bad_desc_o  = done_o && bad_desc_q;
  assign bad_input_o = done_o && bad_input_q;
  assign start_loop  = state_q == StStart && (desc_q.op == OpMatMul || desc_q.op == OpMaxPool ||
                                              desc_q.op == OpAvgPool);
  assign start_table = state_q == StStart && desc_q.op == OpTable;
  assign start_dw    = state_q == StStart && desc_q.op == OpDepthwise;
  assign start_move  = (state_q == StStart && !start_loop && !start_table && !start_dw &&
                        desc_q.op != OpEnd) || (state_q == StTable && table_done);

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
            state_q    <= setup_bad ? StDone : StStart;
          end
        end
        StStart: begin
          unique case (desc_q.op)
            OpMatMul:             state_q <= StMatMul;
            OpMaxPool, OpAvgPool: state_q <= StPool;
            OpTable:              state_q <= StTable;
            OpDepthwise:          state_q <= StDepthwise;
            OpEnd:                state_q <= StDone;
            default:              state_q <= StMove;
          endcase
        end
        StMatMul: if (matmul_done) state_q <= StDone;
        StPool:   if (pool_done) state_q <= StDone;
        StTable:  if (table_done) state_q <= StMove;
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
    else         setup_start_q <= take;
  end

  lk_setup #(
    .ArrayN   (ArrayN),
    .SpadWords(SpadWords)
  ) u_setup (
    .clk_i,
    .rst_ni,
    .clear_i(kill),
    .start_i(setup_start_q),
    .desc_i (desc_q),
    .batch_i(batch_q),
    .done_o (setup_done),
    .bad_o  (setup_bad),
    .geom_o (geom)
  );

  // ---- Scratchpad ----
  logic          spad_wipe_busy, mm_wipe_busy, dw_wipe_busy;
  logic          feed_rd_en, move_rd_en, write_en, move_wr_en;
  logic [Ww-1:0] feed_rd_addr, move_rd_addr, write_addr, move_wr_addr;
  logic [63:0]   write_be;
  logic [511:0]  write_data, move_wr_data, rd_data, rd2_data;
  logic          rd2_en, rd2_gnt;
  logic [Ww-1:0] rd2_addr;
  logic          moving;
  logic          dw_rd_en, dw_wr_en, dw_active;
  logic [Ww-1:0] dw_rd_addr, dw_wr_addr;
  logic [63:0]   dw_wr_be;
  logic [511:0]  dw_wr_data;

  assign moving      = state_q == StMove;
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
    if (dw_active) begin
      spad_we    = dw_wr_en;
      spad_waddr = dw_wr_addr;
      spad_wbe   = dw_wr_be;
      spad_wdata = dw_wr_data;
    end
  end

  lk_scratchpad #(
    .Words      (SpadWords),
    .ReadLatency(ReadLatency)
  ) u_spad (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .wipe_busy_o(spad_wipe_busy),
    .rd_en_i    (dw_active ? dw_rd_en : moving ? move_rd_en : feed_rd_en),
    .rd_addr_i  (dw_active ? dw_rd_addr : moving ? move_rd_addr : feed_rd_addr),
    .rd_data_o  (rd_data),
    .rd2_en_i   (rd2_en),
    .rd2_gnt_o  (rd2_gnt),
    .rd2_addr_i (rd2_addr),
    .rd2_data_o (rd2_data),
    .wr_en_i    (spad_we),
    .wr_addr_i  (spad_waddr),
    .wr_be_i    (spad_wbe),
    .wr_data_i  (spad_wdata)
  );

  // ---- Loop ----
  logic   loop_busy, loop_blocked, lp_valid, lp_ready, lp_skip, lp_first, lp_page, lp_last, lp_bank;
  logic   lp_tile_start, lp_tile_free, lp_next_bank, lp_fire;
  logic [1:0] lp_ni;
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
    .sw_last_o   (lp_last),
    .sw_bank_o   (lp_bank),
    .sw_ni_o     (lp_ni),
    .sw_nvalid_o (lp_nvalid),
    .sweep_o     (lp_sweep),
    .tile_o      (lp_tile),
    .tile_start_o(lp_tile_start),
    .tile_free_i (lp_tile_free),
    .bank_o      (lp_next_bank)
  );

  // Tiles between their first sweep and their last write: one per bank.
  logic [1:0] tiles_q, bank_busy;
  logic       tile_done;
  assign lp_tile_free = tiles_q != 2'd2 && !bank_busy[lp_next_bank];

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
      tiles_q <= tiles_q + 2'(lp_tile_start) - 2'(tile_done);
      pages_q <= pages_q + 5'(lp_fire && lp_page && is_mm) - 5'(page_taken);
    end
  end

  // Sweeps towards lk_matmul, sweeps towards the feed, tiles towards drain and writer.
  localparam int unsigned SwW = 1 + 1 + 1 + 1 + 2 + 10 + 7;
  logic       msw_ready, fsw_ready, fsw_valid, dr_ready, tl_ready;
  sweep_t     fsw;
  logic       feed_sw_ready;
  logic       sw_valid, sw_ready, sw_skip, sw_first, sw_bank, sw_last;
  logic [1:0] sw_ni;
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
    .data_i ({lp_last, lp_skip, lp_first, lp_bank, lp_ni, lp_sweep.rows[9:0], lp_nvalid}),
    .valid_o(sw_valid),
    .ready_i(sw_ready),
    .data_o ({sw_last, sw_skip, sw_first, sw_bank, sw_ni, sw_rows, sw_nvalid}),
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
  logic [1:0] dr_due_q;
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
    else dr_due_q <= dr_due_q + 2'(sw_valid && sw_ready && sw_last) - 2'(dr_take);
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
  logic         to_params, to_weights, to_table, wt_ready, table_ready, prm_we, dw_pg_ready;

  assign to_params  = state_q == StMatMul && params_left_q != '0;
  assign to_weights = state_q == StMatMul && params_left_q == '0 && pages_q != '0;
  assign to_table   = state_q == StTable;
  assign pg_ready_o = !kill && (to_params || (to_weights && wt_ready) ||
                                (to_table && table_ready) || dw_pg_ready);
  assign prm_we     = to_params && pg_valid_i && !kill;
  assign page_taken = to_weights && pg_valid_i && pg_ready_o && pg_last_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      params_left_q <= '0;
      param_page_q  <= '0;
      param_beat_q  <= '0;
    end else if (start_loop) begin
      params_left_q <= desc_q.op == OpMatMul ? desc_q.param_pages[4:0] : '0;
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
  logic                y_valid, y_ready, y_last;
  logic [8*ArrayN-1:0] y_data;
  logic [9:0]          y_row;
  logic [1:0]          y_group;
  logic                mm_busy, mm_want, mm_loading, mm_wait_x;
  logic [12:0]         mm_macs, dw_macs;

  lk_matmul #(.ArrayN(ArrayN)) u_matmul (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .wipe_busy_o      (mm_wipe_busy),
    .clear_i          (clear),
    .wt_valid_i       (to_weights && pg_valid_i && !kill),
    .wt_ready_o       (wt_ready),
    .wt_data_i        (pg_data_i),
    .prm_we_i         (prm_we),
    .prm_addr_i       ({param_page_q, param_beat_q}),
    .prm_data_i       (pg_data_i),
    .sw_valid_i       (sw_valid),
    .sw_ready_o       (sw_ready),
    .sw_skip_i        (sw_skip),
    .sw_first_i       (sw_first),
    .sw_bank_i        (sw_bank),
    .sw_ni_i          (sw_ni),
    .sw_rows_i        (sw_rows),
    .sw_nvalid_i      (sw_nvalid),
    .x_valid_i        (x_valid),
    .x_ready_o        (x_ready),
    .x_data_i         (x_data),
    .x_kvalid_i       (x_kvalid),
    .dr_valid_i       (dr_valid),
    .dr_ready_o       (mm_dr_ready),
    .dr_bank_i        (dr.bank),
    .dr_rows_i        (dr.rows[9:0]),
    .dr_chan_i        ({dr.n, 6'd0}),
    .dr_groups_i      (dr.groups),
    .dr_zero_i        (desc_q.out_zero),
    .dr_lo_i          (geom.fuse ? desc_q.mid_lo : desc_q.clamp_lo),
    .dr_hi_i          (geom.fuse ? desc_q.mid_hi : desc_q.clamp_hi),
    .y_valid_o        (y_valid),
    .y_ready_i        (y_ready),
    .y_data_o         (y_data),
    .y_row_o          (y_row),
    .y_group_o        (y_group),
    .y_last_o         (y_last),
    .bank_busy_o      (bank_busy),
    .ev_busy_o        (mm_busy),
    .ev_want_weights_o(mm_want),
    .ev_loading_o     (mm_loading),
    .ev_wait_x_o      (mm_wait_x),
    .macs_o           (mm_macs)
  );

  // ---- Vector unit and mover ----
  logic         pool_valid, word_valid, result_valid;
  logic [511:0] pool_data, word_a, word_b, result;

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
    .in_valid_i,
    .in_ready_o,
    .in_data_i,
    .in_last_i,
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
  logic dw_want;
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
    .desc_i     (desc_q),
    .geom_i     (geom),
    .batch_i    (batch_q),
    .done_o     (dw_done),
    .pg_valid_i (pg_valid_i && !kill),
    .pg_ready_o (dw_pg_ready),
    .pg_data_i,
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
  assign macs_o = mm_macs | dw_macs;  // one of them is 0

  // ---- Residual addition and writer ----
  logic                writer_busy, res_valid, res_ready;
  logic [8*ArrayN-1:0] res_data;
  logic [1:0]          res_group;

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
    .rd_en_o     (rd2_en),
    .rd_gnt_i    (rd2_gnt),
    .rd_addr_o   (rd2_addr),
    .rd_data_i   (rd2_data),
    .y_valid_i   (y_valid),
    .y_ready_o   (y_ready),
    .y_data_i    (y_data),
    .y_group_i   (y_group),
    .y_valid_o   (res_valid),
    .y_ready_i   (res_ready),
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
    .start_i     (start_loop),
    .geom_i      (geom),
    .tile_valid_i(lp_fire && lp_last),
    .tile_ready_o(tl_ready),
    .tile_i      (lp_tile),
    .tile_done_o (tile_done),
    .busy_o      (writer_busy),
    .y_valid_i   (res_valid),
    .y_ready_o   (res_ready),
    .y_data_i    (res_data),
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
  assign unused_y = ^{y_row, y_last, feed_busy};

  // ---- Completion ----
  assign pool_done   = !loop_busy && tiles_q == '0 && !writer_busy;
  assign matmul_done = pool_done && params_left_q == '0 && pages_q == '0 && !sw_valid;

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
      else if (mm_loading) ev_loading_o = 1'b1;
      else if (mm_wait_x) ev_feed_o = 1'b1;
      else if (post) ev_post_o = 1'b1;
      else if (mm_want) ev_want_weights_o = 1'b1;
    end else if (to_table) begin
      ev_want_weights_o = !pg_valid_i;
      ev_loading_o      = pg_valid_i;
    end else if (dw_active) begin
      ev_want_weights_o = dw_want;
    end
  end
endmodule
