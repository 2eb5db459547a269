// Softmax and layer normalisation over the channels of every pixel (host/model/qgraph.hpp has the
// arithmetic). Rows are the pixels of all images; up to 64 of them make a group, which is read from
// the first port of the scratchpad two or three times, a word a cycle:
//
//   Softmax    StMax:  the largest x of each row
//              StSums: e = entry of (largest - x), their sum, its reciprocal times vec_mult
//              StOut:  e once more, requantised with the row's multiplier
//   LayerNorm  StSums: sum of x and of x^2, n * (sum of squares) - (square of sum) + epsilon, the
//                      reciprocal of its root
//              StOut:  (n * x - sum) * reciprocal, requantised with the channel's parameters
//
// Entries come from lk_vector's table, the low byte from the first, the high one from the second.
// Results go through the post unit of lk_matmul as its guest, ArrayN channels a cycle, and with a
// tile per word to lk_writer. hold_i keeps results back while parameters are still loaded.
//
// wipe_i zeroes all that holds sums, maxima or bytes of activations; it must stay for 64 cycles.
module lk_rows #(
  parameter int unsigned ArrayN      = 16,
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords)
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 clear_i,
  input  logic                 wipe_i,
  input  logic                 start_i,
  input  logic                 hold_i,
  // verilator lint_off UNUSEDSIGNAL
  input  lk_pkg::desc_t        desc_i,
  input  lk_act_pkg::geom_t    geom_i,
  // verilator lint_on UNUSEDSIGNAL
  output logic                 busy_o,       // until the last tile has been announced
  // scratchpad
  output logic                 rd_en_o,
  output logic [Ww-1:0]        rd_addr_o,
  input  logic [511:0]         rd_data_i,    // ReadLatency cycles later
  // table
  output logic                 look_valid_o,
  output logic [511:0]         look_x_o,
  input  logic [1:0][511:0]    look_y_i,
  // post unit, see lk_drain
  input  logic                 g_room_i,
  output logic                 g_take_o,
  output logic                 g_re_o,
  output logic [11:0]          g_chan_o,
  output logic                 g_valid_o,
  output logic                 g_uniform_o,
  output logic [29:0]          g_scale_o,
  output logic [32*ArrayN-1:0] g_acc_o,
  output logic [1:0]           g_group_o,
  // writer
  output logic                 tile_valid_o,
  input  logic                 tile_ready_i,
  output lk_act_pkg::tile_t    tile_o
);
  import lk_pkg::*;
  import lk_act_pkg::*;

  localparam int unsigned Aw   = Ww + 6;
  localparam int unsigned LogN = $clog2(ArrayN);
  typedef logic [Aw-1:0] addr_t;
  typedef struct packed {
    addr_t       img;
    addr_t       pos;   // byte address of the pixel
    logic [31:0] left;  // pixels of the image, this one included
  } pos_t;

  logic is_soft;
  assign is_soft = desc_i.op == OpSoftmax;

  // Groups of ArrayN channels in block n.
  function automatic logic [2:0] groups_of(input logic [6:0] n, input logic [6:0] blocks,
                                           input logic [6:0] c_last);
    return n == blocks - 7'd1 ? 3'((c_last + 7'(ArrayN - 1)) >> LogN) : 3'(64 / ArrayN);
  endfunction

  // ---- Walk over a group, once per pass ----
  typedef enum logic [1:0] {StIdle, StMax, StSums, StOut} state_e;
  state_e      state_q;
  pos_t        cur_q, group_q, adv;
  logic [22:0] rows_q;        // rows from the group on
  logic [6:0]  size, row_q;   // of the group; row of it
  logic [6:0]  n_q;           // channel block
  logic [2:0]  part_q;        // groups of the word that are still to take their places
  logic [6:0]  ended_q;       // rows whose largest x, or whose number, stands
  logic        walking_q;     // words of the pass are left to read
  logic        row_ended, n_last, row_last, issue, pass_end;
  logic [2:0]  parts;

  assign size     = rows_q > 23'd64 ? 7'd64 : 7'(rows_q);
  assign n_last   = n_q == geom_i.out_cb - 7'd1;
  assign row_last = row_q == size - 7'd1;
  assign parts    = groups_of(n_q, geom_i.out_cb, geom_i.out_c_last);
  // A word of results is read when its first part has a place; the other parts take theirs in the
  // next cycles, before another word is read.
  assign issue    = walking_q && (state_q != StOut || (part_q == '0 && !hold_i && g_room_i &&
                                                       ended_q > row_q));
  assign g_take_o = (issue && state_q == StOut) || part_q != '0;
  // Numbers of rows come in order, so results may follow before the last of them stands.
  assign pass_end = state_q == StMax ? ended_q == size : !walking_q && part_q == '0;

  always_comb begin
    adv = cur_q;
    if (cur_q.left == 32'd1) begin
      adv.img  = cur_q.img + addr_t'(geom_i.in_step);
      adv.pos  = adv.img;
      adv.left = geom_i.out_pixels;
    end else begin
      adv.pos  = cur_q.pos + addr_t'(geom_i.out_pitch);
      adv.left = cur_q.left - 32'd1;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q   <= StIdle;
      walking_q <= 1'b0;
      part_q    <= '0;
      ended_q   <= '0;
      rows_q    <= '0;
      row_q     <= '0;
      n_q       <= '0;
    end else if (clear_i) begin
      state_q   <= StIdle;
      walking_q <= 1'b0;
      part_q    <= '0;
    end else begin
      if (row_ended) ended_q <= ended_q + 1'b1;
      if (part_q != '0) part_q <= part_q - 1'b1;
      if (issue) begin
        n_q <= n_last ? '0 : n_q + 1'b1;
        if (n_last) row_q <= row_q + 1'b1;
        if (n_last && row_last) walking_q <= 1'b0;
        if (state_q == StOut) part_q <= parts - 3'd1;
      end
      if (start_i) begin
        state_q   <= is_soft ? StMax : StSums;
        walking_q <= 1'b1;
        rows_q    <= geom_i.rows;
        row_q     <= '0;
        n_q       <= '0;
        ended_q   <= '0;
      end else if (state_q != StIdle && pass_end) begin
        walking_q <= 1'b1;
        row_q     <= '0;
        if (state_q != StSums) ended_q <= '0;
        unique case (state_q)
          StMax:   state_q <= StSums;
          StSums:  state_q <= StOut;
          default: begin
            rows_q  <= rows_q - 23'(size);
            state_q <= is_soft ? StMax : StSums;
            if (rows_q == 23'(size)) begin
              state_q   <= StIdle;
              walking_q <= 1'b0;
            end
          end
        endcase
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      cur_q   <= '{img: addr_t'(desc_i.in_base << 6), pos: addr_t'(desc_i.in_base << 6),
                   left: geom_i.out_pixels};
      group_q <= '{img: addr_t'(desc_i.in_base << 6), pos: addr_t'(desc_i.in_base << 6),
                   left: geom_i.out_pixels};
    end else begin
      if (issue && n_last) cur_q <= adv;
      if (state_q != StIdle && pass_end) begin
        if (state_q == StOut) group_q <= cur_q;
        else                  cur_q   <= group_q;
      end
    end
  end

  // ---- Tiles for the writer: one per word, in its own time ----
  logic [22:0] told_rows_q;   // rows whose words have not all been announced
  logic [6:0]  told_n_q;
  assign tile_valid_o = told_rows_q != '0 && !clear_i;
  always_comb begin
    tile_o           = '0;
    tile_o.new_block = told_n_q == '0;
    tile_o.rows      = 23'd1;
    tile_o.n         = told_n_q[5:0];
    tile_o.groups    = groups_of(told_n_q, geom_i.out_cb, geom_i.out_c_last);
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      told_rows_q <= '0;
      told_n_q    <= '0;
    end else if (clear_i) begin
      told_rows_q <= '0;
    end else if (start_i) begin
      told_rows_q <= geom_i.rows;
      told_n_q    <= '0;
    end else if (tile_valid_o && tile_ready_i) begin
      told_n_q <= told_n_q + 1'b1;
      if (told_n_q == geom_i.out_cb - 7'd1) begin
        told_n_q    <= '0;
        told_rows_q <= told_rows_q - 1'b1;
      end
    end
  end
  assign busy_o = told_rows_q != '0;

  // ---- Words that arrive: stage ReadLatency sees the data, stage X holds the pixel's bytes ----
  typedef struct packed {
    state_e     pass;
    logic [5:0] row;
    logic       first;   // word of the row
    logic       last;
    logic [5:0] src;     // byte of the word where the pixel begins
    logic [6:0] count;   // channels
    logic [5:0] n;
    logic [2:0] parts;
  } meta_t;

  localparam int unsigned X = ReadLatency + 1;
  logic [X+6:0] valid_q;      // valid_q[0] drives the scratchpad
  meta_t        meta_q [X+7];
  addr_t        addr, rd_addr_q;

  assign addr      = cur_q.pos + addr_t'({n_q[5:0], 6'd0});
  assign rd_en_o   = valid_q[0];
  assign rd_addr_o = rd_addr_q[Aw-1:6];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else if (clear_i || wipe_i) valid_q <= '0;
    else valid_q <= {valid_q[X+5:0], issue};
  end
  always_ff @(posedge clk_i) begin
    if (issue) begin
      rd_addr_q <= addr;
      meta_q[0] <= '{pass: state_q, row: row_q[5:0], first: n_q == '0, last: n_last, src: addr[5:0],
                     count: n_last ? geom_i.out_c_last : 7'd64, n: n_q[5:0], parts: parts};
    end
    for (int unsigned i = 1; i < X + 7; i++) if (valid_q[i-1]) meta_q[i] <= meta_q[i-1];
  end

  logic [511:0] x_q;
  logic [63:0]  on_q;  // bytes that are channels
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      x_q <= '0;
    end else if (valid_q[ReadLatency]) begin
      x_q <= rd_data_i >> {meta_q[ReadLatency].src, 3'd0};
      for (int unsigned b = 0; b < 64; b++) on_q[b] <= 7'(b) < meta_q[ReadLatency].count;
    end
  end

  // ---- StMax: 64 -> 16 -> 4 -> 1 -> the row's ----
  logic [7:0] most_q [64];  // by row
  function automatic logic [7:0] larger(input logic [7:0] a, input logic [7:0] b);
    return $signed(a) > $signed(b) ? a : b;
  endfunction

  logic [15:0][7:0] max16_q;
  logic [3:0][7:0]  max4_q;
  logic [7:0]       max1_q, run_max_q, row_max;
  logic [X+3:X]     maxing;
  for (genvar s = X; s <= X + 3; s++) begin : gen_maxing
    assign maxing[s] = valid_q[s] && meta_q[s].pass == StMax;
  end
  assign row_max = meta_q[X+3].first ? max1_q : larger(max1_q, run_max_q);

  logic [5:0] walk_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) walk_q <= '0;
    else if (wipe_i) walk_q <= walk_q + 1'b1;
    else walk_q <= '0;
  end

  // SEC_CM: ROWS.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      max16_q        <= '0;
      max4_q         <= '0;
      max1_q         <= '0;
      run_max_q      <= '0;
      most_q[walk_q] <= '0;
    end else begin
      if (maxing[X]) begin
        for (int unsigned i = 0; i < 16; i++) begin
          automatic logic [3:0][7:0] v;
          for (int unsigned j = 0; j < 4; j++) v[j] = on_q[4*i+j] ? x_q[8*(4*i+j) +: 8] : 8'h80;
          max16_q[i] <= larger(larger(v[0], v[1]), larger(v[2], v[3]));
        end
      end
      if (maxing[X+1]) begin
        for (int unsigned i = 0; i < 4; i++) begin
          max4_q[i] <= larger(larger(max16_q[4*i], max16_q[4*i+1]),
                              larger(max16_q[4*i+2], max16_q[4*i+3]));
        end
      end
      if (maxing[X+2]) max1_q <= larger(larger(max4_q[0], max4_q[1]), larger(max4_q[2], max4_q[3]));
      if (maxing[X+3]) begin
        run_max_q <= row_max;
        if (meta_q[X+3].last) most_q[meta_q[X+3].row] <= row_max;
      end
    end
  end

  // ---- Softmax: distance from the largest (stage X+1), exponential (stage X+2) ----
  logic [511:0]      dist_q;
  logic [63:0][15:0] term_q;  // exponentials, or squares
  logic [63:0]       on1_q;
  logic [511:0]      x1_q, x2_q;
  logic [X+2:X]      working;
  for (genvar s = X; s <= X + 2; s++) begin : gen_working
    assign working[s] = valid_q[s] && (meta_q[s].pass == StSums || meta_q[s].pass == StOut);
  end

  assign look_valid_o = working[X+1] && is_soft;
  assign look_x_o     = dist_q;

  // SEC_CM: ROWS.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      dist_q <= '0;
      x1_q   <= '0;
      x2_q   <= '0;
      term_q <= '0;
    end else begin
      if (working[X]) begin
        on1_q <= on_q;
        if (is_soft) begin
          for (int unsigned b = 0; b < 64; b++) begin
            dist_q[8*b +: 8] <= most_q[meta_q[X].row] - x_q[8*b +: 8];
          end
        end else begin
          for (int unsigned b = 0; b < 64; b++) x1_q[8*b +: 8] <= on_q[b] ? x_q[8*b +: 8] : '0;
        end
      end
      if (working[X+1]) begin
        x2_q <= x1_q;
        for (int unsigned b = 0; b < 64; b++) begin
          if (is_soft) begin
            term_q[b] <= on1_q[b] ? {look_y_i[1][8*b +: 8], look_y_i[0][8*b +: 8]} : '0;
          end else if (meta_q[X+1].pass == StSums) begin
            term_q[b] <= 16'(16'($signed(x1_q[8*b +: 8])) * 16'($signed(x1_q[8*b +: 8])));
          end
        end
      end
    end
  end

  // ---- StSums: 64 -> 16 -> 4 -> 1 -> the row's; x beside the terms ----
  logic [15:0][17:0]      t16_q;
  logic [3:0][19:0]       t4_q;
  logic [21:0]            t1_q;
  logic [27:0]            run_t_q, row_t;
  logic [15:0][9:0]       s16_q;   // signed
  logic [3:0][11:0]       s4_q;
  logic [13:0]            s1_q;
  logic [19:0]            run_s_q, row_s;
  logic [19:0]            sum_q [64];  // of x, by row
  logic [X+5:X+2]         summing;
  for (genvar s = X + 2; s <= X + 5; s++) begin : gen_summing
    assign summing[s] = valid_q[s] && meta_q[s].pass == StSums;
  end
  assign row_t = (meta_q[X+5].first ? '0 : run_t_q) + 28'(t1_q);
  assign row_s = (meta_q[X+5].first ? '0 : run_s_q) + 20'($signed(s1_q));

  logic row_done;
  assign row_done = summing[X+5] && meta_q[X+5].last;

  // SEC_CM: ROWS.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      t16_q         <= '0;
      t4_q          <= '0;
      t1_q          <= '0;
      run_t_q       <= '0;
      s16_q         <= '0;
      s4_q          <= '0;
      s1_q          <= '0;
      run_s_q       <= '0;
      sum_q[walk_q] <= '0;
    end else begin
      if (summing[X+2]) begin
        for (int unsigned i = 0; i < 16; i++) begin
          t16_q[i] <= (18'(term_q[4*i]) + 18'(term_q[4*i+1])) +
                      (18'(term_q[4*i+2]) + 18'(term_q[4*i+3]));
          s16_q[i] <= (10'($signed(x2_q[32*i +: 8])) + 10'($signed(x2_q[32*i+8 +: 8]))) +
                      (10'($signed(x2_q[32*i+16 +: 8])) + 10'($signed(x2_q[32*i+24 +: 8])));
        end
      end
      if (summing[X+3]) begin
        for (int unsigned i = 0; i < 4; i++) begin
          t4_q[i] <= (20'(t16_q[4*i]) + 20'(t16_q[4*i+1])) +
                     (20'(t16_q[4*i+2]) + 20'(t16_q[4*i+3]));
          s4_q[i] <= (12'($signed(s16_q[4*i])) + 12'($signed(s16_q[4*i+1]))) +
                     (12'($signed(s16_q[4*i+2])) + 12'($signed(s16_q[4*i+3])));
        end
      end
      if (summing[X+4]) begin
        t1_q <= (22'(t4_q[0]) + 22'(t4_q[1])) + (22'(t4_q[2]) + 22'(t4_q[3]));
        s1_q <= (14'($signed(s4_q[0])) + 14'($signed(s4_q[1]))) +
                (14'($signed(s4_q[2])) + 14'($signed(s4_q[3])));
      end
      if (summing[X+5]) begin
        run_t_q <= row_t;
        run_s_q <= row_s;
        if (meta_q[X+5].last) sum_q[meta_q[X+5].row] <= row_s;
      end
    end
  end

  // ---- The row's number: sum, or n * squares - sum^2 + epsilon; its reciprocal ----
  logic [12:0] channels;
  assign channels = {geom_i.out_cb - 7'd1, 6'd0} + 13'(geom_i.out_c_last);

  logic        v1_q, v2_q, rec_valid;
  logic [5:0]  tag1_q, tag2_q, rec_row, rec_length;
  logic [39:0] part_a_q, part_b_q, v_q;
  logic [16:0] rec;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) {v1_q, v2_q} <= '0;
    else if (clear_i || wipe_i) {v1_q, v2_q} <= '0;
    else {v1_q, v2_q} <= {row_done, v1_q};
  end
  // SEC_CM: ROWS.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      part_a_q <= '0;
      part_b_q <= '0;
      v_q      <= '0;
    end else begin
      if (row_done) begin
        tag1_q   <= meta_q[X+5].row;
        part_a_q <= is_soft ? 40'(row_t) : 40'(row_t) * 40'(channels);
        part_b_q <= is_soft ? '0 : 40'(40'($signed(row_s)) * 40'($signed(row_s)));
      end
      if (v1_q) begin
        tag2_q <= tag1_q;
        v_q    <= part_a_q - part_b_q + (is_soft ? '0 : {desc_i.epsilon_hi, desc_i.epsilon_lo});
      end
    end
  end

  lk_reciprocal #(.TagW(6)) u_reciprocal (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .valid_i (v2_q),
    .root_i  (!is_soft),
    .v_i     (v_q),
    .tag_i   (tag2_q),
    .valid_o (rec_valid),
    .q_o     (rec),
    .length_o(rec_length),
    .tag_o   (rec_row)
  );

  // Softmax: the row's multiplier and shift. LayerNorm: the reciprocal and half the length.
  logic [23:0] factor_q [64];
  logic [5:0]  shift_q  [64];
  logic [40:0] product;
  assign product = rec_valid && is_soft ? 41'(rec) * 41'(desc_i.vec_mult[23:0]) : '0;
  // SEC_CM: ROWS.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      factor_q[walk_q] <= '0;
      shift_q[walk_q]  <= '0;
    end else if (rec_valid) begin
      factor_q[rec_row] <= is_soft ? product[40:17] : 24'(rec);
      shift_q[rec_row]  <= is_soft ? desc_i.vec_shift[5:0] + rec_length - 6'd1
                                   : 6'(rec_length >> 1);
    end
  end
  assign row_ended = rec_valid || (maxing[X+3] && meta_q[X+3].last);

  // ---- StOut: ArrayN channels a cycle; a word's parts follow each other ----
  // Softmax: exponentials stand in stage X+2, so its parts are taken there; LayerNorm: x in X+2.
  logic [2:0]           out_part_q, part;
  logic                 out_valid, more;
  meta_t                out_meta_q, out_meta;
  assign more      = out_part_q != '0;
  assign out_valid = (working[X+2] && meta_q[X+2].pass == StOut) || more;
  assign out_meta  = more ? out_meta_q : meta_q[X+2];
  assign part      = more ? out_meta_q.parts - out_part_q : '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) out_part_q <= '0;
    else if (clear_i || wipe_i) out_part_q <= '0;
    else if (more) out_part_q <= out_part_q - 1'b1;
    else if (out_valid) out_part_q <= meta_q[X+2].parts - 3'd1;
  end
  always_ff @(posedge clk_i) if (out_valid && !more) out_meta_q <= meta_q[X+2];

  // Stages of the results: difference, product, shift. A softmax's exponential passes through.
  logic [2:0]                out_valid_q;
  meta_t                     out_q [3];
  logic [2:0][1:0]           group_pipe_q;
  logic [ArrayN-1:0][20:0]   diff_q;
  logic [ArrayN-1:0][37:0]   prod_q;
  logic [ArrayN-1:0][31:0]   acc_q;
  logic [29:0]               scale_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) out_valid_q <= '0;
    else if (clear_i || wipe_i) out_valid_q <= '0;
    else out_valid_q <= {out_valid_q[1:0], out_valid};
  end
  // SEC_CM: ROWS.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      diff_q  <= '0;
      prod_q  <= '0;
      acc_q   <= '0;
      scale_q <= '0;
    end else begin
      if (out_valid) begin
        out_q[0]        <= out_meta;
        group_pipe_q[0] <= part[1:0];
        for (int unsigned i = 0; i < ArrayN; i++) begin
          automatic logic [5:0] b = 6'(i) | 6'(part) << LogN;
          if (is_soft) diff_q[i] <= 21'(term_q[b]);
          else diff_q[i] <= 21'(21'($signed(x2_q[8*b +: 8])) * 21'(channels)) -
                            21'($signed(sum_q[out_meta.row]));
        end
      end
      if (out_valid_q[0]) begin
        out_q[1]        <= out_q[0];
        group_pipe_q[1] <= group_pipe_q[0];
        for (int unsigned i = 0; i < ArrayN; i++) begin
          prod_q[i] <= is_soft ? 38'(diff_q[i])
                            : 38'(38'($signed(diff_q[i])) * 38'(factor_q[out_q[0].row][16:0]));
        end
      end
      if (out_valid_q[1]) begin
        out_q[2]        <= out_q[1];
        group_pipe_q[2] <= group_pipe_q[1];
        scale_q         <= {shift_q[out_q[1].row], factor_q[out_q[1].row]};
        for (int unsigned i = 0; i < ArrayN; i++) begin
          acc_q[i] <= is_soft ? 32'(prod_q[i])
                           : 32'($signed(prod_q[i]) >>> shift_q[out_q[1].row][4:0]);
        end
      end
    end
  end

  assign g_re_o      = out_valid_q[0] && !is_soft;
  assign g_chan_o    = {out_q[0].n, 6'd0} | 12'(group_pipe_q[0]) << LogN;
  assign g_valid_o   = out_valid_q[2];
  assign g_uniform_o = is_soft;
  assign g_scale_o   = scale_q;
  assign g_acc_o     = acc_q;
  assign g_group_o   = group_pipe_q[2];
endmodule
