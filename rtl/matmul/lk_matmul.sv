// Matrix engine: weight loader, multiply-accumulate array, accumulators, parameter RAM and post
// unit.
//
// For a block of up to 512 rows of activations and one tile of 64 output channels the caller gives
// a sweep per weight subtile (ArrayN x ArrayN), in page order, and for every sweep that is not
// skipped the rows 0 .. rows-1 of its k slice. Every row adds x (1 x ArrayN) * w (ArrayN x ArrayN)
// to the accumulators [bank][row][16..64 channels of ni]; sw_first_i overwrites instead. A drain
// then requantises a bank to int8. Tiles are numbered modulo four in the order of their sweeps and
// drains, from 0 after a clear; the lowest bit is the bank. A drain overlaps the sweeps of the next
// tile, and those of the one behind it as far as rows have been read.
//
// Streams are ready/valid. The order of weights is the order of sweeps; rows follow sweeps that are
// not skipped; nothing else couples the ports, each may be idle at any time.
//   wt    64-byte beats, ArrayN*ArrayN/64 per sweep, byte r*ArrayN+c of a subtile = w[r][c],
//         in [-127,127]. Beats of skipped sweeps are dropped.
//   x     byte r = int8 activation of k = r; x_kvalid_i = real k bytes of the slice (macs_o only)
//   sw    of a tile for every drain; the weights of a tile may be loaded while its bank is drained,
//         its rows wait by themselves. At most four tiles may be between first sweep and end of
//         drain
//   dr    after all its sweeps were accepted; follows by itself the rows that land
//   y     for row in rows, for group in groups: ArrayN int8 (channel ArrayN*group + i at byte i)
// prm: 4 channels per write (see lk_param_ram); must be written before the drain that needs them
// and not change during it.
//
// Rates: one row per cycle, one beat per cycle; the next subtile loads while the current one
// sweeps, and sweeps follow each other without a bubble when the load is hidden (rows >=
// ArrayN*ArrayN/64) and else the weight port runs at one beat per cycle. A row's sums land
// prim_mac_array_pkg::latency + 1 cycles after it was taken; an accumulator word is not touched
// twice within 4 cycles (lk_sweep). The first result follows the start of a drain by 14 cycles,
// then one group per cycle. A drain starts when the last sweep of its tile has landed, or, where
// that one writes without adding, with its first row: nobody reads the bank then. With ArrayN = 64
// the last sweep of a tile takes its drain along if the drain before has ended when it starts.
//
// g_*: the post unit for a guest, while nothing is drained; see lk_drain.
//
// clear_i (level) drops everything in flight and queued; accumulators and parameters keep their
// contents. wipe_i (a pulse or a level; its rising edge counts) does the same and zeroes the
// accumulators, both weight tiles, the parameter RAM and the result FIFO; wipe_busy_o is high
// meanwhile (512*64/ArrayN + 64 cycles) and nothing is accepted.
//
// Events, one cycle late, at most one set: ev_busy_o a row was taken; ev_wait_bank_o a sweep with
// weights waits for a drain, ev_wait_x_o for a row; ev_want_weights_o the loader waits for a beat;
// ev_loading_o a beat is being shifted in and no sweep can run. None: no sweep to do, or the
// accumulator distance after a short sweep. macs_o: real k bytes * real channels of the row taken,
// also one cycle late.
module lk_matmul #(
  parameter int unsigned ArrayN = 16
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                wipe_i,
  output logic                wipe_busy_o,
  input  logic                clear_i,
  input  logic                wt_valid_i,
  output logic                wt_ready_o,
  input  logic [511:0]        wt_data_i,
  input  logic                prm_we_i,
  input  logic [9:0]          prm_addr_i,
  input  logic [511:0]        prm_data_i,
  input  logic                sw_valid_i,
  output logic                sw_ready_o,
  input  logic                sw_skip_i,
  input  logic                sw_first_i,
  input  logic                sw_last_i,
  input  logic [1:0]          sw_tile_i,
  input  logic [1:0]          sw_ni_i,
  input  logic [9:0]          sw_rows_i,
  input  logic [6:0]          sw_nvalid_i,
  input  logic                x_valid_i,
  output logic                x_ready_o,
  input  logic [8*ArrayN-1:0] x_data_i,
  input  logic [6:0]          x_kvalid_i,
  input  logic                dr_valid_i,
  output logic                dr_ready_o,
  input  logic [9:0]          dr_rows_i,
  input  logic [11:0]         dr_chan_i,
  input  logic [2:0]          dr_groups_i,
  input  logic [7:0]          dr_zero_i,
  input  logic [7:0]          dr_lo_i,
  input  logic [7:0]          dr_hi_i,
  output logic                y_valid_o,
  input  logic                y_ready_i,
  output logic [8*ArrayN-1:0] y_data_o,
  output logic [9:0]          y_row_o,
  output logic [1:0]          y_group_o,
  output logic                y_row_last_o,
  output logic                y_last_o,
  output logic                g_room_o,
  input  logic                g_take_i,
  input  logic                g_re_i,
  input  logic [11:0]         g_chan_i,
  input  logic                g_valid_i,
  input  logic                g_uniform_i,
  input  logic [29:0]         g_scale_i,
  input  logic [32*ArrayN-1:0] g_acc_i,
  input  logic [1:0]          g_group_i,
  output logic                ev_busy_o,
  output logic                ev_want_weights_o,
  output logic                ev_loading_o,
  output logic                ev_wait_bank_o,
  output logic                ev_wait_x_o,
  output logic [12:0]         macs_o
);
  localparam int unsigned NiW = $clog2(64 / ArrayN);
  localparam int unsigned Aw = $clog2(lk_pkg::AccRows) + NiW;
  localparam int unsigned BeatW = $clog2(ArrayN * ArrayN / 64);
  localparam int unsigned Latency = prim_mac_array_pkg::latency(ArrayN);

  if (ArrayN != 16 && ArrayN != 32 && ArrayN != 64) begin : gen_bad_n
    $fatal(1, "%m: ArrayN must be 16, 32 or 64, got %0d", ArrayN);
  end

  // ---- wipe: walk all addresses, then let the pipelines run dry, then one cycle of clear --------
  localparam int unsigned WipeCycles = (1 << Aw) + 64;
  logic        wiping_q, wipe_seen_q, wipe_end_q;
  logic [Aw:0] walk_q;
  logic        clear, open;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wiping_q    <= 1'b0;
      wipe_seen_q <= 1'b0;
      wipe_end_q  <= 1'b0;
      walk_q      <= '0;
    end else begin
      wipe_seen_q <= wipe_i;
      wipe_end_q  <= 1'b0;
      if (wipe_i && !wipe_seen_q) begin
        wiping_q <= 1'b1;
        walk_q   <= '0;
      end else if (wiping_q) begin
        walk_q <= walk_q + 1'b1;
        if (walk_q == (Aw + 1)'(WipeCycles - 1)) begin
          wiping_q   <= 1'b0;
          wipe_end_q <= 1'b1;
        end
      end
    end
  end
  assign wipe_busy_o = (wipe_i && !wipe_seen_q) || wiping_q || wipe_end_q;
  assign clear       = clear_i || wipe_busy_o;
  assign open        = !clear;

  // ---- sweep queue and loader -------------------------------------------------------------------
  typedef struct packed {
    logic       skip;
    logic       first;
    logic       last;
    logic [1:0] tile;
    logic [1:0] ni;
    logic [9:0] rows;
    logic [6:0] nvalid;
  } sweep_t;

  sweep_t sw;
  logic   sw_free, sw_head_valid, sw_head_ready;
  logic   take, swap, full, w_we;
  logic [BeatW-1:0] w_beat;
  logic [511:0]     w_data;

  assign sw_ready_o = sw_free && open;
  lk_fifo #(.Width($bits(sweep_t)), .Depth(4)) u_sweeps (
    .clk_i, .rst_ni,
    .clear_i (clear),
    .valid_i (sw_valid_i && open),
    .ready_o (sw_free),
    .data_i  ({sw_skip_i, sw_first_i, sw_last_i, sw_tile_i, sw_ni_i, sw_rows_i, sw_nvalid_i}),
    .valid_o (sw_head_valid),
    .ready_i (sw_head_ready),
    .data_o  (sw),
    .level_o ()
  );

  lk_weight_loader #(.ArrayN(ArrayN)) u_loader (
    .clk_i, .rst_ni,
    .clear_i     (clear),
    .cmd_valid_i (sw_head_valid),
    .cmd_ready_o (sw_head_ready),
    .cmd_skip_i  (sw.skip),
    .wt_valid_i, .wt_ready_o, .wt_data_i,
    .full_o      (full),
    .swap_i      (swap),
    .w_we_o      (w_we),
    .w_beat_o    (w_beat),
    .w_data_o    (w_data)
  );

  // ---- rows: a small FIFO keeps the caller's valid out of wt_ready_o ----------------------------
  logic                xf_ready, xf_valid;
  logic [8*ArrayN-1:0] xf_data;
  logic [6:0]          xf_kvalid;
  assign x_ready_o = xf_ready && open;
  lk_fifo #(.Width(8 * ArrayN + 7), .Depth(2)) u_rows (
    .clk_i, .rst_ni,
    .clear_i (clear && !wiping_q),
    .valid_i (wiping_q || (x_valid_i && open)),
    .ready_o (xf_ready),
    .data_i  (wiping_q ? '0 : {x_kvalid_i, x_data_i}),
    .valid_o (xf_valid),
    .ready_i (take || wiping_q),
    .data_o  ({xf_kvalid, xf_data}),
    .level_o ()
  );

  logic        can_take, held, row_first, row_last, row_follow, drain_next, follow_room;
  logic [1:0]  row_tile, row_ni, drain_tile;
  logic [8:0]  drain_row;
  logic [8:0]  row;
  logic [12:0] macs;
  lk_sweep #(.ArrayN(ArrayN)) u_sweep (
    .clk_i, .rst_ni,
    .clear_i       (clear),
    .load_i        (sw_head_ready && !sw.skip),
    .load_first_i  (sw.first),
    .load_last_i   (sw.last && ArrayN == 64),
    .load_tile_i   (sw.tile),
    .load_ni_i     (sw.ni),
    .load_rows_i   (sw.rows),
    .load_nvalid_i (sw.nvalid),
    .full_i        (full),
    .drained_i     (drain_tile),
    .drain_row_i   (drain_row),
    .drain_next_i  (drain_next),
    .follow_room_i (follow_room),
    .follow_o      (row_follow),
    .x_valid_i     (xf_valid),
    .x_kvalid_i    (xf_kvalid),
    .take_o        (take),
    .swap_o        (swap),
    .ready_o       (can_take),
    .held_o        (held),
    .first_o       (row_first),
    .tile_o        (row_tile),
    .ni_o          (row_ni),
    .row_o         (row),
    .last_o        (row_last),
    .macs_o        (macs)
  );

  // ---- array ------------------------------------------------------------------------------------
  logic [32*ArrayN-1:0] sums;
  logic                 sums_valid;
  prim_mac_array #(.N(ArrayN)) u_array (
    .clk_i, .rst_ni,
    .clear_i   (clear),
    .wipe_i    (wiping_q),
    .w_we_i    (w_we),
    .w_beat_i  (w_beat),
    .w_data_i  (w_data),
    .x_valid_i (take),
    .x_swap_i  (swap),
    .x_data_i  (xf_data),
    .y_valid_o (sums_valid),
    .y_data_o  (sums)
  );

  // ---- accumulators; a row's address overtakes its sums by two cycles ---------------------------
  typedef struct packed {
    logic [1:0] tile;
    logic       first;
    logic       last;
    logic       follow;
    logic [1:0] ni;
    logic [8:0] row;
  } meta_t;
  localparam int unsigned MetaDepth = Latency - 2;
  logic [MetaDepth-1:0]                mv_q;
  logic [MetaDepth*$bits(meta_t)-1:0]  meta_q;
  // verilator lint_off UNUSEDSIGNAL
  meta_t                               meta;  // ni is unused at ArrayN = 64, partly at 32
  // verilator lint_on UNUSEDSIGNAL
  logic [Aw-1:0]                       meta_addr;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) mv_q <= '0;
    else if (clear) mv_q <= '0;
    else mv_q <= {mv_q[MetaDepth-2:0], take};
  end
  always_ff @(posedge clk_i) begin
    if (take || mv_q != '0) begin
      meta_q <= {meta_q[(MetaDepth-1)*$bits(meta_t)-1:0],
                 row_tile, row_first, row_last, row_follow, row_ni, row};
    end
  end
  assign meta = meta_q[(MetaDepth-1)*$bits(meta_t)+:$bits(meta_t)];
  if (NiW == 0) begin : gen_addr64
    assign meta_addr = meta.row;
  end else begin : gen_addr
    assign meta_addr = {meta.row, meta.ni[NiW-1:0]};
  end

  logic                 dr_re, prm_re, follow_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) follow_q <= 1'b0;
    else follow_q <= mv_q[MetaDepth-1] && meta.follow && !clear;
  end
  logic [Aw-1:0]        dr_addr;
  logic [32*ArrayN-1:0] dr_word;
  logic                 landed, landed_first, landed_last;
  logic [1:0]           landed_tile;
  logic [8:0]           landed_row;
  lk_accumulators #(.ArrayN(ArrayN)) u_accumulators (
    .clk_i, .rst_ni,
    .clear_i      (clear),
    .wipe_i       (wiping_q),
    .wipe_addr_i  (walk_q[Aw-1:0]),
    .row_valid_i  (mv_q[MetaDepth-1]),
    .row_tile_i   (meta.tile),
    .row_addr_i   (meta_addr),
    .row_first_i  (meta.first),
    .row_last_i   (meta.last),
    .sum_i        (sums),
    .landed_o       (landed),
    .landed_tile_o  (landed_tile),
    .landed_first_o (landed_first),
    .landed_last_o  (landed_last),
    .landed_row_o   (landed_row),
    .dr_re_i      (dr_re),
    .dr_follow_i  (follow_q),
    .dr_bank_i    (drain_tile[0]),
    .dr_addr_i    (dr_addr),
    .dr_word_o    (dr_word)
  );

  // Sweeps accepted and not yet landed, per tile: queue, shadow, active and in the pipeline.
  logic [4:0] open_q [4];
  for (genvar b = 0; b < 4; b++) begin : gen_open
    logic inc, dec;
    assign inc = sw_valid_i && sw_ready_o && !sw_skip_i && sw_tile_i == 2'(b);
    assign dec = landed && landed_last && landed_tile == 2'(b);
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) open_q[b] <= '0;
      else if (clear) open_q[b] <= '0;
      else open_q[b] <= open_q[b] + 5'(inc) - 5'(dec);
    end
  end

  // Rows that stand of the sweep that lands, if it adds to nothing. Sweeps land in order: a single
  // one that is open of the tile under drain is the one that lands, or the next.
  logic [9:0] standing_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) standing_q <= '0;
    else if (clear) standing_q <= '0;
    else if (landed) standing_q <= landed_last || !landed_first ? '0 : 10'(landed_row) + 10'd1;
  end

  // ---- parameters and drain ---------------------------------------------------------------------
  localparam int unsigned Pw = $clog2(lk_pkg::MaxChannels / ArrayN);
  logic [Pw-1:0]        prm_addr;
  logic [62*ArrayN-1:0] prm;
  lk_param_ram #(.Lanes(ArrayN)) u_params (
    .clk_i,
    .we_i        (prm_we_i && !wipe_busy_o),
    .addr_i      (prm_addr_i),
    .data_i      (prm_data_i),
    .re_i        (prm_re),
    .raddr_i     (prm_addr),
    .rdata_o     (prm),
    .wipe_i      (wiping_q),
    .wipe_addr_i (walk_q[Pw-1:0])
  );

  logic dr_free, y_valid;
  assign dr_ready_o = dr_free && open;
  lk_drain #(.ArrayN(ArrayN)) u_drain (
    .clk_i, .rst_ni,
    .clear_i       (clear),
    .wipe_i        (wiping_q),
    .whole_i       (open_q[drain_tile] == 5'd0),
    .standing_i    (open_q[drain_tile] == 5'd1 ? standing_q : 10'd0),
    .tile_o        (drain_tile),
    .row_o         (drain_row),
    .next_o        (drain_next),
    .follow_room_o (follow_room),
    .follow_take_i (row_follow),
    .follow_i      (follow_q),
    .dr_valid_i    (dr_valid_i && open),
    .dr_ready_o    (dr_free),
    .dr_rows_i, .dr_chan_i, .dr_groups_i, .dr_zero_i, .dr_lo_i, .dr_hi_i,
    .re_o          (dr_re),
    .prm_re_o      (prm_re),
    .addr_o        (dr_addr),
    .word_i        (dr_word),
    .prm_addr_o    (prm_addr),
    .prm_i         (prm),
    .y_valid_o     (y_valid),
    .y_ready_i,
    .y_data_o, .y_row_o, .y_group_o, .y_row_last_o, .y_last_o,
    .g_room_o, .g_take_i, .g_re_i, .g_chan_i, .g_valid_i, .g_uniform_i, .g_scale_i, .g_acc_i,
    .g_group_i
  );
  assign y_valid_o = y_valid;

  // ---- events -----------------------------------------------------------------------------------
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      ev_busy_o         <= 1'b0;
      ev_want_weights_o <= 1'b0;
      ev_loading_o      <= 1'b0;
      ev_wait_bank_o    <= 1'b0;
      ev_wait_x_o       <= 1'b0;
      macs_o            <= '0;
    end else begin
      ev_busy_o         <= take;
      ev_wait_bank_o    <= held;
      ev_wait_x_o       <= can_take && !xf_valid;
      ev_want_weights_o <= !can_take && !held && !full && sw_head_valid && open && !wt_valid_i;
      ev_loading_o      <= !can_take && !held && !full && sw_head_valid && open && wt_valid_i;
      macs_o            <= macs;
    end
  end

`ifdef VERILATOR
  // The address pipeline here and the array's own must agree.
  logic [1:0] expect_q;
  always_ff @(posedge clk_i) begin
    expect_q <= {expect_q[0] && !clear, mv_q[MetaDepth-1] && !clear};
    assert (!rst_ni || clear || sums_valid == expect_q[1])
    else $error("%m: sums and addresses are out of step");
  end
`endif
endmodule
