// Gather: rows of ArrayN bytes that hold several taps of narrow channel blocks, one row per cycle.
//
// The slice of K that a row holds is cut into runs, one per kernel row that it touches; lane i
// makes run i (lk_act_pkg::run_t). From one output pixel to the next a run moves a few bytes along
// a row of the input, so a lane keeps the words under it and asks for a word only when its run
// reaches one. A row of pixels costs as many reads as words lie under its runs, whatever the
// stride, and rows come every cycle unless the lanes together need more than a word per cycle.
//
// A pixel (address of window tap (0, 0), iy, ix) is taken with px_valid_i and px_ready_o; its row
// follows in order, with kvalid. runs_i and geom_i belong to the pixel. Bytes outside the input and
// outside of the runs are pad_value.
//
//   pixel -> which words has each lane, which does it need -> a queue per lane -> read port
//                               `-> tokens, one per pixel -> all words there? -> select -> merge
//
// A token starts when room_i is high; issue_o tells, for the caller's credits. clear_i drops
// everything; wipe_i also erases it.
module lk_gather #(
  parameter int unsigned ArrayN      = 16,
  parameter int unsigned Lanes       = 4,
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords),
  localparam int unsigned Aw         = Ww + 6
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,
  input  logic                           clear_i,
  input  logic                           wipe_i,
  input  lk_act_pkg::geom_t              geom_i,
  input  lk_act_pkg::run_t [Lanes-1:0]   runs_i,
  input  logic                           px_valid_i,
  output logic                           px_ready_o,
  input  logic [Aw-1:0]                  px_pos_i,
  input  logic signed [25:0]             px_iy_i,
  input  logic signed [25:0]             px_ix_i,
  input  logic [6:0]                     px_kvalid_i,
  output logic                           rd_en_o,
  output logic [Ww-1:0]                  rd_addr_o,
  input  logic [511:0]                   rd_data_i,    // ReadLatency cycles later
  input  logic                           room_i,
  output logic                           issue_o,
  output logic                           row_valid_o,
  output logic [8*ArrayN-1:0]            row_o,
  output logic [6:0]                     kvalid_o
);
  import lk_act_pkg::*;

  localparam int unsigned Words = 4;  // words that a lane holds: two in use, two on their way
  localparam int unsigned LaneW = $clog2(Lanes);
  typedef logic [Aw-1:0] addr_t;
  typedef logic [Ww-1:0] word_t;

  // ---- Where each lane's bytes of this pixel lie ----
  typedef struct packed {
    logic       hit;   // some bytes lie inside the input
    addr_t      addr;  // of the first of them
    logic [6:0] len;
    logic [5:0] dst;   // its byte of the row
  } span_t;

  span_t [Lanes-1:0] span_q;
  logic              span_valid_q, span_go;
  logic [6:0]        span_kvalid_q;

  assign px_ready_o = !span_valid_q || span_go;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) span_valid_q <= 1'b0;
    else if (clear_i || wipe_i) span_valid_q <= 1'b0;
    else if (px_ready_o) span_valid_q <= px_valid_i;
  end

  always_ff @(posedge clk_i) begin
    if (px_valid_i && px_ready_o) begin
      span_kvalid_q <= px_kvalid_i;
      for (int unsigned l = 0; l < Lanes; l++) begin
        automatic logic signed [25:0] iy, lo, hi, right;
        iy    = px_iy_i + 26'(runs_i[l].ky);
        right = 26'(geom_i.in_w) - px_ix_i;
        lo    = 26'(runs_i[l].kx);
        hi    = 26'(runs_i[l].kx_end);
        if (lo < -px_ix_i) lo = -px_ix_i;
        if (right < hi) hi = right;
        span_q[l].hit  <= runs_i[l].on && !iy[25] && iy < 26'(geom_i.in_h) && lo < hi;
        span_q[l].addr <= px_pos_i + addr_t'(runs_i[l].row_off) + (addr_t'(lo) << geom_i.in_cp);
        span_q[l].len  <= 7'((hi - lo) << geom_i.in_cp);
        span_q[l].dst  <= runs_i[l].dst + 6'((lo - 26'(runs_i[l].kx)) << geom_i.in_cp);
      end
    end
  end

  // ---- Words: what a lane will hold when the token gets its turn ----
  typedef struct packed {
    logic       hit;
    logic [1:0] pops;  // words that are done with before this pixel
    logic       two;   // the bytes lie in two words
    logic [5:0] src;
    logic [6:0] len;
    logic [5:0] dst;
  } token_t;

  token_t [Lanes-1:0] token;
  logic   [Lanes-1:0] lane_done, want_valid, want_ready;
  word_t  [Lanes-1:0] want;
  logic               token_room;

  assign span_go = span_valid_q && &lane_done && token_room;

  token_t [Lanes-1:0]          head;
  logic                        head_valid, go;
  logic   [6:0]                head_kvalid;

  for (genvar l = 0; l < Lanes; l++) begin : gen_plan
    span_t      s;
    logic [1:0] held_q;             // words from first_q on, 0..2
    word_t      first_q, word;
    logic       asked0_q, asked1_q; // of this pixel's words
    logic       same, next, two, rest0, rest1, ask;
    logic [1:0] pops;
    logic [2:0] cred_q;             // words asked for and not popped

    assign s    = span_q[l];
    assign word = s.addr[Aw-1:6];
    assign two  = 8'(s.addr[5:0]) + 8'(s.len) > 8'd64;
    assign same = held_q != '0 && first_q == word;
    assign next = held_q == 2'd2 && first_q + 1'b1 == word;
    assign pops = same ? 2'd0 : next ? 2'd1 : held_q;

    assign rest0 = span_valid_q && s.hit && !same && !next && !asked0_q;
    assign rest1 = span_valid_q && s.hit && two && !(same && held_q == 2'd2) && !asked1_q;
    assign ask   = (rest0 || rest1) && want_ready[l] && cred_q != 3'(Words);

    assign want_valid[l] = ask;
    assign want[l]       = rest0 ? word : word + 1'b1;
    assign lane_done[l]  = rest0 && rest1 ? 1'b0 : ask || !(rest0 || rest1);

    assign token[l] = '{hit: s.hit, pops: s.hit ? pops : 2'd0, two: two, src: s.addr[5:0],
                        len: s.len, dst: s.dst};

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        held_q   <= '0;
        asked0_q <= 1'b0;
        asked1_q <= 1'b0;
        cred_q   <= '0;
      end else if (clear_i || wipe_i) begin
        held_q   <= '0;
        asked0_q <= 1'b0;
        asked1_q <= 1'b0;
        cred_q   <= '0;
      end else begin
        cred_q <= cred_q + 3'(ask) - (go ? 3'(head[l].pops) : 3'd0);
        if (span_go) begin
          asked0_q <= 1'b0;
          asked1_q <= 1'b0;
          if (s.hit) held_q <= (two || (same && held_q == 2'd2)) ? 2'd2 : 2'd1;
        end else if (ask) begin
          if (rest0) asked0_q <= 1'b1;
          else       asked1_q <= 1'b1;
        end
      end
    end
    always_ff @(posedge clk_i) begin
      if (span_go && s.hit) first_q <= word;
    end
  end

  // ---- Reads: one lane per cycle ----
  word_t [Lanes-1:0] queued;
  logic  [Lanes-1:0] queued_valid, queued_pop;
  for (genvar l = 0; l < Lanes; l++) begin : gen_want
    logic [1:0] unused_level;
    lk_fifo #(
      .Width(Ww),
      .Depth(2)
    ) u_want (
      .clk_i,
      .rst_ni,
      .clear_i(clear_i || wipe_i),
      .valid_i(want_valid[l]),
      .ready_o(want_ready[l]),
      .data_i (want[l]),
      .valid_o(queued_valid[l]),
      .ready_i(queued_pop[l]),
      .data_o (queued[l]),
      .level_o(unused_level)
    );
  end

  logic [LaneW-1:0] pick;
  always_comb begin
    pick = '0;
    for (int unsigned l = Lanes; l > 0; l--) if (queued_valid[l-1]) pick = LaneW'(l - 1);
    queued_pop = '0;
    queued_pop[pick] = queued_valid[pick];
  end

  logic  [ReadLatency:0]            rd_valid_q;
  logic  [ReadLatency:0][LaneW-1:0] rd_lane_q;
  word_t                            rd_addr_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rd_valid_q <= '0;
    else if (clear_i || wipe_i) rd_valid_q <= '0;
    else rd_valid_q <= {rd_valid_q[ReadLatency-1:0], queued_valid != '0};
  end
  always_ff @(posedge clk_i) begin
    if (queued_valid != '0 || rd_valid_q != '0) begin
      rd_lane_q <= {rd_lane_q[ReadLatency-1:0], pick};
      rd_addr_q <= queued[pick];
    end
  end
  assign rd_en_o   = rd_valid_q[0];
  assign rd_addr_o = rd_addr_q;

  // ---- Tokens ----
  logic [3:0] unused_level;
  lk_fifo #(
    .Width($bits(token) + 7),
    .Depth(8)
  ) u_tokens (
    .clk_i,
    .rst_ni,
    .clear_i(clear_i || wipe_i),
    .valid_i(span_go),
    .ready_o(token_room),
    .data_i ({span_kvalid_q, token}),
    .valid_o(head_valid),
    .ready_i(go),
    .data_o ({head_kvalid, head}),
    .level_o(unused_level)
  );

  logic [Lanes-1:0] lane_ready;
  assign go      = head_valid && &lane_ready && room_i && !clear_i && !wipe_i;
  assign issue_o = go;

  // ---- Lanes: the words, and the 64 bytes that hold the run, not yet turned ----
  logic [511:0]            bytes_q [Lanes];
  logic [Lanes-1:0]        hit_q;
  logic [Lanes-1:0][5:0]   turn_q, dst_q;
  logic [Lanes-1:0][6:0]   end_q;
  logic                    merge_q;
  logic [6:0]              merge_kvalid_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) merge_q <= 1'b0;
    else         merge_q <= go;
  end
  always_ff @(posedge clk_i) begin
    if (go) merge_kvalid_q <= head_kvalid;
  end

  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    logic [511:0]             mem_q [Words];
    logic [$clog2(Words)-1:0] wr_q, rd_q, first;
    logic [$clog2(Words):0]   level_q;
    logic                     push;

    assign push          = rd_valid_q[ReadLatency] && rd_lane_q[ReadLatency] == LaneW'(l);
    assign first         = rd_q + head[l].pops;
    assign lane_ready[l] = !head[l].hit ||
                           level_q >= 3'(head[l].pops) + (head[l].two ? 3'd2 : 3'd1);

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        wr_q    <= '0;
        rd_q    <= '0;
        level_q <= '0;
      end else if (clear_i || wipe_i) begin
        wr_q    <= '0;
        rd_q    <= '0;
        level_q <= '0;
      end else begin
        if (push) wr_q <= wr_q + 1'b1;
        if (go) rd_q <= first;
        level_q <= level_q + 3'(push) - (go ? 3'(head[l].pops) : 3'd0);
      end
    end

    // SEC_CM: SPAD.MEM.SEC_WIPE
    for (genvar w = 0; w < Words; w++) begin : gen_word
      always_ff @(posedge clk_i) begin
        if (wipe_i) mem_q[w] <= '0;
        else if (push && wr_q == 2'(w)) mem_q[w] <= rd_data_i;
      end
    end
    always_ff @(posedge clk_i) begin
      if (wipe_i) begin
        bytes_q[l] <= '0;
      end else if (go) begin
        hit_q[l]  <= head[l].hit;
        turn_q[l] <= head[l].src - head[l].dst;
        dst_q[l]  <= head[l].dst;
        end_q[l]  <= 7'(head[l].dst) + head[l].len;
        if (head[l].hit) begin
          // Bytes from src on come from the first word; those before it, wrapped, from the second.
          automatic logic [511:0] low = ~(512'd0) << {head[l].src, 3'd0};
          bytes_q[l] <= (mem_q[first] & low) | (mem_q[2'(first + 1'b1)] & ~low);
        end
      end
    end
  end

  // ---- Turn and merge ----
  // Byte i of the result is byte (i + by) mod 64 of the word.
  function automatic logic [511:0] turned(input logic [511:0] w, input logic [5:0] by);
    logic [1023:0] d;
    d = {w, w} >> {by, 3'd0};
    return d[511:0];
  endfunction

  logic [511:0] run;
  always_comb begin
    run   = '0;
    row_o = '0;
    if (merge_q) begin
      row_o = {ArrayN{geom_i.pad_value}};
      for (int unsigned l = 0; l < Lanes; l++) begin
        if (hit_q[l]) begin
          run = turned(bytes_q[l], turn_q[l]);
          for (int unsigned b = 0; b < ArrayN; b++) begin
            if (7'(b) >= 7'(dst_q[l]) && 7'(b) < end_q[l]) row_o[8*b +: 8] = run[8*b +: 8];
          end
        end
      end
    end
  end
  assign row_valid_o = merge_q;
  assign kvalid_o    = merge_kvalid_q;
endmodule
